//! Stopping, starting, updating and rolling back a job (contract, section 4): what the log says of them, what users
//! ask, and what users see.

use crate::checkpoint::Checkpoint;
use crate::id::{Attempt, JobId, JobRef, JobVersion, SnapshotName};
use crate::job::JobSpec;
use crate::time::Timestamp;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a job starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreMode {
    /// The newest ready snapshot or the newest checkpoint, whichever is newer.
    #[default]
    Latest,
    /// A snapshot by its name.
    Snapshot,
    /// An empty state.
    None,
}

/// The state that the next attempt begins with, as it was chosen at a start, an update or a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The snapshot it was taken from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
    /// Nothing: an empty state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Checkpoint>,
}

impl Base {
    /// For people.
    pub fn described(&self) -> CompactString {
        match (&self.snapshot, &self.content) {
            (Some(name), _) => compact_str::format_compact!("snapshot {name}"),
            (None, Some(checkpoint)) => compact_str::format_compact!("checkpoint {}", checkpoint.number),
            (None, None) => "an empty state".into(),
        }
    }
}

// Events.

/// → stopping. Without `force` the attempt is given back with its state first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequested {
    pub job: JobId,
    pub attempt: Attempt,
    pub force: bool,
    /// The system snapshot that is taken on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
    /// When the stop has failed, or with `force` is taken for done, if nothing was heard by then.
    pub give_up_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// stopping → running: the state could not be had, so the job goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopFailed {
    pub job: JobId,
    pub attempt: Attempt,
    pub reason: CompactString,
}

/// stopping, and where a start cannot be carried out any status that is not final → stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobStopped {
    pub job: JobId,
    pub attempt: Attempt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<CompactString>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
}

/// stopped → starting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequested {
    pub job: JobId,
    /// What was asked for, and…
    pub restore: RestoreMode,
    /// …what it came to.
    pub base: Base,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// starting: what was to be restored cannot be read, and this is restored in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseReplaced {
    pub job: JobId,
    pub base: Base,
    pub reason: CompactString,
}

/// running, restarting, starting → updating; pending and stopped stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequested {
    pub job: JobId,
    pub attempt: Attempt,
    pub from: JobVersion,
    pub to: JobVersion,
    pub spec: Arc<JobSpec>,
    pub allow_lost_state: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
    /// When the update has failed if no snapshot could be taken by then.
    pub give_up_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// updating → running, or, where its attempt ended meanwhile, what that leads to: the version never began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateFailed {
    pub job: JobId,
    pub attempt: Attempt,
    pub version: JobVersion,
    pub reason: CompactString,
}

/// The new version is the current one from here on, and its first attempt begins with `base`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionStarted {
    pub job: JobId,
    /// The last one of the version before.
    pub attempt: Attempt,
    pub version: JobVersion,
    pub base: Base,
    /// When the attempt of the version before ended, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// By when it has to be healthy; nothing where there is no running job to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prove_by: Option<Timestamp>,
}

/// updating → running: the new version has stayed up for long enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionProven {
    pub job: JobId,
    pub attempt: Attempt,
    pub version: JobVersion,
}

/// → rolling_back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackBegun {
    pub job: JobId,
    pub attempt: Attempt,
    pub from: JobVersion,
    pub to: JobVersion,
    /// Whether nobody asked for it: the version did not become healthy.
    pub automatic: bool,
    pub reason: CompactString,
    /// What the version that is gone back to begins with.
    pub base: Base,
    /// A last snapshot of the version that is left, where one is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
    /// When the attempt is taken for ended if nothing was heard by then.
    pub give_up_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// The older version is the current one again. It shows as rolling_back until it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRestored {
    pub job: JobId,
    /// The last one of the version that is left.
    pub attempt: Attempt,
    pub version: JobVersion,
    /// When the attempt of the version that is left ended, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

// Requests.

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    pub job: JobRef,
    #[serde(default)]
    pub force: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    pub job: JobRef,
    #[serde(default)]
    pub restore: RestoreRequest,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    #[serde(default)]
    pub mode: RestoreMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequest {
    pub job: JobRef,
    pub expected_version: JobVersion,
    pub spec: JobSpec,
    /// Go on even though no snapshot could be taken; then from the latest checkpoint.
    #[serde(default)]
    pub allow_lost_state: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    pub job: JobRef,
    pub expected_version: JobVersion,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionsRequest {
    pub job: JobRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

// Views.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionStatus {
    Active,
    Superseded,
    RolledBack,
}

impl VersionStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            VersionStatus::Active => "active",
            VersionStatus::Superseded => "superseded",
            VersionStatus::RolledBack => "rolled_back",
        }
    }
}

/// One version of a job. `reason` and `snapshot` are additions to the contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    pub version: JobVersion,
    pub at: Timestamp,
    pub spec: Arc<JobSpec>,
    pub status: VersionStatus,
    /// Why it was rolled back.
    pub reason: Option<String>,
    /// Its newest ready snapshot.
    pub snapshot: Option<SnapshotName>,
}

/// Oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionList {
    pub versions: Vec<VersionView>,
    pub cursor: Option<String>,
}
