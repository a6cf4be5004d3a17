//! Room for the more urgent: who gives way, to whom, and that it comes to an end.

use super::scene::*;
use crate::explain::why;
use crate::plan::{Hints, plan};
use crate::preempt::Claims;
use outlive_schemas::event::{Cause, Event};
use outlive_schemas::id::{Attempt, ExecutorId, JobId};
use outlive_schemas::job::JobSpec;
use outlive_schemas::message::{Outcome, Released};
use outlive_schemas::queue::JobPreempted;
use outlive_schemas::view::Status;

/// Half of an executor.
fn half() -> JobSpec {
    service().needing(500, 64)
}

fn gave_way(contents: u64) -> outlive_schemas::message::News {
    let released = Released { cause: Cause::Preemption, checkpoint: Some(taken(contents)), fault: None };
    ended(Outcome::Released(released), 100)
}

impl Scene {
    fn renewed(&self, claims: &mut Claims) -> Vec<(ExecutorId, JobId)> {
        claims.renew(&self.state, &Hints::default(), self.time());
        claims.releases(&self.state).into_iter().map(|(executor, order)| (executor, order.job)).collect()
    }

    fn planned_with(&self, claims: &Claims) -> Vec<(JobId, ExecutorId)> {
        let hints = Hints { reserved: claims.reserved(), ..Hints::default() };
        plan(&self.state, &hints, self.time(), 100).proposals.iter().map(|p| (p.job, p.executor)).collect()
    }
}

#[test]
fn the_least_urgent_gives_way_and_goes_on_later() {
    let scene = given([joined(A)]).and(running(job(1), half().yielding().prior(20), A));
    let scene = scene.and(running(job(2), half().yielding().prior(10), A)).and([checkpointed(job(2), 1, 1)]);
    let scene = scene.and([submitted(job(3), half().prior(90))]);
    let mut claims = Claims::default();
    assert_eq!(scene.renewed(&mut claims), [(A, job(2))]);
    assert_eq!(scene.renewed(&mut claims), [(A, job(2))], "it is asked again until it is done");
    let hints = Hints { reserved: claims.reserved(), ..Hints::default() };
    let told = why(&scene.state, &hints, job(3), scene.job(job(3)), scene.time()).summary;
    assert!(told.starts_with("room is being made for it on executor-a-1"), "{told}");
    assert_eq!(scene.planned_with(&claims), []);

    let (scene, events) = scene.at(500).when(report(A, job(2), 1, gave_way(7))).happened();
    let reason = "gave way to a job of a higher priority".into();
    let preempted = JobPreempted { job: job(2), attempt: Attempt(1), reason, ended_at: at(500) };
    assert_eq!(events.last().map(|e| &e.event), Some(&Event::JobPreempted(preempted)));
    let put_back = scene.job(job(2));
    assert_eq!((put_back.status, put_back.failures), (Status::Pending, 0));
    assert_eq!(put_back.reason.as_deref(), Some("gave way to a job of a higher priority"));
    // The room is for whom it was made for, whoever else could use it.
    assert_eq!(scene.planned_with(&claims), [(job(3), A)]);
    let scene = scene.when(place(job(3), 1, A)).happened().0;
    assert_eq!(scene.renewed(&mut claims), []);
    assert!(claims.is_empty() && scene.planned_with(&claims).is_empty());
    // Once there is room it goes on from what it gave back.
    let scene = scene.at(900).when(report(A, job(1), 1, exited(1))).happened().0;
    assert_eq!(scene.planned_with(&claims), [(job(2), A)]);
    let placed = scene.when(place(job(2), 2, A)).happened().1;
    let Event::JobPlaced(placed) = &placed[0].event else { panic!("{placed:?}") };
    assert_eq!(placed.restore.map(|number| number.0), Some(2));
}

