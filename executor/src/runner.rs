//! The executor's one loop: everything that happens comes in as an [`Input`], and is dealt with before the next.
//!
//! It feeds the machine (`machine`) and performs its effects by starting tasks (`work`), which come back with an input;
//! it never waits for one.
//!
//! Deliberately not here: decisions (`machine`, `attempt`, `intake`), and how an executor begins (`begin`).

mod begin;
pub mod directory;
mod perform;
mod remnants;
mod work;

use crate::attempt::{self, CheckpointFault, PrepareFault};
use crate::checkpoint::Checkpointer;
use crate::driver::process::{Frozen, ProcessEvent, ProcessHandle};
use crate::health::HealthMonitor;
use crate::heartbeat;
use crate::http::Readiness;
use crate::logs::{LogPump, Output};
use crate::machine::{self, ExecutorMachine, Over};
use crate::metrics;
use crate::scan::Reading;
use crate::shim::BootTime;
use compact_str::CompactString;
use directory::AttemptDirectory;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use outlive_schemas::checkpoint::Taken;
use outlive_schemas::codec::{pack, unpack};
use outlive_schemas::id::{Attempt, ExecutorId, JobId};
use outlive_schemas::message::{Assignment, Heartbeat, LeaderBeat, ProbeReply, ReportBatch, ReportReply, ToExecutor};
use outlive_schemas::subject;
use outlive_store::registry::{Membership, Registry, RegistryError};
use outlive_store::telemetry::trace::Tracer;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use work::{Ground, Launched, Workshop};

pub(crate) use begin::run;

/// Inputs from tasks that wait for the loop. A task that finds it full waits, which is all it has left to do.
const INPUTS_MAX: usize = 4_096;

/// One answer to a report: a group commit takes milliseconds, a JetStream election seconds, and asking again is cheap.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
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
    /// Whether the data directory's disk is short.
    DiskLookedAt {
        is_short: bool,
    },
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
    /// As read, and still frozen.
    ReadLast(u32, Result<(Reading, Frozen), CheckpointFault>),
    EndedFrozen(u32, Result<(), CheckpointFault>),
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
    assignment: Arc<Assignment>,
    directory: AttemptDirectory,
    /// What an earlier attempt of the job left here.
    earlier: Option<AttemptDirectory>,
    /// Whether this one is to leave something, too.
    is_kept: bool,
    /// From the ground that was prepared.
    checkpointer: Option<Arc<Checkpointer>>,
    process: Option<ProcessHandle>,
    logs: Option<LogPump>,
    /// Where its silence counts.
    output: Option<Output>,
    /// Read, and about to be stored.
    reading: Option<Reading>,
    pause: Duration,
    checkpoint_began: BootTime,
    /// It stands still, and since when, from the reading of its last checkpoint to its end.
    frozen: Option<(Frozen, BootTime)>,
    /// Stored, and not committed yet.
    taken: Option<Taken>,
    /// Since when the latest state that it could fall back to is the latest: the start, or a checkpoint.
    safe_since_ms: Option<u64>,
    /// When the order was taken, and under which registration.
    begun: SystemTime,
    registration: u64,
    preparing: Option<AbortHandle>,
    checkpointing: Option<AbortHandle>,
}

impl Live {
    /// Whether its state was last known to be safe more than two intervals ago.
    fn is_overdue(&self, now_ms: u64) -> bool {
        let allowed_ms = self.assignment.spec.checkpoint.interval.0.saturating_mul(2);
        self.safe_since_ms.is_some_and(|since| now_ms.saturating_sub(since) > allowed_ms)
    }
}

/// When shims kill what they hold, by what the last confirmed renewal allows.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    ordinary: BootTime,
    exclusive: BootTime,
    /// Of how many in this incarnation the renewals are.
    registration: u64,
}

impl Deadlines {
    fn of(membership: &dyn Membership, registration: u64) -> Deadlines {
        let ago = Duration::from_millis(membership.renewed_ms_ago());
        let now = BootTime::now();
        let until = |span: Duration| now.after(span.saturating_sub(ago));
        Deadlines { ordinary: until(ORDINARY_SPAN), exclusive: until(EXCLUSIVE_SPAN), registration }
    }

    /// Nothing where the lease that an exclusive attempt began under is over: another one grants it no more time, for by
    /// then somebody else may run the job.
    fn of_attempt(&self, exclusive: bool, begun_under: u64) -> Option<BootTime> {
        match exclusive {
            true => (self.registration == begun_under).then_some(self.exclusive),
            false => Some(self.ordinary),
        }
    }
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Over(Over),
    Closed,
}

/// What is subscribed to.
struct Inlets {
    orders: async_nats::Subscriber,
    probes: async_nats::Subscriber,
    beats: async_nats::Subscriber,
}

struct Runner {
    machine: ExecutorMachine,
    client: async_nats::Client,
    registry: Arc<dyn Registry>,
    workshop: Arc<Workshop>,
    data_dir: std::path::PathBuf,
    health: Arc<HealthMonitor>,
    readiness: Arc<Readiness>,
    tracer: Tracer,
    /// Since when times are counted.
    origin: BootTime,

