//! A disk that is slow for one process: the kernel lets it write once a second.
//!
//! Through the block controller of cgroup v1, which also holds back what a process waits for in `fsync`. Only the disk
//! is slow: the process still answers, and is given all the time it needs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Slow until this is dropped.
#[derive(Debug)]
pub struct SlowDisk {
    group: PathBuf,
}

impl SlowDisk {
    /// Writes of `process` to the disk below `folder` are held back.
    ///
    /// Errors: why this machine does not permit it: another cgroup, no right to it, or no disk of its own below.
    pub fn for_process(process: u32, folder: &Path) -> Result<SlowDisk, String> {
        let device = fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let group = controller()?.join(format!("outlive-test-{process}"));
        fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        // From here on it is removed again whatever happens.
        let slow = SlowDisk { group };
        slow.tell("blkio.throttle.write_iops_device", &format!("{major}:{minor} 1"))?;
        slow.tell("cgroup.procs", &process.to_string())?;
        Ok(slow)
    }

    fn tell(&self, file: &str, what: &str) -> Result<(), String> {
        let path = self.group.join(file);
        fs::write(&path, what).map_err(|error| format!("{what:?} to {}: {error}", path.display()))
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // Who is in it goes back to the group above; then it can be removed.
        let members = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        if let Some(above) = self.group.parent() {
            for member in members.lines() {
                // It may have ended.
                let _ = fs::write(above.join("cgroup.procs"), member);
            }
        }
        if let Err(error) = fs::remove_dir(&self.group) {
            eprintln!("{} is left behind: {error}", self.group.display());
        }
    }
}

/// Where the block controller is mounted.
fn controller() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| format!("/proc/self/mounts: {error}"))?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.find_map(|fields| match fields.as_slice() {
        [_, at, "cgroup", options, ..] if options.split(',').any(|option| option == "blkio") => Some(PathBuf::from(at)),
        _ => None,
    });
    found.ok_or_else(|| "no block controller of cgroup v1 is mounted".to_owned())
}
