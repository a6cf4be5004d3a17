//! view → plan → commands. No scoring here: `plan` ranks, and `decide` checks each proposal again.

use outlive_core::plan::{Hints, Plan, plan};
use outlive_core::state::{EXCLUSIVE_WAIT, State};
use outlive_schemas::command::{Command, LossReason};
use outlive_schemas::event::Cause;
use outlive_schemas::id::JobId;
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;

/// One round of planning.
pub fn round(state: &State, hints: &Hints, now: Timestamp) -> Plan {
    plan(state, hints, now, limits::PLACEMENTS_PER_ROUND_MAX)
}

/// Jobs to be taken off lost executors now, at most `limit`.
pub fn evictions(
    state: &State,
    leased: impl Fn(outlive_schemas::id::ExecutorId) -> bool,
    now: Timestamp,
    limit: usize,
) -> Vec<Command> {
    let mut commands = Vec::new();
    for executor_id in state.to_evict() {
        let Some(executor) = state.executors.get(&executor_id) else { continue };
        let Some(loss) = executor.lost else { continue };
        let certainly_over =
            loss.reason == LossReason::Left || (!leased(executor_id) && now.since(loss.last_seen) >= EXCLUSIVE_WAIT);
        let with_zone = state.lost_zones.get(&executor.registration.zone).is_some_and(|at| loss.at <= *at);
        let cause = if with_zone { Cause::ZoneLost } else { Cause::ExecutorLost };
        let may_move = |id: &JobId| state.jobs.get(id).is_some_and(|job| !job.spec.exclusive || certainly_over);
        for job in executor.attempts.iter().filter(|id| may_move(id)) {
            if commands.len() == limit {
                return commands;
            }
            let attempt = state.jobs[job].attempt;
            commands.push(Command::EvictAttempt { job: *job, attempt, cause });
        }
    }
    commands
}
