//! What folding the log produces: all that a leader knows.
//!
//! Only `fold` changes it. What can be computed from the rest (indexes, sums) is kept here too, for speed, but is
//! rebuilt when a state is loaded from an image and is checked by `invariant`.
//!
//! Fields that come later have a default, so that older images are read. A field that is not known is refused: the
//! image is a newer version's, and to drop what it says would be to forget what the log has told.

use crate::array::{Array, TaskOf};
use crate::counts::Counts;
use crate::depend::Depends;
use crate::life::{Life, Snapshot};
use crate::queue::running::Running;
use crate::queue::share::Turns;
use crate::queue::{Place, Queue, QueueId, Rung, Shape, Turn, Waiting};
use crate::schedule::{ScheduleIndex, Schedules};
use crate::when::{Passed, Timing};
use compact_str::CompactString;
use outlive_schemas::array::{task_id, task_name};
use outlive_schemas::checkpoint::Checkpoint;
use outlive_schemas::command::{LossReason, Stop};
use outlive_schemas::error::Rejection;
use outlive_schemas::event::{Cause, TermStarted};
use outlive_schemas::executor::{Capacity, Registration};
use outlive_schemas::id::{
    Attempt, CheckpointNumber, ExecutorId, ExecutorName, ExecutorRef, JobId, JobName, JobRef, JobVersion, Namespace,
    Sequence, Zone,
};
use outlive_schemas::job::JobSpec;
use outlive_schemas::message::AttemptDigest;
use outlive_schemas::payload::Payload;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The newest barrier, and when it was.
    pub term: Option<(TermStarted, Timestamp)>,
    /// The latest time that any event has. A leader's time begins no earlier, whatever its host's clock says.
    #[serde(default)]
    pub newest_event_at: Timestamp,
    /// Boxed, for a map's nodes are half empty where keys rise: large values in them would double the memory.
    pub jobs: BTreeMap<JobId, Box<Job>>,
    pub executors: BTreeMap<ExecutorId, Executor>,
    /// What operators want emptied, and zones that were lost and are not steady yet.
    #[serde(default)]
    pub drained_executors: BTreeMap<ExecutorName, Drain>,
    #[serde(default)]
    pub drained_zones: BTreeMap<Zone, Drain>,
    #[serde(default)]
    pub lost_zones: BTreeMap<Zone, Timestamp>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schedules: Schedules,
    /// Requests that left nothing behind by which to know them again, oldest first.
    pub(crate) spent_requests: VecDeque<(Namespace, CompactString)>,
    /// Deleted jobs whose remains may not all be erased yet.
    #[serde(default)]
    pub to_erase: BTreeMap<JobId, Namespace>,
    /// Nothing is collected before this.
    #[serde(default)]
    pub collection_held_until: Timestamp,
    /// Before this no exclusive job is placed: a generation has begun, and attempts may still run of which the log does
    /// not tell, for it has lost what did.
    #[serde(default)]
    pub exclusive_held_until: Timestamp,

    /// Queues that were put, and whose turn it is among all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queues: BTreeMap<QueueId, Queue>,
    #[serde(default)]
    pub turns: Turns,

    #[serde(skip)]
    pub(crate) index: Index,
}

