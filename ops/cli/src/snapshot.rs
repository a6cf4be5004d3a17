//! `outlive snapshot`: named versions of a job's state.

mod export;
mod import;

use crate::args::Global;
use crate::client::{Client, new_request_id};
use crate::config;
use crate::connection;
use crate::failure::Failure;
use crate::human::{self, relative, size};
use crate::job::Job;
use crate::output::{self, Details, Output, Table};
use crate::progress::Progress;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use outlive_schemas::id::{JobRef, SnapshotName};
use outlive_schemas::limits;
use outlive_schemas::snapshot::{
    SnapshotDeleteRequest, SnapshotListRequest, SnapshotRequest, SnapshotStatus, SnapshotView,
};
use outlive_schemas::time::Timestamp;
use outlive_store::blob::JetStreamBlobs;
use outlive_store::key_store::JetStreamKeys;
use outlive_store::keyring::Keyring;
use outlive_store::nats::Nats;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot of a running job, and wait until it is ready
    Create(CreateArgs),
    /// Show a snapshot
    Get(GetArgs),
    /// List a job's snapshots, newest first
    List(ListArgs),
    /// Delete a snapshot
    Delete(DeleteArgs),
    /// Write a snapshot into a file, sealed, for another cluster
    Export(export::ExportArgs),
    /// Give a stopped job of this cluster a snapshot from a file
    Import(import::ImportArgs),
}

/// The snapshot that a command is about.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    job: Job,
    /// The snapshot's name
    #[arg(value_name = "NAME")]
    name: SnapshotName,
}

