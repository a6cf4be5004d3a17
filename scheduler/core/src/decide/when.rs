//! Deadlines that are over, and jobs that are tried again or forgotten by the many.

use super::{Refusal, depend, fact, queue};
use crate::state::{Job, State};
use outlive_schemas::command::Origin;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event, JobDeleted, JobFinished};
use outlive_schemas::id::{JobId, JobName, Namespace};
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;
use outlive_schemas::when::{DeadlinePassed, JobRetried};
use std::collections::BTreeSet;

/// A job that holds no room has failed at once; another when its executor says that nothing of it is left.
pub(super) fn give_up(state: &State, id: JobId, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    let passed = job.give_up().filter(|passed| passed.due_at <= now).ok_or(Refusal::Stale)?;
    let event = match job.placement {
        None => Event::JobFinished(JobFinished {
            job: id,
            attempt: job.attempt,
            status: Status::Failed,
            reason: Some(job.reason_for(passed.deadline)),
            exit_code: job.exit_code,
            started_at: None,
            result: None,
            request_id: None,
        }),
        Some(_) => Event::DeadlinePassed(DeadlinePassed {
            job: id,
            attempt: job.attempt,
            deadline: passed.deadline,
            due_at: passed.due_at,
        }),
    };
    Ok(fact(now, event))
}

/// Whether a job may be tried again; if not, why not. `names` are those that others take in the same go.
pub fn may_retry(state: &State, id: JobId, job: &Job, names: &BTreeSet<&JobName>) -> Result<(), Rejection> {
    if !matches!(job.status, Status::Failed | Status::Cancelled) {
        let message = format!("job {id} is {}: only one that failed or was cancelled can be tried again", job.status);
        return Err(Rejection::new(ErrorCode::InUse, message));
    }
    if job.task.is_some() {
        super::array::single_only(id, job, "tried again by itself: retry the array once it is over")?;
    }
    let Some(name) = &job.spec.name else { return Ok(()) };
    let holder = state.newest_named(&job.namespace, name).filter(|holder| *holder != id);
    let live = holder.and_then(|holder| state.jobs.get(&holder)).is_some_and(|holder| !holder.status.is_final());
    if live || names.contains(name) {
        let message = format!("job {id} cannot be tried again: a live job has its name, `{name}`; end that one first");
        return Err(Rejection::new(ErrorCode::InUse, message));
    }
    Ok(())
}

pub(super) fn retry(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    jobs: &[JobId],
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Origin { request_id, by } = origin;
    if request_id.as_ref().is_some_and(|id| state.is_spent(namespace, id)) {
        return Ok(Vec::new());
    }
    not_too_many(jobs)?;
    super::submit::within_limits(state, jobs.len())?;
    let mut names = BTreeSet::new();
    let mut events = Vec::with_capacity(jobs.len());
    let again = jobs.iter().filter_map(|id| state.jobs.get(id).map(|job| (*id, job.spec.clone()))).collect::<Vec<_>>();
    queue::may_wait(state, namespace, &again).map_err(|(_, rejection)| rejection)?;
    for id in depend::parents_first(state, jobs) {
        let job = in_namespace(state, namespace, id)?;
        may_retry(state, id, job, &names)?;
        names.extend(&job.spec.name);
        let request_id = request_id.clone().filter(|_| events.is_empty());
        let event = Event::JobRetried(JobRetried { job: id, attempt: job.attempt, request_id });
        events.push(Envelope { at: now, by: by.clone(), event });
    }
    Ok(events)
}

pub(super) fn delete(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    jobs: &[JobId],
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Origin { request_id, by } = origin;
    if request_id.as_ref().is_some_and(|id| state.is_spent(namespace, id)) {
        return Ok(Vec::new());
    }
    not_too_many(jobs)?;
    let mut seen = BTreeSet::new();
    let mut events = Vec::with_capacity(jobs.len());
    for id in jobs.iter().filter(|id| seen.insert(**id)) {
        let job = in_namespace(state, namespace, *id)?;
        if job.task.is_some() {
            super::array::single_only(*id, job, "deleted by itself: delete the array")?;
        }
        if !job.status.is_final() {
            let message = format!("job {id} is {}: only a job that is over can be deleted", job.status);
            return Err(Rejection::new(ErrorCode::InUse, message).into());
        }
        let request_id = request_id.clone().filter(|_| events.is_empty());
        let event = Event::JobDeleted(JobDeleted { job: *id, request_id });
        events.push(Envelope { at: now, by: by.clone(), event });
    }
    Ok(events)
}

fn in_namespace<'a>(state: &'a State, namespace: &Namespace, id: JobId) -> Result<&'a Job, Rejection> {
    let job = state.jobs.get(&id).filter(|job| job.namespace == *namespace);
    job.map(|job| &**job).ok_or_else(|| Rejection::not_found(format_args!("job `{id}` in namespace `{namespace}`")))
}

fn not_too_many(jobs: &[JobId]) -> Result<(), Rejection> {
    if jobs.len() <= limits::CHANGE_MANY_MAX {
        return Ok(());
    }
    let message = format!("{} jobs are meant; the limit is {}", jobs.len(), limits::CHANGE_MANY_MAX);
    Err(Rejection::new(ErrorCode::LimitExceeded, message))
}
