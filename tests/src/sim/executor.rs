//! The shell around the executor's machine, as `executor::runner` is the real one, and the host under it: shims and
//! jobs' processes, which live and die by rules of their own.

mod host;
mod work;

use super::clock::NodeClock;
use super::env::{Env, Event, FromShim, Happening, HostEvent, MS, Micros, Node, Reply, Request, SECOND, Timer, say};
use super::etcd::{EtcdReply, EtcdRequest};
use super::faults::{Fault, Stall};
use super::network::{Message, NatsReply};
use super::sabotage::Sabotage;
use host::Host;
use outlive_executor::attempt::{self, ResultFile};
use outlive_executor::intake::Intake;
use outlive_executor::machine::{Effect, ExecutorMachine, Input, Over};
use outlive_executor::shim::protocol::Exit;
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{Attempt, ExecutorId, ExecutorName, JobId, Sequence, Zone};
use outlive_schemas::message::Assignment;
use outlive_schemas::time::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;
use work::{Work, WorkCall};

const LEASE_TTL: Micros = 5 * SECOND;
/// As in `executor::runner`: from the last confirmed renewal until shims kill.
const ORDINARY_SPAN: Micros = 30 * SECOND;
const EXCLUSIVE_SPAN: Micros = 4 * SECOND;
const CALL_TIMEOUT: Micros = SECOND;
const REPORT_TIMEOUT: Micros = 2 * SECOND;
const BEAT_EVERY: Micros = 250 * MS;

/// What a reply is for.
#[derive(Clone, Debug)]
enum Call {
    Report,
    Look,
    Grant { seen: u64, sent: Micros },
    Register { lease: u64, sent: Micros },
    Renew { lease: u64, sent: Micros },
    Leave,
    Work(JobId, Attempt, WorkCall),
}

/// The lease of one registration, by this node's own clock.
#[derive(Clone, Copy, Debug)]
struct Lease {
    id: u64,
    renewed: Micros,
}

pub struct ExecutorNode {
    pub index: usize,
    pub name: ExecutorName,
    pub zone: Zone,
    pub slots: u32,
    pub run: u32,
    pub up: bool,
    pub clock: NodeClock,
    machine: Option<ExecutorMachine>,
    began: Micros,
    pub host: Host,
    work: BTreeMap<(JobId, Attempt), Work>,
    lease: Option<Lease>,
    calls: BTreeMap<u64, Call>,
    report: Option<u64>,
    wake_at: Option<u64>,
    next_work: u64,
    /// When the newest of what shims have said arrives.
    told_until: Micros,
    /// What has come for this incarnation before it was registered: its loop begins with that.
    early: Option<Vec<Message>>,
    /// What befalls it as an exclusive attempt is about to start.
    pub stall: Option<Stall>,
}

impl ExecutorNode {
    pub fn new(index: usize, zone: &str, slots: u32) -> ExecutorNode {
        ExecutorNode {
            index,
            name: ExecutorName::new(&format!("executor-{index}")).expect("a name"),
            zone: Zone::new(zone).expect("a zone"),
            slots,
            run: 0,
            up: false,
            clock: NodeClock::default(),
            machine: None,
            began: 0,
            host: Host::new(index),
            work: BTreeMap::new(),
            lease: None,
            calls: BTreeMap::new(),
            report: None,
            wake_at: None,
            next_work: 0,
            told_until: 0,
            early: None,
            stall: None,
        }
    }

    pub fn node(&self) -> Node {
        Node::Executor(self.index)
    }

    pub fn id(&self) -> Option<ExecutorId> {
        self.machine.as_ref().filter(|_| self.up).map(ExecutorMachine::id)
    }

    /// What leaders have told it of the log.
    pub fn told(&self) -> Option<outlive_schemas::message::Told> {
        self.machine.as_ref().map(ExecutorMachine::told)
    }

    /// Where the newest exclusive attempt that runs here was placed, if another was before it: the log tells of its job
    /// without that commit, too.
    pub fn runs_alone(&self) -> Option<(Sequence, usize)> {
        let exclusive = self.host.processes.iter().filter(|(_, process)| process.exclusive);
        let placed = exclusive.filter(|((_, attempt), _)| *attempt > Attempt(1));
        let placed_at = placed.filter_map(|(key, _)| Some(self.work.get(key)?.assignment.placed_at)).max();
        Some((placed_at?, self.index))
    }

    fn micros(&self, env: &Env) -> Micros {
        self.clock.micros(env.now)
    }

    /// Since this incarnation began, as its machine counts.
    fn now_ms(&self, env: &Env) -> u64 {
        self.micros(env).saturating_sub(self.began) / MS
    }

    // Coming and going.

    pub fn start(&mut self, env: &mut Env) {
        self.run += 1;
        self.up = true;
        self.begin(Intake::default(), env);
        env.timer(self.node(), self.run, BEAT_EVERY, Timer::Heartbeat);
    }

