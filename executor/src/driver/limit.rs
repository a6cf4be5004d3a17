//! The limits an attempt runs under, and which kind of limit is in force.
//!
//! The shim applies them to itself just before it starts the job, so that every process of the job inherits them and
//! none can raise them again.
//!
//! What there is: resource limits (`setrlimit`) and the out-of-memory score. What they cannot do, and this must be
//! said wherever the kind is shown: **a resource limit does not count resident memory**, it stops one process that
//! reserves far too much; and it does not divide processor time at all. Placement counts both, so a host is not
//! over-committed by what jobs ask for, only by what they take beyond it.
//!
//! Deliberately not here: cgroup v2. Hosts where a writable, delegated v2 hierarchy exists could enforce `memory.max`
//! and `cpu.max` exactly; [`LimitKind`] is where that will show.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// How many times its requested memory one process of an attempt may reserve. Allocators and runtimes reserve much
/// more than they touch; four times leaves those alone and still stops a runaway.
const DATA_FACTOR: u64 = 4;

/// No attempt gets less room than this: an interpreter with a few libraries reserves hundreds of megabytes while it
/// uses twenty.
const DATA_BYTES_MIN: u64 = 512 * 1024 * 1024;

/// What the limit leaves a shim beyond what it holds itself, however little the job is given: starting a process takes
/// memory, too.
const OWN_ROOM_BYTES: u64 = 16 * 1024 * 1024;

/// Added to the badness of a job's processes when the kernel must choose whom to kill for memory (−1000 to 1000). A
/// job is restarted from its checkpoint; an executor takes all its jobs with it.
const OOM_SCORE_RISE: i32 = 500;

const OOM_SCORE_PATH: &str = "/proc/self/oom_score_adj";

/// What an attempt asked for, as far as a limit can be made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: u64,
}

/// How limits are enforced on this host; for the log and for the executor's registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Resource limits per process: a coarse stop against runaways, blind to resident memory and processor time.
    Rlimit,
}

impl LimitKind {
    /// The kind in force on this host.
    pub fn here() -> Self {
        Self::Rlimit
    }
}

impl std::fmt::Display for LimitKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rlimit => f.write_str("rlimit"),
        }
    }
}

/// A limit that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error("the {what} limit could not be set to {value}; check the limits the executor was started with")]
    Refused {
        what: &'static str,
        value: u64,
        #[source]
        source: io::Error,
    },
}

/// Limits this process and all that it starts. To be called in a shim, never in an executor.
pub(crate) fn apply(limits: &Limits) -> Result<(), LimitError> {
    // A core file of a job would land in its state directory and be checkpointed.
    lower(Resource::Core, "core file", 0)?;
    let data = limits.memory_bytes.saturating_mul(DATA_FACTOR).max(DATA_BYTES_MIN);
    lower(Resource::Data, "data", data.max(own_data_bytes().saturating_add(OWN_ROOM_BYTES)))
}

/// What this process has reserved, as the limit counts it; nothing where it cannot be told.
fn own_data_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kibibytes = line.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default().saturating_mul(1024)
}

/// Sets both limits of a resource to `value`, or leaves the hard limit where it already is lower.
fn lower(resource: Resource, what: &'static str, value: u64) -> Result<(), LimitError> {
    let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = value.min(ceiling);
    let limit = Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(resource, limit).map_err(|source| LimitError::Refused { what, value, source: source.into() })
}

/// Runs `start` while this process is a preferred victim of the kernel's out-of-memory killer, so that what it starts
/// inherits that, and makes itself as safe as it was again: the shim must survive its job. Where the score cannot be
/// written the job simply starts with the ordinary one.
pub(crate) fn as_memory_victim<T>(start: impl FnOnce() -> T) -> T {
    let before = fs::read_to_string(OOM_SCORE_PATH).ok();
    let score = before.as_deref().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score {
        let raised = score.saturating_add(OOM_SCORE_RISE).min(1000);
        // Raising is always allowed, and a failure costs only the preference.
        let _ = fs::write(OOM_SCORE_PATH, raised.to_string());
    }
    let started = start();
    if let Some(score) = score {
        // Back to where an unprivileged process may go: the value it was started with.
        let _ = fs::write(OOM_SCORE_PATH, score.to_string());
    }
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_holds_is_known() {
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(own_data_bytes() >= held.len() as u64, "{}", own_data_bytes());
    }
}
