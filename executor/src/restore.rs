//! Restoring a checkpoint into a fresh directory, before an attempt starts.
//!
//! The root leads to the manifest, the manifest to the chunks; every one of them must open under the job's key and must
//! be what its name says, and the manifest may say only what `manifest/check.rs` allows. Chunks are fetched ahead, in
//! order, a bounded number at a time, so that memory does not grow with the state. Where an earlier attempt's directory
//! is still at hand, what is in it as the checkpoint has it is read there and not fetched (`restore/local.rs`); the
//! manifest always comes from the store.
//!
//! An error tells whose fault it is: [`RestoreError::Unreadable`] is the checkpoint's, and the one before it should be
//! tried; [`RestoreError::Unavailable`] is the store's, and trying again helps; [`RestoreError::Local`] is the host's,
//! and another host helps. Deliberately not here: choosing among them.

pub(crate) mod fetch;
mod local;
mod write;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use outlive_schemas::checkpoint::{BlobName, CheckpointRef};
use outlive_schemas::id::JobId;
use outlive_store::blob::{BlobError, BlobStore, Owner};
use outlive_store::seal::Key;

use crate::checkpoint::{Baseline, blocking};
use crate::chunk::{self, ChunkRef, Damage, Kind, Sealer};
use crate::manifest::{self, Entry, Extent, ManifestError, Node, shown};
use fetch::Source;
use local::{Local, Runs};
use write::Writer;

/// Why a checkpoint was not restored. What had been written so far stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The checkpoint's fault.
    #[error("the checkpoint cannot be read")]
    Unreadable {
        #[source]
        fault: Unreadable,
    },
    /// The store's fault; trying again helps.
    #[error("the checkpoint is out of reach")]
    Unavailable {
        #[source]
        source: BlobError,
    },
    /// The host's fault.
    #[error("`{path}` could not be {what}")]
    Local {
        what: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the blob {name}, {part}, is missing")]
    Missing { name: BlobName, part: String },
    #[error("the blob {name}, {part}, is damaged")]
    Damaged {
        name: BlobName,
        part: String,
        #[source]
        damage: Damage,
    },
    #[error("its manifest is not one that may be restored")]
    Manifest {
        #[source]
        source: ManifestError,
    },
}

impl RestoreError {
    fn manifest(source: ManifestError) -> Self {
        RestoreError::Unreadable { fault: Unreadable::Manifest { source } }
    }

    fn damaged(name: BlobName, part: String, damage: Damage) -> Self {
        RestoreError::Unreadable { fault: Unreadable::Damaged { name, part, damage } }
    }
}

/// A checkpoint that was put back.
#[derive(Debug)]
pub struct Restored {
    /// What the next checkpoint of the directory builds on.
    pub baseline: Baseline,
    /// Bytes of files that were found in an earlier attempt's directory…
    pub local_bytes: u64,
    /// …and that were fetched. What lies in the manifest itself is in neither.
    pub store_bytes: u64,
}

/// Restores `checkpoint` into `into`, which must not exist or be an empty directory; it becomes private (0700).
/// `earlier` is the state directory of an earlier attempt of the job, as that left it: nothing in it is trusted, and it
/// may be gone.
pub async fn restore(
    blobs: Arc<dyn BlobStore>,
    key: Key,
    job: JobId,
    checkpoint: CheckpointRef,
    into: PathBuf,
    earlier: Option<PathBuf>,
) -> Result<Restored, RestoreError> {
    let source = Source { blobs, owner: Owner::Job(job), sealer: Arc::new(Sealer::new(job, &key)) };
    let (entries, mut names) = load(&source, checkpoint.manifest).await?;
    let entries: Arc<[Entry]> = entries.into();
    names.extend(entries.iter().flat_map(content_chunks).map(|chunk| chunk.name()));

    let local = match earlier {
        Some(earlier) => {
            let sealer = source.sealer.clone();
            blocking(move || Local::open(&earlier, sealer)).await.map(Arc::new)
        }
        None => None,
    };
    let listed = entries.clone();
    let writer = blocking(move || Writer::begin(&into, listed)).await?;
    let part = {
        let entries = entries.clone();
        move |nth: usize| part_of(&entries, nth)
    };
    let chunks = local::look_up(local.clone(), Runs::new(entries.clone()));
    let (writer, store_bytes) =
        fetch::each_missing(&source, Kind::Content, chunks, part, writer, Writer::write).await?;
    let index = blocking(move || writer.finish()).await?;
    let local_bytes = local.map_or(0, |local| local.found_bytes());
    let (files, blobs) = (entries.len(), names.len());
    tracing::debug!(%job, checkpoint = %checkpoint.number, files, blobs, local_bytes, store_bytes, "state restored");
    let baseline = Baseline { manifest: Some(checkpoint.manifest), blobs: Arc::new(names), index: Arc::new(index) };
    Ok(Restored { baseline, local_bytes, store_bytes })
}

