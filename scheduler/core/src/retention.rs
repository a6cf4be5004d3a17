//! How long what is over is kept: the state and the rules → jobs to forget. Nothing is forgotten here.
//!
//! A finished job goes when it is old, or when there are too many and it is not quite new. It goes as if somebody had
//! deleted it, with the history saying that it was retention; what it left is erased in the same way.

use crate::state::State;
use outlive_schemas::command::Command;
use outlive_schemas::limits;
use outlive_schemas::time::{Millis, Timestamp};

/// Who asked for it, in an event that retention led to.
pub const RETENTION: &str = "retention";

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// A job that has been over for so long is forgotten.
    pub finished_for: Millis,
    /// And the oldest beyond so many…
    pub finished_max: u64,
    /// …but none that has been over for less than this: whoever submitted it may still be about to ask how it went,
    /// or to send the same submission again.
    pub finished_at_least: Millis,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            finished_for: Millis(limits::RETENTION_FINISHED_MS_DEFAULT),
            finished_max: limits::RETENTION_FINISHED_DEFAULT,
            finished_at_least: Millis(limits::RETENTION_AT_LEAST_MS_DEFAULT),
        }
    }
}

/// Jobs whose time is over, at most `limit`, the oldest first. Costs by what it returns.
pub fn due(state: &State, rules: &Retention, now: Timestamp, limit: usize) -> Vec<Command> {
    let finished = &state.index.finished;
    let mut too_many = (finished.len() as u64).saturating_sub(rules.finished_max);
    let over = finished.iter().take(limit).take_while(|(at, _)| {
        let age = now.since(*at);
        let goes = age >= rules.finished_for || (too_many > 0 && age >= rules.finished_at_least);
        too_many = too_many.saturating_sub(1);
        goes
    });
    over.map(|(_, job)| Command::ExpireJob { job: *job }).collect()
}
