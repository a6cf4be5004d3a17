//! Blobs in a JetStream stream of their own: a subject per blob, one message per subject.
//!
//! JetStream's own object store is not used: it writes chunks one after the other, and cannot put only what is
//! absent.

use super::{BlobError, BlobStore, Mark, Owner, Put, Usage};
use crate::nats::{EnsureStreamError, Nats, PublishFailure, ensure_stream, publish};
use crate::retry::retry;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DeleteMessageErrorKind, DirectGetErrorKind, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy,
    StorageType, Stream,
};
use async_trait::async_trait;
use bytes::Bytes;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::limits::BLOB_BYTES_MAX;
use outlive_schemas::subject;
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use std::collections::HashMap;
use std::time::Duration;

/// JetStream elects within about 10 s; a put outlasts several elections in a row, and a checkpoint has 10 minutes.
const PUT_BOUND: Duration = Duration::from_secs(60);
/// Any replica answers a get, so only a whole cluster that is gone makes one wait.
const GET_BOUND: Duration = Duration::from_secs(30);
const DELETE_BOUND: Duration = Duration::from_secs(60);
/// What the headers of a put take beside the blob.
const HEADER_BYTES_MAX: usize = 1024;
/// Pages of names in one list, of up to 100,000 each: far beyond any checkpoint's chunks.
const LIST_PAGES_MAX: usize = 1_000;

/// What the stream has to be. `max_bytes`: none means as much as the servers have.
pub fn blob_stream(replicas: usize, max_bytes: Option<i64>) -> Config {
    Config {
        name: subject::BLOB_STREAM.to_owned(),
        description: Some("Outlive: sealed chunks and manifests of checkpoints, and images".to_owned()),
        subjects: vec![subject::BLOB_SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: replicas,
        max_bytes: max_bytes.unwrap_or(-1),
        max_messages: -1,
        max_messages_per_subject: 1,
        max_message_size: i32::try_from(BLOB_BYTES_MAX + HEADER_BYTES_MAX).expect("the limit is about a MiB"),
        // Full means refused: an older checkpoint's chunk is never thrown out to make room.
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        allow_direct: true,
        deny_delete: false,
        deny_purge: false,
        allow_rollup: false,
        ..Config::default()
    }
}

/// What is wrong with a stream that exists, if anything.
fn check(found: &Config) -> Result<(), String> {
    let wanted = blob_stream(found.num_replicas, None);
    let faults = [
        (
            found.subjects != wanted.subjects,
            format!("subjects are {:?} instead of {:?}", found.subjects, wanted.subjects),
        ),
        (
            found.retention != wanted.retention,
            format!("retention is {:?}, which drops blobs that are read", found.retention),
        ),
        (found.storage != wanted.storage, "storage is memory, which does not survive a restart".to_owned()),
        (found.discard != wanted.discard, "discard is old, which throws out blobs that checkpoints need".to_owned()),
        (!found.discard_new_per_subject, "discard_new_per_subject is off, so a put could replace a blob".to_owned()),
        (
            found.max_messages_per_subject != 1,
            format!("max_msgs_per_subject is {} instead of 1", found.max_messages_per_subject),
        ),
        (!found.max_age.is_zero(), format!("max_age is {:?}, which drops old blobs", found.max_age)),
        (!found.allow_direct, "allow_direct is off".to_owned()),
        (found.deny_delete || found.deny_purge, "deny_delete or deny_purge is on, so nothing can be erased".to_owned()),
        (found.allow_rollup, "allow_rollup is on, so one message could erase others".to_owned()),
        (
            found.max_message_size >= 0 && found.max_message_size < wanted.max_message_size,
            format!("max_msg_size is {} and must be at least {}", found.max_message_size, wanted.max_message_size),
        ),
    ];
    faults.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, reason)| Err(reason))
}

fn subjects_of(owner: Owner) -> String {
    match owner {
        Owner::Job(job) => format!("outlive.blob.job.{job}"),
        Owner::Images => "outlive.blob.image".to_owned(),
        Owner::ImageHeads => "outlive.blob.imagehead".to_owned(),
    }
}

fn subject_of(owner: Owner, name: BlobName) -> String {
    format!("{}.{name}", subjects_of(owner))
}

/// The name at the end of a subject.
fn name_in(subject: &str) -> Option<BlobName> {
    let digits = subject.rsplit('.').next()?;
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = digits.into_deserializer();
    BlobName::deserialize(text).ok()
}

