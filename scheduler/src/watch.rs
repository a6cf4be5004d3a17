//! Heartbeats, registrations and probes → observations, and what executors look like to people.

use compact_str::CompactString;
use outlive_core::detect::{Observations, Observed};
use outlive_core::plan::Hints;
use outlive_core::state::{Drain, Executor, State};
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{ExecutorId, Zone};
use outlive_schemas::message::Heartbeat;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::{ExecutorState, ExecutorView, ZoneState, ZoneView};
use std::collections::{BTreeMap, BTreeSet};

/// How often at most one executor is sent its whole wanted set.
const WANT_INTERVAL: Millis = Millis(1_000);
/// Beats in a row with another digest before the set is sent: what is on its way explains one.
const DIFFERENT_BEATS: u32 = 2;

/// What is kept of an executor's own word for what ails it.
const DEGRADED_CHARS_MAX: usize = 256;

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    Here,
    NobodyThere,
    Silent,
}

#[derive(Debug, Default)]
struct Beats {
    different: u32,
    wanted_sent: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub struct Watch {
    pub observations: Observations,
    beats: BTreeMap<ExecutorId, Beats>,
    /// Executors that say that they are not well, and why.
    degraded: BTreeMap<ExecutorId, CompactString>,
    /// All registrations that were there when the registry was last read; nothing before this leader has read it.
    present: Option<BTreeSet<ExecutorId>>,
}

impl Watch {
    pub fn new(now: Timestamp, state: &State) -> Watch {
        let mut watch = Watch::default();
        watch.observations.listening_since = now;
        for (id, executor) in state.executors.iter().filter(|(_, e)| e.is_alive()) {
            watch
                .observations
                .executors
                .insert(*id, Observed::new(executor.registration.zone.clone(), executor.joined_at));
        }
        watch
    }

    pub fn joined(&mut self, registration: &Registration, now: Timestamp) {
        self.observations.executors.insert(registration.id, Observed::new(registration.zone.clone(), now));
    }

    pub fn lost(&mut self, executor: ExecutorId) {
        self.observations.executors.remove(&executor);
        self.beats.remove(&executor);
        self.degraded.remove(&executor);
    }

    pub fn own_beat(&mut self, now: Timestamp) {
        // Back from isolation: what was missed meanwhile was for nobody to hear.
        if self.observations.is_isolated(now) {
            self.observations.listening_since = now;
        }
        self.observations.own_beat_heard = Some(now);
    }

    /// Takes a beat in. Returns whether the executor should be sent its wanted set.
    pub fn beat(&mut self, beat: &Heartbeat, state: &State, now: Timestamp) -> bool {
        let Some(observed) = self.observations.executors.get_mut(&beat.executor) else { return false };
        observed.heard(now);
        observed.leaving = beat.leaving;
        match &beat.degraded {
            Some(why) => drop(self.degraded.insert(beat.executor, why.chars().take(DEGRADED_CHARS_MAX).collect())),
            None => drop(self.degraded.remove(&beat.executor)),
        }
        let beats = self.beats.entry(beat.executor).or_default();
        if state.executors.get(&beat.executor).is_some_and(|executor| executor.digest == beat.digest) {
            beats.different = 0;
            return false;
        }
        beats.different += 1;
        let due =
            beats.different >= DIFFERENT_BEATS && beats.wanted_sent.is_none_or(|at| now.since(at) >= WANT_INTERVAL);
        if due {
            beats.wanted_sent = Some(now);
        }
        due
    }

    pub fn probed(&mut self, executor: ExecutorId, found: Probed, now: Timestamp) {
        let Some(observed) = self.observations.executors.get_mut(&executor) else { return };
        match found {
            Probed::Here => observed.answered(now),
            Probed::NobodyThere => observed.not_there(now),
            Probed::Silent => {}
        }
    }

    pub fn zone_probed(&mut self, zone: Zone, found: Probed) {
        let seen = self.observations.zones.entry(zone).or_default();
        seen.unanswered = if found == Probed::Here { 0 } else { seen.unanswered.saturating_add(1) };
    }

