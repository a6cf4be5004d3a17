//! What executors say happened.
//!
//! A report counts only if it speaks of the job's newest attempt, from the executor that holds it. Saying a thing
//! twice changes nothing.

use super::recover::{Failures, backoff, failures_with_this};
use super::{Refusal, fact, life, snapshot};
use crate::state::{Job, State};
use compact_str::{CompactString, format_compact};
use outlive_schemas::checkpoint::{Checkpoint, Taken};
use outlive_schemas::event::{
    AttemptStarted, Cause, CheckpointCompleted, CheckpointFailed, CheckpointUnreadable, Envelope, Event, JobFinished,
    JobRestarting,
};
use outlive_schemas::id::{CheckpointNumber, ExecutorId, JobId};
use outlive_schemas::job::JobKind;
use outlive_schemas::limits;
use outlive_schemas::message::{Ended, News, Outcome, Released, Report};
use outlive_schemas::queue::JobPreempted;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;

pub(super) fn report(
    state: &State,
    executor: ExecutorId,
    report: Report,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Report { job: id, attempt, age_ms, news } = report;
    let job = state.jobs.get(&id).ok_or(Refusal::Superseded)?;
    let here = job.placement.is_some_and(|placed| placed.executor == executor);
    let alive = state.executors.get(&executor).is_some_and(|e| e.is_alive());
    if job.attempt != attempt || !here || !alive {
        return Err(Refusal::Superseded);
    }
    // An age longer than the attempt can have lived is nonsense; it was placed no earlier than it was due.
    let happened = (now - Millis(age_ms)).max(job.ready_at);
    let events = match news {
        News::Started if job.attempt_started_at.is_some() => Vec::new(),
        News::Started => fact(now, Event::AttemptStarted(AttemptStarted { job: id, attempt, started_at: happened })),
        News::Checkpoint(taken) => checkpoint(id, job, taken, happened, now),
        News::CheckpointFailed { reason } => {
            fact(now, Event::CheckpointFailed(CheckpointFailed { job: id, attempt, reason: bounded(reason) }))
        }
        News::Ended(ended) => self::ended(id, job, ended, happened, now),
        // The leader sends the assignment again; nothing has happened.
        News::Missing => Vec::new(),
        // It goes on. What was to follow is given up; where nothing was, whoever wanted it back asks again.
        News::ReleaseFailed { reason } if job.ending().is_some() => {
            let reason = bounded(reason);
            let failed = CheckpointFailed { job: id, attempt, reason: reason.clone() };
            let mut events = fact(now, Event::CheckpointFailed(failed));
            events.extend(life::release_failed(id, job, reason, now));
            events
        }
        News::ReleaseFailed { reason } => {
            fact(now, Event::CheckpointFailed(CheckpointFailed { job: id, attempt, reason: bounded(reason) }))
        }
        News::Snapshot { up_to, manifest } => snapshot::reported(id, job, up_to, manifest, now),
        News::SnapshotFailed { up_to, reason } => snapshot::reported_failed(id, job, up_to, &bounded(reason), now),
    };
    Ok(events)
}

fn checkpoint(id: JobId, job: &Job, taken: Taken, happened: Timestamp, now: Timestamp) -> Vec<Envelope> {
    if let Some(newest) = job.checkpoints.last() {
        let unchanged = newest.taken.manifest == taken.manifest;
        // A batch whose answer was lost is sent again as a whole: its earlier checkpoints must not come back as the
        // newest. A state that really is what it was before has other figures, or was read after the newest was known.
        let again = || job.checkpoints.iter().any(|kept| kept.attempt == job.attempt && kept.taken == taken);
        if unchanged || (happened <= newest.at && again()) {
            return Vec::new();
        }
    }
    let number = job.last_checkpoint.next();
    fact(now, Event::CheckpointCompleted(CheckpointCompleted { job: id, attempt: job.attempt, number, taken }))
}

