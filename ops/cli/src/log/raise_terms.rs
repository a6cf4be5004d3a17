//! `outlive log raise-terms`: begins a new generation of terms, above every term that the log has seen.
//!
//! Terms are etcd's revisions above a base (see the ADR on generations). Where etcd has gone back in time, was restored
//! from an old copy, or was made anew, what it counts is below what the log has seen, and nobody may lead. The log
//! itself is whole: nothing of it is given up.

use crate::args::Global;
use crate::failure::Failure;
use crate::log::access::{self, Access};
use crate::log::head::head;
use crate::output::{self, Output};
use anyhow::Context;
use clap::Args;
use outlive_store::leadership::{Leadership, LeadershipError};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  outlive --config outlive.toml log raise-terms --yes

Only where a scheduler has stopped because its term was below one that the log has seen. Executors that know of an
earlier term begin anew, and what they ran starts again from its checkpoints.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RaiseTermsArgs {
    /// Do it. Without this, only what the log has seen is said
    #[arg(long)]
    yes: bool,
}

pub async fn run(args: RaiseTermsArgs, global: &Global) -> anyhow::Result<()> {
    let Access { log, mut opener, leadership, .. } = access::open(global).await?;
    let seen = head(&log, &mut opener).await?.term;
    if !args.yes {
        let message = format!("the log has seen term {seen}: give --yes to have all further terms above it");
        return Err(Failure::usage(message).into());
    }
    let base = match leadership.begin_generation(seen).await {
        Ok(base) => base,
        Err(held @ LeadershipError::Held { .. }) => return Err(Failure::usage(held.to_string()).into()),
        Err(error) => return Err(error).context("the terms cannot be raised"),
    };
    match global.output {
        Output::Json => output::line(json!({"seen": seen, "base": base}).to_string())?,
        Output::Table => output::line(format!("the log has seen term {seen}; terms begin from {base} now"))?,
    }
    Ok(())
}
