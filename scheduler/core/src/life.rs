//! The part of a job's state that most jobs never have: snapshots, versions, and a stop, update or rollback under way.
//!
//! Boxed, and absent until something of it is asked for, for there may be ten million jobs. Only `fold` changes it.

use crate::state::{Job, State, spec_bytes};
use compact_str::CompactString;
use outlive_schemas::checkpoint::{BlobName, Checkpoint, CheckpointRef};
use outlive_schemas::id::{CheckpointNumber, JobId, JobVersion, SnapshotName};
use outlive_schemas::job::JobSpec;
use outlive_schemas::life::{Base, RestoreMode, VersionStatus};
use outlive_schemas::snapshot::{Initiator, Purpose, SnapshotStatus};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A new version is healthy once it has stayed up for 5 s (contract); its end must have had the time to be told.
pub(crate) const PROVEN_AFTER: Millis = Millis(5_500);
/// A new version that is not healthy by then is rolled back (contract).
pub(crate) const PROVE_WITHIN: Millis = Millis::secs(60);
/// How long the last checkpoint before a stop or an update may take beyond what the job's policy allows any checkpoint:
/// for the order to arrive, and the report to come back, through the loss of a leader.
pub(crate) const RELEASE_SLACK: Millis = Millis::secs(30);
/// And a snapshot that was asked for: it may have to wait for another attempt.
pub(crate) const SNAPSHOT_SLACK: Millis = Millis::secs(60);
/// How long an import may take from its beginning to its end: a large state over a slow line. One whose client is not
/// heard of any more is given up long before.
pub(crate) const IMPORT_WITHIN: Millis = Millis::minutes(60);
/// How long a deleted snapshot is still shown, so that a repeated request finds it.
pub(crate) const DELETING_SHOWN: Millis = Millis::secs(2);
/// After a change of leader nothing is concluded from silence before executors have repeated their reports.
pub(crate) const TERM_GRACE: Millis = Millis::secs(3);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// In the order in which they were asked for.
    pub snapshots: Vec<Snapshot>,
    /// How many there ever were.
    pub last_snapshot: u64,
    /// Oldest first, the current one among them.
    pub versions: Vec<Version>,
    /// The highest there ever was.
    pub last_version: JobVersion,
    /// What the present run began with, until enough checkpoints of its own are kept.
    pub base: Option<Base>,
    /// How that was chosen.
    pub restore: RestoreMode,
    /// Checkpoints above this one were made by the present run; others are not what it goes on from.
    pub floor: CheckpointNumber,
    pub change: Option<Change>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    pub name: SnapshotName,
    /// Its place among the snapshots of the job there ever were.
    pub number: u64,
    pub status: SnapshotStatus,
    pub purpose: Purpose,
    pub version: JobVersion,
    pub created_at: Timestamp,
    pub ready_at: Option<Timestamp>,
    /// Nothing in a ready one: the state is empty.
    pub content: Option<Checkpoint>,
    pub error: Option<CompactString>,
    /// When a creating one has failed, and when a deleting one is forgotten.
    pub due_at: Timestamp,
    pub request_id: Option<CompactString>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    pub version: JobVersion,
    pub at: Timestamp,
    pub spec: Arc<JobSpec>,
    pub status: VersionStatus,
    pub reason: Option<CompactString>,
    /// Whether a process of it was ever up.
    pub ran: bool,
}

/// What is being done to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Change {
    /// Its attempt is being ended, after which it is stopped.
    Stop { force: bool, snapshot: Option<SnapshotName>, give_up_at: Timestamp },
    /// Its attempt is being ended, after which the new version starts.
    Update {
        to: JobVersion,
        spec: Arc<JobSpec>,
        allow_lost_state: bool,
        snapshot: Option<SnapshotName>,
        give_up_at: Timestamp,
    },
    /// The new version has to show that it is healthy, or is rolled back to the old one and what that ended with.
    Prove { from: JobVersion, base: Base, by: Timestamp },
    /// Its attempt is being ended, after which the old version starts.
    RollBack { to: JobVersion, base: Base, snapshot: Option<SnapshotName>, give_up_at: Timestamp },
}

impl Change {
    /// Whether an attempt of the job is being ended for it.
    pub fn ends_attempt(&self) -> bool {
        !matches!(self, Change::Prove { .. })
    }

    /// The system snapshot that belongs to it.
    pub fn snapshot(&self) -> Option<&SnapshotName> {
        match self {
            Change::Stop { snapshot, .. } | Change::Update { snapshot, .. } | Change::RollBack { snapshot, .. } => {
                snapshot.as_ref()
            }
            Change::Prove { .. } => None,
        }
    }
}

impl Snapshot {
    pub fn is_open(&self) -> bool {
        self.status == SnapshotStatus::Creating
    }

