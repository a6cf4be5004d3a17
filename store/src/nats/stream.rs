//! Making sure that a stream is there, and is what Outlive relies on.

use crate::retry::retry;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, Info, Stream};
use async_nats::jetstream::{Error as ApiError, ErrorCode};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum EnsureStreamError {
    #[error("the stream {stream} is set up so that Outlive cannot rely on it: {reason}")]
    Unsafe { stream: String, reason: String },
    #[error("JetStream refused to create the stream {stream}: {reason}")]
    Refused { stream: String, reason: String },
}

/// Why this try brought no stream.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("JetStream is not ready for the stream {stream}: {reason}")]
    NotYet { stream: String, reason: String },
    #[error(transparent)]
    Final(EnsureStreamError),
}

/// Creates the stream if it is absent, and otherwise has `check` look at the one that is there: `check` returns what
/// is wrong with it, by the name and value of the setting.
///
/// Several callers may do so at once. While JetStream has no leader, or too few servers for the replicas, this keeps
/// trying: bound it from outside.
pub async fn ensure_stream(
    jetstream: &Context,
    config: Config,
    check: impl Fn(&Config) -> Result<(), String>,
) -> Result<Stream<Info>, EnsureStreamError> {
    let passes = |failure: &Failure| matches!(failure, Failure::NotYet { .. });
    let found = retry("open a stream", Duration::MAX, passes, || open_or_create(jetstream, &config, &check)).await;
    found.map_err(|failure| match failure {
        Failure::Final(error) => error,
        Failure::NotYet { stream, reason } => EnsureStreamError::Refused { stream, reason },
    })
}

async fn open_or_create(
    jetstream: &Context,
    config: &Config,
    check: &impl Fn(&Config) -> Result<(), String>,
) -> Result<Stream<Info>, Failure> {
    let stream = || config.name.clone();
    let not_yet = |reason: String| Failure::NotYet { stream: stream(), reason };
    let checked = |found: Stream<Info>| match check(&found.cached_info().config) {
        Ok(()) => Ok(found),
        Err(reason) => Err(Failure::Final(EnsureStreamError::Unsafe { stream: stream(), reason })),
    };
    match jetstream.get_stream(&config.name).await {
        Ok(found) => return checked(found),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(api) if api.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                return Err(Failure::Final(EnsureStreamError::Refused { stream: stream(), reason: error.to_string() }));
            }
            _ => return Err(not_yet(error.to_string())),
        },
    }
    match jetstream.create_stream(config).await {
        Ok(created) => checked(created),
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(api) if !may_pass(&api) => {
                Err(Failure::Final(EnsureStreamError::Refused { stream: stream(), reason: api.to_string() }))
            }
            CreateStreamErrorKind::EmptyStreamName | CreateStreamErrorKind::InvalidStreamName => {
                Err(Failure::Final(EnsureStreamError::Refused { stream: stream(), reason: error.to_string() }))
            }
            _ => Err(not_yet(error.to_string())),
        },
    }
}

/// Whether JetStream may answer otherwise in a moment. A name that exists means that another was quicker, with
/// another configuration: the next look finds it.
fn may_pass(error: &ApiError) -> bool {
    let code = error.error_code();
    code == ErrorCode::STREAM_NAME_EXIST
        || code == ErrorCode::CLUSTER_NOT_AVAILABLE
        || code == ErrorCode::CLUSTER_NO_PEERS
        || code == ErrorCode::CLUSTER_INCOMPLETE
        || code == ErrorCode::CLUSTER_NOT_LEADER
        || error.code() == 503
}
