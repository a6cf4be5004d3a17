//! What becomes of an array's tasks: those that are over are counted, others begin in their places, and in the end the
//! array is over itself. All of it follows from the state, so it does not matter who leads.

use super::stop::{cancelled, stop_of};
use super::{Refusal, fact};
use crate::array::{Array, STEP_MAX};
use crate::state::{Job, State};
use compact_str::format_compact;
use outlive_schemas::array::{ArrayAdvanced, ArrayCancelRequested, Indexes, task_id};
use outlive_schemas::command::{Origin, Stop};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event, JobFinished};
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::job::JobSpec;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;

/// Ids of an array's tasks follow from its own, and must be free.
pub(super) fn ids_are_free(state: &State, id: JobId, spec: &JobSpec) -> Result<(), Rejection> {
    let Some(array) = spec.array else { return Ok(()) };
    let low = JobId(uuid::Uuid::from_u128(id.0.as_u128() & !u128::from(u32::MAX)));
    let high = JobId(uuid::Uuid::from_u128(id.0.as_u128() | u128::from(u32::MAX)));
    let taken = |other: &JobId| {
        let index = (other.0.as_u128() ^ id.0.as_u128()) as u32;
        (1..=array.count).contains(&index)
    };
    match state.jobs.range(low..=high).any(|(other, _)| taken(other)) {
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
    vec![Envelope { at: now, by: origin.by, event: Event::ArrayCancelRequested(ArrayCancelRequested { job: id, how }) }]
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
                    false => stop_of(task_id, task, how),
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
    JobFinished { job: id, attempt: Attempt(0), status, reason, exit_code: None, started_at: None, result: None }
}
