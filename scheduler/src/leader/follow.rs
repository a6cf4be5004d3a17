//! What follows for jobs from how others ended, without anybody asking: those who waited for them begin, or never will;
//! tasks that are over make room for others of their array.
//!
//! One end may lead to the next, so it goes on until nothing follows any more. What is left when the turn's limit is
//! reached, or when the journal is full, is there at the next turn, whoever leads then: it follows from the state.

use super::{Leader, Output};
use outlive_core::{array, depend};
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;

/// Rounds in a turn: a chain of jobs that fail one after the other takes one for each.
const ROUNDS_MAX: usize = 64;

/// Each of these may lead to hundreds of events.
const ARRAYS_PER_ROUND_MAX: usize = 8;

impl Leader {
    pub(super) fn follow(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for _ in 0..ROUNDS_MAX {
            if !self.journal.has_room() {
                return;
            }
            let mut due = depend::due(self.state(), limits::PLACEMENTS_PER_ROUND_MAX);
            due.extend(array::due(self.state(), ARRAYS_PER_ROUND_MAX));
            if due.is_empty() {
                return;
            }
            for command in due {
                self.own(command, now, out);
            }
        }
    }
}
