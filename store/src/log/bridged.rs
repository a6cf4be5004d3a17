//! A leader's log that goes on while the stream has no leader: what JetStream cannot take yet is kept in the bridge.
//!
//! When the node that leads the stream dies, JetStream takes about 6 s to elect another, and etcd about 1 s. So an
//! append that is not answered in time is put, the same bytes under the same expected sequence, into etcd
//! (`bridge.rs`), and is durable with that. The stream is tried on and on, in order, and whatever it has taken is
//! removed from the bridge. Numbering, order and chain do not know of any of this.
//!
//! What makes it safe:
//!
//! - **One writer.** Each put compares the leader's key, so only the scheduler that etcd holds for the leader can add
//!   to the bridge; a later one has read all of it once it has won.
//! - **Barrier first.** Only a leader whose barrier is in the stream may use it: [`BridgedLog::after_barrier`]. So
//!   what an earlier leader still has on its way to the stream is behind the fence for good.
//! - **Drained before the next barrier.** A new leader appends what it finds in the bridge, in order, before its own
//!   barrier and before it holds the log against the witness: [`Inherited`]. It has no barrier yet, so it must wait
//!   for the stream: which is why the stream and the scheduler are not led in one zone.
//! - **Nothing else can land there.** What is late on its way to the stream at such a position is byte for byte what
//!   the bridge holds; the expected sequence refuses everything else.
//! - **A barrier of a higher term ends it.** Who reads one gives up at once, also before its own barrier is in.
//!
//! Two parts are pure: the machine of a leader's appends (`bridged/machine.rs`), and what a new leader does with the
//! bridge it finds (`bridged/inherited.rs`). This file runs the machine over any [`CommitLog`] and any [`Bridge`].

mod inherited;
mod machine;

pub use inherited::{Inherited, Step};
pub use machine::{Bridging, Input, OVERDUE_AFTER, Output, PACE, PUT_AGAIN_AFTER, UNPACED_COMMITS};

use super::{AppendError, CommitLog, Extent, ReadError, Stored};
use crate::bridge::{Bridge, BridgeError};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::time::{Millis, Timestamp};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Appends that may wait to be taken in; a leader has but one under way.
const REQUESTS_MAX: usize = 64;

/// How much stands in the bridge, and how much went there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Durable, and not yet in the stream.
    pub pending: u64,
    /// Commits that became durable in the bridge since the term began.
    pub bridged: u64,
}

#[derive(Debug, Default)]
struct View {
    bridged: Vec<Stored>,
    standing: Standing,
}

/// One term's log. Dropping it ends its appends, as when a leader is gone.
pub struct BridgedLog<L: ?Sized> {
    log: Arc<L>,
    requests: mpsc::Sender<Request>,
    view: Arc<Mutex<View>>,
    over: watch::Receiver<Option<AppendError>>,
    running: AbortHandle,
}

struct Request {
    expected: Sequence,
    body: Bytes,
    answer: oneshot::Sender<Result<(), AppendError>>,
}

impl<L: CommitLog + ?Sized> BridgedLog<L> {
    /// For the leader of `term`, whose barrier stands in the stream at `barrier`. Without a bridge it is the stream
    /// alone.
    pub fn after_barrier<B: Bridge + ?Sized>(
        log: Arc<L>,
        bridge: Option<Arc<B>>,
        term: Term,
        barrier: Sequence,
    ) -> BridgedLog<L> {
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (ended, over) = watch::channel(None);
        let view = Arc::<Mutex<View>>::default();
        let machine = match &bridge {
            Some(_) => Bridging::after_barrier(barrier),
            None => Bridging::stream_alone(barrier),
        };
        let runner = Runner {
            log: log.clone(),
            bridge,
            term,
            machine,
            begun: Instant::now(),
            waiting: VecDeque::new(),
            tasks: JoinSet::new(),
            view: view.clone(),
            ended,
        };
        let running = tokio::spawn(runner.run(asked)).abort_handle();
        BridgedLog { log, requests, view, over, running }
    }

    pub fn standing(&self) -> Standing {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).standing
    }

    /// Returns when the stream has refused what stands in the bridge: this leader is over, even if it appends nothing.
    pub async fn over(&self) -> AppendError {
        let mut over = self.over.clone();
        match over.wait_for(Option::is_some).await {
            Ok(error) => error.clone().expect("it was waited for"),
            // Never while `self` lives, for then the runner does.
            Err(_) => std::future::pending().await,
        }
    }

    fn bridged(&self) -> Vec<Stored> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).bridged.clone()
    }
}

impl<L: ?Sized> Drop for BridgedLog<L> {
    fn drop(&mut self) {
        self.running.abort();
    }
}

