//! The planner: where jobs go, in which order, and that they never take more than there is.

use super::scene::*;
use crate::plan::{Hints, Plan, plan};
use crate::state::State;
use outlive_schemas::event::{Cause, Event, JobRestarting, TermStarted};
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{Attempt, ExecutorId, JobId, Term, Zone};
use outlive_schemas::job::JobSpec;
use proptest::prelude::*;
use std::collections::BTreeMap;

impl Scene {
    /// What the planner proposes now.
    fn planned(&self) -> Vec<(JobId, ExecutorId)> {
        self.plan(1_000).proposals.iter().map(|p| (p.job, p.executor)).collect()
    }

    fn plan(&self, limit: usize) -> Plan {
        plan(&self.state, &Hints::default(), self.time(), limit)
    }

    /// Plans, and places what was planned, until nothing more is proposed.
    fn settle(mut self) -> Scene {
        loop {
            let proposals = self.plan(1_000).proposals;
            if proposals.is_empty() {
                return self;
            }
            for p in proposals {
                self = self.when(place(p.job, p.attempt.0, p.executor)).happened().0;
            }
        }
    }
}

/// After a restore or an accepted loss attempts may run of which the log does not tell: none of a job that must never
/// run twice is begun until their leases are over; others are.
#[test]
fn a_new_generation_begins_with_no_exclusive_job() {
    let begun = |term: Term| {
        let (scheduler, zone) = ("scheduler-a".parse().unwrap(), "a".parse().unwrap());
        Event::TermStarted(TermStarted { term, scheduler, zone, version: "0.1.0".into() })
    };
    let alone = || batch().with(|spec| spec.exclusive = true);
    let scene = given([begun(Term(3)), joined(A)]).and(waiting([alone(), batch(), alone()]));
    let again = scene.clone().at(1_000).and([begun(Term(4))]);
    assert_eq!(again.planned().len(), 3, "another term of the same generation");
    let later = scene.at(1_000).and([begun(Term(3).next_generation())]).at(7_999);
    assert_eq!(later.planned(), [(job(2), A)]);
    later.clone().when(place(job(1), 1, A)).stale();
    let why = crate::explain::why(&later.state, &Hints::default(), job(1), later.job(job(1)), later.time());
    assert!(why.summary.contains("it is exclusive"), "{}", why.summary);
    // A leader that follows within that time keeps to it, and does not begin it anew.
    let other = later.and([begun(Term(9).next_generation())]).at(8_000);
    assert_eq!(other.planned().len(), 3);
}

fn waiting(specs: impl IntoIterator<Item = JobSpec>) -> Vec<Event> {
    (1..).zip(specs).map(|(number, spec)| submitted(job(number), spec)).collect()
}

fn like(executor: ExecutorId, change: impl FnOnce(&mut Registration)) -> Event {
    let mut registration = registration(executor);
    change(&mut registration);
    Event::ExecutorJoined(registration)
}

#[test]
fn nothing_waits_or_nothing_is_there() {
    assert_eq!(given([joined(A)]).plan(1_000), Plan::default());
    assert_eq!(given([submitted(job(1), batch())]).plan(1_000), Plan::default());
    assert_eq!(given([joined(A), lost(A), submitted(job(1), batch())]).plan(1_000), Plan::default());
}

#[test]
fn it_goes_by_zone_label_and_driver() {
    let ssd = |r: &mut Registration| {
        r.labels.insert("disk".into(), "ssd".into());
    };
    let fleet = || given([joined(A), like(B, ssd), like(C, |r| r.drivers = vec![DriverKind::Noop])]);
    for (spec, to) in [
        (batch().in_zones(&["b"]), Some(B)),
        (batch().in_zones(&["a", "c"]), Some(A)),
        (batch().in_zones(&["c"]), None),
        (noop().in_zones(&["c"]), Some(C)),
        (batch().in_zones(&["z"]), None),
        (batch().labelled("disk", "ssd"), Some(B)),
        (batch().labelled("disk", "hdd"), None),
        (batch().labelled("gpu", "yes"), None),
        (batch().labelled("disk", "ssd").in_zones(&["a"]), None),
        (batch().needing(1_001, 1), None),
        (batch().needing(1, 641), None),
        (batch().needing(1_000, 640), Some(A)),
    ] {
        let planned = fleet().and([submitted(job(1), spec.clone())]).planned();
        assert_eq!(planned, Vec::from_iter(to.map(|executor| (job(1), executor))), "{:?}", spec.placement);
    }
}

