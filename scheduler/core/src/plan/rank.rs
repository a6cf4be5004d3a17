//! Which of the executors that can take a job is best. Whole numbers only; ties go to the lower id.

use crate::state::Job;
use outlive_schemas::executor::{Capacity, Registration};
use outlive_schemas::id::ExecutorId;
use outlive_schemas::view::Status;

/// Failures in a row that are tried again in place before the host is suspected, and then the zone.
const FAILURES_IN_PLACE_MAX: u32 = 2;
const FAILURES_IN_ZONE_MAX: u32 = 4;

/// What a host or a zone has, and what of it is taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    capacity: Capacity,
    taken: Capacity,
    /// The fullest of the three resources, in millionths. Kept, for it is asked far more often than it changes.
    pub full: u64,
}

impl Load {
    pub fn add(&mut self, capacity: &Capacity, free: &Capacity) {
        self.capacity += *capacity;
        self.take(&capacity.less(free));
    }

    pub fn take(&mut self, need: &Capacity) {
        self.taken += *need;
        let (taken, capacity) = (&self.taken, &self.capacity);
        self.full = millionths(taken.cpu_millis, capacity.cpu_millis)
            .max(millionths(taken.memory_bytes, capacity.memory_bytes))
            .max(millionths(u64::from(taken.slots), u64::from(capacity.slots)));
    }
}

fn millionths(taken: u64, of: u64) -> u64 {
    let part = u128::from(taken) * 1_000_000 / u128::from(of.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The order of preference; the least is the best.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The recovery ladder: in place, another host, another zone.
    pub ladder: u8,
    /// Spread: the emptier zone, then the emptier host.
    pub zone_full: u64,
    pub host_full: u64,
    pub id: ExecutorId,
}

/// Whether all steps of the ladder are alike to it: it comes from nowhere.
pub(super) fn is_indifferent(job: &Job) -> bool {
    job.recovering.is_none() || job.last_host.is_none()
}

/// Where a restarting job should rather go: 0 is the best step of the ladder.
pub(super) fn ladder(executor: &Registration, job: &Job) -> u8 {
    let (Status::Restarting | Status::Updating | Status::RollingBack, Some((last_name, last_zone)), Some(recovering)) =
        (job.status, &job.last_host, &job.recovering)
    else {
        return 0;
    };
    let same_host = executor.name == *last_name;
    let same_zone = executor.zone == *last_zone;
    match (recovering.cause.is_own_doing(), job.failures) {
        // The host is not suspected: the state may still be at hand there.
        (true, failures) if failures <= FAILURES_IN_PLACE_MAX && same_host => 0,
        (true, failures) if failures <= FAILURES_IN_PLACE_MAX => 1 + u8::from(!same_zone),
        // Neither this host nor this zone has helped.
        (true, failures) if failures > FAILURES_IN_ZONE_MAX => u8::from(same_zone) + u8::from(same_host),
        _ if same_host => 2,
        _ => u8::from(!same_zone),
    }
}
