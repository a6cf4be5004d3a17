//! What a user sees of a job.

pub mod queue;

mod schedule;

pub use schedule::{schedule, schedules};

use crate::life::{Life, Snapshot, Version};
use crate::referenced;
use crate::state::{Job, State, spec_bytes};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::id::{JobId, Namespace};
use outlive_schemas::life::{VersionList, VersionView, VersionsRequest};
use outlive_schemas::limits;
use outlive_schemas::request::ListRequest;
use outlive_schemas::snapshot::{SnapshotList, SnapshotListRequest, SnapshotPlace, SnapshotView};
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{CheckpointView, JobList, JobView, OldestCheckpointView, RecoveryView, RestartingView};
use std::ops::Bound;

/// The reason of a job that waits for its `start` (contract).
const NOT_YET: &str = "not_yet";

/// The `reason` of a job that waits for those that it depends on.
pub const WAITING_FOR_JOBS: &str = "waiting_for_jobs";

pub fn job(id: JobId, job: &Job, now: Timestamp) -> JobView {
    let shown = !job.is_queued();
    let (executor, zone) = job.last_host.clone().filter(|_| shown).unzip();
    JobView {
        id,
        namespace: job.namespace.clone(),
        name: job.name(id),
        kind: job.spec.kind,
        version: job.version,
        status: job.status,
        reason: if job.awaits_others() {
            Some(WAITING_FOR_JOBS.to_owned())
        } else if job.is_not_yet(now) {
            Some(NOT_YET.to_owned())
        } else {
            job.reason.as_ref().map(ToString::to_string)
        },
        attempt: job.attempt,
        executor,
        zone,
        restarts: job.restarts,
        checkpoint: job.checkpoints.last().map(|c| CheckpointView {
            number: c.number,
            at: c.at,
            size_bytes: c.taken.size_bytes,
            uploaded_bytes: c.taken.uploaded_bytes,
            duration_ms: c.taken.duration_ms,
            pause_ms: c.taken.pause_ms,
        }),
        last_recovery: job.last_recovery.as_deref().map(|r| RecoveryView {
            cause: r.cause,
            from_zone: r.from_zone.clone(),
            to_zone: r.to_zone.clone(),
            lost_at: r.lost_at,
            resumed_at: r.resumed_at,
            recovery_ms: r.resumed_at.since(r.lost_at).0,
            restored_checkpoint: r.restored,
        }),
        next_try_at: (job.is_queued() && job.recovering.is_some()).then_some(job.ready_at),
        submitted_at: job.submitted_at,
        started_at: job.started_at,
        finished_at: job.finished_at,
        exit_code: job.exit_code,
        result: job.result.clone(),
        labels: job.spec.labels.clone(),
        queue: job.spec.queue.clone(),
        priority: job.spec.priority,
        tasks: job.array.as_ref().map(|array| array.counts()),
        schedule: job.tick_of().map(|of| of.schedule.clone()),
    }
}

/// Jobs between two attempts, those that are away the longest first.
pub fn restarting(state: &State, most: usize) -> Vec<RestartingView> {
    let away = state.restarting().take(most).filter_map(|(since, id)| {
        let job = state.jobs.get(&id)?;
        Some(RestartingView {
            id,
            namespace: job.namespace.clone(),
            name: job.name(id),
            reason: job.reason.as_ref().map(ToString::to_string),
            restarts: job.restarts,
            since,
            next_try_at: job.ready_at,
        })
    });
    away.collect()
}

/// The placed job whose newest checkpoint is the oldest. Costs by the number of placed jobs.
pub fn oldest_checkpoint(state: &State) -> Option<OldestCheckpointView> {
    let placed = state.executors.values().flat_map(|e| &e.attempts).filter_map(|id| Some((*id, state.jobs.get(id)?)));
    let newest = placed.filter_map(|(id, job)| Some((job.checkpoints.last()?, id, job)));
    let (checkpoint, id, job) = newest.min_by_key(|(checkpoint, id, _)| (checkpoint.at, *id))?;
    let (namespace, name) = (job.namespace.clone(), job.name(id));
    Some(OldestCheckpointView { id, namespace, name, number: checkpoint.number, at: checkpoint.at })
}

