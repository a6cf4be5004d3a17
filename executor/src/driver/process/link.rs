//! The task that owns the control channel of one attempt: requests in, frames out; frames in, answers and events out.
//!
//! Deliberately not here: anything that decides. The one thing it does by itself is to kill what a lost shim left.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::start::Talk;
use super::{FreezeError, Frozen, ProcessEvent, ThawReport};
use crate::shim::BootTime;
use crate::shim::protocol::{FromShim, ToShim, encode};
use crate::shim::tree::{self, Member};

/// How long a shim may leave its channel unread. It reads within microseconds; one that does not is stopped or hangs,
/// and closing the channel is then the best that can be done.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// How long a shim may take to exit after its last word.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// How often the remains of a lost shim's session are killed, and what lies between. A session that still has members
/// after that has them in uninterruptible waits.
const SWEEPS_MAX: u32 = 200;
const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// It holds the frozen attempt itself, so that an answer nobody takes thaws what nobody wants frozen.
pub(super) type FreezeAnswer = Result<Frozen, FreezeError>;
pub(super) type ThawAnswer = Result<ThawReport, FreezeError>;

/// What a handle may ask.
#[derive(Debug)]
pub(super) enum Request {
    Extend { until: BootTime },
    Freeze { hold: Duration, reply: oneshot::Sender<FreezeAnswer> },
    Thaw { id: u64, reply: Option<oneshot::Sender<ThawAnswer>> },
    EndFrozen { id: u64, reply: oneshot::Sender<ThawAnswer> },
    Signal { signal: i32 },
    Kill,
}

/// The state of the task.
#[derive(Debug)]
pub(super) struct Link {
    talk: Talk,
    shim: Child,
    requests: mpsc::Receiver<Request>,
    /// For those who freeze. Weak, because the attempt ends when the last handle outside is dropped.
    asking: mpsc::WeakSender<Request>,
    events: mpsc::Sender<ProcessEvent>,
    gone: watch::Sender<bool>,
    last_id: u64,
    freezes: BTreeMap<u64, oneshot::Sender<FreezeAnswer>>,
    thaws: BTreeMap<u64, oneshot::Sender<ThawAnswer>>,
}

impl Link {
    pub fn new(
        talk: Talk,
        shim: Child,
        requests: mpsc::Receiver<Request>,
        asking: mpsc::WeakSender<Request>,
        events: mpsc::Sender<ProcessEvent>,
        gone: watch::Sender<bool>,
    ) -> Self {
        let (freezes, thaws) = (BTreeMap::new(), BTreeMap::new());
        Self { talk, shim, requests, asking, events, gone, last_id: 0, freezes, thaws }
    }

    /// Runs until the shim has gone, then says how.
    pub async fn run(mut self, started: ProcessEvent) {
        // Known now, while the number surely is the shim's. It also names the session that its job begins in.
        let pid = self.shim.id().map(u32::cast_signed);
        let shim = pid.and_then(|pid| tree::look(pid).ok().flatten()).map(|look| look.member);
        self.tell(started);
        let ended_well = match self.relay().await {
            Ok(ended_well) => ended_well,
            Err(error) => {
                tracing::warn!(shim = pid, error = %error, "the control channel of a shim failed");
                false
            }
        };
        // Closing it makes a shim that is still there kill its tree.
        drop(self.talk);
        let status = timeout(EXIT_LIMIT, self.shim.wait()).await.ok().and_then(Result::ok);
        let last = if ended_well { ProcessEvent::Gone } else { lost(shim, status).await };
        // Nobody waits for an answer that cannot come: dropping the senders says so.
        self.freezes.clear();
        self.thaws.clear();
        self.requests.close();
        let _ = self.events.try_send(last);
        self.gone.send_replace(true);
    }

