//! What the leader says, held against what is known: which orders count, and what they come to.
//!
//! Orders may be lost, doubled, late, or from a leader that has been replaced. A lower term than the highest heard is
//! refused; of one job only a higher attempt than any known counts; and the same order twice is the same as once.
//!
//! Pure: it reads [`Holdings`] and decides; the `machine` acts.

use crate::machine::holdings::Holdings;
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{Attempt, JobId, Sequence, Term};
use outlive_schemas::message::Told;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Attempts that are remembered after their end was confirmed, or after nobody wanted them any more, so that a late copy
/// of their assignment does not run them again. At 50,000 short jobs a second this is five seconds; copies are late by milliseconds.
const CONFIRMED_MAX: usize = 262_144;

/// And for this long, so that an attempt which the leader insists on is run in the end.
const CONFIRMED_MS_MAX: u64 = 10 * 60_000;

/// What to do about an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Run it. What is held of the same job is older, and ends first.
    Take,
    /// Known, or older than what is known: nothing changes.
    Ignore,
    /// There is no room, so it is given back.
    Refuse { reason: String },
}

/// What to do about a wanted set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Held and not wanted.
    pub unwanted: Vec<(JobId, Attempt)>,
    /// Wanted and not held.
    pub missing: Vec<(JobId, Attempt)>,
}

#[derive(Debug, Default)]
pub struct Intake {
    told: Told,
    /// A later generation was heard of: what this incarnation knows and runs belongs to a log that is no more.
    left_behind: bool,
    confirmed: Confirmed,
}

impl Intake {
    /// Notes where a message comes from. `false`: from a leader that has been replaced; it does not count.
    pub fn hear(&mut self, term: Term, seq: Sequence) -> bool {
        let counts = term >= self.told.term;
        if self.told.term > Term(0) && term.generation() > self.told.term.generation() {
            self.left_behind = true;
        }
        // What a replaced leader says of the log was true all the same: it tells of what is durable.
        self.told.hear(term, seq);
        counts
    }

    /// For the next incarnation of this executor: terms and positions are the cluster's, attempts were the last one's.
    #[must_use]
    pub fn begin_anew(&self) -> Intake {
        Intake { told: self.told, left_behind: false, confirmed: Confirmed::default() }
    }

    /// Whether the log that this incarnation's attempts stand in is no more: they must end, and it begin anew.
    pub fn is_left_behind(&self) -> bool {
        self.left_behind
    }

    /// The highest commit ever told of.
    pub fn seq_seen(&self) -> Sequence {
        self.told.seq
    }

    /// What leaders have told of the log, for the leader to hold its own against.
    pub fn told(&self) -> Told {
        self.told
    }

    /// The highest term ever heard; 0 before any.
    pub fn term(&self) -> Term {
        self.told.term
    }

    pub fn assign(
        &self,
        holdings: &Holdings,
        capacity: &Capacity,
        job: JobId,
        attempt: Attempt,
        need: &Capacity,
    ) -> Admission {
        let held = holdings.get(job);
        if held.is_some_and(|held| held.attempt >= attempt) || self.confirmed.covers(job, attempt) {
            return Admission::Ignore;
        }
        let mut taken = holdings.taken();
        // The older attempt makes room.
        if let Some(older) = held.filter(|held| !held.over) {
            taken -= older.need;
        }
        let free = capacity.less(&taken);
        if free.holds(need) {
            return Admission::Take;
        }
        let Capacity { cpu_millis, memory_bytes, slots } = free;
        Admission::Refuse {
            reason: format!(
                "the executor has no room for it: needed {} millicores, {} bytes and {} slot, free are {cpu_millis}, \
                 {memory_bytes} and {slots}",
                need.cpu_millis, need.memory_bytes, need.slots
            ),
        }
    }

    /// Whether a stop is for something that the leader thinks is here and is not.
    pub fn stops_missing(&self, holdings: &Holdings, job: JobId, attempt: Attempt) -> bool {
        holdings.get(job).is_none_or(|held| held.attempt < attempt) && !self.confirmed.covers(job, attempt)
    }

    /// What tells the held set from the wanted one, which was put together after commit `seq`. What was assigned after
    /// that is not in it, and stays.
    pub fn want(&self, holdings: &Holdings, wanted: &[(JobId, Attempt)], seq: Sequence) -> Difference {
        let set: BTreeSet<(JobId, Attempt)> = wanted.iter().copied().collect();
        let unwanted = holdings
            .iter()
            .filter(|(job, held)| held.placed_at <= seq && !set.contains(&(*job, held.attempt)))
            .map(|(job, held)| (job, held.attempt))
            .collect();
        let missing = set
            .into_iter()
            .filter(|&(job, attempt)| {
                holdings.get(job).is_none_or(|held| held.attempt < attempt) && !self.confirmed.covers(job, attempt)
            })
            .collect();
        Difference { unwanted, missing }
    }

    /// The leader has confirmed the end of this attempt, or that it is not to be here.
    pub fn confirm(&mut self, job: JobId, attempt: Attempt, now_ms: u64) {
        self.confirmed.insert(job, attempt, now_ms);
    }
}

/// The latest attempts that are over for the leader.
#[derive(Debug, Default)]
struct Confirmed {
    by_job: BTreeMap<JobId, Attempt>,
    order: VecDeque<(u64, JobId, Attempt)>,
}

impl Confirmed {
    fn covers(&self, job: JobId, attempt: Attempt) -> bool {
        self.by_job.get(&job).is_some_and(|last| *last >= attempt)
    }

    fn insert(&mut self, job: JobId, attempt: Attempt, now_ms: u64) {
        let last = self.by_job.entry(job).or_insert(attempt);
        *last = attempt.max(*last);
        self.order.push_back((now_ms, job, attempt));
        while let Some(&(at_ms, job, attempt)) = self.order.front() {
            if self.order.len() <= CONFIRMED_MAX && now_ms.saturating_sub(at_ms) <= CONFIRMED_MS_MAX {
                break;
            }
            self.order.pop_front();
            // A later attempt of the job has an entry of its own further back.
            if self.by_job.get(&job) == Some(&attempt) {
                self.by_job.remove(&job);
            }
        }
    }
}

#[cfg(test)]
#[path = "intake/tests.rs"]
mod tests;
