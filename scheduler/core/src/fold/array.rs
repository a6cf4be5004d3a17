//! What events about arrays change: tasks become jobs of their own, and are counted when they are over.

use super::snapshot::change_life;
use super::{Applied, remember_request, when};
use crate::array::{Array, Failure, REASONS_MAX, TaskOf};
use crate::state::{Job, State};
use outlive_schemas::array::{
    ArrayAdvanced, ArrayCancelRequested, ArrayTasksCancelled, ArrayTasksRetried, Indexes, task_id,
};
use outlive_schemas::id::{Attempt, CheckpointNumber, JobId, Sequence};
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;

pub(super) fn advanced(state: &mut State, seq: Sequence, at: Timestamp, e: &ArrayAdvanced) -> Applied {
    let mut over = Vec::new();
    for index in e.ended.iter() {
        let id = task_id(e.job, index);
        let task = state.jobs.get(&id).filter(|task| task.task.is_some() && task.status.is_final());
        task.ok_or("a task has not ended")?;
        let task = state.jobs.remove(&id).ok_or("there is no such task")?;
        state.index.leave(id, &task);
        over.push((index, task));
    }
    let mut released = Vec::new();
    counted(state, seq, e.job, |job| {
        let template = TaskTemplate::of(e.job, job);
        let array = job.array.as_mut().ok_or("the job is no array")?;
        for (index, task) in over {
            if !array.open.remove(index) {
                return Err("a task that ended was not on its way");
            }
            array.untold.remove(index);
            if task.leaves_remains() {
                array.left.insert(index);
            }
            match task.status {
                Status::Succeeded => array.succeeded.insert(index),
                Status::Failed => array.failed.insert(index),
                _ => array.cancelled.insert(index),
            }
            if task.status != Status::Succeeded && task.attempt > Attempt(0) {
                let reason = task.reason.clone().filter(|_| array.failures.len() < REASONS_MAX);
                let (attempt, exit_code) = (task.attempt, task.exit_code);
                let at = task.finished_at.unwrap_or(at);
                array.failures.insert(index, Failure { attempt, exit_code, reason, at });
            }
        }
        for index in e.released.iter() {
            if !array.pending.remove(index) {
                return Err("a task that is let go does not wait");
            }
            array.open.insert(index);
            let attempt = array.failures.remove(&index).map_or(Attempt(0), |failure| failure.attempt);
            released.push((task_id(e.job, index), template.task(index, attempt, seq, at)));
        }
        for index in e.told.iter() {
            array.untold.remove(index);
        }
        if !e.released.is_empty() && job.status == Status::Pending {
            job.status = Status::Running;
            job.started_at.get_or_insert(at);
        }
        Ok(())
    })?;
    for (id, task) in released {
        state.index.enter(id, &task);
        if state.jobs.insert(id, task).is_some() {
            return Err("a task's id is another job's");
        }
    }
    Ok(())
}

/// As [`change_life`], for what a history keeps apart: tasks come and go by the thousand.
fn counted(state: &mut State, seq: Sequence, id: JobId, with: impl FnOnce(&mut Job) -> Applied) -> Applied {
    let job = state.jobs.get_mut(&id).ok_or("there is no such job")?;
    let before = job.held_bytes();
    state.index.leave_status(id, job);
    let applied = with(job);
    super::note(&mut job.checkpoint_commits, seq, limits::HISTORY_CHECKPOINTS_PER_JOB_MAX);
    state.index.enter_status(id, job);
    state.index.held_bytes = state.index.held_bytes - before + job.held_bytes();
    applied
}