#[async_trait]
impl<L: CommitLog + ?Sized> CommitLog for BridgedLog<L> {
    async fn append(&self, expected: Sequence, body: Bytes) -> Result<(), AppendError> {
        let (answer, answered) = oneshot::channel();
        let ended = || AppendError::Refused { reason: "the leader's log is closed".to_owned() };
        self.requests.send(Request { expected, body, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// The stream's messages, and those that follow them in the bridge.
    async fn read(&self, from: Sequence, max_bytes: usize) -> Result<Vec<Stored>, ReadError> {
        // Looked at first: what is drained meanwhile is then in both.
        let bridged = self.bridged();
        let from = from.max(Sequence(1));
        let mut found = match self.log.read(from, max_bytes).await {
            Err(ReadError::Unavailable { .. }) if bridged.iter().any(|commit| commit.seq == from) => Vec::new(),
            read => read?,
        };
        let mut bytes: usize = found.iter().map(|stored| stored.body.len()).sum();
        for commit in bridged {
            let next = found.last().map_or(from, |stored| stored.seq.next());
            if commit.seq == next && (found.is_empty() || bytes + commit.body.len() <= max_bytes) {
                bytes += commit.body.len();
                found.push(commit);
            }
        }
        Ok(found)
    }

    async fn extent(&self) -> Result<Extent, ReadError> {
        let last = self.bridged().last().map_or(Sequence(0), |commit| commit.seq);
        let extent = self.log.extent().await?;
        Ok(Extent { last: extent.last.max(last), ..extent })
    }

    async fn settled_extent(&self) -> Result<Extent, ReadError> {
        let last = self.bridged().last().map_or(Sequence(0), |commit| commit.seq);
        let extent = self.log.settled_extent().await?;
        Ok(Extent { last: extent.last.max(last), ..extent })
    }

    async fn purge_below(&self, first: Sequence) -> Result<(), ReadError> {
        self.log.purge_below(first).await
    }

    async fn tail(&self) -> Result<BoxStream<'static, Stored>, ReadError> {
        self.log.tail().await
    }
}

/// Runs the machine: the one place that waits.
struct Runner<L: ?Sized, B: ?Sized> {
    log: Arc<L>,
    bridge: Option<Arc<B>>,
    term: Term,
    machine: Bridging,
    begun: Instant,
    waiting: VecDeque<(Sequence, oneshot::Sender<Result<(), AppendError>>)>,
    tasks: JoinSet<Option<Input>>,
    view: Arc<Mutex<View>>,
    ended: watch::Sender<Option<AppendError>>,
}

impl<L: CommitLog + ?Sized, B: Bridge + ?Sized> Runner<L, B> {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            let wake = self.machine.wake_at().map(|at| self.begun + Millis(at.0).into());
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                biased;
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                    Ok(input) => input,
                    // A task that panicked has said so; without its answer nothing can be promised any more.
                    Err(_) => return,
                },
                request = requests.recv() => match request {
                    Some(Request { expected, body, answer }) => {
                        self.waiting.push_back((expected.next(), answer));
                        Some(Input::Append { expected, body })
                    }
                    None => return,
                },
                () = sleep => None,
            };
            let now = Timestamp(self.begun.elapsed().as_millis() as u64);
            let mut out = Vec::new();
            match input {
                Some(input) => self.machine.input(input, now, &mut out),
                None => self.machine.tick(now, &mut out),
            }
            self.show(&out);
            for output in out {
                self.perform(output);
            }
        }
    }

    /// Before anybody hears that a commit is durable it can be read.
    fn show(&self, out: &[Output]) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.bridged = self.machine.bridged().cloned().collect();
        let pending = view.bridged.len() as u64;
        let before = std::mem::replace(&mut view.standing.pending, pending);
        let drained = out.iter().filter(|output| matches!(output, Output::FromBridge(_))).count() as u64;
        if view.standing.pending > before {
            view.standing.bridged += view.standing.pending - before;
            if before == 0 {
                tracing::warn!(term = %self.term, "the log's stream does not answer; commits go to the bridge");
            }
        } else if view.standing.pending == 0 && before > 0 && drained > 0 {
            tracing::info!(term = %self.term, total = view.standing.bridged, "the bridge is drained");
        }
    }

    fn perform(&mut self, output: Output) {
        let (log, term) = (self.log.clone(), self.term);
        let bridge = || self.bridge.clone().expect("a machine without a bridge asks nothing of one");
        match output {
            Output::ToStream(Stored { seq, body }) => {
                self.tasks.spawn(async move {
                    let result = log.append(Sequence(seq.0 - 1), body).await;
                    Some(Input::Streamed { at: seq, result })
                });
            }
            Output::ToBridge(commit) => {
                let bridge = bridge();
                self.tasks.spawn(async move {
                    let result = bridge.put(term, &commit).await;
                    if let Err(error) = &result {
                        tracing::warn!(%term, seq = %commit.seq, %error, "a commit could not be put into the bridge");
                    }
                    Some(Input::Bridged { at: commit.seq, result })
                });
            }
            Output::FromBridge(at) => {
                let bridge = bridge();
                self.tasks.spawn(async move {
                    match bridge.remove(term, at).await {
                        Ok(()) | Err(BridgeError::Deposed { .. }) => {}
                        Err(error) => tracing::info!(%term, %at, %error, "left in the bridge for the next leader"),
                    }
                    None
                });
            }
            Output::Appended { at, result } => {
                let Some((_, answer)) = self.waiting.pop_front().filter(|(waiting, _)| *waiting == at) else {
                    unreachable!("appends are answered in their order")
                };
                // Whoever asked may have left.
                drop(answer.send(result));
            }
            Output::Over(error) => {
                self.ended.send_replace(Some(error));
            }
        }
    }
}

#[cfg(test)]
mod tests;
