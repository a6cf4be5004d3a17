//! One client, one job after another: how long until it is accepted, and until its result is there.

use super::stage::{Stage, read};
use super::{Common, limits};
use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt as _;
use hdrhistogram::Histogram;
use outlive_schemas::view::{FeedEvent, SubmitReply};
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  outlive bench latency --jobs 5000 --json")]
pub struct LatencyArgs {
    #[command(flatten)]
    pub common: Common,
    /// Jobs to submit
    #[arg(long, default_value_t = 2_000)]
    jobs: u64,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    zones: usize,
    replicas: usize,
    jobs: u64,
    accepted_ms: Quantiles,
    result_ms: Quantiles,
    limit_jetstream_publish_ms: Quantiles,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(micros: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1_000.0;
        Quantiles {
            p50: ms(micros.value_at_quantile(0.5)),
            p90: ms(micros.value_at_quantile(0.9)),
            p99: ms(micros.value_at_quantile(0.99)),
            max: ms(micros.max()),
        }
    }
}

/// One job that takes longer than this is not slow but lost.
const RESULT_BOUND: Duration = Duration::from_secs(30);

pub async fn run(stage: &Stage, args: &LatencyArgs) -> anyhow::Result<Figures> {
    let mut feed = stage.client.subscribe(format!("outlive.v1.{}.event.*.job_finished", stage.namespace)).await?;
    stage.client.flush().await?;
    let (mut accepted, mut results) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    let warm_up = args.jobs / 20;
    for number in 0..args.jobs + warm_up {
        let begun = Instant::now();
        let body = br#"{"driver":{"noop":{}},"input":"x"}"#.as_slice();
        let reply = stage.client.request(stage.operation("job.submit"), body.into()).await?;
        let job: SubmitReply = read(&reply.payload)?;
        let accepted_after = begun.elapsed();
        let finished = tokio::time::timeout(RESULT_BOUND, feed.next()).await.context("a job did not finish")?;
        let result_after = begun.elapsed();
        let event: FeedEvent = read(&finished.context("the feed ended")?.payload)?;
        if event.job != job.id {
            bail!("job {} finished while job {} was waited for", event.job, job.id);
        }
        if number >= warm_up {
            accepted.record(accepted_after.as_micros() as u64)?;
            results.record(result_after.as_micros() as u64)?;
        }
    }
    let limit = limits::publish_latency(stage).await?;
    Ok(Figures {
        zones: stage.zones.len(),
        replicas: stage.replicas,
        jobs: args.jobs,
        accepted_ms: (&accepted).into(),
        result_ms: (&results).into(),
        limit_jetstream_publish_ms: (&limit).into(),
    })
}
