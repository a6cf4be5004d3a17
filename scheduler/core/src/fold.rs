//! The one place where an event changes the state.
//!
//! Folding cannot refuse: what is in the log has happened. An event that does not fit the state means that the log
//! or this program is broken; the caller stops, and names the sequence.

mod array;
mod depend;
mod life;
mod queue;
mod snapshot;
mod when;
mod schedule;

use crate::array::Array;
use crate::life::Change;
use crate::queue::Turn;
use crate::state::{
    Drain, EXCLUSIVE_WAIT, Executor, Index, Job, Loss, Placed, Recovering, Recovery, STOP_CONFIRMATION, State,
    StopOrder,
};
use compact_str::CompactString;
use outlive_schemas::array::task_id;
use outlive_schemas::checkpoint::Checkpoint;
use outlive_schemas::command::Stop;
use outlive_schemas::event::{self, Cause, Envelope, Event};
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{Attempt, CheckpointNumber, ExecutorId, JobId, JobVersion, Namespace, Sequence};
use outlive_schemas::limits;
use outlive_schemas::subject::operators;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The event at this position contradicts what came before it.
#[derive(Debug, thiserror::Error)]
#[error("the event `{event}` in commit {seq} does not fit the state: {what}; run `outlive log verify`")]
pub struct FoldError {
    pub seq: Sequence,
    pub event: &'static str,
    pub what: &'static str,
}

/// What was lost longer ago was not lost with the zone. An executor is silent for some seconds before it counts as
/// lost, and a zone is seen to be lost some seconds after that.
const LOST_WITH_ZONE_MAX: Millis = Millis::secs(15);
/// Lost executors that are kept for people to see.
const LOST_EXECUTORS_SHOWN: usize = 1_000;

