//! `outlive log accept-loss`: goes on from where the log ends, and says so in the log.
//!
//! A scheduler that cannot find the witnessed commit in the log refuses to lead. Where the commits cannot be brought
//! back, this is how an operator says: go on without them. It begins a new generation of terms, so that executors that
//! have seen the lost commits begin anew instead of stopping every leader; it ends their leases, so that exclusive
//! attempts end that only the lost commits told of; it appends a commit that says who gave up what; and it makes the
//! witness say that the log ends there. In this order, so that whoever is stopped half-way can do it again.

use crate::args::Global;
use crate::client::actor;
use crate::failure::Failure;
use crate::human;
use crate::log::access::{self, Access};
use crate::log::head::{Head, head};
use crate::log::verify;
use crate::output::{self, Output};
use anyhow::Context;
use clap::Args;
use outlive_schemas::event::{Envelope, Event, LossAccepted};
use outlive_schemas::id::Sequence;
use outlive_store::bridge::Bridge;
use outlive_store::frame::{FrameOpener, Place, seal_commit};
use outlive_store::leadership::{Leadership, LeadershipError};
use outlive_store::log::CommitLog;
use outlive_store::log::bridged::{Inherited, Step};
use outlive_store::registry::Registry;
use outlive_store::seal::Key;
use outlive_store::witness::Witness;
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  outlive --config outlive.toml log verify
  outlive --config outlive.toml log accept-loss --yes

Only after `log verify` has named what is lost, and after every way to restore the log's stream has been tried: jobs and
checkpoints in the lost commits are forgotten for good. Stop every scheduler a minute before: what one of them had sent
must not land in a log that has grown again. That it was done, and by whom, stands in the log.";

/// The only shard there is.
const SHARD: u32 = 0;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AcceptLossArgs {
    /// Do it. Without this, only what would be lost is said
    #[arg(long)]
    yes: bool,
}

pub async fn run(args: AcceptLossArgs, global: &Global) -> anyhow::Result<()> {
    let Access { log, mut opener, sealing, leadership, bridge, registry } = access::open(global).await?;
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
    let found = head(&log, &mut opener).await?;
    let end = found.end;
    // What follows on from the log's end is not lost: it is appended first. The rest can never be.
    let inherited = Inherited::new(bridge.list().await.context("the bridge cannot be read")?);
    let stranded = inherited.stranded(end.seq, end.chain);
    let was = match &before {
        None => "there is no witness".to_owned(),
        Some(Ok(witness)) => format!("the witness is at {}", witness.seq),
        Some(Err(error)) => error.to_string(),
    };
    let lost = match &before {
        Some(Ok(witness)) if *witness == end && stranded.is_empty() => {
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
    verify::follows_on(&log, &mut opener).await.context(
        "the log cannot be gone on from, and giving up what is lost does not change that: restore a backup into a new \
         cluster",
    )?;
    match leadership.begin_generation(found.term).await {
        Ok(_) => {}
        Err(held @ LeadershipError::Held { .. }) => return Err(Failure::usage(held.to_string()).into()),
        Err(error) => return Err(error).context("a new generation of terms cannot be begun"),
    }
    registry.end_executors().await.context("the executors' leases cannot be ended")?;
    let found = drained(&log, &inherited, &mut opener, found).await?;
    for at in inherited.positions() {
        bridge.discard(at).await.context("the bridge cannot be cleared")?;
    }
    let witnessed = before.and_then(Result::ok).map(|witness| witness.seq);
    let end = recorded(&log, found, sealing, witnessed).await?;
    leadership.overwrite_witness(end.encode()).await.context("the witness cannot be written")?;
    tracing::warn!(log_end = %end.seq, %lost, "a loss was accepted");
    done(global, end, &format!("the log goes on from {}, where this is recorded; {lost} are given up", end.seq))
}

/// Appends what follows on from the log's end in the bridge, as the next leader would have.
async fn drained(
    log: &impl CommitLog,
    inherited: &Inherited,
    opener: &mut FrameOpener,
    found: Head,
) -> anyhow::Result<Head> {
    let mut end = found.end;
    while let Step::Append(commit) = inherited.next(end.seq, |seq| (seq == end.seq).then_some(end.chain)) {
        end = Witness { seq: commit.seq, chain: end.chain.then(&commit.body) };
        log.append(Sequence(commit.seq.0 - 1), commit.body).await.context("the bridge cannot be drained")?;
    }
    if end == found.end { Ok(found) } else { head(log, opener).await }
}

/// Appends what was given up, unless the last commit says it already. Gives the log's new end.
async fn recorded(
    log: &impl CommitLog,
    found: Head,
    sealing: Option<Key>,
    witnessed: Option<Sequence>,
) -> anyhow::Result<Witness> {
    let Head { end, term, events } = found;
    let said = |event: &Event| matches!(event, Event::LossAccepted(accepted) if accepted.witnessed == witnessed);
    if events.iter().any(|envelope| said(&envelope.event)) {
        return Ok(end);
    }
    let sealing =
        sealing.context("there is no key of a log, and so there can be no log: is this the right cluster?")?;
    let accepted = LossAccepted { log_end: end.seq, witnessed };
    let by = Some(actor().as_str().into());
    let envelope = Envelope { at: human::now(), by, event: Event::LossAccepted(accepted) };
    let place = Place { shard: SHARD, expected: end.seq, term, previous: end.chain };
    let sealed = seal_commit(&sealing, place, &[envelope]).context("the loss cannot be recorded")?;
    log.append(end.seq, sealed.body).await.context("the loss cannot be recorded: is a scheduler running?")?;
    Ok(Witness { seq: end.seq.next(), chain: sealed.chain })
}

fn done(global: &Global, end: Witness, text: &str) -> anyhow::Result<()> {
    match global.output {
        Output::Json => output::line(json!({"witness_seq": end.seq, "chain": end.chain.to_string()}).to_string())?,
        Output::Table => output::line(text)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_store::frame::FrameOpener;
    use outlive_store::log::memory::MemoryLog;

    #[tokio::test]
    async fn a_loss_is_recorded_once_with_who_accepted_it() {
        let (log, key) = (MemoryLog::new(), Key::generate());
        let mut opener = FrameOpener::new([&key]);
        let empty = head(&log, &mut opener).await.expect("empty");
        let first = recorded(&log, empty, Some(key.clone()), Some(Sequence(9))).await.expect("recorded");
        assert_eq!(first.seq, Sequence(1));
        // The witness could not be written after that, and it is done again.
        let found = head(&log, &mut opener).await.expect("one commit");
        assert_eq!(found.end, first);
        assert!(found.events[0].by.as_deref().is_some_and(|by| by.contains('@')));
        assert_eq!(recorded(&log, found, Some(key.clone()), Some(Sequence(9))).await.expect("already"), first);
        // Another loss is another entry.
        let found = head(&log, &mut opener).await.expect("one commit");
        let second = recorded(&log, found, Some(key), Some(Sequence(20))).await.expect("recorded");
        assert_eq!(second.seq, Sequence(2));
    }
}
