//! What becomes of an array's tasks: those that are over are counted, others begin in their places, and in the end the
//! array is over itself. All of it follows from the state, so it does not matter who leads. Besides, what users ask of
//! some of them by their indexes.

use super::stop::{cancelled, ended, grace_in_range, stop_of};
use super::{Refusal, fact, queue, submit, when};
use crate::array::{Array, STEP_MAX};
use crate::state::{Job, State};
use compact_str::format_compact;
use outlive_schemas::array::{
    ArrayAdvanced, ArrayCancelRequested, ArrayTasksCancelled, ArrayTasksRetried, Indexes, ids_about, index_of, task_id,
};
use outlive_schemas::command::{Origin, Stop};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event, JobFinished};
use outlive_schemas::id::{Attempt, JobId, JobRef, Namespace};
use outlive_schemas::job::{JobSpec, invalid};
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;
use std::collections::BTreeSet;

/// Ids of an array's tasks follow from its own, and must be free.
pub(super) fn ids_are_free(state: &State, id: JobId, spec: &JobSpec) -> Result<(), Rejection> {
    let Some(array) = spec.array else { return Ok(()) };
    let taken = |other: &JobId| index_of(id, *other).is_some_and(|index| index < array.count);
    match state.jobs.range(ids_about(id)).any(|(other, _)| taken(other)) {
        true => Err(Rejection::unavailable("an id that was drawn for a task is another job's; send it again")),
        false => Ok(()),
    }
}

/// What is not for arrays and their tasks.
pub(super) fn single_only(id: JobId, job: &Job, what: &str) -> Result<(), Rejection> {
    let kind = match (&job.array, &job.task) {
        (Some(_), _) => "an array".to_owned(),
        (_, Some(task)) => format!("a task of array {}", task.array),
        _ => return Ok(()),
    };
    let message = format!("job {id} is {kind}, which cannot be {what}");
    Err(Rejection::new(ErrorCode::Unsupported, message))
}

/// Cancels the whole.
pub(super) fn cancel(id: JobId, array: &Array, how: Stop, origin: Origin, now: Timestamp) -> Vec<Envelope> {
    if array.stop.is_some_and(|before| before == how || before == Stop::Kill) {
        return Vec::new();
    }
    let Origin { request_id, by } = origin;
    let event = Event::ArrayCancelRequested(ArrayCancelRequested { job: id, how, request_id });
    vec![Envelope { at: now, by, event }]
}

