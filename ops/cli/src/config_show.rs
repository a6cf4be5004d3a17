//! `outlive config …`, of which `show` stands here.

use crate::args::Global;
use crate::config;
use crate::config_check::{self, CheckArgs};
use crate::config_permissions::{self, PermissionsArgs};
use crate::output::{self, Output, Table};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration as it is in force
    Show(ShowArgs),
    /// Find what is unsafe in the configuration, its files and its servers
    Check(CheckArgs),
    /// Print what a kind of user may do on the NATS servers
    Permissions(PermissionsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive config show\n  outlive --config outlive.toml config show --origin")]
pub struct ShowArgs {
    /// Say where each value comes from
    #[arg(long)]
    origin: bool,
}

pub async fn run(command: ConfigCommand, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Show(args) => show(&args, global)?,
        ConfigCommand::Check(args) => return config_check::run(args, global).await,
        ConfigCommand::Permissions(args) => config_permissions::run(&args, global)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(args: &ShowArgs, global: &Global) -> anyhow::Result<()> {
    let loaded = config::load(global)?;
    match (global.output, args.origin) {
        (Output::Json, false) => output::line(serde_json::to_vec(&loaded.settings)?)?,
        (Output::Json, true) => {
            let origins: serde_json::Map<String, Value> =
                loaded.origins.iter().map(|(key, _, origin)| (key.to_owned(), origin.into())).collect();
            output::line(json!({"settings": loaded.settings, "origins": origins}).to_string())?;
        }
        (Output::Table, false) => {
            for (key, value, _) in loaded.origins.iter() {
                output::line(format!("{key} = {value}"))?;
            }
        }
        (Output::Table, true) => {
            let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
            for (key, value, origin) in loaded.origins.iter() {
                table.row(vec![output::cell(key), output::cell(value), output::cell(origin)]);
            }
            output::line(table.render())?;
        }
    }
    Ok(())
}
