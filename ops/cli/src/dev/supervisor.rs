//! Starts everything in order, watches over it, does what `outlive chaos` asks, and stops everything in order.
//!
//! One loop; each of its turns deals with one thing that happened.

use crate::dev::Told;
use crate::dev::control::{self, Asked};
use crate::dev::directory::Directory;
use crate::dev::fleet::Fleet;
use crate::dev::ports::Ports;
use crate::dev::process::{Exited, log_tail};
use crate::dev::programs::Programs;
use crate::dev::readiness;
use crate::dev::record::{Record, State};
use crate::dev::settings::{self, Probe, Process};
use crate::dev::topology::{Role, Topology};
use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// For NATS and etcd to form their clusters; several seconds each on a slow disk.
const SERVERS_START_BOUND: Duration = Duration::from_secs(90);
/// For schedulers to replay a long log and elect, and for executors to join.
const ROLES_START_BOUND: Duration = Duration::from_secs(180);
/// For executors and schedulers to hand over what they hold.
const ROLES_STOP_BOUND: Duration = Duration::from_secs(10);
/// For NATS and etcd to close their files. The last member of an etcd waits in vain for another to take the lead; all of
/// them stand a kill.
const SERVERS_STOP_BOUND: Duration = Duration::from_secs(2);
/// After SIGKILL, on a machine that is busy.
pub const KILL_BOUND: Duration = Duration::from_secs(10);
const LOG_CHECK_INTERVAL: Duration = Duration::from_secs(10);
const TAIL_LINES: usize = 15;
/// Every process may end at once, and does when everything stops.
const ENDED_QUEUE: usize = 2_048;
const ASKED_QUEUE: usize = 64;

pub enum Started {
    Ready,
    /// Nobody leads, for the log has lost what was acknowledged: that is for a person to decide. The servers are up,
    /// and this is done once somebody leads after all.
    Leaderless(BoxFuture<'static, ()>),
    /// We were told to stop before it was.
    Stopped,
}

/// What waiting for a start came to.
#[derive(Debug, PartialEq, Eq)]
enum Awaited {
    Done,
    LostCommits,
    Stop,
}

/// How a scheduler's log names the reason for not leading.
const LOST_COMMITS: &str = "log_lost_acknowledged_commits";

/// What a wait came to.
#[derive(Debug)]
pub enum Waited {
    Done,
    TooLong,
    Stop,
}

enum Input {
    Ended(Exited),
    Asked(Asked),
    CheckLogs,
    /// Somebody leads who did not at the start.
    Led,
    Stop,
}

#[derive(Debug)]
pub struct Supervisor {
    pub(in crate::dev) fleet: Fleet,
    ended: mpsc::Receiver<Exited>,
    asked: mpsc::Receiver<Asked>,
    asked_from: mpsc::Sender<Asked>,
    stops: mpsc::Receiver<()>,
    /// A stop came while something else was waited for.
    stopping: bool,
}

impl Supervisor {
    pub fn new(
        directory: Directory,
        topology: &Topology,
        ports: &Ports,
        programs: Programs,
        processes: Vec<Process>,
    ) -> anyhow::Result<Supervisor> {
        let record = Record {
            nats: settings::nats_urls(topology, ports, None),
            etcd: settings::etcd_endpoints(topology, ports, None),
            zones: topology.zones().iter().map(|zone| (*zone).to_owned()).collect(),
            processes: Vec::new(),
        };
        let (ended_from, ended) = mpsc::channel(ENDED_QUEUE);
        let (asked_from, asked) = mpsc::channel(ASKED_QUEUE);
        let fleet = Fleet::new(directory, programs.outlive, record, processes, ended_from);
        Ok(Supervisor { fleet, ended, asked, asked_from, stops: stop_signals()?, stopping: false })
    }

    pub fn record(&self) -> Record {
        self.fleet.record()
    }

    pub fn directory(&self) -> &Directory {
        self.fleet.directory()
    }

