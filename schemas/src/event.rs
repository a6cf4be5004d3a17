//! Facts: what has happened, as the log keeps it for ever.
//!
//! On the wire an event's tag carries its version (`job_placed/1`). A shape that has been released never changes: a
//! new one gets the next number, and the old one is turned into it on decoding. A tag that is not known stops the
//! reader with its name; nothing is skipped. The frozen bytes of every version are in `golden/`.

use crate::array::{ArrayAdvanced, ArrayCancelRequested, ArrayTasksCancelled, ArrayTasksRetried, Indexes};
use crate::checkpoint::Taken;
use crate::command::{LossReason, Stop};
use crate::depend::{DependenciesMet, JobDepends};
use crate::executor::{Capacity, DriverKind, Registration};
use crate::id::{
    Attempt, CheckpointNumber, ExecutorId, ExecutorName, JobId, Namespace, SchedulerName, Sequence, Term, Zone,
};
use crate::job::{JobKind, JobSpec, Labels};
use crate::life::{
    BaseReplaced, JobStopped, RollbackBegun, StartRequested, StopFailed, StopRequested, UpdateFailed, UpdateRequested,
    VersionProven, VersionRestored, VersionStarted,
};
use crate::payload::Payload;
use crate::queue::{JobPreempted, QueueDeleted, QueuePut};
use crate::schedule::{ScheduleDeleted, SchedulePaused, ScheduleSet, ScheduleTicked};
use crate::snapshot::{
    SnapshotCompleted, SnapshotDeleted, SnapshotDeletionRequested, SnapshotFailed, SnapshotRequested,
};
use crate::time::Timestamp;
use crate::view::Status;
use crate::when::{DeadlinePassed, JobRetried};
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use std::sync::Arc;

