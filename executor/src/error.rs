//! Why an executor does not start or stops, and how a failure becomes a text for the leader.

use crate::config::ConfigError;
use compact_str::CompactString;
use outlive_schemas::limits::REASON_BYTES_MAX;
use outlive_store::etcd::EtcdError;
use outlive_store::key_store::KeyError;
use outlive_store::keyring::KeyringError;
use outlive_store::nats::{EnsureStreamError, NatsError};
use outlive_store::telemetry::TelemetryError;
use std::error::Error;
use std::io;
use std::path::PathBuf;

/// An executor cannot begin, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error("traces cannot be exported")]
    Traces(#[source] outlive_store::telemetry::trace::TraceError),
    #[error("the executor's configuration cannot be used")]
    Config(#[source] ConfigError),
    #[error("the data directory {} is in use by another executor; give each its own `executor.data_dir`", path.display())]
    DataDirectoryTaken { path: PathBuf },
    #[error("the path of the data directory {} is not UTF-8, so jobs could not be told it", path.display())]
    DataDirectoryName { path: PathBuf },
    #[error("cannot {what} in the data directory {}", path.display())]
    DataDirectory {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the master keys cannot be loaded")]
    Keyring(#[source] KeyringError),
    /// Nothing that was sealed could be opened, so nothing is begun.
    #[error("the master keys are not those that this cluster's keys were wrapped with")]
    Keys(#[source] KeyError),
    #[error("NATS cannot be used")]
    Nats(#[source] NatsError),
    #[error("cannot subscribe to {subject}: {reason}")]
    Subscribe { subject: String, reason: String },
    #[error("a stream of NATS cannot be used")]
    Stream(#[source] EnsureStreamError),
    #[error("etcd cannot be used")]
    Etcd(#[source] EtcdError),
    #[error("metrics cannot be served")]
    Telemetry(#[source] TelemetryError),
    #[error("the connection to NATS was closed for good")]
    NatsClosed,
}

/// An error with everything that caused it, in one line, for the places where it leaves the process as text. Longer
/// ones than a reason may be are cut, and end with `…`.
pub fn explained(error: &dyn Error) -> CompactString {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    shortened(&text)
}

/// A text as a reason: at most so long, and cut where a character ends.
pub fn shortened(text: &str) -> CompactString {
    const ELLIPSIS: &str = "…";
    if text.len() <= REASON_BYTES_MAX {
        return text.into();
    }
    let end = (0..=REASON_BYTES_MAX - ELLIPSIS.len()).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    compact_str::format_compact!("{}{ELLIPSIS}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_names_every_cause_once_and_has_an_end() {
        let source = io::Error::other("disk on fire");
        let error = ExecutorError::DataDirectory { what: "make a directory", path: "/data".into(), source };
        assert_eq!(explained(&error), "cannot make a directory in the data directory /data: disk on fire");
        let long = shortened(&"ä".repeat(REASON_BYTES_MAX));
        assert!(long.len() <= REASON_BYTES_MAX && long.ends_with("ä…"));
    }
}
