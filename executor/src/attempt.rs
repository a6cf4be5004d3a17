//! One attempt as a machine: what has happened goes in, what is to be done comes out.
//!
//! ```text
//! Preparing ─► Starting ─► Running ─► Ending ─► Collecting ─► Over ─► (forgotten)
//!     └───────────┴── the attempt ends before it ran ──────────▲
//! ```
//!
//! While it is running, checkpoints go round: idle → reading (the job stands still) → storing (it goes on) → reported →
//! idle once the leader has committed it. There is no last checkpoint when a job ends: what it leaves at its end is its
//! result, and a job that failed goes on from the state of before it failed. One that is given back has a last
//! checkpoint, and is killed without going on after it.
//!
//! It has no clock and does no work itself: every input comes with the time, and `runner` performs the effects. An
//! answer that comes too late, because what asked for it was given up, changes nothing.

mod checkpoint;
mod release;
mod snapshot;

use crate::shim::protocol::Exit;
use checkpoint::Step;
use compact_str::{CompactString, format_compact};
use outlive_schemas::checkpoint::{BlobName, Taken};
use outlive_schemas::command::Stop;
use outlive_schemas::event::Cause;
use outlive_schemas::id::CheckpointNumber;
use outlive_schemas::message::{Assignment, Ended, News, Outcome, Release, Released};
use outlive_schemas::payload::Payload;
use release::Releasing;
use snapshot::Snapshots;

/// SIGKILL and SIGTERM, as outcomes name them.
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// How often a state that cannot be fetched is tried. With the delays below that is about a minute and a half, after
/// which another executor may have a better connection.
const PREPARE_TRIES_MAX: u32 = 20;
/// Between the first try and the second; doubles…
const PREPARE_DELAY_MS_MIN: u64 = 100;
/// …up to here.
const PREPARE_DELAY_MS_MAX: u64 = 5_000;

/// What of an assignment the machine needs. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub restore: Option<CheckpointNumber>,
    /// What is restored.
    pub manifest: Option<BlobName>,
    pub interval_ms: u64,
    pub min_pause_ms: u64,
    pub checkpoint_timeout_ms: u64,
    pub run_timeout_ms: Option<u64>,
    /// After so long without output it is killed.
    pub silence_max_ms: Option<u64>,
}

impl Plan {
    pub fn of(assignment: &Assignment) -> Plan {
        let policy = &assignment.spec.checkpoint;
        Plan {
            restore: assignment.restore.map(|from| from.number),
            manifest: assignment.restore.map(|from| from.manifest),
            interval_ms: policy.interval.0,
            min_pause_ms: policy.min_pause.0,
            checkpoint_timeout_ms: policy.timeout.0,
            run_timeout_ms: assignment.spec.timeout.map(|timeout| timeout.0),
            silence_max_ms: assignment.spec.progress_timeout.map(|silence| silence.0),
        }
    }
}

/// Why the key or the state could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareFault {
    /// Something is out of reach; trying again may help.
    Unavailable { reason: CompactString },
    /// The checkpoint is damaged or gone; the one before it may be well.
    Unreadable { reason: CompactString },
    /// This host cannot take it.
    Local { reason: CompactString },
}

/// Why there is no checkpoint this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointFault {
    Failed {
        reason: CompactString,
    },
    /// The attempt ended meanwhile, which its own events tell.
    Over,
}

/// What a job left at `$OUTLIVE_RESULT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultFile {
    None,
    Left(Payload),
    Refused { reason: CompactString },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Prepared,
    NotPrepared(PrepareFault),
    Started {
        at_ms: u64,
    },
    NotStarted {
        reason: CompactString,
    },
    /// The main process ended.
    Exited(Exit),
    /// No process of the attempt is left.
    Gone,
    Read {
        round: u32,
        result: Result<(), CheckpointFault>,
    },
    /// Nothing: the state has not changed.
    Stored {
        round: u32,
        result: Result<Option<Taken>, CheckpointFault>,
    },
    Collected(ResultFile),
    /// The leader has committed the reported checkpoint.
    CheckpointAcknowledged,
    /// The leader has committed the end.
    EndAcknowledged,
    Stop(Stop),
    /// Take a checkpoint now, for the snapshots up to this number.
    Snapshot {
        up_to: u64,
    },
    /// Nobody wants this attempt any more: end it, and say nothing more of it.
    Abandon,
    /// Give it back: by order, or because the executor is going.
    Release {
        cause: Cause,
        how: Release,
    },
    /// Everything was killed as it stood since the state was read; or it went on meanwhile.
    EndedFrozen {
        round: u32,
        result: Result<(), CheckpointFault>,
    },
    /// The job wrote something then. Only the latest needs to be said, and before a [`Input::Wake`] that is due.
    Output {
        at_ms: u64,
    },
    /// Time has passed; see [`AttemptMachine::wake_at`].
    Wake,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Fetch the key, restore the state.
    Prepare,
    CancelPrepare,
    Start,
    /// SIGTERM, and SIGCONT for those who are stopped.
    Terminate,
    Kill,
    /// Freeze, read, thaw.
    Read {
        round: u32,
    },
    Store {
        round: u32,
    },
    /// Freeze and read, and keep frozen.
    ReadLast {
        round: u32,
    },
    /// Kill what is frozen, as it stands.
    EndFrozen {
        round: u32,
    },
    /// Give up reading and storing; let the job go on.
    CancelCheckpoint,
    /// The reported checkpoint is what the next one is compared with.
    CommitCheckpoint,
    /// Finish the log; read the result where one counts.
    Collect {
        result: bool,
    },
    Report {
        at_ms: u64,
        news: News,
    },
    /// Remove what is left of it. The last effect.
    Forget,
}

