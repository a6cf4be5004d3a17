//! A lease that is kept alive in the background, and that knows how long ago it was last known to be.
//!
//! A renewal counts from when it was *sent*: the server may have counted from then. A renewal that was not answered
//! is none.

use super::{Etcd, REQUEST_TIMEOUT, RequestError, TRY_BOUND};
use crate::retry::retry;
use etcd_client::Client;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// etcd grants nothing shorter: its own election time-out bounds it from below.
const TTL_MIN: Duration = Duration::from_secs(2);
/// Between two tries to reach a server that does not answer.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// When a lease that cannot be renewed counts as over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// After its time: for what must rather stop too early. The lease is revoked as soon as etcd can be reached.
    Presumed,
    /// When etcd says so: for what must rather not be declared over while it may still stand.
    Proven,
}

/// Milliseconds on a clock that never goes back and goes on while the machine is suspended: a laptop's lid or a
/// paused virtual machine must count, because etcd's clock did not stop. `std::time::Instant` stops on Linux.
pub(crate) fn suspended_too_ms() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

#[derive(Debug)]
struct Shared {
    etcd: Etcd,
    id: i64,
    ttl: Duration,
    ending: Ending,
    renewed_ms: AtomicU64,
    over: watch::Sender<bool>,
}

/// Dropping it ends the renewals, so that the lease runs out.
#[derive(Debug)]
pub(crate) struct KeptLease {
    shared: Arc<Shared>,
    renewing: AbortHandle,
}

impl KeptLease {
    pub(crate) async fn grant(etcd: &Etcd, ttl: Duration, ending: Ending) -> Result<KeptLease, RequestError> {
        let asked = ttl.max(TTL_MIN);
        let seconds = i64::try_from(asked.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
        // A grant whose answer is lost leaves a lease without keys, which runs out by itself.
        let (sent_ms, granted) = retry("be granted a lease", TRY_BOUND, RequestError::passes, || {
            etcd.ask(|mut client| async move {
                let sent_ms = suspended_too_ms();
                client.lease_grant(seconds, None).await.map(|granted| (sent_ms, granted))
            })
        })
        .await?;
        // The server may grant another time than was asked for; the shorter one is safe.
        let granted_ttl = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0)).min(asked);
        let shared = Arc::new(Shared {
            etcd: etcd.clone(),
            id: granted.id(),
            ttl: granted_ttl,
            ending,
            renewed_ms: AtomicU64::new(sent_ms),
            over: watch::Sender::new(false),
        });
        let renewing = tokio::spawn(renew(Arc::clone(&shared))).abort_handle();
        Ok(KeptLease { shared, renewing })
    }

    pub(crate) fn id(&self) -> i64 {
        self.shared.id
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.shared.ttl
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.shared.over.borrow()
    }

    /// Since the last confirmed renewal was sent.
    pub(crate) fn age(&self) -> Duration {
        self.shared.age()
    }

    /// Returns once the lease is over, in the sense of its [`Ending`].
    pub(crate) async fn over(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.over.subscribe().wait_for(|over| *over).await;
    }

    /// Ends the lease now. If etcd cannot be reached, it runs out by itself.
    pub(crate) async fn revoke(&self) {
        self.renewing.abort();
        self.shared.over.send_replace(true);
        if let Err(error) = self.shared.etcd.revoke(self.shared.id, REQUEST_TIMEOUT).await {
            tracing::warn!(lease = self.shared.id, "the lease is not revoked and runs out by itself: {error}");
        }
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Shared {
    fn age(&self) -> Duration {
        Duration::from_millis(suspended_too_ms().saturating_sub(self.renewed_ms.load(Ordering::Acquire)))
    }

    fn renewed(&self, sent_ms: u64) {
        self.renewed_ms.store(sent_ms, Ordering::Release);
    }
}

/// How one stream of renewals ended.
enum Stopped {
    /// etcd knows no such lease.
    Gone,
    Broken(String),
}

/// Renews until the lease is over.
async fn renew(shared: Arc<Shared>) {
    let mut reported = false;
    loop {
        match renew_on_one_stream(&shared).await {
            Stopped::Gone => {
                tracing::warn!(lease = shared.id, "the lease is over");
                shared.over.send_replace(true);
                return;
            }
            Stopped::Broken(reason) => {
                if !std::mem::replace(&mut reported, true) {
                    tracing::warn!(lease = shared.id, "the lease's renewal is interrupted: {reason}");
                }
                if shared.ending == Ending::Presumed && shared.age() >= shared.ttl {
                    tracing::warn!(lease = shared.id, "the lease was not renewed in its time and counts as over");
                    shared.over.send_replace(true);
                    // Whoever comes next need not wait for it to run out.
                    let _ = shared.etcd.revoke(shared.id, shared.ttl * 2).await;
                    return;
                }
            }
        }
        if reported && shared.age() < shared.ttl / 2 {
            reported = false;
        }
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

async fn renew_on_one_stream(shared: &Shared) -> Stopped {
    let (used, client) = match shared.etcd.member().await {
        Ok(member) => member,
        Err(error) => return Stopped::Broken(error.to_string()),
    };
    let stopped = renew_through(shared, client).await;
    if let Stopped::Broken(_) = stopped {
        shared.etcd.avoid(used);
    }
    stopped
}

async fn renew_through(shared: &Shared, mut client: Client) -> Stopped {
    // Several renewals fit in the time for which the last one is trusted, so that one may be lost.
    let (interval, patience) = (shared.ttl / 6, (shared.ttl / 5).min(REQUEST_TIMEOUT));
    let mut sent_ms = suspended_too_ms();
    let (mut keeper, mut answers) = match tokio::time::timeout(patience, client.lease_keep_alive(shared.id)).await {
        // Opening the stream sends the first renewal and waits for its answer.
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return broken_or_gone(shared, error.to_string()).await,
        Err(_) => return Stopped::Broken("no answer".to_owned()),
    };
    shared.renewed(sent_ms);
    loop {
        tokio::time::sleep(interval).await;
        sent_ms = suspended_too_ms();
        if let Err(error) = keeper.keep_alive().await {
            return Stopped::Broken(error.to_string());
        }
        match tokio::time::timeout(patience, answers.message()).await {
            Ok(Ok(Some(answer))) if answer.ttl() > 0 => shared.renewed(sent_ms),
            Ok(Ok(Some(_))) => return Stopped::Gone,
            Ok(Ok(None)) => return Stopped::Broken("the stream ended".to_owned()),
            Ok(Err(error)) => return Stopped::Broken(error.to_string()),
            // A late answer must not be taken for the answer to a later renewal: the stream is given up.
            Err(_) => return Stopped::Broken("no answer".to_owned()),
        }
    }
}

/// The client reports a lease that is gone like any failure: so ask.
async fn broken_or_gone(shared: &Shared, reason: String) -> Stopped {
    match shared.etcd.ask(|mut client| async move { client.lease_time_to_live(shared.id, None).await }).await {
        Ok(answer) if answer.ttl() < 0 => Stopped::Gone,
        _ => Stopped::Broken(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward() {
        let (first, second) = (suspended_too_ms(), suspended_too_ms());
        assert!(first > 0 && second >= first);
    }
}
