//! `outlive job cancel` and `kill`: the ways to end a job.

use crate::args::Global;
use crate::client::{Client, new_request_id};
use crate::human;
use crate::job::{Job, view};
use crate::output::{self, Output};
use clap::Args;
use outlive_schemas::array::Indexes;
use outlive_schemas::request::{CancelRequest, JobRequest};
use outlive_schemas::time::Millis;
use outlive_schemas::view::JobView;
use serde::Serialize;

const CANCEL_EXAMPLES: &str = "\
Examples:
  outlive job cancel counter
  outlive job cancel counter --grace 1m
  outlive job cancel resize --indexes 3,7-9    these tasks of an array";

#[derive(Debug, Args)]
#[command(after_help = CANCEL_EXAMPLES)]
pub struct CancelArgs {
    #[command(flatten)]
    job: Job,
    /// How long the job has to end by itself after SIGTERM [default: 10s]
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    grace: Option<Millis>,
    /// Of an array these tasks, and not the whole
    #[arg(long, value_name = "INDEXES")]
    indexes: Option<Indexes>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive job kill counter")]
pub struct KillArgs {
    #[command(flatten)]
    job: Job,
}

pub async fn cancel(args: CancelArgs, global: &Global) -> anyhow::Result<()> {
    let CancelArgs { job: Job { job }, grace, indexes } = args;
    end("job.cancel", &CancelRequest { job, indexes, grace }, global).await
}

pub async fn kill(args: KillArgs, global: &Global) -> anyhow::Result<()> {
    end("job.kill", &JobRequest { job: args.job.job }, global).await
}

async fn end(operation: &str, request: &impl Serialize, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let reply = client.change::<JobView>(operation, request, &new_request_id()).await?;
    match global.output {
        Output::Json => output::line(&reply.raw)?,
        Output::Table => output::line(view::details(&reply.body, human::now()).render())?,
    }
    Ok(())
}
