//! Wrapped keys in a JetStream stream: one message per key, put once, erased for good.

use super::cache::Cache;
use super::{EPOCHS_MAX, FIRST_EPOCH, KeyError, KeyStore};
use crate::keyring::Keyring;
use crate::retry::retry;
use crate::seal::Key;
use async_nats::jetstream::{self, ErrorCode, stream};
use async_nats::{HeaderMap, RequestErrorKind, StatusCode, header};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use outlive_schemas::id::JobId;
use outlive_schemas::subject;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// One try at a server.
const TRY_MAX: Duration = Duration::from_secs(2);
/// All tries together: JetStream elects within 4 to 10 s, and then everything goes on.
const TRIES_TOTAL_MAX: Duration = Duration::from_secs(20);
/// Tries at settling a race: the loser needs one more, and a third party may erase in between.
const RACES_MAX: usize = 10;
/// After the first of them, and twice as long after each that follows, ten seconds in all: a put that was refused in
/// favour of another one is refused before that other one has gone through the replicas and can be read.
const RACE_PAUSE_FIRST: Duration = Duration::from_millis(10);
/// A message here is a wrapped key: less than 100 bytes. The server refuses anything that cannot be one.
const KEY_MESSAGE_BYTES_MAX: i32 = 1_024;

/// What the stream of keys must be.
#[derive(Clone, Copy, Debug)]
pub struct KeyStreamConfig {
    pub replicas: usize,
}

impl From<KeyStreamConfig> for stream::Config {
    fn from(config: KeyStreamConfig) -> stream::Config {
        stream::Config {
            name: subject::KEY_STREAM.to_owned(),
            description: Some("Outlive: wrapped keys. Losing them loses everything sealed with them.".to_owned()),
            subjects: vec![subject::KEY_SUBJECTS.to_owned()],
            retention: stream::RetentionPolicy::Limits,
            storage: stream::StorageType::File,
            num_replicas: config.replicas,
            // The server itself refuses a second key under one name, whoever sends it.
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            discard_new_per_subject: true,
            max_message_size: KEY_MESSAGE_BYTES_MAX,
            allow_direct: true,
            allow_rollup: false,
            deny_delete: false,
            deny_purge: true,
            ..stream::Config::default()
        }
    }
}

/// Keys in the stream [`subject::KEY_STREAM`], which must be there.
#[derive(Debug)]
pub struct JetStreamKeys {
    client: async_nats::Client,
    keyring: Arc<Keyring>,
    jobs: Cache<JobId>,
    epochs: Cache<u32>,
}

/// What came of one try to put a key.
enum Put {
    Stored,
    /// There is one already, or there may be: only reading tells.
    Perhaps,
}

/// Why one try failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Another try may help.
    #[error("{0}")]
    Passing(String),
    #[error("{0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Reply {
    error: Option<jetstream::Error>,
    message: Option<RawMessage>,
}

#[derive(Deserialize)]
struct RawMessage {
    seq: u64,
    #[serde(default)]
    data: String,
}

impl JetStreamKeys {
    pub fn new(jetstream: jetstream::Context, keyring: Arc<Keyring>) -> JetStreamKeys {
        JetStreamKeys { client: jetstream.client(), keyring, jobs: Cache::new(), epochs: Cache::new() }
    }

