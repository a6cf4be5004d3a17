//! The machine that leads: inputs in, outputs out. No sockets, no clock, no waiting.
//!
//! Whatever leaves as an answer or an order rests on commits that are durable; the journal sees to it.

mod fleet;
mod follow;
mod life;
mod queue;
mod many;
mod schedules;
mod shown;
mod users;

use crate::clock::Ids;
use crate::config::WitnessMode;
use crate::dispatch;
use crate::journal::{Append, Committed, Journal, ProposeError};
use crate::metrics;
use crate::report::{self, Taken};
use crate::submission::Request;
use crate::traces::{Span, Traces};
use crate::waiters::Waiters;
use crate::watch::{Probed, Watch};
use outlive_core::decide::Refusal;
use outlive_core::detect::zone::SETTLE_DEFAULT;
use outlive_core::fold::FoldError;
use outlive_core::preempt::Claims;
use outlive_core::retention::{self, Retention};
use outlive_core::state::{Job, State};
use outlive_core::{timer, view};
use outlive_schemas::codec::Format;
use outlive_schemas::command::Command;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{
    ExecutorId, ExecutorName, JobId, Namespace, SchedulerName, Sequence, SnapshotName, Term, Zone,
};
use outlive_schemas::life::VersionList;
use outlive_schemas::limits;
use outlive_schemas::message::{Assignment, Heartbeat, LeaderBeat, Order, ReportBatch, ReportReply, ToExecutor, Told};
use outlive_schemas::queue::{QueueList, QueueView};
use outlive_schemas::request::{HistoryRequest, LogsRequest};
use outlive_schemas::schedule::{ScheduleList, ScheduleView};
use outlive_schemas::snapshot::{SnapshotList, SnapshotPlace, SnapshotView};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::{
    ExecutorList, ExecutorView, FeedEntry, Held, JobList, JobView, LeaderView, OldestCheckpointView, RestartingView,
    SubmitManyReply, SubmitReply, Why, ZoneView,
};
use outlive_schemas::when::{DeletedMany, Retried};
use outlive_store::frame::SealError;
use outlive_store::log::AppendError;
use outlive_store::witness::Witness;
use std::collections::{BTreeMap, BTreeSet};

/// Where an answer goes: the shell knows what is behind the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo {
    pub number: u64,
    pub format: Format,
}

#[derive(Debug)]
pub enum Input {
    Request {
        request: Request,
        to: ReplyTo,
    },
    Reports {
        batch: ReportBatch,
        to: ReplyTo,
    },
    Beat(Heartbeat),
    /// This leader heard its own beat.
    OwnBeat,
    Probed {
        executor: ExecutorId,
        found: Probed,
    },
    ZoneProbed {
        zone: Zone,
        found: Probed,
    },
    /// All registrations that are there.
    Registered(Vec<Registration>),
    Appended(Result<(), AppendError>),
    /// The witness stands in etcd.
    Witnessed(Witness),
    /// It could not be written; it is tried again.
    NotWitnessed,
    /// Whether nothing of a deleted job is left; if something may be, it is tried again.
    Erased {
        job: JobId,
        gone: bool,
    },
}

#[derive(Debug)]
pub enum Output {
    Append(Append),
    Answer {
        to: ReplyTo,
        answer: Answer,
    },
    ReportReply {
        to: ReplyTo,
        reply: ReportReply,
    },
    Order {
        executor: ExecutorId,
        order: ToExecutor,
    },
    Feed {
        namespace: Namespace,
        event: FeedEntry,
    },
    Beat(LeaderBeat),
    Probe(ExecutorId),
    /// Ask whether anybody of the zone is there.
    ProbeZone(Zone),
    ReadRegistry,
    Witness(Witness),
    Lookup {
        to: ReplyTo,
        lookup: Lookup,
    },
    /// A job is deleted for good: erase what it left, and then say so, by [`Input::Erased`], and to whoever asked.
    Erase {
        to: Option<ReplyTo>,
        namespace: Namespace,
        job: JobId,
    },
    Committed(Committed),
    /// Something was done for a traced job.
    Span(Span),
    /// Lead no more.
    Resign(Resignation),
}