#[derive(Debug)]
enum State {
    Preparing {
        tries: u32,
        retry_at: Option<u64>,
    },
    Starting {
        then: Option<Stop>,
    },
    Running {
        started_at: u64,
        step: Step,
    },
    /// It was told to end, or its main process has: some processes may be left.
    Ending {
        started_at: u64,
        overdue: Option<Overdue>,
        exit: Option<(Exit, u64)>,
        kill_at: Option<u64>,
    },
    Collecting {
        outcome: Outcome,
        ran_ms: u64,
        at_ms: u64,
    },
    Over,
    Forgotten,
}

/// What an attempt is killed for by its executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overdue {
    Timeout,
    Silence,
}

#[derive(Debug)]
pub struct AttemptMachine {
    plan: Plan,
    state: State,
    /// Nobody wants to hear of it.
    abandoned: bool,
    /// It is to be given back.
    releasing: Option<Releasing>,
    /// How it was given back, once it is being killed for that.
    released: Option<Released>,
    snapshots: Snapshots,
    /// When the job last wrote something.
    output_at: u64,
    /// Tells the answers to one checkpoint from those to an earlier one that was given up.
    round: u32,
}

impl AttemptMachine {
    /// The first effect is always [`Effect::Prepare`].
    pub fn new(plan: Plan) -> (AttemptMachine, Vec<Effect>) {
        let state = State::Preparing { tries: 0, retry_at: None };
        let (abandoned, snapshots) = (false, Snapshots::restored(plan.manifest));
        let (releasing, released) = (None, None);
        let machine = AttemptMachine { plan, state, abandoned, releasing, released, snapshots, output_at: 0, round: 0 };
        (machine, vec![Effect::Prepare])
    }

    /// When [`Input::Wake`] is due, unless something else happens before.
    pub fn wake_at(&self) -> Option<u64> {
        match &self.state {
            State::Preparing { retry_at, .. } => *retry_at,
            State::Running { started_at, step } => {
                let run_out = self.plan.run_timeout_ms.map(|timeout| started_at.saturating_add(timeout));
                let overdue = earliest(run_out, self.silent_by(*started_at, step));
                earliest(earliest(overdue, self.release_by()), step.wake_at(&self.plan))
            }
            State::Ending { kill_at, .. } => *kill_at,
            State::Starting { .. } | State::Collecting { .. } | State::Over | State::Forgotten => None,
        }
    }

