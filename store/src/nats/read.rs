//! Reading many stored messages with one request, and without a consumer: batch direct get.
//!
//! Any replica answers, nothing has to be created first, and it works while JetStream elects. The one that answers
//! may be behind: what is missing here may exist.

use super::{Nats, SUBSCRIPTION_CAPACITY};
use async_nats::StatusCode;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Serialize;
use std::time::Duration;

/// The longest silence between two messages of a batch.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(3);
/// The server's status at the end of a batch.
const END_OF_BATCH: u16 = 204;

#[derive(Clone, Debug, Serialize)]
pub struct BatchRequest {
    /// The first sequence that is wanted.
    pub seq: u64,
    /// Only messages of this subject; wildcards are allowed.
    #[serde(rename = "next_by_subj", skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Messages at most.
    pub batch: usize,
    /// Bytes at which the server stops.
    pub max_bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadBatchError {
    #[error("no server answers for the stream {stream}")]
    NoResponders { stream: String },
    #[error("the stream {stream} stopped in the middle of a batch")]
    TimedOut { stream: String },
    #[error("the stream {stream} refused to be read: {reason}")]
    Refused { stream: String, reason: String },
}

/// What the stream holds from `request.seq` on, in order; empty where the replica that answers has nothing.
pub async fn read_batch(
    nats: &Nats,
    stream: &str,
    request: &BatchRequest,
) -> Result<Vec<StreamMessage>, ReadBatchError> {
    let refused = |reason: String| ReadBatchError::Refused { stream: stream.to_owned(), reason };
    debug_assert!(request.batch < SUBSCRIPTION_CAPACITY, "a batch must fit the subscription");
    let body = serde_json::to_vec(request).expect("numbers and a text can be written");
    let inbox = nats.client.new_inbox();
    let mut replies = nats.client.subscribe(inbox.clone()).await.map_err(|error| refused(error.to_string()))?;
    nats.client
        .publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, Bytes::from(body))
        .await
        .map_err(|error| refused(error.to_string()))?;
    let mut messages = Vec::new();
    loop {
        let reply = match tokio::time::timeout(MESSAGE_TIMEOUT, replies.next()).await {
            Ok(Some(reply)) => reply,
            Ok(None) | Err(_) => return Err(ReadBatchError::TimedOut { stream: stream.to_owned() }),
        };
        match reply.status {
            None => {
                messages.push(StreamMessage::try_from(reply).map_err(|error| refused(error.to_string()))?);
                if messages.len() > request.batch {
                    return Err(refused(format!("more than the {} messages asked for came", request.batch)));
                }
            }
            Some(status) if status.as_u16() == END_OF_BATCH => return Ok(messages),
            Some(StatusCode::NOT_FOUND) => return Ok(messages),
            Some(StatusCode::NO_RESPONDERS) => {
                return Err(ReadBatchError::NoResponders { stream: stream.to_owned() });
            }
            Some(status) => {
                let said = reply.description.unwrap_or_default();
                return Err(refused(format!("{status} {said}")));
            }
        }
    }
}
