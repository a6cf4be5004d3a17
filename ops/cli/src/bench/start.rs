//! How soon a scheduler leads that has many jobs behind it: its process is killed and started again, and asked until it
//! answers. Beside it what that takes: the image, the rest of the log, and memory.

use super::stage::{Stage, read};
use super::{Common, submit};
use crate::client::Client;
use crate::config;
use crate::dev::Directory;
use crate::dev::control::{self, Done, Request};
use crate::dev::topology::Role;
use crate::progress::Progress;
use anyhow::{Context as _, bail};
use clap::Args;
use outlive_scheduler::follower::Follower;
use outlive_scheduler::stores::Stores;
use outlive_schemas::limits::SUBMIT_MANY_MAX;
use outlive_schemas::subject;
use outlive_schemas::view::{Status, SubmitManyReply, SystemStatus};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whoever has not answered by then has failed to start.
const BOUND: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// So that no finished job is forgotten meanwhile.
const SETTINGS: &[(&str, &str)] = &[("OUTLIVE_RETENTION__FINISHED_MAX", "100000000")];

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  outlive bench start --finished 1000000 --live 100000 --json")]
pub struct StartArgs {
    #[command(flatten)]
    pub common: Common,
    /// Noop jobs that are run first
    #[arg(long, default_value_t = 1_000_000)]
    finished: u64,
    /// Jobs that are then submitted, and wait for a host that does not exist
    #[arg(long, default_value_t = 100_000)]
    live: u64,
    /// How often a scheduler is killed and started again
    #[arg(long, default_value_t = 3)]
    times: u32,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    zones: usize,
    finished: u64,
    live: u64,
    log_commits: u64,
    log_bytes: u64,
    /// The newest image, as it is in memory when it is read; all images, as they are stored.
    image_bytes: u64,
    images_stored_bytes: u64,
    /// From asking for the process to its first answer as the leader, each time.
    start_seconds: Vec<f64>,
    /// The same work in this process: the newest image read, and then the rest of the log.
    load_image_seconds: f64,
    log_behind_image_events: u64,
    log_behind_image_seconds: f64,
    /// Without any image.
    whole_log_seconds: f64,
    /// The scheduler that did all of it, before it was killed: it leads, and writes images beside that.
    leader_memory_bytes: u64,
    leader_memory_peak_bytes: u64,
    /// The last one that was started, when it answered.
    started_memory_bytes: u64,
    started_memory_peak_bytes: u64,
}

pub async fn run(global: &crate::args::Global, args: &StartArgs) -> anyhow::Result<Figures> {
    let stage = Stage::open_with(global, args.common.zones, SETTINGS).await?;
    let config = stage.global.config.clone().context("a running system is named by its --config")?;
    let folder = config.parent().map(Path::to_owned).context("the configuration has no folder")?;
    let client = Client::connect(&stage.global).await?;

    submit::fill(&stage, &submit::SubmitArgs::filling(args.finished, args.common.zones)).await?;
    wait_for_nothing(&stage, args.live).await?;
    let status = status(&client).await?;
    let count = |status_of: &[Status]| status_of.iter().filter_map(|of| status.jobs.get(of)).sum::<u64>();
    let (finished, live) = (count(&[Status::Succeeded]), count(&[Status::Pending]));

    let mut settings = config::load(&stage.global)?.settings;
    settings.cluster.zone = settings.cluster.zone.or_else(|| "bench".parse().ok());
    let stores = Stores::open(&crate::scheduler::config_of(settings)?).await.context("the stores")?;
    let leader = status.leader.scheduler.to_string();
    let before = Memory::of(pid_of(&folder, &leader)?)?;

    let progress = Progress::start("reading the image");
    let begun = Instant::now();
    let mut follower = Follower::begin(&stores).await?;
    let load_image_seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    follower.catch_up().await?;
    let log_behind_image_seconds = begun.elapsed().as_secs_f64();
    let log_behind_image_events = follower.events;
    drop(follower);
    progress.say("reading the whole log");
    let begun = Instant::now();
    let mut follower = Follower::from_the_beginning(&stores).await?;
    follower.catch_up().await?;
    let whole_log_seconds = begun.elapsed().as_secs_f64();
    drop(follower);
    let images = stores.images.list().await?;
    let images_stored_bytes = stores.images.usage().await?.bytes;

    let control = Directory::at(Some(folder.clone()))?.control();
    let (mut start_seconds, mut after) = (Vec::new(), Memory::default());
    for _ in 0..args.times {
        let leader = self::status(&client).await?.leader.scheduler.to_string();
        // All of them, where there are several: who stands by would only have to take over.
        for name in schedulers(&folder)? {
            chaos(&control, Request::Kill { role: Role::Scheduler, name }).await?;
        }
        progress.say("starting a scheduler");
        let begun = Instant::now();
        let asked = chaos(&control, Request::Restart { role: Role::Scheduler, name: leader.clone() });
        let answered = async {
            while !leads(&stage).await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            begun.elapsed().as_secs_f64()
        };
        let (asked, seconds) = tokio::time::timeout(BOUND, async { tokio::join!(asked, answered) })
            .await
            .with_context(|| format!("{leader} did not answer within {} s", BOUND.as_secs()))?;
        asked?;
        start_seconds.push(seconds);
        after = Memory::of(pid_of(&folder, &leader)?)?;
    }
    progress.clear();
    Ok(Figures {
        zones: stage.zones.len(),
        finished,
        live,
        log_commits: status.log.last_seq.0,
        log_bytes: status.log.bytes,
        image_bytes: images.first().map_or(0, |head| head.bytes),
        images_stored_bytes,
        start_seconds,
        load_image_seconds,
        log_behind_image_events,
        log_behind_image_seconds,
        whole_log_seconds,
        leader_memory_bytes: before.now,
        leader_memory_peak_bytes: before.peak,
        started_memory_bytes: after.now,
        started_memory_peak_bytes: after.peak,
    })
}

