//! View → placements. Pure, deterministic, in whole numbers; it proposes and changes nothing.
//!
//! The planner sees the state as it is and keeps its own account of the room it gives away in this round. What it
//! proposes is checked again, by the same rules, when it is turned into events.

pub mod feasible;
mod rank;

use crate::queue::Shape;
use crate::state::{Job, State};
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{Attempt, ExecutorId, JobId, Zone};
use outlive_schemas::time::Timestamp;
use rank::ZoneLoad;
use std::collections::{BTreeMap, BTreeSet};

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
    executor: &'a crate::state::Executor,
    free: Capacity,
}

/// At most `limit` placements, those first that have waited longest.
pub fn plan(state: &State, hints: &Hints, now: Timestamp, limit: usize) -> Plan {
    let mut plan = Plan::default();
    if state.queue().is_empty() {
        return plan;
    }
    let mut hosts: Vec<Host<'_>> = state
        .executors
        .iter()
        .filter(|(id, e)| e.is_alive() && !hints.avoid.contains(id))
        .map(|(&id, executor)| Host { id, executor, free: executor.free() })
        .collect();
    let mut zones = zone_loads(&hosts);

    // One cursor a shape; the shape whose next job has been ready longest goes first, so that no shape starves.
    let mut cursors: Vec<(&Shape, _)> =
        state.queue().shapes().map(|(shape, waiting)| (shape, waiting.iter().copied().peekable())).collect();
    while plan.proposals.len() < limit {
        let next = cursors
            .iter_mut()
            .enumerate()
            .filter_map(|(i, (_, waiting))| {
                waiting.peek().filter(|(ready_at, _)| *ready_at <= now).map(|head| (*head, i))
            })
            .min();
        let Some(((_, id), cursor)) = next else { return plan };
        let (shape, waiting) = &mut cursors[cursor];
        let Some(job) = state.jobs.get(&id) else {
            waiting.next();
            continue;
        };
        match best(&hosts, &zones, shape, job) {
            Some(chosen) => {
                waiting.next();
                let host = &mut hosts[chosen];
                host.free -= shape.need;
                if let Some(zone) = zones.get_mut(&host.executor.registration.zone) {
                    zone.take(&shape.need);
                }
                plan.proposals.push(Proposal { job: id, attempt: job.attempt.next(), executor: host.id });
            }
            // Where one job of a shape finds no room, none does.
            None => {
                cursors.swap_remove(cursor);
            }
        }
    }
    plan.more = true;
    plan
}

fn best(hosts: &[Host<'_>], zones: &BTreeMap<Zone, ZoneLoad>, shape: &Shape, job: &Job) -> Option<usize> {
    let fitting =
        hosts.iter().enumerate().filter(|(_, h)| feasible::fits(shape, &h.executor.registration, &h.free).is_ok());
    fitting.min_by_key(|(_, h)| rank::rank(h.id, &h.executor.registration, &h.free, zones, job)).map(|(i, _)| i)
}

fn zone_loads(hosts: &[Host<'_>]) -> BTreeMap<Zone, ZoneLoad> {
    let mut zones: BTreeMap<Zone, ZoneLoad> = BTreeMap::new();
    for host in hosts {
        zones
            .entry(host.executor.registration.zone.clone())
            .or_default()
            .add(&host.executor.registration.capacity, &host.free);
    }
    zones
}
