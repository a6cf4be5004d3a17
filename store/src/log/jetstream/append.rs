//! Appending: the same bytes at the same position, until the answer is definite.
//!
//! | answer | what is done |
//! |---|---|
//! | acknowledged at expected + 1 | stored |
//! | acknowledged as a duplicate | an earlier try was stored, if what stands there is ours |
//! | wrong last sequence | an earlier try may have been stored: what stands at expected + 1 decides |
//! | in process, leader not ready, out of resources for now | again, after a short while |
//! | no responders | this try was not stored; again, after a longer while |
//! | nothing, disconnected | unknown; again |
//! | too large, full, sealed, not allowed | refused for good |
//!
//! A try that timed out may still be delivered minutes later, beyond the server's memory of message ids. It carries
//! the same expected sequence, so it can only be refused by then.

use super::{JetStreamLog, read};
use crate::log::{AppendError, CommitLog as _, ReadError};
use async_nats::connection::State;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{HeaderMap, Request, RequestErrorKind, header};
use backon::{BackoffBuilder as _, ConstantBuilder, ExponentialBuilder};
use bytes::Bytes;
use outlive_schemas::id::Sequence;
use outlive_schemas::limits::COMMIT_SEALED_BYTES_MAX;
use outlive_schemas::subject;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// One try. An append takes milliseconds; while JetStream elects, a lost one should not hold up the next.
const TRY_MAX: Duration = Duration::from_secs(1);
/// Between tries while nobody answers for the stream.
const NO_RESPONDERS_PAUSE: Duration = Duration::from_millis(250);
/// Between tries that the server asked to repeat: jittered from the first to the second.
const AGAIN_MIN: Duration = Duration::from_millis(5);
const AGAIN_MAX: Duration = Duration::from_millis(50);
/// How often a lasting failure is told.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// What one try came to.
enum Try {
    Stored,
    /// What stands at the position decides, if anything does by now.
    Settle(String),
    Again {
        reason: String,
        pause: Duration,
    },
    Refused(String),
}

/// What stands at the position.
enum Standing {
    Ours,
    Others,
    /// Nothing yet, as far as can be seen.
    Nothing,
    /// The log ends even before the position that the append is to follow.
    Behind {
        last: Sequence,
    },
}

