//! Executors and zones that are emptied: on request, because they are not well, or because nothing starts there.

use super::scene::*;
use crate::evacuate::{overdue, releases};
use crate::plan::{Hints, plan};
use crate::state::RELEASE_CONFIRMATION;
use crate::timer;
use outlive_schemas::command::Command;
use outlive_schemas::error::ErrorCode;
use outlive_schemas::event::{
    Cause, Event, ExecutorDraining, ExecutorUndrained, JobRestarting, ZoneDraining, ZoneNamed,
};
use outlive_schemas::id::{Attempt, ExecutorId, ExecutorRef, JobId, Zone};
use outlive_schemas::message::{Otherwise, Outcome, Release, Released};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use std::collections::BTreeSet;

fn by_name(executor: ExecutorId) -> ExecutorRef {
    ExecutorRef::Name(name_of(executor))
}

fn drain(executor: ExecutorId, deadline: Timestamp) -> Command {
    Command::DrainExecutor { origin: origin(None), executor: by_name(executor), deadline }
}

fn undrain(executor: ExecutorRef) -> Command {
    Command::UndrainExecutor { origin: origin(None), executor }
}

fn drain_zone(zone: Zone, deadline: Timestamp) -> Command {
    Command::DrainZone { origin: origin(None), zone, deadline }
}

fn draining(executor: ExecutorId, deadline: Timestamp) -> Event {
    Event::ExecutorDraining(ExecutorDraining { name: name_of(executor), deadline, request_id: None })
}

fn zone_draining(name: &str, deadline: Timestamp) -> Event {
    Event::ZoneDraining(ZoneDraining { zone: zone(name), deadline, request_id: None })
}

/// Who is to give back what, and for which cause.
fn ordered(scene: &Scene, degraded: &[ExecutorId]) -> Vec<(ExecutorId, JobId, Cause)> {
    let degraded: BTreeSet<ExecutorId> = degraded.iter().copied().collect();
    let hints = Hints { avoid: degraded.clone(), ..Hints::default() };
    let orders = releases(&scene.state, &degraded, &hints, scene.time());
    orders.into_iter().map(|(executor, order)| (executor, order.job, order.cause)).collect()
}

fn placements(scene: &Scene) -> Vec<ExecutorId> {
    let plan = plan(&scene.state, &Hints::default(), scene.time(), 100);
    plan.proposals.iter().map(|proposal| proposal.executor).collect()
}

#[test]
fn a_drained_executor_gives_back_what_it_holds_and_gets_nothing() {
    let scene = given([joined(A), joined(B)])
        .and(running(job(1), service(), A))
        .and(running(job(2), service(), B))
        .and([submitted(job(3), noop()), placed(job(3), 1, A)])
        .when(drain(A, at(60_000)))
        .then([draining(A, at(60_000))]);
    // A noop job is over before an order could reach it.
    assert_eq!(ordered(&scene, &[]), [(A, job(1), Cause::Drain)]);
    let (_, order) = releases(&scene.state, &BTreeSet::new(), &Hints::default(), at(10_000))[0];
    let expected = Release::Checkpoint { within: Millis(50_000), otherwise: Otherwise::Kill };
    assert_eq!((order.attempt, order.how), (Attempt(1), expected));
    // Nothing new, not even by a plan of before.
    let scene = scene.and([submitted(job(4), service())]);
    assert_eq!(placements(&scene), [B]);
    let scene = scene.when(place(job(4), 1, A)).stale();
    // Whoever comes back under its name is drained as well.
    let scene = scene.and([lost(A), Event::ExecutorJoined(reborn(A))]);
    assert_eq!(placements(&scene), [B]);
    // Taken back, it gets work again.
    let scene = scene
        .when(undrain(by_name(A)))
        .then([Event::ExecutorUndrained(ExecutorUndrained { name: name_of(A), request_id: None })]);
    assert_ne!(placements(&scene), []);
    scene.when(undrain(by_name(A))).nothing();
}

#[test]
fn draining_twice_changes_only_the_time() {
    let scene = given([joined(A)]).when(drain(A, at(60_000))).then([draining(A, at(60_000))]);
    let scene = scene.at(5).when(drain(A, at(60_005))).nothing();
    let scene = scene.when(drain(A, at(600_000))).then([draining(A, at(600_000))]);
    let scene = scene.when(drain(C, at(1))).refused(ErrorCode::NotFound, "executor-c-1");
    let scene = scene.when(undrain(ExecutorRef::Id(C))).refused(ErrorCode::NotFound, "there is no executor");
    let scene = scene.when(drain_zone(zone("x"), at(1))).refused(ErrorCode::NotFound, "zone `x`");
    scene.when(drain(A, Timestamp(u64::MAX))).refused(ErrorCode::InvalidArgument, "year");
}

#[test]
fn a_drained_zone_is_emptied_whoever_comes() {
    let scene = given([joined(A), joined(A2), joined(B)])
        .and(running(job(1), service(), A))
        .and(running(job(2), service(), A2))
        .when(drain_zone(zone("a"), at(1_000)))
        .then([zone_draining("a", at(1_000))]);
    assert_eq!(ordered(&scene, &[]), [(A, job(1), Cause::Drain), (A2, job(2), Cause::Drain)]);
    // Where it is drained itself as well, the sooner of the two counts.
    let sooner = scene.clone().and([draining(A, at(500))]);
    assert_eq!(sooner.state.drain_of(&registration(A)).unwrap().deadline, at(500));
    let scene = scene.and([submitted(job(3), service())]);
    assert_eq!(placements(&scene), [B]);
    let undrain = Command::UndrainZone { origin: origin(None), zone: zone("a") };
    let scene =
        scene.when(undrain.clone()).then([Event::ZoneUndrained(ZoneNamed { zone: zone("a"), request_id: None })]);
    assert_eq!(ordered(&scene, &[]), []);
    scene.when(undrain).nothing();
}

