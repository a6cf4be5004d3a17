//! Zones lost as a whole, and trusted again.

use super::scene::*;
use crate::detect::zone::{LOST_TOGETHER, SETTLE_DEFAULT, ZoneVerdict, zones};
use crate::detect::{Observations, Observed};
use crate::plan::{Hints, plan};
use outlive_schemas::command::{Command, LossReason};
use outlive_schemas::event::{Cause, Event, ExecutorLost, ZoneLost, ZoneNamed};
use outlive_schemas::id::ExecutorId;
use outlive_schemas::time::Millis;
use outlive_schemas::view::Status;

/// What is judged of zones now, by a leader that hears itself and whoever is alive.
fn judged(scene: &Scene, observations: &mut Observations) -> Vec<ZoneVerdict> {
    let now = scene.time();
    observations.own_beat_heard = Some(now);
    zones(&scene.state, observations, SETTLE_DEFAULT, now)
}

fn watching(executors: &[ExecutorId]) -> Observations {
    let mut observations = Observations { listening_since: T0 - Millis(60_000), ..Default::default() };
    for &executor in executors {
        observations.executors.insert(executor, Observed::new(zone_of(executor), T0));
    }
    observations
}

fn heard(observations: &mut Observations, ms: u64) {
    observations.executors.values_mut().for_each(|e| e.heard(at(ms)));
}

fn zone_lost(name: &str, executors: u32) -> Event {
    Event::ZoneLost(ZoneLost { zone: zone(name), executors })
}

fn lose_zone(name: &str) -> Command {
    Command::LoseZone { zone: zone(name) }
}

#[test]
fn a_zone_is_lost_with_the_last_of_its_executors() {
    let scene = given([joined(A), joined(A2), joined(B)]).at(1_000).and([lost(A)]);
    let mut observations = watching(&[A2, B]);
    heard(&mut observations, 1_000);
    assert_eq!(judged(&scene, &mut observations), []);
    let scene = scene.when(lose_zone("a")).stale();
    let scene = scene.at(1_000 + LOST_TOGETHER.0).and([lost(A2)]);
    observations.executors.remove(&A2);
    heard(&mut observations, 6_000);
    assert_eq!(judged(&scene, &mut observations), [ZoneVerdict::Lost(zone("a"))]);
    let scene = scene.when(lose_zone("a")).then([zone_lost("a", 2)]);
    assert_eq!(judged(&scene, &mut observations), []);
    scene.when(lose_zone("a")).stale();

    // Too far apart, they were two losses.
    let scene = given([joined(A), joined(A2), joined(B)]).and([lost(A)]).at(LOST_TOGETHER.0 + 1).and([lost(A2)]);
    let mut observations = watching(&[B]);
    heard(&mut observations, LOST_TOGETHER.0 + 1);
    assert_eq!(judged(&scene, &mut observations), [ZoneVerdict::Probe(zone("a"))]);
}

#[test]
fn the_only_executor_of_a_zone_says_nothing_of_the_zone_by_itself() {
    let scene = given([joined(A), joined(B)]).at(1_000).and([lost(A)]);
    let mut observations = watching(&[B]);
    heard(&mut observations, 1_000);
    assert_eq!(judged(&scene, &mut observations), [ZoneVerdict::Probe(zone("a"))]);
    assert_eq!(judged(&scene, &mut observations), [], "not too often");
    // Somebody there answers: nothing but a process was lost.
    let answered = scene.clone().at(1_100);
    assert_eq!(judged(&answered, &mut observations), [ZoneVerdict::Probe(zone("a"))]);
    // Nobody does.
    observations.zones.get_mut(&zone("a")).unwrap().unanswered = 1;
    assert_eq!(judged(&scene.at(1_150), &mut observations), [ZoneVerdict::Lost(zone("a"))]);
}

#[test]
fn whoever_leaves_is_not_lost() {
    let left = |executor| Event::ExecutorLost(ExecutorLost { executor, reason: LossReason::Left, last_seen: T0 });
    let scene = given([joined(A), joined(A2), joined(B)]).at(1_000).and([left(A), left(A2)]);
    let mut observations = watching(&[B]);
    heard(&mut observations, 1_000);
    assert_eq!(judged(&scene, &mut observations), []);
    scene.when(lose_zone("a")).stale();
}

#[test]
fn a_lost_zone_settles_before_it_gets_work() {
    let scene = given([joined(A), joined(B)]).and([lost(A), zone_lost("a", 1), Event::ExecutorJoined(reborn(A))]);
    let back = reborn(A).id;
    let scene =
        scene.and([submitted(job(1), service().needing(900, 64)), submitted(job(2), service().needing(900, 64))]);
    let placements = |scene: &Scene| -> Vec<_> {
        plan(&scene.state, &Hints::default(), scene.time(), 10).proposals.iter().map(|p| p.executor).collect()
    };
    assert_eq!(placements(&scene), [B]);
    // A zone that was lost is better than none.
    assert_eq!(placements(&scene.clone().and([lost(B)])), [back]);

    let mut observations = watching(&[back, B]);
    heard(&mut observations, 10_000);
    assert_eq!(judged(&scene.clone().at(10_000), &mut observations), []);
    // A missed beat begins the wait anew.
    assert!(!judged(&scene.clone().at(11_000), &mut observations).contains(&ZoneVerdict::Steady(zone("a"))));
    let settled = 11_000 + SETTLE_DEFAULT.0;
    heard(&mut observations, settled - 1);
    assert_eq!(judged(&scene.clone().at(settled - 1), &mut observations), []);
    let scene = scene.at(settled);
    assert_eq!(judged(&scene, &mut observations), [ZoneVerdict::Steady(zone("a"))]);
    let settle = Command::SettleZone { zone: zone("a") };
    let scene = scene.when(settle.clone()).then([Event::ZoneSteady(ZoneNamed { zone: zone("a"), request_id: None })]);
    assert_eq!(placements(&scene).len(), 2);
    scene.when(settle).stale();
}

#[test]
fn what_was_lost_with_a_zone_says_so_even_if_it_was_taken_off_before() {
    let scene = given([joined(A), joined(A2), joined(B)])
        .and(running(job(1), service(), A))
        .and(running(job(2), service(), A2))
        .and(running(job(3), service(), B))
        .and([lost(A), restarting(job(1), 1, Cause::ExecutorLost, 0), placed(job(1), 2, B)])
        .and([lost(B), restarting(job(3), 1, Cause::ExecutorLost, 0), Event::ExecutorJoined(reborn(B))])
        .and([lost(A2), zone_lost("a", 2)]);
    let cause = |number| scene.job(job(number)).recovering.as_ref().map(|recovering| recovering.cause);
    assert_eq!(cause(1), Some(Cause::ZoneLost), "placed elsewhere, and not up yet");
    assert_eq!(cause(3), Some(Cause::ExecutorLost), "of another zone");
    let (scene, _) = scene
        .when(Command::EvictAttempt { job: job(2), attempt: outlive_schemas::id::Attempt(1), cause: Cause::ZoneLost })
        .happened();
    assert_eq!(scene.job(job(2)).status, Status::Restarting);
    assert_eq!(scene.job(job(2)).reason.as_deref(), Some("zone a was lost"));
}
