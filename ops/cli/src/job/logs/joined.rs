//! Kept and live entries of one job's output, joined without a gap or a doubling.
//!
//! Both carry the attempt and the entry's number. Entries are sent live first and kept after, and a live one may be lost;
//! so one that skips some is held until those are kept. Pure but for the writing: when to look is `follow`'s.

use super::Sink;
use crate::progress::Progress;
use outlive_schemas::id::Attempt;
use outlive_schemas::message::LogEntry;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// How long missing entries are looked for. Those that are not kept by then were dropped.
const HELD_FOR_MAX: Duration = Duration::from_secs(3);
/// Entries held at once; beyond it the missing ones are given up.
const HELD_MAX: usize = 10_000;

/// Kept and live entries, put together.
pub struct Joined {
    sink: Sink,
    pub progress: Option<Progress>,
    written: Written,
    /// Live entries that cannot be written before others are.
    pub held: BTreeMap<(Attempt, u64), LogEntry>,
    held_since: Option<Instant>,
}

/// The highest entry of each attempt that has been written.
#[derive(Debug, Default)]
struct Written(BTreeMap<Attempt, u64>);

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Before,
    Next,
    /// Some are missing between.
    Beyond,
}

impl Written {
    fn place(&self, attempt: Attempt, number: u64) -> Place {
        let highest = self.0.get(&attempt).copied().unwrap_or(0);
        if number <= highest {
            Place::Before
        } else if number == highest + 1 {
            Place::Next
        } else {
            Place::Beyond
        }
    }

    fn note(&mut self, attempt: Attempt, number: u64) {
        let highest = self.0.entry(attempt).or_default();
        *highest = number.max(*highest);
    }
}

impl Joined {
    pub fn new(sink: Sink) -> Joined {
        Joined { sink, progress: None, written: Written::default(), held: BTreeMap::new(), held_since: None }
    }

    /// An entry that is kept. Kept ones come in order, so what is missing before it was dropped.
    pub fn kept(&mut self, entry: &LogEntry) -> io::Result<()> {
        if self.written.place(entry.attempt, entry.number) == Place::Before { Ok(()) } else { self.write(entry) }
    }

    /// An entry that was sent live: writes it, or holds it.
    pub fn live(&mut self, entry: LogEntry) -> io::Result<()> {
        match self.written.place(entry.attempt, entry.number) {
            Place::Before => Ok(()),
            // Only the kept entry has all that the contract's shape says, such as its time.
            Place::Next if self.sink != Sink::JsonLines => self.write(&entry),
            Place::Next | Place::Beyond => {
                self.held_since.get_or_insert_with(Instant::now);
                self.held.insert((entry.attempt, entry.number), entry);
                Ok(())
            }
        }
    }

    /// Writes held entries whose turn has come; all of them once the missing ones are given up.
    pub fn release(&mut self, now: Instant) -> io::Result<()> {
        let waited = self.held_since.is_some_and(|since| now.saturating_duration_since(since) > HELD_FOR_MAX);
        let give_up = waited || self.held.len() > HELD_MAX;
        for (key, entry) in std::mem::take(&mut self.held) {
            match self.written.place(entry.attempt, entry.number) {
                Place::Before => {}
                // It will be read where it is kept.
                _ if self.sink == Sink::JsonLines && give_up => {}
                Place::Next if self.sink != Sink::JsonLines => self.write(&entry)?,
                Place::Beyond if give_up => self.write(&entry)?,
                Place::Next | Place::Beyond => {
                    self.held.insert(key, entry);
                }
            }
        }
        if self.held.is_empty() {
            self.held_since = None;
        }
        Ok(())
    }

    fn write(&mut self, entry: &LogEntry) -> io::Result<()> {
        if let Some(progress) = self.progress.take() {
            progress.clear();
        }
        self.sink.write(entry)?;
        self.written.note(entry.attempt, entry.number);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::human;
    use outlive_schemas::message::LogStream;
    use outlive_schemas::payload::Payload;

    #[test]
    fn entries_are_placed_by_attempt_and_number() {
        let mut written = Written::default();
        assert_eq!(written.place(Attempt(1), 1), Place::Next);
        written.note(Attempt(1), 1);
        assert_eq!(written.place(Attempt(1), 1), Place::Before);
        assert_eq!(written.place(Attempt(1), 2), Place::Next);
        assert_eq!(written.place(Attempt(1), 3), Place::Beyond);
        assert_eq!(written.place(Attempt(2), 1), Place::Next);
        written.note(Attempt(1), 9);
        written.note(Attempt(1), 4);
        assert_eq!(written.place(Attempt(1), 9), Place::Before);
    }

    /// To standard output nothing is written: an empty text has no bytes.
    fn entry(attempt: u32, number: u64) -> LogEntry {
        let (attempt, stream) = (Attempt(attempt), LogStream::Out);
        LogEntry { at: human::now(), attempt, number, stream, text: Payload::default() }
    }

    fn highest(joined: &Joined, attempt: u32) -> u64 {
        joined.written.0.get(&Attempt(attempt)).copied().unwrap_or(0)
    }

    #[test]
    fn an_entry_that_skips_some_waits_for_them() {
        let mut joined = Joined::new(Sink::Streams);
        joined.live(entry(1, 1)).expect("written");
        joined.live(entry(1, 4)).expect("held");
        joined.live(entry(1, 3)).expect("held");
        joined.release(Instant::now()).expect("nothing to write");
        assert_eq!((highest(&joined, 1), joined.held.len()), (1, 2));
        joined.kept(&entry(1, 2)).expect("written");
        joined.release(Instant::now()).expect("written");
        assert_eq!((highest(&joined, 1), joined.held.len()), (4, 0));
        assert_eq!(joined.held_since, None);
    }

    #[test]
    fn what_was_dropped_is_not_waited_for_for_ever() {
        let mut joined = Joined::new(Sink::Streams);
        joined.live(entry(1, 9)).expect("held");
        let later = Instant::now() + HELD_FOR_MAX + Duration::from_secs(1);
        joined.release(later).expect("written");
        assert_eq!((highest(&joined, 1), joined.held.len()), (9, 0));
    }

    #[test]
    fn another_attempts_entries_are_not_held_up() {
        let mut joined = Joined::new(Sink::Streams);
        joined.live(entry(1, 2)).expect("held");
        joined.live(entry(2, 1)).expect("written");
        assert_eq!((highest(&joined, 1), highest(&joined, 2)), (0, 1));
    }

    #[test]
    fn json_lines_come_from_kept_entries_only() {
        let mut joined = Joined::new(Sink::JsonLines);
        joined.live(entry(1, 1)).expect("held");
        joined.release(Instant::now()).expect("nothing to write");
        assert_eq!((highest(&joined, 1), joined.held.len()), (0, 1));
        joined.release(Instant::now() + HELD_FOR_MAX + Duration::from_secs(1)).expect("nothing to write");
        assert_eq!((highest(&joined, 1), joined.held.len()), (0, 0));
    }
}
