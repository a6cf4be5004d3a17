//! What users ask of many jobs at once, or of many tasks of one: to be tried again, or to be forgotten.
//!
//! A filter is looked up in the state as it is, and what it finds is one command: all of it is changed, or nothing.

use super::{Answer, Leader, Output};
use crate::waiters::Waiters;
use outlive_core::decide::may_retry;
use outlive_core::state::State;
use outlive_core::view;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::error::Rejection;
use outlive_schemas::id::{JobId, JobName, Namespace};
use outlive_schemas::job::invalid;
use outlive_schemas::limits;
use outlive_schemas::request::ListRequest;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;
use outlive_schemas::when::{DeletedMany, Retried, Selection};
use std::collections::BTreeSet;

impl Leader {
    pub(super) fn retry(
        &mut self,
        namespace: Namespace,
        origin: Origin,
        selection: Selection,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Answer, Rejection> {
        let repeated = origin.request_id.as_ref().is_some_and(|id| self.state().is_spent(&namespace, id));
        let (jobs, skipped, cursor) = match selection {
            Selection::Tasks(job, tasks) => {
                let retried = u64::from(tasks.len());
                self.propose(Command::RetryTasks { namespace, origin, job, tasks }, now, out)?;
                return Ok(Answer::Retried(Retried { retried, ..Retried::default() }));
            }
            // Asked again, it is that one still.
            Selection::Job(job) => (vec![self.find(&namespace, &job)?.0], 0, None),
            Selection::Filter(_) if repeated => (Vec::new(), 0, None),
            Selection::Filter(mut filter) => {
                let statuses = [Status::Failed, Status::Cancelled];
                of_status(&mut filter, Some(&[Status::Failed]), &statuses)?;
                let state = self.state();
                let (mut names, mut skipped) = (BTreeSet::<&JobName>::new(), 0);
                let found = view::find(state, &namespace, &filter, limits::CHANGE_MANY_MAX, |id, job| {
                    let may = state.jobs.get(&id).filter(|job| may_retry(state, id, job, &names).is_ok());
                    match may {
                        Some(job) => names.extend(&job.spec.name),
                        None => skipped += u64::from(statuses.contains(&job.status)),
                    }
                    may.is_some()
                })?;
                (found.jobs, skipped, found.cursor)
            }
        };
        let retried = jobs.len() as u64;
        if retried > 0 {
            self.propose(Command::RetryJobs { namespace, origin, jobs }, now, out)?;
        }
        Ok(Answer::Retried(Retried { retried, skipped, cursor }))
    }

    pub(super) fn delete_many(
        &mut self,
        namespace: Namespace,
        origin: Origin,
        mut filter: ListRequest,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) -> Result<Answer, Rejection> {
        if origin.request_id.as_ref().is_some_and(|id| self.state().is_spent(&namespace, id)) {
            return Ok(Answer::DeletedMany(DeletedMany::default()));
        }
        of_status(&mut filter, None, &[Status::Succeeded, Status::Failed, Status::Cancelled])?;
        let found = view::find(self.state(), &namespace, &filter, limits::CHANGE_MANY_MAX, |_, _| true)?;
        let (jobs, cursor) = (found.jobs, found.cursor);
        let deleted = jobs.len() as u64;
        if deleted > 0 {
            self.propose(Command::DeleteJobs { namespace, origin, jobs }, now, out)?;
        }
        Ok(Answer::DeletedMany(DeletedMany { deleted, cursor }))
    }
}

/// Answers those who wait for tasks that were cancelled before they were jobs of their own: no event speaks of these.
pub(super) fn answer_cancelled(waiters: &mut Waiters, state: &State, array: JobId, now: Timestamp) -> Vec<Output> {
    let cancelled = state.jobs.get(&array).and_then(|job| job.array.as_deref()).map(|array| &array.cancelled);
    let over =
        waiters.tasks_of(array).into_iter().filter(|(_, index)| cancelled.is_some_and(|set| set.contains(*index)));
    let mut answers = Vec::new();
    for (task, index) in over {
        let Some(view) = state.counted(array, index, now) else { continue };
        let to = waiters.all_of(task).into_iter();
        answers.extend(to.map(|to| Output::Answer { to, answer: Answer::Job(Box::new(view.clone())) }));
    }
    answers
}

/// Holds a filter to the statuses that can be meant. Where it names none, it means the default, or is refused: a filter
/// that was left empty by mistake must not mean everything.
fn of_status(filter: &mut ListRequest, default: Option<&[Status]>, allowed: &[Status]) -> Result<(), Rejection> {
    let named = || allowed.iter().map(|status| format!("`{status}`")).collect::<Vec<_>>().join(", ");
    match (&filter.status, default) {
        (Some(given), _) => match given.iter().find(|status| !allowed.contains(status)) {
            Some(other) => Err(invalid("filter.status", &format!("has `{other}`; it may have {}", named()))),
            None if given.is_empty() => Err(invalid("filter.status", &format!("is empty; it may have {}", named()))),
            None => Ok(()),
        },
        (None, Some(default)) => {
            filter.status = Some(default.to_vec());
            Ok(())
        }
        (None, None) => Err(invalid("filter.status", &format!("is missing: say which of {}", named()))),
    }
}
