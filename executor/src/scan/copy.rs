//! Copies of changed files, in memory up to a bound and in an unlinked file beyond it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, SeekFrom, Statx};
use rustix::io::Errno;

use crate::chunk::cut::{BLOCK_BYTES, Part};

/// Contents of one reading that are kept in memory. What most jobs change between two checkpoints is far less; and it
/// is there only until it is uploaded.
pub const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// How much is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// The contents of one file.
#[derive(Debug, Default)]
pub struct Contents {
    pieces: Vec<Copied>,
}

#[derive(Debug)]
enum Copied {
    Memory(Vec<u8>),
    Spilled { offset: u64, bytes: u64 },
    Hole(u64),
}

impl Copied {
    fn bytes(&self) -> u64 {
        match self {
            Copied::Memory(bytes) => bytes.len() as u64,
            Copied::Spilled { bytes, .. } | Copied::Hole(bytes) => *bytes,
        }
    }
}

impl Contents {
    /// Holes included.
    pub fn size(&self) -> u64 {
        self.pieces.iter().map(Copied::bytes).sum()
    }

    pub fn bytes_copied(&self) -> u64 {
        self.pieces.iter().filter(|piece| !matches!(piece, Copied::Hole(_))).map(Copied::bytes).sum()
    }

    /// The contents in order; memory is given back as they are used.
    pub fn into_parts(self, spill: Option<Arc<File>>) -> Parts {
        Parts { pieces: self.pieces.into_iter(), spilled: None, spill }
    }
}

/// Gives a file's contents back, piece by piece.
#[derive(Debug)]
pub struct Parts {
    pieces: std::vec::IntoIter<Copied>,
    /// What is left of the spilled piece at hand.
    spilled: Option<(u64, u64)>,
    spill: Option<Arc<File>>,
}

impl Iterator for Parts {
    type Item = io::Result<Part>;

    fn next(&mut self) -> Option<io::Result<Part>> {
        loop {
            if let Some((offset, bytes)) = self.spilled.take() {
                let now = bytes.min(PIECE_BYTES as u64);
                if now < bytes {
                    self.spilled = Some((offset + now, bytes - now));
                }
                let spill = self.spill.as_ref().expect("something was spilled");
                let mut piece = vec![0; now as usize];
                return Some(spill.read_exact_at(&mut piece, offset).map(|()| Part::Bytes(piece)));
            }
            match self.pieces.next()? {
                Copied::Memory(bytes) => return Some(Ok(Part::Bytes(bytes))),
                Copied::Hole(bytes) => return Some(Ok(Part::Zeros(bytes))),
                Copied::Spilled { offset, bytes } => self.spilled = Some((offset, bytes)),
            }
        }
    }
}

/// All that a reading has copied.
#[derive(Debug)]
pub struct Held {
    staging: PathBuf,
    in_memory: u64,
    memory_max: u64,
    spill: Option<Arc<File>>,
    spilled: u64,
}

impl Held {
    pub fn new(staging: &Path) -> Self {
        Held { staging: staging.to_owned(), in_memory: 0, memory_max: MEMORY_BYTES_MAX, spill: None, spilled: 0 }
    }

    pub fn spill(&self) -> Option<Arc<File>> {
        self.spill.clone()
    }

    /// Copies `file`, which looks like `stat`, up to the size it has there.
    pub fn copy(&mut self, file: &File, stat: &Statx) -> io::Result<Contents> {
        let mut contents = Contents::default();
        let size = stat.stx_size;
        let sparse = stat.stx_blocks.saturating_mul(512) < size;
        let mut at = 0;
        while at < size {
            let data = if sparse { next_data(file, at, size)? } else { at..size };
            if data.start > at {
                contents.pieces.push(Copied::Hole(data.start - at));
            }
            let end = self.copy_range(file, data.clone(), &mut contents)?;
            if end < data.end {
                // It was cut short meanwhile.
                break;
            }
            at = end;
        }
        Ok(contents)
    }

    /// Forgets contents that are not wanted after all.
    pub fn release(&mut self, contents: Contents) {
        for piece in contents.pieces {
            if let Copied::Memory(bytes) = piece {
                self.in_memory -= bytes.len() as u64;
            }
        }
    }

    /// How far it came.
    fn copy_range(&mut self, file: &File, range: std::ops::Range<u64>, contents: &mut Contents) -> io::Result<u64> {
        let mut at = range.start;
        while at < range.end {
            let wanted = (range.end - at).min(PIECE_BYTES as u64);
            let copied = if self.in_memory + wanted <= self.memory_max {
                let bytes = read_up_to(file, at, wanted as usize)?;
                self.in_memory += bytes.len() as u64;
                Copied::Memory(bytes)
            } else {
                self.spill_range(file, at, range.end - at)?
            };
            let bytes = copied.bytes();
            if bytes > 0 {
                contents.pieces.push(copied);
            }
            at += bytes;
            if bytes < wanted {
                break;
            }
        }
        Ok(at)
    }

