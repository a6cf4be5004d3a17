//! How long things are kept: jobs that are over, what deleted ones left, and what nobody refers to.

use super::{Refusal, fact};
use crate::retention::RETENTION;
use crate::state::State;
use compact_str::CompactString;
use outlive_schemas::event::{CollectionHeld, Envelope, Event, JobDeleted, JobErased};
use outlive_schemas::id::JobId;
use outlive_schemas::job::duration_in_range;
use outlive_schemas::limits;
use outlive_schemas::time::{Millis, Timestamp};

pub(super) fn expire(state: &State, id: JobId, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    job.expirable().ok_or(Refusal::Stale)?;
    let event = Event::JobDeleted(JobDeleted { job: id, request_id: None });
    Ok(vec![Envelope { at: now, by: Some(RETENTION.into()), event }])
}

pub(super) fn erased(state: &State, id: JobId, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    if !state.to_erase.contains_key(&id) {
        return Ok(Vec::new());
    }
    Ok(fact(now, Event::JobErased(JobErased { job: id })))
}

/// Two may copy at once: what one holds, the other does not let go before its time. So a request that comes twice is
/// not remembered: at worst it holds for a little longer.
pub(super) fn hold(
    state: &State,
    by: Option<CompactString>,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    duration_in_range("for", until.since(now), Millis::ZERO, Millis(limits::COLLECTION_HOLD_MS_MAX))?;
    if until <= state.collection_held_until {
        return Ok(Vec::new());
    }
    Ok(vec![Envelope { at: now, by, event: Event::CollectionHeld(CollectionHeld { until }) }])
}
