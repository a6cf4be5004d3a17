//! The shell around the scheduler's machines, as `scheduler::leadership` is the real one: follow, look whether the leader
//! is gone, campaign, accede, lead, and again. Decisions are the real code's; here are the messages and the timers.

mod accede;
mod append;
mod bridge;
mod follow;
mod lead;
mod misread;

use super::clock::NodeClock;
use super::env::{Env, Happening, MS, Micros, Node, Reply, Request, SECOND, Timer, say};
use super::etcd::{EtcdReply, EtcdRequest, LeaderKey};
use super::network::{Message, NatsReply};
use super::sabotage::Sabotage;
use append::Appending;
use follow::Follower;
use lead::Leading;
use outlive_scheduler::clock::TermClock;
use outlive_scheduler::leadership::accession::Accession;
use outlive_scheduler::leadership::suspicion::Suspicion;
use outlive_scheduler::watch::Probed;
use outlive_schemas::id::{ExecutorId, SchedulerName, Sequence, Term, Zone};
use outlive_schemas::message::LeaderBeat;
use outlive_schemas::time::Timestamp;
use outlive_store::witness::Witness;
use std::collections::BTreeMap;

pub const LEASE_TTL: Micros = 5 * SECOND;
const CALL_TIMEOUT: Micros = SECOND;
const PROBE_TIMEOUT: Micros = 300 * MS;
const LOOK_EVERY: Micros = 100 * MS;
const POLL_EVERY: Micros = SECOND;
const BEAT_EVERY: Micros = 250 * MS;
const RETRY_AFTER: Micros = 250 * MS;
/// As in `scheduler::leadership`: after a term in which the log was out of reach.
const LET_OTHERS_TRY: Micros = SECOND;

/// What a reply is for.
#[derive(Clone, Debug)]
enum Call {
    Poll,
    ReadLeader,
    Depose,
    ProbeLeader,
    Grant {
        sent: Micros,
    },
    Campaign {
        lease: Lease,
        nonce: u64,
    },
    SettleCampaign {
        lease: Lease,
        nonce: u64,
    },
    Renew {
        sent: Micros,
    },
    Witness,
    Extent(Witness),
    /// Of the append that follows this position; one that is settled already is not answered any more.
    Publish(Sequence),
    Standing(Sequence),
    StandingExtent(Sequence),
    ProbeExecutor(ExecutorId),
    ProbeZone(Zone),
    Registry,
    WriteWitness(Witness),
    LastWitness,
    /// And then it stops, for this reason.
    LastWord(String),
    Revoke,
    Inherited,
    /// Whether a term that the log has seen is a later leader's.
    Outdone(Term),
    Bridge(Sequence),
}

/// A lease that this scheduler renews, by its own clock.
#[derive(Clone, Copy, Debug)]
struct Lease {
    id: u64,
    renewed: Micros,
}

enum Phase {
    Following {
        suspicion: Option<(LeaderKey, Suspicion)>,
        probing: bool,
    },
    Campaigning,
    Acceding {
        /// Nothing until it has been read.
        witness: Option<Option<Witness>>,
        /// Once the bridge has been read as well.
        accession: Option<Accession>,
        /// Whether what is being appended comes from the bridge.
        draining: bool,
        appending: Option<Appending>,
    },
    Leading(Box<Leading>),
    /// It wrote its last witness, and goes.
    HandingOver,
}

pub struct SchedulerNode {
    pub index: usize,
    pub name: SchedulerName,
    pub zone: Zone,
    pub run: u32,
    pub up: bool,
    /// It stopped for good, loudly; somebody has to look.
    pub refused: Option<String>,
    pub clock: NodeClock,
    /// Of the term it begins or holds.
    term_clock: Option<TermClock>,
    follower: Follower,
    phase: Phase,
    lease: Option<Lease>,
    term: Term,
    calls: BTreeMap<u64, Call>,
    polling: bool,
    /// Before this it does not campaign.
    rests_until: Micros,
}

