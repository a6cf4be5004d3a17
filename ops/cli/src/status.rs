//! `outlive status`: the cluster at a glance.

use crate::args::Global;
use crate::client::Client;
use crate::human::{self, relative, size};
use crate::output::{self, Details, Output, Table};
use clap::Args;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{SystemStatus, ZoneState};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive status\n  outlive status --output json")]
pub struct StatusArgs {}

pub async fn run(global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let reply = client.ask_system::<SystemStatus>("status").await?;
    match global.output {
        Output::Json => output::line(&reply.raw)?,
        Output::Table => output::line(render(&reply.body, human::now()))?,
    }
    Ok(())
}

fn render(status: &SystemStatus, now: Timestamp) -> String {
    let mut head = Details::new();
    let leader = &status.leader;
    let log = &status.log;
    head.line("Cluster", format!("{} ({})", status.cluster, status.version));
    head.line("Leader", format!("{} in zone {}, {}", leader.scheduler, leader.zone, since(leader.since, now)));
    head.line("Term", leader.term);
    head.line("Log", format!("{} to {}, {}", log.first_seq, log.last_seq, size(log.bytes)));
    head.line("Witness", witness(status));
    let stream = match (&log.stream_leader, &log.stream_leader_zone) {
        (Some(server), Some(zone)) => format!("{server} in zone {zone}"),
        (Some(server), None) => server.clone(),
        (None, _) => "none: JetStream is electing one".to_owned(),
    };
    head.line("Stream leader", stream);

    let mut zones = Table::new(&["ZONE", "STATE", "EXECUTORS", "RUNNING"]);
    for zone in &status.zones {
        let state = match zone.state {
            ZoneState::Steady => "steady",
            ZoneState::Settling => "settling",
            ZoneState::Lost => "lost",
            ZoneState::Draining => "draining",
        };
        zones.row(vec![
            output::cell(&zone.zone),
            output::cell(state),
            output::cell(zone.executors),
            output::cell(zone.running),
        ]);
    }
    let mut jobs = Table::new(&["JOBS", ""]);
    for (&status, count) in status.jobs.iter().filter(|(_, count)| **count > 0) {
        jobs.row(vec![output::status(status), output::cell(count)]);
    }
    let mut stored = Table::new(&["STORED", "SIZE", "ITEMS"]);
    for kind in &status.stored {
        stored.row(vec![output::cell(&kind.kind), output::cell(size(kind.bytes)), output::cell(kind.items)]);
    }
    let or_none = |table: Table, any: bool, none: &str| if any { table.render() } else { none.to_owned() };
    let any_jobs = status.jobs.values().any(|count| *count > 0);
    [
        head.render(),
        or_none(zones, !status.zones.is_empty(), "No executor has joined yet: start one with `outlive executor`."),
        or_none(jobs, any_jobs, "No jobs."),
        stored.render(),
    ]
    .join("\n\n")
}

fn since(at: Timestamp, now: Timestamp) -> String {
    format!("since {at} ({})", relative(at, now))
}

fn witness(status: &SystemStatus) -> String {
    let (seen, last) = (status.log.witness_seq.0, status.log.last_seq.0);
    match last.saturating_sub(seen) {
        0 => seen.to_string(),
        behind => format!("{seen} ({behind} behind)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_at_a_glance() {
        let status: SystemStatus = serde_json::from_value(serde_json::json!({
            "cluster": "dev", "version": "0.1.0",
            "leader": {"scheduler": "scheduler-a", "zone": "a", "term": 7, "since": "2026-01-01T00:00:00.000Z"},
            "log": {"first_seq": 1, "last_seq": 120, "bytes": 40960, "stream_leader": "nats-b",
                "stream_leader_zone": "b", "witness_seq": 118},
            "zones": [{"zone": "a", "state": "steady", "executors": 1, "running": 3},
                {"zone": "b", "state": "lost", "executors": 0, "running": 0}],
            "jobs": {"pending": 0, "running": 3, "failed": 1},
            "stored": [{"kind": "log", "bytes": 40960, "items": 120}]
        }))
        .expect("a reply");
        let now = Timestamp::parse("2026-01-01T00:01:00Z").expect("a time");
        assert_eq!(
            render(&status, now),
            "\
Cluster        dev (0.1.0)
Leader         scheduler-a in zone a, since 2026-01-01T00:00:00.000Z (1m ago)
Term           7
Log            1 to 120, 40.0 KiB
Witness        118 (2 behind)
Stream leader  nats-b in zone b

ZONE  STATE   EXECUTORS  RUNNING
a     steady  1          3
b     lost    0          0

JOBS
running  3
failed   1

STORED  SIZE      ITEMS
log     40.0 KiB  120"
        );
    }
}
