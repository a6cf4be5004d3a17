//! `outlive dev`: the whole system on one machine, made of the real parts, each its own process on loopback.
//!
//! The modules stand in the order of a start: find the servers, take the data directory, settle the ports, write the
//! configurations, start the processes, wait until they answer, and then supervise them until told to stop.
//!
//! Nothing here knows what the parts do; it only starts, watches and stops them. A process that dies stays dead until
//! `outlive chaos` starts it again, for hiding a death would defeat the purpose.

mod programs;
mod directory;
pub mod topology;
mod ports;
mod listener;
mod settings;
mod process;
mod child;
mod readiness;
mod record;
mod fleet;
mod supervisor;
mod chaos;
pub mod control;

pub use child::DevChildArgs;
pub use child::run as run_child;
pub use directory::Directory;

use anyhow::Context as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use supervisor::{Started, Supervisor};
use topology::{MAX_EXECUTORS_PER_ZONE, MAX_ZONES, Topology};

const EXAMPLES: &str = "\
Examples:
  outlive dev                                      three zones, Ctrl-C stops them
  outlive dev --zones 1 --data-dir /tmp/one        one of each, with its data in a place of its own
  outlive --config /tmp/one/outlive.toml status    ask it something, from another terminal";

/// Start NATS, etcd, schedulers and executors on this machine, and stop them on Ctrl-C
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DevArgs {
    /// Availability zones to start, 1 to 5 [default: those of the data directory, else 3]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=MAX_ZONES as i64))]
    pub zones: Option<u8>,

    /// Executors in each zone
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_EXECUTORS_PER_ZONE as i64))]
    pub executors_per_zone: u16,

    /// Where everything is kept between runs [default: outlive/dev in the user's data directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Once everything is ready, print what was started as one line of JSON
    #[arg(long)]
    pub json: bool,

    /// Millicores that each executor offers. These are pretend hosts, so this may be more than the machine has
    #[arg(long, default_value_t = 16_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub executor_cpu_millis: u32,

    /// Memory that each executor offers
    #[arg(long, default_value = "16GiB", value_parser = parse_size)]
    pub executor_memory: outlive_schemas::size::ByteSize,
}

fn parse_size(text: &str) -> Result<outlive_schemas::size::ByteSize, outlive_schemas::size::SizeError> {
    outlive_schemas::size::ByteSize::parse(text)
}

/// Runs until Ctrl-C or SIGTERM.
///
/// Must be called on the main thread, in a current-thread runtime: Linux ends the children when the *thread* that
/// started them ends.
pub async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let programs = programs::find().await?;
    let directory = Directory::open(args.data_dir.clone())?;
    let (topology, ports) =
        ports::settle(&directory, args.zones.map(usize::from), usize::from(args.executors_per_zone))
            .await
            .with_context(|| format!("settling the ports of {}", directory.root().display()))?;
    let capacity = settings::Capacity { cpu_millis: args.executor_cpu_millis, memory: args.executor_memory };
    let processes = settings::write(&directory, &topology, &ports, &programs, capacity)
        .with_context(|| format!("preparing {}", directory.root().display()))?;

    let told = Told { json: args.json };
    told.beginning(&topology, &directory, &programs);
    let mut supervisor = Supervisor::new(directory, &topology, &ports, programs, processes)?;
    let result = run_until_stopped(&mut supervisor, &told).await;
    supervisor.stop().await;
    result.map(|()| ExitCode::SUCCESS)
}

async fn run_until_stopped(supervisor: &mut Supervisor, told: &Told) -> anyhow::Result<()> {
    let led = match supervisor.start(told).await? {
        Started::Stopped => return Ok(()),
        Started::Leaderless(led) => Some(led),
        Started::Ready => {
            told.ready(supervisor)?;
            None
        }
    };
    supervisor.supervise(told, led).await
}

/// What is said on the way: to people on stderr and, once ready, on stdout; to programs one line on stdout.
#[derive(Clone, Copy, Debug)]
struct Told {
    json: bool,
}

impl Told {
    fn beginning(&self, topology: &Topology, directory: &Directory, programs: &programs::Programs) {
        for warning in &programs.warnings {
            eprintln!("outlive dev: {warning}");
        }
        if self.json {
            return;
        }
        eprintln!("Starting Outlive in {}", directory.root().display());
        eprintln!("  nats-server {}, etcd {}", programs.nats_server.version, programs.etcd.version);
        if topology.zones().len() == 2 {
            eprintln!(
                "  Note: two zones survive the loss of neither, since NATS and etcd need a majority. Take --zones 3."
            );
        }
    }

    /// A step that takes a while has begun.
    fn step(&self, what: &str) {
        if !self.json && std::io::stderr().is_terminal() {
            eprintln!("  {what} …");
        }
    }

    fn ready(&self, supervisor: &Supervisor) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string(&supervisor.record()).context("writing the ready line")?
        } else {
            banner(supervisor)
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).context("writing to standard output")
    }
}

fn banner(supervisor: &Supervisor) -> String {
    let record = supervisor.record();
    let directory = supervisor.directory();
    let outlive = format!("outlive --config {}", directory.config().display());
    let victim = record.processes.iter().rev().find(|p| p.role == topology::Role::Executor).map(|p| p.name.as_str());
    [
        format!("\nOutlive is ready: zones {}, {} processes.", record.zones.join(", "), record.processes.len()),
        format!("  NATS    {}", record.nats.join(",")),
        format!("  etcd    {}", record.etcd.join(",")),
        format!("  logs    {}", directory.logs().display()),
        "\nTry, in another terminal:".to_owned(),
        format!("  {outlive} job submit ops/examples/counter/job.json"),
        format!("  {outlive} job logs -f counter"),
        format!("  {outlive} chaos kill executor {}", victim.unwrap_or("executor-a-1")),
        format!("  {outlive} job get counter"),
        "\nCtrl-C stops everything; the data stays.".to_owned(),
    ]
    .join("\n")
}
