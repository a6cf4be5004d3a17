//! One child process: started, signalled, and noticed when it ends.
//!
//! A task waits for the child and is the only one to reap it. All of this runs on one thread, and the task clears the
//! process id in the same step in which the child is reaped; so an id that is still there is never somebody else's.

use crate::dev::settings::Process;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

/// What was said before the current start is kept beside the log, once.
const PREVIOUS: &str = "log.1";

/// A child that has ended.
#[derive(Debug)]
pub struct Exited {
    pub name: String,
    pub pid: u32,
    pub status: ExitStatus,
}

/// A child that runs, or did.
#[derive(Debug)]
pub struct Child {
    pid: watch::Receiver<Option<u32>>,
}

impl Child {
    /// Starts the process, its output going to the log. Its end goes to `ended`.
    pub fn start(process: &Process, outlive: &Path, log: &Path, ended: mpsc::Sender<Exited>) -> anyhow::Result<Child> {
        let name = process.member.name.clone();
        let output = fresh_log(log).with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(outlive);
        command.arg("dev-child").arg("--parent").arg(std::process::id().to_string()).arg("--").arg(&process.program);
        command.args(&process.args);
        command.stdin(Stdio::null()).stdout(output.try_clone().context("sharing the log")?).stderr(output);
        // A terminal's Ctrl-C is for us; we stop the others in order.
        command.process_group(0);
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(would_configure) {
                command.env_remove(variable);
            }
        }
        let mut child = command.spawn().with_context(|| format!("starting {name} ({})", outlive.display()))?;
        let pid = child.id().context("a child has an id until it is waited for")?;
        let (running, watched) = watch::channel(Some(pid));
        tokio::spawn(async move {
            let status = child.wait().await;
            running.send_replace(None);
            match status {
                // The supervisor is gone only when everything is.
                Ok(status) => drop(ended.send(Exited { name, pid, status }).await),
                Err(error) => tracing::error!(%name, pid, %error, "cannot wait for the process"),
            }
        });
        Ok(Child { pid: watched })
    }

    /// Nothing once it has ended.
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Says whether there was a process to take it.
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Whether it ended within the bound.
    pub async fn ends_within(&self, bound: Duration) -> bool {
        let mut pid = self.pid.clone();
        let ended = pid.wait_for(Option::is_none);
        tokio::time::timeout(bound, ended).await.is_ok()
    }
}

/// Settings in our own environment are for us, not for what we start: those get everything in files.
fn would_configure(variable: &str) -> bool {
    matches!(variable, "NATS_URL" | "NATS_CREDS" | "OUTLIVE_NAMESPACE")
        || variable.starts_with("ETCD_")
        || (variable.starts_with("OUTLIVE_") && variable.contains("__") && !is_tuning(variable))
}

fn fresh_log(log: &Path) -> std::io::Result<File> {
    if log.exists() {
        fs::rename(log, log.with_extension(PREVIOUS))?;
    }
    File::options().create(true).append(true).open(log)
}

/// Keeps a log from filling the disk: what it holds becomes the previous one, and it begins anew.
///
/// The child goes on writing at the end, for the file is open for appending.
pub fn bound_log(log: &Path, bytes_max: u64) -> std::io::Result<()> {
    if fs::metadata(log)?.len() > bytes_max {
        fs::copy(log, log.with_extension(PREVIOUS))?;
        File::options().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}

/// The last lines of a log, or of the previous one where nothing has been said yet.
pub fn log_tail(log: &Path, lines: usize) -> String {
    const BYTES_MAX: u64 = 64 * 1024;
    let read = |path: &Path| -> std::io::Result<String> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read(log).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// How the log and the blobs are kept, when a host is not well, and where traces go, says nothing about who talks to
/// whom, so it may be tried out with `dev`.
fn is_tuning(variable: &str) -> bool {
    const TUNING: [&str; 5] = [
        "OUTLIVE_LOG__",
        "OUTLIVE_BLOBS__",
        "OUTLIVE_RETENTION__",
        "OUTLIVE_EXECUTOR__HEALTH__",
        "OUTLIVE_TELEMETRY__",
    ];
    TUNING.iter().any(|section| variable.starts_with(section))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_what_came_before_and_is_bounded() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let log = scratch.path().join("nats-a.log");
        let previous = scratch.path().join("nats-a.log.1");
        use std::io::Write as _;
        fresh_log(&log).expect("first").write_all(b"one\ntwo\nthree\n").expect("write");
        assert_eq!(log_tail(&log, 2), "two\nthree");
        let mut second = fresh_log(&log).expect("second");
        assert_eq!(fs::read(&previous).expect("previous"), b"one\ntwo\nthree\n");

        second.write_all(&[b'x'; 100]).expect("write");
        bound_log(&log, 100).expect("within");
        assert_eq!(fs::metadata(&log).expect("log").len(), 100);
        bound_log(&log, 99).expect("over");
        second.write_all(b"after\n").expect("write");
        assert_eq!(fs::read(&log).expect("log"), b"after\n");
        assert_eq!(fs::metadata(&previous).expect("previous").len(), 100);
    }

    #[test]
    fn our_own_settings_are_not_handed_down() {
        for variable in ["ETCD_NAME", "NATS_URL", "OUTLIVE_NATS__SERVERS", "OUTLIVE_EXECUTOR__NAME"] {
            assert!(would_configure(variable), "{variable}");
        }
        for variable in [
            "OUTLIVE_LOG",
            "OUTLIVE_LOG__IMAGE_EVERY_EVENTS",
            "OUTLIVE_RETENTION__FINISHED_FOR",
            "OUTLIVE_EXECUTOR__HEALTH__PATIENCE",
            "PATH",
            "HOME__X",
        ] {
            assert!(!would_configure(variable), "{variable}");
        }
    }
}
