//! A log that loses acknowledged commits: that whoever can know says so, and that all goes well once an operator has
//! given them up.

use super::World;
use crate::sim::checkers::{self, LostTail};
use crate::sim::env::{LATE_MAX, Micros, Node, SECOND, say};
use crate::sim::executor::ExecutorNode;
use crate::sim::sabotage::Sabotage;
use crate::sim::{etcd, log};
use bytes::Bytes;
use outlive_scheduler::journal::SHARD;
use outlive_schemas::event::{Envelope, Event, LossAccepted};
use outlive_schemas::id::{Sequence, Term};
use outlive_store::frame::{Place, seal_commit};
use outlive_store::witness::Witness;

/// How long an executor stays out of reach after a loss has been accepted.
const AWAY: Micros = 30 * SECOND;

impl World {
    /// The log loses acknowledged commits. Whoever knows of them says so, loudly; nobody goes on as if nothing were.
    pub(super) fn break_log(&mut self) {
        let last = self.env.log.last();
        let most = if self.env.chance.coin() { 6 } else { 40 };
        let lost = self.env.chance.between(1, most).min(last.0.saturating_sub(1));
        // One that etcd hears and nobody else: it cannot tell, and goes on with what the lost commits gave it.
        let away = self.env.chance.coin().then(|| self.env.chance.below(self.executors.len() as u64) as usize);
        let alone = away.and_then(|_| self.executors.iter().filter_map(ExecutorNode::runs_alone).max());
        let away = alone.map(|(_, executor)| executor).or(away);
        // What placed its attempt is lost, or whatever is last.
        let first = alone.map_or(Sequence(last.0 - lost + 1), |(placed_at, _)| placed_at);
        let acknowledged = self.env.checkers.acknowledged;
        if lost == 0 || acknowledged < first {
            return;
        }
        let there = self.executors.iter().filter(|executor| Some(executor.index) != away);
        let seen: Vec<Sequence> = there.filter_map(ExecutorNode::told).map(|told| told.seq).collect();
        let newest_known = checkers::newest_known(&self.env, seen.into_iter());
        say!(self.env, "fault       the log loses commits {first} to {last}; known: {newest_known}, away: {away:?}");
        self.env.checkers.lost_tail = Some(LostTail { first, last, at: self.env.now });
        let lost = self.env.log.messages[first.0 as usize - 1..].to_vec();
        self.env.log.lose_tail(Sequence(first.0 - 1));
        let messages = self.env.log.messages.clone();
        let key = self.env.log_key.clone();
        self.env.checkers.lose_tail(&key, &messages);
        // The power cut that took it took every scheduler as well, or not.
        if self.env.chance.coin() {
            for i in 0..self.schedulers.len() {
                self.kill(Node::Scheduler(i));
            }
        }
        self.heal_but(away);
        // A log at rest tells nothing: it is written to. What runs alone is of no interest once its job is ended.
        self.client.reopen();
        self.client.only_submits = alone.is_some();
        let waits = self.env.chance.coin();
        for _ in 0..60 {
            // Some operators do not look for long.
            let is_said = !self.env.checkers.refusals.is_empty();
            if !self.go_on(SECOND, true) || (is_said && !waits) {
                break;
            }
        }
        if self.env.checkers.is_spoilt {
            return self.ends_spoilt();
        }
        // A copy that was still on its way may have put back what was lost, byte for byte, or some of it.
        let Some(first) = self.still_lost(first, &lost).filter(|first| *first <= newest_known) else { return };
        if self.env.checkers.violation.is_some() {
            return;
        }
        let leads = self.schedulers.iter().find(|scheduler| scheduler.is_leading()).map(|s| s.name.clone());
        if self.env.checkers.refusals.is_empty() {
            self.env.checkers.fail(format!("commits {first} to {last} are lost, and nobody has said so"));
        } else if let Some(name) = leads.filter(|_| waits) {
            self.env
                .checkers
                .fail(format!("commits {first} to {last} are lost, which somebody knows, and {name} leads"));
        } else {
            self.accept_loss(away);
        }
    }

    /// Nobody goes on from a log whose chain is broken, and no operator can give up what broke it: a backup is restored.
    fn ends_spoilt(&mut self) {
        for node in self.env.net.nodes() {
            self.start(node);
        }
        if self.go_on(10 * SECOND, false) && self.env.checkers.refusals.is_empty() {
            self.env.checkers.fail("the log's chain is broken, and nobody has said so".into());
        } else if let Some(leads) = self.schedulers.iter().find(|scheduler| scheduler.is_leading()) {
            let name = leads.name.clone();
            self.env.checkers.fail(format!("the log's chain is broken, and {name} leads"));
        }
    }

    /// The first of these commits that does not stand where it stood.
    fn still_lost(&self, first: Sequence, lost: &[Bytes]) -> Option<Sequence> {
        let mut at = (first.0..).map(Sequence).zip(lost);
        at.find(|(seq, body)| self.env.log.get(*seq) != Some(body)).map(|(seq, _)| seq)
    }

    /// Mends all but that one executor is out of reach, except for etcd.
    fn heal_but(&mut self, away: Option<usize>) {
        self.heal();
        if let Some(executor) = away {
            self.env.net.cut_from_nats(Node::Executor(executor));
        }
    }

    /// Whether nothing goes wrong for so long. What has stopped is started again, or is left as it is.
    fn go_on(&mut self, long: Micros, starts: bool) -> bool {
        let until = self.env.now + long;
        while self.env.now < until {
            if !self.step() {
                return false;
            }
        }
        if starts {
            for node in self.env.net.nodes() {
                self.start(node);
            }
        }
        true
    }

    /// An operator stops the schedulers and gives up what is lost, as `outlive log accept-loss` does it. From then on
    /// everything holds again, and comes to its end.
    fn accept_loss(&mut self, away: Option<usize>) {
        for i in 0..self.schedulers.len() {
            self.kill(Node::Scheduler(i));
        }
        // Nobody leads any more once the last leader's lease is over.
        while self.env.etcd.leader().is_some() {
            if !self.go_on(SECOND / 2, false) {
                return;
            }
        }
        // What they had sent lands first: once the log is as long again as it was, its place in it would be free.
        if !self.go_on(LATE_MAX, false) {
            return;
        }
        if self.env.checkers.is_spoilt {
            return self.ends_spoilt();
        }
        say!(self.env, "            an operator accepts the loss");
        let env = &mut self.env;
        env.etcd.begin_generation();
        if !env.is(Sabotage::LeasesOutliveTheLoss) {
            etcd::end_executors(env);
        }
        let (log_end, previous) = env.checkers.end();
        let truth = &env.checkers.truth;
        let term = truth.term.as_ref().map_or(Term(0), |(term, _)| term.term);
        let accepted = Event::LossAccepted(LossAccepted { log_end, witnessed: None });
        let accepted = Envelope { at: truth.newest_event_at, by: Some("operator".into()), event: accepted };
        let place = Place { shard: SHARD, expected: log_end, term, previous };
        let sealed = seal_commit(&env.log_key, place, &[accepted]).expect("it is small");
        env.etcd.put_witness(Witness { seq: log_end.next(), chain: sealed.chain });
        env.checkers.loss_is_accepted();
        log::put(env, sealed.body);
        self.heal_but(away);
        // Users go on for a while, so that what waits begins, and is not only ended.
        self.client.reopen();
        for _ in 0..AWAY / SECOND {
            if !self.go_on(SECOND, true) {
                return;
            }
        }
        self.heal();
        self.finish();
    }
}
