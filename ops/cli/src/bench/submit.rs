//! Noop jobs from submission to result, as many as go through.

use super::stage::{Stage, read};
use super::{Common, limits};
use crate::progress::Progress;
use anyhow::bail;
use clap::Args;
use futures::StreamExt as _;
use outlive_schemas::limits::SUBMIT_MANY_MAX;
use outlive_schemas::view::{SubmitManyReply, SubmitReply};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nothing finished for this long means that something is wrong.
const STALLED: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  outlive bench submit --zones 3 --single --json")]
pub struct SubmitArgs {
    #[command(flatten)]
    pub common: Common,
    /// Jobs to submit in all
    #[arg(long, default_value_t = 200_000)]
    jobs: u64,
    /// Send each job in a request of its own, instead of a thousand in one
    #[arg(long)]
    single: bool,
    /// Requests in flight [default: 4, or 512 with --single]
    #[arg(long)]
    in_flight: Option<usize>,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    zones: usize,
    replicas: usize,
    jobs: u64,
    jobs_per_request: u64,
    requests_in_flight: usize,
    /// Accepted, and durable.
    submitted_per_second: f64,
    /// Finished, and durable.
    finished_per_second: f64,
    seconds: f64,
    limit_request_reply_per_second: f64,
    limit_jetstream_publish_per_second: f64,
}

impl SubmitArgs {
    /// As many jobs as fill a log, for other benches.
    pub fn filling(jobs: u64, zones: u8) -> SubmitArgs {
        SubmitArgs { common: Common { zones, json: false }, jobs, single: false, in_flight: None }
    }
}

/// What was done, and how long it took.
pub struct Filled {
    jobs: u64,
    per_request: u64,
    in_flight: usize,
    submitted: Duration,
    finished: Duration,
}

pub async fn run(stage: &Stage, args: &SubmitArgs) -> anyhow::Result<Figures> {
    let Filled { jobs, per_request, in_flight, submitted, finished } = fill(stage, args).await?;
    Ok(Figures {
        zones: stage.zones.len(),
        replicas: stage.replicas,
        jobs,
        jobs_per_request: per_request,
        requests_in_flight: in_flight,
        submitted_per_second: jobs as f64 / submitted.as_secs_f64(),
        finished_per_second: jobs as f64 / finished.as_secs_f64(),
        seconds: finished.as_secs_f64(),
        limit_request_reply_per_second: limits::request_reply(stage, 256).await?,
        limit_jetstream_publish_per_second: limits::publish(stage, 256).await?,
    })
}

/// Submits the jobs, and waits until all of them are over.
pub async fn fill(stage: &Stage, args: &SubmitArgs) -> anyhow::Result<Filled> {
    let per_request = if args.single { 1 } else { SUBMIT_MANY_MAX as u64 };
    let in_flight = args.in_flight.unwrap_or(if args.single { 512 } else { 4 }).max(1);
    let requests = args.jobs.div_ceil(per_request);
    let jobs = requests * per_request;

    let finished = Arc::new(AtomicU64::new(0));
    let mut feed = stage.client.subscribe(format!("outlive.v1.{}.event.*.job_finished", stage.namespace)).await?;
    stage.client.flush().await?;
    let counted = finished.clone();
    let counting = tokio::spawn(async move {
        while feed.next().await.is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });

    let progress = Progress::start(format!("submitting {jobs} jobs"));
    let begun = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let body: bytes::Bytes = if args.single {
        r#"{"driver":{"noop":{}},"input":"x"}"#.into()
    } else {
        let job = r#"{"driver":{"noop":{}},"input":"x"}"#;
        format!(r#"{{"jobs":[{}]}}"#, vec![job; SUBMIT_MANY_MAX].join(",")).into()
    };
    let subject = stage.operation(if args.single { "job.submit" } else { "job.submit_many" });
    let workers = (0..in_flight).map(|_| {
        let (client, next, body, subject) = (stage.client.clone(), next.clone(), body.clone(), subject.clone());
        let single = args.single;
        tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < requests {
                let reply = client.request(subject.clone(), body.clone()).await?;
                if single {
                    read::<SubmitReply>(&reply.payload)?;
                } else {
                    read::<SubmitManyReply>(&reply.payload)?;
                }
            }
            anyhow::Ok(())
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker??;
    }
    let submitted = begun.elapsed();
    let (mut seen, mut changed) = (0, Instant::now());
    loop {
        let now = finished.load(Ordering::Relaxed);
        if now >= jobs {
            break;
        }
        if now != seen {
            (seen, changed) = (now, Instant::now());
        }
        if changed.elapsed() > STALLED {
            bail!("{now} of {jobs} jobs finished, and then nothing for {} s", STALLED.as_secs());
        }
        progress.say(format!("{now} of {jobs} jobs finished"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let finished = begun.elapsed();
    progress.clear();
    counting.abort();
    Ok(Filled { jobs, per_request, in_flight, submitted, finished })
}
