//! The freeze of an attempt, from the request to the thaw, as one value of the shim's loop.
//!
//! Every freeze has a number that its thaw must name, so that a thaw that comes late cannot end a later freeze. A
//! freeze that ends in any other way leaves its reason behind for the thaw, because whoever read files meanwhile must
//! learn that they did not stand still.
//!
//! Deliberately not here: stopping processes (`crate::freeze`), and sleeping.

use std::time::Duration;

use super::BootTime;
use super::protocol::FromShim;
use crate::freeze::{FreezeError, Freezer, LAST_HOLD_LIMIT, Step, ThawReport};

/// Where a freeze is.
#[derive(Debug)]
pub(super) enum Hold {
    None,
    /// Not everything stands still yet; the next look is due at `next`.
    Stopping {
        id: u64,
        freezer: Freezer,
        limit: Duration,
        next: BootTime,
    },
    /// Everything stands still, at most `until` then.
    Held {
        id: u64,
        freezer: Freezer,
        limit: Duration,
        until: BootTime,
    },
    /// It ended before its thaw.
    Lost {
        id: u64,
        error: FreezeError,
    },
}

impl Hold {
    /// Begins to freeze the tree below `root`; the answer, if it is one of refusal. Otherwise [`go_on`](Self::go_on)
    /// brings it.
    pub fn begin(&mut self, id: u64, limit: Duration, root: i32) -> Option<FromShim> {
        if matches!(self, Self::Stopping { .. } | Self::Held { .. }) {
            return Some(FromShim::Froze { id, result: Err(FreezeError::Busy) });
        }
        let now = BootTime::now();
        let limit = limit.min(LAST_HOLD_LIMIT);
        *self = Self::Stopping { id, freezer: Freezer::begin(root, now), limit, next: now };
        None
    }

    /// When [`go_on`](Self::go_on) has something to do.
    pub fn next_moment(&self) -> Option<BootTime> {
        match self {
            Self::Stopping { next, .. } => Some(*next),
            Self::Held { until, .. } => Some(*until),
            Self::None | Self::Lost { .. } => None,
        }
    }

    /// Does what is due; the answer to the freeze, when it is there.
    pub fn go_on(&mut self, now: BootTime) -> Option<FromShim> {
        let mut answer = None;
        *self = match std::mem::replace(self, Self::None) {
            Self::Stopping { id, mut freezer, limit, next } if now >= next => match freezer.step() {
                Step::Again(next) => Self::Stopping { id, freezer, limit, next },
                Step::Frozen(report) => {
                    answer = Some(FromShim::Froze { id, result: Ok(report) });
                    Self::Held { id, freezer, limit, until: BootTime::now().after(limit) }
                }
                Step::Failed(error) => {
                    answer = Some(FromShim::Froze { id, result: Err(error) });
                    Self::None
                }
            },
            Self::Held { id, mut freezer, limit, until } if now >= until => {
                freezer.release();
                Self::Lost { id, error: FreezeError::HeldTooLong { limit } }
            }
            other => other,
        };
        answer
    }

    /// Ends the freeze of this number.
    pub fn thaw(&mut self, id: u64) -> Result<ThawReport, FreezeError> {
        match std::mem::replace(self, Self::None) {
            Self::Held { id: held, freezer, .. } if held == id => freezer.thaw(),
            Self::Lost { id: lost, error } if lost == id => Err(error),
            other => {
                *self = other;
                Err(FreezeError::NotFrozen)
            }
        }
    }

    /// Says whether everything stood still since the freeze of this number, for one who kills it next. If so it stays
    /// frozen.
    pub fn end(&mut self, id: u64) -> Result<ThawReport, FreezeError> {
        let Self::Held { id: held, freezer, .. } = self else { return self.thaw(id) };
        if *held != id {
            return Err(FreezeError::NotFrozen);
        }
        let still = freezer.stood_still();
        if still.is_err() {
            freezer.release();
            *self = Self::None;
        }
        still
    }

    /// Ends whatever freeze there is; its answer, if that has not been given yet.
    pub fn lose(&mut self, error: FreezeError) -> Option<FromShim> {
        let mut answer = None;
        *self = match std::mem::replace(self, Self::None) {
            Self::Held { id, mut freezer, .. } => {
                freezer.release();
                Self::Lost { id, error }
            }
            Self::Stopping { id, mut freezer, .. } => {
                freezer.release();
                answer = Some(FromShim::Froze { id, result: Err(error) });
                Self::None
            }
            other => other,
        };
        answer
    }
}
