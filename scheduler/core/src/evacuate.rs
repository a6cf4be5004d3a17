//! Which attempts are to be given back by executors that live: those of drained executors, all of them; those of
//! executors that are not well, a few at a time and only where there is better room; and those that do not start.
//!
//! Pure. The leader repeats the orders until the attempts' ends are reported, so nothing of this stands in the log.
//!
//! **No stampede.** What makes a whole zone or fleet "sick" is seldom its hosts: a shared disk, a busy network, a wrong
//! threshold. So of a zone one executor is emptied at a time; nothing is emptied where more than half of the zone, if it
//! has several, or of the fleet, is not well; and nothing leaves before a healthy executor has room for it.

use crate::plan::doors::Doors;
use crate::plan::{Hints, feasible};
use crate::queue::Shape;
use crate::state::{Executor, Job, State};
use outlive_schemas::event::Cause;
use outlive_schemas::executor::DriverKind;
use outlive_schemas::id::{ExecutorId, JobId, Zone};
use outlive_schemas::limits;
use outlive_schemas::message::{Otherwise, Release, ReleaseAttempt};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use std::collections::{BTreeMap, BTreeSet};

/// What one that is not well has for a last checkpoint: its disk is slow, and the job runs there until it is taken.
const DEGRADED_WITHIN: Millis = Millis::minutes(10);

/// All orders to give back that hold now.
pub fn releases(
    state: &State,
    degraded: &BTreeSet<ExecutorId>,
    hints: &Hints,
    now: Timestamp,
) -> Vec<(ExecutorId, ReleaseAttempt)> {
    let mut orders = Vec::new();
    for (&id, executor) in state.executors.iter().filter(|(_, e)| e.is_alive() && !e.attempts.is_empty()) {
        let Some(drain) = state.drain_of(&executor.registration) else { continue };
        let how = Release::Checkpoint { within: drain.deadline.since(now), otherwise: Otherwise::Kill };
        orders.extend(movable(state, executor).map(|(job, found)| (id, order(job, found, Cause::Drain, how))));
    }
    let doors = Doors::of(state, hints);
    for id in to_empty(state, degraded) {
        let Some(executor) = state.executors.get(&id).filter(|e| state.drain_of(&e.registration).is_none()) else {
            continue;
        };
        let how = Release::Checkpoint { within: DEGRADED_WITHIN, otherwise: Otherwise::GoOn };
        let welcome = movable(state, executor).filter(|(_, job)| has_room_elsewhere(state, degraded, &doors, job));
        let some = welcome.take(limits::EVACUATIONS_AT_ONCE_MAX);
        orders.extend(some.map(|(job, found)| (id, order(job, found, Cause::HostDegraded, how))));
    }
    orders.extend(late_starts(state, now));
    orders
}

/// Jobs on drained executors that were not given back in time.
pub fn overdue(state: &State, now: Timestamp, limit: usize) -> Vec<(JobId, &Job)> {
    if state.drained_executors.is_empty() && state.drained_zones.is_empty() {
        return Vec::new();
    }
    let late = state.executors.values().filter(|executor| {
        executor.is_alive()
            && state
                .drain_of(&executor.registration)
                .is_some_and(|drain| now >= drain.deadline + crate::state::RELEASE_CONFIRMATION)
    });
    let jobs = late.flat_map(|executor| movable(state, executor)).filter(|(_, job)| !job.spec.exclusive);
    jobs.take(limit).collect()
}

/// Attempts with a state that nobody has told to stop. Noop jobs are over before an order could reach them.
fn movable<'a>(state: &'a State, executor: &'a Executor) -> impl Iterator<Item = (JobId, &'a Job)> {
    let held = executor.attempts.iter().filter_map(|id| state.jobs.get(id).map(|job| (*id, &**job)));
    held.filter(|(_, job)| {
        matches!(job.status, Status::Starting | Status::Running) && job.spec.driver.kind() != DriverKind::Noop
    })
}

fn order(id: JobId, job: &Job, cause: Cause, how: Release) -> ReleaseAttempt {
    ReleaseAttempt { job: id, attempt: job.attempt, cause, how }
}

/// Of the executors that are not well, those to be emptied now.
fn to_empty(state: &State, degraded: &BTreeSet<ExecutorId>) -> Vec<ExecutorId> {
    let mut zones: BTreeMap<&Zone, (usize, Vec<ExecutorId>)> = BTreeMap::new();
    for (id, executor) in state.executors.iter().filter(|(_, e)| e.is_alive()) {
        let (alive, sick) = zones.entry(&executor.registration.zone).or_default();
        *alive += 1;
        if degraded.contains(id) {
            sick.push(*id);
        }
    }
    let (alive, sick) = zones.values().fold((0, 0), |(all, ill), (alive, sick)| (all + alive, ill + sick.len()));
    if sick * 2 > alive {
        return Vec::new();
    }
    let chosen = zones.into_values().filter(|(alive, sick)| *alive == 1 || sick.len() * 2 <= *alive);
    chosen
        .filter_map(|(_, sick)| {
            // One at a time: the first that still has something.
            sick.into_iter().find(|id| state.executors.get(id).is_some_and(|e| movable(state, e).next().is_some()))
        })
        .collect()
}

fn has_room_elsewhere(state: &State, degraded: &BTreeSet<ExecutorId>, doors: &Doors<'_>, job: &Job) -> bool {
    let shape = Shape::of(&job.spec);
    state.executors.iter().any(|(id, e)| {
        e.is_alive()
            && !degraded.contains(id)
            && doors.closed(*id, &e.registration).is_none()
            && feasible::fits(&shape, &e.registration, &e.free()).is_ok()
    })
}

/// Attempts that must never run twice and have not been started in time: only their executors can let them go.
fn late_starts(state: &State, now: Timestamp) -> impl Iterator<Item = (ExecutorId, ReleaseAttempt)> + '_ {
    state.starting().take_while(move |(by, _)| *by <= now).filter_map(|(_, id)| {
        let job = state.jobs.get(&id)?;
        Some((job.placement?.executor, order(id, job, Cause::Timeout, Release::Kill)))
    })
}