    fn begin(&mut self, intake: Intake, env: &mut Env) {
        self.began = self.micros(env);
        let id = ExecutorId(uuid::Uuid::from_u128(
            (u128::from(env.chance.below(u64::MAX)) << 64) | u128::from(env.chance.below(u64::MAX)),
        ));
        let registration = Registration {
            id,
            name: self.name.clone(),
            zone: self.zone.clone(),
            host: self.name.to_string(),
            capacity: Capacity { cpu_millis: 64_000, memory_bytes: 1 << 40, slots: self.slots },
            labels: Default::default(),
            drivers: vec![DriverKind::Process, DriverKind::Noop],
            version: "0.0.0".into(),
        };
        say!(env, "{} begins as {id:.8}", self.name);
        env.net.listen(self.node());
        env.net.is(self.node(), id);
        env.checkers.executor_is(id, self.node());
        let drain = Millis(env.chance.between(1_000, 15_000));
        self.machine = Some(ExecutorMachine::new(registration, intake).with_drain_timeout(drain));
        self.calls.clear();
        self.report = None;
        self.wake_at = None;
        self.work.clear();
        self.lease = None;
        self.early = Some(Vec::new());
        self.register(env);
    }

    /// The process is killed; its shims notice.
    pub fn crash(&mut self, env: &mut Env) {
        say!(env, "{} is killed", self.name);
        self.gone(env);
        self.host.orphan_all(env);
    }

    /// The whole host is gone at once, without a word to anybody.
    pub fn vanish(&mut self, env: &mut Env) {
        say!(env, "{}'s host is gone", self.name);
        self.gone(env);
        self.host.lose_all(env);
    }

    fn gone(&mut self, env: &mut Env) {
        self.up = false;
        self.run += 1;
        self.machine = None;
        self.calls.clear();
        self.work.clear();
        env.net.hang_up(self.node());
    }

    /// Told to stop in order.
    pub fn stop(&mut self, env: &mut Env) {
        if !self.up {
            return;
        }
        say!(env, "{} is told to stop", self.name);
        match self.early {
            None => self.input(Input::Shutdown, env),
            Some(_) => self.gone(env),
        }
    }

    fn ask(&mut self, env: &mut Env, call: Call, request: EtcdRequest) {
        let id = env.ask(self.node(), self.run, CALL_TIMEOUT, Request::Etcd(request));
        self.calls.insert(id, call);
    }

    fn register(&mut self, env: &mut Env) {
        let Some(executor) = self.id() else { return };
        self.ask(env, Call::Look, EtcdRequest::Look { executor });
    }

    /// When a shim kills what it holds, by the last confirmed renewal.
    fn deadline(&self, exclusive: bool) -> Micros {
        let span = if exclusive { EXCLUSIVE_SPAN } else { ORDINARY_SPAN };
        self.lease.map_or(0, |lease| lease.renewed) + span
    }

    pub fn happens(&mut self, what: Happening, env: &mut Env) {
        match what {
            Happening::Message(message) => self.message(message, env),
            Happening::Reply { call, reply } => self.replied(call, reply, env),
            Happening::Timer(timer) => self.timer(timer, env),
            Happening::Shim(job, attempt, said) => self.shim_said(job, attempt, said, env),
            Happening::LeaderKeyGone(_) => {}
        }
    }

    fn message(&mut self, message: Message, env: &mut Env) {
        if let Some(early) = &mut self.early {
            return early.push(message);
        }
        match message {
            Message::Order(executor, order) if self.id() == Some(executor) => self.input(Input::Order(order), env),
            Message::LeaderBeat(beat) => self.input(Input::Heard { term: beat.term, seq: beat.seq }, env),
            Message::Probe { of, from, call } => {
                let reply = if of == self.id() { NatsReply::Here } else { NatsReply::NoResponders };
                env.reply(self.node(), from, call, reply);
            }
            Message::Reply { call, reply } => self.replied(call, Reply::Nats(reply), env),
            _ => {}
        }
    }

    fn timer(&mut self, timer: Timer, env: &mut Env) {
        match timer {
            Timer::Heartbeat => {
                if self.early.is_none() {
                    self.extend_deadlines(env);
                    self.input(Input::HeartbeatDue, env);
                }
                env.timer(self.node(), self.run, BEAT_EVERY, Timer::Heartbeat);
            }
            Timer::Wake => {
                let due = self.wake_at.is_some_and(|at| at <= self.now_ms(env));
                if due {
                    self.wake_at = None;
                    self.input(Input::Wake, env);
                } else {
                    // Its clock runs slower than the right one.
                    self.wake_at = None;
                    self.set_timer(env);
                }
            }
            Timer::Renew => {
                if let Some(Lease { id: lease, .. }) = self.lease {
                    let sent = self.micros(env);
                    self.ask(env, Call::Renew { lease, sent }, EtcdRequest::Renew { lease });
                }
            }
            Timer::Retry if self.lease.is_none() => self.register(env),
            Timer::Work(job, attempt, work) => self.work_done(job, attempt, work, env),
            _ => {}
        }
    }

