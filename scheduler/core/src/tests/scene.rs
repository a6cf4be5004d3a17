//! The words in which the tests are told, and the harness that plays them.

use crate::decide::{Refusal, decide};
use crate::fold::fold;
use crate::invariant;
use crate::state::{Job, State};
use compact_str::CompactString;
use outlive_schemas::checkpoint::{BlobName, Taken};
use outlive_schemas::command::{Command, LossReason, Origin, Stop};
use outlive_schemas::error::ErrorCode;
use outlive_schemas::event::{
    AttemptStarted, CancelRequested, Cause, CheckpointCompleted, Envelope, Event, ExecutorLost, JobDeleted,
    JobFinished, JobPlaced, JobRestarting, JobSubmitted,
};
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{
    Attempt, CheckpointNumber, ExecutorId, ExecutorName, JobId, JobRef, JobVersion, Namespace, Sequence, Zone,
};
use outlive_schemas::job::{Driver, Factor, JobKind, JobSpec, NoopSpec, ProcessSpec, Resources};
use outlive_schemas::life::{RestoreMode, RestoreRequest};
use outlive_schemas::message::{Ended, News, Outcome, Released, Report};
use outlive_schemas::queue::{Concurrency, Priority, QueuePut, QueueSettings};
use outlive_schemas::size::ByteSize;
use outlive_schemas::snapshot::ImportedContent;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use std::sync::Arc;
use uuid::Uuid;

/// When everything that is given has happened.
pub const T0: Timestamp = Timestamp(1_700_000_000_000);

/// So many milliseconds later.
pub fn at(ms: u64) -> Timestamp {
    T0 + Millis(ms)
}

// Who and where.

/// Job 1, job 2…, in the order of submission.
pub const fn job(number: u64) -> JobId {
    JobId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number as u128))
}

/// Executors: the high part of the number is the zone, `a` being 0; the low part the host in it.
const fn executor(zone: u128, host: u128) -> ExecutorId {
    ExecutorId(Uuid::from_u128(0x0190_0000_0000_7000_9000_0000_0000_0000 + (zone << 32) + host))
}

pub const A: ExecutorId = executor(0, 1);
pub const A2: ExecutorId = executor(0, 2);
pub const B: ExecutorId = executor(1, 1);
pub const B2: ExecutorId = executor(1, 2);
pub const C: ExecutorId = executor(2, 1);

pub fn zone(name: &str) -> Zone {
    Zone::new(name).unwrap()
}

pub fn zone_of(executor: ExecutorId) -> Zone {
    let number = (executor.0.as_u128() >> 32) as u8;
    zone(&char::from(b'a' + number).to_string())
}

pub fn name_of(executor: ExecutorId) -> ExecutorName {
    let host = executor.0.as_u128() as u32;
    ExecutorName::new(&format!("executor-{}-{host}", zone_of(executor))).unwrap()
}

/// Room for ten jobs of the usual size: 1,000 millicores, 640 MiB, 16 slots.
pub fn registration(executor: ExecutorId) -> Registration {
    Registration {
        id: executor,
        name: name_of(executor),
        zone: zone_of(executor),
        host: format!("host-{}", name_of(executor)),
        capacity: Capacity { cpu_millis: 1_000, memory_bytes: 640 << 20, slots: 16 },
        labels: Default::default(),
        drivers: vec![DriverKind::Process, DriverKind::Noop],
        version: "1.2.3".into(),
    }
}

/// The same host's executor after a restart: another id under the same name.
pub fn reborn(executor: ExecutorId) -> Registration {
    let id = ExecutorId(Uuid::from_u128(executor.0.as_u128() + (1 << 16)));
    Registration { id, ..registration(executor) }
}

pub fn namespace() -> Namespace {
    Namespace::new("default").unwrap()
}

// What is asked for.

pub fn batch() -> JobSpec {
    let command = vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()];
    let mut spec = JobSpec::new(Driver::Process(ProcessSpec { command, env: Default::default() }));
    // Delays are exact unless a test asks for jitter.
    spec.restart.jitter = Factor(0);
    spec
}

pub fn service() -> JobSpec {
    JobSpec { kind: JobKind::Service, ..batch() }
}

