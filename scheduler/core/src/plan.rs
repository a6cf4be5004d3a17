//! View → placements. Pure, deterministic, in whole numbers; it proposes and changes nothing.
//!
//! The planner sees the state as it is and keeps its own account of the room it gives away in this round. What it
//! proposes is checked again, by the same rules, when it is turned into events.

pub mod doors;
pub mod feasible;
mod rank;

use crate::queue::Shape;
use crate::state::{Executor, Job, State};
use doors::Doors;
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{Attempt, ExecutorId, JobId, Zone};
use outlive_schemas::time::Timestamp;
use rank::{Load, Rank};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

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
}

/// The planner's own account of one executor in one round.
struct Host<'a> {
    id: ExecutorId,
    executor: &'a Executor,
    free: Capacity,
    load: Load,
    /// Its place among the zones.
    zone: usize,
}

/// The fleet as it fills up in the course of one round.
struct Fleet<'a> {
    hosts: Vec<Host<'a>>,
    zones: Vec<Load>,
}

/// Jobs of one shape, and the hosts that could take them if they had room.
struct Line<'a, Waiting> {
    shape: &'a Shape,
    waiting: Waiting,
    hosts: Option<Vec<usize>>,
}

/// At most `limit` placements, those first that have waited longest; jobs that have lost their host before the others.
pub fn plan(state: &State, hints: &Hints, now: Timestamp, limit: usize) -> Plan {
    let mut plan = Plan::default();
    if state.queue().is_empty() {
        return plan;
    }
    let mut fleet = Fleet::of(state, hints);
    let mut lines = Vec::new();
    // The heads of all lines. The one that has been ready longest goes first, so that no shape starves another.
    let mut heads = BinaryHeap::new();
    for (turn, shape, waiting) in state.queue().lines() {
        let mut waiting = waiting.iter().take_while(|(ready_at, _)| *ready_at <= now);
        if let Some(head) = waiting.next() {
            heads.push(Reverse((turn, *head, lines.len())));
            lines.push(Line { shape, waiting, hosts: None });
        }
    }
    while let Some(Reverse((turn, (_, id), number))) = heads.pop() {
        if plan.proposals.len() == limit {
            plan.more = true;
            break;
        }
        let line = &mut lines[number];
        if let Some(job) = state.jobs.get(&id) {
            let hosts = line.hosts.get_or_insert_with(|| fleet.suitable(line.shape));
            let Some(chosen) = fleet.best(hosts, &line.shape.need, job) else {
                // Where one job of a shape finds no room, none does: the line is not taken up again.
                continue;
            };
            plan.proposals.push(Proposal { job: id, attempt: job.attempt.next(), executor: fleet.hosts[chosen].id });
            fleet.take(chosen, &line.shape.need);
        }
        if let Some(head) = line.waiting.next() {
            heads.push(Reverse((turn, *head, number)));
        }
    }
    plan
}

impl<'a> Fleet<'a> {
    fn of(state: &'a State, hints: &Hints) -> Fleet<'a> {
        let mut fleet = Fleet { hosts: Vec::with_capacity(state.executors.len()), zones: Vec::new() };
        let mut numbers: BTreeMap<&Zone, usize> = BTreeMap::new();
        let doors = Doors::of(state, hints);
        let open = |id: &ExecutorId, e: &Executor| e.is_alive() && doors.closed(*id, &e.registration).is_none();
        for (&id, executor) in state.executors.iter().filter(|(id, e)| open(id, e)) {
            let zone = *numbers.entry(&executor.registration.zone).or_insert_with(|| {
                fleet.zones.push(Load::default());
                fleet.zones.len() - 1
            });
            let (capacity, free) = (executor.registration.capacity, executor.free());
            let mut load = Load::default();
            load.add(&capacity, &free);
            fleet.zones[zone].add(&capacity, &free);
            fleet.hosts.push(Host { id, executor, free, load, zone });
        }
        fleet
    }

    fn suitable(&self, shape: &Shape) -> Vec<usize> {
        let suitable = |host: &Host<'_>| feasible::suits(shape, &host.executor.registration).is_ok();
        self.hosts.iter().enumerate().filter(|(_, host)| suitable(host)).map(|(i, _)| i).collect()
    }

    fn best(&self, among: &[usize], need: &Capacity, job: &Job) -> Option<usize> {
        let with_room = among.iter().copied().filter(|&i| self.hosts[i].free.holds(need));
        with_room.min_by_key(|&i| {
            let host = &self.hosts[i];
            Rank {
                ladder: rank::ladder(&host.executor.registration, job),
                zone_full: self.zones[host.zone].full,
                host_full: host.load.full,
                id: host.id,
            }
        })
    }

    fn take(&mut self, host: usize, need: &Capacity) {
        let host = &mut self.hosts[host];
        host.free -= *need;
        host.load.take(need);
        self.zones[host.zone].take(need);
    }
}
