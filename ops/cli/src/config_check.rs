//! `outlive config check`: finds what makes a set-up unsafe, and says what to do about each.
//!
//! Part of it is seen from the configuration alone (`inspect`), part only by trying (`probe`): what an unknown person
//! who reaches NATS or etcd may do is asked of the servers as that person. Nothing is changed: the attempt to write
//! the log names a position that no log has.

mod inspect;
mod probe;

use crate::args::Global;
use crate::config;
use crate::output::{self, Output, Table};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive --config /etc/outlive/outlive.toml config check
  outlive config check --offline                    without asking the servers
  outlive config check --role executor --output json

Exit codes: 0 nothing unsafe; 2 something is unsafe; 6 a server cannot be reached.")]
pub struct CheckArgs {
    /// Look at the configuration and its files only
    #[arg(long)]
    offline: bool,
    /// Whose configuration this is [default: a scheduler's, unless executor.data_dir is set]
    #[arg(long, value_enum, value_name = "ROLE")]
    role: Option<Role>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Scheduler,
    Executor,
    /// A user's or an operator's
    Client,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Unsafe,
    /// A server could not be asked.
    Unknown,
    /// Good to know; here it harms nobody.
    Notice,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// Short and stable, for scripts.
    pub check: &'static str,
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    fn new(level: Level, check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { level, check, message: message.into(), remedy: remedy.into() }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    safe: bool,
    findings: &'a [Finding],
}

pub async fn run(args: CheckArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let settings = config::load(global)?.settings;
    let role = args.role.unwrap_or(match &settings.executor.data_dir {
        Some(_) => Role::Executor,
        None => Role::Scheduler,
    });
    let mut findings = inspect::inspect(&settings, role);
    if !args.offline {
        findings.extend(probe::probe(&settings, role).await);
    }
    findings.sort_by_key(|finding| finding.level);
    show(&findings, global.output)?;
    Ok(match findings.first().map(|finding| finding.level) {
        Some(Level::Unsafe) => ExitCode::from(2),
        Some(Level::Unknown) => ExitCode::from(6),
        Some(Level::Notice) | None => ExitCode::SUCCESS,
    })
}

fn show(findings: &[Finding], output: Output) -> anyhow::Result<()> {
    let safe = findings.iter().all(|finding| finding.level == Level::Notice);
    if output == Output::Json {
        return Ok(output::line(serde_json::to_vec(&Report { safe, findings })?)?);
    }
    if findings.is_empty() {
        return Ok(output::line("nothing unsafe was found")?);
    }
    let mut table = Table::new(&["", "CHECK", "FOUND", "DO"]);
    for finding in findings {
        let level = match finding.level {
            Level::Unsafe => "unsafe",
            Level::Unknown => "unknown",
            Level::Notice => "notice",
        };
        let cells = [level, finding.check, &finding.message, &finding.remedy];
        table.row(cells.into_iter().map(output::cell).collect());
    }
    Ok(output::line(table.render())?)
}
