//! The log: one writer at a time, an exact fence, and no way to take anything back.
//!
//! The journal appends what `frame.rs` sealed, one message at a time; followers read and follow. What is in a message
//! is none of the log's business, and neither is who may write: whoever is deposed finds out by a conflict.

pub mod bridged;
pub mod conformance;
pub mod jetstream;
pub mod memory;

use async_trait::async_trait;
use bytes::Bytes;
use outlive_schemas::id::Sequence;

/// One stored message: a sealed commit, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub seq: Sequence,
    pub body: Bytes,
}

/// The ends of the log, as some replica sees them. A replica may be behind; never infer absence from this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The oldest message still kept; one above `last` where none is.
    pub first: Sequence,
    pub last: Sequence,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Somebody else's message stands at the expected position. The writer has been deposed.
    #[error("another writer has appended at {at}")]
    Conflict { at: Sequence },
    /// The log will never take this: too large, over its byte limit, not permitted.
    #[error("the log refused the append: {reason}")]
    Refused { reason: String },
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the log is out of reach: {reason}")]
    Unavailable { reason: String },
    /// The position is below what the log still keeps.
    #[error("the log begins at {first}, after {wanted}")]
    Purged { wanted: Sequence, first: Sequence },
}

/// An append-only sequence of opaque messages.
#[async_trait]
pub trait CommitLog: Send + Sync + 'static {
    /// Appends `body` right after `expected`, exactly once.
    ///
    /// Resends the identical bytes at the identical position until the answer is definite: so this returns late
    /// rather than wrongly, and a caller that stops waiting must treat the outcome as unknown. When it returns `Ok`,
    /// the message is durable at `expected + 1`.
    async fn append(&self, expected: Sequence, body: Bytes) -> Result<(), AppendError>;

    /// Messages from `from` on, in order and without gaps: as many as one request brings, at most about
    /// `max_bytes`, but never none because the first is too large. Empty where the replica that answers has nothing
    /// there (yet).
    async fn read(&self, from: Sequence, max_bytes: usize) -> Result<Vec<Stored>, ReadError>;

    async fn extent(&self) -> Result<Extent, ReadError>;

    /// The same from one whom most replicas answer to, or nothing. Whoever led the log before it was cut off tells an
    /// older extent until it hears of its successor, and where no more can be told commits must not be taken for lost.
    async fn settled_extent(&self) -> Result<Extent, ReadError> {
        self.extent().await
    }

    /// Lets go of everything below `first`. The newest message always stays, so that the log never looks new.
    async fn purge_below(&self, first: Sequence) -> Result<(), ReadError>;

    /// Messages as they are stored, beginning somewhere after now. It may skip and it may end: who follows fills
    /// gaps by [`CommitLog::read`].
    async fn tail(&self) -> Result<futures::stream::BoxStream<'static, Stored>, ReadError>;
}
