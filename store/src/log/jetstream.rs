//! The log in a JetStream stream, on any number of replicas.
//!
//! The fence is `Nats-Expected-Last-Sequence`, checked by the stream's leader before each write; reading is by batch
//! direct get, which any replica answers, even while JetStream elects. Nothing here trusts a time-out: see
//! `jetstream/append.rs` for what each answer means. Creating the stream is left to who starts the system.

mod append;
mod config;
mod read;

pub use config::{Unsafe, UnsafeStream, check_stream, stream_config};

use super::{AppendError, CommitLog, Extent, ReadError, Stored};
use crate::nats::Nats;
use async_nats::jetstream;
use async_nats::jetstream::stream::ClusterInfo;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, future};
use outlive_schemas::id::Sequence;
use outlive_schemas::subject;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// How long one request may take that any server can answer at once.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// How long a log that ends before the expected position is asked again. A stream's leader knows every acknowledged
/// message soon after its election; one that still does not is missing some.
const BEHIND_MAX: Duration = Duration::from_secs(30);

/// A stream's leader hears of each replica every second. One that has not heard of them for this long may have been cut
/// off, and not know of its successor yet.
const IN_TOUCH_WITHIN: Duration = Duration::from_secs(2);

/// A handle on the stream [`subject::LOG_STREAM`], which must be there and pass [`check_stream`].
#[derive(Clone, Debug)]
pub struct JetStreamLog {
    nats: Nats,
    behind_max: Duration,
}

impl JetStreamLog {
    pub fn new(nats: Nats) -> JetStreamLog {
        JetStreamLog { nats, behind_max: BEHIND_MAX }
    }

    /// As [`stream_config`].
    pub fn stream_config(replicas: usize, max_bytes: i64) -> jetstream::stream::Config {
        stream_config(replicas, max_bytes)
    }

    /// As [`check_stream`].
    pub fn check_stream(config: &jetstream::stream::Config) -> Result<(), UnsafeStream> {
        check_stream(config)
    }

    /// The same log with less patience for one that ends before the expected position: for tests.
    #[must_use]
    pub fn with_behind_max(self, behind_max: Duration) -> JetStreamLog {
        JetStreamLog { behind_max, ..self }
    }

    async fn info(&self) -> Result<StreamInfo, ReadError> {
        self.api("STREAM.INFO", String::new()).await
    }

    async fn api<T: for<'a> Deserialize<'a>>(&self, operation: &str, body: String) -> Result<T, ReadError> {
        let subject = format!("$JS.API.{operation}.{}", subject::LOG_STREAM);
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(REQUEST_MAX));
        let reply = self.nats.client.send_request(subject, request).await;
        let reply = reply.map_err(|error| unavailable(format!("{operation}: {error}")))?;
        match serde_json::from_slice(&reply.payload) {
            Ok(jetstream::response::Response::Ok(answer)) => Ok(answer),
            Ok(jetstream::response::Response::Err { error }) => Err(unavailable(format!("{operation}: {error}"))),
            Err(error) => Err(unavailable(format!("{operation}: the server's answer is not understood: {error}"))),
        }
    }
}

#[derive(Deserialize)]
struct StreamInfo {
    state: StreamState,
    config: StreamReplicas,
    cluster: Option<ClusterInfo>,
}

#[derive(Deserialize)]
struct StreamReplicas {
    num_replicas: usize,
}

impl StreamInfo {
    fn extent(&self) -> Extent {
        let StreamState { messages, bytes, first_seq, last_seq } = self.state;
        let first = if messages == 0 { last_seq + 1 } else { first_seq };
        Extent { first: Sequence(first), last: Sequence(last_seq), bytes }
    }

    /// How many replicas, the one that answers among them, it has heard of so lately that it leads them.
    fn in_touch(&self) -> usize {
        let replicas = self.cluster.iter().flat_map(|cluster| &cluster.replicas);
        1 + replicas.filter(|peer| peer.current && !peer.offline && peer.active < IN_TOUCH_WITHIN).count()
    }
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
}

