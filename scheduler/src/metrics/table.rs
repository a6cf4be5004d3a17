//! Every metric that a scheduler shows (contract, section 7, and what else its operators need), each with its meaning.
//!
//! Where the help says "the leader", only the scheduler that leads has values; all others show 0, so that sums over
//! schedulers are right.

use outlive_store::telemetry::Metric;
use outlive_store::telemetry::metric::SHARED;

/// A commit is one write to disk and one round between servers: half a millisecond at best, seconds where JetStream
/// elects.
const COMMIT_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
/// Up to the limit on a commit.
const COMMIT_EVENTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0];
/// From a noop on an idle system to a job that waited an hour for room.
const START_SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0];
/// Fine where recoveries are meant to be: between a probe's answer and a few seconds.
const RECOVERY_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 60.0, 300.0];
/// From a tail to a log without images.
const REPLAY_SECONDS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

pub const METRICS: &[Metric] = &[
    SHARED[0],
    SHARED[1],
    SHARED[2],
    SHARED[3],
    // Leadership.
    Metric::gauge("outlive_leader", "1 on the scheduler that leads, else 0."),
    Metric::gauge("outlive_term", "The newest term this scheduler knows of."),
    Metric::counter("outlive_leader_changes_total", "Terms that this scheduler has begun to lead."),
    // The log.
    Metric::gauge("outlive_log_sequence", "The newest commit this scheduler has folded."),
    Metric::histogram("outlive_log_commit_seconds", COMMIT_SECONDS, "From sealing a commit until it is durable."),
    Metric::histogram("outlive_log_commit_events", COMMIT_EVENTS, "Events in a commit."),
    Metric::counter(
        "outlive_log_append_conflicts_total",
        "Appends refused because another scheduler had written; each ends a term.",
    ),
    Metric::counter(
        "outlive_log_append_retries_total",
        "Answers to appends that settled nothing, after which the same bytes are sent again.",
    ),
    Metric::counter(
        "outlive_log_append_failures_total",
        "Appends that the log refused for good, such as for being full; each ends a term.",
    ),
    Metric::counter(
        "outlive_log_bridged_commits_total",
        "Commits that became durable in etcd while the log's stream had no leader.",
    ),
    Metric::gauge(
        "outlive_log_bridge_pending_commits",
        "Commits that are in etcd and not yet in the log's stream; the leader's.",
    ),
    Metric::gauge("outlive_log_append_waiting_seconds", "How long the append under way has been; the leader's."),
    Metric::gauge("outlive_log_commits_waiting", "Commits that wait behind the one under way; the leader's."),
    Metric::gauge(
        "outlive_witness_lag_commits",
        "Acknowledged commits that the witness in etcd does not cover yet; the leader's.",
    ),
    Metric::gauge(
        "outlive_witness_lag_seconds",
        "How long acknowledged commits have been without a witness in etcd; the leader's.",
    ),
    Metric::counter("outlive_replay_events_total", "Events folded from the log."),
    Metric::histogram("outlive_replay_seconds", REPLAY_SECONDS, "From beginning to replay until the log's end."),
    // Where everything is kept.
    Metric::gauge("outlive_stream_bytes", "Bytes that a JetStream stream holds."),
    Metric::gauge("outlive_stream_bytes_limit", "Bytes that a JetStream stream may hold; absent where unlimited."),
    Metric::gauge("outlive_stream_messages", "Messages that a JetStream stream holds."),
    Metric::gauge("outlive_stream_replicas", "Replicas of a JetStream stream by state: current, lagging, offline."),
    Metric::gauge("outlive_stream_has_leader", "1 while a JetStream stream has a leader and answers, else 0."),
    Metric::gauge("outlive_held_bytes", "Specifications and results in memory; the leader's."),
    // Jobs.
    Metric::gauge("outlive_jobs", "Jobs by status; the leader's."),
    Metric::gauge("outlive_namespace_jobs", "Jobs by namespace and status; the leader's."),
    Metric::counter("outlive_jobs_submitted_total", "Jobs accepted."),
    Metric::counter("outlive_jobs_finished_total", "Jobs that are over, by outcome."),
    Metric::histogram(
        "outlive_job_start_delay_seconds",
        START_SECONDS,
        "From a job's submission until its first attempt runs.",
    ),
    Metric::gauge(
        "outlive_queue_oldest_seconds",
        "How long the job that waits longest could have run, had it had room; the leader's.",
    ),
    Metric::gauge("outlive_queue_waiting_jobs", "Jobs that wait in a queue, by namespace and queue; the leader's."),
    Metric::gauge(
        "outlive_queue_running_jobs",
        "Jobs of a queue that hold room, by namespace and queue; the leader's.",
    ),
    Metric::gauge(
        "outlive_queue_oldest_wait_seconds",
        "How long the job of a queue has been ready that has been so the longest; the leader's.",
    ),
    Metric::gauge(
        "outlive_queue_throttled",
        "1 for what keeps a queue's waiting jobs from being started: paused, concurrency, rate; the leader's.",
    ),
    Metric::counter("outlive_jobs_preempted_total", "Attempts that gave way to a job of a higher priority."),
    Metric::counter("outlive_job_recoveries_total", "Jobs running again after a loss, by cause."),
    Metric::histogram(
        "outlive_job_recovery_seconds",
        RECOVERY_SECONDS,
        "From an attempt's last sign of life until the next one runs, by cause.",
    ),
    Metric::counter("outlive_job_downtime_seconds_total", "Time that jobs were away, summed."),
    Metric::gauge(
        "outlive_job_restarting_oldest_seconds",
        "How long the job that is away the longest has been; the leader's.",
    ),
    Metric::gauge(
        "outlive_checkpoint_age_seconds",
        "Age of the oldest newest checkpoint among placed jobs that have one; the leader's.",
    ),
    // Schedules.
    Metric::gauge("outlive_schedules", "Schedules that there are; the leader's."),
    Metric::counter("outlive_schedule_ticks_total", "Ticks of schedules, by what became of them."),
    Metric::histogram(
        "outlive_schedule_tick_delay_seconds",
        START_SECONDS,
        "From the time that a tick names until it was taken; a schedule's jitter is part of it.",
    ),
    Metric::gauge(
        "outlive_schedule_tick_overdue_seconds",
        "Since when the tick that is due and has not been taken is due; the leader's.",
    ),
    Metric::counter("outlive_snapshots_total", "Named snapshots, by outcome."),
    Metric::counter("outlive_requests_refused_total", "Requests answered with an error, by its code."),
    // Executors.
    Metric::gauge("outlive_executors", "Executors by zone and state; the leader's."),
    Metric::gauge(
        "outlive_executors_lost_recently",
        "Executors lost within ten minutes without a goodbye, and not back, by zone; the leader's.",
    ),
    Metric::gauge("outlive_executor_capacity", "What live executors have, by zone and resource; the leader's."),
    Metric::gauge("outlive_executor_allocated", "What attempts have set aside, by zone and resource; the leader's."),
    Metric::gauge("outlive_zone_state", "1 for the state that a zone is in, else 0; the leader's."),
    Metric::gauge("outlive_heartbeat_age_seconds", "The longest time since a live executor was heard; the leader's."),
];
