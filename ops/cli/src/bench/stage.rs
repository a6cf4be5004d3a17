//! What a bench runs against: a system of its own, or the one that the flags name.

use crate::args::Global;
use crate::connection;
use crate::progress::Progress;
use anyhow::{Context as _, bail};
use outlive_schemas::id::{Namespace, Zone};
use outlive_schemas::subject;
use outlive_schemas::view::SystemStatus;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a connection is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

pub struct Stage {
    pub client: async_nats::Client,
    /// A namespace of this run alone, so that nothing else shows in its feed.
    pub namespace: Namespace,
    pub global: Global,
    /// Those that there are, whatever was asked for.
    pub zones: Vec<Zone>,
    /// Of the log.
    pub replicas: usize,
    _own: Option<Own>,
}

/// A system started for this bench.
struct Own {
    child: Child,
    directory: tempfile::TempDir,
}

impl Stage {
    pub async fn open(global: &Global, zones: u8) -> anyhow::Result<Stage> {
        Stage::open_with(global, zones, &[]).await
    }

    /// `settings`, as `OUTLIVE_SECTION__KEY`, are for a system of its own.
    pub async fn open_with(global: &Global, zones: u8, settings: &'static [(&str, &str)]) -> anyhow::Result<Stage> {
        let named = global.config.is_some() || global.server.is_some() || global.context.is_some();
        let mut global = global.clone();
        let own = if named {
            None
        } else {
            let progress = Progress::start(format!("starting {zones} zone(s)"));
            let own = tokio::task::spawn_blocking(move || Own::start(zones, settings)).await??;
            progress.clear();
            global.config = Some(own.config());
            Some(own)
        };
        let (client, _) = connection::open(&global, CONNECT_PATIENCE).await?;
        let namespace = Namespace::new(&format!("bench-{}", std::process::id()))?;
        let streams = async_nats::jetstream::new(client.clone());
        let log = streams.get_stream(subject::LOG_STREAM).await.context("the log's stream")?;
        let replicas = log.cached_info().config.num_replicas;
        let status = client.request(subject::system_operation("status"), "{}".into()).await?;
        let status: SystemStatus = read(&status.payload)?;
        let zones = status.zones.into_iter().map(|zone| zone.zone).collect();
        Ok(Stage { client, namespace, global, zones, replicas, _own: own })
    }

    pub fn operation(&self, operation: &str) -> String {
        subject::operation(&self.namespace, operation)
    }
}

/// A reply's body, or the error it carries.
pub fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(_) => match serde_json::from_slice::<outlive_schemas::error::ErrorReply>(body) {
            Ok(refused) => Err(refused.error.into()),
            Err(error) => Err(error.into()),
        },
    }
}

impl Own {
    fn start(zones: u8, settings: &[(&str, &str)]) -> anyhow::Result<Own> {
        let directory = tempfile::Builder::new().prefix("outlive-bench-").tempdir()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["dev", "--json", "--zones", &zones.to_string(), "--data-dir"])
            .arg(directory.path())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("`outlive dev` could not be started")?;
        let out = child.stdout.take().context("its output is piped")?;
        let own = Own { child, directory };
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
        if line.is_empty() {
            bail!("`outlive dev` stopped before it was ready: run it by hand to see why");
        }
        Ok(own)
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("outlive.toml")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.child.wait().ok();
    }
}