/// Every blob that a checkpoint needs, its root included: what must stay when others are deleted.
pub async fn blobs_of(
    blobs: Arc<dyn BlobStore>,
    key: Key,
    job: JobId,
    manifest: BlobName,
) -> Result<HashSet<BlobName>, RestoreError> {
    blobs_sealed_by(blobs, Arc::new(Sealer::new(job, &key)), job, manifest).await
}

/// As [`blobs_of`], for who has the job's keys at hand.
pub(crate) async fn blobs_sealed_by(
    blobs: Arc<dyn BlobStore>,
    sealer: Arc<Sealer>,
    job: JobId,
    manifest: BlobName,
) -> Result<HashSet<BlobName>, RestoreError> {
    let source = Source { blobs, owner: Owner::Job(job), sealer };
    let (entries, mut names) = load(&source, manifest).await?;
    names.extend(entries.iter().flat_map(content_chunks).map(|chunk| chunk.name()));
    Ok(names)
}

/// The manifest, and the names of the blobs it lies in.
pub(crate) async fn load(source: &Source, root: BlobName) -> Result<(Vec<Entry>, HashSet<BlobName>), RestoreError> {
    const ROOT: &str = "the root of the manifest";
    let sealed = source.get(root, || ROOT.to_owned()).await?;
    let opened = source.sealer.open(Kind::Root, root, &sealed, manifest::ROOT_BYTES_MAX);
    let opened = opened.map_err(|damage| RestoreError::damaged(root, ROOT.to_owned(), damage))?;
    let manifest::Root { levels, mut body, .. } = manifest::read_root(&opened).map_err(RestoreError::manifest)?;
    let mut names = HashSet::from([root]);
    for _ in 0..levels {
        let chunks = manifest::read_chunks(&body, chunk::MANIFEST.max).map_err(RestoreError::manifest)?;
        names.extend(chunks.iter().map(ChunkRef::name));
        let part = |_| "a part of the manifest".to_owned();
        let append = |body: &mut Vec<u8>, part: Vec<u8>| {
            body.extend_from_slice(&part);
            Ok(())
        };
        body = fetch::each(source, Kind::Manifest, chunks, part, Vec::new(), append).await?;
    }
    let entries = blocking(move || manifest::read(&body)).await.map_err(RestoreError::manifest)?;
    Ok((entries, names))
}

pub(crate) fn content_chunks(entry: &Entry) -> impl Iterator<Item = ChunkRef> {
    let extents = match &entry.node {
        Node::File { extents, .. } => &extents[..],
        _ => &[],
    };
    extents.iter().filter_map(|extent| match extent {
        Extent::Chunk(chunk) => Some(*chunk),
        _ => None,
    })
}

/// What the nth chunk of all is a part of. Only an error asks.
pub(crate) fn part_of(entries: &[Entry], nth: usize) -> String {
    let owners = entries.iter().flat_map(|entry| content_chunks(entry).map(move |_| entry));
    let path = owners.map(|entry| shown(&entry.path)).nth(nth).unwrap_or_default();
    format!("a chunk of `{path}`")
}