/// Applies one event of commit `seq`.
pub fn fold(state: &mut State, seq: Sequence, envelope: &Envelope) -> Result<(), FoldError> {
    let at = envelope.at;
    state.newest_event_at = state.newest_event_at.max(at);
    let applied = match &envelope.event {
        Event::TermStarted(e) => term_started(state, at, e),
        Event::ExecutorJoined(e) => executor_joined(state, at, e),
        Event::ExecutorLost(e) => executor_lost(state, at, e),
        Event::ExecutorDraining(e) => {
            state.drained_executors.insert(e.name.clone(), Drain { since: at, deadline: e.deadline });
            remember(state, &operators(), e.request_id.as_ref());
            Ok(())
        }
        Event::ExecutorUndrained(e) => {
            state.drained_executors.remove(&e.name);
            remember(state, &operators(), e.request_id.as_ref());
            Ok(())
        }
        Event::ZoneDraining(e) => {
            state.drained_zones.insert(e.zone.clone(), Drain { since: at, deadline: e.deadline });
            remember(state, &operators(), e.request_id.as_ref());
            Ok(())
        }
        Event::ZoneUndrained(e) => {
            state.drained_zones.remove(&e.zone);
            remember(state, &operators(), e.request_id.as_ref());
            Ok(())
        }
        Event::ZoneLost(e) => {
            zone_lost(state, at, e);
            Ok(())
        }
        Event::ZoneSteady(e) => {
            state.lost_zones.remove(&e.zone);
            Ok(())
        }
        Event::ScheduleSet(e) => {
            schedule::set(state, at, e);
            Ok(())
        }
        Event::SchedulePaused(e) => schedule::paused(state, at, e),
        Event::ScheduleDeleted(e) => schedule::deleted(state, e),
        Event::ScheduleTicked(e) => schedule::ticked(state, seq, at, e),
        Event::JobSubmitted(e) => job_submitted(state, seq, at, e),
        Event::JobDeleted(e) => job_deleted(state, e),
        Event::JobErased(e) => {
            // An image of an earlier version knows nothing of what was to be erased.
            state.to_erase.remove(&e.job);
            Ok(())
        }
        // What it means is that the commits it names are not there, which needs no folding.
        Event::LossAccepted(_) => Ok(()),
        Event::CollectionHeld(e) => {
            state.collection_held_until = e.until;
            Ok(())
        }
        Event::ArrayAdvanced(e) => array::advanced(state, seq, at, e),
        Event::ArrayCancelRequested(e) => array::cancel_requested(state, seq, at, e),
        Event::ArrayTasksCancelled(e) => array::tasks_cancelled(state, seq, at, e),
        Event::ArrayTasksRetried(e) => array::tasks_retried(state, seq, at, e),
        Event::JobDepends(e) => depend::declared(state, seq, e),
        Event::DependenciesMet(e) => depend::met(state, seq, at, e),
        Event::JobPlaced(e) => job_placed(state, seq, at, e),
        Event::AttemptStarted(e) => change(state, e.job, seq, |job| attempt_started(job, e)),
        Event::JobRestarting(e) => job_restarting(state, seq, e),
        Event::CancelRequested(e) => {
            let applied = snapshot::change_life(state, e.job, seq, |job| cancel_requested(job, at, e));
            remember_request(state, e.job, e.request_id.as_ref());
            applied
        }
        Event::JobFinished(e) => job_finished(state, seq, at, e),
        Event::DeadlinePassed(e) => snapshot::change_life(state, e.job, seq, |job| when::deadline_passed(job, at, e)),
        Event::JobRetried(e) => when::job_retried(state, seq, at, e),
        Event::CheckpointCompleted(e) => checkpoint(state, e.job, seq, |job| checkpoint_completed(job, at, e)),
        Event::CheckpointFailed(e) => checkpoint(state, e.job, seq, |job| same_attempt(job, e.attempt)),
        Event::CheckpointUnreadable(e) => change(state, e.job, seq, |job| checkpoint_unreadable(job, e)),
        Event::SnapshotRequested(e) => snapshot::requested(state, seq, at, e),
        Event::SnapshotCompleted(e) => change(state, e.job, seq, |job| snapshot::completed(job, at, e)),
        Event::SnapshotFailed(e) => change(state, e.job, seq, |job| snapshot::failed(job, e)),
        Event::SnapshotDeletionRequested(e) => {
            let applied = change(state, e.job, seq, |job| snapshot::deletion_requested(job, at, e));
            remember_request(state, e.job, e.request_id.as_ref());
            applied
        }
        Event::SnapshotDeleted(e) => snapshot::deleted(state, seq, e),
        Event::StopRequested(e) => life::stop_requested(state, seq, e),
        Event::StopFailed(e) => change(state, e.job, seq, |job| life::stop_failed(job, e)),
        Event::JobStopped(e) => life::job_stopped(state, seq, e),
        Event::StartRequested(e) => life::start_requested(state, seq, at, e),
        Event::BaseReplaced(e) => change(state, e.job, seq, |job| life::base_replaced(job, e)),
        Event::UpdateRequested(e) => life::update_requested(state, seq, e),
        Event::UpdateFailed(e) => life::update_failed(state, seq, e),
        Event::VersionStarted(e) => life::version_started(state, seq, at, e),
        Event::VersionProven(e) => change(state, e.job, seq, |job| life::version_proven(job, e)),
        Event::RollbackBegun(e) => life::rollback_begun(state, seq, e),
        Event::VersionRestored(e) => life::version_restored(state, seq, at, e),
        Event::QueuePut(e) => queue::put(state, e),
        Event::QueueDeleted(e) => queue::deleted(state, e),
        Event::JobPreempted(e) => queue::preempted(state, seq, at, e),
    };
    applied.map_err(|what| FoldError { seq, event: envelope.event.type_name(), what })
}

type Applied = Result<(), &'static str>;

/// Changes one job and keeps the indexes in step.
fn change(state: &mut State, id: JobId, seq: Sequence, with: impl FnOnce(&mut Job) -> Applied) -> Applied {
    let job = state.jobs.get_mut(&id).ok_or("there is no such job")?;
    state.index.leave_status(id, job);
    let applied = with(job);
    note_commit(job, seq);
    state.index.enter_status(id, job);
    applied
}

/// As [`change`], for what a job's history keeps apart: checkpoints come by the thousand, and change no status.
fn checkpoint(state: &mut State, id: JobId, seq: Sequence, with: impl FnOnce(&mut Job) -> Applied) -> Applied {
    let job = state.jobs.get_mut(&id).ok_or("there is no such job")?;
    let applied = with(job);
    note(&mut job.checkpoint_commits, seq, limits::HISTORY_CHECKPOINTS_PER_JOB_MAX);
    applied
}

fn note_commit(job: &mut Job, seq: Sequence) {
    note(&mut job.commits, seq, limits::HISTORY_COMMITS_PER_JOB_MAX);
}

fn note(commits: &mut Vec<Sequence>, seq: Sequence, max: usize) {
    if commits.last() == Some(&seq) {
        return;
    }
    if commits.len() >= max {
        // Halved rather than shifted by one each time, so that a long life costs nothing per event.
        commits.drain(..max / 2);
    }
    commits.push(seq);
}

fn same_attempt(job: &Job, attempt: Attempt) -> Applied {
    if job.attempt == attempt && job.placement.is_some() { Ok(()) } else { Err("the attempt is not the current one") }
}

