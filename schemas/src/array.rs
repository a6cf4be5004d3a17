//! Arrays (contract, section 8): one submission of many tasks that differ only in their index.
//!
//! Which tasks an array has, and what became of them, is told as sets of indexes, so that a thousand tasks take no more
//! of the log and of memory than one.

use crate::command::Stop;
use crate::error::{ErrorCode, Rejection};
use crate::id::{JobId, JobName};
use crate::job::{JobKind, JobSpec, invalid};
use crate::limits;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;
use std::str::FromStr;
use uuid::Uuid;

/// What an array's name may have, for its tasks' names are names as well.
const NAME_BYTES_MAX: usize = 63 - "-99999".len();

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArraySpec {
    /// Tasks, with indexes from 0.
    pub count: u32,
    /// Tasks that may be on their way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
}

impl ArraySpec {
    pub fn parallel(&self) -> u32 {
        self.parallel.unwrap_or(limits::ARRAY_PARALLEL_DEFAULT)
    }

    /// Errors: `invalid_argument` for a value out of its range or a name that leaves no room for an index,
    /// `unsupported` for a service.
    pub(crate) fn validate(&self, spec: &JobSpec) -> Result<(), Rejection> {
        for (field, given, max) in [
            ("array.count", self.count, limits::ARRAY_TASKS_MAX),
            ("array.parallel", self.parallel(), limits::ARRAY_PARALLEL_MAX),
        ] {
            if !(1..=max).contains(&given) {
                return Err(invalid(field, &format!("is {given}, not within 1 to {max}")));
            }
        }
        if spec.kind == JobKind::Service {
            let message = "`array` goes with `kind` batch only: a service does not end, and so would its array";
            return Err(Rejection::new(ErrorCode::Unsupported, message));
        }
        match &spec.name {
            Some(name) if task_name(name, limits::ARRAY_TASKS_MAX - 1).is_none() => {
                let longest = NAME_BYTES_MAX;
                Err(invalid("name", &format!("has {} bytes; an array's has at most {longest}", name.as_str().len())))
            }
            _ => Ok(()),
        }
    }
}

/// What a task is called; nothing where that is too long.
pub fn task_name(array: &JobName, index: u32) -> Option<JobName> {
    JobName::new(&format!("{array}-{index}")).ok()
}

/// The array and the index in the name of a task.
pub fn of_task_name(name: &JobName) -> Option<(JobName, u32)> {
    let (array, index) = name.as_str().rsplit_once('-')?;
    let number: u32 = index.parse().ok().filter(|number: &u32| number.to_string() == index)?;
    Some((JobName::new(array).ok()?, number))
}

/// The id of a task: the array's, with its index mixed into the part that is drawn at random. So no task's id needs to
/// be kept or told.
pub fn task_id(array: JobId, index: u32) -> JobId {
    JobId(Uuid::from_u128(array.0.as_u128() ^ u128::from(index + 1)))
}

/// The index of which [`task_id`] gives this id, if there is one.
pub fn index_of(array: JobId, task: JobId) -> Option<u32> {
    let index = u32::try_from(array.0.as_u128() ^ task.0.as_u128()).ok()?.checked_sub(1)?;
    (index < limits::ARRAY_TASKS_MAX).then_some(index)
}

/// Between these are the ids of an array's tasks, and its own.
pub fn ids_about(array: JobId) -> RangeInclusive<JobId> {
    let low = array.0.as_u128() & !u128::from(u32::MAX);
    JobId(Uuid::from_u128(low))..=JobId(Uuid::from_u128(low | u128::from(u32::MAX)))
}

/// Ranges that a message names before it only counts.
const RANGES_SHOWN: usize = 8;

/// Indexes of an array's tasks: disjoint, ascending ranges that do not touch, both ends included. Written as people
/// write them: `3,7-9`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(u32, u32)>);

