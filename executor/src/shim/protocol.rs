//! What an executor and a shim say to each other, and how it is framed.
//!
//! One socket pair per attempt; a frame is a 32-bit little-endian length and that many bytes of MessagePack. Pure
//! data and pure bytes: no sockets and no processes here. A job's output does not come this way; the executor reads it
//! from the job's own pipes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::BootTime;
use crate::driver::limit::Limits;
use crate::freeze::{FreezeError, FreezeReport, ThawReport};

/// Executor and shim must speak the same version. They are the same binary unless somebody configured another shim.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest frame. Linux gives a process 2 MiB of arguments and environment by default (a quarter of its stack
/// limit), so a `Start` that could be executed fits, and one that does not could not have been.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

const HEADER_BYTES: usize = 4;

/// Everything a shim needs to start an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub protocol: u32,
    /// Program and arguments; looked up in the `PATH` of `env`.
    pub command: Vec<String>,
    /// The whole environment. Nothing else reaches the job.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    pub limits: Limits,
    /// When the shim kills the attempt by itself unless it hears otherwise.
    pub deadline: BootTime,
}

/// From the executor to the shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToShim {
    Start(Start),
    /// Moves the deadline. It never moves backwards: extensions may overtake each other on their way.
    Extend {
        until: BootTime,
    },
    /// Stops the tree, for at most `hold`.
    Freeze {
        id: u64,
        hold: Duration,
    },
    Thaw {
        id: u64,
    },
    /// Kills everything as it stands, if that freeze still holds; answered like a thaw.
    EndFrozen {
        id: u64,
    },
    /// Sends a signal to every process of the attempt.
    Signal {
        signal: i32,
    },
    Kill,
}

/// From the shim to the executor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromShim {
    Started { pid: i32, at: BootTime },
    LaunchFailed { reason: String },
    Froze { id: u64, result: Result<FreezeReport, FreezeError> },
    Thawed { id: u64, result: Result<ThawReport, FreezeError> },
    DeadlinePassed,
    Exited(Exit),
    Stuck { processes: u32 },
    Gone,
}

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// Exit code 0, and nothing else, is success.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// Why bytes could not be made into a frame or a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a control frame of {bytes} bytes is longer than the limit of {FRAME_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("a control frame could not be read; executor and shim are probably of different versions")]
    Malformed(#[source] rmp_serde::decode::Error),
    #[error("a control message could not be written")]
    Unencodable(#[source] rmp_serde::encode::Error),
}

/// One message as a frame.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER_BYTES];
    rmp_serde::encode::write_named(&mut frame, message).map_err(FrameError::Unencodable)?;
    let bytes = frame.len() - HEADER_BYTES;
    match u32::try_from(bytes) {
        Ok(length) if bytes <= FRAME_BYTES_MAX => {
            frame[..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
            Ok(frame)
        }
        _ => Err(FrameError::TooLong { bytes }),
    }
}

/// Bytes as they arrive; messages as they become complete. Holds at most one frame and what one read brought.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: VecDeque<u8>,
}

impl Inbox {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next complete message. Call it until it gives `None` after every [`push`](Self::push).
    pub fn take<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let mut header = [0; HEADER_BYTES];
        if self.bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        for (to, from) in header.iter_mut().zip(&self.bytes) {
            *to = *from;
        }
        let length = u32::from_le_bytes(header) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { bytes: length });
        }
        if self.bytes.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.bytes.drain(..HEADER_BYTES);
        let body: Vec<u8> = self.bytes.drain(..length).collect();
        rmp_serde::from_slice(&body).map(Some).map_err(FrameError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> ToShim {
        ToShim::Start(Start {
            protocol: PROTOCOL_VERSION,
            command: vec!["sh".into(), "-c".into(), "exit 3".into()],
            env: vec![("A".into(), "ä".into())],
            cwd: "/tmp".into(),
            limits: Limits { memory_bytes: 1 << 20 },
            deadline: BootTime::now(),
        })
    }

    #[test]
    fn messages_survive_any_splitting() {
        let sent = vec![start(), ToShim::Freeze { id: 7, hold: Duration::from_secs(1) }, ToShim::Kill];
        let stream: Vec<u8> = sent.iter().flat_map(|message| encode(message).unwrap()).collect();
        for size in [1, 2, 3, 5, 64, stream.len()] {
            let mut inbox = Inbox::default();
            let mut received = Vec::new();
            for piece in stream.chunks(size) {
                inbox.push(piece);
                while let Some(message) = inbox.take::<ToShim>().unwrap() {
                    received.push(message);
                }
            }
            assert_eq!(received, sent, "in pieces of {size}");
        }
    }

    #[test]
    fn an_answer_with_an_error_survives() {
        let sent = FromShim::Froze { id: 1, result: Err(FreezeError::Busy) };
        let mut inbox = Inbox::default();
        inbox.push(&encode(&sent).unwrap());
        assert_eq!(inbox.take::<FromShim>().unwrap(), Some(sent));
    }

    #[test]
    fn an_endless_frame_is_refused_by_its_header() {
        let mut inbox = Inbox::default();
        inbox.push(&u32::MAX.to_le_bytes());
        assert!(matches!(inbox.take::<ToShim>(), Err(FrameError::TooLong { bytes }) if bytes == u32::MAX as usize));
        let long = ToShim::Start(Start {
            protocol: PROTOCOL_VERSION,
            command: vec!["x".repeat(FRAME_BYTES_MAX)],
            env: vec![],
            cwd: "/".into(),
            limits: Limits { memory_bytes: 0 },
            deadline: BootTime::now(),
        });
        assert!(matches!(encode(&long), Err(FrameError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut inbox = Inbox::default();
            inbox.push(&bytes);
            while let Ok(Some(_)) = inbox.take::<ToShim>() {}
        }

        #[test]
        fn a_garbled_frame_is_an_error_or_a_message(at in 0_usize..64, with in any::<u8>()) {
            let mut frame = encode(&start()).unwrap();
            let at = at % frame.len();
            frame[at] = with;
            let mut inbox = Inbox::default();
            inbox.push(&frame);
            let _ = inbox.take::<ToShim>();
        }
    }
}
