//! `outlive executor get|drain|undrain`.

use super::list::table;
use crate::args::Global;
use crate::client::Client;
use crate::output::{self, Output};
use clap::Args;
use outlive_schemas::id::ExecutorRef;
use outlive_schemas::request::{Deadline, DrainExecutorRequest, ExecutorRequest};
use outlive_schemas::view::ExecutorView;
use serde::Serialize;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive executor get executor-a-1\n  outlive executor undrain executor-a-1")]
pub struct NamedArgs {
    /// Its name or id
    #[arg(value_name = "EXECUTOR")]
    executor: ExecutorRef,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Its jobs are stored as they stand and go on elsewhere; nothing is placed on it until it is undrained, also after a
restart. What cannot be stored by the deadline goes on from its latest checkpoint.

Examples:
  outlive executor drain executor-a-1
  outlive executor drain executor-a-1 --deadline 2m")]
pub struct DrainArgs {
    /// Its name or id
    #[arg(value_name = "EXECUTOR")]
    executor: ExecutorRef,
    /// How long, or until when, last checkpoints are waited for [default: 10m]
    #[arg(long, value_name = "DURATION|TIME")]
    deadline: Option<Deadline>,
}

pub async fn get(args: NamedArgs, global: &Global) -> anyhow::Result<()> {
    ask("executor.get", &ExecutorRequest { executor: args.executor }, global).await
}

pub async fn drain(args: DrainArgs, global: &Global) -> anyhow::Result<()> {
    let DrainArgs { executor, deadline } = args;
    ask("executor.drain", &DrainExecutorRequest { executor, deadline }, global).await
}

pub async fn undrain(args: NamedArgs, global: &Global) -> anyhow::Result<()> {
    ask("executor.undrain", &ExecutorRequest { executor: args.executor }, global).await
}

async fn ask(operation: &str, body: &impl Serialize, global: &Global) -> anyhow::Result<()> {
    let reply = Client::connect(global).await?.ask_system_with::<ExecutorView>(operation, body).await?;
    match global.output {
        Output::Json => Ok(output::line(&reply.raw)?),
        Output::Table => Ok(output::line(table(std::slice::from_ref(&reply.body)).render())?),
    }
}