impl Indexes {
    pub fn first(count: u32) -> Indexes {
        Indexes(count.checked_sub(1).map(|last| (0, last)).into_iter().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> u32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn ranges(&self) -> usize {
        self.0.len()
    }

    pub fn last(&self) -> Option<u32> {
        self.0.last().map(|(_, last)| *last)
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    pub fn contains(&self, index: u32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after > 0 && self.0[after - 1].1 >= index
    }

    /// Those of them that are in the other set, and those that are not.
    pub fn partition(&self, other: &Indexes) -> (Indexes, Indexes) {
        let (mut inside, mut outside) = (Indexes::default(), Indexes::default());
        let mut others = other.0.iter().copied().peekable();
        for &(first, last) in &self.0 {
            // What of this range has not been looked at begins here.
            let mut from = first;
            while from <= last {
                while others.next_if(|(_, end)| *end < from).is_some() {}
                let Some((begin, end)) = others.peek().copied().filter(|(begin, _)| *begin <= last) else {
                    outside.0.push((from, last));
                    break;
                };
                if begin > from {
                    outside.0.push((from, begin - 1));
                }
                let end = end.min(last);
                inside.0.push((from.max(begin), end));
                if end == last {
                    break;
                }
                from = end + 1;
            }
        }
        (inside, outside)
    }

    /// Whether all of them are in the other set.
    pub fn are_all_in(&self, other: &Indexes) -> bool {
        self.partition(other).1.is_empty()
    }

    /// Takes in those of the other set. Costs by the ranges, not by the indexes.
    pub fn extend(&mut self, other: &Indexes) {
        if !other.is_empty() {
            let mut ranges = std::mem::take(&mut self.0);
            ranges.extend_from_slice(&other.0);
            self.0 = joined(ranges);
        }
    }

    /// As a message names them: the first, and how many more there are.
    pub fn summary(&self) -> String {
        let shown = Indexes(self.0.iter().take(RANGES_SHOWN).copied().collect());
        match self.len() - shown.len() {
            0 => shown.to_string(),
            more => format!("{shown} and {more} more"),
        }
    }

    /// The lowest of them.
    pub fn lowest(&self, most: u32) -> Indexes {
        let mut left = most;
        let mut taken = Indexes::default();
        for &(first, last) in &self.0 {
            if left == 0 {
                break;
            }
            let part = (last - first + 1).min(left);
            taken.0.push((first, first + part - 1));
            left -= part;
        }
        taken
    }

    pub fn insert(&mut self, index: u32) {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        let joins_before = after > 0 && self.0[after - 1].1.saturating_add(1) >= index;
        let joins_after = self.0.get(after).is_some_and(|(first, _)| *first == index.saturating_add(1));
        match (joins_before, joins_after) {
            (true, true) if self.0[after - 1].1 < index => {
                self.0[after - 1].1 = self.0[after].1;
                self.0.remove(after);
            }
            (true, _) => self.0[after - 1].1 = self.0[after - 1].1.max(index),
            (false, true) => self.0[after].0 = index,
            (false, false) => self.0.insert(after, (index, index)),
        }
    }

    /// Whether it was there.
    pub fn remove(&mut self, index: u32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        let Some(at) = after.checked_sub(1).filter(|at| self.0[*at].1 >= index) else { return false };
        let (first, last) = self.0[at];
        match (first == index, last == index) {
            (true, true) => drop(self.0.remove(at)),
            (true, false) => self.0[at].0 = index + 1,
            (false, true) => self.0[at].1 = index - 1,
            (false, false) => {
                self.0[at].1 = index - 1;
                self.0.insert(at + 1, (index + 1, last));
            }
        }
        true
    }
}

impl FromIterator<u32> for Indexes {
    fn from_iter<T: IntoIterator<Item = u32>>(indexes: T) -> Indexes {
        let mut set = Indexes::default();
        indexes.into_iter().for_each(|index| set.insert(index));
        set
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_char(',')?;
            }
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// What is no set of indexes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no set of indexes below {max}, such as 3,7-9", max = limits::ARRAY_TASKS_MAX)]
pub struct IndexesError(String);

impl FromStr for Indexes {
    type Err = IndexesError;
    fn from_str(text: &str) -> Result<Indexes, IndexesError> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|index| *index < limits::ARRAY_TASKS_MAX);
        let mut ranges = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
            ranges.push(range.ok_or_else(|| IndexesError(part.chars().take(40).collect()))?);
        }
        Ok(Indexes(joined(ranges)))
    }
}

/// The same as disjoint, ascending ranges that do not touch.
fn joined(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut set: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match set.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => set.push((first, last)),
        }
    }
    set
}

