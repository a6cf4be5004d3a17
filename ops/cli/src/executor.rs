//! `outlive executor`: runs an executor, or asks about executors.

mod list;
mod role;

pub use role::run as run_role;

use crate::args::Global;
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  outlive executor --config /etc/outlive/executor.toml    run one in the foreground
  outlive executor list                                   ask about all of them";

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
}

/// Answers a question about executors. The role is run by [`run_role`].
pub async fn ask(args: ExecutorArgs, global: &Global) -> anyhow::Result<()> {
    match args.command {
        Some(ExecutorCommand::List(args)) => list::run(args, global).await,
        None => run_role(global).await,
    }
}
