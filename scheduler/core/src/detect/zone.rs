//! Executors lost together → zones lost, and when a zone may be trusted again.
//!
//! A zone is lost when all its executors are, within some seconds of one another. Where it had only one, the loss of that
//! process says nothing of the zone, so somebody else there is asked for as well: everything of ours in a zone answers
//! its probe.

use super::{Observations, PROBE_AFTER};
use crate::state::State;
use outlive_schemas::command::LossReason;
use outlive_schemas::id::Zone;
use outlive_schemas::time::{Millis, Timestamp};
use std::collections::BTreeMap;

/// Losses within this are one.
pub const LOST_TOGETHER: Millis = Millis::secs(5);
/// How long a zone that was lost must have been steady before it gets work again.
pub const SETTLE_DEFAULT: Millis = Millis::secs(30);
/// Between two probes of a zone.
pub const ZONE_PROBE_INTERVAL: Millis = Millis(100);

/// What the leader has seen of one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneSeen {
    pub last_probe: Option<Timestamp>,
    /// Probes in a row that nobody answered.
    pub unanswered: u32,
    /// When something was last amiss in it.
    pub unsteady_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneVerdict {
    Probe(Zone),
    Lost(Zone),
    Steady(Zone),
}

#[derive(Default)]
struct Census {
    alive: u32,
    suspect: u32,
    late: u32,
    joined_at: Timestamp,
}

/// What is to be done about zones. Costs by the number of executors, so it is not asked in every turn.
pub fn zones(state: &State, observations: &mut Observations, settle: Millis, now: Timestamp) -> Vec<ZoneVerdict> {
    if observations.is_isolated(now) {
        return Vec::new();
    }
    let mut verdicts = Vec::new();
    for (zone, census) in census(state, observations, now) {
        let amiss = census.suspect > 0 || census.alive == 0;
        let seen = observations.zones.entry(zone.clone()).or_default();
        if amiss {
            seen.unsteady_at = Some(now);
        } else if census.late == 0 {
            seen.unanswered = 0;
        }
        let is_lost = state.lost_zones.contains_key(zone);
        if is_lost {
            let since = seen.unsteady_at.unwrap_or_default().max(observations.listening_since).max(census.joined_at);
            if !amiss && now.since(since) >= settle {
                verdicts.push(ZoneVerdict::Steady(zone.clone()));
            }
            continue;
        }
        let together = if census.alive == 0 { lost_together(state, zone, now) } else { 0 };
        if together > 1 || (together == 1 && seen.unanswered > 0) {
            verdicts.push(ZoneVerdict::Lost(zone.clone()));
        } else if (census.late > 0 || together > 0)
            && seen.last_probe.is_none_or(|at| now.since(at) >= ZONE_PROBE_INTERVAL)
        {
            seen.last_probe = Some(now);
            verdicts.push(ZoneVerdict::Probe(zone.clone()));
        }
    }
    verdicts
}

fn census<'a>(state: &'a State, observations: &Observations, now: Timestamp) -> BTreeMap<&'a Zone, Census> {
    let mut zones: BTreeMap<&Zone, Census> = BTreeMap::new();
    for (id, executor) in &state.executors {
        let census = zones.entry(&executor.registration.zone).or_default();
        if !executor.is_alive() {
            continue;
        }
        census.alive += 1;
        census.joined_at = census.joined_at.max(executor.joined_at);
        let Some(observed) = observations.executors.get(id) else { continue };
        census.suspect += u32::from(observed.is_suspect(now));
        census.late += u32::from(observed.is_late(now, PROBE_AFTER) || observed.gone > 0);
    }
    zones
}

/// How many of the zone's executors were lost within the last seconds, and not by leaving.
pub fn lost_together(state: &State, zone: &Zone, now: Timestamp) -> u32 {
    let of_it = state.executors.values().filter(|e| e.registration.zone == *zone);
    let lost = of_it.filter_map(|e| e.lost);
    lost.filter(|loss| loss.reason != LossReason::Left && now.since(loss.at) <= LOST_TOGETHER).count() as u32
}
