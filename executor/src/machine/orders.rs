//! Carrying out what the leader orders, once `intake` has said that it counts.

use super::holdings::Holding;
use super::{Effect, ExecutorMachine, Live, Mode};
use crate::attempt::{self, AttemptMachine, Plan};
use crate::driver::noop;
use crate::intake::Admission;
use crate::metrics;
use outlive_schemas::command::Stop;
use outlive_schemas::event::Cause;
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{Attempt, JobId, Sequence};
use outlive_schemas::job::Driver;
use outlive_schemas::message::{
    Assignment, Ended, News, Order, Outcome, ReleaseAttempt, Released, SnapshotAttempt, StopAttempt, ToExecutor,
};
use std::collections::BTreeSet;
use std::sync::Arc;

impl ExecutorMachine {
    pub(super) fn order(&mut self, order: ToExecutor) {
        if !self.intake.hear(order.term, order.seq) {
            tracing::warn!(term = %order.term, newest = %self.intake.term(), "an order of a deposed leader is refused");
            return;
        }
        self.hear_leader();
        // Who is dismissed ends everything already.
        if matches!(self.mode, Mode::Dismissed { .. }) {
            return;
        }
        match order.order {
            // Who is going takes nothing on: it was placed before the leader knew.
            Order::Assign(assignments) if matches!(self.mode, Mode::Leaving { .. }) => {
                for assignment in assignments {
                    self.decline(&assignment, Cause::Drain);
                }
            }
            Order::Assign(assignments) => {
                let now_ms = self.now_ms();
                for assignment in assignments {
                    self.assign(assignment, now_ms);
                }
            }
            Order::Stop(stops) => stops.into_iter().for_each(|stop| self.stop(stop)),
            Order::Want(wanted) => self.want(&wanted, order.seq),
            Order::Dismiss => self.dismissed(),
            Order::Snapshot(snapshots) => snapshots.into_iter().for_each(|snapshot| self.snapshot(snapshot)),
            Order::Release(releases) => releases.into_iter().for_each(|release| self.release(release)),
        }
    }

    /// Gives an assignment back that was not begun.
    fn decline(&mut self, assignment: &Assignment, cause: Cause) {
        let (job, attempt, placed_at) = (assignment.job, assignment.attempt, assignment.placed_at);
        let need = Capacity::default();
        if self.intake.assign(&self.holdings, &self.registration.capacity, job, attempt, &need) == Admission::Take {
            self.replace(job, false);
            self.holdings.insert(job, Holding { attempt, placed_at, need, over: false });
            self.give_back(job, attempt, cause);
        }
    }

    /// Ends an attempt that has not begun.
    pub(super) fn give_back(&mut self, job: JobId, attempt: Attempt, cause: Cause) {
        let outcome = Outcome::Released(Released { cause, checkpoint: None, fault: None });
        self.holdings.end(job, attempt);
        let ended = Ended { outcome, ran_ms: None, result: None };
        self.outbox.push(job, attempt, self.now_ms(), News::Ended(ended));
    }

    fn snapshot(&mut self, snapshot: SnapshotAttempt) {
        let SnapshotAttempt { job, attempt, up_to } = snapshot;
        if self.live.contains_key(&(job, attempt)) {
            self.step(job, attempt, attempt::Input::Snapshot { up_to });
        } else if self.intake.stops_missing(&self.holdings, job, attempt) {
            self.outbox.push(job, attempt, self.now_ms(), News::Missing);
        }
    }

    fn release(&mut self, release: ReleaseAttempt) {
        let ReleaseAttempt { job, attempt, cause, how } = release;
        if self.waiting.get(&job).is_some_and(|waiting| waiting.attempt == attempt) {
            self.waiting.remove(&job);
            self.give_back(job, attempt, cause);
        } else if self.live.contains_key(&(job, attempt)) {
            self.step(job, attempt, attempt::Input::Release { cause, how });
        } else if self.intake.stops_missing(&self.holdings, job, attempt) {
            self.outbox.push(job, attempt, self.now_ms(), News::Missing);
        }
    }

    fn assign(&mut self, assignment: Assignment, now_ms: u64) {
        let (job, attempt) = (assignment.job, assignment.attempt);
        let need = Capacity::of(assignment.spec.driver.kind(), &assignment.spec.resources);
        let mut holding = Holding { attempt, placed_at: assignment.placed_at, need, over: false };
        if self.outbox.is_full() {
            // It is not held, so the leader will find it missing and assign it again.
            tracing::warn!(%job, %attempt, "not taken: too many reports are unanswered");
            return;
        }
        if self.doubtful && assignment.spec.exclusive {
            tracing::info!(%job, %attempt, "not taken: it may have been ordered before the lease was lost");
            return self.decline(&assignment, Cause::ExecutorLost);
        }
        match self.intake.assign(&self.holdings, &self.registration.capacity, job, attempt, &need) {
            Admission::Ignore => {}
            Admission::Refuse { reason } => {
                tracing::warn!(%job, %attempt, reason, "an assignment is refused");
                self.replace(job, false);
                holding.over = true;
                self.holdings.insert(job, holding);
                let outcome = Outcome::LaunchFailed { reason: reason.into() };
                let ended = Ended { outcome, ran_ms: None, result: None };
                self.outbox.push(job, attempt, now_ms, News::Ended(ended));
            }
            Admission::Take => {
                self.replace(job, true);
                if let Driver::Noop(_) = assignment.spec.driver {
                    holding.over = true;
                    self.holdings.insert(job, holding);
                    let ended = noop::run(assignment.spec.input.as_ref());
                    metrics::ended(&ended.outcome);
                    self.outbox.push(job, attempt, now_ms, News::Ended(ended));
                    return;
                }
                self.holdings.insert(job, holding);
                if self.is_alive(job) {
                    self.waiting.insert(job, Arc::new(assignment));
                } else {
                    self.begin(Arc::new(assignment));
                }
            }
        }
    }

