//! Which jobs are traced, and the spans of what is done for them. Part of the leading machine: kept in memory only, so a
//! trace ends with the leader that began it; the job goes on.

use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;
use outlive_schemas::trace::{Step, TraceContext};
use std::collections::BTreeMap;

/// Something done for a traced job; its end is when the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub context: TraceContext,
    pub parent: u64,
    pub step: Step,
    pub job: JobId,
    pub attempt: Attempt,
    pub begun: Timestamp,
}

#[derive(Debug, Default)]
pub struct Traces {
    jobs: BTreeMap<JobId, TraceContext>,
    /// Whether jobs whose clients began no trace get one.
    all: bool,
}

impl Traces {
    pub fn trace_all(&mut self) {
        self.all = true;
    }

    /// Whether a submission is worth looking at.
    pub fn wants(&self, given: Option<TraceContext>) -> bool {
        self.all || given.is_some()
    }

    /// A job was submitted. Returns the span of its submission, unless too many are traced already.
    pub fn submitted(&mut self, job: JobId, given: Option<TraceContext>, begun: Timestamp) -> Option<Span> {
        let parent = given.or_else(|| self.all.then(|| TraceContext::of_job(job)))?;
        if self.jobs.len() >= limits::TRACES_MAX {
            return None;
        }
        let context = parent.at(job, Attempt(0), Step::Submit);
        self.jobs.insert(job, context);
        // Nobody stands above a trace of our own.
        let above = given.map_or(0, |given| given.span);
        Some(Span { context, parent: above, step: Step::Submit, job, attempt: Attempt(0), begun })
    }

    /// What the executor of an attempt is told, where its job is traced.
    pub fn of_attempt(&self, job: JobId, attempt: Attempt) -> Option<TraceContext> {
        self.jobs.get(&job).map(|submit| submit.at(job, attempt, Step::Place))
    }

    pub fn placed(&self, job: JobId, attempt: Attempt, begun: Timestamp) -> Option<Span> {
        let submit = self.jobs.get(&job)?;
        let context = submit.at(job, attempt, Step::Place);
        Some(Span { context, parent: submit.span, step: Step::Place, job, attempt, begun })
    }

    /// The job is over.
    pub fn forget(&mut self, job: JobId) {
        if !self.jobs.is_empty() {
            self.jobs.remove(&job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1);

    fn job(number: u128) -> JobId {
        JobId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn a_jobs_spans_hang_together() {
        let mut traces = Traces::default();
        assert!(!traces.wants(None), "off by default");
        assert_eq!(traces.submitted(job(1), None, NOW), None);
        let given = TraceContext { trace: 7, span: 9, sampled: true };
        let submit = traces.submitted(job(1), Some(given), NOW).expect("traced");
        assert_eq!((submit.context.trace, submit.parent), (7, 9));
        let place = traces.placed(job(1), Attempt(1), NOW).expect("traced");
        assert_eq!((place.context.trace, place.parent), (7, submit.context.span));
        assert_eq!(traces.of_attempt(job(1), Attempt(1)), Some(place.context));
        traces.forget(job(1));
        assert_eq!(traces.of_attempt(job(1), Attempt(1)), None);
    }

    #[test]
    fn where_all_are_traced_a_job_is_its_own_trace() {
        let mut traces = Traces::default();
        traces.trace_all();
        let submit = traces.submitted(job(5), None, NOW).expect("traced");
        assert_eq!((submit.context.trace, submit.parent), (5, 0));
    }
}
