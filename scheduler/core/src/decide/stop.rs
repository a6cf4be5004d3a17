//! Ending a job on request, and forgetting it.

use super::{Refusal, fact, is_done};
use crate::state::{Job, State};
use compact_str::CompactString;
use outlive_schemas::command::{Origin, Stop};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{CancelRequested, Envelope, Event, JobDeleted, JobFinished};
use outlive_schemas::id::{Attempt, JobId, JobRef, Namespace};
use outlive_schemas::job::duration_in_range;
use outlive_schemas::limits;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;

/// A job that holds no room is cancelled at once; another when its executor says that nothing of it is left.
pub(super) fn cancel(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    how: Stop,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    grace_in_range(how)?;
    let (id, job) = state.resolve(namespace, job)?;
    if is_done(state, namespace, &origin) {
        return Ok(Vec::new());
    }
    match job.status {
        // Asking twice is no fault.
        Status::Cancelled => return Ok(Vec::new()),
        Status::Succeeded | Status::Failed => {
            return Err(Rejection::new(
                ErrorCode::InUse,
                format!("job {id} is over already: it {}", ended(job.status)),
            )
            .into());
        }
        _ => {}
    }
    if let Some(array) = &job.array {
        return Ok(super::array::cancel(id, array, how, origin, now));
    }
    if job.stop.as_ref().is_some_and(|order| order.how == how || order.how == Stop::Kill) {
        return Ok(Vec::new());
    }
    let Origin { request_id, by } = origin;
    Ok(vec![Envelope { at: now, by, event: stop_of(id, job, how, request_id) }])
}

pub(super) fn grace_in_range(how: Stop) -> Result<(), Rejection> {
    match how {
        Stop::Graceful { grace } => duration_in_range("grace", grace, Millis::ZERO, Millis(limits::DURATION_MS_MAX)),
        Stop::Kill => Ok(()),
    }
}

/// What cancels a job as it is now.
pub(super) fn stop_of(id: JobId, job: &Job, how: Stop, request_id: Option<CompactString>) -> Event {
    let reason = match job.placement {
        Some(_) => {
            return Event::CancelRequested(CancelRequested { job: id, attempt: job.attempt, how, request_id });
        }
        None if job.attempt == Attempt(0) => "cancelled before it ran",
        None => "cancelled between two attempts",
    };
    Event::JobFinished(JobFinished { request_id, ..cancelled(id, job, reason) })
}

pub(super) fn ended(status: Status) -> &'static str {
    match status {
        Status::Succeeded => "succeeded",
        Status::Cancelled => "was cancelled",
        _ => "failed",
    }
}

/// A job's end by cancellation, or by a deadline, where no executor has anything to add.
pub(super) fn cancelled(id: JobId, job: &Job, reason: &str) -> JobFinished {
    let passed = job.stop.as_ref().and_then(|order| order.passed);
    let (status, reason) = match passed {
        Some(passed) => (Status::Failed, job.reason_for(passed.deadline)),
        None => (Status::Cancelled, reason.into()),
    };
    JobFinished {
        job: id,
        attempt: job.attempt,
        status,
        reason: Some(reason),
        exit_code: None,
        started_at: None,
        result: None,
        request_id: None,
    }
}

pub(super) fn delete(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    if is_done(state, namespace, &origin) {
        return Ok(Vec::new());
    }
    let Origin { request_id, by } = origin;
    let (id, job) = state.resolve(namespace, job)?;
    if job.task.is_some() {
        super::array::single_only(id, job, "deleted by itself: delete the array")?;
    }
    if !job.status.is_final() && job.status != Status::Stopped {
        let message = format!("job {id} is {}: only a job that is over can be deleted; cancel it first", job.status);
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    Ok(vec![Envelope { at: now, by, event: Event::JobDeleted(JobDeleted { job: id, request_id }) }])
}

/// The executor has had its time to confirm; whatever it still does is fenced by the attempt's number. That is not
/// enough for a job that must never run twice, which may be tried again as soon as it is over.
pub(super) fn abandon(state: &State, id: JobId, attempt: Attempt, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    let due = job.stop.as_ref().is_some_and(|order| order.give_up_at <= now);
    if job.attempt != attempt || job.status != Status::Stopping || !due || job.spec.exclusive {
        return Err(Refusal::Stale);
    }
    let finished = cancelled(id, job, "cancelled; its executor did not confirm that nothing of it is left");
    Ok(fact(now, Event::JobFinished(finished)))
}
