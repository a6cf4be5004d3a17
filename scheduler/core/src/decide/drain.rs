//! Emptying executors and zones on request, and taking that back.
//!
//! An executor is drained by its name, so that a restart does not undo it. What it holds gives back the leader's orders
//! (`evacuate`); a drain only says that it is wanted.

use super::{Refusal, is_done};
use crate::state::{Drain, State};
use outlive_schemas::command::Origin;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event, ExecutorDraining, ExecutorUndrained, ZoneDraining, ZoneNamed};
use outlive_schemas::id::{ExecutorName, ExecutorRef, Zone};
use outlive_schemas::limits;
use outlive_schemas::subject::operators;
use outlive_schemas::time::{Millis, Timestamp};

pub(super) fn executor(
    state: &State,
    origin: Origin,
    executor: &ExecutorRef,
    deadline: Timestamp,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let name = name_of(state, executor)?;
    let known = state.drained_executors.get(&name).copied();
    let request_id = origin.request_id.clone();
    let event = |deadline| Event::ExecutorDraining(ExecutorDraining { name, deadline, request_id });
    drained(state, known, origin, deadline, now, event)
}

pub(super) fn undrain_executor(
    state: &State,
    origin: Origin,
    executor: &ExecutorRef,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    // One that is drained may be forgotten as an executor; its drain can still be taken back by its name.
    let name = match executor {
        ExecutorRef::Name(name) if state.drained_executors.contains_key(name) => name.clone(),
        executor => name_of(state, executor)?,
    };
    if !state.drained_executors.contains_key(&name) || is_done(state, &operators(), &origin) {
        return Ok(Vec::new());
    }
    let Origin { request_id, by } = origin;
    Ok(vec![Envelope { at: now, by, event: Event::ExecutorUndrained(ExecutorUndrained { name, request_id }) }])
}

pub(super) fn zone(
    state: &State,
    origin: Origin,
    zone: Zone,
    deadline: Timestamp,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    if !state.knows_zone(&zone) {
        return Err(unknown_zone(&zone).into());
    }
    let known = state.drained_zones.get(&zone).copied();
    let request_id = origin.request_id.clone();
    let event = |deadline| Event::ZoneDraining(ZoneDraining { zone, deadline, request_id });
    drained(state, known, origin, deadline, now, event)
}

pub(super) fn undrain_zone(
    state: &State,
    origin: Origin,
    zone: Zone,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    if state.drained_zones.contains_key(&zone) && !is_done(state, &operators(), &origin) {
        let Origin { request_id, by } = origin;
        return Ok(vec![Envelope { at: now, by, event: Event::ZoneUndrained(ZoneNamed { zone, request_id }) }]);
    }
    if state.knows_zone(&zone) { Ok(Vec::new()) } else { Err(unknown_zone(&zone).into()) }
}

/// Asking twice changes nothing, unless the second time says less time or more.
fn drained(
    state: &State,
    known: Option<Drain>,
    origin: Origin,
    deadline: Timestamp,
    now: Timestamp,
    event: impl FnOnce(Timestamp) -> Event,
) -> Result<Vec<Envelope>, Refusal> {
    if is_done(state, &operators(), &origin) {
        return Ok(Vec::new());
    }
    let longest = now + Millis(limits::DURATION_MS_MAX);
    if deadline > longest {
        let message =
            format!("`deadline` is {deadline}, which is more than a year from now: give one before {longest}");
        return Err(Rejection::new(ErrorCode::InvalidArgument, message).into());
    }
    // A client that repeats a request meant the same point in time by the same length of time.
    if known.is_some_and(|known| known.deadline.0.abs_diff(deadline.0) < Millis::secs(60).0) {
        return Ok(Vec::new());
    }
    if known.is_none() && state.drained_executors.len() + state.drained_zones.len() >= limits::DRAINS_MAX {
        let message = format!("{} executors and zones are drained already, which is the limit", limits::DRAINS_MAX);
        return Err(Rejection::new(ErrorCode::LimitExceeded, message).into());
    }
    Ok(vec![Envelope { at: now, by: origin.by, event: event(deadline) }])
}

fn name_of(state: &State, executor: &ExecutorRef) -> Result<ExecutorName, Rejection> {
    state.resolve_executor(executor).map(|(_, found)| found.registration.name.clone())
}

fn unknown_zone(zone: &Zone) -> Rejection {
    Rejection::not_found(format_args!("zone `{zone}`: no executor of it was ever heard of"))
}
