//! Queues: what a job says of the one it waits in, how operators set one up, and what they see of it (contract,
//! section 8).
//!
//! Deliberately not here: who goes next. That is the planner's.

use crate::error::{ErrorCode, Rejection};
use crate::id::{Attempt, JobId, Namespace, QueueName};
use crate::job::{JobSpec, duration_in_range, in_range, invalid};
use crate::limits;
use crate::time::{Millis, Timestamp};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// The queue of jobs that name none. It is always there.
const DEFAULT: &str = "default";

impl Default for QueueName {
    fn default() -> QueueName {
        QueueName::new(DEFAULT).expect("it is a name")
    }
}

impl QueueName {
    pub fn is_default(&self) -> bool {
        self.as_str() == DEFAULT
    }
}

/// How urgent a job is, from 0 to 100: of one queue's jobs the higher go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(pub u32);

impl Default for Priority {
    fn default() -> Priority {
        Priority(50)
    }
}

/// How many jobs with the same key may run at once in a namespace, whatever queues they are in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    pub key: CompactString,
    /// This job is started only while fewer than so many with its key run.
    pub limit: u32,
}

/// So many in any stretch of so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub limit: u32,
    pub per: Millis,
}

/// How a queue is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// Jobs that may run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Starts, each attempt counting as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Its share of the room beside other queues.
    #[serde(default = "one")]
    pub weight: u32,
    /// Jobs that may wait; submissions beyond it are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<u32>,
    /// Whether nothing more is started.
    #[serde(default)]
    pub paused: bool,
}

impl Default for QueueSettings {
    fn default() -> QueueSettings {
        QueueSettings { concurrency: None, rate: None, weight: one(), max_waiting: None, paused: false }
    }
}

fn one() -> u32 {
    1
}

impl QueueSettings {
    /// Errors: `invalid_argument` naming the field, the value and the range.
    pub fn validate(&self) -> Result<(), Rejection> {
        if let Some(concurrency) = self.concurrency {
            in_range("concurrency", concurrency, 1, limits::QUEUE_CONCURRENCY_MAX)?;
        }
        if let Some(Rate { limit, per }) = self.rate {
            in_range("rate.limit", limit, 1, limits::QUEUE_RATE_MAX)?;
            let (min, max) = (Millis(limits::QUEUE_RATE_PER_MS_MIN), Millis(limits::QUEUE_RATE_PER_MS_MAX));
            duration_in_range("rate.per", per, min, max)?;
        }
        in_range("weight", self.weight, 1, limits::QUEUE_WEIGHT_MAX)?;
        if let Some(max_waiting) = self.max_waiting {
            in_range("max_waiting", max_waiting, 1, limits::QUEUE_WAITING_MAX)?;
        }
        Ok(())
    }
}

/// The part of [`JobSpec::validate`] that is about queues.
pub(crate) fn validate(spec: &JobSpec) -> Result<(), Rejection> {
    in_range("priority", spec.priority.0, 0, limits::PRIORITY_MAX)?;
    let Some(Concurrency { key, limit }) = spec.concurrency.as_deref() else { return Ok(()) };
    in_range("concurrency.limit", *limit, 1, limits::QUEUE_CONCURRENCY_MAX)?;
    if key.len() > limits::LABEL_BYTES_MAX {
        let message = format!("`concurrency.key` has {} bytes; the limit is {}", key.len(), limits::LABEL_BYTES_MAX);
        return Err(Rejection::new(ErrorCode::LimitExceeded, message));
    }
    if key.is_empty() || key.chars().any(char::is_control) {
        let what = format!("is `{}`: a key is not empty, and holds no control characters", key.escape_default());
        return Err(invalid("concurrency.key", &what));
    }
    Ok(())
}

// Requests.

/// `queue.put`: the whole of what the queue is to be; what is left out is not limited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuePutRequest {
    pub name: QueueName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default = "one")]
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<u32>,
    #[serde(default)]
    pub paused: bool,
}

impl QueuePutRequest {
    pub fn new(name: QueueName, settings: QueueSettings) -> QueuePutRequest {
        let QueueSettings { concurrency, rate, weight, max_waiting, paused } = settings;
        QueuePutRequest { name, concurrency, rate, weight, max_waiting, paused }
    }

    pub fn settings(&self) -> QueueSettings {
        let QueuePutRequest { concurrency, rate, weight, max_waiting, paused, .. } = *self;
        QueueSettings { concurrency, rate, weight, max_waiting, paused }
    }
}

/// `queue.get`, `queue.delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueRequest {
    pub name: QueueName,
}

/// `queue.list`: all of them, or the one of that name, if it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueListRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<QueueName>,
}

// Events.

/// The queue is set up like this from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuePut {
    pub namespace: Namespace,
    pub name: QueueName,
    pub settings: QueueSettings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// → forgotten; `default` goes back to how it was at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueDeleted {
    pub namespace: Namespace,
    pub name: QueueName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<CompactString>,
}

/// running → pending: it has given way to a job of a higher priority, and waits for room again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPreempted {
    pub job: JobId,
    pub attempt: Attempt,
    /// For people.
    pub reason: CompactString,
    pub ended_at: Timestamp,
}

// What users see.

/// What keeps jobs of a queue from being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    Paused,
    Concurrency,
    Rate,
    /// Not all of them, but those with one concurrency key.
    Key,
}

