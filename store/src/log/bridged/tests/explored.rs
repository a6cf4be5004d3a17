//! Random schedules over the whole protocol: two schedulers with the machines that run, one stream, one bridge, and
//! everything that may come late, twice or never. After each step the promise is checked; at the end all is healed.

use crate::bridge::BridgeError;
use crate::frame::{Batch, ChainHash, FrameSealer, Place, open_header};
use crate::log::bridged::{Bridging, Inherited, Input, Output, Step};
use crate::log::{AppendError, Stored};
use crate::seal::Key;
use bytes::Bytes;
use outlive_schemas::event::{Envelope, Event, TermStarted};
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::time::{Millis, Timestamp};
use std::collections::BTreeMap;

const SCHEDULERS: usize = 2;
const STEPS: usize = 400;
/// Publishes on their way at once.
const PUBLISHES_MAX: usize = 6;

/// Deliberate bugs, to see that the checks bite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    NoGuard,
    NoBarrier,
    NoDrain,
    LowTerm,
}

/// A small generator that needs no crate and gives the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// A scheduler on its way to its barrier.
struct Elected {
    term: u64,
    read: Vec<Bytes>,
    inherited: Inherited,
    asked: Option<Stored>,
}

struct Active {
    term: u64,
    machine: Bridging,
    chain: ChainHash,
    last: u64,
    /// An append of the leader's is not answered yet.
    waiting: bool,
    /// What is on its way to the stream.
    asked: Option<Stored>,
}

enum Scheduler {
    Out,
    Elected(Elected),
    Active(Active),
}

struct World {
    dice: Dice,
    bug: Bug,
    key: Key,
    now: Timestamp,
    serial: u64,
    stream: Vec<Bytes>,
    up: bool,
    leader: u64,
    bridge: BTreeMap<u64, Bytes>,
    /// Publishes that may still land, however late.
    publishes: Vec<Stored>,
    /// Puts on their way: by which scheduler, in which term.
    puts: Vec<(usize, u64, Stored)>,
    /// Removals on their way, by term.
    removals: Vec<(u64, u64)>,
    schedulers: Vec<Scheduler>,
    released: BTreeMap<u64, Bytes>,
}

fn chain_of(bodies: &[Bytes]) -> ChainHash {
    bodies.iter().fold(ChainHash::START, |chain, body| chain.then(body))
}

fn term_of(body: &Bytes) -> u64 {
    open_header(body, Sequence(0)).expect("a commit").term.0
}

impl World {
    fn new(seed: u64, bug: Bug, key: &Key) -> World {
        World {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            bug,
            key: key.clone(),
            now: Timestamp(1),
            serial: 0,
            stream: Vec::new(),
            up: true,
            leader: 0,
            bridge: BTreeMap::new(),
            publishes: Vec::new(),
            puts: Vec::new(),
            removals: Vec::new(),
            schedulers: (0..SCHEDULERS).map(|_| Scheduler::Out).collect(),
            released: BTreeMap::new(),
        }
    }

    /// A commit that no other is equal to.
    fn commit(&mut self, term: u64, end: u64, previous: ChainHash) -> Stored {
        self.serial += 1;
        let mut batch = Batch::default();
        let (scheduler, zone) = ("s".parse().expect("a name"), "a".parse().expect("a zone"));
        let event = Event::TermStarted(TermStarted { term: Term(term), scheduler, zone, version: "1".into() });
        batch.push(&Envelope { at: Timestamp(self.serial), by: None, event });
        let place = Place { shard: 0, expected: Sequence(end), term: Term(term), previous };
        let sealed = FrameSealer::new(&self.key).seal(place, &batch).expect("sealed");
        Stored { seq: Sequence(end + 1), body: sealed.body }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now = self.now + Millis(self.dice.below(200));
        let who = self.dice.below(SCHEDULERS as u64) as usize;
        match self.dice.below(24) {
            0 => self.up = !self.dice.one_in(3),
            1 if self.dice.one_in(4) => self.elect(who),
            2 if self.dice.one_in(12) => self.schedulers[who] = Scheduler::Out,
            3..6 => self.land(),
            6..10 => self.put_lands()?,
            10 => self.remove(),
            _ => self.act(who)?,
        }
        self.check()
    }

    /// Anybody may be elected at any moment; whoever led may not know.
    fn elect(&mut self, who: usize) {
        self.leader += 1;
        let known = self.dice.below(self.stream.len() as u64 + 1) as usize;
        let bridge = if self.bug == Bug::NoDrain { BTreeMap::new() } else { self.bridge.clone() };
        let bridge = bridge.into_iter().map(|(seq, body)| Stored { seq: Sequence(seq), body });
        let read = self.stream[..known].to_vec();
        let elected = Elected { term: self.leader, read, inherited: Inherited::new(bridge), asked: None };
        self.schedulers[who] = Scheduler::Elected(elected);
    }

