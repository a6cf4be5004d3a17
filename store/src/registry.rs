//! The registry: who is there, each entry alive as long as its lease.

use async_trait::async_trait;
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{ExecutorId, SchedulerName};
use std::sync::Arc;

pub use etcd::EtcdRegistry;
pub use memory::MemoryRegistry;

pub mod conformance;
mod etcd;
mod memory;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("the registry is out of reach: {reason}")]
    Unavailable { reason: String },
    #[error("the registry holds more than {max} entries")]
    TooMany { max: usize },
}

/// An entry that this process keeps alive. Dropping it lets the lease run out; `leave` ends it at once.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Milliseconds since the last confirmed renewal was sent, by a clock that counts suspension.
    fn renewed_ms_ago(&self) -> u64;
    /// Returns once the lease is certainly over.
    async fn lost(&self);
    async fn leave(&self);
}

/// Who is there, and proof of it.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    async fn register(&self, executor: &Registration) -> Result<Arc<dyn Membership>, RegistryError>;
    async fn list(&self) -> Result<Vec<Registration>, RegistryError>;
    /// Whether one executor's entry is there.
    async fn holds(&self, executor: ExecutorId) -> Result<bool, RegistryError>;

    /// Ends the entries of all executors, and the leases behind them: who is there enters anew, and what rests on such a
    /// lease ends. Returns how many there were.
    async fn end_executors(&self) -> Result<usize, RegistryError>;

    /// Makes a scheduler known, with whatever `value` it wants to tell, as text. A scheduler that comes back under
    /// its name takes its entry over.
    async fn register_scheduler(&self, name: &SchedulerName, value: &str)
    -> Result<Arc<dyn Membership>, RegistryError>;

    async fn list_schedulers(&self) -> Result<Vec<(SchedulerName, String)>, RegistryError>;
}
