//! From a reading to sealed blobs: cutting, naming, compressing and sealing, in steps of bounded size.
//!
//! Runs on threads that may block, a step at a time, so that a slow upload keeps no thread waiting.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::limits::MANIFEST_BYTES_MAX;

use super::CheckpointError;
use crate::chunk::cut::{FileCutter, Piece};
use crate::chunk::{self, ChunkRef, Kind, Sealer};
use crate::manifest::{self, Entry, Extent, INLINE_BYTES_MAX, ManifestError, Node, ROOT_BODY_BYTES_MAX, Root, shown};
use crate::scan::copy::Parts;
use crate::scan::{Fingerprint, Found, Index, Moment, Reading, What};

/// A step ends when it has sealed, or looked at, so much: some milliseconds of work.
const STEP_SEALED_BYTES: usize = 1 << 20;
const STEP_LOOKED_AT_BYTES: usize = 4 << 20;

pub(super) enum Step {
    Again { work: Box<Work>, sealed: Vec<(BlobName, Bytes)> },
    Finished(Done),
}

/// All but the root is sealed and on its way.
pub(super) struct Done {
    pub manifest: BlobName,
    pub root: Bytes,
    pub blobs: HashSet<BlobName>,
    pub index: Index,
    pub size_bytes: u64,
    pub files: u64,
}

pub(super) struct Work {
    sealer: Arc<Sealer>,
    began: Moment,
    /// Files that are not to be remembered, by inode.
    mapped: HashSet<u64>,
    /// What need not be uploaded: blobs of the checkpoint before, and those put since.
    stored: Arc<HashSet<BlobName>>,
    put: HashSet<BlobName>,
    entries: std::vec::IntoIter<Found>,
    spill: Option<Arc<File>>,
    /// The changed file at hand.
    file: Option<Changed>,
    /// What is being cut when the files are through: the manifest, then lists of chunks.
    body: Vec<u8>,
    body_used: usize,
    body_chunks: Vec<ChunkRef>,
    levels: u8,
    /// What this checkpoint refers to.
    blobs: HashSet<BlobName>,
    index: Index,
    size_bytes: u64,
    files: u64,
    sealed: Vec<(BlobName, Bytes)>,
    sealed_bytes: usize,
    looked_at: usize,
}

struct Changed {
    path: Vec<u8>,
    mode: u32,
    modified: manifest::FileTime,
    fingerprint: Fingerprint,
    size: u64,
    cutter: FileCutter<Parts>,
    extents: Vec<Extent>,
}

impl Work {
    pub fn new(
        mut reading: Reading,
        sealer: Arc<Sealer>,
        stored: Arc<HashSet<BlobName>>,
        put: HashSet<BlobName>,
    ) -> Box<Self> {
        Box::new(Work {
            sealer,
            began: reading.began,
            mapped: reading.take_mapped(),
            stored,
            put,
            spill: reading.held.spill(),
            entries: reading.entries.into_iter(),
            file: None,
            body: Vec::new(),
            body_used: 0,
            body_chunks: Vec::new(),
            levels: 0,
            blobs: HashSet::new(),
            index: Index::default(),
            size_bytes: 0,
            files: 0,
            sealed: Vec::new(),
            sealed_bytes: 0,
            looked_at: 0,
        })
    }

    pub fn step(mut self: Box<Self>) -> Result<Step, CheckpointError> {
        (self.sealed_bytes, self.looked_at) = (0, 0);
        while self.sealed_bytes < STEP_SEALED_BYTES && self.looked_at < STEP_LOOKED_AT_BYTES {
            if let Some(changed) = self.file.take() {
                self.cut_file(changed)?;
            } else if let Some(found) = self.entries.next() {
                self.take(found)?;
            } else if self.body_used == 0 && self.body.len() <= ROOT_BODY_BYTES_MAX {
                if !self.sealed.is_empty() {
                    break;
                }
                return Ok(Step::Finished(self.finish()));
            } else {
                self.cut_body();
            }
        }
        let sealed = std::mem::take(&mut self.sealed);
        Ok(Step::Again { work: self, sealed })
    }

