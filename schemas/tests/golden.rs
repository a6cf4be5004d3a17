//! The frozen bytes of every version of every event: what a log written by any released version holds.
//!
//! Each file in `golden/` is a MessagePack array of envelopes of one tag (`job_placed/1` is in `job_placed-1.msgpack`).
//! A file that exists is never written again: a test that fails here says that old logs can no longer be read, and
//! the shape, not the file, is what has to be put right. A new shape gets a new version and so a new file.

use bytes::Bytes;
use outlive_schemas::array::{ArrayAdvanced, ArrayCancelRequested, ArraySpec, ArrayTasksCancelled, ArrayTasksRetried};
use outlive_schemas::checkpoint::{BlobName, Checkpoint, Taken};
use outlive_schemas::codec::{pack, unpack};
use outlive_schemas::command::{LossReason, Stop};
use outlive_schemas::depend::{Condition, DependenciesMet, Dependency, JobDepends};
use outlive_schemas::event::*;
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::*;
use outlive_schemas::job::*;
use outlive_schemas::life::*;
use outlive_schemas::payload::Payload;
use outlive_schemas::queue::{Concurrency, JobPreempted, Priority, QueueDeleted, QueuePut, QueueSettings, Rate};
use outlive_schemas::schedule::*;
use outlive_schemas::size::ByteSize;
use outlive_schemas::snapshot::*;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use outlive_schemas::when::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// Set to 1, it writes the files that are missing, and only these.
const NEW: &str = "OUTLIVE_GOLDEN_NEW";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn file_of(tag: &str) -> PathBuf {
    golden().join(format!("{}.msgpack", tag.replace('/', "-")))
}

fn job() -> JobId {
    JobId(Uuid::from_u128(0x0197_f3c8_0000_7000_8000_0000_0000_0001))
}

fn executor() -> ExecutorId {
    ExecutorId(Uuid::from_u128(0x0197_f3c8_0000_7000_8000_0000_0000_00e1))
}

fn zone(name: &str) -> Zone {
    name.parse().expect("a zone")
}

