//! Events → one sealed, chained body.

use super::header::{ChainHash, FORMAT, FrameHeader, HEADER_BYTES};
use super::{cipher_key, nonce_key};
use crate::seal::{self, Key, KeyId, NONCE_BYTES, SEAL_BYTES};
use bytes::Bytes;
use outlive_cipher::Cipher;
use outlive_schemas::event::Envelope;
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::limits::{COMMIT_OPENED_BYTES_MAX, COMMIT_SEALED_BYTES_MAX};
use serde::Serialize as _;
use std::fmt;
use zeroize::Zeroizing;

/// The fastest level: it already removes the field names, which are most of a small event.
const ZSTD_LEVEL: i32 = 1;

/// What a MessagePack array begins with whose length follows in 4 bytes.
const MESSAGE_PACK_ARRAY_32: u8 = 0xdd;

/// Where a commit is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub shard: u32,
    /// The position it follows.
    pub expected: Sequence,
    pub term: Term,
    /// The chain's hash there.
    pub previous: ChainHash,
}

/// A body as it goes into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub body: Bytes,
    /// The chain's hash with this commit.
    pub chain: ChainHash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("{bytes} bytes of events do not fit one commit: the limit is {COMMIT_OPENED_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("a sealed commit of {bytes} bytes does not fit one message: the limit is {COMMIT_SEALED_BYTES_MAX}")]
    SealedTooLarge { bytes: usize },
}

/// Events on their way into a commit, encoded as they come, so that the journal knows how full it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    encoded: Vec<u8>,
    events: u32,
}

impl Batch {
    /// Adds an event and returns how many bytes the batch then has, before compression.
    pub fn push(&mut self, event: &Envelope) -> usize {
        let mut writer = rmp_serde::Serializer::new(&mut self.encoded).with_struct_map();
        event.serialize(&mut writer).expect("an event can be written to memory");
        self.events += 1;
        self.encoded.len()
    }

    /// Of encoded events, before compression.
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }

    pub fn events(&self) -> usize {
        self.events as usize
    }

    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.events = 0;
    }
}

impl<'a> FromIterator<&'a Envelope> for Batch {
    fn from_iter<I: IntoIterator<Item = &'a Envelope>>(events: I) -> Batch {
        let mut batch = Batch::default();
        for event in events {
            batch.push(event);
        }
        batch
    }
}

/// Seals commits under one log key.
pub struct FrameSealer {
    id: KeyId,
    cipher: Cipher,
    nonce_key: Key,
    compressor: zstd::bulk::Compressor<'static>,
    /// Reused from commit to commit; holds plaintext, hence wiped.
    plain: Zeroizing<Vec<u8>>,
    packed: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for FrameSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSealer").field("key", &self.id).finish_non_exhaustive()
    }
}

impl FrameSealer {
    pub fn new(log_key: &Key) -> FrameSealer {
        FrameSealer {
            id: log_key.id(),
            cipher: seal::cipher(&cipher_key(log_key)),
            nonce_key: nonce_key(log_key),
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("memory for a compressor"),
            plain: Zeroizing::default(),
            packed: Zeroizing::default(),
        }
    }

    /// The same batch at the same place under the same key gives the same bytes.
    pub fn seal(&mut self, place: Place, batch: &Batch) -> Result<Sealed, SealError> {
        self.plain.clear();
        self.plain.push(MESSAGE_PACK_ARRAY_32);
        self.plain.extend_from_slice(&batch.events.to_be_bytes());
        self.plain.extend_from_slice(&batch.encoded);
        if self.plain.len() > COMMIT_OPENED_BYTES_MAX {
            return Err(SealError::TooLarge { bytes: self.plain.len() });
        }
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.plain.len()));
        self.compressor
            .compress_to_buffer(self.plain.as_slice(), &mut *self.packed)
            .expect("a buffer of the compressor's own bound is large enough");

        let Place { shard, expected, term, previous } = place;
        let header =
            FrameHeader { format: FORMAT, shard, expected, term, key: self.id, previous, events: batch.events };
        let header = header.encode();
        let mut body = Vec::with_capacity(HEADER_BYTES + self.packed.len() + SEAL_BYTES);
        body.extend_from_slice(&header);
        seal::seal_onto(&self.cipher, &self.nonce(&header), &header, &self.packed, &mut body);
        if body.len() > COMMIT_SEALED_BYTES_MAX {
            return Err(SealError::SealedTooLarge { bytes: body.len() });
        }
        Ok(Sealed { chain: previous.then(&body), body: body.into() })
    }

    fn nonce(&self, header: &[u8; HEADER_BYTES]) -> [u8; NONCE_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(self.nonce_key.expose());
        hasher.update(header);
        hasher.update(&self.packed);
        let digest = hasher.finalize();
        std::array::from_fn(|i| digest.as_bytes()[i])
    }
}

/// Seals one commit. Who seals many keeps a [`FrameSealer`].
pub fn seal_commit(log_key: &Key, place: Place, events: &[Envelope]) -> Result<Sealed, SealError> {
    FrameSealer::new(log_key).seal(place, &events.iter().collect())
}