fn term_started(state: &mut State, at: Timestamp, e: &event::TermStarted) -> Applied {
    if state.term.as_ref().is_some_and(|(newest, _)| newest.term > e.term) {
        return Err("its term is below one that was there before");
    }
    if state.term.as_ref().is_some_and(|(newest, _)| newest.term.generation() < e.term.generation()) {
        state.exclusive_held_until = at + EXCLUSIVE_WAIT;
    }
    state.term = Some((e.clone(), at));
    Ok(())
}

fn executor_joined(state: &mut State, at: Timestamp, registration: &Registration) -> Applied {
    // A lost namesake has been shown for long enough once it is back.
    state.executors.retain(|_, e| e.is_alive() || !e.attempts.is_empty() || e.registration.name != registration.name);
    let fresh = Executor {
        registration: registration.clone(),
        joined_at: at,
        lost: None,
        allocated: Default::default(),
        digest: Default::default(),
        attempts: Default::default(),
    };
    match state.executors.insert(registration.id, fresh) {
        None => Ok(()),
        Some(_) => Err("the executor is there already"),
    }
}

fn executor_lost(state: &mut State, at: Timestamp, e: &event::ExecutorLost) -> Applied {
    let executor = state.executors.get_mut(&e.executor).ok_or("there is no such executor")?;
    executor.lost = Some(Loss { reason: e.reason, last_seen: e.last_seen, at });
    if !executor.attempts.is_empty() {
        state.index.to_evict.insert(e.executor);
    }
    let shown = state.executors.values().filter(|e| !e.is_alive()).count();
    if shown > LOST_EXECUTORS_SHOWN {
        let oldest = state.executors.iter().find(|(_, e)| !e.is_alive() && e.attempts.is_empty()).map(|(id, _)| *id);
        oldest.map(|id| state.executors.remove(&id));
    }
    Ok(())
}

/// Jobs that were taken off the zone's executors one by one and are not up again were lost with the zone.
fn zone_lost(state: &mut State, at: Timestamp, e: &event::ZoneLost) {
    state.lost_zones.insert(e.zone.clone(), at);
    let queues = state.index.queue.queues().flat_map(|(_, lines)| lines.shapes(Turn::Recovering));
    let waiting = queues.flat_map(|(_, rungs)| rungs.values().flatten());
    let mut ids: Vec<JobId> = waiting.map(|(_, id)| *id).collect();
    ids.extend(state.executors.values().flat_map(|executor| executor.attempts.iter().copied()));
    for id in ids {
        let recovering = state.jobs.get_mut(&id).and_then(|job| job.recovering.as_mut());
        if let Some(recovering) = recovering.filter(|recovering| {
            recovering.cause == Cause::ExecutorLost
                && recovering.from_zone.as_ref() == Some(&e.zone)
                && at.since(recovering.lost_at) <= LOST_WITH_ZONE_MAX
        }) {
            recovering.cause = Cause::ZoneLost;
        }
    }
}

fn job_submitted(state: &mut State, seq: Sequence, at: Timestamp, e: &event::JobSubmitted) -> Applied {
    let mut job = Job {
        namespace: e.namespace.clone(),
        spec: state.shared(&e.spec),
        version: JobVersion(1),
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
        ready_at: at,
        submitted_at: at,
        started_at: None,
        attempt_started_at: None,
        finished_at: None,
        exit_code: None,
        result: None,
        stop: None,
        request_id: e.request_id.clone(),
        commits: vec![seq],
        checkpoint_commits: Vec::new(),
        life: None,
        timing: None,
        depends: None,
        array: Array::of(&e.spec),
        task: None,
    };
    job.ready_at = job.first_due_at();
    match state.jobs.entry(e.job) {
        Entry::Occupied(_) => return Err("the job is there already"),
        Entry::Vacant(place) => state.index.enter(e.job, place.insert(Box::new(job))),
    }
    Ok(())
}

fn job_deleted(state: &mut State, e: &event::JobDeleted) -> Applied {
    let job = state.jobs.remove(&e.job).ok_or("there is no such job")?;
    state.index.leave(e.job, &job);
    if job.leaves_remains() {
        state.to_erase.insert(e.job, job.namespace.clone());
    }
    for index in job.array.iter().flat_map(|array| array.left.iter()) {
        state.to_erase.insert(task_id(e.job, index), job.namespace.clone());
    }
    depend::ended(state, e.job);
    remember(state, &job.namespace, e.request_id.as_ref());
    Ok(())
}

