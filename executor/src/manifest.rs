//! What a checkpoint consists of: every entry of a state directory, in order, and where its contents are.
//!
//! A manifest is the MessagePack of its entries, one after the other. It is itself cut into sealed chunks, so that the
//! part of it that did not change is not uploaded again, and the list of those chunks again if it is long, until what is
//! left fits into one sealed root. The root's name is a keyed hash of its contents, and those follow from the state
//! alone: two states are the same exactly if their roots have the same name.
//!
//! Not kept, for they mean nothing on another host or to another user: owners, access times, extended attributes, the
//! set-group-id bit of directories, the mode and time of the state directory itself. Several names of one file (hard
//! links) become several files.
//!
//! Deliberately not here: I/O. What a manifest may say is in `manifest/check.rs`.

pub mod check;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chunk::ChunkRef;
use crate::chunk::cut::CUTTING;
use outlive_schemas::limits::{CHECKPOINT_ENTRIES_MAX, MANIFEST_BYTES_MAX};

pub use check::Fault;

/// The format of roots and entries.
pub const FORMAT: u16 = 1;

/// A file of at most this many bytes lies in the manifest itself: a counter's whole checkpoint is then one blob.
pub const INLINE_BYTES_MAX: usize = 512;

/// A manifest, or a list of chunks, that is no longer than this lies in the root.
pub const ROOT_BODY_BYTES_MAX: usize = 8 << 10;

/// Lists of lists: each level is some two hundred times shorter than the one below, so that three are enough for the
/// largest manifest there may be.
pub const LEVELS_MAX: u8 = 4;

/// A root once opened: its body and some words.
pub const ROOT_BYTES_MAX: usize = ROOT_BODY_BYTES_MAX + 1024;

/// A time as file systems have it: seconds since 1970, which may be negative, and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileTime(pub i64, pub u32);

/// One entry of a state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the state directory; bytes, for file names need not be text.
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
    /// Permission bits; 0 for a symbolic link, which has none.
    pub mode: u32,
    pub modified: FileTime,
    pub node: Node,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    #[serde(rename = "d")]
    Directory,
    #[serde(rename = "f")]
    File { size: u64, extents: Arc<[Extent]> },
    #[serde(rename = "l")]
    Symlink {
        #[serde(with = "serde_bytes")]
        target: Vec<u8>,
    },
    #[serde(rename = "p")]
    Fifo,
}

/// A stretch of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    #[serde(rename = "c")]
    Chunk(ChunkRef),
    #[serde(rename = "h")]
    Hole(u64),
    #[serde(rename = "i")]
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl Extent {
    pub fn bytes(&self) -> u64 {
        match self {
            Extent::Chunk(chunk) => chunk.bytes() as u64,
            Extent::Hole(bytes) => *bytes,
            Extent::Inline(bytes) => bytes.len() as u64,
        }
    }
}

/// What a checkpoint is found from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    pub format: u16,
    /// How its files were cut. A reader need not know: every chunk is listed with its length.
    pub cutting: String,
    /// 0: the body is the manifest. Otherwise it is a list of chunks that make up a body one level below.
    pub levels: u8,
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl Root {
    pub fn new(levels: u8, body: Vec<u8>) -> Self {
        Root { format: FORMAT, cutting: CUTTING.to_owned(), levels, body }
    }
}

/// Why a manifest is not one that may be restored, or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the {what} is not written as a {what} is")]
    Undecodable {
        what: &'static str,
        #[source]
        source: rmp_serde::decode::Error,
    },
    #[error("the manifest has format {given}, and this version knows format {FORMAT}: use a newer version of Outlive")]
    Format { given: u16 },
    #[error("the manifest is said to lie {given} lists deep, and {LEVELS_MAX} are the most")]
    Levels { given: u8 },
    #[error("the manifest has {bytes} bytes or more, and {MANIFEST_BYTES_MAX} are the most")]
    TooLarge { bytes: usize },
    #[error("the manifest has more than {CHECKPOINT_ENTRIES_MAX} entries")]
    TooManyEntries,
    #[error("`{path}`: {fault}")]
    Entry { path: String, fault: Fault },
}

/// Appends one entry to a manifest.
pub fn append(entry: &Entry, manifest: &mut Vec<u8>) {
    entry
        .serialize(&mut rmp_serde::Serializer::new(manifest))
        .expect("an entry has nothing that MessagePack cannot hold");
}

/// A manifest's entries, checked as if they came from an enemy.
pub fn read(manifest: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    if manifest.len() > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLarge { bytes: manifest.len() });
    }
    let entries: Vec<Entry> = read_all("manifest", manifest, CHECKPOINT_ENTRIES_MAX)?;
    check::check(&entries)?;
    Ok(entries)
}

pub fn pack_root(root: &Root) -> Vec<u8> {
    rmp_serde::to_vec(root).expect("a root has nothing that MessagePack cannot hold")
}

pub fn read_root(bytes: &[u8]) -> Result<Root, ManifestError> {
    // The format first, for another format may be written otherwise.
    let undecodable = |source| ManifestError::Undecodable { what: "root", source };
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    let Format(format) = Format::deserialize(&mut reader).map_err(undecodable)?;
    if format != FORMAT {
        return Err(ManifestError::Format { given: format });
    }
    let root: Root = rmp_serde::from_slice(bytes).map_err(undecodable)?;
    if root.levels > LEVELS_MAX { Err(ManifestError::Levels { given: root.levels }) } else { Ok(root) }
}

pub fn pack_chunks(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(chunks.len() * 40);
    for chunk in chunks {
        chunk
            .serialize(&mut rmp_serde::Serializer::new(&mut packed))
            .expect("a chunk's name has nothing that MessagePack cannot hold");
    }
    packed
}

/// The list of chunks of a manifest or of a longer list. `chunk_bytes_max` bounds each.
pub fn read_chunks(packed: &[u8], chunk_bytes_max: usize) -> Result<Vec<ChunkRef>, ManifestError> {
    let chunks: Vec<ChunkRef> = read_all("list of chunks", packed, MANIFEST_BYTES_MAX)?;
    let mut total = 0_usize;
    for chunk in &chunks {
        total = total.saturating_add(chunk.bytes());
        if chunk.bytes() > chunk_bytes_max || total > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { bytes: total });
        }
    }
    Ok(chunks)
}

/// `path` for people: control characters and what is not text are escaped, and the middle of a long one is left out.
pub fn shown(path: &[u8]) -> String {
    const SHOWN_MAX: usize = 400;
    let text: String = String::from_utf8_lossy(path).chars().flat_map(char::escape_debug).collect();
    let count = text.chars().count();
    if count <= SHOWN_MAX {
        return text;
    }
    let edge = SHOWN_MAX / 2;
    let head: String = text.chars().take(edge).collect();
    let tail: String = text.chars().skip(count - edge).collect();
    format!("{head}…{tail}")
}

/// The first field of a root, whatever follows.
struct Format(u16);

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> serde::de::Visitor<'de> for First {
            type Value = Format;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a root")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Format, A::Error> {
                let format = seq.next_element()?.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Format(format))
            }
        }
        deserializer.deserialize_seq(First)
    }
}

/// Values one after the other until the bytes end, `max` at most. Memory grows with what is there, not with what is
/// announced.
fn read_all<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<Vec<T>, ManifestError> {
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    let mut values = Vec::new();
    while reader.position() < bytes.len() as u64 {
        if values.len() >= max {
            return Err(ManifestError::TooManyEntries);
        }
        values.push(T::deserialize(&mut reader).map_err(|source| ManifestError::Undecodable { what, source })?);
    }
    Ok(values)
}
