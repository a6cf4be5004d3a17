//! The executor's one loop: everything that happens comes in as an [`Input`], and is dealt with before the next.
//!
//! It owns what is held (`holdings`), a machine per attempt (`attempt`), and what is to be reported (`report`). It
//! performs the machines' effects by starting tasks (`work`), which come back with an input; it never waits for one.
//! Noop jobs are run in the loop itself and leave nothing behind but a report.
//!
//! Deliberately not here: transitions (`attempt`), which orders count (`intake`), and how an executor begins (`begin`).

mod begin;
pub mod directory;
pub mod holdings;
mod orders;
mod perform;
mod work;

use crate::attempt::{self, AttemptMachine, CheckpointFault, PrepareFault};
use crate::checkpoint::Checkpointer;
use crate::driver::process::{ProcessEvent, ProcessHandle};
use crate::health::HealthMonitor;
use crate::heartbeat::{self, heartbeat};
use crate::http::Readiness;
use crate::intake::Intake;
use crate::logs::LogPump;
use crate::metrics;
use crate::report::Outbox;
use crate::scan::Reading;
use crate::shim::BootTime;
use compact_str::CompactString;
use directory::AttemptDirectory;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::StreamExt;
use holdings::Holdings;
use outlive_schemas::checkpoint::Taken;
use outlive_schemas::codec::{pack, unpack};
use outlive_schemas::command::Stop;
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{Attempt, ExecutorId, JobId};
use outlive_schemas::message::{
    Assignment, Heartbeat, LeaderBeat, News, ProbeReply, ReportBatch, ReportReply, ToExecutor,
};
use outlive_schemas::subject;
use outlive_store::registry::{Membership, Registry, RegistryError};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use work::{Ground, Launched, Workshop};

pub(crate) use begin::run;

/// Inputs from tasks that wait for the loop. A task that finds it full waits, which is all it has left to do.
const INPUTS_MAX: usize = 4_096;

/// One answer to a report: a group commit takes milliseconds, a JetStream election seconds, and asking again is cheap.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// After a report that was not answered; doubles…
const REPORT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// …up to here: a new leader should be told soon.
const REPORT_PAUSE_MAX: Duration = Duration::from_millis(800);

/// A message that NATS does not take within this is given up; heartbeats follow one another anyway.
const SEND_LIMIT: Duration = Duration::from_millis(200);

/// How long taking leave of etcd may take. If it is out of reach, the lease runs out by itself.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(2);

/// An ordinary attempt is killed by its shim so long after the last confirmed renewal of the lease.
const ORDINARY_SPAN: Duration = Duration::from_secs(30);
/// An exclusive one before the lease, of [`begin::LEASE_TTL`], can be over.
const EXCLUSIVE_SPAN: Duration = Duration::from_secs(4);
/// Renewals that moved the deadlines by less are not worth a message to every shim.
const DEADLINE_STEP: Duration = Duration::from_millis(200);

/// From the order to shut down to the end, whatever happens…
const LEAVE_MS_MAX: u64 = 6_000;
/// …of which so much is for last checkpoints.
const LAST_CHECKPOINT_MS_MAX: u64 = 4_000;
/// From a dismissal to the next incarnation: SIGKILL is quick, but a hanging disk is not waited for for ever.
const DISMISS_MS_MAX: u64 = 15_000;

/// Everything that can happen to an executor.
#[derive(Debug)]
enum Input {
    Order(async_nats::Message),
    LeaderBeat(async_nats::Message),
    Probe(async_nats::Message),
    /// The leader's answer to a report, or none.
    Answer(Option<ReportReply>),
    Attempt(JobId, Attempt, AttemptInput),
    HeartbeatDue,
    /// The time that some machine, or the next try at a report, waits for.
    TimerDue,
    LeaseLost,
    Registered(Registered),
    Shutdown,
    /// NATS will not come back.
    Closed,
}

/// What the tasks of one attempt come back with.
#[derive(Debug)]
enum AttemptInput {
    Prepared(Result<Ground, PrepareFault>),
    Launched(Result<Launched, CompactString>),
    Process(ProcessEvent),
    Read(u32, Result<(Reading, Duration), CheckpointFault>),
    Stored(u32, Result<Option<Taken>, CheckpointFault>),
    Collected(attempt::ResultFile),
}

/// The registry has us again.
struct Registered(Arc<dyn Membership>);

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registered")
    }
}

