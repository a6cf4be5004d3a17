//! Which processes there are: per zone a nats-server, an etcd, a scheduler and its executors. Pure.

use serde::{Deserialize, Serialize};
use std::fmt;

const ZONES: [&str; 5] = ["a", "b", "c", "d", "e"];
pub const MAX_ZONES: usize = ZONES.len();
/// More pretend hosts than a developer's machine can bear.
pub const MAX_EXECUTORS_PER_ZONE: usize = 100;
/// Of the log and everything else in JetStream: what survives the loss of one zone of three or more.
const REPLICAS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Nats,
    Etcd,
    Scheduler,
    Executor,
}

/// One process, running or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub role: Role,
    pub zone: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    zones: usize,
    executors_per_zone: usize,
}

impl Topology {
    /// Panics where there are no or too many zones: the arguments' ranges exclude it.
    pub fn new(zones: usize, executors_per_zone: usize) -> Topology {
        assert!((1..=MAX_ZONES).contains(&zones), "{zones} zones");
        Topology { zones, executors_per_zone }
    }

    pub fn zones(&self) -> &'static [&'static str] {
        &ZONES[..self.zones]
    }

    pub fn replicas(&self) -> usize {
        if self.zones < REPLICAS { 1 } else { REPLICAS }
    }

    /// In the order in which they are started.
    pub fn members(&self) -> Vec<Member> {
        let single = |role: Role| {
            self.zones().iter().map(move |&zone| Member { name: format!("{role}-{zone}"), role, zone }).collect()
        };
        let executors = self.zones().iter().flat_map(|&zone| {
            (1..=self.executors_per_zone).map(move |number| Member {
                name: format!("executor-{zone}-{number}"),
                role: Role::Executor,
                zone,
            })
        });
        let servers: [Vec<Member>; 3] = [single(Role::Nats), single(Role::Etcd), single(Role::Scheduler)];
        servers.into_iter().flatten().chain(executors).collect()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Nats => "nats",
            Role::Etcd => "etcd",
            Role::Scheduler => "scheduler",
            Role::Executor => "executor",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_role_and_zone() {
        let names: Vec<String> = Topology::new(2, 2).members().into_iter().map(|m| m.name).collect();
        assert_eq!(
            names,
            [
                "nats-a",
                "nats-b",
                "etcd-a",
                "etcd-b",
                "scheduler-a",
                "scheduler-b",
                "executor-a-1",
                "executor-a-2",
                "executor-b-1",
                "executor-b-2",
            ]
        );
    }

    #[test]
    fn three_zones_or_more_keep_three_replicas() {
        let replicas: Vec<usize> = (1..=5).map(|zones| Topology::new(zones, 1).replicas()).collect();
        assert_eq!(replicas, [1, 1, 3, 3, 3]);
    }
}
