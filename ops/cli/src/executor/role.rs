//! The executor as a role: runs in the foreground, with what the configuration says.

use crate::args::Global;
use crate::config::{self, Settings};
use crate::failure::Failure;
use crate::shutdown;
use anyhow::Context;
use clap::Args;
use outlive_executor::config::{ClusterConfig, DRAIN_TIMEOUT_DEFAULT, ExecutorConfig, ExecutorSection};
use outlive_schemas::id::ExecutorName;

#[derive(Debug, Args)]
pub struct RoleArgs {}

/// Runs until told to stop.
pub async fn run(global: &Global) -> anyhow::Result<()> {
    let config = config_of(config::load(global)?.settings)?;
    let shutdown = shutdown::requested()?;
    outlive_executor::run(config, shutdown).await.context("the executor stopped")
}

fn config_of(settings: Settings) -> Result<ExecutorConfig, Failure> {
    let zone = settings.zone()?;
    let section = settings.executor;
    let name = match section.name {
        Some(name) => name,
        None => ExecutorName::new(&config::role_name("executor", &zone)?)
            .map_err(|e| Failure::usage(format!("set `executor.name`: {e}")))?,
    };
    let data_dir = section.data_dir.ok_or_else(|| {
        Failure::usage("`executor.data_dir` is not set: name a directory for the jobs' state, such as /var/lib/outlive")
    })?;
    let config = ExecutorConfig {
        cluster: ClusterConfig { name: settings.cluster.name, zone },
        nats: settings.nats,
        etcd: settings.etcd,
        keys: settings.keys,
        telemetry: settings.telemetry,
        executor: ExecutorSection {
            name,
            listen: section.listen,
            data_dir,
            capacity: section.capacity,
            labels: section.labels,
            shim: section.shim,
            drain_timeout: section.drain_timeout.unwrap_or(DRAIN_TIMEOUT_DEFAULT),
            health: section.health,
        },
    };
    config.validate().map_err(|e| Failure::usage(e.to_string()))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_and_a_directory_are_required() {
        let mut settings = Settings::default();
        let refusal = |settings: &Settings| config_of(settings.clone()).expect_err("it is refused").to_string();
        assert!(refusal(&settings).contains("cluster.zone"));
        settings.cluster.zone = Some("a".parse().expect("a zone"));
        assert!(refusal(&settings).contains("executor.data_dir"));
        settings.executor.data_dir = Some("/var/lib/outlive".into());
        let config = config_of(settings.clone()).expect("enough");
        assert!(config.executor.name.as_str().starts_with("executor-a-"), "{}", config.executor.name);
        settings.executor.capacity.slots = Some(0);
        assert!(refusal(&settings).contains("slots"));
    }
}
