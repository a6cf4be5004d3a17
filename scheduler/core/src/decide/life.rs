//! Stopping, starting, updating and rolling back.
//!
//! Each of these is a chain of facts, and what comes next follows from the state alone: from what executors report, or
//! from the time (`timer`). So it does not matter which leader takes the next step, or how often one was lost.
//!
//! One rule covers every way in which an attempt may end while something is done to its job: the latest checkpoint is
//! the state there is. Where the attempt was given back, that is all it ever did; where it was lost or crashed, it is
//! what the job would have gone on from anyway.

use super::snapshot::{begin_system, completed, failed};
use super::{Refusal, fact, is_done, queue};
use crate::life::{Change, Life, PROVE_WITHIN, RELEASE_SLACK};
use crate::state::{Job, STOP_CONFIRMATION, State};
use compact_str::{CompactString, format_compact};
use outlive_schemas::checkpoint::Checkpoint;
use outlive_schemas::command::Origin;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{CheckpointFailed, Envelope, Event};
use outlive_schemas::id::{JobId, JobRef, JobVersion, Namespace, SnapshotName};
use outlive_schemas::job::{JobKind, JobSpec, invalid};
use outlive_schemas::life::{
    Base, BaseReplaced, JobStopped, RestoreMode, RestoreRequest, RollbackBegun, StartRequested, StopFailed,
    StopRequested, UpdateFailed, UpdateRequested, VersionProven, VersionRestored, VersionStarted, VersionStatus,
};
use outlive_schemas::limits;
use outlive_schemas::snapshot::{Purpose, SnapshotStatus};
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::Status;
use std::sync::Arc;

fn in_use(message: String) -> Refusal {
    Rejection::new(ErrorCode::InUse, message).into()
}

/// By whom all of this was asked for.
fn signed(mut events: Vec<Envelope>, by: Option<CompactString>) -> Vec<Envelope> {
    events.iter_mut().for_each(|envelope| envelope.by.clone_from(&by));
    events
}

// Stop.

pub(super) fn stop(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    force: bool,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let (id, job) = state.resolve(namespace, job)?;
    if is_done(state, namespace, &origin) {
        return Ok(Vec::new());
    }
    services_only(id, job, "stopped")?;
    match (job.status, job.change()) {
        // Asking twice is no fault.
        (Status::Stopped, _) => return Ok(Vec::new()),
        (Status::Stopping, Some(Change::Stop { force: already, .. })) if *already || !force => return Ok(Vec::new()),
        (Status::Stopping, Some(Change::Stop { .. })) => {}
        (Status::Stopping, _) => return Err(in_use(format!("job {id} is being cancelled, and will be over"))),
        (Status::Running, _) => {}
        (status, _) if status.is_final() => return Err(in_use(format!("job {id} is over already: it is {status}"))),
        _ if job.awaits_others() => {
            return Err(in_use(format!("job {id} waits for the jobs that it depends on, and does not run: cancel it")));
        }
        (status, _) if !force => {
            let message = format!(
                "job {id} is {status}: only a running job can be stopped with a snapshot; with `force` it is stopped \
                 without one, and its latest checkpoint stays"
            );
            return Err(in_use(message));
        }
        _ => {}
    }
    let Origin { request_id, by } = origin;
    let mut events = Vec::new();
    let mut snapshot = None;
    let give_up_at = if force { now + STOP_CONFIRMATION } else { release_by(job, now) };
    if force {
        // One that was to be taken on the way is not waited for any more.
        events.extend(
            open_of_change(job).into_iter().flat_map(|name| {
                failed(id, name, "the job was stopped by force before its state was read".into(), now)
            }),
        );
    } else {
        let (name, begun) = begin_system(id, job, Purpose::Stop, give_up_at, now);
        events.extend(begun);
        snapshot = Some(name);
    }
    let attempt = job.attempt;
    let event = StopRequested { job: id, attempt, force, snapshot, give_up_at, request_id };
    events.extend(fact(now, Event::StopRequested(event)));
    if job.placement.is_none() {
        events.extend(stopped(id, job, None, None, None, now));
    }
    Ok(signed(events, by))
}

