//! A job's output: sent live, and kept sealed.
//!
//! One task per attempt reads both pipes, cuts what comes into entries at line ends, sends each at once over core NATS,
//! and hands them to the job logs in batches. What is sent live may be lost; what is kept is joined to it by the entry's
//! attempt and number. A job that writes faster than is kept is held back by its pipe. A log store that does not answer
//! holds no job back: output waits in memory up to a bound, beyond which the oldest is dropped, and an entry in its
//! place says so.
//!
//! The key is asked for when the first entry is stored, so that a job that prints nothing needs none. Deliberately not
//! here: reading logs back, which schedulers do.

mod held;
mod lines;
mod pump;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::shim::BootTime;
use async_nats::HeaderMap;
use async_nats::connection::State;
use bytes::Bytes;
use outlive_schemas::id::{Attempt, JobId, Namespace};
use outlive_store::job_log::JobLogs;
use outlive_store::key_store::KeyStore;
use tokio::io::AsyncRead;
use tokio::task::JoinHandle;

/// How long sending one entry live may hold up the rest. It only waits where the connection is saturated.
const LIVE_LIMIT: Duration = Duration::from_millis(200);

/// Sends one message, and does not say whether it arrived.
type Live = dyn Fn(String, HeaderMap, Bytes) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Where the output of all attempts of an executor goes.
pub struct LogSink {
    live: Box<Live>,
    logs: Arc<dyn JobLogs>,
    keys: Arc<dyn KeyStore>,
}

impl std::fmt::Debug for LogSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSink").finish_non_exhaustive()
    }
}

impl LogSink {
    pub fn new(client: async_nats::Client, logs: Arc<dyn JobLogs>, keys: Arc<dyn KeyStore>) -> Self {
        let live = move |subject: String, headers, text| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            let client = client.clone();
            Box::pin(async move {
                // The client would keep it until it is connected again; then it is no longer live.
                if client.connection_state() != State::Connected {
                    return;
                }
                match tokio::time::timeout(LIVE_LIMIT, client.publish_with_headers(subject, headers, text)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a log entry was not sent live"),
                    Err(_) => tracing::debug!("a log entry was not sent live: the connection is saturated"),
                }
            })
        };
        LogSink { live: Box::new(live), logs, keys }
    }
}

/// Whose output it is.
#[derive(Clone, Debug)]
pub struct LogTarget {
    pub sink: Arc<LogSink>,
    pub namespace: Namespace,
    pub job: JobId,
    pub attempt: Attempt,
    pub output: Output,
}

/// When an attempt last wrote something: set by the task that reads its pipes, read by whoever minds its silence.
#[derive(Clone, Debug)]
pub struct Output {
    since: BootTime,
    /// After that; 0 before the first.
    last_ms: Arc<AtomicU64>,
}

impl Output {
    pub fn since_now() -> Output {
        Output { since: BootTime::now(), last_ms: Arc::default() }
    }

    fn note(&self) {
        let after = BootTime::now().since(self.since).as_millis();
        self.last_ms.store(u64::try_from(after).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    pub fn last(&self) -> Option<BootTime> {
        let after_ms = self.last_ms.load(Ordering::Relaxed);
        (after_ms > 0).then(|| self.since.after(Duration::from_millis(after_ms)))
    }
}

/// The task that carries one attempt's output. Dropping this leaves it to itself: it ends with the pipes.
#[derive(Debug)]
pub struct LogPump {
    task: JoinHandle<()>,
    job: JobId,
    attempt: Attempt,
}

impl LogPump {
    /// Waits until both pipes are at their ends and everything is stored. What is not stored `within` that time is lost.
    pub async fn finish(mut self, within: Duration) {
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            self.task.abort();
            let (job, attempt) = (self.job, self.attempt);
            tracing::warn!(%job, %attempt, ?within, "the end of a job's output was not stored in time, and is lost");
        }
    }
}

/// Starts carrying the output of one attempt until both pipes end.
pub fn spawn_logs<O, E>(target: LogTarget, stdout: O, stderr: E) -> LogPump
where
    O: AsyncRead + Unpin + Send + 'static,
    E: AsyncRead + Unpin + Send + 'static,
{
    let (job, attempt) = (target.job, target.attempt);
    LogPump { task: tokio::spawn(pump::run(target, stdout, stderr)), job, attempt }
}

#[cfg(test)]
mod tests;
