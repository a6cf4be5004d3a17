//! `outlive log verify`: replays the whole log and names the first commit that is not what it was.
//!
//! The witness is read first. The log only grows, so one that holds it now held it then.

use crate::args::Global;
use crate::log::access::{self, Access};
use crate::output::{self, Details, Output};
use crate::progress::Progress;
use anyhow::Context;
use clap::Args;
use outlive_schemas::event::{Event, LossAccepted};
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::time::Timestamp;
use outlive_store::bridge::Bridge;
use outlive_store::frame::{ChainHash, FrameOpener, open_header};
use outlive_store::leadership::Leadership;
use outlive_store::log::{CommitLog, ReadError, Stored};
use outlive_store::witness::{LogLostAcknowledgedCommits, Witness, judge};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  outlive --config outlive.toml log verify
  outlive --config outlive.toml log verify --output json";

/// Of the log, in one request.
const READ_BYTES: usize = 8 * 1024 * 1024;
/// How long a replica that is behind is given to show what the stream is known to hold.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
const CATCH_UP_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {}

/// What has been checked, up to and including `last`.
#[derive(Debug, PartialEq)]
struct Checked {
    /// The first that is kept; the chain before it is taken on trust where it is not 1.
    first: Sequence,
    last: Sequence,
    chain: ChainHash,
    term: Term,
    events: u64,
    /// How many of the commits stand in the bridge alone.
    bridged: u64,
    /// Losses that operators have accepted, oldest first.
    losses: Vec<Loss>,
}

/// What an operator has given up.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Loss {
    /// The commit that says so.
    seq: Sequence,
    at: Timestamp,
    by: Option<String>,
    log_end: Sequence,
    witnessed: Option<Sequence>,
}

/// The first commit that is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    seq: Sequence,
    what: String,
}

pub async fn run(_: VerifyArgs, global: &Global) -> anyhow::Result<()> {
    let Access { log, mut opener, leadership, bridge, .. } = access::open(global).await?;
    let witness = leadership.read_witness().await.context("the witness cannot be read")?;
    let witness = witness.map(|bytes| Witness::decode(&bytes)).transpose()?;
    // Read first: what is drained into the log meanwhile is then found there.
    let bridged = bridge.list().await.context("the bridge cannot be read")?;
    let mut verifier = Verifier::new(witness);
    let mut fault = replay(&log, &mut opener, &mut verifier).await?;
    for commit in &bridged {
        fault = fault.or_else(|| verifier.cross(&mut opener, commit).err());
    }
    let fault = fault.or_else(|| verifier.judge());
    let checked = verifier.checked;
    match global.output {
        Output::Json => output::line(as_json(&checked, witness, fault.as_ref()).to_string())?,
        Output::Table => output::line(as_text(&checked, witness, fault.as_ref()))?,
    }
    match fault {
        None => Ok(()),
        Some(Fault { seq, .. }) => anyhow::bail!("the log is not whole: commit {seq} is the first that is bad"),
    }
}

/// Reads the log to its end, and refuses one whose commits do not follow on from each other: no scheduler goes on from
/// there.
pub(super) async fn follows_on(log: &impl CommitLog, opener: &mut FrameOpener) -> anyhow::Result<()> {
    match replay(log, opener, &mut Verifier::new(None)).await? {
        None => Ok(()),
        Some(Fault { seq, what }) => anyhow::bail!("commit {seq} is bad: {what}"),
    }
}

