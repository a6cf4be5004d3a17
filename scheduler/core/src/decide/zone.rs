//! Zones lost as a whole, and steady again. Seen by `detect::zone`; checked here.

use super::{Refusal, fact};
use crate::detect::zone::lost_together;
use crate::state::State;
use outlive_schemas::event::{Envelope, Event, ZoneLost, ZoneNamed};
use outlive_schemas::id::Zone;
use outlive_schemas::time::Timestamp;

pub(super) fn lose(state: &State, zone: Zone, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let executors = lost_together(state, &zone, now);
    let alive = state.executors.values().any(|e| e.is_alive() && e.registration.zone == zone);
    if alive || executors == 0 || state.lost_zones.contains_key(&zone) {
        return Err(Refusal::Stale);
    }
    Ok(fact(now, Event::ZoneLost(ZoneLost { zone, executors })))
}

pub(super) fn settle(state: &State, zone: Zone, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    if !state.lost_zones.contains_key(&zone) {
        return Err(Refusal::Stale);
    }
    Ok(fact(now, Event::ZoneSteady(ZoneNamed { zone, request_id: None })))
}
