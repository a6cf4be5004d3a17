//! What is to be told to the leader: in order, in batches, and again until it is answered.
//!
//! One batch is under way at a time; what happens meanwhile fills the next. So load makes batches bigger, not more
//! frequent. A batch that is not answered is sent again with the same contents; only the ages are reckoned anew.
//!
//! Pure: when to send is `machine`'s, sending is `runner`'s.

use outlive_schemas::id::{Attempt, ExecutorId, JobId};
use outlive_schemas::limits;
use outlive_schemas::message::{Ended, News, Outcome, Report, ReportBatch, Told};
use std::collections::{BTreeSet, VecDeque};

/// What a report takes on the wire besides the texts and payloads in it: names of fields, ids, numbers, a checkpoint's
/// figures. Measured at 350 for the longest; more is safe.
const REPORT_BYTES: usize = 512;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub job: JobId,
    pub attempt: Attempt,
    /// On the executor's own clock.
    pub at_ms: u64,
    pub news: News,
}

/// Reports until they are answered.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Entry>,
    /// Sent and not answered, or about to be sent again.
    sent: Vec<Entry>,
    /// Whether somebody is waiting for the answer to `sent`.
    in_flight: bool,
    /// So that an attempt which is asked for again and again is reported missing once.
    missing: BTreeSet<(JobId, Attempt)>,
}

impl Outbox {
    pub fn push(&mut self, job: JobId, attempt: Attempt, at_ms: u64, news: News) {
        if matches!(news, News::Missing) && !self.missing.insert((job, attempt)) {
            return;
        }
        self.waiting.push_back(Entry { job, attempt, at_ms, news });
    }

    pub fn len(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether so much is unanswered that no more work can be taken on.
    pub fn is_full(&self) -> bool {
        self.len() >= limits::REPORTS_HELD_MAX
    }

    /// What to send now; nothing while an answer is waited for.
    pub fn next_batch(&mut self, executor: ExecutorId, told: Told, now_ms: u64) -> Option<ReportBatch> {
        if self.in_flight {
            return None;
        }
        if self.sent.is_empty() {
            self.fill();
        }
        if self.sent.is_empty() {
            return None;
        }
        self.in_flight = true;
        let report = |entry: &Entry| Report {
            job: entry.job,
            attempt: entry.attempt,
            age_ms: now_ms.saturating_sub(entry.at_ms),
            news: entry.news.clone(),
        };
        Some(ReportBatch {
            executor,
            seq_seen: told.seq,
            term_seen: told.term,
            seq_before: told.before,
            reports: self.sent.iter().map(report).collect(),
        })
    }

    /// The batch has been dealt with; this is what was in it.
    pub fn answered(&mut self) -> Vec<Entry> {
        self.in_flight = false;
        let sent = std::mem::take(&mut self.sent);
        for entry in &sent {
            if matches!(entry.news, News::Missing) {
                self.missing.remove(&(entry.job, entry.attempt));
            }
        }
        sent
    }

    /// The batch may or may not have arrived. The next one is the same.
    pub fn unanswered(&mut self) {
        self.in_flight = false;
    }

    /// Takes back what has not been sent of attempts that nobody wants to hear of any more.
    pub fn withdraw(&mut self, attempts: &BTreeSet<(JobId, Attempt)>) {
        self.waiting.retain(|entry| !attempts.contains(&(entry.job, entry.attempt)));
        // Of what is under way the answer is still to come.
        let sent = &self.sent;
        self.missing.retain(|key| !attempts.contains(key) || sent.iter().any(|e| (e.job, e.attempt) == *key));
    }

    /// Moves as much as one message takes from `waiting` to `sent`.
    fn fill(&mut self) {
        let mut bytes = 0;
        while let Some(entry) = self.waiting.front() {
            bytes += size(&entry.news);
            let full = self.sent.len() >= limits::MESSAGE_ITEMS_MAX || bytes > limits::MESSAGE_BYTES_MAX;
            if full && !self.sent.is_empty() {
                break;
            }
            self.sent.extend(self.waiting.pop_front());
        }
        drop_covered_starts(&mut self.sent);
    }
}

/// An end that says how long the attempt ran tells of its start as well.
fn drop_covered_starts(batch: &mut Vec<Entry>) {
    if !batch.iter().any(|entry| matches!(entry.news, News::Started)) {
        return;
    }
    let ended: BTreeSet<(JobId, Attempt)> = batch
        .iter()
        .filter(|entry| matches!(entry.news, News::Ended(Ended { ran_ms: Some(_), .. })))
        .map(|entry| (entry.job, entry.attempt))
        .collect();
    // A checkpoint between the two needs the start before it.
    let has_more: BTreeSet<(JobId, Attempt)> = batch
        .iter()
        .filter(|entry| !matches!(entry.news, News::Started | News::Ended(_) | News::Missing))
        .map(|entry| (entry.job, entry.attempt))
        .collect();
    batch.retain(|entry| {
        let key = (entry.job, entry.attempt);
        !matches!(entry.news, News::Started) || !ended.contains(&key) || has_more.contains(&key)
    });
}

/// Bytes on the wire, at most.
fn size(news: &News) -> usize {
    let text = match news {
        News::CheckpointFailed { reason } | News::ReleaseFailed { reason } | News::SnapshotFailed { reason, .. } => {
            reason.len()
        }
        News::Ended(ended) => {
            let reason = match &ended.outcome {
                Outcome::LaunchFailed { reason }
                | Outcome::RestoreFailed { reason, .. }
                | Outcome::ResultRefused { reason } => reason.len(),
                Outcome::Released(released) => released.fault.as_ref().map_or(0, |fault| fault.len()),
                Outcome::Exited { .. } | Outcome::Signalled { .. } | Outcome::TimedOut | Outcome::NoProgress => 0,
            };
            reason + ended.result.as_ref().map_or(0, |result| result.0.len())
        }
        News::Started | News::Checkpoint(_) | News::Snapshot { .. } | News::Missing => 0,
    };
    REPORT_BYTES + text
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