/// One page of a namespace's jobs, newest first. A page may be short, or even empty, and still have a cursor.
pub fn list(state: &State, namespace: &Namespace, request: &ListRequest, now: Timestamp) -> Result<JobList, Rejection> {
    let limit = page(request.limit, limits::LIST_LIMIT_DEFAULT, limits::LIST_LIMIT_MAX)?;
    let before = before(request)?;
    let mut found = JobList { jobs: Vec::new(), cursor: None };
    let Some(ids) = state.in_namespace(namespace) else { return Ok(found) };
    let mut last = None;
    // A reply must fit one message, and results can be large.
    let mut bytes = 0;
    for (looked_at, id) in ids.range((Bound::Unbounded, before)).rev().enumerate() {
        if found.jobs.len() == limit || looked_at == limits::LIST_SCAN_MAX || bytes > limits::MESSAGE_BYTES_MAX / 2 {
            found.cursor = last.map(|id: JobId| id.to_string());
            break;
        }
        last = Some(*id);
        if let Some(job) = state.jobs.get(id).filter(|job| matches(job, *id, request)) {
            bytes += size(job);
            found.jobs.push(self::job(*id, job, now));
        }
    }
    Ok(found)
}

/// The jobs that a filter finds, newest first, and where to go on from.
pub struct Found {
    pub jobs: Vec<JobId>,
    pub cursor: Option<String>,
}

/// As [`list`], for those who change what they find: at most `most` jobs that `wanted` takes.
pub fn find(
    state: &State,
    namespace: &Namespace,
    request: &ListRequest,
    most: usize,
    mut wanted: impl FnMut(JobId, &Job) -> bool,
) -> Result<Found, Rejection> {
    let limit = page(request.limit, most, most)?;
    let before = before(request)?;
    let mut found = Found { jobs: Vec::new(), cursor: None };
    let Some(ids) = state.in_namespace(namespace) else { return Ok(found) };
    let mut last = None;
    for (looked_at, id) in ids.range((Bound::Unbounded, before)).rev().enumerate() {
        if found.jobs.len() == limit || looked_at == limits::LIST_SCAN_MAX {
            found.cursor = last.map(|id: JobId| id.to_string());
            break;
        }
        last = Some(*id);
        if state.jobs.get(id).is_some_and(|job| matches(job, *id, request) && wanted(*id, job)) {
            found.jobs.push(*id);
        }
    }
    Ok(found)
}

fn before(request: &ListRequest) -> Result<Bound<JobId>, Rejection> {
    match &request.cursor {
        None => Ok(Bound::Unbounded),
        Some(text) => text.parse().map(Bound::Excluded).map_err(|_| bad_cursor(text)),
    }
}

pub fn snapshot(id: JobId, snapshot: &Snapshot) -> SnapshotView {
    SnapshotView {
        job: id,
        name: snapshot.name.clone(),
        status: snapshot.status,
        created_at: snapshot.created_at,
        ready_at: snapshot.ready_at,
        size_bytes: snapshot.ready_at.map(|_| snapshot.content.map_or(0, |content| content.taken.size_bytes)),
        job_version: snapshot.version,
        initiator: snapshot.purpose.initiator(),
        error: snapshot.error.as_ref().map(ToString::to_string),
    }
}

pub fn snapshot_place(id: JobId, job: &Job, of: &Snapshot) -> SnapshotPlace {
    SnapshotPlace {
        retained: referenced::manifests(job),
        snapshot: snapshot(id, of),
        checkpoint: of.content.map(|content| content.number),
        manifest: of.content.map(|content| content.taken.manifest),
        files: of.content.map_or(0, |content| content.taken.files),
    }
}

