//! Snapshots: asking for one, what executors say of it, deleting it, and bringing one in from elsewhere.

use super::{Refusal, fact, is_done};
use crate::life::{IMPORT_WITHIN, SNAPSHOT_SLACK, Snapshot};
use crate::state::{Job, State};
use compact_str::{CompactString, format_compact};
use outlive_schemas::checkpoint::{BlobName, Checkpoint};
use outlive_schemas::command::Origin;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::id::{JobId, JobRef, Namespace, SnapshotName};
use outlive_schemas::job::invalid;
use outlive_schemas::limits;
use outlive_schemas::snapshot::{
    IMPORTED, ImportedContent, Initiator, Purpose, SnapshotCompleted, SnapshotDeleted, SnapshotDeletionRequested,
    SnapshotFailed, SnapshotRequested, SnapshotStatus,
};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;

pub(super) fn create(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    name: SnapshotName,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let (id, job) = state.resolve(namespace, job)?;
    if is_done(state, namespace, &origin) || is_repeated(job, &name, &origin, Purpose::Asked) {
        return Ok(Vec::new());
    }
    keeps_state(job)?;
    super::array::single_only(id, job, "snapshotted")?;
    if job.status != Status::Running {
        let message = format!("job {id} is {}: a snapshot can be taken of a running job only", job.status);
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    may_be_added(id, job, &name)?;
    let give_up_at = now + job.spec.checkpoint.timeout + SNAPSHOT_SLACK;
    let event = requested(id, job, name, Purpose::Asked, give_up_at, origin.request_id);
    Ok(vec![Envelope { at: now, by: origin.by, event: Event::SnapshotRequested(event) }])
}

/// Whether this very request has made this snapshot before.
fn is_repeated(job: &Job, name: &SnapshotName, origin: &Origin, purpose: Purpose) -> bool {
    let known = job.life.as_ref().and_then(|life| life.snapshot(name));
    known.is_some_and(|known| {
        origin.request_id.is_some() && known.request_id == origin.request_id && known.purpose == purpose
    })
}

fn keeps_state(job: &Job) -> Result<(), Rejection> {
    if job.spec.keeps_state() {
        return Ok(());
    }
    Err(Rejection::new(ErrorCode::Unsupported, "the job's driver is noop, which keeps no state to take a snapshot of"))
}

/// A user's snapshot of that name.
fn may_be_added(id: JobId, job: &Job, name: &SnapshotName) -> Result<(), Rejection> {
    if name.is_reserved() {
        return Err(invalid("name", &format!("is `{name}`: names beginning with system- are Outlive's own")));
    }
    let Some(life) = &job.life else { return Ok(()) };
    if let Some(holder) = life.snapshot(name).filter(|holder| holder.status != SnapshotStatus::Deleting) {
        let message = format!(
            "the name `{name}` is taken by a snapshot of job {id} that is {}: choose another, or delete that one",
            holder.status
        );
        return Err(Rejection::new(ErrorCode::InUse, message));
    }
    let there_are = life.count(Initiator::User);
    if there_are >= limits::SNAPSHOTS_PER_JOB_MAX {
        let message =
            format!("job {id} has {there_are} snapshots; the limit is {}: delete some", limits::SNAPSHOTS_PER_JOB_MAX);
        return Err(Rejection::new(ErrorCode::LimitExceeded, message));
    }
    Ok(())
}

fn requested(
    id: JobId,
    job: &Job,
    name: SnapshotName,
    purpose: Purpose,
    give_up_at: Timestamp,
    request_id: Option<CompactString>,
) -> SnapshotRequested {
    SnapshotRequested { job: id, name, number: next_number(job), purpose, version: job.version, give_up_at, request_id }
}

fn next_number(job: &Job) -> u64 {
    job.life.as_ref().map_or(0, |life| life.last_snapshot) + 1
}

/// A snapshot of Outlive's own begins. It has no limit but that the oldest of them is let go for it.
pub(super) fn begin_system(
    id: JobId,
    job: &Job,
    purpose: Purpose,
    give_up_at: Timestamp,
    now: Timestamp,
) -> (SnapshotName, Vec<Envelope>) {
    let name = SnapshotName::of_system(purpose.as_str(), next_number(job));
    let mut events = Vec::new();
    if let Some(life) = job.life.as_ref().filter(|l| l.count(Initiator::System) >= limits::SYSTEM_SNAPSHOTS_PER_JOB_MAX)
        && let Some(oldest) = life.snapshots.iter().find(|s| s.purpose.initiator() == Initiator::System && !s.is_open())
    {
        events.extend(fact(now, Event::SnapshotDeleted(SnapshotDeleted { job: id, name: oldest.name.clone() })));
    }
    let event = requested(id, job, name.clone(), purpose, give_up_at, None);
    events.extend(fact(now, Event::SnapshotRequested(event)));
    (name, events)
}

pub(super) fn completed(id: JobId, name: SnapshotName, content: Option<Checkpoint>, now: Timestamp) -> Vec<Envelope> {
    fact(now, Event::SnapshotCompleted(SnapshotCompleted { job: id, name, content }))
}

pub(super) fn failed(id: JobId, name: SnapshotName, reason: CompactString, now: Timestamp) -> Vec<Envelope> {
    fact(now, Event::SnapshotFailed(SnapshotFailed { job: id, name, reason }))
}

/// An executor says that the state as it was after it heard of the snapshots up to this number is what this manifest
/// holds.
pub(super) fn reported(id: JobId, job: &Job, up_to: u64, manifest: Option<BlobName>, now: Timestamp) -> Vec<Envelope> {
    let content = manifest.map(|manifest| job.checkpoint_of(manifest).copied());
    let served = job.ordered_snapshots().filter(|snapshot| snapshot.number <= up_to);
    let answer = |snapshot: &Snapshot| match content {
        None => completed(id, snapshot.name.clone(), None, now),
        Some(Some(content)) => completed(id, snapshot.name.clone(), Some(content), now),
        Some(None) => failed(id, snapshot.name.clone(), "the checkpoint that it was to be made of is gone".into(), now),
    };
    served.flat_map(answer).collect()
}

pub(super) fn reported_failed(id: JobId, job: &Job, up_to: u64, reason: &str, now: Timestamp) -> Vec<Envelope> {
    let asked = job.ordered_snapshots().filter(|snapshot| snapshot.number <= up_to);
    asked.flat_map(|snapshot| failed(id, snapshot.name.clone(), reason.into(), now)).collect()
}

pub(super) fn delete(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    name: &SnapshotName,
    created_at: Timestamp,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Origin { request_id, by } = origin;
    let (id, job) = state.resolve(namespace, job)?;
    if request_id.as_ref().is_some_and(|request_id| state.is_spent(namespace, request_id)) {
        return Ok(Vec::new());
    }
    let snapshot = find(id, job, name)?;
    if snapshot.created_at != created_at {
        let message = format!(
            "`created_at` is {created_at}, but snapshot `{name}` of job {id} was created at {}: it is another one now",
            snapshot.created_at
        );
        return Err(Rejection::new(ErrorCode::ConcurrentModification, message).into());
    }
    match snapshot.status {
        SnapshotStatus::Deleting => return Ok(Vec::new()),
        SnapshotStatus::Creating => {
            let message =
                format!("snapshot `{name}` of job {id} is being created: delete it once it is ready or failed");
            return Err(Rejection::new(ErrorCode::InUse, message).into());
        }
        SnapshotStatus::Ready | SnapshotStatus::Failed => {}
    }
    let event = SnapshotDeletionRequested { job: id, name: name.clone(), request_id };
    Ok(vec![Envelope { at: now, by, event: Event::SnapshotDeletionRequested(event) }])
}

pub fn find<'a>(id: JobId, job: &'a Job, name: &SnapshotName) -> Result<&'a Snapshot, Rejection> {
    let known = job.life.as_ref().and_then(|life| life.snapshot(name));
    known.ok_or_else(|| Rejection::not_found(format_args!("snapshot `{name}` of job {id}")))
}

