//! Queues in the simulation: what users do with them, and that nothing is ever started beyond a cap, a rate or a pause,
//! whoever leads.
//!
//! The checker counts for itself: from the placements in the log as it is stored, not by the core's own count.

use super::env::Env;
use outlive_core::queue::QueueId;
use outlive_core::state::State;
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::id::{JobId, QueueName};
use outlive_schemas::job::JobSpec;
use outlive_schemas::queue::{Concurrency, Priority, QueuePutRequest, QueueSettings, Rate};
use outlive_schemas::time::{Millis, Timestamp};
use std::collections::BTreeMap;

const NAMES: [&str; 3] = ["default", "mail", "reports"];

fn name(of: &str) -> QueueName {
    of.parse().expect("a name")
}

/// How a user sets some queue up; whoever closes lets everything through that waits.
pub fn put(env: &mut Env) -> QueuePutRequest {
    let chance = &mut env.chance;
    let queue = name(chance.one_of(&NAMES));
    let settings = QueueSettings {
        concurrency: chance.per_mille(500).then(|| chance.between(1, 5) as u32),
        rate: chance
            .per_mille(400)
            .then(|| Rate { limit: chance.between(1, 4) as u32, per: Millis(chance.between(200, 4_000)) }),
        weight: chance.between(1, 4) as u32,
        max_waiting: chance.per_mille(200).then(|| chance.between(2, 10) as u32),
        paused: chance.per_mille(150),
    };
    QueuePutRequest::new(queue, settings)
}

/// Queues that would hold jobs up for long in the end: they are paused and throttled no more.
pub fn held(state: &State) -> Vec<QueuePutRequest> {
    let held = state.queues.iter().filter(|(_, queue)| queue.settings.paused || queue.settings.rate.is_some());
    held.map(|(QueueId(_, name), queue)| {
        QueuePutRequest::new(name.clone(), QueueSettings { paused: false, rate: None, ..queue.settings })
    })
    .collect()
}

/// Where a job waits, and what for.
pub fn say(spec: &mut JobSpec, env: &mut Env) {
    let known: Vec<QueueId> = env.checkers.truth.queues.keys().cloned().collect();
    let chance = &mut env.chance;
    if !known.is_empty() && chance.per_mille(700) {
        spec.queue = known[chance.below(known.len() as u64) as usize].1.clone();
    }
    spec.priority = Priority(chance.between(0, 4) as u32 * 25);
    spec.preemptible = chance.per_mille(500);
    if chance.per_mille(300) {
        let (key, limit) = (format!("key-{}", chance.below(3)).into(), chance.between(1, 3) as u32);
        spec.concurrency = Some(Box::new(Concurrency { key, limit }));
    }
}

/// What has been started, counted from the log.
#[derive(Debug, Default)]
pub struct Started {
    /// By queue: since its rate was put.
    by_queue: BTreeMap<QueueId, Vec<Timestamp>>,
}

impl Started {
    /// Before an event is folded.
    pub fn before(&mut self, state: &State, envelope: &Envelope) -> Result<(), String> {
        match &envelope.event {
            Event::QueuePut(e) => {
                let id = QueueId(e.namespace.clone(), e.name.clone());
                if state.queues.get(&id).and_then(|queue| queue.settings.rate) != e.settings.rate {
                    self.by_queue.remove(&id);
                }
                Ok(())
            }
            Event::QueueDeleted(e) => {
                self.by_queue.remove(&QueueId(e.namespace.clone(), e.name.clone()));
                Ok(())
            }
            Event::JobPlaced(e) => self.placed(state, e.job, envelope.at),
            _ => Ok(()),
        }
    }

    fn placed(&mut self, state: &State, id: JobId, at: Timestamp) -> Result<(), String> {
        let Some(job) = state.jobs.get(&id) else { return Ok(()) };
        let queue = QueueId(job.namespace.clone(), job.spec.queue.clone());
        let started = self.by_queue.entry(queue.clone()).or_default();
        started.push(at);
        let placed = || state.jobs.values().filter(|other| other.placement.is_some());
        if let Some(with) = &job.spec.concurrency {
            let same = placed().filter(|other| other.spec.concurrency.as_ref().is_some_and(|one| one.key == with.key));
            let running = same.count() + 1;
            if running > with.limit as usize {
                return Err(format!("{running} run with {with:?}"));
            }
        }
        let Some(known) = state.queues.get(&queue) else { return Ok(()) };
        let QueueSettings { concurrency, rate, paused, .. } = known.settings;
        if paused && job.recovering.is_none() {
            return Err(format!("a job of {queue:?} was started, which is paused"));
        }
        let running = placed().filter(|other| other.spec.queue == job.spec.queue).count() + 1;
        if concurrency.is_some_and(|cap| running > cap as usize) {
            return Err(format!("{running} of {queue:?} run, and its cap is {concurrency:?}"));
        }
        if let Some(Rate { limit, per }) = rate {
            let within = started.iter().filter(|when| **when + per > at).count();
            if within > limit as usize {
                return Err(format!("{within} of {queue:?} were started within {per}, and its rate is {limit}"));
            }
        }
        Ok(())
    }
}
