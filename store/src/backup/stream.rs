//! Between a stream and a backup: reading every message up to a position, and putting messages back.

use super::BackupError;
use super::pack::Record;
use crate::log::CommitLog as _;
use crate::log::jetstream::JetStreamLog;
use crate::nats::{BatchRequest, Nats, PublishFailure, publish, read_batch};
use crate::retry::retry;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, ErrorCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt as _;
use futures::future::join_all;
use outlive_schemas::id::Sequence;
use outlive_schemas::subject;
use outlive_schemas::time::Timestamp;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;

/// Of messages, in one request.
const READ_MESSAGES: usize = 2_000;
const READ_BYTES: usize = 8 * 1024 * 1024;
const READ_BOUND: Duration = Duration::from_secs(30);
const WRITE_BOUND: Duration = Duration::from_secs(60);
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Messages on their way to one stream.
const IN_FLIGHT: usize = 64;
/// Pages of subjects, of 100,000 each.
const PAGES_MAX: usize = 1_000;

/// A stream to be copied.
#[derive(Clone, Debug)]
pub struct Source {
    nats: Nats,
    stream: &'static str,
    subjects: &'static str,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    total: usize,
    state: State,
}

#[derive(Deserialize)]
struct State {
    first_seq: u64,
    last_seq: u64,
    messages: u64,
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

#[derive(Deserialize)]
struct Found {
    message: Option<Raw>,
    error: Option<jetstream::Error>,
}

#[derive(Deserialize)]
struct Raw {
    seq: u64,
    subject: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl Source {
    pub fn log(nats: &Nats) -> Source {
        Source { nats: nats.clone(), stream: subject::LOG_STREAM, subjects: subject::LOG_SUBJECT }
    }

    pub fn blobs(nats: &Nats) -> Source {
        Source { nats: nats.clone(), stream: subject::BLOB_STREAM, subjects: subject::BLOB_SUBJECTS }
    }

    pub fn output(nats: &Nats) -> Source {
        Source { nats: nats.clone(), stream: subject::JOB_LOG_STREAM, subjects: subject::JOB_LOG_SUBJECTS }
    }

    pub fn keys(nats: &Nats) -> Source {
        Source { nats: nats.clone(), stream: subject::KEY_STREAM, subjects: subject::KEY_SUBJECTS }
    }

    fn failed(&self, reason: impl std::fmt::Display) -> BackupError {
        BackupError::Stream { stream: self.stream.to_owned(), doing: "read", reason: reason.to_string() }
    }

    async fn api<T: for<'a> Deserialize<'a>>(
        &self,
        operation: &str,
        body: &serde_json::Value,
    ) -> Result<T, BackupError> {
        let subject = format!("$JS.API.{operation}.{}", self.stream);
        let asked = retry(
            "ask a stream",
            READ_BOUND,
            |_: &String| true,
            || async {
                let request = async_nats::Request::new().payload(body.to_string().into()).timeout(Some(REQUEST_MAX));
                let reply = self.nats.client.send_request(subject.clone(), request).await.map_err(|e| e.to_string())?;
                serde_json::from_slice::<T>(&reply.payload).map_err(|error| error.to_string())
            },
        );
        asked.await.map_err(|reason| self.failed(reason))
    }

    async fn info(&self, body: serde_json::Value) -> Result<Info, BackupError> {
        self.api("STREAM.INFO", &body).await
    }

    /// The first and the last sequence that the stream's leader knows of; the first is one above where there is none.
    pub async fn extent(&self) -> Result<(u64, u64), BackupError> {
        let State { first_seq, last_seq, messages, .. } = self.info(json!({})).await?.state;
        Ok((if messages == 0 { last_seq + 1 } else { first_seq }, last_seq))
    }

    /// Messages from `from` to `to`, in order, as many as one request brings. Empty: there are none, by the word of the
    /// stream's leader, for a replica may be behind.
    pub async fn read(&self, from: u64, to: u64) -> Result<Vec<Record>, BackupError> {
        if from > to {
            return Ok(Vec::new());
        }
        let request = BatchRequest {
            seq: from.max(1),
            subject: Some(self.subjects.to_owned()),
            batch: READ_MESSAGES,
            max_bytes: READ_BYTES,
        };
        let read = || read_batch(&self.nats, self.stream, &request);
        let messages = retry("read a stream", READ_BOUND, |_| true, read).await.map_err(|e| self.failed(e))?;
        let mut found = Vec::with_capacity(messages.len());
        for message in messages {
            if message.sequence > to {
                return Ok(found);
            }
            let at_ms = u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
            let (seq, subject, body) = (message.sequence, message.subject.to_string(), message.payload.to_vec());
            found.push(Record { seq, at_ms, subject, body });
        }
        if found.is_empty() {
            found.extend(self.next_by_leader(from).await?.filter(|record| record.seq <= to));
        }
        Ok(found)
    }

    async fn next_by_leader(&self, from: u64) -> Result<Option<Record>, BackupError> {
        let query = json!({ "seq": from.max(1), "next_by_subj": self.subjects });
        let found: Found = self.api("STREAM.MSG.GET", &query).await?;
        match (found.message, found.error) {
            (Some(raw), _) => {
                let body = BASE64.decode(&raw.data).map_err(|error| self.failed(error))?;
                let at = Timestamp::parse(&raw.time).map_err(|error| self.failed(error))?;
                Ok(Some(Record { seq: raw.seq, at_ms: at.0, subject: raw.subject, body }))
            }
            (None, Some(error)) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
            (None, Some(error)) => Err(self.failed(error)),
            (None, None) => Err(self.failed("the server's answer holds neither a message nor an error")),
        }
    }

    /// The subjects that hold a message.
    pub async fn subjects(&self) -> Result<Vec<String>, BackupError> {
        let (mut all, mut offset) = (Vec::new(), 0);
        for _ in 0..PAGES_MAX {
            let page = self.info(json!({ "subjects_filter": self.subjects, "offset": offset })).await?;
            let subjects = page.state.subjects.unwrap_or_default();
            offset += subjects.len();
            let none = subjects.is_empty();
            all.extend(subjects.into_keys());
            if none || offset >= page.total {
                all.sort_unstable();
                all.dedup();
                return Ok(all);
            }
        }
        Err(self.failed(format!("it holds more than {offset} subjects")))
    }
}

/// A stream to be filled. It must be there.
#[derive(Clone, Debug)]
pub struct Target {
    nats: Nats,
    stream: &'static str,
}

impl Target {
    pub fn log(nats: &Nats) -> Target {
        Target { nats: nats.clone(), stream: subject::LOG_STREAM }
    }