/// Begins an import, or ends it once its blobs are stored.
pub(super) fn import(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    name: SnapshotName,
    content: Option<ImportedContent>,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let (id, job) = state.resolve(namespace, job)?;
    let by = origin.by.clone();
    let event = match content {
        None => {
            if is_done(state, namespace, &origin) || is_repeated(job, &name, &origin, Purpose::Import) {
                return Ok(Vec::new());
            }
            keeps_state(job)?;
            // What an attempt has put of a checkpoint that is not committed yet is nobody's for who imports; so there
            // must be none.
            if job.status != Status::Stopped {
                let message = format!(
                    "job {id} is {}: a snapshot can be imported for a job that is stopped; stop it",
                    job.status
                );
                return Err(Rejection::new(ErrorCode::InUse, message).into());
            }
            may_be_added(id, job, &name)?;
            Event::SnapshotRequested(requested(id, job, name, Purpose::Import, now + IMPORT_WITHIN, origin.request_id))
        }
        Some(ImportedContent { created_at, taken }) => {
            let snapshot = find(id, job, &name)?;
            if snapshot.created_at != created_at || snapshot.purpose != Purpose::Import {
                let message =
                    format!("snapshot `{name}` of job {id} is not the one whose import was begun at {created_at}");
                return Err(Rejection::new(ErrorCode::ConcurrentModification, message).into());
            }
            match snapshot.status {
                SnapshotStatus::Ready => return Ok(Vec::new()),
                SnapshotStatus::Creating => {}
                SnapshotStatus::Failed | SnapshotStatus::Deleting => {
                    let message =
                        format!("the import of snapshot `{name}` of job {id} is over: it is {}", snapshot.status);
                    return Err(Rejection::new(ErrorCode::InUse, message).into());
                }
            }
            let number = job.last_checkpoint.next();
            let content = taken.map(|taken| Checkpoint { number, attempt: IMPORTED, at: now, taken });
            Event::SnapshotCompleted(SnapshotCompleted { job: id, name, content })
        }
    };
    Ok(vec![Envelope { at: now, by, event }])
}

