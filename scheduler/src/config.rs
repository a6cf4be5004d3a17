//! What a scheduler is told at its start.

pub use outlive_core::detect::zone::SETTLE_DEFAULT as ZONE_SETTLE_DEFAULT;
use outlive_core::retention::Retention;
use outlive_schemas::id::{SchedulerName, Zone};
use outlive_schemas::time::Millis;
use outlive_store::etcd::EtcdConfig;
use outlive_store::keyring::KeysConfig;
use outlive_store::nats::NatsConfig;
use outlive_store::telemetry::trace::TelemetryConfig;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    pub cluster: String,
    pub name: SchedulerName,
    pub zone: Zone,
    pub nats: NatsConfig,
    pub etcd: EtcdConfig,
    pub keys: KeysConfig,
    pub log: LogConfig,
    pub blobs: BlobsConfig,
    pub retention: RetentionConfig,
    /// Where `/metrics`, `/livez` and `/readyz` are served; nowhere where there is none.
    pub listen: Option<SocketAddr>,
    pub telemetry: TelemetryConfig,
    /// How long a zone that was lost must have been steady before it gets work again.
    pub zone_settle: Millis,
}

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Of every stream that Outlive makes.
    pub replicas: usize,
    /// The log takes no more beyond this.
    pub max_bytes: u64,
    pub witness: WitnessMode,
    /// Whether commits go to etcd while JetStream has no leader for the log's stream.
    pub bridge: bool,
    /// Events after which a new image is written.
    pub image_every_events: u64,
    /// About so many of the newest events stay in the log, beyond what its images need, so that jobs' histories can be
    /// read.
    pub history_events: u64,
}

/// How often the head of the log is witnessed in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WitnessMode {
    /// At most every 200 ms, and as leadership is given up.
    #[default]
    Interval,
    /// Before anything that a commit holds is acted on. Costs one write to etcd per commit.
    EveryCommit,
}

/// The `[blobs]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobsConfig {
    pub max_bytes: u64,
    /// What jobs' logs may take in all; the oldest go first.
    pub job_logs_max_bytes: u64,
}

/// The `[retention]` section: how long what is over is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// A finished job, its history, its result and its output.
    pub finished_for: Millis,
    /// Finished jobs; the oldest beyond so many go sooner.
    pub finished_max: u64,
    /// But none goes sooner than this after its end.
    pub finished_at_least: Millis,
    /// What jobs have written, whether or not they are over.
    pub output_for: Millis,
}

impl RetentionConfig {
    pub fn rules(&self) -> Retention {
        let RetentionConfig { finished_for, finished_max, finished_at_least, .. } = *self;
        Retention { finished_for, finished_max, finished_at_least }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        let Retention { finished_for, finished_max, finished_at_least } = Retention::default();
        RetentionConfig { finished_for, finished_max, finished_at_least, output_for: finished_for }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            replicas: 1,
            max_bytes: 64 << 30,
            witness: WitnessMode::default(),
            bridge: true,
            image_every_events: 100_000,
            history_events: 10_000_000,
        }
    }
}

impl Default for BlobsConfig {
    fn default() -> Self {
        BlobsConfig { max_bytes: 256 << 30, job_logs_max_bytes: 4 << 30 }
    }
}