    /// `true` if the shim's last word was that nothing is left.
    async fn relay(&mut self) -> io::Result<bool> {
        let mut held = true;
        let mut ended_well = false;
        loop {
            tokio::select! {
                message = self.talk.hear() => match message? {
                    Some(FromShim::Gone) => ended_well = true,
                    Some(message) => self.pass_on(message),
                    None => return Ok(ended_well),
                },
                request = self.requests.recv(), if held => match request {
                    Some(request) => self.request(request).await?,
                    None => {
                        // The last handle was dropped. The shim takes this as the order to end, and still reports.
                        held = false;
                        // If that fails it has already gone, which the next message tells.
                        let _ = self.talk.socket.shutdown().await;
                    }
                },
            }
        }
    }

    async fn request(&mut self, request: Request) -> io::Result<()> {
        let message = match request {
            Request::Extend { until } => ToShim::Extend { until },
            Request::Signal { signal } => ToShim::Signal { signal },
            Request::Kill => ToShim::Kill,
            Request::Freeze { hold, reply } => {
                self.last_id += 1;
                self.freezes.insert(self.last_id, reply);
                ToShim::Freeze { id: self.last_id, hold }
            }
            Request::Thaw { id, reply } => {
                if let Some(reply) = reply {
                    self.thaws.insert(id, reply);
                }
                ToShim::Thaw { id }
            }
            Request::EndFrozen { id, reply } => {
                self.thaws.insert(id, reply);
                ToShim::EndFrozen { id }
            }
        };
        self.send(&message).await
    }

    fn pass_on(&mut self, message: FromShim) {
        match message {
            FromShim::Froze { id, result } => {
                // Without any handle left the shim is ending the attempt, and has no use for a thaw.
                if let (Some(reply), Some(requests)) = (self.freezes.remove(&id), self.asking.upgrade()) {
                    let _ = reply.send(result.map(|report| Frozen::new(id, report, requests)));
                }
            }
            FromShim::Thawed { id, result } => match self.thaws.remove(&id) {
                Some(reply) => drop(reply.send(result)),
                None => {
                    if let Err(error) = result {
                        tracing::debug!(error = %error, "a freeze that nobody waits for any more");
                    }
                }
            },
            FromShim::DeadlinePassed => self.tell(ProcessEvent::DeadlinePassed),
            FromShim::Exited(exit) => self.tell(ProcessEvent::Exited(exit)),
            FromShim::Stuck { processes } => self.tell(ProcessEvent::Stuck { processes }),
            // Both were heard before this task began, and come once.
            FromShim::Started { .. } | FromShim::LaunchFailed { .. } | FromShim::Gone => {}
        }
    }

    async fn send(&mut self, message: &ToShim) -> io::Result<()> {
        let frame = encode(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        match timeout(WRITE_LIMIT, self.talk.socket.write_all(&frame)).await {
            // A shim that has just ended cannot hear any more, but what it said before can still be read.
            Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Ok(())
            }
            Ok(written) => written,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the shim does not read its control channel")),
        }
    }

    /// The channel has room for every event there can be; an error means that nobody listens.
    fn tell(&self, event: ProcessEvent) {
        let _ = self.events.try_send(event);
    }
}

/// Kills what is left of the attempt of a shim that did not do so itself.
async fn lost(shim: Option<Member>, status: Option<ExitStatus>) -> ProcessEvent {
    let mut killed = 0;
    for sweep in 0..SWEEPS_MAX {
        let Some(shim) = shim else { break };
        // Reads much of /proc, which is no work for a thread that serves others. A sweep that fails is repeated.
        let swept = tokio::task::spawn_blocking(move || tree::kill_session(shim)).await;
        match swept {
            Ok(Ok(0)) => break,
            Ok(Ok(found)) if sweep == 0 => killed = found,
            _ => {}
        }
        sleep(SWEEP_PAUSE).await;
    }
    tracing::warn!(?status, killed, "a shim ended before its job; what was left of the job was killed");
    ProcessEvent::ShimLost { status, killed }
}