    /// Whether its end is reported and waits for the leader.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Prepared => self.prepared(&mut effects),
            Input::NotPrepared(fault) => self.not_prepared(fault, now_ms, &mut effects),
            Input::Started { at_ms } => self.started(at_ms, now_ms, &mut effects),
            Input::NotStarted { reason } => {
                if matches!(self.state, State::Starting { .. }) {
                    self.end_unstarted(Outcome::LaunchFailed { reason }, now_ms, &mut effects);
                }
            }
            Input::Exited(exit) => self.exited(exit, now_ms, &mut effects),
            Input::Gone => self.gone(now_ms, &mut effects),
            Input::Read { round, result } => self.read(round, result, now_ms, &mut effects),
            Input::Stored { round, result } => self.stored(round, result, now_ms, &mut effects),
            Input::Collected(file) => self.collected(file, &mut effects),
            Input::CheckpointAcknowledged => self.checkpoint_acknowledged(&mut effects),
            Input::EndAcknowledged => {
                if matches!(self.state, State::Over) {
                    self.forget(&mut effects);
                }
            }
            Input::Snapshot { up_to } => self.snapshot(up_to, now_ms, &mut effects),
            Input::Stop(stop) => self.stop(stop, now_ms, &mut effects),
            Input::Abandon => self.abandon(&mut effects),
            Input::Release { cause, how } => self.release(cause, how, now_ms, &mut effects),
            Input::EndedFrozen { round, result } => self.ended_frozen(round, result, now_ms, &mut effects),
            Input::Output { at_ms } => self.output_at = self.output_at.max(at_ms),
            Input::Wake => self.wake(now_ms, &mut effects),
        }
        effects
    }

    fn prepared(&mut self, effects: &mut Vec<Effect>) {
        if matches!(self.state, State::Preparing { .. }) {
            self.state = State::Starting { then: None };
            effects.push(Effect::Start);
        }
    }

    fn not_prepared(&mut self, fault: PrepareFault, now_ms: u64, effects: &mut Vec<Effect>) {
        let State::Preparing { tries, retry_at } = &mut self.state else { return };
        let outcome = match (fault, self.plan.restore) {
            (PrepareFault::Unavailable { .. }, _) if *tries + 1 < PREPARE_TRIES_MAX => {
                let delay = PREPARE_DELAY_MS_MIN << (*tries).min(16);
                *tries += 1;
                *retry_at = Some(now_ms + delay.min(PREPARE_DELAY_MS_MAX));
                return;
            }
            // It may well be readable, so the leader must not turn to an older one.
            (PrepareFault::Unavailable { reason }, _) => Outcome::LaunchFailed {
                reason: format_compact!(
                    "what the attempt begins with was out of reach {PREPARE_TRIES_MAX} times: {reason}"
                ),
            },
            (PrepareFault::Unreadable { reason }, Some(number)) => Outcome::RestoreFailed { number, reason },
            (PrepareFault::Unreadable { reason } | PrepareFault::Local { reason }, _) => {
                Outcome::LaunchFailed { reason }
            }
        };
        self.end_unstarted(outcome, now_ms, effects);
    }

    fn started(&mut self, at_ms: u64, now_ms: u64, effects: &mut Vec<Effect>) {
        let State::Starting { then } = self.state else { return };
        let step = Step::Idle { next_at: at_ms.saturating_add(self.plan.interval_ms) };
        self.state = State::Running { started_at: at_ms, step };
        if self.abandoned {
            self.begin_ending(Some(Effect::Kill), None, effects);
            return;
        }
        effects.push(Effect::Report { at_ms, news: News::Started });
        match then {
            Some(stop) => self.stop(stop, now_ms, effects),
            None => self.go_on_releasing(now_ms, effects),
        }
    }

    fn exited(&mut self, exit: Exit, now_ms: u64, effects: &mut Vec<Effect>) {
        if matches!(self.state, State::Running { .. }) {
            // Its exit may be heard of before the answer to what killed it.
            self.note_last_checkpoint();
            self.begin_ending(None, None, effects);
        }
        if let State::Ending { exit: known @ None, .. } = &mut self.state {
            *known = Some((exit, now_ms));
        }
    }

    fn gone(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if matches!(self.state, State::Running { .. }) {
            self.begin_ending(None, None, effects);
        }
        let State::Ending { started_at, overdue, exit, .. } = self.state else { return };
        if self.abandoned {
            return self.forget(effects);
        }
        // Without an exit the shim itself was killed, and the job with it.
        let (exit, at_ms) = exit.unwrap_or((Exit::Signal(SIGKILL), now_ms));
        let outcome = match exit {
            // What ended by itself just before the kill reached it has its own outcome.
            Exit::Signal(SIGKILL) if overdue == Some(Overdue::Timeout) => Outcome::TimedOut,
            Exit::Signal(SIGKILL) if overdue == Some(Overdue::Silence) => Outcome::NoProgress,
            Exit::Code(code) => Outcome::Exited { code },
            Exit::Signal(signal) => match self.released.take().filter(|_| signal == SIGKILL) {
                Some(released) => Outcome::Released(released),
                None => Outcome::Signalled { signal },
            },
        };
        effects.push(Effect::Collect { result: exit.is_success() });
        self.state = State::Collecting { outcome, ran_ms: at_ms.saturating_sub(started_at), at_ms };
    }

    fn collected(&mut self, file: ResultFile, effects: &mut Vec<Effect>) {
        let State::Collecting { outcome, ran_ms, at_ms } = &self.state else { return };
        let (outcome, result) = match (outcome, file) {
            (Outcome::Exited { code: 0 }, ResultFile::Refused { reason }) => (Outcome::ResultRefused { reason }, None),
            (Outcome::Exited { code: 0 }, ResultFile::Left(result)) => (outcome.clone(), Some(result)),
            _ => (outcome.clone(), None),
        };
        let ended = Ended { outcome, ran_ms: Some(*ran_ms), result };
        effects.push(Effect::Report { at_ms: *at_ms, news: News::Ended(ended) });
        self.state = State::Over;
    }

    fn stop(&mut self, stop: Stop, now_ms: u64, effects: &mut Vec<Effect>) {
        // Who ends a job for good has no use for its state.
        self.releasing = None;
        match (&mut self.state, stop) {
            (State::Preparing { .. }, stop) => {
                effects.push(Effect::CancelPrepare);
                let signal = if stop == Stop::Kill { SIGKILL } else { SIGTERM };
                self.end_unstarted(Outcome::Signalled { signal }, now_ms, effects);
            }
            // It cannot be stopped before it has begun; what kills is not taken back.
            (State::Starting { then }, stop) => {
                if *then != Some(Stop::Kill) {
                    *then = Some(stop);
                }
            }
            (State::Running { .. }, Stop::Kill) => self.begin_ending(Some(Effect::Kill), None, effects),
            (State::Running { .. }, Stop::Graceful { grace }) => {
                self.begin_ending(Some(Effect::Terminate), Some(now_ms.saturating_add(grace.0)), effects);
            }
            (State::Ending { kill_at, .. }, Stop::Kill) => {
                *kill_at = None;
                effects.push(Effect::Kill);
            }
            // The order is repeated until it has been carried out: a second one does not prolong the first one's grace.
            (State::Ending { kill_at: Some(kill_at), .. }, Stop::Graceful { grace }) => {
                *kill_at = (*kill_at).min(now_ms.saturating_add(grace.0));
            }
            (State::Ending { kill_at: None, .. }, Stop::Graceful { .. }) => {}
            (State::Collecting { .. } | State::Over | State::Forgotten, _) => {}
        }
    }

    fn abandon(&mut self, effects: &mut Vec<Effect>) {
        if self.abandoned {
            return;
        }
        self.abandoned = true;
        match self.state {
            State::Preparing { .. } => {
                effects.push(Effect::CancelPrepare);
                self.forget(effects);
            }
            State::Starting { .. } | State::Forgotten => {}
            State::Running { .. } => self.begin_ending(Some(Effect::Kill), None, effects),
            State::Ending { .. } => effects.push(Effect::Kill),
            State::Collecting { .. } | State::Over => self.forget(effects),
        }
    }

    fn wake(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match &mut self.state {
            State::Preparing { retry_at, .. } if retry_at.is_some_and(|at| now_ms >= at) => {
                *retry_at = None;
                effects.push(Effect::Prepare);
            }
            State::Running { started_at, step } => {
                let (started_at, step) = (*started_at, *step);
                let ran = now_ms.saturating_sub(started_at);
                let timed_out = self.plan.run_timeout_ms.is_some_and(|timeout| ran >= timeout);
                let is_silent = self.silent_by(started_at, &step).is_some_and(|by| now_ms >= by);
                if timed_out || is_silent {
                    self.begin_ending(Some(Effect::Kill), None, effects);
                    if let State::Ending { overdue, .. } = &mut self.state {
                        *overdue = Some(if timed_out { Overdue::Timeout } else { Overdue::Silence });
                    }
                } else if !self.release_is_late(now_ms, effects) {
                    self.wake_checkpoint(now_ms, effects);
                }
            }
            State::Ending { kill_at, .. } if kill_at.is_some_and(|at| now_ms >= at) => {
                *kill_at = None;
                effects.push(Effect::Kill);
            }
            _ => {}
        }
    }

    /// When it has been silent for too long, if it writes nothing until then.
    fn silent_by(&self, started_at: u64, step: &Step) -> Option<u64> {
        let silence = self.plan.silence_max_ms.filter(|_| !step.stands_still());
        silence.map(|silence| started_at.max(self.output_at).saturating_add(silence))
    }

    /// Running → Ending.
    fn begin_ending(&mut self, by: Option<Effect>, kill_at: Option<u64>, effects: &mut Vec<Effect>) {
        let State::Running { started_at, step } = &self.state else { return };
        if step.is_working() {
            effects.push(Effect::CancelCheckpoint);
        }
        effects.extend(by);
        self.state = State::Ending { started_at: *started_at, overdue: None, exit: None, kill_at };
    }

    fn end_unstarted(&mut self, outcome: Outcome, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.abandoned {
            return self.forget(effects);
        }
        let ended = Ended { outcome, ran_ms: None, result: None };
        effects.push(Effect::Report { at_ms: now_ms, news: News::Ended(ended) });
        self.state = State::Over;
    }

    fn forget(&mut self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Forget);
        self.state = State::Forgotten;
    }
}

fn earliest(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
#[path = "attempt/tests.rs"]
pub(crate) mod tests;
