//! Noticing that nobody leads, and ending the reign of a leader that is gone.
//!
//! The log is the fence, so taking over too early is safe; it only costs the fleet a moment. A leader whose process is
//! gone is known by its private subject, where nobody listens any more; a silent one by its silence.

use crate::clock::Clock;
use crate::config::SchedulerConfig;
use crate::service::leader_beats;
use crate::stores::Stores;
use async_nats::{Client, RequestErrorKind};
use futures::StreamExt as _;
use outlive_schemas::id::SchedulerName;
use outlive_schemas::subject;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_store::leadership::Reign;
use std::time::Duration;

/// A leader beats every quarter of a second; one beat may be late.
const PROBE_AFTER: Millis = Millis(450);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
const GONE_PROBES: u32 = 2;
/// Without a beat or an answer for this long a leader is taken for gone.
const SILENT_AFTER: Millis = Millis(2_000);
/// How often the leader's key is read although nothing asks for it.
const READ_INTERVAL: Duration = Duration::from_secs(1);

pub struct Takeover {
    stores: Stores,
    own: SchedulerName,
    clock: Clock,
}

impl Takeover {
    pub fn new(stores: &Stores, config: &SchedulerConfig, clock: Clock) -> Takeover {
        Takeover { stores: stores.clone(), own: config.name.clone(), clock }
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
            tokio::time::sleep(PROBE_INTERVAL).await;
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
        let mut heard = self.clock.now();
        let mut gone_probes = 0;
        loop {
            tokio::select! {
                beat = beats.next() => match beat {
                    Some(beat) if beat.term >= reign.term => (heard, gone_probes) = (self.clock.now(), 0),
                    Some(_) => {}
                    None => return std::future::pending().await,
                },
                () = tokio::time::sleep(PROBE_INTERVAL) => {
                    if !self.is_listening() {
                        heard = self.clock.now();
                    }
                    if self.silence(heard) < PROBE_AFTER {
                        continue;
                    }
                    match probe(client, &reign.holder.scheduler).await {
                        Probe::Here => (heard, gone_probes) = (self.clock.now(), 0),
                        Probe::NobodyThere => gone_probes += 1,
                        Probe::Silent => {}
                    }
                    if gone_probes >= GONE_PROBES {
                        tracing::info!(term = %reign.term, leader = %reign.holder.scheduler, "the leader's process is gone");
                        return;
                    }
                    if self.silence(heard) >= SILENT_AFTER {
                        tracing::info!(term = %reign.term, leader = %reign.holder.scheduler, "the leader is silent");
                        return;
                    }
                }
            }
        }
    }

    fn silence(&self, heard: Timestamp) -> Millis {
        self.clock.now().since(heard)
    }

    /// Whoever is not connected hears nobody, and has no business judging.
    fn is_listening(&self) -> bool {
        self.stores.nats.client.connection_state() == async_nats::connection::State::Connected
    }
}

enum Probe {
    Here,
    NobodyThere,
    Silent,
}

async fn probe(client: &Client, scheduler: &SchedulerName) -> Probe {
    let request = async_nats::Request::new().timeout(Some(PROBE_TIMEOUT));
    match client.send_request(subject::scheduler_probe(scheduler), request).await {
        Ok(_) => Probe::Here,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Probe::NobodyThere,
        Err(_) => Probe::Silent,
    }
}
