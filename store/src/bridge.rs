//! The bridge: where commits are kept while the log's stream has no leader, so that nothing has to wait for one.
//!
//! A few sealed commits that follow the end of the log, each under its position. Who may put them there is guarded by
//! the leader's key; when they are put, drained and removed is `log/bridged.rs`'s business, and what is in them is
//! nobody's here.

use crate::log::Stored;
use async_trait::async_trait;
use outlive_schemas::id::{Sequence, Term};

pub use etcd::EtcdBridge;
pub use memory::MemoryBridge;

pub mod conformance;
mod etcd;
mod memory;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgeError {
    /// Of a put or a removal it is unknown whether it was done, or still will be; both may be repeated.
    #[error("the bridge is out of reach: {reason}")]
    Unavailable { reason: String },
    /// The leader's key is no longer this term's. Nothing was done, and nothing will be.
    #[error("term {term} no longer holds the leadership")]
    Deposed { term: Term },
    /// Another commit stands at this position.
    #[error("the bridge holds another commit at {at}")]
    Occupied { at: Sequence },
    /// It will never take this: no room, no permission.
    #[error("the bridge refused the commit: {reason}")]
    Refused { reason: String },
}

/// Commits beyond the end of the stream, durable as long as etcd is.
#[async_trait]
pub trait Bridge: Send + Sync + 'static {
    /// Puts a commit at its position if, and only if, `term` holds the leader's key at that moment. `Ok` says that
    /// it is durable; the same bytes at the same position are a success, however often.
    async fn put(&self, term: Term, commit: &Stored) -> Result<(), BridgeError>;

    /// Everything there is, in order. Read by a scheduler right after it has won its election, this is all that
    /// earlier terms have put: they cannot put more.
    async fn list(&self) -> Result<Vec<Stored>, BridgeError>;

    /// Removes what stands in the stream by now, under the same guard as [`Bridge::put`]. What is not there is a
    /// success.
    async fn remove(&self, term: Term, at: Sequence) -> Result<(), BridgeError>;

    /// Removes without a term: only for an operator who accepts a loss.
    async fn discard(&self, at: Sequence) -> Result<(), BridgeError>;
}
