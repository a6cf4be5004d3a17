//! Starting a shim, and the first words with it.
//!
//! Deliberately not here: what is said after the job has started (`link`).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::shim::protocol::{FromShim, Inbox};

/// How much of what a broken shim printed is shown.
const COMPLAINT_BYTES_MAX: u64 = 2048;

/// The search path of a job when the executor has none itself.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the shim is the `outlive` binary, its allocator would set a gibibyte aside, which counts against the limit that
/// the shim puts on itself for the job: it could start nothing any more.
const LEAN_ALLOCATOR: (&str, &str) = ("MIMALLOC_ARENA_EAGER_COMMIT", "0");

/// The executor's end of a control channel.
#[derive(Debug)]
pub(super) struct Talk {
    pub socket: UnixStream,
    inbox: Inbox,
}

impl Talk {
    /// Says the first frame and hears the answer.
    pub async fn begin(&mut self, frame: &[u8]) -> io::Result<FromShim> {
        self.socket.write_all(frame).await?;
        match self.hear().await? {
            Some(message) => Ok(message),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing")),
        }
    }

    /// The next message; `None` when the shim has closed its end. Safe to cancel.
    pub async fn hear(&mut self) -> io::Result<Option<FromShim>> {
        let mut buffer = [0; 4096];
        loop {
            let ready = self.inbox.take().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if ready.is_some() {
                return Ok(ready);
            }
            match self.socket.read(&mut buffer).await {
                Ok(0) => return Ok(None),
                Ok(filled) => self.inbox.push(&buffer[..filled]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Starts the shim's process. Its environment holds nothing of the executor's: what that is configured with, secrets
/// included, could be read by the job from `/proc` otherwise.
pub(super) fn start_shim(shim: &Path) -> io::Result<(Child, Talk)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let socket = UnixStream::from_std(ours)?;
    // The command holds the shim's end and must be gone before anybody waits for that end to close.
    let child = Command::new(shim)
        .arg("shim")
        .env_clear()
        .envs([LEAN_ALLOCATOR])
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok((child, Talk { socket, inbox: Inbox::default() }))
}

/// What a shim that failed printed, if anything.
pub(super) async fn last_words(stderr: &mut ChildStderr) -> Option<String> {
    let mut said = Vec::new();
    let mut limited = stderr.take(COMPLAINT_BYTES_MAX);
    // It has closed its channel, so it has ended or is about to; a second is plenty.
    let _ = timeout(Duration::from_secs(1), limited.read_to_end(&mut said)).await;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    (!said.is_empty()).then_some(said)
}

/// Adds what every program expects to find. `HOME` is the working directory: what a program keeps about itself belongs
/// to the job's state, and jobs must not meet each other in the executor's home.
pub(super) fn with_basics(env: Vec<(String, String)>, cwd: &Path) -> Vec<(String, String)> {
    let own = |name: &str| std::env::var(name).ok();
    let basics = [
        ("PATH", Some(own("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned()))),
        ("HOME", cwd.to_str().map(str::to_owned)),
        ("LANG", Some(own("LANG").unwrap_or_else(|| "C.UTF-8".to_owned()))),
        ("TZ", own("TZ")),
    ];
    let missing = |name: &str| !env.iter().any(|(given, _)| given == name);
    let mut all: Vec<_> = basics
        .into_iter()
        .filter(|(name, _)| missing(name))
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    all.extend(env);
    all
}
