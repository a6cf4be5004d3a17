//! Submissions: all of a request's jobs, or none.

use super::{Refusal, queue};
use crate::state::State;
use outlive_schemas::command::Origin;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event, JobSubmitted};
use outlive_schemas::id::{JobId, JobName, Namespace};
use outlive_schemas::job::JobSpec;
use outlive_schemas::limits;
use outlive_schemas::subject::RESERVED_NAMESPACES;
use outlive_schemas::time::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn submit(
    state: &State,
    namespace: Namespace,
    origin: Origin,
    jobs: Vec<(JobId, Arc<JobSpec>)>,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    if origin.request_id.as_ref().is_some_and(|id| state.submitted_by(&namespace, id).is_some()) {
        return Ok(Vec::new());
    }
    if RESERVED_NAMESPACES.contains(&namespace.as_str()) {
        let message = format!("namespace `{namespace}` is Outlive's own: choose another");
        return Err(Rejection::new(ErrorCode::InvalidArgument, message).into());
    }
    within_limits(state, jobs.len())?;
    queue::may_wait(state, &namespace, &jobs)
        .map_err(|(position, rejection)| in_position(rejection, position, jobs.len()))?;
    let mut names = BTreeSet::new();
    for (position, (id, spec)) in jobs.iter().enumerate() {
        spec.validate().map_err(|rejection| in_position(rejection, position, jobs.len()))?;
        super::array::ids_are_free(state, *id, spec)?;
        if let Some(name) = &spec.name {
            name_is_free(state, &namespace, name)?;
            if !names.insert(name) {
                return Err(Rejection::new(ErrorCode::InUse, format!("`jobs` has the name `{name}` twice")).into());
            }
        }
    }
    let depends = super::depend::declared(state, &namespace, &jobs)?;
    let Origin { request_id, by } = origin;
    let submitted = jobs.into_iter().map(|(job, spec)| Envelope {
        at: now,
        by: by.clone(),
        event: Event::JobSubmitted(JobSubmitted {
            job,
            namespace: namespace.clone(),
            request_id: request_id.clone(),
            spec,
        }),
    });
    // Only when all of them are there: they may depend on one another.
    let depends =
        depends.into_iter().map(|depends| Envelope { at: now, by: by.clone(), event: Event::JobDepends(depends) });
    Ok(submitted.chain(depends).collect())
}

pub(super) fn within_limits(state: &State, more: usize) -> Result<(), Rejection> {
    if state.live_jobs() + more as u64 > limits::LIVE_JOBS_MAX as u64 {
        let message =
            format!("there are {} unfinished jobs; the limit is {}", state.live_jobs(), limits::LIVE_JOBS_MAX);
        return Err(Rejection::new(ErrorCode::LimitExceeded, message));
    }
    if state.held_bytes() > limits::HELD_BYTES_MAX {
        let message = format!(
            "specifications and results take {} bytes of the scheduler's memory; the limit is {}: delete finished jobs",
            state.held_bytes(),
            limits::HELD_BYTES_MAX
        );
        return Err(Rejection::new(ErrorCode::LimitExceeded, message));
    }
    Ok(())
}

fn name_is_free(state: &State, namespace: &Namespace, name: &JobName) -> Result<(), Rejection> {
    let holder = state.newest_named(namespace, name).and_then(|id| state.jobs.get(&id).map(|job| (id, job)));
    match holder {
        Some((id, job)) if !job.status.is_final() => {
            let message = format!(
                "the name `{name}` is taken by job {id}, which is {}: choose another, or end that job",
                job.status
            );
            Err(Rejection::new(ErrorCode::InUse, message))
        }
        _ => Ok(()),
    }
}

/// Says which of several jobs is at fault.
fn in_position(mut rejection: Rejection, position: usize, of: usize) -> Rejection {
    if of > 1 {
        rejection.message = format!("`jobs[{position}]`: {}", rejection.message);
    }
    rejection
}
