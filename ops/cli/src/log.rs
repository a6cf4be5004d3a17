//! `outlive log`: what an operator does with the log itself, past every scheduler.

pub mod access;
mod verify;
mod accept_loss;
mod raise_terms;
mod head;

use crate::args::Global;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Read the whole log and check every seal, every link of the chain, and the witness
    Verify(verify::VerifyArgs),
    /// Let schedulers lead again after the log has lost acknowledged commits
    AcceptLoss(accept_loss::AcceptLossArgs),
    /// Let schedulers lead again after etcd has gone back in time, or was made anew
    RaiseTerms(raise_terms::RaiseTermsArgs),
}

pub async fn run(command: LogCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        LogCommand::Verify(args) => verify::run(args, global).await,
        LogCommand::AcceptLoss(args) => accept_loss::run(args, global).await,
        LogCommand::RaiseTerms(args) => raise_terms::run(args, global).await,
    }
}