fn services_only(id: JobId, job: &Job, what: &str) -> Result<(), Rejection> {
    if job.spec.kind == JobKind::Service {
        return Ok(());
    }
    let message = format!("job {id} is a batch job, which ends by itself: only a service can be {what}; cancel it");
    Err(Rejection::new(ErrorCode::Unsupported, message))
}

fn release_by(job: &Job, now: Timestamp) -> Timestamp {
    now + job.spec.checkpoint.timeout + RELEASE_SLACK
}

/// The snapshot of the change under way, if it is being created.
fn open_of_change(job: &Job) -> Option<SnapshotName> {
    let life = job.life.as_ref()?;
    let name = life.change.as_ref()?.snapshot()?;
    life.snapshot(name).filter(|snapshot| snapshot.is_open()).map(|snapshot| snapshot.name.clone())
}

fn stopped(
    id: JobId,
    job: &Job,
    reason: Option<CompactString>,
    exit_code: Option<i32>,
    snapshot: Option<SnapshotName>,
    now: Timestamp,
) -> Vec<Envelope> {
    fact(now, Event::JobStopped(JobStopped { job: id, attempt: job.attempt, reason, exit_code, snapshot }))
}

// Start.

pub(super) fn start(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    restore: RestoreRequest,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let (id, job) = state.resolve(namespace, job)?;
    if is_done(state, namespace, &origin) {
        return Ok(Vec::new());
    }
    services_only(id, job, "started again")?;
    if job.status != Status::Stopped {
        return Err(in_use(format!("job {id} is {}: only a stopped job can be started", job.status)));
    }
    let base = match (restore.mode, restore.snapshot) {
        (RestoreMode::Latest, None) => latest(job, None),
        (RestoreMode::None, None) => Base { snapshot: None, content: None },
        (RestoreMode::Snapshot, Some(name)) => of_snapshot(id, job, name)?,
        (RestoreMode::Snapshot, None) => {
            return Err(invalid("restore.snapshot", "is missing: `restore.mode` snapshot needs its name").into());
        }
        (RestoreMode::Latest | RestoreMode::None, Some(name)) => {
            let what = format!("is `{name}`: with it `restore.mode` has to be snapshot");
            return Err(invalid("restore.snapshot", &what).into());
        }
    };
    let Origin { request_id, by } = origin;
    let event = StartRequested { job: id, restore: restore.mode, base, request_id };
    Ok(vec![Envelope { at: now, by, event: Event::StartRequested(event) }])
}

fn of_snapshot(id: JobId, job: &Job, name: SnapshotName) -> Result<Base, Refusal> {
    let snapshot = super::snapshot::find(id, job, &name)?;
    if snapshot.status != SnapshotStatus::Ready {
        let message =
            format!("snapshot `{name}` of job {id} is {}: only a ready one can be started from", snapshot.status);
        return Err(in_use(message));
    }
    Ok(Base { content: snapshot.content, snapshot: Some(name) })
}

/// The newest ready snapshot or the newest checkpoint, whichever is newer; of those that are older than the given time,
/// where there is one. An empty state where there never was another.
fn latest(job: &Job, before: Option<Timestamp>) -> Base {
    let eligible = |at: Timestamp| before.is_none_or(|before| at < before);
    let ready = job.life.iter().flat_map(|life| &life.snapshots).filter(|s| s.status == SnapshotStatus::Ready);
    let snapshot = ready
        .filter_map(|snapshot| Some((snapshot.ready_at?, snapshot)))
        .filter(|(at, snapshot)| eligible(snapshot.content.map_or(*at, |content| content.at)))
        .max_by_key(|(at, snapshot)| (*at, snapshot.number));
    let checkpoint = job.checkpoints.iter().rev().find(|checkpoint| eligible(checkpoint.at));
    match (snapshot, checkpoint) {
        (Some((at, _)), Some(checkpoint)) if checkpoint.at > at => Base { snapshot: None, content: Some(*checkpoint) },
        (Some((_, snapshot)), _) => Base { snapshot: Some(snapshot.name.clone()), content: snapshot.content },
        (None, checkpoint) => Base { snapshot: None, content: checkpoint.copied() },
    }
}

