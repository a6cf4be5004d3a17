//! Intents: what somebody wants to happen to jobs and executors. The core answers each with events or a refusal.

use crate::array::Indexes;
use crate::event::Cause;
use crate::executor::Registration;
use crate::id::ScheduleName;
use crate::id::{
    Attempt, ExecutorId, ExecutorRef, JobId, JobRef, JobVersion, Namespace, QueueName, SnapshotName, Zone,
};
use crate::job::JobSpec;
use crate::life::RestoreRequest;
use crate::message::Report;
use crate::queue::QueueSettings;
use crate::schedule::Definition;
use crate::snapshot::ImportedContent;
use crate::time::{Millis, Timestamp};
use compact_str::CompactString;
use std::sync::Arc;

/// Who asked, and the id that makes asking twice harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The `Nats-Msg-Id` header.
    pub request_id: Option<CompactString>,
    /// The `Outlive-Actor` header: who the client says is asking.
    pub by: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    // From users.
    /// All of them or none. Ids are the scheduler's, fresh for each command.
    SubmitJobs {
        namespace: Namespace,
        origin: Origin,
        jobs: Vec<(JobId, Arc<JobSpec>)>,
    },
    CancelJob {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        how: Stop,
    },
    /// Some of an array's: all of them or none.
    CancelTasks {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        tasks: Indexes,
        how: Stop,
    },
    DeleteJob {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
    },
    /// All of them or none.
    DeleteJobs {
        namespace: Namespace,
        origin: Origin,
        jobs: Vec<JobId>,
    },
    /// All of them or none.
    RetryJobs {
        namespace: Namespace,
        origin: Origin,
        jobs: Vec<JobId>,
    },
    /// Some of an array's: all of them or none.
    RetryTasks {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        tasks: Indexes,
    },

    /// Makes it, or makes it like this.
    PutSchedule {
        namespace: Namespace,
        origin: Origin,
        schedule: ScheduleName,
        definition: Box<Definition>,
        paused: bool,
    },
    DeleteSchedule {
        namespace: Namespace,
        origin: Origin,
        schedule: ScheduleName,
    },
    PauseSchedule {
        namespace: Namespace,
        origin: Origin,
        schedule: ScheduleName,
        paused: bool,
    },
    /// Take a tick now. The id is the scheduler's, for the job that may follow.
    TriggerSchedule {
        namespace: Namespace,
        origin: Origin,
        schedule: ScheduleName,
        job: JobId,
    },

    // From operators.
    /// Nothing is collected until then, while somebody copies what is stored. The past ends it.
    HoldCollection {
        by: Option<CompactString>,
        until: Timestamp,
    },
    DrainExecutor {
        origin: Origin,
        executor: ExecutorRef,
        deadline: Timestamp,
    },
    UndrainExecutor {
        origin: Origin,
        executor: ExecutorRef,
    },
    DrainZone {
        origin: Origin,
        zone: Zone,
        deadline: Timestamp,
    },
    UndrainZone {
        origin: Origin,
        zone: Zone,
    },

    StopJob {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        force: bool,
    },
    StartJob {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        restore: RestoreRequest,
    },
    UpdateJob {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        expected_version: JobVersion,
        spec: Box<JobSpec>,
        allow_lost_state: bool,
    },
    RollBackJob {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        expected_version: JobVersion,
    },
    CreateSnapshot {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        name: SnapshotName,
    },
    DeleteSnapshot {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        name: SnapshotName,
        created_at: Timestamp,
    },
    ImportSnapshot {
        namespace: Namespace,
        origin: Origin,
        job: JobRef,
        name: SnapshotName,
        content: Option<ImportedContent>,
    },

    PutQueue {
        namespace: Namespace,
        origin: Origin,
        name: QueueName,
        settings: QueueSettings,
    },
    DeleteQueue {
        namespace: Namespace,
        origin: Origin,
        name: QueueName,
    },

    // From executors.
    AdmitExecutor(Registration),
    Report {
        executor: ExecutorId,
        report: Report,
    },

    // From the leader's own detector, planner and timers.
    LoseExecutor {
        executor: ExecutorId,
        reason: LossReason,
        last_seen: Timestamp,
    },
    /// Take a job off an executor that was lost.
    EvictAttempt {
        job: JobId,
        attempt: Attempt,
        cause: Cause,
    },
    /// All executors of a zone were lost together.
    LoseZone {
        zone: Zone,
    },
    /// A zone that was lost has been steady for long enough.
    SettleZone {
        zone: Zone,
    },
    /// Take a job off an executor that is there and did not give it back in time, or that did not start it in time.
    WithdrawAttempt {
        job: JobId,
        attempt: Attempt,
        cause: Cause,
    },
    /// An array's tasks that are over are counted, and others begin.
    AttendArray {
        job: JobId,
    },
    /// A job whose dependencies are decided: it may be placed, or is over.
    SettleDependencies {
        job: JobId,
    },
    PlaceJob {
        job: JobId,
        attempt: Attempt,
        executor: ExecutorId,
    },
    /// Take the tick that is due, or that has waited. The id is fresh, for the job that may follow.
    TickSchedule {
        namespace: Namespace,
        schedule: ScheduleName,
        job: JobId,
    },
    /// End a job of which a deadline is over.
    GiveUpJob {
        job: JobId,
    },
    /// Forget a job that has been over for long enough.
    ExpireJob {
        job: JobId,
    },
    /// What a deleted job left is gone.
    ConfirmErasure {
        job: JobId,
    },
    /// Do what is due about a job's snapshots, its stop, its update or its rollback.
    AttendJob {
        job: JobId,
    },
    /// Nobody is heard of who brings this snapshot in: it has failed.
    GiveUpImport {
        job: JobId,
        name: SnapshotName,
    },
    /// End a job whose executor was told to stop it and never confirmed.
    AbandonAttempt {
        job: JobId,
        attempt: Attempt,
    },
}

/// How an attempt is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// SIGTERM, and SIGKILL after the grace.
    Graceful { grace: Millis },
    /// SIGKILL at once.
    Kill,
}

/// Why an executor is taken for lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// Nobody listens where it listened: its process is gone.
    ProcessGone,
    /// Neither heartbeats nor answers to probes.
    Silent,
    /// It said goodbye.
    Left,
}

impl LossReason {
    pub fn as_str(self) -> &'static str {
        match self {
            LossReason::ProcessGone => "process_gone",
            LossReason::Silent => "silent",
            LossReason::Left => "left",
        }
    }
}
