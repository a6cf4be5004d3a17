//! Executors coming and going.

use super::{Refusal, fact};
use crate::state::State;
use outlive_schemas::command::LossReason;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event, ExecutorLost};
use outlive_schemas::executor::Registration;
use outlive_schemas::id::ExecutorId;
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;

/// A namesake that is not known to be lost stands in the way: two processes under one name would be told apart by
/// nobody, and the older one's jobs must be seen to be over first.
pub(super) fn admit(state: &State, registration: Registration, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    if state.executors.contains_key(&registration.id) {
        return Err(Refusal::Stale);
    }
    if state.executors.len() >= limits::EXECUTORS_MAX {
        let message = format!("there are {} executors already, which is the limit", limits::EXECUTORS_MAX);
        return Err(Rejection::new(ErrorCode::LimitExceeded, message).into());
    }
    if let Some((older, _)) = state.alive_named(&registration.name) {
        let message = format!("executor {older} goes by the name `{}` and is not lost", registration.name);
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    Ok(fact(now, Event::ExecutorJoined(registration)))
}

pub(super) fn lose(
    state: &State,
    executor: ExecutorId,
    reason: LossReason,
    last_seen: Timestamp,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let known = state.executors.get(&executor).filter(|e| e.is_alive()).ok_or(Refusal::Stale)?;
    // A last sign of life before it came cannot be.
    let last_seen = last_seen.max(known.joined_at);
    Ok(fact(now, Event::ExecutorLost(ExecutorLost { executor, reason, last_seen })))
}
