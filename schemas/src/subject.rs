//! Every subject, stream and key that Outlive uses, in one place, so that permissions can be written from it.

use crate::id::{ExecutorId, JobId, Namespace, SchedulerName, Zone};

/// The name of the NATS micro-service.
pub const SERVICE: &str = "outlive";
/// What every public subject begins with.
pub const API: &str = "outlive.v1";

/// The log: one subject per shard; there is one shard.
pub const LOG_STREAM: &str = "OUTLIVE_LOG";
pub const LOG_SUBJECT: &str = "outlive.log.0";
/// Where the log's stream repeats what it has stored, for those who follow.
pub const LOG_TAIL_SUBJECT: &str = "outlive.tail.0";
/// Asks JetStream to let another replica lead the log's stream.
pub fn log_stream_step_down() -> String {
    format!("$JS.API.STREAM.LEADER.STEPDOWN.{LOG_STREAM}")
}
/// Chunks and manifests of checkpoints, and images.
pub const BLOB_STREAM: &str = "OUTLIVE_BLOB";
pub const BLOB_SUBJECTS: &str = "outlive.blob.>";
/// Wrapped keys. A stream of its own, whose messages can be erased.
pub const KEY_STREAM: &str = "OUTLIVE_KEYS";
pub const KEY_SUBJECTS: &str = "outlive.key.>";
/// What jobs have written, sealed.
pub const JOB_LOG_STREAM: &str = "OUTLIVE_JOB_LOGS";
pub const JOB_LOG_SUBJECTS: &str = "outlive.joblog.>";

/// Leader → everybody.
pub const LEADER_BEAT: &str = "outlive.internal.leader";
/// Executor → leader.
pub const HEARTBEAT: &str = "outlive.internal.heartbeat";
/// Executor → leader, request and reply.
pub const REPORT: &str = "outlive.internal.report";

/// Leader → one executor: orders.
pub fn executor_orders(executor: ExecutorId) -> String {
    format!("outlive.internal.executor.{executor}.orders")
}

/// Anybody → one executor, request and reply: are you there?
pub fn executor_probe(executor: ExecutorId) -> String {
    format!("outlive.internal.executor.{executor}.probe")
}

/// Anybody → everybody in one zone, request and reply: is anybody there?
pub fn zone_probe(zone: &Zone) -> String {
    format!("outlive.internal.zone.{zone}.probe")
}

/// Standbys → the scheduler that leads, request and reply: are you there?
pub fn scheduler_probe(scheduler: &SchedulerName) -> String {
    format!("outlive.internal.scheduler.{scheduler}.probe")
}

/// One operation in one namespace, such as `job.submit`.
pub fn operation(namespace: &Namespace, operation: &str) -> String {
    format!("{API}.{namespace}.{operation}")
}

/// One operators' operation, such as `status`.
pub fn system_operation(operation: &str) -> String {
    format!("{API}.sys.{operation}")
}

/// The feed: plain core NATS, nothing secret in it.
pub fn event(namespace: &Namespace, job: JobId, kind: &str) -> String {
    format!("{API}.{namespace}.event.{job}.{kind}")
}

/// A job's output as it is written; `stream` is `out` or `err`.
pub fn live_log(namespace: &Namespace, job: JobId, stream: &str) -> String {
    format!("{API}.{namespace}.log.{job}.{stream}")
}

/// A job's sealed log.
pub fn job_log(namespace: &Namespace, job: JobId) -> String {
    format!("outlive.joblog.{namespace}.{job}")
}

/// The wrapped data key of a job.
pub fn job_key(job: JobId) -> String {
    format!("outlive.key.job.{job}")
}

/// The wrapped key of the log in one epoch.
pub fn log_key(epoch: u32) -> String {
    format!("outlive.key.log.{epoch}")
}

/// Namespaces that no user may have, for their subjects are Outlive's.
pub const RESERVED_NAMESPACES: [&str; 1] = ["sys"];

/// The one in which operators ask.
pub fn operators() -> Namespace {
    Namespace::new(RESERVED_NAMESPACES[0]).expect("it is a name")
}

/// Header: the format of a body; see [`crate::codec`].
pub const HEADER_CONTENT_TYPE: &str = "content-type";
pub const HEADER_REQUEST_ID: &str = "Nats-Msg-Id";
/// Header: who the client says is asking.
pub const HEADER_ACTOR: &str = "Outlive-Actor";
/// Header: W3C trace context of whoever submits; see [`crate::trace`].
pub const HEADER_TRACE: &str = "traceparent";
pub const HEADER_ERROR_CODE: &str = "Nats-Service-Error-Code";
pub const HEADER_ERROR: &str = "Nats-Service-Error";
/// Headers of live log messages: which entry this is, so that a reader can join it to the kept ones.
pub const HEADER_LOG_ATTEMPT: &str = "Outlive-Attempt";
pub const HEADER_LOG_NUMBER: &str = "Outlive-Entry";

/// Keys in etcd, all under `/outlive/<cluster>/`.
pub mod etcd {
    pub fn root(cluster: &str) -> String {
        format!("/outlive/{cluster}/")
    }
    pub fn leader(cluster: &str) -> String {
        format!("/outlive/{cluster}/leader")
    }
    pub fn witness(cluster: &str) -> String {
        format!("/outlive/{cluster}/witness")
    }
    /// What is added to etcd's revisions to make terms.
    pub fn term_base(cluster: &str) -> String {
        format!("/outlive/{cluster}/term-base")
    }
    /// What the bridge's keys begin with; the position follows.
    pub fn bridge(cluster: &str) -> String {
        format!("/outlive/{cluster}/bridge/")
    }
    pub fn executors(cluster: &str) -> String {
        format!("/outlive/{cluster}/executors/")
    }
    pub fn schedulers(cluster: &str) -> String {
        format!("/outlive/{cluster}/schedulers/")
    }
}
