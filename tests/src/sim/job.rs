//! What simulated processes do: they count, and their count is their state.
//!
//! What a job is to do stands in its command, so that an attempt knows it from its assignment alone.

use super::env::{MS, Micros};
use bytes::Bytes;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::id::JobId;
use outlive_schemas::job::{Driver, JobSpec, ProcessSpec};

/// One count.
pub const TICK: Micros = 100 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// It ends well when it has counted so far; a service never does.
    pub until: Option<u64>,
    /// It fails whenever it comes to a multiple of this, except where it began.
    pub fails_every: Option<u64>,
    /// It takes no notice of SIGTERM.
    pub stubborn: bool,
}

impl Work {
    pub fn command(self) -> Vec<String> {
        let number = |n: Option<u64>| n.map_or("never".to_owned(), |n| n.to_string());
        vec!["count".into(), number(self.until), number(self.fails_every), self.stubborn.to_string()]
    }

    pub fn of(spec: &JobSpec) -> Work {
        let Driver::Process(ProcessSpec { command, .. }) = &spec.driver else {
            return Work { until: Some(0), fails_every: None, stubborn: false };
        };
        let number = |i: usize| command.get(i).and_then(|word| word.parse().ok());
        Work { until: number(1), fails_every: number(2), stubborn: command.get(3).is_some_and(|word| word == "true") }
    }

    /// How far it counts from `count` until it ends, and with which exit code.
    pub fn end_after(self, count: u64) -> Option<(u64, i32)> {
        let well = self.until.map(|until| (until.max(count), 0));
        let badly = self.fails_every.map(|every| ((count / every + 1) * every, 1));
        match (well, badly) {
            (Some(well), Some(badly)) => Some(if badly.0 < well.0 { badly } else { well }),
            (well, badly) => well.or(badly),
        }
    }
}

/// The files of a state, each of which is one chunk: one never changes, one seldom, one always.
pub fn files(job: JobId, count: u64) -> Vec<Bytes> {
    [format!("job {job}"), format!("tens {}", count / 10), format!("count {count}")].map(Bytes::from).to_vec()
}

pub fn count_of(files: &[Bytes]) -> Option<u64> {
    let last = std::str::from_utf8(files.last()?).ok()?;
    last.strip_prefix("count ")?.parse().ok()
}

/// A blob's name: of its contents, and of the job, as under a key of the job's own.
pub fn name_of(job: JobId, body: &[u8]) -> BlobName {
    let mut hasher = blake3::Hasher::new();
    hasher.update(job.0.as_bytes());
    hasher.update(body);
    BlobName(hasher.finalize().into())
}

/// The manifest: the names of the chunks, in order.
pub fn manifest(names: &[BlobName]) -> Bytes {
    names.iter().flat_map(|name| name.0).collect::<Vec<u8>>().into()
}

pub fn names_in(manifest: &[u8]) -> Vec<BlobName> {
    manifest.chunks_exact(32).map(|name| BlobName(name.try_into().expect("32 bytes"))).collect()
}
