//! From the store into a file.

use super::write::Writer;
use super::{About, FileError, distinct};
use crate::checkpoint::blocking;
use crate::chunk::{Kind, Sealer};
use crate::manifest::{self, Entry, shown};
use crate::restore::fetch::{self, Source};
use crate::restore::{RestoreError, content_chunks, load};
use outlive_schemas::checkpoint::BlobName;
use outlive_store::blob::{BlobStore, Owner};
use outlive_store::keyring::Keyring;
use outlive_store::seal::Key;
use std::fs::File;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the snapshot cannot be read from the store")]
    Read(#[source] RestoreError),
    #[error("the file cannot be written")]
    Write(#[source] FileError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    pub bytes: u64,
    pub chunks: u64,
}

/// Writes a snapshot of `about.job`, whose key is `key`, into `file`; `manifest` is nothing where the state is empty.
/// Chunks are fetched ahead, a bounded number at a time.
pub async fn export(
    blobs: Arc<dyn BlobStore>,
    key: &Key,
    about: About,
    manifest: Option<BlobName>,
    keyring: &Keyring,
    file: File,
) -> Result<Exported, ExportError> {
    let Some(root) = manifest else {
        let writer = Writer::begin(file, keyring, about, None).map_err(ExportError::Write)?;
        let bytes = writer.finish().map_err(ExportError::Write)?;
        return Ok(Exported { bytes, chunks: 0 });
    };
    let job = about.job;
    let source = Source { blobs, owner: Owner::Job(job), sealer: Arc::new(Sealer::new(job, key)) };
    let (entries, _) = load(&source, root).await.map_err(ExportError::Read)?;
    let mut packed = Vec::new();
    entries.iter().for_each(|entry| manifest::append(entry, &mut packed));
    let writer = Writer::begin(file, keyring, about, Some(&packed)).map_err(ExportError::Write)?;
    drop(packed);
    let chunks = distinct(&entries);
    let count = chunks.len() as u64;
    let part = {
        let chunks = chunks.clone();
        move |nth: usize| chunks.get(nth).map_or_else(String::new, |chunk| part_of(&entries, chunk))
    };
    // The first that cannot be written is remembered: the rest is only read past it.
    let state = (writer, Ok(()));
    let (writer, written) = fetch::each(&source, Kind::Content, chunks, part, state, |state, content| {
        if state.1.is_ok() {
            state.1 = state.0.chunk(&content);
        }
        Ok(())
    })
    .await
    .map_err(ExportError::Read)?;
    written.map_err(ExportError::Write)?;
    let bytes = blocking(move || writer.finish()).await.map_err(ExportError::Write)?;
    Ok(Exported { bytes, chunks: count })
}

/// Only an error asks.
fn part_of(entries: &[Entry], chunk: &crate::chunk::ChunkRef) -> String {
    let owner = entries.iter().find(|entry| content_chunks(entry).any(|known| known == *chunk));
    format!("a chunk of `{}`", owner.map(|entry| shown(&entry.path)).unwrap_or_default())
}
