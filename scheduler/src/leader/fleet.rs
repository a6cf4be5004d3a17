//! What the leader makes of its fleet: who is lost, what is taken off whom, and what operators see of it.
//!
//! Verdicts are `detect`'s, orders to give back `evacuate`'s; here they become commands and messages.

use super::{Answer, Leader, Output};
use crate::{dispatch, placement, watch};
use outlive_core::detect::zone::{ZoneVerdict, zones};
use outlive_core::detect::{Verdict, detect};
use outlive_core::evacuate;
use outlive_schemas::command::Command;
use outlive_schemas::error::Rejection;
use outlive_schemas::event::Cause;
use outlive_schemas::id::{ExecutorRef, Zone};
use outlive_schemas::time::{Millis, Timestamp};

/// How often orders to give back are repeated until the attempts' ends are reported.
const RELEASE_INTERVAL: Millis = Millis(1_000);
/// Jobs taken off lost executors in one turn.
const EVICTIONS_PER_TURN_MAX: usize = 1_000;
/// How often zones are looked at as a whole.
const ZONES_INTERVAL: Millis = Millis(100);

impl Leader {
    pub(super) fn executor(&self, executor: &ExecutorRef, now: Timestamp) -> Result<Answer, Rejection> {
        let (id, found) = self.state().resolve_executor(executor)?;
        Ok(Answer::Executor(Box::new(self.watch.view(self.state(), id, found, now))))
    }

    pub(super) fn zone(&self, zone: &Zone) -> Result<Answer, Rejection> {
        let found = watch::zones(self.state()).into_iter().find(|view| view.zone == *zone);
        found.map(Answer::Zone).ok_or_else(|| Rejection::not_found(format_args!("zone `{zone}`")))
    }

    pub(super) fn judge(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let mut any_lost = false;
        for verdict in detect(&self.watch.observations, now) {
            match verdict {
                Verdict::Probe(executor) => {
                    if let Some(observed) = self.watch.observations.executors.get_mut(&executor) {
                        observed.last_probe = Some(now);
                    }
                    out.push(Output::Probe(executor));
                }
                Verdict::Lost { executor, reason, last_seen } => {
                    any_lost = true;
                    self.own(Command::LoseExecutor { executor, reason, last_seen }, now, out);
                }
            }
        }
        if any_lost || now >= self.next.zones {
            self.next.zones = now + ZONES_INTERVAL;
            self.judge_zones(now, out);
        }
    }

    fn judge_zones(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for verdict in zones(self.journal.state(), &mut self.watch.observations, self.settle, now) {
            match verdict {
                ZoneVerdict::Probe(zone) => out.push(Output::ProbeZone(zone)),
                ZoneVerdict::Lost(zone) => drop(self.own(Command::LoseZone { zone }, now, out)),
                ZoneVerdict::Steady(zone) => drop(self.own(Command::SettleZone { zone }, now, out)),
            }
        }
    }

    pub(super) fn evict(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.state().to_evict().next().is_none() {
            return;
        }
        let watch = &self.watch;
        let commands =
            placement::evictions(self.journal.state(), |id| watch.is_leased(id), now, EVICTIONS_PER_TURN_MAX);
        for command in commands {
            self.own(command, now, out);
        }
    }

    /// Has attempts given back by executors that are drained, not well, or do not start them.
    pub(super) fn release(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if now < self.next.releases {
            return;
        }
        self.next.releases = now + RELEASE_INTERVAL;
        let late = evacuate::overdue(self.state(), now, EVICTIONS_PER_TURN_MAX);
        let late: Vec<_> = late.into_iter().map(|(job, found)| (job, found.attempt)).collect();
        for (job, attempt) in late {
            self.own(Command::WithdrawAttempt { job, attempt, cause: Cause::Drain }, now, out);
        }
        let mut orders = dispatch::Orders::default();
        let hints = self.watch.hints(now);
        for (executor, release) in evacuate::releases(self.state(), &self.watch.degraded(), &hints, now) {
            orders.release(executor, release);
        }
        self.preempt(now, &mut orders);
        // What asks for them may not be durable yet.
        for (executor, order) in orders.into_messages(self.identity.term, self.journal.acked()) {
            self.journal.hold_back(Output::Order { executor, order }, out);
        }
    }

    pub(super) fn place(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        while self.ready.first().is_some_and(|at| *at <= now) {
            self.ready.pop_first();
            self.plan_due = true;
        }
        // Rounds beyond what a commit or two can hold would only pile up.
        while self.plan_due && self.journal.has_room() {
            let plan = placement::round(self.state(), &self.hints(now), now);
            let mut is_any_placed = false;
            for proposal in plan.proposals {
                let command =
                    Command::PlaceJob { job: proposal.job, attempt: proposal.attempt, executor: proposal.executor };
                is_any_placed |= self.own(command, now, out);
            }
            // Where nothing came of a round, the next would be the same: it waits for the next beat.
            self.plan_due = plan.more && is_any_placed;
        }
    }
}