    pub fn registered(&mut self, present: &[Registration]) {
        let present: BTreeSet<ExecutorId> = present.iter().map(|registration| registration.id).collect();
        for (id, observed) in &mut self.observations.executors {
            observed.leased = present.contains(id);
        }
        self.present = Some(present);
    }

    /// Executors that should get no work for now.
    pub fn hints(&self, now: Timestamp) -> Hints {
        let executors = &self.observations.executors;
        let away = executors.iter().filter(|(_, o)| o.leaving || o.is_suspect(now)).map(|(id, _)| *id);
        let mut avoid: BTreeSet<ExecutorId> = away.collect();
        // A slow host is better than none.
        if executors.keys().any(|id| !avoid.contains(id) && !self.degraded.contains_key(id)) {
            avoid.extend(self.degraded.keys());
        }
        Hints { avoid, ..Hints::default() }
    }

    /// Executors that say that they are not well.
    pub fn degraded(&self) -> BTreeSet<ExecutorId> {
        self.degraded.keys().copied().collect()
    }

    /// Whether an executor's registration may still be there, also after it was taken for lost.
    pub fn is_leased(&self, executor: ExecutorId) -> bool {
        self.present.as_ref().is_none_or(|present| present.contains(&executor))
    }

    pub fn executors(&self, state: &State, now: Timestamp) -> Vec<ExecutorView> {
        let mut views: Vec<_> = state.executors.iter().map(|(id, e)| self.view(state, *id, e, now)).collect();
        views.sort_by(|a, b| (&a.zone, &a.name, a.id).cmp(&(&b.zone, &b.name, b.id)));
        views
    }

    pub fn view(&self, state: &State, id: ExecutorId, executor: &Executor, now: Timestamp) -> ExecutorView {
        let observed = self.observations.executors.get(&id);
        let drain = state.drain_of(&executor.registration);
        let (state, reason) = match (executor.lost, observed) {
            (Some(loss), _) => (ExecutorState::Lost, Some(loss.reason.as_str().to_owned())),
            (None, Some(o)) if o.leaving => (ExecutorState::Draining, Some("it is shutting down".to_owned())),
            (None, _) if drain.is_some() => (ExecutorState::Draining, drain.map(|drain| drained(drain, executor))),
            (None, Some(o)) if o.is_suspect(now) => (ExecutorState::Suspect, Some("no heartbeat".to_owned())),
            _ => match self.degraded.get(&id) {
                Some(why) => (ExecutorState::Degraded, Some(why.to_string())),
                None => (ExecutorState::Ready, None),
            },
        };
        let registration = &executor.registration;
        ExecutorView {
            name: registration.name.clone(),
            id,
            zone: registration.zone.clone(),
            host: registration.host.clone(),
            state,
            reason,
            capacity: registration.capacity,
            allocated: executor.allocated,
            running: executor.attempts.len() as u32,
            version: registration.version.clone(),
            last_heartbeat_ms: observed.and_then(|o| o.last_beat).map(|at| now.since(at).0),
        }
    }
}

fn drained(drain: Drain, executor: &Executor) -> String {
    match executor.attempts.len() {
        0 => "it is drained, and empty".to_owned(),
        some => format!("it is drained; {some} attempts are to be gone by {}", drain.deadline),
    }
}

/// Zones as their executors make them up.
pub fn zones(state: &State) -> Vec<ZoneView> {
    let mut zones: BTreeMap<_, (u32, u32, u32)> = BTreeMap::new();
    for executor in state.executors.values() {
        let (alive, lost, running) = zones.entry(executor.registration.zone.clone()).or_default();
        *if executor.is_alive() { alive } else { lost } += 1;
        *running += executor.attempts.len() as u32;
    }
    let view = |(zone, (executors, _, running)): (Zone, (u32, u32, u32))| {
        let state = if executors == 0 {
            ZoneState::Lost
        } else if state.drained_zones.contains_key(&zone) {
            ZoneState::Draining
        } else if state.lost_zones.contains_key(&zone) {
            ZoneState::Settling
        } else {
            ZoneState::Steady
        };
        ZoneView { zone, state, executors, running }
    };
    zones.into_iter().map(view).collect()
}