    /// Starts everything and waits until jobs can be run.
    ///
    /// Errors: a process that ends, or is not of use in time, with the end of its log. A scheduler that does not lead
    /// because the log has lost commits is none: it takes the servers to do something about it.
    pub async fn start(&mut self, told: &Told) -> anyhow::Result<Started> {
        self.fleet.save()?;
        told.step("nats-server and etcd");
        let servers = self.start_all(&[Role::Nats, Role::Etcd])?;
        if self.await_start(until_all(servers), SERVERS_START_BOUND, &[Role::Nats, Role::Etcd]).await? == Awaited::Stop
        {
            return Ok(Started::Stopped);
        }
        told.step("schedulers and executors");
        let roles = self.start_all(&[Role::Scheduler, Role::Executor])?;
        let urls = self.record().nats.join(",");
        let executors: BTreeSet<String> = self.names(&[Role::Executor]).into_iter().collect();
        let mut of_use = async move {
            until_all(roles).await;
            if let Ok(nats) = async_nats::connect(urls).await {
                readiness::until_led(&nats, &executors).await;
            }
        }
        .boxed();
        let awaited = self.await_start(&mut of_use, ROLES_START_BOUND, &[Role::Scheduler, Role::Executor]).await?;
        if awaited != Awaited::Stop {
            control::listen(&self.directory().control(), self.asked_from.clone())?;
        }
        Ok(match awaited {
            Awaited::Done => Started::Ready,
            Awaited::LostCommits => Started::Leaderless(of_use),
            Awaited::Stop => Started::Stopped,
        })
    }

    fn names(&self, roles: &[Role]) -> Vec<String> {
        let wanted = self.fleet.processes().filter(|process| roles.contains(&process.member.role));
        wanted.map(|process| process.member.name.clone()).collect()
    }

    fn start_all(&mut self, roles: &[Role]) -> anyhow::Result<Vec<Probe>> {
        for name in self.names(roles) {
            self.fleet.start(&name)?;
        }
        Ok(self.fleet.processes().filter(|p| roles.contains(&p.member.role)).map(|p| p.probe).collect())
    }

    async fn await_start(
        &mut self,
        of_use: impl Future<Output = ()>,
        bound: Duration,
        roles: &[Role],
    ) -> anyhow::Result<Awaited> {
        tokio::select! {
            biased;
            Some(()) = self.stops.recv() => Ok(Awaited::Stop),
            Some(exited) = self.ended.recv() => {
                if self.has_lost_commits(&exited.name) {
                    self.note_end(&exited);
                    return Ok(Awaited::LostCommits);
                }
                let tail = self.tail(&exited.name);
                bail!("{} ended while everything was starting ({}). The end of its log:\n{tail}", exited.name, exited.status)
            }
            () = of_use => Ok(Awaited::Done),
            () = tokio::time::sleep(bound) => bail!("{}", self.not_ready(bound, roles).await),
        }
    }

    async fn not_ready(&self, bound: Duration, roles: &[Role]) -> String {
        let mut text = format!("not ready after {} s", bound.as_secs());
        let mut silent = 0;
        for process in self.fleet.processes().filter(|p| roles.contains(&p.member.role)) {
            if !readiness::answers(process.probe).await {
                silent += 1;
                let name = &process.member.name;
                text += &format!("\n{name} does not answer. The end of its log:\n{}", self.tail(name));
            }
        }
        if silent == 0 {
            text += ": every process answers, but no leader says that all executors are ready";
            for name in self.names(&[Role::Scheduler]) {
                text += &format!("\nThe end of the log of {name}:\n{}", self.tail(&name));
            }
        }
        text
    }

    fn tail(&self, name: &str) -> String {
        let path = self.directory().log(name);
        format!("{}\n(all of it: {})", indented(&log_tail(&path, TAIL_LINES)), path.display())
    }

    /// Whether this scheduler ended because it will not lead a log that has lost what was acknowledged.
    fn has_lost_commits(&self, name: &str) -> bool {
        let is_scheduler = self.fleet.processes().any(|p| p.member.name == name && p.member.role == Role::Scheduler);
        is_scheduler && log_tail(&self.directory().log(name), TAIL_LINES).contains(LOST_COMMITS)
    }

    /// Until told to stop. Where nobody led at the start, says that everything is ready when it is.
    pub async fn supervise(&mut self, told: &Told, mut led: Option<BoxFuture<'static, ()>>) -> anyhow::Result<()> {
        let mut check_logs = tokio::time::interval(LOG_CHECK_INTERVAL);
        while !self.stopping {
            let input = tokio::select! {
                biased;
                Some(()) = self.stops.recv() => Input::Stop,
                Some(exited) = self.ended.recv() => Input::Ended(exited),
                Some(asked) = self.asked.recv() => Input::Asked(asked),
                _ = check_logs.tick() => Input::CheckLogs,
                () = async { led.as_mut().expect("checked").await }, if led.is_some() => Input::Led,
            };
            match input {
                Input::Ended(exited) => self.note_end(&exited),
                Input::Asked(Asked { request, answer }) => {
                    let reply = self.carry_out(request).await;
                    // Whoever asked may have left.
                    drop(answer.send(reply));
                }
                Input::CheckLogs => self.fleet.bound_logs(),
                Input::Led => {
                    led = None;
                    told.ready(self)?;
                }
                Input::Stop => self.stopping = true,
            }
        }
        Ok(())
    }

