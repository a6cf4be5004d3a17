//! Queues: set up, taken away, and named by jobs.

use super::{Refusal, is_done};
use crate::queue::QueueId;
use crate::state::State;
use outlive_schemas::command::Origin;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::id::{Namespace, QueueName};
use outlive_schemas::job::JobSpec;
use outlive_schemas::limits;
use outlive_schemas::queue::{QueueDeleted, QueuePut, QueueSettings};
use outlive_schemas::subject::RESERVED_NAMESPACES;
use outlive_schemas::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is put takes the place of what was there; to put the same again changes nothing.
pub(super) fn put(
    state: &State,
    namespace: Namespace,
    origin: Origin,
    name: QueueName,
    settings: QueueSettings,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    if is_done(state, &namespace, &origin) {
        return Ok(Vec::new());
    }
    settings.validate()?;
    if RESERVED_NAMESPACES.contains(&namespace.as_str()) {
        let message = format!("namespace `{namespace}` is Outlive's own: choose another");
        return Err(Rejection::new(ErrorCode::InvalidArgument, message).into());
    }
    let id = QueueId(namespace, name);
    match state.queues.get(&id) {
        Some(known) if known.settings == settings => return Ok(Vec::new()),
        Some(_) => {}
        None => within_limits(state, &id.0)?,
    }
    let QueueId(namespace, name) = id;
    let Origin { request_id, by } = origin;
    let event = Event::QueuePut(QueuePut { namespace, name, settings, request_id });
    Ok(vec![Envelope { at: now, by, event }])
}

fn within_limits(state: &State, namespace: &Namespace) -> Result<(), Rejection> {
    let of_namespace = state.queues_of(namespace).count();
    let refused = |count, whose: &str, limit| {
        let message = format!("{whose} has {count} queues, and the limit is {limit}: delete one that is not needed");
        Err(Rejection::new(ErrorCode::LimitExceeded, message))
    };
    if of_namespace >= limits::QUEUES_PER_NAMESPACE_MAX {
        return refused(of_namespace, &format!("namespace `{namespace}`"), limits::QUEUES_PER_NAMESPACE_MAX);
    }
    if state.queues.len() >= limits::QUEUES_MAX {
        return refused(state.queues.len(), "the cluster", limits::QUEUES_MAX);
    }
    Ok(())
}

/// A queue that an unfinished job names stays, also where that job waits for others or is stopped. Costs by the jobs of
/// the namespace; queues are seldom deleted.
pub(super) fn delete(
    state: &State,
    namespace: Namespace,
    origin: Origin,
    name: QueueName,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    if is_done(state, &namespace, &origin) {
        return Ok(Vec::new());
    }
    let id = QueueId(namespace, name);
    if !state.queues.contains_key(&id) {
        let is_done = id.1.is_default();
        return if is_done { Ok(Vec::new()) } else { Err(unknown(&id).into()) };
    }
    let jobs = state.in_namespace(&id.0).into_iter().flatten().filter_map(|job| state.jobs.get(job));
    let unfinished = jobs.filter(|job| !job.status.is_final() && job.spec.queue == id.1).count();
    if !id.1.is_default() && unfinished > 0 {
        let waiting = state.queue().of(&id).map_or(0, |lines| lines.len());
        let running = state.running().of(&id).jobs;
        let message = format!(
            "queue `{}` still has jobs, {waiting} waiting and {running} running of {unfinished} that are not over: \
             cancel them, or wait until they are",
            id.1
        );
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    let QueueId(namespace, name) = id;
    let Origin { request_id, by } = origin;
    Ok(vec![Envelope { at: now, by, event: Event::QueueDeleted(QueueDeleted { namespace, name, request_id }) }])
}

/// The queue that a job names, if it is there.
pub(super) fn is_there(state: &State, namespace: &Namespace, name: &QueueName) -> Result<(), Rejection> {
    let id = QueueId(namespace.clone(), name.clone());
    if name.is_default() || state.queues.contains_key(&id) { Ok(()) } else { Err(unknown(&id)) }
}

/// Whether all these jobs may wait in the queues that they name.
///
/// Errors: which of them may not, and why.
pub(super) fn may_wait(
    state: &State,
    namespace: &Namespace,
    jobs: &[(outlive_schemas::id::JobId, Arc<JobSpec>)],
) -> Result<(), (usize, Rejection)> {
    // How many more each queue takes.
    let mut room: BTreeMap<&QueueName, Option<u64>> = BTreeMap::new();
    for (position, (_, spec)) in jobs.iter().enumerate() {
        let left = match room.get_mut(&spec.queue) {
            Some(left) => left,
            None => {
                is_there(state, namespace, &spec.queue).map_err(|rejection| (position, rejection))?;
                let id = QueueId(namespace.clone(), spec.queue.clone());
                let max = state.queues.get(&id).and_then(|queue| queue.settings.max_waiting);
                let waiting = state.queue().of(&id).map_or(0, |lines| lines.len());
                room.entry(&spec.queue).or_insert(max.map(|max| u64::from(max).saturating_sub(waiting)))
            }
        };
        match left {
            None => {}
            Some(0) => return Err((position, full(state, namespace, &spec.queue))),
            Some(left) => *left -= 1,
        }
    }
    Ok(())
}

fn full(state: &State, namespace: &Namespace, name: &QueueName) -> Rejection {
    let id = QueueId(namespace.clone(), name.clone());
    let waiting = state.queue().of(&id).map_or(0, |lines| lines.len());
    let max = state.queues.get(&id).and_then(|queue| queue.settings.max_waiting).unwrap_or_default();
    let message = format!(
        "queue `{name}`: {waiting} wait in it, and its `max_waiting` is {max}: send fewer, try again once some have been \
         started, or raise it with `outlive queue put`"
    );
    Rejection::new(ErrorCode::LimitExceeded, message)
}

fn unknown(id: &QueueId) -> Rejection {
    let QueueId(namespace, name) = id;
    Rejection::not_found(format_args!(
        "queue `{name}` in namespace `{namespace}`: make it with `outlive queue put {name}`, or leave `queue` out for \
         `default`"
    ))
}
