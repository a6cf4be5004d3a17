//! A checkpoint that cannot be read: the one before it, and never an empty state in its place.

use super::scene::*;
use outlive_schemas::event::{Cause, CheckpointUnreadable, Event, JobRestarting};
use outlive_schemas::id::{Attempt, CheckpointNumber};
use outlive_schemas::message::Outcome;
use outlive_schemas::view::Status;

/// Three checkpoints, and an attempt 2 that is being restored from the newest.
fn restoring() -> Scene {
    given([joined(A), joined(B)])
        .and(running(job(1), batch(), A))
        .and((1..=3).map(|number| checkpointed(job(1), 1, number)))
        .and([lost(A), restarting(job(1), 1, Cause::ExecutorLost, 0), placed_from(job(1), 2, B, 3)])
}

fn struck_off(attempt: u32, number: u64) -> Event {
    Event::CheckpointUnreadable(CheckpointUnreadable {
        job: job(1),
        attempt: Attempt(attempt),
        number: CheckpointNumber(number),
        reason: "a chunk is missing".into(),
    })
}

fn going_back(attempt: u32, from: u64, to: u64) -> Event {
    Event::JobRestarting(JobRestarting {
        job: job(1),
        attempt: Attempt(attempt),
        cause: Cause::ProcessExit,
        reason: format!("checkpoint {from} cannot be read (a chunk is missing); going back to {to}").into(),
        exit_code: None,
        failures: 0,
        lost_at: T0,
        next_try_at: T0,
    })
}

#[test]
fn the_ladder_goes_down_to_the_oldest_and_then_the_job_has_failed() {
    let scene = restoring()
        .when(report(B, job(1), 2, unreadable(3)))
        .then([struck_off(2, 3), going_back(2, 3, 2)])
        .when(place(job(1), 3, B))
        .then([placed_from(job(1), 3, B, 2)])
        .when(report(B, job(1), 3, unreadable(2)))
        .then([struck_off(3, 2), going_back(3, 2, 1)])
        .when(place(job(1), 4, B))
        .then([placed_from(job(1), 4, B, 1)]);
    let reason = "checkpoint 1 cannot be read (a chunk is missing), and there is none before it";
    let scene = scene
        .when(report(B, job(1), 4, unreadable(1)))
        .then([struck_off(4, 1), finished(job(1), 4, Status::Failed, Some(reason), None)]);
    assert!(scene.job(job(1)).checkpoints.is_empty());
    assert_eq!(scene.job(job(1)).failures, 0, "none of it was the job's doing");
}

#[test]
fn the_recovery_tells_what_it_was_restored_from_in_the_end() {
    let scene = restoring().when(report(B, job(1), 2, unreadable(3))).happened().0;
    let scene = scene.when(place(job(1), 3, B)).happened().0.and([started(job(1), 3, at(700))]);
    let recovery = scene.job(job(1)).last_recovery.as_deref().unwrap();
    assert_eq!((recovery.cause, recovery.restored), (Cause::ExecutorLost, Some(CheckpointNumber(2))));
    assert_eq!((recovery.lost_at, recovery.resumed_at), (T0, at(700)));
}

#[test]
fn numbers_go_on_above_one_that_was_struck_off() {
    let scene = restoring().when(report(B, job(1), 2, unreadable(3))).happened().0;
    let scene = scene.when(place(job(1), 3, B)).happened().0.and([started(job(1), 3, T0)]);
    let (scene, _) = scene.when(report(B, job(1), 3, outlive_schemas::message::News::Checkpoint(taken(9)))).happened();
    let numbers: Vec<_> = scene.job(job(1)).checkpoints.iter().map(|c| c.number.0).collect();
    assert_eq!(numbers, [1, 2, 4]);
}

#[test]
fn a_checkpoint_that_the_job_does_not_have_cannot_be_struck_off() {
    // Such a report is a failed attempt like any other: counted, and delayed.
    let (scene, events) = restoring().when(report(B, job(1), 2, unreadable(99))).happened();
    assert_eq!(events.len(), 1);
    let failed = scene.job(job(1));
    assert_eq!((failed.status, failed.failures, failed.ready_at), (Status::Restarting, 1, at(1_000)));
    assert_eq!(failed.checkpoints.len(), 3);
    // A job without any ends as its policy says, too.
    let mut scene = given([joined(A)]).and(running(job(1), batch(), A));
    for attempt in 1..=3 {
        scene = scene.when(report(A, job(1), attempt, unreadable(1))).happened().0.at(u64::from(attempt) * 10_000);
        if attempt < 3 {
            scene = scene.when(place(job(1), attempt + 1, A)).happened().0;
        }
    }
    assert_eq!(scene.job(job(1)).status, Status::Failed);
}

#[test]
fn an_attempt_is_placed_from_the_newest_checkpoint() {
    let scene = given([joined(A), joined(B), submitted(job(1), batch())]);
    let scene = scene.when(place(job(1), 1, A)).then([placed(job(1), 1, A)]);
    let scene = scene.and([started(job(1), 1, T0), checkpointed(job(1), 1, 1), checkpointed(job(1), 1, 2)]);
    let crash = ended(Outcome::Exited { code: 1 }, 10);
    let scene = scene.when(report(A, job(1), 1, crash)).happened().0.at(1_000);
    scene.when(place(job(1), 2, A)).then([placed_from(job(1), 2, A, 2)]);
}