/// Remembers a request that leaves nothing behind by which to know it again.
fn remember(state: &mut State, namespace: &Namespace, request_id: Option<&CompactString>) {
    let Some(request_id) = request_id else { return };
    let spent = (namespace.clone(), request_id.clone());
    if !state.index.spent.insert(spent.clone()) {
        return;
    }
    state.spent_requests.push_back(spent);
    while state.spent_requests.len() > limits::REQUESTS_REMEMBERED_MAX {
        if let Some(oldest) = state.spent_requests.pop_front() {
            state.index.spent.remove(&oldest);
        }
    }
}

fn remember_request(state: &mut State, job: JobId, request_id: Option<&CompactString>) {
    let namespace = state.jobs.get(&job).map(|job| job.namespace.clone());
    if let Some(namespace) = namespace {
        remember(state, &namespace, request_id);
    }
}

fn job_placed(state: &mut State, seq: Sequence, at: Timestamp, e: &event::JobPlaced) -> Applied {
    queue::started(state, at, e.job);
    let executor = state.executors.get_mut(&e.executor).ok_or("there is no such executor")?;
    change_placed(&mut state.jobs, &mut state.index, e.job, seq, |job| {
        if !job.is_queued() || e.attempt != job.attempt.next() {
            return Err("the job is not waiting for this attempt");
        }
        // While a version is changed, that is what shows.
        if !matches!(job.status, Status::Updating | Status::RollingBack) {
            job.status = Status::Starting;
        }
        job.attempt = e.attempt;
        job.placement = Some(Placed { executor: e.executor, at: seq, restore: e.restore, since: at });
        job.last_host = Some((e.name.clone(), e.zone.clone()));
        job.attempt_started_at = None;
        executor.allocated += job.need();
        executor.attempts.insert(e.job);
        executor.digest.add(e.job, e.attempt);
        Ok(())
    })
}

/// As [`change`], where the executors are borrowed beside the jobs.
fn change_placed(
    jobs: &mut BTreeMap<JobId, Box<Job>>,
    index: &mut Index,
    id: JobId,
    seq: Sequence,
    with: impl FnOnce(&mut Job) -> Applied,
) -> Applied {
    let job = jobs.get_mut(&id).ok_or("there is no such job")?;
    index.leave_status(id, job);
    let applied = with(job);
    note_commit(job, seq);
    index.enter_status(id, job);
    applied
}

fn attempt_started(job: &mut Job, e: &event::AttemptStarted) -> Applied {
    same_attempt(job, e.attempt)?;
    let is_ending = job.ending().is_some();
    if matches!(job.status, Status::Starting | Status::RollingBack) && !is_ending {
        job.status = Status::Running;
    }
    if matches!(job.status, Status::Running | Status::Updating) && !is_ending {
        // How the attempt before it ended has been told by then.
        job.reason = None;
        job.exit_code = None;
    }
    life::noted_running(job);
    started(job, e.started_at);
    Ok(())
}

/// Notes the start of the newest attempt; a recovery that was under way is over.
fn started(job: &mut Job, at: Timestamp) {
    job.started_at.get_or_insert(at);
    job.attempt_started_at = Some(at);
    if let Some(recovering) = job.recovering.take() {
        job.last_recovery = Some(Box::new(Recovery {
            cause: recovering.cause,
            from_zone: recovering.from_zone,
            to_zone: job.last_host.as_ref().map(|(_, zone)| zone.clone()),
            lost_at: recovering.lost_at,
            resumed_at: at,
            restored: job.placement.and_then(|p| p.restore),
        }));
    }
}

/// Takes a job off its executor.
fn release(executors: &mut BTreeMap<ExecutorId, Executor>, index: &mut Index, id: JobId, job: &mut Job) {
    // What is due about it may depend on its being placed.
    let is_indexed = job.life.is_some();
    if is_indexed {
        index.leave_status(id, job);
    } else {
        if let Some(by) = job.start_by() {
            index.starting.remove(&(by, id));
        }
        if job.placement.is_some() {
            index.running.down(id, job);
        }
    }
    let placed = job.placement.take();
    if is_indexed {
        index.enter_status(id, job);
    }
    let Some(placed) = placed else { return };
    let Some(executor) = executors.get_mut(&placed.executor) else { return };
    executor.allocated -= job.need();
    executor.digest.remove(id, job.attempt);
    executor.attempts.remove(&id);
    if executor.attempts.is_empty() && !executor.is_alive() {
        index.to_evict.remove(&placed.executor);
        // One that came back under its name before its jobs were taken off it need not be shown as lost any longer.
        let name = executor.registration.name.clone();
        if executors.values().any(|e| e.is_alive() && e.registration.name == name) {
            executors.remove(&placed.executor);
        }
    }
}

