//! What events about dependencies change, and what a parent's end changes for those who wait for it.

use super::Applied;
use super::snapshot::change_life;
use crate::depend::{Depends, Parent, ParentEnd};
use crate::state::State;
use outlive_schemas::depend::{DependenciesMet, JobDepends};
use outlive_schemas::id::{JobId, Sequence};
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;

pub(super) fn declared(state: &mut State, seq: Sequence, e: &JobDepends) -> Applied {
    let ended = |id: &JobId| {
        let parent = state.jobs.get(id).map(|job| &**job);
        parent.is_none_or(|job| job.status.is_final()).then(|| ParentEnd::of(parent))
    };
    let parents: Vec<Parent> = e.parents.iter().map(|id| Parent { job: *id, end: ended(id) }).collect();
    change_life(state, e.job, seq, |job| {
        if job.status != Status::Pending || job.depends.is_some() || job.spec.depends_on.len() != parents.len() {
            return Err("the job does not depend on so many others");
        }
        job.depends = Some(Box::new(Depends { parents, met: false }));
        Ok(())
    })
}

pub(super) fn met(state: &mut State, seq: Sequence, at: Timestamp, e: &DependenciesMet) -> Applied {
    super::change(state, e.job, seq, |job| {
        let depends = job.depends.as_mut().ok_or("the job depends on no others")?;
        if depends.met || depends.parents.iter().any(|parent| parent.end.is_none()) {
            return Err("the job waits for others, or does not wait any more");
        }
        depends.met = true;
        // Its place in the queue is that of a job that was submitted now.
        job.ready_at = job.ready_at.max(at);
        Ok(())
    })
}

/// What a job that is tried again knows of its parents: those that did not end as they had to are looked at again.
pub(super) fn renewed(state: &State, id: JobId) -> Option<Box<Depends>> {
    let job = state.jobs.get(&id)?;
    let mut depends = job.depends.clone()?;
    if depends.met {
        return Some(depends);
    }
    for (parent, dependency) in depends.parents.iter_mut().zip(&job.spec.depends_on) {
        let is_met = parent.end.as_ref().is_some_and(|end| end.meets(dependency.until));
        if is_met {
            continue;
        }
        parent.end = match state.jobs.get(&parent.job) {
            Some(there) => there.status.is_final().then(|| ParentEnd::of(Some(&**there))),
            // One that went while nobody waited for it will not end any more.
            None => parent.end.take().or_else(|| Some(ParentEnd::of(None))),
        };
    }
    Some(depends)
}

/// A job is over, or gone: keeps how with everybody who waits for it. Costs by these.
pub(super) fn ended(state: &mut State, id: JobId) {
    let Some(children) = state.index.children.remove(&id) else { return };
    let end = ParentEnd::of(state.jobs.get(&id).map(|job| &**job));
    for child_id in children {
        let Some(child) = state.jobs.get_mut(&child_id) else { continue };
        let known = child.depends.iter_mut().flat_map(|depends| &mut depends.parents);
        for parent in known.filter(|parent| parent.job == id && parent.end.is_none()) {
            parent.end = Some(end.clone());
        }
        state.index.held_bytes += end.result.as_ref().map_or(0, |result| result.0.len()) as u64;
        if child.verdict().is_some() {
            state.index.decided.insert(child_id);
        }
    }
}
