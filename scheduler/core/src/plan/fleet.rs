//! The fleet as it fills up in the course of one round, and which of its hosts is the best for a job.
//!
//! Hosts that suit a shape are kept in a heap for each zone, so that a placement does not look at all of them: what a
//! round costs is the number of shapes times that of hosts, once, and then little for each placement.

use super::doors::Doors;
use super::rank::{self, Load, Rank};
use super::{Hints, feasible};
use crate::queue::Shape;
use crate::state::{Executor, Job, State};
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{ExecutorId, Zone};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// The planner's own account of one executor in one round.
struct Host<'a> {
    id: ExecutorId,
    executor: &'a Executor,
    free: Capacity,
    load: Load,
    /// What it had kept, and has given to those for whom it was.
    given: Capacity,
    /// Its place among the zones.
    zone: usize,
}

pub(super) struct Fleet<'a> {
    hosts: Vec<Host<'a>>,
    zones: Vec<Load>,
    /// Of all hosts.
    pub capacity: Capacity,
}

/// The hosts that suit one shape and may have room for it. Where there is none, there will be none in this round.
pub(super) struct Suitable {
    /// By zone: how full a host was when it was looked at last, and which it is.
    zones: Vec<BinaryHeap<Reverse<(u64, ExecutorId, usize)>>>,
}

impl<'a> Fleet<'a> {
    pub fn of(state: &'a State, hints: &Hints) -> Fleet<'a> {
        let hosts = Vec::with_capacity(state.executors.len());
        let mut fleet = Fleet { hosts, zones: Vec::new(), capacity: Capacity::default() };
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
            // What is kept for some is not there for others.
            let kept = hints.reserved.iter().filter(|(_, on)| **on == id).filter_map(|(job, _)| state.jobs.get(job));
            let free = kept.fold(free, |free, job| free.less(&job.need()));
            fleet.zones[zone].add(&capacity, &free);
            fleet.capacity += capacity;
            fleet.hosts.push(Host { id, executor, free, load, given: Capacity::default(), zone });
        }
        fleet
    }

    pub fn suitable(&self, shape: &Shape) -> Suitable {
        let mut zones = vec![Vec::new(); self.zones.len()];
        for (number, host) in self.hosts.iter().enumerate() {
            let suits = feasible::suits(shape, &host.executor.registration).is_ok();
            if suits && host.free.holds(&shape.need) {
                zones[host.zone].push(Reverse((host.load.full, host.id, number)));
            }
        }
        Suitable { zones: zones.into_iter().map(BinaryHeap::from).collect() }
    }

    /// The best host with room for a job of this shape.
    pub fn best(&self, among: &mut Suitable, need: &Capacity, job: &Job) -> Option<usize> {
        if rank::is_indifferent(job) {
            return self.emptiest(among, need);
        }
        let hosts = among.zones.iter().flatten().map(|Reverse((.., number))| *number);
        let with_room = hosts.filter(|number| self.hosts[*number].free.holds(need));
        with_room.min_by_key(|number| {
            let host = &self.hosts[*number];
            Rank {
                ladder: rank::ladder(&host.executor.registration, job),
                zone_full: self.zones[host.zone].full,
                host_full: host.load.full,
                id: host.id,
            }
        })
    }

    /// The same where every step of the ladder is alike: the emptiest host of the emptiest zone.
    fn emptiest(&self, among: &mut Suitable, need: &Capacity) -> Option<usize> {
        let mut best: Option<(u64, u64, ExecutorId, usize)> = None;
        for (zone, heap) in among.zones.iter_mut().enumerate() {
            // What a host holds only grows in a round: one that is fuller than noted is put back to where it belongs,
            // and one without room is let go.
            while let Some(mut top) = heap.peek_mut() {
                let Reverse((noted, id, number)) = *top;
                let host = &self.hosts[number];
                if !host.free.holds(need) {
                    std::collections::binary_heap::PeekMut::pop(top);
                } else if host.load.full != noted {
                    *top = Reverse((host.load.full, id, number));
                } else {
                    let found = (self.zones[zone].full, noted, id, number);
                    best = Some(best.map_or(found, |best| best.min(found)));
                    break;
                }
            }
        }
        best.map(|(.., number)| number)
    }

    /// Gives a job of this shape the room that is kept for it on an executor, if it is there by now. What is kept has
    /// been taken off what is free already.
    pub fn take_kept(&mut self, executor: ExecutorId, shape: &Shape) -> bool {
        let Some(host) = self.hosts.iter_mut().find(|host| host.id == executor) else { return false };
        let free = host.executor.free().less(&host.given);
        let fits = feasible::fits(shape, &host.executor.registration, &free).is_ok();
        if fits {
            host.given += shape.need;
        }
        fits
    }

    pub fn id(&self, host: usize) -> ExecutorId {
        self.hosts[host].id
    }

    pub fn take(&mut self, host: usize, need: &Capacity) {
        let host = &mut self.hosts[host];
        host.free -= *need;
        host.load.take(need);
        self.zones[host.zone].take(need);
    }
}

impl Suitable {
    pub fn is_empty(&self) -> bool {
        self.zones.iter().all(BinaryHeap::is_empty)
    }
}
