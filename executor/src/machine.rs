//! The executor as a machine: what has happened goes in, what is to be done comes out.
//!
//! It owns what is held (`holdings`), a machine per attempt (`attempt`), what the leader said (`intake`), and what is
//! to be told it (`report`). It has no clock, no sockets and does no work: every input comes with the time, and
//! `runner` performs the effects in their order. Noop jobs are run here and leave nothing behind but a report.
//!
//! Deliberately not here: transitions of one attempt (`attempt`) and which orders count (`intake`).

mod comeback;
pub mod holdings;
mod orders;

use crate::attempt::{self, AttemptMachine};
use crate::config::DRAIN_TIMEOUT_DEFAULT;
use crate::heartbeat::heartbeat;
use crate::intake::Intake;
use crate::metrics;
use crate::report::Outbox;
use holdings::Holdings;
use outlive_schemas::command::Stop;
use outlive_schemas::event::Cause;
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{Attempt, ExecutorId, JobId, Sequence, Term};
use outlive_schemas::message::{
    Assignment, Health, Heartbeat, News, Otherwise, Outcome, Release, ReportBatch, ReportReply, Retained, ToExecutor,
    Told,
};
use outlive_schemas::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// After a report that was not answered; doubles…
const REPORT_PAUSE_MS_MIN: u64 = 50;
/// …up to here: a new leader should be told soon.
const REPORT_PAUSE_MS_MAX: u64 = 800;

/// When the time for last checkpoints is over, so much is left for killing and reporting.
const LEAVE_MS_EXTRA: u64 = 3_000;
/// Without a leader nobody hears how attempts were given back. It is not waited for longer than this.
const LEADERLESS_MS_MAX: u64 = 5_000;
/// From a dismissal to the next incarnation: SIGKILL is quick, but a hanging disk is not waited for for ever.
const DISMISS_MS_MAX: u64 = 15_000;

/// Everything that can happen to an executor.
#[derive(Debug)]
pub enum Input {
    Order(ToExecutor),
    /// A leader's beat.
    Heard {
        term: Term,
        seq: Sequence,
    },
    /// The leader's answer to the batch that was sent last, or none.
    Answer(Option<ReportReply>),
    /// What one attempt's work came to.
    Attempt(JobId, Attempt, attempt::Input),
    HeartbeatDue,
    /// See [`ExecutorMachine::wake_at`].
    Wake,
    /// The registration's lease is over.
    LeaseLost,
    /// The registry has us again.
    Registered,
    Shutdown,
}

#[derive(Debug)]
pub enum Effect {
    /// A new attempt: what follows for it are [`Effect::Attempt`]s, the last of which is [`attempt::Effect::Forget`].
    Begin(Arc<Assignment>),
    /// Never [`attempt::Effect::Report`]: that is in the outbox by then.
    Attempt(JobId, Attempt, attempt::Effect),
    /// What [`attempt::Effect::Forget`] is about to remove is likely to be of use to the job's next attempt here.
    Keep(JobId, Attempt),
    /// Ask the leader this, and come back with [`Input::Answer`].
    Report(ReportBatch),
    /// Delete what of a job's stored state nothing refers to any more; nothing comes back of it.
    CollectGarbage(Retained),
    /// Nobody waits for the answer to the batch under way any more.
    ForgetReport,
    /// To be sent with the host's health in it.
    Beat(Heartbeat),
    /// Seek a registration again, however long that takes.
    Register,
    /// A leader that counts was heard.
    LeaderHeard,
    /// From now on nothing is taken on.
    Withdrawn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Working,
    /// Going for good: what is held is given back; at that time whatever is left is left.
    Leaving {
        by_ms: u64,
    },
    /// Declared lost by the leader; a new incarnation follows.
    Dismissed {
        by_ms: u64,
    },
}

/// How an incarnation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Left,
    Dismissed,
}

/// An attempt with a process, from the order to run it until nothing of it is left.
struct Live {
    machine: AttemptMachine,
    assignment: Arc<Assignment>,
    wake_at: Option<u64>,
    /// Whether there is a checkpoint that another attempt could begin with.
    has_state: bool,
    /// Whether it was ended by order, for good.
    stopped: bool,
    /// Whether another attempt of the job is likely to follow here.
    comes_back: bool,
}

