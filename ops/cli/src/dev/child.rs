//! `outlive dev-child`: becomes another program, after asking Linux to kill it when `outlive dev` ends.
//!
//! Servers know no such wish, and a `kill -9` of `dev` gives it no chance to stop them itself. The wish survives the
//! `exec`. Where there is no such thing (macOS), a killed `dev` leaves its children, and they have to be stopped by hand.

use anyhow::{Context as _, bail};
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Becomes a program that dies with its parent
#[derive(Clone, Debug, clap::Args)]
pub struct DevChildArgs {
    /// Whose end ends the program
    #[arg(long)]
    pub parent: u32,
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Returns only when the program cannot be started.
pub fn run(args: DevChildArgs) -> anyhow::Result<Infallible> {
    die_with(args.parent)?;
    let mut words = args.command.into_iter();
    let program = words.next().context("no program is given")?;
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("starting {}", PathBuf::from(program).display()))
}

#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> anyhow::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).context("asking to be killed with the parent")?;
    // It may have ended before we asked.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now != Some(parent) {
        bail!("the parent, process {parent}, has ended");
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> anyhow::Result<()> {
    Ok(())
}
