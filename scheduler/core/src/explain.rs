//! Why a job is where it is, for people. The rules are the planner's own.

use crate::life::Change;
use crate::plan::admission::{self, Hold};
use crate::plan::doors::Doors;
use crate::plan::{Hints, feasible};
use crate::queue::Shape;
use crate::state::{EXCLUSIVE_WAIT, Executor, Job, State};
use outlive_schemas::command::LossReason;
use outlive_schemas::id::JobId;
use outlive_schemas::limits;
use outlive_schemas::queue::InQueue;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{Refusal, Status, Why};
use outlive_schemas::when::Deadline;
use std::fmt::Write as _;

pub fn why(state: &State, hints: &Hints, id: JobId, job: &Job, now: Timestamp) -> Why {
    let mut reasons = if job.is_queued() { refusals(state, hints, job) } else { Vec::new() };
    let queue = job.is_queued().then(|| in_queue(state, id, job, now));
    let mut summary = match hints.reserved.get(&id).and_then(|on| state.executors.get(on)) {
        Some(on) if job.is_queued() => {
            let name = &on.registration.name;
            format!("room is being made for it on {name}: jobs of a lower priority give way there")
        }
        _ => summary(state, id, job, reasons.len(), now),
    };
    if let Some((executor, because)) = held_by_its_attempt(state, job) {
        write!(summary, "; it is exclusive, and waits for its executor, which {because}").expect("a string takes it");
        reasons.push(refusal(executor, format!("it {because}")));
    }
    if let Some(InQueue { name, ahead: ahead @ 1.., .. }) = &queue {
        write!(summary, "; before it in queue `{name}`: {ahead}").expect("a string takes it");
    }
    let lost = state.executors.values().filter(|e| !e.is_alive() && job.is_queued()).map(|e| refusal(e, LOST.into()));
    reasons.extend(lost.take(limits::WHY_REASONS_MAX.saturating_sub(reasons.len())));
    reasons.truncate(limits::WHY_REASONS_MAX);
    Why { status: job.status, summary, reasons, queue }
}

/// Where it stands, and whether its queue or its key holds it.
fn in_queue(state: &State, id: JobId, job: &Job, now: Timestamp) -> InQueue {
    let ahead = state.queue().of(&job.queue()).map_or(0, |lines| lines.before(&job.place(), id));
    let hold = admission::hold(state, job, now);
    let next_try_at = match &hold {
        _ if job.ready_at > now => Some(job.ready_at),
        hold => hold.as_ref().and_then(Hold::until).or_else(|| state.held_alone(job, now)),
    };
    let held_by = hold.as_ref().map(Hold::by);
    InQueue { name: job.spec.queue.clone(), priority: job.spec.priority, ahead, held_by, next_try_at }
}

/// What keeps a job waiting that must never run twice, and is to end or to go on elsewhere: nobody can tell yet that
/// nothing of its attempt is left.
fn held_by_its_attempt<'a>(state: &'a State, job: &Job) -> Option<(&'a Executor, String)> {
    let placed = job.placement.filter(|_| job.spec.exclusive)?;
    let executor = state.executors.get(&placed.executor)?;
    let because = match executor.lost {
        // Its goodbye was such a confirmation.
        Some(loss) if loss.reason == LossReason::Left => return None,
        Some(loss) => {
            let over_at = loss.last_seen + EXCLUSIVE_WAIT;
            format!("is lost: its lease is certainly over at {over_at} at the earliest")
        }
        None if job.stop.is_some() || job.awaits_its_end() => {
            "has not confirmed that nothing of the attempt is left; the end of its lease would do, too".to_owned()
        }
        None => return None,
    };
    Some((executor, because))
}

const LOST: &str = "it is lost";

/// What each live executor has against the job.
fn refusals(state: &State, hints: &Hints, job: &Job) -> Vec<Refusal> {
    let shape = Shape::of(&job.spec);
    let doors = Doors::of(state, hints);
    let refused = state.executors.iter().filter(|(_, e)| e.is_alive()).filter_map(|(id, e)| {
        let because = match doors.closed(*id, &e.registration) {
            Some(closed) => closed.to_string(),
            None => feasible::fits(&shape, &e.registration, &e.free()).err()?.to_string(),
        };
        Some(refusal(e, because))
    });
    refused.collect()
}

