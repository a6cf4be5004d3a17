//! The configuration of every process, written into the data directory before each start, and how each is started.
//!
//! The files are made anew each time: what is to be kept is the ports, the key and the data.

use crate::dev::directory::{Directory, write_whole};
use crate::dev::ports::{Ports, Use};
use crate::dev::programs::Programs;
use crate::dev::topology::{Member, Role, Topology};
use anyhow::Context as _;
use outlive_schemas::limits;
use outlive_schemas::size::ByteSize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub const CLUSTER: &str = "dev";
/// NATS' own maximum. Above our limit of a request, so that one that is too large reaches us and gets its named error.
const NATS_MAX_PAYLOAD_BYTES: usize = 8 * 1024 * 1024;

/// Streams reserve their maximum, and every server here would count the same disk. Large enough that they start on any.
const NATS_MAX_FILE_STORE: &str = "1TB";

/// What each executor offers.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub cpu_millis: u32,
    pub memory: ByteSize,
}

/// How one process is started, watched and shown.
#[derive(Clone, Debug)]
pub struct Process {
    pub member: Member,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Where Prometheus finds its metrics; nats-server has none of its own.
    pub metrics: Option<String>,
    pub probe: Probe,
}

/// A local URL that answers 200 once the process is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub port: u16,
    pub path: &'static str,
}

/// Writes all files, makes the key if there is none, and says how each process is started, in that order.
pub fn write(
    directory: &Directory,
    topology: &Topology,
    ports: &Ports,
    programs: &Programs,
    capacity: Capacity,
) -> anyhow::Result<Vec<Process>> {
    ensure_key(&directory.master_key())?;
    let settings = Settings { directory, topology, ports, programs, capacity };
    for zone in topology.zones() {
        let folder = directory.zone(zone);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    write_whole(&directory.config(), settings.shared(None).as_bytes())?;
    topology.members().into_iter().map(|member| settings.process(member)).collect()
}

fn ensure_key(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    outlive_store::keyring::generate_file(path).with_context(|| format!("making the key {}", path.display()))?;
    Ok(())
}

/// Addresses of the NATS servers, those of `first` at the front.
pub fn nats_urls(topology: &Topology, ports: &Ports, first: Option<&str>) -> Vec<String> {
    nearest_first(topology, first)
        .map(|zone| local_url("nats", ports.of(&format!("nats-{zone}"), Use::Listen)))
        .collect()
}

/// Addresses of the etcd members, as `host:port`.
pub fn etcd_endpoints(topology: &Topology, ports: &Ports, first: Option<&str>) -> Vec<String> {
    nearest_first(topology, first)
        .map(|zone| format!("127.0.0.1:{}", ports.of(&format!("etcd-{zone}"), Use::Listen)))
        .collect()
}

fn nearest_first<'a>(topology: &Topology, first: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    topology
        .zones()
        .iter()
        .copied()
        .filter(move |zone| Some(*zone) == first)
        .chain(topology.zones().iter().copied().filter(move |zone| Some(*zone) != first))
}

fn local_url(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

struct Settings<'a> {
    directory: &'a Directory,
    topology: &'a Topology,
    ports: &'a Ports,
    programs: &'a Programs,
    capacity: Capacity,
}