/// A try that failed in a way that may pass.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Passing(String);

#[derive(Clone, Debug)]
pub struct JetStreamBlobs {
    nats: Nats,
    stream: Stream<()>,
}

impl JetStreamBlobs {
    /// Makes sure of the stream first; for schedulers.
    pub async fn ensure(nats: &Nats, config: Config) -> Result<JetStreamBlobs, EnsureStreamError> {
        ensure_stream(&nats.jetstream, config, check).await?;
        JetStreamBlobs::attach(nats).await
    }

    /// Takes the stream to be there; for executors, which may have no right to create one. Until it is there, puts
    /// and gets are `Unavailable`.
    pub async fn attach(nats: &Nats) -> Result<JetStreamBlobs, EnsureStreamError> {
        let refused = |error: async_nats::jetstream::context::GetStreamError| EnsureStreamError::Refused {
            stream: subject::BLOB_STREAM.to_owned(),
            reason: error.to_string(),
        };
        let stream = nats.jetstream.get_stream_no_info(subject::BLOB_STREAM).await.map_err(refused)?;
        Ok(JetStreamBlobs { nats: nats.clone(), stream })
    }

    /// The message of a blob; `None` where the stream's leader says that there is none.
    async fn find(&self, subject: &str) -> Result<Option<StreamMessage>, Passing> {
        let direct = self.stream.direct_get_builder().last_by_subject(subject).send().await;
        match direct {
            Ok(message) => return Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {}
            Err(error) => return Err(Passing(error.to_string())),
        }
        // The replica that answered may be behind: only the leader's word counts for absence.
        match self.stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Passing(error.to_string())),
        }
    }

    /// Finds and erases one message, unless it was stored after `newest`.
    async fn erase(&self, subject: &str, newest: u64) -> Result<(), Passing> {
        let Some(message) = self.find(subject).await?.filter(|message| message.sequence <= newest) else {
            return Ok(());
        };
        // The server overwrites the bytes of a message that is deleted by sequence, unless told not to.
        match self.stream.delete_message(message.sequence).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Passing(format!("the message {} was not deleted", message.sequence))),
            Err(error) => match error.kind() {
                // Deleted meanwhile, perhaps by an earlier try: the next look tells.
                DeleteMessageErrorKind::JetStream(api) if api.error_code() == ErrorCode::SEQUENCE_NOT_FOUND => Ok(()),
                _ => Err(Passing(error.to_string())),
            },
        }
    }

    /// One page of subjects below `filter`, beginning with the one at `offset`.
    async fn page(&self, filter: &str, offset: usize) -> Result<Page, Passing> {
        let request = serde_json::json!({ "subjects_filter": filter, "offset": offset });
        let answer: Response<Page> = self
            .nats
            .jetstream
            .request(format!("STREAM.INFO.{}", subject::BLOB_STREAM), &request)
            .await
            .map_err(|error| Passing(error.to_string()))?;
        match answer {
            Response::Ok(page) => Ok(page),
            Response::Err { error } => Err(Passing(error.to_string())),
        }
    }
}

/// What this needs of a stream's description.
#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    total: usize,
    state: PageState,
}

