//! What events about stops, starts, updates and rollbacks change.

use super::snapshot::{change_life, life};
use super::{Applied, release, remember_request, same_attempt};
use crate::life::{Change, Version};
use crate::state::{Job, Recovering, State};
use outlive_schemas::event::Cause;
use outlive_schemas::id::{Attempt, Sequence};
use outlive_schemas::life::{
    BaseReplaced, JobStopped, RestoreMode, RollbackBegun, StartRequested, StopFailed, StopRequested, UpdateFailed,
    UpdateRequested, VersionProven, VersionRestored, VersionStarted, VersionStatus,
};
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;

fn current(job: &Job, attempt: Attempt) -> Applied {
    if job.attempt != attempt {
        Err("the attempt is not the current one")
    } else if job.status.is_final() {
        Err("the job is over already")
    } else {
        Ok(())
    }
}

pub(super) fn stop_requested(state: &mut State, seq: Sequence, e: &StopRequested) -> Applied {
    change_life(state, e.job, seq, |job| {
        current(job, e.attempt)?;
        job.status = Status::Stopping;
        job.stop = None;
        drop_change(job);
        let (force, snapshot, give_up_at) = (e.force, e.snapshot.clone(), e.give_up_at);
        life(job).change = Some(Change::Stop { force, snapshot, give_up_at });
        Ok(())
    })?;
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

pub(super) fn stop_failed(job: &mut Job, e: &StopFailed) -> Applied {
    same_attempt(job, e.attempt)?;
    if !matches!(life(job).change.take(), Some(Change::Stop { .. })) {
        return Err("the job is not being stopped");
    }
    job.status = Status::Running;
    job.reason = Some(compact_str::format_compact!("it could not be stopped with a snapshot: {}", e.reason));
    Ok(())
}

pub(super) fn job_stopped(state: &mut State, seq: Sequence, e: &JobStopped) -> Applied {
    let job = state.jobs.get_mut(&e.job).ok_or("there is no such job")?;
    current(job, e.attempt)?;
    release(&mut state.executors, &mut state.index, e.job, job);
    change_life(state, e.job, seq, |job| {
        job.status = Status::Stopped;
        job.reason = e.reason.clone();
        job.exit_code = e.exit_code;
        job.recovering = None;
        job.stop = None;
        drop_change(job);
        Ok(())
    })
}

pub(super) fn start_requested(state: &mut State, seq: Sequence, at: Timestamp, e: &StartRequested) -> Applied {
    change_life(state, e.job, seq, |job| {
        if job.status != Status::Stopped {
            return Err("the job is not stopped");
        }
        job.status = Status::Starting;
        job.reason = None;
        job.exit_code = None;
        job.failures = 0;
        job.ready_at = at;
        job.begin_anew(at);
        let floor = job.last_checkpoint;
        let life = life(job);
        life.base = Some(e.base.clone());
        life.restore = e.restore;
        life.floor = floor;
        life.change = None;
        Ok(())
    })?;
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

pub(super) fn base_replaced(job: &mut Job, e: &BaseReplaced) -> Applied {
    life(job).base = Some(e.base.clone());
    Ok(())
}

pub(super) fn update_requested(state: &mut State, seq: Sequence, e: &UpdateRequested) -> Applied {
    change_life(state, e.job, seq, |job| {
        current(job, e.attempt)?;
        if e.from != job.version || e.to <= life(job).last_version {
            return Err("the version does not follow");
        }
        if !matches!(job.status, Status::Pending | Status::Stopped) {
            job.status = Status::Updating;
        }
        life(job).change = Some(Change::Update {
            to: e.to,
            spec: e.spec.clone(),
            allow_lost_state: e.allow_lost_state,
            snapshot: e.snapshot.clone(),
            give_up_at: e.give_up_at,
        });
        Ok(())
    })?;
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

pub(super) fn update_failed(state: &mut State, seq: Sequence, e: &UpdateFailed) -> Applied {
    change_life(state, e.job, seq, |job| {
        same_attempt(job, e.attempt)?;
        if !matches!(life(job).change.take(), Some(Change::Update { .. })) {
            return Err("the job is not being updated");
        }
        job.status = Status::Running;
        job.reason = Some(compact_str::format_compact!("the update to version {} failed: {}", e.version, e.reason));
        Ok(())
    })
}

pub(super) fn version_started(state: &mut State, seq: Sequence, at: Timestamp, e: &VersionStarted) -> Applied {
    let job = state.jobs.get_mut(&e.job).ok_or("there is no such job")?;
    current(job, e.attempt)?;
    release(&mut state.executors, &mut state.index, e.job, job);
    change_life(state, e.job, seq, |job| {
        let (from, floor) = (job.version, job.last_checkpoint);
        let life = life(job);
        let Some(Change::Update { to, spec, .. }) = life.change.take() else {
            return Err("the job is not being updated");
        };
        if to != e.version {
            return Err("it is updated to another version");
        }
        if let Some(before) = life.version_mut(from) {
            before.status = VersionStatus::Superseded;
        }
        let (version, reason) = (to, None);
        let spec_of = spec.clone();
        life.versions.push(Version { version, at, spec, status: VersionStatus::Active, reason, ran: false });
        if life.versions.len() > limits::VERSIONS_PER_JOB_MAX {
            life.versions.remove(0);
        }
        life.last_version = to;
        if let Some(by) = e.prove_by {
            life.base = Some(e.base.clone());
            life.restore = RestoreMode::Latest;
            life.floor = floor;
            life.change = Some(Change::Prove { from, base: e.base.clone(), by });
        }
        job.version = to;
        job.spec = spec_of;
        if e.prove_by.is_some() {
            go_on(job, at, e.ended_at);
        } else if job.status == Status::Pending && job.attempt.0 == 0 {
            job.ready_at = job.first_due_at();
        }
        Ok(())
    })
}

/// From here on it waits for the first attempt of another version.
fn go_on(job: &mut Job, at: Timestamp, ended_at: Option<Timestamp>) {
    job.reason = None;
    job.exit_code = None;
    job.failures = 0;
    job.ready_at = at;
    job.stop = None;
    if let Some(lost_at) = ended_at {
        let from_zone = job.last_host.as_ref().map(|(_, zone)| zone.clone());
        job.recovering = Some(Box::new(Recovering { cause: Cause::Update, from_zone, lost_at }));
    }
}

pub(super) fn version_proven(job: &mut Job, e: &VersionProven) -> Applied {
    same_attempt(job, e.attempt)?;
    if !matches!(life(job).change.take(), Some(Change::Prove { .. })) || job.version != e.version {
        return Err("the version has nothing to prove");
    }
    job.status = Status::Running;
    Ok(())
}

pub(super) fn rollback_begun(state: &mut State, seq: Sequence, e: &RollbackBegun) -> Applied {
    change_life(state, e.job, seq, |job| {
        current(job, e.attempt)?;
        if job.version != e.from {
            return Err("another version is the current one");
        }
        job.status = Status::RollingBack;
        job.reason = Some(e.reason.clone());
        let life = life(job);
        let left = life.version_mut(e.from).ok_or("the version that is left is not known")?;
        left.status = VersionStatus::RolledBack;
        left.reason = Some(e.reason.clone());
        life.change = Some(Change::RollBack {
            to: e.to,
            base: e.base.clone(),
            snapshot: e.snapshot.clone(),
            give_up_at: e.give_up_at,
        });
        Ok(())
    })?;
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

pub(super) fn version_restored(state: &mut State, seq: Sequence, at: Timestamp, e: &VersionRestored) -> Applied {
    let job = state.jobs.get_mut(&e.job).ok_or("there is no such job")?;
    current(job, e.attempt)?;
    release(&mut state.executors, &mut state.index, e.job, job);
    change_life(state, e.job, seq, |job| {
        let floor = job.last_checkpoint;
        let life = life(job);
        let Some(Change::RollBack { to, base, .. }) = life.change.take() else {
            return Err("the job is not being rolled back");
        };
        if to != e.version {
            return Err("it is rolled back to another version");
        }
        let restored = life.version_mut(to).ok_or("the version that is gone back to is not known")?;
        restored.status = VersionStatus::Active;
        let spec = restored.spec.clone();
        // What the version that is left has made of the state is given up with it.
        let kept = base.content.map(|content| content.number);
        life.base = Some(base);
        life.restore = RestoreMode::Latest;
        life.floor = floor;
        job.checkpoints.retain(|checkpoint| kept.is_some_and(|kept| checkpoint.number <= kept));
        job.version = to;
        job.spec = spec;
        let reason = job.reason.take();
        go_on(job, at, e.ended_at);
        job.reason = reason;
        Ok(())
    })
}

/// Whatever is done to the job is not gone on with. A version that was about to be left is kept then.
pub(super) fn drop_change(job: &mut Job) {
    let version = job.version;
    let Some(life) = &mut job.life else { return };
    if matches!(life.change.take(), Some(Change::RollBack { .. }))
        && let Some(kept) = life.version_mut(version)
    {
        kept.status = VersionStatus::Active;
    }
}

/// A process of the current version is up.
pub(super) fn noted_running(job: &mut Job) {
    let version = job.version;
    if let Some(version) = job.life.as_mut().and_then(|life| life.version_mut(version)) {
        version.ran = true;
    }
}