/// What follows from the rest of the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    pub queue: Waiting,
    pub running: Running,
    pub by_namespace: BTreeMap<Namespace, BTreeSet<JobId>>,
    /// Whether the holder lives stands before its id: the live one is the newest, whatever two leaders' clocks said.
    pub by_name: BTreeSet<(Namespace, JobName, bool, JobId)>,
    pub by_request: BTreeMap<(Namespace, CompactString), Vec<JobId>>,
    pub spent: BTreeSet<(Namespace, CompactString)>,
    pub counts: Counts,
    /// The same for each namespace.
    pub namespace_counts: BTreeMap<Namespace, Counts>,
    /// Jobs between two attempts, by since when they are away.
    pub restarting: BTreeSet<(Timestamp, JobId)>,
    /// Jobs told to stop, by when they are given up.
    pub stopping: BTreeSet<(Timestamp, JobId)>,
    /// Jobs that are over and may be forgotten, by when they ended.
    pub finished: BTreeSet<(Timestamp, JobId)>,
    /// Jobs that are being started, by when that must have happened.
    pub starting: BTreeSet<(Timestamp, JobId)>,
    /// Jobs about which something is due, by when.
    pub due: BTreeSet<(Timestamp, JobId)>,
    /// Jobs that have deadlines, by when the first of each is over.
    pub deadlines: BTreeSet<(Timestamp, JobId)>,
    /// Jobs whose executors are to be told something again and again.
    pub attended: BTreeSet<JobId>,
    /// Jobs for which snapshots are being brought in from elsewhere.
    pub importing: BTreeSet<JobId>,
    /// Arrays about whose tasks something is to be decided.
    pub arrays: BTreeSet<JobId>,
    /// Tasks that are over and not counted yet.
    pub tasks_over: BTreeMap<JobId, BTreeSet<u32>>,
    /// Who waits for a job's end.
    pub children: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Jobs that have waited for others for as long as they had to.
    pub decided: BTreeSet<JobId>,
    pub schedules: ScheduleIndex,
    /// Lost executors that still hold attempts.
    pub to_evict: BTreeSet<ExecutorId>,
    /// Specifications and results held in memory.
    pub held_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub namespace: Namespace,
    pub spec: Arc<JobSpec>,
    pub version: JobVersion,
    pub status: Status,
    pub reason: Option<CompactString>,
    /// The newest one; 0 before the first.
    pub attempt: Attempt,
    /// Where the newest attempt is, while it holds room there.
    pub placement: Option<Placed>,
    /// Where the newest attempt is or was.
    pub last_host: Option<(ExecutorName, Zone)>,
    pub restarts: u32,
    /// Attempts that ended by the job's own doing: in a row for a service, in all for a batch job that has so many.
    pub failures: u32,
    /// Oldest first; as many as the spec retains.
    pub checkpoints: Vec<Checkpoint>,
    /// The number of the newest checkpoint there ever was.
    pub last_checkpoint: CheckpointNumber,
    pub recovering: Option<Box<Recovering>>,
    pub last_recovery: Option<Box<Recovery>>,
    pub ready_at: Timestamp,
    pub submitted_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub attempt_started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: Option<i32>,
    pub result: Option<Payload>,
    pub stop: Option<Box<StopOrder>>,
    pub request_id: Option<CompactString>,
    /// Commits that speak of this job, but for those that speak of its checkpoints only.
    pub commits: Vec<Sequence>,
    /// Commits that speak of its checkpoints.
    #[serde(default)]
    pub checkpoint_commits: Vec<Sequence>,
    /// Snapshots, versions, and a change under way; most jobs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<Box<Life>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Box<Timing>>,
    /// Other jobs that it waits, or has waited, for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends: Option<Box<Depends>>,
    /// Where it is an array: its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<Box<Array>>,
    /// Where it is a task of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskOf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    pub executor: ExecutorId,
    /// The commit that says so.
    pub at: Sequence,
    pub restore: Option<CheckpointNumber>,
    /// When that was.
    #[serde(default)]
    pub since: Timestamp,
}

/// Something that operators want emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub since: Timestamp,
    /// What could not be given back with its state by then is taken off without.
    pub deadline: Timestamp,
}

