//! Stopping a process tree so that its files stand still, and letting it go on.
//!
//! Runs inside the shim, on the way of every checkpoint: freeze, read what changed, thaw. Every descendant is sent
//! SIGSTOP, which no process can catch, and the freeze is done when two walks in a row find the same processes and
//! every thread of them stopped.
//!
//! **From the top down.** A process is stopped before its children are looked for. While it may still run it may
//! fork, so a list of its children would be out of date when read; once it has stopped the list is exact. A tree that
//! forks all the time is thus caught from its roots. It also keeps parents from seeing their children stop (a shell with
//! job control would take that as news), and it waits out a `vfork`, whose parent cannot stop before its child has
//! started its program. **Thawing goes from the bottom up**, for the same reason.
//!
//! What a process can notice: a few system calls (`epoll_wait`, `semop`, …) return `EINTR` when it goes on, as they do
//! after Ctrl-Z and `fg`; timers ran meanwhile. A process that the job itself had stopped stays stopped.
//!
//! A step never sleeps, so that the shim hears its executor and its clock in between.
//!
//! Deliberately not here: the cgroup v2 freezer (see `driver::limit`), which would do this in one write; and reading
//! files.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::shim::BootTime;
use crate::shim::tree::{self, Below, Member, Motion};

/// How long a tree may take to stop. A thread inside a disk write stops when the write is done, which on a saturated
/// disk is seconds; a job held still for longer than this in vain suffers more than a missed checkpoint is worth.
pub const FREEZE_LIMIT: Duration = Duration::from_secs(5);

/// How long a tree stays frozen if nobody thaws it. Reading a large state is seconds; an executor that takes longer is
/// in trouble itself, and the job must not share it. The freeze then counts as broken: see [`FreezeError::HeldTooLong`].
pub const HOLD_LIMIT: Duration = Duration::from_secs(30);

/// How long a tree may stay frozen whose state is stored before it is killed as it stands: nothing of it will go on
/// here, so it does not suffer; but an executor that hangs must not keep it for ever.
pub const LAST_HOLD_LIMIT: Duration = Duration::from_secs(600);

/// The most processes one attempt may have and still be frozen: Linux's default number of processes on a whole host.
pub const PROCESSES_MAX: usize = 32_768;

/// Between two walks that found no progress. A sleeping process stops within some ten microseconds.
const PAUSE_MIN: Duration = Duration::from_micros(100);
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// How many walks follow each other at once while each of them stops more processes. After that the shim looks at its
/// executor and its clock.
const WALKS_PER_STEP: u32 = 32;

/// A tree stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeReport {
    /// Processes that are stopped.
    pub processes: u32,
    /// From the request to the last of them standing still.
    pub took: Duration,
}

/// A tree goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThawReport {
    /// From the moment the first process was stopped to the moment the last one went on: what the job felt.
    pub paused: Duration,
}

/// Why a tree could not be frozen, or was not frozen all the time until it was thawed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FreezeError {
    #[error(
        "freeze_timeout: {moving} of {processes} processes did not stop within {limit:?} (process {pid} is in state {state}); \
         everything goes on; D means that it waits for a disk or a network file system"
    )]
    Timeout { moving: u32, processes: u32, pid: i32, state: char, limit: Duration },
    #[error("the attempt has more than {limit} processes, which is the most that are frozen together")]
    TooManyProcesses { limit: usize },
    #[error("process {pid} may not be stopped: {reason}; it probably runs as another user")]
    Denied { pid: i32, reason: String },
    #[error("the processes could not be listed: {reason}")]
    Unreadable { reason: String },
    #[error("the attempt is being frozen or is frozen already")]
    Busy,
    #[error("the attempt is not running any more")]
    NotRunning,
    #[error(
        "the attempt was not thawed within {limit:?} and went on by itself; what was read meanwhile is not consistent"
    )]
    HeldTooLong { limit: Duration },
    #[error("the freeze was ended by a signal to the attempt; what was read meanwhile is not consistent")]
    Interrupted,
    #[error(
        "process {pid} of the attempt ran while it should have been frozen: somebody sent SIGCONT from outside; \
         what was read meanwhile is not consistent"
    )]
    Broken { pid: i32 },
    #[error("the attempt is not frozen")]
    NotFrozen,
    #[error("the shim gave no answer within {limit:?}")]
    NoAnswer { limit: Duration },
}

/// What to do next about a freeze under way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Call again at this time.
    Again(BootTime),
    Frozen(FreezeReport),
    /// Everything that had been stopped goes on again.
    Failed(FreezeError),
}

