//! Schedules: what is asked of them, what they look like, and what the log says of them (contract, section 8).
//!
//! Which times a schedule means is not here: the core reads its expression. Every event holds the times that follow
//! from it, so that the log means the same to whoever reads it, whatever they know of time zones.

use crate::error::{ErrorCode, Rejection};
use crate::id::{JobId, JobName, Namespace, ScheduleName};
use crate::job::{JobSpec, duration_in_range, invalid};
use crate::limits;
use crate::time::{Millis, Timestamp};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What becomes of a tick while a job of an earlier one is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Nothing.
    #[default]
    Skip,
    /// It waits until that job is over.
    Queue,
    /// That job is cancelled, and then this one starts.
    Replace,
}

/// What becomes of ticks at whose time, and for a while after it, nobody led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are missed.
    None,
    /// The newest is made up for.
    #[default]
    One,
    /// All are made up for, up to [`limits::CATCH_UP_MAX`] of the newest.
    All,
}

/// What a schedule does, as it was put.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub cron: CompactString,
    #[serde(default = "utc")]
    pub time_zone: CompactString,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Each tick is put off by a part of it, which follows from the schedule's name and the tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Millis>,
    pub spec: Arc<JobSpec>,
}

/// `schedule.put`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutRequest {
    pub name: ScheduleName,
    pub cron: CompactString,
    #[serde(default = "utc")]
    pub time_zone: CompactString,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default)]
    pub catch_up: CatchUp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Millis>,
    pub spec: JobSpec,
    #[serde(default)]
    pub paused: bool,
}

fn utc() -> CompactString {
    "UTC".into()
}

/// The other requests about one schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    pub name: ScheduleName,
}

/// `schedule.list`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleListRequest {
    /// Only the one of that name, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<ScheduleName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl PutRequest {
    pub fn into_parts(self) -> (ScheduleName, Definition, bool) {
        let PutRequest { name, cron, time_zone, overlap, catch_up, jitter, spec, paused } = self;
        let spec = Arc::new(spec);
        (name, Definition { cron, time_zone, overlap, catch_up, jitter, spec }, paused)
    }
}

impl Definition {
    /// Checks everything but the expression and the time zone, which the core reads.
    pub fn validate(&self, name: &ScheduleName) -> Result<(), Rejection> {
        let length = name.as_str().len();
        let most = match self.spec.array {
            None => limits::SCHEDULE_NAME_BYTES_MAX,
            Some(_) => limits::ARRAY_SCHEDULE_NAME_BYTES_MAX,
        };
        if length > most {
            let what = format!("has {length} characters; the limit is {most}, for its jobs' names are longer");
            return Err(invalid("name", &what));
        }
        for (field, text) in [("cron", &self.cron), ("time_zone", &self.time_zone)] {
            if text.len() > limits::CRON_BYTES_MAX {
                let what = format!("`{field}` has {} bytes; the limit is {}", text.len(), limits::CRON_BYTES_MAX);
                return Err(Rejection::new(ErrorCode::LimitExceeded, what));
            }
        }
        if let Some(jitter) = self.jitter {
            duration_in_range("jitter", jitter, Millis::ZERO, Millis(limits::JITTER_MS_MAX))?;
        }
        if self.spec.name.is_some() {
            return Err(invalid("spec.name", "is given, but each job of a schedule is named after its tick"));
        }
        if self.spec.start.is_some() {
            return Err(invalid("spec.start", "is given, but a schedule says when its jobs start: use `cron`"));
        }
        self.spec.validate().map_err(|mut rejection| {
            rejection.message = format!("`spec`: {}", rejection.message);
            rejection
        })
    }
}

/// The next tick, and when it is due: later, where there is a jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextTick {
    pub tick: Timestamp,
    pub due_at: Timestamp,
}

/// The schedule is there, and is like this from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSet {
    pub namespace: Namespace,
    pub schedule: ScheduleName,
    pub definition: Arc<Definition>,
    pub paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextTick>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulePaused {
    pub namespace: Namespace,
    pub schedule: ScheduleName,
    /// If not, it is resumed.
    pub paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextTick>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// Its jobs stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleDeleted {
    pub namespace: Namespace,
    pub schedule: ScheduleName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// Where a tick comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TickKind {
    /// Its time has come: the schedule goes on to the next one.
    Due,
    /// It had to wait for the job of an earlier one.
    Waited,
    /// Somebody asked for it.
    Triggered,
}

/// What became of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TickOutcome {
    /// A job was submitted, in the same commit.
    Started,
    /// It waits for the job of an earlier one.
    Queued,
    /// It is let go, for the reason that is given.
    Skipped,
    /// It is let go, for nobody led at its time.
    Missed,
}

impl TickOutcome {
    pub const ALL: [TickOutcome; 4] =
        [TickOutcome::Started, TickOutcome::Queued, TickOutcome::Skipped, TickOutcome::Missed];

    pub fn as_str(self) -> &'static str {
        match self {
            TickOutcome::Started => "started",
            TickOutcome::Queued => "queued",
            TickOutcome::Skipped => "skipped",
            TickOutcome::Missed => "missed",
        }
    }
}

/// A tick was taken. It is told once of each, or twice of one that was queued: first that, and then what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleTicked {
    pub namespace: Namespace,
    pub schedule: ScheduleName,
    pub tick: Timestamp,
    pub kind: TickKind,
    pub outcome: TickOutcome,
    /// How many there were, this one the first; more than one only of those that were missed.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CompactString>,
    /// What comes after it, where it was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextTick>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

fn one() -> u64 {
    1
}

fn is_one(number: &u64) -> bool {
    *number == 1
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleView {
    pub name: ScheduleName,
    pub namespace: Namespace,
    pub cron: CompactString,
    pub time_zone: CompactString,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    pub jitter: Option<Millis>,
    pub paused: bool,
    /// The next ten; none of a schedule that is paused.
    pub next: Vec<Timestamp>,
    pub last: Option<LastTickView>,
    /// Jobs that are not over.
    pub running: Vec<JobId>,
    /// Ticks that wait for those.
    pub queued: Vec<Timestamp>,
    pub started: u64,
    pub skipped: u64,
    /// Ticks at whose time nobody led, and that were not made up for.
    pub missed: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub spec: Arc<JobSpec>,
}

/// The newest tick of which something is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTickView {
    pub tick: Timestamp,
    /// When it was taken.
    pub at: Timestamp,
    pub outcome: TickOutcome,
    pub reason: Option<CompactString>,
    pub job: Option<JobId>,
    /// The job's name.
    pub name: Option<JobName>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleList {
    pub schedules: Vec<ScheduleView>,
    pub cursor: Option<String>,
}
