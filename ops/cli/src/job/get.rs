//! `outlive job get`.

use crate::args::Global;
use crate::client::Client;
use crate::human;
use crate::job::{Job, view};
use crate::output::{self, Output};
use clap::Args;
use outlive_schemas::request::JobRequest;
use outlive_schemas::view::JobView;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive job get counter\n  outlive job get counter --output json")]
pub struct GetArgs {
    #[command(flatten)]
    job: Job,
}

pub async fn run(args: GetArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let reply = client.ask::<JobView>("job.get", &JobRequest { job: args.job.job }).await?;
    match global.output {
        Output::Json => output::line(&reply.raw)?,
        Output::Table => output::line(view::details(&reply.body, human::now()).render())?,
    }
    Ok(())
}
