//! What jobs have written, sealed and bounded, so that it can be read after the job and its host are gone.
//!
//! An executor appends what it also sends live; a scheduler reads it for `job.logs`. One stored message is a batch of
//! entries under the job's key, bound to the job's subject. It is no record of truth: the oldest go first when a
//! job, or all of them, have written too much, and everything goes after a while.

use crate::blob::Usage;
use crate::seal::{Key, OpenError, open, seal};
use async_trait::async_trait;
use outlive_schemas::codec::{DecodeError, pack, unpack};
use outlive_schemas::id::{JobId, Namespace};
use outlive_schemas::limits::LOG_ENTRY_BYTES_MAX;
use outlive_schemas::message::LogEntry;

pub use jetstream::{JetStreamJobLogs, JobLogLimits};
pub use memory::MemoryJobLogs;

pub mod conformance;
mod jetstream;
mod memory;

/// Text in one batch. With one entry of the largest size on top it is still far below a NATS message.
const BATCH_BYTES_MAX: usize = 128 * 1024;
/// A batch once opened: its text, and generously what stands around it.
const BATCH_OPENED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries in one batch, so that empty lines cannot make it large either.
const BATCH_ENTRIES_MAX: usize = 4_096;
const COMPRESSION_LEVEL: i32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum JobLogError {
    #[error("a log entry of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    /// Retrying later may help.
    #[error("the job logs are out of reach: {reason}")]
    Unavailable { reason: String },
    #[error("the job's log does not open at {seq}")]
    Sealed {
        seq: u64,
        #[source]
        source: OpenError,
    },
    #[error("the job's log cannot be read at {seq}")]
    Damaged {
        seq: u64,
        #[source]
        source: DecodeError,
    },
    #[error("the job's log cannot be decompressed at {seq}")]
    Compressed {
        seq: u64,
        #[source]
        source: std::io::Error,
    },
}

/// Entries that were stored together, and where.
pub type Batch = (u64, Vec<LogEntry>);

/// The kept output of jobs.
#[async_trait]
pub trait JobLogs: Send + Sync + 'static {
    /// Stores the entries behind those that are there, and returns where the last of them stands. Repeats by itself,
    /// within bounds, without storing anything twice. No entries: 0.
    async fn append(
        &self,
        namespace: &Namespace,
        job: JobId,
        key: &Key,
        entries: &[LogEntry],
    ) -> Result<u64, JobLogError>;

    /// Up to `limit` batches behind `after`, in order; 0 is the beginning of what is kept. Fewer, or none, where
    /// there are no more yet.
    async fn read(
        &self,
        namespace: &Namespace,
        job: JobId,
        key: &Key,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Batch>, JobLogError>;

    /// Removes a job's log. Sealed bytes may stay on disk for a while; they go dark with the job's key.
    async fn delete(&self, namespace: &Namespace, job: JobId) -> Result<(), JobLogError>;

    /// Of all jobs.
    async fn usage(&self) -> Result<Usage, JobLogError>;
}

/// The entries as sealed batches, in order.
fn sealed_batches(subject: &str, key: &Key, entries: &[LogEntry]) -> Result<Vec<Vec<u8>>, JobLogError> {
    let mut batches = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    let mut close = |batch: &[LogEntry]| {
        if !batch.is_empty() {
            let packed = zstd::bulk::compress(&pack(&batch), COMPRESSION_LEVEL).expect("bytes in memory compress");
            batches.push(seal(key, subject.as_bytes(), &packed));
        }
    };
    for (index, entry) in entries.iter().enumerate() {
        let length = entry.text.0.len();
        if length > LOG_ENTRY_BYTES_MAX {
            return Err(JobLogError::TooLarge { bytes: length, max: LOG_ENTRY_BYTES_MAX });
        }
        if bytes + length > BATCH_BYTES_MAX || index - begin >= BATCH_ENTRIES_MAX {
            close(&entries[begin..index]);
            (begin, bytes) = (index, 0);
        }
        bytes += length;
    }
    close(&entries[begin..]);
    Ok(batches)
}

fn opened_batch(subject: &str, key: &Key, seq: u64, sealed: &[u8]) -> Result<Batch, JobLogError> {
    let packed = open(key, subject.as_bytes(), sealed).map_err(|source| JobLogError::Sealed { seq, source })?;
    let plain = zstd::bulk::decompress(&packed, BATCH_OPENED_BYTES_MAX)
        .map_err(|source| JobLogError::Compressed { seq, source })?;
    let entries = unpack("a job's log", &plain).map_err(|source| JobLogError::Damaged { seq, source })?;
    Ok((seq, entries))
}