/// Cancels some of its tasks: those that wait at once, those on their way as one cancels any job. Of those that were
/// cancelled before nothing more is asked, for asking twice is no fault.
pub(super) fn cancel_tasks(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    tasks: &Indexes,
    how: Stop,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Origin { request_id, by } = origin;
    if request_id.as_ref().is_some_and(|id| state.is_spent(namespace, id)) {
        return Ok(Vec::new());
    }
    grace_in_range(how)?;
    let (id, job, array) = meant(state, namespace, job, tasks)?;
    if job.status.is_final() {
        let message = format!(
            "array {id} is over already: it {}; nothing of it is left to cancel, and job.retry tries tasks of it again",
            ended(job.status)
        );
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    let (mut stopped, rest) = tasks.partition(&array.pending);
    let (on_their_way, counted) = rest.partition(&array.open);
    let (_, mut over) = counted.partition(&array.cancelled);
    let mut orders = Vec::new();
    for index in on_their_way.iter() {
        let task_id = task_id(id, index);
        let Some(task) = state.jobs.get(&task_id) else { continue };
        let is_told = task.stop.as_ref().is_some_and(|order| order.how == how || order.how == Stop::Kill);
        match task.status {
            Status::Cancelled => {}
            // Not counted yet.
            status if status.is_final() => over.insert(index),
            _ if is_told => {}
            _ => {
                stopped.insert(index);
                orders.push(Envelope { at: now, by: by.clone(), event: stop_of(task_id, task, how, None) });
            }
        }
    }
    if !over.is_empty() {
        let message = format!(
            "`indexes` has {}: of array {id} these tasks are over already, for they have succeeded or failed; leave \
             them out",
            over.summary()
        );
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    if orders.len() > STEP_MAX as usize {
        let message = format!(
            "`indexes` has {} tasks of array {id} that are on their way; at most {STEP_MAX} are told to stop at once: \
             send several requests, or cancel the whole array",
            orders.len()
        );
        return Err(Rejection::new(ErrorCode::LimitExceeded, message).into());
    }
    if stopped.is_empty() {
        return Ok(Vec::new());
    }
    let event = Event::ArrayTasksCancelled(ArrayTasksCancelled { job: id, tasks: stopped, request_id });
    let mut events = vec![Envelope { at: now, by, event }];
    events.append(&mut orders);
    Ok(events)
}

/// Tries some of its tasks again. Where the array is over, it is tried again with these alone.
pub(super) fn retry_tasks(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    tasks: Indexes,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Origin { request_id, by } = origin;
    if request_id.as_ref().is_some_and(|id| state.is_spent(namespace, id)) {
        return Ok(Vec::new());
    }
    let (id, job, array) = meant(state, namespace, job, &tasks)?;
    if job.status == Status::Stopping {
        let message = format!("array {id} is being cancelled: once it is over, its tasks can be tried again");
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    let mut may = array.failed.clone();
    may.extend(&array.cancelled);
    if job.status.is_final() {
        // They never began: what the array waited for did not end as it had to.
        may.extend(&array.pending);
    }
    let (_, others) = tasks.partition(&may);
    if !others.is_empty() {
        let message = format!(
            "`indexes` has {}: of array {id} these tasks wait, are on their way or have succeeded, and only those that \
             failed or were cancelled can be tried again; leave them out",
            others.summary()
        );
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    if job.status.is_final() {
        when::may_retry(state, id, job, &BTreeSet::new())?;
        submit::within_limits(state, 1)?;
        queue::may_wait(state, namespace, &[(id, job.spec.clone())]).map_err(|(_, rejection)| rejection)?;
    }
    let event = Event::ArrayTasksRetried(ArrayTasksRetried { job: id, tasks, request_id });
    Ok(vec![Envelope { at: now, by, event }])
}

/// The array of which these tasks are meant.
///
/// Errors: where it is none, or has no such tasks, or where they are too many ranges.
fn meant<'a>(
    state: &'a State,
    namespace: &Namespace,
    job: &JobRef,
    tasks: &Indexes,
) -> Result<(JobId, &'a Job, &'a Array), Rejection> {
    let (id, job) = state.resolve(namespace, job)?;
    let Some(array) = job.array.as_deref() else {
        let what = match &job.task {
            Some(task) => format!("is a task of array {}: name the array", task.array),
            None => "is no array: leave `indexes` out".to_owned(),
        };
        return Err(invalid("indexes", &format!("is {}, but job {id} {what}", tasks.summary())));
    };
    if tasks.is_empty() {
        let what = "is empty: name tasks as in 3,7-9, or leave it out to mean the whole array";
        return Err(invalid("indexes", what));
    }
    if tasks.ranges() > limits::ARRAY_RANGES_MAX {
        let (given, max) = (tasks.ranges(), limits::ARRAY_RANGES_MAX);
        let message = format!("`indexes` has {given} ranges; the limit is {max}: send several requests");
        return Err(Rejection::new(ErrorCode::LimitExceeded, message));
    }
    let count = job.spec.array.map_or(0, |array| array.count);
    let (_, beyond) = tasks.partition(&Indexes::first(count));
    if !beyond.is_empty() {
        let what = format!("has {}, and array {id} has the tasks 0 to {}", beyond.summary(), count.saturating_sub(1));
        return Err(invalid("indexes", &format!("{what}: leave out what is beyond")));
    }
    Ok((id, job, array))
}

pub(super) fn attend(state: &State, id: JobId, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    let array = job.array.as_deref().filter(|_| !job.status.is_final()).ok_or(Refusal::Stale)?;
    let ended: Indexes =
        state.index.tasks_over.get(&id).into_iter().flatten().take(STEP_MAX as usize).copied().collect();
    let released = match array.stop {
        None if !job.awaits_others() => array.pending.lowest(job.room_for_tasks(ended.len()).min(STEP_MAX)),
        _ => Indexes::default(),
    };
    let told = array.untold.lowest(STEP_MAX);
    if !(ended.is_empty() && released.is_empty() && told.is_empty()) {
        let mut events = Vec::new();
        if let Some(how) = array.stop {
            let tasks = told.iter().filter(|index| !ended.contains(*index)).map(|index| task_id(id, index));
            let tasks = tasks.filter_map(|task| Some((task, state.jobs.get(&task)?)));
            events.extend(tasks.filter(|(_, task)| !task.status.is_final()).filter_map(|(task_id, task)| {
                let event = match task.stop.as_ref().is_some_and(|order| order.how == how || order.how == Stop::Kill) {
                    true => return None,
                    false => stop_of(task_id, task, how, None),
                };
                Some(Envelope { at: now, by: None, event })
            }));
        }
        events.extend(fact(now, Event::ArrayAdvanced(ArrayAdvanced { job: id, ended, released, told })));
        return Ok(events);
    }
    let waits = job.awaits_others() && array.stop.is_none();
    if !array.pending.is_empty() || !array.open.is_empty() || waits {
        return Err(Refusal::Stale);
    }
    Ok(fact(now, Event::JobFinished(over(id, job, array))))
}

fn over(id: JobId, job: &Job, array: &Array) -> JobFinished {
    let (failed, stopped) = (array.failed.len(), array.cancelled.len());
    let all = job.spec.array.map_or(0, |array| array.count);
    if array.stop.is_some() {
        let reason = format_compact!(
            "cancelled; of {all} tasks {} had succeeded and {failed} had failed",
            array.succeeded.len()
        );
        return JobFinished { reason: Some(reason), ..cancelled(id, job, "") };
    }
    let (status, reason) = match (failed, stopped) {
        (0, 0) => (Status::Succeeded, None),
        (failed, 0) => (Status::Failed, Some(format_compact!("{failed} of {all} tasks failed"))),
        (failed, stopped) => {
            let reason = format_compact!("{failed} of {all} tasks failed, and {stopped} were cancelled");
            (Status::Failed, Some(reason))
        }
    };
    let (attempt, exit_code, started_at, result) = (Attempt(0), None, None, None);
    JobFinished { job: id, attempt, status, reason, exit_code, started_at, result, request_id: None }
}