/// One incarnation of an executor.
pub struct ExecutorMachine {
    registration: Registration,
    intake: Intake,
    holdings: Holdings,
    outbox: Outbox,
    live: BTreeMap<(JobId, Attempt), Live>,
    /// Attempts whose older one has not ended yet.
    waiting: BTreeMap<JobId, Arc<Assignment>>,
    timers: BTreeSet<(u64, JobId, Attempt)>,
    mode: Mode,
    /// From the order to shut down, what attempts have for their last checkpoints.
    drain_ms: u64,
    /// When a leader that counts was heard last.
    heard_ms: Option<u64>,
    /// Whether the lease is lost and being sought again.
    unregistered: bool,
    /// Whether what is ordered may be older than the registration: from the loss of a lease until a leader has answered
    /// what was reported under the next one.
    doubtful: bool,
    /// Whether the batch under way was sent under the lease that we have now.
    asked_registered: bool,
    /// Whether an answer to a report is waited for.
    asking: bool,
    report_pause_ms: u64,
    report_not_before_ms: u64,
    /// Of the input that is being dealt with.
    now_ms: u64,
    out: Vec<Effect>,
}

impl ExecutorMachine {
    /// `intake` is a new one, or the one that [`ExecutorMachine::begin_anew`] gave.
    pub fn new(registration: Registration, intake: Intake) -> ExecutorMachine {
        ExecutorMachine {
            registration,
            intake,
            holdings: Holdings::default(),
            outbox: Outbox::default(),
            live: BTreeMap::new(),
            waiting: BTreeMap::new(),
            timers: BTreeSet::new(),
            mode: Mode::Working,
            drain_ms: DRAIN_TIMEOUT_DEFAULT.0,
            heard_ms: None,
            unregistered: false,
            doubtful: false,
            asked_registered: false,
            asking: false,
            report_pause_ms: REPORT_PAUSE_MS_MIN,
            report_not_before_ms: 0,
            now_ms: 0,
            out: Vec::new(),
        }
    }

    #[must_use]
    pub fn with_drain_timeout(self, limit: Millis) -> ExecutorMachine {
        ExecutorMachine { drain_ms: limit.0, ..self }
    }

    /// What the next incarnation begins with: terms and positions are the cluster's, and outlive this one.
    pub fn begin_anew(&self) -> Intake {
        self.intake.begin_anew()
    }

    pub fn id(&self) -> ExecutorId {
        self.registration.id
    }

    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// What leaders have told it of the log.
    pub fn told(&self) -> Told {
        self.intake.told()
    }

    /// Reports that are not answered yet.
    pub fn unanswered(&self) -> usize {
        self.outbox.len()
    }

    pub fn is_registered(&self) -> bool {
        !self.unregistered
    }

    pub fn is_leaving(&self) -> bool {
        matches!(self.mode, Mode::Leaving { .. })
    }

    /// Takes one input in, and says what is to be done about it, in order.
    pub fn input(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        self.now_ms = now_ms;
        match input {
            Input::Order(order) => self.order(order),
            Input::Heard { term, seq } => {
                if self.intake.hear(term, seq) {
                    self.hear_leader();
                }
            }
            Input::Answer(answer) => self.answered(answer),
            Input::Attempt(job, attempt, input) => self.step(job, attempt, input),
            Input::HeartbeatDue => self.beat(),
            Input::Wake => self.wake(),
            Input::LeaseLost => self.lease_lost(),
            Input::Registered => self.unregistered = false,
            Input::Shutdown => self.leave(),
        }
        if self.intake.is_left_behind() && self.mode == Mode::Working {
            tracing::warn!(term = %self.intake.term(), "the log was restored, or has gone on without a part of it");
            self.dismissed();
        }
        self.send_reports();
        std::mem::take(&mut self.out)
    }

    /// When [`Input::Wake`] is due, unless something else happens before: the time of the next attempt's machine, of
    /// the next try at a report, or of the end of this mode.
    pub fn wake_at(&self) -> Option<u64> {
        let machine = self.timers.first().map(|(at_ms, ..)| *at_ms);
        let waits = !self.asking && !self.outbox.is_empty();
        let report = waits.then_some(self.report_not_before_ms);
        let end = match self.mode {
            Mode::Working => None,
            Mode::Leaving { by_ms } | Mode::Dismissed { by_ms } => Some(by_ms),
        };
        [machine, report, end].into_iter().flatten().min()
    }

