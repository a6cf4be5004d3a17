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

/// Queues that would hold jobs up for long in the end: nothing holds them any more.
pub fn held(state: &State) -> Vec<QueuePutRequest> {
    let open = |settings: QueueSettings| QueueSettings { weight: settings.weight, ..QueueSettings::default() };
    let held = state.queues.iter().filter(|(_, queue)| queue.settings != open(queue.settings));
    held.map(|(QueueId(_, name), queue)| QueuePutRequest::new(name.clone(), open(queue.settings))).collect()
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
    // Tasks of an array one after the other would take longer than a run has.
    if spec.array.is_none() && chance.per_mille(300) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_core::fold::fold;
    use outlive_schemas::event::{JobPlaced, JobSubmitted};
    use outlive_schemas::executor::{Capacity, DriverKind, Registration};
    use outlive_schemas::id::{Attempt, ExecutorId, Namespace, Sequence};
    use outlive_schemas::job::{Driver, NoopSpec};
    use outlive_schemas::queue::QueuePut;
    use std::sync::Arc;

    fn job(number: u128) -> JobId {
        JobId(uuid::Uuid::from_u128(number))
    }

    /// What the checker says of placements of jobs 1, 2, 3… a second apart, with one queue set up like this.
    fn placed(settings: QueueSettings, spec: &JobSpec) -> Vec<Result<(), String>> {
        let (namespace, executor): (Namespace, _) = ("default".parse().unwrap(), ExecutorId(uuid::Uuid::nil()));
        let registration = Registration {
            id: executor,
            name: "e".parse().unwrap(),
            zone: "a".parse().unwrap(),
            host: String::new(),
            capacity: Capacity { cpu_millis: 1_000, memory_bytes: 1 << 40, slots: 100 },
            labels: Default::default(),
            drivers: vec![DriverKind::Noop],
            version: String::new(),
        };
        let put = QueuePut { namespace: namespace.clone(), name: QueueName::default(), settings, request_id: None };
        let mut events = vec![Event::ExecutorJoined(registration), Event::QueuePut(put)];
        events.extend((1..=3).map(|number| {
            let (namespace, spec) = (namespace.clone(), Arc::new(spec.clone()));
            Event::JobSubmitted(JobSubmitted { job: job(number), namespace, request_id: None, spec })
        }));
        events.extend((1..=3).map(|number| {
            let (name, zone) = ("e".parse().unwrap(), "a".parse().unwrap());
            Event::JobPlaced(JobPlaced { job: job(number), attempt: Attempt(1), executor, name, zone, restore: None })
        }));
        let (mut state, mut started, mut said) = (State::default(), Started::default(), Vec::new());
        for (second, event) in events.into_iter().enumerate() {
            let at = Timestamp(1_000_000 + second as u64 * 1_000);
            let envelope = Envelope { at, by: None, event };
            let result = started.before(&state, &envelope);
            if let Event::JobPlaced(_) = envelope.event {
                said.push(result);
            }
            fold(&mut state, Sequence(second as u64 + 1), &envelope).unwrap();
        }
        said
    }

    /// A checker that finds nothing where something is wrong would be worse than none.
    #[test]
    fn what_is_started_beyond_a_cap_a_rate_or_a_pause_is_found() {
        let plain = JobSpec::new(Driver::Noop(NoopSpec {}));
        let found = |settings, spec: &JobSpec| placed(settings, spec).iter().map(Result::is_err).collect::<Vec<_>>();
        let settings = QueueSettings::default();
        assert_eq!(found(settings, &plain), [false; 3]);
        assert_eq!(found(QueueSettings { concurrency: Some(2), ..settings }, &plain), [false, false, true]);
        assert_eq!(found(QueueSettings { paused: true, ..settings }, &plain), [true; 3]);
        let rate = |limit, per| Some(Rate { limit, per: Millis(per) });
        assert_eq!(found(QueueSettings { rate: rate(1, 1_001), ..settings }, &plain), [false, true, true]);
        assert_eq!(found(QueueSettings { rate: rate(1, 1_000), ..settings }, &plain), [false; 3]);
        let keyed = JobSpec { concurrency: Some(Box::new(Concurrency { key: "k".into(), limit: 1 })), ..plain };
        assert_eq!(found(settings, &keyed), [false, true, true]);
    }
}
