//! What this executor holds: every attempt that it has taken and whose end the leader has not confirmed.
//!
//! At most one attempt of a job is held; the processes of an older one may still be dying, which is `machine`'s affair.
//! Pure: what is done about it is decided elsewhere.

use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{Attempt, JobId, Sequence};
use outlive_schemas::message::AttemptDigest;
use std::collections::BTreeMap;

/// One held attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub attempt: Attempt,
    /// The commit that placed it.
    pub placed_at: Sequence,
    /// What it takes until it is over.
    pub need: Capacity,
    /// Its end waits to be confirmed; it takes nothing any more.
    pub over: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Holdings {
    by_job: BTreeMap<JobId, Holding>,
    digest: AttemptDigest,
    taken: Capacity,
}

impl Holdings {
    pub fn get(&self, job: JobId) -> Option<&Holding> {
        self.by_job.get(&job)
    }

    pub fn holds(&self, job: JobId, attempt: Attempt) -> bool {
        self.get(job).is_some_and(|held| held.attempt == attempt)
    }

    pub fn iter(&self) -> impl Iterator<Item = (JobId, &Holding)> {
        self.by_job.iter().map(|(job, held)| (*job, held))
    }

    pub fn len(&self) -> usize {
        self.by_job.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_job.is_empty()
    }

    /// Of everything held, equal to the leader's when both mean the same set.
    pub fn digest(&self) -> AttemptDigest {
        self.digest
    }

    /// What the attempts that are not over take together.
    pub fn taken(&self) -> Capacity {
        self.taken
    }

    /// Takes an attempt, in place of an older one of the same job.
    pub fn insert(&mut self, job: JobId, holding: Holding) -> Option<Holding> {
        let older = self.by_job.insert(job, holding);
        if let Some(older) = &older {
            self.subtract(job, older);
        }
        self.digest.add(job, holding.attempt);
        if !holding.over {
            self.taken += holding.need;
        }
        older
    }

    /// The attempt has ended.
    pub fn end(&mut self, job: JobId, attempt: Attempt) {
        if let Some(held) = self.by_job.get_mut(&job).filter(|held| held.attempt == attempt && !held.over) {
            held.over = true;
            self.taken -= held.need;
        }
    }

    /// The attempt is not held any more. Another attempt of the same job stays.
    pub fn remove(&mut self, job: JobId, attempt: Attempt) -> Option<Holding> {
        if !self.holds(job, attempt) {
            return None;
        }
        let held = self.by_job.remove(&job)?;
        self.subtract(job, &held);
        Some(held)
    }

    fn subtract(&mut self, job: JobId, held: &Holding) {
        self.digest.remove(job, held.attempt);
        if !held.over {
            self.taken -= held.need;
        }
    }
}
