//! How long things are kept: finished jobs, what deleted ones left, and what nobody refers to.

use super::scene::*;
use crate::referenced;
use crate::retention::{RETENTION, Retention, due};
use outlive_schemas::command::Command;
use outlive_schemas::error::ErrorCode::InvalidArgument;
use outlive_schemas::event::{CollectionHeld, Event, JobErased};
use outlive_schemas::id::JobId;
use outlive_schemas::limits;
use outlive_schemas::message::News;
use outlive_schemas::time::Millis;
use outlive_schemas::view::Status;

const RULES: Retention = Retention { finished_for: Millis(10_000), finished_max: 3, finished_at_least: Millis(1_000) };

/// Jobs 1 to `count`, of which each ended a second after the one before, the first at `T0`.
fn ended(count: u64) -> Scene {
    let mut scene = given([joined(A)]);
    for number in 1..=count {
        scene = scene.at((number - 1) * 1_000);
        scene = scene.and(running(job(number), batch(), A));
        scene = scene.and([finished(job(number), 1, Status::Succeeded, None, Some(0))]);
    }
    scene
}

fn go(scene: &Scene) -> Vec<JobId> {
    let commands = due(&scene.state, &RULES, scene.time(), 100);
    let jobs = commands.into_iter().map(|command| match command {
        Command::ExpireJob { job } => job,
        other => panic!("{other:?}"),
    });
    jobs.collect()
}

fn expire(job: JobId) -> Command {
    Command::ExpireJob { job }
}

fn erased(job: JobId) -> Event {
    Event::JobErased(JobErased { job })
}

#[test]
fn a_job_goes_when_it_is_old_and_not_before() {
    let scene = ended(2).at(9_999);
    assert_eq!(go(&scene), []);
    let scene = scene.at(10_000);
    assert_eq!(go(&scene), [job(1)]);
    let (scene, events) = scene.when(expire(job(1))).happened();
    assert_eq!(events[0].by.as_deref(), Some(RETENTION));
    assert_eq!(events[0].event, deleted(job(1)));
    assert_eq!(go(&scene), []);
    assert_eq!(go(&scene.at(11_000)), [job(2)]);
}

#[test]
fn of_too_many_the_oldest_go_unless_they_are_new() {
    let scene = ended(5).at(4_500);
    // Two too many; the fifth ended half a second ago.
    assert_eq!(go(&scene), [job(1), job(2)]);
    assert_eq!(due(&scene.state, &RULES, scene.time(), 1).len(), 1, "never more than asked for");
    let rules = Retention { finished_max: 0, ..RULES };
    let all = due(&scene.state, &rules, scene.time(), 100);
    assert_eq!(all.len(), 4, "the newest is kept for a while, whatever the number");
}

#[test]
fn what_is_not_over_does_not_go() {
    let scene = given([joined(A)]).and(running(job(1), service(), A)).and([submitted(job(2), batch())]);
    let scene = scene.at(1_000_000);
    assert_eq!(go(&scene), []);
    let scene = scene.when(expire(job(1))).stale();
    scene.when(expire(job(3))).stale();
}

#[test]
fn a_job_stays_for_as_long_as_somebody_keeps_a_snapshot_of_it() {
    let kept = "kept".parse().expect("a name");
    let scene = given([joined(A)]).and(running(job(1), batch(), A)).and([checkpointed(job(1), 1, 1)]);
    let scene = scene.when(create_snapshot(job(1), "kept")).happened().0;
    let told = News::Snapshot { up_to: 1, manifest: Some(taken(1).manifest) };
    let scene = scene.when(report(A, job(1), 1, told)).happened().0;
    // One that is not ready by then has failed, and is no reason to keep anything.
    let scene = scene.when(create_snapshot(job(1), "late")).happened().0;
    let scene = scene.when(report(A, job(1), 1, exited(0))).happened().0.at(90_000_000);
    assert_eq!(scene.job(job(1)).status, Status::Succeeded);
    assert_eq!(go(&scene), []);
    scene.clone().when(expire(job(1))).stale();
    assert!(scene.job(job(1)).life.as_ref().is_some_and(|life| life.snapshot(&kept).is_some()));
    let scene = scene.when(delete_snapshot(job(1), "kept", T0)).happened().0;
    assert_eq!(go(&scene), [job(1)]);
    scene.when(expire(job(1))).happened();
}

#[test]
fn what_a_deleted_job_left_is_remembered_until_it_is_erased() {
    let scene = ended(1).when(delete(job(1), None)).then([deleted(job(1))]);
    assert_eq!(scene.state.to_erase.keys().copied().collect::<Vec<_>>(), [job(1)]);
    let confirm = || Command::ConfirmErasure { job: job(1) };
    let scene = scene.when(confirm()).then([erased(job(1))]);
    assert!(scene.state.to_erase.is_empty());
    let scene = scene.when(confirm()).nothing();
    // Of a log that an earlier version's image stands for, the deletion may not be known.
    scene.and([erased(job(1))]);
}

#[test]
fn a_job_that_never_had_a_process_leaves_nothing() {
    let scene = given([joined(A), submitted(job(1), batch()), submitted(job(2), noop()), placed(job(2), 1, A)])
        .and([finished(job(1), 0, Status::Cancelled, None, None), finished(job(2), 1, Status::Succeeded, None, None)])
        .and([deleted(job(1)), deleted(job(2))]);
    assert!(scene.state.to_erase.is_empty());
}

#[test]
fn retained_checkpoints_are_referred_to_and_no_others() {
    let mut scene = given([joined(A)]).and(running(job(1), service(), A));
    for number in 1..=5 {
        scene = scene.and([checkpointed(job(1), 1, number)]);
    }
    let manifests = |numbers: &[u64]| numbers.iter().map(|number| taken(*number).manifest).collect::<Vec<_>>();
    assert_eq!(referenced::manifests(scene.job(job(1))), manifests(&[3, 4, 5]));
}

#[test]
fn collecting_is_held_for_a_while_and_never_let_go_early() {
    let hold = |until| Command::HoldCollection { by: Some("somebody".into()), until };
    let held = |until| Event::CollectionHeld(CollectionHeld { until });
    let scene = given([]);
    let scene = scene.when(hold(at(60_000))).then([held(at(60_000))]);
    assert_eq!(scene.state.collection_held_until, at(60_000));
    let scene = scene.at(10).when(hold(at(50_000))).nothing();
    let scene = scene.when(hold(at(70_000))).then([held(at(70_000))]);
    scene.when(hold(at(11 + limits::COLLECTION_HOLD_MS_MAX))).refused(InvalidArgument, "for");
}
