//! Leading: feeds the real machine and performs what it says, as `scheduler::leadership::reign` does.

use super::append::Appending;
use super::misread::misread;
use super::{CALL_TIMEOUT, Call, LEASE_TTL, Phase, SchedulerNode};
use crate::sim::checkers;
use crate::sim::client::Said;
use crate::sim::env::{Env, MS, Micros, Node, Reply, Request, Timer, say};
use crate::sim::etcd::{EtcdReply, EtcdRequest};
use crate::sim::network::{Message, NatsReply};
use crate::sim::sabotage::Sabotage;
use outlive_scheduler::clock::{Ids, TermClock};
use outlive_scheduler::config::WitnessMode;
use outlive_scheduler::journal::Journal;
use outlive_scheduler::leader::{Identity, Input, Leader, Output, ReplyTo, Resignation};
use outlive_scheduler::watch::Probed;
use outlive_schemas::codec::Format;
use outlive_schemas::error::ErrorCode;
use outlive_schemas::id::{ExecutorId, Sequence, Zone};
use outlive_schemas::message::ReportBatch;
use outlive_store::frame::FrameSealer;
use outlive_store::log::bridged::{self, Bridging};
use outlive_store::witness::Witness;
use std::collections::{BTreeMap, VecDeque};

pub const TURN_EVERY: Micros = 20 * MS;
const PROBE_TIMEOUT: Micros = 400 * MS;

/// Where an answer goes.
#[derive(Clone, Copy, Debug)]
struct Address {
    node: Node,
    call: u64,
}

pub struct Leading {
    pub leader: Leader,
    pub bridging: Bridging,
    /// What is on its way to the stream.
    pub appending: Option<Appending>,
    /// Requests that wait for room.
    waiting: VecDeque<Input>,
    open: BTreeMap<u64, Address>,
    next_open: u64,
}

impl SchedulerNode {
    pub(super) fn lead(&mut self, env: &mut Env) {
        self.term_clock = Some(TermClock::new(self.wall(env), self.follower.state.newest_event_at));
        let now = self.term_time(env);
        let follower = &self.follower;
        let sealer = FrameSealer::new(&env.log_key);
        let mut state = follower.state.clone();
        misread(&mut state, env.sabotage);
        let journal = Journal::new(state, sealer, self.term, follower.seq, follower.chain);
        let identity = Identity { scheduler: self.name.clone(), zone: self.zone.clone(), term: self.term };
        let ids = Ids::new(env.chance.below(u64::MAX));
        let mode = if env.checkers.every_commit { WitnessMode::EveryCommit } else { WitnessMode::Interval };
        let leader = Leader::new(identity, journal, ids, now, mode);
        say!(env, "{} leads in term {} from commit {}", self.name, self.term, follower.seq);
        let bridging = match env.bridged {
            true => Bridging::after_barrier(follower.seq),
            false => Bridging::stream_alone(follower.seq),
        };
        let drained: Vec<Sequence> = match &self.phase {
            Phase::Acceding { accession: Some(accession), .. } => accession.drained().collect(),
            _ => Vec::new(),
        };
        env.net.serving.insert(self.node());
        env.checkers.leads(self.term, follower.seq, follower.chain);
        self.phase = Phase::Leading(Box::new(Leading {
            leader,
            bridging,
            appending: None,
            waiting: VecDeque::new(),
            open: BTreeMap::new(),
            next_open: 0,
        }));
        let term = self.term;
        for at in drained {
            self.ask(env, Call::Revoke, EtcdRequest::Unbridge { term, at });
        }
        env.timer(self.node(), self.run, 0, Timer::Turn);
    }

    pub(super) fn lead_message(&mut self, message: Message, env: &mut Env) {
        let Phase::Leading(leading) = &mut self.phase else { return };
        match message {
            Message::Heartbeat(beat) => {
                env.checkers.heard(self.index, beat.executor, env.now);
                self.lead_input(Input::Beat(beat), env);
            }
            Message::Reports { mut batch, from, call } => {
                if env.is(Sabotage::StaleReportAccepted) {
                    take_for_newest(&mut batch, &leading.leader);
                }
                let to = leading.to(from, call);
                leading.waiting.push_back(Input::Reports { batch, to });
                self.admit(env);
            }
            Message::Asked { request, call } => {
                let to = leading.to(Node::Client, call);
                leading.waiting.push_back(Input::Request { request, to });
                self.admit(env);
            }
            _ => {}
        }
    }

