//! How an executor begins: its directory, its connections, its keys; and one incarnation after the other.
//!
//! The order matters. Keys are tried before anything is promised, and orders are listened to before the registry says
//! that they may be sent.

use super::directory::DataDirectory;
use super::work::Workshop;
use super::{Deadlines, End, INPUTS_MAX, Inlets, Runner, is_passing};
use crate::config::ExecutorConfig;
use crate::driver::process::own_binary;
use crate::environment::Place;
use crate::error::{ExecutorError, explained};
use crate::health::HealthMonitor;
use crate::http::Readiness;
use crate::intake::Intake;
use crate::logs::LogSink;
use crate::machine::{ExecutorMachine, Over};
use crate::metrics;
use crate::shim::BootTime;
use futures::StreamExt as _;
use outlive_schemas::executor::{DriverKind, Registration};
use outlive_schemas::id::{ExecutorId, Zone};
use outlive_schemas::subject;
use outlive_store::blob::JetStreamBlobs;
use outlive_store::etcd;
use outlive_store::job_log::JetStreamJobLogs;
use outlive_store::key_store::{JetStreamKeys, KeyError, KeyStore};
use outlive_store::keyring::Keyring;
use outlive_store::nats::{self, Nats};
use outlive_store::registry::{EtcdRegistry, Membership, Registry};
use outlive_store::telemetry::trace::Tracer;
use outlive_store::telemetry::{self, Manager};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long an executor that says nothing more counts as there: etcd's least is 2 s, and its own elections take 1 s.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(5);