/// An attempt with a process, from the order to run it until nothing of it is left.
struct Live {
    machine: AttemptMachine,
    assignment: Arc<Assignment>,
    directory: AttemptDirectory,
    /// From the ground that was prepared.
    checkpointer: Option<Arc<Checkpointer>>,
    process: Option<ProcessHandle>,
    logs: Option<LogPump>,
    /// Read, and about to be stored.
    reading: Option<Reading>,
    pause: Duration,
    checkpoint_began: BootTime,
    /// Stored, and not committed yet.
    taken: Option<Taken>,
    /// Since when the latest state that it could fall back to is the latest: the start, or a checkpoint.
    safe_since_ms: Option<u64>,
    preparing: Option<AbortHandle>,
    checkpointing: Option<AbortHandle>,
    wake_at: Option<u64>,
}

/// When shims kill what they hold, by what the last confirmed renewal allows.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    ordinary: BootTime,
    exclusive: BootTime,
}

impl Deadlines {
    fn of(membership: &dyn Membership) -> Deadlines {
        let ago = Duration::from_millis(membership.renewed_ms_ago());
        let now = BootTime::now();
        let until = |span: Duration| now.after(span.saturating_sub(ago));
        Deadlines { ordinary: until(ORDINARY_SPAN), exclusive: until(EXCLUSIVE_SPAN) }
    }

