//! The part of the attempt machine that gives an attempt back: a last checkpoint, and the end without another step.
//!
//! The job is frozen, read, stored and only then killed, as it stands: had it gone on after the reading, what it did
//! then would be done again elsewhere. If the last checkpoint fails the job goes on and it is tried again, until the
//! time is over. An ordinary checkpoint that is under way is waited for: it makes the last one smaller.

use super::checkpoint::Step;
use super::{AttemptMachine, CheckpointFault, Effect, State};
use compact_str::{CompactString, format_compact};
use outlive_schemas::event::Cause;
use outlive_schemas::message::{News, Otherwise, Outcome, Release, Released};
use outlive_schemas::time::Millis;

/// Between two tries at a last checkpoint: what made one fail is often over soon, and the job runs meanwhile.
const LAST_RETRY_MS: u64 = 500;

/// An order to give the attempt back.
#[derive(Debug)]
pub(super) struct Releasing {
    cause: Cause,
    otherwise: Otherwise,
    began_ms: u64,
    /// When trying ends; nothing: it is killed at once.
    by_ms: Option<u64>,
    /// Why the last try failed.
    fault: Option<CompactString>,
}

impl AttemptMachine {
    pub(super) fn release(&mut self, cause: Cause, how: Release, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.abandoned {
            return;
        }
        let (by_ms, otherwise) = match how {
            Release::Checkpoint { within, otherwise } => (Some(now_ms.saturating_add(within.0)), otherwise),
            Release::Kill => (None, Otherwise::Kill),
        };
        match (&mut self.releasing, by_ms) {
            // The order is repeated until it has been carried out: that does not prolong its time.
            (Some(known), Some(by_ms)) => {
                known.by_ms = known.by_ms.map(|known| known.min(by_ms));
                if otherwise == Otherwise::Kill {
                    known.otherwise = otherwise;
                }
                return;
            }
            (known, by_ms) => {
                *known = Some(Releasing { cause, otherwise, began_ms: now_ms, by_ms, fault: None });
            }
        }
        match &self.state {
            State::Preparing { .. } => {
                effects.push(Effect::CancelPrepare);
                self.releasing = None;
                // Its state is what it was to begin with.
                let released = Released { cause, checkpoint: None, fault: None };
                self.end_unstarted(Outcome::Released(released), now_ms, effects);
            }
            State::Running { .. } => self.go_on_releasing(now_ms, effects),
            // It is released when it has started, or it has ended already.
            _ => {}
        }
    }

    /// Takes the next step towards the end, where one is due.
    pub(super) fn go_on_releasing(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(releasing) = &self.releasing else { return };
        if releasing.by_ms.is_none() {
            return self.release_without(None, effects);
        }
        // One that is reported and does not count yet is waited for as well: what the last one is compared with must be
        // what the leader takes for the latest.
        let is_idle = matches!(self.state, State::Running { step: Step::Idle { .. }, .. });
        if is_idle && !self.release_is_late(now_ms, effects) {
            self.begin_last(effects);
        }
    }

    pub(super) fn begin_last(&mut self, effects: &mut Vec<Effect>) {
        self.set_step(Step::LastReading);
        self.round = self.round.wrapping_add(1);
        effects.push(Effect::ReadLast { round: self.round });
    }

    pub(super) fn last_failed(&mut self, fault: CheckpointFault, now_ms: u64, effects: &mut Vec<Effect>) {
        // Lets the job go on, where it was left frozen.
        effects.push(Effect::CancelCheckpoint);
        self.set_step(Step::Idle { next_at: now_ms.saturating_add(LAST_RETRY_MS) });
        if let (Some(releasing), CheckpointFault::Failed { reason }) = (&mut self.releasing, fault) {
            releasing.fault = Some(reason);
        }
    }

    pub(super) fn ended_frozen(
        &mut self,
        of: u32,
        result: Result<(), CheckpointFault>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_ending_frozen() || of != self.round {
            return;
        }
        match result {
            Ok(()) => {
                self.note_last_checkpoint();
                self.begin_ending(None, None, effects);
            }
            Err(fault) => self.last_failed(fault, now_ms, effects),
        }
    }

    /// What is killed as it stands has its last checkpoint.
    pub(super) fn note_last_checkpoint(&mut self) {
        let (State::Running { step, .. }, Some(releasing)) = (&mut self.state, &self.releasing) else { return };
        if let Step::LastEnding { taken } = *step {
            self.released = Some(Released { cause: releasing.cause, checkpoint: taken, fault: None });
            // Nobody is at work for it any more.
            *step = Step::Idle { next_at: u64::MAX };
        }
    }

    /// Whether the time for a last checkpoint is over, and what follows then.
    pub(super) fn release_is_late(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> bool {
        // Stored in time; only the answer to the kill is still to come.
        if self.is_ending_frozen() {
            return false;
        }
        let Some(releasing) = self.releasing.as_ref().filter(|r| r.by_ms.is_some_and(|by_ms| now_ms >= by_ms)) else {
            return false;
        };
        let within = Millis(now_ms.saturating_sub(releasing.began_ms));
        let reason = match &releasing.fault {
            Some(fault) => format_compact!("no last checkpoint within {within}: {fault}"),
            None => format_compact!("no last checkpoint within {within}"),
        };
        match releasing.otherwise {
            Otherwise::Kill => self.release_without(Some(reason), effects),
            Otherwise::GoOn => {
                self.releasing = None;
                if let State::Running { step, .. } = &self.state
                    && matches!(step, Step::LastReading | Step::LastStoring)
                {
                    effects.push(Effect::CancelCheckpoint);
                    self.set_step(Step::Idle { next_at: now_ms.saturating_add(self.plan.min_pause_ms) });
                }
                effects.push(Effect::Report { at_ms: now_ms, news: News::ReleaseFailed { reason } });
            }
        }
        true
    }

    fn is_ending_frozen(&self) -> bool {
        matches!(self.state, State::Running { step: Step::LastEnding { .. }, .. })
    }

    /// When trying for a last checkpoint is over.
    pub(super) fn release_by(&self) -> Option<u64> {
        self.releasing.as_ref().and_then(|releasing| releasing.by_ms).filter(|_| !self.is_ending_frozen())
    }

    fn release_without(&mut self, fault: Option<CompactString>, effects: &mut Vec<Effect>) {
        let Some(releasing) = self.releasing.take() else { return };
        if let State::Running { .. } = self.state {
            self.released = Some(Released { cause: releasing.cause, checkpoint: None, fault });
            self.begin_ending(Some(Effect::Kill), None, effects);
        }
    }
}
