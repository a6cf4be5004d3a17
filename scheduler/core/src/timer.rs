//! What is due at a given time. Nothing here waits.

use crate::state::State;
use outlive_schemas::command::Command;
use outlive_schemas::time::Timestamp;

/// Commands that are due, at most `limit`.
pub fn due(state: &State, now: Timestamp, limit: usize) -> Vec<Command> {
    let given_up = state.index.stopping.iter().take_while(|(at, _)| *at <= now).take(limit);
    given_up
        .filter_map(|(_, id)| state.jobs.get(id).map(|job| Command::AbandonAttempt { job: *id, attempt: job.attempt }))
        .collect()
}
