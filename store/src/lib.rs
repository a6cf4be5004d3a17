//! Where Outlive keeps things, and the contracts that each place must keep.
//!
//! Every trait here has an implementation over real servers and one in memory, and both pass the same conformance
//! suite. Nothing here knows what a job is.

pub mod seal;
pub mod keyring;
mod retry;
pub mod nats;
pub mod etcd;
pub mod key_store;
pub mod frame;
pub mod log;
pub mod witness;
pub mod image;
pub mod blob;
pub mod job_log;
pub mod backup;
pub mod leadership;
pub mod bridge;
pub mod registry;
pub mod telemetry;
