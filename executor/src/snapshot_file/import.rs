//! From a file into the store, for a job of this cluster.
//!
//! Every chunk is named and sealed anew under the job's own key, and the manifest is rewritten to fit. Meanwhile the
//! leader has nothing of the job collected: an import that is begun, and not over, is what it looks at. As for a
//! checkpoint (see `checkpoint/collect.rs`), a blob that is there already counts as stored only if something retained
//! refers to it, or if it was stored since the import was begun: any other may be about to be deleted by a collector
//! that was stopped half-way, and is put anew where none can reach it.

use super::read::{Reader, sums};
use super::{FileError, Head, distinct};
use crate::checkpoint::blocking;
use crate::chunk::{self, ChunkRef, Kind, Sealer};
use crate::manifest::{self, Entry, Extent, ManifestError, Node, ROOT_BODY_BYTES_MAX, Root};
use crate::restore::{RestoreError, Unreadable, blobs_sealed_by};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use outlive_schemas::checkpoint::{BlobName, Taken};
use outlive_schemas::id::JobId;
use outlive_schemas::limits::MANIFEST_BYTES_MAX;
use outlive_store::blob::{BlobError, BlobStore, Mark, Owner, Put};
use outlive_store::keyring::Keyring;
use outlive_store::seal::Key;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OnceCell;

/// Chunks read, sealed and put in one go: at 128 KiB at most each, 8 MiB.
const BATCH: usize = 64;
/// Puts under way at once.
const PUTS_IN_FLIGHT: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the file cannot be read")]
    File(#[source] FileError),
    #[error("the state is too large for one manifest")]
    TooLarge(#[source] ManifestError),
    #[error("the chunk or manifest {name} could not be stored")]
    Store {
        name: BlobName,
        #[source]
        source: BlobError,
    },
    #[error("what is stored of the job cannot be looked at")]
    Look(#[source] BlobError),
    #[error(
        "the chunk {name} was put and is gone again: the job was started meanwhile; stop it, and import the file again"
    )]
    Gone { name: BlobName },
}

/// Where a snapshot goes. Made once its import is begun, so that nothing is collected any more.
pub struct Target {
    blobs: Arc<dyn BlobStore>,
    job: JobId,
    sealer: Arc<Sealer>,
    /// What the job's checkpoints and snapshots are found from.
    retained: Vec<BlobName>,
    /// What they lead to; read when it is first asked for.
    elders: OnceCell<HashSet<BlobName>>,
    mark: Mark,
}

impl Target {
    pub async fn new(
        blobs: Arc<dyn BlobStore>,
        job: JobId,
        key: &Key,
        retained: Vec<BlobName>,
    ) -> Result<Target, ImportError> {
        let mark = blobs.mark().await.map_err(ImportError::Look)?;
        Ok(Target { blobs, job, sealer: Arc::new(Sealer::new(job, key)), retained, elders: OnceCell::new(), mark })
    }

    async fn put(&self, name: BlobName, sealed: Bytes) -> Result<u64, ImportError> {
        let (bytes, owner) = (sealed.len() as u64, Owner::Job(self.job));
        let failed = |source| ImportError::Store { name, source };
        if self.blobs.put(owner, name, sealed.clone()).await.map_err(failed)? == Put::Stored {
            return Ok(bytes);
        }
        if self.elders().await?.contains(&name) {
            return Ok(0);
        }
        self.blobs.delete_stored_by(owner, name, self.mark).await.map_err(failed)?;
        match self.blobs.put(owner, name, sealed).await.map_err(failed)? {
            Put::Stored => Ok(bytes),
            // It was stored since the import was begun.
            Put::Present => Ok(0),
        }
    }

    async fn elders(&self) -> Result<&HashSet<BlobName>, ImportError> {
        let read = async || {
            let mut elders = HashSet::new();
            for manifest in &self.retained {
                match blobs_sealed_by(self.blobs.clone(), self.sealer.clone(), self.job, *manifest).await {
                    Ok(blobs) => elders.extend(blobs),
                    // Refers to nothing that could be of use.
                    Err(RestoreError::Unreadable {
                        fault: Unreadable::Missing { .. } | Unreadable::Damaged { .. },
                    }) => {}
                    Err(RestoreError::Unavailable { source }) => return Err(ImportError::Look(source)),
                    Err(error) => {
                        let reason = format!("the retained checkpoint {manifest} cannot be read: {error}");
                        return Err(ImportError::Look(BlobError::Unavailable { reason }));
                    }
                }
            }
            Ok(elders)
        };
        self.elders.get_or_try_init(read).await
    }

    async fn put_all(&self, batch: Vec<(BlobName, Bytes)>) -> Result<u64, ImportError> {
        let puts = futures::stream::iter(batch).map(|(name, sealed)| self.put(name, sealed));
        puts.buffer_unordered(PUTS_IN_FLIGHT).try_fold(0, async |sum, bytes| Ok(sum + bytes)).await
    }
}

