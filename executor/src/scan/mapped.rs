//! Files that a job writes through memory.
//!
//! A write through a shared mapping changes a file's times only when it is the first to its page since that page was
//! last written to disk. So as long as such a mapping stands, a file may change and look as it did; its contents are
//! read every time. Once the mapping is gone times tell again, for a new mapping begins with a first write.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use crate::shim::tree::{self, Below};

/// Mappings of one attempt that are looked at. Linux allows one process 65,530 by default.
const MAPPINGS_MAX: usize = 1 << 20;

/// The inodes of files that `process`, a job's first, or any other process of its attempt could write to through
/// memory. Inodes of other file systems are among them: they make one file more to be read at worst.
pub(super) fn writable(process: i32) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    // Orphans hang below the shim, which is the first process's parent.
    let Some(first) = tree::look(process)? else { return Ok(inodes) };
    let mut mappings = 0;
    tree::walk(first.parent, Below::Everybody, |look| {
        let maps = match File::open(format!("/proc/{}/maps", look.member.pid)) {
            Ok(maps) => maps,
            // It is gone, and its mappings are.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for line in BufReader::new(maps).split(b'\n') {
            mappings += 1;
            if mappings > MAPPINGS_MAX {
                return Err(io::Error::other(format!("the job has more than {MAPPINGS_MAX} memory mappings")));
            }
            match line {
                Ok(line) => inodes.extend(writable_inode(&line)),
                // It died while it was read.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })?;
    Ok(inodes)
}

/// Of a line such as `7f0c1000-7f0c2000 rw-s 00000000 fe:00 1234  /path`.
fn writable_inode(line: &[u8]) -> Option<u64> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).skip(1);
    let rights = words.next()?;
    if !(rights.contains(&b'w') && rights.contains(&b's')) {
        return None;
    }
    std::str::from_utf8(words.nth(2)?).ok()?.parse().ok().filter(|inode| *inode != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_writable_mappings_of_files_count() {
        let line = |rights| format!("7f0c1000-7f0c2000 {rights} 00000000 fe:00 1234       /a path\n");
        assert_eq!(writable_inode(line("rw-s").as_bytes()), Some(1234));
        for other in ["r--s", "rw-p", "r-xp", ""] {
            assert_eq!(writable_inode(line(other).as_bytes()), None, "{other}");
        }
        assert_eq!(writable_inode(b"7f0c1000-7f0c2000 rw-s 00000000 00:00 0"), None);
        assert_eq!(writable_inode(b""), None);
        assert_eq!(writable_inode(b"\xff rw-s"), None);
    }
}
