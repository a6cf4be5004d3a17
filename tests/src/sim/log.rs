//! The stream as its clients see it: known ids first, then the expected sequence; answers that get lost; replicas that
//! are behind; elections during which nothing is taken; publishes that land long after.
//!
//! The same rules as `store::log::memory`, but every step is an event of its own.

use super::env::{Env, MS, Micros, Node, say};
use super::network::Message;
use super::sabotage::Sabotage;
use bytes::Bytes;
use outlive_schemas::id::Sequence;
use outlive_store::log::Stored;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub enum LogRequest {
    Append { expected: Sequence, body: Bytes },
    Read { from: Sequence },
    Extent,
}

#[derive(Clone, Debug)]
pub enum LogReply {
    Stored,
    /// Known already, or the sequence is not the expected one: what stands there decides.
    Settle,
    NoResponders,
    Messages(Vec<Stored>),
    Extent(Sequence),
}

#[derive(Debug, Default)]
pub struct LogServer {
    pub messages: Vec<Bytes>,
    known: BTreeMap<[u8; 32], Sequence>,
    /// While it elects, or is down.
    pub closed: bool,
    /// Until then who was elected still reads what it holds, and says that the log ends before it does.
    pub reading_until: Micros,
    /// The most that the disk adds to an answer.
    pub slow: Micros,
    /// How far replicas may be behind when they are asked.
    pub lag: u64,
}

/// Messages in one answer: few, so that reading takes several.
const READ_MAX: usize = 64;
/// How long who was elected reads at most, and of how many messages it does not know yet.
const READING_MAX: Micros = 1_500 * MS;
const UNREAD_MAX: u64 = 8;

impl LogServer {
    pub fn last(&self) -> Sequence {
        Sequence(self.messages.len() as u64)
    }

    /// What stands at a position.
    pub fn get(&self, seq: Sequence) -> Option<&Bytes> {
        self.messages.get(seq.0.checked_sub(1)? as usize)
    }

    pub fn forget_ids(&mut self) {
        self.known.clear();
    }

    /// Acknowledged commits are gone.
    pub fn lose_tail(&mut self, last: Sequence) {
        self.messages.truncate(last.0 as usize);
        self.known.retain(|_, seq| *seq <= last);
    }
}

/// Somebody is elected, who has to read first.
pub fn open_again(env: &mut Env) {
    env.log.closed = false;
    env.log.reading_until = env.now + env.chance.below(READING_MAX);
}

pub fn serve(env: &mut Env, from: Node, request: LogRequest) -> Option<LogReply> {
    let reads = env.now < env.log.reading_until;
    match request {
        LogRequest::Append { .. } if env.log.closed || reads => env.chance.coin().then_some(LogReply::NoResponders),
        LogRequest::Append { expected, body } => Some(append(env, from, expected, body)),
        LogRequest::Read { from } => {
            let lag = if reads { env.log.lag.max(UNREAD_MAX) } else { env.log.lag };
            let behind = if lag > 0 { env.chance.below(lag + 1) } else { 0 };
            let end = env.log.last().0.saturating_sub(behind);
            let found = (from.0.max(1)..=end)
                .take(READ_MAX)
                .map(|seq| Stored { seq: Sequence(seq), body: env.log.messages[seq as usize - 1].clone() });
            Some(LogReply::Messages(found.collect()))
        }
        // Answered by the stream's leader.
        LogRequest::Extent if env.log.closed => None,
        LogRequest::Extent => {
            let unread = if reads { env.chance.below(UNREAD_MAX) } else { 0 };
            Some(LogReply::Extent(Sequence(env.log.last().0.saturating_sub(unread))))
        }
    }
}

/// What follows on the log's end.
pub fn put(env: &mut Env, body: Bytes) -> Stored {
    env.log.messages.push(body.clone());
    let seq = env.log.last();
    env.log.known.insert(blake3::hash(&body).into(), seq);
    let stored = Stored { seq, body };
    super::checkers::stored(env, &stored);
    stored
}

fn append(env: &mut Env, from: Node, expected: Sequence, body: Bytes) -> LogReply {
    let id: [u8; 32] = blake3::hash(&body).into();
    if env.log.known.contains_key(&id) {
        return LogReply::Settle;
    }
    if env.log.last() != expected && !env.is(Sabotage::FenceOff) {
        return LogReply::Settle;
    }
    let stored = put(env, body);
    say!(env, "log         {from}'s commit {} is stored", stored.seq);
    // Republished to whoever follows, at most once.
    for node in env.net.nodes() {
        if let Node::Scheduler(_) = node
            && env.net.log_reaches(node)
        {
            let copies = env.net.weather.copies(&mut env.chance);
            for delay in copies {
                let message = Message::Tail(stored.clone());
                env.after(delay, super::env::Event::Arrives { from, to: node, message });
            }
        }
    }
    LogReply::Stored
}
