//! Keys for tests and simulations: each follows from a seed, so that the same run gives the same bytes.

use super::{KeyError, KeyStore};
use crate::seal::Key;
use async_trait::async_trait;
use outlive_schemas::id::JobId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub struct MemoryKeys {
    seed: Key,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    epochs: BTreeSet<u32>,
    jobs: BTreeMap<JobId, Key>,
    /// How often a job's key was erased: a new one is another one.
    erased: BTreeMap<JobId, u32>,
}

impl MemoryKeys {
    pub fn new(seed: Key) -> MemoryKeys {
        MemoryKeys { seed, made: Mutex::default() }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeys {
    async fn log_key(&self, epoch: u32) -> Result<Key, KeyError> {
        self.made().epochs.insert(epoch);
        Ok(self.seed.derive(&format!("log {epoch}")))
    }

    async fn log_keys(&self) -> Result<Vec<Key>, KeyError> {
        Ok(self.made().epochs.iter().map(|epoch| self.seed.derive(&format!("log {epoch}"))).collect())
    }

    async fn job_key(&self, job: JobId) -> Result<Key, KeyError> {
        let mut made = self.made();
        let generation = made.erased.get(&job).copied().unwrap_or(0);
        let key = made.jobs.entry(job).or_insert_with(|| self.seed.derive(&format!("job {job} {generation}")));
        Ok(key.clone())
    }

    async fn existing_job_key(&self, job: JobId) -> Result<Option<Key>, KeyError> {
        Ok(self.made().jobs.get(&job).cloned())
    }

    async fn forget_job(&self, job: JobId) -> Result<(), KeyError> {
        let mut made = self.made();
        if made.jobs.remove(&job).is_some() {
            *made.erased.entry(job).or_default() += 1;
        }
        Ok(())
    }
}