fn labels() -> Labels {
    [("disk", "ssd"), ("größe", "µ")].into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

const AT: Timestamp = Timestamp(1_767_225_600_123);
/// The number of each kind that takes the most bytes.
const LATEST: Timestamp = Timestamp(u64::MAX);

fn taken() -> Taken {
    Taken {
        manifest: BlobName(std::array::from_fn(|i| i as u8 * 8)),
        size_bytes: 200_000_000,
        uploaded_bytes: 70_000,
        files: 2_000,
        duration_ms: 300,
        pause_ms: 2,
    }
}

/// A specification in which nothing of what the first version knew is left to its default.
fn full_spec() -> JobSpec {
    JobSpec {
        name: Some("counter".parse().expect("a name")),
        kind: JobKind::Service,
        driver: Driver::Process(ProcessSpec {
            command: vec!["sh".to_owned(), "-c".to_owned(), "echo …".to_owned()],
            env: BTreeMap::from([("KEY".to_owned(), "value".to_owned())]),
        }),
        input: Some(Payload(Bytes::from_static(b"\xff\x00text"))),
        resources: Resources { cpu_millis: 2_500, memory: ByteSize::mib(70_000) },
        placement: Placement { zones: vec![zone("a"), zone("b")], labels: labels() },
        checkpoint: CheckpointPolicy {
            interval: Millis::secs(10),
            min_pause: Millis::ZERO,
            timeout: Millis::minutes(1),
            retain: 7,
            quiesce: Quiesce::None,
        },
        restart: Restart {
            max_attempts: Some(Some(9)),
            initial_backoff: Millis(250),
            max_backoff: Millis::minutes(2),
            multiplier: Factor(2_000),
            jitter: Factor(0),
            reset_after: Millis::secs(1),
            ..Restart::default()
        },
        timeout: Some(Millis::minutes(60)),
        exclusive: true,
        labels: labels(),
        ..bare_spec()
    }
}

/// What a specification with nothing but its driver has always meant. Written out, because defaults are left out of
/// the log: changing one would change the jobs in every log there is.
fn bare_spec() -> JobSpec {
    JobSpec {
        name: None,
        kind: JobKind::Batch,
        driver: Driver::Noop(NoopSpec {}),
        input: None,
        resources: Resources { cpu_millis: 100, memory: ByteSize(67_108_864) },
        placement: Placement { zones: Vec::new(), labels: Labels::new() },
        checkpoint: CheckpointPolicy {
            interval: Millis(60_000),
            min_pause: Millis(5_000),
            timeout: Millis(600_000),
            retain: 3,
            quiesce: Quiesce::Freeze,
        },
        restart: Restart {
            max_attempts: None,
            initial_backoff: Millis(1_000),
            max_backoff: Millis(60_000),
            multiplier: Factor(1_500),
            jitter: Factor(100),
            reset_after: Millis(600_000),
            ..Restart::default()
        },
        timeout: None,
        exclusive: false,
        labels: Labels::new(),
        queue: "default".parse().expect("a name"),
        priority: Priority(50),
        preemptible: false,
        concurrency: None,
        ..JobSpec::new(Driver::Noop(NoopSpec {}))
    }
}

fn waiting_spec() -> JobSpec {
    let of = |job: &str, until| Dependency { job: job.parse().expect("a job"), until };
    let by_id = job().to_string();
    JobSpec { depends_on: vec![of("extract", Condition::Succeeded), of(&by_id, Condition::Finished)], ..bare_spec() }
}

/// `max_attempts: null` is not the same as none given.
fn endless_spec() -> JobSpec {
    JobSpec { restart: Restart { max_attempts: Some(None), ..bare_spec().restart }, ..bare_spec() }
}

fn submitted(request_id: Option<&str>, spec: JobSpec) -> Event {
    let namespace = "default".parse().expect("a namespace");
    Event::JobSubmitted(JobSubmitted {
        job: job(),
        namespace,
        request_id: request_id.map(Into::into),
        spec: Arc::new(spec),
    })
}

fn restarting(cause: Cause, exit_code: Option<i32>) -> Event {
    Event::JobRestarting(JobRestarting {
        job: job(),
        attempt: Attempt(2),
        cause,
        reason: "exit code 1".into(),
        exit_code,
        failures: 3,
        lost_at: AT,
        next_try_at: Timestamp(AT.0 + 2_250),
    })
}

fn finished(status: Status) -> JobFinished {
    JobFinished {
        job: job(),
        attempt: Attempt(0),
        status,
        reason: None,
        exit_code: None,
        started_at: None,
        result: None,
        request_id: None,
    }
}

/// Those that the first version knew.
const FIRST_CAUSES: [Cause; 7] = [
    Cause::ProcessExit,
    Cause::ExecutorLost,
    Cause::HostDegraded,
    Cause::ZoneLost,
    Cause::Drain,
    Cause::Timeout,
    Cause::Update,
];

/// Every tag with events that between them use every field, every absence and every nested variant.
fn expected() -> BTreeMap<&'static str, Vec<Event>> {
    let name = || "executor-a-1".parse().expect("a name");
    let lost = |reason| Event::ExecutorLost(ExecutorLost { executor: executor(), reason, last_seen: AT });
    let cancel =
        |how| Event::CancelRequested(CancelRequested { job: job(), attempt: Attempt(1), how, request_id: None });
    let placed = |restore| {
        Event::JobPlaced(JobPlaced {
            job: job(),
            attempt: Attempt(u32::MAX),
            executor: executor(),
            name: "executor-a-1".parse().expect("a name"),
            zone: zone("a"),
            restore,
        })
    };
    let joined = Registration {
        id: executor(),
        name: "executor-a-1".parse().expect("a name"),
        zone: zone("a"),
        host: "host.example".to_owned(),
        capacity: Capacity { cpu_millis: 8_000, memory_bytes: 64 << 30, slots: 4_096 },
        labels: labels(),
        drivers: vec![DriverKind::Process, DriverKind::Noop],
        version: "0.1.0".to_owned(),
    };
    let bare = Registration { labels: Labels::new(), drivers: Vec::new(), ..joined.clone() };
    let ended = JobFinished {
        attempt: Attempt(2),
        reason: Some("done".into()),
        exit_code: Some(-1),
        started_at: Some(AT),
        result: Some(Payload::from("grüß")),
        ..finished(Status::Succeeded)
    };
    let started = TermStarted {
        term: Term(u64::MAX),
        scheduler: "scheduler-a".parse().expect("a name"),
        zone: zone("a"),
        version: "0.1.0".into(),
    };
    let attempt = AttemptStarted { job: job(), attempt: Attempt(1), started_at: LATEST };
    let number = CheckpointNumber(11);
    BTreeMap::from([
        ("term_started/1", vec![Event::TermStarted(started)]),
        ("executor_joined/1", vec![Event::ExecutorJoined(joined), Event::ExecutorJoined(bare)]),
        ("executor_lost/1", vec![lost(LossReason::ProcessGone), lost(LossReason::Silent), lost(LossReason::Left)]),
        (
            "executor_draining/1",
            vec![Event::ExecutorDraining(ExecutorDraining { name: name(), deadline: LATEST, request_id: None })],
        ),
        ("executor_undrained/1", vec![Event::ExecutorUndrained(ExecutorUndrained { name: name(), request_id: None })]),
        (
            "zone_draining/1",
            vec![Event::ZoneDraining(ZoneDraining { zone: zone("a"), deadline: LATEST, request_id: None })],
        ),
        ("zone_undrained/1", vec![Event::ZoneUndrained(ZoneNamed { zone: zone("a"), request_id: None })]),
        ("zone_lost/1", vec![Event::ZoneLost(ZoneLost { zone: zone("a"), executors: u32::MAX })]),
        ("zone_steady/1", vec![Event::ZoneSteady(ZoneNamed { zone: zone("a"), request_id: None })]),
        (
            "job_submitted/1",
            vec![
                submitted(Some("request 1"), full_spec()),
                submitted(None, bare_spec()),
                submitted(None, endless_spec()),
            ],
        ),
        ("job_placed/1", vec![placed(Some(number)), placed(None)]),
        ("attempt_started/1", vec![Event::AttemptStarted(attempt)]),
        (
            "job_restarting/1",
            FIRST_CAUSES
                .map(|cause| restarting(cause, None))
                .into_iter()
                .chain([restarting(Cause::ProcessExit, Some(137))])
                .collect(),
        ),
        ("cancel_requested/1", vec![cancel(Stop::Graceful { grace: Millis::secs(10) }), cancel(Stop::Kill)]),
        (
            "job_finished/1",
            Status::ALL
                .map(|status| Event::JobFinished(finished(status)))
                .into_iter()
                .chain([Event::JobFinished(ended)])
                .collect(),
        ),
        (
            "job_deleted/1",
            [Some("request 2".into()), None]
                .map(|request_id| Event::JobDeleted(JobDeleted { job: job(), request_id }))
                .into(),
        ),
        ("job_erased/1", vec![Event::JobErased(JobErased { job: job() })]),
        (
            "loss_accepted/1",
            [Some(Sequence(1_000)), None]
                .map(|witnessed| Event::LossAccepted(LossAccepted { log_end: Sequence(900), witnessed }))
                .into(),
        ),
        ("collection_held/1", vec![Event::CollectionHeld(CollectionHeld { until: AT })]),
        (
            "checkpoint_completed/1",
            vec![Event::CheckpointCompleted(CheckpointCompleted {
                job: job(),
                attempt: Attempt(1),
                number,
                taken: taken(),
            })],
        ),
        (
            "checkpoint_failed/1",
            vec![Event::CheckpointFailed(CheckpointFailed {
                job: job(),
                attempt: Attempt(1),
                reason: "disk full".into(),
            })],
        ),
        (
            "checkpoint_unreadable/1",
            vec![Event::CheckpointUnreadable(CheckpointUnreadable {
                job: job(),
                attempt: Attempt(3),
                number,
                reason: "a chunk is missing".into(),
            })],
        ),
    ])
    .into_iter()
    .chain(expected_of_snapshots())
    .chain(expected_of_life())
    .chain(expected_of_queues())
    .chain(expected_of_time())
    .chain(expected_of_dependencies())
    .collect()
}

