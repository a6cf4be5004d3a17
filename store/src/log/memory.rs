//! The log in memory, for tests and simulations: the same contract, and every fault on demand.
//!
//! It is a server and its clients in one: appends go through the same steps as over a network (publish, answer lost
//! or not, again, settle), so that what a fault breaks is broken in the same place. It reads no clock and draws no
//! random numbers: whoever injects faults decides when each begins and ends. Handles are clones of one log.

use super::{AppendError, CommitLog, Extent, ReadError, Stored};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use outlive_schemas::id::Sequence;
use outlive_schemas::limits::COMMIT_SEALED_BYTES_MAX;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Messages that a follower may leave unread before it misses some, as a slow NATS subscriber would.
const TAIL_QUEUE_MAX: usize = 65_536;
/// Messages in one read, as over JetStream.
const READ_MESSAGES_MAX: usize = 4_000;

/// A handle on a log that lives as long as any handle does.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    server: Mutex<Server>,
    /// Told whenever something that an append may be waiting for has changed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Server {
    messages: VecDeque<Bytes>,
    /// How many were purged from the front.
    purged: u64,
    /// Positions by message id, until the window for duplicates ends.
    known: HashMap<blake3::Hash, Sequence>,
    tails: Vec<mpsc::Sender<Stored>>,
    faults: Faults,
}

#[derive(Debug, Default)]
struct Faults {
    unavailable: bool,
    lost_acks: usize,
    lost_publishes: usize,
    delayed_copies: usize,
    delayed: Vec<(Sequence, Bytes)>,
    reads_end: Option<Sequence>,
    bytes_max: Option<u64>,
}

/// What the client hears of one publish.
enum Answer {
    Stored,
    Duplicate,
    WrongLastSequence,
    Full,
    /// It was lost on its way, there or back.
    Nothing,
    Unavailable,
}

impl MemoryLog {
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }

    /// Whether the log answers. While it does not, appends wait and reads fail.
    pub fn set_available(&self, available: bool) {
        self.server().faults.unavailable = !available;
        self.shared.changed.notify_waiters();
    }

    /// The next `count` appends are stored and their acknowledgements lost; each is sent again.
    pub fn lose_acks(&self, count: usize) {
        self.server().faults.lost_acks = count;
    }

    /// The next `count` publishes do not arrive; each is sent again.
    pub fn lose_publishes(&self, count: usize) {
        self.server().faults.lost_publishes = count;
    }

    /// Of the next `count` publishes a copy stays on its way until [`MemoryLog::deliver_delayed`].
    pub fn delay_copies(&self, count: usize) {
        self.server().faults.delayed_copies = count;
    }

    /// The copies arrive, in the order they were sent. Returns how many were stored: with a whole fence, none that
    /// has been stored before, and none behind another writer's message.
    pub fn deliver_delayed(&self) -> usize {
        let mut server = self.server();
        let delayed = std::mem::take(&mut server.faults.delayed);
        delayed.into_iter().filter(|(expected, body)| matches!(server.store(*expected, body), Answer::Stored)).count()
    }

    /// Message ids are forgotten, as after the duplicate window.
    pub fn forget_message_ids(&self) {
        self.server().known.clear();
    }

    /// A conflicting writer appends at whatever the end is.
    pub fn intrude(&self, body: Bytes) -> Sequence {
        self.server().push(body)
    }

    /// Readers see nothing above this, as on a replica that is behind; `None`: everything.
    pub fn set_reads_end(&self, last: Option<Sequence>) {
        self.server().faults.reads_end = last;
    }

    /// More bytes than this are refused; `None`: no limit.
    pub fn set_bytes_max(&self, max: Option<u64>) {
        self.server().faults.bytes_max = max;
    }

    /// Acknowledged messages above `last` are gone, as after a power cut without fsync.
    pub fn lose_tail(&self, last: Sequence) {
        let mut server = self.server();
        let kept = last.0.saturating_sub(server.purged) as usize;
        server.messages.truncate(kept);
        server.known.retain(|_, seq| *seq <= last);
    }

    /// What stands at `seq` becomes something else, as on a damaged disk.
    pub fn replace(&self, seq: Sequence, body: Bytes) {
        let mut server = self.server();
        if let Some(index) = server.index(seq) {
            server.messages[index] = body;
        }
    }

    /// Everything that is stored, past all faults.
    pub fn contents(&self) -> Vec<Stored> {
        let server = self.server();
        (server.purged + 1..)
            .zip(&server.messages)
            .map(|(seq, body)| Stored { seq: Sequence(seq), body: body.clone() })
            .collect()
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        // Every change is complete before anything can panic.
        self.shared.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reachable(&self) -> Result<MutexGuard<'_, Server>, ReadError> {
        let server = self.server();
        match server.faults.unavailable {
            false => Ok(server),
            true => Err(ReadError::Unavailable { reason: "the log in memory was made unavailable".to_owned() }),
        }
    }
}

impl Server {
    fn last(&self) -> Sequence {
        Sequence(self.purged + self.messages.len() as u64)
    }

    fn first(&self) -> Sequence {
        Sequence(self.purged + 1)
    }

