//! The data directory of one `outlive dev`: where everything lies in it, and that only one uses it at a time.

use anyhow::{Context as _, bail};
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    /// Held while we live; the kernel lets go of it however we end.
    _lock: Option<File>,
}

impl Directory {
    /// Makes the directory if there is none, and locks it.
    ///
    /// Errors: another `outlive dev` has it.
    pub fn open(given: Option<PathBuf>) -> anyhow::Result<Directory> {
        let mut directory = Directory::at(given)?;
        let root = &directory.root;
        // It holds the key and everything that jobs keep: nobody else's business.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .with_context(|| format!("making the data directory {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("finding {}", root.display()))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(root.join("lock"))
            .with_context(|| format!("opening {}/lock", root.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another `outlive dev` runs in {}: stop it, or take another --data-dir", root.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}/lock", root.display()));
            }
        }
        directory = Directory { root, _lock: Some(lock) };
        for folder in [directory.logs(), directory.keys(), directory.root.join("zones")] {
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(directory)
    }

    /// The directory of a `dev` that may be running, to talk to it.
    pub fn at(given: Option<PathBuf>) -> anyhow::Result<Directory> {
        let root = match given {
            Some(root) if root.as_os_str().is_empty() => bail!("--data-dir is empty: name a directory"),
            Some(root) => root,
            None => default_root().context("neither XDG_DATA_HOME nor HOME is set: give --data-dir")?,
        };
        Ok(Directory { root: std::path::absolute(&root).unwrap_or(root), _lock: None })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn zone(&self, zone: &str) -> PathBuf {
        self.root.join("zones").join(zone)
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    pub fn master_key(&self) -> PathBuf {
        self.keys().join("master.key")
    }

    /// With which every other command works.
    pub fn config(&self) -> PathBuf {
        self.root.join("outlive.toml")
    }

    pub fn processes(&self) -> PathBuf {
        self.root.join("processes.json")
    }

    pub fn ports(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    pub fn control(&self) -> PathBuf {
        self.root.join("control.sock")
    }
}

fn default_root() -> Option<PathBuf> {
    let named = |variable| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = named("XDG_DATA_HOME").or_else(|| Some(named("HOME")?.join(".local/share")))?;
    Some(data.join("outlive").join("dev"))
}

/// Puts a whole file in place of what is there: whoever reads sees the old or the new one, never half of one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    written().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_for_one_dev_at_a_time() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let root = scratch.path().join("deep/down");
        let first = Directory::open(Some(root.clone())).expect("first");
        let error = Directory::open(Some(root.clone())).expect_err("taken").to_string();
        assert!(error.contains("another `outlive dev` runs in") && error.contains("deep/down"), "{error}");
        drop(first);
        Directory::open(Some(root)).expect("free again");
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let path = scratch.path().join("file");
        write_whole(&path, b"a long first text").expect("first");
        write_whole(&path, b"second").expect("second");
        assert_eq!(fs::read(&path).expect("read"), b"second");
        assert_eq!(fs::read_dir(scratch.path()).expect("dir").count(), 1, "nothing is left beside it");
    }
}
