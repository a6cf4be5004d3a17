//! Room for the more urgent: which jobs are to give way to one of a higher priority that finds none, and the room that
//! is kept for it until it is there.
//!
//! Pure. What the leader remembers of it is [`Claims`]; nothing of it stands in the log, for a new leader that begins
//! anew loses nothing but time: what has given way has been put back with its state, and is started again when there is
//! room.
//!
//! **No thrash.** Only a strictly higher priority makes a job give way, and only one whose specification says that it
//! may. Nothing is asked for before it is certain that what gives way makes room on one executor, and as little as will
//! do. The room is then kept for whom it was made for: neither the jobs that gave way nor others of their queue take it.
//! Few claims stand at once, each of a few jobs, and each for a while only.
//!
//! Who gives way is given back as from a drained executor: frozen, stored, and ended by its own executor. So one that
//! must never run twice does not; and one whose state cannot be stored goes on.

use crate::plan::doors::Doors;
use crate::plan::{Hints, admission, feasible};
use crate::queue::{Shape, Turn};
use crate::state::{Executor, Job, RELEASE_CONFIRMATION, State};
use outlive_schemas::event::Cause;
use outlive_schemas::executor::{Capacity, DriverKind};
use outlive_schemas::id::{Attempt, ExecutorId, JobId};
use outlive_schemas::limits;
use outlive_schemas::message::{Otherwise, Release, ReleaseAttempt};
use outlive_schemas::queue::Priority;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Room that is being made on one executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub executor: ExecutorId,
    /// Who gives way.
    pub yielding: Vec<(JobId, Attempt)>,
    /// After which it is given up.
    pub until: Timestamp,
}

/// For how long a job is left alone whose state could not be stored: each try stops it for a moment.
const LEFT_ALONE: Millis = Millis::minutes(1);

/// Room that is being made, by whom it is for; and who could not give way lately, until when they are left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    claims: BTreeMap<JobId, Claim>,
    left_alone: BTreeMap<JobId, Timestamp>,
}

impl Claims {
    /// What the planner is to keep: whose room, and where.
    pub fn reserved(&self) -> BTreeMap<JobId, ExecutorId> {
        self.claims.iter().map(|(job, claim)| (*job, claim.executor)).collect()
    }

