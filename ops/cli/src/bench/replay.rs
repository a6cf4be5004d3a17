//! How fast a scheduler reads the log back into a state, beside how fast its messages can be read at all.

use super::stage::Stage;
use super::{Common, submit};
use crate::progress::Progress;
use anyhow::Context as _;
use clap::Args;
use outlive_scheduler::follower::Follower;
use outlive_scheduler::stores::Stores;
use outlive_schemas::id::Sequence;
use serde::Serialize;
use std::time::Instant;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  outlive bench replay --events 1000000 --json")]
pub struct ReplayArgs {
    #[command(flatten)]
    pub common: Common,
    /// Events that the log should hold at least; noop jobs are run until it does
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    zones: usize,
    events: u64,
    commits: u64,
    log_bytes: u64,
    seconds: f64,
    events_per_second: f64,
    /// The same messages, read and thrown away.
    limit_jetstream_replay_seconds: f64,
    limit_jetstream_replay_events_per_second: f64,
    limit_jetstream_replay_mb_per_second: f64,
}

/// Events that one noop job makes: submitted, placed, finished.
const EVENTS_PER_JOB: u64 = 3;
const READ_BYTES: usize = 8 << 20;

pub async fn run(stage: &Stage, args: &ReplayArgs) -> anyhow::Result<Figures> {
    let fill = submit::SubmitArgs::filling(args.events.div_ceil(EVENTS_PER_JOB), args.common.zones);
    submit::fill(stage, &fill).await?;

    let mut settings = crate::config::load(&stage.global)?.settings;
    settings.cluster.zone = settings.cluster.zone.or_else(|| "bench".parse().ok());
    // What is measured is the log, not an image of it.
    let stores = Stores::open(&crate::scheduler::config_of(settings)?).await.context("the stores")?;
    let progress = Progress::start("replaying");
    let begun = Instant::now();
    let mut follower = Follower::from_the_beginning(&stores).await?;
    follower.catch_up().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let (events, commits) = (follower.events, follower.seq.0);
    drop(follower);

    let begun = Instant::now();
    let (mut next, mut bytes) = (Sequence(1), 0_u64);
    loop {
        let chunk = stores.log.read(next, READ_BYTES).await?;
        let Some(last) = chunk.last() else { break };
        next = last.seq.next();
        bytes += chunk.iter().map(|stored| stored.body.len() as u64).sum::<u64>();
    }
    let limit = begun.elapsed().as_secs_f64();
    progress.clear();
    Ok(Figures {
        zones: stage.zones.len(),
        events,
        commits,
        log_bytes: bytes,
        seconds,
        events_per_second: events as f64 / seconds,
        limit_jetstream_replay_seconds: limit,
        limit_jetstream_replay_events_per_second: events as f64 / limit,
        limit_jetstream_replay_mb_per_second: bytes as f64 / 1e6 / limit,
    })
}
