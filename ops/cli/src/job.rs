//! `outlive job`: one module for each of its commands.

pub mod spec;
mod submit;
mod run;
mod view;
mod get;
mod list;
mod wait;
mod logs;
mod history;
mod why;
mod end;
mod many;
mod life;

use crate::args::Global;
use clap::{Args, Subcommand};
use outlive_schemas::id::JobRef;

#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Submit one job or many, and return
    Submit(submit::SubmitArgs),
    /// Submit a job, follow its output and exit as it does
    Run(run::RunArgs),
    /// Show a job
    Get(get::GetArgs),
    /// List jobs
    List(list::ListArgs),
    /// Wait until a job is finished, or running
    Wait(wait::WaitArgs),
    /// Print what a job has written
    Logs(logs::LogsArgs),
    /// List what has happened to a job
    History(history::HistoryArgs),
    /// Say why a job is where it is
    Why(why::WhyArgs),
    /// End a job: SIGTERM, and SIGKILL after a grace
    Cancel(end::CancelArgs),
    /// End a job with SIGKILL, now
    Kill(end::KillArgs),
    /// Stop a service with a snapshot of its state; it can be started again
    Stop(life::StopArgs),
    /// Start a stopped service
    Start(life::StartArgs),
    /// Replace a job's specification, and go back if the new one does not become healthy
    Update(life::UpdateArgs),
    /// Go back to the version before
    Rollback(life::RollbackArgs),
    /// List a job's versions, and how each ended
    Versions(life::VersionsArgs),
    /// Try jobs that failed once more, with their past and their state
    Retry(many::RetryArgs),
    /// Forget finished jobs, and everything that is kept of them
    Delete(many::DeleteArgs),
}

/// The job that a command is about.
#[derive(Debug, Args)]
pub struct Job {
    /// The job's id, or its name: then the newest of that name
    #[arg(value_name = "JOB")]
    pub job: JobRef,
}

pub async fn run(command: JobCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        JobCommand::Submit(args) => submit::run(args, global).await,
        JobCommand::Run(args) => run::run(args, global).await,
        JobCommand::Get(args) => get::run(args, global).await,
        JobCommand::List(args) => list::run(args, global).await,
        JobCommand::Wait(args) => wait::run(args, global).await,
        JobCommand::Logs(args) => logs::run(args, global).await,
        JobCommand::History(args) => history::run(args, global).await,
        JobCommand::Why(args) => why::run(args, global).await,
        JobCommand::Cancel(args) => end::cancel(args, global).await,
        JobCommand::Kill(args) => end::kill(args, global).await,
        JobCommand::Stop(args) => life::stop(args, global).await,
        JobCommand::Start(args) => life::start(args, global).await,
        JobCommand::Update(args) => life::update(args, global).await,
        JobCommand::Rollback(args) => life::rollback(args, global).await,
        JobCommand::Versions(args) => life::versions(args, global).await,
        JobCommand::Retry(args) => many::retry(args, global).await,
        JobCommand::Delete(args) => many::delete(args, global).await,
    }
}