    /// Ends an older attempt of a job that a higher one is ordered for, and perhaps begins here.
    fn replace(&mut self, job: JobId, begins: bool) {
        let Some(older) = self.holdings.get(job).map(|held| held.attempt) else { return };
        self.outbox.withdraw(&BTreeSet::from([(job, older)]));
        self.abandon(job, older, begins);
    }

    /// Whether processes of any attempt of this job may be left.
    pub(super) fn is_alive(&self, job: JobId) -> bool {
        self.live.range((job, Attempt(0))..=(job, Attempt(u32::MAX))).next().is_some()
    }

    /// Begins an attempt with a process.
    pub(super) fn begin(&mut self, assignment: Arc<Assignment>) {
        let (job, attempt) = (assignment.job, assignment.attempt);
        let (machine, effects) = AttemptMachine::new(Plan::of(&assignment));
        let live = Live {
            machine,
            wake_at: None,
            has_state: assignment.restore.is_some(),
            stopped: false,
            comes_back: false,
            assignment: Arc::clone(&assignment),
        };
        self.out.push(Effect::Begin(assignment));
        self.live.insert((job, attempt), live);
        self.perform(job, attempt, effects);
    }

    fn stop(&mut self, stop: StopAttempt) {
        let StopAttempt { job, attempt, how } = stop;
        if self.waiting.get(&job).is_some_and(|waiting| waiting.attempt == attempt) {
            self.waiting.remove(&job);
            let signal = if how == Stop::Kill { 9 } else { 15 };
            let ended = Ended { outcome: Outcome::Signalled { signal }, ran_ms: None, result: None };
            self.holdings.end(job, attempt);
            self.outbox.push(job, attempt, self.now_ms(), News::Ended(ended));
        } else if let Some(live) = self.live.get_mut(&(job, attempt)) {
            live.stopped = true;
            self.step(job, attempt, attempt::Input::Stop(how));
        } else if self.intake.stops_missing(&self.holdings, job, attempt) {
            self.outbox.push(job, attempt, self.now_ms(), News::Missing);
        }
    }

    fn want(&mut self, wanted: &[(JobId, Attempt)], seq: Sequence) {
        let difference = self.intake.want(&self.holdings, wanted, seq);
        let (unwanted, missing) = (difference.unwanted.len(), difference.missing.len());
        tracing::debug!(wanted = wanted.len(), unwanted, missing, "the wanted set");
        self.give_up(&difference.unwanted.into_iter().collect());
        let now_ms = self.now_ms();
        for (job, attempt) in difference.missing {
            if self.outbox.is_full() {
                break;
            }
            self.outbox.push(job, attempt, now_ms, News::Missing);
        }
    }

    /// Ends attempts that nobody wants to hear of any more. A late copy of their assignment does not run them again.
    pub(super) fn give_up(&mut self, attempts: &BTreeSet<(JobId, Attempt)>) {
        if attempts.is_empty() {
            return;
        }
        self.outbox.withdraw(attempts);
        let now_ms = self.now_ms();
        for &(job, attempt) in attempts {
            self.intake.confirm(job, attempt, now_ms);
            self.abandon(job, attempt, false);
        }
    }

    fn abandon(&mut self, job: JobId, attempt: Attempt, comes_back: bool) {
        self.holdings.remove(job, attempt);
        if self.waiting.get(&job).is_some_and(|waiting| waiting.attempt == attempt) {
            self.waiting.remove(&job);
        }
        if let Some(live) = self.live.get_mut(&(job, attempt)) {
            live.comes_back = comes_back;
        }
        self.step(job, attempt, attempt::Input::Abandon);
    }

    /// The leader has committed this end.
    pub(super) fn end_confirmed(&mut self, job: JobId, attempt: Attempt, now_ms: u64) {
        self.intake.confirm(job, attempt, now_ms);
        self.holdings.remove(job, attempt);
        self.step(job, attempt, attempt::Input::EndAcknowledged);
    }

    pub(super) fn dismissed(&mut self) {
        tracing::warn!(executor = %self.id(), held = self.holdings.len(), "declared lost by the leader; beginning anew");
        let all: BTreeSet<_> = self.holdings.iter().map(|(job, held)| (job, held.attempt)).collect();
        self.give_up(&all);
        for (job, attempt) in self.live.keys().copied().collect::<Vec<_>>() {
            self.step(job, attempt, attempt::Input::Abandon);
        }
        // Whatever is left to say, nobody would listen to.
        self.outbox = Default::default();
        self.asking = false;
        self.out.push(Effect::ForgetReport);
        self.waiting.clear();
        self.out.push(Effect::Withdrawn);
        if self.mode == Mode::Working {
            self.mode = Mode::Dismissed { by_ms: self.now_ms() + super::DISMISS_MS_MAX };
        }
    }
}