async fn replay(
    log: &impl CommitLog,
    opener: &mut FrameOpener,
    verifier: &mut Verifier,
) -> anyhow::Result<Option<Fault>> {
    let extent = log.extent().await.context("the log's ends cannot be read")?;
    verifier.begin(extent.first);
    let progress = Progress::start("reading the log");
    let mut behind_since: Option<Instant> = None;
    while verifier.checked.last < extent.last {
        let from = verifier.checked.last.next();
        let messages = match log.read(from, READ_BYTES).await {
            Ok(messages) => messages,
            Err(ReadError::Purged { wanted, first }) if wanted > extent.first => {
                return Ok(Some(Fault { seq: wanted, what: format!("it is missing: {first} follows") }));
            }
            Err(ReadError::Purged { first, .. }) => {
                anyhow::bail!("the log was purged up to {first} while it was read: try again");
            }
            Err(error) => return Err(error).context("the log cannot be read"),
        };
        if messages.is_empty() {
            if behind_since.get_or_insert_with(Instant::now).elapsed() > CATCH_UP_MAX {
                let what = format!("it cannot be read, but the stream says it ends at {}", extent.last);
                return Ok(Some(Fault { seq: from, what }));
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
            continue;
        }
        behind_since = None;
        for message in &messages {
            if let Err(fault) = verifier.check(opener, message) {
                return Ok(Some(fault));
            }
        }
        progress.say(format!("checked {} of {} commits", verifier.checked.last, extent.last));
    }
    Ok(None)
}

/// The chain so far, and what it was at the witness.
#[derive(Debug)]
struct Verifier {
    checked: Checked,
    witness: Option<Witness>,
    at_witness: Option<ChainHash>,
}

impl Verifier {
    fn new(witness: Option<Witness>) -> Verifier {
        let checked = Checked {
            first: Sequence(1),
            last: Sequence(0),
            chain: ChainHash::START,
            term: Term(0),
            events: 0,
            losses: Vec::new(),
            bridged: 0,
        };
        Verifier { checked, witness, at_witness: None }
    }

    fn begin(&mut self, first: Sequence) {
        self.checked.first = first;
        self.checked.last = Sequence(first.0.saturating_sub(1));
    }

    fn check(&mut self, opener: &mut FrameOpener, message: &Stored) -> Result<(), Fault> {
        let wanted = self.checked.last.next();
        if message.seq != wanted {
            return Err(Fault { seq: wanted, what: format!("it is missing: {} follows", message.seq) });
        }
        let fault = |what: String| Fault { seq: wanted, what };
        let mut previous = self.checked.chain;
        if wanted == self.checked.first && wanted > Sequence(1) {
            // What is before it was purged; its seal proves that this is the hash it was made to follow.
            previous = open_header(&message.body, wanted).map_err(|error| fault(error.to_string()))?.previous;
        }
        let commit = opener.open(&message.body, self.checked.last, previous).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            fault(format!("{error}{cause}"))
        })?;
        if commit.header.term < self.checked.term {
            let (term, seen) = (commit.header.term, self.checked.term);
            return Err(fault(format!("it is of term {term}, after one of term {seen}")));
        }
        self.checked.last = wanted;
        self.checked.chain = commit.chain;
        self.checked.term = commit.header.term;
        self.checked.events += commit.events.len() as u64;
        for envelope in commit.events {
            if let Event::LossAccepted(LossAccepted { log_end, witnessed }) = envelope.event {
                let by = envelope.by.map(|by| by.to_string());
                self.checked.losses.push(Loss { seq: wanted, at: envelope.at, by, log_end, witnessed });
            }
        }
        if self.witness.is_some_and(|witness| witness.seq == wanted) {
            self.at_witness = Some(commit.chain);
        }
        Ok(())
    }

    /// A commit that is kept in etcd until the stream takes it: part of the log all the same, unless the stream has it.
    fn cross(&mut self, opener: &mut FrameOpener, commit: &Stored) -> Result<(), Fault> {
        if commit.seq <= self.checked.last {
            return Ok(());
        }
        self.check(opener, commit)?;
        self.checked.bridged += 1;
        Ok(())
    }

    fn judge(&self) -> Option<Fault> {
        let lost = judge(self.witness, self.checked.last, |_| self.at_witness).err()?;
        let seq = match lost {
            LogLostAcknowledgedCommits::Missing { log_end, .. } => log_end.next(),
            LogLostAcknowledgedCommits::Replaced { witness, .. }
            | LogLostAcknowledgedCommits::FoundLost { witness, .. } => witness.seq,
        };
        Some(Fault { seq, what: lost.to_string() })
    }
}

fn as_json(checked: &Checked, witness: Option<Witness>, fault: Option<&Fault>) -> Value {
    json!({
        "first_seq": checked.first,
        "last_seq": checked.last,
        "term": checked.term,
        "events": checked.events,
        "bridged": checked.bridged,
        "chain": checked.chain.to_string(),
        "witness_seq": witness.map(|witness| witness.seq),
        "losses": checked.losses,
        "fault": fault.map(|fault| json!({"seq": fault.seq, "what": fault.what})),
    })
}

