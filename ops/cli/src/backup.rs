//! `outlive backup DIR`: a copy of the cluster as of one position of the log, while it runs; and `backup/restore.rs`.
//!
//! First the cluster is asked to collect nothing for a while, and asked again as long as the copy takes. Then blobs are
//! copied, and only then the position is chosen: what the log refers to there was stored before, so a second, short pass
//! over the blobs has all of it. Nothing is opened: what is sealed stays sealed, and the master key is not needed.

pub mod restore;

use crate::args::Global;
use crate::client::Client;
use crate::config;
use crate::connection;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, Output};
use crate::progress::Progress;
use anyhow::Context;
use clap::Args;
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::request::HoldRequest;
use outlive_schemas::time::Millis;
use outlive_schemas::view::Held;
use outlive_store::backup::pack::Written;
use outlive_store::backup::{BackupError, Directory, Kind, LogPoint, Record, Run, Source};
use outlive_store::frame::{ChainHash, open_header};
use outlive_store::nats::Nats;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  outlive --config outlive.toml backup /mnt/backup/outlive          all there is
  outlive --config outlive.toml backup /mnt/backup/outlive          once more: what is new since
  outlive --config outlive.toml backup --offline /mnt/backup/outlive

The directory holds nothing that can be read without the master key, which is not in it: keep that elsewhere. What a
job's deletion has destroyed is destroyed in the directory as well with the next backup into it.";

/// Nothing is collected for so long…
const HOLD: Millis = Millis::minutes(5);
/// …and it is asked for again so often.
const HOLD_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BackupArgs {
    /// Where to; made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// No scheduler runs, and none is to be started meanwhile
    #[arg(long)]
    offline: bool,
}

pub async fn run(args: BackupArgs, global: &Global) -> anyhow::Result<()> {
    let settings = config::load(global)?.settings;
    let mut directory = Directory::open_or_create(&args.directory, &settings.cluster.name).map_err(usable)?;
    let (client, _) = connection::open(global, Duration::from(global.request_timeout)).await?;
    let nats = Nats { jetstream: async_nats::jetstream::new(client.clone()), client };
    let run = if args.offline {
        copy(&nats, &mut directory).await?
    } else {
        let client = Client::connect(global).await?;
        hold(&client).await.context(
            "the scheduler cannot be asked to collect nothing meanwhile; if none runs, and none will, give --offline",
        )?;
        tokio::select! {
            copied = copy(&nats, &mut directory) => copied?,
            failed = hold_on(&client) => return Err(failed.context("collecting could not be held off any longer")),
        }
    };
    let sums = sums(&directory, run.number);
    match global.output {
        Output::Json => output::line(json!({"run": run, "added": sums.0, "added_bytes": sums.1}).to_string())?,
        Output::Table => output::line(format!(
            "backup {} holds the log up to commit {}, of term {}; {} messages and {} were added",
            run.number,
            run.log.seq,
            run.log.term,
            sums.0,
            human::size(sums.1)
        ))?,
    }
    Ok(())
}

/// A directory that cannot be used is the user's to put right.
fn usable(error: BackupError) -> anyhow::Error {
    let text = error.to_string();
    anyhow::Error::from(error).context(Failure::usage(text))
}

/// Messages and bytes that a run added.
fn sums(directory: &Directory, run: u32) -> (u64, u64) {
    let added = directory.all_files().iter().filter(|entry| entry.run == run && entry.kind != Kind::Alive);
    added.fold((0, 0), |(records, bytes), entry| (records + entry.records, bytes + entry.bytes))
}

async fn hold(client: &Client) -> anyhow::Result<()> {
    client.ask_system_with::<Held>("collection.hold", &HoldRequest { length: HOLD }).await.map(|_| ())
}

/// Goes on for as long as it works.
async fn hold_on(client: &Client) -> anyhow::Error {
    loop {
        tokio::time::sleep(HOLD_AGAIN).await;
        if let Err(error) = hold(client).await {
            return error;
        }
    }
}

