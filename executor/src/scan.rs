//! Reading a state directory while its job stands still: what is there, and the contents of what changed.
//!
//! The first step of a checkpoint, and the only one the job waits for; so it does nothing but look at every entry and
//! copy the files that are not as they were. A file is taken for unchanged if its inode, size and both of its times are
//! those of the last reading. That would miss a change within the grain of the file system's clock, so a file whose
//! last change is not clearly older than the reading that saw it is not remembered, and is read again (git calls such
//! entries racy). Files are remembered by inode and not by path: renaming a directory costs nothing.
//!
//! Every step goes from an open directory to a name in it, and no symbolic link is ever followed.
//!
//! Sockets are left out and counted, for they mean nothing once their process is gone. Holes are skipped, not read.
//! Deliberately not here: cutting, compressing and sealing, which come after the thaw.

pub(crate) mod copy;
mod mapped;
mod refusal;

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::manifest::check::{MODE_BITS, SET_ID_BITS, leaving_link};
use crate::manifest::{Extent, FileTime, shown};
use outlive_schemas::limits::{CHECKPOINT_ENTRIES_MAX, PATH_BYTES_MAX};

pub use copy::{Contents, Held};
pub use refusal::{Refusal, ScanError};

/// Directories inside one another. Each costs an open file while something below it is read.
pub const DEPTH_MAX: usize = 512;

/// How far apart two changes must be for the file system to give them different times: the longest tick that kernels
/// are built with.
const CLOCK_GRAIN_NS: i128 = 10_000_000;

/// A file that changes while it is read, which only happens where nothing was frozen, is read this often. What the last
/// attempt found is then taken: such files were asked for "as they are".
const READ_ATTEMPTS: u32 = 3;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    pub inode: u64,
    pub size: u64,
    pub modified: FileTime,
    pub changed: FileTime,
}

/// The files of the last reading and where their contents are stored.
#[derive(Clone, Debug, Default)]
pub struct Index {
    files: HashMap<u64, (Fingerprint, Arc<[Extent]>)>,
}

impl Index {
    /// Remembers a file that was found like this by a reading that began at `began`, unless it may change and still
    /// look like this.
    pub fn remember(&mut self, found: Fingerprint, extents: Arc<[Extent]>, began: Moment) {
        if nanoseconds(found.changed) < began.0 - CLOCK_GRAIN_NS {
            self.files.insert(found.inode, (found, extents));
        }
    }

    fn look_up(&self, found: &Fingerprint) -> Option<&Arc<[Extent]>> {
        self.files.get(&found.inode).filter(|(known, _)| known == found).map(|(_, extents)| extents)
    }
}

/// A point in time of the clock that file systems stamp with.
#[derive(Clone, Copy, Debug)]
pub struct Moment(i128);

impl Moment {
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
        Moment(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec))
    }
}

/// A state directory as it was at one moment.
#[derive(Debug)]
pub struct Reading {
    pub(crate) began: Moment,
    /// Files that may change without their times telling, by inode.
    mapped: HashSet<u64>,
    /// Sorted by components: a directory comes before what is in it.
    pub(crate) entries: Vec<Found>,
    /// Contents that did not fit into memory.
    pub(crate) held: Held,
    /// Sockets, which are left out.
    pub sockets: u64,
    /// Files whose contents had to be read, and how much that was.
    pub files_read: u64,
    pub bytes_read: u64,
}

impl Reading {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn take_mapped(&mut self) -> HashSet<u64> {
        std::mem::take(&mut self.mapped)
    }
}

#[derive(Debug)]
pub(crate) struct Found {
    pub path: Vec<u8>,
    pub mode: u32,
    pub modified: FileTime,
    pub what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    /// As it was at the last reading.
    Same {
        fingerprint: Fingerprint,
        extents: Arc<[Extent]>,
    },
    /// `size` is what was read; the fingerprint's may be another where nothing was frozen.
    Read {
        fingerprint: Fingerprint,
        size: u64,
        contents: Contents,
    },
}

