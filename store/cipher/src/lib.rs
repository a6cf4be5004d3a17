//! XChaCha20-Poly1305 behind functions that are not generic.
//!
//! The crates of the cipher are generic, so that their code is compiled where it is used, with that crate's
//! optimisation; unoptimised it is many times slower, and optimising all of `store` for it makes every build wait.
//! Hence a crate of its own. What is sealed, how nonces are chosen and where they stand is not here: see
//! `store/src/seal.rs`.

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce: long enough for random ones never to meet again.
pub const NONCE_BYTES: usize = 24;
/// Bytes that prove a sealed text unaltered.
pub const TAG_BYTES: usize = 16;

/// A key made ready for use. Wiped from memory when dropped.
pub struct Cipher(XChaCha20Poly1305);

/// The text or what it is bound to was altered, or the key or the nonce is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Altered;

impl Cipher {
    pub fn new(key: &[u8; KEY_BYTES]) -> Cipher {
        Cipher(XChaCha20Poly1305::new(key.into()))
    }

    /// Turns `text` into its ciphertext, and gives the tag that binds it to `aad`.
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        self.0
            .encrypt_inout_detached(&XNonce::from(*nonce), aad, InOutBuf::from(text))
            .expect("a text of less than 256 GiB can be sealed")
            .into()
    }

    /// Turns a ciphertext back into its text; leaves it as it was where it is not what [`Cipher::seal`] made.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Altered> {
        self.0
            .decrypt_inout_detached(&XNonce::from(*nonce), aad, InOutBuf::from(text), &Tag::from(*tag))
            .map_err(|_| Altered)
    }
}