    /// Copies `wanted` bytes, or what there is, to the spill file: by the kernel where it can, which on some file
    /// systems copies nothing at all.
    fn spill_range(&mut self, file: &File, at: u64, wanted: u64) -> io::Result<Copied> {
        let spill = match &self.spill {
            Some(spill) => spill.clone(),
            None => self.spill.insert(Arc::new(unnamed_file(&self.staging)?)).clone(),
        };
        let offset = self.spilled;
        let (mut from, mut to) = (at, offset);
        let mut by_kernel = true;
        while from < at + wanted {
            let left = at + wanted - from;
            let copied = if by_kernel {
                match rustix::fs::copy_file_range(file, Some(&mut { from }), &*spill, Some(&mut { to }), left as usize)
                {
                    Ok(copied) => copied as u64,
                    Err(Errno::INTR) => continue,
                    Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                        by_kernel = false;
                        continue;
                    }
                    Err(errno) => return Err(errno.into()),
                }
            } else {
                let bytes = read_up_to(file, from, left.min(PIECE_BYTES as u64) as usize)?;
                spill.write_all_at(&bytes, to)?;
                bytes.len() as u64
            };
            if copied == 0 {
                break;
            }
            from += copied;
            to += copied;
        }
        // The next piece begins at a block, for the kernel shares whole blocks only.
        self.spilled = to.next_multiple_of(BLOCK_BYTES as u64);
        Ok(Copied::Spilled { offset, bytes: to - offset })
    }
}

/// The next stretch of a sparse file that has data, widened to whole blocks; an empty one at the end if only a hole is
/// left.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<std::ops::Range<u64>> {
    let block = BLOCK_BYTES as u64;
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => (start - start % block).clamp(at, size),
        Err(Errno::NXIO) => return Ok(size..size),
        // This file system does not tell: everything is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(at..size),
        Err(errno) => return Err(errno.into()),
    };
    match rustix::fs::seek(file, SeekFrom::Hole(start.max(at))) {
        Ok(end) if end > start => Ok(start..end.next_multiple_of(block).min(size)),
        // The data begins inside the block that `start` was moved back to.
        Ok(_) => Ok(start..(start + block).min(size)),
        Err(Errno::NXIO) => Ok(size..size),
        Err(errno) => Err(errno.into()),
    }
}

/// Fewer bytes only at the end of the file.
fn read_up_to(file: &File, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// A file that is gone when it is closed, whatever happens.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(rustix::fs::CWD, directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => return Ok(file.into()),
        // Not every file system has unnamed files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let path = directory.join(format!("spill-{}", uuid::Uuid::now_v7()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn all(contents: Contents, held: &Held) -> Vec<u8> {
        let mut whole = Vec::new();
        for part in contents.into_parts(held.spill()) {
            match part.expect("reads") {
                Part::Bytes(bytes) => whole.extend(bytes),
                Part::Zeros(bytes) => whole.resize(whole.len() + bytes as usize, 0),
            }
        }
        whole
    }

    #[test]
    fn what_does_not_fit_into_memory_is_spilled_and_comes_back_the_same() {
        let staging = tempfile::tempdir().expect("a directory");
        let mut file = tempfile::tempfile_in(&staging).expect("a file");
        let whole: Vec<u8> = (0..3_000_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        file.write_all(&whole).expect("written");
        file.seek(io::SeekFrom::Start(9_000_000)).expect("seeks");
        file.write_all(b"after a hole").expect("written");
        let stat = super::super::look(&file, c"").expect("stat");
        for memory_max in [0, 1_500_000, MEMORY_BYTES_MAX] {
            let mut held = Held { memory_max, ..Held::new(staging.path()) };
            // Twice, so that the second one lies behind the first.
            let (first, second) = (held.copy(&file, &stat).expect("copied"), held.copy(&file, &stat).expect("copied"));
            assert!(held.in_memory <= memory_max);
            assert_eq!(held.spill.is_some(), memory_max < MEMORY_BYTES_MAX);
            assert!(first.bytes_copied() < 5_000_000, "the hole was read: {}", first.bytes_copied());
            let expected = [whole.clone(), vec![0; 6_000_000 - 1], b"after a hole".to_vec()].concat();
            assert_eq!(first.size(), expected.len() as u64);
            assert!(all(first, &held) == expected && all(second, &held) == expected, "with {memory_max} in memory");
        }
        let left = std::fs::read_dir(staging.path()).expect("lists").count();
        assert_eq!(left, 0, "the spill file is unlinked");
    }

    #[test]
    fn a_file_that_became_shorter_ends_where_it_ends() {
        let staging = tempfile::tempdir().expect("a directory");
        let mut file = tempfile::tempfile_in(&staging).expect("a file");
        file.write_all(&[7; 10_000]).expect("written");
        let stat = super::super::look(&file, c"").expect("stat");
        file.set_len(5_000).expect("cut");
        for memory_max in [0, MEMORY_BYTES_MAX] {
            let mut held = Held { memory_max, ..Held::new(staging.path()) };
            let contents = held.copy(&file, &stat).expect("copied");
            assert_eq!(all(contents, &held), [7; 5_000]);
        }
    }
}
