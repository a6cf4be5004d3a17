//! Snapshots: named versions of a job's state (contract, section 4). What the log says of them, what users ask, and
//! what users see.
//!
//! A snapshot is a checkpoint under a name: the same bytes, kept until somebody deletes them.

use crate::checkpoint::{BlobName, Checkpoint, Taken};
use crate::id::{Attempt, CheckpointNumber, JobId, JobRef, JobVersion, SnapshotName};
use crate::time::Timestamp;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    Creating,
    Ready,
    Failed,
    Deleting,
}

impl SnapshotStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            SnapshotStatus::Creating => "creating",
            SnapshotStatus::Ready => "ready",
            SnapshotStatus::Failed => "failed",
            SnapshotStatus::Deleting => "deleting",
        }
    }
}

impl fmt::Display for SnapshotStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a snapshot is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Somebody asked.
    Asked,
    /// Its contents come from a file.
    Import,
    Stop,
    Update,
    Rollback,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Asked => "asked",
            Purpose::Import => "import",
            Purpose::Stop => "stop",
            Purpose::Update => "update",
            Purpose::Rollback => "rollback",
        }
    }

    pub fn initiator(self) -> Initiator {
        match self {
            Purpose::Asked | Purpose::Import => Initiator::User,
            Purpose::Stop | Purpose::Update | Purpose::Rollback => Initiator::System,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    User,
    System,
}

impl Initiator {
    pub fn as_str(self) -> &'static str {
        match self {
            Initiator::User => "user",
            Initiator::System => "system",
        }
    }
}

// Events.

/// → creating. It was created at the event's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequested {
    pub job: JobId,
    pub name: SnapshotName,
    /// Counts the snapshots of the job, from 1, whatever became of them.
    pub number: u64,
    pub purpose: Purpose,
    pub version: JobVersion,
    /// When it has failed if it is not ready by then.
    pub give_up_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// creating → ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCompleted {
    pub job: JobId,
    pub name: SnapshotName,
    /// The checkpoint whose bytes it is; nothing where the state is empty and always was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Checkpoint>,
}

/// creating → failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFailed {
    pub job: JobId,
    pub name: SnapshotName,
    pub reason: CompactString,
}

/// ready, failed → deleting. Nothing can be started from it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDeletionRequested {
    pub job: JobId,
    pub name: SnapshotName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// Any status → forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDeleted {
    pub job: JobId,
    pub name: SnapshotName,
}

// Requests.

/// `snapshot.create`, `snapshot.get`, `snapshot.locate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    pub job: JobRef,
    pub name: SnapshotName,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotListRequest {
    pub job: JobRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `snapshot.delete`. The time says which snapshot of that name is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDeleteRequest {
    pub job: JobRef,
    pub name: SnapshotName,
    pub created_at: Timestamp,
}

/// `snapshot.import`: begins one, or, with `content`, ends it. In between its blobs are put into the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotImportRequest {
    pub job: JobRef,
    pub name: SnapshotName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ImportedContent>,
}

/// What was put into the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedContent {
    /// Of the snapshot that was begun, as its view gave it.
    pub created_at: Timestamp,
    /// Nothing where the state is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
}

// Views.

/// A snapshot as users see it (contract, section 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    pub job: JobId,
    pub name: SnapshotName,
    pub status: SnapshotStatus,
    pub created_at: Timestamp,
    pub ready_at: Option<Timestamp>,
    pub size_bytes: Option<u64>,
    pub job_version: JobVersion,
    pub initiator: Initiator,
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    pub snapshots: Vec<SnapshotView>,
    pub cursor: Option<String>,
}

/// Where a snapshot's bytes are found; for those who hold its job's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPlace {
    pub snapshot: SnapshotView,
    pub checkpoint: Option<CheckpointNumber>,
    /// Nothing where the state is empty.
    pub manifest: Option<BlobName>,
    pub files: u64,
    /// What all checkpoints and snapshots of the job are found from.
    #[serde(default)]
    pub retained: Vec<BlobName>,
}

/// The attempt number of contents that no attempt of the job made: they were imported.
pub const IMPORTED: Attempt = Attempt(0);
