//! The scheduler's metrics: what counts towards them, and when.
//!
//! `table` names them all, `survey` shows what the leader knows as a whole, `streams` how full its streams are.

mod board;
pub mod streams;
mod survey;
mod table;

pub use survey::Survey;
pub use table::METRICS;

use crate::journal::Committed;
use metrics::{counter, gauge, histogram};
use outlive_core::state::Job;
use outlive_schemas::error::ErrorCode;
use outlive_schemas::event::{Cause, Envelope, Event};
use outlive_schemas::id::{Sequence, Term, Zone};
use outlive_schemas::schedule::{ScheduleTicked, TickKind, TickOutcome};
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{ExecutorState, Status};
use outlive_store::log::bridged::Standing;
use outlive_store::telemetry::metric::begin_shared;
use std::sync::atomic::{AtomicU64, Ordering};

/// What executors have, and attempts set aside.
const RESOURCES: [&str; 3] = ["cpu_cores", "memory_bytes", "slots"];
/// Ways for a snapshot to end.
const SNAPSHOT_OUTCOMES: [&str; 2] = ["ready", "failed"];

/// Begins every series whose labels are known beforehand: what is there as 0 has a rate from the first time on. What
/// only the leader has values of is there as well, of zones the scheduler's own.
pub fn begin(version: &'static str, zone: &Zone) {
    begin_shared(version, "scheduler");
    for name in [
        "outlive_leader",
        "outlive_term",
        "outlive_log_sequence",
        "outlive_log_bridge_pending_commits",
        "outlive_witness_lag_commits",
        "outlive_checkpoint_age_seconds",
        "outlive_heartbeat_age_seconds",
    ] {
        gauge!(name).set(0.0);
    }
    for status in Status::ALL {
        gauge!("outlive_jobs", "status" => status.as_str()).set(0.0);
    }
    for state in ExecutorState::ALL {
        gauge!("outlive_executors", "zone" => zone.to_string(), "state" => state.as_str()).set(0.0);
    }
    for resource in RESOURCES {
        for name in ["outlive_executor_capacity", "outlive_executor_allocated"] {
            gauge!(name, "zone" => zone.to_string(), "resource" => resource).set(0.0);
        }
    }
    for name in [
        "outlive_leader_changes_total",
        "outlive_log_append_conflicts_total",
        "outlive_log_append_retries_total",
        "outlive_log_append_failures_total",
        "outlive_log_bridged_commits_total",
        "outlive_replay_events_total",
        "outlive_jobs_submitted_total",
        "outlive_jobs_preempted_total",
        "outlive_job_downtime_seconds_total",
    ] {
        counter!(name).increment(0);
    }
    for name in [
        "outlive_log_commit_seconds",
        "outlive_log_commit_events",
        "outlive_replay_seconds",
        "outlive_job_start_delay_seconds",
    ] {
        drop(histogram!(name));
    }
    for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
        counter!("outlive_jobs_finished_total", "outcome" => status.as_str()).increment(0);
    }
    for cause in Cause::ALL {
        counter!("outlive_job_recoveries_total", "cause" => cause.as_str()).increment(0);
        drop(histogram!("outlive_job_recovery_seconds", "cause" => cause.as_str()));
    }
    for outcome in TickOutcome::ALL {
        counter!("outlive_schedule_ticks_total", "outcome" => outcome.as_str()).increment(0);
    }
    drop(histogram!("outlive_schedule_tick_delay_seconds"));
    for outcome in SNAPSHOT_OUTCOMES {
        counter!("outlive_snapshots_total", "outcome" => outcome).increment(0);
    }
    for code in ErrorCode::ALL {
        counter!("outlive_requests_refused_total", "code" => code.as_str()).increment(0);
    }
}

pub fn leading(term: Option<Term>) {
    gauge!("outlive_leader").set(if term.is_some() { 1.0 } else { 0.0 });
    if let Some(term) = term {
        self::term(term);
        counter!("outlive_leader_changes_total").increment(1);
    }
}

pub fn term(term: Term) {
    gauge!("outlive_term").set(term.0 as f64);
}

pub fn position(seq: Sequence) {
    gauge!("outlive_log_sequence").set(seq.0 as f64);
}

