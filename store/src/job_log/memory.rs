//! Job logs in memory, for tests and simulations: sealed all the same, so that keys and bindings are tried too.

use super::{Batch, JobLogError, JobLogs, opened_batch, sealed_batches};
use crate::blob::Usage;
use crate::seal::Key;
use async_trait::async_trait;
use outlive_schemas::id::{JobId, Namespace};
use outlive_schemas::limits::LOG_ENTRIES_PER_JOB_MAX;
use outlive_schemas::message::LogEntry;
use outlive_schemas::subject;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

/// Job logs that are forgotten with the process.
#[derive(Debug, Default)]
pub struct MemoryJobLogs(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    /// By subject: sealed batches with their sequences.
    stored: BTreeMap<String, VecDeque<(u64, Vec<u8>)>>,
    out_of_reach: bool,
}

impl MemoryJobLogs {
    pub fn new() -> MemoryJobLogs {
        MemoryJobLogs::default()
    }

    /// Fault: every call is `Unavailable`, until this is called with `false`.
    pub fn set_out_of_reach(&self, out_of_reach: bool) {
        self.lock().out_of_reach = out_of_reach;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding this lock")
    }

    fn reach(&self) -> Result<MutexGuard<'_, Inner>, JobLogError> {
        let inner = self.lock();
        if inner.out_of_reach { Err(JobLogError::Unavailable { reason: "injected".to_owned() }) } else { Ok(inner) }
    }
}

#[async_trait]
impl JobLogs for MemoryJobLogs {
    async fn append(
        &self,
        namespace: &Namespace,
        job: JobId,
        key: &Key,
        entries: &[LogEntry],
    ) -> Result<u64, JobLogError> {
        let subject = subject::job_log(namespace, job);
        let batches = sealed_batches(&subject, key, entries)?;
        let mut inner = self.reach()?;
        let mut stands = 0;
        for sealed in batches {
            inner.last += 1;
            stands = inner.last;
            let stored = inner.stored.entry(subject.clone()).or_default();
            stored.push_back((stands, sealed));
            if stored.len() as i64 > LOG_ENTRIES_PER_JOB_MAX {
                stored.pop_front();
            }
        }
        Ok(stands)
    }

    async fn read(
        &self,
        namespace: &Namespace,
        job: JobId,
        key: &Key,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Batch>, JobLogError> {
        let subject = subject::job_log(namespace, job);
        let inner = self.reach()?;
        let stored = inner.stored.get(&subject).into_iter().flatten().filter(|(seq, _)| *seq > after);
        stored.take(limit.max(1)).map(|(seq, sealed)| opened_batch(&subject, key, *seq, sealed)).collect()
    }

    async fn delete(&self, namespace: &Namespace, job: JobId) -> Result<(), JobLogError> {
        self.reach()?.stored.remove(&subject::job_log(namespace, job));
        Ok(())
    }

    async fn usage(&self) -> Result<Usage, JobLogError> {
        let inner = self.reach()?;
        let all = inner.stored.values().flatten();
        Ok(all.fold(Usage::default(), |sum, (_, sealed)| Usage {
            bytes: sum.bytes + sealed.len() as u64,
            items: sum.items + 1,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_conforms() {
        super::super::conformance::conforms(&MemoryJobLogs::new()).await;
    }

    #[tokio::test]
    async fn out_of_reach_is_an_error() {
        let logs = MemoryJobLogs::new();
        logs.set_out_of_reach(true);
        assert!(matches!(logs.usage().await, Err(JobLogError::Unavailable { .. })));
    }
}