/// How an attempt's end reads, and what it means for the job.
struct Verdict {
    cause: Cause,
    reason: CompactString,
    exit_code: Option<i32>,
}

fn ended(id: JobId, job: &Job, ended: Ended, happened: Timestamp, now: Timestamp) -> Vec<Envelope> {
    let Ended { mut outcome, ran_ms, result } = ended;
    // Executors refuse such a result themselves; this holds them to it.
    let bytes = result.as_ref().map_or(0, |r| r.0.len());
    if bytes > limits::RESULT_BYTES_MAX && outcome == (Outcome::Exited { code: 0 }) {
        let reason = format_compact!("it has {bytes} bytes; the limit is {}", limits::RESULT_BYTES_MAX);
        outcome = Outcome::ResultRefused { reason };
    }
    let started_at = ran_ms.map(|ran| (happened - Millis(ran)).max(job.ready_at));
    let finish = |status, reason: Option<CompactString>, exit_code, result| {
        let finished = JobFinished {
            job: id,
            attempt: job.attempt,
            status,
            reason: reason.map(bounded),
            exit_code,
            started_at,
            result,
            request_id: None,
        };
        fact(now, Event::JobFinished(finished))
    };
    let succeeded = outcome == (Outcome::Exited { code: 0 }) && job.spec.kind == JobKind::Batch;
    if let Some(order) = &job.stop {
        let verdict = read(&outcome);
        if let Some(passed) = order.passed {
            // It was over in time, and only its report is late.
            if succeeded && happened <= passed.due_at {
                return finish(Status::Succeeded, None, Some(0), result);
            }
            return finish(Status::Failed, Some(job.reason_for(passed.deadline)), verdict.exit_code, None);
        }
        return finish(Status::Cancelled, Some("cancelled".into()), verdict.exit_code, None);
    }
    if job.ending().is_some() && !succeeded {
        return ended_for_change(id, job, outcome, started_at, happened, now);
    }
    match outcome {
        // One that the job does not have cannot be struck off: that attempt failed like any other.
        Outcome::RestoreFailed { number, ref reason } if job.checkpoint_numbered(number).is_some() => {
            return restore_failed(id, job, number, reason.clone(), happened, now);
        }
        // One that was not started in time failed.
        Outcome::Released(given_back) if !given_back.cause.is_own_doing() => {
            let mut events = started_first(id, job, started_at, now);
            events.extend(released(id, job, given_back, happened, now));
            return events;
        }
        _ => {}
    }
    if succeeded {
        return finish(Status::Succeeded, None, Some(0), result);
    }
    let Verdict { cause, reason, exit_code } = read(&outcome);
    let Failures { counted, in_a_row } = failures_with_this(job, ran_ms.map(Millis));
    let restart = &job.spec.restart;
    let is_last = match job.spec.max_attempts().filter(|max| counted >= *max) {
        _ if exit_code.is_some_and(|code| restart.no_retry_exit_codes.contains(code)) => {
            Some(format_compact!("{reason}, which restart.no_retry_exit_codes says not to retry"))
        }
        Some(max) => Some(format_compact!("{reason}; {counted} of {max} attempts failed")),
        None => None,
    };
    if let Some(reason) = is_last {
        if let Some(back) = life::unproven(id, job, bounded(reason.clone()), happened, now) {
            let mut events = started_first(id, job, started_at, now);
            events.extend(back);
            return events;
        }
        return finish(Status::Failed, Some(reason), exit_code, None);
    }
    let restarting = JobRestarting {
        job: id,
        attempt: job.attempt,
        cause,
        reason: bounded(reason),
        exit_code,
        failures: counted,
        lost_at: happened,
        next_try_at: now + backoff(&job.spec.restart, in_a_row, id, job.attempt),
    };
    let mut events = started_first(id, job, started_at, now);
    events.extend(fact(now, Event::JobRestarting(restarting)));
    events
}

