//! The data directory: one executor's at a time, and in it a directory per attempt.
//!
//! ```text
//! data_dir/lock                              held as long as the executor lives
//! data_dir/attempts/<job>-<attempt>/state/   the job's working directory
//!                                  /input    what it was given
//!                                  /inputs/  what jobs that it waited for have left, a file each
//!                                  /result   what it leaves
//!                                  /staging/ copies that a checkpoint makes while the job stands still
//! ```
//!
//! Nothing in `attempts` outlives the executor that made it: the processes are gone with it, and the state is in the
//! blob store as far as the leader knows of it. A directory may stay for a while after its attempt (`remnants`).

use crate::attempt::ResultFile;
use crate::error::ExecutorError;
use compact_str::format_compact;
use outlive_schemas::depend::InputFile;
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::limits::RESULT_BYTES_MAX;
use outlive_schemas::payload::Payload;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_FILE: &str = "lock";
const ATTEMPTS: &str = "attempts";

/// Only the executor's user: what is in here is secret.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The shims of an executor that was killed need a moment to kill what they hold, which may still write meanwhile.
const CLEAR_TRIES_MAX: u32 = 100;
const CLEAR_PAUSE: Duration = Duration::from_millis(100);

/// The data directory, while it is ours.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Takes the directory, makes it where it is missing, and removes what an earlier executor left.
    pub fn take(path: &Path) -> Result<DataDirectory, ExecutorError> {
        let failed = |what| move |source| ExecutorError::DataDirectory { what, path: path.to_owned(), source };
        if path.to_str().is_none() {
            return Err(ExecutorError::DataDirectoryName { path: path.to_owned() });
        }
        make(path).map_err(failed("make itself"))?;
        let path = path.canonicalize().map_err(failed("find itself"))?;
        if path.to_str().is_none() {
            return Err(ExecutorError::DataDirectoryName { path });
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path.join(LOCK_FILE))
            .map_err(failed("open the lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ExecutorError::DataDirectoryTaken { path }),
            Err(error) => return Err(failed("take the lock")(error.into())),
        }
        let attempts = path.join(ATTEMPTS);
        remove_patiently(&attempts).map_err(failed("remove what an earlier executor left"))?;
        make(&attempts).map_err(failed("make a directory"))?;
        Ok(DataDirectory { path, _lock: lock })
    }

    /// Absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where one attempt keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptDirectory(PathBuf);

impl AttemptDirectory {
    pub fn new(data_dir: &Path, job: JobId, attempt: Attempt) -> AttemptDirectory {
        AttemptDirectory(data_dir.join(ATTEMPTS).join(format!("{job}-{attempt}")))
    }

    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub fn input(&self) -> PathBuf {
        self.0.join("input")
    }

    pub fn inputs(&self) -> PathBuf {
        self.0.join("inputs")
    }

    pub fn result(&self) -> PathBuf {
        self.0.join("result")
    }

    pub fn staging(&self) -> PathBuf {
        self.0.join("staging")
    }

    /// Makes it anew, with an empty state, the job's input, and what jobs that it waited for have left. What an earlier
    /// try left is removed.
    pub fn create(&self, input: Option<&Payload>, inputs: &[InputFile]) -> io::Result<()> {
        remove(&self.0)?;
        for directory in [&self.0, &self.state(), &self.staging(), &self.inputs()] {
            make(directory)?;
        }
        write(&self.input(), input.map_or(&[], |input| &input.0))?;
        for file in inputs {
            // An id or a name, which its type sees to: no separator, no dot, and no more than a file's name may have.
            write(&self.inputs().join(file.name.to_string()), &file.content.0)?;
        }
        Ok(())
    }

    /// Reads what the job left as its result. It is a file of its own making, so it may be anything.
    pub fn read_result(&self) -> ResultFile {
        match self.try_read_result() {
            Ok(result) => result,
            Err(error) => {
                ResultFile::Refused { reason: format_compact!("the file at $OUTLIVE_RESULT cannot be read: {error}") }
            }
        }
    }

    fn try_read_result(&self) -> io::Result<ResultFile> {
        // Neither a link nor a FIFO is followed or waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(self.result(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(ResultFile::None),
            Err(rustix::io::Errno::LOOP) => {
                return Ok(refused("$OUTLIVE_RESULT is a symbolic link: write a plain file"));
            }
            // A socket, or a FIFO where nobody reads.
            Err(rustix::io::Errno::NXIO) => return Ok(refused("$OUTLIVE_RESULT is no plain file")),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(refused("$OUTLIVE_RESULT is no plain file"));
        }
        let mut bytes = Vec::new();
        file.take(RESULT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > RESULT_BYTES_MAX {
            let reason = format_compact!(
                "the result is larger than the limit of {RESULT_BYTES_MAX} bytes: leave a reference to it instead"
            );
            return Ok(ResultFile::Refused { reason });
        }
        Ok(ResultFile::Left(Payload(bytes.into())))
    }

    /// Removes it and everything in it.
    pub fn remove(&self) -> io::Result<()> {
        remove_patiently(&self.0)
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(content)
}

fn refused(reason: &'static str) -> ResultFile {
    ResultFile::Refused { reason: reason.into() }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

fn remove_patiently(path: &Path) -> io::Result<()> {
    let mut tries = 1;
    loop {
        match remove(path) {
            Err(error) if tries < CLEAR_TRIES_MAX => {
                tracing::debug!(path = %path.display(), %error, "not removed yet");
                tries += 1;
                std::thread::sleep(CLEAR_PAUSE);
            }
            done => return done,
        }
    }
}

/// Removes a tree, even where a job made directories that may not be written. One that is not there is a success.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            std::fs::remove_dir_all(path)
        }
        other => other,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives the owner every right on a directory and all below it.
fn open_up(path: &Path) -> io::Result<()> {
    let mut left = vec![path.to_owned()];
    while let Some(directory) = left.pop() {
        std::fs::set_permissions(&directory, Permissions::from_mode(DIRECTORY_MODE))?;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            // Does not follow links.
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::id::{Attempt, JobId};
    use std::os::unix::fs::symlink;

    fn attempt_in(data_dir: &Path) -> AttemptDirectory {
        let job: JobId = "0197f3c8-0000-7000-8000-000000000001".parse().expect("an id");
        AttemptDirectory::new(data_dir, job, Attempt(3))
    }

    #[test]
    fn one_executor_at_a_time_and_nothing_left_of_the_one_before() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("new/data");
        let first = DataDirectory::take(&path).expect("free");
        let attempt = attempt_in(first.path());
        let left = InputFile { name: "extract".parse().expect("a name"), content: Payload::from("rows") };
        attempt.create(Some(&Payload::from("hello")), &[left]).expect("made");
        assert_eq!(std::fs::read(attempt.input()).expect("input"), b"hello");
        assert_eq!(std::fs::read(attempt.inputs().join("extract")).expect("an input"), b"rows");
        assert_eq!(attempt.state().metadata().expect("state").permissions().mode() & 0o777, 0o700);
        // A directory that a job made unwritable does not stay.
        let stubborn = attempt.state().join("stubborn/inner");
        std::fs::create_dir_all(&stubborn).expect("made");
        std::fs::write(stubborn.join("file"), "x").expect("written");
        std::fs::set_permissions(stubborn.parent().expect("parent"), Permissions::from_mode(0o500)).expect("mode");
        assert!(matches!(DataDirectory::take(&path), Err(ExecutorError::DataDirectoryTaken { .. })));
        drop(first);
        let second = DataDirectory::take(&path).expect("free again");
        assert!(!attempt_in(second.path()).state().exists());
    }

    #[test]
    fn a_result_is_a_plain_file_of_limited_size() {
        let place = tempfile::tempdir().expect("a directory");
        let attempt = attempt_in(place.path());
        attempt.create(None, &[]).expect("made");
        assert_eq!(attempt.read_result(), ResultFile::None);
        std::fs::write(attempt.result(), vec![7; RESULT_BYTES_MAX]).expect("written");
        assert_eq!(attempt.read_result(), ResultFile::Left(Payload(vec![7; RESULT_BYTES_MAX].into())));

        let refused = || match attempt.read_result() {
            ResultFile::Refused { reason } => reason.to_string(),
            other => panic!("taken: {other:?}"),
        };
        std::fs::write(attempt.result(), vec![7; RESULT_BYTES_MAX + 1]).expect("written");
        assert!(refused().contains("262144"), "{}", refused());
        std::fs::remove_file(attempt.result()).expect("removed");
        symlink("/etc/hostname", attempt.result()).expect("linked");
        assert!(refused().contains("symbolic link"), "{}", refused());
        std::fs::remove_file(attempt.result()).expect("removed");
        let fifo = rustix::fs::mknodat(
            rustix::fs::CWD,
            attempt.result(),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        );
        fifo.expect("a fifo");
        assert!(refused().contains("no plain file"), "{}", refused());
        std::fs::remove_file(attempt.result()).expect("removed");
        std::fs::create_dir(attempt.result()).expect("made");
        assert!(refused().contains("no plain file"), "{}", refused());
        attempt.remove().expect("removed");
        attempt.remove().expect("removing twice is a success");
    }
}
