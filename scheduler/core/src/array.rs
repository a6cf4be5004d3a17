//! Arrays: what is known of tasks that are not on their way, and which of those that are one may see as jobs.
//!
//! An array is one job that never runs. As many of its tasks as may be on their way at once are jobs of their own, with
//! the array's specification; of all others it keeps sets of indexes. A task that is over is counted, and its record
//! goes; of those that failed their last attempt's number is kept, and of the first of them the reason.

use crate::state::{Job, State};
use compact_str::CompactString;
use outlive_schemas::array::{Indexes, TaskCounts, of_task_name, task_id, task_name};
use outlive_schemas::command::{Command, Stop};
use outlive_schemas::id::{Attempt, JobId, JobName, JobRef, Namespace};
use outlive_schemas::job::JobSpec;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{JobView, Status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Array {
    pub pending: Indexes,
    /// Jobs of their own at the moment, the last of them just over.
    pub open: Indexes,
    pub succeeded: Indexes,
    pub failed: Indexes,
    pub cancelled: Indexes,
    pub failures: BTreeMap<u32, Failure>,
    /// Tasks that were on an executor with a process, and so may have left something there is to erase.
    pub left: Indexes,
    /// Where the whole has been cancelled.
    pub stop: Option<Stop>,
    /// Open tasks that have not been told of that.
    pub untold: Indexes,
}

/// How a task failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub attempt: Attempt,
    pub exit_code: Option<i32>,
    /// Kept for the first [`REASONS_MAX`].
    pub reason: Option<CompactString>,
    pub at: Timestamp,
}

/// In the record of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskOf {
    pub array: JobId,
    pub index: u32,
}

/// Failed tasks of an array whose reasons are kept.
pub const REASONS_MAX: usize = 1_000;
/// Tasks that one decision releases or tells to stop: a commit has to hold it.
pub(crate) const STEP_MAX: u32 = 500;

impl Array {
    pub(crate) fn of(spec: &JobSpec) -> Option<Box<Array>> {
        let array = spec.array?;
        let none = Indexes::default;
        Some(Box::new(Array {
            pending: Indexes::first(array.count),
            open: none(),
            succeeded: none(),
            failed: none(),
            cancelled: none(),
            failures: BTreeMap::new(),
            left: none(),
            stop: None,
            untold: none(),
        }))
    }

    pub fn counts(&self) -> TaskCounts {
        TaskCounts {
            pending: self.pending.len(),
            running: self.open.len(),
            succeeded: self.succeeded.len(),
            failed: self.failed.len(),
            cancelled: self.cancelled.len(),
        }
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        let sets =
            [&self.pending, &self.open, &self.succeeded, &self.failed, &self.cancelled, &self.left, &self.untold];
        let ranges: usize = sets.iter().map(|set| set.ranges()).sum();
        (ranges * size_of::<(u32, u32)>() + self.failures.len() * size_of::<(u32, Failure)>()) as u64
    }
}

impl Job {
    /// Whether something is to be decided about its tasks, apart from those that are just over.
    pub(crate) fn array_is_due(&self) -> bool {
        let Some(array) = self.array.as_deref().filter(|_| !self.status.is_final()) else { return false };
        if self.awaits_others() && array.stop.is_none() {
            return false;
        }
        !array.untold.is_empty()
            || !array.pending.is_empty() && array.open.len() < self.parallel()
            || array.pending.is_empty() && array.open.is_empty()
    }

    /// How many of its tasks may be on their way at once.
    pub fn parallel(&self) -> u32 {
        self.spec.array.map_or(0, |array| array.parallel())
    }

    /// How many tasks may be released, once so many of those that are open are counted.
    pub(crate) fn room_for_tasks(&self, ended: u32) -> u32 {
        let open = self.array.as_deref().map_or(0, |array| array.open.len());
        self.parallel().saturating_sub(open.saturating_sub(ended))
    }

    pub(crate) fn tasks_shown(&self) -> Option<String> {
        let counts = self.array.as_deref()?.counts();
        let TaskCounts { pending, running, succeeded, failed, cancelled } = counts;
        let held = match pending > 0 && running >= self.parallel() {
            true => format!(", for no more than {} (`array.parallel`) are let go at once", self.parallel()),
            false => String::new(),
        };
        let over = format!("{succeeded} have succeeded, {failed} have failed, {cancelled} were cancelled");
        Some(format!("of its tasks {running} are on their way, {pending} wait{held}, {over}"))
    }
}

impl State {
    /// The array and the index that a name means, whether or not the task is a job of its own at the moment.
    pub fn task_named(&self, namespace: &Namespace, name: &JobName) -> Option<(JobId, u32)> {
        let (of, index) = of_task_name(name)?;
        let id = of.automatic_id().or_else(|| self.newest_named(namespace, &of))?;
        let array = self.jobs.get(&id).filter(|job| job.namespace == *namespace)?;
        let count = array.spec.array.filter(|_| array.array.is_some())?.count;
        (index < count).then_some((id, index))
    }

    /// What is known of a task that is no job of its own: it waits to be let go, or is counted.
    pub fn counted_task(&self, namespace: &Namespace, job: &JobRef, now: Timestamp) -> Option<JobView> {
        let JobRef::Name(name) = job else { return None };
        let (id, index) = self.task_named(namespace, name)?;
        self.counted(id, index, now)
    }

    /// The same by the array's id and the task's index.
    pub fn counted(&self, id: JobId, index: u32, now: Timestamp) -> Option<JobView> {
        let job = self.jobs.get(&id)?;
        let array = job.array.as_deref()?;
        let (status, reason) = if array.succeeded.contains(index) {
            (Status::Succeeded, None)
        } else if array.failed.contains(index) {
            (Status::Failed, None)
        } else if array.cancelled.contains(index) {
            (Status::Cancelled, None)
        } else if array.pending.contains(index) {
            (Status::Pending, Some("waiting_for_array".to_owned()))
        } else {
            return None;
        };
        let past = array.failures.get(&index);
        let reason = match (status, past) {
            (Status::Cancelled, None) => Some("cancelled before it ran".to_owned()),
            _ => reason,
        };
        // One that waits again is not over.
        let failure = past.filter(|_| status.is_final());
        let mut view = crate::view::job(id, job, now);
        view.id = task_id(id, index);
        view.name = task_name(&view.name, index)?;
        view.status = status;
        view.tasks = None;
        view.reason = failure.and_then(|failure| failure.reason.as_ref()).map(ToString::to_string).or(reason);
        view.attempt = past.map_or(Attempt(0), |failure| failure.attempt);
        view.exit_code = failure.and_then(|failure| failure.exit_code);
        view.finished_at = failure.map(|failure| failure.at);
        view.started_at = None;
        Some(view)
    }
}

/// Arrays about whose tasks something is to be decided, at most `limit`.
pub fn due(state: &State, limit: usize) -> Vec<Command> {
    let over = state.index.tasks_over.keys();
    let mut arrays: Vec<JobId> = over.chain(&state.index.arrays).take(limit).copied().collect();
    arrays.sort_unstable();
    arrays.dedup();
    arrays.into_iter().map(|job| Command::AttendArray { job }).collect()
}
