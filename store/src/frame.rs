//! The frame: how a commit's events become one message of the log, and how they are read back.
//!
//! ```text
//! header (68 bytes, clear) ‖ nonce (24) ‖ XChaCha20-Poly1305( zstd( MessagePack array of envelopes ) ) ‖ tag (16)
//! ```
//!
//! The header is the associated data and holds the chain hash of the commit before; this commit's chain hash is
//! BLAKE3(previous ‖ body). So a commit that was altered, reordered, transplanted or cut out is noticed at replay,
//! at a position that can be named. The journal seals with a [`FrameSealer`], everybody who replays opens with a
//! [`FrameOpener`]; both keep their ciphers and compression contexts.
//!
//! Pure: no I/O, no clock, no randomness. The nonce is a keyed hash of header and plaintext (as in SIV modes), so the
//! same commit always gives the same bytes, and no two different ones under one key share a nonce. What is not here:
//! whether a term may rise or fall from one commit to the next (the follower knows), and where keys come from.

mod header;
mod open;
mod seal;

pub use header::{ChainHash, FORMAT, FrameHeader, HEADER_BYTES, open_header};
pub use open::{Commit, FrameError, FrameOpener, open_commit};
pub use seal::{Batch, FrameSealer, Place, SealError, Sealed, seal_commit};

use crate::seal::Key;

/// What is derived from a log key. Changing one would make every log unreadable.
const CIPHER_CONTEXT: &str = "commit cipher";
const NONCE_CONTEXT: &str = "commit nonce";

/// The key that hides a log key's commits.
fn cipher_key(log_key: &Key) -> Key {
    log_key.derive(CIPHER_CONTEXT)
}

/// The key that makes their nonces.
fn nonce_key(log_key: &Key) -> Key {
    log_key.derive(NONCE_CONTEXT)
}

#[cfg(test)]
mod tests;