    fn take(&mut self, found: Found) -> Result<(), CheckpointError> {
        let Found { path, mode, modified, what } = found;
        let node = match what {
            What::Directory => Node::Directory,
            What::Symlink { target } => Node::Symlink { target },
            What::Fifo => Node::Fifo,
            What::Same { fingerprint, extents } => {
                // They were stored by the checkpoint that this reading was compared with. If another one has been
                // committed since, they may be gone.
                for extent in extents.iter() {
                    if let Extent::Chunk(chunk) = extent {
                        let name = chunk.name();
                        if !self.stored.contains(&name) && !self.put.contains(&name) {
                            return Err(CheckpointError::Outdated);
                        }
                        self.blobs.insert(name);
                    }
                }
                self.file_done(fingerprint, fingerprint.size, &extents);
                Node::File { size: fingerprint.size, extents }
            }
            What::Read { fingerprint, size, contents } => {
                let cutter = FileCutter::new(contents.into_parts(self.spill.clone()), self.sealer.seed());
                self.file = Some(Changed { path, mode, modified, fingerprint, size, cutter, extents: Vec::new() });
                return Ok(());
            }
        };
        self.describe(&Entry { path, mode, modified, node })
    }

    /// Cuts one piece off the file at hand.
    fn cut_file(&mut self, mut changed: Changed) -> Result<(), CheckpointError> {
        let piece = changed
            .cutter
            .next_piece()
            .map_err(|source| CheckpointError::Local { path: shown(&changed.path), source })?;
        match piece {
            Some(Piece::Data(data)) if changed.size <= INLINE_BYTES_MAX as u64 => {
                self.looked_at += data.len();
                changed.extents.push(Extent::Inline(data));
            }
            Some(Piece::Data(data)) => {
                let chunk = self.chunk(Kind::Content, &data);
                changed.extents.push(Extent::Chunk(chunk));
            }
            Some(Piece::Hole(bytes)) => changed.extents.push(Extent::Hole(bytes)),
            None => {
                let Changed { path, mode, modified, fingerprint, size, extents, .. } = changed;
                let extents: Arc<[Extent]> = extents.into();
                self.file_done(fingerprint, size, &extents);
                return self.describe(&Entry { path, mode, modified, node: Node::File { size, extents } });
            }
        }
        self.file = Some(changed);
        Ok(())
    }

    fn file_done(&mut self, fingerprint: Fingerprint, size: u64, extents: &Arc<[Extent]>) {
        self.files += 1;
        self.size_bytes += size;
        if !self.mapped.contains(&fingerprint.inode) {
            self.index.remember(fingerprint, extents.clone(), self.began);
        }
    }

    fn describe(&mut self, entry: &Entry) -> Result<(), CheckpointError> {
        let before = self.body.len();
        manifest::append(entry, &mut self.body);
        self.looked_at += self.body.len() - before;
        if self.body.len() > MANIFEST_BYTES_MAX {
            let source = ManifestError::TooLarge { bytes: self.body.len() };
            return Err(CheckpointError::TooLarge { source });
        }
        Ok(())
    }

    /// Cuts one chunk off the manifest, or off the list that stands for it.
    fn cut_body(&mut self) {
        let body = std::mem::take(&mut self.body);
        let rest = &body[self.body_used..];
        let cut = chunk::MANIFEST.first_cut(self.sealer.seed(), &rest[..rest.len().min(chunk::MANIFEST.max)]);
        let chunk = self.chunk(Kind::Manifest, &rest[..cut]);
        self.body_chunks.push(chunk);
        self.body_used += cut;
        if self.body_used < body.len() {
            self.body = body;
        } else {
            self.body = manifest::pack_chunks(&std::mem::take(&mut self.body_chunks));
            self.body_used = 0;
            self.levels += 1;
        }
    }

    /// Names a chunk, and seals it unless it is stored.
    fn chunk(&mut self, kind: Kind, content: &[u8]) -> ChunkRef {
        let name = self.sealer.name(kind, content);
        self.looked_at += content.len();
        if self.blobs.insert(name) && !self.stored.contains(&name) && !self.put.contains(&name) {
            let sealed = self.sealer.seal(kind, name, content);
            self.sealed_bytes += sealed.len();
            self.sealed.push((name, sealed.into()));
        }
        ChunkRef(name, content.len() as u32)
    }

    fn finish(mut self) -> Done {
        let root = manifest::pack_root(&Root::new(self.levels, std::mem::take(&mut self.body)));
        let manifest = self.sealer.name(Kind::Root, &root);
        let root = self.sealer.seal(Kind::Root, manifest, &root).into();
        self.blobs.insert(manifest);
        let Work { blobs, index, size_bytes, files, .. } = self;
        Done { manifest, root, blobs, index, size_bytes, files }
    }
}
