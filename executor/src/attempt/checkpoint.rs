//! The part of the attempt machine that takes checkpoints: when one begins, and what follows from each step of it.

use super::{AttemptMachine, CheckpointFault, Effect, Plan, State};
use compact_str::{CompactString, format_compact};
use outlive_schemas::checkpoint::Taken;
use outlive_schemas::message::News;
use outlive_schemas::time::Millis;

/// After a checkpoint that failed, at least: what made it fail would fail the next one as well, and each failure is an
/// entry in the job's history.
const FAILURE_PAUSE_MS_MIN: u64 = 1_000;

/// Where the checkpoint of a running attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Idle {
        next_at: u64,
    },
    /// The job stands still, or waits for its turn to.
    Reading {
        began_at: u64,
    },
    Storing {
        began_at: u64,
    },
    /// The next one is compared with this one, so it has to wait until this one counts.
    Reported {
        began_at: u64,
        ended_at: u64,
    },
}

impl Step {
    /// Whether a task is at work for it.
    pub fn is_working(&self) -> bool {
        matches!(self, Step::Reading { .. } | Step::Storing { .. })
    }

    pub fn wake_at(&self, plan: &Plan) -> Option<u64> {
        match *self {
            Step::Idle { next_at } => Some(next_at),
            Step::Reading { began_at } | Step::Storing { began_at } => {
                Some(began_at.saturating_add(plan.checkpoint_timeout_ms))
            }
            Step::Reported { .. } => None,
        }
    }
}

impl AttemptMachine {
    /// A checkpoint is due, or one has taken too long.
    pub(super) fn wake_checkpoint(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let State::Running { step, .. } = &self.state else { return };
        match *step {
            Step::Idle { next_at } if now_ms >= next_at => self.begin_checkpoint(now_ms, effects),
            Step::Reading { began_at } | Step::Storing { began_at }
                if now_ms >= began_at.saturating_add(self.plan.checkpoint_timeout_ms) =>
            {
                effects.push(Effect::CancelCheckpoint);
                let limit = Millis(self.plan.checkpoint_timeout_ms);
                let reason = format_compact!("the checkpoint took longer than checkpoint.timeout, which is {limit}");
                self.fail_checkpoint(began_at, reason, now_ms, effects);
            }
            _ => {}
        }
    }

    /// The executor is going. One that is under way will do.
    pub(super) fn begin_last_checkpoint(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Running { step: Step::Idle { .. }, .. } => self.begin_checkpoint(now_ms, effects),
            State::Preparing { .. } => self.abandon(effects),
            _ => {}
        }
    }

    pub(super) fn read(
        &mut self,
        of: u32,
        result: Result<(), CheckpointFault>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let State::Running { step, .. } = &mut self.state else { return };
        let Step::Reading { began_at } = *step else { return };
        if of != self.round {
            return;
        }
        match result {
            Ok(()) => {
                *step = Step::Storing { began_at };
                effects.push(Effect::Store { round: of });
            }
            Err(fault) => self.fault(began_at, fault, now_ms, effects),
        }
    }

    pub(super) fn stored(
        &mut self,
        of: u32,
        result: Result<Option<Taken>, CheckpointFault>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let State::Running { step, .. } = &mut self.state else { return };
        let Step::Storing { began_at } = *step else { return };
        if of != self.round {
            return;
        }
        match result {
            Ok(Some(taken)) => {
                *step = Step::Reported { began_at, ended_at: now_ms };
                effects.push(Effect::Report { at_ms: now_ms, news: News::Checkpoint(taken) });
            }
            Ok(None) => self.rest(began_at, now_ms, effects),
            Err(fault) => self.fault(began_at, fault, now_ms, effects),
        }
    }

    pub(super) fn checkpoint_acknowledged(&mut self, effects: &mut Vec<Effect>) {
        let State::Running { step: Step::Reported { began_at, ended_at }, .. } = self.state else { return };
        effects.push(Effect::CommitCheckpoint);
        self.rest(began_at, ended_at, effects);
    }

    fn begin_checkpoint(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let State::Running { step, .. } = &mut self.state else { return };
        *step = Step::Reading { began_at: now_ms };
        self.round = self.round.wrapping_add(1);
        effects.push(Effect::Read { round: self.round });
    }

    fn fault(&mut self, began_at: u64, fault: CheckpointFault, now_ms: u64, effects: &mut Vec<Effect>) {
        match fault {
            CheckpointFault::Failed { reason } => self.fail_checkpoint(began_at, reason, now_ms, effects),
            CheckpointFault::Over => self.rest(began_at, now_ms, effects),
        }
    }

    fn fail_checkpoint(&mut self, began_at: u64, reason: CompactString, now_ms: u64, effects: &mut Vec<Effect>) {
        effects.push(Effect::Report { at_ms: now_ms, news: News::CheckpointFailed { reason } });
        self.rest(began_at, now_ms.saturating_add(FAILURE_PAUSE_MS_MIN), effects);
    }

    /// → idle until the next is due; or, when the executor is going, there is no next one.
    fn rest(&mut self, began_at: u64, ended_at: u64, effects: &mut Vec<Effect>) {
        if self.leave_by.is_some() {
            self.set_step(Step::Idle { next_at: u64::MAX });
            return self.abandon(effects);
        }
        let by_interval = began_at.saturating_add(self.plan.interval_ms);
        let by_pause = ended_at.saturating_add(self.plan.min_pause_ms);
        self.set_step(Step::Idle { next_at: by_interval.max(by_pause) });
    }

    fn set_step(&mut self, to: Step) {
        if let State::Running { step, .. } = &mut self.state {
            *step = to;
        }
    }
}