    pub fn blobs(nats: &Nats) -> Target {
        Target { nats: nats.clone(), stream: subject::BLOB_STREAM }
    }

    pub fn output(nats: &Nats) -> Target {
        Target { nats: nats.clone(), stream: subject::JOB_LOG_STREAM }
    }

    pub fn keys(nats: &Nats) -> Target {
        Target { nats: nats.clone(), stream: subject::KEY_STREAM }
    }

    fn failed(&self, reason: impl std::fmt::Display) -> BackupError {
        BackupError::Stream { stream: self.stream.to_owned(), doing: "written", reason: reason.to_string() }
    }

    /// Puts messages of which each subject holds one. One that holds a message already, from an earlier try, stays.
    pub async fn put_once(&self, records: Vec<Record>) -> Result<(), BackupError> {
        let mut puts = futures::stream::iter(records)
            .map(|record| async move {
                let message = PublishMessage::build()
                    .payload(record.body.into())
                    .expected_stream(self.stream)
                    .expected_last_subject_sequence(0);
                match publish(&self.nats.jetstream, &record.subject, &message, WRITE_BOUND).await {
                    Ok(_) | Err(PublishFailure::Occupied { .. }) => Ok(()),
                    Err(failure) => Err(self.failed(failure)),
                }
            })
            .buffer_unordered(IN_FLIGHT);
        while let Some(put) = puts.next().await {
            put?;
        }
        Ok(())
    }

    /// Puts messages behind those that are there, each once, even where a try is repeated within two minutes.
    pub async fn append(&self, records: Vec<Record>) -> Result<(), BackupError> {
        for chunk in records.chunks(IN_FLIGHT) {
            let puts = chunk.iter().map(|record| async {
                let message = PublishMessage::build()
                    .message_id(blake3::hash(&record.body).to_hex())
                    .expected_stream(self.stream)
                    .payload(record.body());
                publish(&self.nats.jetstream, &record.subject, &message, WRITE_BOUND).await
            });
            // They are sent in the order in which they are asked for the first time.
            for put in join_all(puts).await {
                put.map_err(|failure| self.failed(failure))?;
            }
        }
        Ok(())
    }

    /// Puts commits exactly where they stood. Many at a time are on their way, each with the sequence that it expects;
    /// where one is not answered well, what follows is appended one by one, by the log's own way of settling such.
    pub async fn append_commits(&self, records: &[Record]) -> Result<(), BackupError> {
        let log = JetStreamLog::new(self.nats.clone());
        for chunk in records.chunks(IN_FLIGHT) {
            let mut sent = Vec::with_capacity(chunk.len());
            for record in chunk {
                let message = PublishMessage::build()
                    .payload(record.body())
                    .message_id(blake3::hash(&record.body).to_hex())
                    .expected_stream(self.stream)
                    .expected_last_sequence(record.seq.saturating_sub(1));
                sent.push(self.nats.jetstream.send_publish(subject::LOG_SUBJECT.to_owned(), message).await);
            }
            let mut settled = true;
            for (record, sent) in chunk.iter().zip(sent) {
                let stored = match sent {
                    Ok(ack) if settled => ack.await.is_ok_and(|ack| ack.sequence == record.seq && !ack.duplicate),
                    _ => false,
                };
                settled &= stored;
                if !stored {
                    let expected = Sequence(record.seq.saturating_sub(1));
                    log.append(expected, record.body()).await.map_err(|error| self.failed(error))?;
                }
            }
        }
        Ok(())
    }
}