/// An answer made from the state alone.
#[derive(Debug)]
pub enum Answer {
    Rejected(Rejection),
    Submitted(SubmitReply),
    SubmittedMany(SubmitManyReply),
    Job(Box<JobView>),
    Jobs(JobList),
    Why(Why),
    Executors(ExecutorList),
    Executor(Box<ExecutorView>),
    Zone(ZoneView),
    Versions(Box<VersionList>),
    Snapshot(Box<SnapshotView>),
    Snapshots(SnapshotList),
    SnapshotPlace(Box<SnapshotPlace>),
    Queue(Box<QueueView>),
    Queues(QueueList),
    Deleted,
    Schedule(Box<ScheduleView>),
    Schedules(Box<ScheduleList>),
    DeletedMany(DeletedMany),
    Retried(Retried),
    Held(Held),
}

/// An answer that needs what is not in the state.
#[derive(Debug)]
pub enum Lookup {
    History { job: JobId, commits: Vec<Sequence>, request: HistoryRequest },
    Logs { namespace: Namespace, job: JobId, request: LogsRequest },
    Status(StatusSoFar),
}

/// The parts of `sys.status` that the state holds.
#[derive(Debug)]
pub struct StatusSoFar {
    pub leader: LeaderView,
    pub last_seq: Sequence,
    pub witness_seq: Sequence,
    pub zones: Vec<ZoneView>,
    pub jobs: BTreeMap<outlive_schemas::view::Status, u64>,
    pub held_bytes: u64,
    pub held_jobs: u64,
    pub restarting: Vec<RestartingView>,
    pub oldest_checkpoint: Option<OldestCheckpointView>,
}

