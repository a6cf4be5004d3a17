//! When a job begins, when it is given up, and that it is tried again.

use crate::array::Indexes;
use crate::error::{ErrorCode, Rejection};
use crate::id::{Attempt, JobId, JobRef};
use crate::job::{JobKind, JobSpec, NOT_WITHIN, duration_in_range, invalid};
use crate::limits;
use crate::request::ListRequest;
use crate::time::{Millis, Timestamp};
use compact_str::{CompactString, format_compact};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Not before when a job's first attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// A time that is over means at once.
    At(Timestamp),
    /// From when the job was accepted.
    Delay(Millis),
}

impl Start {
    /// When that is, for a job that was accepted then.
    pub fn from(self, accepted: Timestamp) -> Timestamp {
        match self {
            Start::At(at) => at.max(accepted),
            Start::Delay(delay) => accepted + delay,
        }
    }

    fn validate(self) -> Result<(), Rejection> {
        match self {
            Start::At(at) if at > limits::START_AT_MAX => {
                Err(invalid("start.at", &format!("is {at}, which is after {}", limits::START_AT_MAX)))
            }
            Start::At(_) => Ok(()),
            Start::Delay(delay) => {
                duration_in_range("start.delay", delay, Millis::ZERO, Millis(limits::DURATION_MS_MAX))
            }
        }
    }
}

/// When a job that did not get so far is given up, from when it may begin: from its acceptance, or from its `start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GiveUp {
    /// By then a process of it must have been started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_within: Option<Millis>,
    /// By then it must be over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_within: Option<Millis>,
}

impl GiveUp {
    fn validate(self, kind: JobKind) -> Result<(), Rejection> {
        let range = |field, given: Option<Millis>| match given {
            Some(given) => duration_in_range(field, given, Millis(1), Millis(limits::DURATION_MS_MAX)),
            None => Ok(()),
        };
        range("deadline.start_within", self.start_within)?;
        range("deadline.finish_within", self.finish_within)?;
        match (self.start_within, self.finish_within) {
            (None, None) => Err(invalid("deadline", "is empty: give `start_within`, `finish_within` or both")),
            (_, Some(_)) if kind == JobKind::Service => Err(Rejection::new(
                ErrorCode::Unsupported,
                "`deadline.finish_within` is given, but a service runs until it is stopped: use kind batch",
            )),
            (Some(start), Some(finish)) if start > finish => {
                let what = format!("is {start}, which is longer than `deadline.finish_within`, {finish}");
                Err(invalid("deadline.start_within", &what))
            }
            _ => Ok(()),
        }
    }
}

/// Checks what a specification says of times.
pub(crate) fn validate(spec: &JobSpec) -> Result<(), Rejection> {
    spec.start.map_or(Ok(()), Start::validate)?;
    spec.deadline.map_or(Ok(()), |deadline| deadline.validate(spec.kind))?;
    match spec.progress_timeout {
        Some(_) if !spec.keeps_state() => Err(Rejection::new(
            ErrorCode::Unsupported,
            "`progress_timeout` is given, but a noop job writes nothing: leave it out, or use the process driver",
        )),
        Some(silence) => {
            let (min, max) = (Millis(limits::PROGRESS_TIMEOUT_MS_MIN), Millis(limits::DURATION_MS_MAX));
            duration_in_range("progress_timeout", silence, min, max)
        }
        None => Ok(()),
    }
}

/// Which of a job's deadlines it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deadline {
    Start,
    Finish,
}

impl Deadline {
    /// Why a job that was given up has failed. `within` is what its specification says.
    pub fn reason(self, within: Millis) -> CompactString {
        match self {
            Deadline::Start => format_compact!("deadline: it was not started within {within} (start_within)"),
            Deadline::Finish => format_compact!("deadline: it was not finished within {within} (finish_within)"),
        }
    }
}

/// A set of exit codes, from 1 to 255. In text and in the log: a list of numbers that rise.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitCodes([u64; 4]);

