//! Executors coming and going.

use super::{Refusal, fact};
use crate::state::{Job, State};
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
    within_limits(&registration)?;
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

/// A host's name is at most this long in the DNS; a version is shorter.
const HOST_BYTES_MAX: usize = 255;
/// There are two drivers today.
const DRIVERS_MAX: usize = 16;

/// Registrations come from outside, and stand in the log and in every sum over the fleet.
fn within_limits(registration: &Registration) -> Result<(), Rejection> {
    let Registration { name, host, version, capacity, labels, drivers, .. } = registration;
    let label_bytes = labels.iter().map(|(key, value)| key.len().max(value.len())).max().unwrap_or(0);
    let bounds = [
        ("host", host.len() as u64, HOST_BYTES_MAX as u64),
        ("version", version.len() as u64, HOST_BYTES_MAX as u64),
        ("drivers", drivers.len() as u64, DRIVERS_MAX as u64),
        ("labels", labels.len() as u64, limits::LABELS_MAX as u64),
        ("labels", label_bytes as u64, limits::LABEL_BYTES_MAX as u64),
        ("capacity.cpu_millis", capacity.cpu_millis, u64::from(limits::CPU_MILLIS_MAX)),
        ("capacity.memory_bytes", capacity.memory_bytes, limits::MEMORY_BYTES_MAX),
        ("capacity.slots", u64::from(capacity.slots), u64::from(limits::SLOTS_MAX)),
    ];
    match bounds.into_iter().find(|(_, given, max)| given > max) {
        None => Ok(()),
        Some((field, given, max)) => {
            let unit = if field.starts_with("capacity") { "is" } else { "has a size of" };
            let message =
                format!("executor `{name}` cannot be admitted: its `{field}` {unit} {given}; the limit is {max}");
            Err(Rejection::new(ErrorCode::LimitExceeded, message))
        }
    }
}

pub(super) fn lose(
    state: &State,
    executor: ExecutorId,
    reason: LossReason,
    last_seen: Timestamp,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let known = state.executors.get(&executor).filter(|e| e.is_alive()).ok_or(Refusal::Stale)?;
    // A last sign of life before it came cannot be. And a leader that is newer than that has not heard it, but the log
    // has.
    let in_the_log = known.attempts.iter().filter_map(|job| sign_of_life(state.jobs.get(job)?)).max();
    let last_seen = last_seen.max(known.joined_at).max(in_the_log.unwrap_or_default().min(now));
    Ok(fact(now, Event::ExecutorLost(ExecutorLost { executor, reason, last_seen })))
}

/// When the executor of a job's newest attempt is last known to have said something of it.
fn sign_of_life(job: &Job) -> Option<Timestamp> {
    let checkpoint = job.checkpoints.iter().rev().find(|checkpoint| checkpoint.attempt == job.attempt);
    job.attempt_started_at.max(checkpoint.map(|checkpoint| checkpoint.at))
}