    /// Takes in what waits, while there is room.
    fn admit(&mut self, env: &mut Env) {
        while let Phase::Leading(leading) = &mut self.phase
            && leading.leader.has_room()
            && let Some(input) = leading.waiting.pop_front()
        {
            self.lead_input(input, env);
        }
    }

    pub(super) fn lead_input(&mut self, input: Input, env: &mut Env) {
        let now = self.term_time(env);
        let Phase::Leading(leading) = &mut self.phase else { return };
        let mut out = Vec::new();
        leading.leader.input(input, now, &mut out);
        self.finish_turn(out, env);
    }

    pub(super) fn turn(&mut self, env: &mut Env) {
        self.admit(env);
        self.bridging_tick(env);
        if let Phase::Leading(_) = self.phase {
            self.finish_turn(Vec::new(), env);
        }
    }

    fn finish_turn(&mut self, mut out: Vec<Output>, env: &mut Env) {
        let now = self.term_time(env);
        let Phase::Leading(leading) = &mut self.phase else { return };
        leading.leader.turn(now, &mut out);
        checkers::judged(self.index, &leading.leader, env);
        // Asked as late as possible: what is said below is said by a leader.
        if self.lease_age(env) >= LEASE_TTL * 6 / 10 {
            return self.lose("the lease was not renewed in time", env);
        }
        for output in out {
            if !self.perform(output, env) {
                return;
            }
        }
    }

    /// `false` once it does not lead any more.
    fn perform(&mut self, output: Output, env: &mut Env) -> bool {
        let (node, run) = (self.node(), self.run);
        let now = self.term_time(env);
        let Phase::Leading(leading) = &mut self.phase else { return false };
        match output {
            Output::Append(append) => {
                checkers::proposed(&leading.leader, env);
                let input = bridged::Input::Append { expected: append.expected, body: append.body };
                if env.is(Sabotage::AnswerBeforeDurable) {
                    let mut out = Vec::new();
                    leading.leader.input(Input::Appended(Ok(())), now, &mut out);
                    self.bridging_input(input, env);
                    self.finish_turn(out, env);
                    return matches!(self.phase, Phase::Leading(_));
                }
                self.bridging_input(input, env);
                return matches!(self.phase, Phase::Leading(_));
            }
            Output::Answer { to, answer } => {
                if let Some(address) = leading.open.remove(&to.number) {
                    let said = Said::of(answer);
                    checkers::answered(&said, env);
                    env.reply(node, address.node, address.call, NatsReply::Answer(Box::new(said)));
                }
            }
            Output::ReportReply { to, reply } => {
                if let Some(address) = leading.open.remove(&to.number) {
                    env.reply(node, address.node, address.call, NatsReply::Reports(reply));
                }
            }
            Output::Order { executor, order } => {
                checkers::ordered(executor, &order, env);
                if let Some(to) = env.checkers.executor_node(executor) {
                    env.send(node, to, Message::Order(executor, order));
                }
            }
            Output::Beat(beat) => self.broadcast(Message::LeaderBeat(beat), env),
            Output::Probe(executor) => {
                // Nobody knows where one is that never was here.
                let to: Vec<Node> = env.checkers.executor_node(executor).into_iter().collect();
                let of = Some(executor);
                let call = env.request(node, run, PROBE_TIMEOUT, &to, |call| Message::Probe { of, from: node, call });
                self.calls.insert(call, Call::ProbeExecutor(executor));
            }
            Output::ProbeZone(zone) => {
                // Schedulers are numbered as their zones are.
                let to: Vec<Node> = ["a", "b", "c"]
                    .iter()
                    .position(|name| *name == zone.as_str())
                    .map(Node::Scheduler)
                    .into_iter()
                    .collect();
                let call = env.request(node, run, PROBE_TIMEOUT, &to, |call| Message::ZoneProbe { from: node, call });
                self.calls.insert(call, Call::ProbeZone(zone));
            }
            Output::ReadRegistry => {
                let call = env.ask(node, run, CALL_TIMEOUT, Request::Etcd(EtcdRequest::List));
                self.calls.insert(call, Call::Registry);
            }
            Output::Witness(witness) => {
                let request = EtcdRequest::WriteWitness { term: self.term, body: witness.encode() };
                self.ask(env, Call::WriteWitness(witness), request);
            }
            Output::Committed(committed) => {
                let chain = leading.leader.last_witness().chain;
                checkers::acknowledged(committed.seq, chain, env);
            }
            Output::Erase { to, job, .. } => {
                let gone = !env.blobs.closed;
                if gone {
                    env.blobs.delete_all(job);
                }
                if let Some(address) = to.and_then(|to| leading.open.remove(&to.number)) {
                    let said = if gone { Said::Deleted } else { Said::Rejected(ErrorCode::Unavailable) };
                    env.reply(node, address.node, address.call, NatsReply::Answer(Box::new(said)));
                }
                self.lead_input(Input::Erased { job, gone }, env);
                return matches!(self.phase, Phase::Leading(_));
            }
            Output::Resign(why) => {
                match why {
                    Resignation::Deposed => self.lose("deposed", env),
                    Resignation::LostCommits { seen, .. } => self.refuse_lost(seen, why.to_string(), env),
                    why => self.refuse(why.to_string(), env),
                }
                return false;
            }
            Output::Feed { .. } | Output::Lookup { .. } | Output::Span(_) => {}
        }
        true
    }

