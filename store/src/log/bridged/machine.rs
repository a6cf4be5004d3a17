//! When a commit goes to the stream, when to the bridge, and when it is durable: inputs in, outputs out.
//!
//! Appends wait in a queue. Its front, and no other, is on its way to the stream, where it stays until the answer is
//! definite. While that answer is overdue, the stream is taken to have no leader, and the next one in the queue that
//! is not durable goes to the bridge; those before it are there already. So the bridge has no gaps, it follows the
//! stream's end, and a commit is durable once it is in either place. As soon as the front is acknowledged nothing
//! more goes to the bridge unless the next front is overdue as well: what the bridge holds drains before anything
//! newer is appended, and a busy leader cannot keep it full.
//!
//! No clock, no sockets, no waiting: whoever runs it says what time it is, and calls [`Bridging::tick`] when
//! [`Bridging::wake_at`] says so.

use crate::bridge::BridgeError;
use crate::log::{AppendError, Stored};
use bytes::Bytes;
use outlive_schemas::id::Sequence;
use outlive_schemas::limits::{BRIDGE_BYTES_MAX, BRIDGE_COMMITS_MAX};
use outlive_schemas::time::{Millis, Timestamp};
use std::collections::VecDeque;

/// An append without an answer for this long goes to the bridge. Appends take milliseconds, a slow disk tens of them;
/// being wrong costs one write to etcd.
pub const OVERDUE_AFTER: Millis = Millis(300);
/// Between two puts of the same commit of which the first was not answered.
pub const PUT_AGAIN_AFTER: Millis = Millis(100);
/// So many commits go to the bridge as they come…
pub const UNPACED_COMMITS: usize = 24;
/// …and the others this far apart, so that the 64 last for an election of 6 s under load. Events do not wait longer
/// for it than they would for the stream; they come together in larger commits.
pub const PACE: Millis = Millis(150);

#[derive(Debug)]
pub enum Input {
    /// The leader appends. Positions follow one another.
    Append { expected: Sequence, body: Bytes },
    /// What [`Output::ToStream`] came to; definite.
    Streamed { at: Sequence, result: Result<(), AppendError> },
    /// What [`Output::ToBridge`] came to.
    Bridged { at: Sequence, result: Result<(), BridgeError> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append to the stream until the answer is definite. Only one is under way at a time.
    ToStream(Stored),
    /// Put into the bridge, once. Only one is under way at a time.
    ToBridge(Stored),
    /// Remove from the bridge what stands in the stream by now. If that fails, the next leader does it.
    FromBridge(Sequence),
    /// An append of the leader's has come to this; in the order of the appends.
    Appended { at: Sequence, result: Result<(), AppendError> },
    /// The stream will not take what stands in the bridge: this leader is over, even if it appends nothing more.
    Over(AppendError),
}

/// Where a queued commit stands. Durable ones are always a prefix of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Waiting,
    /// It is in the bridge, and its append has been answered.
    Durable,
}

#[derive(Debug)]
struct Queued {
    commit: Stored,
    standing: Standing,
    /// It was sent to the bridge, whatever came of it.
    tried: bool,
}

/// The machine of one term. Only for a leader whose barrier stands in the stream.
#[derive(Debug)]
pub struct Bridging {
    queue: VecDeque<Queued>,
    /// The end of what has been appended, in the stream or not.
    last: Sequence,
    /// When the front was sent to the stream.
    front_since: Timestamp,
    /// The put that is under way.
    putting: Option<Sequence>,
    next_put: Timestamp,
    /// The bridge has refused this term; from here on it is the stream alone.
    shut: bool,
    over: Option<AppendError>,
}

impl Bridging {
    /// `barrier` is where this term's barrier stands in the stream: without one there is no bridging, or a later
    /// leader could miss what is put.
    pub fn after_barrier(barrier: Sequence) -> Bridging {
        Bridging {
            queue: VecDeque::new(),
            last: barrier,
            front_since: Timestamp::default(),
            putting: None,
            next_put: Timestamp::default(),
            shut: false,
            over: None,
        }
    }

    /// For a leader that has no bridge: every append waits for the stream.
    pub fn stream_alone(barrier: Sequence) -> Bridging {
        Bridging { shut: true, ..Bridging::after_barrier(barrier) }
    }

    /// What is durable, and not in the stream as far as is known; in order.
    pub fn bridged(&self) -> impl Iterator<Item = &Stored> {
        self.queue.iter().take(self.durable()).map(|queued| &queued.commit)
    }

