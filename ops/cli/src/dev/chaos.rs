//! What `outlive chaos` asks of a running `dev`, carried out.

use crate::dev::control::{Action, Done, Request};
use crate::dev::readiness;
use crate::dev::record::State;
use crate::dev::settings::Probe;
use crate::dev::supervisor::{KILL_BOUND, Supervisor, Waited, until_ended};
use crate::dev::topology::{Member, Role};
use outlive_schemas::error::{ErrorCode, Rejection};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// For a process that was started again to be of use.
const READY_BOUND: Duration = Duration::from_secs(60);
/// For one that is restarted to end politely.
const END_BOUND: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Errors: no such process or zone; a process that is dead and would have to be alive.
    pub(in crate::dev) async fn carry_out(&mut self, request: Request) -> Result<Vec<Done>, Rejection> {
        match request {
            Request::Kill { role, name } => {
                let member = self.member(role, &name)?;
                let killed = vec![self.signal(&member, Signal::KILL, Action::Killed)?];
                Ok(self.gone(killed).await)
            }
            Request::Pause { role, name } => {
                let member = self.member(role, &name)?;
                Ok(vec![self.signal(&member, Signal::STOP, Action::Paused)?])
            }
            Request::Resume { role, name } => {
                let member = self.member(role, &name)?;
                Ok(vec![self.signal(&member, Signal::CONT, Action::Resumed)?])
            }
            Request::Restart { role, name } => {
                let member = self.member(role, &name)?;
                self.restart(member).await
            }
            Request::KillZone { zone } => {
                let killed = self.kill_zone(&zone)?;
                Ok(self.gone(killed).await)
            }
            Request::Heal => self.heal().await,
        }
    }

    fn members(&self) -> Vec<Member> {
        self.fleet.processes().map(|process| process.member.clone()).collect()
    }

    /// By its whole name, or by what follows the role: `a` is `nats-a` where a nats is asked for.
    fn member(&self, role: Role, name: &str) -> Result<Member, Rejection> {
        let full = format!("{role}-{name}");
        let members = self.members();
        let found = members.iter().find(|m| m.role == role && (m.name == name || m.name == full));
        found.cloned().ok_or_else(|| {
            let names: Vec<&str> = members.iter().filter(|m| m.role == role).map(|m| m.name.as_str()).collect();
            Rejection::not_found(format!("{role} `{name}` here; there are {}", names.join(", ")))
        })
    }

    fn signal(&mut self, member: &Member, signal: Signal, action: Action) -> Result<Done, Rejection> {
        match self.fleet.signal(&member.name, signal) {
            Some(pid) => Ok(done(action, member, pid)),
            None => Err(Rejection::new(
                ErrorCode::InUse,
                format!("{0} is dead; start it with: outlive chaos restart {1} {0}", member.name, member.role),
            )),
        }
    }

    /// Everything in the zone that lives dies, as near to at once as signals go.
    fn kill_zone(&mut self, zone: &str) -> Result<Vec<Done>, Rejection> {
        let members: Vec<Member> = self.members().into_iter().filter(|member| member.zone == zone).collect();
        if members.is_empty() {
            let zones = self.record().zones.join(", ");
            return Err(Rejection::not_found(format!("zone `{zone}` here; there are {zones}")));
        }
        let killed = members.iter().filter_map(|member| self.signal(member, Signal::KILL, Action::Killed).ok());
        Ok(killed.collect())
    }

    /// Once they are dead, and the record says so.
    async fn gone(&mut self, killed: Vec<Done>) -> Vec<Done> {
        let names: Vec<String> = killed.iter().map(|done| done.name.clone()).collect();
        until_ended(&self.fleet, &names, KILL_BOUND).await;
        self.fleet.save_or_say();
        killed
    }

    async fn restart(&mut self, member: Member) -> Result<Vec<Done>, Rejection> {
        let mut all = Vec::new();
        if let Some(pid) = self.fleet.pid(&member.name) {
            self.end(std::slice::from_ref(&member.name), END_BOUND).await;
            all.push(done(Action::Stopped, &member, pid));
        }
        all.extend(self.start_members(vec![member]).await?);
        Ok(all)
    }

    /// Continues what is paused, and starts what is dead: servers first, for the others need them.
    async fn heal(&mut self) -> Result<Vec<Done>, Rejection> {
        let mut all = Vec::new();
        let (mut servers, mut others) = (Vec::new(), Vec::new());
        for member in self.members() {
            match self.fleet.state(&member.name) {
                Some(State::Paused) => all.extend(self.signal(&member, Signal::CONT, Action::Resumed)),
                Some(State::Dead) if matches!(member.role, Role::Nats | Role::Etcd) => servers.push(member),
                Some(State::Dead) => others.push(member),
                Some(State::Running) | None => {}
            }
        }
        for members in [servers, others] {
            all.extend(self.start_members(members).await?);
        }
        Ok(all)
    }

    /// Starts these together, and waits until each is of use or the bound is over.
    async fn start_members(&mut self, members: Vec<Member>) -> Result<Vec<Done>, Rejection> {
        let began = Instant::now();
        let mut started = Vec::new();
        for member in members {
            let pid = self
                .fleet
                .start(&member.name)
                .map_err(|error| Rejection::new(ErrorCode::Internal, format!("{error:#}")))?;
            started.push(done(Action::Started, &member, pid));
        }
        for one in &mut started {
            let Some(probe) = self.probe(&one.name) else { continue };
            let left = READY_BOUND.saturating_sub(began.elapsed());
            if let Waited::Done = self.wait(readiness::until_answering(probe), left).await {
                one.ready_after_ms = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            }
        }
        Ok(started)
    }

    fn probe(&self, name: &str) -> Option<Probe> {
        self.fleet.processes().find(|process| process.member.name == name).map(|process| process.probe)
    }
}

fn done(action: Action, member: &Member, pid: u32) -> Done {
    let Member { name, role, zone } = member;
    Done { action, name: name.clone(), role: *role, zone: (*zone).to_owned(), pid, ready_after_ms: None }
}