/// Between two tries at a registry or a key store that is out of reach.
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// Runs an executor until `shutdown`, or until it cannot go on.
pub(crate) async fn run(
    config: ExecutorConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ExecutorError> {
    let mut shutdown = pin!(shutdown);
    config.validate().map_err(ExecutorError::Config)?;
    let path = config.executor.data_dir.clone();
    let data = crate::checkpoint::blocking(move || DataDirectory::take(&path)).await?;
    let keyring = Arc::new(Keyring::load(&config.keys).map_err(ExecutorError::Keyring)?);
    let readiness = Arc::new(Readiness::default());
    let _telemetry = serve_telemetry(&config, &readiness).await?;
    let name = config.executor.name.as_str();
    let tracer = Tracer::start(&config.telemetry, "executor", name).map_err(ExecutorError::Traces)?;
    let asked = Arc::clone(&readiness);
    let manager = Manager::tell(readiness.pulse.clone(), move || asked.check());
    let mut shutdown = pin!(async {
        shutdown.as_mut().await;
        manager.stopping();
    });
    let name = &config.executor.name;
    let nats = nats::connect(&config.nats, &format!("outlive-{name}")).await.map_err(ExecutorError::Nats)?;
    let etcd = etcd::connect(&config.etcd).await.map_err(ExecutorError::Etcd)?;
    let registry: Arc<dyn Registry> = Arc::new(EtcdRegistry::new(&etcd, &config.cluster.name, LEASE_TTL));
    let keys: Arc<dyn KeyStore> = Arc::new(JetStreamKeys::new(nats.jetstream.clone(), keyring));
    tokio::select! {
        checked = readiness.pulse.while_waiting(check_keys(&*keys)) => checked?,
        () = shutdown.as_mut() => return Ok(()),
    }
    let workshop = Arc::new(readiness.pulse.while_waiting(workshop(&config, &nats, keys)).await?);
    let health = Arc::new(HealthMonitor::start(data.path(), config.executor.health));
    let _here = answer_for_zone(&nats.client, &config.cluster.zone).await?;
    let mut intake = Intake::default();
    loop {
        let registration = registration(&config);
        let id = registration.id;
        let inlets = subscribe(&nats.client, id).await?;
        let membership = tokio::select! {
            membership = readiness.pulse.while_waiting(register(&*registry, &registration)) => membership,
            () = shutdown.as_mut() => return Ok(()),
        };
        tracing::info!(executor = %id, name = %registration.name, zone = %registration.zone, "registered");
        readiness.set_registered(true);
        let (tasks, inputs) = mpsc::channel(INPUTS_MAX);
        let mut runner = Runner {
            client: nats.client.clone(),
            registry: Arc::clone(&registry),
            workshop: Arc::clone(&workshop),
            data_dir: data.path().to_owned(),
            health: Arc::clone(&health),
            readiness: Arc::clone(&readiness),
            tracer: tracer.clone(),
            origin: BootTime::now(),
            // Terms and positions are the cluster's; they outlive an incarnation.
            machine: ExecutorMachine::new(registration, intake).with_drain_timeout(config.executor.drain_timeout),
            live: BTreeMap::new(),
            deadlines: watch::Sender::new(Deadlines::of(&*membership, 0)),
            membership,
            registration: 0,
            looking_at_disk: false,
            tasks,
            answer: None,
        };
        let end = runner.run(inlets, inputs, &mut shutdown).await;
        readiness.pulse.while_waiting(workshop.remnants.clear()).await;
        match end {
            End::Over(Over::Left) => return Ok(()),
            End::Closed => return Err(ExecutorError::NatsClosed),
            End::Over(Over::Dismissed) => intake = runner.machine.begin_anew(),
        }
    }
}

async fn serve_telemetry(
    config: &ExecutorConfig,
    readiness: &Arc<Readiness>,
) -> Result<Option<telemetry::Telemetry>, ExecutorError> {
    let Some(listen) = config.executor.listen else { return Ok(None) };
    let recorder = telemetry::install(metrics::METRICS).map_err(ExecutorError::Telemetry)?;
    metrics::begin();
    let asked = Arc::clone(readiness);
    let served = telemetry::serve(listen, recorder, readiness.pulse.clone(), move || asked.check()).await;
    let served = served.map_err(ExecutorError::Telemetry)?;
    tracing::info!(address = %served.address(), "metrics are served");
    Ok(Some(served))
}

/// Makes sure that our master keys open what this cluster has wrapped. While the keys cannot be asked for, nothing can
/// be run either, so it waits.
async fn check_keys(keys: &dyn KeyStore) -> Result<(), ExecutorError> {
    let mut complained = false;
    loop {
        match keys.log_keys().await {
            Ok(_) => return Ok(()),
            Err(error @ KeyError::Wrapped { .. }) => return Err(ExecutorError::Keys(error)),
            Err(error @ (KeyError::Unavailable { .. } | KeyError::Refused { .. })) => {
                if !complained {
                    tracing::warn!(error = %explained(&error), "waiting for the key store; a scheduler sets it up");
                    complained = true;
                }
                sleep(TRY_PAUSE).await;
            }
        }
    }
}

async fn workshop(config: &ExecutorConfig, nats: &Nats, keys: Arc<dyn KeyStore>) -> Result<Workshop, ExecutorError> {
    let blobs = JetStreamBlobs::attach(nats).await.map_err(ExecutorError::Stream)?;
    let place = Place { zone: config.cluster.zone.clone(), executor: config.executor.name.clone() };
    let shim = config.executor.shim.clone().unwrap_or_else(own_binary);
    let logs = JetStreamJobLogs::attach(nats).await.map_err(ExecutorError::Stream)?;
    let logs = LogSink::new(nats.client.clone(), Arc::new(logs), Arc::clone(&keys));
    Ok(Workshop::new(Arc::new(blobs), keys, Arc::new(logs), shim, place))
}

fn registration(config: &ExecutorConfig) -> Registration {
    Registration {
        id: ExecutorId(uuid::Uuid::now_v7()),
        name: config.executor.name.clone(),
        zone: config.cluster.zone.clone(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        capacity: config.executor.capacity.measured(),
        labels: config.executor.labels.clone(),
        drivers: vec![DriverKind::Process, DriverKind::Noop],
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Says that somebody of this zone is there to whoever asks, until it is dropped.
async fn answer_for_zone(client: &async_nats::Client, zone: &Zone) -> Result<JoinSet<()>, ExecutorError> {
    let subject = subject::zone_probe(zone);
    let subscribed = client.subscribe(subject.clone()).await;
    let mut asked = subscribed.map_err(|error| ExecutorError::Subscribe { subject, reason: error.to_string() })?;
    let client = client.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(message) = asked.next().await {
            if let Some(reply) = message.reply {
                // Whoever asks asks again.
                client.publish(reply, bytes::Bytes::new()).await.ok();
            }
        }
    });
    Ok(tasks)
}

/// Listens to what is meant for this incarnation. On return the server knows.
async fn subscribe(client: &async_nats::Client, id: ExecutorId) -> Result<Inlets, ExecutorError> {
    let to = async |subject: String| {
        let subscribed = client.subscribe(subject.clone()).await;
        subscribed.map_err(|error| ExecutorError::Subscribe { subject, reason: error.to_string() })
    };
    let inlets = Inlets {
        orders: to(subject::executor_orders(id)).await?,
        probes: to(subject::executor_probe(id)).await?,
        beats: to(subject::LEADER_BEAT.to_owned()).await?,
    };
    let flushed = client.flush().await;
    flushed.map_err(|error| ExecutorError::Subscribe {
        subject: subject::executor_orders(id),
        reason: error.to_string(),
    })?;
    Ok(inlets)
}

/// Registers, however long that takes.
pub(super) async fn register(registry: &dyn Registry, registration: &Registration) -> Arc<dyn Membership> {
    loop {
        match registry.register(registration).await {
            Ok(membership) => return membership,
            Err(error) => {
                tracing::warn!(error = %explained(&error), passing = is_passing(&error), "not registered yet");
                sleep(TRY_PAUSE).await;
            }
        }
    }
}
