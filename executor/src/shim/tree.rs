//! A tree of processes: finding its members in `/proc` and signalling them.
//!
//! A shim is a subreaper, so every process of its attempt hangs below it for ever, whatever it forks, whatever session
//! it opens and whoever of its parents dies: an orphan becomes the shim's own child. Process groups and sessions are no
//! such thing, a job leaves them as it likes.
//!
//! The kernel's lists of children are exact only while the parents stand still. One walk is therefore a sample, and
//! the callers walk until nothing changes: `freeze` until everything has stopped, a kill until nobody is left.
//!
//! **Process numbers are used again.** A number read from `/proc` may belong to a stranger a moment later. So nothing
//! is signalled by number: a descriptor is opened first (`pidfd_open`), then the process behind it is shown to be the
//! one that was found, by its start time, and the signal goes to the descriptor.
//!
//! Deliberately not here: when to signal what, and waiting.

mod stat;

use std::collections::BTreeSet;
use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use stat::Stat;

/// One process, told apart from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub pid: i32,
    /// Clock ticks since boot.
    pub started: u64,
}

/// What a process was doing when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Motion {
    /// At least one thread may run; its state as in `/proc/<pid>/stat`.
    Moving(char),
    /// Every thread has stopped.
    Stopped,
    /// Nothing is left of it but its exit status.
    Dead,
}

/// One look at a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub member: Member,
    pub parent: i32,
    pub session: i32,
    pub threads: u32,
    pub motion: Motion,
}

/// Looks at a process; `None` if there is none of that number.
pub(crate) fn look(pid: i32) -> io::Result<Option<Look>> {
    let Some(text) = read_if_there(&format!("/proc/{pid}/stat"))? else {
        return Ok(None);
    };
    let stat = Stat::parse(&text).ok_or_else(|| unreadable(pid))?;
    let motion = if stat.threads <= 1 { Motion::of_thread(stat.state) } else { motion_of_threads(pid)? };
    Ok(Some(Look {
        member: Member { pid, started: stat.started },
        parent: stat.parent,
        session: stat.session,
        threads: stat.threads,
        motion,
    }))
}

/// Adds the children of a process to `into`; nothing if it is gone. `threads` is what a [`look`] said.
pub(crate) fn children(pid: i32, threads: u32, into: &mut Vec<i32>) -> io::Result<()> {
    if threads <= 1 {
        return children_of_thread(pid, pid, into);
    }
    for thread in threads_of(pid)? {
        children_of_thread(pid, thread, into)?;
    }
    Ok(())
}

/// Whether this kernel lists children at all; without that no tree can be held together.
pub(crate) fn is_supported() -> bool {
    let own = own_pid();
    fs::exists(format!("/proc/{own}/task/{own}/children")).unwrap_or(false)
}

/// Sends a signal to exactly this process. `false` if it is gone.
pub(crate) fn signal(member: Member, signal: Signal) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(member.pid) else {
        return Ok(false);
    };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(Errno::SRCH) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let Some(text) = read_if_there(&format!("/proc/{}/stat", member.pid))? else {
        return Ok(false);
    };
    let stat = Stat::parse(&text).ok_or_else(|| unreadable(member.pid))?;
    if stat.started != member.started {
        return Ok(false);
    }
    match pidfd_send_signal(&descriptor, signal) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whose children a [`walk`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    Everybody,
    /// Only of those who stand still, since only their lists of children are exact.
    Stopped,
}

/// Visits every process below `root`, parents before their children. The dead have no children and are not visited.
/// Goes on to the end unless `visit` fails.
pub(crate) fn walk(root: i32, below: Below, mut visit: impl FnMut(&Look) -> io::Result<()>) -> io::Result<()> {
    let root_threads = look(root)?.map_or(1, |look| look.threads);
    let mut seen = BTreeSet::new();
    let mut level = Vec::new();
    children(root, root_threads, &mut level)?;
    let mut parents = BTreeSet::from([root]);
    // Level by level: the first members of a level come to a stop while the signal goes to the others.
    while !level.is_empty() {
        let mut next = Vec::new();
        let mut next_parents = BTreeSet::from([root]);
        for pid in level {
            let Some(look) = look(pid)? else { continue };
            // A number may have changed hands since the list was read. An orphan has moved to the root.
            let ours = parents.contains(&look.parent) || look.parent == root;
            if !ours || look.motion == Motion::Dead || !seen.insert(look.member) {
                continue;
            }
            // Before the visit: a process that the visit kills takes its list of children with it.
            if below == Below::Everybody || look.motion == Motion::Stopped {
                children(pid, look.threads, &mut next)?;
                next_parents.insert(pid);
            }
            visit(&look)?;
        }
        level = next;
        parents = next_parents;
    }
    Ok(())
}

/// What one round of killing found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Killing {
    /// Processes that were alive.
    pub found: u32,
    /// How many of them had not been sent the signal by this killer before.
    pub fresh: u32,
}

