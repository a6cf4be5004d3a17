//! The scheduler's metrics, by the names of the contract, each described once.

use crate::journal::Committed;
use crate::leader::Leader;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use outlive_core::state::State;
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{ExecutorState, Status};
use std::collections::BTreeMap;

const COMMIT_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
const COMMIT_EVENTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0];
const START_SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0];
const RECOVERY_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 60.0, 300.0];
const REPLAY_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The histograms and their bounds.
pub const BUCKETS: &[(&str, &[f64])] = &[
    ("outlive_log_commit_seconds", COMMIT_SECONDS),
    ("outlive_log_commit_events", COMMIT_EVENTS),
    ("outlive_job_start_delay_seconds", START_SECONDS),
    ("outlive_job_recovery_seconds", RECOVERY_SECONDS),
    ("outlive_replay_seconds", REPLAY_SECONDS),
];

pub fn describe(version: &'static str) {
    describe_gauge!("outlive_build_info", "Always 1; the labels say which build this is.");
    describe_gauge!("outlive_leader", "1 on the scheduler that leads, else 0.");
    describe_gauge!("outlive_term", "The newest term this scheduler knows of.");
    describe_gauge!("outlive_log_sequence", "The newest commit this scheduler has folded.");
    describe_histogram!("outlive_log_commit_seconds", Unit::Seconds, "From sealing a commit until it is durable.");
    describe_histogram!("outlive_log_commit_events", Unit::Count, "Events in a commit.");
    describe_counter!(
        "outlive_log_append_conflicts_total",
        Unit::Count,
        "Appends refused because another scheduler had written."
    );
    describe_gauge!("outlive_witness_lag_commits", "Acknowledged commits that the witness in etcd does not cover yet.");
    describe_counter!("outlive_replay_events_total", Unit::Count, "Events folded from the log.");
    describe_histogram!("outlive_replay_seconds", Unit::Seconds, "From beginning to replay until the log's end.");
    describe_gauge!("outlive_jobs", "Jobs by status; reported by the leader.");
    describe_counter!("outlive_jobs_submitted_total", Unit::Count, "Jobs accepted.");
    describe_counter!("outlive_jobs_finished_total", Unit::Count, "Jobs that are over, by outcome.");
    describe_histogram!(
        "outlive_job_start_delay_seconds",
        Unit::Seconds,
        "From a job's submission until its first attempt runs."
    );
    describe_counter!("outlive_job_recoveries_total", Unit::Count, "Jobs running again after a loss, by cause.");
    describe_histogram!(
        "outlive_job_recovery_seconds",
        Unit::Seconds,
        "From an attempt's last sign of life until the next one runs."
    );
    describe_counter!("outlive_job_downtime_seconds_total", Unit::Seconds, "Time that jobs were away, summed.");
    describe_gauge!(
        "outlive_checkpoint_age_seconds",
        Unit::Seconds,
        "The oldest newest checkpoint among running jobs that have one."
    );
    describe_gauge!("outlive_executors", "Executors by zone and state; reported by the leader.");
    describe_gauge!("outlive_executor_capacity", "What live executors have, by zone and resource.");
    describe_gauge!("outlive_executor_allocated", "What attempts have set aside, by zone and resource.");
    describe_gauge!(
        "outlive_heartbeat_age_seconds",
        Unit::Seconds,
        "The longest time since a live executor was heard."
    );
    describe_counter!("outlive_leader_changes_total", Unit::Count, "Terms this scheduler has seen begin.");
    describe_counter!("outlive_decrypt_failures_total", Unit::Count, "Sealed data that could not be opened.");
    gauge!("outlive_build_info", "version" => version).set(1.0);
    gauge!("outlive_leader").set(0.0);
    counter!("outlive_decrypt_failures_total").absolute(0);
    counter!("outlive_log_append_conflicts_total").absolute(0);
}

pub fn leading(term: Option<Term>) {
    gauge!("outlive_leader").set(if term.is_some() { 1.0 } else { 0.0 });
    if let Some(term) = term {
        gauge!("outlive_term").set(term.0 as f64);
        counter!("outlive_leader_changes_total").increment(1);
    }
}

pub fn position(seq: Sequence) {
    gauge!("outlive_log_sequence").set(seq.0 as f64);
}

pub fn replayed(events: u64, seconds: f64) {
    counter!("outlive_replay_events_total").increment(events);
    histogram!("outlive_replay_seconds").record(seconds);
}

pub fn conflict() {
    counter!("outlive_log_append_conflicts_total").increment(1);
}

pub fn committed(committed: &Committed, seconds: f64) {
    histogram!("outlive_log_commit_seconds").record(seconds);
    histogram!("outlive_log_commit_events").record(committed.events as f64);
    position(committed.seq);
}

