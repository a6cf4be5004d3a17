//! A job as people see it: all of it, and in one sentence.

use crate::human::{relative, rough, size};
use crate::output::{Details, status};
use outlive_schemas::array::TaskCounts;
use outlive_schemas::job::JobKind;
use outlive_schemas::payload::Payload;
use outlive_schemas::queue::Priority;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::{CheckpointView, JobView, RecoveryView, Status};

/// A result is shown to people up to here; `--output json` has all of it.
const RESULT_SHOWN_CHARS_MAX: usize = 400;

pub fn details(job: &JobView, now: Timestamp) -> Details {
    let mut details = Details::new();
    let when = |at: Timestamp| format!("{at} ({})", relative(at, now));
    details.line("ID", job.id);
    details.line("Name", &job.name);
    details.line("Namespace", &job.namespace);
    details.line("Kind", kind(job.kind));
    details.line("Version", job.version);
    details.cell("Status", status(job.status));
    details.maybe("Reason", job.reason.as_ref());
    details.maybe("Tasks", job.tasks.as_ref().map(tasks));
    details.maybe("Next try", job.next_try_at.map(when));
    if !job.queue.is_default() || job.priority != Priority::default() {
        details.line("Queue", format!("{}, priority {}", job.queue, job.priority.0));
    }
    details.line("Attempt", job.attempt);
    details.line("Restarts", job.restarts);
    details.maybe("Executor", job.executor.as_ref());
    details.maybe("Zone", job.zone.as_ref());
    details.maybe("Checkpoint", job.checkpoint.as_ref().map(|c| checkpoint(c, now)));
    details.maybe("Last recovery", job.last_recovery.as_ref().map(|r| recovery(r, now)));
    details.line("Submitted", when(job.submitted_at));
    details.maybe("Started", job.started_at.map(when));
    details.maybe("Finished", job.finished_at.map(when));
    details.maybe("Exit code", job.exit_code);
    details.maybe("Result", job.result.as_ref().map(result));
    if !job.labels.is_empty() {
        let labels: Vec<String> = job.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        details.line("Labels", labels.join(", "));
    }
    details
}

fn tasks(tasks: &TaskCounts) -> String {
    let TaskCounts { pending, running, succeeded, failed, cancelled } = tasks;
    format!("{pending} pending, {running} running, {succeeded} succeeded, {failed} failed, {cancelled} cancelled")
}

pub fn kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Batch => "batch",
        JobKind::Service => "service",
    }
}

fn checkpoint(checkpoint: &CheckpointView, now: Timestamp) -> String {
    format!(
        "{}, {}: {} of state, {} uploaded in {}, paused {}",
        checkpoint.number,
        relative(checkpoint.at, now),
        size(checkpoint.size_bytes),
        size(checkpoint.uploaded_bytes),
        rough(Millis(checkpoint.duration_ms)),
        rough(Millis(checkpoint.pause_ms)),
    )
}

fn recovery(recovery: &RecoveryView, now: Timestamp) -> String {
    let zones = match (&recovery.from_zone, &recovery.to_zone) {
        (Some(from), Some(to)) if from != to => format!(", zone {from} to {to}"),
        (_, Some(to)) => format!(", in zone {to}"),
        _ => String::new(),
    };
    let from = match recovery.restored_checkpoint {
        Some(number) => format!("from checkpoint {number}"),
        None => "from an empty state".to_owned(),
    };
    format!(
        "{}, {}: {from} after {}{zones}",
        recovery.cause.as_str(),
        relative(recovery.resumed_at, now),
        rough(Millis(recovery.recovery_ms)),
    )
}

pub fn result(result: &Payload) -> String {
    let Ok(text) = std::str::from_utf8(&result.0) else {
        return format!("{} that are not text; see --output json", size(result.0.len() as u64));
    };
    let text = text.trim_end();
    if text.chars().count() <= RESULT_SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    let shown: String = text.chars().take(RESULT_SHOWN_CHARS_MAX).collect();
    format!("{shown}… ({} in all; see --output json)", size(result.0.len() as u64))
}