impl HeldBy {
    /// What may hold all of a queue.
    pub const OF_QUEUES: [HeldBy; 3] = [HeldBy::Paused, HeldBy::Concurrency, HeldBy::Rate];

    pub fn as_str(self) -> &'static str {
        match self {
            HeldBy::Paused => "paused",
            HeldBy::Concurrency => "concurrency",
            HeldBy::Rate => "rate",
            HeldBy::Key => "key",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    pub namespace: Namespace,
    pub name: QueueName,
    pub concurrency: Option<u32>,
    pub rate: Option<Rate>,
    pub weight: u32,
    pub max_waiting: Option<u32>,
    pub paused: bool,
    /// Jobs that are not placed: new ones, and those between two attempts.
    pub waiting: u64,
    /// Jobs that hold room on an executor.
    pub running: u32,
    /// How long the one of the waiting jobs has waited that has been ready the longest; nothing where none is ready.
    pub oldest_wait_ms: Option<u64>,
    /// What keeps all that wait from being started, if anything does.
    pub held_by: Option<HeldBy>,
    /// When its rate lets the next one start, where that is what holds it.
    pub next_start_at: Option<Timestamp>,
}

/// Where a job stands in its queue, as `job.why` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InQueue {
    pub name: QueueName,
    pub priority: Priority,
    /// Jobs of the queue that go before it, were there room for all.
    pub ahead: u64,
    pub held_by: Option<HeldBy>,
    /// When it is looked at next, where that has a time: else as soon as what it waits for is there.
    pub next_try_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueList {
    pub queues: Vec<QueueView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        let request: QueuePutRequest = serde_json::from_str(json).expect(json);
        let rejection = request.settings().validate().expect_err(json);
        format!("{}: {}", rejection.code.as_str(), rejection.message)
    }

    #[test]
    fn only_a_queues_name_is_required() {
        let bare: QueuePutRequest = serde_json::from_str(r#"{"name":"mail"}"#).expect("a request");
        assert_eq!(bare.settings(), QueueSettings::default());
        bare.settings().validate().expect("valid");
        let text = r#"{"name":"mail","concurrency":2,"rate":{"limit":5,"per":"1m"},"weight":3,"max_waiting":9,
            "paused":true}"#;
        let full: QueuePutRequest = serde_json::from_str(text).expect("a request");
        assert_eq!(full.settings().rate, Some(Rate { limit: 5, per: Millis::minutes(1) }));
        assert_eq!(QueuePutRequest::new(full.name.clone(), full.settings()), full);
        assert!(serde_json::from_str::<QueuePutRequest>(r#"{"name":"mail","wight":3}"#).is_err());
    }

    #[test]
    fn settings_out_of_range_name_the_field_the_value_and_the_range() {
        for (json, message) in [
            (r#"{"name":"q","concurrency":0}"#, "`concurrency` is 0, not within 1 to 1000000"),
            (r#"{"name":"q","weight":0}"#, "`weight` is 0, not within 1 to 1000"),
            (r#"{"name":"q","rate":{"limit":0,"per":"1s"}}"#, "`rate.limit` is 0, not within 1 to 1000000"),
            (r#"{"name":"q","rate":{"limit":1,"per":"1ms"}}"#, "`rate.per` is 1ms, not within 100ms to 720h"),
            (r#"{"name":"q","max_waiting":0}"#, "`max_waiting` is 0, not within 1 to 10000000"),
        ] {
            assert_eq!(refused(json), format!("invalid_argument: {message}"));
        }
    }

    #[test]
    fn what_a_job_says_of_its_queue_is_checked() {
        let spec = |more: &str| -> Result<JobSpec, String> {
            let text = format!(r#"{{"driver":{{"noop":{{}}}},{more}}}"#);
            let spec: JobSpec = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            spec.validate().map(|()| spec).map_err(|rejection| rejection.message)
        };
        let taken = spec(r#""queue":"mail","priority":100,"concurrency":{"key":"customer-42","limit":1}"#);
        let taken = taken.expect("valid");
        assert_eq!((taken.queue.as_str(), taken.priority), ("mail", Priority(100)));
        let binary = rmp_serde::to_vec_named(&taken).expect("msgpack");
        assert_eq!(rmp_serde::from_slice::<JobSpec>(&binary).expect("back"), taken);
        for (more, message) in [
            (r#""priority":101"#, "`priority` is 101, not within 0 to 100"),
            (r#""concurrency":{"key":"k","limit":0}"#, "`concurrency.limit` is 0, not within 1 to 1000000"),
            (r#""concurrency":{"key":"","limit":1}"#, "`concurrency.key` is ``"),
            (r#""concurrency":{"key":"a\nb","limit":1}"#, "control characters"),
        ] {
            let said = spec(more).expect_err(more);
            assert!(said.contains(message), "{said}");
        }
        assert!(spec(r#""queue":"No Such Name""#).is_err());
        assert!(spec(r#""concurrency":{"key":"k"}"#).expect_err("no limit").contains("limit"));
        let plain = spec(r#""labels":{}"#).expect("valid");
        assert!(plain.queue.is_default());
        assert_eq!(serde_json::to_string(&plain).expect("json"), r#"{"driver":{"noop":{}}}"#);
    }
}
