//! A snapshot in a file, for another cluster.
//!
//! ```text
//! "OLSF" version ‖ the file's key, wrapped by a master key ‖ ( length (4 bytes, little endian) ‖ sealed part )*
//! ```
//!
//! The parts: a head, which says what it is a snapshot of; the manifest, in pieces; every chunk that the manifest refers
//! to, once, in the order in which it does so first; an end. Each is compressed and sealed under the file's own key and
//! bound to its kind and its place, so that a part that was altered, moved, left out or brought in from elsewhere does
//! not open, and a file that was cut short has no end. The job's key is not in it: what is stored of the job elsewhere
//! stays closed to who has the file, and deleting the job leaves the file as it is.
//!
//! A reader holds the manifest, as a restore does, and of everything else some chunks at a time. On the way of a job
//! this stands beside `restore.rs` and `checkpoint.rs`; asking the leader is not here, see `ops/cli/src/snapshot`.

mod export;
mod import;
mod read;
mod write;
#[cfg(test)]
mod tests;

pub use export::{ExportError, Exported, export};
pub use import::{ImportError, Target, import};
pub use read::{Checked, check};

use crate::chunk::cut::CONTENT;
use crate::chunk::{ChunkRef, Damage};
use crate::manifest::{Entry, ManifestError};
use crate::restore::content_chunks;
use outlive_schemas::id::{JobId, JobVersion, Namespace, SnapshotName};
use outlive_schemas::time::Timestamp;
use outlive_store::keyring::UnwrapError;
use outlive_store::seal::OpenError;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

const MAGIC: [u8; 4] = *b"OLSF";
const FORMAT: u8 = 1;
/// What the wrapped key is wrapped for.
const PURPOSE: &[u8] = b"snapshot file";
/// Of a manifest, before it is packed.
const PIECE_BYTES: usize = 256 << 10;
/// A part as it stands in the file: no chunk and no piece is longer, and a packed one is hardly more than its contents.
const PART_BYTES_MAX: usize = PIECE_BYTES + (4 << 10);
const _: () = assert!(CONTENT.max <= PIECE_BYTES);

/// What the file is a snapshot of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub cluster: String,
    pub namespace: Namespace,
    pub job: JobId,
    pub name: SnapshotName,
    pub created_at: Timestamp,
    pub job_version: JobVersion,
    /// The version of the program that wrote it.
    pub written_by: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    about: About,
    /// Nothing where the state is empty and always was.
    manifest_bytes: Option<u64>,
}

/// The kinds of parts, as their seals know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    Manifest,
    Chunk,
    End,
}

/// What a part's seal is bound to: its place among all, and what it is.
fn binding(place: u64, part: Part) -> Vec<u8> {
    let kind: &[u8] = match part {
        Part::Head => b"head",
        Part::Manifest => b"manifest",
        Part::Chunk => b"chunk",
        Part::End => b"end",
    };
    [b"outlive snapshot file part ".as_slice(), &place.to_be_bytes(), kind].concat()
}

/// Each chunk that a manifest refers to once, in the order in which it does so first.
fn distinct(entries: &[Entry]) -> Vec<ChunkRef> {
    let mut seen = HashSet::new();
    entries.iter().flat_map(content_chunks).filter(|chunk| seen.insert(*chunk)).collect()
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("it does not begin as a snapshot's file does: give what `outlive snapshot export` wrote")]
    NotASnapshot,
    #[error("it has format {given}, and this version of outlive reads format {FORMAT}: use a newer version")]
    Format { given: u8 },
    #[error("its key cannot be opened")]
    Key(#[source] UnwrapError),
    #[error("it ends within part {part}: it was cut short; export the snapshot again")]
    CutShort { part: u64 },
    #[error("part {part} is said to have {bytes} bytes, and {PART_BYTES_MAX} are the most: it was altered")]
    TooLong { part: u64, bytes: usize },
    #[error("part {part} is not what stood there: it was altered or moved, or is another file's")]
    Sealed {
        part: u64,
        #[source]
        source: OpenError,
    },
    #[error("part {part} is not packed as a part is")]
    Packed {
        part: u64,
        #[source]
        source: Damage,
    },
    #[error("part {part} is not written as its kind is")]
    Undecodable { part: u64 },
    #[error("its manifest is not one that may be restored")]
    Manifest(#[source] ManifestError),
    #[error("it goes on behind its end: it was altered")]
    Trailing,
    #[error("it cannot be {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
}