// Update.

pub(super) struct Update<'a> {
    pub namespace: &'a Namespace,
    pub origin: Origin,
    pub job: &'a JobRef,
    pub expected_version: JobVersion,
    pub spec: JobSpec,
    pub allow_lost_state: bool,
}

pub(super) fn update(state: &State, asked: Update<'_>, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let Update { namespace, origin, job, expected_version, mut spec, allow_lost_state } = asked;
    let (id, job) = state.resolve(namespace, job)?;
    if is_done(state, namespace, &origin) {
        return Ok(Vec::new());
    }
    is_current(id, job, expected_version)?;
    if job.status.is_final() {
        return Err(in_use(format!("job {id} is over already: it is {}", job.status)));
    }
    may_be_changed(id, job)?;
    super::array::single_only(id, job, "updated: submit another")?;
    if spec.name.is_none() {
        spec.name.clone_from(&job.spec.name);
    }
    if spec.depends_on.is_empty() {
        spec.depends_on.clone_from(&job.spec.depends_on);
    }
    spec.validate()?;
    queue::is_there(state, namespace, &spec.queue)?;
    stays_the_same_job(job, &spec)?;
    if state.held_bytes() > limits::HELD_BYTES_MAX {
        let message = format!(
            "specifications and results take {} bytes of the scheduler's memory; the limit is {}: delete finished jobs",
            state.held_bytes(),
            limits::HELD_BYTES_MAX
        );
        return Err(Rejection::new(ErrorCode::LimitExceeded, message).into());
    }

    let Origin { request_id, by } = origin;
    let mut events = Vec::new();
    let mut snapshot = None;
    let give_up_at = match job.status {
        Status::Running => release_by(job, now),
        _ => now + STOP_CONFIRMATION,
    };
    if !matches!(job.status, Status::Pending | Status::Stopped) && job.spec.keeps_state() {
        let (name, begun) = begin_system(id, job, Purpose::Update, give_up_at, now);
        events.extend(begun);
        snapshot = Some(name);
    }
    let to = job.life.as_ref().map_or(job.version, |life| life.last_version).next();
    let event = UpdateRequested {
        job: id,
        attempt: job.attempt,
        from: job.version,
        to,
        spec: Arc::new(spec),
        allow_lost_state,
        snapshot: snapshot.clone(),
        give_up_at,
        request_id,
    };
    events.extend(fact(now, Event::UpdateRequested(event)));
    if job.placement.is_none() {
        events.extend(next_version(id, job, to, snapshot, job.restorable_checkpoint().copied(), None, now));
    }
    Ok(signed(events, by))
}

fn is_current(id: JobId, job: &Job, expected: JobVersion) -> Result<(), Refusal> {
    let coming = match job.change() {
        Some(Change::Update { to, .. }) => Some(*to),
        _ => None,
    };
    if expected == job.version && coming.is_none() {
        return Ok(());
    }
    let now = match coming {
        Some(to) => format!("{} and is being updated to {to}", job.version),
        None => job.version.to_string(),
    };
    let message = format!("`expected_version` is {expected}, but job {id} has version {now}: look at it again");
    Err(Rejection::new(ErrorCode::ConcurrentModification, message).into())
}

fn may_be_changed(id: JobId, job: &Job) -> Result<(), Refusal> {
    let is_free = matches!(
        job.status,
        Status::Pending | Status::Starting | Status::Running | Status::Restarting | Status::Stopped
    );
    if is_free {
        return Ok(());
    }
    Err(in_use(format!("job {id} is {}: wait until that is over", job.status)))
}

