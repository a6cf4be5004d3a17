//! `outlive zone`: asks about zones, and empties them.

use crate::args::Global;
use crate::client::Client;
use crate::output::{self, Output, Table};
use clap::{Args, Subcommand};
use outlive_schemas::id::Zone;
use outlive_schemas::request::{Deadline, DrainZoneRequest, ZoneRequest};
use outlive_schemas::view::{SystemStatus, ZoneView};
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub enum ZoneCommand {
    /// List the zones
    List(ListArgs),
    /// Have its jobs go on in other zones, and place nothing in it
    Drain(DrainArgs),
    /// Place jobs in it again
    Undrain(NamedArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive zone list\n  outlive zone list --output json")]
pub struct ListArgs {}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive zone undrain a")]
pub struct NamedArgs {
    /// The zone's name
    zone: Zone,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive zone drain a\n  outlive zone drain a --deadline 2m")]
pub struct DrainArgs {
    /// The zone's name
    zone: Zone,
    /// How long, or until when, last checkpoints are waited for [default: 10m]
    #[arg(long, value_name = "DURATION|TIME")]
    deadline: Option<Deadline>,
}

pub async fn run(command: ZoneCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        ZoneCommand::List(ListArgs {}) => list(global).await,
        ZoneCommand::Drain(DrainArgs { zone, deadline }) => {
            ask("zone.drain", &DrainZoneRequest { zone, deadline }, global).await
        }
        ZoneCommand::Undrain(NamedArgs { zone }) => ask("zone.undrain", &ZoneRequest { zone }, global).await,
    }
}

/// The zones of `sys.status`.
async fn list(global: &Global) -> anyhow::Result<()> {
    let reply = Client::connect(global).await?.ask_system::<SystemStatus>("status").await?;
    let zones = &reply.body.zones;
    match global.output {
        Output::Json => Ok(output::line(serde_json::json!({ "zones": zones }).to_string())?),
        Output::Table => Ok(output::line(table(zones).render())?),
    }
}

async fn ask(operation: &str, body: &impl Serialize, global: &Global) -> anyhow::Result<()> {
    let reply = Client::connect(global).await?.ask_system_with::<ZoneView>(operation, body).await?;
    match global.output {
        Output::Json => Ok(output::line(&reply.raw)?),
        Output::Table => Ok(output::line(table(std::slice::from_ref(&reply.body)).render())?),
    }
}

fn table(zones: &[ZoneView]) -> Table {
    let mut table = Table::new(&["ZONE", "STATE", "EXECUTORS", "RUNNING"]);
    for zone in zones {
        table.row(vec![
            output::cell(&zone.zone),
            output::cell(zone.state.as_str()),
            output::cell(zone.executors),
            output::cell(zone.running),
        ]);
    }
    table
}