#[derive(Deserialize)]
struct Ack {
    error: Option<jetstream::Error>,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

pub(super) async fn append(log: &JetStreamLog, expected: Sequence, body: Bytes) -> Result<(), AppendError> {
    if body.len() > COMMIT_SEALED_BYTES_MAX {
        let reason = format!("{} bytes are over the limit of {COMMIT_SEALED_BYTES_MAX}", body.len());
        return Err(AppendError::Refused { reason });
    }
    let begun = Instant::now();
    let mut warned = begun;
    let mut behind_since: Option<Instant> = None;
    let mut pauses = again_pauses();
    loop {
        let (reason, pause) = match once(log, expected, &body).await {
            Try::Stored => return Ok(()),
            Try::Refused(reason) => return Err(AppendError::Refused { reason }),
            Try::Again { reason, pause } => (reason, pause),
            Try::Settle(reason) => {
                match standing(log, expected, &body).await {
                    Standing::Ours => return Ok(()),
                    Standing::Others => return Err(AppendError::Conflict { at: expected.next() }),
                    Standing::Nothing => behind_since = None,
                    Standing::Behind { last } => {
                        if behind_since.get_or_insert_with(Instant::now).elapsed() > log.behind_max {
                            let reason = format!(
                                "the log ends at {last}, before {expected}: it has lost what it had acknowledged, or \
                                 it is another log"
                            );
                            return Err(AppendError::Refused { reason });
                        }
                    }
                }
                (reason, Duration::ZERO)
            }
        };
        metrics::counter!("outlive_log_append_retries_total").increment(1);
        if warned.elapsed() > WARN_EVERY {
            warned = Instant::now();
            tracing::warn!(%expected, seconds = begun.elapsed().as_secs(), reason,
                "an append has no definite answer yet; sending the same again");
        }
        let pause = pause.max(pauses.next().unwrap_or(AGAIN_MAX));
        tokio::time::sleep(pause).await;
    }
}

/// Rises from the shortest pause to the longest and stays there, jittered so that two writers fall out of step.
fn again_pauses() -> impl Iterator<Item = Duration> {
    let rising = ExponentialBuilder::default().with_min_delay(AGAIN_MIN).with_max_delay(AGAIN_MAX / 2).with_jitter();
    let lasting = ConstantBuilder::default().with_delay(AGAIN_MAX / 2).with_jitter().without_max_times();
    rising.build().chain(lasting.build())
}

async fn once(log: &JetStreamLog, expected: Sequence, body: &Bytes) -> Try {
    if log.nats.client.connection_state() != State::Connected {
        // The client would queue this and every further try, and send them all once it is back.
        return Try::Again { reason: "not connected to any NATS server".to_owned(), pause: Duration::ZERO };
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, expected.0.to_string());
    headers.insert(header::NATS_MESSAGE_ID, blake3::hash(body).to_hex().as_str());
    let request = Request::new().payload(body.clone()).headers(headers).timeout(Some(TRY_MAX));
    match log.nats.client.send_request(subject::LOG_SUBJECT, request).await {
        Ok(reply) => match serde_json::from_slice::<Ack>(&reply.payload) {
            Ok(ack) => judge(expected, ack),
            Err(error) => again(format!("the server's answer is not understood: {error}")),
        },
        Err(error) => match error.kind() {
            RequestErrorKind::NoResponders => {
                Try::Again { reason: "no server answers for the log's stream".to_owned(), pause: NO_RESPONDERS_PAUSE }
            }
            RequestErrorKind::MaxPayloadExceeded => {
                Try::Refused(format!("the NATS server takes no message of {} bytes; raise its max_payload", body.len()))
            }
            RequestErrorKind::InvalidSubject => Try::Refused(error.to_string()),
            RequestErrorKind::TimedOut | RequestErrorKind::Other => again(format!(
                "unknown whether it was stored: {error} (a missing permission to publish on {} also looks like this)",
                subject::LOG_SUBJECT
            )),
        },
    }
}

fn judge(expected: Sequence, ack: Ack) -> Try {
    let at = expected.next();
    if let Some(error) = ack.error {
        return match error.error_code() {
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
            | ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => Try::Settle(error.to_string()),
            ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY => again(error.to_string()),
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
            | ErrorCode::STREAM_SEALED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED => Try::Refused(error.to_string()),
            // The stream's own limits and the disk's errors share this code; only the former will last.
            ErrorCode::STREAM_STORE_FAILED if error.to_string().contains("maximum") => {
                Try::Refused(format!("{error}: the log is full; raise its max_bytes, or keep less history"))
            }
            _ if (400..500).contains(&error.code()) && error.code() != 408 && error.code() != 429 => {
                Try::Refused(error.to_string())
            }
            _ => again(error.to_string()),
        };
    }
    if ack.stream != subject::LOG_STREAM {
        return Try::Refused(format!(
            "stream `{}` took the commit instead of {}: two streams must not share the subject {}",
            ack.stream.chars().take(80).collect::<String>(),
            subject::LOG_STREAM,
            subject::LOG_SUBJECT
        ));
    }
    match (ack.seq, ack.duplicate) {
        (0, _) => again("the server's acknowledgement has no position".to_owned()),
        (seq, false) if seq == at.0 => Try::Stored,
        (seq, false) => Try::Refused(format!("the stream stored it at {seq}, not at {at}: it does not keep the fence")),
        (seq, true) => Try::Settle(format!("the server knows it already, at {seq}")),
    }
}

fn again(reason: String) -> Try {
    Try::Again { reason, pause: Duration::ZERO }
}

async fn standing(log: &JetStreamLog, expected: Sequence, body: &Bytes) -> Standing {
    let at = expected.next();
    match read::read(&log.nats, at, 1, 1).await {
        Ok(found) => match found.first() {
            Some(stored) if stored.body == *body => return Standing::Ours,
            Some(_) => return Standing::Others,
            // The replica that answered may be behind.
            None => {}
        },
        // So much was appended since then that this position has been let go of.
        Err(ReadError::Purged { .. }) => return Standing::Others,
        Err(ReadError::Unavailable { .. }) => return Standing::Nothing,
    }
    match log.settled_extent().await {
        Ok(extent) if extent.first > at => Standing::Others,
        Ok(extent) if extent.last < expected => Standing::Behind { last: extent.last },
        _ => Standing::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &str) -> Try {
        judge(Sequence(6), serde_json::from_str(json).expect(json))
    }

    fn error(code: u16, err_code: u16, description: &str) -> Try {
        answer(&format!(
            r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"{description}"}},"stream":"","seq":0}}"#
        ))
    }

    #[test]
    fn each_answer_means_what_the_table_says() {
        assert!(matches!(answer(r#"{"stream":"OUTLIVE_LOG","seq":7}"#), Try::Stored));
        assert!(matches!(answer(r#"{"stream":"OUTLIVE_LOG","seq":7,"duplicate":true}"#), Try::Settle(_)));
        assert!(matches!(answer(r#"{"stream":"OUTLIVE_LOG","seq":0}"#), Try::Again { .. }));
        assert!(matches!(answer(r#"{"stream":"OUTLIVE_LOG","seq":9}"#), Try::Refused(_)));
        assert!(matches!(answer(r#"{"stream":"OTHER","seq":7}"#), Try::Refused(_)));
        assert!(matches!(error(400, 10071, "wrong last sequence: 9"), Try::Settle(_)));
        assert!(matches!(error(400, 10164, "wrong last sequence"), Try::Settle(_)));
        assert!(matches!(error(409, 10158, "duplicate message id is in process"), Try::Settle(_)));
        assert!(matches!(error(503, 10163, "not ready"), Try::Again { .. }));
        assert!(matches!(error(503, 10008, "temporarily unavailable"), Try::Again { .. }));
        assert!(matches!(error(429, 10167, "too many requests"), Try::Again { .. }));
        assert!(matches!(error(400, 10054, "message size exceeds maximum allowed"), Try::Refused(_)));
        assert!(matches!(error(503, 10077, "maximum bytes exceeded"), Try::Refused(_)));
        assert!(matches!(error(503, 10077, "input/output error"), Try::Again { .. }));
        assert!(matches!(error(400, 10109, "invalid operation on sealed stream"), Try::Refused(_)));
    }

    #[test]
    fn pauses_rise_have_a_bound_and_never_end() {
        let pauses: Vec<Duration> = again_pauses().take(1_000).collect();
        assert_eq!(pauses.len(), 1_000);
        assert!(pauses.iter().all(|pause| (AGAIN_MIN..=AGAIN_MAX).contains(pause)), "{pauses:?}");
    }
}
