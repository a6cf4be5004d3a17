//! What the log says of a checkpoint. Its contents are a sealed manifest in the blob store.

use crate::id::{Attempt, CheckpointNumber};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of a blob: a keyed hash of its contents, so that the name tells nothing about them.
///
/// To people: 64 characters of lower-case hexadecimal. In the log: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName(pub [u8; 32]);

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for BlobName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for BlobName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let refused = || D::Error::custom("a blob's name has 32 bytes");
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            let mut name = [0; 32];
            if text.len() != 64 || !text.is_ascii() {
                return Err(refused());
            }
            for (byte, digits) in name.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                let digits = std::str::from_utf8(digits).map_err(D::Error::custom)?;
                *byte = u8::from_str_radix(digits, 16).map_err(D::Error::custom)?;
            }
            return Ok(BlobName(name));
        }
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        bytes.as_slice().try_into().map(BlobName).map_err(|_| refused())
    }
}

/// A checkpoint as its executor made it, before the leader has given it a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The blob that the rest is found from.
    pub manifest: BlobName,
    /// The state's size.
    pub size_bytes: u64,
    /// What had to be uploaded for it: chunks that were not stored yet, and the manifest.
    pub uploaded_bytes: u64,
    pub files: u64,
    pub duration_ms: u64,
    /// How long the job's processes stood still.
    pub pause_ms: u64,
}

/// A committed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub number: CheckpointNumber,
    pub attempt: Attempt,
    pub at: Timestamp,
    pub taken: Taken,
}

/// What an executor needs in order to restore a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    pub number: CheckpointNumber,
    pub manifest: BlobName,
}

impl From<&Checkpoint> for CheckpointRef {
    fn from(checkpoint: &Checkpoint) -> Self {
        CheckpointRef { number: checkpoint.number, manifest: checkpoint.taken.manifest }
    }
}
