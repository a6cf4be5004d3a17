//! What holds room, by queue and by concurrency key: what caps and shares are held against. Kept for speed; it follows
//! from the jobs.

use super::QueueId;
use crate::state::Job;
use compact_str::CompactString;
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{JobId, Namespace};
use outlive_schemas::queue::Priority;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Running {
    queues: BTreeMap<QueueId, Held>,
    /// Keys are a namespace's, whatever queues their jobs are in.
    keys: BTreeMap<(Namespace, CompactString), u32>,
    /// Jobs that give way to more urgent ones.
    yielding: BTreeSet<(Priority, JobId)>,
}

/// What a queue's jobs hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub jobs: u32,
    /// Those of them that have no key.
    pub keyless: u32,
    pub taken: Capacity,
}

impl Running {
    pub fn of(&self, queue: &QueueId) -> Held {
        self.queues.get(queue).copied().unwrap_or_default()
    }

    pub fn queues(&self) -> impl Iterator<Item = (&QueueId, &Held)> {
        self.queues.iter()
    }

    pub fn with_key(&self, namespace: &Namespace, key: &CompactString) -> u32 {
        if self.keys.is_empty() {
            return 0;
        }
        self.keys.get(&(namespace.clone(), key.clone())).copied().unwrap_or_default()
    }

    /// Jobs that give way to more urgent ones, the least urgent first.
    pub fn yielding(&self) -> impl Iterator<Item = (Priority, JobId)> + '_ {
        self.yielding.iter().copied()
    }

    pub(crate) fn up(&mut self, id: JobId, job: &Job) {
        let (namespace, spec, need) = (&job.namespace, &job.spec, job.need());
        if spec.preemptible {
            self.yielding.insert((spec.priority, id));
        }
        let held = self.queues.entry(QueueId(namespace.clone(), spec.queue.clone())).or_default();
        held.jobs += 1;
        held.taken += need;
        match &spec.concurrency {
            None => held.keyless += 1,
            Some(with) => *self.keys.entry((namespace.clone(), with.key.clone())).or_default() += 1,
        }
    }

    pub(crate) fn down(&mut self, id: JobId, job: &Job) {
        let (namespace, spec, need) = (&job.namespace, &job.spec, job.need());
        if spec.preemptible {
            self.yielding.remove(&(spec.priority, id));
        }
        let id = QueueId(namespace.clone(), spec.queue.clone());
        let Some(held) = self.queues.get_mut(&id) else { return };
        held.jobs -= 1;
        held.taken -= need;
        held.keyless -= u32::from(spec.concurrency.is_none());
        if held.jobs == 0 {
            self.queues.remove(&id);
        }
        let Some(with) = &spec.concurrency else { return };
        let id = (namespace.clone(), with.key.clone());
        if let Some(count) = self.keys.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&id);
            }
        }
    }
}
