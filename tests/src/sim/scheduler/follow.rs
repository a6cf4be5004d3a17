//! The log → state, commit by commit, by the real opener and the real fold.

use super::{CALL_TIMEOUT, Call, Phase, SchedulerNode};
use crate::sim::env::{Env, Reply, Request};
use crate::sim::log::{LogReply, LogRequest};
use outlive_core::fold::fold;
use outlive_core::state::State;
use outlive_schemas::codec;
use outlive_schemas::id::Sequence;
use outlive_store::frame::{ChainHash, FrameOpener};
use outlive_store::log::Stored;
use outlive_store::seal::Key;
use std::collections::BTreeMap;

pub struct Follower {
    opener: FrameOpener,
    pub state: State,
    pub seq: Sequence,
    pub chain: ChainHash,
    chains: BTreeMap<Sequence, ChainHash>,
}

impl Follower {
    pub fn new(key: &Key) -> Follower {
        Follower {
            opener: FrameOpener::new([key]),
            state: State::default(),
            seq: Sequence(0),
            chain: ChainHash::START,
            chains: BTreeMap::new(),
        }
    }

    /// At the log's beginning, or at an image.
    pub fn begin(env: &mut Env) -> Follower {
        let mut follower = Follower::new(&env.log_key);
        if env.chance.coin()
            && let Some((seq, chain, image)) = env.checkers.image()
            // Images are made of what the stream holds.
            && seq <= env.log.last()
        {
            let mut state: State = codec::unpack("an image", image).expect("an image that was just made");
            state.rebuild_index();
            (follower.state, follower.seq, follower.chain) = (state, seq, chain);
        }
        follower
    }

    pub fn chain_at(&self, seq: Sequence) -> Option<ChainHash> {
        self.chains.get(&seq).copied()
    }

    /// Takes in the commit that follows.
    pub fn apply(&mut self, stored: &Stored) -> Result<(), String> {
        let commit = self.opener.open(&stored.body, self.seq, self.chain).map_err(|error| error.to_string())?;
        for envelope in &commit.events {
            fold(&mut self.state, stored.seq, envelope).map_err(|error| error.to_string())?;
        }
        (self.seq, self.chain) = (stored.seq, commit.chain);
        self.chains.insert(self.seq, self.chain);
        Ok(())
    }
}

impl SchedulerNode {
    pub(super) fn tail(&mut self, stored: Stored, env: &mut Env) {
        if !self.is_reading() {
            return;
        }
        if stored.seq == self.follower.seq.next() {
            self.take(&[stored], env);
        } else if stored.seq > self.follower.seq {
            self.poll(env);
        }
    }

    /// A leader's state goes its own way until it leads no more; its follower waits, from its barrier on.
    fn is_reading(&self) -> bool {
        matches!(self.phase, Phase::Following { .. } | Phase::Campaigning | Phase::Acceding { appending: None, .. })
    }

    pub(super) fn poll(&mut self, env: &mut Env) {
        if self.polling || !self.is_reading() {
            return;
        }
        self.polling = true;
        let read = LogRequest::Read { from: self.follower.seq.next() };
        let call = env.ask(self.node(), self.run, CALL_TIMEOUT, Request::Log(read));
        self.calls.insert(call, Call::Poll);
    }

    pub(super) fn polled(&mut self, reply: Reply, env: &mut Env) {
        self.polling = false;
        let found = match reply {
            Reply::Log(LogReply::Messages(found)) => Some(found),
            _ => None,
        };
        if !self.is_reading() {
            return;
        }
        let some = found.as_ref().is_some_and(|found| !found.is_empty());
        if let Some(found) = &found
            && !self.take(found, env)
        {
            return;
        }
        if some {
            self.poll(env);
        } else if let Phase::Acceding { .. } = self.phase {
            self.caught_up(found.is_some(), env);
        }
    }

    /// Folds what follows, and stops loudly where it does not fit.
    fn take(&mut self, found: &[Stored], env: &mut Env) -> bool {
        for stored in found {
            if stored.seq != self.follower.seq.next() {
                continue;
            }
            if let Err(why) = self.follower.apply(stored) {
                self.refuse(why, env);
                return false;
            }
        }
        true
    }
}
