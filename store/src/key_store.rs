//! The keys below the master keys: one for the log per epoch, one for each job that keeps state.
//!
//! A key is made where it is first asked for, wrapped by the keyring, and put into a stream of its own, once: whoever
//! comes second gets the first one's. Deleting a job erases its key, and with it everything it sealed, wherever
//! copies of that may lie. Master keys are not here (`keyring.rs`), and nothing sealed is.

mod cache;
mod jetstream;
mod memory;

pub use jetstream::{JetStreamKeys, KeyStreamConfig};
pub use memory::MemoryKeys;

use crate::keyring::UnwrapError;
use crate::seal::Key;
use async_trait::async_trait;
use outlive_schemas::id::JobId;

/// The log's first epoch.
pub const FIRST_EPOCH: u32 = 1;
/// Epochs that are looked for. A log key is changed by hand, if ever; a thousand times is not reached.
pub const EPOCHS_MAX: u32 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Retrying later may help.
    #[error("the key store is out of reach: {reason}")]
    Unavailable { reason: String },
    #[error("the key store refused the key {name}: {reason}")]
    Refused { name: String, reason: String },
    #[error("the stored key {name} cannot be unwrapped")]
    Wrapped {
        name: String,
        #[source]
        source: UnwrapError,
    },
}

#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// The log's key in an epoch, made now if there is none. However many ask at once, all get the same.
    async fn log_key(&self, epoch: u32) -> Result<Key, KeyError>;

    /// Every log key there is, from the first epoch on: what replaying the whole log takes.
    async fn log_keys(&self) -> Result<Vec<Key>, KeyError>;

    /// A job's key, made now if there is none. Not for a job that may have been deleted: it would get a new one.
    async fn job_key(&self, job: JobId) -> Result<Key, KeyError>;

    /// A job's key, if it has one.
    async fn existing_job_key(&self, job: JobId) -> Result<Option<Key>, KeyError>;

    /// Erases a job's key for good, here and in the store; one that is not there is a success. Other processes may
    /// hold it in memory until it falls out of their caches, and can read nothing with it once the blobs are gone.
    async fn forget_job(&self, job: JobId) -> Result<(), KeyError>;
}
