//! A whole Outlive in one thread: it is started, broken as the seed says, healed, and brought to its end.

mod loss;

use super::client::ClientNode;
use super::clock::NodeClock;
use super::env::{Env, Event, Happening, MS, Micros, Node, SECOND, say};
use super::executor::{ExecutorNode, short};
use super::faults::{Fault, Plan};
use super::sabotage::Sabotage;
use super::scheduler::SchedulerNode;
use super::trace::Trace;
use super::{Options, Report};
use outlive_core::explain::why;
use outlive_core::plan::Hints;
use outlive_schemas::view::Status;

const ZONES: [&str; 3] = ["a", "b", "c"];
/// How long everything may take to come to its end once nothing is broken any more: an array's dozen tasks of half a
/// minute may come one after the other.
const BOUND: Micros = 600 * SECOND;
/// A supervisor starts what has stopped.
const RESTART_AFTER: Micros = 2 * SECOND;

pub struct World {
    env: Env,
    schedulers: Vec<SchedulerNode>,
    executors: Vec<ExecutorNode>,
    client: ClientNode,
    plan: Plan,
    steps: u64,
    /// In the end the log loses acknowledged commits.
    loses: bool,
    /// Since when nothing can be appended, and how long that took at most.
    stalled_since: Option<Micros>,
    stalled_max: Micros,
}

impl World {
    pub fn new(seed: u64, options: &Options, trace: Trace, sabotage: Option<Sabotage>) -> World {
        let zones = ZONES.len();
        let mut draw = crate::Chance::of(seed ^ 0x5eed);
        let executors: Vec<usize> = (0..draw.between(3, 6)).map(|i| i as usize % zones).collect();
        let schedulers: Vec<usize> = (0..zones).collect();
        let mut env = Env::new(seed, trace, sabotage, &schedulers, &executors);
        env.checkers.every_commit = env.chance.per_mille(150);
        let loses = options.lose_tail || env.chance.per_mille(120);
        // What a fault takes out of the stream would still be in the bridge.
        env.bridged = !loses && env.chance.per_mille(800);
        let plan = Plan::draw(&mut env, options.focus, zones, schedulers.len(), executors.len());
        let schedulers = schedulers.iter().map(|&zone| SchedulerNode::new(zone, ZONES[zone], &env)).collect();
        let slots = env.chance.between(3, 12) as u32;
        let executors =
            executors.iter().enumerate().map(|(i, &zone)| ExecutorNode::new(i, ZONES[zone], slots)).collect();
        let jobs_max = env.chance.between(5, 30) as usize;
        let schedules = if options.schedules { env.chance.between(1, 3) } else { 0 };
        let mut client = ClientNode::new(jobs_max, schedules);
        (client.life, client.drains) = (options.life, options.drains);
        // Deliberate bugs are looked for where nothing else is new.
        client.queues = (seed % 2 == 1 && sabotage.is_none()) || sabotage.is_some_and(Sabotage::is_of_queues);
        client.retries = seed % 3 == 1 && sabotage.is_none();
        let steps = options.steps;
        World { env, schedulers, executors, client, plan, steps, loses, stalled_since: None, stalled_max: 0 }
    }

    pub fn run(mut self) -> Report {
        for node in self.env.net.nodes() {
            let delay = self.env.chance.below(SECOND);
            self.env.after(delay, Event::Fault(Fault::Start(node)));
        }
        self.client.start(&mut self.env);
        self.env.after(500 * MS, Event::Sweep);
        let first = self.env.chance.between(3 * SECOND, 8 * SECOND);
        self.env.after(first, Event::Fault(Fault::Next));
        let mut handled = 0;
        while handled < self.steps && self.step() {
            handled += 1;
        }
        let lost_executors = self.env.checkers.losses;
        if self.env.checkers.violation.is_none() && self.loses {
            self.break_log();
        } else if self.env.checkers.violation.is_none() {
            self.heal();
            self.finish();
        }
        let violation = self.env.checkers.violation.take();
        Report {
            violation,
            commits: self.env.checkers.commits,
            jobs: self.client.jobs.len() as u64,
            events: std::mem::take(&mut self.env.checkers.events),
            virtual_seconds: self.env.now / SECOND,
            lost_executors,
            stalled_ms_max: self.stalled_max / MS,
            lines: self.env.trace.into_lines(),
        }
    }

