//! What schedulers and executors say to one another, over core NATS, as MessagePack.
//!
//! Any of these may be lost, doubled or late. What keeps the two in step is that both sides repeat themselves: the
//! executor its reports until they are acknowledged, the leader its whole wanted set while the digests differ.
//! Everything from the leader carries its term; everything else is checked against attempt numbers.

use crate::checkpoint::{BlobName, CheckpointRef, Taken};
use crate::command::Stop;
use crate::depend::InputFile;
use crate::event::Cause;
use crate::id::{
    Attempt, CheckpointNumber, ExecutorId, ExecutorName, JobId, JobName, JobVersion, Namespace, SchedulerName,
    Sequence, Term, Zone,
};
use crate::job::JobSpec;
use crate::payload::Payload;
use crate::time::Millis;
use crate::trace::TraceContext;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Leader → everybody, several times a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderBeat {
    pub term: Term,
    pub scheduler: SchedulerName,
    pub zone: Zone,
    /// The highest acknowledged commit.
    pub seq: Sequence,
}

/// Executor → leader, several times a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub executor: ExecutorId,
    pub name: ExecutorName,
    /// The highest commit it was ever told of. See [`Told`].
    pub seq_seen: Sequence,
    /// The newest leader's term it has heard of; 0 from a version that does not say. Of another generation than the
    /// leader's, it means that the rest speaks of another log.
    #[serde(default)]
    pub term_seen: Term,
    /// The highest commit that leaders of lower terms than that have told it of.
    #[serde(default)]
    pub seq_before: Sequence,
    /// Of the attempts it holds; see [`AttemptDigest`].
    pub digest: AttemptDigest,
    /// Attempts it holds: running, or over and not yet acknowledged.
    pub held: u32,
    pub health: Health,
    /// It is going: place nothing more here.
    pub leaving: bool,
    /// Why it should be spared, by its own measure, where it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<CompactString>,
}

/// How far the log goes by what leaders have told an executor.
///
/// A leader tells of a commit only once it is durable, and everything of a lower term stands before a term's barrier.
/// So whoever was told, by a leader of a lower term, of a commit at or above this term's barrier knows of one that the
/// log has lost. The number alone would not do: a new term's own commits soon reach it. And it would say too much: a
/// leader that was deposed hears of commits above its own from those who already hear its successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The newest term.
    pub term: Term,
    /// The highest commit of all.
    pub seq: Sequence,
    /// The highest commit that lower terms' leaders have told of.
    pub before: Sequence,
}

impl Told {
    /// Takes in that a leader of this term says that the log goes to `seq`.
    pub fn hear(&mut self, term: Term, seq: Sequence) {
        if term.generation() > self.term.generation() {
            // Another log: what was told of the one before it says nothing of this one.
            *self = Told { term, seq, before: Sequence(0) };
            return;
        }
        if term.generation() < self.term.generation() {
            return;
        }
        if term > self.term {
            self.before = self.seq;
            self.term = term;
        } else if term < self.term {
            self.before = self.before.max(seq);
        }
        self.seq = self.seq.max(seq);
    }
}

impl Heartbeat {
    pub fn told(&self) -> Told {
        Told { term: self.term_seen, seq: self.seq_seen, before: self.seq_before }
    }
}

impl ReportBatch {
    pub fn told(&self) -> Told {
        Told { term: self.term_seen, seq: self.seq_seen, before: self.seq_before }
    }
}

/// How a host feels, as its executor measures it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How late a timer fires.
    pub scheduling_lag_us: u64,
    /// How long a small synchronous write to the data directory takes.
    pub disk_write_us: u64,
    pub memory_available_bytes: u64,
}

/// A sum over a set of attempts, equal for equal sets in any order, and kept up to date one attempt at a time.
///
/// It guards against lost messages, not against malice, so a mixing function is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptDigest(pub u64);

impl AttemptDigest {
    fn of(job: JobId, attempt: Attempt) -> u64 {
        let (high, low) = job.0.as_u64_pair();
        let mut mixed = high ^ low.rotate_left(32) ^ u64::from(attempt.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(multiplier);
        }
        mixed ^ (mixed >> 31)
    }

    pub fn add(&mut self, job: JobId, attempt: Attempt) {
        self.0 = self.0.wrapping_add(Self::of(job, attempt));
    }

    pub fn remove(&mut self, job: JobId, attempt: Attempt) {
        self.0 = self.0.wrapping_sub(Self::of(job, attempt));
    }
}

/// Leader → one executor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToExecutor {
    pub term: Term,
    /// The highest acknowledged commit.
    pub seq: Sequence,
    pub order: Order,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Run these.
    Assign(Vec<Assignment>),
    /// End these.
    Stop(Vec<StopAttempt>),
    /// Hold exactly these; stop others that were assigned at or before `seq`, and name the missing.
    Want(Vec<(JobId, Attempt)>),
    /// Your incarnation was declared lost: kill everything, and begin anew under a new id.
    Dismiss,
    /// Give these back, with their state. Repeated until their ends are reported.
    Release(Vec<ReleaseAttempt>),
    /// Take a checkpoint of these now, for snapshots. Repeated until they are reported.
    Snapshot(Vec<SnapshotAttempt>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub job: JobId,
    pub attempt: Attempt,
    pub namespace: Namespace,
    pub name: JobName,
    pub version: JobVersion,
    /// The commit that placed it.
    pub placed_at: Sequence,
    pub restore: Option<CheckpointRef>,
    /// Every manifest that something refers to: what they lead to may be built upon, and nothing else that is stored.
    #[serde(default)]
    pub retained: Vec<BlobName>,
    pub spec: Arc<JobSpec>,
    /// Where it is a task of an array: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_index: Option<u32>,
    /// The results of the jobs that it waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFile>,
    /// The span that it belongs to, where its job is traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopAttempt {
    pub job: JobId,
    pub attempt: Attempt,
    pub how: Stop,
}