impl SchedulerNode {
    pub fn new(index: usize, zone: &str, env: &Env) -> SchedulerNode {
        SchedulerNode {
            index,
            name: SchedulerName::new(&format!("scheduler-{index}")).expect("a name"),
            zone: Zone::new(zone).expect("a zone"),
            run: 0,
            up: false,
            refused: None,
            clock: NodeClock::default(),
            term_clock: None,
            follower: Follower::new(&env.log_key),
            phase: Phase::Campaigning,
            lease: None,
            term: Term(0),
            calls: BTreeMap::new(),
            polling: false,
            rests_until: 0,
        }
    }

    pub fn node(&self) -> Node {
        Node::Scheduler(self.index)
    }

    fn wall(&self, env: &Env) -> Timestamp {
        self.clock.wall(env.now)
    }

    /// The time of the term that it begins or holds.
    fn term_time(&self, env: &Env) -> Timestamp {
        let host = self.wall(env);
        self.term_clock.map_or(host, |clock| clock.at(host))
    }

    fn micros(&self, env: &Env) -> Micros {
        self.clock.micros(env.now)
    }

    pub fn is_leading(&self) -> bool {
        self.up && matches!(self.phase, Phase::Leading(_))
    }

    pub fn leading(&self) -> Option<&outlive_scheduler::leader::Leader> {
        match &self.phase {
            Phase::Leading(leading) if self.up => Some(&leading.leader),
            _ => None,
        }
    }

    pub fn term(&self) -> Term {
        self.term
    }

    /// What it has folded of the log.
    pub fn state(&self) -> &outlive_core::state::State {
        &self.follower.state
    }

    // Coming and going.

    pub fn start(&mut self, env: &mut Env) {
        self.run += 1;
        self.up = true;
        self.refused = None;
        self.lease = None;
        self.calls.clear();
        self.follower = Follower::begin(env);
        say!(env, "{} starts, at commit {}", self.name, self.follower.seq);
        env.net.listen(self.node());
        self.follow(env);
        env.timer(self.node(), self.run, 0, Timer::Poll);
    }

    pub fn crash(&mut self, env: &mut Env) {
        say!(env, "{} is killed", self.name);
        self.down(env);
    }

    fn down(&mut self, env: &mut Env) {
        self.up = false;
        self.run += 1;
        self.calls.clear();
        self.polling = false;
        self.lease = None;
        self.phase = Phase::Campaigning;
        env.net.hang_up(self.node());
    }

    /// What it has learnt must not be forgotten with it.
    fn refuse_lost(&mut self, seen: Sequence, why: String, env: &mut Env) {
        let body = Witness::of_lost(seen).encode();
        let term = self.term;
        env.net.serving.remove(&self.node());
        self.phase = Phase::HandingOver;
        self.ask(env, Call::LastWord(why), EtcdRequest::WriteWitness { term, body });
    }

    fn refuse(&mut self, why: String, env: &mut Env) {
        say!(env, "{} STOPS: {why}", self.name);
        self.revoke_lease(env);
        env.checkers.refused(&why);
        self.down(env);
        self.refused = Some(why);
    }

    /// Told to stop: hands over in order.
    pub fn stop(&mut self, env: &mut Env) {
        if !self.up {
            return;
        }
        say!(env, "{} is told to stop", self.name);
        env.net.serving.remove(&self.node());
        if let Phase::Leading(leading) = &self.phase {
            let body = leading.leader.last_witness().encode();
            let term = self.term;
            self.phase = Phase::HandingOver;
            self.ask(env, Call::LastWitness, EtcdRequest::WriteWitness { term, body });
        } else {
            self.revoke_lease(env);
            self.down(env);
        }
    }

    fn revoke_lease(&mut self, env: &mut Env) {
        if let Some(lease) = self.lease.take() {
            self.ask(env, Call::Revoke, EtcdRequest::Revoke { lease: lease.id });
        }
    }

    fn ask(&mut self, env: &mut Env, call: Call, request: EtcdRequest) {
        let id = env.ask(self.node(), self.run, CALL_TIMEOUT, Request::Etcd(request));
        self.calls.insert(id, call);
    }

