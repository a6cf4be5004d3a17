//! `outlive job cancel` and `kill`: the ways to end a job.

use crate::args::Global;
use crate::client::{Client, new_request_id};
use crate::human;
use crate::job::{Job, view};
use crate::output::{self, Output};
use clap::Args;
use outlive_schemas::request::{CancelRequest, JobRequest};
use outlive_schemas::time::Millis;
use outlive_schemas::view::JobView;
use serde::Serialize;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive job cancel counter\n  outlive job cancel counter --grace 1m")]
pub struct CancelArgs {
    #[command(flatten)]
    job: Job,
    /// How long the job has to end by itself after SIGTERM [default: 10s]
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    grace: Option<Millis>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive job kill counter")]
pub struct KillArgs {
    #[command(flatten)]
    job: Job,
}

pub async fn cancel(args: CancelArgs, global: &Global) -> anyhow::Result<()> {
    end("job.cancel", &CancelRequest { job: args.job.job, grace: args.grace }, global).await
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
