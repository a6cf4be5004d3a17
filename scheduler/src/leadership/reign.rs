//! One term: the bridge, the barrier, the machine and what feeds it, and the orderly end.

use super::accession::{self, Accession, LogEnd, Next};
use super::{Scheduler, apart};
use crate::clock::{Clock, Ids, TermClock};
use crate::error::{ReplayError, SchedulerError};
use crate::follower::Follower;
use crate::journal::{Append, Journal};
use crate::leader::{Identity, Input, Leader, Output, Resignation};
use crate::metrics;
use crate::service::{self, Inbox, Listening, OpenRequests};
use crate::speaker::{self, Speaker};
use crate::stores::Stores;
use crate::traces::Span;
use crate::watch::Probed;
use async_nats::RequestErrorKind;
use bytes::Bytes;
use futures::StreamExt as _;
use outlive_schemas::codec::pack;
use outlive_schemas::event::TermStarted;
use outlive_schemas::id::{ExecutorId, Sequence, Term, Zone};
use outlive_schemas::message::LeaderBeat;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::trace::Step;
use outlive_schemas::{limits, subject};
use outlive_store::frame::FrameSealer;
use outlive_store::leadership::Tenure;
use outlive_store::log::bridged::{BridgedLog, Inherited};
use outlive_store::log::{AppendError, CommitLog, ReadError, Stored};
use outlive_store::telemetry::trace::SpanRecord;
use outlive_store::witness::Witness;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// How long the machine rests at most between two turns.
const TURN_EVERY: Duration = Duration::from_millis(20);
/// Inputs taken in before the next turn: bounds how long an answer waits behind others.
const INPUTS_PER_TURN: usize = 512;
/// An executor that is there answers a probe well within this.
const PROBE_TIMEOUT: Duration = Duration::from_millis(400);
const BEAT_EVERY: Duration = Duration::from_millis(250);
const SURVEY_EVERY: Duration = Duration::from_secs(1);
/// Hosts' clocks differ by less.
const AHEAD_WORTH_A_WORD: Millis = Millis(1_000);

/// How a term ended that did not fail.
pub enum End {
    HandedOver,
    Lost(&'static str),
}

enum Begun {
    /// The barrier is in. These commits stand in the bridge still, and in the stream.
    Barrier(Vec<Sequence>),
    Superseded,
}

pub struct Reign<'a> {
    scheduler: &'a Scheduler,
    stores: Stores,
    tenure: Arc<dyn Tenure>,
    term: Term,
}

