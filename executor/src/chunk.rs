//! Chunks: the pieces that a job's state is cut into, what they are called, and how they are sealed.
//!
//! On the way of a checkpoint this stands between reading files (`scan.rs`) and uploading (`checkpoint.rs`); on the way
//! of a restore it opens and verifies. Contents decide where a cut is made, so that an insertion at the front of a large
//! file changes one chunk and not all that follow; a chunk's name is a keyed hash of its contents, so that what is
//! stored already is recognised without being read back, and so that names tell nothing to those without the key. Where
//! the cuts are depends on the key as well: the lengths of chunks would otherwise give a known file away.
//!
//! Deliberately not here: which chunks make up a file (see `manifest.rs`), and any I/O.

pub mod cut;

use std::io;

use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::id::JobId;
use outlive_store::seal::{self, Key, OpenError};
use serde::{Deserialize, Serialize};

pub use cut::{CONTENT, MANIFEST, Sizes};

/// The format of a sealed chunk, part of what its seal covers.
const FORMAT: u8 = 1;

/// zstd's own default: beyond it, time grows much faster than what is saved.
const COMPRESSION_LEVEL: i32 = 3;

/// The first byte inside the seal: how the rest is written.
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// One chunk of something larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef(pub BlobName, /** Bytes once opened. */ pub u32);

impl ChunkRef {
    pub fn name(&self) -> BlobName {
        self.0
    }

    pub fn bytes(&self) -> usize {
        self.1 as usize
    }
}

/// What a blob is a part of. Each kind is named and sealed under keys of its own, so that a job cannot make one pass
/// for another by writing its bytes into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a file.
    Content,
    /// Of a manifest, or of a list of such.
    Manifest,
    /// What the rest is found from.
    Root,
}

/// Why a blob is not what its name says.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("its seal does not open")]
    Seal {
        #[source]
        source: OpenError,
    },
    #[error("it is not compressed as it says")]
    Compression {
        #[source]
        source: io::Error,
    },
    #[error("it is written in a way that this version does not know ({given})")]
    Writing { given: u8 },
    #[error("it is empty")]
    Empty,
    #[error("it has {actual} bytes instead of {expected}")]
    Length { expected: usize, actual: usize },
    #[error("its contents do not belong to its name")]
    Name,
}

/// Names, seals and opens the blobs of one job's checkpoints.
#[derive(Clone)]
pub struct Sealer {
    job: JobId,
    content: Keys,
    manifest: Keys,
    root: Keys,
    /// Moves the cuts; the job's secret.
    seed: u64,
}

#[derive(Clone)]
struct Keys {
    naming: Key,
    sealing: Key,
}

impl Keys {
    fn new(key: &Key, kind: &str) -> Self {
        Keys {
            naming: key.derive(&format!("checkpoint {kind} name")),
            sealing: key.derive(&format!("checkpoint {kind} seal")),
        }
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("job", &self.job).finish_non_exhaustive()
    }
}