    fn of_attempt(&self, exclusive: bool) -> BootTime {
        if exclusive { self.exclusive } else { self.ordinary }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Working,
    /// Going for good; at that time whatever is left is left.
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
enum Over {
    Left,
    Dismissed,
    Closed,
}

/// What is subscribed to.
struct Inlets {
    orders: async_nats::Subscriber,
    probes: async_nats::Subscriber,
    beats: async_nats::Subscriber,
}

struct Runner {
    registration: Registration,
    client: async_nats::Client,
    registry: Arc<dyn Registry>,
    workshop: Arc<Workshop>,
    data_dir: std::path::PathBuf,
    health: Arc<HealthMonitor>,
    readiness: Arc<Readiness>,
    /// Since when times are counted.
    origin: BootTime,

    intake: Intake,
    holdings: Holdings,
    outbox: Outbox,
    live: BTreeMap<(JobId, Attempt), Live>,
    /// Attempts whose older one has not ended yet.
    waiting: BTreeMap<JobId, Arc<Assignment>>,
    timers: BTreeSet<(u64, JobId, Attempt)>,

    mode: Mode,
    membership: Arc<dyn Membership>,
    /// Whether the lease is lost and being sought again.
    unregistered: bool,
    deadlines: watch::Sender<Deadlines>,
    tasks: mpsc::Sender<Input>,
    /// The report under way.
    answer: Option<BoxFuture<'static, Option<ReportReply>>>,
    report_pause: Duration,
    report_not_before_ms: u64,
}

impl Runner {
    fn id(&self) -> ExecutorId {
        self.registration.id
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(BootTime::now().since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs until this incarnation is over.
    async fn run(
        &mut self,
        mut inlets: Inlets,
        mut inputs: mpsc::Receiver<Input>,
        shutdown: &mut Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Over {
        let mut beat = interval(heartbeat::PAUSE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(over) = self.is_over() {
                self.end(over).await;
                return over;
            }
            self.send_reports();
            let lost = Arc::clone(&self.membership);
            let timer = self.next_timer();
            let input = tokio::select! {
                message = inlets.orders.next() => message.map_or(Input::Closed, Input::Order),
                message = inlets.probes.next() => message.map_or(Input::Closed, Input::Probe),
                message = inlets.beats.next() => message.map_or(Input::Closed, Input::LeaderBeat),
                Some(input) = inputs.recv() => input,
                answer = async { self.answer.as_mut().expect("checked").await }, if self.answer.is_some() => {
                    self.answer = None;
                    Input::Answer(answer)
                }
                _ = beat.tick() => Input::HeartbeatDue,
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => Input::TimerDue,
                () = lost.lost(), if !self.unregistered => Input::LeaseLost,
                () = shutdown.as_mut(), if !matches!(self.mode, Mode::Leaving { .. }) => Input::Shutdown,
            };
            if matches!(input, Input::Closed) {
                return Over::Closed;
            }
            self.handle(input).await;
        }
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Order(message) => match unpack::<ToExecutor>("an order", &message.payload) {
                Ok(order) => self.order(order),
                Err(error) => tracing::warn!(%error, bytes = message.payload.len(), "an order cannot be read"),
            },
            Input::LeaderBeat(message) => match unpack::<LeaderBeat>("a leader's beat", &message.payload) {
                Ok(beat) => {
                    if self.intake.hear(beat.term, beat.seq) {
                        self.readiness.leader_heard();
                    }
                }
                Err(error) => tracing::warn!(%error, "a leader's beat cannot be read"),
            },
            Input::Probe(message) => {
                if let Some(reply) = message.reply {
                    let body = pack(&ProbeReply { executor: self.id() });
                    self.publish(reply.into_string(), body).await;
                }
            }
            Input::Answer(answer) => self.answered(answer),
            Input::Attempt(job, attempt, input) => self.attempt_input(job, attempt, input),
            Input::HeartbeatDue => self.beat().await,
            Input::TimerDue => self.wake(),
            Input::LeaseLost => self.lease_lost(),
            Input::Registered(Registered(membership)) => {
                tracing::info!(executor = %self.id(), "registered again");
                self.membership = membership;
                self.unregistered = false;
                self.readiness.set_registered(true);
                self.move_deadlines();
            }
            Input::Shutdown => self.leave().await,
            Input::Closed => {}
        }
    }

    /// Sends one batch of reports, unless one is under way or its time has not come.
    fn send_reports(&mut self) {
        if self.answer.is_some() || self.outbox.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        if now_ms < self.report_not_before_ms {
            return;
        }
        if self.client.connection_state() != async_nats::connection::State::Connected {
            // What is published now would be kept and sent twice later.
            self.report_later(now_ms);
            return;
        }
        let Some(batch) = self.outbox.next_batch(self.id(), self.intake.seq_seen(), now_ms) else { return };
        self.answer = Some(ask(self.client.clone(), batch).boxed());
    }

    fn report_later(&mut self, now_ms: u64) {
        self.report_not_before_ms = now_ms.saturating_add(self.report_pause.as_millis() as u64);
        self.report_pause = (self.report_pause * 2).min(REPORT_PAUSE_MAX);
    }

    /// The time of the next machine, of the next try at a report, or of the end of this mode.
    fn next_timer(&self) -> Option<Instant> {
        let machine = self.timers.first().map(|(at_ms, ..)| *at_ms);
        let waits = self.answer.is_none() && !self.outbox.is_empty();
        let report = waits.then_some(self.report_not_before_ms);
        let end = match self.mode {
            Mode::Working => None,
            Mode::Leaving { by_ms } | Mode::Dismissed { by_ms } => Some(by_ms),
        };
        let at_ms = [machine, report, end].into_iter().flatten().min()?;
        Some(Instant::now() + Duration::from_millis(at_ms.saturating_sub(self.now_ms())))
    }

    fn wake(&mut self) {
        let now_ms = self.now_ms();
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

    async fn beat(&mut self) {
        self.move_deadlines();
        let now_ms = self.now_ms();
        let leaving = matches!(self.mode, Mode::Leaving { .. });
        let health = self.health.latest();
        metrics::standing(&metrics::Standing {
            held: self.holdings.len(),
            reports: self.outbox.len(),
            leader_heard_ms_ago: self.readiness.leader_heard_ms_ago(),
            oldest_checkpoint_ms: self
                .live
                .values()
                .filter_map(|live| live.safe_since_ms)
                .min()
                .map(|since| now_ms.saturating_sub(since)),
            health,
        });
        // A dismissed one is dead to the leader, and says nothing.
        if !matches!(self.mode, Mode::Dismissed { .. }) {
            let name = &self.registration.name;
            let beat: Heartbeat = heartbeat(self.id(), name, &self.intake, &self.holdings, health, leaving);
            self.publish(subject::HEARTBEAT.to_owned(), pack(&beat)).await;
        }
    }

    /// Core NATS, at most once. While there is no connection nothing is sent: it would be kept, and come too late.
    async fn publish(&mut self, subject: String, body: Vec<u8>) {
        if self.client.connection_state() != async_nats::connection::State::Connected {
            return;
        }
        match tokio::time::timeout(SEND_LIMIT, self.client.publish(subject, body.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a message was not sent"),
            Err(_) => tracing::warn!("a message was not sent, for NATS takes none"),
        }
    }

    /// Tells the shims of a confirmed renewal.
    fn move_deadlines(&self) {
        let next = Deadlines::of(&*self.membership);
        self.deadlines.send_if_modified(|last| {
            let moved = next.ordinary.since(last.ordinary) >= DEADLINE_STEP;
            if moved {
                *last = next;
            }
            moved
        });
    }

    /// Others may now be told that this executor is gone. What must never run twice is killed before somebody can
    /// start it elsewhere; the rest goes on for as long as its shims allow, for if the registry was only out of reach
    /// for everybody, nobody has taken it over. A leader that has will dismiss us.
    fn lease_lost(&mut self) {
        tracing::warn!(executor = %self.id(), "the lease in etcd is lost; registering again");
        self.unregistered = true;
        self.readiness.set_registered(false);
        let exclusive: Vec<_> =
            self.live.iter().filter(|(_, live)| live.assignment.spec.exclusive).map(|(key, _)| *key).collect();
        for (job, attempt) in exclusive {
            self.step(job, attempt, attempt::Input::Stop(Stop::Kill));
        }
        if self.mode == Mode::Working {
            let (registry, registration, tasks) =
                (Arc::clone(&self.registry), self.registration.clone(), self.tasks.clone());
            tokio::spawn(async move {
                let membership = begin::register(&*registry, &registration).await;
                // The loop has ended if nobody listens.
                let _ = tasks.send(Input::Registered(Registered(membership))).await;
            });
        }
    }

    async fn leave(&mut self) {
        let now_ms = self.now_ms();
        tracing::info!(executor = %self.id(), held = self.holdings.len(), "leaving");
        self.mode = Mode::Leaving { by_ms: now_ms + LEAVE_MS_MAX };
        self.readiness.set_registered(false);
        self.waiting.clear();
        // Before anything ends, so that nothing new is placed here meanwhile.
        self.beat().await;
        let by_ms = now_ms + LAST_CHECKPOINT_MS_MAX;
        for (job, attempt) in self.live.keys().copied().collect::<Vec<_>>() {
            self.step(job, attempt, attempt::Input::Leave { by_ms });
        }
    }

    fn is_over(&self) -> Option<Over> {
        let (over, by_ms) = match self.mode {
            Mode::Working => return None,
            Mode::Leaving { by_ms } => (Over::Left, by_ms),
            Mode::Dismissed { by_ms } => (Over::Dismissed, by_ms),
        };
        let done = self.live.is_empty() && self.outbox.is_empty();
        (done || self.now_ms() >= by_ms).then_some(over)
    }

    /// The last words of this incarnation.
    async fn end(&mut self, over: Over) {
        if !self.live.is_empty() {
            tracing::warn!(attempts = self.live.len(), "what has not ended yet is left to its shims");
        }
        for live in std::mem::take(&mut self.live).into_values() {
            if let Some(process) = live.process {
                // One that is gone needs no killing.
                let _ = tokio::time::timeout(SEND_LIMIT, process.kill()).await;
            }
        }
        self.timers.clear();
        if over == Over::Left {
            for (job, attempt) in self.holdings.iter().map(|(job, held)| (job, held.attempt)).collect::<Vec<_>>() {
                self.holdings.remove(job, attempt);
            }
            self.beat().await;
        }
        if tokio::time::timeout(DEREGISTER_LIMIT, self.membership.leave()).await.is_err() {
            tracing::warn!("etcd is out of reach; the registration ends with its lease");
        }
        if tokio::time::timeout(SEND_LIMIT, self.client.flush()).await.is_err() {
            tracing::debug!("the last messages may not have been sent");
        }
    }
}

/// One report, asked once. Nothing: it may or may not have arrived.
async fn ask(client: async_nats::Client, batch: ReportBatch) -> Option<ReportReply> {
    let items = batch.reports.len();
    let request = async_nats::Request::new().payload(pack(&batch).into()).timeout(Some(REPORT_TIMEOUT));
    let message = match client.send_request(subject::REPORT, request).await {
        Ok(message) => message,
        Err(error) => {
            tracing::debug!(%error, items, "reports are not answered yet");
            return None;
        }
    };
    match unpack::<ReportReply>("a reply to a report", &message.payload) {
        Ok(reply) => Some(reply),
        Err(error) => {
            tracing::warn!(%error, items, "the answer to reports cannot be read");
            None
        }
    }
}

/// Whether the registry may be asked again.
fn is_passing(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Unavailable { .. })
}

impl Runner {
    /// What a report's answer says.
    fn answered(&mut self, answer: Option<ReportReply>) {
        let now_ms = self.now_ms();
        // A deposed leader may still answer what the new one has not heard of.
        let Some(reply) = answer.filter(|reply| self.intake.hear(reply.term, reply.seq)) else {
            self.outbox.unanswered();
            self.report_later(now_ms);
            return;
        };
        self.readiness.leader_heard();
        self.report_pause = REPORT_PAUSE_MIN;
        self.report_not_before_ms = 0;
        let superseded: BTreeSet<(JobId, Attempt)> = reply.superseded.into_iter().collect();
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
                News::Started | News::CheckpointFailed { .. } | News::Missing => {}
            }
        }
        self.give_up(&superseded);
    }
}
