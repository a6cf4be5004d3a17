//! The host: one shim and one process per attempt. They live in wall time, whatever becomes of the executor: the shim
//! kills when its executor goes, or when its deadline passes; a frozen host freezes everything on it.

use crate::sim::checkers;
use crate::sim::clock::NodeClock;
use crate::sim::env::{Env, Event, FromShim, HostEvent, MS, Micros, say};
use crate::sim::executor::short;
use crate::sim::job::{TICK, Work};
use crate::sim::sabotage::Sabotage;
use outlive_schemas::id::{Attempt, JobId};
use std::collections::BTreeMap;

/// One attempt's process, from the launch until nothing of it is left.
#[derive(Clone, Debug)]
pub struct Process {
    pub work: Work,
    pub exclusive: bool,
    /// Its count when it last went on, and when that was.
    count: u64,
    since: Micros,
    launched: bool,
    /// It stands still by itself, for its last checkpoint.
    held: bool,
    /// The shim's deadline, by the host's clock.
    deadline: Micros,
    /// The lease that its attempt began under.
    lease: Option<u64>,
    /// Tells a planned end from one that was planned before a freeze.
    plan: u64,
}

pub struct Host {
    index: usize,
    pub processes: BTreeMap<(JobId, Attempt), Process>,
    pub frozen: bool,
}

impl Host {
    pub fn new(index: usize) -> Host {
        Host { index, processes: BTreeMap::new(), frozen: false }
    }

    fn event(&self, job: JobId, attempt: Attempt, what: HostEvent) -> Event {
        Event::Host { executor: self.index, job, attempt, what }
    }

    pub fn launch(
        &mut self,
        (job, attempt): (JobId, Attempt),
        (work, count): (Work, u64),
        (exclusive, deadline, lease): (bool, Micros, Option<u64>),
        env: &mut Env,
    ) {
        let since = env.now;
        let process = Process { work, exclusive, count, since, launched: false, held: false, deadline, lease, plan: 0 };
        self.processes.insert((job, attempt), process);
        let delay = env.chance.between(2 * MS, 20 * MS) + env.checkers.slow_disk(self.index);
        env.after(delay, self.event(job, attempt, HostEvent::Launched));
    }

    /// What the count of a running process is by now.
    pub fn count(&self, job: JobId, attempt: Attempt, now: Micros) -> Option<u64> {
        let process = self.processes.get(&(job, attempt))?;
        let stands = self.frozen || process.held || !process.launched;
        let running = if stands { 0 } else { now.saturating_sub(process.since) };
        Some(process.count + running / TICK)
    }

    /// Stops one process where it is, and tells its count.
    pub fn hold(&mut self, job: JobId, attempt: Attempt, env: &mut Env) -> Option<u64> {
        let count = self.count(job, attempt, env.now)?;
        let process = self.processes.get_mut(&(job, attempt))?;
        (process.count, process.held) = (count, true);
        process.plan += 1;
        Some(count)
    }

    /// Lets it go on.
    pub fn go_on(&mut self, job: JobId, attempt: Attempt, env: &mut Env) {
        let Some(process) = self.processes.get_mut(&(job, attempt)) else { return };
        if std::mem::take(&mut process.held) {
            process.since = env.now;
            self.plan_end((job, attempt), env);
        }
    }

    /// What happens to a process; returns what its shim says of it.
    pub fn happens(
        &mut self,
        job: JobId,
        attempt: Attempt,
        what: HostEvent,
        clock: NodeClock,
        env: &mut Env,
    ) -> Vec<FromShim> {
        if self.frozen {
            // Kept until the host goes on; a planned end is planned anew then.
            if !matches!(what, HostEvent::Ends { .. } | HostEvent::Deadline) {
                env.after(50 * MS, self.event(job, attempt, what));
            }
            return Vec::new();
        }
        let key = (job, attempt);
        let Some(process) = self.processes.get_mut(&key) else { return Vec::new() };
        match what {
            HostEvent::Launched => {
                if clock.micros(env.now) >= process.deadline && !env.is(Sabotage::ShimDeadlineIgnored) {
                    say!(
                        env,
                        "host-{}      {} attempt {attempt}: the deadline is over before it began",
                        self.index,
                        short(job)
                    );
                    self.processes.remove(&key);
                    return vec![FromShim::NotStarted];
                }
                process.launched = true;
                process.since = env.now;
                say!(env, "host-{}      {} attempt {attempt} runs from {}", self.index, short(job), process.count);
                let exclusive = process.exclusive;
                checkers::process_runs(job, attempt, self.index, exclusive, env);
                self.plan_end(key, env);
                self.watch_deadline(key, clock, env);
                vec![FromShim::Started]
            }
            HostEvent::Ends { plan } if plan == process.plan => {
                let code = process.work.end_after(process.count).map_or(0, |(_, code)| code);
                self.over(key, &format!("exits with {code}"), env);
                env.checkers.exited(job, attempt, code);
                vec![FromShim::Exited(code), FromShim::Gone]
            }
            HostEvent::Ends { .. } => Vec::new(),
            HostEvent::Signal(15) if process.work.stubborn => Vec::new(),
            HostEvent::Signal(signal) => {
                self.over(key, &format!("is killed by signal {signal}"), env);
                env.checkers.killed(job, attempt);
                vec![FromShim::Signalled(signal), FromShim::Gone]
            }
            HostEvent::Deadline => {
                if clock.micros(env.now) < process.deadline || env.is(Sabotage::ShimDeadlineIgnored) {
                    self.watch_deadline(key, clock, env);
                    return Vec::new();
                }
                self.over(key, "is killed by its shim: the lease was not renewed", env);
                env.checkers.killed(job, attempt);
                vec![FromShim::Signalled(9), FromShim::Gone]
            }
            HostEvent::Orphaned => {
                self.over(key, "is killed by its shim: the executor is gone", env);
                env.checkers.killed(job, attempt);
                Vec::new()
            }
        }
    }

