//! What every keeper of job logs must do. For tests: it panics at the first thing that is not so.

use super::{Batch, JobLogError, JobLogs};
use crate::seal::Key;
use bytes::Bytes;
use outlive_schemas::id::{Attempt, JobId, Namespace};
use outlive_schemas::limits::{LOG_ENTRIES_PER_JOB_MAX, LOG_ENTRY_BYTES_MAX};
use outlive_schemas::message::{LogEntry, LogStream};
use outlive_schemas::payload::Payload;
use outlive_schemas::time::Timestamp;
use uuid::Uuid;

const BATCHES_MAX: usize = 1_000;

fn entry(number: u64, text: impl Into<Bytes>) -> LogEntry {
    let text = Payload(text.into());
    LogEntry { at: Timestamp(1_000 + number), attempt: Attempt(1), number, stream: LogStream::Out, text }
}

struct Suite<'a> {
    logs: &'a dyn JobLogs,
    namespace: Namespace,
    key: Key,
}

impl Suite<'_> {
    async fn append(&self, job: JobId, entries: &[LogEntry]) -> u64 {
        self.logs.append(&self.namespace, job, &self.key, entries).await.expect("appended")
    }

    async fn read(&self, job: JobId, after: u64, limit: usize) -> Vec<Batch> {
        self.logs.read(&self.namespace, job, &self.key, after, limit).await.expect("read")
    }
}

fn entries(batches: Vec<Batch>) -> Vec<LogEntry> {
    batches.into_iter().flat_map(|(_, entries)| entries).collect()
}

/// Runs the whole suite against a store that is empty, and leaves it empty.
pub async fn conforms(logs: &dyn JobLogs) {
    let namespace = "default".parse().expect("the suite's namespace is one");
    let suite = Suite { logs, namespace, key: Key::from_bytes([7; 32]) };
    let [one, two] = [1, 2].map(|n| JobId(Uuid::from_u128(n)));
    read_in_order(&suite, one, two).await;
    sealed_to_one_job(&suite, one, two).await;
    large_and_many(&suite, one).await;
    bounded_per_job(&suite, one, two).await;
    for job in [one, two] {
        logs.delete(&suite.namespace, job).await.expect("deleted");
    }
    assert_eq!(logs.usage().await.expect("usage").items, 0);
}

async fn read_in_order(suite: &Suite<'_>, one: JobId, two: JobId) {
    assert_eq!(suite.read(one, 0, 10).await, []);
    assert_eq!(suite.append(one, &[]).await, 0);
    let first = suite.append(one, &[entry(1, "a"), entry(2, "b")]).await;
    suite.append(two, &[entry(1, "not one's")]).await;
    let second = suite.append(one, &[entry(3, vec![0xff, 0x00])]).await;
    assert!(first > 0 && second > first);
    let all = suite.read(one, 0, 10).await;
    assert_eq!(all, [(first, vec![entry(1, "a"), entry(2, "b")]), (second, vec![entry(3, vec![0xff, 0x00])])]);
    assert_eq!(suite.read(one, 0, 1).await.len(), 1, "no more than asked for");
    assert_eq!(suite.read(one, first, 10).await, all[1..]);
    assert_eq!(suite.read(one, second, 10).await, []);
    assert_eq!(suite.logs.usage().await.expect("usage").items, 3);
    suite.logs.delete(&suite.namespace, one).await.expect("deleted");
    suite.logs.delete(&suite.namespace, one).await.expect("deleting nothing is a success");
    assert_eq!(suite.read(one, 0, 10).await, []);
    assert_eq!(entries(suite.read(two, 0, 10).await), [entry(1, "not one's")], "another job's stay");
    suite.logs.delete(&suite.namespace, two).await.expect("deleted");
}

async fn sealed_to_one_job(suite: &Suite<'_>, one: JobId, two: JobId) {
    suite.append(one, &[entry(1, "secret")]).await;
    let other = suite.logs.read(&suite.namespace, one, &Key::from_bytes([8; 32]), 0, 10).await;
    assert!(matches!(other, Err(JobLogError::Sealed { .. })), "{other:?}");
    assert_eq!(suite.read(two, 0, 10).await, []);
    suite.logs.delete(&suite.namespace, one).await.expect("deleted");
}

async fn large_and_many(suite: &Suite<'_>, one: JobId) {
    // Bytes that do not compress.
    let mut noise = vec![0; LOG_ENTRY_BYTES_MAX];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let large: Vec<_> = (1..=9).map(|number| entry(number, noise.clone())).collect();
    suite.append(one, &large).await;
    let batches = suite.read(one, 0, BATCHES_MAX).await;
    assert!(batches.len() > 1, "more than fits one batch is several");
    assert!(entries(batches) == large, "in order and whole");
    let last = suite.read(one, 0, BATCHES_MAX).await.last().map_or(0, |(seq, _)| *seq);
    let small: Vec<_> = (1..=10_000).map(|number| entry(number, "")).collect();
    suite.append(one, &small).await;
    assert!(entries(suite.read(one, last, BATCHES_MAX).await) == small, "empty lines count too");
    let too_large = [entry(1, vec![0; LOG_ENTRY_BYTES_MAX + 1])];
    let refused = suite.logs.append(&suite.namespace, one, &suite.key, &too_large).await;
    assert!(matches!(refused, Err(JobLogError::TooLarge { .. })), "{refused:?}");
    suite.logs.delete(&suite.namespace, one).await.expect("deleted");
}

async fn bounded_per_job(suite: &Suite<'_>, one: JobId, two: JobId) {
    suite.append(two, &[entry(1, "another job's")]).await;
    let written = u64::try_from(LOG_ENTRIES_PER_JOB_MAX).expect("a positive limit") + 3;
    for number in 1..=written {
        suite.append(one, &[entry(number, "line")]).await;
    }
    let mut kept = Vec::new();
    let mut after = 0;
    loop {
        let page = suite.read(one, after, BATCHES_MAX).await;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        kept.extend(entries(page).into_iter().map(|entry| entry.number));
    }
    assert_eq!(kept, (4..=written).collect::<Vec<_>>(), "the oldest went first");
    assert_eq!(suite.read(two, 0, 10).await.len(), 1, "and only one's own");
}
