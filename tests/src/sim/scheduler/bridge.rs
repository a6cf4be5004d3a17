//! The log of one term, as `store::log::bridged` runs it: the real machine, whose outputs go to the stream and to etcd.

use super::append::Appending;
use super::{Call, Phase, SchedulerNode};
use crate::sim::env::{Env, MS, Reply};
use crate::sim::etcd::{EtcdReply, EtcdRequest};
use crate::sim::sabotage::Sabotage;
use outlive_scheduler::leader;
use outlive_schemas::id::Sequence;
use outlive_schemas::time::Timestamp;
use outlive_store::bridge::BridgeError;
use outlive_store::log::bridged::{Input, Output};

impl SchedulerNode {
    fn machine_time(&self, env: &Env) -> Timestamp {
        Timestamp(self.micros(env) / MS)
    }

    pub(super) fn bridging_input(&mut self, input: Input, env: &mut Env) {
        let now = self.machine_time(env);
        let Phase::Leading(leading) = &mut self.phase else { return };
        let mut out = Vec::new();
        leading.bridging.input(input, now, &mut out);
        self.perform_bridging(out, env);
    }

    pub(super) fn bridging_tick(&mut self, env: &mut Env) {
        let now = self.machine_time(env);
        let Phase::Leading(leading) = &mut self.phase else { return };
        if leading.bridging.wake_at().is_some_and(|at| at <= now) {
            let mut out = Vec::new();
            leading.bridging.tick(now, &mut out);
            self.perform_bridging(out, env);
        }
    }

    fn perform_bridging(&mut self, out: Vec<Output>, env: &mut Env) {
        for output in out {
            let term = self.term;
            match output {
                Output::ToStream(commit) => {
                    if let Phase::Leading(leading) = &mut self.phase {
                        leading.appending = Some(Appending::new(Sequence(commit.seq.0 - 1), commit.body));
                        self.publish(env);
                    }
                }
                Output::ToBridge(commit) => {
                    let at = commit.seq;
                    self.ask(env, Call::Bridge(at), EtcdRequest::Bridge { term, commit });
                    if env.is(Sabotage::BridgeAckedEarly) {
                        self.bridging_input(Input::Bridged { at, result: Ok(()) }, env);
                    }
                }
                Output::FromBridge(at) => self.ask(env, Call::Revoke, EtcdRequest::Unbridge { term, at }),
                Output::Appended { result, .. } => self.lead_input(leader::Input::Appended(result), env),
                Output::Over(error) => {
                    self.lead_input(leader::Input::Appended(Err(error)), env);
                    if let Phase::Leading(_) = self.phase {
                        self.lose("the stream refused what the bridge holds", env);
                    }
                }
            }
        }
    }

    pub(super) fn bridge_answered(&mut self, at: Sequence, reply: Reply, env: &mut Env) {
        if env.is(Sabotage::BridgeAckedEarly) {
            return;
        }
        let result = match reply {
            Reply::Etcd(EtcdReply::Bridged(result)) => result,
            _ => Err(BridgeError::Unavailable { reason: "no answer".into() }),
        };
        self.bridging_input(Input::Bridged { at, result }, env);
    }
}