impl<'a> Reign<'a> {
    pub fn new(scheduler: &'a Scheduler, tenure: Arc<dyn Tenure>) -> Reign<'a> {
        Reign { stores: scheduler.stores.clone(), term: tenure.term(), scheduler, tenure }
    }

    /// Leads until the term ends. Leaves `follower` where the log was when the machine began.
    pub async fn hold(self, follower: &mut Follower) -> Result<End, SchedulerError> {
        let mut tasks = JoinSet::new();
        // From here on others can see that somebody is taking over, however long that takes.
        let herald = tasks.spawn(herald(self.stores.clone(), self.beat()));
        tasks.spawn(answer_probes(self.stores.clone(), subject::scheduler_probe(&self.scheduler.config.name)));
        let begun = tokio::select! {
            begun = self.scheduler.readiness.pulse.while_waiting(self.begin(follower)) => begun,
            () = self.tenure.lost() => return Ok(End::Lost("the lease ended before the barrier was in")),
        };
        match begun? {
            Begun::Barrier(drained) => self.lead(follower, herald, drained).await,
            Begun::Superseded => Ok(End::Lost("a later leader has written to the log")),
        }
    }

    /// Of one that has committed nothing yet, and so tells of nothing: what it has read may be a later leader's, if it
    /// was deposed before it began, and nobody may take that for a commit of its term or before.
    fn beat(&self) -> LeaderBeat {
        let config = &self.scheduler.config;
        LeaderBeat { term: self.term, scheduler: config.name.clone(), zone: config.zone.clone(), seq: Sequence(0) }
    }

    /// Reads to the log's end, drains what earlier leaders left in the bridge, holds the log against the witness, and
    /// appends the barrier.
    async fn begin(&self, follower: &mut Follower) -> Result<Begun, SchedulerError> {
        let witness = self.stores.leadership.read_witness().await.map_err(SchedulerError::Leadership)?;
        let witness = witness.map(|body| Witness::decode(&body)).transpose().map_err(SchedulerError::Witness)?;
        let inherited = Inherited::new(self.stores.bridge.list().await.map_err(SchedulerError::Bridge)?);
        let mut accession = Accession::new(self.term, witness, inherited);
        loop {
            follower.catch_up().await.map_err(SchedulerError::Replay)?;
            let end = end_of(follower);
            match accession.next(end, |seq| follower.chain_at(seq)).map_err(SchedulerError::Lost)? {
                Next::Drain(commit) => {
                    tracing::info!(term = %self.term, seq = %commit.seq, "draining a commit from the bridge");
                    self.append(follower, commit.body).await?;
                }
                Next::MustHold(witness) => self.must_hold(witness, &mut accession).await?,
                Next::Barrier => {
                    let barrier = self.barrier(follower)?;
                    if self.append(follower, barrier).await? {
                        return Ok(Begun::Barrier(accession.drained().collect()));
                    }
                }
                Next::Outdone(seen) => return self.outdone(seen).await,
                Next::GiveUp => {
                    let reason = format!(
                        "what it holds beyond {} cannot be read, or others append to it without end",
                        follower.seq
                    );
                    return Err(SchedulerError::Replay(ReplayError::Read(ReadError::Unavailable { reason })));
                }
            }
        }
    }

    /// The log has seen a term that is not below ours: somebody won after us, or etcd counts from an earlier time.
    async fn outdone(&self, seen: Term) -> Result<Begun, SchedulerError> {
        let reign = self.stores.leadership.reign().await.map_err(SchedulerError::Leadership)?;
        match reign {
            Some(reign) if reign.term == self.term => Err(SchedulerError::TermTooLow { term: self.term, seen }),
            _ => Ok(Begun::Superseded),
        }
    }

    /// A replica may be behind, so a log that seems to end before the witness is settled by its own extent, told by one
    /// that most replicas answer to. Where there is none the term is given up: another scheduler may reach one.
    async fn must_hold(&self, witness: Witness, accession: &mut Accession) -> Result<(), SchedulerError> {
        let extent =
            self.stores.log.settled_extent().await.map_err(ReplayError::Read).map_err(SchedulerError::Replay)?;
        accession.ends_at(extent.last, witness, self.scheduler.clock.now()).map_err(SchedulerError::Lost)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    fn barrier(&self, follower: &Follower) -> Result<Bytes, SchedulerError> {
        let config = &self.scheduler.config;
        let started = TermStarted {
            term: self.term,
            scheduler: config.name.clone(),
            zone: config.zone.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let at = term_clock(self.scheduler.clock, follower).at(self.scheduler.clock.now());
        let sealed = accession::barrier(&self.stores.log_key, started, at, end_of(follower));
        Ok(sealed.map_err(|e| self.refused(&e))?.body)
    }

    /// Appends right after what was read, to the stream alone, and takes it in. `false`: a commit of an earlier leader
    /// has landed there since; it is read, and then it is our turn again.
    async fn append(&self, follower: &mut Follower, body: Bytes) -> Result<bool, SchedulerError> {
        match self.stores.log.append(follower.seq, body.clone()).await {
            Ok(()) => {}
            Err(AppendError::Conflict { .. }) => return Ok(false),
            Err(source) => return Err(SchedulerError::Barrier { term: self.term, source }),
        }
        let stored = Stored { seq: follower.seq.next(), body };
        follower.appended(stored).map_err(SchedulerError::Replay)?;
        Ok(true)
    }

    fn refused(&self, error: &dyn std::fmt::Display) -> SchedulerError {
        let source = AppendError::Refused { reason: error.to_string() };
        SchedulerError::Barrier { term: self.term, source }
    }

    /// `drained`: what stands in the bridge and, by now, in the stream.
    async fn lead(
        self,
        follower: &mut Follower,
        herald: AbortHandle,
        drained: Vec<Sequence>,
    ) -> Result<End, SchedulerError> {
        let log = Arc::new(BridgedLog::after_barrier(
            self.stores.log.clone(),
            self.scheduler.config.log.bridge.then(|| self.stores.bridge.clone()),
            self.term,
            follower.seq,
        ));
        let (clock, host) = (term_clock(self.scheduler.clock, follower), self.scheduler.clock);
        if clock.ahead() > AHEAD_WORTH_A_WORD {
            tracing::warn!(ahead = %clock.ahead(), "this host's clock is behind the newest event in the log; going on from that");
        }
        let now = clock.at(host.now());
        let sealer = FrameSealer::new(&self.stores.log_key);
        let journal = Journal::new(follower.state.clone(), sealer, self.term, follower.seq, follower.chain);
        let config = &self.scheduler.config;
        let identity = Identity { scheduler: config.name.clone(), zone: config.zone.clone(), term: self.term };
        let seed = getrandom::u64().unwrap_or(now.0);
        let mut leader = Leader::new(identity, journal, Ids::new(seed), now, config.log.witness)
            .with_retention(config.retention.rules())
            .settling_for(config.zone_settle);
        if self.scheduler.tracer.is_on() {
            leader.trace_all();
        }

        let (requests, requests_in) = mpsc::channel(limits::LEADER_QUEUE_MAX);
        let (own, own_in) = mpsc::channel(limits::LEADER_QUEUE_MAX);
        let inbox = Inbox { requests, own };
        let open = Arc::new(OpenRequests::default());
        let listening =
            service::listen(&self.stores.nats.client, &open, &inbox).await.map_err(SchedulerError::Listen)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(clear_bridge(self.stores.clone(), self.term, drained));
        if config.log.replicas > 1 {
            tasks.spawn(apart::keep_apart(self.stores.clone(), config.zone.clone()));
        }
        tasks.spawn(own_beats(self.stores.clone(), self.term, inbox.own.clone()));
        // What is in the bridge alone is part of the log for who asks about it.
        let reading = Stores { log: log.clone(), ..self.stores.clone() };
        let (say, to_say) = mpsc::channel(speaker::QUEUE_MAX);
        let speaking =
            tokio::spawn(Speaker::new(reading, config.cluster.clone(), open.clone(), inbox.own.clone()).run(to_say));
        herald.abort();
        self.scheduler.leading.store(true, Ordering::Relaxed);
        metrics::leading(Some(self.term));
        tracing::info!(scheduler = %config.name, zone = %config.zone, term = %self.term, seq = %follower.seq, "leading");

        let survey = metrics::Survey::default();
        let mut cabinet =
            Loop { reign: &self, log, clock, leader, survey, inbox, say, tasks, appended_at: Instant::now() };
        let end = cabinet.run(requests_in, own_in).await;
        let Loop { leader, say, tasks, .. } = cabinet;
        drop(tasks);
        self.hand_over(end, &leader, listening, say, speaking, &open).await
    }

    /// Stops listening, says what is left to say, and leaves a witness.
    async fn hand_over(
        &self,
        end: Result<End, SchedulerError>,
        leader: &Leader,
        listening: Listening,
        say: mpsc::Sender<Vec<Output>>,
        speaking: tokio::task::JoinHandle<()>,
        open: &OpenRequests,
    ) -> Result<End, SchedulerError> {
        listening.stop().await;
        drop(say);
        speaking.await.ok();
        if matches!(end, Ok(End::HandedOver))
            && let Err(error) = self.tenure.witness(leader.last_witness().encode()).await
        {
            tracing::warn!(%error, "the last witness could not be written");
        }
        // What this leader has learnt must not be forgotten with it, or the next one would lead as if nothing were.
        if let Err(SchedulerError::Stopped(Resignation::LostCommits { seen, .. })) = &end
            && let Err(error) = self.tenure.witness(Witness::of_lost(*seen).encode()).await
        {
            tracing::error!(%error, commit = %seen, "that the log has lost this commit could not be noted");
        }
        open.refuse_all(&self.stores.nats.client, "the scheduler no longer leads").await;
        self.stores.nats.client.flush().await.ok();
        end
    }
}

fn end_of(follower: &Follower) -> LogEnd {
    let term = follower.state.term.as_ref().map(|(term, _)| term.term);
    LogEnd { seq: follower.seq, chain: follower.chain, term }
}

/// The time of a term that begins now.
fn term_clock(host: Clock, follower: &Follower) -> TermClock {
    TermClock::new(host.now(), follower.state.newest_event_at)
}

/// The machine's loop.
struct Loop<'a> {
    reign: &'a Reign<'a>,
    log: Arc<BridgedLog<dyn CommitLog>>,
    clock: TermClock,
    leader: Leader,
    survey: metrics::Survey,
    inbox: Inbox,
    say: mpsc::Sender<Vec<Output>>,
    tasks: JoinSet<()>,
    appended_at: Instant,
}

impl Loop<'_> {
    fn now(&self) -> Timestamp {
        self.clock.at(self.reign.scheduler.clock.now())
    }

    async fn run(
        &mut self,
        mut requests: mpsc::Receiver<Input>,
        mut own: mpsc::Receiver<Input>,
    ) -> Result<End, SchedulerError> {
        let mut stopping = self.reign.scheduler.stopping.clone();
        let mut tick = tokio::time::interval(TURN_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let log = self.log.clone();
        let mut over = std::pin::pin!(log.over());
        let mut survey = tokio::time::interval(SURVEY_EVERY);
        survey.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut first = Vec::with_capacity(INPUTS_PER_TURN);
        let mut then = Vec::with_capacity(INPUTS_PER_TURN);
        loop {
            let has_room = self.leader.has_room();
            tokio::select! {
                biased;
                () = self.reign.tenure.lost() => return Ok(End::Lost("the lease ended")),
                _ = stopping.wait_for(|stop| *stop) => return Ok(End::HandedOver),
                error = &mut over => {
                    // The machine hears it as it would of an append of its own.
                    let mut out = Vec::new();
                    self.leader.input(Input::Appended(Err(error)), self.now(), &mut out);
                    if let Some(end) = self.perform(out).await {
                        return end;
                    }
                    return Ok(End::Lost("the stream refused what the bridge holds"));
                }
                _ = own.recv_many(&mut first, INPUTS_PER_TURN) => {}
                _ = requests.recv_many(&mut then, INPUTS_PER_TURN), if has_room => {}
                _ = tick.tick() => {}
                _ = survey.tick() => {
                    let now = self.now();
                    self.survey.take(&self.leader, now);
                    metrics::bridge(self.log.standing());
                }
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            }
            let now = self.now();
            let connected =
                self.reign.stores.nats.client.connection_state() == async_nats::connection::State::Connected;
            self.reign.scheduler.readiness.leads(self.leader.append_since().map(|at| now.since(at).into()), connected);
            let mut out = Vec::new();
            for input in first.drain(..).chain(then.drain(..)) {
                self.leader.input(input, now, &mut out);
            }
            self.leader.turn(now, &mut out);
            // Asked as late as possible: what is said below is said by a leader.
            if !self.reign.tenure.is_valid() {
                return Ok(End::Lost("the lease was not renewed in time"));
            }
            if let Some(end) = self.perform(out).await {
                return end;
            }
        }
    }

    /// Carries out what is the shell's own, and hands on the rest.
    async fn perform(&mut self, out: Vec<Output>) -> Option<Result<End, SchedulerError>> {
        let mut to_say = Vec::with_capacity(out.len());
        for output in out {
            match output {
                Output::Append(append) => self.append(append),
                Output::Probe(executor) => self.probe(executor),
                Output::ProbeZone(zone) => self.probe_zone(zone),
                Output::ReadRegistry => self.read_registry(),
                Output::Witness(witness) => self.witness(witness),
                Output::Span(span) => self.trace(span),
                Output::Committed(committed) => {
                    metrics::committed(&committed, self.appended_at.elapsed().as_secs_f64())
                }
                Output::Resign(why) => return Some(Err(resigned(why))),
                other => to_say.push(other),
            }
        }
        if !to_say.is_empty() && self.say.send(to_say).await.is_err() {
            return Some(Ok(End::Lost("the speaker has stopped")));
        }
        None
    }

    /// Records what has just become durable, and the append that made it so.
    fn trace(&self, span: Span) {
        let tracer = &self.reign.scheduler.tracer;
        if !tracer.is_on() {
            return;
        }
        let ended = SystemTime::now();
        let since = |ms: Timestamp| ended - Duration::from(self.reign.scheduler.clock.now().since(ms));
        let attributes = vec![
            ("job", span.job.to_string()),
            ("attempt", span.attempt.to_string()),
            ("term", self.reign.term.to_string()),
            ("seq", self.leader.acked().to_string()),
        ];
        if span.step == Step::Submit {
            let commit = span.context.at(span.job, span.attempt, Step::Commit);
            tracer.record(SpanRecord {
                context: commit,
                parent: span.context.span,
                name: Step::Commit.name(),
                begun: ended - self.appended_at.elapsed(),
                ended,
                attributes: attributes.clone(),
            });
        }
        let (context, parent, name) = (span.context, span.parent, span.step.name());
        tracer.record(SpanRecord { context, parent, name, begun: since(span.begun), ended, attributes });
    }

    fn append(&mut self, append: Append) {
        self.appended_at = Instant::now();
        let (log, own) = (self.log.clone(), self.inbox.own.clone());
        self.tasks.spawn(async move {
            let result = log.append(append.expected, append.body).await;
            own.send(Input::Appended(result)).await.ok();
        });
    }

    fn probe(&mut self, executor: ExecutorId) {
        let (client, own) = (self.reign.stores.nats.client.clone(), self.inbox.own.clone());
        self.tasks.spawn(async move {
            let found = ask(&client, subject::executor_probe(executor)).await;
            tracing::debug!(%executor, ?found, "probed");
            own.send(Input::Probed { executor, found }).await.ok();
        });
    }

    fn probe_zone(&mut self, zone: Zone) {
        let (client, own) = (self.reign.stores.nats.client.clone(), self.inbox.own.clone());
        self.tasks.spawn(async move {
            let found = ask(&client, subject::zone_probe(&zone)).await;
            own.send(Input::ZoneProbed { zone, found }).await.ok();
        });
    }

    fn read_registry(&mut self) {
        let (registry, own) = (self.reign.stores.registry.clone(), self.inbox.own.clone());
        self.tasks.spawn(async move {
            match registry.list().await {
                Ok(present) => {
                    own.send(Input::Registered(present)).await.ok();
                }
                Err(error) => tracing::warn!(%error, "the registry could not be read"),
            }
        });
    }

    fn witness(&mut self, witness: Witness) {
        let (tenure, own) = (self.reign.tenure.clone(), self.inbox.own.clone());
        self.tasks.spawn(async move {
            match tenure.witness(witness.encode()).await {
                Ok(()) => {
                    own.send(Input::Witnessed(witness)).await.ok();
                }
                Err(error) => {
                    tracing::warn!(%error, "the witness could not be written");
                    own.send(Input::NotWitnessed).await.ok();
                }
            }
        });
    }
}

fn resigned(why: Resignation) -> SchedulerError {
    SchedulerError::Stopped(why)
}

/// Beats for a leader that is still on its way to its barrier.
async fn herald(stores: Stores, beat: LeaderBeat) {
    let body = Bytes::from(pack(&beat));
    loop {
        stores.nats.client.publish(subject::LEADER_BEAT, body.clone()).await.ok();
        tokio::time::sleep(BEAT_EVERY).await;
    }
}

/// What earlier leaders left in the bridge stands in the stream by now.
async fn clear_bridge(stores: Stores, term: Term, drained: Vec<Sequence>) {
    for at in drained {
        if let Err(error) = stores.bridge.remove(term, at).await {
            tracing::info!(%term, %at, %error, "left in the bridge for the next leader");
        }
    }
}

async fn ask(client: &async_nats::Client, subject: String) -> Probed {
    let request = async_nats::Request::new().timeout(Some(PROBE_TIMEOUT));
    match client.send_request(subject, request).await {
        Ok(_) => Probed::Here,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Probed::NobodyThere,
        Err(_) => Probed::Silent,
    }
}

/// Says "here" to whoever asks whether this scheduler is still there.
pub(super) async fn answer_probes(stores: Stores, subject: String) {
    let client = &stores.nats.client;
    let Ok(mut probes) = client.subscribe(subject).await else { return };
    while let Some(probe) = probes.next().await {
        if let Some(reply) = probe.reply {
            client.publish(reply, Bytes::new()).await.ok();
        }
    }
}

/// Tells the machine that its own beats come back, which is how it knows that it is not cut off.
async fn own_beats(stores: Stores, term: Term, own: mpsc::Sender<Input>) {
    let Ok(beats) = service::leader_beats(&stores.nats.client).await else { return };
    let mut beats = std::pin::pin!(beats);
    while let Some(beat) = beats.next().await {
        let input = if beat.term == term { Input::OwnBeat } else { continue };
        if own.send(input).await.is_err() {
            return;
        }
    }
}