    async fn get_or_create(&self, name: &str) -> Result<Key, KeyError> {
        if let Some(key) = self.get_nearby(name).await? {
            return Ok(key);
        }
        let key = Key::generate();
        let wrapped = Bytes::from(self.keyring.wrap(name.as_bytes(), &key));
        let mut pause = RACE_PAUSE_FIRST;
        for _ in 0..RACES_MAX {
            if let Put::Stored = retrying(name, || self.put(name, wrapped.clone())).await? {
                return Ok(key);
            }
            // Somebody was faster, or an earlier try of ours was stored: what the stream's leader has counts.
            if let Some((_, stored)) = self.get_from_leader(name).await? {
                return self.unwrap(name, &stored);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(KeyError::Unavailable { reason: format!("{name} can neither be put nor be read") })
    }

    /// Asks any replica. One that is behind answers nothing where there is a key, so nothing is no proof.
    async fn get_nearby(&self, name: &str) -> Result<Option<Key>, KeyError> {
        let subject = format!("$JS.API.DIRECT.GET.{}.{name}", subject::KEY_STREAM);
        let found = retrying(name, || async {
            let message = self.request(&subject, Bytes::new(), None).await?;
            match message.status {
                None | Some(StatusCode::OK) => Ok(Some(message.payload)),
                Some(StatusCode::NOT_FOUND) => Ok(None),
                Some(other) => Err(Failure::Passing(format!("{other} {}", message.description.unwrap_or_default()))),
            }
        });
        found.await?.map(|wrapped| self.unwrap(name, &wrapped)).transpose()
    }

    /// Asks the stream's leader, which knows of every key that was acknowledged.
    async fn get_from_leader(&self, name: &str) -> Result<Option<(u64, Vec<u8>)>, KeyError> {
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", subject::KEY_STREAM);
        let query = Bytes::from(json!({ "last_by_subj": name }).to_string());
        retrying(name, || async {
            let reply = self.api(&subject, query.clone()).await?;
            match (reply.message, reply.error) {
                (Some(message), _) => {
                    let body = BASE64.decode(&message.data).map_err(|error| Failure::Refused(error.to_string()))?;
                    Ok(Some((message.seq, body)))
                }
                (None, Some(error)) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
                (None, error) => Err(Failure::of(error)),
            }
        })
        .await
    }

    async fn put(&self, name: &str, wrapped: Bytes) -> Result<Put, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let message = match self.request(name, wrapped, Some(headers)).await {
            Ok(message) => message,
            Err(Failure::Passing(reason)) => {
                tracing::debug!(name, reason, "unknown whether a key was stored; reading");
                return Ok(Put::Perhaps);
            }
            Err(refused) => return Err(refused),
        };
        let reply: Reply =
            serde_json::from_slice(&message.payload).map_err(|error| Failure::Passing(error.to_string()))?;
        match reply.error {
            None => Ok(Put::Stored),
            Some(error) => match error.error_code() {
                ErrorCode::STREAM_WRONG_LAST_SEQUENCE
                | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
                | ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY
                | ErrorCode::STREAM_STORE_FAILED => Ok(Put::Perhaps),
                _ => Err(Failure::of(Some(error))),
            },
        }
    }

    async fn erase(&self, name: &str) -> Result<(), KeyError> {
        let subject = format!("$JS.API.STREAM.MSG.DELETE.{}", subject::KEY_STREAM);
        for _ in 0..RACES_MAX {
            let Some((seq, _)) = self.get_from_leader(name).await? else { return Ok(()) };
            // Without `no_erase` the server overwrites the bytes with random ones.
            let order = Bytes::from(json!({ "seq": seq }).to_string());
            retrying(name, || async {
                match self.api(&subject, order.clone()).await?.error {
                    None => Ok(()),
                    // An earlier try of ours, or somebody else, was faster.
                    Some(error) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(()),
                    Some(error) if error.error_code() == ErrorCode::STREAM_MESSAGE_DELETE_FAILED => Ok(()),
                    error => Err(Failure::of(error)),
                }
            })
            .await?;
        }
        Err(KeyError::Unavailable { reason: format!("{name} is there again each time it is erased") })
    }

    fn unwrap(&self, name: &str, wrapped: &[u8]) -> Result<Key, KeyError> {
        let unwrapped = self.keyring.unwrap(name.as_bytes(), wrapped);
        unwrapped.map_err(|source| KeyError::Wrapped { name: name.to_owned(), source })
    }

    async fn api(&self, subject: &str, body: Bytes) -> Result<Reply, Failure> {
        let message = self.request(subject, body, None).await?;
        serde_json::from_slice(&message.payload).map_err(|error| Failure::Passing(error.to_string()))
    }

    async fn request(
        &self,
        subject: &str,
        body: Bytes,
        headers: Option<HeaderMap>,
    ) -> Result<async_nats::Message, Failure> {
        let mut request = async_nats::Request::new().payload(body).timeout(Some(TRY_MAX));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        self.client.send_request(subject.to_owned(), request).await.map_err(|error| match error.kind() {
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                Failure::Refused(error.to_string())
            }
            _ => Failure::Passing(error.to_string()),
        })
    }
}

impl Failure {
    fn of(error: Option<jetstream::Error>) -> Failure {
        match error {
            None => Failure::Passing("the server's answer holds neither a message nor an error".to_owned()),
            Some(error) if (400..500).contains(&error.code()) => Failure::Refused(error.to_string()),
            Some(error) => Failure::Passing(error.to_string()),
        }
    }
}

/// Tries again what may pass, for as long as JetStream may need to elect.
async fn retrying<T, F, Fut>(name: &str, attempt: F) -> Result<T, KeyError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    let passes = |failure: &Failure| matches!(failure, Failure::Passing(_));
    retry("reach the stored keys", TRIES_TOTAL_MAX, passes, attempt).await.map_err(|failure| match failure {
        Failure::Passing(reason) => KeyError::Unavailable { reason },
        Failure::Refused(reason) => KeyError::Refused { name: name.to_owned(), reason },
    })
}

#[async_trait]
impl KeyStore for JetStreamKeys {
    async fn log_key(&self, epoch: u32) -> Result<Key, KeyError> {
        if let Some(key) = self.epochs.get(&epoch) {
            return Ok(key);
        }
        let key = self.get_or_create(&subject::log_key(epoch)).await?;
        self.epochs.insert(epoch, key.clone());
        Ok(key)
    }

    async fn log_keys(&self) -> Result<Vec<Key>, KeyError> {
        let mut keys = Vec::new();
        for epoch in FIRST_EPOCH..FIRST_EPOCH + EPOCHS_MAX {
            let name = subject::log_key(epoch);
            let Some((_, wrapped)) = self.get_from_leader(&name).await? else { break };
            keys.push(self.unwrap(&name, &wrapped)?);
        }
        Ok(keys)
    }

    async fn job_key(&self, job: JobId) -> Result<Key, KeyError> {
        if let Some(key) = self.jobs.get(&job) {
            return Ok(key);
        }
        let key = self.get_or_create(&subject::job_key(job)).await?;
        self.jobs.insert(job, key.clone());
        Ok(key)
    }

    async fn existing_job_key(&self, job: JobId) -> Result<Option<Key>, KeyError> {
        if let Some(key) = self.jobs.get(&job) {
            return Ok(Some(key));
        }
        let name = subject::job_key(job);
        let mut found = self.get_nearby(&name).await?;
        if found.is_none() {
            // The replica that answered may be behind.
            let stored = self.get_from_leader(&name).await?;
            found = stored.map(|(_, wrapped)| self.unwrap(&name, &wrapped)).transpose()?;
        }
        if let Some(key) = &found {
            self.jobs.insert(job, key.clone());
        }
        Ok(found)
    }

    async fn forget_job(&self, job: JobId) -> Result<(), KeyError> {
        let erased = self.erase(&subject::job_key(job)).await;
        // After the store's: who asks in between would only bring it back here.
        self.jobs.remove(&job);
        erased
    }
}
