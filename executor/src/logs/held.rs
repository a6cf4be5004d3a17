//! Entries that wait to be stored: bounded, the oldest dropped first, and never silently.

use std::collections::VecDeque;

use outlive_schemas::id::Attempt;
use outlive_schemas::limits::LOG_HELD_BYTES_MAX;
use outlive_schemas::message::{LogEntry, LogStream};
use outlive_schemas::payload::Payload;
use outlive_schemas::time::Timestamp;

/// Text that is stored in one go, as the log store likes it; and entries.
const BATCH_BYTES_MAX: usize = 128 << 10;
const BATCH_ENTRIES_MAX: usize = 1_024;

/// What an entry takes up besides its text.
const ENTRY_BYTES: usize = 64;

/// Entries that wait.
#[derive(Debug, Default)]
pub struct Held {
    queue: VecDeque<LogEntry>,
    bytes: usize,
    dropped: Option<Dropped>,
}

/// Entries that were dropped in front of the queue.
#[derive(Clone, Debug)]
struct Dropped {
    /// The number of the first: the entry that tells of it takes its place.
    number: u64,
    attempt: Attempt,
    at: Timestamp,
    bytes: u64,
}

impl Dropped {
    fn entry(&self) -> LogEntry {
        let text = format!(
            "{} bytes of output were dropped here, for the job log could not be written and more is not held in memory\n",
            self.bytes
        );
        let text = Payload(text.into_bytes().into());
        LogEntry { at: self.at, attempt: self.attempt, number: self.number, stream: LogStream::Outlive, text }
    }
}

/// Entries that are being stored.
#[derive(Debug)]
pub struct Batch {
    dropped: Option<Dropped>,
    entries: Vec<LogEntry>,
}

impl Batch {
    /// What is to be stored: what was dropped is told first.
    pub fn entries(&self) -> Vec<LogEntry> {
        self.dropped.iter().map(Dropped::entry).chain(self.entries.iter().cloned()).collect()
    }
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.dropped.is_none()
    }

    pub fn has_room(&self) -> bool {
        self.bytes < LOG_HELD_BYTES_MAX
    }

    /// Whether there is enough to be worth storing at once.
    pub fn has_batch(&self) -> bool {
        self.bytes >= BATCH_BYTES_MAX / 2
    }

    pub fn push(&mut self, entry: LogEntry) {
        self.bytes += cost(&entry);
        self.queue.push_back(entry);
    }

    /// Drops the oldest until the rest is within its bound.
    pub fn trim(&mut self) {
        while self.bytes > LOG_HELD_BYTES_MAX
            && let Some(entry) = self.queue.pop_front()
        {
            self.bytes -= cost(&entry);
            self.drop_one(&entry);
        }
    }

    /// The oldest entries, as many as are stored in one go.
    pub fn take(&mut self) -> Batch {
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < BATCH_ENTRIES_MAX
            && let Some(entry) = self.queue.front()
            && (entries.is_empty() || bytes + cost(entry) <= BATCH_BYTES_MAX)
        {
            bytes += cost(entry);
            entries.extend(self.queue.pop_front());
        }
        self.bytes -= bytes;
        Batch { dropped: self.dropped.take(), entries }
    }

    /// The batch was not stored, but may be later.
    pub fn give_back(&mut self, batch: Batch) {
        let later = std::mem::replace(&mut self.dropped, batch.dropped);
        let Some(later) = later else {
            for entry in batch.entries.into_iter().rev() {
                self.bytes += cost(&entry);
                self.queue.push_front(entry);
            }
            return;
        };
        // Younger ones had to go meanwhile, so these go too.
        batch.entries.iter().for_each(|entry| self.drop_one(entry));
        match &mut self.dropped {
            Some(dropped) => dropped.bytes += later.bytes,
            none => *none = Some(later),
        }
    }

    /// The batch will never be stored.
    pub fn refuse(&mut self, batch: Batch) {
        let mut refused = Held { dropped: batch.dropped, ..Held::default() };
        batch.entries.iter().for_each(|entry| refused.drop_one(entry));
        match (&mut refused.dropped, self.dropped.take()) {
            (Some(earlier), Some(later)) => earlier.bytes += later.bytes,
            (none @ None, later) => *none = later,
            (Some(_), None) => {}
        }
        self.dropped = refused.dropped;
    }

    fn drop_one(&mut self, entry: &LogEntry) {
        let first = Dropped { number: entry.number, attempt: entry.attempt, at: entry.at, bytes: 0 };
        self.dropped.get_or_insert(first).bytes += entry.text.0.len() as u64;
    }
}

fn cost(entry: &LogEntry) -> usize {
    entry.text.0.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, bytes: usize) -> LogEntry {
        let text = Payload(vec![b'x'; bytes].into());
        LogEntry { at: Timestamp(number), attempt: Attempt(1), number, stream: LogStream::Out, text }
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.entries().iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn entries_leave_in_batches_and_in_order() {
        let mut held = Held::default();
        (1..=5).for_each(|number| held.push(entry(number, 50_000)));
        let first = held.take();
        assert_eq!(numbers(&first), [1, 2]);
        held.give_back(first);
        let batches: Vec<_> = std::iter::from_fn(|| (!held.is_empty()).then(|| numbers(&held.take()))).collect();
        assert_eq!(batches, [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(held.bytes, 0);
    }

    #[test]
    fn what_is_dropped_is_told_in_its_place() {
        let mut held = Held::default();
        (1..=30).for_each(|number| held.push(entry(number, 50_000)));
        held.trim();
        assert!(held.bytes <= LOG_HELD_BYTES_MAX);
        let batch = held.take();
        let told = &batch.entries()[0];
        let dropped = numbers(&batch)[1] - 1;
        assert_eq!((told.number, told.stream), (1, LogStream::Outlive));
        let text = String::from_utf8(told.text.0.to_vec()).expect("text");
        assert!(text.starts_with(&format!("{} bytes", dropped * 50_000)), "{text}");
        // Not stored either; and while it was tried, nothing else was dropped.
        held.give_back(batch);
        assert_eq!(numbers(&held.take())[..2], [1, dropped + 1]);
    }

    #[test]
    fn older_ones_go_before_younger_ones() {
        let mut held = Held::default();
        held.push(entry(1, 10));
        let batch = held.take();
        (2..=30).for_each(|number| held.push(entry(number, 50_000)));
        held.trim();
        held.give_back(batch);
        let batch = held.take();
        let kept = numbers(&batch);
        assert_eq!(kept[0], 1);
        let text = batch.entries()[0].text.clone();
        let expected = 10 + (kept[1] - 2) * 50_000;
        assert!(text.0.starts_with(format!("{expected} bytes").as_bytes()));
    }

    #[test]
    fn what_is_refused_is_told_once() {
        let mut held = Held::default();
        held.push(entry(1, 10));
        held.push(entry(2, 20));
        let batch = held.take();
        held.push(entry(3, 5));
        held.refuse(batch);
        let batch = held.take();
        assert_eq!(numbers(&batch), [1, 3]);
        assert!(batch.entries()[0].text.0.starts_with(b"30 bytes"));
    }
}
