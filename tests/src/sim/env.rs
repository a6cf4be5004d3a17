//! What every simulated part stands on: one clock, one queue of events, one source of chance.
//!
//! Nothing here waits: whoever wants something later puts an event into the queue. Events of the same time come in the
//! order in which they were put there, so that a seed gives the same run every time.

use super::blobs::{BlobReply, BlobRequest, Blobs};
use super::checkers::Checkers;
use super::etcd::{Etcd, EtcdReply, EtcdRequest};
use super::faults::Fault;
use super::log::{LogReply, LogRequest, LogServer};
use super::network::{Message, NatsReply, Network};
use super::sabotage::Sabotage;
use super::trace::Trace;
use crate::Chance;
use outlive_schemas::id::{Attempt, JobId, Term};
use outlive_store::seal::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Virtual time in microseconds since the run began.
pub type Micros = u64;
pub const MS: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;
/// The longest that a publish is on its way before it lands.
pub const LATE_MAX: Micros = 60 * SECOND;

/// One simulated process that others can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Scheduler(usize),
    Executor(usize),
    Client,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Scheduler(i) => write!(f, "scheduler-{i}"),
            Node::Executor(i) => write!(f, "executor-{i}"),
            Node::Client => write!(f, "client"),
        }
    }
}

/// What is asked of something that many share.
#[derive(Clone, Debug)]
pub enum Request {
    Log(LogRequest),
    Etcd(EtcdRequest),
    Blobs(BlobRequest),
}

#[derive(Clone, Debug)]
pub enum Reply {
    Log(LogReply),
    Etcd(EtcdReply),
    Blobs(BlobReply),
    Nats(NatsReply),
    /// No answer in time: what was asked for may or may not have happened.
    Nothing,
}

/// What happens to a node.
#[derive(Debug)]
pub enum Happening {
    Message(Message),
    Reply {
        call: u64,
        reply: Reply,
    },
    Timer(Timer),
    /// What a shim tells its executor.
    Shim(JobId, Attempt, FromShim),
    LeaderKeyGone(Term),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    Turn,
    Poll,
    Look,
    Herald,
    Renew,
    Retry,
    Heartbeat,
    Wake,
    /// Some slow piece of an attempt's work is done.
    Work(JobId, Attempt, u64),
    ClientStep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromShim {
    Started,
    NotStarted,
    Exited(i32),
    Signalled(i32),
    Gone,
}

/// What happens to a job's process, whatever its executor does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The process comes up.
    Launched,
    /// It ends by itself, as it was planned when it started or went on.
    Ends {
        plan: u64,
    },
    Signal(i32),
    /// The shim's deadline is looked at.
    Deadline,
    /// The executor is gone: the shim kills.
    Orphaned,
}

#[derive(Debug)]
pub enum Event {
    /// To a process as it is now; `run` tells one life of it from the next.
    At {
        node: Node,
        run: u32,
        what: Happening,
    },
    /// Over the network, to whatever life of the node is there.
    Arrives {
        from: Node,
        to: Node,
        message: Message,
    },
    Asked {
        from: Node,
        run: u32,
        call: u64,
        request: Request,
    },
    Answered {
        to: Node,
        run: u32,
        call: u64,
        reply: Reply,
    },
    Host {
        executor: usize,
        job: JobId,
        attempt: Attempt,
        what: HostEvent,
    },
    Sweep,
    Fault(Fault),
}

pub struct Env {
    pub now: Micros,
    queue: BTreeMap<(Micros, u64), Event>,
    next_event: u64,
    next_call: u64,
    pub chance: Chance,
    pub net: Network,
    pub log: LogServer,
    pub etcd: Etcd,
    pub blobs: Blobs,
    pub checkers: Checkers,
    pub trace: Trace,
    pub sabotage: Option<Sabotage>,
    /// Whether leaders may use the bridge.
    pub bridged: bool,
    pub log_key: Key,
    /// Processes that stand still, and what has come for them meanwhile.
    pub paused: BTreeSet<Node>,
    pub backlog: BTreeMap<Node, Vec<Event>>,
}

/// Writes one line of the trace, if anybody reads it.
macro_rules! say {
    ($env:expr, $($what:tt)*) => {
        if $env.trace.is_on() {
            let line = format!($($what)*);
            $env.trace.line($env.now, line);
        }
    };
}
pub(crate) use say;

impl Env {
    pub fn new(seed: u64, trace: Trace, sabotage: Option<Sabotage>, zones: &[usize], executors: &[usize]) -> Env {
        let mut chance = Chance::of(seed);
        let log_key = Key::from_bytes([7; 32]);
        let net = Network::new(zones, executors);
        let _ = chance.below(2);
        Env {
            now: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            next_call: 0,
            chance,
            net,
            log: LogServer::default(),
            etcd: Etcd::default(),
            blobs: Blobs::default(),
            checkers: Checkers::new(&log_key),
            trace,
            sabotage,
            bridged: true,
            log_key,
            paused: BTreeSet::new(),
            backlog: BTreeMap::new(),
        }
    }