    /// The state of a job could not be stored. If it was to give way, another does.
    pub fn failed(&mut self, job: JobId, now: Timestamp) {
        let yields = |claim: &Claim| claim.yielding.iter().any(|(id, _)| *id == job);
        let before = self.claims.len();
        self.claims.retain(|_, claim| !yields(claim));
        if self.claims.len() < before {
            self.left_alone.insert(job, now + LEFT_ALONE);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Lets go of claims that have been met or have come to nothing, and makes new ones. `hints` are without those that
    /// the claims themselves give.
    pub fn renew(&mut self, state: &State, hints: &Hints, now: Timestamp) {
        self.left_alone.retain(|_, until| now < *until);
        let doors = Doors::of(state, hints);
        let open = |id: &ExecutorId| {
            state.executors.get(id).is_some_and(|e| e.is_alive() && doors.closed(*id, &e.registration).is_none())
        };
        self.claims.retain(|id, claim| {
            let waits = state.jobs.get(id).is_some_and(|job| waits(state, job, now));
            waits && now < claim.until && open(&claim.executor)
        });
        let Some(lowest) = state.running().yielding().next().map(|(priority, _)| priority) else { return };
        if self.claims.len() >= limits::PREEMPTIONS_AT_ONCE_MAX {
            return;
        }
        for (id, job) in without_room(state, lowest, &open, now) {
            if self.claims.len() >= limits::PREEMPTIONS_AT_ONCE_MAX {
                return;
            }
            if !self.claims.contains_key(&id)
                && let Some(claim) = self.claim(state, job, &open, now)
            {
                self.claims.insert(id, claim);
            }
        }
    }

    /// All orders to give way that hold now.
    pub fn releases(&self, state: &State) -> Vec<(ExecutorId, ReleaseAttempt)> {
        let yielding = self.claims.values().flat_map(|claim| claim.yielding.iter().map(|who| (claim.executor, *who)));
        let orders = yielding.filter_map(|(executor, (id, attempt))| {
            let job = state.jobs.get(&id).filter(|job| may_yield(job) && job.attempt == attempt)?;
            let how = Release::Checkpoint { within: job.spec.checkpoint.timeout, otherwise: Otherwise::GoOn };
            Some((executor, ReleaseAttempt { job: id, attempt, cause: Cause::Preemption, how }))
        });
        orders.collect()
    }

    /// The executor on which the least gives way for a job.
    fn claim(&self, state: &State, job: &Job, open: &impl Fn(&ExecutorId) -> bool, now: Timestamp) -> Option<Claim> {
        let taken: BTreeSet<JobId> =
            self.claims.values().flat_map(|claim| claim.yielding.iter().map(|(id, _)| *id)).collect();
        let mut candidates: BTreeMap<ExecutorId, Vec<(JobId, &Job)>> = BTreeMap::new();
        let below = state.running().yielding().take_while(|(priority, _)| *priority < job.spec.priority);
        let below = below.take(limits::PREEMPTION_SCAN_MAX);
        for (_, id) in below.filter(|(_, id)| !taken.contains(id) && !self.left_alone.contains_key(id)) {
            let Some(found) = state.jobs.get(&id).filter(|found| may_yield(found)) else { continue };
            if let Some(placed) = found.placement {
                candidates.entry(placed.executor).or_default().push((id, found));
            }
        }
        let shape = Shape::of(&job.spec);
        let ways = candidates.into_iter().filter_map(|(id, jobs)| {
            let executor = state.executors.get(&id).filter(|_| open(&id))?;
            feasible::suits(&shape, &executor.registration).ok()?;
            let yielding = self.least(state, id, executor, jobs, &shape.need)?;
            let hardest = yielding.iter().map(|(_, job)| job.spec.priority).max()?;
            Some((hardest, yielding.len(), id, yielding))
        });
        let (.., executor, yielding) = ways.min_by_key(|(hardest, count, id, _)| (*hardest, *count, *id))?;
        let longest = yielding.iter().map(|(_, job)| job.spec.checkpoint.timeout).max()?;
        let yielding = yielding.into_iter().map(|(id, job)| (id, job.attempt)).collect();
        Some(Claim { executor, yielding, until: now + longest + RELEASE_CONFIRMATION })
    }

    /// The jobs of one executor that have to give way, if they make room: the least urgent first, and of those the ones
    /// that were started last.
    fn least<'a>(
        &self,
        state: &State,
        id: ExecutorId,
        executor: &Executor,
        mut jobs: Vec<(JobId, &'a Job)>,
        need: &Capacity,
    ) -> Option<Vec<(JobId, &'a Job)>> {
        jobs.sort_by_key(|(id, job)| (job.spec.priority, Reverse(job.attempt_started_at), *id));
        let mut free = self.left(state, id, executor);
        let mut yielding = Vec::new();
        for (id, job) in jobs {
            if free.holds(need) || yielding.len() == limits::PREEMPTED_FOR_ONE_MAX {
                break;
            }
            free += job.need();
            yielding.push((id, job));
        }
        if !free.holds(need) {
            return None;
        }
        // Who was added first may not be needed any more, now that a larger one gives way.
        for index in (0..yielding.len()).rev() {
            let without = free.less(&yielding[index].1.need());
            if without.holds(need) {
                free = without;
                yielding.remove(index);
            }
        }
        Some(yielding)
    }

    /// What an executor will have free once the claims on it are met.
    fn left(&self, state: &State, id: ExecutorId, executor: &Executor) -> Capacity {
        let mut free = executor.free();
        let here = || self.claims.iter().filter(|(_, claim)| claim.executor == id);
        let jobs = |ids: Vec<JobId>| ids.into_iter().filter_map(|id| state.jobs.get(&id));
        for (_, claim) in here() {
            let held = claim.yielding.iter().map(|(id, _)| *id).filter(|id| executor.attempts.contains(id)).collect();
            jobs(held).for_each(|job| free += job.need());
        }
        jobs(here().map(|(id, _)| *id).collect()).fold(free, |free, job| free.less(&job.need()))
    }
}

/// Whether a job is to be placed and may be, as far as its queue and its key go.
fn waits(state: &State, job: &Job, now: Timestamp) -> bool {
    job.is_queued() && job.ready_at <= now && admission::hold(state, job, now).is_none()
}

/// Whether it can be given back now. One that is being stopped or changed comes to its end anyway.
fn may_yield(job: &Job) -> bool {
    job.spec.preemptible
        && job.status == Status::Running
        && job.stop.is_none()
        && job.ending().is_none()
        && job.spec.driver.kind() != DriverKind::Noop
}

/// Jobs for which there is no room, of each line the first, those that lost their host and then the more urgent before
/// the others.
fn without_room<'a>(
    state: &'a State,
    above: Priority,
    open: &impl Fn(&ExecutorId) -> bool,
    now: Timestamp,
) -> Vec<(JobId, &'a Job)> {
    let mut first = Vec::new();
    let mut shapes: BTreeMap<&Shape, bool> = BTreeMap::new();
    for (_, lines) in state.queue().queues() {
        for turn in [Turn::Recovering, Turn::Waiting] {
            for (shape, rungs) in lines.shapes(turn) {
                let urgent = rungs.iter().filter(|(rung, _)| rung.priority.0 > above);
                let heads = urgent.filter_map(|(_, line)| line.first()).filter(|(ready_at, _)| *ready_at <= now);
                let heads: Vec<_> = heads.copied().collect();
                if heads.is_empty() {
                    continue;
                }
                let has_room = shapes.entry(shape).or_insert_with(|| {
                    let mut hosts = state.executors.iter().filter(|(id, _)| open(id));
                    hosts.any(|(_, e)| feasible::fits(shape, &e.registration, &e.free()).is_ok())
                });
                if !*has_room {
                    first.extend(heads.into_iter().map(|(ready_at, id)| (turn, ready_at, id)));
                }
            }
        }
    }
    let known = first.into_iter().filter_map(|(turn, ready_at, id)| {
        let job = state.jobs.get(&id).map(|job| &**job).filter(|job| waits(state, job, now))?;
        Some(((turn, Reverse(job.spec.priority), ready_at, id), job))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(order, _)| *order);
    known.truncate(limits::PREEMPTORS_LOOKED_AT_MAX);
    known.into_iter().map(|((.., id), job)| (id, job)).collect()
}
