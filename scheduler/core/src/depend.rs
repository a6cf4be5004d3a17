//! Jobs that wait for other jobs: what is known of each parent, and who waits for whom.
//!
//! How a parent ended is kept with the child from the moment of that end, its result included. So nothing has to be
//! remembered of a parent for its children's sake: it may be deleted, forgotten, or tried again.

use crate::state::{Job, State};
use compact_str::{CompactString, format_compact};
use outlive_schemas::command::Command;
use outlive_schemas::depend::{Condition, InputFile};
use outlive_schemas::id::{JobId, JobRef};
use outlive_schemas::limits;
use outlive_schemas::payload::Payload;
use outlive_schemas::view::Status;
use serde::{Deserialize, Serialize};

/// The part of a job that waits, or has waited, for others. Its parents stand in the order of its spec's `depends_on`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depends {
    pub parents: Vec<Parent>,
    /// Whether the job waits for none of them any more.
    pub met: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    pub job: JobId,
    /// Nothing while the child waits for it.
    pub end: Option<ParentEnd>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentEnd {
    /// Nothing where it was deleted before it was over.
    pub status: Option<Status>,
    /// The same bytes as the parent's while that is there.
    pub result: Option<Payload>,
}

/// What is to become of a job that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    /// It can never run.
    Failed(CompactString),
}

/// Parents that `why` names one by one.
const SHOWN_MAX: usize = 10;

impl ParentEnd {
    pub fn of(job: Option<&Job>) -> ParentEnd {
        ParentEnd { status: job.map(|job| job.status), result: job.and_then(|job| job.result.clone()) }
    }

    pub fn meets(&self, until: Condition) -> bool {
        match until {
            Condition::Succeeded => self.status == Some(Status::Succeeded),
            Condition::Finished => self.status.is_some_and(Status::is_final),
        }
    }
}

impl Depends {
    pub(crate) fn held_bytes(&self) -> u64 {
        let results = self.parents.iter().filter_map(|parent| parent.end.as_ref()?.result.as_ref());
        let results: usize = results.map(|result| result.0.len()).sum();
        (results + self.parents.len() * size_of::<Parent>()) as u64
    }
}

impl Job {
    /// Whether it waits for other jobs, so that it must not be placed.
    pub fn awaits_others(&self) -> bool {
        self.depends.as_ref().is_some_and(|depends| !depends.met) && !self.status.is_final()
    }

    /// What `depends_on` calls each parent, and what is known of it.
    pub fn parents(&self) -> impl Iterator<Item = (&JobRef, Condition, &Parent)> {
        let known = self.depends.iter().flat_map(|depends| &depends.parents);
        self.spec.depends_on.iter().zip(known).map(|(asked, parent)| (&asked.job, asked.until, parent))
    }

    /// Parents that have not ended, while that matters.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = JobId> + '_ {
        let depends = self.depends.iter().filter(|_| self.awaits_others());
        depends
            .flat_map(|depends| depends.parents.iter())
            .filter(|parent| parent.end.is_none())
            .map(|parent| parent.job)
    }

    /// What is to become of it, once that can be said.
    pub fn verdict(&self) -> Option<Verdict> {
        if !self.awaits_others() {
            return None;
        }
        let mut all = true;
        let mut bytes = 0;
        for (called, until, parent) in self.parents() {
            match &parent.end {
                None => all = false,
                Some(end) if end.meets(until) => {
                    bytes += end.result.as_ref().map_or(0, |result| result.0.len());
                }
                Some(end) => {
                    let how = end.status.map_or("was deleted", |status| match status {
                        Status::Cancelled => "was cancelled",
                        _ => "failed",
                    });
                    return Some(Verdict::Failed(format_compact!("job `{called}`, which it depends on, {how}")));
                }
            }
        }
        if !all {
            return None;
        }
        if bytes > limits::INPUTS_BYTES_MAX {
            let reason = format_compact!(
                "the results of the jobs that it depends on have {bytes} bytes together; the limit is {}: leave \
                 references in them instead",
                limits::INPUTS_BYTES_MAX
            );
            return Some(Verdict::Failed(reason));
        }
        Some(Verdict::Met)
    }

    /// What its attempts find under `$OUTLIVE_INPUTS`.
    pub fn input_files(&self) -> Vec<InputFile> {
        let left = self.parents().filter_map(|(called, _, parent)| {
            let content = parent.end.as_ref()?.result.clone()?;
            Some(InputFile { name: called.clone(), content })
        });
        left.collect()
    }

    /// Which jobs it waits for, for people.
    pub(crate) fn awaited_shown(&self, state: &State) -> String {
        let open: Vec<_> = self.parents().filter(|(_, _, parent)| parent.end.is_none()).collect();
        let mut shown: Vec<String> = open
            .iter()
            .take(SHOWN_MAX)
            .map(|(called, _, parent)| {
                let status = state.jobs.get(&parent.job).map_or("gone", |job| job.status.as_str());
                format!("{called} ({status})")
            })
            .collect();
        if open.len() > SHOWN_MAX {
            shown.push(format!("and {} more", open.len() - SHOWN_MAX));
        }
        let all = self.depends.as_ref().map_or(0, |depends| depends.parents.len());
        format!("it waits for {} of the {all} jobs that it depends on: {}", open.len(), shown.join(", "))
    }
}

/// After an image has been loaded: what a parent and its children keep is the same bytes again.
pub(crate) fn share_results(state: &mut State) {
    let mut shared = Vec::new();
    for (id, job) in state.jobs.iter().filter(|(_, job)| job.depends.is_some()) {
        for (position, (_, _, parent)) in job.parents().enumerate() {
            let kept = parent.end.as_ref().and_then(|end| end.result.as_ref());
            let own = state.jobs.get(&parent.job).and_then(|parent| parent.result.as_ref());
            if let (Some(_), Some(own)) = (kept, own.filter(|own| kept == Some(own))) {
                shared.push((*id, position, own.clone()));
            }
        }
    }
    for (id, position, result) in shared {
        let depends = state.jobs.get_mut(&id).and_then(|job| job.depends.as_mut());
        if let Some(end) = depends.and_then(|depends| depends.parents[position].end.as_mut()) {
            end.result = Some(result);
        }
    }
}

/// Jobs whose dependencies are decided, at most `limit`.
pub fn due(state: &State, limit: usize) -> Vec<Command> {
    state.index.decided.iter().take(limit).map(|job| Command::SettleDependencies { job: *job }).collect()
}
