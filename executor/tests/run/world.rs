//! Servers with everything set up as a scheduler does it, executors, and assignments.

use crate::leader::Leader;
use crate::support::{Etcd, NatsServer, until};
use outlive_executor::config::{CapacityConfig, ClusterConfig, ExecutorConfig, ExecutorSection, HealthConfig};
use outlive_executor::error::ExecutorError;
use outlive_schemas::checkpoint::{CheckpointRef, Taken};
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{
    Attempt, CheckpointNumber, ExecutorId, ExecutorName, JobId, JobName, JobVersion, Namespace, Sequence, Zone,
};
use outlive_schemas::job::Labels;
use outlive_schemas::message::{Assignment, Ended, News, Order};
use outlive_schemas::payload::Payload;
use outlive_schemas::time::Millis;
use outlive_store::blob::{JetStreamBlobs, blob_stream};
use outlive_store::etcd::{self, EtcdConfig};
use outlive_store::job_log::{JetStreamJobLogs, JobLogLimits};
use outlive_store::key_store::{FIRST_EPOCH, JetStreamKeys, KeyStore, KeyStreamConfig};
use outlive_store::keyring::{Keyring, KeysConfig, generate_file};
use outlive_store::nats::{self, NatsConfig, ensure_stream};
use outlive_store::registry::{EtcdRegistry, Registry};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Everything here takes milliseconds or seconds; this is for a machine that is doing much else.
pub const BOUND: Duration = Duration::from_secs(60);
const CLUSTER: &str = "test";

pub struct World {
    pub nats_server: NatsServer,
    pub etcd_server: Etcd,
    pub dir: TempDir,
    pub registry: EtcdRegistry,
    pub client: async_nats::Client,
    pub key_file: PathBuf,
}

/// A running executor.
pub struct Running {
    pub id: ExecutorId,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ExecutorError>>,
}

impl World {
    pub async fn new() -> World {
        let (nats_server, etcd_server) = (NatsServer::start(), Etcd::start());
        let dir = tempfile::tempdir().expect("a directory");
        let key_file = dir.path().join("master.key");
        generate_file(&key_file).expect("a key");
        let nats = nats::connect(&nats_config(&nats_server), "test").await.expect("connected");
        let keyring = Keyring::load(&KeysConfig { files: vec![key_file.clone()] }).expect("a keyring");
        ensure_stream(&nats.jetstream, KeyStreamConfig { replicas: 1 }.into(), |_| Ok(())).await.expect("keys");
        JetStreamBlobs::ensure(&nats, blob_stream(1, None)).await.expect("blobs");
        JetStreamJobLogs::ensure(&nats, 1, JobLogLimits::default()).await.expect("logs");
        let keys = JetStreamKeys::new(nats.jetstream.clone(), Arc::new(keyring));
        keys.log_key(FIRST_EPOCH).await.expect("a log key");
        let etcd = etcd::connect(&etcd_config(&etcd_server)).await.expect("connected");
        let registry = EtcdRegistry::new(&etcd, CLUSTER, Duration::from_secs(5));
        World { nats_server, etcd_server, dir, registry, client: nats.client, key_file }
    }

    pub async fn leader(&self) -> Leader {
        Leader::start(self.client.clone(), 5).await
    }

    pub fn config(&self, name: &str) -> ExecutorConfig {
        ExecutorConfig {
            cluster: ClusterConfig { name: CLUSTER.to_owned(), zone: Zone::new("a").expect("a zone") },
            nats: nats_config(&self.nats_server),
            etcd: etcd_config(&self.etcd_server),
            keys: KeysConfig { files: vec![self.key_file.clone()] },
            telemetry: Default::default(),
            executor: ExecutorSection {
                name: ExecutorName::new(name).expect("a name"),
                listen: None,
                data_dir: self.data_dir(name),
                capacity: CapacityConfig { cpu_millis: Some(4_000), memory: None, slots: Some(16) },
                labels: Labels::new(),
                shim: Some(env!("CARGO_BIN_EXE_outlive-shim").into()),
                drain_timeout: Millis::secs(10),
                health: HealthConfig::default(),
            },
        }
    }

    pub async fn blobs(&self) -> JetStreamBlobs {
        let nats = nats::connect(&nats_config(&self.nats_server), "test").await.expect("connected");
        JetStreamBlobs::attach(&nats).await.expect("blobs")
    }

    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub async fn executor(&self, name: &str) -> Running {
        self.executor_with(self.config(name)).await
    }

