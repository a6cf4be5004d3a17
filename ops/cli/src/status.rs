//! `outlive status`: the cluster at a glance, what a person wants to know first at the top.

use crate::args::Global;
use crate::client::Client;
use crate::human::{self, relative, size};
use crate::output::{self, Details, Output, Table};
use crate::overview::{Overview, bar, load_percent, sums};
use clap::Args;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{ExecutorState, Status, SystemStatus};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive status\n  outlive status --output json")]
pub struct StatusArgs {}

pub async fn run(global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    match global.output {
        Output::Json => output::line(&client.ask_system::<SystemStatus>("status").await?.raw)?,
        Output::Table => output::line(render(&Overview::ask(&client).await?, human::now()))?,
    }
    Ok(())
}

pub fn render(overview: &Overview, now: Timestamp) -> String {
    let status = &overview.status;
    let or_none = |table: Table, any: bool, none: &str| if any { table.render() } else { none.to_owned() };
    let any_jobs = status.jobs.values().any(|count| *count > 0);
    let mut parts = vec![
        head(status, now).render(),
        or_none(
            zones(overview),
            !status.zones.is_empty(),
            "No executor has joined yet: start one with `outlive executor`.",
        ),
        or_none(jobs(status), any_jobs, "No jobs."),
    ];
    if !status.restarting.is_empty() {
        parts.push(restarting(status, now));
    }
    let mut stored = Table::new(&["STORED", "SIZE", "ITEMS"]);
    for kind in &status.stored {
        stored.row(vec![output::cell(&kind.kind), output::cell(size(kind.bytes)), output::cell(kind.items)]);
    }
    parts.push(stored.render());
    parts.join("\n\n")
}

fn head(status: &SystemStatus, now: Timestamp) -> Details {
    let mut head = Details::new();
    for (name, value) in facts(status, now) {
        head.line(name, value);
    }
    head
}

/// Who leads, and where the log is.
pub fn facts(status: &SystemStatus, now: Timestamp) -> Vec<(&'static str, String)> {
    let (leader, log) = (&status.leader, &status.log);
    let stream = match (&log.stream_leader, &log.stream_leader_zone) {
        (Some(server), Some(zone)) => format!("{server} in zone {zone}"),
        (Some(server), None) => server.clone(),
        (None, _) => "none: JetStream is electing one".to_owned(),
    };
    let since = format!("since {} ({})", leader.since, relative(leader.since, now));
    let mut facts = vec![
        ("Cluster", format!("{} ({})", status.cluster, status.version)),
        ("Leader", format!("{} in zone {}, {since}", leader.scheduler, leader.zone)),
        ("Term", leader.term.to_string()),
        ("Log", format!("{} to {}, {}", log.first_seq, log.last_seq, size(log.bytes))),
        ("Witness", witness(status)),
        ("Stream leader", stream),
    ];
    if let Some(oldest) = &status.oldest_checkpoint {
        let (job, number) = (format!("{}/{}", oldest.namespace, oldest.name), oldest.number);
        facts.push(("Oldest checkpoint", format!("{number} of {job}, {}", relative(oldest.at, now))));
    }
    facts
}

fn witness(status: &SystemStatus) -> String {
    let (seen, last) = (status.log.witness_seq.0, status.log.last_seq.0);
    match last.saturating_sub(seen) {
        0 => seen.to_string(),
        behind => format!("{seen} ({behind} behind)"),
    }
}

fn zones(overview: &Overview) -> Table {
    let mut table = Table::new(&["ZONE", "STATE", "EXECUTORS", "RUNNING", "LOAD", ""]);
    for (zone, executors) in overview.zones() {
        let (there, taken) = sums(&executors);
        let percent = load_percent(&there, &taken);
        let odd: Vec<String> = executors
            .iter()
            .filter(|executor| executor.state != ExecutorState::Ready)
            .map(|executor| format!("{} {}", executor.name, executor.state.as_str()))
            .take(3)
            .collect();
        table.row(vec![
            output::cell(&zone.zone),
            output::cell(zone.state.as_str()),
            output::cell(zone.executors),
            output::cell(zone.running),
            output::cell(format!("{} {percent:>3}%", bar(percent))),
            output::cell(odd.join(", ")),
        ]);
    }
    table
}

fn jobs(status: &SystemStatus) -> Table {
    let mut jobs = Table::new(&["JOBS", ""]);
    for (&status, count) in status.jobs.iter().filter(|(_, count)| **count > 0) {
        jobs.row(vec![output::status(status), output::cell(count)]);
    }
    jobs
}

fn restarting(status: &SystemStatus, now: Timestamp) -> String {
    let mut table = Table::new(&["RESTARTING", "AWAY", "RESTARTS", "NEXT TRY", "REASON"]);
    for job in &status.restarting {
        table.row(vec![
            output::cell(format!("{}/{}", job.namespace, job.name)),
            output::cell(human::rough(now.since(job.since))),
            output::cell(job.restarts),
            output::cell(next_try(job.next_try_at, now)),
            output::maybe(job.reason.as_deref()),
        ]);
    }
    let shown = status.restarting.len() as u64;
    let all = status.jobs.get(&Status::Restarting).copied().unwrap_or(shown);
    let more = if all > shown { format!("\n… and {} more", all - shown) } else { String::new() };
    format!("{}{more}", table.render())
}

/// One whose time has come waits for room.
pub fn next_try(at: Timestamp, now: Timestamp) -> String {
    if at > now { relative(at, now) } else { "when there is room".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::example;

    #[test]
    fn a_cluster_at_a_glance() {
        let now = Timestamp::parse("2026-01-01T00:01:00Z").expect("a time");
        assert_eq!(
            render(&example(), now),
            "\
Cluster            dev (0.1.0)
Leader             scheduler-a in zone a, since 2026-01-01T00:00:00.000Z (1m ago)
Term               7
Log                1 to 120, 40.0 KiB
Witness            118 (2 behind)
Stream leader      nats-b in zone b
Oldest checkpoint  12 of default/digest, 40s ago

ZONE  STATE   EXECUTORS  RUNNING  LOAD
a     steady  2          4        ##........  25%  executor-a-2 draining
b     lost    0          0        ..........   0%  executor-b-1 lost

JOBS
running     4
restarting  1
failed      1

RESTARTING       AWAY  RESTARTS  NEXT TRY  REASON
default/counter  12s   3         in 4.0s   exit code 1

STORED  SIZE      ITEMS
log     40.0 KiB  120"
        );
    }

    #[test]
    fn how_many_are_not_shown_is_said() {
        let mut overview = example();
        overview.status.jobs.insert(Status::Restarting, 41);
        let now = overview.status.restarting[0].next_try_at;
        let text = render(&overview, now);
        assert!(text.contains("… and 40 more") && text.contains("when there is room"), "{text}");
    }
}
