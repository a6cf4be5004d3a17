//! What events about snapshots change.

use super::{Applied, change, remember_request};
use crate::life::{DELETING_SHOWN, Life, Snapshot};
use crate::state::{Job, State};
use outlive_schemas::id::Sequence;
use outlive_schemas::snapshot::{
    SnapshotCompleted, SnapshotDeleted, SnapshotDeletionRequested, SnapshotFailed, SnapshotRequested, SnapshotStatus,
};
use outlive_schemas::time::Timestamp;

/// As [`change`], where the size of what the job holds may change as well.
pub(super) fn change_life(
    state: &mut State,
    id: outlive_schemas::id::JobId,
    seq: Sequence,
    with: impl FnOnce(&mut Job) -> Applied,
) -> Applied {
    let before = state.jobs.get(&id).map_or(0, |job| job.held_bytes());
    let applied = change(state, id, seq, with);
    let after = state.jobs.get(&id).map_or(0, |job| job.held_bytes());
    state.index.held_bytes = (state.index.held_bytes - before) + after;
    applied
}

/// What the job has of this, from now on.
pub(super) fn life(job: &mut Job) -> &mut Life {
    if job.life.is_none() {
        job.life = Some(Box::new(Life::of(job)));
    }
    job.life.as_mut().expect("it was just made")
}

fn known<'a>(job: &'a mut Job, name: &outlive_schemas::id::SnapshotName) -> Result<&'a mut Snapshot, &'static str> {
    let life = job.life.as_mut().ok_or("the job has no snapshots")?;
    life.snapshot_mut(name).ok_or("there is no such snapshot")
}

pub(super) fn requested(state: &mut State, seq: Sequence, at: Timestamp, e: &SnapshotRequested) -> Applied {
    change_life(state, e.job, seq, |job| {
        let life = life(job);
        life.snapshots.retain(|older| older.name != e.name || older.status != SnapshotStatus::Deleting);
        if life.snapshot(&e.name).is_some() || e.number <= life.last_snapshot {
            return Err("the snapshot is there already");
        }
        life.last_snapshot = e.number;
        life.snapshots.push(Snapshot {
            name: e.name.clone(),
            number: e.number,
            status: SnapshotStatus::Creating,
            purpose: e.purpose,
            version: e.version,
            created_at: at,
            ready_at: None,
            content: None,
            error: None,
            due_at: e.give_up_at,
            request_id: e.request_id.clone(),
        });
        Ok(())
    })?;
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

pub(super) fn completed(job: &mut Job, at: Timestamp, e: &SnapshotCompleted) -> Applied {
    let snapshot = known(job, &e.name)?;
    if !snapshot.is_open() {
        return Err("the snapshot is not being created");
    }
    snapshot.status = SnapshotStatus::Ready;
    snapshot.ready_at = Some(at);
    snapshot.content = e.content;
    // One that was imported has taken a number that no checkpoint had.
    if let Some(content) = e.content {
        job.last_checkpoint = job.last_checkpoint.max(content.number);
    }
    Ok(())
}

pub(super) fn failed(job: &mut Job, e: &SnapshotFailed) -> Applied {
    let snapshot = known(job, &e.name)?;
    if !snapshot.is_open() {
        return Err("the snapshot is not being created");
    }
    snapshot.status = SnapshotStatus::Failed;
    snapshot.error = Some(e.reason.clone());
    Ok(())
}

pub(super) fn deletion_requested(job: &mut Job, at: Timestamp, e: &SnapshotDeletionRequested) -> Applied {
    let snapshot = known(job, &e.name)?;
    snapshot.status = SnapshotStatus::Deleting;
    snapshot.due_at = at + DELETING_SHOWN;
    Ok(())
}

pub(super) fn deleted(state: &mut State, seq: Sequence, e: &SnapshotDeleted) -> Applied {
    change_life(state, e.job, seq, |job| {
        known(job, &e.name)?;
        let life = life(job);
        if let Some(place) = life.snapshots.iter().rposition(|snapshot| snapshot.name == e.name) {
            life.snapshots.remove(place);
        }
        Ok(())
    })
}
