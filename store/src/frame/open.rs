//! One sealed body → its events, or what exactly is wrong with it.

use super::cipher_key;
use super::header::{ChainHash, FORMAT, FrameHeader, HEADER_BYTES, open_header};
use crate::seal::{self, Key, KeyId, OpenError, SEAL_BYTES};
use outlive_cipher::Cipher;
use outlive_schemas::event::Envelope;
use outlive_schemas::id::Sequence;
use outlive_schemas::limits::COMMIT_OPENED_BYTES_MAX;
use serde::Deserialize as _;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use zeroize::Zeroizing;

/// An opened commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub header: FrameHeader,
    pub events: Vec<Envelope>,
    /// The chain's hash with this commit.
    pub chain: ChainHash,
}

/// Why a message of the log is not the commit that belongs there. `at` is always the message's position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the message at {at} is not a commit: its {bytes} bytes are too few")]
    TooShort { at: Sequence, bytes: usize },
    #[error("the message at {at} is not a commit: something else than outlive wrote to the log")]
    NotACommit { at: Sequence },
    #[error(
        "the commit at {at} has format {format}, and this version reads {FORMAT}: a newer version of outlive wrote it; \
         run that version"
    )]
    UnknownFormat { at: Sequence, format: u8 },
    #[error("the commit at {at} was made to follow {expected}: it stands in a wrong place")]
    WrongPosition { at: Sequence, expected: Sequence },
    #[error(
        "the chain is broken at {at}: the commit follows one with hash {found}, but the one before it has {previous}; \
         the log was altered or has lost commits"
    )]
    ChainBroken { at: Sequence, previous: ChainHash, found: ChainHash },
    #[error("the commit at {at} is sealed with log key {key}, which is not among the stored keys")]
    UnknownKey { at: Sequence, key: KeyId },
    #[error("the commit at {at} does not open")]
    SealBroken {
        at: Sequence,
        #[source]
        source: OpenError,
    },
    #[error("the commit at {at} would open to {bytes} bytes; the limit is {COMMIT_OPENED_BYTES_MAX}")]
    TooLarge { at: Sequence, bytes: u64 },
    #[error("the commit at {at} cannot be decompressed: {reason}")]
    Compression { at: Sequence, reason: String },
    /// Its seal is whole, so this is another version's: nothing is ever skipped.
    #[error("the commit at {at} holds an event this version cannot read: {reason}; run the version that wrote it")]
    UndecodableEvent { at: Sequence, reason: String },
    #[error("the commit at {at} says it holds {said} events and holds {held}")]
    WrongCount { at: Sequence, said: u32, held: usize },
}

/// Serde lists every known event after an unknown one's name; the beginning is enough.
const REASON_CHARS_MAX: usize = 200;

/// Opens commits under whichever of the log's keys sealed them.
pub struct FrameOpener {
    ciphers: BTreeMap<KeyId, Cipher>,
    decompressor: zstd::bulk::Decompressor<'static>,
    /// Reused from commit to commit; both hold plaintext, hence wiped.
    packed: Zeroizing<Vec<u8>>,
    plain: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for FrameOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameOpener").field("keys", &self.ciphers.keys()).finish_non_exhaustive()
    }
}

impl FrameOpener {
    pub fn new<'a>(log_keys: impl IntoIterator<Item = &'a Key>) -> FrameOpener {
        let mut opener = FrameOpener {
            ciphers: BTreeMap::new(),
            decompressor: zstd::bulk::Decompressor::new().expect("memory for a decompressor"),
            packed: Zeroizing::default(),
            plain: Zeroizing::default(),
        };
        log_keys.into_iter().for_each(|key| opener.add(key));
        opener
    }

    /// Knows one more log key from now on.
    pub fn add(&mut self, log_key: &Key) {
        self.ciphers.insert(log_key.id(), seal::cipher(&cipher_key(log_key)));
    }

    pub fn knows(&self, key: KeyId) -> bool {
        self.ciphers.contains_key(&key)
    }

    /// Opens the message found one above `expected`, where the chain's hash is `previous`.
    pub fn open(&mut self, body: &[u8], expected: Sequence, previous: ChainHash) -> Result<Commit, FrameError> {
        let at = expected.next();
        let header = open_header(body, at)?;
        if header.expected != expected {
            return Err(FrameError::WrongPosition { at, expected: header.expected });
        }
        if header.previous != previous {
            return Err(FrameError::ChainBroken { at, previous, found: header.previous });
        }
        if body.len() < HEADER_BYTES + SEAL_BYTES {
            return Err(FrameError::TooShort { at, bytes: body.len() });
        }
        let cipher = self.ciphers.get(&header.key).ok_or(FrameError::UnknownKey { at, key: header.key })?;
        let (associated, sealed) = body.split_at(HEADER_BYTES);
        seal::open_into(cipher, associated, sealed, &mut self.packed)
            .map_err(|source| FrameError::SealBroken { at, source })?;
        self.decompress(at)?;
        let events = self.decode(at, header.events)?;
        Ok(Commit { header, events, chain: previous.then(body) })
    }

    /// `packed` → `plain`. The length is known before anything is allocated for it.
    fn decompress(&mut self, at: Sequence) -> Result<(), FrameError> {
        let refused = |reason: &str| FrameError::Compression { at, reason: reason.to_owned() };
        let bytes = zstd::zstd_safe::get_frame_content_size(&self.packed)
            .map_err(|_| refused("it is not a zstd frame"))?
            .ok_or_else(|| refused("it does not give its length"))?;
        if bytes > COMMIT_OPENED_BYTES_MAX as u64 {
            return Err(FrameError::TooLarge { at, bytes });
        }
        self.plain.clear();
        self.plain.reserve(bytes as usize);
        let opened = self.decompressor.decompress_to_buffer(self.packed.as_slice(), &mut *self.plain);
        opened.map_err(|error| refused(&error.to_string())).map(|_| ())
    }

    fn decode(&self, at: Sequence, said: u32) -> Result<Vec<Envelope>, FrameError> {
        let undecodable = |reason: String| FrameError::UndecodableEvent { at, reason };
        let mut reader = rmp_serde::Deserializer::from_read_ref(self.plain.as_slice());
        let events = Vec::<Envelope>::deserialize(&mut reader)
            .map_err(|error| undecodable(error.to_string().chars().take(REASON_CHARS_MAX).collect()))?;
        if events.len() != said as usize {
            return Err(FrameError::WrongCount { at, said, held: events.len() });
        }
        match IgnoredAny::deserialize(&mut reader) {
            Err(rmp_serde::decode::Error::InvalidMarkerRead(end)) if end.kind() == ErrorKind::UnexpectedEof => {
                Ok(events)
            }
            _ => Err(undecodable("more bytes follow the last one".to_owned())),
        }
    }
}

/// Opens one commit; `key` looks a log key up. Who opens many keeps a [`FrameOpener`].
pub fn open_commit(
    key: impl Fn(KeyId) -> Option<Key>,
    body: &[u8],
    expected: Sequence,
    previous: ChainHash,
) -> Result<Commit, FrameError> {
    let wanted = open_header(body, expected.next())?.key;
    FrameOpener::new(key(wanted).iter()).open(body, expected, previous)
}
