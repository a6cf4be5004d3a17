//! What follows when an attempt is over before its job is.

use super::stop::cancelled;
use super::{Refusal, fact, life};
use crate::state::{Job, RELEASE_CONFIRMATION, State};
use compact_str::{CompactString, format_compact};
use outlive_schemas::event::{Cause, Envelope, Event, JobFinished, JobRestarting};
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::job::{JobKind, Restart};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;

/// Takes a job off a lost executor. That is not the job's fault: no delay, and no failure is counted.
pub(super) fn evict(
    state: &State,
    id: JobId,
    attempt: Attempt,
    cause: Cause,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    let executor = job.placement.and_then(|placed| state.executors.get(&placed.executor)).ok_or(Refusal::Stale)?;
    let loss = executor.lost.filter(|_| job.attempt == attempt).ok_or(Refusal::Stale)?;
    if job.stop.is_some() {
        return Ok(fact(now, Event::JobFinished(cancelled(id, job, "cancelled; its executor was lost"))));
    }
    // Its executor may have been silent since before the attempt came.
    let placed_at = job.placement.map_or(job.submitted_at, |placed| placed.since.max(job.submitted_at));
    let lost_at = loss.last_seen.max(placed_at);
    let end = life::End {
        at: lost_at,
        latest: job.restorable_checkpoint().copied(),
        exit_code: None,
        lost: Some(compact_str::format_compact!("executor {} was lost", executor.registration.name)),
    };
    if let Some(events) = life::over(id, job, end, now) {
        return Ok(events);
    }
    let event = JobRestarting {
        job: id,
        attempt,
        cause,
        reason: match cause {
            Cause::ZoneLost => format_compact!("zone {} was lost", executor.registration.zone),
            _ => format_compact!("executor {} was lost: {}", executor.registration.name, loss.reason.as_str()),
        },
        exit_code: None,
        failures: job.failures,
        lost_at,
        next_try_at: now,
    };
    Ok(fact(now, Event::JobRestarting(event)))
}

/// Takes a job off an executor that is there. What is left of the attempt there is fenced by its number, and the
/// executor is told to end it; but until it has, both may run, so a job that must never run twice waits on.
pub(super) fn withdraw(
    state: &State,
    id: JobId,
    attempt: Attempt,
    cause: Cause,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    let placed = job.placement.filter(|_| job.attempt == attempt && job.stop.is_none()).ok_or(Refusal::Stale)?;
    let executor = state.executors.get(&placed.executor).filter(|e| e.is_alive()).ok_or(Refusal::Stale)?;
    if job.spec.exclusive {
        return Err(Refusal::Stale);
    }
    let name = &executor.registration.name;
    if cause == Cause::Timeout {
        job.start_by().filter(|by| *by <= now).ok_or(Refusal::Stale)?;
        let waited = now.since(placed.since);
        let reason = format_compact!("executor {name} has not started it within {waited}");
        return Ok(failed(id, job, Cause::Timeout, reason, now));
    }
    let drain = state.drain_of(&executor.registration).ok_or(Refusal::Stale)?;
    if now < drain.deadline + RELEASE_CONFIRMATION {
        return Err(Refusal::Stale);
    }
    let event = JobRestarting {
        job: id,
        attempt,
        cause,
        reason: format_compact!("executor {name} is drained, and has not given it back in time"),
        exit_code: None,
        failures: job.failures,
        lost_at: now,
        next_try_at: now,
    };
    Ok(fact(now, Event::JobRestarting(event)))
}

/// An attempt failed before it began: another follows after a delay, unless it was the last.
fn failed(id: JobId, job: &Job, cause: Cause, reason: CompactString, now: Timestamp) -> Vec<Envelope> {
    let Failures { counted, in_a_row } = failures_with_this(job, None);
    let (attempt, exit_code) = (job.attempt, None);
    if let Some(max) = job.spec.max_attempts().filter(|max| counted >= *max) {
        let reason = Some(format_compact!("{reason}; {counted} of {max} attempts failed"));
        let status = Status::Failed;
        let (started_at, result, request_id) = (None, None, None);
        let finished = JobFinished { job: id, attempt, status, reason, exit_code, started_at, result, request_id };
        return fact(now, Event::JobFinished(finished));
    }
    let restarting = JobRestarting {
        job: id,
        attempt,
        cause,
        reason,
        exit_code,
        failures: counted,
        lost_at: now,
        next_try_at: now + backoff(&job.spec.restart, in_a_row, id, attempt),
    };
    fact(now, Event::JobRestarting(restarting))
}

/// How many attempts have failed by the job's own doing, this one included.
pub(super) struct Failures {
    /// What `max_attempts` is held against, and what the job's next failure is added to.
    pub counted: u32,
    /// What sets the delay.
    pub in_a_row: u32,
}

/// A healthy stretch wipes out the failures before it, for a job that is meant to run on: a service, or whatever is to
/// be tried without end. A batch job with so many attempts has no more than these, however long each of them ran: one
/// that fails at the end of an hour each time would otherwise never fail. What a healthy stretch wipes out for it is
/// the delay.
pub(super) fn failures_with_this(job: &Job, ran: Option<Millis>) -> Failures {
    let healthy = ran.is_some_and(|ran| ran >= job.spec.restart.reset_after);
    let numbered = job.spec.kind == JobKind::Batch && job.spec.max_attempts().is_some();
    let more = job.failures.saturating_add(1);
    Failures { counted: if healthy && !numbered { 1 } else { more }, in_a_row: if healthy { 1 } else { more } }
}

/// The delay before the next attempt: exponential, capped, and spread by a jitter that is drawn from the job's id and
/// attempt, so that a replay computes the same.
pub fn backoff(policy: &Restart, failures: u32, job: JobId, attempt: Attempt) -> Millis {
    // In microseconds, or rounding would keep a delay of a millisecond from ever growing.
    let cap = u128::from(policy.max_backoff.0) * 1_000;
    let mut delay = u128::from(policy.initial_backoff.0) * 1_000;
    for _ in 1..failures {
        let next = delay * u128::from(policy.multiplier.0) / 1_000;
        if next >= cap || next == delay {
            delay = next;
            break;
        }
        delay = next;
    }
    let delay = delay.min(cap);
    // From -jitter to +jitter in 2,001 steps.
    let draw = u128::from(spread(job, attempt) % 2_001);
    let factor = 1_000_000 + u128::from(policy.jitter.0) * draw - u128::from(policy.jitter.0) * 1_000;
    Millis(u64::try_from(delay * factor / 1_000_000_000).unwrap_or(u64::MAX).min(policy.max_backoff.0))
}

fn spread(job: JobId, attempt: Attempt) -> u64 {
    let (high, low) = job.0.as_u64_pair();
    let mixed = (high ^ low).wrapping_add(u64::from(attempt.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}
