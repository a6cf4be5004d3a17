//! How fast a backlog of jobs is placed on a fleet: planned, decided, durable, and told to the hosts.

use super::hosts::{CAPACITY, Hosts};
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

/// The fleet and the backlog for which one round of planning is timed in memory.
const ROUND_HOSTS: u32 = 10_000;
const ROUND_WAITING: u64 = 100_000;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive bench placement --hosts 500 --jobs 50000 --json
  outlive bench placement --waiting 1000 --json       how much slower is it…
  outlive bench placement --waiting 100000 --json     …with so many more in the queue?")]
pub struct PlacementArgs {
    #[command(flatten)]
    pub common: Common,
    /// Hosts to make up: they register, beat and take orders, and run nothing
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    hosts: u32,
    /// Jobs to be placed, all of which wait when the hosts appear
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    jobs: u64,
    /// Jobs that go on waiting behind these in the same queue, for want of room
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    waiting: u64,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    zones: usize,
    replicas: usize,
    hosts: u32,
    jobs: u64,
    waiting: u64,
    /// From the first order that a host was given to the last.
    seconds: f64,
    placed_per_second: f64,
    /// The same planning and deciding in memory: no log, no messages.
    limit_core_per_second: f64,
    limit_jetstream_publish_per_second: f64,
    round: Round,
}

/// Rounds of planning in memory, each of as many placements as there may be, until nothing more is placed.
#[derive(Debug, Serialize)]
struct Round {
    hosts: u32,
    waiting: u64,
    mean_ms: f64,
    worst_ms: f64,
    /// With every host full.
    full_ms: f64,
}

pub async fn run(stage: &Stage, args: &PlacementArgs) -> anyhow::Result<Figures> {
    let label = format!("bench-{}", std::process::id());
    // So many on each host that what is to be placed fits, and nothing else.
    let slots = args.jobs.div_ceil(u64::from(args.hosts));
    let (to_place, fit) = (slots * u64::from(args.hosts), CAPACITY.cpu_millis / 100);
    if slots > fit {
        bail!("a host takes {fit} of these jobs, and each would have {slots}: give more --hosts or fewer --jobs");
    }
    submit(stage, to_place + args.waiting, &label).await?;

    let mut settings = crate::config::load(&stage.global)?.settings;
    settings.cluster.zone = settings.cluster.zone.or_else(|| "bench".parse().ok());
    let stores = Stores::open(&crate::scheduler::config_of(settings)?).await.context("the stores")?;
    let zones = &stage.zones;
    let labels = [("bench".into(), label.as_str().into())].into();
    let progress = Progress::start(format!("placing {to_place} jobs on {} hosts", args.hosts));
    let slots = u32::try_from(slots).context("so few fit a host")?;
    let hosts = Hosts::join(&stores, zones, args.hosts as usize, slots, &labels).await.context("the hosts")?;
    let (mut seen, mut changed) = (0, Instant::now());
    while seen < to_place {
        let now = hosts.placed();
        if now != seen {
            (seen, changed) = (now, Instant::now());
        }
        if changed.elapsed() > STALLED {
            bail!("{seen} of {to_place} jobs were placed, and then nothing for {} s", STALLED.as_secs());
        }
        progress.say(format!("{seen} of {to_place} jobs are placed"));
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let seconds = hosts.span().as_secs_f64();
    hosts.leave().await?;
    progress.clear();
    let (core, _) = core_alone(zones, args.hosts, slots, to_place + args.waiting)?;
    Ok(Figures {
        zones: stage.zones.len(),
        replicas: stage.replicas,
        hosts: args.hosts,
        jobs: to_place,
        waiting: args.waiting,
        seconds,
        placed_per_second: to_place as f64 / seconds,
        limit_core_per_second: core,
        limit_jetstream_publish_per_second: limits::publish(stage, 256).await?,
        // Half of what waits finds room.
        round: core_alone(zones, ROUND_HOSTS, (ROUND_WAITING / u64::from(ROUND_HOSTS) / 2) as u32, ROUND_WAITING)?.1,
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

/// The same backlog and fleet, planned and decided and nothing else: placements a second, and what rounds took.
fn core_alone(zones: &[Zone], hosts: u32, slots: u32, jobs: u64) -> anyhow::Result<(f64, Round)> {
    let now = Timestamp(1_000_000);
    let spec: JobSpec = serde_json::from_value(spec("x"))?;
    let jobs: Vec<_> = (0..jobs).map(|_| (JobId(uuid::Uuid::now_v7()), Arc::new(spec.clone()))).collect();
    let waiting = jobs.len() as u64;
    let mut state = State::default();
    let namespace = "bench".parse()?;
    let mut commands = vec![Command::SubmitJobs { namespace, origin: Origin::default(), jobs }];
    for (number, zone) in zones.iter().cycle().take(hosts as usize).enumerate() {
        let name = format!("bench-{number}");
        commands.push(Command::AdmitExecutor(Registration {
            id: ExecutorId(uuid::Uuid::now_v7()),
            name: name.parse()?,
            zone: zone.clone(),
            host: name,
            capacity: Capacity { slots, ..CAPACITY },
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
    let (mut placed, mut rounds) = (0, Vec::new());
    loop {
        let round_begun = Instant::now();
        let round = plan(&state, &Hints::default(), now, PLACEMENTS_PER_ROUND_MAX);
        let took_ms = round_begun.elapsed().as_secs_f64() * 1e3;
        if round.proposals.is_empty() {
            let per_second = placed as f64 / begun.elapsed().as_secs_f64();
            let (mean_ms, worst_ms) =
                (rounds.iter().sum::<f64>() / rounds.len().max(1) as f64, rounds.iter().copied().fold(0.0, f64::max));
            return Ok((per_second, Round { hosts, waiting, mean_ms, worst_ms, full_ms: took_ms }));
        }
        rounds.push(took_ms);
        placed += round.proposals.len();
        for one in round.proposals {
            act(&mut state, Command::PlaceJob { job: one.job, attempt: one.attempt, executor: one.executor })?;
        }
    }
}