    fn over(&mut self, key: (JobId, Attempt), how: &str, env: &mut Env) {
        if self.processes.remove(&key).is_some() {
            say!(env, "host-{}      {} attempt {} {how}", self.index, short(key.0), key.1);
            checkers::process_stops(key.0, key.1, self.index, env);
        }
    }

    fn plan_end(&mut self, key: (JobId, Attempt), env: &mut Env) {
        let Some(process) = self.processes.get_mut(&key).filter(|process| !process.held) else { return };
        process.plan += 1;
        let plan = process.plan;
        if let Some((end, _)) = process.work.end_after(process.count) {
            let delay = (end - process.count) * TICK + MS;
            env.after(delay, self.event(key.0, key.1, HostEvent::Ends { plan }));
        }
    }

    fn watch_deadline(&self, key: (JobId, Attempt), clock: NodeClock, env: &mut Env) {
        let Some(process) = self.processes.get(&key) else { return };
        let delay = process.deadline.saturating_sub(clock.micros(env.now));
        env.after(delay.clamp(MS, 500 * MS), self.event(key.0, key.1, HostEvent::Deadline));
    }

    /// The executor's lease was renewed: shims may wait longer, those of exclusive attempts only if it is the one that
    /// they began under.
    pub fn extend(&mut self, ordinary: Micros, exclusive: Micros, lease: u64, env: &Env) {
        if self.frozen {
            return;
        }
        for process in self.processes.values_mut() {
            let until = match process.exclusive {
                false => ordinary,
                true if process.lease == Some(lease) || env.is(Sabotage::AnyLeaseWillDo) => exclusive,
                true => continue,
            };
            process.deadline = process.deadline.max(until);
        }
    }

    /// The executor is gone, and every shim hears its pipe close.
    pub fn orphan_all(&mut self, env: &mut Env) {
        for (job, attempt) in self.processes.keys().copied().collect::<Vec<_>>() {
            let delay = env.chance.between(MS, 30 * MS);
            env.after(delay, self.event(job, attempt, HostEvent::Orphaned));
        }
    }

    /// Everything ends with the host, and nobody is told.
    pub fn lose_all(&mut self, env: &mut Env) {
        for key in self.processes.keys().copied().collect::<Vec<_>>() {
            self.over(key, "is gone with its host", env);
            env.checkers.killed(key.0, key.1);
        }
        self.frozen = false;
    }

    /// Everything stands still.
    pub fn freeze(&mut self, env: &mut Env) {
        if self.frozen {
            return;
        }
        for (key, process) in &mut self.processes {
            if process.launched {
                if !process.held {
                    process.count += env.now.saturating_sub(process.since) / TICK;
                }
                process.plan += 1;
                checkers::process_stops(key.0, key.1, self.index, env);
            }
        }
        self.frozen = true;
    }

    /// Everything goes on: the shims first, whose clocks have not stood still. Returns what they have killed.
    pub fn thaw(&mut self, clock: NodeClock, env: &mut Env) -> Vec<(JobId, Attempt)> {
        let mut killed = Vec::new();
        if !self.frozen {
            return killed;
        }
        self.frozen = false;
        for key in self.processes.keys().copied().collect::<Vec<_>>() {
            let Some(process) = self.processes.get_mut(&key) else { continue };
            process.since = env.now;
            if !process.launched {
                continue;
            }
            let passed = clock.micros(env.now) >= process.deadline;
            if passed && !env.is(Sabotage::ShimDeadlineIgnored) {
                self.over(key, "is killed by its shim as the host wakes", env);
                env.checkers.killed(key.0, key.1);
                killed.push(key);
                continue;
            }
            let exclusive = process.exclusive;
            checkers::process_runs(key.0, key.1, self.index, exclusive, env);
            self.plan_end(key, env);
            self.watch_deadline(key, clock, env);
        }
        killed
    }
}