/// What makes it this job and no other cannot be updated.
fn stays_the_same_job(job: &Job, spec: &JobSpec) -> Result<(), Rejection> {
    if spec.name != job.spec.name {
        let given = spec.name.as_ref().map(ToString::to_string).unwrap_or_default();
        return Err(invalid("spec.name", &format!("is `{given}`: a job keeps its name; leave it out")));
    }
    if spec.depends_on != job.spec.depends_on {
        let message = "`spec.depends_on` is another than the job's, which cannot be changed: leave it out";
        return Err(Rejection::new(ErrorCode::Unsupported, message));
    }
    if spec.array.is_some() {
        let message = "`spec.array` makes an array, which a job cannot become: submit it";
        return Err(Rejection::new(ErrorCode::Unsupported, message));
    }
    if spec.kind != job.spec.kind {
        let message = "`spec.kind` is another than the job's: a job stays a batch job or a service; submit a new one";
        return Err(Rejection::new(ErrorCode::Unsupported, message));
    }
    if spec.driver.kind() != job.spec.driver.kind() {
        let message = "`spec.driver` is another than the job's, which could not read its state: submit a new job";
        return Err(Rejection::new(ErrorCode::Unsupported, message));
    }
    Ok(())
}

/// The version before is over, and this is what it leaves; the new one starts from it.
fn next_version(
    id: JobId,
    job: &Job,
    version: JobVersion,
    snapshot: Option<SnapshotName>,
    content: Option<Checkpoint>,
    ended_at: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Envelope> {
    let mut events = Vec::new();
    if let Some(name) = &snapshot {
        events.extend(completed(id, name.clone(), content, now));
    }
    let ran = !matches!(job.status, Status::Pending | Status::Stopped);
    let started = VersionStarted {
        job: id,
        attempt: job.attempt,
        version,
        base: Base { snapshot, content },
        ended_at,
        prove_by: ran.then_some(now + PROVE_WITHIN),
    };
    events.extend(fact(now, Event::VersionStarted(started)));
    events
}

// Rollback.

pub(super) fn roll_back(
    state: &State,
    namespace: &Namespace,
    origin: Origin,
    job: &JobRef,
    expected_version: JobVersion,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let (id, job) = state.resolve(namespace, job)?;
    if is_done(state, namespace, &origin) {
        return Ok(Vec::new());
    }
    is_current(id, job, expected_version)?;
    if job.status.is_final() {
        return Err(in_use(format!("job {id} is over already: it is {}", job.status)));
    }
    let proving = matches!(job.change(), Some(Change::Prove { .. }));
    if job.status == Status::Stopped {
        return Err(in_use(format!("job {id} is stopped: start it first, or update it and start it from a snapshot")));
    }
    if !proving {
        may_be_changed(id, job)?;
    }
    let (to, base) = match job.change() {
        Some(Change::Prove { from, base, .. }) => (*from, base.clone()),
        _ => previous(id, job)?,
    };
    let Origin { request_id, by } = origin;
    let asked = Rollback { to, base, automatic: false, reason: "it was asked for".into(), request_id };
    Ok(signed(begin_rollback(id, job, asked, now), by))
}

/// The previous version that ran, and its last snapshot.
fn previous(id: JobId, job: &Job) -> Result<(JobVersion, Base), Rejection> {
    let none = || Rejection::not_found(format_args!("version of job {id} before {} that ran", job.version));
    let life: &Life = job.life.as_deref().ok_or_else(none)?;
    let before =
        life.versions.iter().rev().find(|version| {
            version.version < job.version && version.status == VersionStatus::Superseded && version.ran
        });
    let version = before.ok_or_else(none)?.version;
    let last = life.last_ready_of(version).ok_or_else(|| {
        Rejection::not_found(format_args!("ready snapshot of version {version} of job {id} to go back to"))
    })?;
    Ok((version, Base { snapshot: Some(last.name.clone()), content: last.content }))
}

struct Rollback {
    to: JobVersion,
    base: Base,
    automatic: bool,
    reason: CompactString,
    request_id: Option<CompactString>,
}

fn begin_rollback(id: JobId, job: &Job, rollback: Rollback, now: Timestamp) -> Vec<Envelope> {
    let Rollback { to, base, automatic, reason, request_id } = rollback;
    let mut events = Vec::new();
    let mut snapshot = None;
    // What a healthy version has done is not thrown away unseen.
    let is_kept = job.status == Status::Running && job.spec.keeps_state();
    let give_up_at = if is_kept { release_by(job, now) } else { now + STOP_CONFIRMATION };
    if is_kept {
        let (name, begun) = begin_system(id, job, Purpose::Rollback, give_up_at, now);
        events.extend(begun);
        snapshot = Some(name);
    }
    let event = RollbackBegun {
        job: id,
        attempt: job.attempt,
        from: job.version,
        to,
        automatic,
        reason,
        base,
        snapshot,
        give_up_at,
        request_id,
    };
    events.extend(fact(now, Event::RollbackBegun(event)));
    if job.placement.is_none() {
        events.extend(restored(id, job, to, None, now));
    }
    events
}

fn restored(id: JobId, job: &Job, version: JobVersion, ended_at: Option<Timestamp>, now: Timestamp) -> Vec<Envelope> {
    fact(now, Event::VersionRestored(VersionRestored { job: id, attempt: job.attempt, version, ended_at }))
}

/// A version that has to show that it is healthy has failed for good: back at once, for its attempt is over.
pub(super) fn unproven(
    id: JobId,
    job: &Job,
    reason: CompactString,
    ended_at: Timestamp,
    now: Timestamp,
) -> Option<Vec<Envelope>> {
    let Some(Change::Prove { from, base, .. }) = job.change() else { return None };
    let event = RollbackBegun {
        job: id,
        attempt: job.attempt,
        from: job.version,
        to: *from,
        automatic: true,
        reason,
        base: base.clone(),
        snapshot: None,
        give_up_at: now,
        request_id: None,
    };
    let mut events = fact(now, Event::RollbackBegun(event));
    events.extend(restored(id, job, *from, Some(ended_at), now));
    Some(events)
}

// What follows when attempts end, and when time passes.

/// How an attempt ended whose end was waited for.
pub(super) struct End {
    pub at: Timestamp,
    /// The state it leaves: its latest checkpoint, which may have been committed with its end.
    pub latest: Option<Checkpoint>,
    pub exit_code: Option<i32>,
    /// Why what it did since that checkpoint is lost, if it is.
    pub lost: Option<CompactString>,
}

/// Takes the next step of what is done to the job, now that its attempt is over. Nothing where nothing waited for that.
pub(super) fn over(id: JobId, job: &Job, end: End, now: Timestamp) -> Option<Vec<Envelope>> {
    let change = job.ending()?;
    let End { at, latest, exit_code, lost } = end;
    let mut events = Vec::new();
    let system = open_of_change(job);
    if let (Some(reason), true) = (&lost, system.is_some()) {
        let failed = CheckpointFailed { job: id, attempt: job.attempt, reason: reason.clone() };
        events.extend(fact(now, Event::CheckpointFailed(failed)));
    }
    // Snapshots that were asked for meanwhile are the same state.
    if lost.is_none() && system.is_some() {
        for snapshot in job.ordered_snapshots() {
            events.extend(completed(id, snapshot.name.clone(), latest, now));
        }
    }
    match change {
        Change::Stop { .. } => {
            if let Some(name) = &system {
                events.extend(completed(id, name.clone(), latest, now));
            }
            let reason = lost
                .filter(|_| system.is_some())
                .map(|lost| format_compact!("{lost}; what it did since its latest checkpoint is lost"));
            events.extend(stopped(id, job, reason, exit_code, system, now));
        }
        Change::Update { to, .. } => events.extend(next_version(id, job, *to, system, latest, Some(at), now)),
        Change::RollBack { to, .. } => {
            if let Some(name) = system {
                events.extend(completed(id, name, latest, now));
            }
            events.extend(restored(id, job, *to, Some(at), now));
        }
        Change::Prove { .. } => return None,
    }
    Some(events)
}

/// The executor could not have the state, and the attempt goes on.
pub(super) fn release_failed(id: JobId, job: &Job, reason: CompactString, now: Timestamp) -> Vec<Envelope> {
    let attempt = job.attempt;
    let mut events = Vec::new();
    if let Some(name) = open_of_change(job) {
        events.extend(failed(id, name, reason.clone(), now));
    }
    match job.change() {
        Some(Change::Stop { force: false, .. }) => {
            events.extend(fact(now, Event::StopFailed(StopFailed { job: id, attempt, reason })));
        }
        Some(Change::Update { to, allow_lost_state: false, .. }) => {
            let version = *to;
            events.extend(fact(now, Event::UpdateFailed(UpdateFailed { job: id, attempt, version, reason })));
        }
        // Others do not depend on the state, and their executors know that.
        _ => return Vec::new(),
    }
    events
}

/// What the job was to begin with cannot be read. Where the newest state was asked for the one before it will do, and
/// the history says so; another choice is nobody's but the user's, and so the job is stopped.
pub(super) fn base_unreadable(
    id: JobId,
    job: &Job,
    base: &Base,
    reason: &CompactString,
    happened: Timestamp,
    now: Timestamp,
) -> Vec<Envelope> {
    let reason = format_compact!("{} cannot be read ({reason})", base.described());
    if let Some(events) = unproven(id, job, reason.clone(), happened, now) {
        return events;
    }
    let restore = job.life.as_ref().map_or(RestoreMode::Latest, |life| life.restore);
    let older = base.content.map(|content| latest(job, Some(content.at))).filter(|older| older.content.is_some());
    match older.filter(|_| restore == RestoreMode::Latest) {
        Some(older) => {
            let reason = format_compact!("{reason}; going back to {}", older.described());
            fact(now, Event::BaseReplaced(BaseReplaced { job: id, base: older, reason }))
        }
        None => stopped(id, job, Some(reason), None, None, now),
    }
}

pub(super) fn attend(state: &State, id: JobId, now: Timestamp) -> Result<Vec<Envelope>, Refusal> {
    let job = state.jobs.get(&id).ok_or(Refusal::Stale)?;
    let mut events = super::snapshot::attend(id, job, now);
    events.extend(attend_change(id, job, now));
    if events.is_empty() { Err(Refusal::Stale) } else { Ok(events) }
}

fn attend_change(id: JobId, job: &Job, now: Timestamp) -> Vec<Envelope> {
    if job.awaits_its_end() {
        return Vec::new();
    }
    let unheard = || -> CompactString { "its executor did not say in time what became of it".into() };
    let given_up =
        || End { at: now, latest: job.restorable_checkpoint().copied(), exit_code: None, lost: Some(unheard()) };
    match job.change() {
        Some(Change::Prove { from, base, by }) => {
            if job.proven_at().is_some_and(|at| at <= now) {
                let proven = VersionProven { job: id, attempt: job.attempt, version: job.version };
                return fact(now, Event::VersionProven(proven));
            }
            if *by > now {
                return Vec::new();
            }
            let reason = format_compact!("it was not healthy within {PROVE_WITHIN}: {}", how_it_is(job));
            let asked = Rollback { to: *from, base: base.clone(), automatic: true, reason, request_id: None };
            begin_rollback(id, job, asked, now)
        }
        Some(Change::Stop { force: true, give_up_at, .. }) if *give_up_at <= now => {
            let reason = "stopped by force; its executor did not confirm that nothing of it is left".into();
            stopped(id, job, Some(reason), None, None, now)
        }
        Some(Change::Stop { give_up_at, .. }) if *give_up_at <= now => release_failed(id, job, unheard(), now),
        Some(Change::Update { give_up_at, allow_lost_state, .. }) if *give_up_at <= now => {
            if *allow_lost_state || job.attempt_started_at.is_none() {
                over(id, job, given_up(), now).unwrap_or_default()
            } else {
                release_failed(id, job, unheard(), now)
            }
        }
        Some(Change::RollBack { give_up_at, .. }) if *give_up_at <= now => {
            over(id, job, given_up(), now).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn how_it_is(job: &Job) -> CompactString {
    let reason = job.reason.as_deref();
    match (job.placement, reason) {
        (_, Some(reason)) => reason.into(),
        (Some(_), None) if job.attempt_started_at.is_some() => "it has been up for too short a time".into(),
        (Some(_), None) => "it has not come up".into(),
        (None, None) => "it found no executor to run on".into(),
    }
}
