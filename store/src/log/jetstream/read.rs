//! Reading by batch direct get: no consumer, any replica, hundreds of megabytes a second.

use super::unavailable;
use crate::log::{ReadError, Stored};
use crate::nats::{BatchRequest, Nats, read_batch};
use outlive_schemas::id::Sequence;
use outlive_schemas::subject;

/// Messages in one request. Far below the client's queue for one subscription, beyond which it would drop some.
pub(super) const BATCH_MAX: usize = 4_000;
/// Bytes in one request: below what a server queues for one client (64 MiB), whatever the caller wishes.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;

pub(super) async fn read(
    nats: &Nats,
    from: Sequence,
    batch: usize,
    max_bytes: usize,
) -> Result<Vec<Stored>, ReadError> {
    let from = from.max(Sequence(1));
    let max_bytes = max_bytes.clamp(1, BATCH_BYTES_MAX);
    let request = BatchRequest { seq: from.0, subject: None, batch, max_bytes };
    let messages = read_batch(nats, subject::LOG_STREAM, &request).await;
    let messages = messages.map_err(|error| unavailable(format!("reading from {from}: {error}")))?;
    let mut found = Vec::with_capacity(messages.len());
    for (wanted, message) in (from.0..).zip(messages) {
        if message.sequence != wanted {
            // Nothing is ever deleted but from the front: what is missing has been purged.
            let (wanted, first) = (Sequence(wanted), Sequence(message.sequence));
            return if found.is_empty() { Err(ReadError::Purged { wanted, first }) } else { Ok(found) };
        }
        found.push(Stored { seq: Sequence(wanted), body: message.payload });
    }
    Ok(found)
}
