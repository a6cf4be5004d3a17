//! View → placements. Pure, deterministic, in whole numbers; it proposes and changes nothing.
//!
//! The planner sees the state as it is and keeps its own account of the room it gives away in this round, and of what
//! queues and keys are given of it. What it proposes is checked again, by the same rules, when it is turned into events.
//!
//! **Who goes next.** First those that lost their host, the more urgent before the others, then those that have waited
//! longer. Of the rest, the queue goes next that holds the least of the room for its weight; of queues that hold the
//! same, the one whose turn it is (`queue::share`). Within a queue the higher priority goes first; of the same priority
//! the key of which the fewest run, jobs without a key counting as one; of the same key the one that has been ready the
//! longest. So priority counts within a queue, and weight between queues: none waits for ever for the sake of another.

pub mod admission;
pub mod doors;
pub mod feasible;
mod fleet;
mod rank;

use crate::queue::{Lines, QueueId, Rung, Shape, Turn, share};
use crate::state::{Job, State};
use admission::{Gate, Keys, key_hold};
use fleet::{Fleet, Suitable};
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{Attempt, ExecutorId, JobId};
use outlive_schemas::queue::{Concurrency, Priority};
use outlive_schemas::time::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, btree_set};

/// One job for one executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub job: JobId,
    pub attempt: Attempt,
    pub executor: ExecutorId,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub proposals: Vec<Proposal>,
    /// Whether the round ended by its limit rather than by want of jobs or room.
    pub more: bool,
}

/// What the leader knows beside the log.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Executors that are to get nothing for now: silent, degraded or going.
    pub avoid: BTreeSet<ExecutorId>,
    /// Room that is being made, and is kept: for which job, and where.
    pub reserved: BTreeMap<JobId, ExecutorId>,
}

/// Jobs of one queue, shape and rung, those ready the longest first.
struct Line<'a> {
    /// Their places among the queues and the shapes.
    queue: usize,
    shape: usize,
    rung: &'a Rung,
    waiting: btree_set::Iter<'a, (Timestamp, JobId)>,
}

/// A queue in one round.
struct Queue<'a> {
    id: &'a QueueId,
    lines: &'a Lines,
    gate: Gate,
    /// What its jobs hold.
    taken: Capacity,
    keyless: u32,
    /// Its virtual time.
    turn: u64,
    heads: BinaryHeap<Reverse<Head>>,
}

/// The next job of a line, by what is looked at first; `alike` of its key run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    priority: Reverse<Priority>,
    alike: u32,
    ready_at: Timestamp,
    job: JobId,
    line: usize,
}

/// One round.
struct Round<'a> {
    state: &'a State,
    now: Timestamp,
    limit: usize,
    fleet: Fleet<'a>,
    keys: Keys<'a>,
    queues: Vec<Queue<'a>>,
    lines: Vec<Line<'a>>,
    /// Every shape that waits, with the hosts that suit it.
    shapes: Vec<(&'a Shape, Suitable)>,
    numbers: BTreeMap<&'a Shape, usize>,
    /// The queues' common clock.
    clock: u64,
    /// Those that have been given the room that was kept for them.
    settled: BTreeSet<JobId>,
    plan: Plan,
}

/// At most `limit` placements.
pub fn plan(state: &State, hints: &Hints, now: Timestamp, limit: usize) -> Plan {
    if state.queue().is_empty() {
        return Plan::default();
    }
    let mut round = Round::of(state, hints, now, limit);
    round.reserved(hints);
    if !round.plan.more {
        round.recovering();
    }
    if !round.plan.more {
        round.waiting();
    }
    round.plan
}