    /// A publish arrives; copies of it may arrive again.
    fn land(&mut self) {
        if !self.up || self.publishes.is_empty() {
            return;
        }
        let index = self.dice.below(self.publishes.len() as u64) as usize;
        let stored = self.publishes[index].clone();
        if !self.dice.one_in(4) {
            self.publishes.swap_remove(index);
        }
        if stored.seq.0 == self.stream.len() as u64 + 1 {
            self.stream.push(stored.body);
        }
    }

    fn publish(&mut self, commit: Stored) {
        if self.publishes.len() < PUBLISHES_MAX {
            self.publishes.push(commit);
        }
    }

    /// A put arrives, or only its time-out, and then it may arrive later.
    fn put_lands(&mut self) -> Result<(), String> {
        if self.puts.is_empty() {
            return Ok(());
        }
        let index = self.dice.below(self.puts.len() as u64) as usize;
        let (who, term, commit) = self.puts[index].clone();
        let unanswered = || Err(BridgeError::Unavailable { reason: "lost".to_owned() });
        let at = commit.seq;
        let result = if self.dice.one_in(5) {
            unanswered()
        } else {
            self.puts.swap_remove(index);
            let done = self.put(term, commit);
            if self.dice.one_in(6) { unanswered() } else { done }
        };
        let mut out = Vec::new();
        if let Scheduler::Active(active) = &mut self.schedulers[who]
            && active.term == term
        {
            active.machine.input(Input::Bridged { at, result }, self.now, &mut out);
        }
        self.perform(who, out)
    }

    fn put(&mut self, term: u64, commit: Stored) -> Result<(), BridgeError> {
        match self.bridge.get(&commit.seq.0) {
            Some(found) if *found == commit.body => Ok(()),
            Some(_) => Err(BridgeError::Occupied { at: commit.seq }),
            None if self.leader == term || self.bug == Bug::NoGuard => {
                self.bridge.insert(commit.seq.0, commit.body);
                Ok(())
            }
            None => Err(BridgeError::Deposed { term: Term(term) }),
        }
    }

    fn remove(&mut self) {
        if !self.removals.is_empty() {
            let index = self.dice.below(self.removals.len() as u64) as usize;
            let (term, seq) = self.removals.swap_remove(index);
            if self.leader == term && !self.dice.one_in(5) {
                self.bridge.remove(&seq);
            }
        }
    }

    fn act(&mut self, who: usize) -> Result<(), String> {
        match std::mem::replace(&mut self.schedulers[who], Scheduler::Out) {
            Scheduler::Out => Ok(()),
            Scheduler::Elected(elected) => {
                self.schedulers[who] = self.begin(elected)?;
                Ok(())
            }
            Scheduler::Active(active) => self.lead(who, active),
        }
    }

    fn barrier_is_in(&mut self, elected: &Elected) -> Scheduler {
        self.removals.extend(elected.inherited.positions().map(|at| (elected.term, at.0)));
        let last = elected.read.len() as u64;
        Scheduler::Active(Active {
            term: elected.term,
            machine: Bridging::after_barrier(Sequence(last)),
            chain: chain_of(&elected.read),
            last,
            waiting: false,
            asked: None,
        })
    }

    /// One step on the way to the barrier.
    fn begin(&mut self, mut elected: Elected) -> Result<Scheduler, String> {
        let end = elected.read.len();
        if let Some(commit) = elected.asked.clone() {
            let Some(found) = self.stream.get(commit.seq.0 as usize - 1).filter(|_| self.dice.one_in(2)) else {
                self.publish(commit);
                return Ok(Scheduler::Elected(elected));
            };
            // The answer is definite by now.
            elected.asked = None;
            if *found == commit.body {
                elected.read.push(commit.body.clone());
                if term_of(&commit.body) == elected.term {
                    return Ok(self.barrier_is_in(&elected));
                }
            }
        } else if let Some(body) = self.stream.get(end) {
            if term_of(body) > elected.term && self.bug != Bug::LowTerm {
                return Ok(Scheduler::Out);
            }
            elected.read.push(body.clone());
        } else {
            let chain = chain_of(&elected.read);
            let chain_at = |seq: Sequence| elected.read.get(..seq.0 as usize).map(chain_of);
            match elected.inherited.next(Sequence(end as u64), chain_at) {
                Step::Append(commit) => elected.asked = Some(commit),
                Step::Done if self.bug == Bug::NoBarrier => return Ok(self.barrier_is_in(&elected)),
                Step::Done => elected.asked = Some(self.commit(elected.term, end as u64, chain)),
                Step::ReadUpTo(seq) => return Err(format!("the bridge goes on after {seq}, the log ends at {end}")),
                Step::Lost(lost) => return Err(lost.to_string()),
            }
        }
        Ok(Scheduler::Elected(elected))
    }

