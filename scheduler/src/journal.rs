//! decide → fold → group commit → release.
//!
//! Every command's events are folded at once, so that the next command sees them; but nothing that follows from them
//! leaves this machine before the commit that holds them is durable. While one commit is on its way the next one
//! fills: load makes commits larger, not more frequent.

use crate::dispatch::Orders;
use crate::leader::Output;
use bytes::Bytes;
use outlive_core::decide::{Refusal, decide};
use outlive_core::fold::{FoldError, fold};
use outlive_core::state::State;
use outlive_schemas::command::Command;
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::job::{Driver, JobSpec};
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;
use outlive_store::frame::{Batch, ChainHash, FrameSealer, Place, SealError};
use outlive_store::witness::Witness;
use std::collections::VecDeque;

/// There is one shard; its number is in every frame so that a second needs no migration.
pub const SHARD: u32 = 0;
/// Commits that may wait behind the one in flight. Beyond it the leader takes no more in.
const FILLING_MAX: usize = 16;

/// A commit that is being filled, and what it sets free.
#[derive(Debug, Default)]
struct Filling {
    batch: Batch,
    held_back: HeldBack,
}

/// What leaves once a commit is durable.
#[derive(Debug, Default)]
struct HeldBack {
    outputs: Vec<Output>,
    orders: Orders,
}

/// The commit on its way.
#[derive(Debug)]
struct InFlight {
    chain: ChainHash,
    events: usize,
    since: Timestamp,
    held_back: HeldBack,
}

/// A sealed commit for the log.
#[derive(Debug)]
pub struct Append {
    pub expected: Sequence,
    pub body: Bytes,
}

/// A commit that has become durable.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    pub seq: Sequence,
    pub events: usize,
    pub took_ms: u64,
}

pub struct Journal {
    state: State,
    sealer: FrameSealer,
    term: Term,
    acked: Sequence,
    /// The chain's end at `acked`, and at the newest sealed commit.
    acked_chain: ChainHash,
    in_flight: Option<InFlight>,
    filling: VecDeque<Filling>,
}

impl Journal {
    /// Goes on from a state folded up to `acked`, the barrier of this term.
    pub fn new(state: State, sealer: FrameSealer, term: Term, acked: Sequence, chain: ChainHash) -> Journal {
        Journal { state, sealer, term, acked, acked_chain: chain, in_flight: None, filling: VecDeque::new() }
    }

    /// What has been decided, durable or not. Answers made from it are held back by [`Journal::hold_back`].
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The end of what is durable.
    pub fn acked(&self) -> Sequence {
        self.acked
    }

    pub fn witness(&self) -> Witness {
        Witness { seq: self.acked, chain: self.acked_chain }
    }

    /// Since when a commit is on its way, if one is.
    pub fn append_since(&self) -> Option<Timestamp> {
        self.in_flight.as_ref().map(|in_flight| in_flight.since)
    }

    /// Commits that wait behind the one on its way.
    pub fn commits_waiting(&self) -> usize {
        self.filling.len()
    }

    /// Whether more may be proposed now.
    pub fn has_room(&self) -> bool {
        self.filling.len() < FILLING_MAX
    }

    /// Decides a command, folds what follows and puts it into the commit being filled. Returns the events.
    pub fn propose(&mut self, command: Command, now: Timestamp) -> Result<Vec<Envelope>, ProposeError> {
        let events = decide(&self.state, command, now).map_err(ProposeError::Refused)?;
        if events.is_empty() {
            return Ok(events);
        }
        self.make_room(events.len(), events.iter().map(event_bytes).sum());
        let seq = self.filling_seq();
        let filling = self.filling.back_mut().expect("make_room leaves a commit to fill");
        for envelope in &events {
            fold(&mut self.state, seq, envelope).map_err(ProposeError::Broken)?;
            filling.batch.push(envelope);
        }
        Ok(events)
    }

