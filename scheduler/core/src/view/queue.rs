//! What a user sees of a queue.

use crate::plan::admission::{Gate, Hold};
use crate::queue::{QueueId, Turn};
use crate::state::State;
use outlive_schemas::error::Rejection;
use outlive_schemas::id::{Namespace, QueueName};
use outlive_schemas::queue::{QueueList, QueueSettings, QueueView};
use outlive_schemas::time::Timestamp;
use std::collections::BTreeSet;

/// One queue. Costs by the shapes and keys that wait in it.
///
/// Errors: `not_found` for one that was not put, but for the default one.
pub fn queue(state: &State, namespace: &Namespace, name: &QueueName, now: Timestamp) -> Result<QueueView, Rejection> {
    let id = QueueId(namespace.clone(), name.clone());
    if state.queues.contains_key(&id) || name.is_default() {
        return Ok(seen(state, &id, now));
    }
    Err(Rejection::not_found(format_args!("queue `{name}` in namespace `{namespace}`")))
}

/// All of a namespace's, by name, or only the one of that name.
pub fn queues(state: &State, namespace: &Namespace, only: Option<&QueueName>, now: Timestamp) -> QueueList {
    let default = QueueId(namespace.clone(), QueueName::default());
    let known = state.queues_of(namespace).map(|(id, _)| id).chain([&default]);
    let ids: BTreeSet<&QueueId> = known.filter(|id| only.is_none_or(|only| *only == id.1)).collect();
    QueueList { queues: ids.into_iter().map(|id| seen(state, id, now)).collect() }
}

/// The same of any queue, whether it was put or only has jobs.
pub fn seen(state: &State, id: &QueueId, now: Timestamp) -> QueueView {
    let gate = Gate::of(state, id, now);
    let QueueSettings { concurrency, rate, weight, max_waiting, paused } = gate.settings;
    let lines = state.queue().of(id);
    let oldest = lines.and_then(|lines| lines.oldest()).filter(|ready_at| *ready_at <= now);
    let hold = gate.hold(Turn::Waiting);
    QueueView {
        namespace: id.0.clone(),
        name: id.1.clone(),
        concurrency,
        rate,
        weight,
        max_waiting,
        paused,
        waiting: lines.map_or(0, |lines| lines.len()),
        running: state.running().of(id).jobs,
        oldest_wait_ms: oldest.map(|ready_at| now.since(ready_at).0),
        held_by: hold.as_ref().map(Hold::by),
        next_start_at: hold.as_ref().and_then(Hold::until),
    }
}
