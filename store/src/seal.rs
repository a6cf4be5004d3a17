//! Sealing: keys, authenticated encryption, and names that tell nothing.
//!
//! Everything a user hands in passes through here before it is stored: commits (`frame.rs`), checkpoints and images
//! (`blob.rs`), jobs' logs. What is sealed is bound to its place by the associated data, so that it opens nowhere
//! else. Where keys come from is not here: see `keyring.rs` and `key_store.rs`.

use outlive_cipher::{Cipher, TAG_BYTES};
pub use outlive_cipher::{KEY_BYTES, NONCE_BYTES};
use outlive_schemas::checkpoint::BlobName;
use std::fmt;
use zeroize::Zeroizing;

/// What sealing adds to the length of a text.
pub const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// Separates a key's public fingerprint from everything else that is computed from it.
const ID_CONTEXT: &str = "outlive 2026-01 key id";
const BLOB_NAME_CONTEXT: &str = "outlive 2026-01 blob name";
const DERIVE_CONTEXT: &str = "outlive 2026-01 derived key";

/// A secret of 32 bytes. Wiped from memory when dropped, and never shown.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// A key's public fingerprint: says which key is meant and nothing about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// Why sealed bytes did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{bytes} bytes are too few to be sealed ones: the least is {SEAL_BYTES}")]
    TooShort { bytes: usize },
    /// One answer for all three, for a cipher cannot tell them apart.
    #[error("the seal is broken: the bytes were altered, or sealed with another key, or belong somewhere else")]
    Broken,
}

impl Key {
    /// A fresh key from the operating system's randomness.
    pub fn generate() -> Key {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut_slice()).expect("the operating system gives random bytes");
        Key(bytes)
    }

    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Key {
        Key(Zeroizing::new(bytes))
    }

    /// The secret itself, for those who wrap it.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Another key for another purpose: from it neither this key nor any sibling can be told.
    #[must_use]
    pub fn derive(&self, context: &str) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key(DERIVE_CONTEXT);
        hasher.update(self.0.as_slice());
        hasher.update(context.as_bytes());
        Key::from_bytes(hasher.finalize().into())
    }

    pub fn id(&self) -> KeyId {
        let digest = blake3::derive_key(ID_CONTEXT, self.0.as_slice());
        KeyId(std::array::from_fn(|i| digest[i]))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

impl PartialEq for Key {
    /// In constant time, for a comparison that stops early tells how much was guessed.
    fn eq(&self, other: &Key) -> bool {
        blake3::Hash::from_bytes(*self.0) == blake3::Hash::from_bytes(*other.0)
    }
}

impl Eq for Key {}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Seals `plain`, bound to `aad`: a random nonce, then the ciphertext with its tag.
pub fn seal(key: &Key, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).expect("the operating system gives random bytes");
    seal_with_nonce(key, &nonce, aad, plain)
}

/// As [`seal`], with a nonce of the caller's. The same key and nonce must never meet two different texts.
pub fn seal_with_nonce(key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
    seal_onto(&cipher(key), nonce, aad, plain, &mut sealed);
    sealed
}

/// What [`seal`] sealed under the same key and the same `aad`.
pub fn open(key: &Key, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut plain = Vec::new();
    open_into(&cipher(key), aad, sealed, &mut plain)?;
    Ok(plain)
}

/// A blob's name: the same contents under the same key have the same name, and without the key it tells nothing.
pub fn blob_name(key: &Key, content: &[u8]) -> BlobName {
    let naming = Zeroizing::new(blake3::derive_key(BLOB_NAME_CONTEXT, key.expose()));
    BlobName(blake3::keyed_hash(&naming, content).into())
}

/// For those who seal much under one key.
pub(crate) fn cipher(key: &Key) -> Cipher {
    Cipher::new(key.expose())
}

/// Appends nonce, ciphertext and tag to `onto`.
pub(crate) fn seal_onto(cipher: &Cipher, nonce: &[u8; NONCE_BYTES], aad: &[u8], plain: &[u8], onto: &mut Vec<u8>) {
    onto.extend_from_slice(nonce);
    let start = onto.len();
    onto.extend_from_slice(plain);
    let tag = cipher.seal(nonce, aad, &mut onto[start..]);
    onto.extend_from_slice(&tag);
}

/// Replaces the contents of `plain` with what `sealed` holds; `plain` is empty after an error.
pub(crate) fn open_into(cipher: &Cipher, aad: &[u8], sealed: &[u8], plain: &mut Vec<u8>) -> Result<(), OpenError> {
    plain.clear();
    let too_short = OpenError::TooShort { bytes: sealed.len() };
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(too_short)?;
    let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(too_short)?;
    plain.extend_from_slice(text);
    cipher.open(nonce, aad, plain, tag).map_err(|_| {
        plain.clear();
        OpenError::Broken
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; KEY_BYTES])
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_only_where_it_belongs(
            plain in proptest::collection::vec(any::<u8>(), 0..300), aad in ".{0,20}", at: usize, bit in 0..8u8,
        ) {
            let mut sealed = seal(&key(1), aad.as_bytes(), &plain);
            prop_assert_eq!(sealed.len(), plain.len() + SEAL_BYTES);
            prop_assert_eq!(open(&key(1), aad.as_bytes(), &sealed), Ok(plain));
            prop_assert_eq!(open(&key(2), aad.as_bytes(), &sealed), Err(OpenError::Broken));
            prop_assert_eq!(open(&key(1), b"elsewhere, for a change of more than 20", &sealed), Err(OpenError::Broken));
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(open(&key(1), aad.as_bytes(), &sealed), Err(OpenError::Broken));
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let short = bytes.len() < SEAL_BYTES;
            let refused = if short { OpenError::TooShort { bytes: bytes.len() } } else { OpenError::Broken };
            prop_assert_eq!(open(&key(1), b"", &bytes), Err(refused));
        }
    }

    #[test]
    fn sealing_twice_gives_different_bytes() {
        assert_ne!(seal(&key(1), b"", b"same"), seal(&key(1), b"", b"same"));
        assert_ne!(Key::generate(), Key::generate());
    }

    #[test]
    fn everything_computed_from_a_key_differs_and_stays() {
        assert_ne!(key(1).derive("a"), key(1).derive("b"));
        assert_ne!(key(1).derive("a"), key(2).derive("a"));
        assert_eq!(key(1).derive("a"), key(1).derive("a"));
        assert_ne!(blob_name(&key(1), b"x"), blob_name(&key(2), b"x"));
        assert_ne!(blob_name(&key(1), b"x"), blob_name(&key(1), b"y"));
        // Frozen: changing these would orphan everything ever stored.
        let frozen =
            [key(1).id().to_string(), key(1).derive("a").id().to_string(), blob_name(&key(1), b"x").to_string()];
        assert_eq!(
            frozen,
            [
                "e3182ad2632c0465",
                "7d8ade07c1c240f5",
                "81d72239b7dfba6735b39b0c4fbf18d158e63c9a1c5ca6d6d334f2b713fe353d"
            ]
        );
    }

    #[test]
    fn a_key_is_not_shown() {
        let shown = format!("{:?}", key(0xab));
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
    }
}
