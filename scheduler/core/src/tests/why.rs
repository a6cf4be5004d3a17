//! `why` and the planner must not disagree.

use super::scene::*;
use crate::explain::why;
use crate::plan::{Hints, feasible, plan};
use crate::queue::Shape;
use outlive_schemas::event::{Cause, Event};
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{ExecutorId, ExecutorName};
use outlive_schemas::limits;
use outlive_schemas::view::{Status, Why};
use uuid::Uuid;

impl Scene {
    fn why(&self, number: u64) -> Why {
        self.why_with(number, &Hints::default())
    }

    fn why_with(&self, number: u64, hints: &Hints) -> Why {
        why(&self.state, hints, job(number), self.job(job(number)), self.time())
    }
}

fn reasons(why: &Why) -> Vec<(&str, &str)> {
    why.reasons.iter().map(|r| (r.executor.as_str(), r.refused_because.as_str())).collect()
}

fn like(executor: ExecutorId, change: impl FnOnce(&mut Registration)) -> Event {
    let mut registration = registration(executor);
    change(&mut registration);
    Event::ExecutorJoined(registration)
}

#[test]
fn every_executor_says_what_it_has_against_the_job() {
    let small = |r: &mut Registration| r.capacity = Capacity { cpu_millis: 200, memory_bytes: 640 << 20, slots: 16 };
    let hdd = |r: &mut Registration| drop(r.labels.insert("disk".into(), "hdd".into()));
    let scene = given([like(A, small), joined(A2), like(B, hdd), joined(B2), joined(C), lost(C)]);
    let scene = scene.and([submitted(job(1), batch().needing(500, 64).labelled("disk", "ssd").in_zones(&["a", "b"]))]);
    let hints = Hints { avoid: [B2].into(), ..Hints::default() };
    let why = scene.why_with(1, &hints);
    assert_eq!(why.status, Status::Pending);
    assert_eq!(why.summary, "it waits for room: none of the 4 executors can take it");
    assert_eq!(
        reasons(&why),
        [
            ("executor-a-1", "it has no label disk=ssd"),
            ("executor-a-2", "it has no label disk=ssd"),
            ("executor-b-1", "its label disk is hdd, not ssd"),
            ("executor-b-2", "it is silent, degraded or going"),
            ("executor-c-1", "it is lost"),
        ]
    );
}

#[test]
fn every_reason_has_its_words() {
    for (spec, change, because) in [
        (
            batch(),
            (|r| r.drivers = vec![DriverKind::Noop]) as fn(&mut Registration),
            "it does not have the job's driver",
        ),
        (batch().in_zones(&["b"]), |_| {}, "it is in none of the job's zones"),
        (batch().needing(1_500, 64), |_| {}, "cpu: 1500 millicores needed, 1000 free"),
        (batch().needing(100, 641), |_| {}, "memory: 641 MiB needed, 640 MiB free"),
        (batch(), |r| r.capacity.slots = 0, "all its slots are taken"),
    ] {
        let scene = given([like(A, change), submitted(job(1), spec)]);
        assert_eq!(reasons(&scene.why(1)), [("executor-a-1", because)]);
        assert!(plan(&scene.state, &Hints::default(), T0, 10).proposals.is_empty());
    }
}

#[test]
fn an_executor_that_could_take_it_gives_no_reason() {
    let scene = given([joined(A), joined(B), submitted(job(1), batch().in_zones(&["b"])), submitted(job(2), batch())]);
    let why = scene.why(1);
    assert_eq!(why.summary, "it is about to be placed; 2 jobs wait");
    assert_eq!(reasons(&why), [("executor-a-1", "it is in none of the job's zones")]);
}

#[test]
fn where_nobody_is_it_says_so() {
    let scene = given([submitted(job(1), batch())]);
    assert_eq!(
        (scene.why(1).summary.as_str(), scene.why(1).reasons.len()),
        ("it waits for an executor: none is there", 0)
    );
    let scene = given([joined(A), lost(A), submitted(job(1), batch())]);
    assert_eq!(scene.why(1).summary, "it waits for an executor: none is there");
    assert_eq!(reasons(&scene.why(1)), [("executor-a-1", "it is lost")]);
}

#[test]
fn a_large_fleet_is_counted_whole_and_listed_in_part() {
    let mut scene = given([]);
    scene.checked = false;
    for number in 0..400_u128 {
        let id = ExecutorId(Uuid::from_u128(A.0.as_u128() + (number << 16)));
        let name = ExecutorName::new(&format!("executor-{number}")).unwrap();
        scene = scene.and([Event::ExecutorJoined(Registration { id, name, ..registration(A) })]);
    }
    scene = scene.and([lost(A), submitted(job(1), batch().in_zones(&["b"]))]);
    let why = scene.why(1);
    assert_eq!(why.summary, "it waits for room: none of the 399 executors can take it");
    assert_eq!(why.reasons.len(), limits::WHY_REASONS_MAX);
    // Those that could matter come before those that are lost.
    assert!(why.reasons.iter().all(|r| r.refused_because == "it is in none of the job's zones"));
}

