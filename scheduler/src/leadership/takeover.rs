//! Noticing that nobody leads, and ending the reign of a leader that is gone.
//!
//! When a leader counts as gone is `suspicion`'s to say; here are the key in etcd and the messages.

use super::suspicion::{Gone, PROBE_INTERVAL, Suspicion};
use crate::clock::Clock;
use crate::config::SchedulerConfig;
use crate::service::leader_beats;
use crate::stores::Stores;
use crate::watch::Probed;
use async_nats::{Client, RequestErrorKind};
use futures::StreamExt as _;
use outlive_schemas::id::SchedulerName;
use outlive_schemas::subject;
use outlive_schemas::time::Timestamp;
use outlive_store::leadership::Reign;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Between two looks at the leader.
const LOOK_EVERY: Duration = Duration::from_millis(PROBE_INTERVAL.0);
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// How often the leader's key is read although nothing asks for it.
const READ_INTERVAL: Duration = Duration::from_secs(1);

pub struct Takeover<'a> {
    stores: Stores,
    own: SchedulerName,
    clock: Clock,
    connection: &'a Connection,
}

/// Since when this process is connected to NATS, as far as it has looked.
#[derive(Debug, Default)]
pub struct Connection(Mutex<(u64, Timestamp)>);

impl Connection {
    fn since(&self, client: &Client, now: Timestamp) -> Timestamp {
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != connects {
            *seen = (connects, now);
        }
        seen.1
    }
}

impl<'a> Takeover<'a> {
    pub fn new(stores: &Stores, config: &SchedulerConfig, clock: Clock, connection: &'a Connection) -> Takeover<'a> {
        Takeover { stores: stores.clone(), own: config.name.clone(), clock, connection }
    }

    /// Returns once nobody holds the leadership, as far as etcd can be asked.
    pub async fn vacancy(&self) {
        loop {
            match self.stores.leadership.reign().await {
                Ok(None) => return,
                // Our own key from before a crash: nobody is behind it.
                Ok(Some(reign)) if reign.holder.scheduler == self.own => {
                    tracing::info!(term = %reign.term, "ending the reign of an earlier run of this scheduler");
                    self.depose(&reign).await;
                }
                Ok(Some(reign)) => {
                    tokio::select! {
                        _ = self.stores.leadership.vacancy(reign.term) => {}
                        () = self.gone(&reign) => self.depose(&reign).await,
                        () = tokio::time::sleep(READ_INTERVAL * 30) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the election store cannot be asked who leads");
                    tokio::time::sleep(READ_INTERVAL).await;
                }
            }
        }
    }

    async fn depose(&self, reign: &Reign) {
        if let Err(error) = self.stores.leadership.depose(reign).await {
            tracing::warn!(%error, term = %reign.term, "a leader that is gone could not be deposed");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns once the leader of this reign is gone, or is silent for too long.
    async fn gone(&self, reign: &Reign) {
        let client = &self.stores.nats.client;
        let mut beats = match leader_beats(client).await {
            Ok(beats) => std::pin::pin!(beats),
            Err(_) => return std::future::pending().await,
        };
        let mut beats = beats.as_mut();
        let mut suspicion = Suspicion::new(reign.term, self.clock.now());
        loop {
            tokio::select! {
                beat = beats.next() => match beat {
                    Some(beat) => suspicion.beat(beat.term, self.clock.now()),
                    None => return std::future::pending().await,
                },
                () = tokio::time::sleep(LOOK_EVERY) => {
                    suspicion.connected_since(self.connection.since(client, self.clock.now()));
                    if !suspicion.is_probe_due(self.is_listening(), self.clock.now()) {
                        continue;
                    }
                    let found = probe(client, &reign.holder.scheduler).await;
                    let Some(gone) = suspicion.probed(found, self.clock.now()) else { continue };
                    let why = match gone {
                        Gone::ProcessGone => "its process is gone",
                        Gone::Silent => "it is silent",
                    };
                    tracing::info!(term = %reign.term, leader = %reign.holder.scheduler, why, "the leader is gone");
                    return;
                }
            }
        }
    }

    fn is_listening(&self) -> bool {
        self.stores.nats.client.connection_state() == async_nats::connection::State::Connected
    }
}

async fn probe(client: &Client, scheduler: &SchedulerName) -> Probed {
    let request = async_nats::Request::new().timeout(Some(PROBE_TIMEOUT));
    match client.send_request(subject::scheduler_probe(scheduler), request).await {
        Ok(_) => Probed::Here,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Probed::NobodyThere,
        Err(_) => Probed::Silent,
    }
}