    fn note_end(&mut self, exited: &Exited) {
        self.fleet.save_or_say();
        let Exited { name, pid, status } = exited;
        if self.fleet.was_told_to_end(exited) {
            eprintln!("outlive dev: {name} (process {pid}) is dead, as was asked");
        } else if self.has_lost_commits(name) {
            let outlive = format!("outlive --config {}", self.directory().config().display());
            eprintln!(
                "outlive dev: {name} (process {pid}) does not lead and has ended: the log has lost commits that had \
                 been acknowledged. The servers stay up, and the data as it is. Either stop this and put the log back \
                 as it was, or go on without what is lost:\n    \
                 {outlive} log verify               says what is missing\n    \
                 {outlive} log accept-loss --yes    gives it up\n    \
                 {outlive} chaos heal               starts what is dead\n{}",
                self.tail(name)
            );
        } else {
            let role = self.fleet.processes().find(|p| p.member.name == *name).map(|p| p.member.role);
            let role = role.map(|role| format!("{role} ")).unwrap_or_default();
            eprintln!(
                "outlive dev: {name} (process {pid}) died: {status}. It stays dead until: outlive chaos restart \
                 {role}{name}\n{}",
                self.tail(name)
            );
        }
    }

    /// Waits for something while noting who ends.
    pub(in crate::dev) async fn wait(&mut self, awaited: impl Future<Output = ()>, bound: Duration) -> Waited {
        let deadline = Instant::now() + bound;
        let mut awaited = pin!(awaited);
        loop {
            tokio::select! {
                biased;
                Some(()) = self.stops.recv() => {
                    self.stopping = true;
                    return Waited::Stop;
                }
                Some(exited) = self.ended.recv() => self.note_end(&exited),
                () = &mut awaited => return Waited::Done,
                () = tokio::time::sleep_until(deadline) => return Waited::TooLong,
            }
        }
    }

    /// Stops everything: first those that hand over to others, then those they hand over through.
    pub async fn stop(&mut self) {
        drop(std::fs::remove_file(self.directory().control()));
        for (roles, bound) in [
            (&[Role::Executor][..], ROLES_STOP_BOUND),
            (&[Role::Scheduler], ROLES_STOP_BOUND),
            (&[Role::Etcd, Role::Nats], SERVERS_STOP_BOUND),
        ] {
            let killed = self.end(&self.names(roles), bound).await;
            for name in killed.iter().filter(|_| bound == ROLES_STOP_BOUND) {
                eprintln!("outlive dev: {name} did not end when asked to, and was killed");
            }
        }
        self.fleet.save_or_say();
    }

    /// Ends these processes: SIGTERM, and SIGKILL for those that do not end in time, which it names. A second Ctrl-C is
    /// impatience.
    pub(in crate::dev) async fn end(&mut self, names: &[String], bound: Duration) -> Vec<String> {
        for name in names {
            if self.fleet.state(name) == Some(State::Paused) {
                self.fleet.signal(name, Signal::CONT);
            }
            self.fleet.signal(name, Signal::TERM);
        }
        tokio::select! {
            biased;
            () = until_ended(&self.fleet, names, bound) => {}
            Some(()) = self.stops.recv() => {}
        }
        let killed = names.iter().filter(|name| self.fleet.signal(name, Signal::KILL).is_some()).cloned().collect();
        until_ended(&self.fleet, names, KILL_BOUND).await;
        killed
    }
}

pub async fn until_ended(fleet: &Fleet, names: &[String], bound: Duration) {
    let deadline = Instant::now() + bound;
    for child in names.iter().filter_map(|name| fleet.child(name)) {
        child.ends_within(deadline.saturating_duration_since(Instant::now())).await;
    }
}

async fn until_all(probes: Vec<Probe>) {
    for probe in probes {
        readiness::until_answering(probe).await;
    }
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("    {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Ctrl-C, a polite kill, and the end of the terminal, each as one message.
fn stop_signals() -> anyhow::Result<mpsc::Receiver<()>> {
    let (stop, stops) = mpsc::channel(8);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).context("asking to be told of signals")?;
        let stop = stop.clone();
        tokio::spawn(async move {
            // More than the queue holds say nothing new.
            while signals.recv().await.is_some()
                && !matches!(stop.try_send(()), Err(mpsc::error::TrySendError::Closed(())))
            {}
        });
    }
    Ok(stops)
}