fn job_restarting(state: &mut State, seq: Sequence, e: &event::JobRestarting) -> Applied {
    let job = state.jobs.get_mut(&e.job).ok_or("there is no such job")?;
    same_attempt(job, e.attempt)?;
    release(&mut state.executors, &mut state.index, e.job, job);
    change(state, e.job, seq, |job| {
        // A recovery that failed before the job was up again goes on: the job has been away since the first loss.
        if job.recovering.is_none() {
            let from_zone = job.last_host.as_ref().map(|(_, zone)| zone.clone());
            job.recovering = Some(Box::new(Recovering { cause: e.cause, from_zone, lost_at: e.lost_at }));
        }
        // A version that has yet to show that it is healthy goes on with that; one that is gone back to is not to blame
        // for the loss of its host.
        let keeps = match job.status {
            Status::Updating => matches!(job.change(), Some(Change::Prove { .. })),
            Status::RollingBack => !e.cause.is_own_doing(),
            _ => false,
        };
        if !keeps {
            job.status = Status::Restarting;
        }
        job.reason = Some(e.reason.clone());
        job.exit_code = e.exit_code;
        job.restarts += 1;
        job.failures = e.failures;
        job.ready_at = e.next_try_at;
        Ok(())
    })
}

fn cancel_requested(job: &mut Job, at: Timestamp, e: &event::CancelRequested) -> Applied {
    same_attempt(job, e.attempt)?;
    let grace = match e.how {
        Stop::Graceful { grace } => grace,
        Stop::Kill => Millis::ZERO,
    };
    job.status = Status::Stopping;
    life::drop_change(job);
    job.stop = Some(Box::new(StopOrder { how: e.how, give_up_at: at + grace + STOP_CONFIRMATION, passed: None }));
    Ok(())
}

fn job_finished(state: &mut State, seq: Sequence, at: Timestamp, e: &event::JobFinished) -> Applied {
    let State { jobs, executors, index, .. } = state;
    let job = jobs.get_mut(&e.job).ok_or("there is no such job")?;
    if job.status.is_final() || job.attempt != e.attempt || !e.status.is_final() {
        return Err("the job is over already, or another attempt is current");
    }
    let of_life = |job: &Job| job.life.as_ref().map_or(0, |life| life.held_bytes(job.version));
    let before = of_life(job);
    index.leave_name(e.job, job);
    index.leave_status(e.job, job);
    life::drop_change(job);
    if let Some(at) = e.started_at.filter(|_| job.attempt_started_at.is_none()) {
        started(job, at);
    }
    job.recovering = None;
    job.stop = None;
    job.status = e.status;
    job.reason = e.reason.clone();
    job.exit_code = e.exit_code;
    job.result = e.result.clone();
    job.finished_at = Some(at);
    note_commit(job, seq);
    index.enter_status(e.job, job);
    index.enter_name(e.job, job);
    index.held_bytes += e.result.as_ref().map_or(0, |r| r.0.len()) as u64;
    index.held_bytes = (index.held_bytes - before) + of_life(job);
    // Only now: what the attempt was restored from is part of how a recovery reads.
    release(executors, index, e.job, job);
    depend::ended(state, e.job);
    remember_request(state, e.job, e.request_id.as_ref());
    Ok(())
}

fn checkpoint_completed(job: &mut Job, at: Timestamp, e: &event::CheckpointCompleted) -> Applied {
    same_attempt(job, e.attempt)?;
    if e.number != job.last_checkpoint.next() {
        return Err("the checkpoint's number does not follow");
    }
    job.last_checkpoint = e.number;
    job.checkpoints.push(Checkpoint { number: e.number, attempt: e.attempt, at, taken: e.taken });
    let retain = job.spec.checkpoint.retain.max(1) as usize;
    if job.checkpoints.len() > retain {
        job.checkpoints.drain(..job.checkpoints.len() - retain);
    }
    // What the run began with is kept like a checkpoint before its first.
    if let Some(life) = &mut job.life
        && job.checkpoints.len() >= retain
        && job.checkpoints.first().is_some_and(|oldest| oldest.number > life.floor)
    {
        life.base = None;
    }
    Ok(())
}

fn checkpoint_unreadable(job: &mut Job, e: &event::CheckpointUnreadable) -> Applied {
    same_attempt(job, e.attempt)?;
    job.checkpoints.retain(|checkpoint| checkpoint.number != e.number);
    Ok(())
}
