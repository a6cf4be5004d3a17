//! `outlive restore DIR`: a backup into an empty cluster, whole or up to a position.
//!
//! Nobody may lead half of it: so the witness is written first, and a scheduler that starts meanwhile finds a log that
//! ends before its witness, and refuses. Terms begin a new generation, above all that the log has seen and all that the
//! old cluster may have seen since; executors of the old cluster that turn up know a lower one, and begin anew. The log
//! goes in last, every commit where it stood. A restore that was stopped half-way is done again and goes on.

use super::{ChainFollower, usable};
use crate::args::Global;
use crate::config;
use crate::connection;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::progress::Progress;
use anyhow::Context;
use clap::Args;
use outlive_schemas::id::Sequence;
use outlive_schemas::subject;
use outlive_schemas::time::Timestamp;
use outlive_store::backup::{BackupError, Directory, FileEntry, Kind, LogPoint, Record, Source, Target};
use outlive_store::blob::{JetStreamBlobs, blob_stream};
use outlive_store::etcd;
use outlive_store::frame::ChainHash;
use outlive_store::job_log::{JetStreamJobLogs, JobLogLimits};
use outlive_store::key_store::{FIRST_EPOCH, KeyStreamConfig};
use outlive_store::keyring::Keyring;
use outlive_store::leadership::{EtcdLeadership, Leadership, LeadershipError, TTL_DEFAULT};
use outlive_store::log::jetstream::{check_stream, stream_config};
use outlive_store::nats::{Nats, ensure_stream};
use outlive_store::witness::Witness;
use serde_json::json;
use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  outlive --config outlive.toml restore /mnt/backup/outlive
  outlive --config outlive.toml restore /mnt/backup/outlive --at 120000
  outlive --config outlive.toml restore /mnt/backup/outlive --at 2026-01-01T00:00:00Z

Into new nats-servers and a new etcd, before any scheduler is started, with the master key of the old cluster in
keys.files. Stop the old cluster first: what ran there starts again here from its checkpoints.

At a position between two backups the log is exact; of a checkpoint that came and went between them the data may not be
there, and such a job goes on from an older one or says that it cannot.";

/// Messages held at once.
const BATCH: usize = 1_024;
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// A position in the log, as an operator gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Commit(Sequence),
    /// The last commit that was stored by then.
    Time(Timestamp),
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<At, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(|seq| At::Commit(Sequence(seq))).map_err(|error| format!("`{text}`: {error}"));
        }
        Timestamp::parse(text).map(At::Time).map_err(|error| format!("neither a commit's number nor a time: {error}"))
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RestoreArgs {
    /// What `outlive backup` wrote
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Up to this commit, or to the last one before this time [default: all]
    #[arg(long, value_name = "SEQUENCE|TIME")]
    at: Option<At>,
}

pub async fn run(args: RestoreArgs, global: &Global) -> anyhow::Result<()> {
    let settings = config::load(global)?.settings;
    let keyring = Keyring::load(&settings.keys)
        .context(Failure::usage("what is restored could not be read without its master key"))?;
    let directory = Directory::open(&args.directory).map_err(usable)?;
    if directory.cluster() != settings.cluster.name {
        let (found, wanted) = (directory.cluster().to_owned(), settings.cluster.name.clone());
        return Err(usable(BackupError::AnotherCluster { found, wanted }));
    }
    let progress = Progress::start("checking the backup");
    for entry in directory.all_files() {
        progress.say(format!("checking {}", entry.name));
        directory.check(entry).map_err(usable)?;
    }
    let plan = Plan::of(&directory, args.at, &keyring)?;

    let (client, _) = connection::open(global, Duration::from(global.request_timeout)).await?;
    let nats = Nats { jetstream: async_nats::jetstream::new(client.clone()), client };
    let etcd = etcd::connect(&settings.etcd).await.context(Failure::Unavailable("etcd cannot be used".to_owned()))?;
    let leadership = EtcdLeadership::new(&etcd, &settings.cluster.name, TTL_DEFAULT);
    begin(&leadership, &nats, &plan).await?;
    streams(&nats, &settings, &plan).await?;
    fill(&nats, &directory, &plan, &progress).await?;
    progress.clear();

    let (_, end) = Source::log(&nats).extent().await?;
    if end != plan.point.seq.0 {
        anyhow::bail!("the restored log ends at {end} and not at {}: do it again", plan.point.seq);
    }
    let missing = plan.alive.len() as u64 - plan.found;
    match global.output {
        Output::Json => output::line(
            json!({"log_end": plan.point.seq, "term_seen": plan.point.term, "blobs": plan.found, "missing": missing})
                .to_string(),
        )?,
        Output::Table => output::line(format!(
            "the log is restored up to commit {}, with {} blobs; start the schedulers and executors now",
            plan.point.seq, plan.found
        ))?,
    }
    Ok(())
}

/// What is restored of a directory.
#[derive(Debug)]
struct Plan {
    point: LogPoint,
    /// When the last commit was stored.
    at: Timestamp,
    first: Sequence,
    /// Subjects of the blobs that belong there…
    alive: HashSet<String>,
    /// …and how many of them the directory holds.
    found: u64,
}

