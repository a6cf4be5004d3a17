//! A frozen attempt, as a value: while it is held the job's files stand still, and dropping it lets the job go on.
//!
//! Deliberately not here: the freezing itself (`crate::freeze`, inside the shim).

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::link::Request;
use super::{FreezeError, FreezeReport, ProcessHandle, ThawReport};
use crate::freeze::FREEZE_LIMIT;

/// How long an answer may take: the shim's own limit, and as much again for a busy host.
const ANSWER_LIMIT: Duration = FREEZE_LIMIT.saturating_mul(2);

/// An attempt whose every process is stopped.
#[derive(Debug)]
#[must_use = "the attempt goes on as soon as this is dropped"]
pub struct Frozen {
    id: u64,
    report: FreezeReport,
    requests: mpsc::Sender<Request>,
    thawed: bool,
}

impl Frozen {
    pub(super) async fn ask(handle: &ProcessHandle, hold: Duration) -> Result<Self, FreezeError> {
        answer(&handle.requests, |reply| Request::Freeze { hold, reply }).await
    }

    pub(super) fn new(id: u64, report: FreezeReport, requests: mpsc::Sender<Request>) -> Self {
        Self { id, report, requests, thawed: false }
    }

    /// How many processes were stopped, and how long that took.
    pub fn report(&self) -> FreezeReport {
        self.report
    }

    /// Lets the job go on. Only if this succeeds did its files stand still all the time; whatever was read under a
    /// freeze that fails here must be thrown away.
    pub async fn thaw(mut self) -> Result<ThawReport, FreezeError> {
        self.thawed = true;
        let id = self.id;
        answer(&self.requests, |reply| Request::Thaw { id, reply: Some(reply) }).await
    }

    /// Kills the attempt as it stands. If this fails it did not stand still, and goes on.
    pub async fn end(mut self) -> Result<ThawReport, FreezeError> {
        let id = self.id;
        let ended = answer(&self.requests, |reply| Request::EndFrozen { id, reply }).await;
        // What is killed is not thawed before.
        self.thawed = ended.is_ok();
        ended
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.thawed {
            // If the queue is full the shim thaws by itself later; there is nothing to wait with in a drop.
            let _ = self.requests.try_send(Request::Thaw { id: self.id, reply: None });
        }
    }
}

async fn answer<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<Result<T, FreezeError>>) -> Request,
) -> Result<T, FreezeError> {
    let (reply, answer) = oneshot::channel();
    if requests.send(request(reply)).await.is_err() {
        return Err(FreezeError::NotRunning);
    }
    match timeout(ANSWER_LIMIT, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(FreezeError::NotRunning),
        Err(_) => Err(FreezeError::NoAnswer { limit: ANSWER_LIMIT }),
    }
}