impl Which {
    fn request(&self) -> SnapshotRequest {
        SnapshotRequest { job: self.job.job.clone(), name: self.name.clone() }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive snapshot create counter before-the-migration
  outlive snapshot create counter nightly --no-wait")]
pub struct CreateArgs {
    #[command(flatten)]
    which: Which,
    /// Return at once, while it is being created
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive snapshot get counter before-the-migration")]
pub struct GetArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive snapshot list counter\n  outlive snapshot list counter --limit 10")]
pub struct ListArgs {
    #[command(flatten)]
    job: Job,
    /// At most so many [default: all]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive snapshot delete counter before-the-migration")]
pub struct DeleteArgs {
    #[command(flatten)]
    which: Which,
    /// Refuse unless it was created at exactly this time [default: whenever it was]
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    created_at: Option<Timestamp>,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

/// What exporting and importing go past the scheduler for.
struct Stores {
    cluster: String,
    keyring: Arc<Keyring>,
    keys: JetStreamKeys,
    blobs: Arc<JetStreamBlobs>,
}

impl Stores {
    async fn open(global: &Global) -> anyhow::Result<Stores> {
        let settings = config::load(global)?.settings;
        let keyring = Keyring::load(&settings.keys);
        let keyring = Arc::new(keyring.context(Failure::usage("a snapshot cannot be opened without a master key"))?);
        let (client, _) = connection::open(global, Duration::from(global.request_timeout)).await?;
        let nats = Nats { jetstream: async_nats::jetstream::new(client.clone()), client };
        let blobs = Arc::new(JetStreamBlobs::attach(&nats).await.context("the blob store cannot be used")?);
        let keys = JetStreamKeys::new(nats.jetstream, keyring.clone());
        Ok(Stores { cluster: settings.cluster.name, keyring, keys, blobs })
    }
}

/// Between two looks at a snapshot that is being created.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub async fn run(command: SnapshotCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        SnapshotCommand::Create(args) => create(args, global).await,
        SnapshotCommand::Get(args) => get(args, global).await,
        SnapshotCommand::List(args) => list(args, global).await,
        SnapshotCommand::Delete(args) => delete(args, global).await,
        SnapshotCommand::Export(args) => export::run(args, global).await,
        SnapshotCommand::Import(args) => import::run(args, global).await,
    }
}

async fn create(args: CreateArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let request = args.which.request();
    let mut reply = client.change::<SnapshotView>("snapshot.create", &request, &new_request_id()).await?;
    if !args.no_wait {
        let progress = Progress::start(format!("waiting for snapshot {}", request.name));
        // By its id, for a name may mean another job meanwhile.
        let request = SnapshotRequest { job: JobRef::Id(reply.body.job), name: request.name };
        while reply.body.status == SnapshotStatus::Creating {
            tokio::time::sleep(LOOK_EVERY).await;
            reply = client.ask("snapshot.get", &request).await?;
        }
        drop(progress);
    }
    show(&reply.raw, &reply.body, global)?;
    match reply.body.status {
        SnapshotStatus::Failed => {
            let error = reply.body.error.as_deref().unwrap_or("no reason was given");
            Err(Failure::JobFailed(format!("snapshot {} failed: {error}", reply.body.name)).into())
        }
        _ => Ok(()),
    }
}

async fn get(args: GetArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let reply = client.ask::<SnapshotView>("snapshot.get", &args.which.request()).await?;
    show(&reply.raw, &reply.body, global)
}

fn show(raw: &[u8], view: &SnapshotView, global: &Global) -> anyhow::Result<()> {
    match global.output {
        Output::Json => output::line(raw)?,
        Output::Table => output::line(details(view, human::now()).render())?,
    }
    Ok(())
}

async fn list(args: ListArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let limit = args.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Err(Failure::usage("--limit is 0: give 1 or more, or leave it out for all").into());
    }
    let mut request = SnapshotListRequest { job: args.job.job, limit: None, cursor: None };
    let mut snapshots: Vec<Value> = Vec::new();
    loop {
        request.limit = Some((limit - snapshots.len()).min(limits::SNAPSHOTS_LIMIT_MAX));
        let mut page = client.ask::<Value>("snapshot.list", &request).await?.body;
        if let Some(Value::Array(found)) = page.get_mut("snapshots").map(Value::take) {
            snapshots.extend(found);
        }
        request.cursor = page.get("cursor").and_then(Value::as_str).map(str::to_owned);
        if request.cursor.is_none() || snapshots.len() >= limit {
            break;
        }
    }
    match global.output {
        Output::Json => output::line(json!({"snapshots": snapshots, "cursor": request.cursor}).to_string())?,
        Output::Table => {
            let views = snapshots.into_iter().map(serde_json::from_value).collect::<Result<Vec<SnapshotView>, _>>()?;
            output::line(table(&views, human::now()).render())?;
            if request.cursor.is_some() {
                eprintln!("There may be more: give a larger --limit.");
            }
        }
    }
    Ok(())
}

async fn delete(args: DeleteArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let request = args.which.request();
    let created_at = match args.created_at {
        Some(at) => at,
        None => client.ask::<SnapshotView>("snapshot.get", &request).await?.body.created_at,
    };
    let request = SnapshotDeleteRequest { job: request.job, name: request.name, created_at };
    let reply = client.change::<SnapshotView>("snapshot.delete", &request, &new_request_id()).await?;
    show(&reply.raw, &reply.body, global)
}

fn details(view: &SnapshotView, now: Timestamp) -> Details {
    let when = |at: Timestamp| format!("{at} ({})", relative(at, now));
    let mut details = Details::new();
    details.line("Name", &view.name);
    details.line("Job", view.job);
    details.line("Job version", view.job_version);
    details.line("Status", view.status);
    details.maybe("Error", view.error.as_ref());
    details.line("Asked for by", view.initiator.as_str());
    details.line("Created", when(view.created_at));
    details.maybe("Ready", view.ready_at.map(when));
    details.maybe("Size", view.size_bytes.map(size));
    details
}

fn table(views: &[SnapshotView], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "STATUS", "CREATED", "SIZE", "VERSION", "BY", "ERROR"]);
    for view in views {
        table.row(vec![
            output::cell(&view.name),
            output::cell(view.status),
            output::cell(relative(view.created_at, now)),
            output::maybe(view.size_bytes.map(size)),
            output::cell(view.job_version),
            output::cell(view.initiator.as_str()),
            output::maybe(view.error.as_ref()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_snapshot_and_all_of_one() {
        let (id, at) = ("0197f3c8-0000-7000-8000-000000000001", "2026-01-01T00:00:00.000Z");
        let views: Vec<SnapshotView> = serde_json::from_value(json!([
            {"job": id, "name": "b", "status": "failed", "created_at": at, "ready_at": null, "size_bytes": null,
                "job_version": 1, "initiator": "user", "error": "disk full"},
            {"job": id, "name": "system-stop-1", "status": "ready", "created_at": at, "ready_at": at,
                "size_bytes": 4096, "job_version": 2, "initiator": "system", "error": null},
        ]))
        .expect("views");
        let now = Timestamp::parse("2026-01-01T00:01:00Z").expect("a time");
        assert_eq!(
            table(&views, now).render(),
            "\
NAME           STATUS  CREATED  SIZE     VERSION  BY      ERROR
b              failed  1m ago   -        1        user    disk full
system-stop-1  ready   1m ago   4.0 KiB  2        system  -"
        );
        assert!(details(&views[0], now).render().contains("Error         disk full"));
    }
}
