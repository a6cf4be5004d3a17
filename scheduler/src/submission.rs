//! A request's bytes → what is asked. Nothing is decided or appended here.

use compact_str::CompactString;
use outlive_schemas::array::Indexes;
use outlive_schemas::codec::Format;
use outlive_schemas::command::{Origin, Stop};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::id::{ExecutorRef, JobRef, Namespace, QueueName, ScheduleName, Zone};
use outlive_schemas::job::{JobSpec, duration_in_range, invalid};
use outlive_schemas::life::{RollbackRequest, StartRequest, StopRequest, UpdateRequest, VersionsRequest};
use outlive_schemas::limits;
use outlive_schemas::queue::{QueueListRequest, QueuePutRequest, QueueRequest};
use outlive_schemas::request::{
    CancelRequest, Deadline, DrainExecutorRequest, DrainZoneRequest, EmptyRequest, ExecutorRequest, GRACE_DEFAULT,
    HistoryRequest, HoldRequest, JobRequest, ListRequest, LogsRequest, SubmitManyRequest, WaitRequest, ZoneRequest,
};
use outlive_schemas::schedule::{PutRequest, ScheduleListRequest, ScheduleRequest};
use outlive_schemas::snapshot::{SnapshotDeleteRequest, SnapshotImportRequest, SnapshotListRequest, SnapshotRequest};
use outlive_schemas::time::Millis;
use outlive_schemas::trace::TraceContext;
use outlive_schemas::when::{SelectRequest, Selection};

/// The operations of the contract, by the end of their subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Submit,
    SubmitMany,
    Get,
    List,
    Wait,
    History,
    Logs,
    Why,
    Cancel,
    Kill,
    Delete,
    Retry,
    PutSchedule,
    GetSchedule,
    ListSchedules,
    DeleteSchedule,
    PauseSchedule,
    ResumeSchedule,
    TriggerSchedule,
    Stop,
    Start,
    Update,
    RollBack,
    Versions,
    CreateSnapshot,
    GetSnapshot,
    ListSnapshots,
    DeleteSnapshot,
    LocateSnapshot,
    ImportSnapshot,
    Status,
    Executors,
    HoldCollection,
    Executor,
    DrainExecutor,
    UndrainExecutor,
    DrainZone,
    UndrainZone,
    PutQueue,
    GetQueue,
    ListQueues,
    DeleteQueue,
}

impl Operation {
    pub const ALL: [Operation; 42] = [
        Operation::Submit,
        Operation::SubmitMany,
        Operation::Get,
        Operation::List,
        Operation::Wait,
        Operation::History,
        Operation::Logs,
        Operation::Why,
        Operation::Cancel,
        Operation::Kill,
        Operation::Delete,
        Operation::Retry,
        Operation::PutSchedule,
        Operation::GetSchedule,
        Operation::ListSchedules,
        Operation::DeleteSchedule,
        Operation::PauseSchedule,
        Operation::ResumeSchedule,
        Operation::TriggerSchedule,
        Operation::Stop,
        Operation::Start,
        Operation::Update,
        Operation::RollBack,
        Operation::Versions,
        Operation::CreateSnapshot,
        Operation::GetSnapshot,
        Operation::ListSnapshots,
        Operation::DeleteSnapshot,
        Operation::LocateSnapshot,
        Operation::ImportSnapshot,
        Operation::Status,
        Operation::Executors,
        Operation::HoldCollection,
        Operation::Executor,
        Operation::DrainExecutor,
        Operation::UndrainExecutor,
        Operation::DrainZone,
        Operation::UndrainZone,
        Operation::PutQueue,
        Operation::GetQueue,
        Operation::ListQueues,
        Operation::DeleteQueue,
    ];

