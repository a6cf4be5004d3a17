//! Writing a checkpoint's entries into a fresh directory. Blocks.
//!
//! Every path is one that `manifest/check.rs` has passed, and the directory is new and private, so that each parent on
//! the way is a directory made here. Directories get their modes and times last and the deepest first, for making
//! something in them would need the right to write and would change their times.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::RestoreError;
use crate::chunk::cut::{BLOCK_BYTES, is_zero};
use crate::manifest::{Entry, Extent, FileTime, Node, shown};
use crate::scan::{self, Fingerprint, Index, Moment};

/// Writes one entry after the other; stops wherever it needs a chunk.
pub(super) struct Writer {
    top: OwnedFd,
    entries: Arc<[Entry]>,
    /// The entry at hand, and if it is a file, what is written of it.
    at: usize,
    file: Option<Open>,
    files: Vec<(Fingerprint, Arc<[Extent]>)>,
}

struct Open {
    file: File,
    size: u64,
    extents: Arc<[Extent]>,
    extent: usize,
    offset: u64,
}

impl Writer {
    /// Makes the directory and everything up to the first chunk.
    pub fn begin(into: &Path, entries: Arc<[Entry]>) -> Result<Self, RestoreError> {
        let local = |what, errno: Errno| {
            let path = shown(into.as_os_str().as_encoded_bytes());
            RestoreError::Local { what, path, source: errno.into() }
        };
        match rustix::fs::mkdirat(CWD, into, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(local("made", errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::openat(CWD, into, flags, Mode::empty()).map_err(|errno| local("opened", errno))?;
        rustix::fs::fchmod(&top, Mode::RWXU).map_err(|errno| local("made private", errno))?;
        for entry in Dir::read_from(&top).map_err(|errno| local("listed", errno))? {
            let entry = entry.map_err(|errno| local("listed", errno))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Err(local("restored into, for it is not empty", Errno::NOTEMPTY));
            }
        }
        let mut writer = Writer { top, entries, at: 0, file: None, files: Vec::new() };
        writer.advance()?;
        Ok(writer)
    }

    /// Writes the next chunk, and everything up to the one after it.
    pub fn write(&mut self, chunk: Vec<u8>) -> Result<(), RestoreError> {
        let open = self.file.as_mut().expect("a chunk is only given where one is needed");
        let written = write_data(&open.file, open.offset, &chunk);
        open.offset += chunk.len() as u64;
        open.extent += 1;
        written.map_err(|source| self.local("written", source))?;
        self.advance()
    }

    /// Gives directories their modes and times.
    pub fn finish(self) -> Result<Index, RestoreError> {
        debug_assert_eq!(self.at, self.entries.len(), "every chunk was given");
        for entry in self.entries.iter().rev().filter(|entry| entry.node == Node::Directory) {
            self.dress(entry).map_err(|errno| local(entry, "given its mode and time", errno.into()))?;
        }
        let mut index = Index::default();
        let done = Moment::now();
        for (fingerprint, extents) in self.files {
            index.remember(fingerprint, extents, done);
        }
        Ok(index)
    }

    fn advance(&mut self) -> Result<(), RestoreError> {
        loop {
            if let Some(open) = &mut self.file {
                match open.extents.get(open.extent) {
                    Some(Extent::Chunk(_)) => return Ok(()),
                    Some(Extent::Hole(bytes)) => open.offset += bytes,
                    Some(Extent::Inline(bytes)) => {
                        let written = write_data(&open.file, open.offset, bytes);
                        open.offset += bytes.len() as u64;
                        written.map_err(|source| self.local("written", source))?;
                    }
                    None => {
                        self.close().map_err(|source| self.local("finished", source))?;
                        self.at += 1;
                        continue;
                    }
                }
                if let Some(open) = &mut self.file {
                    open.extent += 1;
                }
                continue;
            }
            let entries = self.entries.clone();
            let Some(entry) = entries.get(self.at) else { return Ok(()) };
            let path = entry.path.as_slice();
            let made = match &entry.node {
                Node::Directory => rustix::fs::mkdirat(&self.top, path, Mode::RWXU),
                Node::Symlink { target } => {
                    rustix::fs::symlinkat(target.as_slice(), &self.top, path).and_then(|()| self.set_time(entry))
                }
                Node::Fifo => {
                    rustix::fs::mkfifoat(&self.top, path, Mode::RUSR | Mode::WUSR).and_then(|()| self.dress(entry))
                }
                Node::File { size, extents } => self.open(path, *size, extents),
            };
            made.map_err(|errno| local(entry, "made", errno.into()))?;
            if self.file.is_none() {
                self.at += 1;
            }
        }
    }

    fn open(&mut self, path: &[u8], size: u64, extents: &Arc<[Extent]>) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.top, path, flags, Mode::RUSR | Mode::WUSR)?;
        self.file = Some(Open { file: file.into(), size, extents: extents.clone(), extent: 0, offset: 0 });
        Ok(())
    }

    /// The file at hand has all its contents; holes at its end are made by its length.
    fn close(&mut self) -> io::Result<()> {
        let Open { file, size, extents, .. } = self.file.take().expect("a file is open");
        let entry = &self.entries[self.at];
        file.set_len(size)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        rustix::fs::futimens(&file, &times(entry.modified))?;
        self.files.push((scan::fingerprint(&scan::look(&file, c"")?), extents));
        Ok(())
    }

    /// Mode and time of a directory or pipe. Neither is a symbolic link, for it was made here.
    fn dress(&self, entry: &Entry) -> Result<(), Errno> {
        rustix::fs::chmodat(&self.top, entry.path.as_slice(), Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        self.set_time(entry)
    }

    fn set_time(&self, entry: &Entry) -> Result<(), Errno> {
        let times = times(entry.modified);
        rustix::fs::utimensat(&self.top, entry.path.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn local(&self, what: &'static str, source: io::Error) -> RestoreError {
        local(&self.entries[self.at], what, source)
    }
}

fn local(entry: &Entry, what: &'static str, source: io::Error) -> RestoreError {
    RestoreError::Local { what, path: shown(&entry.path), source }
}

fn times(modified: FileTime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        last_modification: Timespec { tv_sec: modified.0, tv_nsec: modified.1.into() },
    }
}

/// Writes `data` but not its zero blocks: what is not written is a hole, and reads as zeros.
fn write_data(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    let block = BLOCK_BYTES as u64;
    let mut from = 0;
    let mut at = 0;
    while at < data.len() {
        // To the next block's beginning in the file.
        let end = (at + (block - (offset + at as u64) % block) as usize).min(data.len());
        if is_zero(&data[at..end]) {
            file.write_all_at(&data[from..at], offset + from as u64)?;
            from = end;
        }
        at = end;
    }
    file.write_all_at(&data[from..], offset + from as u64)
}