#[test]
fn every_status_is_told() {
    let of = |scene: &Scene| scene.why(1).summary;
    let scene = given([joined(A), submitted(job(1), batch()), placed(job(1), 1, A)]);
    assert_eq!(of(&scene), "attempt 1 is being started on executor-a-1 in zone a");
    let scene = scene.and([started(job(1), 1, T0), checkpointed(job(1), 1, 1)]);
    assert_eq!(of(&scene), "attempt 1 runs on executor-a-1 in zone a");
    let failed = scene.clone().when(report(A, job(1), 1, exited(3))).happened().0;
    insta::assert_snapshot!(of(&failed), @"attempt 1 ended: exited with 3; the next is tried at 2023-11-14T22:13:21.000Z");
    assert_eq!(reasons(&failed.why(1)), []);
    let due = failed.at(1_000);
    assert_eq!(of(&due), "it is about to be placed; 1 jobs wait");
    assert_eq!(
        of(&due.and([placed_from(job(1), 2, A, 1)])),
        "attempt 2 is being restored from checkpoint 1 on executor-a-1 in zone a"
    );
    let stopping = scene.and([cancel_requested(job(1), 1, GRACEFUL)]);
    assert_eq!(of(&stopping), "attempt 1 on executor-a-1 in zone a has been told to stop");
    let over = stopping.and([finished(job(1), 1, Status::Cancelled, Some("cancelled"), None)]);
    assert_eq!(of(&over), format!("job {} cancelled: cancelled", job(1)));
    assert!(over.why(1).reasons.is_empty());
}

#[test]
fn an_exclusive_job_says_that_it_waits_for_its_executor() {
    let alone = || service().with(|spec| spec.exclusive = true);
    let up = |spec| given([joined(A), joined(B)]).and(running(job(1), spec, A));
    let unconfirmed = "has not confirmed that nothing of the attempt is left; the end of its lease would do, too";
    let lease = format!("is lost: its lease is certainly over at {} at the earliest", at(7_000));
    let updated = |spec| update_as(origin(None), job(1), 1, spec, true);
    let newer = || alone().with(|spec| spec.priority.0 += 1);
    for change in [cancel(job(1)), kill(job(1)), stop_service(job(1), true), updated(newer())] {
        let before = up(alone());
        assert!(!before.why(1).summary.contains("exclusive") && before.why(1).reasons.is_empty());
        let waits = before.when(change).happened().0;
        let why = waits.why(1);
        assert!(why.summary.ends_with(&format!("; it is exclusive, and waits for its executor, which {unconfirmed}")));
        assert_eq!(reasons(&why), [("executor-a-1", &*format!("it {unconfirmed}"))]);
        let why = waits.and([lost(A)]).why(1);
        assert!(why.summary.ends_with(&format!("waits for its executor, which {lease}")), "{}", why.summary);
        assert_eq!(reasons(&why), [("executor-a-1", &*format!("it {lease}"))]);
    }
    // One that is only to go on elsewhere waits in the same way.
    assert!(up(alone()).and([lost(A)]).why(1).summary.ends_with(&lease));
    // Others do not wait, and a stop with a snapshot goes on or is given up in time.
    let plain = up(service()).when(cancel(job(1))).happened().0.and([lost(A)]);
    let gentle = up(alone()).when(stop_service(job(1), false)).happened().0;
    assert!(plain.why(1).reasons.is_empty() && gentle.why(1).reasons.is_empty());
}

#[test]
fn the_planner_and_why_agree_for_every_executor() {
    let hdd = |r: &mut Registration| drop(r.labels.insert("disk".into(), "hdd".into()));
    let noops = |r: &mut Registration| r.drivers = vec![DriverKind::Noop];
    let tiny = |r: &mut Registration| r.capacity = Capacity { cpu_millis: 150, memory_bytes: 64 << 20, slots: 1 };
    let fleet = given([joined(A), like(A2, hdd), like(B, noops), like(B2, tiny), joined(C), lost(C)]);
    let fleet = fleet.and(running(job(9), batch().needing(950, 600), A));
    let specs = [
        batch(),
        noop(),
        batch().needing(500, 64),
        batch().needing(100, 600),
        batch().in_zones(&["b"]),
        batch().labelled("disk", "hdd"),
        batch().labelled("disk", "ssd"),
    ];
    let mut agreed = 0;
    for spec in specs {
        let scene = fleet.clone().and([submitted(job(1), spec.clone())]);
        let why = scene.why(1);
        for (&id, executor) in &scene.state.executors {
            // Only this one is left: does the planner take it?
            let avoid = scene.state.executors.keys().copied().filter(|other| *other != id).collect();
            let taken = !plan(&scene.state, &Hints { avoid, ..Hints::default() }, T0, 10).proposals.is_empty();
            let given = why.reasons.iter().find(|r| r.executor == executor.registration.name);
            assert_eq!(taken, given.is_none(), "{spec:?} on {}", executor.registration.name);
            let refused = feasible::fits(&Shape::of(&spec), &executor.registration, &executor.free()).err();
            match given {
                Some(reason) if executor.is_alive() => {
                    assert_eq!(Some(&reason.refused_because), refused.map(|r| r.to_string()).as_ref());
                }
                Some(reason) => assert_eq!(reason.refused_because, "it is lost"),
                None => agreed += 1,
            }
        }
    }
    assert_eq!(agreed, 10, "some are taken, and some are not");
    assert_eq!(Cause::ALL.iter().filter(|cause| cause.is_own_doing()).count(), 3);
}