#[test]
fn nobody_gives_way_who_need_not() {
    let orders = |urgent: JobSpec, other: JobSpec| {
        let scene = given([joined(A)]).and(running(job(1), other, A)).and([submitted(job(2), urgent)]);
        scene.renewed(&mut Claims::default()).len()
    };
    let whole = || service().needing(1_000, 64);
    assert_eq!(orders(whole().prior(60), whole().yielding()), 1);
    assert_eq!(orders(whole().prior(50), whole().yielding()), 0, "of an equal priority");
    assert_eq!(orders(whole().prior(40), whole().yielding()), 0, "of a lower one");
    assert_eq!(orders(whole().prior(90), whole()), 0, "it does not say that it may");
    assert_eq!(orders(half().prior(90), half().yielding()), 0, "there is room");
    assert_eq!(orders(service().needing(1_001, 64).prior(90), whole().yielding()), 0, "it would not fit even so");
    assert_eq!(orders(whole().prior(90).in_zones(&["b"]), whole().yielding()), 0, "nor may it go there");
    assert_eq!(orders(whole().prior(90).queued("q"), whole().yielding()), 1, "another queue's as well");
    // One that its own queue holds has no use for room.
    let scene = given([joined(A), queue_put("q", |q| q.paused = true)]).and(running(job(1), whole().yielding(), A));
    let scene = scene.and([submitted(job(2), whole().prior(90).queued("q"))]);
    assert_eq!(scene.renewed(&mut Claims::default()), []);
    // One that does not run yet, or is being stopped, cannot be given back.
    let scene = given([joined(A), submitted(job(1), whole().yielding()), placed(job(1), 1, A)]);
    let scene = scene.and([submitted(job(2), whole().prior(90))]);
    assert_eq!(scene.renewed(&mut Claims::default()), []);
    let scene = scene.and([started(job(1), 1, T0)]).when(cancel(job(1))).happened().0;
    assert_eq!(scene.renewed(&mut Claims::default()), []);
}

#[test]
fn as_little_as_will_do_gives_way_on_one_executor() {
    let quarter = || service().needing(250, 64).yielding();
    let mut scene = given([joined(A), joined(B)]);
    for number in 1..=4 {
        scene = scene.and(running(job(number), quarter(), A));
    }
    let scene = scene.and(running(job(5), service().needing(1_000, 64).yielding(), B));
    // Half an executor: two quarters, or the one that has all.
    let scene = scene.and([submitted(job(6), half().prior(80))]);
    assert_eq!(scene.renewed(&mut Claims::default()), [(B, job(5))]);
    let scene = scene.when(kill(job(5))).happened().0;
    let mut claims = Claims::default();
    assert_eq!(scene.renewed(&mut claims).len(), 2);
    // A second one counts on what the first has not asked for.
    let scene = scene.and([submitted(job(7), half().prior(70)), submitted(job(8), half().prior(60))]);
    assert_eq!(scene.renewed(&mut claims).len(), 4, "there is nothing left for the third");
}

#[test]
fn who_gave_way_does_not_come_back_at_once() {
    // The urgent one waits for a long time, for its room was taken from two others; and so do these.
    let scene =
        given([joined(A)]).and(running(job(1), half().yielding(), A)).and(running(job(2), half().yielding(), A));
    let mut scene = scene.and([submitted(job(3), service().needing(1_000, 64).prior(90))]);
    let mut claims = Claims::default();
    assert_eq!(scene.renewed(&mut claims).len(), 2);
    scene = scene.when(report(A, job(1), 1, gave_way(1))).happened().0;
    assert_eq!(scene.planned_with(&claims), [], "what is free already is kept");
    scene = scene.when(report(A, job(2), 1, gave_way(1))).happened().0;
    assert_eq!(scene.planned_with(&claims), [(job(3), A)]);
    scene = scene.when(place(job(3), 1, A)).happened().0.and([started(job(3), 1, T0)]);
    // Nobody makes anybody give way now.
    assert_eq!(scene.renewed(&mut claims), []);
    assert!(claims.is_empty());
}