fn expected_of_queues() -> Vec<(&'static str, Vec<Event>)> {
    let (namespace, name): (Namespace, QueueName) =
        ("default".parse().expect("a namespace"), "mail".parse().expect("a name"));
    let put = |settings| {
        Event::QueuePut(QueuePut { namespace: namespace.clone(), name: name.clone(), settings, request_id: None })
    };
    let full = QueueSettings {
        concurrency: Some(1_000_000),
        rate: Some(Rate { limit: 100, per: Millis::minutes(1) }),
        weight: 1_000,
        max_waiting: Some(9),
        paused: true,
    };
    // Written out for the same reason as `bare_spec`.
    let bare = QueueSettings { concurrency: None, rate: None, weight: 1, max_waiting: None, paused: false };
    let deleted =
        Event::QueueDeleted(QueueDeleted { namespace: namespace.clone(), name: name.clone(), request_id: None });
    let preempted = JobPreempted { job: job(), attempt: Attempt(3), reason: "gave way".into(), ended_at: AT };
    vec![
        ("queue_put/1", vec![put(full), put(bare)]),
        ("queue_deleted/1", vec![deleted]),
        ("job_preempted/1", vec![Event::JobPreempted(preempted)]),
    ]
}

/// Fields that events, and the specifications in them, gained after these were frozen, each left out where it says
/// nothing: so older logs read as they did, and a log that has them stops an older reader by their names.
fn later_fields() -> Vec<(&'static str, Vec<Event>)> {
    let concurrency = Some(Box::new(Concurrency { key: "größe 42".into(), limit: 3 }));
    let queue = "mail".parse().expect("a name");
    let specs = [
        ("queue", JobSpec { queue, priority: Priority(0), concurrency, ..bare_spec() }),
        ("preemptible", JobSpec { preemptible: true, ..bare_spec() }),
        ("depends_on", waiting_spec()),
        ("array", JobSpec { array: Some(ArraySpec { count: 100_000, parallel: Some(50) }), ..bare_spec() }),
    ];
    let of_specs = specs.into_iter().map(|(name, spec)| (name, vec![submitted(None, spec)]));
    of_specs.chain([("request_id", asked_for())]).collect()
}

