//! Why a job is where it is, for people. The rules are the planner's own.

use crate::plan::{Hints, feasible};
use crate::queue::Shape;
use crate::state::{Job, State};
use outlive_schemas::id::JobId;
use outlive_schemas::limits;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{Refusal, Status, Why};

pub fn why(state: &State, hints: &Hints, id: JobId, job: &Job, now: Timestamp) -> Why {
    let reasons = if job.is_queued() { refusals(state, hints, job) } else { Vec::new() };
    Why { status: job.status, summary: summary(state, id, job, &reasons, now), reasons }
}

fn refusals(state: &State, hints: &Hints, job: &Job) -> Vec<Refusal> {
    let shape = Shape::of(&job.spec);
    let refused = state.executors.iter().filter_map(|(id, e)| {
        let because = if !e.is_alive() {
            "it is lost".to_owned()
        } else if hints.avoid.contains(id) {
            "it is silent, degraded or going".to_owned()
        } else {
            feasible::fits(&shape, &e.registration, &e.free()).err()?.to_string()
        };
        Some(Refusal {
            executor: e.registration.name.clone(),
            zone: e.registration.zone.clone(),
            refused_because: because,
        })
    });
    refused.take(limits::WHY_REASONS_MAX).collect()
}

fn summary(state: &State, id: JobId, job: &Job, reasons: &[Refusal], now: Timestamp) -> String {
    let host = || match &job.last_host {
        Some((name, zone)) => format!("{name} in zone {zone}"),
        None => "no executor".to_owned(),
    };
    let because = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match job.status {
        Status::Pending | Status::Restarting if job.ready_at > now => {
            format!("attempt {} ended{because}; the next is tried at {}", job.attempt, job.ready_at)
        }
        Status::Pending | Status::Restarting => {
            let alive = state.executors.values().filter(|e| e.is_alive()).count();
            let refused = reasons.iter().filter(|r| r.refused_because != "it is lost").count();
            match (alive, alive.saturating_sub(refused)) {
                (0, _) => "it waits for an executor: none is there".to_owned(),
                (_, 0) => format!("it waits for room: none of the {alive} executors can take it"),
                _ => format!("it is about to be placed; {} jobs wait", waiting(state)),
            }
        }
        Status::Starting => match job.placement.and_then(|p| p.restore) {
            Some(number) => format!("attempt {} is being restored from checkpoint {number} on {}", job.attempt, host()),
            None => format!("attempt {} is being started on {}", job.attempt, host()),
        },
        Status::Running => format!("attempt {} runs on {}", job.attempt, host()),
        Status::Stopping => format!("attempt {} on {} has been told to stop", job.attempt, host()),
        Status::Succeeded | Status::Failed | Status::Cancelled => format!("job {id} {}{because}", job.status),
        other => format!("job {id} is {other}"),
    }
}

fn waiting(state: &State) -> u64 {
    let count = |status| state.counts().get(&status).copied().unwrap_or_default();
    count(Status::Pending) + count(Status::Restarting)
}