/// How a job is, in a few words, for a progress line.
pub fn in_short(job: &JobView) -> String {
    let place = match (&job.executor, job.status) {
        (Some(executor), Status::Starting | Status::Running | Status::Stopping) => format!(" on {executor}"),
        _ => String::new(),
    };
    let reason = job.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} is {}{place}{reason}", job.name, job.status)
}

/// How a finished job ended, in one sentence.
pub fn ending(job: &JobView) -> String {
    let attempts = match job.attempt.0 {
        0 | 1 => String::new(),
        attempts => format!(" in attempt {attempts}"),
    };
    let code = match (job.status, job.exit_code) {
        (Status::Failed, Some(code)) => format!(" with exit code {code}"),
        _ => String::new(),
    };
    // A cancelled job's reason often is just that.
    let reason = job.reason.as_deref().filter(|reason| *reason != job.status.as_str());
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("job {} {}{attempts}{code}{reason}", job.name, job.status)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// As the contract shows it.
    pub fn example() -> JobView {
        serde_json::from_value(serde_json::json!({
            "id": "0197f3c8-0000-7000-8000-000000000001", "namespace": "default", "name": "counter",
            "kind": "service", "version": 1, "status": "running", "reason": null, "attempt": 2,
            "executor": "executor-b-1", "zone": "b", "restarts": 1,
            "checkpoint": {"number": 12, "at": "2026-01-01T00:00:50.000Z", "size_bytes": 4096, "uploaded_bytes": 512,
                "duration_ms": 20, "pause_ms": 2},
            "last_recovery": {"cause": "zone_lost", "from_zone": "a", "to_zone": "b",
                "lost_at": "2026-01-01T00:00:29.100Z", "resumed_at": "2026-01-01T00:00:30.000Z", "recovery_ms": 900,
                "restored_checkpoint": 11},
            "next_try_at": null, "submitted_at": "2026-01-01T00:00:00.000Z",
            "started_at": "2026-01-01T00:00:01.000Z", "finished_at": null, "exit_code": null, "result": null,
            "labels": {"team": "data"}
        }))
        .expect("a view")
    }

    fn a_minute_later() -> Timestamp {
        Timestamp::parse("2026-01-01T00:01:00Z").expect("a time")
    }

    #[test]
    fn a_running_job() {
        assert_eq!(
            details(&example(), a_minute_later()).render(),
            "\
ID             0197f3c8-0000-7000-8000-000000000001
Name           counter
Namespace      default
Kind           service
Version        1
Status         running
Attempt        2
Restarts       1
Executor       executor-b-1
Zone           b
Checkpoint     12, 10s ago: 4.0 KiB of state, 512 B uploaded in 20ms, paused 2ms
Last recovery  zone_lost, 30s ago: from checkpoint 11 after 900ms, zone a to b
Submitted      2026-01-01T00:00:00.000Z (1m ago)
Started        2026-01-01T00:00:01.000Z (59s ago)
Labels         team=data"
        );
        assert_eq!(in_short(&example()), "counter is running on executor-b-1");
    }

    #[test]
    fn endings() {
        let mut job = example();
        job.status = Status::Failed;
        job.exit_code = Some(3);
        job.reason = Some("the process exited with 3".into());
        assert_eq!(ending(&job), "job counter failed in attempt 2 with exit code 3: the process exited with 3");
        job.status = Status::Succeeded;
        (job.exit_code, job.reason) = (Some(0), None);
        assert_eq!(ending(&job), "job counter succeeded in attempt 2");
        (job.status, job.reason) = (Status::Cancelled, Some("cancelled".into()));
        assert_eq!(ending(&job), "job counter cancelled in attempt 2");
    }

    #[test]
    fn results_are_shortened_and_not_binary() {
        assert_eq!(result(&"ok\n".into()), "ok");
        assert!(result(&Payload(vec![0xff, 0].into())).contains("not text"));
        assert!(result(&"x".repeat(10_000).as_str().into()).chars().count() < 500);
    }
}
