//! Deadlines that are over, and jobs that are tried again.

use super::{Applied, life, note_commit, remember_request, same_attempt};
use crate::state::{Job, STOP_CONFIRMATION, State, StopOrder};
use crate::when::Passed;
use outlive_schemas::array::Indexes;
use outlive_schemas::command::Stop;
use outlive_schemas::id::{JobId, Sequence};
use outlive_schemas::request::GRACE_DEFAULT;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;
use outlive_schemas::when::{DeadlinePassed, JobRetried};

pub(super) fn deadline_passed(job: &mut Job, at: Timestamp, e: &DeadlinePassed) -> Applied {
    same_attempt(job, e.attempt)?;
    if job.stop.is_some() {
        return Err("the job is being stopped already");
    }
    job.status = Status::Stopping;
    life::drop_change(job);
    job.stop = Some(Box::new(StopOrder {
        how: Stop::Graceful { grace: GRACE_DEFAULT },
        give_up_at: at + GRACE_DEFAULT + STOP_CONFIRMATION,
        passed: Some(Passed { deadline: e.deadline, due_at: e.due_at }),
    }));
    Ok(())
}

pub(super) fn job_retried(state: &mut State, seq: Sequence, at: Timestamp, e: &JobRetried) -> Applied {
    let job = state.jobs.get(&e.job).ok_or("there is no such job")?;
    if job.attempt != e.attempt {
        return Err("the job did not end with this attempt");
    }
    let tasks = job.array.as_deref().map(super::array::unsuccessful).unwrap_or_default();
    begin_anew(state, seq, at, e.job, &tasks)?;
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

/// A job that failed or was cancelled waits again, with its past and its state: of an array, these tasks do.
pub(super) fn begin_anew(state: &mut State, seq: Sequence, at: Timestamp, id: JobId, tasks: &Indexes) -> Applied {
    let depends = super::depend::renewed(state, id);
    let State { jobs, index, .. } = state;
    let job = jobs.get_mut(&id).ok_or("there is no such job")?;
    if !matches!(job.status, Status::Failed | Status::Cancelled) {
        return Err("the job is not one that failed or was cancelled");
    }
    let before = job.held_bytes();
    index.leave_name(id, job);
    index.leave_status(id, job);
    if let Some(array) = &mut job.array {
        super::array::begin_anew(array, tasks)?;
    }
    job.depends = depends;
    job.status = Status::Pending;
    job.reason = None;
    job.exit_code = None;
    job.failures = 0;
    job.ready_at = at;
    job.started_at = None;
    job.finished_at = None;
    job.result = None;
    job.begin_anew(at);
    note_commit(job, seq);
    index.enter_status(id, job);
    index.enter_name(id, job);
    index.held_bytes = (index.held_bytes - before) + job.held_bytes();
    Ok(())
}