#[test]
fn what_is_not_given_back_in_time_is_taken_unless_it_must_never_run_twice() {
    let alone = service().with(|spec| spec.exclusive = true);
    let scene = given([joined(A), joined(B)])
        .and(running(job(1), service(), A))
        .and(running(job(2), alone, A))
        .and([draining(A, at(1_000))]);
    let late = 1_000 + RELEASE_CONFIRMATION.0;
    let taken = |ms| -> Vec<JobId> { overdue(&scene.state, at(ms), 10).into_iter().map(|(job, _)| job).collect() };
    assert_eq!(taken(late - 1), []);
    assert_eq!(taken(late), [job(1)]);
    let withdraw = |number| Command::WithdrawAttempt { job: job(number), attempt: Attempt(1), cause: Cause::Drain };
    let scene = scene.at(late - 1).when(withdraw(1)).stale();
    let scene = scene.at(late).when(withdraw(2)).stale();
    let (scene, _) = scene.when(withdraw(1)).happened();
    let moved = scene.job(job(1));
    assert_eq!((moved.status, moved.recovering.as_ref().unwrap().cause), (Status::Restarting, Cause::Drain));
}

#[test]
fn one_that_is_not_well_is_emptied_where_there_is_better_room() {
    let scene = given([joined(A), joined(A2), joined(B), joined(B2), joined(C)])
        .and(running(job(1), service(), A))
        .and(running(job(2), service(), A2))
        .and(running(job(3), service(), B));
    assert_eq!(ordered(&scene, &[]), []);
    assert_eq!(ordered(&scene, &[A]), [(A, job(1), Cause::HostDegraded)]);
    assert_eq!(ordered(&scene, &[A, B]), [(A, job(1), Cause::HostDegraded), (B, job(3), Cause::HostDegraded)]);
    // More than half of a zone, or of all: that is not the hosts.
    assert_eq!(ordered(&scene, &[A, A2]), []);
    assert_eq!(ordered(&scene, &[A, B, C]), []);
    // A zone of one may be emptied.
    let scene = scene.and(running(job(4), service(), C));
    assert_eq!(ordered(&scene, &[C]), [(C, job(4), Cause::HostDegraded)]);
    // Nothing leaves without room.
    let full = scene.and(running(job(5), service().needing(800, 64).in_zones(&["c"]), C));
    assert_eq!(ordered(&full, &[C]), [(C, job(4), Cause::HostDegraded)], "the other may be nowhere else");
    // A few at a time.
    let crowd = (10..25).flat_map(|number| running(job(number), service().needing(1, 1), A));
    let crowded = given([joined(A), joined(B), joined(C)]).and(crowd.collect::<Vec<_>>());
    assert_eq!(ordered(&crowded, &[A]).len(), outlive_schemas::limits::EVACUATIONS_AT_ONCE_MAX);
}

#[test]
fn a_start_that_takes_too_long_is_tried_elsewhere_and_fails_in_the_end() {
    let spec = batch().attempts(Some(2)).with(|spec| spec.checkpoint.timeout = Millis::secs(1));
    let alone = batch().with(|spec| (spec.exclusive, spec.checkpoint.timeout) = (true, Millis::secs(1)));
    let scene = given([joined(A), joined(B)]).and([
        submitted(job(1), spec),
        placed(job(1), 1, A),
        submitted(job(2), alone),
        placed(job(2), 1, A),
    ]);
    let by = scene.job(job(1)).start_by().unwrap().since(T0).0;
    assert_eq!(by, 121_000);
    assert_eq!(timer::due(&scene.state, at(by - 1), 10), []);
    let withdraw = |attempt| Command::WithdrawAttempt { job: job(1), attempt: Attempt(attempt), cause: Cause::Timeout };
    assert_eq!(timer::due(&scene.state, at(by), 10), [withdraw(1)]);
    let scene = scene.at(by);
    // Only its executor can let go of one that must never run twice.
    assert_eq!(ordered(&scene, &[]), [(A, job(1), Cause::Timeout), (A, job(2), Cause::Timeout)]);
    let (scene, events) = scene.when(withdraw(1)).happened();
    let [Event::JobRestarting(JobRestarting { cause, reason, failures, .. })] =
        &events.iter().map(|e| e.event.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*cause, *failures), (Cause::Timeout, 1));
    assert!(reason.contains("executor-a-1 has not started it within 2m1s"), "{reason}");
    assert_eq!(timer::due(&scene.state, at(by), 10), []);
    // The second is let go by its executor, which is the same failure.
    let scene = scene.and([placed(job(1), 2, B)]);
    let outcome = Outcome::Released(Released { cause: Cause::Timeout, checkpoint: None, fault: None });
    let (scene, _) = scene.when(report(B, job(1), 2, ended(outcome, 0))).happened();
    assert_eq!(scene.job(job(1)).status, Status::Failed);
    assert!(scene.job(job(1)).reason.as_ref().unwrap().contains("2 of 2 attempts failed"));
}
