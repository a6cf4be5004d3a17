//! Leadership: at most one holder as far as clocks can be trusted; the log's fence covers the rest.

use async_trait::async_trait;
use outlive_schemas::id::{SchedulerName, Term, Zone};
use serde::{Deserialize, Serialize};

pub(crate) use etcd::Base;
pub use etcd::{EtcdLeadership, TTL_DEFAULT};
pub use memory::MemoryLeadership;

pub mod conformance;
mod etcd;
mod memory;

/// Who leads, as written under the leader's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub scheduler: SchedulerName,
    pub zone: Zone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    pub term: Term,
    pub holder: Holder,
    /// What [`Leadership::depose`] takes to end this reign and no other.
    pub lease: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum LeadershipError {
    #[error("the election store is out of reach: {reason}")]
    Unavailable { reason: String },
    /// The guarded write found another term, or none.
    #[error("this scheduler no longer holds term {term}")]
    Deposed { term: Term },
    #[error("{scheduler} leads in term {term}: stop the schedulers first")]
    Held { scheduler: SchedulerName, term: Term },
}

/// What one term may be used for, as a fraction of its lease's time: see [`Tenure::is_valid`].
const VALID_TENTHS: u32 = 6;

/// A term that was won. It is over once the lease runs out; whoever holds it asks `is_valid` before each act.
#[async_trait]
pub trait Tenure: Send + Sync + 'static {
    fn term(&self) -> Term;

    /// Whether the last confirmed renewal was *sent* less than 0.6 of the lease's time ago, by a clock that never
    /// goes backwards.
    fn is_valid(&self) -> bool;

    /// Returns once the term is over for whatever reason.
    async fn lost(&self);

    /// Gives up the term at once, so that somebody else may take it.
    async fn resign(&self);

    /// Writes the witness (see `witness.rs`) if, and only if, this term still holds the leader's key.
    async fn witness(&self, body: Vec<u8>) -> Result<(), LeadershipError>;
}

/// The election: one key that only one may hold.
#[async_trait]
pub trait Leadership: Send + Sync + 'static {
    /// Tries once to take the vacant leadership. `None`: somebody holds it. An unclear answer is settled by reading
    /// the key and comparing owner and lease, never by trying blindly again.
    async fn campaign(&self, holder: Holder) -> Result<Option<std::sync::Arc<dyn Tenure>>, LeadershipError>;

    /// Who leads now.
    async fn reign(&self) -> Result<Option<Reign>, LeadershipError>;

    /// Returns when `term` has ended, or at once if it does not hold; may also return early.
    async fn vacancy(&self, term: Term) -> Result<(), LeadershipError>;

    /// Ends a reign by revoking its lease: safe at any time, because the log is the fence.
    async fn depose(&self, reign: &Reign) -> Result<(), LeadershipError>;

    async fn read_witness(&self) -> Result<Option<Vec<u8>>, LeadershipError>;

    /// Writes the witness without a term: only for an operator who accepts a loss.
    async fn overwrite_witness(&self, body: Vec<u8>) -> Result<(), LeadershipError>;

    /// Begins a new generation of terms, all of them above `above`, and returns what they begin from. Only while
    /// nobody leads: [`LeadershipError::Held`] otherwise. For an operator who restores a log, or goes on without a
    /// part of it.
    async fn begin_generation(&self, above: Term) -> Result<Term, LeadershipError>;
}
