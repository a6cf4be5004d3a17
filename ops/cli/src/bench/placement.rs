//! How fast a backlog of jobs is placed on a fleet: planned, decided, durable, and told to the hosts.

use super::hosts::Hosts;
use super::stage::{Stage, read};
use super::{Common, limits};
use crate::progress::Progress;
use anyhow::{Context as _, bail};
use clap::Args;
use outlive_core::decide::decide;
use outlive_core::fold::fold;
use outlive_core::plan::{Hints, plan};
use outlive_core::state::State;
use outlive_scheduler::stores::Stores;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{ExecutorId, JobId, Sequence, Zone};
use outlive_schemas::job::JobSpec;
use outlive_schemas::limits::{PLACEMENTS_PER_ROUND_MAX, SUBMIT_MANY_MAX};
use outlive_schemas::subject;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::SubmitManyReply;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing placed for this long means that something is wrong.
const STALLED: Duration = Duration::from_secs(60);
/// How often the count is looked at; the times themselves are taken as orders arrive.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  outlive bench placement --hosts 500 --jobs 50000 --json")]
pub struct PlacementArgs {
    #[command(flatten)]
    pub common: Common,
    /// Hosts to make up: they register, beat and take orders, and run nothing
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    hosts: u32,
    /// Jobs that wait when the hosts appear
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    jobs: u64,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    zones: u8,
    replicas: usize,
    hosts: u32,
    jobs: u64,
    /// From the first order that a host was given to the last.
    seconds: f64,
    placed_per_second: f64,
    /// The same planning and deciding in memory: no log, no messages.
    limit_core_per_second: f64,
    limit_jetstream_publish_per_second: f64,
}

pub async fn run(stage: &Stage, args: &PlacementArgs) -> anyhow::Result<Figures> {
    let label = format!("bench-{}", std::process::id());
    // What one host of the fleet can take of a hundred millicores each.
    let fit = u64::from(args.hosts) * 640;
    if args.jobs > fit {
        bail!("{} hosts take {fit} of these jobs: give more --hosts or fewer --jobs", args.hosts);
    }
    submit(stage, args.jobs, &label).await?;

    let mut settings = crate::config::load(&stage.global)?.settings;
    settings.cluster.zone = settings.cluster.zone.or_else(|| "bench".parse().ok());
    let stores = Stores::open(&crate::scheduler::config_of(settings)?).await.context("the stores")?;
    let zones = zones(stage).await?;
    let labels = [("bench".into(), label.as_str().into())].into();
    let progress = Progress::start(format!("placing {} jobs on {} hosts", args.jobs, args.hosts));
    let hosts = Hosts::join(&stores, &zones, args.hosts as usize, &labels).await.context("the hosts")?;
    let (mut seen, mut changed) = (0, Instant::now());
    while seen < args.jobs {
        let now = hosts.placed();
        if now != seen {
            (seen, changed) = (now, Instant::now());
        }
        if changed.elapsed() > STALLED {
            bail!("{seen} of {} jobs were placed, and then nothing for {} s", args.jobs, STALLED.as_secs());
        }
        progress.say(format!("{seen} of {} jobs are placed", args.jobs));
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let seconds = hosts.span().as_secs_f64();
    hosts.leave().await?;
    progress.clear();
    Ok(Figures {
        zones: args.common.zones,
        replicas: stage.replicas,
        hosts: args.hosts,
        jobs: args.jobs,
        seconds,
        placed_per_second: args.jobs as f64 / seconds,
        limit_core_per_second: core_alone(&zones, args)?,
        limit_jetstream_publish_per_second: limits::publish(stage, 256).await?,
    })
}

fn spec(label: &str) -> serde_json::Value {
    json!({"driver": {"process": {"command": ["true"]}}, "placement": {"labels": {"bench": label}}})
}

/// Submits jobs that only the made-up hosts can take, before there are any.
async fn submit(stage: &Stage, jobs: u64, label: &str) -> anyhow::Result<()> {
    let mut left = jobs as usize;
    while left > 0 {
        let many = left.min(SUBMIT_MANY_MAX);
        let body = serde_json::to_vec(&json!({"jobs": vec![spec(label); many]}))?;
        let reply = stage.client.request(stage.operation("job.submit_many"), body.into()).await?;
        read::<SubmitManyReply>(&reply.payload)?;
        left -= many;
    }
    Ok(())
}

async fn zones(stage: &Stage) -> anyhow::Result<Vec<Zone>> {
    let reply = stage.client.request(subject::system_operation("status"), "{}".into()).await?;
    let status: serde_json::Value = read(&reply.payload)?;
    let zones = status["zones"].as_array().context("the status names the zones")?;
    zones.iter().map(|zone| Ok(zone["zone"].as_str().context("a zone has a name")?.parse()?)).collect()
}

/// The same backlog and fleet, planned and decided and nothing else.
fn core_alone(zones: &[Zone], args: &PlacementArgs) -> anyhow::Result<f64> {
    let now = Timestamp(1_000_000);
    let spec: JobSpec = serde_json::from_value(spec("x"))?;
    let jobs = (0..args.jobs).map(|_| (JobId(uuid::Uuid::now_v7()), Arc::new(spec.clone()))).collect();
    let mut state = State::default();
    let namespace = "bench".parse()?;
    let mut commands = vec![Command::SubmitJobs { namespace, origin: Origin::default(), jobs }];
    for (number, zone) in zones.iter().cycle().take(args.hosts as usize).enumerate() {
        let name = format!("bench-{number}");
        commands.push(Command::AdmitExecutor(Registration {
            id: ExecutorId(uuid::Uuid::now_v7()),
            name: name.parse()?,
            zone: zone.clone(),
            host: name,
            capacity: Capacity { cpu_millis: 64_000, memory_bytes: 256 << 30, slots: 4_096 },
            labels: [("bench".into(), "x".into())].into(),
            drivers: vec![DriverKind::Process],
            version: String::new(),
        }));
    }
    let act = |state: &mut State, command| {
        let events = decide(state, command, now).map_err(|refusal| anyhow::anyhow!("refused: {refusal:?}"))?;
        events.iter().try_for_each(|event| fold(state, Sequence(1), event))?;
        anyhow::Ok(())
    };
    commands.into_iter().try_for_each(|command| act(&mut state, command))?;
    let begun = Instant::now();
    let mut placed = 0;
    loop {
        let round = plan(&state, &Hints::default(), now, PLACEMENTS_PER_ROUND_MAX);
        if round.proposals.is_empty() {
            return Ok(placed as f64 / begun.elapsed().as_secs_f64());
        }
        placed += round.proposals.len();
        for one in round.proposals {
            act(&mut state, Command::PlaceJob { job: one.job, attempt: one.attempt, executor: one.executor })?;
        }
    }
}