/// The answer to an order, of which only success matters.
#[derive(Deserialize)]
struct Done {
    success: bool,
}

fn unavailable(reason: String) -> ReadError {
    ReadError::Unavailable { reason }
}

/// The position that a stored message's copy carries.
fn sequence_of(message: &async_nats::Message) -> Option<Sequence> {
    let header = message.headers.as_ref()?.get(async_nats::header::NATS_SEQUENCE)?;
    header.as_str().parse().ok().map(Sequence)
}

#[async_trait]
impl CommitLog for JetStreamLog {
    async fn append(&self, expected: Sequence, body: Bytes) -> Result<(), AppendError> {
        append::append(self, expected, body).await
    }

    async fn read(&self, from: Sequence, max_bytes: usize) -> Result<Vec<Stored>, ReadError> {
        read::read(&self.nats, from, read::BATCH_MAX, max_bytes).await
    }

    async fn extent(&self) -> Result<Extent, ReadError> {
        Ok(self.info().await?.extent())
    }

    async fn settled_extent(&self) -> Result<Extent, ReadError> {
        let info = self.info().await?;
        let (in_touch, all) = (info.in_touch(), info.config.num_replicas);
        if in_touch * 2 > all {
            return Ok(info.extent());
        }
        Err(unavailable(format!(
            "STREAM.INFO: who answers for the stream is in touch with {in_touch} of {all} replicas"
        )))
    }

    async fn purge_below(&self, first: Sequence) -> Result<(), ReadError> {
        // A purge above the last message would raise the stream's own numbering, and with it break the fence.
        let extent = self.extent().await?;
        let first = first.min(extent.last);
        if first <= extent.first {
            return Ok(());
        }
        let purged: Done = self.api("STREAM.PURGE", json!({ "seq": first.0 }).to_string()).await?;
        if purged.success { Ok(()) } else { Err(unavailable("STREAM.PURGE: the server did not do it".to_owned())) }
    }

    async fn tail(&self) -> Result<BoxStream<'static, Stored>, ReadError> {
        let subscribed = self.nats.client.subscribe(subject::LOG_TAIL_SUBJECT).await;
        let messages = subscribed.map_err(|error| unavailable(format!("tail: {error}")))?;
        // So that the server knows of it before anything that this connection asks next.
        self.nats.client.flush().await.map_err(|error| unavailable(format!("tail: {error}")))?;
        // A copy without its position is somebody else's message. Forged ones are caught by seal and chain.
        let stored = messages.filter_map(|message| {
            future::ready(sequence_of(&message).map(|seq| Stored { seq, body: message.payload }))
        });
        Ok(stored.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a stream's leader tells of itself and its replicas: whether each is current, and for how long it was silent.
    fn told(replicas: usize, peers: &[(bool, u64)]) -> StreamInfo {
        let peers: Vec<_> = peers
            .iter()
            .map(|(current, ms)| json!({"name": "n", "current": current, "active": ms * 1_000_000}))
            .collect();
        let state = json!({"messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0});
        let cluster = json!({"name": "c", "leader": "n", "replicas": peers});
        let info = json!({"state": state, "config": {"num_replicas": replicas}, "cluster": cluster});
        serde_json::from_value(info).expect("a stream's info")
    }

    #[test]
    fn who_has_not_heard_of_its_replicas_does_not_say_where_the_log_ends() {
        assert_eq!(told(3, &[(true, 300), (true, 900)]).in_touch(), 3);
        assert_eq!(told(3, &[(true, 1_999), (true, 60_000)]).in_touch(), 2, "one host is gone");
        // Cut off for ten seconds, and back: it leads nobody.
        assert_eq!(told(3, &[(true, 10_000), (true, 2_000)]).in_touch(), 1);
        assert_eq!(told(3, &[(false, 100), (true, 100)]).in_touch(), 2, "one that catches up");
        assert_eq!(told(1, &[]).in_touch(), 1);
    }
}