#[derive(Debug, Deserialize)]
struct PageState {
    messages: u64,
    bytes: u64,
    last_seq: u64,
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

fn unavailable(Passing(reason): Passing) -> BlobError {
    BlobError::Unavailable { reason }
}

#[async_trait]
impl BlobStore for JetStreamBlobs {
    async fn put(&self, owner: Owner, name: BlobName, body: Bytes) -> Result<Put, BlobError> {
        let bytes = body.len();
        if bytes > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { bytes, max: BLOB_BYTES_MAX });
        }
        let message = PublishMessage::build()
            .payload(body)
            .expected_stream(subject::BLOB_STREAM)
            // Zero: the subject has no message. This makes repeating a put harmless.
            .expected_last_subject_sequence(0);
        match publish(&self.nats.jetstream, &subject_of(owner, name), &message, PUT_BOUND).await {
            Ok(_) => Ok(Put::Stored),
            Err(PublishFailure::Occupied { .. }) => Ok(Put::Present),
            Err(PublishFailure::TooLarge { .. }) => {
                Err(BlobError::TooLarge { bytes, max: self.nats.client.max_payload().min(BLOB_BYTES_MAX) })
            }
            Err(PublishFailure::Full { reason }) => Err(BlobError::Full { reason }),
            Err(PublishFailure::Unknown { reason } | PublishFailure::Refused { reason }) => {
                Err(BlobError::Unavailable { reason })
            }
        }
    }

    async fn get(&self, owner: Owner, name: BlobName) -> Result<Bytes, BlobError> {
        let subject = subject_of(owner, name);
        let found = retry("get a blob", GET_BOUND, |_| true, || self.find(&subject)).await.map_err(unavailable)?;
        found.map(|message| message.payload).ok_or(BlobError::Missing { name })
    }

    async fn list(&self, owner: Owner) -> Result<Vec<BlobName>, BlobError> {
        let filter = format!("{}.*", subjects_of(owner));
        let (mut names, mut offset) = (Vec::new(), 0);
        for _ in 0..LIST_PAGES_MAX {
            let page =
                retry("list blobs", GET_BOUND, |_| true, || self.page(&filter, offset)).await.map_err(unavailable)?;
            let subjects = page.state.subjects.unwrap_or_default();
            let count = subjects.len();
            for subject in subjects.keys() {
                match name_in(subject) {
                    Some(name) => names.push(name),
                    None => tracing::warn!(%subject, "this message in the blobs' stream is none of Outlive's"),
                }
            }
            offset += count;
            if count == 0 || offset >= page.total {
                // Between two pages subjects may come and go, and one be seen twice.
                names.sort_unstable();
                names.dedup();
                return Ok(names);
            }
        }
        Err(BlobError::Unavailable { reason: format!("one owner has more than {offset} blobs") })
    }

    async fn delete(&self, owner: Owner, name: BlobName) -> Result<(), BlobError> {
        let subject = subject_of(owner, name);
        retry("delete a blob", DELETE_BOUND, |_| true, || self.erase(&subject, u64::MAX)).await.map_err(unavailable)
    }

    async fn mark(&self) -> Result<Mark, BlobError> {
        let page =
            retry("ask where the blobs end", GET_BOUND, |_| true, || self.page("", 0)).await.map_err(unavailable)?;
        Ok(Mark(page.state.last_seq))
    }

    async fn delete_stored_by(&self, owner: Owner, name: BlobName, Mark(newest): Mark) -> Result<(), BlobError> {
        let subject = subject_of(owner, name);
        retry("delete a blob", DELETE_BOUND, |_| true, || self.erase(&subject, newest)).await.map_err(unavailable)
    }

    async fn delete_all(&self, owner: Owner) -> Result<(), BlobError> {
        let filter = format!("{}.*", subjects_of(owner));
        retry(
            "delete an owner's blobs",
            DELETE_BOUND,
            |_| true,
            || async {
                let purged = self.stream.purge().filter(&filter).await.map_err(|error| Passing(error.to_string()))?;
                if purged.success { Ok(()) } else { Err(Passing("the purge did not succeed".to_owned())) }
            },
        )
        .await
        .map_err(unavailable)
    }

    async fn usage(&self) -> Result<Usage, BlobError> {
        let page =
            retry("ask for the blobs' size", GET_BOUND, |_| true, || self.page("", 0)).await.map_err(unavailable)?;
        Ok(Usage { bytes: page.state.bytes, items: page.state.messages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_from_its_subject() {
        let name = BlobName([7; 32]);
        for owner in [Owner::Images, Owner::ImageHeads] {
            assert_eq!(name_in(&subject_of(owner, name)), Some(name));
        }
        for odd in ["", "outlive.blob.image.xyz", "outlive.blob.image.éééééééééééééééé"] {
            assert_eq!(name_in(odd), None, "{odd}");
        }
    }

    #[test]
    fn an_unsafe_stream_is_told_by_its_setting() {
        assert_eq!(check(&blob_stream(3, Some(1 << 30))), Ok(()));
        let base = || blob_stream(1, None);
        for (setting, config) in [
            ("storage", Config { storage: StorageType::Memory, ..base() }),
            ("discard", Config { discard: DiscardPolicy::Old, ..base() }),
            ("max_age", Config { max_age: Duration::from_secs(1), ..base() }),
            ("max_msg_size", Config { max_message_size: 1024, ..base() }),
            ("allow_rollup", Config { allow_rollup: true, ..base() }),
            ("deny_delete", Config { deny_delete: true, ..base() }),
            ("subjects", Config { subjects: vec!["other".into()], ..base() }),
        ] {
            let reason = check(&config).expect_err(setting);
            assert!(reason.contains(setting), "{setting}: {reason}");
        }
    }
}
