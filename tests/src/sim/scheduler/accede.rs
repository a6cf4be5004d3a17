//! The beginning of a term, as `scheduler::leadership::reign` does it: read to the log's end, hold it against the
//! witness, append the barrier.

use super::append::Appending;
use super::{CALL_TIMEOUT, Call, Phase, SchedulerNode};
use crate::sim::env::{Env, MS, Reply, Request, Timer, say};
use crate::sim::etcd::{EtcdReply, EtcdRequest};
use crate::sim::log::{LogReply, LogRequest};
use crate::sim::sabotage::Sabotage;
use outlive_scheduler::clock::TermClock;
use outlive_scheduler::journal::SHARD;
use outlive_schemas::event::{Envelope, Event, TermStarted};
use outlive_store::frame::{ChainHash, Place, seal_commit};
use outlive_store::log::bridged::{Inherited, Step};
use outlive_store::log::{AppendError, Stored};
use outlive_store::witness::{Witness, judge};

impl SchedulerNode {
    pub(super) fn accede(&mut self, env: &mut Env) {
        say!(env, "{} has won term {}, at commit {}", self.name, self.term, self.follower.seq);
        self.phase = Phase::Acceding { witness: None, inherited: None, draining: false, appending: None };
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
        let forgotten = self.is(Sabotage::BridgeNotDrained, env);
        let Phase::Acceding { inherited, .. } = &mut self.phase else { return };
        match reply {
            Reply::Etcd(EtcdReply::BridgeRead(commits)) => {
                let commits = if forgotten { Vec::new() } else { commits };
                *inherited = Some(Inherited::new(commits));
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

    /// A replica has no more.
    pub(super) fn caught_up(&mut self, answered: bool, env: &mut Env) {
        // The witness is read first: an answer to an earlier question may come before it.
        let Phase::Acceding { witness: Some(witness), inherited: Some(inherited), appending: None, .. } = &self.phase
        else {
            return;
        };
        if !answered {
            return self.lose("the log is out of reach", env);
        }
        if let Some(seen) =
            self.follower.state.term.as_ref().map(|(term, _)| term.term).filter(|seen| *seen >= self.term)
        {
            // Deposed since it was elected; or etcd has gone back in time, which etcd itself can tell.
            if env.etcd.leader().is_some_and(|key| key.term == self.term) {
                return self.refuse(format!("term {} was won, but the log has seen term {seen}", self.term), env);
            }
            return self.lose("a later leader's barrier is in the log", env);
        }
        let witness = *witness;
        let end = (self.follower.seq, self.follower.chain);
        let chain_at = |seq| if seq == end.0 { Some(end.1) } else { self.follower.chain_at(seq) };
        match inherited.next(self.follower.seq, chain_at) {
            Step::Append(commit) => {
                say!(env, "{} drains commit {} from the bridge", self.name, commit.seq);
                if let Phase::Acceding { appending, draining, .. } = &mut self.phase {
                    *appending = Some(Appending::new(self.follower.seq, commit.body));
                    *draining = true;
                }
                return self.publish(env);
            }
            Step::ReadUpTo(seq) => return self.must_hold(Witness { seq, chain: ChainHash::default() }, env),
            Step::Lost(lost) => return self.refuse(lost.to_string(), env),
            Step::Done => {}
        }
        if let Some(witness) = witness.filter(|witness| witness.seq > self.follower.seq) {
            return self.must_hold(witness, env);
        }
        if let Err(lost) = judge(witness, self.follower.seq, |seq| self.follower.chain_at(seq)) {
            return self.refuse(lost.to_string(), env);
        }
        self.append_barrier(env);
    }

    /// A replica may be behind, so a log that seems to end before the witness is settled by its own extent.
    pub(super) fn extent_read(&mut self, witness: Witness, reply: Reply, env: &mut Env) {
        let Phase::Acceding { .. } = &self.phase else { return };
        match reply {
            Reply::Log(LogReply::Extent(last)) if last < witness.seq => {
                if let Err(lost) = judge(Some(witness), last, |seq| self.follower.chain_at(seq)) {
                    return self.refuse(lost.to_string(), env);
                }
            }
            Reply::Log(LogReply::Extent(_)) => {}
            _ => return self.lose("the log is out of reach", env),
        }
        env.timer(self.node(), self.run, 20 * MS, Timer::Retry);
    }

    fn append_barrier(&mut self, env: &mut Env) {
        let barrier = Envelope {
            at: TermClock::new(self.wall(env), self.follower.state.newest_event_at).at(self.wall(env)),
            by: None,
            event: Event::TermStarted(TermStarted {
                term: self.term,
                scheduler: self.name.clone(),
                zone: self.zone.clone(),
                version: "0.0.0".into(),
            }),
        };
        let place = Place { shard: SHARD, expected: self.follower.seq, term: self.term, previous: self.follower.chain };
        let sealed = seal_commit(&env.log_key, place, &[barrier]).expect("a barrier is small");
        if self.is(Sabotage::NoBarrier, env) {
            return self.lead(env);
        }
        if let Phase::Acceding { appending, draining, .. } = &mut self.phase {
            *appending = Some(Appending::new(self.follower.seq, sealed.body));
            *draining = false;
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