    /// One step of a leader: it appends, its time passes, or the stream answers.
    fn lead(&mut self, who: usize, mut active: Active) -> Result<(), String> {
        let mut out = Vec::new();
        match self.dice.below(6) {
            0 | 1 if !active.waiting => {
                let commit = self.commit(active.term, active.last, active.chain);
                let expected = Sequence(active.last);
                active.waiting = true;
                (active.last, active.chain) = (commit.seq.0, active.chain.then(&commit.body));
                active.machine.input(Input::Append { expected, body: commit.body }, self.now, &mut out);
            }
            2 => active.machine.tick(self.now, &mut out),
            _ => {
                if let Some(commit) = active.asked.take() {
                    let at = commit.seq;
                    match self.stream.get(at.0 as usize - 1) {
                        Some(body) => {
                            let result = if *body == commit.body { Ok(()) } else { Err(AppendError::Conflict { at }) };
                            active.machine.input(Input::Streamed { at, result }, self.now, &mut out);
                        }
                        None => {
                            active.asked = Some(commit.clone());
                            self.publish(commit);
                        }
                    }
                }
            }
        }
        self.schedulers[who] = Scheduler::Active(active);
        self.perform(who, out)
    }

    fn perform(&mut self, who: usize, out: Vec<Output>) -> Result<(), String> {
        for output in out {
            let Scheduler::Active(active) = &mut self.schedulers[who] else { return Ok(()) };
            match output {
                Output::ToStream(commit) => {
                    active.asked = Some(commit.clone());
                    self.publish(commit);
                }
                Output::ToBridge(commit) => self.puts.push((who, active.term, commit)),
                Output::FromBridge(at) => self.removals.push((active.term, at.0)),
                Output::Appended { at, result: Ok(()) } => {
                    active.waiting = false;
                    let body = self.holds(at.0).ok_or(format!("released at {at}, which is in neither place"))?;
                    let before = self.released.insert(at.0, body.clone());
                    if before.is_some_and(|before| before != body) {
                        return Err(format!("another commit was released at {at}"));
                    }
                }
                Output::Appended { result: Err(_), .. } => {}
                Output::Over(_) => self.schedulers[who] = Scheduler::Out,
            }
        }
        Ok(())
    }

    /// The logical log: the stream, and then the bridge.
    fn holds(&self, seq: u64) -> Option<Bytes> {
        self.stream.get(seq as usize - 1).or_else(|| self.bridge.get(&seq)).cloned()
    }

    fn check(&self) -> Result<(), String> {
        for (seq, body) in &self.released {
            if self.holds(*seq).as_ref() != Some(body) {
                return Err(format!("what was released at {seq} is gone"));
            }
        }
        // What an earlier leader released is drained under its own term, before the next barrier.
        let terms: Vec<u64> = self.stream.iter().map(term_of).collect();
        if terms.is_sorted() { Ok(()) } else { Err(format!("terms fall in the log: {terms:?}")) }
    }

    /// Everything works again and one is elected: all that was released stands in the stream in the end.
    fn heal(&mut self) -> Result<(), String> {
        self.up = true;
        self.schedulers = (0..SCHEDULERS).map(|_| Scheduler::Out).collect();
        self.elect(0);
        for _ in 0..2_000 {
            self.land();
            self.act(0)?;
            self.check()?;
            match self.schedulers[0] {
                Scheduler::Active(_) => {
                    let missing: Vec<_> = self.released.keys().filter(|seq| **seq > self.stream.len() as u64).collect();
                    return if missing.is_empty() { Ok(()) } else { Err(format!("not drained: {missing:?}")) };
                }
                Scheduler::Out => self.elect(0),
                Scheduler::Elected(_) => {}
            }
        }
        Err("nobody came to lead".to_owned())
    }
}

/// Runs a seed. Also says for how many steps some commit was in the bridge alone.
fn run(seed: u64, bug: Bug, key: &Key) -> Result<u64, String> {
    let mut world = World::new(seed, bug, key);
    let mut bridged = 0;
    for step in 0..STEPS {
        world.step().map_err(|what| format!("seed {seed}, step {step}: {what}"))?;
        bridged += u64::from(world.bridge.keys().any(|seq| *seq > world.stream.len() as u64));
    }
    world.heal().map_err(|what| format!("seed {seed}, healing: {what}"))?;
    Ok(bridged)
}

#[test]
fn nothing_released_is_ever_lost() {
    let key = Key::generate();
    let mut bridged = 0;
    for seed in 1..=5_000 {
        bridged += run(seed, Bug::None, &key).unwrap_or_else(|what| panic!("{what}"));
    }
    assert!(bridged > 30_000, "the bridge was hardly used: in {bridged} steps");
}

#[test]
fn each_deliberate_bug_is_found() {
    let key = Key::generate();
    for bug in [Bug::NoGuard, Bug::NoBarrier, Bug::NoDrain, Bug::LowTerm] {
        let found = (1..=3_000).find_map(|seed| run(seed, bug, &key).err());
        eprintln!("{bug:?}: {}", found.unwrap_or_else(|| panic!("{bug:?} is not found")));
    }
}