impl ExitCodes {
    pub fn is_empty(&self) -> bool {
        *self == ExitCodes::default()
    }

    pub fn contains(&self, code: i32) -> bool {
        u8::try_from(code).is_ok_and(|code| self.0[usize::from(code / 64)] & (1 << (code % 64)) != 0)
    }

    pub fn insert(&mut self, code: u8) {
        self.0[usize::from(code / 64)] |= 1 << (code % 64);
    }

    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (1..=u8::MAX).filter(|code| self.contains(i32::from(*code)))
    }
}

impl FromIterator<u8> for ExitCodes {
    fn from_iter<I: IntoIterator<Item = u8>>(codes: I) -> Self {
        let mut set = ExitCodes::default();
        codes.into_iter().for_each(|code| set.insert(code));
        set
    }
}

impl fmt::Debug for ExitCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for ExitCodes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for ExitCodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Vec::<i64>::deserialize(deserializer)?;
        let mut set = ExitCodes::default();
        for code in given {
            match u8::try_from(code) {
                Ok(code @ 1..) => set.insert(code),
                _ => return Err(serde::de::Error::custom(format_args!("{code} is an exit code{NOT_WITHIN}1 to 255"))),
            }
        }
        Ok(set)
    }
}

/// The job's attempt is ended, for a deadline of the job's is over. Where it has none, the job has failed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadlinePassed {
    pub job: JobId,
    pub attempt: Attempt,
    pub deadline: Deadline,
    /// When it was over.
    pub due_at: Timestamp,
}

/// A job that was over is tried again: its failures are forgotten, its past and its state are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRetried {
    pub job: JobId,
    /// The one that ended it.
    pub attempt: Attempt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// `job.retry`, `job.delete`: one job, or those that a filter finds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<ListRequest>,
    /// Of an array these tasks, and not the whole. For `job.retry` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexes: Option<Indexes>,
}

/// What a [`SelectRequest`] means.
#[derive(Clone, Debug)]
pub enum Selection {
    Job(JobRef),
    Filter(ListRequest),
    Tasks(JobRef, Indexes),
}

impl SelectRequest {
    pub fn selection(self) -> Result<Selection, Rejection> {
        match (self.job, self.filter, self.indexes) {
            (Some(_), Some(_), _) => Err(invalid("filter", "is given beside `job`: give one of them")),
            (Some(job), None, None) => Ok(Selection::Job(job)),
            (Some(job), None, Some(tasks)) => Ok(Selection::Tasks(job, tasks)),
            (None, Some(filter), None) => Ok(Selection::Filter(filter)),
            (None, _, Some(tasks)) => {
                let what =
                    format!("is {}, and `job` is missing: give the array whose tasks these are", tasks.summary());
                Err(invalid("indexes", &what))
            }
            (None, None, None) => Err(invalid("job", "is missing: give `job`, or a `filter` as job.list takes it")),
        }
    }
}

