//! The configuration: what may be set, and the layers it is put together from (contract, section 6).
//!
//! Defaults < /etc/outlive/outlive.toml < the user's file < `--config` < environment < flags. Every value remembers
//! where it came from. An unknown key is refused with its name and its place, for it is more likely a slip than a wish.
//!
//! Deliberately not here: what the values mean to a scheduler or an executor; see `scheduler.rs` and `executor.rs`.

mod layers;

pub use layers::{Layer, Origins};

use crate::args::Global;
use crate::failure::Failure;
use outlive_executor::config::{CapacityConfig, HealthConfig};
use outlive_scheduler::config::{BlobsConfig, LogConfig, RetentionConfig, WitnessMode};
use outlive_schemas::id::{ExecutorName, SchedulerName, Zone};
use outlive_schemas::job::Labels;
use outlive_schemas::size::ByteSize;
use outlive_schemas::time::Millis;
use outlive_store::etcd::EtcdConfig;
use outlive_store::keyring::KeysConfig;
use outlive_store::nats::NatsConfig;
use outlive_store::telemetry::trace::TelemetryConfig;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

// JetStream sets a stream's whole limit aside on the disk of every replica, so that these together must fit what a
// modest disk has free; whoever has more sets more.
const LOG_BYTES_DEFAULT: ByteSize = ByteSize::mib(8 * 1_024);
const BLOB_BYTES_DEFAULT: ByteSize = ByteSize::mib(16 * 1_024);
const JOB_LOG_BYTES_DEFAULT: ByteSize = ByteSize::mib(2 * 1_024);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub cluster: ClusterSettings,
    pub nats: NatsConfig,
    pub etcd: EtcdConfig,
    pub keys: KeysConfig,
    pub log: LogSettings,
    pub blobs: BlobSettings,
    pub retention: RetentionConfig,
    pub scheduler: SchedulerSettings,
    pub executor: ExecutorSettings,
    pub telemetry: TelemetryConfig,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSettings {
    /// Everything in etcd is kept under this name.
    pub name: String,
    /// Where this scheduler or executor stands.
    pub zone: Option<Zone>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Of every stream: 1, 3 or 5, one for each zone.
    pub replicas: usize,
    /// The log takes no more beyond this. JetStream sets it aside at once, so it must fit the disk.
    pub max_bytes: ByteSize,
    pub witness: WitnessMode,
    /// Whether commits go to etcd while JetStream has no leader for the log's stream.
    pub bridge: bool,
    /// Events after which a new image is written.
    pub image_every_events: u64,
    /// About so many of the newest events stay in the log, so that jobs' histories can be read.
    pub history_events: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlobSettings {
    /// Of checkpoints and images.
    pub max_bytes: ByteSize,
    /// Of what jobs have written; the oldest goes first.
    pub job_logs_max_bytes: ByteSize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerSettings {
    /// Absent: made from the zone and the host's name.
    pub name: Option<SchedulerName>,
    /// Of metrics and health checks.
    pub listen: Option<SocketAddr>,
    /// How long a zone that was lost must have been steady before it gets work again. Absent: 30 s.
    pub zone_settle: Option<Millis>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutorSettings {
    /// Absent: made from the zone and the host's name.
    pub name: Option<ExecutorName>,
    /// Of metrics and health checks.
    pub listen: Option<SocketAddr>,
    pub data_dir: Option<PathBuf>,
    pub capacity: CapacityConfig,
    pub labels: Labels,
    /// The program that is run as `PROGRAM shim` for every attempt. Absent: this one.
    pub shim: Option<PathBuf>,
    /// From a termination signal, what jobs have for their last checkpoints before they are killed without.
    pub drain_timeout: Option<Millis>,
    /// Beyond what this host says that it is not well.
    pub health: HealthConfig,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        ClusterSettings { name: "outlive".to_owned(), zone: None }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        let LogConfig { replicas, witness, bridge, image_every_events, history_events, .. } = LogConfig::default();
        LogSettings { replicas, max_bytes: LOG_BYTES_DEFAULT, witness, bridge, image_every_events, history_events }
    }
}

impl Default for BlobSettings {
    fn default() -> Self {
        BlobSettings { max_bytes: BLOB_BYTES_DEFAULT, job_logs_max_bytes: JOB_LOG_BYTES_DEFAULT }
    }
}

impl From<LogSettings> for LogConfig {
    fn from(settings: LogSettings) -> LogConfig {
        let LogSettings { replicas, max_bytes, witness, bridge, image_every_events, history_events } = settings;
        LogConfig { replicas, max_bytes: max_bytes.0, witness, bridge, image_every_events, history_events }
    }
}

impl From<BlobSettings> for BlobsConfig {
    fn from(BlobSettings { max_bytes, job_logs_max_bytes }: BlobSettings) -> BlobsConfig {
        BlobsConfig { max_bytes: max_bytes.0, job_logs_max_bytes: job_logs_max_bytes.0 }
    }
}

impl Settings {
    /// Where this scheduler or executor stands.
    pub fn zone(&self) -> Result<Zone, Failure> {
        self.cluster.zone.clone().ok_or_else(|| {
            Failure::usage("`cluster.zone` is not set: name the zone this host is in, such as OUTLIVE_CLUSTER__ZONE=a")
        })
    }
}

/// What a role is called that was given no name: by its zone and its host.
pub fn role_name(role: &str, zone: &Zone) -> Result<String, Failure> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().to_lowercase();
    // The host's own name, without its domain.
    let host: String =
        host.chars().take_while(|&c| c != '.').map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let host = host.trim_matches('-');
    if host.is_empty() {
        return Err(Failure::usage(format!("this host has no name to make one from: set `{role}.name`")));
    }
    Ok(format!("{role}-{zone}-{host}"))
}

/// The configuration, and where each value of it came from.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub origins: Origins,
}