    pub(super) fn executor_probed(&mut self, executor: ExecutorId, reply: Reply, env: &mut Env) {
        let found = match reply {
            Reply::Nats(NatsReply::Here) => {
                env.checkers.heard(self.index, executor, env.now);
                Probed::Here
            }
            Reply::Nats(NatsReply::NoResponders) => Probed::NobodyThere,
            _ if self.is(Sabotage::TimeoutTakenForAbsence, env) => Probed::NobodyThere,
            _ => Probed::Silent,
        };
        self.lead_input(Input::Probed { executor, found }, env);
    }

    pub(super) fn zone_probed(&mut self, zone: Zone, reply: Reply, env: &mut Env) {
        let found = match reply {
            Reply::Nats(NatsReply::Here) => Probed::Here,
            Reply::Nats(NatsReply::NoResponders) => Probed::NobodyThere,
            _ => Probed::Silent,
        };
        self.lead_input(Input::ZoneProbed { zone, found }, env);
    }

    pub(super) fn registry_read(&mut self, reply: Reply, env: &mut Env) {
        if let Reply::Etcd(EtcdReply::List(mut present)) = reply {
            if self.is(Sabotage::LeasesOverlooked, env) {
                present.retain(|registration| env.checkers.was_heard(self.index, registration.id, env.now));
            }
            self.lead_input(Input::Registered(present), env);
        }
    }

    pub(super) fn witness_written(&mut self, witness: Witness, reply: Reply, env: &mut Env) {
        let input = match reply {
            Reply::Etcd(EtcdReply::Written) => Input::Witnessed(witness),
            _ => Input::NotWitnessed,
        };
        self.lead_input(input, env);
    }
}

/// See [`Sabotage::StaleReportAccepted`].
fn take_for_newest(batch: &mut ReportBatch, leader: &Leader) {
    for report in &mut batch.reports {
        if let Some(job) = leader.state().jobs.get(&report.job)
            && let Some(placed) = job.placement
        {
            report.attempt = job.attempt;
            batch.executor = placed.executor;
        }
    }
}

impl Leading {
    fn to(&mut self, node: Node, call: u64) -> ReplyTo {
        self.next_open += 1;
        self.open.insert(self.next_open, Address { node, call });
        ReplyTo { number: self.next_open, format: Format::MessagePack }
    }
}
