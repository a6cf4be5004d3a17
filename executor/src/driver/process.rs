//! Running an attempt as a process: the executor's side of a shim.
//!
//! [`ProcessAttempt::spawn`] starts a shim and through it the job's command. Afterwards a small task (`link`) owns the
//! control channel; [`ProcessHandle`] speaks to it, [`ProcessEvent`]s come from it, and the job's output is read from
//! its own two pipes. When every handle is dropped, or this process dies, the channel closes and the shim kills the
//! whole attempt.
//!
//! The one who reads the output must keep reading: a job whose pipe is full stands still, as under any shell.
//!
//! Deliberately not here: what an exit means for the attempt (`attempt`), the variables a job is given beyond the
//! four basic ones (`runner`), and reading the state directory of a frozen job (`checkpoint`).

mod frozen;
mod link;
mod start;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub use crate::freeze::{FreezeError, FreezeReport, HOLD_LIMIT, LAST_HOLD_LIMIT, ThawReport};
pub use crate::shim::BootTime;
pub use crate::shim::protocol::Exit;
pub use frozen::Frozen;

use super::limit::Limits;
use crate::shim::protocol::{FromShim, PROTOCOL_VERSION, Start, ToShim, encode};
use link::{Link, Request};
use start::{last_words, start_shim, with_basics};

/// How long a start may take, from the shim's own start to the job's. Both are a few milliseconds; a host where they
/// are not within this is no place for a job.
const LAUNCH_LIMIT: Duration = Duration::from_secs(10);

/// Requests waiting for the link. Each is handed on within microseconds.
const REQUESTS_MAX: usize = 32;

/// Every event comes at most once per attempt, so this many never have to wait for a slow reader.
const EVENTS_MAX: usize = 8;

/// What to start.
#[derive(Debug, Clone)]
pub struct StartSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The job's environment. `PATH`, `HOME`, `LANG` and `TZ` are added where they are missing; nothing else of the
    /// executor's own environment reaches a job. Of two pairs with one name the later counts.
    pub env: Vec<(String, String)>,
    /// The working directory, absolute and existing: the attempt's state directory.
    pub cwd: PathBuf,
    pub limits: Limits,
    /// The dead-man deadline until the first [`ProcessHandle::extend_until`].
    pub deadline: BootTime,
}

/// An attempt that has started.
#[derive(Debug)]
pub struct ProcessAttempt {
    pub handle: ProcessHandle,
    /// The job's standard output. Ends when the last of its processes has.
    pub stdout: ChildStdout,
    /// The job's standard error.
    pub stderr: ChildStderr,
    /// What happens to it, [`ProcessEvent::Started`] first. Closed after `Gone` or `ShimLost`.
    pub events: mpsc::Receiver<ProcessEvent>,
}

/// What happened to an attempt. Each comes at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    Started {
        pid: i32,
        at: BootTime,
    },
    /// The executor did not move the deadline in time; the shim is killing the attempt.
    DeadlinePassed,
    /// The main process ended. This decides the outcome; what it left in the background is being killed.
    Exited(Exit),
    /// This many processes survive SIGKILL for 10 s now, which only a hanging disk or network file system can cause.
    /// The shim goes on trying.
    Stuck {
        processes: u32,
    },
    /// No process of the attempt is left. The last event.
    Gone,
    /// The shim itself was killed or failed. What could be found of the attempt was killed. The last event.
    ShimLost {
        status: Option<ExitStatus>,
        /// Processes found and killed by the executor itself.
        killed: u32,
    },
}

/// Why an attempt could not be started. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the working directory \"{0}\" is not an absolute path")]
    Directory(PathBuf),
    #[error("the command and its environment cannot be handed to the shim; make them shorter, or pass them in a file")]
    Unsendable(#[source] crate::shim::protocol::FrameError),
    #[error("the shim {path} could not be started")]
    Shim {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The reason names the command and the way out.
    #[error("{reason}")]
    Refused { reason: String },
    #[error("the shim {path} ended before the job had started; it said: {complaint}")]
    ShimFailed { path: PathBuf, complaint: String },
    #[error("the shim {path} did not start the job within {LAUNCH_LIMIT:?}; this host is overloaded or its disk hangs")]
    Slow { path: PathBuf },
}

/// A request that could not be made because there is no attempt any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("the attempt is not running any more")]
    Gone,
    #[error("signal {0} is not one that an attempt can be sent")]
    NoSuchSignal(i32),
}

/// How a graceful stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It ended within the grace period.
    InTime,
    /// It had to be killed.
    Killed,
}

/// Controls a running attempt. Cheap to clone; the attempt is killed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct ProcessHandle {
    pid: i32,
    requests: mpsc::Sender<Request>,
    gone: watch::Receiver<bool>,
}

/// The shim to use unless configured otherwise: this very program, even if its file was replaced meanwhile.
pub fn own_binary() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

