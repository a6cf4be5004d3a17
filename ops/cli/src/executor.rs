//! `outlive executor`: runs an executor, or asks about executors.

mod drain;
mod list;
mod role;

pub use role::run as run_role;

use crate::args::Global;
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  outlive executor --config /etc/outlive/executor.toml    run one in the foreground
  outlive executor list                                   ask about all of them
  outlive executor drain executor-a-1                     have its jobs go on elsewhere";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct ExecutorArgs {
    #[command(subcommand)]
    pub command: Option<ExecutorCommand>,
    #[command(flatten)]
    pub role: role::RoleArgs,
}

#[derive(Debug, Subcommand)]
pub enum ExecutorCommand {
    /// List the executors
    List(list::ListArgs),
    /// Show one executor
    Get(drain::NamedArgs),
    /// Have its jobs go on elsewhere, and place nothing on it
    Drain(drain::DrainArgs),
    /// Place jobs on it again
    Undrain(drain::NamedArgs),
}

/// Answers a question about executors. The role is run by [`run_role`].
pub async fn ask(args: ExecutorArgs, global: &Global) -> anyhow::Result<()> {
    match args.command {
        Some(ExecutorCommand::List(args)) => list::run(args, global).await,
        Some(ExecutorCommand::Get(args)) => drain::get(args, global).await,
        Some(ExecutorCommand::Drain(args)) => drain::drain(args, global).await,
        Some(ExecutorCommand::Undrain(args)) => drain::undrain(args, global).await,
        None => run_role(global).await,
    }
}