pub fn noop() -> JobSpec {
    JobSpec::new(Driver::Noop(NoopSpec {}))
}

/// What tests say of a specification.
pub trait Words: Sized {
    fn with(self, change: impl FnOnce(&mut JobSpec)) -> JobSpec;

    fn named(self, name: &str) -> JobSpec {
        self.with(|spec| spec.name = Some(name.parse().unwrap()))
    }

    fn needing(self, cpu_millis: u32, memory_mib: u64) -> JobSpec {
        self.with(|spec| spec.resources = Resources { cpu_millis, memory: ByteSize::mib(memory_mib) })
    }

    fn in_zones(self, zones: &[&str]) -> JobSpec {
        self.with(|spec| spec.placement.zones = zones.iter().map(|name| zone(name)).collect())
    }

    fn labelled(self, key: &str, value: &str) -> JobSpec {
        self.with(|spec| {
            spec.placement.labels.insert(key.into(), value.into());
        })
    }

    fn queued(self, queue: &str) -> JobSpec {
        self.with(|spec| spec.queue = queue.parse().unwrap())
    }

    fn prior(self, priority: u32) -> JobSpec {
        self.with(|spec| spec.priority = Priority(priority))
    }

    fn yielding(self) -> JobSpec {
        self.with(|spec| spec.preemptible = true)
    }

    fn keyed(self, key: &str, limit: u32) -> JobSpec {
        self.with(|spec| spec.concurrency = Some(Box::new(Concurrency { key: key.into(), limit })))
    }

    fn attempts(self, max: Option<u32>) -> JobSpec {
        self.with(|spec| spec.restart.max_attempts = Some(max))
    }
}

impl Words for JobSpec {
    fn with(mut self, change: impl FnOnce(&mut JobSpec)) -> JobSpec {
        change(&mut self);
        self
    }
}

// What has happened.

pub fn joined(executor: ExecutorId) -> Event {
    Event::ExecutorJoined(registration(executor))
}

/// It was last seen at `T0`.
pub fn lost(executor: ExecutorId) -> Event {
    Event::ExecutorLost(ExecutorLost { executor, reason: LossReason::ProcessGone, last_seen: T0 })
}

pub fn submitted(job: JobId, spec: JobSpec) -> Event {
    Event::JobSubmitted(JobSubmitted { job, namespace: namespace(), request_id: None, spec: Arc::new(spec) })
}

pub fn submitted_by(request: &str, job: JobId, spec: JobSpec) -> Event {
    let request_id = Some(request.into());
    Event::JobSubmitted(JobSubmitted { job, namespace: namespace(), request_id, spec: Arc::new(spec) })
}

pub fn placed(job: JobId, attempt: u32, on: ExecutorId) -> Event {
    let (name, zone) = (name_of(on), zone_of(on));
    Event::JobPlaced(JobPlaced { job, attempt: Attempt(attempt), executor: on, name, zone, restore: None })
}

pub fn placed_from(job: JobId, attempt: u32, on: ExecutorId, checkpoint: u64) -> Event {
    let Event::JobPlaced(event) = placed(job, attempt, on) else { unreachable!() };
    Event::JobPlaced(JobPlaced { restore: Some(CheckpointNumber(checkpoint)), ..event })
}

pub fn started(job: JobId, attempt: u32, started_at: Timestamp) -> Event {
    Event::AttemptStarted(AttemptStarted { job, attempt: Attempt(attempt), started_at })
}

/// A job of which attempt 1 runs on `on`.
pub fn running(job: JobId, spec: JobSpec, on: ExecutorId) -> [Event; 3] {
    [submitted(job, spec), placed(job, 1, on), started(job, 1, T0)]
}

pub fn checkpointed(job: JobId, attempt: u32, number: u64) -> Event {
    let number = CheckpointNumber(number);
    Event::CheckpointCompleted(CheckpointCompleted { job, attempt: Attempt(attempt), number, taken: taken(number.0) })
}