/// Puts what is in `file` into the store. What is returned is for the leader; nothing where the state is empty. What
/// is read is checked once more, for a file may change after it was checked.
pub async fn import(file: File, keyring: &Keyring, target: &Target) -> Result<Option<Taken>, ImportError> {
    let began = Instant::now();
    let (mut reader, head) = Reader::begin(file, keyring).map_err(ImportError::File)?;
    if head.manifest_bytes.is_none() {
        reader.end().map_err(ImportError::File)?;
        return Ok(None);
    }
    let (reader, entries) = blocking(move || entries(reader, &head)).await.map_err(ImportError::File)?;
    let (size_bytes, files) = sums(&entries);

    let mut contents = Contents { reader, chunks: distinct(&entries).into_iter(), renamed: HashMap::new() };
    let mut names: HashSet<BlobName> = HashSet::new();
    let mut uploaded_bytes = 0;
    loop {
        let sealer = target.sealer.clone();
        let (after, batch) = blocking(move || contents.batch(&sealer)).await.map_err(ImportError::File)?;
        contents = after;
        if batch.is_empty() {
            break;
        }
        names.extend(batch.iter().map(|(name, _)| *name));
        uploaded_bytes += target.put_all(batch).await?;
    }
    let Contents { mut reader, renamed, .. } = contents;
    reader.end().map_err(ImportError::File)?;

    let mut body = manifest_of(&entries, &renamed)?;
    drop((entries, renamed));
    let mut levels = 0;
    while body.len() > ROOT_BODY_BYTES_MAX {
        let mut chunks = Vec::new();
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let mut batch = Vec::new();
            while batch.len() < BATCH && !rest.is_empty() {
                let window = &rest[..rest.len().min(chunk::MANIFEST.max)];
                let (piece, left) = rest.split_at(chunk::MANIFEST.first_cut(target.sealer.seed(), window));
                rest = left;
                let (chunk, sealed) = sealed(&target.sealer, Kind::Manifest, piece);
                chunks.push(chunk);
                if names.insert(chunk.name()) {
                    batch.push((chunk.name(), sealed));
                }
            }
            uploaded_bytes += target.put_all(batch).await?;
        }
        body = manifest::pack_chunks(&chunks);
        levels += 1;
    }
    let root = manifest::pack_root(&Root::new(levels, body));
    let (chunk, root) = sealed(&target.sealer, Kind::Root, &root);
    let manifest = chunk.name();
    uploaded_bytes += target.put_all(vec![(manifest, root)]).await?;
    names.insert(manifest);

    // An attempt that began meanwhile may have replaced a blob by its own, and have died in between.
    let there = target.blobs.list(Owner::Job(target.job)).await.map_err(ImportError::Look)?;
    there.iter().for_each(|name| {
        names.remove(name);
    });
    if let Some(name) = names.into_iter().next() {
        return Err(ImportError::Gone { name });
    }
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Some(Taken { manifest, size_bytes, uploaded_bytes, files, duration_ms, pause_ms: 0 }))
}

fn entries(mut reader: Reader, head: &Head) -> Result<(Reader, Vec<Entry>), FileError> {
    let entries = reader.entries(head)?;
    Ok((reader, entries))
}

fn sealed(sealer: &Sealer, kind: Kind, content: &[u8]) -> (ChunkRef, Bytes) {
    let name = sealer.name(kind, content);
    (ChunkRef(name, content.len() as u32), sealer.seal(kind, name, content).into())
}

/// The file's chunks, and what they are called here.
struct Contents {
    reader: Reader,
    chunks: std::vec::IntoIter<ChunkRef>,
    renamed: HashMap<ChunkRef, ChunkRef>,
}

type Batch = Vec<(BlobName, Bytes)>;

impl Contents {
    /// Some more of them, sealed; none at the end.
    fn batch(mut self, sealer: &Sealer) -> Result<(Contents, Batch), FileError> {
        let mut batch = Vec::with_capacity(BATCH);
        for chunk in self.chunks.by_ref().take(BATCH) {
            let (here, sealed) = sealed(sealer, Kind::Content, &self.reader.chunk(chunk)?);
            self.renamed.insert(chunk, here);
            batch.push((here.name(), sealed));
        }
        Ok((self, batch))
    }
}

/// The manifest with the chunks' names of this job.
fn manifest_of(entries: &[Entry], renamed: &HashMap<ChunkRef, ChunkRef>) -> Result<Vec<u8>, ImportError> {
    let mut packed = Vec::new();
    for entry in entries {
        let mut entry = entry.clone();
        if let Node::File { extents, .. } = &mut entry.node {
            *extents = extents.iter().map(|extent| renamed_extent(extent, renamed)).collect();
        }
        manifest::append(&entry, &mut packed);
        if packed.len() > MANIFEST_BYTES_MAX {
            return Err(ImportError::TooLarge(ManifestError::TooLarge { bytes: packed.len() }));
        }
    }
    Ok(packed)
}

fn renamed_extent(extent: &Extent, renamed: &HashMap<ChunkRef, ChunkRef>) -> Extent {
    match extent {
        Extent::Chunk(chunk) => Extent::Chunk(renamed[chunk]),
        other => other.clone(),
    }
}
