//! Publishing to a stream until the answer is definite.

use crate::retry::retry;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{Error as ApiError, ErrorCode};
use std::error::Error as _;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum PublishFailure {
    /// Not answered, or not yet possible: whether it was stored is unknown.
    #[error("unknown whether it was stored: {reason}")]
    Unknown { reason: String },
    /// The subject's last sequence is not the expected one, or it holds all that it may.
    #[error("the subject holds another message: {reason}")]
    Occupied { reason: String },
    #[error("the message is too large: {reason}")]
    TooLarge { reason: String },
    #[error("the stream is full: {reason}")]
    Full { reason: String },
    #[error("the stream refused the message: {reason}")]
    Refused { reason: String },
}

/// Publishes the same message again and again until it is known to be stored or refused, for at most about `bound`.
///
/// The message must carry what makes repeating it harmless: an id, or the sequence it expects.
pub async fn publish(
    jetstream: &Context,
    subject: &str,
    message: &PublishMessage,
    bound: Duration,
) -> Result<PublishAck, PublishFailure> {
    let passes = |failure: &PublishFailure| matches!(failure, PublishFailure::Unknown { .. });
    retry("store a message", bound, passes, || async {
        let sent = jetstream.send_publish(subject.to_owned(), message.clone()).await.map_err(|e| classified(&e))?;
        sent.await.map_err(|error| classified(&error))
    })
    .await
}

fn classified(error: &PublishError) -> PublishFailure {
    let reason = error.to_string();
    match error.kind() {
        PublishErrorKind::WrongLastSequence => PublishFailure::Occupied { reason },
        PublishErrorKind::MaxPayloadExceeded => PublishFailure::TooLarge { reason },
        // No responders: the stream has no leader now. The others: sent, and not answered.
        PublishErrorKind::StreamNotFound
        | PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending => PublishFailure::Unknown { reason },
        PublishErrorKind::WrongLastMessageId => PublishFailure::Refused { reason },
        PublishErrorKind::Other => match error.source().and_then(|source| source.downcast_ref::<ApiError>()) {
            Some(api) => refused(api.error_code(), api.code(), reason),
            None => PublishFailure::Unknown { reason },
        },
    }
}

/// What the server's own words mean.
fn refused(code: ErrorCode, status: usize, reason: String) -> PublishFailure {
    match code {
        // The same message is being proposed already, or the leader is catching up.
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
        | ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT
        | ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY
        | ErrorCode::STREAM_TOO_MANY_REQUESTS
        | ErrorCode::CLUSTER_NOT_LEADER
        | ErrorCode::CLUSTER_NOT_AVAILABLE => PublishFailure::Unknown { reason },
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            PublishFailure::TooLarge { reason }
        }
        ErrorCode::STREAM_STORE_FAILED if reason.contains("per subject") => PublishFailure::Occupied { reason },
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES => PublishFailure::Full { reason },
        _ if status == 503 || status == 429 => PublishFailure::Unknown { reason },
        _ => PublishFailure::Refused { reason },
    }
}