    /// What its subjects end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Operation::Submit => "job.submit",
            Operation::SubmitMany => "job.submit_many",
            Operation::Get => "job.get",
            Operation::List => "job.list",
            Operation::Wait => "job.wait",
            Operation::History => "job.history",
            Operation::Logs => "job.logs",
            Operation::Why => "job.why",
            Operation::Cancel => "job.cancel",
            Operation::Kill => "job.kill",
            Operation::Delete => "job.delete",
            Operation::Retry => "job.retry",
            Operation::PutSchedule => "schedule.put",
            Operation::GetSchedule => "schedule.get",
            Operation::ListSchedules => "schedule.list",
            Operation::DeleteSchedule => "schedule.delete",
            Operation::PauseSchedule => "schedule.pause",
            Operation::ResumeSchedule => "schedule.resume",
            Operation::TriggerSchedule => "schedule.trigger",
            Operation::Stop => "job.stop",
            Operation::Start => "job.start",
            Operation::Update => "job.update",
            Operation::RollBack => "job.rollback",
            Operation::Versions => "job.versions",
            Operation::CreateSnapshot => "snapshot.create",
            Operation::GetSnapshot => "snapshot.get",
            Operation::ListSnapshots => "snapshot.list",
            Operation::DeleteSnapshot => "snapshot.delete",
            Operation::LocateSnapshot => "snapshot.locate",
            Operation::ImportSnapshot => "snapshot.import",
            Operation::Status => "status",
            Operation::Executors => "executor.list",
            Operation::HoldCollection => "collection.hold",
            Operation::Executor => "executor.get",
            Operation::DrainExecutor => "executor.drain",
            Operation::UndrainExecutor => "executor.undrain",
            Operation::DrainZone => "zone.drain",
            Operation::UndrainZone => "zone.undrain",
            Operation::PutQueue => "queue.put",
            Operation::GetQueue => "queue.get",
            Operation::ListQueues => "queue.list",
            Operation::DeleteQueue => "queue.delete",
        }
    }

    /// Whether it belongs to operators rather than to a namespace.
    pub fn is_system(self) -> bool {
        matches!(
            self,
            Operation::Status
                | Operation::Executors
                | Operation::HoldCollection
                | Operation::Executor
                | Operation::DrainExecutor
                | Operation::UndrainExecutor
                | Operation::DrainZone
                | Operation::UndrainZone
        )
    }
}

/// What is asked, and for which namespace.
#[derive(Clone, Debug)]
pub struct Request {
    pub namespace: Namespace,
    pub origin: Origin,
    /// What the `traceparent` header said; set by who has the headers.
    pub trace: Option<TraceContext>,
    pub what: Asked,
}

#[derive(Clone, Debug)]
pub enum Asked {
    Submit(Box<JobSpec>),
    SubmitMany(Vec<JobSpec>),
    Get(JobRef),
    List(ListRequest),
    Wait(WaitRequest),
    History(HistoryRequest),
    Logs(LogsRequest),
    Why(JobRef),
    Cancel {
        job: JobRef,
        how: Stop,
    },
    /// Of an array these tasks.
    CancelTasks {
        job: JobRef,
        tasks: Indexes,
        how: Stop,
    },
    Delete(JobRef),
    /// What a filter finds.
    DeleteMany(ListRequest),
    Retry(Selection),
    /// See `leader/schedules.rs`.
    Schedule(Box<ScheduleAsked>),
    /// What a job's life is made of beyond one run; see `leader/life.rs`.
    Life(Box<LifeAsked>),
    /// What queues are set up and seen by; see `leader/queue.rs`.
    Queue(QueueAsked),
    Status,
    Executors,
    /// For so long from now nothing is collected.
    HoldCollection(Millis),
    Executor(ExecutorRef),
    DrainExecutor {
        executor: ExecutorRef,
        deadline: Option<Deadline>,
    },
    UndrainExecutor(ExecutorRef),
    DrainZone {
        zone: Zone,
        deadline: Option<Deadline>,
    },
    UndrainZone(Zone),
}

#[derive(Clone, Debug)]
pub enum ScheduleAsked {
    Put(PutRequest),
    Get(ScheduleRequest),
    List(ScheduleListRequest),
    Delete(ScheduleRequest),
    Pause { name: ScheduleName, paused: bool },
    Trigger(ScheduleRequest),
}

#[derive(Clone, Debug)]
pub enum LifeAsked {
    Stop(StopRequest),
    Start(StartRequest),
    Update(UpdateRequest),
    RollBack(RollbackRequest),
    Versions(VersionsRequest),
    CreateSnapshot(SnapshotRequest),
    GetSnapshot(SnapshotRequest),
    ListSnapshots(SnapshotListRequest),
    DeleteSnapshot(SnapshotDeleteRequest),
    LocateSnapshot(SnapshotRequest),
    ImportSnapshot(SnapshotImportRequest),
}

