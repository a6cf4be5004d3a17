//! What must be true of every state. Checks only; nothing is mended.

use crate::array::TaskOf;
use crate::life::{Change, Life};
use crate::state::{Job, State};
use outlive_schemas::array::task_id;
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::JobId;
use outlive_schemas::life::VersionStatus;
use outlive_schemas::message::AttemptDigest;
use outlive_schemas::view::Status;
use std::collections::BTreeSet;

/// The first thing that is wrong, if any. Costs by the size of the state: for tests and for loaded images.
pub fn check(state: &State) -> Result<(), String> {
    if state.index != state.computed_index() {
        return Err("the indexes do not follow from the rest".into());
    }
    for (id, executor) in &state.executors {
        let (mut allocated, mut digest) = (Capacity::default(), AttemptDigest::default());
        for job_id in &executor.attempts {
            let job = state.jobs.get(job_id).ok_or(format!("executor {id} holds job {job_id}, which is not there"))?;
            if job.placement.map(|p| p.executor) != Some(*id) {
                return Err(format!("executor {id} holds job {job_id}, which is placed elsewhere"));
            }
            allocated += job.need();
            digest.add(*job_id, job.attempt);
        }
        if digest != executor.digest {
            return Err(format!("executor {id}'s digest does not follow from its attempts"));
        }
        if allocated != executor.allocated {
            return Err(format!(
                "executor {id} has {:?} allocated, and its jobs take {allocated:?}",
                executor.allocated
            ));
        }
        if !executor.registration.capacity.holds(&allocated) {
            return Err(format!("executor {id} is over-committed: {allocated:?}"));
        }
    }
    let mut live_names = BTreeSet::new();
    for (id, job) in &state.jobs {
        let placed = job.placement.is_some();
        let may_be = matches!(
            job.status,
            Status::Starting | Status::Running | Status::Stopping | Status::Updating | Status::RollingBack
        );
        // Those who have no room are in the queue.
        if placed && !may_be || !placed && may_be && !job.is_queued() && job.array.is_none() {
            return Err(format!("job {id} is {} and {}placed", job.status, if placed { "" } else { "not " }));
        }
        if let Some(p) = job.placement
            && !state.executors.get(&p.executor).is_some_and(|e| e.attempts.contains(id))
        {
            return Err(format!("job {id} is placed on {}, which does not hold it", p.executor));
        }
        if placed && job.awaits_others() {
            return Err(format!("job {id} is placed, and waits for others"));
        }
        let is_stopped = matches!(job.change(), Some(Change::Stop { .. }))
            || job.array.as_ref().is_some_and(|array| array.stop.is_some() && !job.status.is_final());
        check_array(state, *id, job).map_err(|wrong| format!("job {id}: {wrong}"))?;
        if (job.stop.is_some() || is_stopped) != (job.status == Status::Stopping) {
            return Err(format!("job {id} is {}, which does not go with its order to stop", job.status));
        }
        if job.status.is_final() != job.finished_at.is_some() {
            return Err(format!("job {id} is {}, which does not go with its time of ending", job.status));
        }
        if job.checkpoints.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(format!("job {id}'s checkpoints do not rise"));
        }
        if let Some(life) = &job.life {
            check_life(job, life).map_err(|wrong| format!("job {id}: {wrong}"))?;
        }
        if let Some(name) = job.spec.name.as_ref().filter(|_| !job.status.is_final() && job.task.is_none())
            && !live_names.insert((&job.namespace, name))
        {
            return Err(format!("two live jobs have the name {name}"));
        }
    }
    Ok(())
}

/// Every task of an array is counted exactly once, and those on their way are jobs, no more than there may be.
fn check_array(state: &State, id: JobId, job: &Job) -> Result<(), String> {
    if let Some(TaskOf { array, index }) = job.task {
        let of = state.jobs.get(&array).and_then(|job| job.array.as_deref());
        let known = of.is_some_and(|of| of.open.contains(index)) && task_id(array, index) == id;
        return if known { Ok(()) } else { Err(format!("its array {array} does not count it as being on its way")) };
    }
    let Some(array) = &job.array else { return Ok(()) };
    let sets = [&array.pending, &array.open, &array.succeeded, &array.failed, &array.cancelled];
    let mut all: Vec<u32> = sets.into_iter().flat_map(|set| set.iter()).collect();
    all.sort_unstable();
    let count = job.spec.array.map_or(0, |array| array.count);
    if !all.iter().copied().eq(0..count) {
        return Err(format!("its tasks are not each counted once: {array:?}"));
    }
    if array.open.len() > job.parallel() {
        return Err(format!("{} of its tasks are on their way; there may be {}", array.open.len(), job.parallel()));
    }
    if !array.untold.are_all_in(&array.open) {
        return Err(format!("tasks of it are to be told to stop that are not on their way: {}", array.untold));
    }
    if array.stop.is_some() && !array.pending.is_empty() {
        return Err(format!("it is cancelled as a whole, and tasks of it wait: {}", array.pending));
    }
    if let Some(index) =
        array.failures.keys().find(|index| array.open.contains(**index) || array.succeeded.contains(**index))
    {
        return Err(format!("its task {index} is noted as having failed, and is on its way or has succeeded"));
    }
    if job.status.is_final() && !array.open.is_empty() {
        return Err("it is over, and tasks of it are on their way".into());
    }
    match array.open.iter().find(|index| state.jobs.get(&task_id(id, *index)).is_none_or(|task| task.task.is_none())) {
        Some(index) => Err(format!("its task {index} is no job")),
        None => Ok(()),
    }
}

fn check_life(job: &Job, life: &Life) -> Result<(), String> {
    if life.snapshots.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err("its snapshots are out of order".into());
    }
    let names: BTreeSet<_> = life.snapshots.iter().map(|snapshot| &snapshot.name).collect();
    if names.len() != life.snapshots.len() {
        return Err("two of its snapshots have one name".into());
    }
    if life.snapshots.iter().any(|s| s.ready_at.is_none() && s.content.is_some()) {
        return Err("a snapshot that is not ready has contents".into());
    }
    let active: Vec<_> = life.versions.iter().filter(|v| v.status == VersionStatus::Active).collect();
    let current = life.version(job.version);
    if current.is_none_or(|current| current.spec != job.spec) {
        return Err(format!("version {} is not the one that it has", job.version));
    }
    // One that is being rolled back is so by name already.
    let rolling_back = matches!(life.change, Some(Change::RollBack { .. }));
    if active.len() != usize::from(!rolling_back) || active.iter().any(|version| version.version != job.version) {
        return Err("not exactly its current version is active".into());
    }
    let wanted = match &life.change {
        Some(Change::Stop { .. }) => Some(Status::Stopping),
        Some(Change::Update { .. } | Change::Prove { .. }) => Some(Status::Updating),
        Some(Change::RollBack { .. }) => Some(Status::RollingBack),
        None => None,
    };
    if wanted.is_some_and(|wanted| wanted != job.status) {
        return Err(format!("it is {}, which does not go with what is being done to it", job.status));
    }
    if life.change.is_none() && job.status == Status::Updating {
        return Err("it is updating, and nothing is being done to it".into());
    }
    Ok(())
}