/// A recovery under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovering {
    pub cause: Cause,
    pub from_zone: Option<Zone>,
    pub lost_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    pub cause: Cause,
    pub from_zone: Option<Zone>,
    pub to_zone: Option<Zone>,
    pub lost_at: Timestamp,
    pub resumed_at: Timestamp,
    pub restored: Option<CheckpointNumber>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopOrder {
    pub how: Stop,
    /// When the job is called over even if its executor has not confirmed it.
    pub give_up_at: Timestamp,
    /// The deadline that it is for; then the job has failed, and has not been cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<Passed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Executor {
    pub registration: Registration,
    pub joined_at: Timestamp,
    pub lost: Option<Loss>,
    pub allocated: Capacity,
    /// Jobs whose newest attempt holds room here.
    pub attempts: BTreeSet<JobId>,
    /// Of these attempts, kept one by one: executors say four times a second which they hold.
    pub digest: AttemptDigest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    pub reason: LossReason,
    pub last_seen: Timestamp,
    /// When it was taken for lost.
    #[serde(default)]
    pub at: Timestamp,
}

/// From an executor's last sign of life until an exclusive job of its may run elsewhere: by then its lease, which is
/// what keeps the attempt's shim from killing it, is over, with room for clocks that do not run alike.
pub const EXCLUSIVE_WAIT: Millis = Millis(7_000);
/// How long after its grace an executor may take to confirm a stop.
pub(crate) const STOP_CONFIRMATION: Millis = Millis::secs(30);
/// How long after a drain's deadline an executor may take to say that it has given an attempt back.
pub const RELEASE_CONFIRMATION: Millis = Millis::secs(30);
/// What a start may take beyond the time that its job grants a checkpoint, which goes the same way. An executor tries a
/// state that is out of reach for about a minute and a half.
const START_EXTRA: Millis = Millis::minutes(2);

impl Job {
    /// The name it goes by.
    pub fn name(&self, id: JobId) -> JobName {
        let name = |id: JobId| self.spec.name.clone().unwrap_or_else(|| id.automatic_name());
        match self.task {
            None => name(id),
            Some(TaskOf { array, index }) => task_name(&name(array), index).expect("an array's name leaves room"),
        }
    }

    /// Whether it waits for the planner.
    pub fn is_queued(&self) -> bool {
        // An array waits for nothing itself: its tasks do.
        if self.awaits_others() || self.array.is_some() {
            return false;
        }
        match self.status {
            Status::Pending | Status::Restarting => true,
            Status::Starting | Status::RollingBack => self.placement.is_none(),
            // While the attempt of the version before is being ended there is nothing to place yet.
            Status::Updating => self.placement.is_none() && self.ending().is_none(),
            _ => false,
        }
    }

    /// Its place among those that wait.
    pub(crate) fn turn(&self) -> Turn {
        match self.recovering.as_deref() {
            Some(recovering) if !recovering.cause.is_own_doing() => Turn::Recovering,
            _ => Turn::Waiting,
        }
    }

    pub fn queue(&self) -> QueueId {
        QueueId(self.namespace.clone(), self.spec.queue.clone())
    }

    /// Where it stands while it waits.
    pub(crate) fn place(&self) -> Place {
        let rung = Rung { priority: Reverse(self.spec.priority), concurrency: self.spec.concurrency.clone() };
        let shape = Shape::of(&self.spec);
        Place { queue: self.queue(), turn: self.turn(), shape, rung, ready_at: self.ready_at }
    }

    /// Since when it is between two attempts, where it is.
    pub fn away_since(&self) -> Option<Timestamp> {
        let recovering = self.recovering.as_deref().filter(|_| self.status == Status::Restarting)?;
        Some(recovering.lost_at)
    }

    /// By when its newest attempt must have been started; afterwards it is tried elsewhere. That of a version that has to
    /// show that it is healthy has less time.
    pub fn start_by(&self) -> Option<Timestamp> {
        let starts = match self.status {
            Status::Starting => true,
            // The version that is gone back to.
            Status::RollingBack => self.ending().is_none(),
            _ => false,
        };
        let placed = self.placement.filter(|_| starts)?;
        Some(placed.since + self.spec.checkpoint.timeout + START_EXTRA)
    }

    pub(crate) fn need(&self) -> Capacity {
        Capacity::of(self.spec.driver.kind(), &self.spec.resources)
    }

