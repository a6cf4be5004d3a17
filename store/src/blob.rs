//! Blobs: sealed bytes under a name, written once.
//!
//! An executor puts the chunks and the manifest of a checkpoint here before it reports it, and gets them back to
//! restore it. Nothing here can read a blob, and nothing here knows which blobs belong together: the leader says what
//! is no longer referred to.

use async_trait::async_trait;
use bytes::Bytes;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::id::JobId;

pub use jetstream::{JetStreamBlobs, blob_stream};
pub use memory::MemoryBlobs;

pub mod conformance;
mod jetstream;
mod memory;

/// Whose a blob is. Deleting an owner deletes its blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    Job(JobId),
    /// Pieces of the scheduler's images; see [`crate::image`].
    Images,
    /// What the images are found by.
    ImageHeads,
}

/// Whether a `put` stored something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Stored,
    /// The name was taken; names are hashes of contents, so the contents are the same.
    Present,
}

/// A place in the order in which a store stores: whatever is stored after a mark was read is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("there is no blob {name}")]
    Missing { name: BlobName },
    #[error("a blob of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    /// Retrying later may help.
    #[error("the blob store is out of reach: {reason}")]
    Unavailable { reason: String },
    #[error("the blob store is full: {reason}")]
    Full { reason: String },
}

/// What a kind of blob takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub items: u64,
}

/// Bytes under names. The names are hashes of the contents or chosen so that a name is only ever given one content.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Stores `body` unless the name is taken. Durable on `Ok`. Retries what may be retried by itself, within bounds.
    async fn put(&self, owner: Owner, name: BlobName, body: Bytes) -> Result<Put, BlobError>;

    async fn get(&self, owner: Owner, name: BlobName) -> Result<Bytes, BlobError>;

    /// Names of an owner's blobs, in no order.
    async fn list(&self, owner: Owner) -> Result<Vec<BlobName>, BlobError>;

    /// Removes one blob so that its bytes are gone; a blob that is not there is a success.
    async fn delete(&self, owner: Owner, name: BlobName) -> Result<(), BlobError>;

    /// Where the store is. What was stored before may be a little behind it, never what is stored later at or before it.
    async fn mark(&self) -> Result<Mark, BlobError>;

    /// Removes one blob so that its bytes are gone, if it was stored at or before the mark. One that was stored since,
    /// under the same name, stays, however late this is carried out; one that is not there is a success.
    async fn delete_stored_by(&self, owner: Owner, name: BlobName, mark: Mark) -> Result<(), BlobError>;

    /// Removes all of an owner's blobs. Their sealed bytes may stay on disk until the store tidies up: a purge does
    /// not overwrite. What makes them unreadable for good is that the job's key is destroyed.
    async fn delete_all(&self, owner: Owner) -> Result<(), BlobError>;

    /// Of everything stored.
    async fn usage(&self) -> Result<Usage, BlobError>;
}