async fn copy(nats: &Nats, directory: &mut Directory) -> anyhow::Result<Run> {
    let progress = Progress::start("copying");
    let before = directory.last_run().cloned();
    let number = directory.next_run();
    let mut files: Vec<(Kind, Written)> = Vec::new();

    let blobs = Source::blobs(nats);
    let mut pack = directory.writer(Kind::Blobs)?;
    let mut next = before.as_ref().map_or(1, |run| run.blobs_end + 1);
    // Twice: the first takes long, the second catches what was stored meanwhile.
    let mut log_end = 0;
    for pass in ["blobs", "what was stored meanwhile"] {
        let (_, end) = blobs.extent().await?;
        each(&blobs, next, end, |record| {
            progress.say(format!("copying {pass}: {} of {end}", record.seq));
            pack.push(&record)
        })
        .await?;
        next = next.max(end + 1);
        if log_end == 0 {
            (_, log_end) = Source::log(nats).extent().await?;
        }
    }
    files.push((Kind::Blobs, pack.finish()?));
    let blobs_end = next - 1;

    progress.say("copying keys");
    let mut pack = directory.writer(Kind::Keys)?;
    let keys = Source::keys(nats);
    each(&keys, 1, keys.extent().await?.1, |record| pack.push(&record)).await?;
    files.push((Kind::Keys, pack.finish()?));

    let output = Source::output(nats);
    let (_, output_end) = output.extent().await?;
    let mut pack = directory.writer(Kind::Output)?;
    let from = before.as_ref().map_or(1, |run| run.output_end + 1);
    each(&output, from, output_end, |record| {
        progress.say(format!("copying jobs' output: {} of {output_end}", record.seq));
        pack.push(&record)
    })
    .await?;
    files.push((Kind::Output, pack.finish()?));

    let (point, written) = copy_log(nats, directory, log_end, &progress).await?;
    files.push((Kind::Log, written));

    progress.say("listing what is there");
    let mut pack = directory.writer(Kind::Alive)?;
    for subject in blobs.subjects().await? {
        pack.push(&Record { seq: 0, at_ms: 0, subject, body: Vec::new() })?;
    }
    files.push((Kind::Alive, pack.finish()?));

    let version = env!("CARGO_PKG_VERSION").to_owned();
    let run = Run { number, at: human::now(), version, log: point, blobs_end, output_end };
    directory.commit(run.clone(), files)?;
    Ok(run)
}

async fn each(
    source: &Source,
    from: u64,
    to: u64,
    mut take: impl FnMut(Record) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let mut next = from;
    while next <= to {
        let records = source.read(next, to).await?;
        let Some(last) = records.last() else { return Ok(()) };
        next = last.seq + 1;
        records.into_iter().try_for_each(&mut take)?;
    }
    Ok(())
}

/// Copies the log up to its end, and follows the chain on the way: that takes no key.
async fn copy_log(
    nats: &Nats,
    directory: &Directory,
    end: u64,
    progress: &Progress,
) -> anyhow::Result<(LogPoint, Written)> {
    let source = Source::log(nats);
    let (first, _) = source.extent().await?;
    let before = directory.last_run().map(|run| run.log);
    let mut chain = ChainFollower::new(before);
    let next = chain.next(first)?;
    if end + 1 < next {
        // The log is shorter than what was copied of it.
        return Err(BackupError::AnotherLog { at: Sequence(end) }.into());
    }
    let mut pack = directory.writer(Kind::Log)?;
    each(&source, next, end, |record| {
        chain.take(&record)?;
        progress.say(format!("copying the log: {} of {end}", record.seq));
        pack.push(&record)
    })
    .await?;
    let point = chain.point();
    if point.seq.0 != end {
        anyhow::bail!("the log could be read up to {} only, and it ends at {end}: try again", point.seq);
    }
    Ok((point, pack.finish()?))
}

