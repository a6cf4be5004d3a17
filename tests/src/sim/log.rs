//! The stream as its clients see it: known ids first, then the expected sequence; answers that get lost; replicas that
//! are behind; elections during which nothing is taken; publishes that land long after.
//!
//! The same rules as `store::log::memory`, but every step is an event of its own.

use super::env::{Env, Micros, Node, say};
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
    /// The most that the disk adds to an answer.
    pub slow: Micros,
    /// How far replicas may be behind when they are asked.
    pub lag: u64,
}

/// Messages in one answer: few, so that reading takes several.
const READ_MAX: usize = 64;

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

pub fn serve(env: &mut Env, from: Node, request: LogRequest) -> Option<LogReply> {
    match request {
        LogRequest::Append { .. } if env.log.closed => env.chance.coin().then_some(LogReply::NoResponders),
        LogRequest::Append { expected, body } => Some(append(env, from, expected, body)),
        LogRequest::Read { from } => {
            let behind = if env.log.lag > 0 { env.chance.below(env.log.lag + 1) } else { 0 };
            let end = env.log.last().0.saturating_sub(behind);
            let found = (from.0.max(1)..=end)
                .take(READ_MAX)
                .map(|seq| Stored { seq: Sequence(seq), body: env.log.messages[seq as usize - 1].clone() });
            Some(LogReply::Messages(found.collect()))
        }
        // Answered by the stream's leader.
        LogRequest::Extent if env.log.closed => None,
        LogRequest::Extent => Some(LogReply::Extent(env.log.last())),
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
