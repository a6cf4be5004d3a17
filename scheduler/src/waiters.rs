//! Requests that wait for a job to come somewhere (`job.wait`).

use crate::leader::ReplyTo;
use outlive_core::state::Job;
use outlive_schemas::array::{ids_about, index_of};
use outlive_schemas::id::JobId;
use outlive_schemas::request::Until;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
struct Waiter {
    until: Until,
    deadline: Timestamp,
    to: ReplyTo,
}

#[derive(Debug, Default)]
pub struct Waiters {
    by_job: BTreeMap<JobId, Vec<Waiter>>,
    by_deadline: BTreeSet<(Timestamp, JobId)>,
    count: usize,
}

/// Whether a job has come where a waiter wants it. A job that is over will not run any more, so it ends that wait too.
pub fn is_there(job: &Job, until: Until) -> bool {
    match until {
        Until::Finished => job.status.is_final(),
        Until::Running => job.status == Status::Running || job.status.is_final(),
    }
}

impl Waiters {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn add(&mut self, job: JobId, until: Until, deadline: Timestamp, to: ReplyTo) {
        self.by_job.entry(job).or_default().push(Waiter { until, deadline, to });
        self.by_deadline.insert((deadline, job));
        self.count += 1;
    }

    /// Those whose wait is over because of what the job is now.
    pub fn arrived(&mut self, id: JobId, job: &Job) -> Vec<ReplyTo> {
        self.take(id, |waiter| is_there(job, waiter.until))
    }

    /// The tasks of an array for which somebody waits.
    pub fn tasks_of(&self, array: JobId) -> Vec<(JobId, u32)> {
        let near = self.by_job.range(ids_about(array));
        near.filter_map(|(id, _)| Some((*id, index_of(array, *id)?))).collect()
    }

    /// All of a job's, because it has been deleted.
    pub fn all_of(&mut self, id: JobId) -> Vec<ReplyTo> {
        self.take(id, |_| true)
    }

    /// Those whose time is over.
    pub fn overdue(&mut self, now: Timestamp) -> Vec<(JobId, ReplyTo)> {
        let mut over = Vec::new();
        while let Some(&(deadline, id)) = self.by_deadline.first().filter(|(deadline, _)| *deadline <= now) {
            self.by_deadline.remove(&(deadline, id));
            over.extend(self.take(id, |waiter| waiter.deadline <= now).into_iter().map(|to| (id, to)));
        }
        over
    }

    fn take(&mut self, id: JobId, which: impl Fn(&Waiter) -> bool) -> Vec<ReplyTo> {
        let Some(waiting) = self.by_job.get_mut(&id) else { return Vec::new() };
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(waiting).into_iter().partition(which);
        // Most are answered long before their time, which is not to be remembered until it comes.
        let kept: BTreeSet<Timestamp> = left.iter().map(|waiter| waiter.deadline).collect();
        for waiter in taken.iter().filter(|waiter| !kept.contains(&waiter.deadline)) {
            self.by_deadline.remove(&(waiter.deadline, id));
        }
        *waiting = left;
        if waiting.is_empty() {
            self.by_job.remove(&id);
        }
        self.count -= taken.len();
        taken.into_iter().map(|waiter| waiter.to).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::codec::Format;

    fn to(number: u64) -> ReplyTo {
        ReplyTo { number, format: Format::Json }
    }

    #[test]
    fn nothing_is_left_of_those_that_are_answered() {
        let (mut waiters, near, far) = (Waiters::default(), Timestamp(1_000), Timestamp(3_600_000));
        for number in 0..1_000 {
            let job = JobId(uuid::Uuid::from_u128(u128::from(number)));
            waiters.add(job, Until::Finished, far, to(number));
            assert_eq!(waiters.all_of(job), [to(number)]);
        }
        assert!(waiters.is_empty() && waiters.by_job.is_empty() && waiters.by_deadline.is_empty());
        // Of two with one time the other is still answered at that time.
        let job = JobId(uuid::Uuid::from_u128(1));
        waiters.add(job, Until::Running, near, to(1));
        waiters.add(job, Until::Finished, near, to(2));
        assert_eq!(waiters.take(job, |waiter| waiter.until == Until::Running), [to(1)]);
        assert_eq!(waiters.overdue(near), [(job, to(2))]);
        assert!(waiters.is_empty() && waiters.by_deadline.is_empty());
    }
}
