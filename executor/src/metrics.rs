//! The executor's metrics (contract, section 7): their names, their buckets, and what counts towards them.
//!
//! Deliberately not here: what only the leader can count, such as checkpoints that were committed.

use crate::restore::Restored;
use metrics::{counter, gauge, histogram};
use outlive_schemas::checkpoint::Taken;
use outlive_schemas::message::{Health, Outcome};
use outlive_store::telemetry::Metric;
use outlive_store::telemetry::metric::{SHARED, begin_shared};
use std::time::Duration;

const CHECKPOINT_DURATION: &str = "outlive_checkpoint_duration_seconds";
const CHECKPOINT_PAUSE: &str = "outlive_checkpoint_pause_seconds";
const CHECKPOINTS: &str = "outlive_checkpoints_total";
const CHECKPOINT_BYTES: &str = "outlive_checkpoint_bytes_total";
const CHECKPOINT_AGE: &str = "outlive_checkpoint_age_seconds";
const CHECKPOINTS_OVERDUE: &str = "outlive_checkpoints_overdue";
const HEARTBEAT_AGE: &str = "outlive_heartbeat_age_seconds";
const REGISTERED: &str = "outlive_registered";
const LEASE_AGE: &str = "outlive_lease_age_seconds";
const ATTEMPTS_HELD: &str = "outlive_attempts_held";
const ATTEMPTS_ENDED: &str = "outlive_attempts_ended_total";
const SHIMS: &str = "outlive_shims";
const RESTORES: &str = "outlive_restores_total";
const RESTORED_BYTES: &str = "outlive_restored_bytes_total";
const RESTORE_SECONDS: &str = "outlive_restore_seconds";
const REPORTS_WAITING: &str = "outlive_reports_waiting";
const REPORTS_UNANSWERED: &str = "outlive_reports_unanswered_total";
const SCHEDULING_LAG: &str = "outlive_scheduling_lag_seconds";
const DISK_WRITE: &str = "outlive_disk_write_seconds";
const MEMORY_AVAILABLE: &str = "outlive_memory_available_bytes";

/// A few files are milliseconds, gigabytes over a busy network minutes; `checkpoint.timeout` is 10 by default.
const DURATION_BOUNDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// What the job feels: it should be milliseconds, and ends at the limit on a freeze of 30 s.
const PAUSE_BOUNDS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// All of them.
pub const METRICS: &[Metric] = &[
    SHARED[0],
    SHARED[1],
    SHARED[2],
    SHARED[3],
    Metric::counter(CHECKPOINTS, "Checkpoints tried, by outcome: stored, unchanged, failed."),
    Metric::histogram(CHECKPOINT_DURATION, DURATION_BOUNDS, "From the beginning of a checkpoint until it is stored."),
    Metric::histogram(CHECKPOINT_PAUSE, PAUSE_BOUNDS, "How long a job stood still for a checkpoint."),
    Metric::counter(CHECKPOINT_BYTES, "Bytes of checkpoints: the states' sizes, and what was uploaded."),
    Metric::gauge(CHECKPOINT_AGE, "Age of the oldest state that a running job here would fall back to."),
    Metric::gauge(
        CHECKPOINTS_OVERDUE,
        "Running jobs here whose state was last known to be safe more than two of their intervals ago.",
    ),
    Metric::gauge(HEARTBEAT_AGE, "Time since the leader was heard; infinite before the first time."),
    Metric::gauge(REGISTERED, "1 while this executor is registered in etcd, else 0."),
    Metric::gauge(LEASE_AGE, "Time since the lease in etcd was last renewed."),
    Metric::gauge(ATTEMPTS_HELD, "Attempts that run here, or are over and unconfirmed."),
    Metric::counter(ATTEMPTS_ENDED, "Attempts that ended here, by how."),
    Metric::gauge(SHIMS, "Shims that run here: one for each attempt with a process."),
    Metric::counter(RESTORES, "Attempts that began with a checkpoint, by whether it could be put back."),
    Metric::counter(
        RESTORED_BYTES,
        "Bytes of files that were put back, by where they came from: what an earlier attempt left here (local), the store.",
    ),
    Metric::histogram(RESTORE_SECONDS, DURATION_BOUNDS, "Fetching the state of a checkpoint and putting it back."),
    Metric::gauge(REPORTS_WAITING, "Reports that the leader has not confirmed."),
    Metric::counter(REPORTS_UNANSWERED, "Batches of reports without an answer, each sent again."),
    Metric::gauge(SCHEDULING_LAG, "How late timers fire on this host."),
    Metric::gauge(DISK_WRITE, "How long a small durable write to the data directory takes."),
    Metric::gauge(MEMORY_AVAILABLE, "Memory that this host has left."),
];

/// Begins every series whose labels are known beforehand: what is there as 0 has a rate from the first time on. To be
/// called once the recorder is there.
pub fn begin() {
    begin_shared(env!("CARGO_PKG_VERSION"), "executor");
    for outcome in ["stored", "unchanged", "failed"] {
        counter!(CHECKPOINTS, "outcome" => outcome).increment(0);
    }
    for kind in ["state", "uploaded"] {
        counter!(CHECKPOINT_BYTES, "kind" => kind).increment(0);
    }
    for outcome in ["restored", "failed"] {
        counter!(RESTORES, "outcome" => outcome).increment(0);
    }
    for source in ["local", "store"] {
        counter!(RESTORED_BYTES, "source" => source).increment(0);
    }
    for outcome in OUTCOMES {
        counter!(ATTEMPTS_ENDED, "outcome" => outcome).increment(0);
    }
    counter!(REPORTS_UNANSWERED).increment(0);
    for name in [CHECKPOINT_DURATION, CHECKPOINT_PAUSE, RESTORE_SECONDS] {
        drop(histogram!(name));
    }
}

