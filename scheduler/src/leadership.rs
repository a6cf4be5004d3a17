//! Gaining and losing the term: follow, campaign, lead, and again.

pub mod accession;
mod apart;
mod reign;
pub mod suspicion;
mod takeover;

use crate::clock::Clock;
use crate::config::SchedulerConfig;
use crate::error::{ReplayError, SchedulerError};
use crate::follower::Follower;
use crate::imager::{Imager, chain_of};
use crate::leader::Resignation;
use crate::metrics;
use crate::readiness::Readiness;
use crate::stores::Stores;
use outlive_schemas::id::Term;
use outlive_schemas::subject;
use outlive_store::bridge::BridgeError;
use outlive_store::leadership::{Holder, LeadershipError};
use outlive_store::telemetry::trace::Tracer;
use outlive_store::telemetry::{self, Manager};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two tries at something that is out of reach.
const PAUSE: Duration = Duration::from_millis(250);
/// Whoever found the log out of reach leaves the next election to those who may be nearer to it.
const LET_OTHERS_TRY: Duration = Duration::from_millis(1_000);

/// Runs a scheduler until `shutdown`, or until something is wrong that waiting does not mend.
pub async fn run(config: SchedulerConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), SchedulerError> {
    let handle = telemetry::install(metrics::METRICS).map_err(SchedulerError::Telemetry)?;
    metrics::begin(env!("CARGO_PKG_VERSION"), &config.zone);
    let readiness = Readiness::default();
    let asked = readiness.clone();
    let _telemetry = match config.listen {
        Some(listen) => {
            let served = telemetry::serve(listen, handle, readiness.pulse.clone(), move || asked.check()).await;
            Some(served.map_err(SchedulerError::Telemetry)?)
        }
        None => None,
    };
    let asked = readiness.clone();
    let manager = Manager::tell(readiness.pulse.clone(), move || asked.check());
    let tracer = Tracer::start(&config.telemetry, "scheduler", config.name.as_str()).map_err(SchedulerError::Traces)?;
    tokio::pin!(shutdown);
    let stores = tokio::select! {
        stores = readiness.pulse.while_waiting(Stores::open(&config)) => stores?,
        () = &mut shutdown => return Ok(()),
    };
    let streams = tokio::spawn(metrics::streams::run(stores.clone()));
    // Whoever asks whether anybody of this zone is there is answered, whether this scheduler leads or not.
    let here = tokio::spawn(reign::answer_probes(stores.clone(), subject::zone_probe(&config.zone)));
    let presence = stores
        .registry
        .register_scheduler(&config.name, config.zone.as_str())
        .await
        .map_err(SchedulerError::Registry)?;
    let leading = Arc::new(AtomicBool::new(false));
    let imager = Imager {
        stores: stores.clone(),
        config: config.log.clone(),
        name: config.name.clone(),
        leading: leading.clone(),
    };
    let imager = tokio::spawn(imager.run());

    let connection = takeover::Connection::default();
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let mut scheduler =
        Scheduler { config, stores, clock: Clock::start(), readiness, tracer, leading, stopping, connection };
    let result = {
        let running = scheduler.run();
        tokio::pin!(running);
        tokio::select! {
            result = &mut running => result,
            () = &mut shutdown => {
                manager.stopping();
                stop.send(true).ok();
                // The reign, if there is one, is handed over in order.
                running.await
            }
        }
    };
    imager.abort();
    streams.abort();
    here.abort();
    presence.leave().await;
    result
}

struct Scheduler {
    config: SchedulerConfig,
    stores: Stores,
    clock: Clock,
    readiness: Readiness,
    tracer: Tracer,
    leading: Arc<AtomicBool>,
    stopping: tokio::sync::watch::Receiver<bool>,
    connection: takeover::Connection,
}