    /// Whether there may be a key, blobs or output of it. A job that never had an attempt with a process has none.
    pub(crate) fn leaves_remains(&self) -> bool {
        self.attempt > Attempt(0) && matches!(self.spec.driver, outlive_schemas::job::Driver::Process(_))
    }

    /// When it ended, if retention may forget it. One of which somebody keeps a snapshot it may not: that is there until
    /// it is deleted.
    pub(crate) fn expirable(&self) -> Option<Timestamp> {
        let kept = |life: &Life| life.snapshots.iter().any(Snapshot::is_kept);
        // A task goes with its array.
        self.finished_at
            .filter(|_| self.task.is_none() && self.status.is_final() && !self.life.as_deref().is_some_and(kept))
    }

    /// The commits that its history is read from, in order.
    pub fn history(&self) -> Vec<Sequence> {
        let mut all = [self.commits.as_slice(), self.checkpoint_commits.as_slice()].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What it holds in memory beyond its fixed parts, roughly.
    pub(crate) fn held_bytes(&self) -> u64 {
        let result = self.result.as_ref().map_or(0, |p| p.0.len());
        if self.task.is_some() {
            // All else is its array's.
            return result as u64 + self.life.as_ref().map_or(0, |life| life.held_bytes(self.version));
        }
        let input = self.spec.input.as_ref().map_or(0, |p| p.0.len());
        let life = self.life.as_ref().map_or(0, |life| life.held_bytes(self.version));
        let depends = self.depends.as_ref().map_or(0, |depends| depends.held_bytes());
        (input + result + spec_bytes(&self.spec)) as u64
            + life
            + depends
            + self.array.as_ref().map_or(0, |array| array.held_bytes())
    }
}

/// The size of a specification's variable parts, without its input.
pub(crate) fn spec_bytes(spec: &JobSpec) -> usize {
    use outlive_schemas::job::Driver;
    let labels = spec.labels.iter().chain(&spec.placement.labels).map(|(k, v)| k.len() + v.len()).sum::<usize>();
    labels
        + match &spec.driver {
            Driver::Process(p) => {
                p.command.iter().map(String::len).sum::<usize>()
                    + p.env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>()
            }
            Driver::Noop(_) => 0,
        }
}

impl Executor {
    pub fn is_alive(&self) -> bool {
        self.lost.is_none()
    }

    pub fn free(&self) -> Capacity {
        self.registration.capacity.less(&self.allocated)
    }
}

impl State {
    /// The job that a request means. A name means the newest job that has it.
    pub fn resolve(&self, namespace: &Namespace, job: &JobRef) -> Result<(JobId, &Job), Rejection> {
        let id = match job {
            JobRef::Id(id) => Some(*id),
            JobRef::Name(name) => self.newest_named(namespace, name).or_else(|| {
                let (array, index) = self.task_named(namespace, name)?;
                Some(task_id(array, index))
            }),
        };
        id.and_then(|id| self.jobs.get(&id).map(|job| (id, &**job)))
            .filter(|(_, job)| job.namespace == *namespace)
            .ok_or_else(|| Rejection::not_found(format_args!("job `{job}` in namespace `{namespace}`")))
    }

    pub(crate) fn newest_named(&self, namespace: &Namespace, name: &JobName) -> Option<JobId> {
        let low = (namespace.clone(), name.clone(), false, JobId(uuid_min()));
        let high = (namespace.clone(), name.clone(), true, JobId(uuid_max()));
        self.index.by_name.range(low..=high).next_back().map(|(_, _, _, id)| *id)
    }

    /// The jobs that an earlier request with this id made.
    pub fn submitted_by(&self, namespace: &Namespace, request_id: &CompactString) -> Option<&[JobId]> {
        self.index.by_request.get(&(namespace.clone(), request_id.clone())).map(Vec::as_slice)
    }

