//! A live Outlive for tests: real servers and processes, started by `outlive dev`, and words to tell what happens. And a
//! simulated one, in `sim`.
//!
//! Here are no cases; those are in `tests/`. Nothing here sleeps for a time and hopes: everything waits for a condition
//! with a generous bound, and says what it waited for when that is over.

pub mod dev;
pub mod client;
pub mod command;
pub mod wait;
pub mod disk;
pub mod examples;
pub mod chance;
pub mod ledger;
pub mod hosts;
pub mod slow_disk;
pub mod scattered;
pub mod sim;

pub use chance::Chance;
pub use client::{Client, Refused};
pub use command::Outcome;
pub use dev::{Dev, Options, Process};
pub use disk::on_disk_contains;
pub use wait::{wait_until, wait_until_true};

use std::time::Duration;

/// For what takes a moment on an idle machine: this many times as long as it should.
pub const SOON: Duration = Duration::from_secs(30);
/// For what takes several elections, a replay or a recovery.
pub const EVENTUALLY: Duration = Duration::from_secs(120);