/// An event with when it happened and who asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The leader's clock, read once as the command was decided.
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<CompactString>,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The barrier that opens a term. Nothing of a lower term comes after it.
    #[serde(rename = "term_started/1")]
    TermStarted(TermStarted),
    /// The log goes on without acknowledged commits that it lost, because an operator said so.
    #[serde(rename = "loss_accepted/1")]
    LossAccepted(LossAccepted),
    /// Until then nothing is collected: somebody copies what is stored.
    #[serde(rename = "collection_held/1")]
    CollectionHeld(CollectionHeld),

    #[serde(rename = "executor_joined/1")]
    ExecutorJoined(#[serde(deserialize_with = "joined")] Registration),
    /// The executor's attempts are taken off it by the events that follow, each on its own.
    #[serde(rename = "executor_lost/1")]
    ExecutorLost(ExecutorLost),
    /// Executors of this name give back what they hold and get nothing, until they are undrained.
    #[serde(rename = "executor_draining/1")]
    ExecutorDraining(ExecutorDraining),
    #[serde(rename = "executor_undrained/1")]
    ExecutorUndrained(ExecutorUndrained),

    /// As for executors, for all that are or come in the zone.
    #[serde(rename = "zone_draining/1")]
    ZoneDraining(ZoneDraining),
    #[serde(rename = "zone_undrained/1")]
    ZoneUndrained(ZoneNamed),
    /// All executors of the zone were lost together. It gets nothing until it has been steady again.
    #[serde(rename = "zone_lost/1")]
    ZoneLost(ZoneLost),
    /// A zone that was lost has been steady for long enough.
    #[serde(rename = "zone_steady/1")]
    ZoneSteady(ZoneNamed),

    /// → there, as it says.
    #[serde(rename = "schedule_set/1")]
    ScheduleSet(ScheduleSet),
    /// The schedule is paused, or resumed.
    #[serde(rename = "schedule_paused/1")]
    SchedulePaused(SchedulePaused),
    /// → forgotten.
    #[serde(rename = "schedule_deleted/1")]
    ScheduleDeleted(ScheduleDeleted),
    /// A tick was taken; where a job was submitted for it, that stands before it in the same commit.
    #[serde(rename = "schedule_ticked/1")]
    ScheduleTicked(ScheduleTicked),

    /// → pending.
    #[serde(rename = "job_submitted/1")]
    JobSubmitted(JobSubmitted),
    /// pending, running → running; stopping stays.
    #[serde(rename = "array_advanced/1")]
    ArrayAdvanced(ArrayAdvanced),
    /// pending, running, stopping → stopping.
    #[serde(rename = "array_cancel_requested/1")]
    ArrayCancelRequested(ArrayCancelRequested),
    /// pending, running, stopping: no change of status.
    #[serde(rename = "array_tasks_cancelled/1")]
    ArrayTasksCancelled(ArrayTasksCancelled),
    /// pending, running: no change of status; failed, cancelled → pending.
    #[serde(rename = "array_tasks_retried/1")]
    ArrayTasksRetried(ArrayTasksRetried),
    /// pending: no change of status. It waits for others.
    #[serde(rename = "job_depends/1")]
    JobDepends(JobDepends),
    /// pending: no change of status. It waits for nothing but room now.
    #[serde(rename = "dependencies_met/1")]
    DependenciesMet(DependenciesMet),
    /// pending, restarting → starting.
    #[serde(rename = "job_placed/1")]
    JobPlaced(JobPlaced),
    /// starting → running; stopping stays.
    #[serde(rename = "attempt_started/1")]
    AttemptStarted(AttemptStarted),
    /// starting, running → restarting. The attempt is over; another follows at `next_try_at`.
    #[serde(rename = "job_restarting/1")]
    JobRestarting(JobRestarting),
    /// starting, running → stopping.
    #[serde(rename = "cancel_requested/1")]
    CancelRequested(CancelRequested),
    /// Any status that is not final → succeeded, failed, cancelled.
    #[serde(rename = "job_finished/1")]
    JobFinished(JobFinished),
    /// starting, running, restarting, updating, rolling_back → stopping.
    #[serde(rename = "deadline_passed/1")]
    DeadlinePassed(DeadlinePassed),
    /// failed, cancelled → pending.
    #[serde(rename = "job_retried/1")]
    JobRetried(JobRetried),
    /// A final status → forgotten.
    #[serde(rename = "job_deleted/1")]
    JobDeleted(JobDeleted),
    /// Nothing that the deleted job left is there any more: its key, its blobs, its output.
    #[serde(rename = "job_erased/1")]
    JobErased(JobErased),

    /// running, stopping: no change of status.
    #[serde(rename = "checkpoint_completed/1")]
    CheckpointCompleted(CheckpointCompleted),
    /// running, stopping: no change of status.
    #[serde(rename = "checkpoint_failed/1")]
    CheckpointFailed(CheckpointFailed),
    /// starting: the checkpoint is not offered again; the one before it is.
    #[serde(rename = "checkpoint_unreadable/1")]
    CheckpointUnreadable(CheckpointUnreadable),

    /// → creating (the snapshot; the job stays as it is).
    #[serde(rename = "snapshot_requested/1")]
    SnapshotRequested(SnapshotRequested),
    /// creating → ready.
    #[serde(rename = "snapshot_completed/1")]
    SnapshotCompleted(SnapshotCompleted),
    /// creating → failed.
    #[serde(rename = "snapshot_failed/1")]
    SnapshotFailed(SnapshotFailed),
    /// ready, failed → deleting.
    #[serde(rename = "snapshot_deletion_requested/1")]
    SnapshotDeletionRequested(SnapshotDeletionRequested),
    /// Any status → forgotten.
    #[serde(rename = "snapshot_deleted/1")]
    SnapshotDeleted(SnapshotDeleted),
    /// Any status that is not final → stopping.
    #[serde(rename = "stop_requested/1")]
    StopRequested(StopRequested),
    /// stopping → running.
    #[serde(rename = "stop_failed/1")]
    StopFailed(StopFailed),
    /// Any status that is not final → stopped.
    #[serde(rename = "job_stopped/1")]
    JobStopped(JobStopped),
    /// stopped → starting.
    #[serde(rename = "start_requested/1")]
    StartRequested(StartRequested),
    /// starting: no change of status.
    #[serde(rename = "base_replaced/1")]
    BaseReplaced(BaseReplaced),
    /// pending, stopped: no change; starting, running, restarting → updating.
    #[serde(rename = "update_requested/1")]
    UpdateRequested(UpdateRequested),
    /// updating → running.
    #[serde(rename = "update_failed/1")]
    UpdateFailed(UpdateFailed),
    /// pending, stopped: no change; updating stays.
    #[serde(rename = "version_started/1")]
    VersionStarted(VersionStarted),
    /// updating → running.
    #[serde(rename = "version_proven/1")]
    VersionProven(VersionProven),
    /// running, restarting, starting, updating → rolling_back.
    #[serde(rename = "rollback_begun/1")]
    RollbackBegun(RollbackBegun),
    /// rolling_back stays.
    #[serde(rename = "version_restored/1")]
    VersionRestored(VersionRestored),

    /// A queue is there, or set up anew.
    #[serde(rename = "queue_put/1")]
    QueuePut(QueuePut),
    #[serde(rename = "queue_deleted/1")]
    QueueDeleted(QueueDeleted),
    /// running → pending.
    #[serde(rename = "job_preempted/1")]
    JobPreempted(JobPreempted),
}

