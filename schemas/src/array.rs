//! Arrays (contract, section 8): one submission of many tasks that differ only in their index.
//!
//! Which tasks an array has, and what became of them, is told as sets of indexes, so that a thousand tasks take no more
//! of the log and of memory than one.

use crate::command::Stop;
use crate::error::{ErrorCode, Rejection};
use crate::id::{JobId, JobName};
use crate::job::{JobKind, JobSpec, invalid};
use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::{self, Write as _};
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
        ranges.sort_unstable();
        let mut set: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match set.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => set.push((first, last)),
            }
        }
        Ok(Indexes(set))
    }
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
    fn tasks_have_names_and_ids() {
        let array: JobId = "0197f3c8-0000-7000-8000-00000abc0001".parse().expect("an id");
        let ids: BTreeSet<JobId> = (0..1_000).map(|index| task_id(array, index)).collect();
        assert!(ids.len() == 1_000 && !ids.contains(&array) && ids.iter().all(|id| id.0.get_version_num() == 7));
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