/// An attempt that was given back. Its last checkpoint counts together with its end, so that nothing comes between the
/// two; and its end is nobody's fault, so there is no delay, and no failure is counted.
fn released(id: JobId, job: &Job, released: Released, happened: Timestamp, now: Timestamp) -> Vec<Envelope> {
    let Released { cause, checkpoint, fault } = released;
    // While its version is changed it is that which goes on.
    let gives_way = cause == Cause::Preemption && matches!(job.status, Status::Starting | Status::Running);
    let mut events = match checkpoint {
        Some(taken) => self::checkpoint(id, job, taken, now, now),
        None => Vec::new(),
    };
    let what = match cause {
        Cause::HostDegraded => "moved off a host that is not well",
        Cause::Drain => "moved off an executor that is drained",
        Cause::Preemption => "gave way to a job of a higher priority",
        Cause::ExecutorLost => "given back by an executor that had lost its lease",
        _ => "given back",
    };
    let reason = match fault {
        None => what.into(),
        Some(fault) => format_compact!("{what}, without a last checkpoint: {fault}"),
    };
    if gives_way {
        let preempted = JobPreempted { job: id, attempt: job.attempt, reason: bounded(reason), ended_at: happened };
        events.extend(fact(now, Event::JobPreempted(preempted)));
        return events;
    }
    let restarting = JobRestarting {
        job: id,
        attempt: job.attempt,
        cause: if cause == Cause::Preemption { Cause::Drain } else { cause },
        reason: bounded(reason),
        exit_code: None,
        failures: job.failures,
        lost_at: happened,
        next_try_at: now,
    };
    events.extend(fact(now, Event::JobRestarting(restarting)));
    events
}

/// The end of an attempt that was waited for, because its job is being stopped, updated or rolled back.
fn ended_for_change(
    id: JobId,
    job: &Job,
    outcome: Outcome,
    started_at: Option<Timestamp>,
    happened: Timestamp,
    now: Timestamp,
) -> Vec<Envelope> {
    let mut events = started_first(id, job, started_at, now);
    let mut latest = job.restorable_checkpoint().copied();
    let (exit_code, lost) = match outcome {
        Outcome::Released(released) => {
            if let Some(taken) = released.checkpoint {
                events.extend(checkpoint(id, job, taken, happened, now));
                if let Some(Event::CheckpointCompleted(e)) = events.last().map(|envelope| &envelope.event) {
                    latest = Some(Checkpoint { number: e.number, attempt: e.attempt, at: now, taken: e.taken });
                }
            }
            (None, released.fault.map(bounded))
        }
        // It was told to: how it died says nothing.
        Outcome::Signalled { signal: 9 | 15 } => (None, None),
        outcome => {
            let Verdict { reason, exit_code, .. } = read(&outcome);
            (exit_code, Some(bounded(reason)))
        }
    };
    let end = life::End { at: happened, latest, exit_code, lost };
    events.extend(life::over(id, job, end, now).unwrap_or_default());
    events
}

/// An attempt whose start was never reported by itself did start; its history says so before its end.
fn started_first(id: JobId, job: &Job, started_at: Option<Timestamp>, now: Timestamp) -> Vec<Envelope> {
    match started_at.filter(|_| job.attempt_started_at.is_none()) {
        Some(started_at) => {
            fact(now, Event::AttemptStarted(AttemptStarted { job: id, attempt: job.attempt, started_at }))
        }
        None => Vec::new(),
    }
}

