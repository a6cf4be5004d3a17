//! One shim per attempt: the small process between an executor and a job.
//!
//! A job's processes are children of a shim and not of the executor, so that they never outlive the executor by
//! accident: when the control channel closes, because the executor ended, crashed or was killed, or when the deadline
//! passes that the executor keeps moving, the shim kills the whole tree. The shim is a subreaper; double-forked
//! processes and those that opened a session of their own come back to it and are killed as well.
//!
//! The executor starts its own binary as `outlive shim`, with a socket as standard input and the job's output pipes as
//! standard output and error; `driver::process` is that side. Order of reading: `protocol` (what is said), `supervise`
//! (the loop), `launch`, `tree`, `crate::freeze`.
//!
//! What a shim cannot do: outlive SIGKILL aimed at itself. The executor then kills what is left of the shim's session.
//! It needs Linux (5.4 or newer, with `/proc`).
//!
//! Deliberately not here: policy. When to freeze, how long to be patient and what an exit means is the executor's.

mod clock;
mod fds;
mod hold;
mod launch;
pub mod protocol;
mod supervise;
pub(crate) mod tree;
mod wake;

pub use clock::BootTime;

use std::error::Error;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::process::{WaitOptions, set_child_subreaper, setsid, wait};
use rustix::thread::set_no_new_privs;

use supervise::Supervisor;
use wake::{Bed, Control, ControlError};

/// `EX_USAGE` of sysexits: started by hand.
const EXIT_USAGE: u8 = 64;
/// `EX_SOFTWARE`: the shim itself failed; its tree is killed nevertheless.
const EXIT_FAULT: u8 = 70;

/// Why a shim could not begin.
#[derive(Debug, thiserror::Error)]
enum SetUpError {
    #[error("a shim is started by an executor and not by hand; to run a job, use \"outlive job run\"")]
    ByHand,
    #[error("a shim could not {what}")]
    Refused {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "/proc does not list the children of processes, so a job's processes could not be held together; \
         mount /proc, and use a kernel with CONFIG_PROC_CHILDREN"
    )]
    NoChildren,
    #[error("the control channel failed")]
    Control(#[from] ControlError),
}

/// The whole program. Returns when no process of the attempt is left.
pub fn main() -> ExitCode {
    let outcome = catch_unwind(AssertUnwindSafe(begin));
    // Every way out passes here, a panic included: nothing of the job may be left. Usually nothing is.
    clear_up();
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            // Before a start this is the executor's standard error pipe, and after it nobody's.
            eprintln!("outlive shim: {}", chain(&error));
            ExitCode::from(if matches!(error, SetUpError::ByHand) { EXIT_USAGE } else { EXIT_FAULT })
        }
        Err(_) => ExitCode::from(EXIT_FAULT),
    }
}

fn begin() -> Result<(), SetUpError> {
    let refused = |what| move |source| SetUpError::Refused { what, source };
    fds::seal().map_err(refused("close what it inherited"))?;
    let input = io::stdin();
    let kind = fstat(&input).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if kind != Ok(FileType::Socket) {
        return Err(SetUpError::ByHand);
    }
    let socket = input.as_fd().try_clone_to_owned().map_err(refused("take over its control channel"))?;
    let control = Control::new(UnixStream::from(socket)).map_err(refused("use its control channel"))?;
    let nothing = OpenOptions::new().read(true).open("/dev/null").map_err(refused("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|error| refused("let go of its input")(error.into()))?;

    let bed = Bed::new().map_err(refused("prepare its timer and signals"))?;
    // Away from the executor's terminal and group: Ctrl-C must not kill jobs behind the executor's back.
    setsid().map_err(|error| refused("open a session of its own")(error.into()))?;
    set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| refused("become a subreaper")(error.into()))?;
    // A setuid program of a job could otherwise become a process that the shim may not kill.
    set_no_new_privs(true).map_err(|error| refused("give up new privileges")(error.into()))?;
    if !tree::is_supported() {
        return Err(SetUpError::NoChildren);
    }
    Supervisor::new(control, bed).run()?;
    Ok(())
}

/// Replaces standard output and error, which are the job's pipes, by nothing.
fn let_go_of_output() -> io::Result<()> {
    let nothing = OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    Ok(())
}

/// Kills and reaps whatever is below this process, however long that takes.
fn clear_up() {
    let mut killer = tree::Killer::default();
    let mut pause = Duration::from_millis(1);
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Ok(None) => {}
            Err(_) => return,
        }
        killer.round(tree::own_pid());
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// An error with everything that caused it, in one line; for the places where it leaves the process as text.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