impl Settings<'_> {
    fn process(&self, member: Member) -> anyhow::Result<Process> {
        let listen = self.ports.of(&member.name, Use::Listen);
        let metrics = Some(format!("{}/metrics", local_url("http", listen)));
        Ok(match member.role {
            Role::Nats => {
                let path = self.directory.zone(member.zone).join("nats.conf");
                write_whole(&path, self.nats(&member).as_bytes())?;
                let probe = Probe { port: self.ports.of(&member.name, Use::Monitor), path: "/healthz" };
                let args = vec!["--config".into(), path.into()];
                Process { member, program: self.programs.nats_server.path.clone(), args, metrics: None, probe }
            }
            Role::Etcd => {
                let args = self.etcd(&member);
                let probe = Probe { port: listen, path: "/health" };
                Process { member, program: self.programs.etcd.path.clone(), args, metrics, probe }
            }
            Role::Scheduler | Role::Executor => {
                let path = self.directory.zone(member.zone).join(format!("{}.toml", member.name));
                let own = if member.role == Role::Scheduler { self.scheduler(&member) } else { self.executor(&member) };
                write_whole(&path, format!("{}\n{own}", self.shared(Some(member.zone))).as_bytes())?;
                let args = vec!["--config".into(), path.into(), member.role.to_string().into()];
                // A scheduler that stands by is of use as well, and may not call itself ready.
                let path = if member.role == Role::Scheduler { "/livez" } else { "/readyz" };
                let probe = Probe { port: listen, path };
                Process { member, program: self.programs.outlive.clone(), args, metrics, probe }
            }
        })
    }

    fn nats(&self, member: &Member) -> String {
        let Member { name, zone, .. } = member;
        let port = |port_use| self.ports.of(name, port_use);
        let store = quoted(&self.directory.zone(zone).join("nats").display().to_string());
        // Pings: a server notices in some seconds, not minutes, that a client is gone without a word.
        // unique_tag: no two replicas of a stream in one zone.
        let mut text = format!(
            "server_name: {name}\n\
             listen: \"127.0.0.1:{}\"\n\
             http: \"127.0.0.1:{}\"\n\
             max_payload: {NATS_MAX_PAYLOAD_BYTES}\n\
             ping_interval: \"2s\"\n\
             ping_max: 2\n\
             server_tags: [\"az:{zone}\"]\n\
             jetstream {{\n  store_dir: {store}\n  max_file_store: {NATS_MAX_FILE_STORE}\n  sync_interval: always\n  unique_tag: \"az:\"\n}}\n",
            port(Use::Listen),
            port(Use::Monitor),
        );
        if self.topology.zones().len() > 1 {
            let others = self.topology.zones().iter().filter(|other| *other != zone);
            let routes: Vec<String> = others
                .map(|other| quoted(&local_url("nats", self.ports.of(&format!("nats-{other}"), Use::Cluster))))
                .collect();
            text += &format!(
                "cluster {{\n  name: {}\n  listen: \"127.0.0.1:{}\"\n  routes: [{}]\n}}\n",
                self.ports.cluster_token,
                port(Use::Cluster),
                routes.join(", "),
            );
        }
        text
    }

    fn etcd(&self, member: &Member) -> Vec<OsString> {
        let client = local_url("http", self.ports.of(&member.name, Use::Listen));
        let peer_of = |name: &str| local_url("http", self.ports.of(name, Use::Cluster));
        let peer = peer_of(&member.name);
        let zones = self.topology.zones().iter();
        let all: Vec<String> =
            zones.map(|zone| format!("etcd-{zone}")).map(|name| format!("{name}={}", peer_of(&name))).collect();
        let data = self.directory.zone(member.zone).join("etcd");
        let flags: [(&str, OsString); 13] = [
            ("--name", member.name.clone().into()),
            ("--data-dir", data.into()),
            ("--listen-client-urls", client.clone().into()),
            ("--advertise-client-urls", client.into()),
            ("--listen-peer-urls", peer.clone().into()),
            ("--initial-advertise-peer-urls", peer.into()),
            ("--initial-cluster", all.join(",").into()),
            ("--initial-cluster-token", self.ports.cluster_token.clone().into()),
            ("--initial-cluster-state", "new".into()),
            ("--auto-compaction-mode", "periodic".into()),
            ("--auto-compaction-retention", "10m".into()),
            ("--logger", "zap".into()),
            ("--log-outputs", "stderr".into()),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect()
    }

    /// What every part and every command needs to know.
    fn shared(&self, zone: Option<&str>) -> String {
        let list = |values: Vec<String>| values.iter().map(|v| quoted(v)).collect::<Vec<_>>().join(", ");
        let cluster = match zone {
            Some(zone) => format!("name = {}\nzone = {}", quoted(CLUSTER), quoted(zone)),
            None => format!("name = {}", quoted(CLUSTER)),
        };
        format!(
            "[cluster]\n{cluster}\n\n[nats]\nservers = [{}]\n\n[etcd]\nendpoints = [{}]\n\n[keys]\nfiles = [{}]\n\n\
             [log]\nreplicas = {}\n",
            list(nats_urls(self.topology, self.ports, zone)),
            list(etcd_endpoints(self.topology, self.ports, zone)),
            quoted(&self.directory.master_key().display().to_string()),
            self.topology.replicas(),
        )
    }

    fn scheduler(&self, member: &Member) -> String {
        let listen = format!("127.0.0.1:{}", self.ports.of(&member.name, Use::Listen));
        // A zone that was killed by hand is wanted back soon.
        format!("[scheduler]\nname = {}\nlisten = {}\nzone_settle = \"5s\"\n", quoted(&member.name), quoted(&listen))
    }

    fn executor(&self, member: &Member) -> String {
        let listen = format!("127.0.0.1:{}", self.ports.of(&member.name, Use::Listen));
        let data = self.directory.zone(member.zone).join(&member.name).display().to_string();
        let Capacity { cpu_millis, memory } = self.capacity;
        format!(
            "[executor]\nname = {}\nlisten = {}\ndata_dir = {}\n\
             capacity = {{ cpu_millis = {cpu_millis}, memory = {}, slots = {} }}\n\
             drain_timeout = \"6s\"\n",
            quoted(&member.name),
            quoted(&listen),
            quoted(&data),
            quoted(&memory.to_string()),
            limits::SLOTS_DEFAULT,
        )
    }
}