#[test]
fn a_claim_ends_with_its_job_its_executor_or_its_time() {
    let claimed = || {
        let whole = || service().needing(1_000, 64);
        let scene = given([joined(A), joined(B)]).and(running(job(1), whole().yielding(), A));
        let scene = scene.and(running(job(3), whole(), B)).and([submitted(job(2), whole().prior(90))]);
        let mut claims = Claims::default();
        assert_eq!(scene.renewed(&mut claims), [(A, job(1))]);
        (scene, claims)
    };
    let (scene, mut claims) = claimed();
    assert_eq!(scene.when(kill(job(2))).happened().0.renewed(&mut claims), []);
    let (scene, mut claims) = claimed();
    assert_eq!(scene.and([lost(A)]).renewed(&mut claims), []);
    // Ten minutes for its checkpoint, and half a minute to say so; then it is looked at anew.
    let (scene, mut claims) = claimed();
    let before = claims.clone();
    assert_eq!(scene.clone().at(600_000).renewed(&mut claims).len(), 1);
    assert_eq!(claims, before);
    assert_eq!(scene.at(631_000).renewed(&mut claims).len(), 1);
    assert_ne!(claims, before);
}

#[test]
fn what_was_not_stored_goes_on_and_what_is_changed_goes_on_with_that() {
    let scene = given([joined(A)]).and(running(job(1), half().yielding(), A));
    let failed = outlive_schemas::message::News::ReleaseFailed { reason: "disk full".into() };
    let scene = scene.when(report(A, job(1), 1, failed)).happened().0;
    assert_eq!(scene.job(job(1)).status, Status::Running);
    // Its order to give way crossed with that of an update: its state is what the new version starts from.
    let scene = scene.when(update(job(1), 1, half().prior(1))).happened().0;
    let scene = scene.when(report(A, job(1), 1, gave_way(3))).happened().0;
    assert_ne!(scene.job(job(1)).status, Status::Pending);
}

#[test]
fn room_that_is_kept_is_given_once_and_to_nobody_else() {
    let most = || service().needing(600, 64);
    let scene = given([joined(A)]).and((1..=3).map(|number| submitted(job(number), most())));
    let kept = |jobs: &[u64]| Hints { reserved: jobs.iter().map(|n| (job(*n), A)).collect(), ..Hints::default() };
    let planned = |hints: &Hints| {
        plan(&scene.state, hints, scene.time(), 100).proposals.iter().map(|p| p.job).collect::<Vec<_>>()
    };
    assert_eq!(planned(&kept(&[2, 3])), [job(2)]);
    // What is kept for one that its queue holds, or that is over, is not given to it; and to nobody else.
    let scene = scene.and([queue_put("default", |q| q.paused = true)]);
    assert!(plan(&scene.state, &kept(&[2]), scene.time(), 100).proposals.is_empty());
}

#[test]
fn who_could_not_give_way_is_left_alone_for_a_while() {
    let scene = given([joined(A), joined(B)]).and(running(job(1), service().needing(1_000, 64).yielding().prior(1), A));
    let scene = scene.and(running(job(2), service().needing(1_000, 64).yielding().prior(2), B));
    let scene = scene.and([submitted(job(3), service().needing(1_000, 64).prior(90))]);
    let mut claims = Claims::default();
    assert_eq!(scene.renewed(&mut claims), [(A, job(1))]);
    claims.failed(job(9), T0);
    assert_eq!(scene.renewed(&mut claims), [(A, job(1))]);
    claims.failed(job(1), T0);
    assert!(claims.is_empty());
    assert_eq!(scene.renewed(&mut claims), [(B, job(2))]);
    claims.failed(job(2), T0);
    assert_eq!(scene.renewed(&mut claims), []);
    assert_eq!(scene.at(60_000).renewed(&mut claims), [(A, job(1))]);
}