/// The attempt ended; the next is due at once.
pub fn restarting(job: JobId, attempt: u32, cause: Cause, failures: u32) -> Event {
    Event::JobRestarting(JobRestarting {
        job,
        attempt: Attempt(attempt),
        cause,
        reason: "for a reason".into(),
        exit_code: None,
        failures,
        lost_at: T0,
        next_try_at: T0,
    })
}

pub fn cancel_requested(job: JobId, attempt: u32, how: Stop) -> Event {
    Event::CancelRequested(CancelRequested { job, attempt: Attempt(attempt), how, request_id: None })
}

pub fn finished(job: JobId, attempt: u32, status: Status, reason: Option<&str>, exit_code: Option<i32>) -> Event {
    Event::JobFinished(JobFinished {
        job,
        attempt: Attempt(attempt),
        status,
        reason: reason.map(CompactString::from),
        exit_code,
        started_at: None,
        result: None,
        request_id: None,
    })
}

pub fn deleted(job: JobId) -> Event {
    Event::JobDeleted(JobDeleted { job, request_id: None })
}

/// A checkpoint as an executor made it; every number stands for other contents.
pub fn taken(contents: u64) -> Taken {
    let mut name = [0; 32];
    name[..8].copy_from_slice(&contents.to_be_bytes());
    let manifest = BlobName(name);
    Taken { manifest, size_bytes: 4_096, uploaded_bytes: 512 + contents, files: 3, duration_ms: 20, pause_ms: 2 }
}

// What is asked.

pub const GRACEFUL: Stop = Stop::Graceful { grace: Millis(10_000) };

pub fn origin(request_id: Option<&str>) -> Origin {
    Origin { request_id: request_id.map(CompactString::from), by: None }
}

pub fn submit<const N: usize>(jobs: [(JobId, JobSpec); N]) -> Command {
    submit_as(None, jobs)
}

pub fn submit_as<const N: usize>(request_id: Option<&str>, jobs: [(JobId, JobSpec); N]) -> Command {
    let jobs = jobs.into_iter().map(|(job, spec)| (job, Arc::new(spec))).collect();
    Command::SubmitJobs { namespace: namespace(), origin: origin(request_id), jobs }
}

pub fn stop(job: impl Into<Named>, how: Stop) -> Command {
    Command::CancelJob { namespace: namespace(), origin: origin(None), job: job.into().0, how }
}

pub fn cancel(job: impl Into<Named>) -> Command {
    stop(job, GRACEFUL)
}

pub fn kill(job: impl Into<Named>) -> Command {
    stop(job, Stop::Kill)
}

pub fn cancel_tasks(origin: Origin, job: impl Into<Named>, tasks: &str, how: Stop) -> Command {
    let tasks = tasks.parse().unwrap();
    Command::CancelTasks { namespace: namespace(), origin, job: job.into().0, tasks, how }
}

pub fn retry_tasks(origin: Origin, job: impl Into<Named>, tasks: &str) -> Command {
    Command::RetryTasks { namespace: namespace(), origin, job: job.into().0, tasks: tasks.parse().unwrap() }
}

pub fn delete(job: impl Into<Named>, request_id: Option<&str>) -> Command {
    Command::DeleteJob { namespace: namespace(), origin: origin(request_id), job: job.into().0 }
}

pub fn stop_service(job: impl Into<Named>, force: bool) -> Command {
    Command::StopJob { namespace: namespace(), origin: origin(None), job: job.into().0, force }
}

pub fn start(job: impl Into<Named>, mode: &str, snapshot: Option<&str>) -> Command {
    let mode = match mode {
        "latest" => RestoreMode::Latest,
        "snapshot" => RestoreMode::Snapshot,
        _ => RestoreMode::None,
    };
    let restore = RestoreRequest { mode, snapshot: snapshot.map(|name| name.parse().unwrap()) };
    Command::StartJob { namespace: namespace(), origin: origin(None), job: job.into().0, restore }
}

pub fn update_as(
    origin: Origin,
    job: impl Into<Named>,
    expected_version: u32,
    spec: JobSpec,
    allow_lost_state: bool,
) -> Command {
    let (spec, expected_version) = (Box::new(spec), JobVersion(expected_version));
    Command::UpdateJob { namespace: namespace(), origin, job: job.into().0, expected_version, spec, allow_lost_state }
}