    // The life of a scheduler.

    fn follow(&mut self, env: &mut Env) {
        env.net.serving.remove(&self.node());
        self.calls.retain(|_, call| matches!(call, Call::Poll));
        self.phase = Phase::Following { suspicion: None, probing: false };
        self.term = Term(0);
        self.ask(env, Call::ReadLeader, EtcdRequest::ReadLeader);
        env.timer(self.node(), self.run, LOOK_EVERY, Timer::Look);
    }

    /// Gives up a term in which the log cannot be read, and leaves the next one to who may be nearer to it.
    fn out_of_reach(&mut self, env: &mut Env) {
        self.rests_until = env.now + LET_OTHERS_TRY;
        self.lose("the log is out of reach", env);
    }

    /// Gives a term up, or one that was not won, and follows again.
    fn lose(&mut self, why: &str, env: &mut Env) {
        say!(env, "{} gives up: {why}", self.name);
        self.revoke_lease(env);
        self.follow(env);
    }

    pub fn happens(&mut self, what: Happening, env: &mut Env) {
        match what {
            Happening::Message(message) => self.message(message, env),
            Happening::Reply { call, reply } => {
                if let Some(call) = self.calls.remove(&call) {
                    self.reply(call, reply, env);
                }
            }
            Happening::Timer(timer) => self.timer(timer, env),
            Happening::LeaderKeyGone(term) => self.key_gone(term, env),
            Happening::Shim(..) => {}
        }
    }

    fn message(&mut self, message: Message, env: &mut Env) {
        match message {
            Message::Tail(stored) => self.tail(stored, env),
            Message::Probe { from, call, .. } => {
                // Only who holds a term answers.
                if self.lease.is_some() {
                    env.reply(self.node(), from, call, NatsReply::Here);
                }
            }
            Message::ZoneProbe { from, call } => env.reply(self.node(), from, call, NatsReply::Here),
            Message::LeaderBeat(beat) => {
                let now = self.wall(env);
                if let Phase::Following { suspicion: Some((_, suspicion)), .. } = &mut self.phase {
                    suspicion.beat(beat.term, now);
                }
                if matches!(self.phase, Phase::Leading(_)) && beat.term == self.term {
                    self.lead_input(outlive_scheduler::leader::Input::OwnBeat, env);
                }
            }
            Message::Reply { call, reply } => {
                if let Some(call) = self.calls.remove(&call) {
                    self.reply(call, Reply::Nats(reply), env);
                }
            }
            message => self.lead_message(message, env),
        }
    }

    fn timer(&mut self, timer: Timer, env: &mut Env) {
        match timer {
            Timer::Poll => {
                self.poll(env);
                env.timer(self.node(), self.run, POLL_EVERY, Timer::Poll);
            }
            Timer::Look => self.look(env),
            Timer::Herald => {
                if let Phase::Acceding { .. } = self.phase {
                    self.say_beat(env);
                    env.timer(self.node(), self.run, BEAT_EVERY, Timer::Herald);
                }
            }
            Timer::Renew => self.renew(env),
            Timer::Retry => self.retry(env),
            Timer::Turn => {
                if matches!(self.phase, Phase::Leading(_)) {
                    self.turn(env);
                    env.timer(self.node(), self.run, lead::TURN_EVERY, Timer::Turn);
                }
            }
            Timer::Heartbeat | Timer::Wake | Timer::Work(..) | Timer::ClientStep => {}
        }
    }

    fn say_beat(&mut self, env: &mut Env) {
        let beat = LeaderBeat {
            term: self.term,
            scheduler: self.name.clone(),
            zone: self.zone.clone(),
            // As in the real one: it has committed nothing yet.
            seq: Sequence(0),
        };
        self.broadcast(Message::LeaderBeat(beat), env);
    }

    fn broadcast(&self, message: Message, env: &mut Env) {
        for node in env.net.nodes() {
            env.send(self.node(), node, message.clone());
        }
    }

    // Following.

