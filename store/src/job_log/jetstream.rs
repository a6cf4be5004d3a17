//! Job logs in a JetStream stream of their own: a subject per job.

use super::{Batch, JobLogError, JobLogs, opened_batch, sealed_batches};
use crate::blob::Usage;
use crate::nats::{
    BatchRequest, EnsureStreamError, Nats, PublishFailure, ReadBatchError, ensure_stream, publish, read_batch,
};
use crate::retry::retry;
use crate::seal::Key;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_trait::async_trait;
use outlive_schemas::id::{JobId, Namespace};
use outlive_schemas::limits::{BLOB_BYTES_MAX, LOG_ENTRIES_PER_JOB_MAX};
use outlive_schemas::message::LogEntry;
use outlive_schemas::subject;
use std::time::Duration;

/// The executor holds what it could not store, and drops the oldest when that is too much: so do not hang on.
const APPEND_BOUND: Duration = Duration::from_secs(20);
const READ_BOUND: Duration = Duration::from_secs(10);
const DELETE_BOUND: Duration = Duration::from_secs(30);
/// Within it a repeated append is known by its id: longer than an append repeats itself.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Of stored messages in one read.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Batches in one read.
const READ_BATCHES_MAX: usize = 1_024;

/// How much is kept, over all jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLogLimits {
    /// The oldest go first.
    pub bytes_max: i64,
    pub age_max: Duration,
}

impl Default for JobLogLimits {
    fn default() -> Self {
        JobLogLimits { bytes_max: 10 << 30, age_max: Duration::from_secs(7 * 24 * 3_600) }
    }
}

fn job_log_stream(replicas: usize, limits: JobLogLimits) -> Config {
    Config {
        name: subject::JOB_LOG_STREAM.to_owned(),
        description: Some("Outlive: what jobs have written, sealed".to_owned()),
        subjects: vec![subject::JOB_LOG_SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: replicas,
        max_bytes: limits.bytes_max,
        max_messages: -1,
        max_messages_per_subject: LOG_ENTRIES_PER_JOB_MAX,
        max_message_size: i32::try_from(BLOB_BYTES_MAX).expect("the limit is about a MiB"),
        max_age: limits.age_max,
        discard: DiscardPolicy::Old,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Config::default()
    }
}

/// How much is kept is the operator's to change; what reading and repeating rely on is not.
fn check(found: &Config) -> Result<(), String> {
    let faults = [
        (found.discard != DiscardPolicy::Old, "discard is new, so a full stream would refuse all further output"),
        (!found.allow_direct, "allow_direct is off, so logs cannot be read"),
        (found.duplicate_window < 2 * APPEND_BOUND, "duplicate_window is too short, so output could be stored twice"),
        (found.deny_purge, "deny_purge is on, so a deleted job's logs could not be erased"),
        (!found.subjects.iter().any(|s| s == subject::JOB_LOG_SUBJECTS), "subjects lacks outlive.joblog.>"),
    ];
    faults.iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, reason)| Err((*reason).to_owned()))
}

#[derive(Clone, Debug)]
pub struct JetStreamJobLogs {
    nats: Nats,
    stream: Stream<()>,
}

impl JetStreamJobLogs {
    /// Makes sure of the stream first; for schedulers.
    pub async fn ensure(
        nats: &Nats,
        replicas: usize,
        limits: JobLogLimits,
    ) -> Result<JetStreamJobLogs, EnsureStreamError> {
        ensure_stream(&nats.jetstream, job_log_stream(replicas, limits), check).await?;
        JetStreamJobLogs::attach(nats).await
    }

    /// Takes the stream to be there; for executors.
    pub async fn attach(nats: &Nats) -> Result<JetStreamJobLogs, EnsureStreamError> {
        let refused = |error: async_nats::jetstream::context::GetStreamError| EnsureStreamError::Refused {
            stream: subject::JOB_LOG_STREAM.to_owned(),
            reason: error.to_string(),
        };
        let stream = nats.jetstream.get_stream_no_info(subject::JOB_LOG_STREAM).await.map_err(refused)?;
        Ok(JetStreamJobLogs { nats: nats.clone(), stream })
    }
}

fn unavailable(error: impl std::fmt::Display) -> JobLogError {
    JobLogError::Unavailable { reason: error.to_string() }
}

#[async_trait]
impl JobLogs for JetStreamJobLogs {
    async fn append(
        &self,
        namespace: &Namespace,
        job: JobId,
        key: &Key,
        entries: &[LogEntry],
    ) -> Result<u64, JobLogError> {
        let subject = subject::job_log(namespace, job);
        let mut last = 0;
        for sealed in sealed_batches(&subject, key, entries)? {
            let message = PublishMessage::build()
                // Sealing is random, so this is the id of this append and not of equal text.
                .message_id(blake3::hash(&sealed).to_hex())
                .expected_stream(subject::JOB_LOG_STREAM)
                .payload(sealed.into());
            let stored = publish(&self.nats.jetstream, &subject, &message, APPEND_BOUND).await;
            last = stored.map_err(|failure: PublishFailure| unavailable(failure))?.sequence;
        }
        Ok(last)
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
        let request = BatchRequest {
            seq: after.saturating_add(1),
            subject: Some(subject.clone()),
            batch: limit.clamp(1, READ_BATCHES_MAX),
            max_bytes: READ_BYTES_MAX,
        };
        let passes = |error: &ReadBatchError| !matches!(error, ReadBatchError::Refused { .. });
        let read = || read_batch(&self.nats, subject::JOB_LOG_STREAM, &request);
        let stored = retry("read a job's log", READ_BOUND, passes, read).await.map_err(unavailable)?;
        stored.iter().map(|message| opened_batch(&subject, key, message.sequence, &message.payload)).collect()
    }

    async fn delete(&self, namespace: &Namespace, job: JobId) -> Result<(), JobLogError> {
        let subject = subject::job_log(namespace, job);
        let purged =
            retry("delete a job's log", DELETE_BOUND, |_| true, async || self.stream.purge().filter(&subject).await);
        purged.await.map(|_| ()).map_err(unavailable)
    }

    async fn usage(&self) -> Result<Usage, JobLogError> {
        let info = retry("ask for the job logs' size", READ_BOUND, |_| true, || self.stream.get_info());
        let state = info.await.map_err(unavailable)?.state;
        Ok(Usage { bytes: state.bytes, items: state.messages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsafe_stream_is_told_by_its_setting() {
        let base = || job_log_stream(1, JobLogLimits::default());
        assert_eq!(check(&base()), Ok(()));
        for (setting, config) in [
            ("discard", Config { discard: DiscardPolicy::New, ..base() }),
            ("allow_direct", Config { allow_direct: false, ..base() }),
            ("duplicate_window", Config { duplicate_window: Duration::from_secs(1), ..base() }),
            ("deny_purge", Config { deny_purge: true, ..base() }),
            ("subjects", Config { subjects: vec!["other".into()], ..base() }),
        ] {
            assert!(check(&config).expect_err(setting).contains(setting));
        }
    }
}