/// Reads the directory `root`. Blocks. Contents beyond a bound go to an unlinked file in `staging`. `process` is the
/// job's first, if it has any.
pub fn scan(root: &Path, staging: &Path, index: &Index, process: Option<i32>) -> Result<Reading, ScanError> {
    let began = Moment::now();
    let mapped = process.map(mapped::writable).transpose().map_err(|source| ScanError::Mappings { source })?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(|errno| {
        ScanError::local("the state directory cannot be opened", root.as_os_str().as_encoded_bytes(), errno)
    })?;
    let device = device(&look(&top, c"").map_err(|errno| ScanError::local("cannot be looked at", b"", errno))?);
    let mut scanner = Scanner {
        index,
        device,
        path: Vec::new(),
        reading: Reading {
            began,
            mapped: mapped.unwrap_or_default(),
            entries: Vec::new(),
            held: Held::new(staging),
            sockets: 0,
            files_read: 0,
            bytes_read: 0,
        },
    };
    scanner.walk(top)?;
    let reading = scanner.reading;
    let links = reading.entries.iter().filter_map(|found| match &found.what {
        What::Symlink { target } => Some((found.path.as_slice(), target.as_slice())),
        _ => None,
    });
    if let Some((path, target)) = leaving_link(links) {
        return Err(ScanError::refused(path, Refusal::LinkLeaves { target: shown(target) }));
    }
    Ok(reading)
}

/// A directory on the way, and what is still to be looked at in it, the next name last.
struct Level {
    directory: OwnedFd,
    names: Vec<CString>,
    /// The length of its path.
    path_bytes: usize,
}

struct Scanner<'a> {
    index: &'a Index,
    device: (u32, u32),
    /// Of the entry at hand.
    path: Vec<u8>,
    reading: Reading,
}

