//! The executor: a process on a host that runs attempts of jobs, checkpoints them, and restores them.
//!
//! It takes orders from the scheduler that leads and reports to it; it decides nothing about where or whether a job
//! runs. Every attempt runs under a small shim of its own that kills it when its executor goes. The modules stand in
//! the order in which an attempt meets them.

pub mod config;
pub mod error;
pub mod intake;
pub mod attempt;
pub mod machine;
mod runner;
pub mod restore;
pub mod environment;
pub mod driver;
pub mod shim;
pub mod freeze;
pub mod logs;
pub mod checkpoint;
pub mod scan;
pub mod chunk;
pub mod manifest;
pub mod snapshot_file;
pub mod report;
pub mod heartbeat;
pub mod health;
pub mod http;
pub mod metrics;

pub use config::ExecutorConfig;
pub use error::ExecutorError;

/// Runs an executor until `shutdown` is over, and then takes leave in order.
///
/// Errors when it cannot begin, with what to do about it; afterwards it mends what breaks by itself.
pub async fn run(config: ExecutorConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), ExecutorError> {
    runner::run(config, shutdown).await
}
