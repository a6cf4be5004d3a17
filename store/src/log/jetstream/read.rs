//! Reading by batch direct get: no consumer, any replica, hundreds of megabytes a second.

use super::{sequence_of, unavailable};
use crate::log::{ReadError, Stored};
use async_nats::{Client, StatusCode};
use futures::StreamExt as _;
use outlive_schemas::id::Sequence;
use outlive_schemas::subject;
use serde_json::json;
use std::time::Duration;

/// Messages in one request. Far below the client's queue for one subscription, beyond which it would drop some.
pub(super) const BATCH_MAX: usize = 4_000;
/// Bytes in one request: below what a server queues for one client (64 MiB), whatever the caller wishes.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Between one message of an answer and the next. A replica that is alive sends them in one go.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// What ends an answer that held messages.
const END_OF_BATCH: u16 = 204;

pub(super) async fn read(
    client: &Client,
    from: Sequence,
    batch: usize,
    max_bytes: usize,
) -> Result<Vec<Stored>, ReadError> {
    let from = from.max(Sequence(1));
    let max_bytes = max_bytes.clamp(1, BATCH_BYTES_MAX);
    let inbox = client.new_inbox();
    let failed = |error: &dyn std::fmt::Display| unavailable(format!("reading from {from}: {error}"));
    let mut answer = client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let query = json!({ "seq": from.0, "batch": batch, "max_bytes": max_bytes }).to_string();
    let subject = format!("$JS.API.DIRECT.GET.{}", subject::LOG_STREAM);
    client.publish_with_reply(subject, inbox, query.into()).await.map_err(|error| failed(&error))?;

    let mut found = Vec::new();
    loop {
        let message = match tokio::time::timeout(SILENCE_MAX, answer.next()).await {
            Ok(Some(message)) => message,
            // What came until now is in order and whole; the next request goes on behind it.
            _ if !found.is_empty() => return Ok(found),
            Ok(None) => return Err(failed(&"the connection was closed")),
            Err(_) => return Err(failed(&format!("no answer within {SILENCE_MAX:?}"))),
        };
        match message.status {
            None | Some(StatusCode::OK) => {}
            Some(status) if status.as_u16() == END_OF_BATCH => return Ok(found),
            Some(StatusCode::NOT_FOUND) => return Ok(found),
            Some(StatusCode::NO_RESPONDERS) => {
                return Err(failed(&"no server answers for the log's stream; is it there, and is JetStream up?"));
            }
            Some(status) => {
                return Err(failed(&format!("{status} {}", message.description.unwrap_or_default())));
            }
        }
        let Some(seq) = sequence_of(&message) else { return Err(failed(&"a message came without its position")) };
        let wanted = Sequence(from.0 + found.len() as u64);
        if seq != wanted {
            // Nothing is ever deleted but from the front: what is missing has been purged.
            return if found.is_empty() { Err(ReadError::Purged { wanted, first: seq }) } else { Ok(found) };
        }
        found.push(Stored { seq, body: message.payload });
    }
}
