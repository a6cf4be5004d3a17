//! The executor's metrics (contract, section 7): their names, their buckets, and what counts towards them.
//!
//! Deliberately not here: what only the leader can count, such as checkpoints that were committed.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use outlive_schemas::checkpoint::Taken;
use outlive_schemas::message::Health;

pub const CHECKPOINT_DURATION: &str = "outlive_checkpoint_duration_seconds";
pub const CHECKPOINT_PAUSE: &str = "outlive_checkpoint_pause_seconds";
const BUILD_INFO: &str = "outlive_build_info";
const CHECKPOINTS: &str = "outlive_checkpoints_total";
const CHECKPOINT_BYTES: &str = "outlive_checkpoint_bytes_total";
const CHECKPOINT_AGE: &str = "outlive_checkpoint_age_seconds";
const DECRYPT_FAILURES: &str = "outlive_decrypt_failures_total";
const HEARTBEAT_AGE: &str = "outlive_heartbeat_age_seconds";
const ATTEMPTS_HELD: &str = "outlive_attempts_held";
const REPORTS_WAITING: &str = "outlive_reports_waiting";
const SCHEDULING_LAG: &str = "outlive_scheduling_lag_seconds";
const DISK_WRITE: &str = "outlive_disk_write_seconds";

/// Upper bounds for the histograms, by name.
pub const BUCKETS: &[(&str, &[f64])] = &[
    // A few files are milliseconds, gigabytes over a busy network minutes; `checkpoint.timeout` is 10 by default.
    (CHECKPOINT_DURATION, &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0]),
    // What the job feels: it should be milliseconds, and ends at the limit on a freeze of 30 s.
    (CHECKPOINT_PAUSE, &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0]),
];

/// Describes them all. To be called once the recorder is there.
pub fn describe() {
    describe_gauge!(BUILD_INFO, "1; its labels say which version this is");
    describe_counter!(CHECKPOINTS, "Checkpoints tried, by outcome: stored, unchanged, failed");
    describe_histogram!(CHECKPOINT_DURATION, Unit::Seconds, "From the beginning of a checkpoint until it is stored");
    describe_histogram!(CHECKPOINT_PAUSE, Unit::Seconds, "How long a job stood still for a checkpoint");
    describe_counter!(CHECKPOINT_BYTES, Unit::Bytes, "Bytes of checkpoints: the states' sizes, and what was uploaded");
    describe_gauge!(
        CHECKPOINT_AGE,
        Unit::Seconds,
        "Age of the oldest state that a running job here would fall back to"
    );
    describe_counter!(DECRYPT_FAILURES, "Keys and blobs that did not open");
    describe_gauge!(HEARTBEAT_AGE, Unit::Seconds, "Time since the leader was heard");
    describe_gauge!(ATTEMPTS_HELD, "Attempts that run here, or are over and unconfirmed");
    describe_gauge!(REPORTS_WAITING, "Reports that the leader has not confirmed");
    describe_gauge!(SCHEDULING_LAG, Unit::Seconds, "How late timers fire on this host");
    describe_gauge!(DISK_WRITE, Unit::Seconds, "How long a small durable write to the data directory takes");
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "role" => "executor").set(1.0);
    // So that a rate over them is 0 and not absent before the first.
    for outcome in ["stored", "unchanged", "failed"] {
        counter!(CHECKPOINTS, "outcome" => outcome).increment(0);
    }
    counter!(DECRYPT_FAILURES).increment(0);
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

pub fn paused(pause: std::time::Duration) {
    histogram!(CHECKPOINT_PAUSE).record(pause.as_secs_f64());
}

pub fn did_not_open() {
    counter!(DECRYPT_FAILURES).increment(1);
}

/// What is said with every heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub held: usize,
    pub reports: usize,
    /// Nothing while no leader was ever heard.
    pub leader_heard_ms_ago: Option<u64>,
    pub oldest_checkpoint_ms: Option<u64>,
    pub health: Health,
}

pub fn standing(now: &Standing) {
    gauge!(ATTEMPTS_HELD).set(now.held as f64);
    gauge!(REPORTS_WAITING).set(now.reports as f64);
    gauge!(HEARTBEAT_AGE).set(now.leader_heard_ms_ago.map_or(f64::INFINITY, seconds));
    gauge!(CHECKPOINT_AGE).set(seconds(now.oldest_checkpoint_ms.unwrap_or(0)));
    gauge!(SCHEDULING_LAG).set(now.health.scheduling_lag_us as f64 / 1e6);
    gauge!(DISK_WRITE).set(now.health.disk_write_us as f64 / 1e6);
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