    fn replied(&mut self, id: u64, reply: Reply, env: &mut Env) {
        let Some(call) = self.calls.remove(&id) else { return };
        match (call, reply) {
            (Call::Report, reply) => {
                if self.report.take() != Some(id) {
                    return;
                }
                let answer = match reply {
                    Reply::Nats(NatsReply::Reports(reply)) => Some(reply),
                    _ => None,
                };
                self.input(Input::Answer(answer), env);
            }
            (Call::Look, Reply::Etcd(EtcdReply::Seen(seen))) => {
                let sent = self.micros(env);
                self.ask(env, Call::Grant { seen, sent }, EtcdRequest::Grant { ttl: LEASE_TTL });
            }
            (Call::Grant { seen, sent }, Reply::Etcd(EtcdReply::Granted(lease))) => {
                let Some(machine) = &self.machine else { return };
                let registration = Box::new(machine.registration().clone());
                self.ask(env, Call::Register { lease, sent }, EtcdRequest::Register { lease, seen, registration });
            }
            (Call::Register { lease, sent }, Reply::Etcd(EtcdReply::Registered)) => {
                self.lease = Some(Lease { id: lease, renewed: sent });
                say!(env, "{} is registered", self.name);
                self.extend_deadlines(env);
                env.timer(self.node(), self.run, LEASE_TTL / 6, Timer::Renew);
                match self.early.take() {
                    None => self.input(Input::Registered, env),
                    Some(early) => early.into_iter().for_each(|message| self.message(message, env)),
                }
            }
            (Call::Look | Call::Grant { .. } | Call::Register { .. }, _) => {
                env.timer(self.node(), self.run, 500 * MS, Timer::Retry);
            }
            (Call::Renew { lease, sent }, Reply::Etcd(EtcdReply::Renewed)) => {
                if let Some(held) = self.lease.as_mut().filter(|held| held.id == lease) {
                    held.renewed = sent;
                    env.timer(self.node(), self.run, LEASE_TTL / 6, Timer::Renew);
                }
            }
            (Call::Renew { lease, .. }, Reply::Etcd(EtcdReply::Gone)) => {
                if self.lease.is_some_and(|held| held.id == lease) {
                    say!(env, "{} has lost its lease", self.name);
                    self.lease = None;
                    self.input(Input::LeaseLost, env);
                }
            }
            (Call::Renew { .. }, _) => env.timer(self.node(), self.run, 100 * MS, Timer::Renew),
            (Call::Leave, _) => {}
            (Call::Work(job, attempt, call), reply) => self.work_replied(job, attempt, call, reply, env),
        }
    }

    fn extend_deadlines(&mut self, env: &mut Env) {
        let Some(Lease { id: lease, .. }) = self.lease else { return };
        let (ordinary, exclusive) = (self.deadline(false), self.deadline(true));
        self.host.extend(ordinary, exclusive, lease, env);
    }

    fn shim_said(&mut self, job: JobId, attempt: Attempt, said: FromShim, env: &mut Env) {
        let at_ms = self.now_ms(env);
        let input = match said {
            FromShim::Started => attempt::Input::Started { at_ms },
            FromShim::NotStarted => attempt::Input::NotStarted { reason: "it could not be launched".into() },
            FromShim::Exited(code) => attempt::Input::Exited(Exit::Code(code)),
            FromShim::Signalled(signal) => attempt::Input::Exited(Exit::Signal(signal)),
            FromShim::Gone => attempt::Input::Gone,
        };
        self.input(Input::Attempt(job, attempt, input), env);
    }

    fn input(&mut self, input: Input, env: &mut Env) {
        let now_ms = self.now_ms(env);
        let Some(machine) = &mut self.machine else { return };
        let effects = machine.input(input, now_ms);
        for effect in effects {
            self.perform(effect, env);
        }
        let Some(machine) = &mut self.machine else { return };
        match machine.is_over(now_ms) {
            None => self.set_timer(env),
            Some(Over::Dismissed) => {
                let intake = machine.begin_anew();
                self.host.orphan_all(env);
                self.leave_registry(env);
                self.run += 1;
                self.begin(intake, env);
                env.timer(self.node(), self.run, BEAT_EVERY, Timer::Heartbeat);
            }
            Some(Over::Left) => {
                let farewell = machine.farewell();
                self.broadcast_beat(farewell, env);
                self.host.orphan_all(env);
                self.leave_registry(env);
                say!(env, "{} has left", self.name);
                self.gone(env);
            }
        }
    }