/// Kills a tree, one round at a time, and remembers whom it has sent to.
#[derive(Debug, Default)]
pub(crate) struct Killer {
    sent: BTreeSet<Member>,
}

impl Killer {
    /// Sends SIGKILL to everything below `root` that a walk finds. What cannot be read or signalled just now is left
    /// to the next round; the caller repeats until nobody is left.
    pub fn round(&mut self, root: i32) -> Killing {
        let mut killing = Killing::default();
        let mut alive = BTreeSet::new();
        // The result says only whether /proc could be read to its end, and the next round reads it again.
        let _ = walk(root, Below::Everybody, |look| {
            killing.found += 1;
            if !self.sent.contains(&look.member) {
                killing.fresh += 1;
            }
            let _ = signal(look.member, Signal::KILL);
            alive.insert(look.member);
            Ok(())
        });
        // Only the living are worth remembering, or a job that forks for ever would fill the memory of its shim.
        self.sent = alive;
        killing
    }
}

/// How often [`kill_session`] looks before it kills: what it finds is stopped, so each look finds less that is new.
const SESSION_LOOKS_MAX: u32 = 200;

/// Kills what is left of a session whose leader, a shim, was itself killed, and everything below it; gives the number
/// of processes found. Without the shim a process whose parent dies goes to a stranger, so everybody is stopped first
/// and killed when nobody new turns up. What had changed its session *and* lost its parent before cannot be told from
/// a stranger any more; only the shim could have held it.
pub(crate) fn kill_session(leader: Member) -> io::Result<u32> {
    let mut found = BTreeSet::new();
    for _ in 0..SESSION_LOOKS_MAX {
        let before = found.len();
        let all_still = stop_session(leader, &mut found)?;
        if all_still && found.len() == before {
            break;
        }
    }
    for member in &found {
        signal(*member, Signal::KILL)?;
    }
    Ok(found.len() as u32)
}

/// Stops everybody of a session and below it and adds them to `found`. `true` if all stood still already.
fn stop_session(leader: Member, found: &mut BTreeSet<Member>) -> io::Result<bool> {
    // The number of a session is not given to anybody else while the session has a member. If somebody else has it,
    // the session is empty.
    if look(leader.pid)?.is_some_and(|look| look.member != leader) {
        return Ok(true);
    }
    let mut all_still = true;
    let mut stop = |look: &Look| {
        found.insert(look.member);
        if let Motion::Moving(_) = look.motion {
            all_still = false;
            signal(look.member, Signal::STOP)?;
        }
        Ok(())
    };
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some(look) = look(pid)? else { continue };
        if look.session == leader.pid && look.motion != Motion::Dead {
            stop(&look)?;
            walk(pid, Below::Everybody, &mut stop)?;
        }
    }
    Ok(all_still)
}

/// This process's own number.
pub(crate) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

impl Motion {
    fn of_thread(state: char) -> Self {
        match state {
            // `t` is stopped under a debugger; a debugger of ours is stopped as well, or not part of the tree.
            'T' | 't' => Self::Stopped,
            'Z' | 'X' | 'x' => Self::Dead,
            other => Self::Moving(other),
        }
    }
}

fn motion_of_threads(pid: i32) -> io::Result<Motion> {
    let mut motion = Motion::Dead;
    for thread in threads_of(pid)? {
        let Some(text) = read_if_there(&format!("/proc/{pid}/task/{thread}/stat"))? else {
            continue;
        };
        let stat = Stat::parse(&text).ok_or_else(|| unreadable(pid))?;
        match Motion::of_thread(stat.state) {
            moving @ Motion::Moving(_) => return Ok(moving),
            Motion::Stopped => motion = Motion::Stopped,
            Motion::Dead => {}
        }
    }
    Ok(motion)
}

fn threads_of(pid: i32) -> io::Result<Vec<i32>> {
    let entries = match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut threads = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => threads.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())),
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(threads)
}

fn children_of_thread(pid: i32, thread: i32, into: &mut Vec<i32>) -> io::Result<()> {
    let Some(text) = read_if_there(&format!("/proc/{pid}/task/{thread}/children"))? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&text);
    into.extend(text.split_ascii_whitespace().filter_map(|number| number.parse::<i32>().ok()));
    Ok(())
}

/// Reads a file of `/proc`; `None` if the process is gone, which it may be at any moment, half-way through included.
fn read_if_there(path: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() && path.ends_with("stat") => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

fn unreadable(pid: i32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has an unknown form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_moves() {
        let own = look(own_pid()).unwrap().unwrap();
        assert!(matches!(own.motion, Motion::Moving(_)));
        assert!(own.threads >= 1 && own.member.started > 0);
        assert!(is_supported());
    }

    #[test]
    fn a_number_in_other_hands_is_not_signalled() {
        let own = look(own_pid()).unwrap().unwrap().member;
        let stranger = Member { started: own.started + 1, ..own };
        // Were it sent, this test would not come to its end.
        assert!(!signal(stranger, Signal::KILL).unwrap());
    }
}