/// One checkpoint serves every snapshot of the job that was asked for before its state was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotAttempt {
    pub job: JobId,
    pub attempt: Attempt,
    /// The highest number of the snapshots that are asked for.
    pub up_to: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseAttempt {
    pub job: JobId,
    pub attempt: Attempt,
    /// What it is for; said again in the outcome, so that whoever hears that need not have given the order.
    pub cause: Cause,
    pub how: Release,
}

/// How an attempt is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// Its processes are stopped, its state is stored, and then they are killed as they stand: nothing that it did is
    /// lost. `within` counts from when the order is heard; a repetition may shorten it, and never prolongs it.
    Checkpoint { within: Millis, otherwise: Otherwise },
    /// SIGKILL at once; its state is that of its latest checkpoint.
    Kill,
}

/// What becomes of an attempt whose last checkpoint cannot be had in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Otherwise {
    /// It goes on, and [`News::ReleaseFailed`] says why.
    GoOn,
    /// It is killed, and loses what it did since its latest checkpoint.
    Kill,
}

/// Executor → leader, as a request; repeated until answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportBatch {
    pub executor: ExecutorId,
    /// As in a [`Heartbeat`].
    pub seq_seen: Sequence,
    #[serde(default)]
    pub term_seen: Term,
    #[serde(default)]
    pub seq_before: Sequence,
    pub reports: Vec<Report>,
}

/// The leader's answer, once what the reports led to is durable. Every report of the batch has been dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReply {
    pub term: Term,
    pub seq: Sequence,
    /// Attempts that are not this executor's to report on: stop them and forget them.
    pub superseded: Vec<(JobId, Attempt)>,
    /// Of jobs with a checkpoint in the batch: every manifest that something refers to. All else that was stored before
    /// the checkpoint was reported may be collected, by the attempt that reported it. Left out while collecting is held.
    #[serde(default)]
    pub retained: Vec<Retained>,
}

/// What a job's stored state consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retained {
    pub job: JobId,
    pub attempt: Attempt,
    pub manifests: Vec<BlobName>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub job: JobId,
    pub attempt: Attempt,
    /// How long before this message was sent it happened. An age, so that two hosts' clocks need not agree.
    pub age_ms: u64,
    pub news: News,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum News {
    /// The process is up.
    Started,
    /// A checkpoint is stored, every chunk of it acknowledged.
    Checkpoint(Taken),
    CheckpointFailed {
        reason: CompactString,
    },
    /// The attempt is over, and nothing of it is left.
    Ended(Ended),
    /// The leader wants this attempt, and it is not here: assign it again.
    Missing,
    /// It was to be given back with its state, and that cannot be stored: it goes on.
    ReleaseFailed {
        reason: CompactString,
    },
    /// The state was read after the order for the snapshots up to this number was heard, and is stored: it is what
    /// this manifest holds, of a checkpoint that was reported before; nothing where it is empty and always was.
    Snapshot {
        up_to: u64,
        manifest: Option<BlobName>,
    },
    SnapshotFailed {
        up_to: u64,
        reason: CompactString,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub outcome: Outcome,
    /// How long the process ran; nothing where it never started.
    pub ran_ms: Option<u64>,
    pub result: Option<Payload>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// 0 is success.
    Exited {
        code: i32,
    },
    Signalled {
        signal: i32,
    },
    /// The spec's `timeout` was over; the process was killed.
    TimedOut,
    /// The command could not be started.
    LaunchFailed {
        reason: CompactString,
    },
    /// The checkpoint could not be read back.
    RestoreFailed {
        number: CheckpointNumber,
        reason: CompactString,
    },
    /// It exited with 0 but left a result that cannot be taken, such as one over the limit.
    ResultRefused {
        reason: CompactString,
    },
    /// It was given back, by order or because its executor is going.
    Released(Released),
    /// It wrote nothing for as long as the spec's `progress_timeout`; it was killed.
    NoProgress,
}

/// How an attempt was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub cause: Cause,
    /// The last checkpoint. Nothing, and no `fault`: what is committed already is all there was, or none was asked for.
    pub checkpoint: Option<Taken>,
    /// Why there is no last checkpoint: what was done since the latest one is lost.
    pub fault: Option<CompactString>,
}

/// What an executor answers to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {
    pub executor: ExecutorId,
}

/// One entry of a job's log: some of its output, as it is sealed into the log store and sent live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    pub at: crate::time::Timestamp,
    pub attempt: Attempt,
    /// Counts the entries of an attempt, from 1. A gap is output that was dropped.
    pub number: u64,
    pub stream: LogStream,
    pub text: Payload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    Out,
    Err,
    /// What Outlive itself has to say about the job's output.
    Outlive,
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_digest_does_not_depend_on_order() {
        let attempts: Vec<_> = (0..100u128).map(|i| (JobId(Uuid::from_u128(i)), Attempt(i as u32 % 7))).collect();
        let (mut forward, mut backward) = (AttemptDigest::default(), AttemptDigest::default());
        attempts.iter().for_each(|&(job, attempt)| forward.add(job, attempt));
        attempts.iter().rev().for_each(|&(job, attempt)| backward.add(job, attempt));
        assert_eq!(forward, backward);
        attempts.iter().for_each(|&(job, attempt)| forward.remove(job, attempt));
        assert_eq!(forward, AttemptDigest::default());
        assert_ne!(backward, forward);
    }
}