/// The reply to `job.retry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    pub retried: u64,
    /// Jobs that the filter found and that a live job of the same name keeps from being tried again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// There may be more: ask again with it in the filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The reply to `job.delete` with a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedMany {
    pub deleted: u64,
    /// There may be more: ask again with it in the filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::{SelectRequest, Selection};
    use crate::job::JobSpec;

    fn checked(json: &str) -> Result<JobSpec, String> {
        let text = format!(r#"{{"driver":{{"process":{{"command":["true"]}}}},{json}}}"#);
        let spec: JobSpec = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        spec.validate().map_err(|rejection| format!("{}: {}", rejection.code.as_str(), rejection.message))?;
        Ok(spec)
    }

    #[track_caller]
    fn refused(json: &str, part: &str) {
        let refused = checked(json).expect_err(json);
        assert!(refused.contains(part), "{json}: {refused}");
    }

    #[test]
    fn the_contracts_forms_are_taken_and_come_back_the_same() {
        for json in [
            r#""start":{"at":"2026-12-24T18:00:00.000Z"}"#,
            r#""start":{"delay":"10m"}"#,
            r#""deadline":{"start_within":"1h","finish_within":"6h"}"#,
            r#""progress_timeout":"10m""#,
        ] {
            let spec = checked(json).expect(json);
            let text = serde_json::to_string(&spec).expect("text");
            assert!(text.contains(json), "{text}");
            let binary = rmp_serde::to_vec_named(&spec).expect("msgpack");
            assert_eq!(rmp_serde::from_slice::<JobSpec>(&binary).expect("back"), spec);
        }
        let spec = checked(r#""restart":{"no_retry_exit_codes":[64,2,255,1]}"#).expect("codes");
        let codes = spec.restart.no_retry_exit_codes;
        assert_eq!(codes.iter().collect::<Vec<_>>(), [1, 2, 64, 255]);
        assert!(codes.contains(255) && !codes.contains(256) && !codes.contains(-1) && !codes.contains(3));
        let binary = rmp_serde::to_vec_named(&spec).expect("msgpack");
        assert_eq!(rmp_serde::from_slice::<JobSpec>(&binary).expect("back"), spec);
    }

    #[test]
    fn a_selection_is_one_of_its_kinds() {
        let select = |json: &str| {
            let request: SelectRequest = serde_json::from_str(json).map_err(|e| e.to_string())?;
            request.selection().map_err(|rejection| rejection.message)
        };
        assert!(matches!(select(r#"{"job":"a"}"#), Ok(Selection::Job(_))));
        assert!(matches!(select(r#"{"filter":{}}"#), Ok(Selection::Filter(_))));
        let Ok(Selection::Tasks(job, tasks)) = select(r#"{"job":"a","indexes":"9,3,7-8"}"#) else { panic!("no tasks") };
        assert_eq!((job.to_string().as_str(), tasks.to_string().as_str()), ("a", "3,7-9"));
        for (json, part) in [
            (r#"{}"#, "`job` is missing"),
            (r#"{"job":"a","filter":{}}"#, "`filter` is given beside `job`"),
            (r#"{"indexes":"3"}"#, "`indexes` is 3, and `job` is missing: give the array"),
            (r#"{"filter":{},"indexes":"3"}"#, "`indexes` is 3, and `job` is missing"),
            (r#"{"job":"a","indexes":"9-3"}"#, "`9-3` is no set of indexes below 100000, such as 3,7-9"),
            (r#"{"job":"a","indexes":3}"#, "expected a string"),
        ] {
            let refused = select(json).expect_err(json);
            assert!(refused.contains(part), "{json}: {refused}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        refused(r#""start":{"delay":"10m","at":"2026-12-24T18:00:00Z"}"#, "");
        refused(r#""start":{"in":"10m"}"#, "expected `at` or `delay`");
        refused(r#""start":{"at":"9999-01-01T00:00:00Z"}"#, "`start.at` is 9999");
        refused(r#""start":{"delay":"100000h"}"#, "`start.delay`");
        refused(r#""deadline":{}"#, "`deadline` is empty");
        refused(r#""deadline":{"start_within":"0s"}"#, "`deadline.start_within` is 0s");
        refused(r#""deadline":{"start_within":"2h","finish_within":"1h"}"#, "longer than `deadline.finish_within`");
        refused(r#""kind":"service","deadline":{"finish_within":"1h"}"#, "unsupported: `deadline.finish_within`");
        refused(r#""progress_timeout":"1ms""#, "`progress_timeout` is 1ms, not within 1s");
        refused(r#""restart":{"no_retry_exit_codes":[0]}"#, "0 is an exit code, not within 1 to 255");
        refused(r#""restart":{"no_retry_exit_codes":[256]}"#, "256 is an exit code, not within");
        let noop = r#"{"driver":{"noop":{}},"progress_timeout":"10m"}"#;
        let noop: JobSpec = serde_json::from_str(noop).expect("a spec");
        assert!(noop.validate().expect_err("a noop").message.contains("`progress_timeout`"));
    }
}
