//! `outlive snapshot import`: a snapshot from a file.
//!
//! The file is read to its end, every seal of it opened, before the cluster hears of it. Then the import is begun,
//! which keeps what is put from being collected, and goes on for as long as the leader is told that it does; and it is
//! ended once everything is stored. One that was broken off is the same import when the same file is imported again
//! soon.

use super::{Stores, show};
use crate::args::Global;
use crate::client::{Client, Reply, new_request_id};
use crate::failure::Failure;
use crate::human;
use crate::job::Job;
use crate::progress::Progress;
use anyhow::Context as _;
use clap::Args;
use outlive_executor::snapshot_file::{self, Checked, Target};
use outlive_schemas::error::ErrorCode;
use outlive_schemas::id::{JobRef, SnapshotName};
use outlive_schemas::limits;
use outlive_schemas::snapshot::{
    ImportedContent, SnapshotImportRequest, SnapshotPlace, SnapshotRequest, SnapshotStatus, SnapshotView,
};
use outlive_store::blob::{BlobStore as _, Owner};
use outlive_store::key_store::KeyStore as _;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  outlive --config outlive.toml job stop counter
  outlive --config outlive.toml snapshot import counter counter.snapshot
  outlive --config outlive.toml job start counter --snapshot before-the-migration

The job has to be there, and to be stopped; it need not have anything to do with the one that was exported. The file
opens with the master key under which it was exported: name its file in keys.files, behind this cluster's own. What is
imported is sealed anew under the key of the job that gets it.

A file that was cut short, altered or put together is refused before anything is changed. If an import is broken off,
import the same file again. A minute later its snapshot has failed: then delete that first.

Needs a configuration with keys.files, and a NATS user that may read and write the key and blob streams.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    #[command(flatten)]
    job: Job,
    /// What `outlive snapshot export` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the snapshot is to be called [default: as it was called]
    #[arg(long, value_name = "NAME")]
    name: Option<SnapshotName>,
}

pub async fn run(args: ImportArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let stores = Stores::open(global).await?;
    let progress = Progress::start("checking the file");
    let checked = check(&args, &stores).await?;
    let name = args.name.clone().unwrap_or_else(|| checked.about.name.clone());
    if name.is_reserved() {
        let text = format!("{name} is a name of Outlive's own: give the snapshot another, with --name");
        return Err(Failure::usage(text).into());
    }

    let request = SnapshotImportRequest { job: args.job.job.clone(), name: name.clone(), content: None };
    let request_id = format!("import-{}-{name}", checked.file);
    let begun = client.change::<SnapshotView>("snapshot.import", &request, &request_id).await?;
    let view = begun.body;
    if view.status != SnapshotStatus::Creating {
        return shown(&begun.raw, &view, progress, global);
    }
    // By its id from now on, for a name may mean another job meanwhile.
    let job = JobRef::Id(view.job);
    let place = SnapshotRequest { job: job.clone(), name: name.clone() };
    let place = client.ask::<SnapshotPlace>("snapshot.locate", &place).await?.body;
    let key = stores.keys.job_key(view.job).await.context("the job's key cannot be had")?;
    progress.say(format!("importing {}", human::size(checked.size_bytes)));
    let target = Target::new(stores.blobs.clone(), view.job, &key, place.retained).await?;
    let file = File::open(&args.file).with_context(|| format!("{} cannot be read", args.file.display()))?;
    let sign = SnapshotImportRequest { job: job.clone(), name: name.clone(), content: None };
    let taken = tokio::select! {
        taken = snapshot_file::import(file, &stores.keyring, &target) => {
            taken.with_context(|| format!("{} was not imported", args.file.display()))?
        }
        over = say_that_it_goes_on(&client, &sign, &request_id) => return shown(&over.raw, &over.body, progress, global),
    };
    let content = Some(ImportedContent { created_at: view.created_at, taken });
    let request = SnapshotImportRequest { job, name, content };
    match client.change::<SnapshotView>("snapshot.import", &request, &new_request_id()).await {
        Ok(ended) => shown(&ended.raw, &ended.body, progress, global),
        Err(error) => {
            if let Some(Failure::Refused(rejection)) = error.downcast_ref()
                && rejection.code == ErrorCode::NotFound
            {
                // The job was deleted meanwhile, and nobody else would ever remove what was put of it since.
                stores.blobs.delete_all(Owner::Job(view.job)).await.context("what was put cannot be removed")?;
                stores.keys.forget_job(view.job).await.context("the key cannot be removed")?;
            }
            Err(error)
        }
    }
}

/// Repeats how the import began, which tells the leader that it goes on. Ends when the leader says that it does not.
async fn say_that_it_goes_on(client: &Client, sign: &SnapshotImportRequest, request_id: &str) -> Reply<SnapshotView> {
    loop {
        tokio::time::sleep(Duration::from_millis(limits::IMPORT_SIGN_MS)).await;
        match client.change::<SnapshotView>("snapshot.import", sign, request_id).await {
            Ok(told) if told.body.status != SnapshotStatus::Creating => return told,
            // One that nobody hears is made up for by the next; what is wrong for good shows at the end.
            Ok(_) | Err(_) => {}
        }
    }
}

async fn check(args: &ImportArgs, stores: &Stores) -> anyhow::Result<Checked> {
    let (path, keyring) = (args.file.clone(), stores.keyring.clone());
    let checked = tokio::task::spawn_blocking(move || {
        let file = File::open(&path).map_err(|source| snapshot_file::FileError::Io { doing: "read", source })?;
        snapshot_file::check(file, &keyring)
    });
    let checked = checked.await.context("checking the file")?;
    checked.with_context(|| Failure::usage(format!("{} cannot be imported", args.file.display())))
}

/// It is over.
fn shown(raw: &[u8], view: &SnapshotView, progress: Progress, global: &Global) -> anyhow::Result<()> {
    progress.clear();
    show(raw, view, global)?;
    match view.status {
        SnapshotStatus::Ready => Ok(()),
        status => {
            let error = view.error.as_deref().unwrap_or("no reason was given");
            let text = format!(
                "an earlier import of this file under this name is {status}: {error}; delete that snapshot, and import \
                 the file again"
            );
            Err(Failure::JobFailed(text).into())
        }
    }
}
