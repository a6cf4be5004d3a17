//! `processes.json`: what runs, for scripts and tests (contract, section 5). Fields may be added, never changed.

use crate::dev::topology::Role;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Addresses for clients, as URLs.
    pub nats: Vec<String>,
    /// Addresses for clients, as `host:port`.
    pub etcd: Vec<String>,
    pub zones: Vec<String>,
    pub processes: Vec<ProcessRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    pub name: String,
    pub role: Role,
    pub zone: String,
    pub state: State,
    /// Absent while it is dead.
    pub pid: Option<u32>,
    /// Where Prometheus finds its metrics; nats-server has none of its own.
    pub metrics: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    Paused,
    Dead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_the_contracts() {
        let record = Record {
            nats: vec!["nats://127.0.0.1:4222".to_owned()],
            etcd: vec!["127.0.0.1:2379".to_owned()],
            zones: vec!["a".to_owned()],
            processes: vec![ProcessRecord {
                name: "executor-a-1".to_owned(),
                role: Role::Executor,
                zone: "a".to_owned(),
                state: State::Running,
                pid: Some(123),
                metrics: Some("http://127.0.0.1:9000/metrics".to_owned()),
            }],
        };
        assert_eq!(
            serde_json::to_string(&record).expect("json"),
            r#"{"nats":["nats://127.0.0.1:4222"],"etcd":["127.0.0.1:2379"],"zones":["a"],"processes":[{"name":"executor-a-1","role":"executor","zone":"a","state":"running","pid":123,"metrics":"http://127.0.0.1:9000/metrics"}]}"#
        );
    }
}