    /// Starts one and waits until it is registered.
    pub async fn executor_with(&self, config: ExecutorConfig) -> Running {
        let name = config.executor.name.clone();
        let before: Vec<_> = self.registered(&name).await.into_iter().map(|registration| registration.id).collect();
        let (shutdown, asked) = oneshot::channel();
        let asked = async {
            let _ = asked.await;
        };
        let task = tokio::spawn(outlive_executor::run(config, asked));
        let id = self.registered_beside(&name, &before).await;
        Running { id, shutdown: Some(shutdown), task }
    }

    /// Waits for an incarnation that is none of these.
    pub async fn registered_beside(&self, name: &ExecutorName, before: &[ExecutorId]) -> ExecutorId {
        let find = async || {
            let all = self.registered(name).await;
            all.into_iter().map(|registration| registration.id).find(|id| !before.contains(id))
        };
        until("the executor is registered", BOUND, async || find().await.is_some()).await;
        find().await.expect("just found")
    }

    pub async fn registered(&self, name: &ExecutorName) -> Vec<Registration> {
        let all = self.registry.list().await.unwrap_or_default();
        all.into_iter().filter(|registration| registration.name == *name).collect()
    }
}

impl Running {
    /// As SIGKILL would: nothing is said to anybody.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Asks it to leave, and waits until it has.
    pub async fn leave(mut self) -> Result<(), ExecutorError> {
        let _ = self.shutdown.take().expect("asked once").send(());
        tokio::time::timeout(BOUND, self.task).await.expect("leaves in time").expect("does not panic")
    }
}

fn nats_config(server: &NatsServer) -> NatsConfig {
    NatsConfig { servers: vec![server.url()], ..NatsConfig::default() }
}

fn etcd_config(server: &Etcd) -> EtcdConfig {
    EtcdConfig { endpoints: vec![server.endpoint()], ..EtcdConfig::default() }
}

pub fn new_job() -> JobId {
    JobId(uuid::Uuid::now_v7())
}

/// The first attempt of a job.
pub fn assignment(leader: &Leader, job: JobId, spec: serde_json::Value) -> Assignment {
    Assignment {
        job,
        attempt: Attempt(1),
        namespace: Namespace::new("default").expect("a namespace"),
        name: JobName::new("job").expect("a name"),
        version: JobVersion(1),
        placed_at: Sequence(leader.seq().0 + 1),
        restore: None,
        retained: Vec::new(),
        spec: Arc::new(serde_json::from_value(spec).expect("a spec")),
        array_index: None,
        inputs: Vec::new(),
        trace: None,
    }
}

pub fn noop(input: &str) -> serde_json::Value {
    serde_json::json!({"driver": {"noop": {}}, "input": input})
}

/// A job in `sh` that is checkpointed as often as can be.
pub fn script(text: &str) -> serde_json::Value {
    serde_json::json!({
        "driver": {"process": {"command": ["sh", "-c", text]}},
        "checkpoint": {"interval": "100ms", "min_pause": "0s", "timeout": "30s"},
    })
}

pub fn restore(number: u64, taken: Taken) -> Option<CheckpointRef> {
    Some(CheckpointRef { number: CheckpointNumber(number), manifest: taken.manifest })
}

/// Assigns one attempt.
pub async fn run_on(leader: &Leader, executor: ExecutorId, assignment: &Assignment) {
    leader.order(executor, Order::Assign(vec![assignment.clone()])).await;
}

/// Waits for the end of an attempt.
pub async fn end_of(leader: &Leader, job: JobId, attempt: Attempt) -> Ended {
    let find = || {
        leader.news(job, attempt).into_iter().find_map(|news| match news {
            News::Ended(ended) => Some(ended),
            _ => None,
        })
    };
    until(&format!("the end of attempt {attempt}"), BOUND, async || find().is_some()).await;
    find().expect("just found")
}

/// Waits until an attempt runs.
pub async fn start_of(leader: &Leader, job: JobId, attempt: Attempt) {
    until("the start", BOUND, async || leader.news(job, attempt).contains(&News::Started)).await;
}

/// Checkpoints reported so far.
pub fn checkpoints(leader: &Leader, job: JobId, attempt: Attempt) -> Vec<Taken> {
    let taken = |news| match news {
        News::Checkpoint(taken) => Some(taken),
        _ => None,
    };
    leader.news(job, attempt).into_iter().filter_map(taken).collect()
}

pub fn text(payload: Option<Payload>) -> String {
    String::from_utf8(payload.expect("a payload").0.to_vec()).expect("text")
}

/// Waits until a file exists.
pub async fn file(path: &Path) {
    until(&format!("{} exists", path.display()), BOUND, async || path.exists()).await;
}
