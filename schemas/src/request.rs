//! The bodies of requests over NATS (contract, section 1). Unknown fields are refused by name.

use crate::array::Indexes;
use crate::id::{ExecutorRef, JobRef, Zone};
use crate::job::{JobSpec, Labels};
use crate::time::{Millis, TimeError, Timestamp};
use crate::view::Status;
use serde::{Deserialize, Serialize};

/// `job.get`, `job.why`, `job.kill`, `job.delete`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    pub job: JobRef,
}

/// `job.submit_many`: all or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitManyRequest {
    pub jobs: Vec<JobSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Vec<Status>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
    /// Every one of these must be among the job's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    Finished,
    Running,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    pub job: JobRef,
    #[serde(default = "finished")]
    pub until: Until,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
}

fn finished() -> Until {
    Until::Finished
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryRequest {
    pub job: JobRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `job.logs`: what the job has written, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogsRequest {
    pub job: JobRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `job.cancel`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    pub job: JobRef,
    /// Of an array these tasks, and not the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexes: Option<Indexes>,
    /// From SIGTERM to SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Millis>,
}

/// `sys.collection.hold`: nothing that is stored is collected for so long from now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    #[serde(rename = "for")]
    pub length: Millis,
}

/// `sys.executor.get`, `sys.executor.undrain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorRequest {
    pub executor: ExecutorRef,
}

/// `sys.executor.drain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainExecutorRequest {
    pub executor: ExecutorRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
}

/// `sys.zone.undrain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneRequest {
    pub zone: Zone,
}

/// `sys.zone.drain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainZoneRequest {
    pub zone: Zone,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
}

/// Until when something is waited for: so long from now (`10m`), or a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    After(Millis),
    At(Timestamp),
}

impl Deadline {
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Deadline::After(length) => now + length,
            Deadline::At(at) => at,
        }
    }
}

impl std::str::FromStr for Deadline {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Deadline, TimeError> {
        Millis::parse(text).map(Deadline::After).or_else(|_| Timestamp::parse(text).map(Deadline::At))
    }
}

impl Serialize for Deadline {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Deadline::After(length) => serializer.collect_str(length),
            Deadline::At(at) => serializer.collect_str(at),
        }
    }
}

impl<'de> Deserialize<'de> for Deadline {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = compact_str::CompactString::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            serde::de::Error::custom(format_args!(
                "`{text}` is neither a duration such as 10m nor a time such as 2026-01-01T00:00:00Z"
            ))
        })
    }
}

/// What a drain waits for last checkpoints where no deadline is given.
pub const DRAIN_DEADLINE_DEFAULT: Millis = Millis::minutes(10);

/// A request without fields: `sys.status`, `sys.executor.list`. An empty body is taken for `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmptyRequest {}

/// What a client may wait for when it cancels (contract: `"10s"`).
pub const GRACE_DEFAULT: Millis = Millis::secs(10);
