//! The log's end, proved by the seal of its last commit.

use anyhow::Context;
use outlive_schemas::event::Envelope;
use outlive_schemas::id::{Sequence, Term};
use outlive_store::frame::{ChainHash, FrameOpener, open_header};
use outlive_store::log::CommitLog;
use outlive_store::witness::Witness;

/// One commit is enough.
const READ_BYTES: usize = 1;

/// What the last commit says.
#[derive(Debug)]
pub struct Head {
    pub end: Witness,
    pub term: Term,
    pub events: Vec<Envelope>,
}

pub async fn head(log: &impl CommitLog, opener: &mut FrameOpener) -> anyhow::Result<Head> {
    let extent = log.extent().await.context("the log's end cannot be read")?;
    if extent.last == Sequence(0) {
        let end = Witness { seq: Sequence(0), chain: ChainHash::START };
        return Ok(Head { end, term: Term(0), events: Vec::new() });
    }
    let unreadable = || format!("the last commit, {}, cannot be read; see `outlive log verify`", extent.last);
    let messages = log.read(extent.last, READ_BYTES).await.with_context(unreadable)?;
    let last = messages.into_iter().find(|message| message.seq == extent.last).with_context(unreadable)?;
    let header = open_header(&last.body, last.seq).with_context(unreadable)?;
    let commit = opener.open(&last.body, header.expected, header.previous).with_context(unreadable)?;
    if header.expected.next() != last.seq {
        anyhow::bail!("the last commit, {}, stands in a wrong place; see `outlive log verify`", last.seq);
    }
    let end = Witness { seq: last.seq, chain: commit.chain };
    Ok(Head { end, term: header.term, events: commit.events })
}
