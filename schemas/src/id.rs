//! Names and numbers, each a type of its own so that they cannot be taken for one another.

use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// The text is not a name as Outlive writes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {what}: {expected}")]
pub struct NameError {
    given: String,
    what: &'static str,
    expected: &'static str,
}

pub(crate) const TOKEN_SHAPE: &str =
    "1 to 63 characters of a-z, 0-9 and `-`, beginning and ending with a letter or digit";

/// Whether `text` matches `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?` (contract).
pub fn is_token(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&bytes.len())
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1])
        && bytes.iter().all(|&b| edge(b) || b == b'-')
}

/// At most `max` bytes of `text`, cut at a character's boundary.
fn shortened(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    format!("{}…", &text[..end])
}

macro_rules! token {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(CompactString);

        impl $type {
            pub fn new(text: &str) -> Result<Self, NameError> {
                if is_token(text) {
                    Ok(Self(CompactString::new(text)))
                } else {
                    Err(NameError { given: shortened(text, 80), what: $what, expected: TOKEN_SHAPE })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = CompactString::deserialize(deserializer)?;
                if is_token(&text) { Ok(Self(text)) } else { Self::new(&text).map_err(serde::de::Error::custom) }
            }
        }
    };
}

token!(/** What keeps one team's jobs apart from another's. */ Namespace, "namespace");
token!(/** A job's name; unique among the live jobs of its namespace. */ JobName, "job name");
token!(/** An availability zone: hosts that fail together. */ Zone, "zone");
token!(/** An executor's lasting name, such as `executor-a-1`. */ ExecutorName, "executor name");
token!(/** A scheduler's lasting name, such as `scheduler-a`. */ SchedulerName, "scheduler name");
token!(/** What submits jobs at set times; unique in its namespace. */ ScheduleName, "schedule name");
token!(/** What a snapshot of one job is called. */ SnapshotName, "snapshot name");
token!(/** Where jobs of a namespace wait their turn. */ QueueName, "queue name");

macro_rules! unique {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub Uuid);

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                // Only the one spelling that Outlive writes: lower case, hyphens, no braces.
                Uuid::try_parse(text).ok().map(Self).filter(|id| id.to_string() == text).ok_or_else(|| NameError {
                    given: shortened(text, 80),
                    what: $what,
                    expected: "a UUID in lower case",
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = Uuid::encode_buffer();
                f.pad(self.0.hyphenated().encode_lower(&mut text))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

unique!(/** One job, for ever. UUID v7: ids rise with the time of submission. */ JobId, "job id");
unique!(
    /** One run of an executor's process. A restarted executor keeps its name and gets a new id, so that nothing said
    by the old one can be taken for the new one's. */
    ExecutorId, "executor id"
);

macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub $inner);

        impl $type {
            /// The one after this. Counting past the end of the type would take longer than any machine lasts.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect(concat!(stringify!($type), " cannot run out")))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(/** One execution of a job on one executor; the job's fencing token. The first is 1; 0 means none yet. */ Attempt, u32);
number!(/** A checkpoint of one job. The first is 1. */ CheckpointNumber, u64);
number!(/** A version of a job's specification. The first is 1. */ JobVersion, u32);
number!(/** A leadership: a generation, and the etcd create revision of the leader's key in it. Rises for ever. */ Term, u64);
number!(/** A position in the log; JetStream's stream sequence. The first is 1; 0 is the empty log. */ Sequence, u64);

/// Bits of a term that number the elections of one generation: etcd's revisions, of which a trillion are enough.
const TERM_ELECTION_BITS: u32 = 40;

impl Term {
    /// How often the log has been restored, or gone on without commits it had lost. What was seen of the log in an
    /// earlier generation says nothing about the log of this one.
    pub fn generation(self) -> u64 {
        self.0 >> TERM_ELECTION_BITS
    }

    /// What the terms of the next generation begin from: above every term of this one and of those before.
    #[must_use]
    pub fn next_generation(self) -> Term {
        Term((self.generation() + 1) << TERM_ELECTION_BITS)
    }
}

/// A job as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JobRef {
    Id(JobId),
    Name(JobName),
}

/// What a job without a name of its own is called: this, and then its id.
const AUTOMATIC_NAME_PREFIX: &str = "job-";

impl JobId {
    /// The name of a job that was submitted without one. It needs no index, for it holds the id.
    pub fn automatic_name(self) -> JobName {
        JobName(compact_str::format_compact!("{AUTOMATIC_NAME_PREFIX}{self}"))
    }
}

impl JobName {
    /// The id inside an automatic name.
    pub fn automatic_id(&self) -> Option<JobId> {
        self.0.strip_prefix(AUTOMATIC_NAME_PREFIX)?.parse().ok()
    }

    /// Whether Outlive keeps this name for itself, because it is, or holds, an id.
    pub fn is_reserved(&self) -> bool {
        self.automatic_id().is_some() || self.0.parse::<JobId>().is_ok()
    }
}

/// An executor as a request names it. A name means the one that lives, if one does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExecutorRef {
    Id(ExecutorId),
    Name(ExecutorName),
}

impl FromStr for ExecutorRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Ok(id) = text.parse() {
            return Ok(ExecutorRef::Id(id));
        }
        let name = ExecutorName::new(text).map_err(|e| NameError { what: "executor's id or name", ..e })?;
        Ok(ExecutorRef::Name(name))
    }
}

impl fmt::Display for ExecutorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecutorRef::Id(id) => id.fmt(f),
            ExecutorRef::Name(name) => name.fmt(f),
        }
    }
}

impl Serialize for ExecutorRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExecutorRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CompactString::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What the names of snapshots begin with that Outlive takes by itself.
const SYSTEM_SNAPSHOT_PREFIX: &str = "system-";

impl SnapshotName {
    /// The name of a snapshot that Outlive takes by itself; `number` counts a job's snapshots.
    pub fn of_system(purpose: &str, number: u64) -> SnapshotName {
        SnapshotName(compact_str::format_compact!("{SYSTEM_SNAPSHOT_PREFIX}{purpose}-{number}"))
    }

    /// Whether Outlive keeps this name for itself.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(SYSTEM_SNAPSHOT_PREFIX)
    }
}

impl FromStr for JobRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Ok(id) = text.parse() {
            return Ok(JobRef::Id(id));
        }
        let name = JobName::new(text).map_err(|e| NameError { what: "job id or name", ..e })?;
        Ok(name.automatic_id().map_or(JobRef::Name(name), JobRef::Id))
    }
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobRef::Id(id) => id.fmt(f),
            JobRef::Name(name) => name.fmt(f),
        }
    }
}

impl Serialize for JobRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CompactString::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        for good in ["a", "0", "a-b", "counter", &"a".repeat(63)] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a b", "a>", "*", "é", "a\u{0}", "../x", &"a".repeat(64)] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_job_is_named_by_id_or_name() {
        let id: JobId = "0197f3c8-0000-7000-8000-000000000001".parse().expect("an id");
        assert_eq!("0197f3c8-0000-7000-8000-000000000001".parse::<JobRef>(), Ok(JobRef::Id(id)));
        assert_eq!(id.automatic_name().as_str().parse::<JobRef>(), Ok(JobRef::Id(id)));
        assert!(matches!("counter".parse::<JobRef>(), Ok(JobRef::Name(_))));
        assert!("0197F3C8-0000-7000-8000-000000000001".parse::<JobRef>().is_err());
        assert!(id.automatic_name().is_reserved());
    }
}