impl Scanner<'_> {
    fn walk(&mut self, top: OwnedFd) -> Result<(), ScanError> {
        let mut levels = vec![self.enter(top)?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            self.path.truncate(level.path_bytes);
            if level.path_bytes > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            if self.path.len() >= PATH_BYTES_MAX {
                return Err(self.refused(Refusal::PathTooLong));
            }
            if self.reading.entries.len() >= CHECKPOINT_ENTRIES_MAX {
                return Err(ScanError::TooManyEntries);
            }
            let stat = match look(&level.directory, &name) {
                Ok(stat) => stat,
                // It went between the listing and now, which only happens where nothing was frozen.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(self.local("cannot be looked at", errno)),
            };
            if let Some(below) = self.entry(&level.directory, &name, &stat)? {
                if levels.len() >= DEPTH_MAX {
                    return Err(self.refused(Refusal::TooDeep));
                }
                levels.push(self.enter(below)?);
            }
        }
        Ok(())
    }

    /// Lists a directory whose path is at hand.
    fn enter(&self, directory: OwnedFd) -> Result<Level, ScanError> {
        let unlistable = |errno| self.local("cannot be listed", errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(unlistable)? {
            let name = entry.map_err(unlistable)?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
            if names.len() > CHECKPOINT_ENTRIES_MAX {
                return Err(ScanError::TooManyEntries);
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Level { directory, names, path_bytes: self.path.len() })
    }

    /// Takes down one entry; a directory is returned to be walked.
    fn entry(&mut self, parent: &OwnedFd, name: &CString, stat: &Statx) -> Result<Option<OwnedFd>, ScanError> {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
            || (kind == FileType::Directory && device(stat) != self.device)
        {
            return Err(self.refused(Refusal::MountPoint));
        }
        let (what, below) = match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let Some(below) = self.open(parent, name, flags)? else { return Ok(None) };
                (What::Directory, Some(below))
            }
            FileType::RegularFile => {
                let Some(what) = self.file(parent, name, stat)? else { return Ok(None) };
                (what, None)
            }
            FileType::Symlink => match rustix::fs::readlinkat(parent, name, Vec::new()) {
                Ok(target) => (What::Symlink { target: target.into_bytes() }, None),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(self.local("cannot be read", errno)),
            },
            FileType::Fifo => (What::Fifo, None),
            FileType::Socket => {
                self.reading.sockets += 1;
                return Ok(None);
            }
            FileType::BlockDevice | FileType::CharacterDevice => return Err(self.refused(Refusal::Device)),
            _ => return Err(self.refused(Refusal::UnknownKind)),
        };
        let mode = match kind {
            FileType::Symlink => 0,
            _ => u32::from(stat.stx_mode) & MODE_BITS,
        };
        let modified = time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
        self.reading.entries.push(Found { path: self.path.clone(), mode, modified, what });
        Ok(below)
    }

    fn file(&mut self, parent: &OwnedFd, name: &CString, stat: &Statx) -> Result<Option<What>, ScanError> {
        if u32::from(stat.stx_mode) & SET_ID_BITS != 0 {
            return Err(self.refused(Refusal::SetId));
        }
        let fingerprint = fingerprint(stat);
        if let Some(extents) = self.index.look_up(&fingerprint) {
            return Ok(Some(What::Same { fingerprint, extents: extents.clone() }));
        }
        // Not blocking: should it be a pipe by now, the open would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Some(file) = self.open(parent, name, flags)? else { return Ok(None) };
        let file = File::from(file);
        let mut attempt = 1;
        loop {
            let before = look(&file, c"").map_err(|errno| self.local("cannot be looked at", errno))?;
            if FileType::from_raw_mode(before.stx_mode.into()) != FileType::RegularFile {
                return Ok(None);
            }
            let contents =
                self.reading.held.copy(&file, &before).map_err(|source| self.io("cannot be copied", source))?;
            let after = look(&file, c"").map_err(|errno| self.local("cannot be looked at", errno))?;
            let fingerprint = self::fingerprint(&before);
            if fingerprint == self::fingerprint(&after) || attempt == READ_ATTEMPTS {
                let size = contents.size();
                self.reading.files_read += 1;
                self.reading.bytes_read += contents.bytes_copied();
                return Ok(Some(What::Read { fingerprint, size, contents }));
            }
            self.reading.held.release(contents);
            attempt += 1;
        }
    }

    /// Nothing if it is gone, or is something else by now.
    fn open(&self, parent: &OwnedFd, name: &CString, flags: OFlags) -> Result<Option<OwnedFd>, ScanError> {
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Ok(None),
            Err(Errno::ACCESS | Errno::PERM) => Err(self.refused(Refusal::Unreadable)),
            Err(errno) => Err(self.local("cannot be opened", errno)),
        }
    }

    fn refused(&self, refusal: Refusal) -> ScanError {
        ScanError::refused(&self.path, refusal)
    }

    fn local(&self, what: &'static str, errno: Errno) -> ScanError {
        ScanError::local(what, &self.path, errno)
    }

    fn io(&self, what: &'static str, source: io::Error) -> ScanError {
        ScanError::Local { what, path: shown(&self.path), source }
    }
}

/// `name` in `directory`, itself if it is a link; the directory or file itself if `name` is empty.
pub(crate) fn look(directory: impl std::os::fd::AsFd, name: &std::ffi::CStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)
}

pub(crate) fn fingerprint(stat: &Statx) -> Fingerprint {
    Fingerprint {
        inode: stat.stx_ino,
        size: stat.stx_size,
        modified: time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        changed: time(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
    }
}

fn time(seconds: i64, nanoseconds: u32) -> FileTime {
    FileTime(seconds, nanoseconds)
}

fn nanoseconds(time: FileTime) -> i128 {
    i128::from(time.0) * 1_000_000_000 + i128::from(time.1)
}

pub(crate) fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}