    pub fn is(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    pub fn at(&mut self, time: Micros, event: Event) {
        self.next_event += 1;
        self.queue.insert((time.max(self.now), self.next_event), event);
    }

    pub fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    pub fn timer(&mut self, node: Node, run: u32, delay: Micros, timer: Timer) {
        self.after(delay, Event::At { node, run, what: Happening::Timer(timer) });
    }

    /// The next event, and the time with it.
    pub fn pop(&mut self) -> Option<Event> {
        let ((time, _), event) = self.queue.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// Nothing more is broken; what is broken is mended by the caller.
    pub fn clear_faults(&mut self) {
        self.queue.retain(|_, event| !matches!(event, Event::Fault(_)));
    }

    pub fn new_call(&mut self) -> u64 {
        self.next_call += 1;
        self.next_call
    }

    /// Asks something of a shared store. Whatever becomes of it, an answer comes within `timeout`, if only
    /// [`Reply::Nothing`].
    pub fn ask(&mut self, from: Node, run: u32, timeout: Micros, request: Request) -> u64 {
        let call = self.new_call();
        self.after(timeout, Event::Answered { to: from, run, call, reply: Reply::Nothing });
        let reaches = match &request {
            Request::Log(_) | Request::Blobs(_) => self.net.reaches_log(from),
            Request::Etcd(_) => self.net.reaches_etcd(from),
        };
        if !reaches {
            return call;
        }
        let copies = self.net.weather.copies(&mut self.chance);
        for delay in copies {
            self.after(delay, Event::Asked { from, run, call, request: request.clone() });
        }
        // A publish may lie in some buffer and land long after everybody has given it up.
        if matches!(request, Request::Log(LogRequest::Append { .. })) && self.chance.per_mille(self.net.weather.late) {
            let late = self.chance.between(2 * SECOND, LATE_MAX);
            self.after(late, Event::Asked { from, run, call, request });
        }
        call
    }

    /// A request has arrived where it was meant to.
    pub fn serve(&mut self, from: Node, run: u32, call: u64, request: Request) {
        let reply = match request {
            Request::Log(request) => super::log::serve(self, from, request).map(Reply::Log),
            Request::Etcd(request) => super::etcd::serve(self, from, request).map(Reply::Etcd),
            Request::Blobs(request) => super::blobs::serve(self, request).map(Reply::Blobs),
        };
        let Some((reply, extra)) = reply.map(|reply| {
            let extra = match &reply {
                Reply::Blobs(_) => self.blobs.slow,
                Reply::Log(_) => self.log.slow,
                _ => 0,
            };
            (reply, extra)
        }) else {
            return;
        };
        let returns = match &reply {
            Reply::Etcd(_) => self.net.etcd_reaches(from),
            _ => self.net.log_reaches(from),
        };
        if returns && !self.chance.per_mille(self.net.weather.drop) {
            let delay = self.net.weather.delay(&mut self.chance) + if extra > 0 { self.chance.below(extra) } else { 0 };
            self.after(delay, Event::Answered { to: from, run, call, reply });
        }
    }

    /// Says something to one node over core NATS: at most once, perhaps late.
    pub fn send(&mut self, from: Node, to: Node, message: Message) {
        if !self.net.is_open(from, to) {
            self.net.note_trouble(from, to, self.now);
            return;
        }
        let copies = self.net.weather.copies(&mut self.chance);
        if copies.first().is_none_or(|delay| *delay > 200 * MS) {
            self.net.note_trouble(from, to, self.now);
        }
        for delay in copies {
            self.after(delay, Event::Arrives { from, to, message: message.clone() });
        }
    }

    /// Answers a request that came over core NATS.
    pub fn reply(&mut self, from: Node, to: Node, call: u64, reply: NatsReply) {
        self.send(from, to, Message::Reply { call, reply });
    }

    /// A request over core NATS to whoever is behind `to`. `None`: nobody listens there.
    pub fn request(
        &mut self,
        from: Node,
        run: u32,
        timeout: Micros,
        to: &[Node],
        message: impl Fn(u64) -> Message,
    ) -> u64 {
        let call = self.new_call();
        self.after(timeout, Event::Answered { to: from, run, call, reply: Reply::Nothing });
        if to.iter().all(|to| self.net.looks_gone(from, *to, self.now)) {
            let delay = self.net.weather.delay(&mut self.chance);
            self.after(delay, Event::Answered { to: from, run, call, reply: Reply::Nats(NatsReply::NoResponders) });
        }
        for to in to {
            self.send(from, *to, message(call));
        }
        call
    }
}