    /// Whether a user keeps it.
    pub fn is_kept(&self) -> bool {
        self.status == SnapshotStatus::Ready && self.purpose.initiator() == Initiator::User
    }

    /// Whether a running attempt is to make it.
    pub fn is_ordered(&self) -> bool {
        self.is_open() && self.purpose == Purpose::Asked
    }

    /// Whether it is being brought in from elsewhere.
    pub fn is_importing(&self) -> bool {
        self.is_open() && self.purpose == Purpose::Import
    }
}

impl Life {
    /// Of a job to which nothing of all this has happened yet.
    pub(crate) fn of(job: &Job) -> Life {
        let first = Version {
            version: job.version,
            at: job.submitted_at,
            spec: job.spec.clone(),
            status: VersionStatus::Active,
            reason: None,
            ran: job.started_at.is_some(),
        };
        Life {
            snapshots: Vec::new(),
            last_snapshot: 0,
            versions: vec![first],
            last_version: job.version,
            base: None,
            restore: RestoreMode::Latest,
            floor: CheckpointNumber(0),
            change: None,
        }
    }

    pub fn snapshot(&self, name: &SnapshotName) -> Option<&Snapshot> {
        self.snapshots.iter().rev().find(|snapshot| snapshot.name == *name)
    }

    pub(crate) fn snapshot_mut(&mut self, name: &SnapshotName) -> Option<&mut Snapshot> {
        self.snapshots.iter_mut().rev().find(|snapshot| snapshot.name == *name)
    }

    pub fn version(&self, version: JobVersion) -> Option<&Version> {
        self.versions.iter().find(|known| known.version == version)
    }

    pub(crate) fn version_mut(&mut self, version: JobVersion) -> Option<&mut Version> {
        self.versions.iter_mut().find(|known| known.version == version)
    }

    /// The newest ready snapshot of a version.
    pub fn last_ready_of(&self, version: JobVersion) -> Option<&Snapshot> {
        let of_version = self.snapshots.iter().filter(|s| s.status == SnapshotStatus::Ready && s.version == version);
        of_version.max_by_key(|snapshot| (snapshot.ready_at, snapshot.number))
    }

    pub fn count(&self, initiator: Initiator) -> usize {
        let counted = |s: &&Snapshot| s.status != SnapshotStatus::Deleting && s.purpose.initiator() == initiator;
        self.snapshots.iter().filter(counted).count()
    }

    /// Beyond its job's own, roughly.
    pub(crate) fn held_bytes(&self, current: JobVersion) -> u64 {
        let older = self.versions.iter().filter(|version| version.version != current);
        let specs: usize = older.map(|v| spec_bytes(&v.spec) + v.spec.input.as_ref().map_or(0, |i| i.0.len())).sum();
        let coming = match &self.change {
            Some(Change::Update { spec, .. }) => spec_bytes(spec) + spec.input.as_ref().map_or(0, |i| i.0.len()),
            _ => 0,
        };
        (specs + coming + self.snapshots.len() * size_of::<Snapshot>()) as u64
    }

    /// Manifests whose blobs must stay, beside those of the job's checkpoints.
    fn manifests(&self) -> impl Iterator<Item = BlobName> + '_ {
        let kept = self.snapshots.iter().filter(|s| s.status != SnapshotStatus::Deleting);
        let bases = match &self.change {
            Some(Change::Prove { base, .. } | Change::RollBack { base, .. }) => Some(base),
            _ => None,
        };
        let contents = kept
            .filter_map(|snapshot| snapshot.content.as_ref())
            .chain(self.base.iter().chain(bases).filter_map(|base| base.content.as_ref()));
        contents.map(|checkpoint| checkpoint.taken.manifest)
    }
}

impl Job {
    pub fn change(&self) -> Option<&Change> {
        self.life.as_ref()?.change.as_ref()
    }

    /// The change for which its attempt is being ended.
    pub fn ending(&self) -> Option<&Change> {
        self.change().filter(|change| change.ends_attempt())
    }