impl Sealer {
    /// `key` is the job's data key.
    pub fn new(job: JobId, key: &Key) -> Self {
        let seed = seal::blob_name(&key.derive("checkpoint chunk boundaries"), b"").0;
        Sealer {
            job,
            content: Keys::new(key, "content"),
            manifest: Keys::new(key, "manifest"),
            root: Keys::new(key, "root"),
            seed: u64::from_le_bytes(seed[..8].try_into().expect("a name has more than 8 bytes")),
        }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn name(&self, kind: Kind, content: &[u8]) -> BlobName {
        seal::blob_name(&self.keys(kind).naming, content)
    }

    /// Compresses and seals `content`, whose name is `name`.
    pub fn seal(&self, kind: Kind, name: BlobName, content: &[u8]) -> Vec<u8> {
        seal::seal(&self.keys(kind).sealing, &self.aad(kind, name), &pack(content))
    }

    /// Opens what [`Sealer::seal`] made and proves that it is what `name` names. It never has more than `bytes_max`
    /// bytes.
    pub fn open(&self, kind: Kind, name: BlobName, sealed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Damage> {
        let plain = seal::open(&self.keys(kind).sealing, &self.aad(kind, name), sealed)
            .map_err(|source| Damage::Seal { source })?;
        let content = unpack(&plain, bytes_max)?;
        if self.name(kind, &content) == name { Ok(content) } else { Err(Damage::Name) }
    }

    /// Opens one chunk and proves its length as well.
    pub fn open_chunk(&self, kind: Kind, chunk: ChunkRef, sealed: &[u8]) -> Result<Vec<u8>, Damage> {
        let content = self.open(kind, chunk.name(), sealed, chunk.bytes())?;
        if content.len() == chunk.bytes() {
            Ok(content)
        } else {
            Err(Damage::Length { expected: chunk.bytes(), actual: content.len() })
        }
    }

    fn keys(&self, kind: Kind) -> &Keys {
        match kind {
            Kind::Content => &self.content,
            Kind::Manifest => &self.manifest,
            Kind::Root => &self.root,
        }
    }

    fn aad(&self, kind: Kind, name: BlobName) -> Vec<u8> {
        let kind: &[u8] = match kind {
            Kind::Content => b"content",
            Kind::Manifest => b"manifest",
            Kind::Root => b"root",
        };
        [&[FORMAT][..], self.job.0.as_bytes(), &name.0, kind].concat()
    }
}

/// Compresses what shrinks, and says whether it did.
pub(crate) fn pack(content: &[u8]) -> Vec<u8> {
    let mut plain = vec![ZSTD];
    // A chunk that cannot be compressed is stored as it is, and one that does not shrink as well.
    match zstd::bulk::compress(content, COMPRESSION_LEVEL) {
        Ok(packed) if packed.len() < content.len() => plain.extend_from_slice(&packed),
        _ => {
            plain[0] = PLAIN;
            plain.extend_from_slice(content);
        }
    }
    plain
}

/// What [`pack`] packed, if it has no more than `bytes_max` bytes.
pub(crate) fn unpack(plain: &[u8], bytes_max: usize) -> Result<Vec<u8>, Damage> {
    match plain.split_first() {
        None => Err(Damage::Empty),
        Some((&PLAIN, content)) if content.len() > bytes_max => {
            Err(Damage::Length { expected: bytes_max, actual: content.len() })
        }
        Some((&PLAIN, content)) => Ok(content.to_vec()),
        Some((&ZSTD, packed)) => {
            zstd::bulk::decompress(packed, bytes_max).map_err(|source| Damage::Compression { source })
        }
        Some((&given, _)) => Err(Damage::Writing { given }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::id::JobId;

    fn sealer(key: u8) -> Sealer {
        Sealer::new(JobId(uuid::Uuid::from_u128(7)), &Key::from_bytes([key; 32]))
    }

    #[test]
    fn a_chunk_opens_as_what_it_was() {
        for content in [&b""[..], b"x", &[7; 100_000], &(0..=255).collect::<Vec<u8>>()] {
            let sealer = sealer(1);
            let name = sealer.name(Kind::Content, content);
            let sealed = sealer.seal(Kind::Content, name, content);
            assert!(sealed.len() <= content.len() + 64, "sealing {} bytes made {}", content.len(), sealed.len());
            let chunk = ChunkRef(name, content.len() as u32);
            assert_eq!(sealer.open_chunk(Kind::Content, chunk, &sealed).expect("opens"), content);
        }
    }

    #[test]
    fn what_was_altered_or_moved_is_found() {
        let (ours, other) = (sealer(1), sealer(2));
        let name = ours.name(Kind::Content, b"contents");
        let sealed = ours.seal(Kind::Content, name, b"contents");
        let refused =
            |sealer: &Sealer, kind, name, sealed: &[u8]| sealer.open(kind, name, sealed, 8).expect_err("refused");

        let mut altered = sealed.clone();
        altered[sealed.len() / 2] ^= 1;
        assert!(matches!(refused(&ours, Kind::Content, name, &altered), Damage::Seal { .. }));
        assert!(matches!(refused(&ours, Kind::Content, name, &sealed[..sealed.len() - 1]), Damage::Seal { .. }));
        assert!(matches!(refused(&ours, Kind::Content, name, b""), Damage::Seal { .. }));
        assert!(matches!(refused(&ours, Kind::Manifest, name, &sealed), Damage::Seal { .. }), "another kind");
        let elsewhere = ours.name(Kind::Content, b"others");
        assert!(matches!(refused(&ours, Kind::Content, elsewhere, &sealed), Damage::Seal { .. }), "another name");
        assert!(matches!(refused(&other, Kind::Content, name, &sealed), Damage::Seal { .. }), "another key");
        let mislabelled = ours.seal(Kind::Content, elsewhere, b"contents");
        assert!(matches!(refused(&ours, Kind::Content, elsewhere, &mislabelled), Damage::Name));
    }

    #[test]
    fn a_chunk_that_would_grow_beyond_its_length_is_refused() {
        let sealer = sealer(1);
        let bomb = vec![0; 1 << 20];
        let name = sealer.name(Kind::Content, &bomb);
        let sealed = sealer.seal(Kind::Content, name, &bomb);
        assert!(matches!(sealer.open(Kind::Content, name, &sealed, 1_000), Err(Damage::Compression { .. })));
        let short = ChunkRef(name, (1 << 20) + 1);
        assert!(matches!(sealer.open_chunk(Kind::Content, short, &sealed), Err(Damage::Length { .. })));
    }

    #[test]
    fn names_and_cuts_are_the_jobs_own() {
        assert_ne!(sealer(1).name(Kind::Content, b"x"), sealer(2).name(Kind::Content, b"x"));
        assert_ne!(sealer(1).name(Kind::Content, b"x"), sealer(1).name(Kind::Manifest, b"x"));
        assert_ne!(sealer(1).seed(), sealer(2).seed());
    }
}