fn as_text(checked: &Checked, witness: Option<Witness>, fault: Option<&Fault>) -> String {
    let mut details = Details::new();
    let commits = checked.last.0.saturating_sub(checked.first.0.saturating_sub(1));
    details.line("Commits", format!("{commits} checked, {} to {}", checked.first, checked.last));
    if checked.first > Sequence(1) {
        details.line("", "what was before the first is purged; the chain is checked from there");
    }
    if checked.bridged > 0 {
        details.line("", format!("the last {} stand in etcd until the stream takes them", checked.bridged));
    }
    details.line("Events", checked.events);
    details.line("Term", checked.term);
    details.line("Chain", checked.chain);
    let seen = witness.map_or_else(|| "none yet".to_owned(), |witness| witness.seq.to_string());
    details.line("Witness", seen);
    for Loss { seq, at, by, log_end, witnessed } in &checked.losses {
        let (by, upto) = (by.as_deref().unwrap_or("nobody known"), witnessed.map_or("?".to_owned(), |w| w.to_string()));
        let text = format!("at {seq}, {at}, by {by}: the log ended at {log_end}, and {upto} had been acknowledged");
        details.line("Loss accepted", text);
    }
    details.line("Verdict", fault.map_or_else(|| "whole".to_owned(), |f| format!("bad at {}: {}", f.seq, f.what)));
    details.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::event::{Envelope, TermStarted};
    use outlive_store::frame::{Batch, FrameSealer, Place};
    use outlive_store::log::memory::MemoryLog;
    use outlive_store::seal::Key;

    fn barrier(term: Term) -> Envelope {
        let started = TermStarted {
            term,
            scheduler: "s".parse().expect("a name"),
            zone: "a".parse().expect("a zone"),
            version: "1".into(),
        };
        Envelope { at: Timestamp(1), by: None, event: Event::TermStarted(started) }
    }

    /// A log of one commit for each term.
    async fn log_of(key: &Key, terms: &[u64]) -> (MemoryLog, Vec<Witness>) {
        let log = MemoryLog::new();
        let mut sealer = FrameSealer::new(key);
        let mut heads = Vec::new();
        let (mut expected, mut previous) = (Sequence(0), ChainHash::START);
        for &term in terms {
            let mut batch = Batch::default();
            batch.push(&barrier(Term(term)));
            let place = Place { shard: 0, expected, term: Term(term), previous };
            let sealed = sealer.seal(place, &batch).expect("sealed");
            log.append(expected, sealed.body).await.expect("appended");
            (expected, previous) = (expected.next(), sealed.chain);
            heads.push(Witness { seq: expected, chain: previous });
        }
        (log, heads)
    }

    async fn verdict(log: &MemoryLog, key: &Key, witness: Option<Witness>) -> (Checked, Option<Fault>) {
        let mut verifier = Verifier::new(witness);
        let fault = replay(log, &mut FrameOpener::new([key]), &mut verifier).await.expect("readable");
        let fault = fault.or_else(|| verifier.judge());
        (verifier.checked, fault)
    }

    #[tokio::test]
    async fn a_whole_log_is_whole() {
        let key = Key::generate();
        let (log, heads) = log_of(&key, &[3, 3, 9]).await;
        let (checked, fault) = verdict(&log, &key, Some(heads[1])).await;
        assert_eq!(fault, None);
        assert_eq!((checked.first, checked.last, checked.events), (Sequence(1), Sequence(3), 3));
        assert_eq!(checked.chain, heads[2].chain);
        let (empty, fault) = verdict(&MemoryLog::new(), &key, None).await;
        assert_eq!((empty.last, fault), (Sequence(0), None));
    }

    #[tokio::test]
    async fn what_is_in_the_bridge_goes_on_from_the_stream() {
        let key = Key::generate();
        let (log, heads) = log_of(&key, &[3, 3, 3, 9]).await;
        let all = log.contents();
        log.lose_tail(Sequence(2));
        let mut opener = FrameOpener::new([&key]);
        let mut verifier = Verifier::new(Some(heads[3]));
        assert_eq!(replay(&log, &mut opener, &mut verifier).await.expect("readable"), None);
        let fault = verifier.cross(&mut opener, &all[3]).expect_err("the third is in neither place");
        assert_eq!(fault.seq, Sequence(3));
        for commit in &all[1..] {
            verifier.cross(&mut opener, commit).expect("it follows, or the stream has it");
        }
        assert_eq!(verifier.judge(), None);
        assert_eq!((verifier.checked.last, verifier.checked.bridged), (Sequence(4), 2));
    }

    #[tokio::test]
    async fn nobody_goes_on_from_a_late_commit_of_before_a_loss() {
        let key = Key::generate();
        let (log, heads) = log_of(&key, &[3, 3, 3, 3]).await;
        let late = log.contents()[3].body.clone();
        log.lose_tail(Sequence(2));
        let mut batch = Batch::default();
        batch.push(&barrier(Term(9)));
        let place = Place { shard: 0, expected: Sequence(2), term: Term(9), previous: heads[1].chain };
        let next = FrameSealer::new(&key).seal(place, &batch).expect("sealed");
        log.append(Sequence(2), next.body).await.expect("appended");
        follows_on(&log, &mut FrameOpener::new([&key])).await.expect("it goes on from what is left");
        // The log is as long again, and its sequence is all that is checked.
        log.append(Sequence(3), late).await.expect("appended");
        let why = follows_on(&log, &mut FrameOpener::new([&key])).await.expect_err("a broken chain").to_string();
        assert!(why.contains("commit 4"), "{why}");
    }

    #[tokio::test]
    async fn a_purged_log_is_checked_from_where_it_begins() {
        let key = Key::generate();
        let (log, heads) = log_of(&key, &[1, 2, 3]).await;
        log.purge_below(Sequence(2)).await.expect("purged");
        let (checked, fault) = verdict(&log, &key, Some(heads[2])).await;
        assert_eq!((checked.first, checked.last, fault), (Sequence(2), Sequence(3), None));
    }

    #[tokio::test]
    async fn the_first_altered_commit_is_named() {
        let key = Key::generate();
        let (log, _) = log_of(&key, &[1, 2, 3]).await;
        let mut body = log.contents()[1].body.to_vec();
        *body.last_mut().expect("a byte") ^= 1;
        log.replace(Sequence(2), body.into());
        let (checked, fault) = verdict(&log, &key, None).await;
        assert_eq!(checked.last, Sequence(1));
        assert_eq!(fault.expect("a fault").seq, Sequence(2));
    }

    #[tokio::test]
    async fn another_log_with_the_same_key_breaks_the_chain() {
        let key = Key::generate();
        let (log, _) = log_of(&key, &[1, 2, 3]).await;
        let (other, _) = log_of(&key, &[2, 2, 3]).await;
        log.replace(Sequence(3), other.contents()[2].body.clone());
        let (_, fault) = verdict(&log, &key, None).await;
        let fault = fault.expect("a fault");
        assert_eq!(fault.seq, Sequence(3));
        assert!(fault.what.contains("chain"), "{}", fault.what);
    }

    #[tokio::test]
    async fn a_falling_term_is_named() {
        let key = Key::generate();
        let (log, _) = log_of(&key, &[5, 4]).await;
        let (_, fault) = verdict(&log, &key, None).await;
        assert_eq!(fault.expect("a fault").seq, Sequence(2));
    }

    #[tokio::test]
    async fn a_lost_tail_is_noticed_by_the_witness() {
        let key = Key::generate();
        let (log, heads) = log_of(&key, &[1, 2, 3]).await;
        log.lose_tail(Sequence(1));
        let (_, fault) = verdict(&log, &key, Some(heads[2])).await;
        let fault = fault.expect("a fault");
        assert_eq!(fault.seq, Sequence(2), "the first that is missing");
        assert!(fault.what.contains("log_lost_acknowledged_commits"));
    }

    #[tokio::test]
    async fn a_log_that_was_replaced_is_noticed_by_the_witness() {
        let key = Key::generate();
        let (_, heads) = log_of(&key, &[1, 2, 3]).await;
        let (other, _) = log_of(&key, &[1, 1, 3]).await;
        let (_, fault) = verdict(&other, &key, Some(heads[1])).await;
        assert_eq!(fault.expect("a fault").seq, Sequence(2));
    }

    #[tokio::test]
    async fn the_wrong_key_is_named() {
        let (log, _) = log_of(&Key::generate(), &[1]).await;
        let (_, fault) = verdict(&log, &Key::generate(), None).await;
        assert!(fault.expect("a fault").what.contains("log key"));
    }
}