/// Counts what an event means; called with the state after it.
pub fn event(state: &State, envelope: &Envelope) {
    match &envelope.event {
        Event::JobSubmitted(_) => counter!("outlive_jobs_submitted_total").increment(1),
        Event::JobFinished(e) => {
            counter!("outlive_jobs_finished_total", "outcome" => e.status.as_str()).increment(1);
            if let Some(job) = state.jobs.get(&e.job).filter(|_| e.started_at.is_some()) {
                first_start(job.submitted_at, job.started_at);
            }
        }
        Event::AttemptStarted(e) => {
            let Some(job) = state.jobs.get(&e.job) else { return };
            if job.started_at == Some(e.started_at) {
                first_start(job.submitted_at, job.started_at);
            } else if let Some(recovery) = job.last_recovery.as_deref().filter(|r| r.resumed_at == e.started_at) {
                let cause = recovery.cause.as_str();
                let seconds = recovery.resumed_at.since(recovery.lost_at).as_secs_f64();
                counter!("outlive_job_recoveries_total", "cause" => cause).increment(1);
                histogram!("outlive_job_recovery_seconds", "cause" => cause).record(seconds);
                // The exporter's counters are whole numbers; a second is as fine as a sum of downtime needs to be.
                counter!("outlive_job_downtime_seconds_total").increment(seconds.round() as u64);
            }
        }
        _ => {}
    }
}

fn first_start(submitted_at: Timestamp, started_at: Option<Timestamp>) {
    if let Some(started_at) = started_at {
        histogram!("outlive_job_start_delay_seconds").record(started_at.since(submitted_at).as_secs_f64());
    }
}

/// What the leader knows as a whole; called about once a second.
pub fn survey(leader: &Leader, now: Timestamp) {
    let state = leader.state();
    for status in Status::ALL {
        gauge!("outlive_jobs", "status" => status.as_str())
            .set(state.counts().get(&status).copied().unwrap_or(0) as f64);
    }
    gauge!("outlive_witness_lag_commits").set(leader.acked().0.saturating_sub(leader.witnessed().0) as f64);

    let mut states: BTreeMap<(String, ExecutorState), u32> = BTreeMap::new();
    let mut oldest_beat_ms = 0;
    for view in leader.watch().executors(state, now) {
        for known in ExecutorState::ALL {
            states.entry((view.zone.to_string(), known)).or_default();
        }
        *states.entry((view.zone.to_string(), view.state)).or_default() += 1;
        if view.state != ExecutorState::Lost {
            oldest_beat_ms = oldest_beat_ms.max(view.last_heartbeat_ms.unwrap_or(0));
        }
    }
    for ((zone, state), count) in states {
        gauge!("outlive_executors", "zone" => zone, "state" => state.as_str()).set(f64::from(count));
    }
    gauge!("outlive_heartbeat_age_seconds").set(oldest_beat_ms as f64 / 1_000.0);

    let mut zones: BTreeMap<&str, [(f64, f64); 3]> = BTreeMap::new();
    for executor in state.executors.values() {
        let sums = zones.entry(executor.registration.zone.as_str()).or_default();
        if executor.is_alive() {
            let (has, taken) = (&executor.registration.capacity, &executor.allocated);
            let pairs = [
                (has.cpu_millis as f64 / 1_000.0, taken.cpu_millis as f64 / 1_000.0),
                (has.memory_bytes as f64, taken.memory_bytes as f64),
                (f64::from(has.slots), f64::from(taken.slots)),
            ];
            for (sum, pair) in sums.iter_mut().zip(pairs) {
                sum.0 += pair.0;
                sum.1 += pair.1;
            }
        }
    }
    for (zone, sums) in zones {
        for (resource, (capacity, allocated)) in ["cpu_cores", "memory_bytes", "slots"].into_iter().zip(sums) {
            gauge!("outlive_executor_capacity", "zone" => zone.to_owned(), "resource" => resource).set(capacity);
            gauge!("outlive_executor_allocated", "zone" => zone.to_owned(), "resource" => resource).set(allocated);
        }
    }
}

/// The age of the oldest newest checkpoint; costs by the number of placed jobs, so it is taken less often.
pub fn checkpoint_age(state: &State, now: Timestamp) {
    let running = state.executors.values().flat_map(|e| &e.attempts).filter_map(|id| state.jobs.get(id));
    let oldest = running.filter_map(|job| job.checkpoints.last()).map(|checkpoint| now.since(checkpoint.at)).max();
    gauge!("outlive_checkpoint_age_seconds").set(oldest.unwrap_or_default().as_secs_f64());
}
