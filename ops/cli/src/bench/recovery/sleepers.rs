//! A thousand running jobs on one executor that is killed: they go to and fro between the executors of two zones.

use super::Tried;
use super::field::Field;
use crate::bench::stage::read;
use crate::client::new_request_id;
use crate::dev::topology::Role;
use anyhow::Context as _;
use futures::StreamExt as _;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{ExecutorView, FeedEvent};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const JOBS: usize = 1_000;
const PER_REQUEST: usize = 250;
/// For all of them to be started again: two processes each.
const BOUND: Duration = Duration::from_secs(120);

impl Field {
    pub async fn sleepers(&mut self) -> anyhow::Result<Tried> {
        let victim = match self.fullest().await? {
            Some(executor) => executor,
            None => self.fill().await?,
        };
        let running = victim.running as usize;
        let mut feed = self.stage.client.subscribe(format!("outlive.v1.{}.event.*.*", self.stage.namespace)).await?;
        self.stage.client.flush().await?;
        self.chaos(Field::kill(Role::Executor, &victim.name)).await?;
        let (mut verdict, mut placed, mut started) = (None::<Timestamp>, Timestamp(0), Timestamp(0));
        let (mut placements, mut starts) = (0, 0);
        let all = async {
            while starts < running {
                let event: FeedEvent = read(&feed.next().await.context("the feed ended")?.payload)?;
                match event.kind.as_str() {
                    "job_restarting" => verdict = Some(verdict.map_or(event.at, |at| at.min(event.at))),
                    "job_placed" => {
                        placements += 1;
                        placed = placed.max(event.at);
                    }
                    "attempt_started" => {
                        starts += 1;
                        started = started.max(event.at);
                    }
                    _ => {}
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(BOUND, all).await.with_context(|| {
            format!("of {running} jobs {placements} were placed and {starts} started in {} s", BOUND.as_secs())
        })??;
        let verdict = verdict.context("jobs were placed without having been lost")?;
        let parts = BTreeMap::from([("all_started_ms", started.since(verdict).0), ("jobs", running as u64)]);
        self.heal().await?;
        let there: u32 = self.executors().await?.executors.iter().map(|executor| executor.running).sum();
        let lost = (JOBS as u64).saturating_sub(u64::from(there));
        Ok(Tried { ms: placed.since(verdict).0, parts, lost })
    }

    /// The executor that has them all.
    async fn fullest(&self) -> anyhow::Result<Option<ExecutorView>> {
        Ok(self.executors().await?.executors.into_iter().find(|executor| executor.running as usize >= JOBS))
    }

    /// Submits them to two zones of which one has no executor, and lets that one come back.
    async fn fill(&mut self) -> anyhow::Result<ExecutorView> {
        self.heal().await?;
        let zones: Vec<String> = self.status().await?.zones.iter().take(2).map(|zone| zone.zone.to_string()).collect();
        let away = format!("executor-{}-1", zones[1]);
        self.chaos(Field::kill(Role::Executor, &away)).await?;
        let spec = json!({
            "kind": "service",
            "driver": {"process": {"command": ["sleep", "100000"]}},
            "resources": {"cpu_millis": 1, "memory": "1MiB"},
            "placement": {"zones": zones},
            "checkpoint": {"interval": "24h"},
            "restart": {"initial_backoff": "1ms", "jitter": 0.0},
        });
        for _ in 0..JOBS / PER_REQUEST {
            let many = json!({"jobs": vec![spec.clone(); PER_REQUEST]});
            self.client.change::<Value>("job.submit_many", &many, &new_request_id()).await?;
        }
        self.wait("a thousand sleepers", async || Ok(self.fullest().await?.is_some())).await?;
        let running = json!({"status": ["pending", "starting"], "limit": 1});
        self.wait("all of them to run", async || {
            let list: outlive_schemas::view::JobList = self.client.ask("job.list", &running).await?.body;
            Ok(list.jobs.is_empty())
        })
        .await?;
        self.heal().await?;
        self.fullest().await?.context("the sleepers run on one executor")
    }
}
