//! What must be true of every state. Checks only; nothing is mended.

use crate::state::State;
use outlive_schemas::executor::Capacity;
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
        if placed != matches!(job.status.as_str(), "starting" | "running" | "stopping") {
            return Err(format!("job {id} is {} and {}placed", job.status, if placed { "" } else { "not " }));
        }
        if let Some(p) = job.placement
            && !state.executors.get(&p.executor).is_some_and(|e| e.attempts.contains(id))
        {
            return Err(format!("job {id} is placed on {}, which does not hold it", p.executor));
        }
        if job.stop.is_some() != (job.status == Status::Stopping) {
            return Err(format!("job {id} is {}, which does not go with its order to stop", job.status));
        }
        if job.status.is_final() != job.finished_at.is_some() {
            return Err(format!("job {id} is {}, which does not go with its time of ending", job.status));
        }
        if job.checkpoints.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(format!("job {id}'s checkpoints do not rise"));
        }
        if let Some(name) = job.spec.name.as_ref().filter(|_| !job.status.is_final())
            && !live_names.insert((&job.namespace, name))
        {
            return Err(format!("two live jobs have the name {name}"));
        }
    }
    Ok(())
}