    /// Looks whether the leader is gone.
    fn look(&mut self, env: &mut Env) {
        let now = self.wall(env);
        let Phase::Following { suspicion, probing } = &mut self.phase else { return };
        env.timer(Node::Scheduler(self.index), self.run, LOOK_EVERY, Timer::Look);
        let Some((key, suspicion)) = suspicion else { return };
        if *probing || !suspicion.is_probe_due(true, now) {
            return;
        }
        *probing = true;
        let to = Node::Scheduler(key.scheduler);
        let (from, run) = (self.node(), self.run);
        let call = env.request(from, run, PROBE_TIMEOUT, &[to], |call| Message::Probe { of: None, from, call });
        self.calls.insert(call, Call::ProbeLeader);
    }

    fn key_gone(&mut self, term: Term, env: &mut Env) {
        if let Phase::Following { suspicion: Some((key, _)), .. } = &self.phase
            && key.term == term
        {
            self.ask(env, Call::ReadLeader, EtcdRequest::ReadLeader);
        }
    }

    fn leader_read(&mut self, key: Option<LeaderKey>, env: &mut Env) {
        let now = self.wall(env);
        let Phase::Following { suspicion, .. } = &mut self.phase else { return };
        match key {
            None if env.now < self.rests_until => env.timer(self.node(), self.run, RETRY_AFTER, Timer::Retry),
            None => self.campaign(env),
            // Our own key from before a crash: nobody is behind it.
            Some(key) if key.scheduler == self.index => {
                self.ask(env, Call::Depose, EtcdRequest::Revoke { lease: key.lease })
            }
            Some(key) => {
                if suspicion.as_ref().is_none_or(|(known, _)| known.term != key.term) {
                    *suspicion = Some((key, Suspicion::new(key.term, now)));
                }
            }
        }
    }

    fn leader_probed(&mut self, found: Probed, env: &mut Env) {
        let now = self.wall(env);
        let Phase::Following { suspicion, probing } = &mut self.phase else { return };
        *probing = false;
        let Some((key, suspicion)) = suspicion else { return };
        if let Some(gone) = suspicion.probed(found, now) {
            let (lease, term) = (key.lease, key.term);
            say!(env, "{} deposes the leader of term {term}: {gone:?}", self.name);
            self.phase = Phase::Following { suspicion: None, probing: false };
            self.ask(env, Call::Depose, EtcdRequest::Revoke { lease });
        }
    }

    // Campaigning.

    fn campaign(&mut self, env: &mut Env) {
        self.phase = Phase::Campaigning;
        let sent = self.micros(env);
        self.ask(env, Call::Grant { sent }, EtcdRequest::Grant { ttl: LEASE_TTL });
    }

    fn won(&mut self, term: Term, lease: Lease, env: &mut Env) {
        self.term = term;
        self.lease = Some(lease);
        env.timer(self.node(), self.run, LEASE_TTL / 6, Timer::Renew);
        self.accede(env);
    }

    fn lease_age(&self, env: &Env) -> Micros {
        self.lease.map_or(Micros::MAX, |lease| self.micros(env).saturating_sub(lease.renewed))
    }

    fn renew(&mut self, env: &mut Env) {
        if let Some(lease) = self.lease {
            let sent = self.micros(env);
            self.ask(env, Call::Renew { sent }, EtcdRequest::Renew { lease: lease.id });
        }
    }

    fn renewed(&mut self, sent: Micros, reply: Reply, env: &mut Env) {
        let Some(lease) = &mut self.lease else { return };
        match reply {
            Reply::Etcd(EtcdReply::Renewed) => {
                lease.renewed = sent;
                env.timer(self.node(), self.run, LEASE_TTL / 6, Timer::Renew);
            }
            Reply::Etcd(EtcdReply::Gone) => {
                self.lease = None;
                self.lose("the lease ended", env);
            }
            _ if self.lease_age(env) >= LEASE_TTL => self.lose("the lease was not renewed in its time", env),
            _ => env.timer(self.node(), self.run, 100 * MS, Timer::Renew),
        }
    }

