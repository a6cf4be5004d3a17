//! Which executors take anything at all: not those that are drained, silent or going, nor a zone that was just lost.
//!
//! The planner and `why` ask the same question here, so that they cannot disagree.

use super::Hints;
use crate::state::State;
use outlive_schemas::executor::Registration;
use outlive_schemas::id::ExecutorId;
use std::fmt;

/// Why an executor gets nothing for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    Avoided,
    Drained,
    ZoneDrained,
    Settling,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Closed::Avoided => "it is silent, degraded or going",
            Closed::Drained => "it is drained: `outlive executor undrain` opens it again",
            Closed::ZoneDrained => "its zone is drained: `outlive zone undrain` opens it again",
            Closed::Settling => "its zone was lost, and has not been steady for long enough",
        })
    }
}

pub struct Doors<'a> {
    state: &'a State,
    hints: &'a Hints,
    /// A zone that was lost is better than none.
    elsewhere: bool,
}

impl<'a> Doors<'a> {
    pub fn of(state: &'a State, hints: &'a Hints) -> Doors<'a> {
        let mut doors = Doors { state, hints, elsewhere: true };
        if !state.lost_zones.is_empty() {
            let mut alive = state.executors.iter().filter(|(_, e)| e.is_alive());
            doors.elsewhere = alive.any(|(id, e)| doors.closed(*id, &e.registration).is_none());
        }
        doors
    }

    /// Why a live executor takes nothing, if so.
    pub fn closed(&self, id: ExecutorId, executor: &Registration) -> Option<Closed> {
        if self.state.drained_executors.contains_key(&executor.name) {
            Some(Closed::Drained)
        } else if self.state.drained_zones.contains_key(&executor.zone) {
            Some(Closed::ZoneDrained)
        } else if self.hints.avoid.contains(&id) {
            Some(Closed::Avoided)
        } else if self.elsewhere && self.state.lost_zones.contains_key(&executor.zone) {
            Some(Closed::Settling)
        } else {
            None
        }
    }
}