pub fn checkpoint_stored(taken: &Taken) {
    counter!(CHECKPOINTS, "outcome" => "stored").increment(1);
    histogram!(CHECKPOINT_DURATION).record(seconds(taken.duration_ms));
    counter!(CHECKPOINT_BYTES, "kind" => "state").increment(taken.size_bytes);
    counter!(CHECKPOINT_BYTES, "kind" => "uploaded").increment(taken.uploaded_bytes);
}

pub fn checkpoint_unchanged() {
    counter!(CHECKPOINTS, "outcome" => "unchanged").increment(1);
}

pub fn checkpoint_failed() {
    counter!(CHECKPOINTS, "outcome" => "failed").increment(1);
}

pub fn paused(pause: Duration) {
    histogram!(CHECKPOINT_PAUSE).record(pause.as_secs_f64());
}

pub fn did_not_open() {
    counter!("outlive_decrypt_failures_total").increment(1);
}

/// A checkpoint was put back, or could not be.
pub fn restored(restored: Option<(Duration, &Restored)>) {
    match restored {
        Some((took, restored)) => {
            counter!(RESTORES, "outcome" => "restored").increment(1);
            counter!(RESTORED_BYTES, "source" => "local").increment(restored.local_bytes);
            counter!(RESTORED_BYTES, "source" => "store").increment(restored.store_bytes);
            histogram!(RESTORE_SECONDS).record(took.as_secs_f64());
        }
        None => counter!(RESTORES, "outcome" => "failed").increment(1),
    }
}

const OUTCOMES: [&str; 9] = [
    "succeeded",
    "exited",
    "signalled",
    "timed_out",
    "launch_failed",
    "restore_failed",
    "result_refused",
    "released",
    "no_progress",
];

pub fn ended(outcome: &Outcome) {
    let outcome = match outcome {
        Outcome::Exited { code: 0 } => OUTCOMES[0],
        Outcome::Exited { .. } => OUTCOMES[1],
        Outcome::Signalled { .. } => OUTCOMES[2],
        Outcome::TimedOut => OUTCOMES[3],
        Outcome::LaunchFailed { .. } => OUTCOMES[4],
        Outcome::RestoreFailed { .. } => OUTCOMES[5],
        Outcome::ResultRefused { .. } => OUTCOMES[6],
        Outcome::Released(_) => OUTCOMES[7],
        Outcome::NoProgress => OUTCOMES[8],
    };
    counter!(ATTEMPTS_ENDED, "outcome" => outcome).increment(1);
}

pub fn report_unanswered() {
    counter!(REPORTS_UNANSWERED).increment(1);
}

/// What is said with every heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub held: usize,
    pub shims: usize,
    pub reports: usize,
    /// Nothing while no leader was ever heard.
    pub leader_heard_ms_ago: Option<u64>,
    pub oldest_checkpoint_ms: Option<u64>,
    pub checkpoints_overdue: usize,
    pub registered: bool,
    pub lease_renewed_ms_ago: u64,
    pub health: Health,
}

pub fn standing(now: &Standing) {
    gauge!(ATTEMPTS_HELD).set(now.held as f64);
    gauge!(SHIMS).set(now.shims as f64);
    gauge!(REPORTS_WAITING).set(now.reports as f64);
    gauge!(HEARTBEAT_AGE).set(now.leader_heard_ms_ago.map_or(f64::INFINITY, seconds));
    gauge!(CHECKPOINT_AGE).set(seconds(now.oldest_checkpoint_ms.unwrap_or(0)));
    gauge!(CHECKPOINTS_OVERDUE).set(now.checkpoints_overdue as f64);
    gauge!(REGISTERED).set(f64::from(u8::from(now.registered)));
    gauge!(LEASE_AGE).set(seconds(now.lease_renewed_ms_ago));
    gauge!(SCHEDULING_LAG).set(now.health.scheduling_lag_us as f64 / 1e6);
    gauge!(DISK_WRITE).set(now.health.disk_write_us as f64 / 1e6);
    gauge!(MEMORY_AVAILABLE).set(now.health.memory_available_bytes as f64);
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_store::telemetry::metric::{inventory, recorder};

    #[test]
    fn the_names_types_labels_and_help_are_those_of_the_docs() {
        let recorder = recorder(METRICS);
        metrics::with_local_recorder(&recorder, || {
            begin();
            standing(&Standing {
                held: 1,
                shims: 1,
                reports: 1,
                leader_heard_ms_ago: None,
                oldest_checkpoint_ms: None,
                checkpoints_overdue: 0,
                registered: true,
                lease_renewed_ms_ago: 0,
                health: Health::default(),
            });
        });
        let found = inventory(&recorder.handle().render());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/docs/metrics.md");
        let text = std::fs::read_to_string(path).expect("ops/docs/metrics.md");
        let documented = text.split("<!-- executor -->\n").nth(1).expect("the executor's table");
        assert_eq!(found, documented, "put this into ops/docs/metrics.md:\n{found}");
        for metric in METRICS {
            assert!(found.contains(&format!("| `{}` |", metric.name)), "{} is never shown", metric.name);
        }
        assert!(!found.contains("|  |\n"), "each has a meaning: {found}");
    }
}
