//! The socket through which `outlive chaos` reaches a running `dev`: a JSON request a line, a JSON reply a line.
//!
//! Only who may enter the data directory can connect.

use crate::dev::topology::Role;
use anyhow::Context as _;
use outlive_schemas::error::{ErrorCode, ErrorReply, Rejection};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// A request is a few words.
const REQUEST_BYTES_MAX: u64 = 4 * 1024;
/// A reply tells of every process at most.
const REPLY_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// SIGKILL.
    Kill { role: Role, name: String },
    /// SIGSTOP: it is there, and says nothing.
    Pause { role: Role, name: String },
    /// SIGCONT.
    Resume { role: Role, name: String },
    /// Starts it, after ending it where it runs.
    Restart { role: Role, name: String },
    /// SIGKILL to everything in a zone.
    KillZone { zone: String },
    /// Resumes everything that is paused, and starts everything that is dead.
    Heal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Killed,
    Paused,
    Resumed,
    Stopped,
    Started,
}

/// What was done to one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub action: Action,
    pub name: String,
    pub role: Role,
    pub zone: String,
    pub pid: u32,
    /// For one that was started: when it was of use. Absent where it was not in time; its log says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_after_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneReply {
    pub done: Vec<Done>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Reply {
    Done(DoneReply),
    Refused(ErrorReply),
}

/// A request on its way to the supervisor.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    pub answer: oneshot::Sender<Result<Vec<Done>, Rejection>>,
}

/// Opens the socket and passes on what is asked, until the supervisor is gone.
pub fn listen(path: &Path, asked: mpsc::Sender<Asked>) -> anyhow::Result<()> {
    // One that was left behind by a run that was killed: the directory's lock says that nobody uses it.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing the old {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let address = Address::of(path)?;
    let listener = UnixListener::bind(&address.path).with_context(|| format!("opening {}", path.display()))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, asked.clone()));
        }
    });
    Ok(())
}

async fn serve(stream: UnixStream, asked: mpsc::Sender<Asked>) {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        match (&mut reading).take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 => {}
            Ok(_) | Err(_) => return,
        }
        let reply = match ask(&line, &asked).await {
            Ok(done) => Reply::Done(DoneReply { done }),
            Err(error) => Reply::Refused(ErrorReply { error }),
        };
        let mut text = serde_json::to_vec(&reply).expect("a reply can be written as JSON");
        text.push(b'\n');
        // After a line that is too long there is no telling where the next begins.
        if writing.write_all(&text).await.is_err() || !line.ends_with(b"\n") {
            return;
        }
    }
}

async fn ask(line: &[u8], asked: &mpsc::Sender<Asked>) -> Result<Vec<Done>, Rejection> {
    let request = serde_json::from_slice(line)
        .map_err(|error| Rejection::new(ErrorCode::InvalidRequest, format!("this is no request: {error}")))?;
    let (answer, answered) = oneshot::channel();
    let gone = |_| Rejection::unavailable("`outlive dev` is stopping");
    asked.send(Asked { request, answer }).await.map_err(|_| Rejection::unavailable("`outlive dev` is stopping"))?;
    answered.await.map_err(gone)?
}

/// Asks the `dev` that has this socket.
///
/// Errors: nobody has it. The inner one is the answer.
pub async fn request(path: &Path, request: &Request) -> anyhow::Result<Result<DoneReply, Rejection>> {
    let address = Address::of(path)?;
    let stream = UnixStream::connect(&address.path).await.with_context(|| {
        let folder = path.parent().unwrap_or(path);
        format!("no `outlive dev` is ready in {}: start one there, or name its --data-dir", folder.display())
    })?;
    let (reading, mut writing) = stream.into_split();
    let mut text = serde_json::to_vec(request).context("writing the request")?;
    text.push(b'\n');
    writing.write_all(&text).await.context("asking `outlive dev`")?;
    let mut line = Vec::new();
    let mut reading = BufReader::new(reading.take(REPLY_BYTES_MAX));
    reading.read_until(b'\n', &mut line).await.context("reading what `outlive dev` answers")?;
    match serde_json::from_slice(&line).context("`outlive dev` ended before it answered")? {
        Reply::Done(done) => Ok(Ok(done)),
        Reply::Refused(ErrorReply { error }) => Ok(Err(error)),
    }
}

/// A path that fits a socket's address, which holds about a hundred bytes.
struct Address {
    path: PathBuf,
    /// Keeps a short path valid.
    _folder: Option<std::fs::File>,
}

impl Address {
    fn of(path: &Path) -> anyhow::Result<Address> {
        const BYTES_MAX: usize = 100;
        if path.as_os_str().len() <= BYTES_MAX || !cfg!(target_os = "linux") {
            return Ok(Address { path: path.to_owned(), _folder: None });
        }
        use std::os::fd::AsRawFd as _;
        let (folder, name) = path.parent().zip(path.file_name()).context("the socket has no folder")?;
        let opened = std::fs::File::open(folder).with_context(|| format!("opening {}", folder.display()))?;
        let short = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(name);
        Ok(Address { path: short, _folder: Some(opened) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Done {
        Done {
            action: Action::Killed,
            name: "nats-a".to_owned(),
            role: Role::Nats,
            zone: "a".to_owned(),
            pid: 7,
            ready_after_ms: None,
        }
    }

    /// A socket behind which everything is done, but healing refused.
    fn served(path: &Path) {
        let (asked_from, mut asked) = mpsc::channel::<Asked>(1);
        listen(path, asked_from).expect("listen");
        tokio::spawn(async move {
            while let Some(Asked { request, answer }) = asked.recv().await {
                let reply = match request {
                    Request::Heal => Err(Rejection::not_found("patient")),
                    _ => Ok(vec![example()]),
                };
                answer.send(reply).expect("somebody waits");
            }
        });
    }

    #[tokio::test]
    async fn a_request_is_answered_however_long_the_path() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let deep = scratch.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("mkdir");
        for folder in [scratch.path(), &deep] {
            let path = folder.join("control.sock");
            std::fs::write(&path, "left behind").expect("write");
            served(&path);
            let kill = Request::Kill { role: Role::Nats, name: "a".to_owned() };
            let done = request(&path, &kill).await.expect("answered").expect("done");
            assert_eq!(done.done, [example()]);
            let refused = request(&path, &Request::Heal).await.expect("answered").expect_err("refused");
            assert_eq!(refused.code, ErrorCode::NotFound);
        }
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_harms_nobody() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let path = scratch.path().join("control.sock");
        served(&path);
        let long = "x".repeat(10_000);
        for line in ["", "{", r#"{"do":"explode"}"#, r#"{"do":"kill","role":"cat","name":"a"}"#, &long] {
            let mut stream = UnixStream::connect(&path).await.expect("connect");
            stream.write_all(format!("{line}\n").as_bytes()).await.expect("write");
            let mut answer = String::new();
            BufReader::new(&mut stream).read_line(&mut answer).await.expect("read");
            assert!(answer.contains("invalid_request"), "{line:.40}: {answer}");
        }
        request(&path, &Request::Heal).await.expect("still answered").expect_err("refused");
    }

    #[tokio::test]
    async fn where_nobody_listens_it_is_said() {
        let error = request(Path::new("/nowhere/control.sock"), &Request::Heal).await.expect_err("nobody");
        assert!(error.to_string().contains("no `outlive dev` is ready in /nowhere"), "{error:#}");
    }
}