#[test]
fn each_resource_can_run_out() {
    for (capacity, jobs) in [
        (Capacity { cpu_millis: 350, memory_bytes: 640 << 20, slots: 16 }, 3),
        (Capacity { cpu_millis: 1_000, memory_bytes: 130 << 20, slots: 16 }, 2),
        (Capacity { cpu_millis: 1_000, memory_bytes: 640 << 20, slots: 4 }, 4),
        (Capacity { cpu_millis: 1_000, memory_bytes: 640 << 20, slots: 0 }, 0),
    ] {
        let scene = given([like(A, |r| r.capacity = capacity)]).and(waiting((0..6).map(|_| batch())));
        assert_eq!(scene.planned().len(), jobs, "{capacity:?}");
        assert_eq!(scene.settle().state.executors[&A].attempts.len(), jobs);
    }
}

#[test]
fn avoided_executors_get_nothing() {
    let scene = given([joined(A), joined(B)]).and(waiting([batch(), batch()]));
    let hints = Hints { avoid: [A].into(), ..Hints::default() };
    let plan = plan(&scene.state, &hints, T0, 1_000);
    assert!(plan.proposals.len() == 2 && plan.proposals.iter().all(|p| p.executor == B));
}

fn by_zone(state: &State) -> BTreeMap<Zone, usize> {
    let mut zones = BTreeMap::new();
    for executor in state.executors.values() {
        *zones.entry(executor.registration.zone.clone()).or_default() += executor.attempts.len();
    }
    zones
}

