//! What must hold after every step, whatever has been broken.
//!
//! The checkers see what no part of the system sees: everything that is stored, every process that runs, every answer
//! that was given. They keep a state of their own, folded from the log as it is stored, and compare.

use super::client::Said;
use super::ends::Ends;
use super::env::{Env, Micros, Node, SECOND, say};
use super::executor::short;
use super::queues::Started;
use super::ticks::Ticks;
use bytes::Bytes;
use outlive_core::fold::fold;
use outlive_core::invariant;
use outlive_core::state::State;
use outlive_scheduler::leader::Leader;
use outlive_schemas::array::task_id;
use outlive_schemas::checkpoint::{BlobName, CheckpointRef};
use outlive_schemas::codec;
use outlive_schemas::command::LossReason;
use outlive_schemas::event::{Cause, Envelope, Event};
use outlive_schemas::id::{Attempt, ExecutorId, JobId, Sequence, Term};
use outlive_schemas::message::{News, Order, ReportBatch, ToExecutor};
use outlive_schemas::snapshot::SnapshotStatus;
use outlive_schemas::view::Status;
use outlive_store::frame::{ChainHash, FrameOpener};
use outlive_store::log::Stored;
use outlive_store::seal::Key;
use outlive_store::witness::Witness;
use std::collections::{BTreeMap, BTreeSet};

/// What really became of one attempt.
#[derive(Debug, Default)]
struct Really {
    ran: bool,
    exits: Vec<i32>,
    killed: bool,
    captured: BTreeSet<BlobName>,
    /// It said that it ended, however it did.
    reported_end: bool,
    /// How far it had come when it was killed as it stood, after its last checkpoint.
    ended_frozen: Option<u64>,
}

/// Acknowledged commits that a fault has taken out of the log.
#[derive(Clone, Copy, Debug)]
pub struct LostTail {
    pub first: Sequence,
    pub last: Sequence,
    pub at: Micros,
}

/// Commits between two images.
const IMAGE_EVERY: u64 = 40;
/// Clocks may run this much apart: 1 in so many.
const DRIFT: u64 = 50;

pub struct Checkers {
    pub violation: Option<String>,
    pub truth: State,
    pub ticks: Ticks,
    seq: Sequence,
    chain: ChainHash,
    opener: FrameOpener,
    chains: Vec<ChainHash>,
    really: BTreeMap<(JobId, Attempt), Really>,
    /// What each manifest stands for.
    states: BTreeMap<(JobId, BlobName), Vec<Bytes>>,
    /// Processes of each job that run right now, and where.
    running: BTreeMap<JobId, BTreeSet<(Attempt, usize)>>,
    /// The highest acknowledged commit.
    pub acknowledged: Sequence,
    pub promised: BTreeSet<JobId>,
    pub deleted: BTreeSet<JobId>,
    ends: Ends,
    executors: BTreeMap<ExecutorId, Node>,
    /// When a scheduler last heard of an executor.
    heard: BTreeMap<(usize, ExecutorId), Micros>,
    judged: BTreeSet<ExecutorId>,
    /// Attempts that ended with a last checkpoint, after which nothing is done again.
    given_back: BTreeSet<(JobId, Attempt)>,
    slow_disks: BTreeMap<usize, Micros>,
    /// Whether this run's leaders witness every commit.
    pub every_commit: bool,
    started: Started,
    pub lost_tail: Option<LostTail>,
    /// After a loss a commit of before it has landed where it does not follow.
    pub is_spoilt: bool,
    pub refusals: Vec<String>,
    images: Vec<(Sequence, ChainHash, Vec<u8>)>,
    pub commits: u64,
    /// Executors that were taken for lost after they had been heard, and had not left.
    pub losses: u64,
    /// How often each type of event was stored.
    pub events: BTreeMap<&'static str, u64>,
    pub jitter: u64,
}

impl Checkers {
    pub fn new(key: &Key) -> Checkers {
        Checkers {
            violation: None,
            truth: State::default(),
            ticks: Ticks::default(),
            seq: Sequence(0),
            chain: ChainHash::START,
            opener: FrameOpener::new([key]),
            chains: vec![ChainHash::START],
            really: BTreeMap::new(),
            states: BTreeMap::new(),
            running: BTreeMap::new(),
            acknowledged: Sequence(0),
            promised: BTreeSet::new(),
            deleted: BTreeSet::new(),
            ends: Ends::default(),
            executors: BTreeMap::new(),
            heard: BTreeMap::new(),
            judged: BTreeSet::new(),
            given_back: BTreeSet::new(),
            slow_disks: BTreeMap::new(),
            every_commit: false,
            started: Started::default(),
            lost_tail: None,
            is_spoilt: false,
            refusals: Vec::new(),
            images: Vec::new(),
            commits: 0,
            losses: 0,
            events: BTreeMap::new(),
            jitter: 0,
        }
    }

