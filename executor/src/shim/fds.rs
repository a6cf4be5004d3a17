//! Which file descriptors a job inherits: its three standard ones and nothing else.
//!
//! Everything Outlive opens is close-on-exec. What is not ours may be otherwise: a supervisor or a terminal
//! multiplexer that leaked descriptors into the executor would leak them into every job. The shim marks whatever it
//! was born with before it opens anything of its own.
//!
//! This is the one place of the shim with `unsafe` code: naming a descriptor by its number is the only way to reach
//! one that nobody in this process has opened.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_setfd};

/// Marks every open descriptor from 3 upwards close-on-exec.
pub(super) fn seal() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if number < 3 {
            continue;
        }
        // SAFETY: the directory listed this number a moment ago, this process has a single thread and closes
        // nothing inside the loop, so the descriptor is open for the length of this call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Ok(())
}