/// Why a leader stops leading.
#[derive(Debug, thiserror::Error)]
pub enum Resignation {
    #[error("another scheduler has written to the log")]
    Deposed,
    #[error("the log refused a commit: {reason}")]
    Refused { reason: String },
    /// Acknowledged commits are missing.
    #[error(
        "log_lost_acknowledged_commits: {who} was told of commit {seen} by an earlier leader, and what earlier leaders \
         have committed ends at {last}; restore the log, or give the lost commits up with `outlive log accept-loss`"
    )]
    LostCommits { who: ExecutorId, seen: Sequence, last: Sequence },
    #[error("the state is broken")]
    Broken(#[source] FoldError),
    #[error("a commit could not be sealed")]
    Unsealable(#[source] SealError),
}

/// Who leads.
#[derive(Clone, Debug)]
pub struct Identity {
    pub scheduler: SchedulerName,
    pub zone: Zone,
    pub term: Term,
}

/// Several times a second, so that a missing beat is noticed soon.
const BEAT_INTERVAL: Millis = Millis(250);
/// Jobs that begin later than this are found by the planning round of a beat.
const PUNCTUAL_WITHIN: Millis = Millis::minutes(1);
/// The longest that an acknowledged commit goes without a witness.
const WITNESS_INTERVAL: Millis = Millis(200);
/// How often the registry is read, for executors that nobody has announced.
const REGISTRY_INTERVAL: Millis = Millis(1_000);
/// How often orders to stop are repeated until they are confirmed.
const STOP_INTERVAL: Millis = Millis(1_000);
/// After an erasure that did not succeed: what it needs is out of reach.
const ERASURE_PAUSE: Millis = Millis(1_000);

pub struct Leader {
    identity: Identity,
    since: Timestamp,
    /// Where this term's barrier stands: whatever lower terms have committed is before it.
    barrier: Sequence,
    journal: Journal,
    watch: Watch,
    waiters: Waiters,
    ids: Ids,
    /// Whether something has changed that a round of planning could use.
    plan_due: bool,
    /// When jobs can be placed that wait for a time that is near.
    ready: BTreeSet<Timestamp>,
    witnessed: Sequence,
    /// Since when something acknowledged has no witness.
    unwitnessed_since: Option<Timestamp>,
    witness_mode: WitnessMode,
    /// What is durable and waits for its witness, where every commit needs one.
    unwitnessed: Vec<Output>,
    retention: Retention,
    /// Deleted jobs whose remains are being erased.
    erasing: BTreeSet<JobId>,
    traces: Traces,
    /// When clients that import snapshots were last heard of.
    imports: BTreeMap<(JobId, SnapshotName), Timestamp>,
    /// Room that is being made for the more urgent.
    claims: Claims,
    next: Deadlines,
    /// How long a zone that was lost must have been steady before it gets work again.
    settle: Millis,
    resigned: bool,
}

#[derive(Debug, Default)]
struct Deadlines {
    beat: Timestamp,
    witness: Timestamp,
    registry: Timestamp,
    stops: Timestamp,
    erasure: Timestamp,
    releases: Timestamp,
    imports: Timestamp,
    zones: Timestamp,
}

impl Leader {
    pub fn new(identity: Identity, journal: Journal, ids: Ids, now: Timestamp, witness_mode: WitnessMode) -> Leader {
        let watch = Watch::new(now, journal.state());
        Leader {
            identity,
            since: now,
            barrier: journal.acked(),
            watch,
            journal,
            waiters: Waiters::default(),
            ids,
            plan_due: true,
            ready: BTreeSet::new(),
            witnessed: Sequence(0),
            unwitnessed_since: Some(now),
            witness_mode,
            unwitnessed: Vec::new(),
            retention: Retention::default(),
            erasing: BTreeSet::new(),
            traces: Traces::default(),
            imports: BTreeMap::new(),
            claims: Claims::default(),
            next: Deadlines::default(),
            settle: SETTLE_DEFAULT,
            resigned: false,
        }
    }

    /// The same leader with other rules for how long finished jobs are kept.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Leader {
        Leader { retention, ..self }
    }

    #[must_use]
    pub fn settling_for(self, settle: Millis) -> Leader {
        Leader { settle, ..self }
    }

    pub fn state(&self) -> &State {
        self.journal.state()
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    pub fn acked(&self) -> Sequence {
        self.journal.acked()
    }

    pub fn witnessed(&self) -> Sequence {
        self.witnessed
    }

    /// What the shell writes as it gives up leadership, so that the next leader is held to all of it.
    pub fn last_witness(&self) -> Witness {
        self.journal.witness()
    }

    /// Whether more requests and reports may be taken in now.
    pub fn has_room(&self) -> bool {
        self.journal.has_room()
    }

    /// Takes one input in.
    pub fn input(&mut self, input: Input, now: Timestamp, out: &mut Vec<Output>) {
        if self.resigned {
            return;
        }
        match input {
            Input::Request { request, to } => self.request(request, to, now, out),
            Input::Reports { batch, to } => self.reports(batch, to, now, out),
            Input::Beat(beat) => self.beat(&beat, now, out),
            Input::OwnBeat => self.watch.own_beat(now),
            Input::Probed { executor, found } => self.watch.probed(executor, found, now),
            Input::ZoneProbed { zone, found } => self.watch.zone_probed(zone, found),
            Input::Registered(present) => self.registered(present, now, out),
            Input::Appended(result) => self.appended(result, now, out),
            Input::Witnessed(witness) => self.witness_stands(witness, now, out),
            Input::NotWitnessed => self.next.witness = now + WITNESS_INTERVAL,
            Input::Erased { job, gone } => self.erased(job, gone, now, out),
        }
    }

    /// Does what is due, and sends the next commit on its way. Called after a batch of inputs, and by the clock.
    pub fn turn(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.resigned {
            return;
        }
        self.judge(now, out);
        self.evict(now, out);
        self.release(now, out);
        for command in timer::due(self.state(), now, limits::PLACEMENTS_PER_ROUND_MAX) {
            self.own(command, now, out);
        }
        self.give_up_imports(now, out);
        self.tick(now, out);
        self.follow(now, out);
        self.place(now, out);
        self.expire(now, out);
        self.erase_remains(now, out);
        for (_, to) in self.waiters.overdue(now) {
            let rejection = Rejection::new(
                ErrorCode::Timeout,
                "the job was not there in time; it goes on, and may be waited for again",
            );
            out.push(Output::Answer { to, answer: Answer::Rejected(rejection) });
        }
        self.repeat(now, out);
        match self.journal.next_append(now) {
            Ok(append) => out.extend(append.map(Output::Append)),
            Err(source) => self.resign(Resignation::Unsealable(source), out),
        }
    }

    fn resign(&mut self, why: Resignation, out: &mut Vec<Output>) {
        self.resigned = true;
        out.push(Output::Resign(why));
    }

    // Executors.

    fn reports(&mut self, batch: ReportBatch, to: ReplyTo, now: Timestamp, out: &mut Vec<Output>) {
        if self.bears(batch.executor, batch.told(), out) {
            let Taken { superseded, retained } = report::take(self, batch, now, out);
            let reply = ReportReply { term: self.identity.term, seq: self.journal.acked(), superseded, retained };
            self.journal.hold_back(Output::ReportReply { to, reply }, out);
        }
    }

    fn beat(&mut self, beat: &Heartbeat, now: Timestamp, out: &mut Vec<Output>) {
        if !self.bears(beat.executor, beat.told(), out) {
            return;
        }
        match self.journal.state().executors.get(&beat.executor) {
            Some(executor) if executor.is_alive() => {
                let returned = self.watch.observations.executors.get(&beat.executor).is_some_and(|o| o.is_suspect(now));
                if self.watch.beat(beat, self.journal.state(), now) {
                    let seq = self.journal.acked();
                    let order = Order::Want(dispatch::wanted(self.journal.state(), beat.executor, seq));
                    self.order_when_durable(beat.executor, order, out);
                }
                self.plan_due |= returned;
            }
            // It was declared lost, and what it ran has moved on.
            Some(_) => self.order_when_durable(beat.executor, Order::Dismiss, out),
            None => self.next.registry = now,
        }
    }

    /// Whether what others were told of the log goes with what this leader knows of it. If not, it leads no more:
    /// somebody else does, or commits are lost that were acknowledged. Unless it was a log of another generation, which
    /// this one was restored from or goes on without: whoever comes from there begins anew, and is not listened to
    /// before.
    fn bears(&mut self, who: ExecutorId, told: Told, out: &mut Vec<Output>) -> bool {
        let term = self.identity.term;
        let before = Sequence(self.barrier.0.saturating_sub(1));
        if told.term > term {
            self.resign(Resignation::Deposed, out);
            return false;
        }
        if told.term > Term(0) && told.term.generation() < term.generation() {
            self.order(who, Order::Dismiss, out);
            return false;
        }
        let (seen, last) = match told.term {
            // It does not say, so only what is beyond the end of all is certainly lost.
            Term(0) => (told.seq, self.journal.acked()),
            newest if newest == term => (told.before, before),
            _ => (told.seq, before),
        };
        let lost = seen > last;
        if lost {
            self.resign(Resignation::LostCommits { who, seen, last }, out);
        }
        !lost
    }

    fn registered(&mut self, present: Vec<Registration>, now: Timestamp, out: &mut Vec<Output>) {
        self.watch.registered(&present);
        // What a process that has died registered is there until its lease ends, also when one or two that came after it
        // under its name have died as well. Ids rise with time; where a host's clock went back, who comes waits for that.
        let mut newest: BTreeMap<ExecutorName, ExecutorId> = BTreeMap::new();
        for registration in &present {
            let id = newest.entry(registration.name.clone()).or_insert(registration.id);
            *id = registration.id.max(*id);
        }
        for registration in present {
            let is_newest = newest.get(&registration.name) == Some(&registration.id);
            if is_newest && !self.state().executors.contains_key(&registration.id) {
                self.own(Command::AdmitExecutor(registration), now, out);
            }
        }
    }

    pub(crate) fn order(&self, executor: ExecutorId, order: Order, out: &mut Vec<Output>) {
        let order = ToExecutor { term: self.identity.term, seq: self.journal.acked(), order };
        out.push(Output::Order { executor, order });
    }

    /// An order that may rest on what has been decided and is not durable yet.
    fn order_when_durable(&mut self, executor: ExecutorId, order: Order, out: &mut Vec<Output>) {
        let order = ToExecutor { term: self.identity.term, seq: self.journal.acked(), order };
        self.journal.hold_back(Output::Order { executor, order }, out);
    }

    // The leader's own.

    /// Forgets what has been over for long enough.
    fn expire(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if !self.journal.has_room() {
            return;
        }
        for command in retention::due(self.state(), &self.retention, now, limits::EXPIRIES_PER_TURN_MAX) {
            self.own(command, now, out);
        }
    }

    /// Has erased what deleted jobs left: those that retention forgot, and those of a leader that did not get to it.
    fn erase_remains(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let free = limits::ERASURES_MAX.saturating_sub(self.erasing.len());
        if free == 0 || now < self.next.erasure {
            return;
        }
        let left = self.journal.state().to_erase.iter().filter(|(job, _)| !self.erasing.contains(job)).take(free);
        let left: Vec<_> = left.map(|(job, namespace)| (*job, namespace.clone())).collect();
        for (job, namespace) in left {
            self.erasing.insert(job);
            // Not before the deletion is durable.
            self.journal.hold_back(Output::Erase { to: None, namespace, job }, out);
        }
    }

    fn erased(&mut self, job: JobId, gone: bool, now: Timestamp, out: &mut Vec<Output>) {
        self.erasing.remove(&job);
        if gone {
            self.own(Command::ConfirmErasure { job }, now, out);
        } else {
            self.next.erasure = now + ERASURE_PAUSE;
        }
    }

    /// What is said again and again.
    fn repeat(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if now >= self.next.beat {
            self.next.beat = now + BEAT_INTERVAL;
            // A job may have become due, or an executor been heard again.
            self.plan_due = true;
            let Identity { scheduler, zone, term } = self.identity.clone();
            out.push(Output::Beat(LeaderBeat { term, scheduler, zone, seq: self.journal.acked() }));
        }
        if now >= self.next.witness && self.witnessed < self.journal.acked() {
            self.next.witness = now + WITNESS_INTERVAL;
            out.push(Output::Witness(self.journal.witness()));
        }
        if now >= self.next.registry {
            self.next.registry = now + REGISTRY_INTERVAL;
            out.push(Output::ReadRegistry);
        }
        if now >= self.next.stops {
            self.next.stops = now + STOP_INTERVAL;
            let mut orders = dispatch::Orders::default();
            let state = self.journal.state();
            for (executor, stop) in state.stopping().filter_map(|id| dispatch::stop(id, state.jobs.get(&id)?)) {
                orders.stop(executor, stop);
            }
            state.attended().filter_map(|id| Some((id, state.jobs.get(&id)?))).for_each(|(id, job)| {
                orders.attend(id, job);
            });
            // What asks for them may not be durable yet.
            for (executor, order) in orders.into_messages(self.identity.term, self.journal.acked()) {
                self.journal.hold_back(Output::Order { executor, order }, out);
            }
        }
    }

    fn appended(&mut self, result: Result<(), AppendError>, now: Timestamp, out: &mut Vec<Output>) {
        match result {
            Ok(()) => {
                let mut freed = Vec::new();
                let committed = self.journal.appended(now, &mut freed);
                self.unwitnessed_since.get_or_insert(now);
                let acked = self.journal.acked();
                for output in &mut freed {
                    if let Output::ReportReply { reply, .. } = output {
                        reply.seq = acked;
                    }
                }
                match self.witness_mode {
                    WitnessMode::Interval => out.append(&mut freed),
                    WitnessMode::EveryCommit => {
                        self.unwitnessed.append(&mut freed);
                        out.push(Output::Witness(self.journal.witness()));
                    }
                }
                out.extend(committed.map(Output::Committed));
            }
            Err(AppendError::Conflict { .. }) => self.resign(Resignation::Deposed, out),
            Err(AppendError::Refused { reason }) => self.resign(Resignation::Refused { reason }, out),
        }
    }

    fn witness_stands(&mut self, witness: Witness, now: Timestamp, out: &mut Vec<Output>) {
        self.witnessed = self.witnessed.max(witness.seq);
        // What came after it was acknowledged while it was written.
        self.unwitnessed_since = (self.witnessed < self.journal.acked()).then_some(now);
        if self.witnessed == self.journal.acked() {
            out.append(&mut self.unwitnessed);
        } else if self.witness_mode == WitnessMode::EveryCommit {
            self.next.witness = now;
        }
    }

    /// Proposes for a user.
    fn propose(&mut self, command: Command, now: Timestamp, out: &mut Vec<Output>) -> Result<(), Rejection> {
        match self.commit(command, now, out) {
            Ok(()) => Ok(()),
            Err(Refusal::Rejected(rejection)) => Err(rejection),
            Err(Refusal::Superseded | Refusal::Stale) => {
                Err(Rejection::unavailable("the request was overtaken by other events"))
            }
        }
    }

    /// Proposes for the leader itself; what has been overtaken is let go. Says whether anything came of it.
    fn own(&mut self, command: Command, now: Timestamp, out: &mut Vec<Output>) -> bool {
        let done = self.commit(command, now, out);
        if let Err(Refusal::Rejected(rejection)) = &done {
            tracing::debug!(reason = %rejection, "a command of the leader's own was refused");
        }
        done.is_ok()
    }

    /// Decides, folds, and sees to what follows from each event.
    pub(crate) fn commit(&mut self, command: Command, now: Timestamp, out: &mut Vec<Output>) -> Result<(), Refusal> {
        match self.journal.propose(command, now) {
            Ok(events) => {
                self.react(&events, now, out);
                Ok(())
            }
            Err(ProposeError::Refused(refusal)) => Err(refusal),
            Err(ProposeError::Broken(source)) => {
                self.resign(Resignation::Broken(source), out);
                Err(Refusal::Stale)
            }
        }
    }

    fn react(&mut self, events: &[Envelope], now: Timestamp, out: &mut Vec<Output>) {
        let mut follows: Vec<Output> = Vec::new();
        let (mut assignments, mut stops, mut attended) = (Vec::new(), Vec::new(), Vec::new());
        let mut done = BTreeSet::new();
        let state = self.journal.state();
        for envelope in events {
            let about = envelope.event.job();
            let job = about.and_then(|id| state.jobs.get(&id));
            match &envelope.event {
                Event::ExecutorJoined(registration) => self.watch.joined(registration, now),
                Event::ExecutorLost(e) => self.watch.lost(e.executor),
                Event::JobPlaced(e) => {
                    let assignment = job.and_then(|job| dispatch::assignment(e.job, job));
                    assignments.extend(assignment.map(|(executor, assignment)| {
                        let trace = self.traces.of_attempt(e.job, e.attempt);
                        (executor, Assignment { trace, ..assignment })
                    }));
                    follows.extend(self.traces.placed(e.job, e.attempt, now).map(Output::Span));
                }
                Event::CancelRequested(e) => stops.extend(job.and_then(|job| dispatch::stop(e.job, job))),
                Event::DeadlinePassed(e) => stops.extend(job.and_then(|job| dispatch::stop(e.job, job))),
                Event::JobFinished(e) => self.traces.forget(e.job),
                Event::CheckpointFailed(e) => self.claims.failed(e.job, now),
                Event::ExecutorDraining(_) | Event::ZoneDraining(_) => self.next.releases = now,
                Event::JobDeleted(e) => {
                    // One that was stopped did not end before.
                    self.traces.forget(e.job);
                    for to in self.waiters.all_of(e.job) {
                        let answer = Answer::Rejected(Rejection::not_found(format_args!(
                            "job `{}` any more: it was deleted",
                            e.job
                        )));
                        follows.push(Output::Answer { to, answer });
                    }
                }
                Event::ArrayCancelRequested(_) | Event::ArrayTasksCancelled(_) => {
                    let answers = about.map(|array| many::answer_cancelled(&mut self.waiters, state, array, now));
                    follows.extend(answers.into_iter().flatten());
                }
                event if life::may_need_orders(event) => attended.extend(event.job()),
                _ => {}
            }
            if let Event::ScheduleTicked(e) = &envelope.event {
                metrics::ticked(e, envelope.at);
            }
            if life::is_for_the_planner(&envelope.event) {
                self.plan_due = true;
                let ready = job.filter(|job| job.is_queued()).map(|job| job.ready_at);
                self.ready.extend(ready.filter(|at| *at > now && at.since(now) <= PUNCTUAL_WITHIN));
            }
            let (Some(id), Some(job)) = (about, job) else { continue };
            metrics::event(job, envelope);
            follows.push(feed(id, job, envelope));
            if !self.waiters.is_empty() && done.insert(id) {
                for to in self.waiters.arrived(id, job) {
                    follows.push(Output::Answer { to, answer: Answer::Job(Box::new(view::job(id, job, now))) });
                }
            }
        }
        let mut orders = dispatch::Orders::default();
        for id in attended {
            if let Some(job) = self.journal.state().jobs.get(&id) {
                orders.attend(id, job);
            }
        }
        if let Some(held) = self.journal.orders() {
            held.append(orders);
            assignments.into_iter().for_each(|(executor, assignment)| held.assign(executor, assignment));
            stops.into_iter().for_each(|(executor, stop)| held.stop(executor, stop));
        }
        for output in follows {
            self.journal.hold_back(output, out);
        }
    }
}

fn feed(id: JobId, job: &Job, envelope: &Envelope) -> Output {
    let event = FeedEntry {
        job: id,
        name: job.name(id),
        kind: envelope.event.type_name(),
        at: envelope.at,
        attempt: envelope.event.attempt(),
        status: job.status,
        facts: envelope.event.facts(),
    };
    Output::Feed { namespace: job.namespace.clone(), event }
}

#[cfg(test)]
mod tests;