    /// Whether this incarnation has come to its end.
    pub fn is_over(&self, now_ms: u64) -> Option<Over> {
        let (over, by_ms) = match self.mode {
            Mode::Working => return None,
            Mode::Leaving { by_ms } => (Over::Left, by_ms),
            Mode::Dismissed { by_ms } => (Over::Dismissed, by_ms),
        };
        let done = match over {
            // Whoever would confirm the ends may be gone as well.
            Over::Left => {
                let deaf = self.heard_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) > LEADERLESS_MS_MAX);
                self.live.values().all(|live| live.machine.is_over()) && (deaf || self.outbox.is_empty())
            }
            Over::Dismissed => self.live.is_empty() && self.outbox.is_empty(),
        };
        (done || now_ms >= by_ms).then_some(over)
    }

    /// The last beat of one that leaves: it holds nothing.
    pub fn farewell(&mut self) -> Heartbeat {
        for (job, attempt) in self.holdings.iter().map(|(job, held)| (job, held.attempt)).collect::<Vec<_>>() {
            self.holdings.remove(job, attempt);
        }
        self.heartbeat()
    }

    fn hear_leader(&mut self) {
        self.heard_ms = Some(self.now_ms);
        self.out.push(Effect::LeaderHeard);
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// One batch of reports, unless one is under way or its time has not come.
    fn send_reports(&mut self) {
        if self.asking || self.now_ms < self.report_not_before_ms {
            return;
        }
        let Some(batch) = self.outbox.next_batch(self.id(), self.intake.told(), self.now_ms) else { return };
        (self.asking, self.asked_registered) = (true, !self.unregistered);
        self.out.push(Effect::Report(batch));
    }

    fn report_later(&mut self) {
        self.report_not_before_ms = self.now_ms.saturating_add(self.report_pause_ms);
        self.report_pause_ms = (self.report_pause_ms * 2).min(REPORT_PAUSE_MS_MAX);
    }

    /// What a report's answer says.
    fn answered(&mut self, answer: Option<ReportReply>) {
        if !std::mem::take(&mut self.asking) {
            return;
        }
        let now_ms = self.now_ms;
        // A deposed leader may still answer what the new one has not heard of.
        let Some(reply) = answer.filter(|reply| self.intake.hear(reply.term, reply.seq)) else {
            metrics::report_unanswered();
            self.outbox.unanswered();
            self.report_later();
            return;
        };
        self.hear_leader();
        self.report_pause_ms = REPORT_PAUSE_MS_MIN;
        self.report_not_before_ms = 0;
        let superseded: BTreeSet<(JobId, Attempt)> = reply.superseded.into_iter().collect();
        if self.asked_registered && superseded.is_empty() {
            self.doubtful = false;
        }
        for entry in self.outbox.answered() {
            let key = (entry.job, entry.attempt);
            if superseded.contains(&key) {
                continue;
            }
            match entry.news {
                News::Ended(_) => self.end_confirmed(entry.job, entry.attempt, now_ms),
                News::Checkpoint(_) => {
                    self.step(entry.job, entry.attempt, attempt::Input::CheckpointAcknowledged);
                }
                News::Started
                | News::CheckpointFailed { .. }
                | News::ReleaseFailed { .. }
                | News::Snapshot { .. }
                | News::SnapshotFailed { .. }
                | News::Missing => {}
            }
        }
        self.give_up(&superseded);
        // Once the attempts know that their checkpoints exist.
        self.out.extend(reply.retained.into_iter().map(Effect::CollectGarbage));
    }

    fn wake(&mut self) {
        let now_ms = self.now_ms;
        while let Some(&(at_ms, job, attempt)) = self.timers.first() {
            if at_ms > now_ms {
                break;
            }
            self.timers.pop_first();
            if let Some(live) = self.live.get_mut(&(job, attempt)) {
                live.wake_at = None;
            }
            self.step(job, attempt, attempt::Input::Wake);
        }
    }

    fn beat(&mut self) {
        // A dismissed one is dead to the leader, and says nothing.
        if !matches!(self.mode, Mode::Dismissed { .. }) {
            let beat = self.heartbeat();
            self.out.push(Effect::Beat(beat));
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        let name = &self.registration.name;
        heartbeat(self.id(), name, &self.intake, &self.holdings, Health::default(), self.is_leaving())
    }

    /// Others may now be told that this executor is gone. What must never run twice is killed before somebody can
    /// start it elsewhere; the rest goes on for as long as its shims allow, for if the registry was only out of reach
    /// for everybody, nobody has taken it over. A leader that has will dismiss us. Until then an order to run such a job
    /// may have been on its way since before the loss, and is not taken (ADR 13).
    fn lease_lost(&mut self) {
        tracing::warn!(executor = %self.id(), "the lease in etcd is lost; registering again");
        self.unregistered = true;
        (self.doubtful, self.asked_registered) = (true, false);
        let waiting = self.waiting.iter().filter(|(_, assignment)| assignment.spec.exclusive);
        for (job, attempt) in waiting.map(|(job, waiting)| (*job, waiting.attempt)).collect::<Vec<_>>() {
            self.waiting.remove(&job);
            self.give_back(job, attempt, Cause::ExecutorLost);
        }
        let exclusive: Vec<_> =
            self.live.iter().filter(|(_, live)| live.assignment.spec.exclusive).map(|(key, _)| *key).collect();
        for (job, attempt) in exclusive {
            self.step(job, attempt, attempt::Input::Stop(Stop::Kill));
        }
        if self.mode == Mode::Working {
            self.out.push(Effect::Register);
        }
    }

    /// Gives back whatever is held, with its state, so that it goes on elsewhere as if nothing had been.
    fn leave(&mut self) {
        if self.is_leaving() {
            return;
        }
        let (now_ms, limit_ms) = (self.now_ms, self.drain_ms);
        tracing::info!(executor = %self.id(), held = self.holdings.len(), limit_ms, "leaving");
        self.mode = Mode::Leaving { by_ms: now_ms.saturating_add(limit_ms).saturating_add(LEAVE_MS_EXTRA) };
        self.out.push(Effect::Withdrawn);
        // Before anything ends, so that nothing new is placed here meanwhile.
        self.beat();
        for (job, waiting) in std::mem::take(&mut self.waiting) {
            self.give_back(job, waiting.attempt, Cause::Drain);
        }
        let how = Release::Checkpoint { within: Millis(limit_ms), otherwise: Otherwise::Kill };
        for (job, attempt) in self.live.keys().copied().collect::<Vec<_>>() {
            self.step(job, attempt, attempt::Input::Release { cause: Cause::Drain, how });
        }
    }

    /// Gives an attempt's machine its input. An attempt that is not there any more needs nothing.
    fn step(&mut self, job: JobId, attempt: Attempt, input: attempt::Input) {
        let now_ms = self.now_ms;
        let Some(live) = self.live.get_mut(&(job, attempt)) else { return };
        let effects = live.machine.step(input, now_ms);
        self.perform(job, attempt, effects);
    }

    fn perform(&mut self, job: JobId, attempt: Attempt, effects: Vec<attempt::Effect>) {
        for effect in effects {
            match effect {
                attempt::Effect::Report { at_ms, news } => self.report(job, attempt, at_ms, news),
                attempt::Effect::Forget => {
                    if self.leaves_state(job, attempt) {
                        self.out.push(Effect::Keep(job, attempt));
                    }
                    self.out.push(Effect::Attempt(job, attempt, attempt::Effect::Forget));
                    self.forget(job, attempt);
                }
                effect => self.out.push(Effect::Attempt(job, attempt, effect)),
            }
        }
        self.set_timer(job, attempt);
    }

    fn report(&mut self, job: JobId, attempt: Attempt, at_ms: u64, news: News) {
        match &news {
            News::Ended(ended) => {
                log_end(job, attempt, &ended.outcome);
                metrics::ended(&ended.outcome);
                self.holdings.end(job, attempt);
                if let Some(live) = self.live.get_mut(&(job, attempt)) {
                    live.comes_back = !live.stopped && comeback::is_likely(&live.assignment.spec, &ended.outcome);
                }
            }
            News::Checkpoint(_) => {
                if let Some(live) = self.live.get_mut(&(job, attempt)) {
                    live.has_state = true;
                }
            }
            News::CheckpointFailed { reason } => {
                tracing::warn!(%job, %attempt, %reason, "a checkpoint failed");
                metrics::checkpoint_failed();
            }
            News::ReleaseFailed { reason } => tracing::warn!(%job, %attempt, %reason, "not given back"),
            // A checkpoint that failed is told of by itself.
            News::Started | News::Snapshot { .. } | News::SnapshotFailed { .. } | News::Missing => {}
        }
        self.outbox.push(job, attempt, at_ms, news);
    }

    /// Whether the directory of an attempt that is about to be forgotten is worth keeping.
    fn leaves_state(&self, job: JobId, attempt: Attempt) -> bool {
        let Some(live) = self.live.get(&(job, attempt)) else { return false };
        self.mode == Mode::Working && live.has_state && (live.comes_back || self.waiting.contains_key(&job))
    }

    /// Nothing of the attempt is left but its directory. One that waited for its end can begin.
    fn forget(&mut self, job: JobId, attempt: Attempt) {
        let Some(live) = self.live.remove(&(job, attempt)) else { return };
        if let Some(at_ms) = live.wake_at {
            self.timers.remove(&(at_ms, job, attempt));
        }
        self.holdings.remove(job, attempt);
        if !self.is_alive(job)
            && let Some(next) = self.waiting.remove(&job)
        {
            self.begin(next);
        }
    }

    fn set_timer(&mut self, job: JobId, attempt: Attempt) {
        let Some(live) = self.live.get_mut(&(job, attempt)) else { return };
        let wake_at = live.machine.wake_at();
        if wake_at == live.wake_at {
            return;
        }
        if let Some(before) = std::mem::replace(&mut live.wake_at, wake_at) {
            self.timers.remove(&(before, job, attempt));
        }
        if let Some(at_ms) = wake_at {
            self.timers.insert((at_ms, job, attempt));
        }
    }
}

fn log_end(job: JobId, attempt: Attempt, outcome: &Outcome) {
    match outcome {
        Outcome::Exited { code: 0 } => tracing::debug!(%job, %attempt, "succeeded"),
        outcome => tracing::info!(%job, %attempt, ?outcome, "did not succeed"),
    }
}

#[cfg(test)]
mod tests;