impl Serialize for Indexes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Indexes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Tasks have ended and are counted, and their own records are gone; others begin in their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayAdvanced {
    pub job: JobId,
    #[serde(default, skip_serializing_if = "Indexes::is_empty")]
    pub ended: Indexes,
    /// Jobs of their own from here on, pending.
    #[serde(default, skip_serializing_if = "Indexes::is_empty")]
    pub released: Indexes,
    /// They are being told to stop, each by what follows.
    #[serde(default, skip_serializing_if = "Indexes::is_empty")]
    pub told: Indexes,
}

/// Nothing more of it begins; what is on its way is told to stop, and it has been cancelled once all of that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayCancelRequested {
    pub job: JobId,
    pub how: Stop,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// Some of its tasks are cancelled: those that wait, at once; those on their way are told by what follows in the same
/// commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayTasksCancelled {
    pub job: JobId,
    pub tasks: Indexes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// Some of its tasks that failed or were cancelled wait again. An array that was over begins anew with these alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayTasksRetried {
    pub job: JobId,
    pub tasks: Indexes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// An array's tasks, as its view shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    pub pending: u32,
    pub running: u32,
    pub succeeded: u32,
    pub failed: u32,
    #[serde(default)]
    pub cancelled: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set(text: &str) -> Indexes {
        text.parse().expect(text)
    }

    #[test]
    fn sets_are_written_as_people_write_them() {
        for (given, shown) in [("", ""), ("5", "5"), ("3,7-9", "3,7-9"), ("9,7-8,0-0", "0,7-9"), ("1-5,2-3,6", "1-6")] {
            assert_eq!(set(given).to_string(), shown);
            let json = serde_json::to_string(&set(given)).expect("json");
            assert_eq!(serde_json::from_str::<Indexes>(&json).expect("back"), set(given));
        }
        for text in ["a", "1-", "-1", "5-3", "1,,2", "100000", "99999999999", " 1", "1-2-3"] {
            assert!(text.parse::<Indexes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_set_is_what_was_put_into_it() {
        let (mut ranges, mut plain, mut seed) = (Indexes::default(), BTreeSet::new(), 7_u64);
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = (seed >> 33) as u32 % 60;
            if seed >> 63 == 0 {
                ranges.insert(index);
                plain.insert(index);
            } else {
                assert_eq!(ranges.remove(index), plain.remove(&index));
            }
            assert_eq!(ranges.iter().collect::<Vec<_>>(), plain.iter().copied().collect::<Vec<_>>());
            assert_eq!((ranges.len() as usize, ranges.contains(index)), (plain.len(), plain.contains(&index)));
            assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?}");
        }
        let lowest = ranges.lowest(5);
        assert_eq!(lowest.iter().collect::<Vec<_>>(), plain.iter().copied().take(5).collect::<Vec<_>>());
        assert_eq!((Indexes::first(3).to_string().as_str(), Indexes::first(0).is_empty()), ("0-2", true));
    }

    #[test]
    fn sets_are_taken_apart_and_put_together() {
        let apart = |of: &str, by: &str| {
            let (inside, outside) = set(of).partition(&set(by));
            (inside.to_string(), outside.to_string())
        };
        for (of, by, inside, outside) in [
            ("", "1-5", "", ""),
            ("1-5", "", "", "1-5"),
            ("1-5", "1-5", "1-5", ""),
            ("1-5", "0-9", "1-5", ""),
            ("0-9", "2-3,5,9", "2-3,5,9", "0-1,4,6-8"),
            ("0-3,6-9", "3-6", "3,6", "0-2,7-9"),
            ("3,7-9", "0-2,4-6,10", "", "3,7-9"),
            ("99999", "99999", "99999", ""),
        ] {
            assert_eq!(apart(of, by), (inside.to_owned(), outside.to_owned()), "{of} by {by}");
            assert_eq!(set(of).are_all_in(&set(by)), outside.is_empty());
        }
        let mut seed = 11_u64;
        let mut drawn = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (0..40).filter(|bit| seed >> (bit + 20) & 1 == 1).collect::<BTreeSet<u32>>()
        };
        for _ in 0..2_000 {
            let (one, other) = (drawn(), drawn());
            let (set, by): (Indexes, Indexes) = (one.iter().copied().collect(), other.iter().copied().collect());
            let (inside, outside) = set.partition(&by);
            assert!(inside.iter().eq(one.intersection(&other).copied()), "{set} by {by}: {inside}");
            assert!(outside.iter().eq(one.difference(&other).copied()), "{set} by {by}: {outside}");
            let mut both = set.clone();
            both.extend(&by);
            assert!(both.iter().eq(one.union(&other).copied()), "{set} and {by}: {both}");
            for set in [inside, outside, both] {
                assert!(set.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{set:?}");
            }
        }
    }

    #[test]
    fn a_message_names_the_first_of_many() {
        assert_eq!((set("3,7-9").summary().as_str(), set("").summary().as_str()), ("3,7-9", ""));
        let odd: Indexes = (0..1_000).filter(|index| index % 2 == 1).collect();
        assert_eq!(odd.summary(), "1,3,5,7,9,11,13,15 and 492 more");
    }

    #[test]
    fn tasks_have_names_and_ids() {
        let array: JobId = "0197f3c8-0000-7000-8000-00000abc0001".parse().expect("an id");
        let ids: BTreeSet<JobId> = (0..1_000).map(|index| task_id(array, index)).collect();
        assert!(ids.len() == 1_000 && !ids.contains(&array) && ids.iter().all(|id| id.0.get_version_num() == 7));
        assert!(ids.iter().all(|id| ids_about(array).contains(id)) && ids_about(array).contains(&array));
        assert_eq!((index_of(array, task_id(array, 999)), index_of(array, array)), (Some(999), None));
        let (last, none) = (limits::ARRAY_TASKS_MAX - 1, limits::ARRAY_TASKS_MAX);
        assert_eq!((index_of(array, task_id(array, last)), index_of(array, task_id(array, none))), (Some(last), None));
        assert_eq!(index_of(array, "0197f3c8-0001-7000-8000-00000abc0001".parse().expect("an id")), None);
        let name: JobName = "resize-3".parse().expect("a name");
        assert_eq!(of_task_name(&name), Some(("resize".parse().expect("a name"), 3)));
        for name in ["resize", "resize-03", "resize-x", "3"] {
            assert_eq!(of_task_name(&name.parse().expect("a name")), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        let refused = |more: &str| {
            let text = format!(r#"{{"driver":{{"process":{{"command":["x"]}}}},{more}}}"#);
            serde_json::from_str::<JobSpec>(&text).expect(more).validate().expect_err(more).message
        };
        assert!(refused(r#""array":{"count":0}"#).contains("`array.count` is 0, not within 1 to 100000"));
        assert!(refused(r#""array":{"count":9,"parallel":0}"#).contains("`array.parallel`"));
        assert!(refused(r#""array":{"count":9},"kind":"service""#).contains("`array` goes with `kind` batch only"));
        let long = format!(r#""array":{{"count":9}},"name":"{}""#, "x".repeat(60));
        assert!(refused(&long).contains("`name` has 60 bytes"), "{}", refused(&long));
    }
}