impl Plan {
    fn of(directory: &Directory, at: Option<At>, keyring: &Keyring) -> anyhow::Result<Plan> {
        the_master_key_fits(directory, keyring)?;
        let end = directory.last_run().map_or(Sequence(0), |run| run.log.seq);
        let first = directory.log_first();
        if let Some(At::Commit(seq)) = at
            && (seq > end || seq.next() <= first)
        {
            return Err(Failure::usage(format!("the backup holds commits {first} to {end}, and not {seq}")).into());
        }
        let mut chain = ChainFollower::new(None);
        let mut last_at = 0;
        each(directory, Kind::Log, |record| {
            let wanted = match at {
                None => true,
                Some(At::Commit(seq)) => record.seq <= seq.0,
                Some(At::Time(time)) => record.at_ms <= time.0,
            };
            if wanted {
                chain.take(record)?;
                last_at = record.at_ms;
            }
            Ok(wanted)
        })
        .map_err(usable)?;
        let point = chain.point();
        if let Some(At::Time(time)) = at
            && point.seq == Sequence(0)
        {
            return Err(Failure::usage(format!("the backup holds nothing of before {time}")).into());
        }
        let alive = alive(directory, point.seq)?;
        let mut held = HashSet::new();
        each(directory, Kind::Blobs, |record| {
            if alive.contains(&record.subject) {
                held.insert(record.subject.clone());
            }
            Ok(true)
        })?;
        let plan = Plan { point, at: Timestamp(last_at), first, found: held.len() as u64, alive };
        let reaches = |subject: &String| image_at(subject).is_some_and(|seq| seq.next() >= first);
        if first > Sequence(1) && !held.iter().any(reaches) {
            return Err(Failure::usage(format!(
                "the log in this backup begins at {first}, and it holds no image that reaches that far and not beyond \
                 {}: choose a later position",
                plan.point.seq
            ))
            .into());
        }
        Ok(plan)
    }
}

/// Found out now, and not by a scheduler when everything is written.
fn the_master_key_fits(directory: &Directory, keyring: &Keyring) -> anyhow::Result<()> {
    let name = subject::log_key(FIRST_EPOCH);
    let mut wrapped = None;
    each(directory, Kind::Keys, |record| {
        if record.subject == name {
            wrapped = Some(record.body.clone());
        }
        Ok(true)
    })?;
    let wrapped = wrapped.context("the backup holds no key of the log")?;
    let unwrapped = keyring.unwrap(name.as_bytes(), &wrapped);
    unwrapped.map(|_| ()).context(Failure::usage("the master keys in keys.files are not those of the backup"))
}

/// What there was at a position: by the lists of the runs around it. An image of a later position is none of it.
fn alive(directory: &Directory, at: Sequence) -> anyhow::Result<HashSet<String>> {
    let before = directory.runs().iter().rfind(|run| run.log.seq <= at).map(|run| run.number);
    let after = directory.runs().iter().find(|run| run.log.seq >= at).map(|run| run.number);
    let mut alive = HashSet::new();
    for entry in directory.files(Kind::Alive).filter(|entry| [before, after].contains(&Some(entry.run))) {
        read(directory, entry, &mut |record| {
            if image_at(&record.subject).is_none_or(|seq| seq <= at) {
                alive.insert(record.subject.clone());
            }
            Ok(true)
        })?;
    }
    Ok(alive)
}

/// The position of an image, or of a piece of one, by its subject.
fn image_at(subject: &str) -> Option<Sequence> {
    let name = subject.strip_prefix("outlive.blob.imagehead.").or(subject.strip_prefix("outlive.blob.image."))?;
    u64::from_str_radix(name.get(..16)?, 16).ok().map(Sequence)
}

/// Gives every record of a kind to `take`, until it has had enough.
fn each(
    directory: &Directory,
    kind: Kind,
    mut take: impl FnMut(&Record) -> Result<bool, BackupError>,
) -> Result<(), BackupError> {
    for entry in directory.files(kind) {
        if !read(directory, entry, &mut take)? {
            break;
        }
    }
    Ok(())
}