impl ProcessAttempt {
    /// Starts a shim, and through it the command. Returns when the command runs, or with the reason why it does not.
    pub async fn spawn(shim: &Path, spec: StartSpec) -> Result<Self, LaunchError> {
        if !spec.cwd.is_absolute() {
            return Err(LaunchError::Directory(spec.cwd));
        }
        let start = ToShim::Start(Start {
            protocol: PROTOCOL_VERSION,
            env: with_basics(spec.env, &spec.cwd),
            command: spec.command,
            cwd: spec.cwd,
            limits: spec.limits,
            deadline: spec.deadline,
        });
        let frame = encode(&start).map_err(LaunchError::Unsendable)?;
        let failed = |source| LaunchError::Shim { path: shim.to_path_buf(), source };
        let (mut child, mut talk) = start_shim(shim).map_err(failed)?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both were asked for as pipes");
        };
        let answer = timeout(LAUNCH_LIMIT, talk.begin(&frame)).await;
        let (pid, at) = match answer {
            Ok(Ok(FromShim::Started { pid, at })) => (pid, at),
            Ok(Ok(FromShim::LaunchFailed { reason })) => return Err(LaunchError::Refused { reason }),
            // Dropping the channel ends the shim and whatever it may have started.
            Err(_) => return Err(LaunchError::Slow { path: shim.to_path_buf() }),
            Ok(Ok(other)) => {
                let complaint = format!("an unexpected {other:?}");
                return Err(LaunchError::ShimFailed { path: shim.to_path_buf(), complaint });
            }
            Ok(Err(error)) => {
                drop(talk);
                let complaint = last_words(&mut stderr).await.unwrap_or_else(|| error.to_string());
                return Err(LaunchError::ShimFailed { path: shim.to_path_buf(), complaint });
            }
        };
        let (requests, inbound) = mpsc::channel(REQUESTS_MAX);
        let (events, happened) = mpsc::channel(EVENTS_MAX);
        let (went, gone) = watch::channel(false);
        let link = Link::new(talk, child, inbound, requests.downgrade(), events, went);
        tokio::spawn(link.run(ProcessEvent::Started { pid, at }));
        Ok(Self { handle: ProcessHandle { pid, requests, gone }, stdout, stderr, events: happened })
    }
}

impl ProcessHandle {
    /// The main process. For messages; it may be gone, and its number in other hands, at any moment.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Moves the dead-man deadline. Count from the moment the lease renewal that allows it was *sent*.
    pub async fn extend_until(&self, until: BootTime) -> Result<(), ControlError> {
        self.ask(Request::Extend { until }).await
    }

    /// Moves the dead-man deadline to `span` from now.
    pub async fn extend(&self, span: Duration) -> Result<(), ControlError> {
        self.extend_until(BootTime::now().after(span)).await
    }

    /// Stops every process of the attempt, so that its files stand still. They go on when the answer is
    /// [thawed](Frozen::thaw) or dropped, and by themselves after [`HOLD_LIMIT`].
    /// Dropping the returned future undoes the freeze as well.
    pub async fn freeze(&self) -> Result<Frozen, FreezeError> {
        self.freeze_for(HOLD_LIMIT).await
    }

    /// The same for one who needs less time: the job goes on by itself after `hold`.
    pub async fn freeze_for(&self, hold: Duration) -> Result<Frozen, FreezeError> {
        Frozen::ask(self, hold).await
    }

    /// Sends a signal to every process of the attempt. Ends a freeze.
    pub async fn signal(&self, signal: i32) -> Result<(), ControlError> {
        if Signal::from_named_raw(signal).is_none() {
            return Err(ControlError::NoSuchSignal(signal));
        }
        self.ask(Request::Signal { signal }).await
    }

    /// Kills every process of the attempt, frozen or not. [`gone`](Self::gone) says when that is done.
    pub async fn kill(&self) -> Result<(), ControlError> {
        self.ask(Request::Kill).await
    }

    /// Waits until no process of the attempt is left.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // An error means that the link ended, which it does when the attempt is over.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// The graceful stop: SIGTERM to every process, and SIGKILL to what is left after `grace`. Returns when nothing
    /// is. Processes that the job itself had stopped are continued, or they could not obey.
    pub async fn stop(&self, grace: Duration) -> Stopped {
        // A request that fails finds nobody left, which is what is wanted.
        let _ = self.signal(Signal::TERM.as_raw()).await;
        let _ = self.signal(Signal::CONT.as_raw()).await;
        if timeout(grace, self.gone()).await.is_ok() {
            return Stopped::InTime;
        }
        let _ = self.kill().await;
        self.gone().await;
        Stopped::Killed
    }

    async fn ask(&self, request: Request) -> Result<(), ControlError> {
        self.requests.send(request).await.map_err(|_| ControlError::Gone)
    }
}