/// Whoever brings it in has gone, or cannot be heard. Should it come back, it is told that its import is over.
pub(super) fn give_up_import(
    state: &State,
    id: JobId,
    name: SnapshotName,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let known = state.jobs.get(&id).and_then(|job| job.life.as_ref()?.snapshot(&name));
    if !known.is_some_and(Snapshot::is_importing) {
        return Err(Refusal::Stale);
    }
    let silence = Millis(limits::IMPORT_SILENCE_MS_MAX);
    Ok(failed(id, name, format_compact!("nothing was heard of who imports it for {silence}"), now))
}

/// What is due about a job's snapshots, but for the one that belongs to a change: that ends with it.
pub(super) fn attend(id: JobId, job: &Job, now: Timestamp) -> Vec<Envelope> {
    let Some(life) = &job.life else { return Vec::new() };
    let of_change = life.change.as_ref().and_then(crate::life::Change::snapshot);
    let due = life.snapshots.iter().filter(|snapshot| snapshot.due_at <= now && Some(&snapshot.name) != of_change);
    due.flat_map(|snapshot| match snapshot.status {
        SnapshotStatus::Creating => {
            let length = now.since(snapshot.created_at);
            let reason = format_compact!("it was not ready after {length}");
            failed(id, snapshot.name.clone(), reason, now)
        }
        SnapshotStatus::Deleting => {
            fact(now, Event::SnapshotDeleted(SnapshotDeleted { job: id, name: snapshot.name.clone() }))
        }
        SnapshotStatus::Ready | SnapshotStatus::Failed => Vec::new(),
    })
    .collect()
}

/// Snapshots that are being created when their job ends: they have failed. Puts that before the end.
pub(super) fn settle(state: &State, events: Vec<Envelope>) -> Vec<Envelope> {
    let ends = |envelope: &Envelope| matches!(envelope.event, Event::JobFinished(_) | Event::JobStopped(_));
    if !events.iter().any(ends) {
        return events;
    }
    let mut settled = Vec::with_capacity(events.len());
    for envelope in events {
        if ends(&envelope)
            && let Some(id) = envelope.event.job()
            && let Some(life) = state.jobs.get(&id).and_then(|job| job.life.as_ref())
        {
            for snapshot in life.snapshots.iter().filter(|snapshot| snapshot.is_open()) {
                let is_told = settled.iter().any(|earlier: &Envelope| match &earlier.event {
                    Event::SnapshotCompleted(e) => e.name == snapshot.name,
                    Event::SnapshotFailed(e) => e.name == snapshot.name,
                    _ => false,
                });
                // A stopped job can still be started from what is being brought in.
                let is_waited_for =
                    snapshot.purpose == Purpose::Import && matches!(envelope.event, Event::JobStopped(_));
                if !is_told && !is_waited_for {
                    let reason = "the job ended before its state was read".into();
                    settled.extend(failed(id, snapshot.name.clone(), reason, envelope.at));
                }
            }
        }
        settled.push(envelope);
    }
    settled
}