/// A string as TOML and nats-server's configuration write it; JSON's is good in both.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::programs::{Program, Version};

    async fn written(zones: usize) -> (tempfile::TempDir, Directory, Vec<Process>) {
        let scratch = tempfile::tempdir().expect("tempdir");
        let directory = Directory::open(Some(scratch.path().join("a \"quoted\" dir"))).expect("directory");
        let (topology, ports) = crate::dev::ports::settle(&directory, Some(zones), 1).await.expect("ports");
        let program = |name: &str| Program { path: name.into(), version: Version::default() };
        let programs = Programs {
            nats_server: program("nats-server"),
            etcd: program("etcd"),
            outlive: "outlive".into(),
            warnings: vec![],
        };
        let capacity = Capacity { cpu_millis: 1_000, memory: ByteSize::mib(512) };
        let processes = write(&directory, &topology, &ports, &programs, capacity).expect("write");
        (scratch, directory, processes)
    }

    #[tokio::test]
    async fn a_zones_own_servers_come_first() {
        let (_scratch, directory, _) = written(3).await;
        let text = std::fs::read_to_string(directory.zone("b").join("executor-b-1.toml")).expect("read");
        let settings = config::Config::builder()
            .add_source(config::File::from_str(&text, config::FileFormat::Toml))
            .build()
            .expect("valid TOML, whatever the directory is called");
        let ports: serde_json::Value =
            serde_json::from_slice(&std::fs::read(directory.ports()).expect("read")).expect("json");
        let servers = settings.get_array("nats.servers").expect("servers");
        let own = format!("nats://127.0.0.1:{}", ports["ports"]["nats-b/listen"]);
        assert_eq!(servers[0].clone().into_string().expect("text"), own);
        assert_eq!(servers.len(), 3);
        assert_eq!(settings.get_string("cluster.zone").expect("zone"), "b");
        assert_eq!(settings.get_int("log.replicas").expect("replicas"), 3);
        assert_eq!(settings.get_string("executor.capacity.memory").expect("memory"), "512MiB");
        assert!(settings.get_string("executor.data_dir").expect("dir").contains("a \"quoted\" dir"));
    }

    #[tokio::test]
    async fn one_zone_has_no_routes_and_the_key_is_kept() {
        let (_scratch, directory, processes) = written(1).await;
        assert_eq!(processes.len(), 4);
        let nats = std::fs::read_to_string(directory.zone("a").join("nats.conf")).expect("read");
        assert!(!nats.contains("routes"), "{nats}");
        let key = std::fs::read(directory.master_key()).expect("key");
        ensure_key(&directory.master_key()).expect("again");
        assert_eq!(std::fs::read(directory.master_key()).expect("key"), key);
    }
}