    fn leave_registry(&mut self, env: &mut Env) {
        if let Some(lease) = self.lease.take() {
            self.ask(env, Call::Leave, EtcdRequest::Revoke { lease: lease.id });
        }
    }

    fn set_timer(&mut self, env: &mut Env) {
        let Some(at) = self.machine.as_ref().and_then(ExecutorMachine::wake_at) else { return };
        if self.wake_at.is_some_and(|set| set <= at) {
            return;
        }
        self.wake_at = Some(at);
        let delay = at.saturating_sub(self.now_ms(env)) * MS;
        env.timer(self.node(), self.run, delay.max(MS), Timer::Wake);
    }

    fn broadcast_beat(&self, beat: outlive_schemas::message::Heartbeat, env: &mut Env) {
        let serving: Vec<Node> = env.net.serving.iter().copied().collect();
        for node in serving {
            env.send(self.node(), node, Message::Heartbeat(beat.clone()));
        }
    }

    fn perform(&mut self, effect: Effect, env: &mut Env) {
        match effect {
            Effect::Begin(assignment) => self.begin_attempt(assignment, env),
            Effect::Attempt(job, attempt, effect) => self.perform_for(job, attempt, effect, env),
            Effect::Report(batch) => {
                let serving: Vec<Node> = env.net.serving.iter().copied().collect();
                let from = self.node();
                env.checkers.reported(&batch);
                let call = env.request(from, self.run, REPORT_TIMEOUT, &serving, |call| Message::Reports {
                    batch: batch.clone(),
                    from,
                    call,
                });
                self.calls.insert(call, Call::Report);
                self.report = Some(call);
            }
            Effect::ForgetReport => self.report = None,
            Effect::Beat(beat) => self.broadcast_beat(beat, env),
            Effect::Register => self.register(env),
            // In the simulation chunks that nobody needs any more stay, and what ended attempts leave does not.
            Effect::LeaderHeard | Effect::Withdrawn | Effect::CollectGarbage(_) | Effect::Keep(..) => {}
        }
    }

    fn begin_attempt(&mut self, assignment: Arc<Assignment>, env: &mut Env) {
        let key = (assignment.job, assignment.attempt);
        say!(env, "{} takes attempt {} of {}", self.name, key.1, short(key.0));
        let exclusive = assignment.spec.exclusive;
        self.work.insert(key, Work::new(assignment, self.lease.map(|lease| lease.id)));
        if exclusive {
            self.stand_still(false, env);
        }
    }

    /// It stands still from now on, before anything of the attempt runs, if that is in store for it.
    fn stand_still(&mut self, with_host: bool, env: &mut Env) {
        let Some(Stall { long, .. }) = self.stall.take_if(|stall| stall.with_host == with_host) else { return };
        let node = self.node();
        let (begin, end) = match with_host {
            true => (Fault::Freeze(self.index), Fault::Thaw(self.index)),
            false => (Fault::Pause(node), Fault::Resume(node)),
        };
        env.after(0, Event::Fault(begin));
        env.after(long, Event::Fault(end));
    }

    fn is(&self, sabotage: Sabotage, env: &Env) -> bool {
        env.is(sabotage)
    }

    fn collected(&mut self, job: JobId, attempt: Attempt, env: &mut Env) {
        let input = attempt::Input::Collected(ResultFile::None);
        self.input(Input::Attempt(job, attempt, input), env);
    }

    pub fn freeze(&mut self, env: &mut Env) {
        say!(env, "{}'s host stands still", self.name);
        self.host.freeze(env);
    }

    pub fn thaw(&mut self, env: &mut Env) {
        if self.host.frozen {
            say!(env, "{}'s host goes on", self.name);
        }
        for (job, attempt) in self.host.thaw(self.clock, env) {
            self.tell(job, attempt, vec![FromShim::Signalled(9), FromShim::Gone], env);
        }
    }

    pub fn host_event(&mut self, job: JobId, attempt: Attempt, what: HostEvent, env: &mut Env) {
        let said = self.host.happens(job, attempt, what, self.clock, env);
        self.tell(job, attempt, said, env);
    }

    /// In this order, through the shim's pipe.
    fn tell(&mut self, job: JobId, attempt: Attempt, said: Vec<FromShim>, env: &mut Env) {
        let delay = env.chance.between(100, 2_000);
        self.told_until = self.told_until.max(env.now + delay);
        for said in said {
            let what = Happening::Shim(job, attempt, said);
            env.at(self.told_until, Event::At { node: self.node(), run: self.run, what });
        }
    }
}

/// Enough of a job's id to tell it by.
pub fn short(job: JobId) -> String {
    let text = job.to_string();
    format!("job …{}", &text[text.len() - 4..])
}