fn refusal(executor: &Executor, because: String) -> Refusal {
    Refusal {
        executor: executor.registration.name.clone(),
        zone: executor.registration.zone.clone(),
        refused_because: because,
    }
}

/// `refused`: how many of the live executors cannot take it.
fn summary(state: &State, id: JobId, job: &Job, refused: usize, now: Timestamp) -> String {
    let host = || match &job.last_host {
        Some((name, zone)) => format!("{name} in zone {zone}"),
        None => "no executor".to_owned(),
    };
    let because = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match job.status {
        _ if job.awaits_others() => job.awaited_shown(state),
        _ if job.array.is_some() && !job.status.is_final() => job.tasks_shown().unwrap_or_default(),
        _ if job.is_not_yet(now) => format!("not_yet: it begins no earlier than {}{}", job.ready_at, given_up(job)),
        _ if job.is_queued() && job.ready_at > now => {
            format!("attempt {} ended{because}; the next is tried at {}", job.attempt, job.ready_at)
        }
        _ if job.is_queued() => {
            if let Some(until) = state.held_alone(job, now) {
                return format!(
                    "it is exclusive, and the log goes on from a restored or a lost end: until {until} an attempt may \
                     run of which it does not tell"
                );
            }
            if let Some(hold) = admission::hold(state, job, now) {
                return format!("it waits in queue `{}`: {hold}", job.spec.queue);
            }
            let alive = state.executors.values().filter(|e| e.is_alive()).count();
            match (alive, alive.saturating_sub(refused)) {
                (0, _) => format!("it waits for an executor: none is there{}", given_up(job)),
                (_, 0) => format!("it waits for room: none of the {alive} executors can take it{}", given_up(job)),
                _ => format!("it is about to be placed; {} jobs wait", waiting(state)),
            }
        }
        Status::Starting => match job.placement.and_then(|p| p.restore) {
            Some(number) => format!("attempt {} is being restored from checkpoint {number} on {}", job.attempt, host()),
            None => format!("attempt {} is being started on {}", job.attempt, host()),
        },
        Status::Running => format!("attempt {} runs on {}{}", job.attempt, host(), given_up(job)),
        Status::Pending | Status::Restarting => format!("job {id} is {}", job.status),
        Status::Stopped => format!("it is stopped{because}; `outlive job start` starts it"),
        Status::Stopping if matches!(job.change(), Some(Change::Stop { force: false, .. })) => {
            format!("attempt {} on {} is giving back its state, and is stopped then", job.attempt, host())
        }
        Status::Updating => match job.change() {
            Some(Change::Update { to, .. }) => {
                format!("attempt {} on {} is giving back its state; then version {to} starts", job.attempt, host())
            }
            Some(Change::Prove { from, by, .. }) => format!(
                "version {} is on {}; if it is not healthy by {by}, version {from} is gone back to{because}",
                job.version,
                host()
            ),
            _ => format!("job {id} is updating"),
        },
        Status::RollingBack => format!("version {} is being left{because}", job.version),
        Status::Stopping if job.stop.as_ref().is_some_and(|order| order.passed.is_some()) => {
            let passed = job.stop.as_ref().and_then(|order| order.passed);
            let reason = passed.map(|passed| job.reason_for(passed.deadline)).unwrap_or_default();
            format!("{reason}: attempt {} on {} has been told to stop", job.attempt, host())
        }
        Status::Stopping => format!("attempt {} on {} has been told to stop", job.attempt, host()),
        Status::Succeeded | Status::Failed | Status::Cancelled => format!("job {id} {}{because}", job.status),
    }
}

/// When that is, if the job has a deadline.
fn given_up(job: &Job) -> String {
    let passed = job.give_up();
    passed.map_or_else(String::new, |passed| match passed.deadline {
        Deadline::Start => format!("; if it is not started by {}, it is given up", passed.due_at),
        Deadline::Finish => format!("; if it is not finished by {}, it is given up", passed.due_at),
    })
}

fn waiting(state: &State) -> u64 {
    let count = |status| state.counts().get(&status).copied().unwrap_or_default();
    count(Status::Pending) + count(Status::Restarting)
}
