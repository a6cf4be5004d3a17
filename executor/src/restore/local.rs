//! Finding chunks of a checkpoint in the directory that an earlier attempt of the job left on this host.
//!
//! A chunk that the manifest has at some place of some file is looked for at the same place of the same file. What is
//! read there is the chunk exactly if it has the chunk's name, which is a keyed hash of its contents; so nothing is taken
//! from times, sizes or inodes, and whatever became of the file costs no more than a fetch. What was hashed is what is
//! written: nothing is read twice. Every step goes from an open directory to a name in it, no symbolic link is ever
//! followed, no other file system entered, and nothing but regular files is read.
//!
//! An error of any kind means only that the chunk is not here. Deliberately not here: which directory that is and how
//! long it is kept (`runner/remnants.rs`), and what has moved within its file or to another one, which is fetched.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt};
use rustix::fs::{CWD, FileType, Mode, OFlags, Statx};

use crate::checkpoint::blocking;
use crate::chunk::{ChunkRef, Kind, Sealer};
use crate::manifest::{Entry, Extent, Node};
use crate::scan::{device, look};

/// Chunks that are looked for in one go: about 1 MiB, a fraction of a millisecond from memory.
const RUN_CHUNKS_MAX: usize = 32;
/// Such runs at work or waiting for their turn at once. With those of one run at most 16 MiB, and usually 4, are held
/// beside what is fetched.
const RUNS_MAX: usize = 4;

/// Where the manifest has a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// The nth entry, a file.
    entry: usize,
    offset: u64,
    chunk: ChunkRef,
}

/// All chunks of a manifest in their order, some at a time.
pub(super) struct Runs {
    entries: Arc<[Entry]>,
    entry: usize,
    extent: usize,
    offset: u64,
}

impl Runs {
    pub fn new(entries: Arc<[Entry]>) -> Self {
        Runs { entries, entry: 0, extent: 0, offset: 0 }
    }

    fn next_spot(&mut self) -> Option<Spot> {
        while let Some(entry) = self.entries.get(self.entry) {
            if let Node::File { extents, .. } = &entry.node {
                while let Some(extent) = extents.get(self.extent) {
                    let offset = self.offset;
                    self.extent += 1;
                    self.offset += extent.bytes();
                    if let Extent::Chunk(chunk) = extent {
                        return Some(Spot { entry: self.entry, offset, chunk: *chunk });
                    }
                }
            }
            self.entry += 1;
            (self.extent, self.offset) = (0, 0);
        }
        None
    }
}

impl Iterator for Runs {
    type Item = (Arc<[Entry]>, Vec<Spot>);

    fn next(&mut self) -> Option<Self::Item> {
        let spots: Vec<Spot> = std::iter::from_fn(|| self.next_spot()).take(RUN_CHUNKS_MAX).collect();
        (!spots.is_empty()).then(|| (self.entries.clone(), spots))
    }
}

/// Every chunk of `runs` in its order, with its contents where they are found.
pub(super) fn look_up(local: Option<Arc<Local>>, runs: Runs) -> impl Stream<Item = (ChunkRef, Option<Vec<u8>>)> + Send {
    futures::stream::iter(runs)
        .map(move |(entries, spots)| {
            let local = local.clone();
            async move {
                match local {
                    Some(local) => blocking(move || local.find(&entries, spots)).await,
                    None => spots.into_iter().map(|spot| (spot.chunk, None)).collect(),
                }
            }
        })
        .buffered(RUNS_MAX)
        .flat_map(futures::stream::iter)
}

/// An earlier attempt's state directory.
pub(super) struct Local {
    top: OwnedFd,
    device: (u32, u32),
    sealer: Arc<Sealer>,
    found_bytes: AtomicU64,
}

impl Local {
    /// Nothing if it is not there. Blocks.
    pub fn open(directory: &Path, sealer: Arc<Sealer>) -> Option<Self> {
        let top = rustix::fs::openat(CWD, directory, DIRECTORY, Mode::empty()).ok()?;
        let device = device(&look(&top, c"").ok()?);
        Some(Local { top, device, sealer, found_bytes: AtomicU64::new(0) })
    }

    pub fn found_bytes(&self) -> u64 {
        self.found_bytes.load(Ordering::Relaxed)
    }

    fn find(&self, entries: &[Entry], spots: Vec<Spot>) -> Vec<(ChunkRef, Option<Vec<u8>>)> {
        let mut at_hand: Option<(usize, Option<File>)> = None;
        let mut directories = Directories::default();
        let mut find = |Spot { entry, offset, chunk }: Spot| {
            if at_hand.as_ref().is_none_or(|(of, _)| *of != entry) {
                at_hand = Some((entry, self.open_file(&entries[entry].path, &mut directories)));
            }
            let (_, file) = at_hand.as_ref()?;
            self.read(file.as_ref()?, offset, chunk)
        };
        spots.into_iter().map(|spot| (spot.chunk, find(spot))).collect()
    }

    fn read(&self, file: &File, offset: u64, chunk: ChunkRef) -> Option<Vec<u8>> {
        let mut content = vec![0; chunk.bytes()];
        file.read_exact_at(&mut content, offset).ok()?;
        if self.sealer.name(Kind::Content, &content) != chunk.name() {
            return None;
        }
        self.found_bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
        Some(content)
    }

    fn open_file(&self, path: &[u8], directories: &mut Directories) -> Option<File> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        let parent = if parent.is_empty() { self.top.as_fd() } else { directories.at(self, parent)?.as_fd() };
        let name = CString::new(name).ok()?;
        let is_ours = |stat: &Statx| {
            FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile && device(stat) == self.device
        };
        // Before it is opened, for opening a device may do something.
        if !is_ours(&look(parent, &name).ok()?) {
            return None;
        }
        // Not blocking: should it be a pipe by now, the open would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, &name, flags, Mode::empty()).ok()?;
        is_ours(&look(&file, c"").ok()?).then(|| file.into())
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory that was looked into last: files that follow one another mostly share theirs.
#[derive(Default)]
struct Directories {
    path: Vec<u8>,
    last: Option<OwnedFd>,
}

impl Directories {
    fn at(&mut self, local: &Local, path: &[u8]) -> Option<&OwnedFd> {
        if self.path != path {
            self.path = path.to_vec();
            self.last = descend(local, path);
        }
        self.last.as_ref()
    }
}

fn descend(local: &Local, path: &[u8]) -> Option<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    for component in path.split(|byte| *byte == b'/') {
        let name = CString::new(component).ok()?;
        let parent = at.as_ref().map_or(local.top.as_fd(), AsFd::as_fd);
        let next = rustix::fs::openat(parent, &name, DIRECTORY, Mode::empty()).ok()?;
        at = Some(next).filter(|next| look(next, c"").is_ok_and(|stat| device(&stat) == local.device));
        at.as_ref()?;
    }
    at
}
