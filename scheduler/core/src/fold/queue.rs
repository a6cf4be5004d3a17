//! What becomes of queues, and what they are given.

use super::{Applied, change, release, remember, same_attempt};
use crate::queue::{Queue, QueueId, Turn};
use crate::state::State;
use outlive_schemas::id::{JobId, Sequence};
use outlive_schemas::queue::{JobPreempted, QueueDeleted, QueuePut};
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;

/// What was started under the rate before still counts. Without a rate nothing is counted.
pub(super) fn put(state: &mut State, e: &QueuePut) -> Applied {
    let id = QueueId(e.namespace.clone(), e.name.clone());
    let queue = state.queues.entry(id).or_insert_with(|| Queue { settings: e.settings, starts: Default::default() });
    if e.settings.rate.is_none() {
        queue.starts = Default::default();
    }
    queue.settings = e.settings;
    remember(state, &e.namespace, e.request_id.as_ref());
    Ok(())
}

pub(super) fn deleted(state: &mut State, e: &QueueDeleted) -> Applied {
    let id = QueueId(e.namespace.clone(), e.name.clone());
    state.queues.remove(&id).ok_or("there is no such queue")?;
    remember(state, &e.namespace, e.request_id.as_ref());
    Ok(())
}

/// A job of it is placed.
pub(super) fn started(state: &mut State, at: Timestamp, id: JobId) {
    let Some(job) = state.jobs.get(&id) else { return };
    let id = job.queue();
    let mut weight = 1;
    if let Some(queue) = state.queues.get_mut(&id) {
        weight = queue.settings.weight;
        if let Some(rate) = queue.settings.rate {
            queue.starts.note(rate, at);
        }
    }
    // Who goes on after a loss has not had a turn.
    if job.turn() == Turn::Waiting {
        state.turns.note(&id, weight);
    }
}

/// No loss, so nothing is recovered: it takes its turn among those that wait.
pub(super) fn preempted(state: &mut State, seq: Sequence, at: Timestamp, e: &JobPreempted) -> Applied {
    let job = state.jobs.get_mut(&e.job).ok_or("there is no such job")?;
    same_attempt(job, e.attempt)?;
    release(&mut state.executors, &mut state.index, e.job, job);
    change(state, e.job, seq, |job| {
        job.status = Status::Pending;
        job.reason = Some(e.reason.clone());
        job.exit_code = None;
        job.restarts += 1;
        job.ready_at = at;
        Ok(())
    })
}