    /// Whether a request with this id did something that left nothing behind.
    pub fn is_spent(&self, namespace: &Namespace, request_id: &CompactString) -> bool {
        self.index.spent.contains(&(namespace.clone(), request_id.clone()))
    }

    /// Jobs that wait to be placed.
    pub fn queue(&self) -> &Waiting {
        &self.index.queue
    }

    /// Queues of a namespace that were put.
    pub fn queues_of(&self, namespace: &Namespace) -> impl Iterator<Item = (&QueueId, &Queue)> {
        let first = QueueId(namespace.clone(), "0".parse().expect("no name comes before it"));
        let of = namespace.clone();
        self.queues.range(first..).take_while(move |(id, _)| id.0 == of)
    }

    /// What holds room, by queue and key.
    pub fn running(&self) -> &Running {
        &self.index.running
    }

    pub fn in_namespace(&self, namespace: &Namespace) -> Option<&BTreeSet<JobId>> {
        self.index.by_namespace.get(namespace)
    }

    pub fn counts(&self) -> &Counts {
        &self.index.counts
    }

    /// Jobs by status, for each namespace that has any.
    pub fn namespace_counts(&self) -> &BTreeMap<Namespace, Counts> {
        &self.index.namespace_counts
    }

    /// Jobs between two attempts, those that are away the longest first, with since when.
    pub fn restarting(&self) -> impl Iterator<Item = (Timestamp, JobId)> + '_ {
        self.index.restarting.iter().copied()
    }

    /// Lost executors that still hold attempts.
    pub fn to_evict(&self) -> impl Iterator<Item = ExecutorId> + '_ {
        self.index.to_evict.iter().copied()
    }

    pub fn held_bytes(&self) -> u64 {
        self.index.held_bytes
    }

    /// Jobs that have been told to stop and are not over yet.
    pub fn stopping(&self) -> impl Iterator<Item = JobId> + '_ {
        self.index.stopping.iter().map(|(_, id)| *id)
    }

    pub fn live_jobs(&self) -> u64 {
        self.index.counts.iter().filter(|(status, _)| !status.is_final()).map(|(_, n)| n).sum()
    }

    /// Until when a job must not be placed that must never run twice, where it is one.
    pub fn held_alone(&self, job: &Job, now: Timestamp) -> Option<Timestamp> {
        (job.spec.exclusive && now < self.exclusive_held_until).then_some(self.exclusive_held_until)
    }

    /// The drain that an executor is under, its own or its zone's; of two the one that ends sooner.
    pub fn drain_of(&self, executor: &Registration) -> Option<Drain> {
        let own = self.drained_executors.get(&executor.name);
        let zone = self.drained_zones.get(&executor.zone);
        own.into_iter().chain(zone).min_by_key(|drain| drain.deadline).copied()
    }

    /// Jobs that are being started, by when that must have happened.
    pub fn starting(&self) -> impl Iterator<Item = (Timestamp, JobId)> + '_ {
        self.index.starting.iter().copied()
    }

    /// The executor that a request means. A name means the one that lives, or else the one that was lost last.
    pub fn resolve_executor(&self, executor: &ExecutorRef) -> Result<(ExecutorId, &Executor), Rejection> {
        let found = match executor {
            ExecutorRef::Id(id) => self.executors.get(id).map(|found| (*id, found)),
            ExecutorRef::Name(name) => {
                let namesakes = self.executors.iter().filter(|(_, e)| e.registration.name == *name);
                namesakes.max_by_key(|(id, e)| (e.is_alive(), **id)).map(|(id, found)| (*id, found))
            }
        };
        found.ok_or_else(|| Rejection::not_found(format_args!("executor `{executor}`")))
    }

    pub fn knows_zone(&self, zone: &Zone) -> bool {
        self.executors.values().any(|e| e.registration.zone == *zone)
    }

    /// The live executor of that name.
    pub fn alive_named(&self, name: &ExecutorName) -> Option<(ExecutorId, &Executor)> {
        self.executors.iter().find(|(_, e)| e.is_alive() && e.registration.name == *name).map(|(id, e)| (*id, e))
    }

    /// Puts the indexes right after the rest has been loaded from an image.
    pub fn rebuild_index(&mut self) {
        // Images of before it was kept do not have it.
        let barrier = self.term.as_ref().map_or(Timestamp::default(), |(_, at)| *at);
        let jobs = self.jobs.values().flat_map(|job| [Some(job.submitted_at), job.finished_at]).flatten();
        self.newest_event_at = jobs.fold(self.newest_event_at.max(barrier), Timestamp::max);
        let mut before: Option<&Arc<JobSpec>> = None;
        for job in self.jobs.values_mut() {
            if let Some(spec) = before.filter(|spec| ***spec == *job.spec) {
                job.spec = spec.clone();
            }
            // The current version's is the job's own.
            let (version, spec) = (job.version, job.spec.clone());
            if let Some(current) = job.life.as_mut().and_then(|life| life.version_mut(version)) {
                current.spec = spec;
            }
            before = Some(&job.spec);
        }
        crate::depend::share_results(self);
        self.index = self.computed_index();
    }

    /// The newest job's specification where it is the same: jobs that are submitted by the thousand are alike, and
    /// need not each hold theirs.
    pub(crate) fn shared(&self, spec: &Arc<JobSpec>) -> Arc<JobSpec> {
        let newest = self.jobs.last_key_value().map(|(_, job)| &job.spec);
        newest.filter(|newest| **newest == *spec).unwrap_or(spec).clone()
    }

    pub(crate) fn computed_index(&self) -> Index {
        let mut index = Index::default();
        for (&id, job) in &self.jobs {
            index.enter(id, job);
        }
        for (namespace, of) in &self.schedules {
            for (name, schedule) in of {
                index.schedules.enter(namespace, name, schedule);
                index.held_bytes += schedule.held_bytes();
            }
        }
        index.spent = self.spent_requests.iter().cloned().collect();
        index.to_evict =
            self.executors.iter().filter(|(_, e)| !e.is_alive() && !e.attempts.is_empty()).map(|(id, _)| *id).collect();
        index
    }
}