/// What is done at a request that is remembered.
fn asked_for() -> Vec<Event> {
    let request_id = || Some("request 3".into());
    let (job, attempt, how) = (job(), Attempt(1), Stop::Kill);
    let executor = || "executor-a-1".parse().expect("a name");
    let (namespace, mail): (Namespace, QueueName) =
        ("default".parse().expect("a namespace"), "mail".parse().expect("a name"));
    let settings = QueueSettings::default();
    let put = QueuePut { namespace: namespace.clone(), name: mail.clone(), settings, request_id: request_id() };
    vec![
        Event::CancelRequested(CancelRequested { job, attempt, how, request_id: request_id() }),
        Event::JobFinished(JobFinished { request_id: request_id(), ..finished(Status::Cancelled) }),
        Event::ArrayCancelRequested(ArrayCancelRequested { job, how, request_id: request_id() }),
        Event::QueuePut(put),
        Event::QueueDeleted(QueueDeleted { namespace, name: mail, request_id: request_id() }),
        Event::ExecutorDraining(ExecutorDraining { name: executor(), deadline: AT, request_id: request_id() }),
        Event::ExecutorUndrained(ExecutorUndrained { name: executor(), request_id: request_id() }),
        Event::ZoneDraining(ZoneDraining { zone: zone("a"), deadline: AT, request_id: request_id() }),
        Event::ZoneUndrained(ZoneNamed { zone: zone("a"), request_id: request_id() }),
    ]
}