    pub fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn chain_at(&self, seq: Sequence) -> Option<ChainHash> {
        self.chains.get(seq.0 as usize).copied()
    }

    /// The newest image of the folded state.
    pub fn image(&self) -> Option<(Sequence, ChainHash, &[u8])> {
        self.images.last().map(|(seq, chain, image)| (*seq, *chain, image.as_slice()))
    }

    pub fn executor_is(&mut self, id: ExecutorId, node: Node) {
        self.executors.insert(id, node);
    }

    pub fn executor_node(&self, id: ExecutorId) -> Option<Node> {
        self.executors.get(&id).copied()
    }

    pub fn set_slow_disk(&mut self, executor: usize, by: Micros) {
        self.slow_disks.insert(executor, by);
    }

    pub fn heal_disks(&mut self) {
        self.slow_disks.clear();
    }

    pub fn slow_disk(&self, executor: usize) -> Micros {
        self.slow_disks.get(&executor).copied().unwrap_or(0)
    }

    pub fn heard(&mut self, scheduler: usize, executor: ExecutorId, now: Micros) {
        self.heard.insert((scheduler, executor), now);
    }

    pub fn was_heard(&self, scheduler: usize, executor: ExecutorId, now: Micros) -> bool {
        self.heard.get(&(scheduler, executor)).is_some_and(|at| now < *at + SECOND)
    }

    /// A scheduler has stopped loudly.
    pub fn refused(&mut self, why: &str) {
        self.refusals.push(why.to_owned());
        if self.lost_tail.is_none() {
            self.fail(format!("a scheduler stopped although nothing was lost: {why}"));
        }
    }

    /// A scheduler leads from this position on.
    pub fn leads(&mut self, term: Term, seq: Sequence, chain: ChainHash) {
        if self.lost_tail.is_none() && self.chain_at(seq) != Some(chain) {
            self.fail(format!(
                "the leader of term {term} begins at commit {seq}, which the log does not hold like that"
            ));
        }
    }

    fn really(&mut self, job: JobId, attempt: Attempt) -> &mut Really {
        self.really.entry((job, attempt)).or_default()
    }

    pub fn exited(&mut self, job: JobId, attempt: Attempt, code: i32) {
        self.really(job, attempt).exits.push(code);
    }

    pub fn killed(&mut self, job: JobId, attempt: Attempt) {
        self.really(job, attempt).killed = true;
    }

    pub fn ended_frozen(&mut self, job: JobId, attempt: Attempt, count: u64) {
        self.really(job, attempt).ended_frozen = Some(count);
    }

    pub fn captured(&mut self, job: JobId, attempt: Attempt, manifest: BlobName, files: &[Bytes]) {
        self.really(job, attempt).captured.insert(manifest);
        self.states.insert((job, manifest), files.to_vec());
    }

    pub fn reported(&mut self, batch: &ReportBatch) {
        for report in &batch.reports {
            if let News::Ended(_) = report.news {
                self.really(report.job, report.attempt).reported_end = true;
            }
        }
    }

