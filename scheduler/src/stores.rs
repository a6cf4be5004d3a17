//! The places that a scheduler keeps things in, opened and checked before anything else begins.

use crate::config::SchedulerConfig;
use crate::error::SchedulerError;
use outlive_schemas::id::Sequence;
use outlive_store::blob::{BlobStore, JetStreamBlobs, blob_stream};
use outlive_store::bridge::{Bridge, EtcdBridge};
use outlive_store::etcd;
use outlive_store::image::ImageStore;
use outlive_store::job_log::{JetStreamJobLogs, JobLogLimits, JobLogs};
use outlive_store::key_store::{FIRST_EPOCH, JetStreamKeys, KeyStore, KeyStreamConfig};
use outlive_store::keyring::Keyring;
use outlive_store::leadership::{EtcdLeadership, Leadership};
use outlive_store::log::CommitLog;
use outlive_store::log::jetstream::{JetStreamLog, check_stream, stream_config};
use outlive_store::nats::{self, Nats, ensure_stream};
use outlive_store::registry::{EtcdRegistry, Registry};
use outlive_store::seal::Key;
use std::sync::Arc;
use std::time::Duration;

/// How long a lease lasts that nobody renews (design, section 2).
pub const LEASE_TTL: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Stores {
    pub nats: Nats,
    pub log: Arc<dyn CommitLog>,
    pub bridge: Arc<dyn Bridge>,
    pub keys: Arc<dyn KeyStore>,
    pub log_key: Key,
    pub blobs: Arc<dyn BlobStore>,
    pub images: Arc<ImageStore>,
    pub job_logs: Arc<dyn JobLogs>,
    pub leadership: Arc<dyn Leadership>,
    pub registry: Arc<dyn Registry>,
}

impl Stores {
    /// Connects, refuses what cannot be relied on, and makes what is not there yet.
    pub async fn open(config: &SchedulerConfig) -> Result<Stores, SchedulerError> {
        let keyring = Arc::new(Keyring::load(&config.keys).map_err(SchedulerError::Keys)?);
        let nats = nats::connect(&config.nats, config.name.as_str()).await.map_err(SchedulerError::Nats)?;
        nats::require_server_version(&nats.client).map_err(SchedulerError::ServerVersion)?;
        let etcd = etcd::connect(&config.etcd).await.map_err(SchedulerError::Etcd)?;

        let replicas = config.log.replicas;
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let jetstream = &nats.jetstream;
        let log_stream = stream_config(replicas, bytes(config.log.max_bytes));
        ensure_stream(jetstream, log_stream, |found| check_stream(found).map_err(|e| e.to_string()))
            .await
            .map_err(SchedulerError::Stream)?;
        let key_stream = KeyStreamConfig { replicas };
        ensure_stream(jetstream, key_stream.into(), |_| Ok(())).await.map_err(SchedulerError::Stream)?;
        let kept = JobLogLimits {
            bytes_max: bytes(config.blobs.job_logs_max_bytes),
            age_max: config.retention.output_for.into(),
        };
        let job_logs = JetStreamJobLogs::ensure(&nats, replicas, kept).await.map_err(SchedulerError::Stream)?;
        let blobs = JetStreamBlobs::ensure(&nats, blob_stream(replicas, Some(bytes(config.blobs.max_bytes))))
            .await
            .map_err(SchedulerError::Stream)?;

        // A wrong key shows here, before anything has been said to anybody.
        let keys = JetStreamKeys::new(nats.jetstream.clone(), keyring);
        let log_key = keys.log_key(FIRST_EPOCH).await.map_err(SchedulerError::LogKey)?;
        let blobs: Arc<dyn BlobStore> = Arc::new(blobs);
        Ok(Stores {
            log: Arc::new(JetStreamLog::new(nats.clone())),
            keys: Arc::new(keys),
            images: Arc::new(ImageStore::new(blobs.clone(), log_key.derive("images"))),
            log_key,
            blobs,
            job_logs: Arc::new(job_logs),
            bridge: Arc::new(EtcdBridge::new(&etcd, &config.cluster)),
            leadership: Arc::new(EtcdLeadership::new(&etcd, &config.cluster, LEASE_TTL)),
            registry: Arc::new(EtcdRegistry::new(&etcd, &config.cluster, LEASE_TTL)),
            nats,
        })
    }
}

/// The log before its first commit.
pub const EMPTY: Sequence = Sequence(0);
