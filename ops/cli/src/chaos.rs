//! `outlive chaos`: kills, pauses and restarts what a running `outlive dev` has started, and says what it did to whom.
//!
//! It only asks; `dev` does it, for it alone knows its children's process ids for certain. What became of the jobs, the
//! leader and the log is `report`'s to find out.

mod report;

use crate::args::Global;
use crate::dev::Directory;
use crate::dev::control::{self, Action, Done, Request};
use crate::dev::topology::Role;
use crate::failure::Failure;
use crate::output::{self, Output};
use anyhow::Context as _;
use outlive_schemas::time::Millis;
use report::{Before, Report};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Kill, pause and restart parts of a running `outlive dev`
#[derive(Clone, Debug, clap::Args)]
pub struct ChaosArgs {
    /// The data directory of the `outlive dev` [default: where --config is, else dev's own default]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// How long to wait for what was hit to be back; with 0s nothing is waited for, and nothing told of it
    #[arg(long, global = true, default_value = "60s", value_parser = Millis::parse, value_name = "DURATION")]
    pub wait: Millis,

    #[command(subcommand)]
    pub command: ChaosCommand,
}

/// What is printed with `--output json`.
#[derive(Debug, Serialize)]
struct Told<'a> {
    done: &'a [Done],
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum ChaosCommand {
    /// End a process at once (SIGKILL); it stays dead
    #[command(after_help = "Examples:\n  outlive chaos kill executor executor-a-1\n  outlive chaos kill nats nats-b")]
    Kill(Target),
    /// Freeze a process (SIGSTOP): it is there, and says nothing
    #[command(after_help = "Examples:\n  outlive chaos pause scheduler scheduler-a")]
    Pause(Target),
    /// Let a paused process go on
    #[command(after_help = "Examples:\n  outlive chaos resume scheduler scheduler-a")]
    Resume(Target),
    /// Start a process again, after ending it where it runs
    #[command(after_help = "Examples:\n  outlive chaos restart etcd etcd-c")]
    Restart(Target),
    /// End everything in a zone at once
    #[command(after_help = "Examples:\n  outlive chaos kill-zone a")]
    KillZone {
        /// Such as `a`
        zone: String,
    },
    /// Start all that are dead, and resume all that are paused
    #[command(after_help = "Examples:\n  outlive chaos heal")]
    Heal,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    pub role: Role,
    /// Such as `executor-a-1`
    pub name: String,
}

pub async fn run(args: ChaosArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let beside_config =
        global.config.as_deref().and_then(Path::parent).filter(|folder| folder.join("processes.json").exists());
    let directory = Directory::at(args.data_dir.or_else(|| beside_config.map(Path::to_owned)))?;
    let before = if args.wait == Millis::ZERO { None } else { Before::look(&directory, global).await };
    let began = Instant::now();
    let done = match control::request(&directory.control(), &request_of(args.command)).await? {
        Ok(reply) => reply.done,
        Err(refused) => return Err(Failure::Refused(refused).into()),
    };
    let report = match before {
        Some(before) if !done.is_empty() => Some(before.follow(&done, began, args.wait.into()).await),
        _ => None,
    };
    if global.output == Output::Json {
        output::line(serde_json::to_string(&Told { done: &done, report }).context("writing the report")?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if done.is_empty() {
        output::line("nothing to do: everything runs")?;
    }
    done.iter().try_for_each(|done| output::line(told(done)))?;
    if let Some(report) = report {
        output::line(report.render())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request_of(command: ChaosCommand) -> Request {
    match command {
        ChaosCommand::Kill(Target { role, name }) => Request::Kill { role, name },
        ChaosCommand::Pause(Target { role, name }) => Request::Pause { role, name },
        ChaosCommand::Resume(Target { role, name }) => Request::Resume { role, name },
        ChaosCommand::Restart(Target { role, name }) => Request::Restart { role, name },
        ChaosCommand::KillZone { zone } => Request::KillZone { zone },
        ChaosCommand::Heal => Request::Heal,
    }
}

fn told(done: &Done) -> String {
    let Done { action, name, zone, pid, ready_after_ms, .. } = done;
    let verb = match action {
        Action::Killed => "killed",
        Action::Paused => "paused",
        Action::Resumed => "resumed",
        Action::Stopped => "stopped",
        Action::Started => "started",
    };
    let ready = match (action, ready_after_ms) {
        (Action::Started, Some(ms)) => format!("; ready after {ms} ms"),
        (Action::Started, None) => "; not ready yet: look into its log".to_owned(),
        _ => String::new(),
    };
    format!("{verb} {name} (zone {zone}, process {pid}){ready}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_start_is_said() {
        let mut done = Done {
            action: Action::Started,
            name: "etcd-b".to_owned(),
            role: Role::Etcd,
            zone: "b".to_owned(),
            pid: 12,
            ready_after_ms: Some(90),
        };
        assert_eq!(told(&done), "started etcd-b (zone b, process 12); ready after 90 ms");
        done.ready_after_ms = None;
        assert!(told(&done).ends_with("not ready yet: look into its log"));
        done.action = Action::Killed;
        assert_eq!(told(&done), "killed etcd-b (zone b, process 12)");
    }
}
