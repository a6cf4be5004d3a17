//! The scheduler. The modules stand in the order in which a job passes them.
//!
//! `leader` is the machine that leads: synchronous, without sockets or clocks, one closed set of inputs and one of
//! outputs. `run` is the shell around it: it wins and loses terms, feeds the machine and carries out what it says.

pub mod config;
pub mod error;
pub mod clock;
pub mod submission;
pub mod journal;
pub mod placement;
pub mod dispatch;
pub mod report;
pub mod watch;
pub mod waiters;
pub mod traces;
pub mod leader;
pub mod follower;
pub mod imager;
pub mod service;
pub mod lookup;
pub mod speaker;
pub mod stores;
pub mod readiness;
pub mod leadership;
pub mod metrics;

pub use config::SchedulerConfig;
pub use error::SchedulerError;
pub use leadership::run;