fn read(outcome: &Outcome) -> Verdict {
    let (cause, reason, exit_code) = match outcome {
        Outcome::Exited { code } => (Cause::ProcessExit, format_compact!("exited with {code}"), Some(*code)),
        // 128 + n is how shells put it.
        Outcome::Signalled { signal } => {
            (Cause::ProcessExit, format_compact!("killed by signal {signal}"), Some(signal.saturating_add(128)))
        }
        Outcome::TimedOut => (Cause::Timeout, "its timeout was over".into(), None),
        Outcome::NoProgress => {
            (Cause::NoProgress, "its output stopped for as long as its progress_timeout".into(), None)
        }
        Outcome::LaunchFailed { reason } => {
            (Cause::ProcessExit, format_compact!("could not be started: {reason}"), None)
        }
        Outcome::ResultRefused { reason } => {
            (Cause::ProcessExit, format_compact!("its result was refused: {reason}"), Some(0))
        }
        Outcome::RestoreFailed { reason, .. } => (Cause::ProcessExit, reason.clone(), None),
        Outcome::Released(released) => (released.cause, "it was not started in time".into(), None),
    };
    Verdict { cause, reason, exit_code }
}

/// The checkpoint is not offered again. The one before it is used; where there is none the job has failed, for it
/// must not begin with an empty state as if nothing had been.
fn restore_failed(
    id: JobId,
    job: &Job,
    number: CheckpointNumber,
    reason: CompactString,
    happened: Timestamp,
    now: Timestamp,
) -> Vec<Envelope> {
    let reason = bounded(reason);
    let unreadable = CheckpointUnreadable { job: id, attempt: job.attempt, number, reason: reason.clone() };
    let mut events = fact(now, Event::CheckpointUnreadable(unreadable));
    let base = job.life.as_ref().and_then(|life| life.base.clone());
    if let Some(base) = base.as_ref().filter(|base| base.content.is_some_and(|content| content.number == number)) {
        let next = life::base_unreadable(id, job, base, &reason, happened, now);
        let goes_on = next.iter().find_map(|envelope| match &envelope.event {
            Event::BaseReplaced(e) => Some(e.reason.clone()),
            _ => None,
        });
        events.extend(next);
        if let Some(reason) = goes_on {
            events.extend(again(id, job, reason, happened, now));
        }
        return events;
    }
    let floor = job.life.as_ref().map_or(CheckpointNumber(0), |life| life.floor);
    let mut older = job.checkpoints.iter().rev().filter(|c| c.number > floor && c.number != number);
    let older = older.next().map(|older| format_compact!("{}", older.number));
    match older.or_else(|| base.filter(|base| base.content.is_some()).map(|base| base.described())) {
        Some(older) => {
            let reason = format_compact!("checkpoint {number} cannot be read ({reason}); going back to {older}");
            events.extend(again(id, job, reason, happened, now));
        }
        None => {
            let reason = format_compact!("checkpoint {number} cannot be read ({reason}), and there is none before it");
            let finished = JobFinished {
                job: id,
                attempt: job.attempt,
                status: Status::Failed,
                reason: Some(reason.clone()),
                exit_code: None,
                started_at: None,
                result: None,
                request_id: None,
            };
            let back = life::unproven(id, job, reason, happened, now);
            events.extend(back.unwrap_or_else(|| fact(now, Event::JobFinished(finished))));
        }
    }
    events
}

/// The next attempt at once, for the job is not to blame.
fn again(id: JobId, job: &Job, reason: CompactString, happened: Timestamp, now: Timestamp) -> Vec<Envelope> {
    let restarting = JobRestarting {
        job: id,
        attempt: job.attempt,
        cause: Cause::ProcessExit,
        reason,
        exit_code: None,
        failures: job.failures,
        lost_at: happened,
        next_try_at: now,
    };
    fact(now, Event::JobRestarting(restarting))
}

/// Executors bound their reasons; this holds them to it.
fn bounded(reason: CompactString) -> CompactString {
    if reason.len() <= limits::REASON_BYTES_MAX {
        return reason;
    }
    let end = (0..=limits::REASON_BYTES_MAX).rev().find(|&i| reason.is_char_boundary(i)).unwrap_or(0);
    format_compact!("{}…", &reason[..end])
}
