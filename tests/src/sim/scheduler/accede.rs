//! The beginning of a term: carries out what `scheduler::leadership::accession` says, as `reign` does.

use super::append::Appending;
use super::{CALL_TIMEOUT, Call, Phase, SchedulerNode};
use crate::sim::env::{Env, MS, Reply, Request, Timer, say};
use crate::sim::etcd::{EtcdReply, EtcdRequest};
use crate::sim::log::{LogReply, LogRequest};
use crate::sim::sabotage::Sabotage;
use bytes::Bytes;
use outlive_scheduler::clock::TermClock;
use outlive_scheduler::leadership::accession::{Accession, LOST_AFTER, LogEnd, Next, barrier};
use outlive_schemas::event::TermStarted;
use outlive_schemas::id::Term;
use outlive_store::log::bridged::Inherited;
use outlive_store::log::{AppendError, Stored};
use outlive_store::witness::Witness;

impl SchedulerNode {
    pub(super) fn accede(&mut self, env: &mut Env) {
        say!(env, "{} has won term {}, at commit {}", self.name, self.term, self.follower.seq);
        self.phase = Phase::Acceding { witness: None, accession: None, draining: false, appending: None };
        env.timer(self.node(), self.run, 0, Timer::Herald);
        self.ask(env, Call::Witness, EtcdRequest::ReadWitness);
    }

    pub(super) fn witness_read(&mut self, reply: Reply, env: &mut Env) {
        let ignored = self.is(Sabotage::WitnessIgnored, env);
        let Phase::Acceding { witness, .. } = &mut self.phase else { return };
        match reply {
            Reply::Etcd(EtcdReply::Witness(body)) => {
                let read = body.map(|body| Witness::decode(&body)).transpose();
                match read {
                    Ok(read) => *witness = Some(read.filter(|_| !ignored)),
                    Err(error) => return self.refuse(error.to_string(), env),
                }
                self.ask(env, Call::Inherited, EtcdRequest::ReadBridge);
            }
            // As in the real one, a term in which etcd cannot be read is given up.
            _ => self.lose("the witness cannot be read", env),
        }
    }

    pub(super) fn inherited_read(&mut self, reply: Reply, env: &mut Env) {
        let (term, forgotten) = (self.term, self.is(Sabotage::BridgeNotDrained, env));
        let Phase::Acceding { witness, accession, .. } = &mut self.phase else { return };
        match reply {
            Reply::Etcd(EtcdReply::BridgeRead(commits)) => {
                let commits = if forgotten { Vec::new() } else { commits };
                *accession = Some(Accession::new(term, witness.flatten(), Inherited::new(commits)));
                self.poll(env);
            }
            _ => self.lose("the bridge cannot be read", env),
        }
    }

    /// The log must hold this much, or it has lost something.
    fn must_hold(&mut self, witness: Witness, env: &mut Env) {
        let call = env.ask(self.node(), self.run, CALL_TIMEOUT, Request::Log(LogRequest::Extent));
        self.calls.insert(call, Call::Extent(witness));
    }

    pub(super) fn accession_again(&mut self, env: &mut Env) {
        match &self.phase {
            Phase::Acceding { appending: Some(_), .. } => self.publish(env),
            _ => self.poll(env),
        }
    }

    fn log_end(&self) -> LogEnd {
        let term = self.follower.state.term.as_ref().map(|(term, _)| term.term);
        LogEnd { seq: self.follower.seq, chain: self.follower.chain, term }
    }

    /// A replica has no more.
    pub(super) fn caught_up(&mut self, answered: bool, env: &mut Env) {
        let end = self.log_end();
        // An answer to an earlier question may come before etcd's.
        let Phase::Acceding { accession: Some(accession), appending: None, .. } = &mut self.phase else { return };
        if !answered {
            return self.out_of_reach(env);
        }
        match accession.next(end, |seq| self.follower.chain_at(seq)) {
            Err(lost) => self.refuse(lost.to_string(), env),
            Ok(Next::Drain(commit)) => {
                say!(env, "{} drains commit {} from the bridge", self.name, commit.seq);
                self.append_next(commit.body, true, env);
            }
            Ok(Next::MustHold(witness)) => self.must_hold(witness, env),
            Ok(Next::Barrier) => self.append_barrier(env),
            Ok(Next::Outdone(seen)) => self.ask(env, Call::Outdone(seen), EtcdRequest::ReadLeader),
            Ok(Next::GiveUp) => self.out_of_reach(env),
        }
    }

    /// Deposed since it was elected; or etcd has gone back in time, which etcd itself can tell.
    pub(super) fn outdone(&mut self, seen: Term, reply: Reply, env: &mut Env) {
        let Phase::Acceding { .. } = self.phase else { return };
        match reply {
            Reply::Etcd(EtcdReply::Leader(Some(key))) if key.term == self.term => {
                self.refuse(format!("term {} was won, but the log has seen term {seen}", self.term), env);
            }
            Reply::Etcd(EtcdReply::Leader(_)) => self.lose("a later leader's barrier is in the log", env),
            _ => self.lose("etcd cannot be asked who leads", env),
        }
    }

    /// A replica may be behind, so a log that seems to end before the witness is settled by its own extent.
    pub(super) fn extent_read(&mut self, witness: Witness, reply: Reply, env: &mut Env) {
        let now = self.wall(env);
        let Phase::Acceding { accession: Some(accession), .. } = &mut self.phase else { return };
        let Reply::Log(LogReply::Extent(last)) = reply else { return self.out_of_reach(env) };
        let mut said = accession.ends_at(last, witness, now);
        if env.is(Sabotage::LostAtOnce) {
            said = said.and_then(|()| accession.ends_at(last, witness, now + LOST_AFTER));
        }
        match said {
            Ok(()) => env.timer(self.node(), self.run, 20 * MS, Timer::Retry),
            Err(lost) => self.refuse(lost.to_string(), env),
        }
    }

    fn append_barrier(&mut self, env: &mut Env) {
        let at = TermClock::new(self.wall(env), self.follower.state.newest_event_at).at(self.wall(env));
        let started = TermStarted {
            term: self.term,
            scheduler: self.name.clone(),
            zone: self.zone.clone(),
            version: "0.0.0".into(),
        };
        let sealed = barrier(&env.log_key, started, at, self.log_end()).expect("a barrier is small");
        if self.is(Sabotage::NoBarrier, env) {
            return self.lead(env);
        }
        self.append_next(sealed.body, false, env);
    }

    /// Appends this right after what was read.
    fn append_next(&mut self, body: Bytes, from_bridge: bool, env: &mut Env) {
        if let Phase::Acceding { appending, draining, .. } = &mut self.phase {
            (*appending, *draining) = (Some(Appending::new(self.follower.seq, body)), from_bridge);
        }
        self.publish(env);
    }

    pub(super) fn barrier_appended(&mut self, result: Result<(), AppendError>, env: &mut Env) {
        let Phase::Acceding { appending, draining, .. } = &mut self.phase else { return };
        let draining = *draining;
        let Some(Appending { expected, body, .. }) = appending.take() else { return };
        match result {
            Ok(()) => {
                let stored = Stored { seq: expected.next(), body };
                match self.follower.apply(&stored) {
                    Ok(()) if draining => self.poll(env),
                    Ok(()) => self.lead(env),
                    Err(why) => self.refuse(why, env),
                }
            }
            // A commit of an earlier leader has landed since; it is read, and then it is our turn again.
            Err(AppendError::Conflict { .. }) => self.poll(env),
            Err(error) => self.refuse(error.to_string(), env),
        }
    }
}
