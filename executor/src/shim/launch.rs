//! Starting the command of an attempt, and saying in plain words why that did not work.
//!
//! Deliberately not here: what happens to the process afterwards (`supervise`), and what is in its environment (the
//! executor has put that together).

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use super::protocol::{PROTOCOL_VERSION, Start};
use crate::driver::limit::{self, LimitError};

/// How much of a command is shown in a message.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a command could not be started. Every message names the command and the way out.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchRefusal {
    #[error(
        "the executor speaks version {theirs} of the shim protocol and this shim {PROTOCOL_VERSION}; \
         let the executor use its own binary as shim"
    )]
    Protocol { theirs: u32 },
    #[error("the command is empty; give at least the name of a program")]
    Empty,
    #[error("{what} contains a zero byte, which no program can be given; remove it")]
    ZeroByte { what: String },
    #[error(
        "\"{name}\" cannot be the name of an environment variable; it must not be empty and must not contain \"=\""
    )]
    VariableName { name: String },
    #[error("the working directory {path} cannot be entered")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{command}: not found in PATH ({path}); install it on this host, give its full path, or place the job elsewhere"
    )]
    NotFound { command: String, path: String },
    #[error("{command}: there is no such file on this host; check the path, or place the job where it exists")]
    NoFile { command: String },
    #[error(
        "{command}: the file exists but what its first line or its loader names does not; install that interpreter"
    )]
    NoInterpreter { command: String },
    #[error("{command}: not executable; set its execute bit, or give its interpreter as the command (such as \"sh\")")]
    NotExecutable { command: String },
    #[error(
        "{command}: not a program for this machine, and it has no \"#!\" line; give its interpreter as the command"
    )]
    NotAProgram { command: String },
    #[error("{command}: its arguments and environment are longer than this system allows; pass them in a file instead")]
    TooLong { command: String },
    #[error("{command}: this host has no room for another process; wait, or raise its limit of processes or memory")]
    NoRoom {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("{command}: could not be started")]
    Other {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Starts the command in a process group of its own, with nothing but its standard descriptors: input from
/// `/dev/null`, output and errors to the pipes that this shim was given as its own. Gives the process id.
pub(super) fn launch(start: &Start) -> Result<i32, LaunchRefusal> {
    check(start)?;
    limit::apply(&start.limits)?;
    let mut command = Command::new(&start.command[0]);
    command
        .args(&start.command[1..])
        .env_clear()
        .envs(start.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&start.cwd)
        .stdin(Stdio::null())
        .process_group(0);
    // The handle is not kept: everything below the shim is reaped in one place.
    match limit::as_memory_victim(|| command.spawn()) {
        // Process ids are positive numbers of the kernel's type `pid_t`.
        Ok(child) => Ok(child.id().cast_signed()),
        Err(error) => Err(explain(start, error)),
    }
}

fn check(start: &Start) -> Result<(), LaunchRefusal> {
    if start.protocol != PROTOCOL_VERSION {
        return Err(LaunchRefusal::Protocol { theirs: start.protocol });
    }
    if start.command.first().is_none_or(String::is_empty) {
        return Err(LaunchRefusal::Empty);
    }
    if let Some(argument) = start.command.iter().find(|argument| argument.contains('\0')) {
        return Err(LaunchRefusal::ZeroByte { what: format!("the argument \"{}\"", shown(argument)) });
    }
    for (name, value) in &start.env {
        if name.is_empty() || name.contains('=') {
            return Err(LaunchRefusal::VariableName { name: shown(name) });
        }
        if name.contains('\0') || value.contains('\0') {
            return Err(LaunchRefusal::ZeroByte { what: format!("the environment variable \"{}\"", shown(name)) });
        }
    }
    // Looked at first, because the error of a start does not say which of the two paths it is about.
    fs::read_dir(&start.cwd).map_err(|source| LaunchRefusal::Directory { path: start.cwd.clone(), source })?;
    Ok(())
}

fn explain(start: &Start, error: io::Error) -> LaunchRefusal {
    let program = &start.command[0];
    let command = shown(program);
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) if !program.contains('/') => {
            LaunchRefusal::NotFound { command, path: shown(search_path(start)) }
        }
        Some(Errno::NOENT) if start.cwd.join(program).exists() => LaunchRefusal::NoInterpreter { command },
        Some(Errno::NOENT | Errno::NOTDIR) => LaunchRefusal::NoFile { command },
        Some(Errno::ACCESS | Errno::PERM | Errno::ISDIR) => LaunchRefusal::NotExecutable { command },
        Some(Errno::NOEXEC) => LaunchRefusal::NotAProgram { command },
        Some(Errno::TOOBIG) => LaunchRefusal::TooLong { command },
        Some(Errno::AGAIN | Errno::NOMEM) => LaunchRefusal::NoRoom { command, source: error },
        _ => LaunchRefusal::Other { command, source: error },
    }
}

fn search_path(start: &Start) -> &str {
    start.env.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value)
}

/// Text of a user, short enough for a message.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::limit::Limits;
    use crate::shim::BootTime;

    fn refused(change: impl FnOnce(&mut Start)) -> String {
        let mut start = Start {
            protocol: PROTOCOL_VERSION,
            command: vec!["true".into()],
            env: vec![],
            cwd: "/".into(),
            limits: Limits { memory_bytes: 0 },
            deadline: BootTime::now(),
        };
        change(&mut start);
        check(&start).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_given_to_a_program_is_refused_by_name() {
        assert!(refused(|s| s.command.clear()).contains("command is empty"));
        assert!(refused(|s| s.command[0].clear()).contains("command is empty"));
        assert!(refused(|s| s.command.push("a\0b".into())).contains("\"a?b\" contains a zero byte"));
        assert!(refused(|s| s.env.push(("A=B".into(), String::new()))).contains("\"A=B\""));
        assert!(refused(|s| s.env.push((String::new(), String::new()))).contains("must not be empty"));
        assert!(refused(|s| s.env.push(("A".into(), "\0".into()))).contains("variable \"A\""));
        assert!(refused(|s| s.cwd = "/no/such/place".into()).contains("/no/such/place"));
        assert!(refused(|s| s.protocol = 9).contains("version 9"));
    }

    #[test]
    fn long_text_is_shown_shortened() {
        assert_eq!(shown("abc"), "abc");
        assert!(shown(&"x".repeat(1000)).ends_with("x…"));
    }
}