#[derive(Clone, Debug)]
pub enum QueueAsked {
    Put(QueuePutRequest),
    Get(QueueName),
    /// All of them, or the one of that name.
    List(Option<QueueName>),
    Delete(QueueName),
}

/// A request as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    pub operation: Operation,
    /// The token of the subject that names the namespace; `sys` for operators' operations.
    pub namespace: &'a str,
    pub request_id: Option<&'a str>,
    pub actor: Option<&'a str>,
    pub body: &'a [u8],
}

/// Reads a request.
///
/// Errors: `invalid_request` for what cannot be read, `invalid_argument` for values out of range, `limit_exceeded`.
pub fn parse(raw: Raw<'_>, format: Format) -> Result<Request, Rejection> {
    let body = raw.body;
    if body.len() > limits::REQUEST_BYTES_MAX {
        return Err(too_large("the body", body.len(), limits::REQUEST_BYTES_MAX));
    }
    let namespace = Namespace::new(raw.namespace)
        .map_err(|e| Rejection::new(ErrorCode::InvalidArgument, format!("the subject's namespace: {e}")))?;
    let what = match raw.operation {
        Operation::Submit => {
            if body.len() > limits::JOB_SPEC_BYTES_MAX {
                return Err(too_large("the job's specification", body.len(), limits::JOB_SPEC_BYTES_MAX));
            }
            Asked::Submit(format.decode(body)?)
        }
        Operation::SubmitMany => {
            if body.len() > limits::SUBMISSION_BYTES_MAX {
                return Err(too_large("the body", body.len(), limits::SUBMISSION_BYTES_MAX));
            }
            let SubmitManyRequest { jobs } = format.decode(body)?;
            if jobs.is_empty() {
                return Err(invalid("jobs", "is empty: give at least one job"));
            }
            if jobs.len() > limits::SUBMIT_MANY_MAX {
                let message = format!(
                    "`jobs` has {} jobs; the limit is {}: send several requests",
                    jobs.len(),
                    limits::SUBMIT_MANY_MAX
                );
                return Err(Rejection::new(ErrorCode::LimitExceeded, message));
            }
            Asked::SubmitMany(jobs)
        }
        Operation::Get => Asked::Get(job(format, body)?),
        Operation::List => Asked::List(format.decode(body)?),
        Operation::Wait => Asked::Wait(format.decode(body)?),
        Operation::History => Asked::History(format.decode(body)?),
        Operation::Logs => Asked::Logs(format.decode(body)?),
        Operation::Why => Asked::Why(job(format, body)?),
        Operation::Cancel => {
            let CancelRequest { job, indexes, grace } = format.decode(body)?;
            let how = Stop::Graceful { grace: grace.unwrap_or(GRACE_DEFAULT) };
            match indexes {
                Some(tasks) => Asked::CancelTasks { job, tasks, how },
                None => Asked::Cancel { job, how },
            }
        }
        Operation::Kill => Asked::Cancel { job: job(format, body)?, how: Stop::Kill },
        Operation::Delete => match format.decode::<SelectRequest>(body)?.selection()? {
            Selection::Job(job) => Asked::Delete(job),
            Selection::Filter(filter) => Asked::DeleteMany(filter),
            Selection::Tasks(..) => {
                let what = "is given, but tasks are deleted with their array only: leave it out";
                return Err(invalid("indexes", what));
            }
        },
        Operation::Retry => Asked::Retry(format.decode::<SelectRequest>(body)?.selection()?),
        Operation::PutSchedule => {
            if body.len() > limits::JOB_SPEC_BYTES_MAX {
                return Err(too_large("the schedule", body.len(), limits::JOB_SPEC_BYTES_MAX));
            }
            scheduled(ScheduleAsked::Put(format.decode(body)?))
        }
        Operation::GetSchedule => scheduled(ScheduleAsked::Get(format.decode(body)?)),
        Operation::ListSchedules => scheduled(ScheduleAsked::List(format.decode(body)?)),
        Operation::DeleteSchedule => scheduled(ScheduleAsked::Delete(format.decode(body)?)),
        Operation::PauseSchedule | Operation::ResumeSchedule => {
            let paused = raw.operation == Operation::PauseSchedule;
            let ScheduleRequest { name } = format.decode(body)?;
            scheduled(ScheduleAsked::Pause { name, paused })
        }
        Operation::TriggerSchedule => scheduled(ScheduleAsked::Trigger(format.decode(body)?)),
        Operation::Stop => asked(LifeAsked::Stop(format.decode(body)?)),
        Operation::Start => asked(LifeAsked::Start(format.decode(body)?)),
        Operation::Update => {
            if body.len() > limits::JOB_SPEC_BYTES_MAX {
                return Err(too_large("the job's specification", body.len(), limits::JOB_SPEC_BYTES_MAX));
            }
            asked(LifeAsked::Update(format.decode(body)?))
        }
        Operation::RollBack => asked(LifeAsked::RollBack(format.decode(body)?)),
        Operation::Versions => asked(LifeAsked::Versions(format.decode(body)?)),
        Operation::CreateSnapshot => asked(LifeAsked::CreateSnapshot(format.decode(body)?)),
        Operation::GetSnapshot => asked(LifeAsked::GetSnapshot(format.decode(body)?)),
        Operation::ListSnapshots => asked(LifeAsked::ListSnapshots(format.decode(body)?)),
        Operation::DeleteSnapshot => asked(LifeAsked::DeleteSnapshot(format.decode(body)?)),
        Operation::LocateSnapshot => asked(LifeAsked::LocateSnapshot(format.decode(body)?)),
        Operation::ImportSnapshot => asked(LifeAsked::ImportSnapshot(format.decode(body)?)),
        Operation::Status => {
            format.decode::<EmptyRequest>(body)?;
            Asked::Status
        }
        Operation::Executors => {
            format.decode::<EmptyRequest>(body)?;
            Asked::Executors
        }
        Operation::HoldCollection => {
            let HoldRequest { length } = format.decode(body)?;
            duration_in_range("for", length, Millis::ZERO, Millis(limits::COLLECTION_HOLD_MS_MAX))?;
            Asked::HoldCollection(length)
        }
        Operation::Executor => Asked::Executor(format.decode::<ExecutorRequest>(body)?.executor),
        Operation::DrainExecutor => {
            let DrainExecutorRequest { executor, deadline } = format.decode(body)?;
            Asked::DrainExecutor { executor, deadline }
        }
        Operation::UndrainExecutor => Asked::UndrainExecutor(format.decode::<ExecutorRequest>(body)?.executor),
        Operation::DrainZone => {
            let DrainZoneRequest { zone, deadline } = format.decode(body)?;
            Asked::DrainZone { zone, deadline }
        }
        Operation::UndrainZone => Asked::UndrainZone(format.decode::<ZoneRequest>(body)?.zone),
        Operation::PutQueue => Asked::Queue(QueueAsked::Put(format.decode(body)?)),
        Operation::GetQueue => Asked::Queue(QueueAsked::Get(format.decode::<QueueRequest>(body)?.name)),
        Operation::ListQueues => Asked::Queue(QueueAsked::List(format.decode::<QueueListRequest>(body)?.name)),
        Operation::DeleteQueue => Asked::Queue(QueueAsked::Delete(format.decode::<QueueRequest>(body)?.name)),
    };
    Ok(Request { namespace, origin: origin(raw.request_id, raw.actor)?, trace: None, what })
}