/// One freeze of the tree below `root`, from the first stop signal to the thaw.
#[derive(Debug)]
pub(crate) struct Freezer {
    root: i32,
    began: BootTime,
    pause: Duration,
    /// Whom we stopped, in that order: parents before children.
    stopped: Vec<Member>,
    /// The same, to look up.
    ours: BTreeSet<Member>,
    /// Everybody, if all stood still at the last walk.
    still: Option<BTreeSet<Member>>,
}

/// What one walk saw.
#[derive(Default)]
struct Sight {
    all: BTreeSet<Member>,
    moving: Vec<(i32, char)>,
    newly_stopped: u32,
}

impl Sight {
    fn too_slow(&self) -> FreezeError {
        let (pid, state) = self.moving.first().copied().unwrap_or((0, '?'));
        let (moving, processes) = (self.moving.len() as u32, self.all.len() as u32);
        FreezeError::Timeout { moving, processes, pid, state, limit: FREEZE_LIMIT }
    }
}

impl Freezer {
    pub fn begin(root: i32, now: BootTime) -> Self {
        Self { root, began: now, pause: PAUSE_MIN, stopped: Vec::new(), ours: BTreeSet::new(), still: None }
    }

    /// Goes as far as it can without waiting.
    pub fn step(&mut self) -> Step {
        let mut progress = true;
        for _ in 0..WALKS_PER_STEP {
            let sight = match self.look_and_stop() {
                Ok(sight) => sight,
                Err(error) => return self.fail(error),
            };
            let took = BootTime::now().since(self.began);
            if sight.moving.is_empty() {
                // Everybody stands still. Was that everybody? If another look, at once, finds the same, it was.
                if self.still.as_ref() == Some(&sight.all) {
                    return Step::Frozen(FreezeReport { processes: sight.all.len() as u32, took });
                }
            } else {
                progress = sight.newly_stopped > 0;
            }
            if took >= FREEZE_LIMIT {
                return self.fail(sight.too_slow());
            }
            self.still = sight.moving.is_empty().then_some(sight.all);
            if !progress {
                break;
            }
        }
        self.pause = if progress { PAUSE_MIN } else { (self.pause * 2).min(PAUSE_MAX) };
        Step::Again(BootTime::now().after(self.pause))
    }

    /// One walk: stops what moves and does not look below it, for its children are looked for when it has stopped.
    fn look_and_stop(&mut self) -> Result<Sight, FreezeError> {
        let mut sight = Sight::default();
        let mut refused = None;
        let walked = tree::walk(self.root, Below::Stopped, |look| {
            if sight.all.len() >= PROCESSES_MAX {
                refused = Some(FreezeError::TooManyProcesses { limit: PROCESSES_MAX });
                return Err(io::ErrorKind::Other.into());
            }
            sight.all.insert(look.member);
            let Motion::Moving(state) = look.motion else {
                return Ok(());
            };
            sight.moving.push((look.member.pid, state));
            // Also if it was sent before: something may have sent SIGCONT before it stood still itself.
            match tree::signal(look.member, Signal::STOP) {
                Ok(true) => {
                    if self.ours.insert(look.member) {
                        self.stopped.push(look.member);
                        sight.newly_stopped += 1;
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    refused = Some(FreezeError::Denied { pid: look.member.pid, reason: error.to_string() });
                    return Err(error);
                }
            }
            Ok(())
        });
        match (refused, walked) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(FreezeError::Unreadable { reason: error.to_string() }),
            (None, Ok(())) => Ok(sight),
        }
    }

    fn fail(&mut self, error: FreezeError) -> Step {
        self.release();
        Step::Failed(error)
    }

    /// Lets everything go on and says how long it stood still, or that it did not stand still all the time.
    pub fn thaw(mut self) -> Result<ThawReport, FreezeError> {
        let report = self.stood_still();
        self.release();
        report.map(|_| ThawReport { paused: BootTime::now().since(self.began) })
    }

    /// Whether everything has stood still until now, and for how long.
    pub fn stood_still(&self) -> Result<ThawReport, FreezeError> {
        let mut runner = None;
        let walked = tree::walk(self.root, Below::Everybody, |look| {
            if matches!(look.motion, Motion::Moving(_)) {
                runner.get_or_insert(look.member.pid);
            }
            Ok(())
        });
        match (runner, walked) {
            (Some(pid), _) => Err(FreezeError::Broken { pid }),
            (None, Err(error)) => Err(FreezeError::Unreadable { reason: error.to_string() }),
            (None, Ok(())) => Ok(ThawReport { paused: BootTime::now().since(self.began) }),
        }
    }

    /// Sends SIGCONT to whom we stopped, children before parents. A signal that cannot be delivered is for a process
    /// that is gone.
    pub fn release(&mut self) {
        for member in self.stopped.drain(..).rev() {
            let _ = tree::signal(member, Signal::CONT);
        }
        self.ours.clear();
        self.still = None;
    }
}
