//! The task that carries one attempt's output.

use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use bytes::BufMut;
use outlive_schemas::message::{LogEntry, LogStream};
use outlive_schemas::payload::Payload;
use outlive_schemas::subject::{HEADER_LOG_ATTEMPT, HEADER_LOG_NUMBER, live_log};
use outlive_schemas::time::Timestamp;
use outlive_store::job_log::JobLogError;
use outlive_store::key_store::KeyError;
use outlive_store::seal::Key;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::LogTarget;
use super::held::{Batch, Held};
use super::lines::{Lines, PIECE_BYTES_MAX};

/// What one job may write to its log in a second; one that writes more is held back by its pipe. Some forty thousand
/// lines, which nobody reads; ten such jobs still leave a disk room for checkpoints.
const RATE_BYTES_PER_SECOND: f64 = 4.0 * 1024.0 * 1024.0;
/// What it may write at once after a silence.
const BURST_BYTES: f64 = 1024.0 * 1024.0;

/// Read at once at first; twice as much after each read that filled it.
const READ_BYTES_MIN: usize = 1 << 10;

/// Between two batches of a job that writes little: each is a stored message, and their number per job is bounded.
const STORE_EVERY: Duration = Duration::from_millis(500);
/// From here on storing is slow, and holds the job back no longer.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// A store that has not answered by then has failed.
const STORE_LIMIT: Duration = Duration::from_secs(15);
const RETRY_AFTER_MIN: Duration = Duration::from_millis(250);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// How long output is kept for a store that does not answer once the job is over, if nobody waits for it.
const LINGER: Duration = Duration::from_secs(60);

pub(super) async fn run<O, E>(target: LogTarget, stdout: O, stderr: E)
where
    O: AsyncRead + Unpin + Send,
    E: AsyncRead + Unpin + Send,
{
    let mut out = Stream::new(stdout, LogStream::Out);
    let mut err = Stream::new(stderr, LogStream::Err);
    let mut keeper = Keeper::new(target.clone());
    let mut bucket = Bucket { bytes: BURST_BYTES, at: Instant::now() };
    let mut number = 0;
    let mut over_since = None;
    loop {
        let now = Instant::now();
        while let Some((stream, text)) = out.take(now).or_else(|| err.take(now)) {
            number += 1;
            let text = Payload(text.into());
            let entry = LogEntry { at: timestamp(), attempt: target.attempt, number, stream, text };
            send_live(&target, &entry).await;
            keeper.held.push(entry);
        }
        let over = out.is_over() && err.is_over();
        keeper.start(now, over);
        if over {
            let since = *over_since.get_or_insert(now);
            if keeper.is_done() {
                return;
            }
            if now >= since + LINGER {
                tracing::warn!(job = %target.job, attempt = %target.attempt, "the end of a job's output is given up");
                return;
            }
        }
        bucket.refill(now);
        let out_of_reach = keeper.out_of_reach(now);
        if out_of_reach {
            keeper.held.trim();
        }
        let may_read = (out_of_reach || keeper.held.has_room()) && bucket.bytes > 0.0;
        let wake = [out.due(), err.due(), keeper.wake(now), bucket.wake(), over_since.map(|since| since + LINGER)];
        let wake = wake.into_iter().flatten().min();
        tokio::select! {
            bytes = out.fill(), if may_read && out.wants() => read(bytes, &mut bucket, &target),
            bytes = err.fill(), if may_read && err.wants() => read(bytes, &mut bucket, &target),
            () = keeper.progress(), if keeper.storing.is_some() => {}
            () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
        }
    }
}

fn read(bytes: usize, bucket: &mut Bucket, target: &LogTarget) {
    bucket.bytes -= bytes as f64;
    if bytes > 0 {
        target.output.note();
    }
}

/// One of the two pipes.
struct Stream<R> {
    pipe: R,
    stream: LogStream,
    lines: Lines,
    read_bytes: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Stream<R> {
    fn new(pipe: R, stream: LogStream) -> Self {
        Stream { pipe, stream, lines: Lines::default(), read_bytes: READ_BYTES_MIN, ended: false }
    }

    fn wants(&self) -> bool {
        !self.ended && !self.lines.is_full()
    }

    fn is_over(&self) -> bool {
        self.ended && self.lines.buffer.is_empty()
    }

    fn due(&self) -> Option<Instant> {
        self.lines.due()
    }

    fn take(&mut self, now: Instant) -> Option<(LogStream, Vec<u8>)> {
        self.lines.take(now, self.ended).map(|text| (self.stream, text))
    }

    /// Reads what there is. Giving it up loses nothing.
    async fn fill(&mut self) -> usize {
        let before = self.lines.buffer.len();
        self.lines.buffer.reserve(self.read_bytes);
        match self.pipe.read_buf(&mut (&mut self.lines.buffer).limit(self.read_bytes)).await {
            Ok(0) => self.ended = true,
            Ok(_) => self.lines.grew(Instant::now()),
            Err(error) => {
                tracing::debug!(%error, "a job's output cannot be read any more");
                self.ended = true;
            }
        }
        let read = self.lines.buffer.len() - before;
        self.read_bytes = if read == self.read_bytes { (read * 2).min(PIECE_BYTES_MAX) } else { READ_BYTES_MIN };
        read
    }
}

/// How much may still be read now.
struct Bucket {
    bytes: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.bytes = (self.bytes + since * RATE_BYTES_PER_SECOND).min(BURST_BYTES);
        self.at = now;
    }