/// Events taken in from the log.
pub fn folded(events: u64) {
    counter!("outlive_replay_events_total").increment(events);
}

pub fn replayed(seconds: f64) {
    histogram!("outlive_replay_seconds").record(seconds);
}

pub fn conflict() {
    counter!("outlive_log_append_conflicts_total").increment(1);
}

/// Bridged commits of the present term that are counted already.
static BRIDGED: AtomicU64 = AtomicU64::new(0);

pub fn bridge(standing: Standing) {
    gauge!("outlive_log_bridge_pending_commits").set(standing.pending as f64);
    let already = BRIDGED.swap(standing.bridged, Ordering::Relaxed);
    // Counted anew in every term.
    let more = if standing.bridged >= already { standing.bridged - already } else { standing.bridged };
    counter!("outlive_log_bridged_commits_total").increment(more);
}

/// The log has refused a commit for good.
pub fn append_failed() {
    counter!("outlive_log_append_failures_total").increment(1);
}

pub fn did_not_open() {
    counter!("outlive_decrypt_failures_total").increment(1);
}

pub fn refused(code: ErrorCode) {
    counter!("outlive_requests_refused_total", "code" => code.as_str()).increment(1);
}

pub fn committed(committed: &Committed, seconds: f64) {
    histogram!("outlive_log_commit_seconds").record(seconds);
    histogram!("outlive_log_commit_events").record(committed.events as f64);
    position(committed.seq);
}

/// Counts what an event means; called with the job as it is after it.
pub fn event(job: &Job, envelope: &Envelope) {
    match &envelope.event {
        Event::JobSubmitted(_) => counter!("outlive_jobs_submitted_total").increment(1),
        Event::JobPreempted(_) => counter!("outlive_jobs_preempted_total").increment(1),
        Event::JobFinished(e) => {
            counter!("outlive_jobs_finished_total", "outcome" => e.status.as_str()).increment(1);
            if e.started_at.is_some() {
                first_start(job.counted_from(), job.started_at);
            }
        }
        Event::AttemptStarted(e) => {
            if job.started_at == Some(e.started_at) {
                first_start(job.counted_from(), job.started_at);
            } else if let Some(recovery) = job.last_recovery.as_deref().filter(|r| r.resumed_at == e.started_at) {
                let cause = recovery.cause.as_str();
                let away = recovery.resumed_at.since(recovery.lost_at);
                counter!("outlive_job_recoveries_total", "cause" => cause).increment(1);
                histogram!("outlive_job_recovery_seconds", "cause" => cause).record(away.as_secs_f64());
                DOWNTIME.add(away.0);
            }
        }
        Event::SnapshotCompleted(_) => counter!("outlive_snapshots_total", "outcome" => "ready").increment(1),
        Event::SnapshotFailed(_) => counter!("outlive_snapshots_total", "outcome" => "failed").increment(1),
        _ => {}
    }
}

/// Counts what became of a tick. One that had waited is told twice, and counts as what it came to last, too.
pub fn ticked(e: &ScheduleTicked, at: Timestamp) {
    counter!("outlive_schedule_ticks_total", "outcome" => e.outcome.as_str()).increment(e.count);
    if e.kind == TickKind::Due && e.outcome != TickOutcome::Missed {
        histogram!("outlive_schedule_tick_delay_seconds").record(at.since(e.tick).as_secs_f64());
    }
}

/// The exporter's counters are whole numbers, and many recoveries take less than a second: the sum is kept in
/// milliseconds.
#[derive(Default)]
struct Downtime {
    sum_ms: AtomicU64,
}

static DOWNTIME: Downtime = Downtime { sum_ms: AtomicU64::new(0) };

impl Downtime {
    fn add(&self, away_ms: u64) {
        let sum_ms = self.sum_ms.fetch_add(away_ms, Ordering::Relaxed) + away_ms;
        counter!("outlive_job_downtime_seconds_total").absolute(sum_ms / 1_000);
    }
}

fn first_start(due_at: Timestamp, started_at: Option<Timestamp>) {
    if let Some(started_at) = started_at {
        histogram!("outlive_job_start_delay_seconds").record(started_at.since(due_at).as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