#[test]
fn jobs_are_spread_over_zones_and_then_over_hosts() {
    let fleet = || given([joined(A), joined(A2), joined(B), joined(C)]);
    let scene = fleet().and(waiting((0..6).map(|_| batch()))).settle();
    // Zone a has two hosts, and so twice the room of each of the others.
    assert_eq!(by_zone(&scene.state).into_values().collect::<Vec<_>>(), [3, 2, 1]);
    let on = |executor| scene.state.executors[&executor].attempts.len();
    assert_eq!((on(A) + on(A2), on(A).abs_diff(on(A2))), (3, 1));
    // However little of a host a job takes: the first three are in three zones.
    let huge = |r: &mut Registration| {
        r.capacity = Capacity { cpu_millis: 1_000_000, memory_bytes: 64 << 40, slots: 100_000 };
    };
    let scene =
        given([like(A, huge), like(B, huge), like(C, huge)]).and(waiting((0..3).map(|_| batch().needing(10, 1))));
    assert_eq!(by_zone(&scene.settle().state).into_values().collect::<Vec<_>>(), [1, 1, 1]);
    // Noops take a slot only.
    let scene = given([like(A, huge), like(B, huge), like(C, huge)]).and(waiting((0..9).map(|_| noop())));
    assert_eq!(by_zone(&scene.settle().state).into_values().collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn a_zone_fills_by_its_share_not_by_its_count() {
    let twice =
        |r: &mut Registration| r.capacity = Capacity { cpu_millis: 2_000, memory_bytes: 1_280 << 20, slots: 32 };
    let scene = given([like(A, twice), joined(B)]).and(waiting((0..6).map(|_| batch()))).settle();
    assert_eq!(by_zone(&scene.state).into_values().collect::<Vec<_>>(), [4, 2]);
}

#[test]
fn the_oldest_goes_first_whatever_its_shape() {
    let one = |r: &mut Registration| r.capacity.slots = 1;
    let shapes = [batch().needing(300, 64), batch(), batch().needing(200, 64), noop()];
    for oldest in 0..shapes.len() {
        let mut scene = given([like(A, one)]);
        // Submitted one after the other, the ids rising with the times as they do.
        for step in 0..shapes.len() {
            let spec = shapes[(oldest + step) % shapes.len()].clone();
            scene = scene.at(step as u64).and([submitted(job(step as u64 + 1), spec)]);
        }
        assert_eq!(scene.planned(), [(job(1), A)]);
    }
}

#[test]
fn who_has_waited_longest_is_not_who_has_the_lowest_id() {
    let one = |r: &mut Registration| r.capacity.slots = 1;
    let scene = given([like(A, one)]).and(running(job(1), batch(), A)).and([submitted(job(2), noop())]);
    let scene = scene.at(200).when(report(A, job(1), 1, exited(1))).happened().0;
    assert_eq!(scene.at(5_000).planned(), [(job(2), A)]);
}

#[test]
fn a_shape_without_room_does_not_stand_in_the_way() {
    let mut scene = given([joined(A)]);
    for number in 1..=50 {
        scene = scene.at(number).and([submitted(job(number), batch().needing(5_000, 64))]);
    }
    scene = scene.at(51).and([submitted(job(51), batch()), submitted(job(52), noop())]);
    assert_eq!(scene.planned(), [(job(51), A), (job(52), A)]);
}

#[test]
fn a_job_that_lost_its_host_goes_before_a_backlog() {
    let full = |r: &mut Registration| r.capacity.slots = 1;
    let scene = given([like(A, full), like(B, full)]).and(running(job(9), batch(), A));
    let scene = scene.and(waiting((0..5).map(|_| batch()))).and([placed(job(1), 1, B), lost(A)]);
    let scene = scene.at(5_000).when(evict(job(9), 1)).happened().0.when(report(B, job(1), 1, exited(0))).happened().0;
    assert_eq!(scene.planned(), [(job(9), B)]);
    // One that failed by itself takes its turn.
    let scene = given([like(B, full)]).and(running(job(9), batch(), B)).and(waiting((0..5).map(|_| batch())));
    let scene = scene.when(report(B, job(9), 1, exited(1))).happened().0;
    assert_eq!(scene.at(5_000).planned(), [(job(1), B)]);
}

#[test]
fn a_job_waits_until_it_is_due() {
    let scene = given([joined(A)]).and(running(job(1), batch(), A)).when(report(A, job(1), 1, exited(1))).happened().0;
    let scene = scene.and([submitted(job(2), batch())]);
    assert_eq!(scene.clone().at(999).planned(), [(job(2), A)], "a younger one does not wait for it");
    assert_eq!(scene.at(1_000).planned(), [(job(2), A), (job(1), A)]);
}

/// Attempt 1 of job 1 ran on A and is over for this cause, after so many failures in a row.
fn after(cause: Cause, failures: u32) -> Scene {
    let over = JobRestarting {
        job: job(1),
        attempt: Attempt(1),
        cause,
        reason: "x".into(),
        exit_code: None,
        failures,
        lost_at: T0,
        next_try_at: T0,
    };
    given([]).and(fleet()).and(running(job(1), service(), A)).and([Event::JobRestarting(over)])
}

fn fleet() -> [Event; 5] {
    [joined(A), joined(A2), joined(B), joined(B2), joined(C)]
}

/// In what order its executors would be chosen, were each of them lost in turn.
fn order(scene: Scene) -> Vec<ExecutorId> {
    let mut hints = Hints::default();
    let mut chosen = Vec::new();
    while let Some(proposal) = plan(&scene.state, &hints, T0, 1).proposals.first() {
        chosen.push(proposal.executor);
        hints.avoid.insert(proposal.executor);
    }
    chosen
}

#[test]
fn the_recovery_ladder() {
    for (cause, failures, expected) in [
        // In place, then another host of the zone, then another zone.
        (Cause::ProcessExit, 1, [A, A2, B, B2, C]),
        (Cause::ProcessExit, 2, [A, A2, B, B2, C]),
        (Cause::Timeout, 1, [A, A2, B, B2, C]),
        // It has failed there often enough: another host, and that one last.
        (Cause::ProcessExit, 3, [A2, B, B2, C, A]),
        (Cause::ProcessExit, 4, [A2, B, B2, C, A]),
        // The zone has not helped either.
        (Cause::ProcessExit, 5, [B, B2, C, A2, A]),
        (Cause::Timeout, 50, [B, B2, C, A2, A]),
        // The host was lost: its neighbour first, and whoever has its name now last.
        (Cause::ExecutorLost, 0, [A2, B, B2, C, A]),
        (Cause::HostDegraded, 0, [A2, B, B2, C, A]),
    ] {
        let got = order(after(cause, failures));
        assert_eq!(got, expected, "{cause:?} after {failures}");
    }
}

#[test]
fn the_limit_ends_a_round_and_says_so() {
    let scene = given([joined(A), joined(B)]).and(waiting((0..5).map(|_| batch())));
    for (limit, proposals, more) in [(0, 0, true), (1, 1, true), (4, 4, true), (5, 5, false), (1_000, 5, false)] {
        let plan = scene.plan(limit);
        assert_eq!((plan.proposals.len(), plan.more), (proposals, more), "limit {limit}");
    }
    // Want of room is no reason for another round.
    let scene = given([joined(A)]).and(waiting((0..30).map(|_| batch())));
    assert_eq!((scene.plan(1_000).proposals.len(), scene.plan(1_000).more), (10, false));
}

#[test]
fn absurd_figures_do_not_stop_it() {
    let absurd =
        |r: &mut Registration| r.capacity = Capacity { cpu_millis: u64::MAX, memory_bytes: u64::MAX, slots: u32::MAX };
    let scene = given([like(A, absurd), like(A2, absurd), joined(B)]).and(waiting((0..4).map(|_| batch())));
    assert_eq!(scene.planned().len(), 4);
}

/// Any fleet, any jobs.
fn anything() -> impl Strategy<Value = Scene> {
    let host = (0..1_500_u64, 0..900_u64, 0..12_u32, any::<bool>());
    let spec = (1..700_u32, 1..500_u64, 0..4_usize, any::<bool>());
    (prop::collection::vec(host, 1..5), prop::collection::vec(spec, 1..40)).prop_map(|(hosts, specs)| {
        let mut scene = given([]);
        for ((cpu_millis, mib, slots, ssd), executor) in hosts.into_iter().zip([A, A2, B, C]) {
            scene = scene.and([like(executor, |r| {
                r.capacity = Capacity { cpu_millis, memory_bytes: mib << 20, slots };
                if ssd {
                    r.labels.insert("disk".into(), "ssd".into());
                }
            })]);
        }
        for (number, (cpu, mib, kind, picky)) in (1..).zip(specs) {
            let spec = match kind {
                0 => noop(),
                1 => batch().needing(cpu, mib).in_zones(&["a", "c"]),
                _ => batch().needing(cpu, mib),
            };
            let spec = if picky { spec.labelled("disk", "ssd") } else { spec };
            scene = scene.at(number / 7).and([submitted(job(number), spec)]);
        }
        scene
    })
}

proptest! {
    /// All that is proposed in one round can be placed: each proposal is accepted in turn, and the check of the whole
    /// state after every fold sees that no executor holds more than it has room for.
    #[test]
    fn a_plan_never_over_commits(scene in anything(), limit in 0..30_usize) {
        let proposals = scene.plan(limit).proposals;
        prop_assert!(proposals.len() <= limit);
        let mut scene = scene;
        for p in proposals {
            scene = scene.when(place(p.job, p.attempt.0, p.executor)).happened().0;
        }
    }

    /// What is left waiting once nothing more is proposed fits nowhere.
    #[test]
    fn nothing_waits_while_there_is_room_for_it(scene in anything()) {
        let scene = scene.settle();
        for (_, shape, _) in scene.state.queue().lines() {
            for executor in scene.state.executors.values() {
                let fits = crate::plan::feasible::fits(shape, &executor.registration, &executor.free());
                prop_assert!(fits.is_err(), "{shape:?} fits {executor:?}");
            }
        }
    }

    /// The same state gives the same plan, also after it has been saved and loaded.
    #[test]
    fn a_plan_is_the_same_each_time(scene in anything(), limit in 0..30_usize) {
        let first = scene.plan(limit);
        prop_assert_eq!(&first, &scene.plan(limit));
        let mut loaded: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(&scene.state).unwrap()).unwrap();
        loaded.rebuild_index();
        prop_assert_eq!(first, plan(&loaded, &Hints::default(), scene.time(), limit));
    }
}
