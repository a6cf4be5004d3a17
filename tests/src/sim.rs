//! A deterministic simulation of Outlive's real logic: core, journal, leader, detector, executor and attempt machines,
//! commits as they are sealed, over a simulated log, etcd, network, clocks, disks and blob store.
//!
//! One thread, one seed, one queue of events in virtual time. A seed gives the same run every time. What is simulated
//! is what is outside the machines: servers, messages, processes, and the thin shells that feed the machines.

pub mod blobs;
pub mod checkers;
pub mod ticks;
pub mod client;
pub mod clock;
pub mod ends;
pub mod env;
pub mod etcd;
pub mod executor;
pub mod faults;
pub mod job;
pub mod log;
pub mod network;
pub mod queues;
pub mod sabotage;
pub mod scheduler;
pub mod trace;
pub mod world;

pub use faults::Kind;
pub use sabotage::Sabotage;
use std::collections::BTreeMap;
use trace::Trace;
use world::World;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events before everything is healed.
    pub steps: u64,
    pub sabotage: Option<Sabotage>,
    /// Kinds of faults to choose from; nothing means all.
    pub focus: &'static [Kind],
    /// Whether the log loses acknowledged commits in the end, whatever the seed says.
    pub lose_tail: bool,
    /// Whether users stop, start, update and roll back, and take snapshots, beside everything else.
    pub life: bool,
    /// Whether operators drain executors and zones, and take that back.
    pub drains: bool,
    /// Whether users make schedules.
    pub schedules: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            steps: 20_000,
            sabotage: None,
            focus: &[],
            lose_tail: false,
            life: false,
            drains: false,
            schedules: false,
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    pub violation: Option<String>,
    pub commits: u64,
    pub jobs: u64,
    /// How often each type of event was stored.
    pub events: BTreeMap<&'static str, u64>,
    pub virtual_seconds: u64,
    /// Executors that were taken for lost while things were broken.
    pub lost_executors: u64,
    /// The longest time for which nothing could be appended.
    pub stalled_ms_max: u64,
    /// The trace, where it was asked for.
    pub lines: Vec<String>,
}

/// Runs one seed.
pub fn run(seed: u64, options: &Options) -> Report {
    World::new(seed, options, Trace::off(), options.sabotage).run()
}

/// Runs one seed, and tells what happened.
pub fn run_traced(seed: u64, options: &Options) -> Report {
    World::new(seed, options, Trace::on(), options.sabotage).run()
}