    /// When something may be read again.
    fn wake(&self) -> Option<Instant> {
        let owed = Duration::from_secs_f64((-self.bytes).max(0.0) / RATE_BYTES_PER_SECOND);
        (self.bytes <= 0.0).then(|| self.at + owed + Duration::from_millis(1))
    }
}

type Storing = Pin<Box<dyn Future<Output = (Batch, Result<Key, StoreError>)> + Send>>;

#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("the job's key cannot be had")]
    Key(#[source] KeyError),
    #[error("the entries cannot be stored")]
    Log(#[source] JobLogError),
    #[error("the job logs gave no answer within {STORE_LIMIT:?}")]
    Silent,
}

impl StoreError {
    /// Whether trying again can help.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            StoreError::Silent
                | StoreError::Key(KeyError::Unavailable { .. })
                | StoreError::Log(JobLogError::Unavailable { .. })
        )
    }
}

/// What keeps entries: what waits, and what is being stored.
struct Keeper {
    target: LogTarget,
    key: Option<Key>,
    held: Held,
    storing: Option<(Storing, Instant)>,
    /// Not before this.
    next: Instant,
    retry_after: Option<Duration>,
}

impl Keeper {
    fn new(target: LogTarget) -> Self {
        Keeper { target, key: None, held: Held::default(), storing: None, next: Instant::now(), retry_after: None }
    }

    fn is_done(&self) -> bool {
        self.held.is_empty() && self.storing.is_none()
    }

    /// Whether the job should not wait for what waits here.
    fn out_of_reach(&self, now: Instant) -> bool {
        let slow = self.storing.as_ref().is_some_and(|(_, since)| now >= *since + SLOW_AFTER);
        self.retry_after.is_some() || slow
    }

    /// When to look again, if nothing else happens.
    fn wake(&self, now: Instant) -> Option<Instant> {
        match &self.storing {
            Some((_, since)) => Some(*since + SLOW_AFTER).filter(|at| *at > now),
            None => (!self.held.is_empty()).then_some(self.next),
        }
    }

    /// Starts to store what waits, if it is time.
    fn start(&mut self, now: Instant, over: bool) {
        let soon = self.retry_after.is_none() && (over || self.held.has_batch());
        if self.storing.is_some() || self.held.is_empty() || (now < self.next && !soon) {
            return;
        }
        let (target, key, batch) = (self.target.clone(), self.key.clone(), self.held.take());
        let storing = async move {
            let entries = batch.entries();
            let stored = tokio::time::timeout(STORE_LIMIT, store(&target, key, &entries)).await;
            (batch, stored.unwrap_or(Err(StoreError::Silent)))
        };
        self.storing = Some((Box::pin(storing), now));
    }

    /// Waits for what is being stored. Giving it up loses nothing.
    async fn progress(&mut self) {
        let Some((storing, _)) = &mut self.storing else { return };
        let (batch, stored) = storing.await;
        self.storing = None;
        let now = Instant::now();
        match stored {
            Ok(key) => {
                self.key = Some(key);
                self.retry_after = None;
                self.next = now + STORE_EVERY;
            }
            Err(error) => {
                let after = self.retry_after.map_or(RETRY_AFTER_MIN, |after| (after * 2).min(RETRY_AFTER_MAX));
                let reason = crate::error::explained(&error);
                let (job, attempt) = (self.target.job, self.target.attempt);
                if error.may_pass() {
                    if self.retry_after.is_none() {
                        tracing::warn!(%job, %attempt, %reason, "a job's output cannot be stored now");
                    }
                    self.held.give_back(batch);
                } else {
                    tracing::error!(%job, %attempt, %reason, "some of a job's output cannot be stored, and is dropped");
                    self.held.refuse(batch);
                }
                self.retry_after = Some(after);
                self.next = now + after;
            }
        }
    }
}

async fn store(target: &LogTarget, key: Option<Key>, entries: &[LogEntry]) -> Result<Key, StoreError> {
    let key = match key {
        Some(key) => key,
        None => target.sink.keys.job_key(target.job).await.map_err(StoreError::Key)?,
    };
    let stored = target.sink.logs.append(&target.namespace, target.job, &key, entries).await;
    stored.map(|_| key).map_err(StoreError::Log)
}

async fn send_live(target: &LogTarget, entry: &LogEntry) {
    let stream = match entry.stream {
        LogStream::Out => "out",
        LogStream::Err | LogStream::Outlive => "err",
    };
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_LOG_ATTEMPT, entry.attempt.to_string());
    headers.insert(HEADER_LOG_NUMBER, entry.number.to_string());
    (target.sink.live)(live_log(&target.namespace, target.job, stream), headers, entry.text.0.clone()).await;
}

fn timestamp() -> Timestamp {
    // A clock before 1970 is not worth failing for.
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}
