//! `outlive log accept-loss`: makes the witness say that the log ends where it ends.
//!
//! A scheduler that cannot find the witnessed commit in the log refuses to lead. Where the commits cannot be brought
//! back, this is how an operator says: go on without them.

use crate::args::Global;
use crate::failure::Failure;
use crate::log::access::{self, Access};
use crate::output::{self, Output};
use anyhow::Context;
use clap::Args;
use outlive_schemas::id::Sequence;
use outlive_store::frame::{ChainHash, FrameOpener, open_header};
use outlive_store::leadership::Leadership;
use outlive_store::log::CommitLog;
use outlive_store::witness::Witness;
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  outlive --config outlive.toml log verify
  outlive --config outlive.toml log accept-loss --yes

Only after `log verify` has named what is lost, and after every way to restore the log's stream has been tried: jobs and
checkpoints in the lost commits are forgotten for good.";

/// One commit is enough.
const READ_BYTES: usize = 1;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AcceptLossArgs {
    /// Do it. Without this, only what would be lost is said
    #[arg(long)]
    yes: bool,
}

pub async fn run(args: AcceptLossArgs, global: &Global) -> anyhow::Result<()> {
    let Access { log, mut opener, leadership } = access::open(global).await?;
    if let Some(reign) = leadership.reign().await.context("the leader cannot be asked for")? {
        let (name, term) = (reign.holder.scheduler, reign.term);
        return Err(Failure::usage(format!(
            "{name} leads in term {term}: it has found the log whole, and there is no loss to accept. If it is stuck, \
             stop it first"
        ))
        .into());
    }
    let stored = leadership.read_witness().await.context("the witness cannot be read")?;
    let before = stored.as_deref().map(Witness::decode);
    let end = head(&log, &mut opener).await?;
    let was = match &before {
        None => "there is no witness".to_owned(),
        Some(Ok(witness)) => format!("the witness is at {}", witness.seq),
        Some(Err(error)) => error.to_string(),
    };
    let lost = match &before {
        Some(Ok(witness)) if *witness == end => {
            return done(global, end, &format!("the witness and the log agree at {}: nothing is to do", end.seq));
        }
        Some(Ok(witness)) if witness.seq > end.seq => format!("commits {} to {}", end.seq.next(), witness.seq),
        _ => "whatever was acknowledged beyond the log's end".to_owned(),
    };
    if !args.yes {
        return Err(Failure::usage(format!(
            "the log ends at {}, and {was}: {lost} would be given up. Give --yes to go on without them",
            end.seq
        ))
        .into());
    }
    leadership.overwrite_witness(end.encode()).await.context("the witness cannot be written")?;
    tracing::warn!(log_end = %end.seq, %lost, "a loss was accepted");
    done(global, end, &format!("the witness is at {} now; {lost} are given up", end.seq))
}

fn done(global: &Global, end: Witness, text: &str) -> anyhow::Result<()> {
    match global.output {
        Output::Json => output::line(json!({"witness_seq": end.seq, "chain": end.chain.to_string()}).to_string())?,
        Output::Table => output::line(text)?,
    }
    Ok(())
}

/// The log's end, proved by the seal of its last commit.
async fn head(log: &impl CommitLog, opener: &mut FrameOpener) -> anyhow::Result<Witness> {
    let extent = log.extent().await.context("the log's end cannot be read")?;
    if extent.last == Sequence(0) {
        return Ok(Witness { seq: Sequence(0), chain: ChainHash::START });
    }
    let unreadable = || format!("the last commit, {}, cannot be read; see `outlive log verify`", extent.last);
    let messages = log.read(extent.last, READ_BYTES).await.with_context(unreadable)?;
    let last = messages.into_iter().find(|message| message.seq == extent.last).with_context(unreadable)?;
    let header = open_header(&last.body, last.seq).with_context(unreadable)?;
    let commit = opener.open(&last.body, header.expected, header.previous).with_context(unreadable)?;
    if header.expected.next() != last.seq {
        anyhow::bail!("the last commit, {}, stands in a wrong place; see `outlive log verify`", last.seq);
    }
    Ok(Witness { seq: last.seq, chain: commit.chain })
}
