//! Whether a job may be started now as far as its queue and its key go: pauses, caps and rates.
//!
//! The planner, the check of its proposals and `why` ask the same questions here, so that no cap is exceeded by a plan
//! that was overtaken. Shares and priorities are not here: they say who goes first, and forbid nothing.

use crate::queue::{Lines, QueueId, Turn};
use crate::state::{Job, State};
use compact_str::CompactString;
use outlive_schemas::id::Namespace;
use outlive_schemas::queue::{Concurrency, HeldBy, QueueSettings, Rate};
use outlive_schemas::time::Timestamp;
use std::collections::BTreeMap;
use std::fmt;

/// What holds a job, or all of a queue's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    Paused,
    /// As many run as the queue may have.
    Full {
        running: u32,
        cap: u32,
    },
    /// As many have been started as may be for now.
    Rate {
        rate: Rate,
        next_at: Timestamp,
    },
    /// As many run with the job's key as may.
    Key {
        key: CompactString,
        running: u32,
        limit: u32,
    },
}

impl Hold {
    pub fn by(&self) -> HeldBy {
        match self {
            Hold::Paused => HeldBy::Paused,
            Hold::Full { .. } => HeldBy::Concurrency,
            Hold::Rate { .. } => HeldBy::Rate,
            Hold::Key { .. } => HeldBy::Key,
        }
    }

    /// When it may be over, where that has a time.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Hold::Rate { next_at, .. } => Some(*next_at),
            _ => None,
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Paused => f.write_str("the queue is paused: `outlive queue resume` lets it go on"),
            Hold::Full { running, cap } => {
                write!(f, "the queue runs {running}, and its `concurrency` is {cap}: it goes on once one has ended")
            }
            Hold::Rate { rate: Rate { limit, per }, next_at } => {
                write!(f, "the queue starts at most {limit} in {per}: the next one at {next_at}")
            }
            Hold::Key { key, running, limit } => {
                write!(
                    f,
                    "with the concurrency key `{}` run {running}, and its limit is {limit}: it goes on once one has \
                     ended",
                    key.escape_debug()
                )
            }
        }
    }
}

/// What a queue may still start: its settings, what it holds, and what it is given in the course of one round.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub settings: QueueSettings,
    running: u32,
    /// Starts that its rate leaves, or when it leaves the next one.
    starts: Result<u32, Timestamp>,
    now: Timestamp,
}

impl Gate {
    pub fn of(state: &State, queue: &QueueId, now: Timestamp) -> Gate {
        let Some(known) = state.queues.get(queue) else {
            // Nothing of it is limited, so nothing of it need be counted.
            return Gate { settings: QueueSettings::default(), running: 0, starts: Ok(u32::MAX), now };
        };
        let settings = known.settings;
        let running = settings.concurrency.map_or(0, |_| state.running().of(queue).jobs);
        let starts = settings.rate.map_or(Ok(u32::MAX), |rate| known.starts.left(rate, now));
        Gate { settings, running, starts, now }
    }

    /// What holds jobs of this turn. A pause does not hold those that ran and lost their host: what runs is to go on.
    pub fn hold(&self, turn: Turn) -> Option<Hold> {
        if self.settings.paused && turn != Turn::Recovering {
            return Some(Hold::Paused);
        }
        if let Some(cap) = self.settings.concurrency.filter(|cap| self.running >= *cap) {
            return Some(Hold::Full { running: self.running, cap });
        }
        let rate = self.settings.rate?;
        let next_at = match self.starts {
            Ok(left) if left > 0 => return None,
            // All that it left is given away in this very round.
            Ok(_) => self.now + rate.per,
            Err(next_at) => next_at,
        };
        Some(Hold::Rate { rate, next_at })
    }

    pub(super) fn take(&mut self) {
        self.running = self.running.saturating_add(1);
        if let Ok(left) = &mut self.starts {
            *left = left.saturating_sub(1);
        }
    }
}

/// Keys as they fill up in the course of one round.
pub(super) struct Keys<'a> {
    state: &'a State,
    running: BTreeMap<(&'a Namespace, &'a CompactString), u32>,
}

impl<'a> Keys<'a> {
    pub fn of(state: &'a State) -> Keys<'a> {
        Keys { state, running: BTreeMap::new() }
    }

    pub fn running(&mut self, namespace: &'a Namespace, key: &'a CompactString) -> &mut u32 {
        let known = || self.state.running().with_key(namespace, key);
        self.running.entry((namespace, key)).or_insert_with(known)
    }
}

/// What holds a key.
pub(super) fn key_hold(with: &Concurrency, running: u32) -> Option<Hold> {
    let Concurrency { key, limit } = with;
    (running >= *limit).then(|| Hold::Key { key: key.clone(), running, limit: *limit })
}

/// What holds a job that waits.
pub fn hold(state: &State, job: &Job, now: Timestamp) -> Option<Hold> {
    let by_key = |with: &Concurrency| key_hold(with, state.running().with_key(&job.namespace, &with.key));
    let of_queue = Gate::of(state, &job.queue(), now).hold(job.turn());
    of_queue.or_else(|| job.spec.concurrency.as_deref().and_then(by_key))
}

/// Since when the one of a queue's jobs has been ready that has been so the longest of those that nothing here holds.
pub fn longest_ready(state: &State, id: &QueueId, lines: &Lines, now: Timestamp) -> Option<Timestamp> {
    let gate = Gate::of(state, id, now);
    let free = |with: &Concurrency| key_hold(with, state.running().with_key(&id.0, &with.key)).is_none();
    let open = [Turn::Recovering, Turn::Waiting].into_iter().filter(|turn| gate.hold(*turn).is_none());
    let rungs = open.flat_map(|turn| lines.shapes(turn)).flat_map(|(_, rungs)| rungs);
    let lines = rungs.filter(|(rung, _)| rung.concurrency.as_deref().is_none_or(free)).map(|(_, line)| line);
    lines.filter_map(|line| line.first()).map(|(ready_at, _)| *ready_at).filter(|ready_at| *ready_at <= now).min()
}