fn scheduled(what: ScheduleAsked) -> Asked {
    Asked::Schedule(Box::new(what))
}

fn asked(what: LifeAsked) -> Asked {
    Asked::Life(Box::new(what))
}

fn job(format: Format, body: &[u8]) -> Result<JobRef, Rejection> {
    format.decode::<JobRequest>(body).map(|request| request.job)
}

fn origin(request_id: Option<&str>, actor: Option<&str>) -> Result<Origin, Rejection> {
    let bounded = |header: &str, given: Option<&str>, max: usize| match given {
        Some(text) if text.len() > max => Err(too_large(&format!("the header `{header}`"), text.len(), max)),
        Some("") | None => Ok(None),
        Some(text) => Ok(Some(CompactString::new(text))),
    };
    Ok(Origin {
        request_id: bounded("Nats-Msg-Id", request_id, limits::REQUEST_ID_BYTES_MAX)?,
        by: bounded("Outlive-Actor", actor, limits::ACTOR_BYTES_MAX)?,
    })
}

fn too_large(what: &str, bytes: usize, max: usize) -> Rejection {
    Rejection::new(ErrorCode::LimitExceeded, format!("{what} has {bytes} bytes; the limit is {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(operation: Operation, body: &[u8]) -> Result<Request, Rejection> {
        parse(Raw { operation, namespace: "default", request_id: None, actor: None, body }, Format::Json)
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_limit() {
        let body = vec![b' '; limits::REQUEST_BYTES_MAX + 1];
        let refused = parsed(Operation::Submit, &body).expect_err("too large");
        assert_eq!(refused.code, ErrorCode::LimitExceeded);
        assert!(refused.message.contains("1048577 bytes; the limit is 1048576"), "{}", refused.message);
        let many = format!(r#"{{"jobs":[{}]}}"#, vec![r#"{"driver":{"noop":{}}}"#; 1_001].join(","));
        assert_eq!(parsed(Operation::SubmitMany, many.as_bytes()).expect_err("1,001").code, ErrorCode::LimitExceeded);
        assert_eq!(
            parsed(Operation::SubmitMany, br#"{"jobs":[]}"#).expect_err("none").code,
            ErrorCode::InvalidArgument
        );
    }

    #[test]
    fn indexes_are_read_where_they_mean_something() {
        let asked = |operation, body: &str| parsed(operation, body.as_bytes()).map(|request| request.what);
        let Ok(Asked::CancelTasks { tasks, how, .. }) =
            asked(Operation::Cancel, r#"{"job":"resize","indexes":"9,3,7-8","grace":"1s"}"#)
        else {
            panic!("not taken for tasks")
        };
        assert_eq!((tasks.to_string().as_str(), how), ("3,7-9", Stop::Graceful { grace: Millis::secs(1) }));
        let whole = asked(Operation::Cancel, r#"{"job":"resize"}"#).expect("the whole");
        assert!(matches!(whole, Asked::Cancel { .. }));
        let again = asked(Operation::Retry, r#"{"job":"resize","indexes":"3"}"#).expect("some");
        assert!(matches!(again, Asked::Retry(Selection::Tasks(..))));
        for (operation, body, part) in [
            (
                Operation::Cancel,
                r#"{"job":"a","indexes":"7-"}"#,
                "at `indexes`: `7-` is no set of indexes below 100000",
            ),
            (Operation::Cancel, r#"{"job":"a","indexes":"99999999999"}"#, "such as 3,7-9"),
            (Operation::Cancel, r#"{"job":"a","indexes":[3]}"#, "at `indexes`"),
            (Operation::Retry, r#"{"job":"a","indexes":"-1"}"#, "at `indexes`: `-1` is no set of indexes"),
            (Operation::Retry, r#"{"filter":{},"indexes":"1"}"#, "`job` is missing"),
            (Operation::Delete, r#"{"job":"a","indexes":"1"}"#, "deleted with their array only"),
            (Operation::Kill, r#"{"job":"a","indexes":"1"}"#, "unknown field `indexes`"),
        ] {
            let refused = asked(operation, body).expect_err(body);
            assert!(refused.message.contains(part), "{body}: {}", refused.message);
        }
    }

    #[test]
    fn headers_and_subjects_are_held_to_their_shapes() {
        let raw = Raw { operation: Operation::Status, namespace: "sys", request_id: None, actor: None, body: b"" };
        assert!(matches!(parse(raw, Format::Json).expect("status").what, Asked::Status));
        let bad = Raw { namespace: "Not.A.Namespace", ..raw };
        assert_eq!(parse(bad, Format::Json).expect_err("namespace").code, ErrorCode::InvalidArgument);
        let long = "x".repeat(300);
        let bad = Raw { request_id: Some(&long), ..raw };
        assert_eq!(parse(bad, Format::Json).expect_err("id").code, ErrorCode::LimitExceeded);
    }
}