    /// The position of the commit that is being filled.
    fn filling_seq(&self) -> Sequence {
        Sequence(self.acked.0 + u64::from(self.in_flight.is_some()) + self.filling.len() as u64)
    }

    /// Begins another commit where the events would make the present one too large. Events of one command are never
    /// parted: they happen together or not at all.
    fn make_room(&mut self, events: usize, bytes: usize) {
        let fits = self.filling.back().is_some_and(|filling| {
            filling.batch.is_empty()
                || (filling.batch.events() + events <= limits::COMMIT_EVENTS_MAX
                    && filling.batch.bytes() + bytes <= limits::COMMIT_BYTES_MAX)
        });
        if !fits {
            self.filling.push_back(Filling::default());
        }
    }

    /// Lets an output go once all that has been decided so far is durable; now, where it is.
    pub fn hold_back(&mut self, output: Output, out: &mut Vec<Output>) {
        match self.last_held_back() {
            Some(held_back) => held_back.outputs.push(output),
            None => out.push(output),
        }
    }

    /// The orders that leave together with the newest undecided commit, if there is one.
    pub fn orders(&mut self) -> Option<&mut Orders> {
        self.last_held_back().map(|held_back| &mut held_back.orders)
    }

    fn last_held_back(&mut self) -> Option<&mut HeldBack> {
        match self.filling.back_mut() {
            Some(filling) => Some(&mut filling.held_back),
            None => self.in_flight.as_mut().map(|in_flight| &mut in_flight.held_back),
        }
    }

    /// Seals the next commit, unless one is on its way or there is nothing to commit.
    pub fn next_append(&mut self, now: Timestamp) -> Result<Option<Append>, SealError> {
        if self.in_flight.is_some() {
            return Ok(None);
        }
        let Some(filling) = self.filling.pop_front() else { return Ok(None) };
        let place = Place { shard: SHARD, expected: self.acked, term: self.term, previous: self.acked_chain };
        let sealed = self.sealer.seal(place, &filling.batch)?;
        self.in_flight = Some(InFlight {
            chain: sealed.chain,
            events: filling.batch.events(),
            since: now,
            held_back: filling.held_back,
        });
        Ok(Some(Append { expected: self.acked, body: sealed.body }))
    }

    /// The commit in flight has become durable: sets free what waited for it.
    pub fn appended(&mut self, now: Timestamp, out: &mut Vec<Output>) -> Option<Committed> {
        let InFlight { chain, events, since, held_back } = self.in_flight.take()?;
        self.acked = self.acked.next();
        self.acked_chain = chain;
        let orders = held_back.orders.into_messages(self.term, self.acked);
        out.extend(orders.into_iter().map(|(executor, order)| Output::Order { executor, order }));
        out.extend(held_back.outputs);
        Some(Committed { seq: self.acked, events, took_ms: now.since(since).0 })
    }
}

#[derive(Debug)]
pub enum ProposeError {
    Refused(Refusal),
    /// This program has decided what it cannot fold.
    Broken(FoldError),
}

/// About how much an event adds to a commit before compression.
fn event_bytes(envelope: &Envelope) -> usize {
    let payloads = match &envelope.event {
        Event::JobSubmitted(e) => spec_bytes(&e.spec),
        Event::UpdateRequested(e) => spec_bytes(&e.spec),
        Event::ScheduleSet(e) => spec_bytes(&e.definition.spec),
        Event::JobFinished(e) => e.result.as_ref().map_or(0, |p| p.0.len()),
        _ => 0,
    };
    128 + payloads
}

fn spec_bytes(spec: &JobSpec) -> usize {
    let input = spec.input.as_ref().map_or(0, |p| p.0.len());
    let driver = match &spec.driver {
        Driver::Process(p) => {
            p.command.iter().map(String::len).sum::<usize>()
                + p.env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>()
        }
        Driver::Noop(_) => 0,
    };
    input + driver
}
