//! Schedules as the state holds them, and what follows from them.

use crate::state::{Job, State, spec_bytes};
use outlive_schemas::error::Rejection;
use outlive_schemas::id::{JobId, Namespace, ScheduleName};
use outlive_schemas::schedule::{Definition, NextTick, TickOutcome};
use outlive_schemas::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub type Schedules = BTreeMap<Namespace, BTreeMap<ScheduleName, Box<Schedule>>>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub definition: Arc<Definition>,
    pub paused: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// All ticks before this one have been dealt with.
    pub next: Option<NextTick>,
    /// Ticks that wait for the jobs of earlier ones, oldest first.
    pub queued: VecDeque<Timestamp>,
    pub last: Option<LastTick>,
    pub started: u64,
    pub skipped: u64,
    pub missed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastTick {
    pub tick: Timestamp,
    pub at: Timestamp,
    pub outcome: TickOutcome,
    pub reason: Option<compact_str::CompactString>,
    pub job: Option<JobId>,
}

/// The tick that a job was submitted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickOf {
    pub schedule: ScheduleName,
    pub tick: Timestamp,
}

/// What follows from schedules and jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ScheduleIndex {
    /// Schedules that are not paused, by when their next tick is due.
    pub due: BTreeSet<(Timestamp, Namespace, ScheduleName)>,
    /// Those of them with ticks that wait.
    pub waiting: BTreeSet<(Namespace, ScheduleName)>,
    /// Jobs that are not over, by the schedule that they are of.
    pub running: BTreeMap<(Namespace, ScheduleName), BTreeSet<JobId>>,
}

impl Schedule {
    pub(crate) fn held_bytes(&self) -> u64 {
        let spec = &self.definition.spec;
        (spec_bytes(spec) + spec.input.as_ref().map_or(0, |input| input.0.len()) + 1_024) as u64
    }
}

impl ScheduleIndex {
    pub fn enter(&mut self, namespace: &Namespace, name: &ScheduleName, schedule: &Schedule) {
        if schedule.paused {
            return;
        }
        if let Some(next) = schedule.next {
            self.due.insert((next.due_at, namespace.clone(), name.clone()));
        }
        if !schedule.queued.is_empty() {
            self.waiting.insert((namespace.clone(), name.clone()));
        }
    }

    pub fn leave(&mut self, namespace: &Namespace, name: &ScheduleName, schedule: &Schedule) {
        if let Some(next) = schedule.next {
            self.due.remove(&(next.due_at, namespace.clone(), name.clone()));
        }
        self.waiting.remove(&(namespace.clone(), name.clone()));
    }

    pub fn enter_job(&mut self, id: JobId, job: &Job) {
        if let Some(of) = job.tick_of().filter(|_| !job.status.is_final()) {
            self.running.entry((job.namespace.clone(), of.schedule.clone())).or_default().insert(id);
        }
    }

    pub fn leave_job(&mut self, id: JobId, job: &Job) {
        let Some(of) = job.tick_of().filter(|_| !job.status.is_final()) else { return };
        let key = (job.namespace.clone(), of.schedule.clone());
        if let Some(jobs) = self.running.get_mut(&key) {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.running.remove(&key);
            }
        }
    }
}

impl Job {
    pub fn tick_of(&self) -> Option<&TickOf> {
        self.timing.as_ref()?.tick_of.as_ref()
    }
}

impl State {
    pub fn schedule(&self, namespace: &Namespace, name: &ScheduleName) -> Result<&Schedule, Rejection> {
        let known = self.schedules.get(namespace).and_then(|of| of.get(name));
        known
            .map(|schedule| &**schedule)
            .ok_or_else(|| Rejection::not_found(format_args!("schedule `{name}` in namespace `{namespace}`")))
    }

    pub fn schedule_count(&self) -> usize {
        self.schedules.values().map(BTreeMap::len).sum()
    }

    /// Jobs of a schedule that are not over.
    pub fn running_of(&self, namespace: &Namespace, name: &ScheduleName) -> impl Iterator<Item = JobId> + '_ {
        let key = (namespace.clone(), name.clone());
        self.index.schedules.running.get(&key).into_iter().flatten().copied()
    }

    /// When the tick that is due first is due, over all schedules.
    pub fn next_tick_due(&self) -> Option<Timestamp> {
        self.index.schedules.due.first().map(|(due_at, ..)| *due_at)
    }
}

/// How long a tick is put off: the same whoever asks, and unlike that of other schedules and ticks.
pub fn jitter(namespace: &Namespace, name: &ScheduleName, tick: Timestamp, most: Millis) -> Millis {
    let text = namespace.as_str().bytes().chain([b'/']).chain(name.as_str().bytes()).chain(tick.0.to_be_bytes());
    // FNV-1a, and then mixed, for its low bits alone are poor.
    let mut hash: u64 =
        text.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        hash = (hash ^ (hash >> 30)).wrapping_mul(multiplier);
    }
    Millis((hash ^ (hash >> 31)) % most.0.saturating_add(1))
}
