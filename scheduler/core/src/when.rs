//! When a job's first attempt may begin, and when the job is given up.
//!
//! Nothing here waits: what is due is `timer`'s to say.

use crate::life::Change;
use crate::schedule::TickOf;
use crate::state::{Job, State};
use outlive_schemas::id::JobId;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;
use outlive_schemas::when::{Deadline, Start};
use serde::{Deserialize, Serialize};

/// What most jobs have none of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// When it began anew, by being retried or started again: deadlines count from then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again_at: Option<Timestamp>,
    /// The tick that it was submitted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick_of: Option<TickOf>,
}

/// A deadline that is over, and for which an attempt is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passed {
    pub deadline: Deadline,
    pub due_at: Timestamp,
}

impl Job {
    /// When its first attempt may begin.
    pub fn first_due_at(&self) -> Timestamp {
        self.spec.start.map_or(self.submitted_at, |start: Start| start.from(self.submitted_at))
    }

    /// Whether it waits for nothing but its `start`.
    pub fn is_not_yet(&self, now: Timestamp) -> bool {
        self.status == Status::Pending && self.recovering.is_none() && self.ready_at > now
    }

    /// From when it may begin, and its deadlines count.
    pub fn counted_from(&self) -> Timestamp {
        self.timing.as_ref().and_then(|timing| timing.again_at).unwrap_or_else(|| self.first_due_at())
    }

    /// From now on they count from this.
    pub(crate) fn begin_anew(&mut self, at: Timestamp) {
        if self.spec.start.is_some() || self.spec.deadline.is_some() || self.timing.is_some() {
            self.timing.get_or_insert_default().again_at = Some(at);
        }
    }

    /// The deadline that is over first, unless the job is ending or has been stopped.
    pub fn give_up(&self) -> Option<Passed> {
        // Those of an array are its tasks'.
        let given = self.spec.deadline.filter(|_| self.array.is_none())?;
        let is_ending = self.stop.is_some() || matches!(self.change(), Some(Change::Stop { .. }));
        if self.status.is_final() || self.status == Status::Stopped || is_ending {
            return None;
        }
        let from = self.counted_from();
        let start = given.start_within.filter(|_| self.started_at.is_none());
        let start = start.map(|within| Passed { deadline: Deadline::Start, due_at: from + within });
        let finish = given.finish_within.map(|within| Passed { deadline: Deadline::Finish, due_at: from + within });
        start.into_iter().chain(finish).min_by_key(|passed| passed.due_at)
    }

    /// Why it has failed, once a deadline of it is over.
    pub fn reason_for(&self, deadline: Deadline) -> compact_str::CompactString {
        let given = self.spec.deadline.unwrap_or_default();
        let within = match deadline {
            Deadline::Start => given.start_within,
            Deadline::Finish => given.finish_within,
        };
        deadline.reason(within.unwrap_or_default())
    }
}

impl State {
    /// Jobs that have deadlines, by when the first of each is over.
    pub fn deadlines(&self) -> impl Iterator<Item = (Timestamp, JobId)> + '_ {
        self.index.deadlines.iter().copied()
    }
}
