//! Executors coming and going, and what becomes of their jobs.

use super::scene::*;
use outlive_schemas::command::{Command, LossReason};
use outlive_schemas::error::ErrorCode::{InUse, LimitExceeded};
use outlive_schemas::event::{Cause, Event, ExecutorLost, JobRestarting};
use outlive_schemas::executor::{Capacity, Registration};
use outlive_schemas::id::Attempt;
use outlive_schemas::limits;
use outlive_schemas::view::Status;

fn admit(registration: Registration) -> Command {
    Command::AdmitExecutor(registration)
}

#[test]
fn an_executor_is_admitted_once() {
    let scene = given([]).at(5).when(admit(registration(A))).then([joined(A)]);
    let executor = &scene.state.executors[&A];
    assert!(executor.is_alive() && executor.joined_at == at(5));
    assert_eq!(executor.free(), registration(A).capacity);
    scene.when(admit(registration(A))).stale();
}

#[test]
fn a_namesake_waits_until_the_older_one_is_lost() {
    let scene = given([joined(A)]);
    let message = format!("executor {A} goes by the name `executor-a-1` and is not lost");
    let scene = scene.when(admit(reborn(A))).refused(InUse, &message);
    let scene = scene.and([lost(A)]).when(admit(reborn(A))).then([Event::ExecutorJoined(reborn(A))]);
    assert_eq!(scene.state.executors.keys().collect::<Vec<_>>(), [&reborn(A).id], "the lost one is shown no longer");
}

#[test]
fn a_lost_namesake_is_kept_until_its_jobs_are_off_it() {
    let scene = given([joined(A)]).and(running(job(1), batch(), A)).and([lost(A)]);
    let scene = scene.when(admit(reborn(A))).then([Event::ExecutorJoined(reborn(A))]);
    assert_eq!(scene.state.executors.len(), 2);
    assert_eq!(scene.state.to_evict().collect::<Vec<_>>(), [A]);
    let scene = scene.when(evict(job(1), 1)).happened().0;
    assert_eq!(scene.state.executors.keys().collect::<Vec<_>>(), [&reborn(A).id]);
    assert_eq!(scene.state.to_evict().count(), 0);
}

#[test]
fn one_that_was_lost_does_not_come_back_under_its_old_id() {
    given([joined(A), lost(A)]).when(admit(registration(A))).stale();
}

#[test]
fn what_an_executor_says_of_itself_has_limits() {
    let with = |change: fn(&mut Registration)| {
        let mut absurd = registration(A);
        change(&mut absurd);
        admit(absurd)
    };
    for (command, part) in [
        (with(|r| r.host = "h".repeat(300)), "`host`"),
        (with(|r| r.version = "v".repeat(300)), "`version`"),
        (with(|r| r.capacity.slots = limits::SLOTS_MAX + 1), "`capacity.slots` is 100001"),
        (with(|r| r.capacity.cpu_millis = u64::MAX), "`capacity.cpu_millis`"),
        (with(|r| r.capacity.memory_bytes = u64::MAX), "`capacity.memory_bytes`"),
        (with(|r| r.labels = (0..100).map(|n| (format!("l{n}").into(), "".into())).collect()), "`labels`"),
        (with(|r| r.labels = [("k".into(), "v".repeat(200).into())].into()), "`labels`"),
    ] {
        given([]).when(command).refused(LimitExceeded, part);
    }
    let bare = with(|r| r.capacity = Capacity::default());
    assert!(given([]).when(bare).happened().0.state.executors[&A].is_alive());
}

#[test]
fn a_loss_is_noted_once() {
    let scene = given([joined(A)]).at(3_000).when(lose(A, at(1_000))).then([Event::ExecutorLost(ExecutorLost {
        executor: A,
        reason: LossReason::ProcessGone,
        last_seen: at(1_000),
    })]);
    assert!(!scene.state.executors[&A].is_alive());
    scene.when(lose(A, at(1_000))).stale();
    given([]).when(lose(A, T0)).stale();
}

#[test]
fn a_last_sign_of_life_is_not_before_the_first() {
    let (scene, _) = given([]).at(500).and([joined(A)]).at(900).when(lose(A, T0)).happened();
    assert_eq!(scene.state.executors[&A].lost.unwrap().last_seen, at(500));
}