    /// The snapshots that a running attempt is to make.
    pub fn ordered_snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.life.iter().flat_map(|life| life.snapshots.iter().filter(|snapshot| snapshot.is_ordered()))
    }

    /// The checkpoint that the next attempt starts from: the newest of the present run, or else what the run began with.
    pub fn restorable_checkpoint(&self) -> Option<&Checkpoint> {
        let newest = self.checkpoints.last();
        match self.life.as_deref() {
            None => newest,
            Some(life) => newest
                .filter(|checkpoint| checkpoint.number > life.floor)
                .or_else(|| life.base.as_ref().and_then(|base| base.content.as_ref())),
        }
    }

    pub fn restorable(&self) -> Option<CheckpointRef> {
        self.restorable_checkpoint().map(CheckpointRef::from)
    }

    /// The checkpoint of that number, wherever the job knows it from.
    pub fn checkpoint_numbered(&self, number: CheckpointNumber) -> Option<&Checkpoint> {
        self.known_checkpoints().find(|checkpoint| checkpoint.number == number)
    }

    /// The newest known checkpoint of these contents.
    pub fn checkpoint_of(&self, manifest: BlobName) -> Option<&Checkpoint> {
        self.known_checkpoints().filter(|checkpoint| checkpoint.taken.manifest == manifest).max_by_key(|c| c.number)
    }

    fn known_checkpoints(&self) -> impl Iterator<Item = &Checkpoint> {
        let of_life = self.life.iter().flat_map(|life| {
            let base = life.base.iter().filter_map(|base| base.content.as_ref());
            base.chain(life.snapshots.iter().filter_map(|snapshot| snapshot.content.as_ref()))
        });
        self.checkpoints.iter().chain(of_life)
    }

    /// Every manifest that is, or may yet be, restored or exported: what its blobs are kept for.
    pub fn manifests(&self) -> impl Iterator<Item = BlobName> + '_ {
        let of_life = self.life.iter().flat_map(|life| life.manifests());
        self.checkpoints.iter().map(|checkpoint| checkpoint.taken.manifest).chain(of_life)
    }

    /// Whether blobs of it may be on their way into the store that no manifest refers to yet, from elsewhere than its
    /// attempt.
    pub fn is_importing(&self) -> bool {
        self.life.iter().flat_map(|life| &life.snapshots).any(Snapshot::is_importing)
    }

    /// Whether what is done to it waits until its executor says that nothing of its attempt is left, or is certainly
    /// gone. No time ends that: a job that must never run twice might go on elsewhere while its attempt still runs.
    pub(crate) fn awaits_its_end(&self) -> bool {
        if !self.spec.exclusive || self.placement.is_none() {
            return false;
        }
        match self.change() {
            Some(Change::Stop { force, .. }) => *force,
            Some(Change::Update { allow_lost_state, .. }) => *allow_lost_state || self.attempt_started_at.is_none(),
            Some(Change::RollBack { .. }) => true,
            Some(Change::Prove { .. }) | None => false,
        }
    }

    /// When something of all this is due.
    pub(crate) fn due_at(&self) -> Option<Timestamp> {
        let life = self.life.as_deref()?;
        let waiting = life.snapshots.iter().filter(|snapshot| {
            matches!(snapshot.status, SnapshotStatus::Creating | SnapshotStatus::Deleting)
                && life.change.as_ref().and_then(Change::snapshot) != Some(&snapshot.name)
        });
        let snapshots = waiting.map(|snapshot| snapshot.due_at).min();
        let change = life.change.as_ref().filter(|_| !self.awaits_its_end()).map(|change| match change {
            Change::Stop { give_up_at, .. }
            | Change::Update { give_up_at, .. }
            | Change::RollBack { give_up_at, .. } => *give_up_at,
            Change::Prove { by, .. } => self.proven_at().map_or(*by, |at| at.min(*by)),
        });
        snapshots.into_iter().chain(change).min()
    }

    /// When the attempt that is up will have stayed up for long enough.
    pub(crate) fn proven_at(&self) -> Option<Timestamp> {
        self.placement.and(self.attempt_started_at).map(|started| started + PROVEN_AFTER)
    }

    /// Whether its executor is to be told something, again and again until it is done.
    pub(crate) fn is_attended(&self) -> bool {
        self.placement.is_some()
            && (self.ending().is_some()
                || (self.status == Status::Running && self.ordered_snapshots().next().is_some()))
    }
}

impl State {
    /// Jobs whose executors are to be told something about snapshots, stops, updates or rollbacks.
    pub fn attended(&self) -> impl Iterator<Item = JobId> + '_ {
        self.index.attended.iter().copied()
    }

    /// Snapshots that are being brought in from elsewhere, each with its job.
    pub fn open_imports(&self) -> impl Iterator<Item = (JobId, &Snapshot)> {
        let importing = self.index.importing.iter().filter_map(|id| Some((*id, self.jobs.get(id)?.life.as_deref()?)));
        importing
            .flat_map(|(id, life)| life.snapshots.iter().map(move |snapshot| (id, snapshot)))
            .filter(|(_, snapshot)| snapshot.is_importing())
    }

    /// Every manifest of a job whose blobs must stay: of retained checkpoints, of snapshots that are not deleted, and
    /// of what an attempt may yet be started from. Nothing for a job that is not there.
    pub fn referenced_manifests(&self, job: JobId) -> impl Iterator<Item = BlobName> + '_ {
        self.jobs.get(&job).into_iter().flat_map(|job| job.manifests())
    }
}