    /// What the attempts of the machine work with.
    live: BTreeMap<(JobId, Attempt), Live>,
    membership: Arc<dyn Membership>,
    /// Counts registrations: each is a lease of its own.
    registration: u64,
    deadlines: watch::Sender<Deadlines>,
    /// Whether somebody is looking at the disk.
    looking_at_disk: bool,
    tasks: mpsc::Sender<Input>,
    /// The report under way.
    answer: Option<BoxFuture<'static, Option<ReportReply>>>,
}

impl Runner {
    fn id(&self) -> ExecutorId {
        self.machine.id()
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
    ) -> End {
        let mut beat = interval(heartbeat::PAUSE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(over) = self.machine.is_over(self.now_ms()) {
                self.end(over).await;
                return End::Over(over);
            }
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
                () = lost.lost(), if self.machine.is_registered() => Input::LeaseLost,
                () = shutdown.as_mut(), if !self.machine.is_leaving() => Input::Shutdown,
            };
            if matches!(input, Input::Closed) {
                return End::Closed;
            }
            self.handle(input).await;
        }
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Order(message) => match unpack::<ToExecutor>("an order", &message.payload) {
                Ok(order) => self.step(machine::Input::Order(order)).await,
                Err(error) => tracing::warn!(%error, bytes = message.payload.len(), "an order cannot be read"),
            },
            Input::LeaderBeat(message) => match unpack::<LeaderBeat>("a leader's beat", &message.payload) {
                Ok(beat) => self.step(machine::Input::Heard { term: beat.term, seq: beat.seq }).await,
                Err(error) => tracing::warn!(%error, "a leader's beat cannot be read"),
            },
            Input::Probe(message) => {
                if let Some(reply) = message.reply {
                    let body = pack(&ProbeReply { executor: self.id() });
                    self.publish(reply.into_string(), body).await;
                }
            }
            Input::Answer(answer) => self.step(machine::Input::Answer(answer)).await,
            Input::Attempt(job, attempt, input) => self.attempt_input(job, attempt, input).await,
            Input::HeartbeatDue => {
                self.readiness.pulse.turned();
                self.move_deadlines();
                self.survey();
                self.tend_remnants();
                self.step(machine::Input::HeartbeatDue).await;
            }
            Input::TimerDue => {
                self.note_output().await;
                self.step(machine::Input::Wake).await;
            }
            Input::LeaseLost => {
                self.readiness.set_registered(false);
                self.step(machine::Input::LeaseLost).await;
            }
            Input::Registered(Registered(membership)) => {
                tracing::info!(executor = %self.id(), "registered again");
                self.membership = membership;
                self.registration += 1;
                self.readiness.set_registered(true);
                self.move_deadlines();
                self.step(machine::Input::Registered).await;
            }
            Input::DiskLookedAt { is_short } => self.disk_looked_at(is_short),
            Input::Shutdown => self.step(machine::Input::Shutdown).await,
            Input::Closed => {}
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let at_ms = self.machine.wake_at()?;
        Some(Instant::now() + Duration::from_millis(at_ms.saturating_sub(self.now_ms())))
    }

    fn survey(&self) {
        let now_ms = self.now_ms();
        metrics::standing(&metrics::Standing {
            held: self.machine.holdings().len(),
            shims: self.live.values().filter(|live| live.process.is_some()).count(),
            reports: self.machine.unanswered(),
            leader_heard_ms_ago: self.readiness.leader_heard_ms_ago(),
            oldest_checkpoint_ms: self
                .live
                .values()
                .filter_map(|live| live.safe_since_ms)
                .min()
                .map(|since| now_ms.saturating_sub(since)),
            checkpoints_overdue: self.live.values().filter(|live| live.is_overdue(now_ms)).count(),
            registered: self.machine.is_registered(),
            lease_renewed_ms_ago: self.membership.renewed_ms_ago(),
            health: self.health.latest(),
        });
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
        let next = Deadlines::of(&*self.membership, self.registration);
        self.deadlines.send_if_modified(|last| {
            let moved = next.ordinary.since(last.ordinary) >= DEADLINE_STEP || next.registration != last.registration;
            if moved {
                *last = next;
            }
            moved
        });
    }

    fn register(&self) {
        let (registry, registration, tasks) =
            (Arc::clone(&self.registry), self.machine.registration().clone(), self.tasks.clone());
        tokio::spawn(async move {
            let membership = begin::register(&*registry, &registration).await;
            // The loop has ended if nobody listens.
            let _ = tasks.send(Input::Registered(Registered(membership))).await;
        });
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
        if over == Over::Left {
            let farewell = Heartbeat { health: self.health.latest(), ..self.machine.farewell() };
            self.publish(subject::HEARTBEAT.to_owned(), pack(&farewell)).await;
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
    if client.connection_state() != async_nats::connection::State::Connected {
        // What is published now would be kept and sent twice later.
        return None;
    }
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