    /// Takes one input in.
    pub fn input(&mut self, input: Input, now: Timestamp, out: &mut Vec<Output>) {
        match input {
            Input::Append { expected, body } => self.append(expected, body, now, out),
            Input::Streamed { at, result } => self.streamed(at, result, now, out),
            Input::Bridged { at, result } => self.put(at, result, now, out),
        }
        self.tick(now, out);
    }

    /// Sends the next commit to the bridge if it is time to.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.due().is_some_and(|due| due <= now)
            && let Some(next) = self.queue.get_mut(self.durable())
        {
            next.tried = true;
            self.putting = Some(next.commit.seq);
            out.push(Output::ToBridge(next.commit.clone()));
        }
    }

    /// When to call [`Bridging::tick`] if nothing else happens before.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.due()
    }

    /// When the next put is due, if one is to be.
    fn due(&self) -> Option<Timestamp> {
        if self.shut || self.over.is_some() || self.putting.is_some() {
            return None;
        }
        let durable = self.durable();
        let next = self.queue.get(durable)?;
        let bytes: usize = self.bridged().map(|commit| commit.body.len()).sum();
        if durable >= BRIDGE_COMMITS_MAX || bytes + next.commit.body.len() > BRIDGE_BYTES_MAX {
            return None;
        }
        Some((self.front_since + OVERDUE_AFTER).max(self.next_put))
    }

    fn durable(&self) -> usize {
        self.queue.iter().take_while(|queued| queued.standing == Standing::Durable).count()
    }

    fn append(&mut self, expected: Sequence, body: Bytes, now: Timestamp, out: &mut Vec<Output>) {
        let at = expected.next();
        if let Some(error) = &self.over {
            out.push(Output::Appended { at, result: Err(error.clone()) });
            return;
        }
        assert_eq!(expected, self.last, "a leader appends right after what it has appended before");
        self.last = at;
        self.queue.push_back(Queued { commit: Stored { seq: at, body }, standing: Standing::Waiting, tried: false });
        if self.queue.len() == 1 {
            self.send_front(now, out);
        }
    }

    fn send_front(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if let Some(front) = self.queue.front() {
            self.front_since = now;
            out.push(Output::ToStream(front.commit.clone()));
        }
    }

    fn streamed(&mut self, at: Sequence, result: Result<(), AppendError>, now: Timestamp, out: &mut Vec<Output>) {
        if self.over.is_some() || self.queue.front().is_none_or(|front| front.commit.seq != at) {
            return;
        }
        if let Err(error) = result {
            return self.end(error, out);
        }
        let front = self.queue.pop_front().expect("it has just been looked at");
        if front.standing == Standing::Waiting {
            out.push(Output::Appended { at, result: Ok(()) });
        }
        // A put that is still under way is removed when it is answered.
        if front.tried && self.putting != Some(at) {
            out.push(Output::FromBridge(at));
        }
        self.send_front(now, out);
    }

    fn put(&mut self, at: Sequence, result: Result<(), BridgeError>, now: Timestamp, out: &mut Vec<Output>) {
        if self.putting != Some(at) {
            return;
        }
        self.putting = None;
        self.next_put = now;
        let durable = self.durable();
        let queued = self.queue.iter_mut().find(|queued| queued.commit.seq == at);
        match (result, queued) {
            (Ok(()), Some(queued)) => {
                queued.standing = Standing::Durable;
                if durable + 1 > UNPACED_COMMITS {
                    self.next_put = now + PACE;
                }
                out.push(Output::Appended { at, result: Ok(()) });
            }
            // The stream was quicker.
            (Ok(()) | Err(BridgeError::Unavailable { .. }), None) => out.push(Output::FromBridge(at)),
            (Err(BridgeError::Unavailable { .. }), Some(_)) => self.next_put = now + PUT_AGAIN_AFTER,
            // Whether this leader is over is for the stream to say, and for its lease.
            (Err(BridgeError::Deposed { .. } | BridgeError::Refused { .. }), _) => self.shut = true,
            (Err(BridgeError::Occupied { .. }), None) => {}
            (Err(error @ BridgeError::Occupied { .. }), Some(_)) => {
                self.end(AppendError::Refused { reason: error.to_string() }, out);
            }
        }
    }

    fn end(&mut self, error: AppendError, out: &mut Vec<Output>) {
        for queued in self.queue.iter().filter(|queued| queued.standing == Standing::Waiting) {
            out.push(Output::Appended { at: queued.commit.seq, result: Err(error.clone()) });
        }
        self.over = Some(error.clone());
        out.push(Output::Over(error));
    }
}
