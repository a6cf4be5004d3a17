//! `outlive bench`: real work through the real API, beside the limit that it is measured against.
//!
//! Each bench starts an `outlive dev` of its own in a temporary directory, unless it is told of a running system.
//! Figures are for reading: nothing here passes or fails.

mod stage;
mod limits;
mod submit;
mod latency;
mod replay;
mod start;
mod hosts;
mod placement;
mod recovery;

use crate::args::Global;
use crate::output::{self, Details};
use clap::{Args, Subcommand};
use serde::Serialize;
use stage::Stage;

const EXAMPLES: &str = "\
Examples:
  outlive bench submit --json                      noop jobs a second, from submission to result, with one zone
  outlive bench submit --zones 3 --single --json   the same with three zones, one job a request
  outlive bench latency --json                     one client, one job after another
  outlive bench replay --events 1000000 --json     how fast a scheduler reads the log back
  outlive bench start --finished 1000000 --live 100000 --json    how soon a scheduler leads with all that behind it
  outlive bench placement --hosts 500 --json       how fast a backlog is placed on a fleet that is made up
  outlive bench recovery --json                    how long jobs are away after each kind of loss, with three zones";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Noop jobs from submission to result, sustained
    Submit(submit::SubmitArgs),
    /// One client that submits one job after another
    Latency(latency::LatencyArgs),
    /// How fast the log is read back
    Replay(replay::ReplayArgs),
    /// How soon a scheduler leads that has many jobs behind it, and what they take
    Start(start::StartArgs),
    /// A backlog of jobs placed on a fleet
    Placement(placement::PlacementArgs),
    /// How long jobs and the leader are away after each kind of loss
    Recovery(recovery::RecoveryArgs),
}

/// Where a bench runs and how it is printed.
#[derive(Debug, Args)]
pub struct Common {
    /// Zones of the system to start for it [ignored where one is named, by --config, --server or --context]
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    zones: u8,
    /// Print the figures as one line of JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(global: &Global, args: BenchArgs) -> anyhow::Result<()> {
    match args.what {
        What::Submit(args) => {
            let stage = Stage::open(global, args.common.zones).await?;
            print(args.common.json, &submit::run(&stage, &args).await?)
        }
        What::Latency(args) => {
            let stage = Stage::open(global, args.common.zones).await?;
            print(args.common.json, &latency::run(&stage, &args).await?)
        }
        What::Replay(args) => {
            let stage = Stage::open(global, args.common.zones).await?;
            print(args.common.json, &replay::run(&stage, &args).await?)
        }
        What::Start(args) => print(args.common.json, &start::run(global, &args).await?),
        What::Placement(args) => {
            let stage = Stage::open(global, args.common.zones).await?;
            print(args.common.json, &placement::run(&stage, &args).await?)
        }
        What::Recovery(args) => print(args.json, &recovery::run(global, &args).await?),
    }
}

fn print<T: Serialize>(json: bool, figures: &T) -> anyhow::Result<()> {
    if json {
        return Ok(output::line(serde_json::to_vec(figures)?)?);
    }
    let mut details = Details::new();
    if let serde_json::Value::Object(figures) = serde_json::to_value(figures)? {
        for (name, value) in figures {
            details.line(&name.replace('_', " "), value);
        }
    }
    Ok(output::line(details.render())?)
}