/// Submits jobs that no host will take.
async fn wait_for_nothing(stage: &Stage, jobs: u64) -> anyhow::Result<()> {
    let progress = Progress::start(format!("submitting {jobs} jobs that wait"));
    let subject = stage.operation("job.submit_many");
    let mut left = usize::try_from(jobs)?;
    while left > 0 {
        let some = left.min(SUBMIT_MANY_MAX);
        let job = json!({"driver": {"noop": {}}, "placement": {"labels": {"bench": "nowhere"}}});
        let body = json!({"jobs": vec![job; some]}).to_string();
        let reply = stage.client.request(subject.clone(), body.into()).await?;
        read::<SubmitManyReply>(&reply.payload)?;
        left -= some;
        progress.say(format!("{left} jobs still to be submitted"));
    }
    progress.clear();
    Ok(())
}

async fn status(client: &Client) -> anyhow::Result<SystemStatus> {
    Ok(client.ask_system("status").await?.body)
}

/// Asks once, and does not wait for an answer where nobody could give one.
async fn leads(stage: &Stage) -> bool {
    let asked = stage.client.request(subject::system_operation("status"), "{}".into()).await;
    asked.is_ok_and(|reply| read::<SystemStatus>(&reply.payload).is_ok())
}

async fn chaos(control: &Path, request: Request) -> anyhow::Result<Vec<Done>> {
    let reply = control::request(control, &request).await?;
    Ok(reply.map_err(|refused| anyhow::anyhow!("{refused}"))?.done)
}

fn processes(folder: &Path) -> anyhow::Result<Vec<(String, Option<u32>)>> {
    let path: PathBuf = folder.join("processes.json");
    let text = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let record: serde_json::Value = serde_json::from_slice(&text)?;
    let of = |process: &serde_json::Value| {
        let is_scheduler = process["role"] == "scheduler";
        let pid = process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        process["name"].as_str().filter(|_| is_scheduler).map(|name| (name.to_owned(), pid))
    };
    Ok(record["processes"].as_array().context("processes.json holds none")?.iter().filter_map(of).collect())
}

/// The schedulers that run.
fn schedulers(folder: &Path) -> anyhow::Result<Vec<String>> {
    Ok(processes(folder)?.into_iter().filter(|(_, pid)| pid.is_some()).map(|(name, _)| name).collect())
}

fn pid_of(folder: &Path, name: &str) -> anyhow::Result<u32> {
    let found = processes(folder)?.into_iter().find(|(known, _)| known == name).and_then(|(_, pid)| pid);
    found.with_context(|| format!("{name} does not run"))
}

/// What a process holds, as Linux counts it.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    now: u64,
    peak: u64,
}

impl Memory {
    fn of(pid: u32) -> anyhow::Result<Memory> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process cannot be looked at")?;
        let bytes = |field: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        match (bytes("VmRSS"), bytes("VmHWM")) {
            (Some(now), Some(peak)) => Ok(Memory { now, peak }),
            _ => bail!("/proc/{pid}/status does not say what the process holds"),
        }
    }
}
