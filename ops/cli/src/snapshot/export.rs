//! `outlive snapshot export`: a snapshot into a file; the format is the executor's, `snapshot_file.rs`.

use super::{Stores, Which};
use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::human;
use crate::output::{self, Output};
use crate::progress::Progress;
use anyhow::Context as _;
use clap::Args;
use outlive_executor::snapshot_file::{About, export};
use outlive_schemas::snapshot::{SnapshotPlace, SnapshotStatus};
use outlive_store::key_store::KeyStore as _;
use serde_json::json;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  outlive --config outlive.toml snapshot export counter before-the-migration counter.snapshot

The file is sealed under a key of its own, which is wrapped by the first master key of keys.files. Who imports it needs
that master key, as one of its own keys.files, and nothing else of this cluster. The job's own key is not in it: what
deleting the job destroys here lives on in the file.

Needs a configuration with keys.files, and a NATS user that may read the key and blob streams.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// Where to; a file that is there is not overwritten
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub async fn run(args: ExportArgs, global: &Global) -> anyhow::Result<()> {
    let path = &args.file;
    if path.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{} is there already: choose another name", path.display())).into());
    }
    let client = Client::connect(global).await?;
    let place = client.ask::<SnapshotPlace>("snapshot.locate", &args.which.request()).await?.body;
    let view = &place.snapshot;
    if view.status != SnapshotStatus::Ready {
        let text = format!("snapshot {} is {}: only one that is ready can be exported", view.name, view.status);
        return Err(Failure::usage(text).into());
    }
    let stores = Stores::open(global).await?;
    let key = stores.keys.existing_job_key(view.job).await.context("the job's key cannot be read")?;
    let about = About {
        cluster: stores.cluster,
        namespace: client.namespace().clone(),
        job: view.job,
        name: view.name.clone(),
        created_at: view.created_at,
        job_version: view.job_version,
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let key = match (key, place.manifest) {
        (Some(key), _) => key,
        // Nothing has to be opened.
        (None, None) => outlive_store::seal::Key::generate(),
        (None, Some(_)) => anyhow::bail!("job {} has no key any more: it was deleted meanwhile", view.job),
    };

    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = tempfile::Builder::new().prefix(".outlive-export-").tempfile_in(directory);
    let beside =
        beside.with_context(|| Failure::usage(format!("nothing can be written in {}", directory.display())))?;
    let progress = Progress::start(format!("exporting {}", human::size(view.size_bytes.unwrap_or_default())));
    let file = beside.as_file().try_clone().context("the file cannot be written")?;
    let made = export(stores.blobs, &key, about, place.manifest, &stores.keyring, file).await;
    progress.clear();
    let made = made.with_context(|| format!("snapshot {} was not exported", view.name))?;
    // Only what is whole gets the name.
    beside.persist_noclobber(path).with_context(|| format!("{} cannot be written", path.display()))?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).context("the directory")?;
    match global.output {
        Output::Json => output::line(
            json!({"snapshot": view, "file": path, "bytes": made.bytes, "chunks": made.chunks,
                "master_key": stores.keyring.active().to_string()})
            .to_string(),
        ),
        Output::Table => output::line(format!(
            "{} holds snapshot {} of job {} in {}; to import it takes master key {}",
            path.display(),
            view.name,
            view.job,
            human::size(made.bytes),
            stores.keyring.active()
        )),
    }?;
    Ok(())
}
