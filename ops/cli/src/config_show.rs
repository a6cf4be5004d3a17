//! `outlive config show`.

use crate::args::Global;
use crate::config;
use crate::output::{self, Output, Table};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration as it is in force
    Show(ShowArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive config show\n  outlive --config outlive.toml config show --origin")]
pub struct ShowArgs {
    /// Say where each value comes from
    #[arg(long)]
    origin: bool,
}

pub fn run(command: ConfigCommand, global: &Global) -> anyhow::Result<()> {
    let ConfigCommand::Show(args) = command;
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