pub fn update(job: impl Into<Named>, expected_version: u32, spec: JobSpec) -> Command {
    update_as(origin(None), job, expected_version, spec, false)
}

pub fn roll_back(job: impl Into<Named>, expected_version: u32) -> Command {
    let expected_version = JobVersion(expected_version);
    Command::RollBackJob { namespace: namespace(), origin: origin(None), job: job.into().0, expected_version }
}

pub fn create_snapshot(job: impl Into<Named>, name: &str) -> Command {
    let name = name.parse().unwrap();
    Command::CreateSnapshot { namespace: namespace(), origin: origin(None), job: job.into().0, name }
}

pub fn delete_snapshot(job: impl Into<Named>, name: &str, created_at: Timestamp) -> Command {
    let name = name.parse().unwrap();
    Command::DeleteSnapshot { namespace: namespace(), origin: origin(None), job: job.into().0, name, created_at }
}

pub fn import_snapshot(job: impl Into<Named>, name: &str, content: Option<ImportedContent>) -> Command {
    let name = name.parse().unwrap();
    Command::ImportSnapshot { namespace: namespace(), origin: origin(None), job: job.into().0, name, content }
}

/// It was given back, with its last checkpoint or why there is none.
pub fn released(contents: Option<u64>, fault: Option<&str>) -> News {
    let checkpoint = contents.map(taken).filter(|_| fault.is_none());
    let released = Released { cause: Cause::Update, checkpoint, fault: fault.map(CompactString::from) };
    ended(Outcome::Released(released), 100)
}

pub fn queue_put(name: &str, change: impl FnOnce(&mut QueueSettings)) -> Event {
    let mut settings = QueueSettings::default();
    change(&mut settings);
    Event::QueuePut(QueuePut { namespace: namespace(), name: name.parse().unwrap(), settings, request_id: None })
}

pub fn put_queue(name: &str, change: impl FnOnce(&mut QueueSettings)) -> Command {
    let mut settings = QueueSettings::default();
    change(&mut settings);
    Command::PutQueue { namespace: namespace(), origin: origin(None), name: name.parse().unwrap(), settings }
}

pub fn delete_queue(name: &str) -> Command {
    Command::DeleteQueue { namespace: namespace(), origin: origin(None), name: name.parse().unwrap() }
}

pub fn abandon(job: JobId, attempt: u32) -> Command {
    Command::AbandonAttempt { job, attempt: Attempt(attempt) }
}

pub fn evict(job: JobId, attempt: u32) -> Command {
    Command::EvictAttempt { job, attempt: Attempt(attempt), cause: Cause::ExecutorLost }
}

pub fn place(job: JobId, attempt: u32, executor: ExecutorId) -> Command {
    Command::PlaceJob { job, attempt: Attempt(attempt), executor }
}

pub fn lose(executor: ExecutorId, last_seen: Timestamp) -> Command {
    Command::LoseExecutor { executor, reason: LossReason::ProcessGone, last_seen }
}

pub fn report(executor: ExecutorId, job: JobId, attempt: u32, news: News) -> Command {
    report_aged(executor, job, attempt, 0, news)
}

pub fn report_aged(executor: ExecutorId, job: JobId, attempt: u32, age_ms: u64, news: News) -> Command {
    Command::Report { executor, report: Report { job, attempt: Attempt(attempt), age_ms, news } }
}

/// The attempt is over, having run for so many milliseconds.
pub fn ended(outcome: Outcome, ran_ms: u64) -> News {
    News::Ended(Ended { outcome, ran_ms: Some(ran_ms), result: None })
}

pub fn exited(code: i32) -> News {
    ended(Outcome::Exited { code }, 100)
}

pub fn unreadable(number: u64) -> News {
    let outcome = Outcome::RestoreFailed { number: CheckpointNumber(number), reason: "a chunk is missing".into() };
    News::Ended(Ended { outcome, ran_ms: None, result: None })
}

/// A job as a test names it: by id or by name.
pub struct Named(JobRef);

impl From<JobId> for Named {
    fn from(id: JobId) -> Named {
        Named(JobRef::Id(id))
    }
}