impl Index {
    /// Takes a job in. The counterpart of [`Index::leave`]; a change to a job is a leave and an enter.
    pub fn enter(&mut self, id: JobId, job: &Job) {
        // An array is one entry among the jobs.
        if job.task.is_none() {
            match self.by_namespace.get_mut(&job.namespace) {
                Some(ids) => ids.insert(id),
                None => self.by_namespace.entry(job.namespace.clone()).or_default().insert(id),
            };
        }
        self.enter_name(id, job);
        if let Some(request_id) = &job.request_id {
            self.by_request.entry((job.namespace.clone(), request_id.clone())).or_default().push(id);
        }
        self.held_bytes += job.held_bytes();
        self.enter_status(id, job);
    }

    pub fn leave(&mut self, id: JobId, job: &Job) {
        self.held_bytes -= job.held_bytes();
        self.leave_status(id, job);
        if let Some(ids) = self.by_namespace.get_mut(&job.namespace) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_namespace.remove(&job.namespace);
                self.namespace_counts.remove(&job.namespace);
            }
        }
        self.leave_name(id, job);
        if let Some(request_id) = &job.request_id {
            let key = (job.namespace.clone(), request_id.clone());
            if let Some(ids) = self.by_request.get_mut(&key) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_request.remove(&key);
                }
            }
        }
    }

    /// The part of [`Index::enter`] that depends on whether the job is over.
    pub fn enter_name(&mut self, id: JobId, job: &Job) {
        if let Some(name) = job.spec.name.as_ref().filter(|_| job.task.is_none()) {
            self.by_name.insert((job.namespace.clone(), name.clone(), !job.status.is_final(), id));
        }
    }

    pub fn leave_name(&mut self, id: JobId, job: &Job) {
        if let Some(name) = job.spec.name.as_ref().filter(|_| job.task.is_none()) {
            self.by_name.remove(&(job.namespace.clone(), name.clone(), !job.status.is_final(), id));
        }
    }

    /// The part of [`Index::enter`] that depends on where the job is in its life.
    pub fn enter_status(&mut self, id: JobId, job: &Job) {
        self.counts.up(job.status);
        match self.namespace_counts.get_mut(&job.namespace) {
            Some(counts) => counts.up(job.status),
            None => self.namespace_counts.entry(job.namespace.clone()).or_default().up(job.status),
        }
        if let Some(since) = job.away_since() {
            self.restarting.insert((since, id));
        }
        if job.is_queued() {
            self.queue.insert(job.place(), id);
        }
        if job.placement.is_some() {
            self.running.up(id, job);
        }
        if let (Some(stop), Status::Stopping) = (&job.stop, job.status) {
            self.stopping.insert((stop.give_up_at, id));
        }
        if let Some(at) = job.expirable() {
            self.finished.insert((at, id));
        }
        if let Some(by) = job.start_by() {
            self.starting.insert((by, id));
        }
        if let Some(due_at) = job.due_at() {
            self.due.insert((due_at, id));
        }
        if let Some(passed) = job.give_up() {
            self.deadlines.insert((passed.due_at, id));
        }
        self.schedules.enter_job(id, job);
        if job.is_attended() {
            self.attended.insert(id);
        }
        if job.is_importing() {
            self.importing.insert(id);
        }
        if job.array_is_due() {
            self.arrays.insert(id);
        }
        if let Some(task) = job.task.filter(|_| job.status.is_final()) {
            self.tasks_over.entry(task.array).or_default().insert(task.index);
        }
        for parent in job.awaited() {
            self.children.entry(parent).or_default().insert(id);
        }
        if job.verdict().is_some() {
            self.decided.insert(id);
        }
    }

    pub fn leave_status(&mut self, id: JobId, job: &Job) {
        self.counts.down(job.status);
        if let Some(counts) = self.namespace_counts.get_mut(&job.namespace) {
            counts.down(job.status);
        }
        if let Some(since) = job.away_since() {
            self.restarting.remove(&(since, id));
        }
        if job.is_queued() {
            self.queue.remove(job.place(), id);
        }
        if job.placement.is_some() {
            self.running.down(id, job);
        }
        if let (Some(stop), Status::Stopping) = (&job.stop, job.status) {
            self.stopping.remove(&(stop.give_up_at, id));
        }
        if let Some(at) = job.expirable() {
            self.finished.remove(&(at, id));
        }
        if let Some(by) = job.start_by() {
            self.starting.remove(&(by, id));
        }
        if let Some(due_at) = job.due_at() {
            self.due.remove(&(due_at, id));
        }
        if let Some(passed) = job.give_up() {
            self.deadlines.remove(&(passed.due_at, id));
        }
        self.schedules.leave_job(id, job);
        self.attended.remove(&id);
        self.importing.remove(&id);
        if job.array.is_some() {
            self.arrays.remove(&id);
        }
        if let Some(task) = job.task.filter(|_| job.status.is_final())
            && let Some(over) = self.tasks_over.get_mut(&task.array)
        {
            over.remove(&task.index);
            if over.is_empty() {
                self.tasks_over.remove(&task.array);
            }
        }
        for parent in job.awaited() {
            if let Some(children) = self.children.get_mut(&parent) {
                children.remove(&id);
                if children.is_empty() {
                    self.children.remove(&parent);
                }
            }
        }
        if job.awaits_others() {
            self.decided.remove(&id);
        }
    }
}

fn uuid_min() -> uuid::Uuid {
    uuid::Uuid::nil()
}

fn uuid_max() -> uuid::Uuid {
    uuid::Uuid::max()
}
