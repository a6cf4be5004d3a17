//! How a command ends: every way of failing, and the one place that turns it into an exit code (contract, section 5).

use outlive_schemas::error::{ErrorCode, Rejection};
use std::io;
use std::process::ExitCode;

/// A failure that scripts can tell from the others. Whatever is none of these is an internal fault: exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line, a file named on it, or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// The scheduler, or NATS, said no.
    #[error("{0}")]
    Refused(Rejection),
    /// Nobody answered, or nobody who could act.
    #[error("{0}")]
    Unavailable(String),
    /// What was waited for did not happen in the time given.
    #[error("{0}")]
    Timeout(String),
    /// The job that was waited for ended, and not well.
    #[error("{0}")]
    JobFailed(String),
    #[error("{0}")]
    Interrupted(String),
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::Usage(message.into())
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Refused(rejection) => exit_code_of(rejection.code),
            Failure::Unavailable(_) => 6,
            Failure::Timeout(_) => 7,
            Failure::JobFailed(_) => 10,
            Failure::Interrupted(_) => 130,
        }
    }
}

fn exit_code_of(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::Internal => 1,
        ErrorCode::InvalidRequest | ErrorCode::InvalidArgument | ErrorCode::Unsupported => 2,
        ErrorCode::NotFound => 3,
        ErrorCode::InUse | ErrorCode::ConcurrentModification => 4,
        ErrorCode::Unauthorized | ErrorCode::LimitExceeded => 5,
        ErrorCode::Unavailable => 6,
        ErrorCode::Timeout => 7,
    }
}

/// Says on standard error what went wrong, with every cause, and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        // `outlive job list | head`: the reader has what it wanted.
        return ExitCode::SUCCESS;
    }
    eprintln!("outlive: {}", told(error));
    ExitCode::from(exit_code(error))
}

fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Other people's errors often say their cause themselves.
        if !text.ends_with(&cause) {
            text.push_str(&format!("\n  because: {cause}"));
        }
    }
    text
}

fn exit_code(error: &anyhow::Error) -> u8 {
    // A failure that was given as context is none of the chain's causes; only the error itself knows it by its type.
    let given = error.downcast_ref::<Failure>();
    given.or_else(|| error.chain().find_map(|cause| cause.downcast_ref())).map_or(1, Failure::exit_code)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let fault = error.downcast_ref::<io::Error>();
    fault.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn every_refusal_has_the_contracts_exit_code() {
        for (code, expected) in [
            (ErrorCode::Internal, 1),
            (ErrorCode::InvalidRequest, 2),
            (ErrorCode::InvalidArgument, 2),
            (ErrorCode::Unsupported, 2),
            (ErrorCode::NotFound, 3),
            (ErrorCode::InUse, 4),
            (ErrorCode::ConcurrentModification, 4),
            (ErrorCode::Unauthorized, 5),
            (ErrorCode::LimitExceeded, 5),
            (ErrorCode::Unavailable, 6),
            (ErrorCode::Timeout, 7),
        ] {
            let error = anyhow::Error::from(Failure::Refused(Rejection::new(code, "no")));
            assert_eq!(exit_code(&error), expected, "{code:?}");
        }
    }

    #[test]
    fn other_endings_have_theirs() {
        assert_eq!(exit_code(&anyhow::anyhow!("a bug")), 1);
        assert_eq!(exit_code(&Failure::usage("x").into()), 2);
        assert_eq!(exit_code(&Failure::Unavailable("x".into()).into()), 6);
        assert_eq!(exit_code(&Failure::Timeout("x".into()).into()), 7);
        assert_eq!(exit_code(&Failure::JobFailed("x".into()).into()), 10);
        assert_eq!(exit_code(&Failure::Interrupted("x".into()).into()), 130);
    }

    #[test]
    fn context_does_not_hide_the_code() {
        let error = Err::<(), _>(Failure::usage("x")).context("while reading job.json").expect_err("it is an error");
        assert_eq!(exit_code(&error), 2);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = anyhow::Error::from(refused).context("no server").context(Failure::Unavailable("x".into()));
        assert_eq!(exit_code(&error), 6);
    }

    #[test]
    fn every_cause_is_told_once() {
        let error = anyhow::anyhow!("refused").context("IO error: refused").context(Failure::usage("no NATS"));
        assert_eq!(told(&error), "no NATS\n  because: IO error: refused");
    }

    #[test]
    fn only_a_closed_pipe_is_no_failure() {
        assert!(is_closed_pipe(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
        assert!(!is_closed_pipe(&io::Error::from(io::ErrorKind::NotFound).into()));
    }
}