impl From<&str> for Named {
    fn from(name: &str) -> Named {
        Named(name.parse().unwrap())
    }
}

// The harness.

/// What has happened so far, and what time it is.
#[derive(Clone, Debug)]
pub struct Scene {
    pub state: State,
    /// Whether the whole state is checked after every commit; off only where that would take minutes.
    pub checked: bool,
    seq: u64,
    now: Timestamp,
}

/// Whatever is told of a job that is there is found from its history.
#[track_caller]
pub fn check_told(state: &State, seq: Sequence, envelope: &Envelope) {
    if let Some(job) = envelope.event.job().and_then(|id| state.jobs.get(&id)) {
        assert!(job.history().contains(&seq), "the job's history leaves out {envelope:?}");
    }
}

/// What a command led to, not yet folded.
pub struct Decided {
    scene: Scene,
    outcome: Result<Vec<Envelope>, Refusal>,
}

pub fn given(events: impl IntoIterator<Item = Event>) -> Scene {
    Scene { state: State::default(), checked: true, seq: 0, now: T0 }.and(events)
}

impl Scene {
    /// More that has happened, by now; each in a commit of its own.
    #[track_caller]
    pub fn and(mut self, events: impl IntoIterator<Item = Event>) -> Scene {
        for event in events {
            let at = self.now;
            self.fold(&[Envelope { at, by: None, event }]);
        }
        self
    }

    /// It is so many milliseconds after `T0`.
    pub fn at(mut self, ms: u64) -> Scene {
        self.now = at(ms);
        self
    }

    pub fn time(&self) -> Timestamp {
        self.now
    }

    /// One commit.
    #[track_caller]
    fn fold(&mut self, events: &[Envelope]) {
        self.seq += 1;
        for envelope in events {
            if let Err(error) = fold(&mut self.state, Sequence(self.seq), envelope) {
                panic!("{error}");
            }
            check_told(&self.state, Sequence(self.seq), envelope);
        }
        if !self.checked {
            return;
        }
        if let Err(wrong) = invariant::check(&self.state) {
            panic!("after {events:?}: {wrong}");
        }
    }

    pub fn when(self, command: Command) -> Decided {
        let outcome = decide(&self.state, command, self.now);
        Decided { scene: self, outcome }
    }

    #[track_caller]
    pub fn job(&self, id: JobId) -> &Job {
        self.state.jobs.get(&id).expect("the job is there")
    }
}

impl Decided {
    /// Exactly these events follow, stamped with the time; they are folded.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = Event>) -> Scene {
        let (scene, events) = self.happened();
        let expected: Vec<_> = expected.into_iter().collect();
        let stamped = events.iter().all(|envelope| envelope.at == scene.now);
        let got: Vec<_> = events.into_iter().map(|envelope| envelope.event).collect();
        assert_eq!(got, expected);
        assert!(stamped, "every event carries the time of its decision");
        scene
    }

    /// It is a success, and nothing follows, for it is done already.
    #[track_caller]
    pub fn nothing(self) -> Scene {
        assert_eq!(self.outcome.as_deref(), Ok(&[][..]));
        self.scene
    }

    /// Something follows; it is folded, and given back with the scene.
    #[track_caller]
    pub fn happened(mut self) -> (Scene, Vec<Envelope>) {
        match self.outcome {
            Ok(events) => {
                assert!(!events.is_empty(), "nothing followed");
                self.scene.fold(&events);
                (self.scene, events)
            }
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    #[track_caller]
    pub fn refused(self, code: ErrorCode, part: &str) -> Scene {
        match self.outcome {
            Err(Refusal::Rejected(rejection)) => {
                assert_eq!(rejection.code, code, "{}", rejection.message);
                assert!(rejection.message.contains(part), "`{}` does not say `{part}`", rejection.message);
            }
            other => panic!("not rejected: {other:?}"),
        }
        self.scene
    }

    #[track_caller]
    pub fn superseded(self) -> Scene {
        assert_eq!(self.outcome, Err(Refusal::Superseded));
        self.scene
    }

    #[track_caller]
    pub fn stale(self) -> Scene {
        assert_eq!(self.outcome, Err(Refusal::Stale));
        self.scene
    }
}
