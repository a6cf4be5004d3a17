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
    /// The same once more, for the last time: the job stands still from the reading to its end. See `release`.
    LastReading,
    LastStoring,
    LastEnding {
        taken: Option<Taken>,
    },
}

impl Step {
    /// Whether the job may stand still for it.
    pub(super) fn stands_still(&self) -> bool {
        !matches!(self, Step::Idle { .. } | Step::Storing { .. } | Step::Reported { .. })
    }

    /// Whether a task is at work for it.
    pub fn is_working(&self) -> bool {
        !matches!(self, Step::Idle { .. } | Step::Reported { .. })
    }

    pub fn wake_at(&self, plan: &Plan) -> Option<u64> {
        match *self {
            Step::Idle { next_at } => Some(next_at),
            Step::Reading { began_at } | Step::Storing { began_at } => {
                Some(began_at.saturating_add(plan.checkpoint_timeout_ms))
            }
            // The release has a time of its own.
            Step::Reported { .. } | Step::LastReading | Step::LastStoring | Step::LastEnding { .. } => None,
        }
    }
}

impl AttemptMachine {
    /// A checkpoint is due, or one has taken too long.
    pub(super) fn wake_checkpoint(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let State::Running { step, .. } = &self.state else { return };
        match *step {
            Step::Idle { next_at } if now_ms >= next_at && self.releasing.is_some() => self.begin_last(effects),
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

    pub(super) fn read(
        &mut self,
        of: u32,
        result: Result<(), CheckpointFault>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let State::Running { step, started_at } = &mut self.state else { return };
        if of != self.round {
            return;
        }
        if let Step::Reading { began_at } = *step {
            // What stood still could not write: that time does not count as silence.
            self.output_at = self.output_at.max(*started_at) + now_ms.saturating_sub(began_at);
        }
        match (*step, result) {
            (Step::Reading { began_at }, Ok(())) => {
                *step = Step::Storing { began_at };
                effects.push(Effect::Store { round: of });
            }
            (Step::LastReading, Ok(())) => {
                *step = Step::LastStoring;
                effects.push(Effect::Store { round: of });
            }
            (Step::Reading { began_at }, Err(fault)) => self.fault(began_at, fault, now_ms, effects),
            (Step::LastReading, Err(fault)) => self.last_failed(fault, now_ms, effects),
            _ => {}
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
        if of != self.round {
            return;
        }
        match (*step, result) {
            (Step::Storing { began_at }, Ok(Some(taken))) => {
                *step = Step::Reported { began_at, ended_at: now_ms };
                effects.push(Effect::Report { at_ms: now_ms, news: News::Checkpoint(taken) });
                self.snapshots_stored(Some(taken.manifest), now_ms, effects);
            }
            (Step::LastStoring, Ok(taken)) => {
                *step = Step::LastEnding { taken };
                effects.push(Effect::EndFrozen { round: of });
            }
            (Step::Storing { began_at }, Ok(None)) => {
                self.snapshots_stored(None, now_ms, effects);
                self.rest(began_at, now_ms, effects);
            }
            (Step::Storing { began_at }, Err(fault)) => self.fault(began_at, fault, now_ms, effects),
            (Step::LastStoring, Err(fault)) => self.last_failed(fault, now_ms, effects),
            _ => {}
        }
    }

    pub(super) fn checkpoint_acknowledged(&mut self, effects: &mut Vec<Effect>) {
        let State::Running { step: Step::Reported { began_at, ended_at }, .. } = self.state else { return };
        effects.push(Effect::CommitCheckpoint);
        self.rest(began_at, ended_at, effects);
    }

    pub(super) fn begin_checkpoint(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.snapshots_begin();
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

    pub(super) fn fail_checkpoint(
        &mut self,
        began_at: u64,
        reason: CompactString,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        self.snapshots_failed(&reason, now_ms, effects);
        effects.push(Effect::Report { at_ms: now_ms, news: News::CheckpointFailed { reason } });
        self.rest(began_at, now_ms.saturating_add(FAILURE_PAUSE_MS_MIN), effects);
    }

    /// → idle until the next is due; where the attempt is to be given back that is now.
    fn rest(&mut self, began_at: u64, ended_at: u64, effects: &mut Vec<Effect>) {
        let by_interval = began_at.saturating_add(self.plan.interval_ms);
        let by_pause = ended_at.saturating_add(self.plan.min_pause_ms);
        self.set_step(Step::Idle { next_at: by_interval.max(by_pause) });
        self.go_on_releasing(ended_at, effects);
        self.go_on_snapshotting(ended_at, effects);
    }

    pub(super) fn set_step(&mut self, to: Step) {
        if let State::Running { step, .. } = &mut self.state {
            *step = to;
        }
    }
}
