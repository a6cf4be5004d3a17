//! What the leading machine shows of itself: to metrics, to `sys.status`, and in traces.

use super::{Answer, Identity, Leader, Output, StatusSoFar};
use crate::watch;
use outlive_core::view;
use outlive_schemas::limits;
use outlive_schemas::message::Assignment;
use outlive_schemas::time::Timestamp;
use outlive_schemas::trace::TraceContext;
use outlive_schemas::view::LeaderView;

impl Leader {
    /// Traces every job, and not only those whose clients began a trace.
    pub fn trace_all(&mut self) {
        self.traces.trace_all();
    }

    /// What goes with an assignment of a traced job.
    pub(crate) fn traced(&self, assignment: Assignment) -> Assignment {
        Assignment { trace: self.traces.of_attempt(assignment.job, assignment.attempt), ..assignment }
    }

    pub fn unwitnessed_since(&self) -> Option<Timestamp> {
        self.unwitnessed_since
    }

    pub fn append_since(&self) -> Option<Timestamp> {
        self.journal.append_since()
    }

    pub fn commits_waiting(&self) -> usize {
        self.journal.commits_waiting()
    }

    /// Begins the traces of what was submitted.
    pub(super) fn trace_submission(
        &mut self,
        answer: &Answer,
        given: Option<TraceContext>,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        let jobs = match answer {
            Answer::Submitted(job) => std::slice::from_ref(job),
            Answer::SubmittedMany(reply) => &reply.jobs[..],
            _ => return,
        };
        for job in jobs.iter().filter(|job| !job.duplicate) {
            if let Some(span) = self.traces.submitted(job.id, given, now) {
                self.journal.hold_back(Output::Span(span), out);
            }
        }
    }

    pub(super) fn status(&self) -> StatusSoFar {
        let Identity { scheduler, zone, term } = self.identity.clone();
        StatusSoFar {
            leader: LeaderView { scheduler, zone, term, since: self.since },
            last_seq: self.journal.acked(),
            witness_seq: self.witnessed,
            zones: watch::zones(self.state()),
            jobs: outlive_schemas::view::Status::ALL
                .into_iter()
                .map(|status| (status, self.state().counts().get(&status).copied().unwrap_or(0)))
                .collect(),
            held_bytes: self.state().held_bytes(),
            held_jobs: self.state().jobs.len() as u64,
            restarting: view::restarting(self.state(), limits::RESTARTING_SHOWN_MAX),
            oldest_checkpoint: view::oldest_checkpoint(self.state()),
        }
    }
}
