//! Which of the executors that can take a job is best. Whole numbers only; ties go to the lower id.

use crate::state::Job;
use outlive_schemas::event::Cause;
use outlive_schemas::executor::{Capacity, Registration};
use outlive_schemas::id::{ExecutorId, Zone};
use outlive_schemas::view::Status;
use std::collections::BTreeMap;

/// Failures in a row that are tried again in place before the host is suspected, and then the zone.
const FAILURES_IN_PLACE_MAX: u32 = 2;
const FAILURES_IN_ZONE_MAX: u32 = 4;

/// What a zone has, and what of it is taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ZoneLoad {
    capacity: Capacity,
    taken: Capacity,
}

impl ZoneLoad {
    pub fn add(&mut self, capacity: &Capacity, free: &Capacity) {
        self.capacity += *capacity;
        self.taken += capacity.less(free);
    }

    pub fn take(&mut self, need: &Capacity) {
        self.taken += *need;
    }
}

/// The order of preference; the least is the best.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The recovery ladder: in place, another host, another zone.
    ladder: u8,
    /// Spread: the emptier zone, then the emptier host, in thousandths.
    zone_load: u64,
    host_load: u64,
    id: ExecutorId,
}

pub(super) fn rank(
    id: ExecutorId,
    executor: &Registration,
    free: &Capacity,
    zones: &BTreeMap<Zone, ZoneLoad>,
    job: &Job,
) -> Rank {
    let zone = zones.get(&executor.zone).copied().unwrap_or_default();
    Rank {
        ladder: ladder(executor, job),
        zone_load: load(&zone.capacity, &zone.taken),
        host_load: load(&executor.capacity, &executor.capacity.less(free)),
        id,
    }
}

/// The fullest of the three resources, in thousandths.
fn load(capacity: &Capacity, taken: &Capacity) -> u64 {
    let part = |taken: u64, of: u64| if of == 0 { 0 } else { taken.saturating_mul(1_000) / of };
    part(taken.cpu_millis, capacity.cpu_millis)
        .max(part(taken.memory_bytes, capacity.memory_bytes))
        .max(part(u64::from(taken.slots), u64::from(capacity.slots)))
}

/// Where a restarting job should rather go: 0 is the best step of the ladder.
fn ladder(executor: &Registration, job: &Job) -> u8 {
    let (Status::Restarting, Some((last_name, last_zone)), Some(recovering)) =
        (job.status, &job.last_host, &job.recovering)
    else {
        return 0;
    };
    let same_host = executor.name == *last_name;
    let same_zone = executor.zone == *last_zone;
    let by_itself = matches!(recovering.cause, Cause::ProcessExit | Cause::Timeout);
    match (by_itself, job.failures) {
        // The host is not suspected: the state may still be at hand there.
        (true, failures) if failures <= FAILURES_IN_PLACE_MAX => u8::from(!same_host),
        (true, failures) if failures > FAILURES_IN_ZONE_MAX => u8::from(same_zone) + u8::from(same_host),
        _ if same_host => 2,
        _ => u8::from(!same_zone),
    }
}