pub(super) fn cancel_requested(state: &mut State, seq: Sequence, at: Timestamp, e: &ArrayCancelRequested) -> Applied {
    change_life(state, e.job, seq, |job| {
        if job.status.is_final() {
            return Err("the array is over");
        }
        let array = job.array.as_mut().ok_or("the job is no array")?;
        let waiting = array.pending.clone();
        cancel_waiting(array, &waiting, at);
        array.untold = array.open.clone();
        array.stop = Some(e.how);
        job.status = Status::Stopping;
        Ok(())
    })?;
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

/// Of those on their way nothing changes here: each has an event of its own.
pub(super) fn tasks_cancelled(state: &mut State, seq: Sequence, at: Timestamp, e: &ArrayTasksCancelled) -> Applied {
    change_life(state, e.job, seq, |job| {
        if job.status.is_final() {
            return Err("the array is over");
        }
        let array = job.array.as_mut().ok_or("the job is no array")?;
        let (waiting, others) = e.tasks.partition(&array.pending);
        if !others.are_all_in(&array.open) {
            return Err("a task that is cancelled neither waits nor is on its way");
        }
        cancel_waiting(array, &waiting, at);
        Ok(())
    })?;
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

/// They will not begin, or not once more.
fn cancel_waiting(array: &mut Array, tasks: &Indexes, at: Timestamp) {
    let (_, left) = array.pending.partition(tasks);
    array.pending = left;
    array.cancelled.extend(tasks);
    // How they failed before they waited again is not how they ended.
    for (_, failure) in array.failures.iter_mut().filter(|(index, _)| tasks.contains(**index)) {
        let reason = failure.reason.take().map(|_| "cancelled before it was tried again".into());
        *failure = Failure { attempt: failure.attempt, exit_code: None, reason, at };
    }
}

pub(super) fn tasks_retried(state: &mut State, seq: Sequence, at: Timestamp, e: &ArrayTasksRetried) -> Applied {
    let is_over = state.jobs.get(&e.job).ok_or("there is no such job")?.status.is_final();
    if is_over {
        when::begin_anew(state, seq, at, e.job, &e.tasks)?;
    } else {
        change_life(state, e.job, seq, |job| {
            let array = job.array.as_mut().ok_or("the job is no array")?;
            if array.stop.is_some() {
                return Err("the array is being cancelled");
            }
            wait_again(array, &e.tasks)
        })?;
    }
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

/// An array that was over has these tasks before it, and no others.
pub(super) fn begin_anew(array: &mut Array, tasks: &Indexes) -> Applied {
    array.stop = None;
    let never_begun = std::mem::take(&mut array.pending);
    array.cancelled.extend(&never_begun);
    wait_again(array, tasks)
}

/// What of an array can be tried again once it is over.
pub(super) fn unsuccessful(array: &Array) -> Indexes {
    let mut tasks = array.failed.clone();
    tasks.extend(&array.cancelled);
    tasks.extend(&array.pending);
    tasks
}

/// Tasks that failed or were cancelled wait again, and count their attempts on.
fn wait_again(array: &mut Array, tasks: &Indexes) -> Applied {
    let (again, failed) = array.failed.partition(tasks);
    let (again_too, cancelled) = array.cancelled.partition(tasks);
    if again.len() + again_too.len() != tasks.len() {
        return Err("a task that is tried again has neither failed nor been cancelled");
    }
    (array.failed, array.cancelled) = (failed, cancelled);
    array.pending.extend(tasks);
    Ok(())
}

/// What an array's tasks have in common.
struct TaskTemplate(Job, JobId);

impl TaskTemplate {
    fn of(id: JobId, array: &Job) -> TaskTemplate {
        let task = Job {
            namespace: array.namespace.clone(),
            spec: array.spec.clone(),
            version: array.version,
            status: Status::Pending,
            reason: None,
            attempt: Attempt(0),
            placement: None,
            last_host: None,
            restarts: 0,
            failures: 0,
            checkpoints: Vec::new(),
            last_checkpoint: CheckpointNumber(0),
            recovering: None,
            last_recovery: None,
            ready_at: array.ready_at,
            timing: None,
            submitted_at: array.submitted_at,
            started_at: None,
            attempt_started_at: None,
            finished_at: None,
            exit_code: None,
            result: None,
            stop: None,
            request_id: None,
            commits: Vec::new(),
            checkpoint_commits: Vec::new(),
            life: None,
            // What the array has waited for is there for each of its tasks.
            depends: array.depends.clone(),
            array: None,
            task: None,
        };
        TaskTemplate(task, id)
    }

    fn task(&self, index: u32, attempt: Attempt, seq: Sequence, at: Timestamp) -> Box<Job> {
        let task = Some(TaskOf { array: self.1, index });
        // It waits for its array's `start`, and its deadlines count from when it could begin.
        let ready_at = self.0.ready_at.max(at);
        let mut job = Job { task, attempt, ready_at, commits: vec![seq], ..self.0.clone() };
        job.begin_anew(ready_at);
        Box::new(job)
    }
}