/// Reads every layer there is.
pub fn load(global: &Global) -> Result<Loaded, Failure> {
    let mut layers = Vec::new();
    for path in [Some(PathBuf::from("/etc/outlive/outlive.toml")), user_file()].into_iter().flatten() {
        // Only these two may be absent.
        if path.exists() {
            layers.push(Layer::file(&path)?);
        }
    }
    if let Some(path) = &global.config {
        layers.push(Layer::file(path)?);
    }
    layers.push(Layer::environment(std::env::vars_os()));
    layers.push(Layer::flags(flags(global)));
    put_together(&layers)
}

/// Later layers win, value by value.
fn put_together(layers: &[Layer]) -> Result<Loaded, Failure> {
    layers::merge(layers).map(|(settings, origins)| Loaded { settings, origins })
}

fn user_file() -> Option<PathBuf> {
    let directory = match std::env::var_os("XDG_CONFIG_HOME").filter(|v| !v.is_empty()) {
        Some(set) => PathBuf::from(set),
        None => std::env::home_dir()?.join(".config"),
    };
    Some(directory.join("outlive").join("config.toml"))
}

/// The flags that stand for a setting, with the setting's name.
fn flags(global: &Global) -> Vec<(&'static str, &'static str, String)> {
    let mut flags = Vec::new();
    if let Some(servers) = &global.server {
        flags.push(("nats.servers", "--server or NATS_URL", servers.clone()));
    }
    if let Some(creds) = &global.creds {
        flags.push(("nats.creds_file", "--creds", creds.display().to_string()));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn file(text: &str) -> Layer {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("outlive.toml");
        std::fs::write(&path, text).expect("written");
        Layer::file(&path).expect("it is TOML")
    }

    fn environment(variables: &[(&str, &str)]) -> Layer {
        Layer::environment(variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))))
    }

    fn loaded(layers: &[Layer]) -> Loaded {
        put_together(layers).expect("it is well formed")
    }

    fn refusal(layers: &[Layer]) -> String {
        let failure = put_together(layers).expect_err("it is refused");
        assert_eq!(failure.exit_code(), 2);
        failure.to_string()
    }

    #[test]
    fn without_layers_there_are_defaults() {
        let Loaded { settings, origins } = loaded(&[]);
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.cluster.name, "outlive");
        assert_eq!(settings.log.max_bytes.to_string(), "8GiB");
        assert_eq!(origins.of("log.replicas"), Some("default"));
    }

    #[test]
    fn later_layers_win_value_by_value() {
        let Loaded { settings, origins } = loaded(&[
            file("[cluster]\nname = \"one\"\nzone = \"a\"\n[log]\nreplicas = 3\n"),
            file("[cluster]\nname = \"two\"\n"),
            environment(&[("OUTLIVE_LOG__REPLICAS", "5"), ("OUTLIVE_LOG__WITNESS", "every_commit")]),
            Layer::flags(vec![("nats.servers", "--server", "nats://x:1,nats://y:2".into())]),
        ]);
        assert_eq!(settings.cluster.name, "two");
        assert_eq!(settings.cluster.zone.as_ref().map(Zone::as_str), Some("a"));
        assert_eq!(settings.log.replicas, 5);
        assert_eq!(settings.log.witness, WitnessMode::EveryCommit);
        assert_eq!(settings.nats.servers, ["nats://x:1", "nats://y:2"]);
        assert_eq!(origins.of("log.replicas"), Some("environment variable OUTLIVE_LOG__REPLICAS"));
        assert_eq!(origins.of("nats.servers"), Some("flag --server"));
        assert_eq!(origins.of("log.max_bytes"), Some("default"));
        assert!(origins.of("cluster.zone").is_some_and(|o| o.ends_with("outlive.toml")));
    }

    #[test]
    fn a_list_replaces_a_list() {
        let Loaded { settings, .. } = loaded(&[
            file("[nats]\nservers = [\"nats://a:1\", \"nats://b:1\"]\n"),
            file("[nats]\nservers = [\"nats://c:1\"]\n"),
        ]);
        assert_eq!(settings.nats.servers, ["nats://c:1"]);
    }

    #[test]
    fn all_of_an_executor_can_be_set() {
        let Loaded { settings, .. } = loaded(&[
            file(
                "[executor]\nname = \"executor-a-1\"\nlisten = \"127.0.0.1:0\"\ndata_dir = \"/var/lib/outlive\"\n\
                 capacity = { cpu_millis = 4000, memory = \"8GiB\", slots = 100 }\nlabels = { disk = \"ssd\" }\n",
            ),
            environment(&[("OUTLIVE_EXECUTOR__CAPACITY__SLOTS", "7"), ("OUTLIVE_EXECUTOR__LABELS__RACK", "1")]),
        ]);
        assert_eq!(settings.executor.capacity.cpu_millis, Some(4_000));
        assert_eq!(settings.executor.capacity.memory, Some(ByteSize::mib(8_192)));
        assert_eq!(settings.executor.capacity.slots, Some(7));
        assert_eq!(settings.executor.labels.len(), 2);
        assert_eq!(settings.executor.labels["rack"], "1");
    }

    #[test]
    fn unknown_keys_are_refused_by_name_and_place() {
        let message = refusal(&[file("[log]\nreplica = 3\n")]);
        assert!(message.contains("`replica`") && message.contains("outlive.toml"), "{message}");
        let message = refusal(&[file("[logs]\nreplicas = 3\n")]);
        assert!(message.contains("`logs`"), "{message}");
        let message = refusal(&[file(""), environment(&[("OUTLIVE_NATS__SERVER", "x")])]);
        assert!(message.contains("`server`") && message.contains("OUTLIVE_NATS__SERVER"), "{message}");
    }

    #[test]
    fn wrong_values_are_refused_by_name_and_place() {
        let message = refusal(&[file("[log]\nreplicas = \"many\"\n")]);
        assert!(message.contains("log.replicas") && message.contains("outlive.toml"), "{message}");
        let message = refusal(&[file("[log]\nmax_bytes = \"lots\"\n")]);
        assert!(message.contains("lots"), "{message}");
        let message = refusal(&[file("[cluster]\nzone = \"Zone A\"\n")]);
        assert!(message.contains("Zone A"), "{message}");
        let message = refusal(&[file("log = 3\n")]);
        assert!(message.contains("log"), "{message}");
    }

    #[test]
    fn variables_that_are_no_settings_are_left_alone() {
        let layer = environment(&[
            ("OUTLIVE_LOG", "debug"),
            ("OUTLIVE_NAMESPACE", "a"),
            ("OUTLIVE_NATS_SERVER", "/bin/nats-server"),
            ("PATH", "/bin"),
            ("OTHER__LOG", "1"),
        ]);
        assert_eq!(loaded(&[layer]).settings, Settings::default());
    }

    #[test]
    fn a_file_that_is_asked_for_must_be_there_and_be_toml() {
        let missing = Layer::file(std::path::Path::new("/nonexistent/outlive.toml")).expect_err("it is refused");
        assert!(missing.to_string().contains("/nonexistent/outlive.toml"));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("bad.toml");
        std::fs::write(&path, "[log\n").expect("written");
        assert!(Layer::file(&path).expect_err("it is refused").to_string().contains("bad.toml"));
    }
}
