//! What is due at a given time. Nothing here waits.

use crate::life::TERM_GRACE;
use crate::state::State;
use outlive_schemas::command::Command;
use outlive_schemas::event::Cause;
use outlive_schemas::id::{Namespace, ScheduleName};
use outlive_schemas::time::Timestamp;

/// Commands that are due, at most `limit`.
pub fn due(state: &State, now: Timestamp, limit: usize) -> Vec<Command> {
    // One that must never run twice waits for its executor, which is told to let it go, or to be certainly gone.
    let job = |id| state.jobs.get(&id).filter(|job| !job.spec.exclusive);
    let given_up = state
        .index
        .stopping
        .iter()
        .take_while(|(at, _)| *at <= now)
        .filter_map(|(_, id)| job(*id).map(|job| Command::AbandonAttempt { job: *id, attempt: job.attempt }));
    // Reports that found no leader are on their way to this one: until they had the time nothing is called late.
    let settled = state.term.as_ref().is_none_or(|(_, since)| now.since(*since) >= TERM_GRACE);
    let late = state.index.starting.iter().take_while(|(by, _)| settled && *by <= now).filter_map(|(_, id)| {
        let job = job(*id)?;
        Some(Command::WithdrawAttempt { job: *id, attempt: job.attempt, cause: Cause::Timeout })
    });
    let attended = state.index.due.iter().take_while(|(at, _)| settled && *at <= now);
    let attended = attended.map(|(_, id)| Command::AttendJob { job: *id });
    let deadlines = state.index.deadlines.iter().take_while(|(at, _)| settled && *at <= now);
    let deadlines = deadlines.map(|(_, id)| Command::GiveUpJob { job: *id });
    given_up.chain(late).chain(attended).chain(deadlines).take(limit).collect()
}

/// Schedules with a tick to be taken, at most `limit`: those whose jobs are over and whose next tick waits for that, and
/// those that are due, the longest overdue first.
pub fn ticks(state: &State, now: Timestamp, limit: usize) -> Vec<(Namespace, ScheduleName)> {
    let index = &state.index.schedules;
    let waiting = index.waiting.iter().filter(|key| !index.running.contains_key(*key));
    let due = index.due.iter().take_while(|(at, ..)| *at <= now);
    let due = due.filter(|(_, namespace, name)| {
        let key = (namespace.clone(), name.clone());
        !index.waiting.contains(&key) || index.running.contains_key(&key)
    });
    let due = due.map(|(_, namespace, name)| (namespace.clone(), name.clone()));
    waiting.cloned().chain(due).take(limit).collect()
}