    /// What an event says, held against what really happened.
    fn is_true(&mut self, envelope: &Envelope) -> Result<(), String> {
        match &envelope.event {
            Event::TermStarted(e) => {
                let before = self.truth.term.as_ref().map(|(term, _)| term.term);
                if before.is_some_and(|before| before >= e.term) {
                    return Err(format!("term {} was started after term {before:?}", e.term));
                }
            }
            Event::JobPlaced(e) => {
                let before = self.truth.jobs.get(&e.job).map(|job| job.attempt).unwrap_or_default();
                if e.attempt <= before {
                    return Err(format!("attempt {} of {} follows attempt {before}", e.attempt, short(e.job)));
                }
            }
            Event::AttemptStarted(e) if !self.really(e.job, e.attempt).ran => {
                return Err(format!("attempt {} of {} is said to have started, and has not", e.attempt, short(e.job)));
            }
            Event::CheckpointCompleted(e) if !self.really(e.job, e.attempt).captured.contains(&e.taken.manifest) => {
                return Err(format!(
                    "checkpoint {} of {} is counted for attempt {}, which did not take it",
                    e.number,
                    short(e.job),
                    e.attempt
                ));
            }
            Event::JobFinished(e) => {
                // A noop job is no process, and of an array each task is one.
                let job = self.truth.jobs.get(&e.job);
                let is_process = job.is_none_or(|job| job.spec.keeps_state() && job.array.is_none());
                let well = e.status == Status::Succeeded;
                if well && is_process && !self.really(e.job, e.attempt).exits.contains(&0) {
                    return Err(format!("{} is said to have succeeded, and has not", short(e.job)));
                }
            }
            Event::JobDeleted(e) => {
                self.deleted.insert(e.job);
            }
            Event::ExecutorLost(e) if e.reason != LossReason::Left => {
                self.losses += u64::from(self.heard.keys().any(|(_, heard)| *heard == e.executor));
            }
            // Where a start is given up nobody has said anything.
            Event::JobRestarting(e)
                if e.cause.is_own_doing()
                    && !e.reason.contains("has not started it")
                    && !self.really(e.job, e.attempt).reported_end =>
            {
                let (attempt, job, why) = (e.attempt, short(e.job), &e.reason);
                return Err(format!("attempt {attempt} of {job} is said to have ended ({why}), and has not"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Which attempts ended with a last checkpoint, so that the next one does nothing again.
    fn note_given_back(&mut self, event: &Event) {
        let ended = match event {
            Event::JobRestarting(e) if e.cause == Cause::Drain => Some((e.job, e.attempt, &e.reason)),
            Event::JobPreempted(e) => Some((e.job, e.attempt, &e.reason)),
            _ => None,
        };
        if let Some((job, attempt, reason)) = ended {
            let was_frozen = self.really(job, attempt).ended_frozen.is_some();
            // What it had come to may have been lost with the end of the log.
            let in_time = !reason.contains("without") && !reason.contains("has not given it back");
            if in_time && was_frozen {
                self.given_back.insert((job, attempt));
            }
        }
        match event {
            // From here on it begins with another state than the one it had come to, because somebody wanted that.
            Event::VersionRestored(_) | Event::StartRequested(_) => {
                let job = event.job();
                self.given_back.retain(|(other, _)| Some(*other) != job);
            }
            // Tasks begin anew: their records, and what they had stored, are gone.
            Event::JobRetried(e) => {
                let count = self.truth.jobs.get(&e.job).and_then(|job| job.spec.array).map_or(0, |array| array.count);
                self.begin_anew(e.job, 0..count);
            }
            Event::ArrayTasksRetried(e) => self.begin_anew(e.job, e.tasks.iter()),
            _ => {}
        }
    }

    fn begin_anew(&mut self, array: JobId, tasks: impl Iterator<Item = u32>) {
        let tasks: BTreeSet<JobId> = tasks.map(|index| task_id(array, index)).collect();
        self.given_back.retain(|(job, _)| !tasks.contains(job));
    }

    /// A commit is durable once it is in the stream or in the bridge; it may come to be in both.
    fn check_stored(&mut self, stored: &Stored) -> Result<Vec<Envelope>, String> {
        if stored.seq <= self.seq {
            let before = self.chain_at(Sequence(stored.seq.0 - 1)).unwrap_or_default();
            let same = self.chain_at(stored.seq) == Some(before.then(&stored.body));
            return if same { Ok(Vec::new()) } else { Err("another commit stands there already".into()) };
        }
        let commit = match self.opener.open(&stored.body, self.seq, self.chain) {
            Ok(commit) => commit,
            // Sent before the loss, and landed in a log that is as long again.
            Err(_) if self.lost_tail.is_some() => {
                self.is_spoilt = true;
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.to_string()),
        };
        self.ticks.begin_commit();
        for envelope in &commit.events {
            self.ticks.hold(envelope)?;
            self.ends.hold(&self.truth, &envelope.event)?;
            self.is_true(envelope)?;
            self.note_given_back(&envelope.event);
            self.started.before(&self.truth, envelope)?;
            *self.events.entry(envelope.event.type_name()).or_default() += 1;
            fold(&mut self.truth, stored.seq, envelope).map_err(|e| e.to_string())?;
        }
        let term = self.truth.term.as_ref().map(|(term, _)| term.term);
        if term != Some(commit.header.term) {
            return Err(format!("a commit of term {} stands after the barrier of {term:?}", commit.header.term));
        }
        invariant::check(&self.truth)?;
        (self.seq, self.chain) = (stored.seq, commit.chain);
        self.chains.push(commit.chain);
        self.commits += 1;
        if stored.seq.0.is_multiple_of(IMAGE_EVERY) {
            self.images.push((self.seq, self.chain, codec::pack(&self.truth)));
        }
        Ok(commit.events)
    }

    /// Forgets what a fault has taken out of the log, so that what follows is judged by what is left.
    pub fn lose_tail(&mut self, key: &Key, messages: &[Bytes]) {
        let mut opener = FrameOpener::new([key]);
        (self.truth, self.chain) = (State::default(), ChainHash::START);
        self.chains = vec![self.chain];
        (self.started, self.ticks, self.ends) = Default::default();
        self.given_back.clear();
        for (index, body) in messages.iter().enumerate() {
            let commit = opener.open(body, Sequence(index as u64), self.chain).expect("it was opened before");
            self.ticks.begin_commit();
            for envelope in &commit.events {
                self.started.before(&self.truth, envelope).expect("it was found right before");
                self.ticks.hold(envelope).expect("it was held before");
                self.ends.hold(&self.truth, &envelope.event).expect("it was held before");
                self.note_given_back(&envelope.event);
                fold(&mut self.truth, Sequence(index as u64 + 1), envelope).expect("it was folded before");
            }
            self.chain = commit.chain;
            self.chains.push(self.chain);
        }
        self.seq = Sequence(messages.len() as u64);
        let last = self.seq;
        self.images.retain(|(seq, ..)| *seq <= last);
        self.acknowledged = last;
    }

    /// The log's end.
    pub fn end(&self) -> (Sequence, ChainHash) {
        (self.seq, self.chain)
    }

    /// An operator has given up what was lost: all holds again for what there is.
    pub fn loss_is_accepted(&mut self) {
        self.lost_tail = None;
        let (truth, deleted) = (&self.truth, &self.deleted);
        self.promised.retain(|job| truth.jobs.contains_key(job) || deleted.contains(job));
        // Numbers of attempts of which the log does not tell any more are given again.
        let is_told = |job: &JobId, attempt: Attempt| truth.jobs.get(job).is_none_or(|there| attempt <= there.attempt);
        self.really.retain(|(job, attempt), _| is_told(job, *attempt));
    }

    /// What was begun for a job that is over, and has not come to an end.
    pub fn unfinished(&self) -> Option<String> {
        let lives = self.truth.jobs.iter().filter_map(|(id, job)| Some((id, job.life.as_ref()?)));
        lives.into_iter().find_map(|(id, life)| {
            let creating = life.snapshots.iter().find(|snapshot| snapshot.status == SnapshotStatus::Creating);
            match (creating, &life.change) {
                (Some(snapshot), _) => Some(format!("snapshot {} of {} is never ready", snapshot.name, short(*id))),
                (None, Some(change)) => Some(format!("{} is over, and yet this is done to it: {change:?}", short(*id))),
                (None, None) => None,
            }
        })
    }

    /// Whether everything that was promised is there.
    pub fn missing(&self) -> Option<JobId> {
        self.promised.iter().copied().find(|job| !self.truth.jobs.contains_key(job) && !self.deleted.contains(job))
    }
}

/// A commit has been stored.
pub fn stored(env: &mut Env, stored: &Stored) {
    match env.checkers.check_stored(stored) {
        Ok(events) => {
            for envelope in &events {
                tell(env, envelope);
                if let Event::CheckpointCompleted(e) = &envelope.event {
                    checkpoint_is_whole(env, e.job, e.taken.manifest);
                }
            }
        }
        Err(what) => env.checkers.fail(format!("commit {}: {what}", stored.seq)),
    }
}

fn tell(env: &mut Env, envelope: &Envelope) {
    if !env.trace.is_on() {
        return;
    }
    let job = envelope.event.job().map(short).unwrap_or_default();
    let attempt = envelope.event.attempt().map(|attempt| format!(" attempt {attempt}")).unwrap_or_default();
    let more = match &envelope.event {
        Event::ExecutorLost(e) => format!(" {:.8} {:?}", e.executor, e.reason),
        Event::ExecutorJoined(e) => format!(" {:.8} {}", e.id, e.name),
        Event::JobPlaced(e) => format!(" on {} from {:?}", e.name, e.restore),
        Event::JobRestarting(e) => format!(" {:?}: {}", e.cause, e.reason),
        Event::JobFinished(e) => format!(" {:?} {:?}", e.status, e.reason),
        Event::CheckpointCompleted(e) => format!(" number {}", e.number),
        Event::TermStarted(e) => format!(" {} by {}", e.term, e.scheduler),
        _ => String::new(),
    };
    say!(env, "log           {} {job}{attempt}{more}", envelope.event.type_name());
}

/// Every chunk of a committed checkpoint is stored.
fn checkpoint_is_whole(env: &mut Env, job: JobId, manifest: BlobName) {
    // That its job was deleted, and what it had stored erased, may be what is lost.
    if env.checkers.lost_tail.is_some() {
        return;
    }
    let Some(files) = env.checkers.states.get(&(job, manifest)) else { return };
    let missing = files.iter().any(|file| !env.blobs.holds(job, super::job::name_of(job, file)));
    if missing || !env.blobs.holds(job, manifest) {
        env.checkers.fail(format!("a checkpoint of {} counts, and not all of it is stored", short(job)));
    }
}

/// A leader has put a commit together: what it believes must hold as well.
pub fn proposed(leader: &Leader, env: &mut Env) {
    if let Err(what) = invariant::check(leader.state()) {
        env.checkers.fail(format!("a leader's state: {what}"));
    }
}

/// A leader takes a commit for durable.
pub fn acknowledged(seq: Sequence, chain: ChainHash, env: &mut Env) {
    if env.checkers.lost_tail.is_some() {
        return;
    }
    if env.checkers.chain_at(seq) != Some(chain) {
        env.checkers.fail(format!("commit {seq} counts as durable, and the log does not hold it"));
    }
    env.checkers.acknowledged = env.checkers.acknowledged.max(seq);
}

/// An answer leaves for a user.
pub fn answered(said: &Said, env: &mut Env) {
    if env.checkers.lost_tail.is_some() {
        return;
    }
    let truth = &env.checkers.truth;
    let deleted = |job: &JobId| env.checkers.deleted.contains(job);
    let wrong = match said {
        Said::Submitted(jobs) => {
            let missing = jobs.iter().find(|job| !truth.jobs.contains_key(job) && !deleted(job)).copied();
            missing.map(|job| format!("{} is said to be submitted, and is not in the log", short(job)))
        }
        Said::View { job, status, attempt } => match truth.jobs.get(job) {
            None if deleted(job) => None,
            None => Some(format!("{} is shown, and is not in the log", short(*job))),
            Some(there) if there.attempt < *attempt => {
                Some(format!("attempt {attempt} of {} is shown, and is not in the log", short(*job)))
            }
            // It may have been tried again since.
            Some(_) if env.checkers.ends.ended_as(*job, *status) => None,
            Some(there) if status.is_final() && there.status != *status => {
                Some(format!("{} is shown as {status}, and in the log it is {}", short(*job), there.status))
            }
            Some(_) => None,
        },
        Said::Deleted | Said::Rejected(_) | Said::Other => None,
    };
    if let Said::Submitted(jobs) = said {
        env.checkers.promised.extend(jobs.iter().copied());
    }
    if let Some(wrong) = wrong {
        env.checkers.fail(wrong);
    }
}

/// An order leaves for an executor.
pub fn ordered(executor: ExecutorId, order: &ToExecutor, env: &mut Env) {
    let Order::Assign(assignments) = &order.order else { return };
    if env.checkers.lost_tail.is_some() {
        return;
    }
    for assignment in assignments {
        let job = assignment.job;
        let there = env.checkers.truth.jobs.get(&job);
        // It may have gone on since; it cannot be ahead of the log.
        let known = there.is_some_and(|there| there.attempt >= assignment.attempt) || env.checkers.deleted.contains(&job)
            // A task that has been counted has no record any more.
            || env.checkers.ends.was_over(job);
        if !known {
            env.checkers.fail(format!(
                "attempt {} of {} is ordered from {executor:.8}, and is not in the log",
                assignment.attempt,
                short(job)
            ));
        }
    }
}

/// Nobody is judged too early: a verdict of silence needs silence, and one of absence an absence.
pub fn judged(scheduler: usize, leader: &Leader, env: &mut Env) {
    let Some((term, _)) = &leader.state().term else { return };
    let term = term.term;
    let lost: Vec<(ExecutorId, LossReason)> = leader
        .state()
        .executors
        .iter()
        .filter_map(|(id, executor)| executor.lost.map(|loss| (*id, loss.reason)))
        .filter(|(id, _)| !env.checkers.judged.contains(id))
        .collect();
    for (executor, reason) in lost {
        // Judged once, by whoever was first.
        env.checkers.judged.insert(executor);
        let silence = env
            .checkers
            .heard
            .get(&(scheduler, executor))
            .map(|heard| env.now.saturating_sub(*heard))
            .unwrap_or(Micros::MAX);
        let least = 2 * SECOND - 2 * SECOND / DRIFT;
        say!(env, "scheduler-{scheduler} in term {term} takes {executor:.8} for lost: {reason:?}");
        match reason {
            LossReason::Silent if silence < least => env
                .checkers
                .fail(format!("{executor:.8} is taken for silent {} ms after it was heard", silence / 1_000)),
            LossReason::ProcessGone => {
                let node = env.checkers.executor_node(executor);
                let there = node.is_some_and(|node| {
                    let asking = Node::Scheduler(scheduler);
                    env.net.is_there(node, executor) && !env.net.lost_route_lately(asking, node, env.now)
                });
                if there {
                    env.checkers.fail(format!("{executor:.8} is taken for gone, and its process is there"));
                }
            }
            _ => {}
        }
    }
}

/// A process begins, with or without a state.
pub fn starts(job: JobId, attempt: Attempt, restored: Option<u64>, env: &mut Env) {
    if env.checkers.lost_tail.is_some() {
        return;
    }
    let Some(there) = env.checkers.truth.jobs.get(&job) else { return };
    // An attempt that has been given up counts for nothing, whenever it begins.
    let counts = there.attempt == attempt && there.placement.is_some();
    if counts && let Err(what) = env.checkers.ends.may_begin(job) {
        env.checkers.fail(what);
        return;
    }
    let before = Attempt(attempt.0.saturating_sub(1));
    let given_back = env.checkers.given_back.contains(&(job, before));
    let came_to = env.checkers.really.get(&(job, before)).and_then(|really| really.ended_frozen);
    if given_back && there.attempt == attempt && restored != came_to {
        env.checkers.fail(format!(
            "attempt {before} of {} was given back at {came_to:?}, and attempt {attempt} goes on from {restored:?}",
            short(job)
        ));
    }
    let Some(there) = env.checkers.truth.jobs.get(&job) else { return };
    if there.attempt == attempt && restored.is_none() && !there.checkpoints.is_empty() {
        let from_this = there.checkpoints.iter().all(|checkpoint| checkpoint.attempt == attempt);
        if !from_this {
            env.checkers.fail(format!("attempt {attempt} of {} begins with an empty state in silence", short(job)));
        }
    }
}

/// A process runs from now on.
pub fn process_runs(job: JobId, attempt: Attempt, host: usize, exclusive: bool, env: &mut Env) {
    env.checkers.really(job, attempt).ran = true;
    let running = env.checkers.running.entry(job).or_default();
    running.insert((attempt, host));
    // After acknowledged commits were lost, and until that is noticed, a leader cannot know what they had placed.
    if exclusive && running.len() > 1 && env.checkers.lost_tail.is_none() {
        let running = format!("{running:?}");
        env.checkers.fail(format!("{} is exclusive and runs more than once: {running}", short(job)));
    }
}

pub fn process_stops(job: JobId, attempt: Attempt, host: usize, env: &mut Env) {
    if let Some(running) = env.checkers.running.get_mut(&job) {
        running.remove(&(attempt, host));
    }
}

/// A state has been restored.
pub fn restored(job: JobId, attempt: Attempt, from: CheckpointRef, files: &[Bytes], env: &mut Env) {
    say!(env, "            {} attempt {attempt} is restored from checkpoint {}", short(job), from.number);
    let same = env.checkers.states.get(&(job, from.manifest)).is_some_and(|state| state == files);
    if !same {
        env.checkers.fail(format!("what was restored of {} is not checkpoint {}", short(job), from.number));
    }
}

/// The newest commit that the witness or some executor knows of.
pub fn newest_known(env: &Env, seen: impl Iterator<Item = Sequence>) -> Sequence {
    let witness = env.etcd.witness().and_then(|body| Witness::decode(body).ok());
    seen.chain(witness.map(|witness| witness.seq)).max().unwrap_or_default()
}