    fn reply(&mut self, call: Call, reply: Reply, env: &mut Env) {
        match (call, reply) {
            (Call::Poll, reply) => self.polled(reply, env),
            (Call::ReadLeader, Reply::Etcd(EtcdReply::Leader(key))) => self.leader_read(key, env),
            (Call::ReadLeader | Call::Depose, _) => {
                if let Phase::Following { .. } = self.phase {
                    env.timer(self.node(), self.run, RETRY_AFTER, Timer::Retry);
                }
            }
            (Call::ProbeLeader, reply) => {
                let found = match reply {
                    Reply::Nats(NatsReply::Here) => Probed::Here,
                    Reply::Nats(NatsReply::NoResponders) => Probed::NobodyThere,
                    _ => Probed::Silent,
                };
                self.leader_probed(found, env);
            }
            (Call::Grant { sent }, Reply::Etcd(EtcdReply::Granted(id))) => {
                let (scheduler, nonce) = (self.index, env.chance.below(u64::MAX));
                let lease = Lease { id, renewed: sent };
                self.ask(env, Call::Campaign { lease, nonce }, EtcdRequest::Campaign { lease: id, scheduler, nonce });
            }
            (Call::Grant { .. }, _) => self.follow(env),
            (Call::Campaign { lease, .. }, Reply::Etcd(EtcdReply::Won(term))) => self.won(term, lease, env),
            (Call::Campaign { lease, .. }, Reply::Etcd(EtcdReply::Held)) => {
                self.lease = Some(lease);
                self.lose("somebody else was elected", env);
            }
            (Call::Campaign { lease, nonce }, _) => {
                self.ask(env, Call::SettleCampaign { lease, nonce }, EtcdRequest::ReadLeader)
            }
            (Call::SettleCampaign { lease, nonce }, Reply::Etcd(EtcdReply::Leader(key))) => match key {
                Some(key) if key.nonce == nonce && key.lease == lease.id => self.won(key.term, lease, env),
                _ => {
                    // It may be on its way still, and be done for as long as the lease stands.
                    self.lease = Some(lease);
                    self.lose("the campaign came to nothing", env);
                }
            },
            (Call::SettleCampaign { .. }, _) => self.follow(env),
            (Call::Renew { sent }, reply) => self.renewed(sent, reply, env),
            (Call::Witness, reply) => self.witness_read(reply, env),
            (Call::Extent(witness), reply) => self.extent_read(witness, reply, env),
            (Call::Publish(after), reply) if self.appends_after(after) => self.published(reply, env),
            (Call::Standing(after), reply) if self.appends_after(after) => self.standing(reply, env),
            (Call::StandingExtent(after), reply) if self.appends_after(after) => self.standing_extent(reply, env),
            (Call::Publish(_) | Call::Standing(_) | Call::StandingExtent(_), _) => {}
            (Call::ProbeExecutor(executor), reply) => self.executor_probed(executor, reply, env),
            (Call::ProbeZone(zone), reply) => self.zone_probed(zone, reply, env),
            (Call::Registry, reply) => self.registry_read(reply, env),
            (Call::WriteWitness(witness), reply) => self.witness_written(witness, reply, env),
            (Call::LastWord(why), _) => self.refuse(why, env),
            (Call::LastWitness, _) => {
                self.revoke_lease(env);
                self.down(env);
            }
            (Call::Inherited, reply) => self.inherited_read(reply, env),
            (Call::Outdone(seen), reply) => self.outdone(seen, reply, env),
            (Call::Bridge(at), reply) => self.bridge_answered(at, reply, env),
            (Call::Revoke, _) => {}
        }
    }

    fn retry(&mut self, env: &mut Env) {
        match &self.phase {
            Phase::Following { .. } => self.ask(env, Call::ReadLeader, EtcdRequest::ReadLeader),
            Phase::Acceding { .. } => self.accession_again(env),
            Phase::Leading(_) => self.publish(env),
            Phase::Campaigning | Phase::HandingOver => {}
        }
    }

    fn is(&self, sabotage: Sabotage, env: &Env) -> bool {
        env.is(sabotage)
    }
}
