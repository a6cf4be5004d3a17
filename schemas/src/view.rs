//! What users see (contract, sections 1 and 3).

use crate::array::TaskCounts;
use crate::event::{Cause, Facts, HistoryEvent};
use crate::executor::Capacity;
use crate::id::{
    Attempt, CheckpointNumber, ExecutorId, ExecutorName, JobId, JobName, JobVersion, Namespace, QueueName,
    ScheduleName, SchedulerName, Sequence, Term, Zone,
};
use crate::job::{JobKind, Labels};
use crate::message::LogEntry;
use crate::payload::Payload;
use crate::queue::{InQueue, Priority};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, not placed.
    Pending,
    /// Placed, restoring.
    Starting,
    Running,
    /// Between attempts; `reason` and `next_try_at` say why and when.
    Restarting,
    Stopping,
    Stopped,
    Updating,
    RollingBack,
    Succeeded,
    Failed,
    Cancelled,
}

impl Status {
    pub const ALL: [Status; 11] = [
        Status::Pending,
        Status::Starting,
        Status::Running,
        Status::Restarting,
        Status::Stopping,
        Status::Stopped,
        Status::Updating,
        Status::RollingBack,
        Status::Succeeded,
        Status::Failed,
        Status::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Restarting => "restarting",
            Status::Stopping => "stopping",
            Status::Stopped => "stopped",
            Status::Updating => "updating",
            Status::RollingBack => "rolling_back",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// Whether the job will never run again.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed | Status::Cancelled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitReply {
    pub id: JobId,
    pub name: JobName,
    pub version: JobVersion,
    pub status: Status,
    /// Whether the request's id had been seen before; then this is the job of that time.
    pub duplicate: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitManyReply {
    pub jobs: Vec<SubmitReply>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    pub id: JobId,
    pub namespace: Namespace,
    pub name: JobName,
    pub kind: JobKind,
    pub version: JobVersion,
    pub status: Status,
    pub reason: Option<String>,
    /// 0 before the first.
    pub attempt: Attempt,
    pub executor: Option<ExecutorName>,
    pub zone: Option<Zone>,
    pub restarts: u32,
    pub checkpoint: Option<CheckpointView>,
    pub last_recovery: Option<RecoveryView>,
    pub next_try_at: Option<Timestamp>,
    pub submitted_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: Option<i32>,
    pub result: Option<Payload>,
    pub labels: Labels,
    #[serde(default)]
    pub queue: QueueName,
    #[serde(default)]
    pub priority: Priority,
    /// Of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskCounts>,
    /// The schedule that it is a tick of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointView {
    pub number: CheckpointNumber,
    pub at: Timestamp,
    pub size_bytes: u64,
    pub uploaded_bytes: u64,
    pub duration_ms: u64,
    pub pause_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryView {
    pub cause: Cause,
    pub from_zone: Option<Zone>,
    pub to_zone: Option<Zone>,
    pub lost_at: Timestamp,
    pub resumed_at: Timestamp,
    pub recovery_ms: u64,
    pub restored_checkpoint: Option<CheckpointNumber>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    pub jobs: Vec<JobView>,
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub events: Vec<HistoryEvent>,
    pub cursor: Option<String>,
    /// What of the job's past is not among the events any more, if anything; said on the first page, and on a later one
    /// of what was purged meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

/// `sys.collection.hold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    pub entries: Vec<LogEntry>,
    /// Give it back to go on from here; there may be more later while the job lives.
    pub cursor: Option<String>,
    /// Whether there was nothing more when this was answered.
    pub end: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    pub status: Status,
    pub summary: String,
    pub reasons: Vec<Refusal>,
    /// Where it stands in its queue, while it waits to be placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<InQueue>,
}

/// Why a job is not on one executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub executor: ExecutorName,
    pub zone: Zone,
    pub refused_because: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorState {
    Ready,
    Suspect,
    Degraded,
    Draining,
    Lost,
}

impl ExecutorState {
    pub const ALL: [ExecutorState; 5] = [
        ExecutorState::Ready,
        ExecutorState::Suspect,
        ExecutorState::Degraded,
        ExecutorState::Draining,
        ExecutorState::Lost,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ExecutorState::Ready => "ready",
            ExecutorState::Suspect => "suspect",
            ExecutorState::Degraded => "degraded",
            ExecutorState::Draining => "draining",
            ExecutorState::Lost => "lost",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorView {
    pub name: ExecutorName,
    pub id: ExecutorId,
    pub zone: Zone,
    pub host: String,
    pub state: ExecutorState,
    pub reason: Option<String>,
    pub capacity: Capacity,
    pub allocated: Capacity,
    pub running: u32,
    pub version: String,
    /// How long ago the last one was heard; nothing where none was, since this leader came.
    pub last_heartbeat_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorList {
    pub executors: Vec<ExecutorView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneState {
    Steady,
    Settling,
    Lost,
    Draining,
}

impl ZoneState {
    pub const ALL: [ZoneState; 4] = [ZoneState::Steady, ZoneState::Settling, ZoneState::Lost, ZoneState::Draining];

    pub fn as_str(self) -> &'static str {
        match self {
            ZoneState::Steady => "steady",
            ZoneState::Settling => "settling",
            ZoneState::Lost => "lost",
            ZoneState::Draining => "draining",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemStatus {
    pub cluster: String,
    pub version: String,
    pub leader: LeaderView,
    pub log: LogView,
    pub zones: Vec<ZoneView>,
    pub jobs: BTreeMap<Status, u64>,
    pub stored: Vec<StoredView>,
    /// Jobs between two attempts, those that are away the longest first; a few of them, `jobs` has their number.
    #[serde(default)]
    pub restarting: Vec<RestartingView>,
    /// Among the placed jobs that have any, the one whose newest checkpoint is the oldest.
    #[serde(default)]
    pub oldest_checkpoint: Option<OldestCheckpointView>,
}

/// A job that is away, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartingView {
    pub id: JobId,
    pub namespace: Namespace,
    pub name: JobName,
    pub reason: Option<String>,
    pub restarts: u32,
    /// Of its last sign of life.
    pub since: Timestamp,
    pub next_try_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldestCheckpointView {
    pub id: JobId,
    pub namespace: Namespace,
    pub name: JobName,
    pub number: CheckpointNumber,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderView {
    pub scheduler: SchedulerName,
    pub zone: Zone,
    pub term: Term,
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    pub first_seq: Sequence,
    pub last_seq: Sequence,
    pub bytes: u64,
    pub stream_leader: Option<String>,
    pub stream_leader_zone: Option<Zone>,
    pub witness_seq: Sequence,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneView {
    pub zone: Zone,
    pub state: ZoneState,
    pub executors: u32,
    pub running: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredView {
    pub kind: String,
    pub bytes: u64,
    pub items: u64,
}

/// What the feed says of an event: enough to follow a job without asking, and nothing secret.
///
/// As it is written; [`FeedEvent`] is what readers make of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FeedEntry {
    pub job: JobId,
    pub name: JobName,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub at: Timestamp,
    pub attempt: Option<Attempt>,
    pub status: Status,
    #[serde(flatten)]
    pub facts: Facts,
}

/// What the feed says of an event, read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedEvent {
    pub job: JobId,
    pub name: JobName,
    #[serde(rename = "type")]
    pub kind: compact_str::CompactString,
    pub at: Timestamp,
    pub attempt: Option<Attempt>,
    pub status: Status,
    #[serde(flatten)]
    pub details: serde_json::Map<String, serde_json::Value>,
}