    fn index(&self, seq: Sequence) -> Option<usize> {
        let index = seq.0.checked_sub(self.purged + 1)? as usize;
        (index < self.messages.len()).then_some(index)
    }

    fn bytes(&self) -> u64 {
        self.messages.iter().map(|body| body.len() as u64).sum()
    }

    /// One publish, with everything that may happen to it.
    fn publish(&mut self, expected: Sequence, body: &Bytes) -> Answer {
        if self.faults.unavailable {
            return Answer::Unavailable;
        }
        if spend(&mut self.faults.delayed_copies) {
            self.faults.delayed.push((expected, body.clone()));
        }
        if spend(&mut self.faults.lost_publishes) {
            return Answer::Nothing;
        }
        let answer = self.store(expected, body);
        match answer {
            Answer::Stored if spend(&mut self.faults.lost_acks) => Answer::Nothing,
            _ => answer,
        }
    }

    /// What a server does with a publish: known ids come before the sequence, and the sequence before the limits.
    fn store(&mut self, expected: Sequence, body: &Bytes) -> Answer {
        let id = blake3::hash(body);
        if self.known.contains_key(&id) {
            return Answer::Duplicate;
        }
        if self.last() != expected {
            return Answer::WrongLastSequence;
        }
        if self.faults.bytes_max.is_some_and(|max| self.bytes() + body.len() as u64 > max) {
            return Answer::Full;
        }
        let seq = self.push(body.clone());
        self.known.insert(id, seq);
        Answer::Stored
    }

    fn push(&mut self, body: Bytes) -> Sequence {
        self.messages.push_back(body.clone());
        let seq = self.last();
        // A full queue drops the message; a tail may skip. One that nobody reads any more is let go of.
        self.tails.retain_mut(
            |tail| !matches!(tail.try_send(Stored { seq, body: body.clone() }), Err(e) if e.is_disconnected()),
        );
        seq
    }
}

/// Takes one from a fault's count.
fn spend(count: &mut usize) -> bool {
    let some = *count > 0;
    *count -= usize::from(some);
    some
}

#[async_trait]
impl CommitLog for MemoryLog {
    async fn append(&self, expected: Sequence, body: Bytes) -> Result<(), AppendError> {
        if body.len() > COMMIT_SEALED_BYTES_MAX {
            let reason = format!("{} bytes are over the limit of {COMMIT_SEALED_BYTES_MAX}", body.len());
            return Err(AppendError::Refused { reason });
        }
        let at = expected.next();
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // From here on no change goes unnoticed, even one before the first poll.
            changed.as_mut().enable();
            let answer = self.server().publish(expected, &body);
            match answer {
                Answer::Stored => return Ok(()),
                Answer::Full => {
                    return Err(AppendError::Refused { reason: "maximum bytes exceeded: the log is full".to_owned() });
                }
                Answer::Nothing => tokio::task::yield_now().await,
                Answer::Unavailable => changed.await,
                Answer::Duplicate | Answer::WrongLastSequence => {
                    let server = self.server();
                    let Some(index) = server.index(at) else {
                        let last = server.last();
                        if last >= at {
                            // Appended beyond and let go of since: certainly by others.
                            return Err(AppendError::Conflict { at });
                        }
                        let reason = format!("the log ends at {last}, before {expected}: it has lost commits");
                        return Err(AppendError::Refused { reason });
                    };
                    let ours = server.messages[index] == body;
                    return if ours { Ok(()) } else { Err(AppendError::Conflict { at }) };
                }
            }
        }
    }

    async fn read(&self, from: Sequence, max_bytes: usize) -> Result<Vec<Stored>, ReadError> {
        let server = self.reachable()?;
        let from = from.max(Sequence(1));
        if from < server.first() && !server.messages.is_empty() {
            return Err(ReadError::Purged { wanted: from, first: server.first() });
        }
        let end = server.faults.reads_end.unwrap_or(Sequence(u64::MAX));
        let mut found: Vec<Stored> = Vec::new();
        let mut bytes = 0;
        for seq in (from.0..).map(Sequence).take_while(|seq| *seq <= end).take(READ_MESSAGES_MAX) {
            let Some(index) = server.index(seq) else { break };
            let body = server.messages[index].clone();
            bytes += body.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(Stored { seq, body });
        }
        Ok(found)
    }

    async fn extent(&self) -> Result<Extent, ReadError> {
        let server = self.reachable()?;
        let last = server.faults.reads_end.map_or(server.last(), |end| end.min(server.last()));
        Ok(Extent { first: server.first(), last, bytes: server.bytes() })
    }

    async fn purge_below(&self, first: Sequence) -> Result<(), ReadError> {
        let mut server = self.reachable()?;
        while server.first() < first && server.messages.len() > 1 {
            server.messages.pop_front();
            server.purged += 1;
        }
        Ok(())
    }

    async fn tail(&self) -> Result<BoxStream<'static, Stored>, ReadError> {
        let (tail, stored) = mpsc::channel(TAIL_QUEUE_MAX);
        self.reachable()?.tails.push(tail);
        Ok(stored.boxed())
    }
}

#[cfg(test)]
mod tests;