/// One page of a job's snapshots, newest first.
pub fn snapshots(id: JobId, job: &Job, request: &SnapshotListRequest) -> Result<SnapshotList, Rejection> {
    let limit = page(request.limit, limits::SNAPSHOTS_LIMIT_DEFAULT, limits::SNAPSHOTS_LIMIT_MAX)?;
    let before: u64 = match &request.cursor {
        None => u64::MAX,
        Some(text) => text.parse().map_err(|_| bad_cursor(text))?,
    };
    let known = job.life.iter().flat_map(|life| life.snapshots.iter().rev());
    let mut older = known.filter(|snapshot| snapshot.number < before).peekable();
    let mut found = SnapshotList { snapshots: Vec::new(), cursor: None };
    while let Some(of) = older.next() {
        found.snapshots.push(snapshot(id, of));
        if found.snapshots.len() == limit {
            found.cursor = older.peek().map(|_| of.number.to_string());
            break;
        }
    }
    Ok(found)
}

/// One page of a job's versions, oldest first.
pub fn versions(job: &Job, request: &VersionsRequest) -> Result<VersionList, Rejection> {
    let limit = page(request.limit, limits::VERSIONS_LIMIT_MAX, limits::VERSIONS_LIMIT_MAX)?;
    let after: u32 = match &request.cursor {
        None => 0,
        Some(text) => text.parse().map_err(|_| bad_cursor(text))?,
    };
    let fresh;
    let life = match &job.life {
        Some(life) => &**life,
        None => {
            fresh = Life::of(job);
            &fresh
        }
    };
    let mut newer = life.versions.iter().filter(|version| version.version.0 > after).peekable();
    let mut found = VersionList { versions: Vec::new(), cursor: None };
    let mut bytes = 0;
    while let Some(of) = newer.next() {
        bytes += spec_bytes(&of.spec) + of.spec.input.as_ref().map_or(0, |input| input.0.len() * 4 / 3) + 1_024;
        found.versions.push(version(life, of));
        if found.versions.len() == limit || bytes > limits::MESSAGE_BYTES_MAX / 2 {
            found.cursor = newer.peek().map(|_| of.version.to_string());
            break;
        }
    }
    Ok(found)
}

fn version(life: &Life, of: &Version) -> VersionView {
    VersionView {
        version: of.version,
        at: of.at,
        spec: of.spec.clone(),
        status: of.status,
        reason: of.reason.as_ref().map(ToString::to_string),
        snapshot: life.last_ready_of(of.version).map(|snapshot| snapshot.name.clone()),
    }
}

/// What a job takes of a reply, roughly.
fn size(job: &Job) -> usize {
    let result = job.result.as_ref().map_or(0, |r| r.0.len() * 4 / 3);
    let labels = job.spec.labels.iter().map(|(k, v)| k.len() + v.len() + 8).sum::<usize>();
    700 + result + labels + job.reason.as_ref().map_or(0, |r| r.len())
}

fn matches(job: &Job, id: JobId, request: &ListRequest) -> bool {
    request.status.as_ref().is_none_or(|wanted| wanted.contains(&job.status))
        && request.name_prefix.as_ref().is_none_or(|prefix| job.name(id).as_str().starts_with(prefix.as_str()))
        && request.labels.as_ref().is_none_or(|wanted| wanted.iter().all(|(k, v)| job.spec.labels.get(k) == Some(v)))
}

/// A page's size as asked for, or a refusal that gives the range.
pub fn page(given: Option<usize>, default: usize, max: usize) -> Result<usize, Rejection> {
    match given {
        None => Ok(default),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => {
            Err(Rejection::new(ErrorCode::InvalidArgument, format!("`limit` is {limit}, not within 1 to {max}")))
        }
    }
}

pub fn bad_cursor(given: &str) -> Rejection {
    let shown: String = given.chars().take(80).collect();
    Rejection::new(
        ErrorCode::InvalidArgument,
        format!("`cursor` is `{shown}`, which is none that this request returned"),
    )
}