/// Where the chain is, by the clear part of each commit.
pub(super) struct ChainFollower {
    point: Option<LogPoint>,
}

impl ChainFollower {
    pub fn new(before: Option<LogPoint>) -> ChainFollower {
        ChainFollower { point: before }
    }

    /// The commit to go on with in a log that begins at `first`.
    fn next(&self, first: u64) -> Result<u64, BackupError> {
        match self.point {
            None => Ok(first),
            Some(point) if first > point.seq.0 + 1 => Err(BackupError::Gap { first: Sequence(first), end: point.seq }),
            Some(point) => Ok(point.seq.0 + 1),
        }
    }

    pub fn take(&mut self, record: &Record) -> Result<(), BackupError> {
        let at = Sequence(record.seq);
        let broken = |_| BackupError::AnotherLog { at };
        let header = open_header(&record.body, at).map_err(broken)?;
        // The first of a log that was purged is taken at its word; every other has to follow.
        let point = self.point.unwrap_or(LogPoint { seq: header.expected, chain: header.previous.0, term: Term(0) });
        if header.expected.next() != at || point.seq != header.expected || point.chain != header.previous.0 {
            return Err(BackupError::AnotherLog { at });
        }
        let chain = ChainHash(point.chain).then(&record.body).0;
        self.point = Some(LogPoint { seq: at, chain, term: point.term.max(header.term) });
        Ok(())
    }

    pub fn point(&self) -> LogPoint {
        self.point.unwrap_or(LogPoint { seq: Sequence(0), chain: ChainHash::START.0, term: Term(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::event::{CollectionHeld, Envelope, Event};
    use outlive_schemas::time::Timestamp;
    use outlive_store::frame::{Place, seal_commit};
    use outlive_store::seal::Key;

    fn log(key: &Key, terms: &[u64]) -> Vec<Record> {
        let (mut previous, mut records) = (ChainHash::START, Vec::new());
        for (expected, term) in (0..).zip(terms) {
            let event = Event::CollectionHeld(CollectionHeld { until: Timestamp(1) });
            let place = Place { shard: 0, expected: Sequence(expected), term: Term(*term), previous };
            let sealed = seal_commit(key, place, &[Envelope { at: Timestamp(1), by: None, event }]).expect("sealed");
            previous = sealed.chain;
            let (subject, body) = ("outlive.log.0".to_owned(), sealed.body.to_vec());
            records.push(Record { seq: expected + 1, at_ms: 1, subject, body });
        }
        records
    }

    #[test]
    fn the_chain_is_followed_without_a_key() {
        let key = Key::generate();
        let records = log(&key, &[1, 1, 5]);
        let mut chain = ChainFollower::new(None);
        records.iter().for_each(|record| chain.take(record).expect("it follows"));
        assert_eq!((chain.point().seq, chain.point().term), (Sequence(3), Term(5)));
        // A second run goes on from there; one of another log does not.
        let more = log(&key, &[1, 1, 5, 6]);
        let mut chain = ChainFollower::new(Some(chain.point()));
        assert_eq!(chain.next(1).expect("it is there"), 4);
        chain.take(&more[3]).expect("it follows");
        let other = log(&key, &[2, 2, 5, 6, 6]);
        assert!(matches!(chain.take(&other[4]), Err(BackupError::AnotherLog { at: Sequence(5) })));
        assert!(matches!(chain.next(9), Err(BackupError::Gap { first: Sequence(9), end: Sequence(4) })));
    }

    #[test]
    fn a_purged_log_is_followed_from_where_it_begins() {
        let records = log(&Key::generate(), &[1, 2, 3]);
        let mut chain = ChainFollower::new(None);
        chain.take(&records[1]).expect("the first that there is");
        chain.take(&records[2]).expect("it follows");
        let mut chain = ChainFollower::new(None);
        chain.take(&records[0]).expect("the first");
        assert!(chain.take(&records[2]).is_err(), "one is missing");
    }
}