#[test]
fn jobs_are_taken_off_a_lost_executor_one_by_one() {
    let scene = given([joined(A), joined(B)])
        .and(running(job(1), batch(), A))
        .and([submitted(job(2), batch()), placed(job(2), 1, A)])
        .and(running(job(3), batch(), B));
    let scene = scene.at(2_000).when(lose(A, at(1_500))).happened().0;
    assert_eq!(scene.state.to_evict().collect::<Vec<_>>(), [A]);
    // Until then they show what they were: nothing has been decided.
    assert_eq!(scene.job(job(1)).status, Status::Running);
    let scene = scene.at(2_100).when(evict(job(1), 1)).then([Event::JobRestarting(JobRestarting {
        job: job(1),
        attempt: Attempt(1),
        cause: Cause::ExecutorLost,
        reason: "executor executor-a-1 was lost: process_gone".into(),
        exit_code: None,
        failures: 0,
        lost_at: at(1_500),
        next_try_at: at(2_100),
    })]);
    assert_eq!(scene.state.to_evict().collect::<Vec<_>>(), [A]);
    let scene = scene.when(evict(job(2), 1)).happened().0;
    assert_eq!(scene.state.to_evict().count(), 0);
    assert_eq!(scene.state.executors[&A].allocated, Capacity::default());
    assert_eq!(scene.job(job(3)).status, Status::Running);
    scene.clone().when(evict(job(1), 1)).stale();
    scene.when(evict(job(2), 2)).stale();
}

#[test]
fn a_job_is_not_said_to_have_been_lost_before_it_was_there() {
    // The executor fell silent at T0; the job came later, and was placed there before anybody noticed.
    let scene = given([joined(A)]).at(1_000).and([submitted(job(1), batch()), placed(job(1), 1, A)]);
    let (_, events) = scene.at(2_000).when(lose(A, T0)).happened().0.when(evict(job(1), 1)).happened();
    let Event::JobRestarting(restarting) = &events[0].event else { panic!("{events:?}") };
    assert_eq!(restarting.lost_at, at(1_000));
}

#[test]
fn a_leader_that_never_heard_an_executor_counts_from_what_the_log_has_heard() {
    // It came with the loss, and knows when the executor joined; the log knows of a start and a checkpoint.
    let lost_at = |scene: Scene| {
        let (scene, events) = scene.at(9_000).when(lose(A, T0)).happened();
        let Event::ExecutorLost(lost) = &events[0].event else { panic!("{events:?}") };
        let (_, events) = scene.when(evict(job(1), 1)).happened();
        let Event::JobRestarting(restarting) = &events[0].event else { panic!("{events:?}") };
        (lost.last_seen, restarting.lost_at)
    };
    let placed = given([joined(A)]).and([submitted(job(1), service())]).at(1_000).and([placed(job(1), 1, A)]);
    assert_eq!(lost_at(placed.clone()), (T0, at(1_000)), "not before it was placed");
    let started = placed.at(3_000).and([started(job(1), 1, at(2_000))]);
    assert_eq!(lost_at(started.clone()), (at(2_000), at(2_000)));
    let stored = started.at(5_000).and([checkpointed(job(1), 1, 1)]);
    assert_eq!(lost_at(stored.clone()), (at(5_000), at(5_000)));
    // What any of its attempts says is its sign of life; what another executor's says is not.
    let beside = |on| stored.clone().at(6_000).and([joined(B)]).and(running(job(2), service(), on));
    let later = |on| lost_at(beside(on).at(7_000).and([checkpointed(job(2), 1, 1)])).1;
    assert_eq!((later(A), later(B)), (at(7_000), at(5_000)));
    // An attempt before it was somebody else's.
    let moved = given([joined(A), joined(B)]).and(running(job(1), service(), B)).at(4_000);
    let moved = moved.and([checkpointed(job(1), 1, 1), restarting(job(1), 1, Cause::Drain, 0)]);
    let (scene, _) = moved.at(4_500).and([placed_from(job(1), 2, A, 1)]).at(9_000).when(lose(A, T0)).happened();
    assert_eq!(scene.state.executors[&A].lost.unwrap().last_seen, T0);
}

#[test]
fn nothing_is_taken_off_an_executor_that_lives() {
    given([joined(A)]).and(running(job(1), batch(), A)).when(evict(job(1), 1)).stale();
    given([joined(A), lost(A), submitted(job(1), batch())]).when(evict(job(1), 0)).stale();
    given([]).when(evict(job(1), 1)).stale();
}

#[test]
fn the_number_of_lost_executors_shown_is_bounded() {
    let mut scene = given([]);
    scene.checked = false;
    for number in 0..1_100_u128 {
        let id = outlive_schemas::id::ExecutorId(uuid::Uuid::from_u128(A.0.as_u128() + (number << 16)));
        let name = format!("executor-{number}").parse().unwrap();
        let gone = Event::ExecutorLost(ExecutorLost { executor: id, reason: LossReason::Left, last_seen: T0 });
        scene = scene.and([Event::ExecutorJoined(Registration { id, name, ..registration(A) }), gone]);
    }
    scene.checked = true;
    assert_eq!(scene.and([joined(B)]).state.executors.len(), 1_001);
}
