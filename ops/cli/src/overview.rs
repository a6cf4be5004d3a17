//! What `outlive status` and `outlive top` show: the cluster's state and its executors, asked for together.

use crate::client::Client;
use outlive_schemas::executor::Capacity;
use outlive_schemas::view::{ExecutorList, ExecutorState, ExecutorView, SystemStatus, ZoneView};
use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Overview {
    pub status: SystemStatus,
    pub executors: Vec<ExecutorView>,
}

impl Overview {
    pub async fn ask(client: &Client) -> anyhow::Result<Overview> {
        let status = client.ask_system::<SystemStatus>("status").await?.body;
        let executors = client.ask_system::<ExecutorList>("executor.list").await?.body.executors;
        Ok(Overview { status, executors })
    }

    /// Each zone with its executors, the lost ones last.
    pub fn zones(&self) -> Vec<(&ZoneView, Vec<&ExecutorView>)> {
        let mut of_zone: BTreeMap<_, Vec<&ExecutorView>> = BTreeMap::new();
        for executor in &self.executors {
            of_zone.entry(&executor.zone).or_default().push(executor);
        }
        let mut zones: Vec<_> = self
            .status
            .zones
            .iter()
            .map(|zone| {
                let mut executors = of_zone.remove(&zone.zone).unwrap_or_default();
                executors.sort_by_key(|executor| (executor.state == ExecutorState::Lost, &executor.name));
                (zone, executors)
            })
            .collect();
        zones.sort_by_key(|(zone, _)| &zone.zone);
        zones
    }
}

/// What is there and what is taken, over live executors.
pub fn sums(executors: &[&ExecutorView]) -> (Capacity, Capacity) {
    let (mut there, mut taken) = (Capacity::default(), Capacity::default());
    for executor in executors.iter().filter(|executor| executor.state != ExecutorState::Lost) {
        there += executor.capacity;
        taken += executor.allocated;
    }
    (there, taken)
}

/// How full, in hundredths: whichever of processor, memory and slots is the fullest, for it is what runs out.
pub fn load_percent(there: &Capacity, taken: &Capacity) -> u64 {
    let percent = |taken: u64, there: u64| taken.saturating_mul(100).checked_div(there).unwrap_or(0);
    percent(taken.cpu_millis, there.cpu_millis)
        .max(percent(taken.memory_bytes, there.memory_bytes))
        .max(percent(u64::from(taken.slots), u64::from(there.slots)))
}

/// Ten places, as many filled as tenths are taken; a load above nothing fills one.
pub fn bar(percent: u64) -> String {
    let filled = if percent == 0 { 0 } else { (percent / 10).clamp(1, 10) as usize };
    format!("{}{}", "#".repeat(filled), ".".repeat(10 - filled))
}

/// An overview for tests: three zones, one lost, something restarting.
#[cfg(test)]
pub fn example() -> Overview {
    let executor = |name: &str, zone: &str, state: &str, running: u32| {
        serde_json::json!({
            "name": name, "id": "0197f3c8-0000-7000-8000-000000000001", "zone": zone, "host": "h", "state": state,
            "reason": null, "capacity": {"cpu_millis": 4000, "memory_bytes": 1u64 << 32, "slots": 10},
            "allocated": {"cpu_millis": running * 500, "memory_bytes": 0, "slots": running},
            "running": running, "version": "0.1.0", "last_heartbeat_ms": 120,
        })
    };
    Overview {
        status: serde_json::from_value(serde_json::json!({
            "cluster": "dev", "version": "0.1.0",
            "leader": {"scheduler": "scheduler-a", "zone": "a", "term": 7, "since": "2026-01-01T00:00:00.000Z"},
            "log": {"first_seq": 1, "last_seq": 120, "bytes": 40960, "stream_leader": "nats-b",
                "stream_leader_zone": "b", "witness_seq": 118},
            "zones": [{"zone": "a", "state": "steady", "executors": 2, "running": 4},
                {"zone": "b", "state": "lost", "executors": 0, "running": 0}],
            "jobs": {"pending": 0, "running": 4, "restarting": 1, "failed": 1},
            "stored": [{"kind": "log", "bytes": 40960, "items": 120}],
            "restarting": [{"id": "0197f3c8-0000-7000-8000-000000000002", "namespace": "default", "name": "counter",
                "reason": "exit code 1", "restarts": 3, "since": "2026-01-01T00:00:48.000Z",
                "next_try_at": "2026-01-01T00:01:04.000Z"}],
            "oldest_checkpoint": {"id": "0197f3c8-0000-7000-8000-000000000003", "namespace": "default",
                "name": "digest", "number": 12, "at": "2026-01-01T00:00:20.000Z"},
        }))
        .expect("a reply"),
        executors: serde_json::from_value(serde_json::json!([
            executor("executor-a-2", "a", "draining", 1),
            executor("executor-a-1", "a", "ready", 3),
            executor("executor-b-1", "b", "lost", 0),
        ]))
        .expect("a reply"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_resource_is_the_load() {
        let there = Capacity { cpu_millis: 1_000, memory_bytes: 100, slots: 10 };
        assert_eq!(load_percent(&there, &Capacity { cpu_millis: 500, memory_bytes: 90, slots: 1 }), 90);
        assert_eq!(load_percent(&Capacity::default(), &Capacity::default()), 0);
        assert_eq!((bar(0).as_str(), bar(3).as_str(), bar(55).as_str()), ("..........", "#.........", "#####....."));
        assert_eq!((bar(100).as_str(), bar(300).as_str()), ("##########", "##########"));
    }

    #[test]
    fn zones_hold_their_executors_and_count_only_live_ones() {
        let overview = example();
        let zones = overview.zones();
        assert_eq!(zones[0].1.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["executor-a-1", "executor-a-2"]);
        assert_eq!(sums(&zones[0].1).1.slots, 4);
        assert_eq!(sums(&zones[1].1).0, Capacity::default());
    }
}