impl<'a> Round<'a> {
    fn of(state: &'a State, hints: &Hints, now: Timestamp, limit: usize) -> Round<'a> {
        let queues = state.queue().queues().map(|(id, lines)| {
            let held = state.running().of(id);
            Queue {
                id,
                lines,
                gate: Gate::of(state, id, now),
                taken: held.taken,
                keyless: held.keyless,
                turn: state.turns.next(id),
                heads: BinaryHeap::new(),
            }
        });
        Round {
            state,
            now,
            limit,
            fleet: Fleet::of(state, hints),
            keys: Keys::of(state),
            queues: queues.collect(),
            lines: Vec::new(),
            shapes: Vec::new(),
            numbers: BTreeMap::new(),
            clock: 0,
            settled: BTreeSet::new(),
            plan: Plan::default(),
        }
    }

    /// Those for whom room was made, once it is there.
    fn reserved(&mut self, hints: &Hints) {
        for (&id, &executor) in &hints.reserved {
            if self.is_over() {
                return;
            }
            let is_ready = |job: &Job| {
                job.is_queued() && job.ready_at <= self.now && self.state.held_alone(job, self.now).is_none()
            };
            let Some(job) = self.state.jobs.get(&id).filter(|job| is_ready(job)) else { continue };
            let Some(queue) = self.queues.iter().position(|queue| *queue.id == job.queue()) else { continue };
            let is_held = self.queues[queue].gate.hold(job.turn()).is_some() || {
                let of: &'a QueueId = self.queues[queue].id;
                let with = job.spec.concurrency.as_deref();
                with.is_some_and(|with| key_hold(with, *self.keys.running(&of.0, &with.key)).is_some())
            };
            if is_held || !self.fleet.take_kept(executor, &Shape::of(&job.spec)) {
                continue;
            }
            self.plan.proposals.push(Proposal { job: id, attempt: job.attempt.next(), executor });
            self.settled.insert(id);
            self.count(queue, &job.need(), job.spec.concurrency.as_deref());
        }
    }

    /// Those that lost their host, whatever queue they are in.
    fn recovering(&mut self) {
        // Between them keys have no shares.
        let among_all = |head: Head| Reverse(Head { alike: 0, ..head });
        let mut heads = BinaryHeap::new();
        for queue in 0..self.queues.len() {
            self.open(queue, Turn::Recovering);
            heads.extend(self.queues[queue].heads.drain().map(|Reverse(head)| among_all(head)));
        }
        while let Some(Reverse(head)) = heads.pop() {
            if self.is_over() {
                return;
            }
            let queue = self.lines[head.line].queue;
            if self.queues[queue].gate.hold(Turn::Recovering).is_none() && self.place(head) {
                heads.extend(self.next_of(head.line).map(among_all));
            }
        }
    }

    fn waiting(&mut self) {
        let mut order = BinaryHeap::new();
        for queue in 0..self.queues.len() {
            if self.queues[queue].gate.hold(Turn::Waiting).is_some() {
                continue;
            }
            self.open(queue, Turn::Waiting);
            if !self.queues[queue].heads.is_empty() {
                order.push(Reverse((self.share(queue), self.queues[queue].turn, queue)));
            }
        }
        while let Some(Reverse((.., queue))) = order.pop() {
            if self.is_over() {
                return;
            }
            if self.serve(queue) {
                let of = &mut self.queues[queue];
                self.clock = self.clock.max(of.turn);
                of.turn = share::after(self.clock, of.gate.settings.weight);
                if !of.heads.is_empty() && of.gate.hold(Turn::Waiting).is_none() {
                    order.push(Reverse((self.share(queue), self.queues[queue].turn, queue)));
                }
            }
        }
    }

    /// Whether the round has come to its limit. Something is left then.
    fn is_over(&mut self) -> bool {
        self.plan.more = self.plan.proposals.len() == self.limit;
        self.plan.more
    }

    /// Takes the lines of a queue in, but for those of shapes for which there is no room at all.
    fn open(&mut self, queue: usize, turn: Turn) {
        let lines = self.queues[queue].lines;
        for (shape, rungs) in lines.shapes(turn) {
            let number = *self.numbers.entry(shape).or_insert_with(|| {
                self.shapes.push((shape, self.fleet.suitable(shape)));
                self.shapes.len() - 1
            });
            if self.shapes[number].1.is_empty() {
                continue;
            }
            for (rung, waiting) in rungs {
                self.lines.push(Line { queue, shape: number, rung, waiting: waiting.iter() });
                if let Some(head) = self.next_of(self.lines.len() - 1) {
                    self.queues[queue].heads.push(Reverse(head));
                }
            }
        }
    }

    /// The next job of a line that is ready.
    fn next_of(&mut self, line: usize) -> Option<Head> {
        let (state, now, settled) = (self.state, self.now, &self.settled);
        let held = now < state.exclusive_held_until;
        let is_held = |job: &JobId| held && state.jobs.get(job).is_some_and(|job| job.spec.exclusive);
        let waiting = &mut self.lines[line].waiting;
        let &(ready_at, job) = waiting.find(|(_, job)| !settled.contains(job) && !is_held(job))?;
        (ready_at <= self.now).then(|| {
            let priority = self.lines[line].rung.priority;
            Head { priority, alike: self.alike(line), ready_at, job, line }
        })
    }

    /// How many run with the key of a line.
    fn alike(&mut self, line: usize) -> u32 {
        let Line { queue, rung, .. } = &self.lines[line];
        let of = &self.queues[*queue];
        match &rung.concurrency {
            None => of.keyless,
            Some(with) => *self.keys.running(&of.id.0, &with.key),
        }
    }

    /// Places one job of a queue, if any of it can be placed.
    fn serve(&mut self, queue: usize) -> bool {
        while let Some(Reverse(head)) = self.queues[queue].heads.pop() {
            let alike = self.alike(head.line);
            if alike != head.alike {
                // More of its key run than when it was put where it was.
                self.queues[queue].heads.push(Reverse(Head { alike, ..head }));
            } else if self.place(head) {
                let next = self.next_of(head.line).map(Reverse);
                self.queues[queue].heads.extend(next);
                return true;
            }
        }
        false
    }

    /// Places the next job of a line. If it cannot be placed, neither can the others of its line in this round: as many
    /// of its key run as may, or there is no room for its shape.
    fn place(&mut self, head: Head) -> bool {
        let alike = self.alike(head.line);
        let &Line { queue, shape, rung, .. } = &self.lines[head.line];
        if rung.concurrency.as_deref().is_some_and(|with| key_hold(with, alike).is_some()) {
            return false;
        }
        let Some(job) = self.state.jobs.get(&head.job) else { return false };
        let (shape, suitable) = &mut self.shapes[shape];
        let Some(host) = self.fleet.best(suitable, &shape.need, job) else { return false };
        let executor = self.fleet.id(host);
        self.plan.proposals.push(Proposal { job: head.job, attempt: job.attempt.next(), executor });
        self.fleet.take(host, &shape.need);
        let need = shape.need;
        self.count(queue, &need, rung.concurrency.as_deref());
        true
    }

    /// Notes what a queue and a key are given.
    fn count(&mut self, queue: usize, need: &Capacity, with: Option<&'a Concurrency>) {
        let of = &mut self.queues[queue];
        of.taken += *need;
        of.gate.take();
        match with {
            None => of.keyless += 1,
            Some(with) => *self.keys.running(&of.id.0, &with.key) += 1,
        }
    }

    /// What a queue holds of the fleet's fullest resource, for each unit of its weight.
    fn share(&self, queue: usize) -> u64 {
        let of = &self.queues[queue];
        dominant(&of.taken, &self.fleet.capacity) / u64::from(of.gate.settings.weight.max(1))
    }
}

/// What is taken of the resource of which the most is taken, in parts of 10^15: of the largest fleet the smallest job is
/// still a part.
fn dominant(taken: &Capacity, of: &Capacity) -> u64 {
    let part = |taken: u64, of: u64| {
        let parts = u128::from(taken) * 1_000_000_000_000_000 / u128::from(of.max(1));
        u64::try_from(parts).unwrap_or(u64::MAX)
    };
    part(taken.cpu_millis, of.cpu_millis)
        .max(part(taken.memory_bytes, of.memory_bytes))
        .max(part(u64::from(taken.slots), u64::from(of.slots)))
}
