//! The ports of a data directory: chosen once, kept in `ports.json`, and used again on every run.
//!
//! They must stay, for NATS and etcd know each other by address, and a client that reconnects has only the old one.

use crate::dev::directory::{Directory, write_whole};
use crate::dev::listener;
use crate::dev::topology::{Member, Role, Topology};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Below the ports that Linux gives to outgoing connections: one of those could take a port while its process is dead.
const CHOICE: std::ops::Range<u16> = 12_000..32_000;
/// The servers of a run that was killed a moment ago let go of their ports as they die.
const RELEASE_BOUND: Duration = Duration::from_secs(10);
const RELEASE_POLL: Duration = Duration::from_millis(50);
const DEFAULT_ZONES: usize = 3;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Where clients, or whoever scrapes and probes, connect.
    Listen,
    /// Between members of a NATS or etcd cluster.
    Cluster,
    /// NATS' health and statistics over HTTP.
    Monitor,
}

/// As it stands in `ports.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    zones: usize,
    /// Keeps the members of two clusters apart, should one ever take over the other's ports.
    pub cluster_token: String,
    /// By process and use, such as `nats-a/cluster`.
    ports: BTreeMap<String, u16>,
}

/// Reads or chooses the ports, and checks that every one of them is free.
///
/// Errors: a taken port, with the process that has it; another number of zones than the directory was made with.
pub async fn settle(
    directory: &Directory,
    zones: Option<usize>,
    executors_per_zone: usize,
) -> anyhow::Result<(Topology, Ports)> {
    let path = directory.ports();
    let known = read(&path)?;
    let chosen_zones = match (zones, &known) {
        (Some(zones), Some(known)) if zones != known.zones => bail!(
            "{} was made with {} zones, not {zones}: NATS and etcd cannot change that by themselves. Leave out \
             --zones, or take another --data-dir",
            directory.root().display(),
            known.zones
        ),
        (_, Some(known)) => known.zones,
        (zones, None) => zones.unwrap_or(DEFAULT_ZONES),
    };
    let topology = Topology::new(chosen_zones, executors_per_zone);
    let mut ports = known.unwrap_or_else(|| Ports {
        zones: chosen_zones,
        cluster_token: format!("outlive-{}", uuid::Uuid::now_v7().simple()),
        ports: BTreeMap::new(),
    });
    let members = topology.members();
    await_release(&ports, &members).await?;
    if ports.complete(&members)? {
        let text = serde_json::to_vec_pretty(&ports).context("writing ports.json")?;
        write_whole(&path, &text)?;
    }
    Ok((topology, ports))
}

fn read(path: &Path) -> anyhow::Result<Option<Ports>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let ports: Ports = serde_json::from_slice(&text)
        .with_context(|| format!("{} is damaged: restore it, or take another --data-dir", path.display()))?;
    if !(1..=crate::dev::topology::MAX_ZONES).contains(&ports.zones) {
        bail!("{} says {} zones: it is damaged; restore it, or take another --data-dir", path.display(), ports.zones);
    }
    Ok(Some(ports))
}

fn uses(role: Role) -> &'static [Use] {
    match role {
        Role::Nats => &[Use::Listen, Use::Cluster, Use::Monitor],
        Role::Etcd => &[Use::Listen, Use::Cluster],
        Role::Scheduler | Role::Executor => &[Use::Listen],
    }
}

fn key(name: &str, port_use: Use) -> String {
    match port_use {
        Use::Listen => format!("{name}/listen"),
        Use::Cluster => format!("{name}/cluster"),
        Use::Monitor => format!("{name}/monitor"),
    }
}

fn keys(members: &[Member]) -> impl Iterator<Item = String> {
    members.iter().flat_map(|member| uses(member.role).iter().map(|&port_use| key(&member.name, port_use)))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Waits until the ports that are known are free.
async fn await_release(ports: &Ports, members: &[Member]) -> anyhow::Result<()> {
    let deadline = Instant::now() + RELEASE_BOUND;
    for key in keys(members) {
        let Some(&port) = ports.ports.get(&key) else { continue };
        while !is_free(port) {
            if Instant::now() >= deadline {
                bail!(
                    "port {port}, which is {key}'s here, is taken by {}: stop it, or take another --data-dir",
                    listener::who_listens(port)
                );
            }
            tokio::time::sleep(RELEASE_POLL).await;
        }
    }
    Ok(())
}

impl Ports {
    /// The port of one process. It is there: every member got its ports when they were settled.
    pub fn of(&self, name: &str, port_use: Use) -> u16 {
        let key = key(name, port_use);
        *self.ports.get(&key).unwrap_or_else(|| panic!("no port was settled for {key}"))
    }

    /// Chooses a port for each use that has none yet. Says whether any had to be chosen.
    fn complete(&mut self, members: &[Member]) -> anyhow::Result<bool> {
        let mut taken: BTreeSet<u16> = self.ports.values().copied().collect();
        // From a random place on, so that two that start at the same time do not choose the same.
        let span = u128::from(CHOICE.end - CHOICE.start);
        let offset = uuid::Uuid::now_v7().as_u128() % span;
        let mut free = (0..span).map(|i| CHOICE.start + ((offset + i) % span) as u16);
        let mut chosen = false;
        for key in keys(members) {
            if self.ports.contains_key(&key) {
                continue;
            }
            let port = free
                .find(|port| !taken.contains(port) && is_free(*port))
                .with_context(|| format!("no port from {} to {} is free for {key}", CHOICE.start, CHOICE.end - 1))?;
            taken.insert(port);
            self.ports.insert(key, port);
            chosen = true;
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_stay_and_executors_may_be_added() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let directory = Directory::open(Some(scratch.path().to_owned())).expect("directory");
        let (_, first) = settle(&directory, Some(2), 1).await.expect("first");
        let (topology, second) = settle(&directory, None, 3).await.expect("second");
        assert_eq!(topology, Topology::new(2, 3));
        for (key, port) in &first.ports {
            assert_eq!(second.ports.get(key), Some(port), "{key}");
        }
        let distinct: BTreeSet<u16> = second.ports.values().copied().collect();
        assert_eq!(distinct.len(), second.ports.len(), "each has its own");
        assert_eq!(second.ports.len(), 2 * (3 + 2 + 1 + 3));

        let error = settle(&directory, Some(3), 1).await.expect_err("another number of zones").to_string();
        assert!(error.contains("was made with 2 zones, not 3"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_taken_port_is_named_with_who_has_it() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let directory = Directory::open(Some(scratch.path().to_owned())).expect("directory");
        let (_, ports) = settle(&directory, Some(1), 1).await.expect("first");
        let port = ports.of("etcd-a", Use::Cluster);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
        let error = settle(&directory, None, 1).await.expect_err("taken").to_string();
        assert!(error.contains(&format!("port {port}, which is etcd-a/cluster's here, is taken by")), "{error}");
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let directory = Directory::open(Some(scratch.path().to_owned())).expect("directory");
        for text in ["", "{", "[]", r#"{"zones":99,"cluster_token":"t","ports":{}}"#] {
            std::fs::write(directory.ports(), text).expect("write");
            let error = settle(&directory, None, 1).await.expect_err(text).to_string();
            assert!(error.contains("damaged"), "{text}: {error}");
        }
    }
}