fn read(
    directory: &Directory,
    entry: &FileEntry,
    take: &mut impl FnMut(&Record) -> Result<bool, BackupError>,
) -> Result<bool, BackupError> {
    let mut reader = directory.reader(entry)?;
    while let Some(record) = reader.read()? {
        if !take(&record)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes sure that the cluster is empty, or that an earlier try of this very restore has begun there, and that nobody
/// leads it before all of it is there.
async fn begin(leadership: &EtcdLeadership, nats: &Nats, plan: &Plan) -> anyhow::Result<()> {
    let witness = Witness { seq: plan.point.seq, chain: ChainHash(plan.point.chain) }.encode();
    let found = leadership.read_witness().await.context("the witness cannot be read")?;
    let begun = found.as_ref() == Some(&witness);
    let not_empty = |what: &str| {
        Failure::usage(format!(
            "the cluster is not empty: {what}. A backup is restored into new nats-servers and a new etcd, before any \
             scheduler is started"
        ))
    };
    if found.is_some() && !begun {
        return Err(not_empty("etcd holds a witness of another log").into());
    }
    if let Ok(mut stream) = nats.jetstream.get_stream(subject::LOG_STREAM).await {
        let state = &stream.info().await.context("the log's stream cannot be asked")?.state;
        if state.last_sequence > 0 && !begun {
            return Err(not_empty(&format!("its log ends at {}", state.last_sequence)).into());
        }
    }
    match leadership.begin_generation(plan.point.term).await {
        Ok(_) => {}
        Err(held @ LeadershipError::Held { .. }) => return Err(not_empty(&held.to_string()).into()),
        Err(error) => return Err(error).context("a new generation of terms cannot be begun"),
    }
    leadership.overwrite_witness(witness).await.context("the witness cannot be written")
}

/// As a scheduler would make them, but that the log begins where it begins in the backup.
async fn streams(nats: &Nats, settings: &config::Settings, plan: &Plan) -> anyhow::Result<()> {
    let replicas = settings.log.replicas;
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut log = stream_config(replicas, bytes(settings.log.max_bytes.0));
    log.first_sequence = Some(plan.first.0).filter(|first| *first > 1);
    ensure_stream(&nats.jetstream, log, |found| check_stream(found).map_err(|e| e.to_string())).await?;
    ensure_stream(&nats.jetstream, KeyStreamConfig { replicas }.into(), |_| Ok(())).await?;
    JetStreamBlobs::ensure(nats, blob_stream(replicas, Some(bytes(settings.blobs.max_bytes.0)))).await?;
    let kept = JobLogLimits {
        bytes_max: bytes(settings.blobs.job_logs_max_bytes.0),
        age_max: settings.retention.output_for.into(),
    };
    JetStreamJobLogs::ensure(nats, replicas, kept).await?;
    Ok(())
}

async fn fill(nats: &Nats, directory: &Directory, plan: &Plan, progress: &Progress) -> anyhow::Result<()> {
    progress.say("restoring keys");
    let keys = Target::keys(nats);
    batches(directory, Kind::Keys, |_| true, async |records| keys.put_once(records).await).await?;

    let blobs = Target::blobs(nats);
    let mut done = 0;
    batches(
        directory,
        Kind::Blobs,
        |record| plan.alive.contains(&record.subject),
        async |records| {
            done += records.len();
            progress.say(format!("restoring blobs: {done} of {}", plan.found));
            blobs.put_once(records).await
        },
    )
    .await?;

    // Output that is there came in by an earlier try, which did not get to its end: what is repeated is known for two
    // minutes only, so it begins anew.
    let output = Target::output(nats);
    let there = Source::output(nats).extent().await?;
    if there.1 >= there.0 {
        let stream = nats.jetstream.get_stream(subject::JOB_LOG_STREAM).await.context("jobs' output")?;
        stream.purge().await.context("jobs' output of an earlier try cannot be removed")?;
    }
    batches(
        directory,
        Kind::Output,
        |record| record.at_ms <= plan.at.0,
        async |records| {
            progress.say(format!("restoring jobs' output: {}", records.last().map_or(0, |record| record.seq)));
            output.append(records).await
        },
    )
    .await?;

    let log = Target::log(nats);
    let (_, there) = Source::log(nats).extent().await?;
    let wanted = |record: &Record| record.seq > there && record.seq <= plan.point.seq.0;
    batches(directory, Kind::Log, wanted, async |records| {
        let last = records.last().map_or(0, |record| record.seq);
        progress.say(format!("restoring the log: {last} of {}", plan.point.seq));
        log.append_commits(&records).await
    })
    .await
}

/// Gives what is wanted of a kind to `take`, so many at a time.
async fn batches(
    directory: &Directory,
    kind: Kind,
    wanted: impl Fn(&Record) -> bool,
    mut take: impl AsyncFnMut(Vec<Record>) -> Result<(), BackupError>,
) -> anyhow::Result<()> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for entry in directory.files(kind) {
        let mut reader = directory.reader(entry)?;
        while let Some(record) = reader.read()? {
            if !wanted(&record) {
                continue;
            }
            bytes += record.body.len();
            batch.push(record);
            if batch.len() >= BATCH || bytes >= BATCH_BYTES {
                take(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
    }
    if !batch.is_empty() {
        take(batch).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_number_or_a_time() {
        assert_eq!("120".parse(), Ok(At::Commit(Sequence(120))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(At::Time(Timestamp(1_000))));
        for odd in ["yesterday", "-3", "12x", "99999999999999999999999"] {
            assert!(odd.parse::<At>().is_err(), "{odd}");
        }
    }

    #[test]
    fn an_images_position_is_in_its_name() {
        let name = format!("{:016x}{}", 700, "0".repeat(48));
        assert_eq!(image_at(&format!("outlive.blob.imagehead.{name}")), Some(Sequence(700)));
        assert_eq!(image_at(&format!("outlive.blob.image.{name}")), Some(Sequence(700)));
        assert_eq!(image_at(&format!("outlive.blob.job.0197.{name}")), None);
        assert_eq!(image_at("outlive.blob.image.xyz"), None);
    }
}