    /// One event. `false` once something is wrong.
    fn step(&mut self) -> bool {
        let Some(event) = self.env.pop() else {
            self.env.checkers.fail("nothing is left to happen".into());
            return false;
        };
        self.happen(event);
        self.env.checkers.violation.is_none()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::At { node, run, .. } if run != u32::MAX && run != self.run_of(node) => {}
            Event::At { node, .. } | Event::Arrives { to: node, .. } | Event::Answered { to: node, .. }
                if self.env.paused.contains(&node) =>
            {
                self.env.backlog.entry(node).or_default().push(event);
            }
            Event::At { node, what, .. } => self.tell_node(node, what),
            Event::Arrives { from, to, message } => {
                if self.env.net.is_open(from, to) || from == to || matches!(message, super::network::Message::Tail(_)) {
                    self.tell_node(to, Happening::Message(message));
                } else {
                    self.env.net.note_trouble(from, to, self.env.now);
                }
            }
            Event::Asked { from, run, call, request } => self.env.serve(from, run, call, request),
            Event::Answered { to, run, call, reply } => {
                if run == self.run_of(to) {
                    self.tell_node(to, Happening::Reply { call, reply });
                }
            }
            Event::Host { executor, job, attempt, what } => {
                self.executors[executor].host_event(job, attempt, what, &mut self.env)
            }
            Event::Sweep => super::etcd::sweep(&mut self.env),
            Event::Fault(fault) => self.fault(fault),
        }
    }

    fn run_of(&self, node: Node) -> u32 {
        match node {
            Node::Scheduler(i) => self.schedulers[i].run,
            Node::Executor(i) => self.executors[i].run,
            Node::Client => 0,
        }
    }

    fn is_up(&self, node: Node) -> bool {
        match node {
            Node::Scheduler(i) => self.schedulers[i].up,
            Node::Executor(i) => self.executors[i].up,
            Node::Client => true,
        }
    }

    fn tell_node(&mut self, node: Node, what: Happening) {
        if !self.is_up(node) {
            return;
        }
        match node {
            Node::Scheduler(i) => {
                self.schedulers[i].happens(what, &mut self.env);
                if self.schedulers[i].refused.is_some() && self.env.checkers.lost_tail.is_none() {
                    self.env.after(RESTART_AFTER, Event::Fault(Fault::Start(node)));
                }
            }
            Node::Executor(i) => self.executors[i].happens(what, &mut self.env),
            Node::Client => self.client.happens(what, &mut self.env),
        }
    }

    // Faults.

    fn fault(&mut self, fault: Fault) {
        if !matches!(fault, Fault::Next) {
            say!(self.env, "fault       {fault:?}");
        }
        let env = &mut self.env;
        match fault {
            Fault::Next => {
                let next = self.plan.next(env);
                self.fault(next);
            }
            Fault::Kill(node) => self.kill(node),
            Fault::Vanish(i) => {
                self.resume(Node::Executor(i));
                if self.executors[i].up {
                    self.executors[i].vanish(&mut self.env);
                }
            }
            Fault::Start(node) => self.start(node),
            Fault::Stop(Node::Scheduler(i)) => self.schedulers[i].stop(env),
            Fault::Stop(Node::Executor(i)) => self.executors[i].stop(env),
            Fault::Stop(Node::Client) => {}
            Fault::Pause(node) => {
                env.paused.insert(node);
            }
            Fault::Resume(node) => self.resume(node),
            Fault::Freeze(i) => {
                env.paused.insert(Node::Executor(i));
                self.executors[i].freeze(env);
            }
            Fault::Thaw(i) => self.resume(Node::Executor(i)),
            Fault::StallAtStart(i, stall) => self.executors[i].stall = Some(stall),
            Fault::Cut { node, out, inward } => env.net.cut(node, out, inward),
            Fault::CutFromNats(node) => env.net.cut_from_nats(node),
            Fault::CutFromEtcd(node) => env.net.cut_from_etcd(node),
            Fault::CutFromLog(node) => env.net.cut_from_log(node),
            Fault::Join(node) => env.net.join(node),
            Fault::Isolate(zone) => env.net.isolate(zone, env.now),
            Fault::Rejoin(zone) => env.net.rejoin(zone, env.now),
            Fault::KillZone(zone) => {
                for node in env.net.nodes() {
                    if self.env.net.zone_of(node) == Some(zone) {
                        self.kill(node);
                    }
                }
                // It may have held the leader of a stream, or of etcd.
                if self.env.chance.coin() {
                    self.env.log.closed = true;
                    self.env.after(6 * SECOND, Event::Fault(Fault::OpenLog));
                }
                if self.env.chance.coin() {
                    self.env.etcd.closed = true;
                    self.env.after(SECOND, Event::Fault(Fault::OpenEtcd));
                }
            }
            Fault::StartZone(zone) => {
                for node in env.net.nodes() {
                    if self.env.net.zone_of(node) == Some(zone) {
                        self.start(node);
                    }
                }
            }
            Fault::CloseLog => {
                env.log.closed = true;
                self.stalled_since.get_or_insert(env.now);
            }
            Fault::OpenLog => {
                super::log::open_again(env);
                let stalled = self.stalled_since.take().map_or(0, |since| env.now - since);
                self.stalled_max = self.stalled_max.max(stalled);
            }
            Fault::CloseEtcd => env.etcd.closed = true,
            Fault::OpenEtcd => env.etcd.open_again(env.now),
            Fault::CloseBlobs => env.blobs.closed = true,
            Fault::OpenBlobs => env.blobs.closed = false,
            Fault::SlowLog(by) => env.log.slow = by,
            Fault::SlowBlobs(by) => env.blobs.slow = by,
            Fault::SlowDisk { executor, by } => env.checkers.set_slow_disk(executor, by),
            Fault::LagReplicas(by) => env.log.lag = by,
            Fault::Damage => super::blobs::damage_one(env),
            Fault::Depose => super::etcd::depose(env),
            Fault::ForgetIds => env.log.forget_ids(),
            Fault::LoseTail => {}
        }
    }

    fn kill(&mut self, node: Node) {
        self.resume(node);
        if !self.is_up(node) {
            return;
        }
        match node {
            Node::Scheduler(i) => self.schedulers[i].crash(&mut self.env),
            Node::Executor(i) => self.executors[i].crash(&mut self.env),
            Node::Client => {}
        }
    }

    fn start(&mut self, node: Node) {
        if self.is_up(node) {
            return;
        }
        let clock = NodeClock {
            ahead_ms: self.env.chance.between(0, 20_000) as i64 - 10_000,
            fast_ppm: self.env.chance.between(0, 4_000) as i64 - 2_000,
        };
        match node {
            Node::Scheduler(i) => {
                self.schedulers[i].clock = clock;
                self.schedulers[i].start(&mut self.env);
            }
            // A host's clock is one for all that is on it.
            Node::Executor(i) => {
                if self.executors[i].host.processes.is_empty() {
                    self.executors[i].clock = clock;
                }
                self.executors[i].start(&mut self.env);
            }
            Node::Client => {}
        }
    }

    /// What came meanwhile comes now, in its order.
    fn resume(&mut self, node: Node) {
        if let Node::Executor(i) = node {
            self.executors[i].thaw(&mut self.env);
        }
        if self.env.paused.remove(&node) {
            for event in self.env.backlog.remove(&node).unwrap_or_default() {
                self.env.after(0, event);
            }
        }
    }

    // The end.

    fn heal(&mut self) {
        say!(self.env, "            everything is healed");
        let env = &mut self.env;
        env.clear_faults();
        env.net.heal(env.now);
        env.log.closed = false;
        env.log.reading_until = 0;
        env.log.slow = 0;
        env.log.lag = 0;
        if env.etcd.closed {
            env.etcd.open_again(env.now);
        }
        env.blobs.closed = false;
        env.blobs.slow = 0;
        env.checkers.heal_disks();
        for node in self.env.net.nodes() {
            self.resume(node);
            self.start(node);
        }
        self.client.closing = true;
    }

    /// Everything comes to its end within a bound.
    fn finish(&mut self) {
        let until = self.env.now + BOUND;
        let mut looked = 0;
        while self.env.now < until {
            if !self.step() {
                return;
            }
            // What left in order is not started by anybody else.
            if self.env.now > looked + SECOND {
                looked = self.env.now;
                for node in self.env.net.nodes() {
                    self.start(node);
                }
                if self.is_finished() {
                    return self.check_end();
                }
            }
        }
        let truth = &self.env.checkers.truth;
        let left = truth.jobs.iter().find(|(_, job)| !job.status.is_final());
        let what = match left {
            Some((id, job)) => format!(
                "{} is still {} (attempt {}; {}) {} s after everything was healed",
                short(*id),
                job.status,
                job.attempt,
                why(truth, &Hints::default(), *id, job, truth.newest_event_at).summary,
                BOUND / SECOND
            ),
            None => "a request is not answered although everything is healed".into(),
        };
        self.env.checkers.fail(what);
    }

    fn is_finished(&self) -> bool {
        let jobs = &self.env.checkers.truth.jobs;
        let no_ticks = self.env.checkers.ticks.names().is_empty();
        no_ticks && !self.client.is_waiting() && jobs.values().all(|job| job.status.is_final())
    }

    fn check_end(&mut self) {
        if let Some(job) = self.env.checkers.missing() {
            self.env.checkers.fail(format!("{} was promised and is nowhere", short(job)));
        }
        if let Some(what) = self.env.checkers.unfinished() {
            self.env.checkers.fail(what);
        }
        let running: Vec<String> = self
            .executors
            .iter()
            .flat_map(|executor| executor.host.processes.keys().map(move |(job, attempt)| (executor, job, attempt)))
            .filter(|(_, job, _)| {
                self.env.checkers.truth.jobs.get(job).is_none_or(|job| job.status != Status::Cancelled)
            })
            .map(|(executor, job, attempt)| format!("{} attempt {attempt} on {}", short(*job), executor.name))
            .collect();
        // A process may be told to go only a moment later; what is never told would be found by the next check.
        let _ = running;
        say!(self.env, "            everything has come to its end");
    }
}
