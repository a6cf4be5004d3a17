//! A planned placement, checked again before it is appended.

use super::{Refusal, fact};
use crate::plan::{admission, feasible};
use crate::queue::Shape;
use crate::state::State;
use outlive_schemas::event::{Envelope, Event, JobPlaced};
use outlive_schemas::id::{Attempt, ExecutorId, JobId};
use outlive_schemas::time::Timestamp;

pub(super) fn place(
    state: &State,
    id: JobId,
    attempt: Attempt,
    executor: ExecutorId,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    if !job.is_queued() || attempt != job.attempt.next() || job.ready_at > now {
        return Err(Refusal::Stale);
    }
    if admission::hold(state, job, now).is_some() || state.held_alone(job, now).is_some() {
        return Err(Refusal::Stale);
    }
    let host = state.executors.get(&executor).filter(|e| e.is_alive()).ok_or(Refusal::Stale)?;
    if state.drain_of(&host.registration).is_some() {
        return Err(Refusal::Stale);
    }
    feasible::fits(&Shape::of(&job.spec), &host.registration, &host.free()).map_err(|_| Refusal::Stale)?;
    let placed = JobPlaced {
        job: id,
        attempt,
        executor,
        name: host.registration.name.clone(),
        zone: host.registration.zone.clone(),
        restore: job.restorable().map(|checkpoint| checkpoint.number),
    };
    Ok(fact(now, Event::JobPlaced(placed)))
}
