//! What an executor is told before it starts: its sections of the configuration.
//!
//! Deliberately not here: where the values come from and in which order they count; that is the command line's.

pub use crate::health::HealthConfig;
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::{ExecutorName, Zone};
use outlive_schemas::job::Labels;
use outlive_schemas::limits;
use outlive_schemas::size::ByteSize;
use outlive_schemas::time::Millis;
use outlive_store::etcd::EtcdConfig;
use outlive_store::keyring::KeysConfig;
use outlive_store::nats::NatsConfig;
use outlive_store::telemetry::trace::TelemetryConfig;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The share of a host's memory that jobs get when nothing else is said, in hundredths. The rest is for the executor,
/// the shims and the page cache that their checkpoints pass through.
const MEMORY_SHARE_PERCENT: u64 = 80;

/// What is assumed of a host that does not tell its memory.
const MEMORY_UNKNOWN: ByteSize = ByteSize::mib(1024);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorConfig {
    pub cluster: ClusterConfig,
    #[serde(default)]
    pub nats: NatsConfig,
    #[serde(default)]
    pub etcd: EtcdConfig,
    #[serde(default)]
    pub keys: KeysConfig,
    pub executor: ExecutorSection,
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Keeps clusters that share an etcd apart: part of every key there.
    #[serde(default = "default_cluster_name")]
    pub name: String,
    pub zone: Zone,
}

fn default_cluster_name() -> String {
    "outlive".to_owned()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorSection {
    /// Lasting; the same after a restart.
    pub name: ExecutorName,
    /// Where `/metrics`, `/livez` and `/readyz` are served; nothing means nowhere.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// The attempts' directories. Belongs to one executor; what is in there does not outlive it.
    pub data_dir: PathBuf,
    #[serde(default)]
    pub capacity: CapacityConfig,
    #[serde(default)]
    pub labels: Labels,
    /// The program that is run as `PROGRAM shim` for every attempt; nothing means this very program.
    #[serde(default)]
    pub shim: Option<PathBuf>,
    /// From a termination signal, what jobs have for their last checkpoints before they are killed without.
    #[serde(default = "default_drain_timeout")]
    pub drain_timeout: Millis,
    /// Beyond what this host says that it is not well.
    #[serde(default)]
    pub health: HealthConfig,
}

/// Kubernetes kills 30 s after its signal; what is left is for saying goodbye.
pub const DRAIN_TIMEOUT_DEFAULT: Millis = Millis::secs(25);

fn default_drain_timeout() -> Millis {
    DRAIN_TIMEOUT_DEFAULT
}

/// What there is room for; what is not given is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapacityConfig {
    pub cpu_millis: Option<u64>,
    pub memory: Option<ByteSize>,
    /// Attempts at once.
    pub slots: Option<u32>,
}

/// A value in the configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("`{setting}` is {given}, not within {min} to {max}")]
    OutOfRange { setting: &'static str, given: String, min: String, max: String },
    #[error("`cluster.name` is `{given}`: use 1 to 63 characters of a-z, 0-9 and `-`, for it is part of keys in etcd")]
    ClusterName { given: String },
    #[error("`executor.labels` holds {given} labels; the limit is {max}")]
    TooManyLabels { given: usize, max: usize },
}

impl ExecutorConfig {
    /// Checks what the types do not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !outlive_schemas::id::is_token(&self.cluster.name) {
            return Err(ConfigError::ClusterName { given: self.cluster.name.chars().take(80).collect() });
        }
        let labels = self.executor.labels.len();
        if labels > limits::LABELS_MAX {
            return Err(ConfigError::TooManyLabels { given: labels, max: limits::LABELS_MAX });
        }
        let drain = self.executor.drain_timeout;
        in_range("executor.drain_timeout", drain, Millis::ZERO, Millis(limits::DURATION_MS_MAX))?;
        let CapacityConfig { cpu_millis, memory, slots } = self.executor.capacity;
        if let Some(cpu) = cpu_millis {
            in_range("executor.capacity.cpu_millis", cpu, 1, u64::from(limits::CPU_MILLIS_MAX))?;
        }
        if let Some(memory) = memory {
            in_range("executor.capacity.memory", memory, ByteSize::mib(1), ByteSize(limits::MEMORY_BYTES_MAX))?;
        }
        if let Some(slots) = slots {
            in_range("executor.capacity.slots", slots, 1, limits::SLOTS_MAX)?;
        }
        Ok(())
    }
}

impl CapacityConfig {
    /// Fills in what was not given from what this host has.
    pub fn measured(&self) -> Capacity {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let memory = rustix::system::sysinfo();
        let bytes = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
        let share = if bytes == 0 { MEMORY_UNKNOWN.0 } else { bytes / 100 * MEMORY_SHARE_PERCENT };
        Capacity {
            cpu_millis: self.cpu_millis.unwrap_or(cores * 1_000),
            memory_bytes: self.memory.map_or(share, |given| given.0),
            slots: self.slots.unwrap_or(limits::SLOTS_DEFAULT),
        }
    }
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    setting: &'static str,
    given: T,
    min: T,
    max: T,
) -> Result<(), ConfigError> {
    if given >= min && given <= max {
        Ok(())
    } else {
        let (given, min, max) = (given.to_string(), min.to_string(), max.to_string());
        Err(ConfigError::OutOfRange { setting, given, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(executor: serde_json::Value) -> Result<ExecutorConfig, serde_json::Error> {
        serde_json::from_value(json!({"cluster": {"zone": "a"}, "executor": executor}))
    }

    #[test]
    fn what_is_not_given_is_measured() {
        let config = config(json!({"name": "executor-a-1", "data_dir": "/var/lib/outlive"})).expect("enough");
        config.validate().expect("valid");
        assert_eq!(config.cluster.name, "outlive");
        let capacity = config.executor.capacity.measured();
        assert!(capacity.cpu_millis >= 1_000 && capacity.cpu_millis.is_multiple_of(1_000));
        assert!(capacity.memory_bytes > 1 << 20);
        assert_eq!(capacity.slots, limits::SLOTS_DEFAULT);
    }

    #[test]
    fn what_is_given_counts_and_is_checked() {
        let given = json!({"name": "e", "data_dir": "d", "capacity": {"slots": 7, "memory": "64MiB"}});
        let good = config(given).expect("good");
        assert_eq!(
            (good.executor.capacity.measured().slots, good.executor.capacity.memory),
            (7, Some(ByteSize::mib(64)))
        );
        let none = config(json!({"name": "e", "data_dir": "d", "capacity": {"slots": 0}})).expect("reads");
        let error = none.validate().expect_err("no slots").to_string();
        assert_eq!(error, "`executor.capacity.slots` is 0, not within 1 to 100000");
        assert!(config(json!({"name": "e", "data_dir": "d", "colour": 1})).is_err());
        assert!(config(json!({"name": "E", "data_dir": "d"})).is_err());
        let mut odd = good;
        odd.cluster.name = "a/b".into();
        assert!(odd.validate().expect_err("odd").to_string().contains("a/b"));
    }
}