/// A registration as `executor_joined/1` holds it. In etcd an executor may say more than this version knows; in the log
/// every field counts, and one that is not known stops the reader.
#[derive(Deserialize)]
#[serde(remote = "Registration", deny_unknown_fields)]
struct Joined {
    id: ExecutorId,
    name: ExecutorName,
    zone: Zone,
    host: String,
    capacity: Capacity,
    #[serde(default)]
    labels: Labels,
    drivers: Vec<DriverKind>,
    version: String,
}

fn joined<'de, D: Deserializer<'de>>(from: D) -> Result<Registration, D::Error> {
    Joined::deserialize(from)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermStarted {
    pub term: Term,
    pub scheduler: SchedulerName,
    pub zone: Zone,
    /// Of the program.
    pub version: CompactString,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorLost {
    pub executor: ExecutorId,
    pub reason: LossReason,
    pub last_seen: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorDraining {
    /// By name, so that a restart of the executor does not undo it.
    pub name: ExecutorName,
    /// What could not be given back with its state by then is taken off without.
    pub deadline: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorUndrained {
    pub name: ExecutorName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneDraining {
    pub zone: Zone,
    pub deadline: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneNamed {
    pub zone: Zone,
    /// Where somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneLost {
    pub zone: Zone,
    /// How many were lost together.
    pub executors: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSubmitted {
    pub job: JobId,
    pub namespace: Namespace,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
    pub spec: Arc<JobSpec>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPlaced {
    pub job: JobId,
    pub attempt: Attempt,
    pub executor: ExecutorId,
    pub name: ExecutorName,
    pub zone: Zone,
    /// What the attempt starts from; nothing means an empty state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<CheckpointNumber>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptStarted {
    pub job: JobId,
    pub attempt: Attempt,
    /// When the process was started.
    pub started_at: Timestamp,
}

/// Why a job had to be recovered (contract, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    ProcessExit,
    ExecutorLost,
    HostDegraded,
    ZoneLost,
    Drain,
    Timeout,
    Update,
    /// Its output stopped for as long as its `progress_timeout`.
    NoProgress,
    /// Between schedulers and executors only: in the log it is an event of its own, and no recovery.
    Preemption,
}

impl Cause {
    /// Whether the job itself brought its attempt to an end, rather than what it ran on.
    pub fn is_own_doing(self) -> bool {
        matches!(self, Cause::ProcessExit | Cause::Timeout | Cause::NoProgress)
    }

    /// Those of recoveries.
    pub const ALL: [Cause; 8] = [
        Cause::ProcessExit,
        Cause::ExecutorLost,
        Cause::HostDegraded,
        Cause::ZoneLost,
        Cause::Drain,
        Cause::Timeout,
        Cause::Update,
        Cause::NoProgress,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::ProcessExit => "process_exit",
            Cause::ExecutorLost => "executor_lost",
            Cause::HostDegraded => "host_degraded",
            Cause::ZoneLost => "zone_lost",
            Cause::Drain => "drain",
            Cause::Timeout => "timeout",
            Cause::Update => "update",
            Cause::NoProgress => "no_progress",
            Cause::Preemption => "preemption",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRestarting {
    pub job: JobId,
    pub attempt: Attempt,
    pub cause: Cause,
    /// For people.
    pub reason: CompactString,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Attempts that ended by the job's own doing, as `max_attempts` counts them: a healthy stretch begins the count
    /// anew, except for a batch job that has so many.
    pub failures: u32,
    /// The last sign of life of the attempt: its executor's last heartbeat, or its exit.
    pub lost_at: Timestamp,
    pub next_try_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequested {
    pub job: JobId,
    pub attempt: Attempt,
    pub how: Stop,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFinished {
    pub job: JobId,
    /// 0 where the job never was placed.
    pub attempt: Attempt,
    /// `succeeded`, `failed` or `cancelled`.
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CompactString>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Where the attempt's start had not been reported before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Payload>,
    /// Of the request that cancelled it, where no executor had to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobDeleted {
    pub job: JobId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobErased {
    pub job: JobId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossAccepted {
    /// Where the log ended.
    pub log_end: Sequence,
    /// What had been acknowledged, by the witness; nothing where that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<Sequence>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionHeld {
    pub until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointCompleted {
    pub job: JobId,
    pub attempt: Attempt,
    pub number: CheckpointNumber,
    pub taken: Taken,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointFailed {
    pub job: JobId,
    pub attempt: Attempt,
    pub reason: CompactString,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointUnreadable {
    pub job: JobId,
    pub attempt: Attempt,
    pub number: CheckpointNumber,
    pub reason: CompactString,
}

impl Event {
    /// The type as people and the feed see it: without the version.
    pub fn type_name(&self) -> &'static str {
        match self {
            Event::TermStarted(_) => "term_started",
            Event::ExecutorJoined(_) => "executor_joined",
            Event::ExecutorLost(_) => "executor_lost",
            Event::ExecutorDraining(_) => "executor_draining",
            Event::ExecutorUndrained(_) => "executor_undrained",
            Event::ZoneDraining(_) => "zone_draining",
            Event::ZoneUndrained(_) => "zone_undrained",
            Event::ZoneLost(_) => "zone_lost",
            Event::ZoneSteady(_) => "zone_steady",
            Event::ScheduleSet(_) => "schedule_set",
            Event::SchedulePaused(_) => "schedule_paused",
            Event::ScheduleDeleted(_) => "schedule_deleted",
            Event::ScheduleTicked(_) => "schedule_ticked",
            Event::JobSubmitted(_) => "job_submitted",
            Event::ArrayAdvanced(_) => "array_advanced",
            Event::ArrayCancelRequested(_) => "array_cancel_requested",
            Event::ArrayTasksCancelled(_) => "array_tasks_cancelled",
            Event::ArrayTasksRetried(_) => "array_tasks_retried",
            Event::JobDepends(_) => "job_depends",
            Event::DependenciesMet(_) => "dependencies_met",
            Event::JobPlaced(_) => "job_placed",
            Event::AttemptStarted(_) => "attempt_started",
            Event::JobRestarting(_) => "job_restarting",
            Event::CancelRequested(_) => "cancel_requested",
            Event::JobFinished(_) => "job_finished",
            Event::DeadlinePassed(_) => "deadline_passed",
            Event::JobRetried(_) => "job_retried",
            Event::JobDeleted(_) => "job_deleted",
            Event::JobErased(_) => "job_erased",
            Event::LossAccepted(_) => "loss_accepted",
            Event::CollectionHeld(_) => "collection_held",
            Event::CheckpointCompleted(_) => "checkpoint_completed",
            Event::CheckpointFailed(_) => "checkpoint_failed",
            Event::CheckpointUnreadable(_) => "checkpoint_unreadable",
            Event::SnapshotRequested(_) => "snapshot_requested",
            Event::SnapshotCompleted(_) => "snapshot_completed",
            Event::SnapshotFailed(_) => "snapshot_failed",
            Event::SnapshotDeletionRequested(_) => "snapshot_deletion_requested",
            Event::SnapshotDeleted(_) => "snapshot_deleted",
            Event::StopRequested(_) => "stop_requested",
            Event::StopFailed(_) => "stop_failed",
            Event::JobStopped(_) => "job_stopped",
            Event::StartRequested(_) => "start_requested",
            Event::BaseReplaced(_) => "base_replaced",
            Event::UpdateRequested(_) => "update_requested",
            Event::UpdateFailed(_) => "update_failed",
            Event::VersionStarted(_) => "version_started",
            Event::VersionProven(_) => "version_proven",
            Event::RollbackBegun(_) => "rollback_begun",
            Event::VersionRestored(_) => "version_restored",
            Event::QueuePut(_) => "queue_put",
            Event::QueueDeleted(_) => "queue_deleted",
            Event::JobPreempted(_) => "job_preempted",
        }
    }

    /// The job it is about.
    pub fn job(&self) -> Option<JobId> {
        match self {
            Event::TermStarted(_)
            | Event::LossAccepted(_)
            | Event::CollectionHeld(_)
            | Event::ExecutorJoined(_)
            | Event::ExecutorLost(_)
            | Event::ExecutorDraining(_)
            | Event::ExecutorUndrained(_)
            | Event::ZoneDraining(_)
            | Event::ZoneUndrained(_)
            | Event::ZoneLost(_)
            | Event::ZoneSteady(_)
            | Event::QueuePut(_)
            | Event::QueueDeleted(_)
            | Event::ScheduleSet(_)
            | Event::SchedulePaused(_)
            | Event::ScheduleDeleted(_) => None,
            Event::ScheduleTicked(e) => e.job,
            Event::JobSubmitted(e) => Some(e.job),
            Event::ArrayAdvanced(e) => Some(e.job),
            Event::ArrayCancelRequested(e) => Some(e.job),
            Event::ArrayTasksCancelled(e) => Some(e.job),
            Event::ArrayTasksRetried(e) => Some(e.job),
            Event::JobDepends(e) => Some(e.job),
            Event::DependenciesMet(e) => Some(e.job),
            Event::JobPlaced(e) => Some(e.job),
            Event::AttemptStarted(e) => Some(e.job),
            Event::JobRestarting(e) => Some(e.job),
            Event::CancelRequested(e) => Some(e.job),
            Event::JobFinished(e) => Some(e.job),
            Event::DeadlinePassed(e) => Some(e.job),
            Event::JobRetried(e) => Some(e.job),
            Event::JobDeleted(e) => Some(e.job),
            Event::JobErased(e) => Some(e.job),
            Event::CheckpointCompleted(e) => Some(e.job),
            Event::CheckpointFailed(e) => Some(e.job),
            Event::CheckpointUnreadable(e) => Some(e.job),
            Event::SnapshotRequested(e) => Some(e.job),
            Event::SnapshotCompleted(e) => Some(e.job),
            Event::SnapshotFailed(e) => Some(e.job),
            Event::SnapshotDeletionRequested(e) => Some(e.job),
            Event::SnapshotDeleted(e) => Some(e.job),
            Event::StopRequested(e) => Some(e.job),
            Event::StopFailed(e) => Some(e.job),
            Event::JobStopped(e) => Some(e.job),
            Event::StartRequested(e) => Some(e.job),
            Event::BaseReplaced(e) => Some(e.job),
            Event::UpdateRequested(e) => Some(e.job),
            Event::UpdateFailed(e) => Some(e.job),
            Event::VersionStarted(e) => Some(e.job),
            Event::VersionProven(e) => Some(e.job),
            Event::RollbackBegun(e) => Some(e.job),
            Event::VersionRestored(e) => Some(e.job),
            Event::JobPreempted(e) => Some(e.job),
        }
    }

    /// The attempt it is about; nothing for a submission or a deletion.
    pub fn attempt(&self) -> Option<Attempt> {
        let attempt = match self {
            Event::JobPlaced(e) => e.attempt,
            Event::AttemptStarted(e) => e.attempt,
            Event::JobRestarting(e) => e.attempt,
            Event::CancelRequested(e) => e.attempt,
            Event::JobFinished(e) => e.attempt,
            Event::DeadlinePassed(e) => e.attempt,
            Event::JobRetried(e) => e.attempt,
            Event::CheckpointCompleted(e) => e.attempt,
            Event::CheckpointFailed(e) => e.attempt,
            Event::CheckpointUnreadable(e) => e.attempt,
            Event::StopRequested(e) => e.attempt,
            Event::StopFailed(e) => e.attempt,
            Event::JobStopped(e) => e.attempt,
            Event::UpdateRequested(e) => e.attempt,
            Event::UpdateFailed(e) => e.attempt,
            Event::VersionStarted(e) => e.attempt,
            Event::VersionProven(e) => e.attempt,
            Event::RollbackBegun(e) => e.attempt,
            Event::VersionRestored(e) => e.attempt,
            Event::JobPreempted(e) => e.attempt,
            _ => return None,
        };
        (attempt != Attempt(0)).then_some(attempt)
    }

    /// What else a person or a dashboard wants to know. Holds no payload and no environment: these are secret.
    pub fn details(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self.facts()) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        }
    }

    /// The same, ready to be written. Every job has three of these at least, and a busy leader makes a hundred
    /// thousand a second: so those three are kept as they are instead of being made into a map.
    pub fn facts(&self) -> Facts {
        let value = match self {
            Event::JobSubmitted(e) => return Facts::Submitted { kind: e.spec.kind, driver: e.spec.driver.kind() },
            Event::JobPlaced(e) => {
                return Facts::Placed { executor: e.name.clone(), zone: e.zone.clone(), restore: e.restore };
            }
            Event::JobFinished(e) => {
                return Facts::Finished { reason: e.reason.clone(), exit_code: e.exit_code, outcome: e.status };
            }
            Event::TermStarted(e) => json!({"term": e.term, "scheduler": e.scheduler, "zone": e.zone}),
            Event::ExecutorJoined(e) => json!({"executor": e.name, "zone": e.zone}),
            Event::ExecutorLost(e) => json!({"executor": e.executor, "reason": e.reason, "last_seen": e.last_seen}),
            Event::ExecutorDraining(e) => json!({"executor": e.name, "deadline": e.deadline}),
            Event::ExecutorUndrained(e) => json!({"executor": e.name}),
            Event::ZoneDraining(e) => json!({"zone": e.zone, "deadline": e.deadline}),
            Event::ZoneUndrained(e) | Event::ZoneSteady(e) => json!({"zone": e.zone}),
            Event::ZoneLost(e) => json!({"zone": e.zone, "executors": e.executors}),
            Event::ScheduleSet(e) => json!({
                "schedule": e.schedule, "cron": e.definition.cron, "time_zone": e.definition.time_zone,
                "paused": e.paused, "next": e.next.map(|next| next.tick),
            }),
            Event::SchedulePaused(e) => json!({"schedule": e.schedule, "paused": e.paused}),
            Event::ScheduleDeleted(e) => json!({"schedule": e.schedule}),
            Event::ScheduleTicked(e) => json!({
                "schedule": e.schedule, "tick": e.tick, "kind": e.kind, "outcome": e.outcome, "reason": e.reason,
            }),
            Event::AttemptStarted(e) => json!({"started_at": e.started_at}),
            Event::JobRestarting(e) => json!({
                "cause": e.cause, "reason": e.reason, "exit_code": e.exit_code, "failures": e.failures,
                "lost_at": e.lost_at, "next_try_at": e.next_try_at,
            }),
            Event::CancelRequested(e) => json!({"how": e.how}),
            Event::DeadlinePassed(e) => json!({"deadline": e.deadline, "due_at": e.due_at}),
            Event::JobRetried(_) | Event::JobDeleted(_) | Event::JobErased(_) | Event::DependenciesMet(_) => json!({}),
            Event::JobDepends(e) => json!({"parents": e.parents}),
            Event::ArrayAdvanced(e) => {
                let shown = |set: &Indexes| (!set.is_empty()).then(|| set.to_string());
                json!({"ended": shown(&e.ended), "released": shown(&e.released), "told": shown(&e.told)})
            }
            Event::ArrayCancelRequested(e) => json!({"how": e.how}),
            Event::ArrayTasksCancelled(ArrayTasksCancelled { tasks, .. })
            | Event::ArrayTasksRetried(ArrayTasksRetried { tasks, .. }) => json!({"tasks": tasks}),
            Event::LossAccepted(e) => json!({"log_end": e.log_end, "witnessed": e.witnessed}),
            Event::CollectionHeld(e) => json!({"until": e.until}),
            Event::CheckpointCompleted(e) => json!({
                "checkpoint": e.number, "size_bytes": e.taken.size_bytes, "uploaded_bytes": e.taken.uploaded_bytes,
                "duration_ms": e.taken.duration_ms, "pause_ms": e.taken.pause_ms,
            }),
            Event::CheckpointFailed(e) => json!({"reason": e.reason}),
            Event::CheckpointUnreadable(e) => json!({"checkpoint": e.number, "reason": e.reason}),
            Event::SnapshotRequested(e) => json!({
                "snapshot": e.name, "purpose": e.purpose, "version": e.version, "give_up_at": e.give_up_at,
            }),
            Event::SnapshotCompleted(e) => json!({
                "snapshot": e.name, "checkpoint": e.content.map(|c| c.number),
                "size_bytes": e.content.map_or(0, |c| c.taken.size_bytes),
            }),
            Event::SnapshotFailed(e) => json!({"snapshot": e.name, "reason": e.reason}),
            Event::SnapshotDeletionRequested(e) => json!({"snapshot": e.name}),
            Event::SnapshotDeleted(e) => json!({"snapshot": e.name}),
            Event::StopRequested(e) => json!({"force": e.force, "snapshot": e.snapshot}),
            Event::StopFailed(e) => json!({"reason": e.reason}),
            Event::JobStopped(e) => json!({"reason": e.reason, "exit_code": e.exit_code, "snapshot": e.snapshot}),
            Event::StartRequested(e) => json!({"restore": e.restore, "from": e.base.described()}),
            Event::BaseReplaced(e) => json!({"reason": e.reason, "from": e.base.described()}),
            Event::UpdateRequested(e) => json!({
                "version": e.to, "from_version": e.from, "allow_lost_state": e.allow_lost_state,
                "snapshot": e.snapshot,
            }),
            Event::UpdateFailed(e) => json!({"version": e.version, "reason": e.reason}),
            Event::VersionStarted(e) => json!({
                "version": e.version, "from": e.base.described(), "prove_by": e.prove_by,
            }),
            Event::VersionProven(e) => json!({"version": e.version}),
            Event::RollbackBegun(e) => json!({
                "version": e.to, "from_version": e.from, "automatic": e.automatic, "reason": e.reason,
                "from": e.base.described(), "snapshot": e.snapshot,
            }),
            Event::VersionRestored(e) => json!({"version": e.version}),
            Event::QueuePut(e) => json!({"namespace": e.namespace, "queue": e.name, "settings": e.settings}),
            Event::QueueDeleted(e) => json!({"namespace": e.namespace, "queue": e.name}),
            Event::JobPreempted(e) => json!({"reason": e.reason, "ended_at": e.ended_at}),
        };
        match value {
            serde_json::Value::Object(map) => {
                Facts::Other(map.into_iter().filter(|(_, value)| !value.is_null()).collect())
            }
            _ => Facts::Other(serde_json::Map::new()),
        }
    }
}

/// What is said of an event beside its type, time and attempt. What there is not is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Facts {
    Submitted {
        kind: JobKind,
        driver: DriverKind,
    },
    Placed {
        executor: ExecutorName,
        zone: Zone,
        #[serde(skip_serializing_if = "Option::is_none")]
        restore: Option<CheckpointNumber>,
    },
    Finished {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<CompactString>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        outcome: Status,
    },
    Other(serde_json::Map<String, serde_json::Value>),
}

/// An event as `job.history` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// The commit that holds it.
    pub seq: Sequence,
    pub at: Timestamp,
    #[serde(rename = "type")]
    pub kind: CompactString,
    pub attempt: Option<Attempt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<CompactString>,
    #[serde(flatten)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl HistoryEvent {
    pub fn new(seq: Sequence, envelope: &Envelope) -> HistoryEvent {
        HistoryEvent {
            seq,
            at: envelope.at,
            kind: envelope.event.type_name().into(),
            attempt: envelope.event.attempt(),
            by: envelope.by.clone(),
            details: envelope.event.details(),
        }
    }
}
