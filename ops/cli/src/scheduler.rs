//! `outlive scheduler`: runs a scheduler in the foreground, with what the configuration says.

use crate::args::Global;
use crate::config::{self, Settings};
use crate::failure::Failure;
use crate::shutdown;
use anyhow::Context;
use clap::Args;
use outlive_scheduler::SchedulerConfig;
use outlive_scheduler::config::ZONE_SETTLE_DEFAULT;
use outlive_schemas::id::SchedulerName;

const EXAMPLES: &str = "\
Examples:
  outlive scheduler --config /etc/outlive/scheduler.toml
  OUTLIVE_CLUSTER__ZONE=a OUTLIVE_KEYS__FILES=/etc/outlive/master.key outlive scheduler";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SchedulerArgs {}

/// Runs until told to stop.
pub async fn run(global: &Global) -> anyhow::Result<()> {
    let config = config_of(config::load(global)?.settings)?;
    let shutdown = shutdown::requested()?;
    outlive_scheduler::run(config, shutdown).await.context("the scheduler stopped")
}

/// What a scheduler is told, from all the settings.
pub fn config_of(settings: Settings) -> Result<SchedulerConfig, Failure> {
    let zone = settings.zone()?;
    let name = match settings.scheduler.name {
        Some(name) => name,
        None => SchedulerName::new(&config::role_name("scheduler", &zone)?)
            .map_err(|e| Failure::usage(format!("set `scheduler.name`: {e}")))?,
    };
    Ok(SchedulerConfig {
        cluster: settings.cluster.name,
        name,
        zone,
        nats: settings.nats,
        etcd: settings.etcd,
        keys: settings.keys,
        log: settings.log.into(),
        blobs: settings.blobs.into(),
        retention: settings.retention,
        listen: settings.scheduler.listen,
        telemetry: settings.telemetry,
        zone_settle: settings.scheduler.zone_settle.unwrap_or(ZONE_SETTLE_DEFAULT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_required_and_a_name_is_made() {
        let mut settings = Settings::default();
        let refused = config_of(settings.clone()).expect_err("it is refused");
        assert!(refused.to_string().contains("cluster.zone"));
        settings.cluster.zone = Some("a".parse().expect("a zone"));
        let config = config_of(settings.clone()).expect("enough");
        assert!(config.name.as_str().starts_with("scheduler-a-"), "{}", config.name);
        settings.scheduler.name = Some("mine".parse().expect("a name"));
        assert_eq!(config_of(settings).expect("enough").name.as_str(), "mine");
    }
}