#[test]
fn fields_that_came_later_are_read_and_written_as_they_ever_were() {
    for (name, events) in later_fields() {
        let file = golden().with_file_name("golden-fields").join(format!("{name}.msgpack"));
        let expected = envelopes(events);
        if !file.exists() && std::env::var(NEW).is_ok_and(|new| new == "1") {
            std::fs::write(&file, pack(&expected)).expect("a new golden file");
        }
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let read: Vec<Envelope> =
            unpack("golden envelopes", &bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(read, expected, "{name} is read as something else than it was");
        assert!(pack(&expected) == bytes, "{name} is written differently");
    }
}

fn expected_of_dependencies() -> Vec<(&'static str, Vec<Event>)> {
    let set = |text: &str| text.parse().expect("indexes");
    let advanced = |ended: &str, released: &str, told: &str| {
        let (ended, released, told) = (set(ended), set(released), set(told));
        Event::ArrayAdvanced(ArrayAdvanced { job: job(), ended, released, told })
    };
    let cancelled = |how| Event::ArrayCancelRequested(ArrayCancelRequested { job: job(), how, request_id: None });
    let tasks_cancelled = |tasks: &str, request_id: Option<&str>| {
        let (tasks, request_id) = (set(tasks), request_id.map(Into::into));
        Event::ArrayTasksCancelled(ArrayTasksCancelled { job: job(), tasks, request_id })
    };
    let tasks_retried = |tasks: &str, request_id: Option<&str>| {
        let (tasks, request_id) = (set(tasks), request_id.map(Into::into));
        Event::ArrayTasksRetried(ArrayTasksRetried { job: job(), tasks, request_id })
    };
    vec![
        ("job_depends/1", vec![Event::JobDepends(JobDepends { job: job(), parents: vec![job(), job()] })]),
        ("array_advanced/1", vec![advanced("0-49", "100-149,7", ""), advanced("", "", "3,7-9")]),
        ("array_cancel_requested/1", [Stop::Kill, Stop::Graceful { grace: Millis::secs(10) }].map(cancelled).into()),
        (
            "array_tasks_cancelled/1",
            vec![tasks_cancelled("3,7-9", Some("request-1")), tasks_cancelled("0-99999", None)],
        ),
        ("array_tasks_retried/1", vec![tasks_retried("3,7-9", Some("request-1")), tasks_retried("0-99999", None)]),
        ("dependencies_met/1", vec![Event::DependenciesMet(DependenciesMet { job: job() })]),
    ]
}

fn checkpoint() -> Checkpoint {
    Checkpoint { number: CheckpointNumber(12), attempt: Attempt(3), at: AT, taken: taken() }
}

fn snapshot(name: &str) -> SnapshotName {
    name.parse().expect("a name")
}

fn expected_of_snapshots() -> Vec<(&'static str, Vec<Event>)> {
    let requested = |purpose, request_id: Option<&str>| {
        Event::SnapshotRequested(SnapshotRequested {
            job: job(),
            name: snapshot("before-the-migration"),
            number: 7,
            purpose,
            version: JobVersion(2),
            give_up_at: LATEST,
            request_id: request_id.map(Into::into),
        })
    };
    let completed =
        |content| Event::SnapshotCompleted(SnapshotCompleted { job: job(), name: snapshot("system-stop-1"), content });
    let deletion = |request_id: Option<&str>| {
        Event::SnapshotDeletionRequested(SnapshotDeletionRequested {
            job: job(),
            name: snapshot("a"),
            request_id: request_id.map(Into::into),
        })
    };
    vec![
        (
            "snapshot_requested/1",
            vec![
                requested(Purpose::Asked, Some("request-1")),
                requested(Purpose::Import, None),
                requested(Purpose::Stop, None),
                requested(Purpose::Update, None),
                requested(Purpose::Rollback, None),
            ],
        ),
        ("snapshot_completed/1", vec![completed(Some(checkpoint())), completed(None)]),
        (
            "snapshot_failed/1",
            vec![Event::SnapshotFailed(SnapshotFailed { job: job(), name: snapshot("a"), reason: "disk full".into() })],
        ),
        ("snapshot_deletion_requested/1", vec![deletion(Some("request-1")), deletion(None)]),
        ("snapshot_deleted/1", vec![Event::SnapshotDeleted(SnapshotDeleted { job: job(), name: snapshot("a") })]),
    ]
}

fn expected_of_life() -> Vec<(&'static str, Vec<Event>)> {
    let full = Base { snapshot: Some(snapshot("a")), content: Some(checkpoint()) };
    let empty = Base { snapshot: None, content: None };
    let (attempt, version) = (Attempt(3), JobVersion(2));
    let stop = |force, name: Option<&str>, request_id: Option<&str>| {
        Event::StopRequested(StopRequested {
            job: job(),
            attempt,
            force,
            snapshot: name.map(snapshot),
            give_up_at: LATEST,
            request_id: request_id.map(Into::into),
        })
    };
    let stopped = |reason: Option<&str>, exit_code, name: Option<&str>| {
        Event::JobStopped(JobStopped {
            job: job(),
            attempt,
            reason: reason.map(Into::into),
            exit_code,
            snapshot: name.map(snapshot),
        })
    };
    let start = |restore, base: &Base, request_id: Option<&str>| {
        Event::StartRequested(StartRequested {
            job: job(),
            restore,
            base: base.clone(),
            request_id: request_id.map(Into::into),
        })
    };
    let update = |spec, allow_lost_state, name: Option<&str>, request_id: Option<&str>| {
        Event::UpdateRequested(UpdateRequested {
            job: job(),
            attempt,
            from: JobVersion(1),
            to: version,
            spec: Arc::new(spec),
            allow_lost_state,
            snapshot: name.map(snapshot),
            give_up_at: AT,
            request_id: request_id.map(Into::into),
        })
    };
    let started = |base: &Base, ended_at, prove_by| {
        Event::VersionStarted(VersionStarted { job: job(), attempt, version, base: base.clone(), ended_at, prove_by })
    };
    let rollback = |automatic, base: &Base, name: Option<&str>, request_id: Option<&str>| {
        Event::RollbackBegun(RollbackBegun {
            job: job(),
            attempt,
            from: version,
            to: JobVersion(1),
            automatic,
            reason: "exited with 1".into(),
            base: base.clone(),
            snapshot: name.map(snapshot),
            give_up_at: AT,
            request_id: request_id.map(Into::into),
        })
    };
    let restored =
        |ended_at| Event::VersionRestored(VersionRestored { job: job(), attempt, version: JobVersion(1), ended_at });
    vec![
        ("stop_requested/1", vec![stop(false, Some("system-stop-1"), Some("request-1")), stop(true, None, None)]),
        ("stop_failed/1", vec![Event::StopFailed(StopFailed { job: job(), attempt, reason: "disk full".into() })]),
        ("job_stopped/1", vec![stopped(Some("lost"), Some(1), Some("system-stop-1")), stopped(None, None, None)]),
        (
            "start_requested/1",
            vec![
                start(RestoreMode::Snapshot, &full, Some("request-1")),
                start(RestoreMode::Latest, &full, None),
                start(RestoreMode::None, &empty, None),
            ],
        ),
        (
            "base_replaced/1",
            vec![Event::BaseReplaced(BaseReplaced { job: job(), base: full.clone(), reason: "gone".into() })],
        ),
        (
            "update_requested/1",
            vec![
                update(full_spec(), true, Some("system-update-1"), Some("request-1")),
                update(bare_spec(), false, None, None),
            ],
        ),
        (
            "update_failed/1",
            vec![Event::UpdateFailed(UpdateFailed { job: job(), attempt, version, reason: "disk full".into() })],
        ),
        ("version_started/1", vec![started(&full, Some(AT), Some(LATEST)), started(&empty, None, None)]),
        ("version_proven/1", vec![Event::VersionProven(VersionProven { job: job(), attempt, version })]),
        (
            "rollback_begun/1",
            vec![
                rollback(false, &full, Some("system-rollback-2"), Some("request-1")),
                rollback(true, &empty, None, None),
            ],
        ),
        ("version_restored/1", vec![restored(Some(AT)), restored(None)]),
    ]
}

const NEXT: NextTick = NextTick { tick: AT, due_at: LATEST };

fn expected_of_time() -> Vec<(&'static str, Vec<Event>)> {
    let passed =
        |deadline| Event::DeadlinePassed(DeadlinePassed { job: job(), attempt: Attempt(3), deadline, due_at: LATEST });
    let definition = Definition {
        cron: "*/10 0 4 * * MON".into(),
        time_zone: "Europe/Berlin".into(),
        overlap: Overlap::Queue,
        catch_up: CatchUp::All,
        jitter: Some(Millis::minutes(5)),
        spec: Arc::new(full_spec()),
    };
    let full = (definition.clone(), true, Some(NEXT), Some("request-1"));
    let spec = Arc::new(bare_spec());
    let bare = Definition { overlap: Overlap::Skip, catch_up: CatchUp::None, jitter: None, spec, ..definition };
    let bare = (bare, false, None, None);
    let namespace = || "default".parse::<Namespace>().expect("a namespace");
    let schedule = || "nightly".parse::<ScheduleName>().expect("a name");
    let schedule_set = |(definition, paused, next, request_id): (Definition, bool, Option<NextTick>, Option<&str>)| {
        Event::ScheduleSet(ScheduleSet {
            namespace: namespace(),
            schedule: schedule(),
            definition: Arc::new(definition),
            paused,
            next,
            request_id: request_id.map(Into::into),
        })
    };
    let schedule_paused = |paused, next, request_id: Option<&str>| {
        Event::SchedulePaused(SchedulePaused {
            namespace: namespace(),
            schedule: schedule(),
            paused,
            next,
            request_id: request_id.map(Into::into),
        })
    };
    let ticked = |kind, outcome, count, of: Option<JobId>| {
        Event::ScheduleTicked(ScheduleTicked {
            namespace: namespace(),
            schedule: schedule(),
            tick: AT,
            kind,
            outcome,
            count,
            job: of,
            reason: of.is_none().then(|| "a job runs".into()),
            next: (kind == TickKind::Due).then_some(NEXT),
            request_id: (kind == TickKind::Triggered).then(|| "request-1".into()),
        })
    };
    let ticks = vec![
        ticked(TickKind::Due, TickOutcome::Started, 1, Some(job())),
        ticked(TickKind::Due, TickOutcome::Queued, 1, None),
        ticked(TickKind::Waited, TickOutcome::Started, 1, Some(job())),
        ticked(TickKind::Triggered, TickOutcome::Skipped, 1, None),
        ticked(TickKind::Due, TickOutcome::Missed, u64::MAX, None),
    ];
    let retried = |request_id: Option<&str>| {
        Event::JobRetried(JobRetried { job: job(), attempt: Attempt(3), request_id: request_id.map(Into::into) })
    };
    vec![
        ("deadline_passed/1", vec![passed(Deadline::Start), passed(Deadline::Finish)]),
        ("schedule_set/1", vec![schedule_set(full), schedule_set(bare)]),
        (
            "schedule_paused/1",
            vec![schedule_paused(true, None, None), schedule_paused(false, Some(NEXT), Some("request-1"))],
        ),
        (
            "schedule_deleted/1",
            [Some("request-1".into()), None]
                .map(|request_id| {
                    Event::ScheduleDeleted(ScheduleDeleted { namespace: namespace(), schedule: schedule(), request_id })
                })
                .into(),
        ),
        ("schedule_ticked/1", ticks),
        ("job_retried/1", vec![retried(Some("request-1")), retried(None)]),
    ]
}

/// The first of them with somebody who asked, the others without.
fn envelopes(events: Vec<Event>) -> Vec<Envelope> {
    let by = |i| (i == 0).then(|| "somebody".into());
    events.into_iter().enumerate().map(|(i, event)| Envelope { at: AT, by: by(i), event }).collect()
}

/// Every tag that can be decoded, as serde itself lists them.
fn known_tags() -> BTreeSet<String> {
    let refused = rmp_serde::from_slice::<Event>(&pack(&BTreeMap::from([("no such tag", 0)]))).expect_err("unknown");
    let refused = refused.to_string();
    let (_, listed) = refused.split_once("expected one of ").expect("serde lists the variants");
    listed.split(", ").map(|tag| tag.trim_matches('`').to_owned()).collect()
}

#[test]
fn every_tag_has_its_expected_events() {
    let covered: BTreeSet<String> = expected().keys().map(|tag| (*tag).to_owned()).collect();
    assert_eq!(covered, known_tags(), "add the events of a new version to `expected`; never take an old one out");
    for (tag, events) in expected() {
        for event in events {
            assert_eq!(tag.split_once('/').expect("a version").0, event.type_name());
        }
    }
}

#[test]
fn every_version_is_read_and_written_as_it_ever_was() {
    for (tag, events) in expected() {
        let (file, expected) = (file_of(tag), envelopes(events));
        if !file.exists() && std::env::var(NEW).is_ok_and(|new| new == "1") {
            std::fs::write(&file, pack(&expected)).expect("a new golden file");
        }
        let bytes = std::fs::read(&file).unwrap_or_else(|error| {
            panic!(
                "{}: {error}. If {tag} is a NEW version that was never released, write its file by running this test \
                 with {NEW}=1, and commit it; otherwise take the file from the history",
                file.display()
            )
        });
        let read: Vec<Envelope> = unpack("golden envelopes", &bytes).unwrap_or_else(|error| panic!("{tag}: {error:?}"));
        assert_eq!(read, expected, "{tag} is read as something else than it was");
        assert!(pack(&expected) == bytes, "{tag} is written differently: give the new shape a new version");
    }
}

#[test]
fn no_file_is_left_over() {
    let wanted: BTreeSet<PathBuf> = expected().keys().map(|tag| file_of(tag)).collect();
    let found: BTreeSet<PathBuf> =
        std::fs::read_dir(golden()).expect("the golden files").map(|entry| entry.expect("an entry").path()).collect();
    let left: Vec<_> = found.difference(&wanted).collect();
    assert!(left.is_empty(), "logs may still hold these, and nothing checks them any more: {left:?}");
}