impl Scheduler {
    async fn run(&mut self) -> Result<(), SchedulerError> {
        let mut follower = self.readiness.pulse.while_waiting(self.replay()).await?;
        while !*self.stopping.borrow() {
            let takeover = takeover::Takeover::new(&self.stores, &self.config, self.clock, &self.connection);
            let mut stopping = self.stopping.clone();
            let vacant = async {
                tokio::select! {
                    () = takeover.vacancy() => true,
                    _ = stopping.wait_for(|stop| *stop) => false,
                }
            };
            if !self.followed(&mut follower, vacant).await? {
                return Ok(());
            }
            let holder = Holder { scheduler: self.config.name.clone(), zone: self.config.zone.clone() };
            match self.stores.leadership.campaign(holder).await {
                Ok(Some(tenure)) => {
                    let term = tenure.term();
                    tracing::info!(%term, "elected");
                    self.readiness.takes_over(term);
                    let ended = reign::Reign::new(self, tenure.clone()).hold(&mut follower).await;
                    self.leading.store(false, Ordering::Relaxed);
                    self.readiness.replays();
                    metrics::leading(None);
                    tenure.resign().await;
                    let out_of_reach = matches!(ended, Err(SchedulerError::Replay(ReplayError::Read(_))));
                    self.ended(term, ended)?;
                    if out_of_reach {
                        tokio::time::sleep(LET_OTHERS_TRY).await;
                    }
                    // What was folded ahead of the log is thrown away with the reign; the follower has the log's.
                }
                Ok(None) => {}
                Err(LeadershipError::Unavailable { reason }) => {
                    tracing::warn!(reason, "the election store is out of reach");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(SchedulerError::Leadership(error)),
            }
        }
        Ok(())
    }

    fn ended(&self, term: Term, ended: Result<reign::End, SchedulerError>) -> Result<(), SchedulerError> {
        match ended {
            Ok(reign::End::HandedOver) => tracing::info!(%term, "handed leadership over"),
            Ok(reign::End::Lost(why)) => tracing::warn!(%term, why, "lost leadership"),
            Err(SchedulerError::Stopped(Resignation::Deposed)) => {
                metrics::conflict();
                tracing::warn!(%term, "deposed: another scheduler has written to the log");
            }
            Err(SchedulerError::Replay(ReplayError::Read(error))) => {
                tracing::warn!(%term, %error, "gave up leadership: the log is out of reach");
            }
            Err(
                SchedulerError::Leadership(LeadershipError::Unavailable { reason })
                | SchedulerError::Bridge(BridgeError::Unavailable { reason }),
            ) => tracing::warn!(%term, reason, "gave up leadership: etcd is out of reach"),
            Err(fatal) => {
                if matches!(fatal, SchedulerError::Stopped(Resignation::Refused { .. })) {
                    metrics::append_failed();
                }
                tracing::error!(%term, error = %chain_of(&fatal), "stopped leading");
                return Err(fatal);
            }
        }
        Ok(())
    }

    async fn replay(&self) -> Result<Follower, SchedulerError> {
        let begun = Instant::now();
        self.readiness.replays();
        let mut follower = loop {
            match Follower::begin(&self.stores).await {
                Err(
                    error @ (ReplayError::Read(outlive_store::log::ReadError::Unavailable { .. })
                    | ReplayError::Key(_)
                    | ReplayError::Images(_)),
                ) => {
                    tracing::warn!(error = %chain_of(&error), "cannot begin to replay yet");
                    tokio::time::sleep(PAUSE).await;
                }
                other => break other.map_err(SchedulerError::Replay)?,
            }
        };
        let from = follower.seq;
        follower.told = Some(self.readiness.clone());
        follower.catch_up().await.map_err(SchedulerError::Replay)?;
        let seconds = begun.elapsed().as_secs_f64();
        metrics::replayed(seconds);
        metrics::position(follower.seq);
        tracing::info!(image = %from, seq = %follower.seq, events = follower.events, seconds, "replayed the log");
        Ok(follower)
    }

    async fn followed<T>(&self, follower: &mut Follower, until: impl Future<Output = T>) -> Result<T, SchedulerError> {
        let followed = self.readiness.pulse.while_waiting(follower.follow(until)).await;
        followed.map_err(SchedulerError::Replay)
    }
}
