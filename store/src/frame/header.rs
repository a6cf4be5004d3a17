//! The clear part of a commit: what it is, where it stands, and what it follows.

use super::FrameError;
use crate::seal::KeyId;
use outlive_schemas::id::{Sequence, Term};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The format this version writes, and the newest it reads.
pub const FORMAT: u8 = 1;
/// Bytes of a header of format 1.
pub const HEADER_BYTES: usize = 68;

const MAGIC: [u8; 3] = *b"OLC";

/// A hash over a commit and, through it, over everything before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl ChainHash {
    /// Where every log begins.
    pub const START: ChainHash = ChainHash([0; 32]);

    /// The chain's hash once `body` follows.
    #[must_use]
    pub fn then(self, body: &[u8]) -> ChainHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(body);
        ChainHash(hasher.finalize().into())
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub format: u8,
    pub shard: u32,
    /// The position this commit was made to follow; it stands one above.
    pub expected: Sequence,
    pub term: Term,
    /// The log key it is sealed with.
    pub key: KeyId,
    /// The chain's hash before this commit.
    pub previous: ChainHash,
    /// How many events it holds.
    pub events: u32,
}

impl FrameHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..3].copy_from_slice(&MAGIC);
        bytes[3] = self.format;
        bytes[4..8].copy_from_slice(&self.shard.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.expected.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.term.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.key.0);
        bytes[32..64].copy_from_slice(&self.previous.0);
        bytes[64..68].copy_from_slice(&self.events.to_be_bytes());
        bytes
    }
}

/// Reads the clear part alone. Nothing of it is proved until the commit is opened.
///
/// `at` is the position where the body was found, for the error.
pub fn open_header(body: &[u8], at: Sequence) -> Result<FrameHeader, FrameError> {
    if body.len() >= 4 && body[..3] == MAGIC && body[3] != FORMAT {
        return Err(FrameError::UnknownFormat { at, format: body[3] });
    }
    let Some(header) = body.first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::TooShort { at, bytes: body.len() });
    };
    if header[..3] != MAGIC {
        return Err(FrameError::NotACommit { at });
    }
    Ok(FrameHeader {
        format: header[3],
        shard: u32::from_be_bytes(part(header, 4)),
        expected: Sequence(u64::from_be_bytes(part(header, 8))),
        term: Term(u64::from_be_bytes(part(header, 16))),
        key: KeyId(part(header, 24)),
        previous: ChainHash(part(header, 32)),
        events: u32::from_be_bytes(part(header, 64)),
    })
}

/// `N` bytes of the header from `start` on; every caller stays within [`HEADER_BYTES`].
fn part<const N: usize>(header: &[u8; HEADER_BYTES], start: usize) -> [u8; N] {
    std::array::from_fn(|i| header[start + i])
}
