//! Jobs that wait for other jobs.

use super::scene::*;
use crate::depend;
use crate::plan::{Hints, plan};
use crate::view::{WAITING_FOR_JOBS, job as view};
use outlive_schemas::command::Command;
use outlive_schemas::depend::{Condition, DependenciesMet, Dependency, JobDepends};
use outlive_schemas::error::ErrorCode;
use outlive_schemas::event::Event;
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::job::JobSpec;
use outlive_schemas::limits;
use outlive_schemas::message::{Ended, News, Outcome};
use outlive_schemas::payload::Payload;
use outlive_schemas::view::Status;
use outlive_schemas::when::JobRetried;
use std::sync::Arc;

const SUCCEEDED: Condition = Condition::Succeeded;
const FINISHED: Condition = Condition::Finished;

fn after(spec: JobSpec, parents: &[(&str, Condition)]) -> JobSpec {
    let of = |(job, until): &(&str, Condition)| Dependency { job: job.parse().unwrap(), until: *until };
    spec.with(|spec| spec.depends_on = parents.iter().map(of).collect())
}

fn depends(child: JobId, parents: &[JobId]) -> Event {
    Event::JobDepends(JobDepends { job: child, parents: parents.to_vec() })
}

fn met(child: JobId) -> Event {
    Event::DependenciesMet(DependenciesMet { job: child })
}

fn settle(job: JobId) -> Command {
    Command::SettleDependencies { job }
}

fn with_result(text: &str) -> News {
    News::Ended(Ended { outcome: Outcome::Exited { code: 0 }, ran_ms: Some(1), result: Some(Payload::from(text)) })
}

fn placeable(scene: &Scene) -> Vec<JobId> {
    plan(&scene.state, &Hints::default(), scene.time(), 100).proposals.iter().map(|p| p.job).collect()
}

fn due(scene: &Scene) -> Vec<Command> {
    depend::due(&scene.state, 100)
}

/// Job 1 is `extract`, and runs on A; job 2 waits for it.
fn waiting(until: Condition) -> Scene {
    let child = after(batch().named("load"), &[("extract", until)]);
    given([joined(A)])
        .and(running(job(1), batch().named("extract").attempts(Some(1)), A))
        .and([submitted(job(2), child), depends(job(2), &[job(1)])])
}

#[test]
fn a_child_waits_and_gets_its_parents_result() {
    let scene = waiting(SUCCEEDED);
    assert!(placeable(&scene).is_empty() && due(&scene).is_empty());
    let shown = view(job(2), scene.job(job(2)), scene.time());
    assert_eq!((shown.status, shown.reason.as_deref()), (Status::Pending, Some(WAITING_FOR_JOBS)));
    let why = crate::explain::why(&scene.state, &Hints::default(), job(2), scene.job(job(2)), scene.time());
    assert_eq!(why.summary, "it waits for 1 of the 1 jobs that it depends on: extract (running)");
    let scene = scene.when(place(job(2), 1, A)).stale();
    let (scene, _) = scene.when(report(A, job(1), 1, with_result("rows"))).happened();
    assert_eq!(due(&scene), [settle(job(2))]);
    let scene = scene.at(5).when(settle(job(2))).then([met(job(2))]);
    assert!(due(&scene).is_empty());
    assert_eq!(placeable(&scene), [job(2)]);
    assert_eq!(scene.job(job(2)).ready_at, at(5), "its turn begins now");
    let scene = scene.when(settle(job(2))).stale();
    // The parent may go: what it left is the child's.
    let scene = scene.when(delete("extract", None)).then([deleted(job(1))]);
    let files = scene.job(job(2)).input_files();
    assert_eq!(files.len(), 1);
    assert_eq!((files[0].name.to_string().as_str(), &files[0].content), ("extract", &Payload::from("rows")));
}

#[test]
fn a_failed_parent_ends_its_children_and_theirs() {
    let grandchild = after(batch(), &[("load", SUCCEEDED)]);
    let mourner = after(batch(), &[("load", FINISHED)]);
    let scene = waiting(SUCCEEDED).and([
        submitted(job(3), grandchild),
        depends(job(3), &[job(2)]),
        submitted(job(4), mourner),
        depends(job(4), &[job(2)]),
    ]);
    let (scene, _) = scene.when(report(A, job(1), 1, exited(1))).happened();
    let failed = |id, by: &str| {
        let reason = format!("job `{by}`, which it depends on, failed");
        finished(id, 0, Status::Failed, Some(&reason), None)
    };
    let scene = scene.when(settle(job(2))).then([failed(job(2), "extract")]);
    assert_eq!(due(&scene), [settle(job(3)), settle(job(4))]);
    let scene = scene.when(settle(job(3))).then([failed(job(3), "load")]);
    scene.when(settle(job(4))).then([met(job(4))]);
}

#[test]
fn however_it_ends_will_do_where_that_is_asked_for() {
    for news in [exited(0), exited(1)] {
        let (scene, _) = waiting(FINISHED).when(report(A, job(1), 1, news)).happened();
        scene.when(settle(job(2))).then([met(job(2))]);
    }
    let (scene, _) = waiting(SUCCEEDED).when(kill(job(1))).happened();
    let (scene, _) = scene.when(report(A, job(1), 1, exited(1))).happened();
    let reason = "job `extract`, which it depends on, was cancelled";
    scene.when(settle(job(2))).then([finished(job(2), 0, Status::Failed, Some(reason), None)]);
}

#[test]
fn a_service_that_is_deleted_has_not_finished() {
    let scene = given([joined(A)]).and(running(job(1), service().named("feed"), A));
    let (scene, _) = scene.when(stop_service(job(1), true)).happened();
    let (scene, _) = scene.when(report(A, job(1), 1, exited(1))).happened();
    assert_eq!(scene.job(job(1)).status, Status::Stopped);
    let scene = scene.and([submitted(job(2), after(batch(), &[("feed", FINISHED)])), depends(job(2), &[job(1)])]);
    assert!(due(&scene).is_empty());
    let scene = scene.when(delete(job(1), None)).then([deleted(job(1))]);
    let reason = "job `feed`, which it depends on, was deleted";
    scene.when(settle(job(2))).then([finished(job(2), 0, Status::Failed, Some(reason), None)]);
}

#[test]
fn one_request_may_hold_parents_and_children_in_any_order() {
    let scene = given([joined(A)]).when(submit([
        (job(1), after(batch().named("join"), &[("left", SUCCEEDED), ("right", SUCCEEDED)])),
        (job(2), after(batch().named("left"), &[("top", SUCCEEDED)])),
        (job(3), after(batch().named("right"), &[("top", SUCCEEDED)])),
        (job(4), batch().named("top")),
    ]));
    let (scene, events) = scene.happened();
    let told: Vec<_> = events[4..].iter().map(|envelope| envelope.event.clone()).collect();
    assert_eq!(
        told,
        [depends(job(1), &[job(2), job(3)]), depends(job(2), &[job(4)]), depends(job(3), &[job(4)])],
        "after all submissions"
    );
    assert_eq!(placeable(&scene), [job(4)]);
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let there = || {
        given([joined(A)])
            .and([submitted(job(1), batch().named("failed")), finished(job(1), 0, Status::Failed, None, None)])
            .and([submitted(job(2), service().named("service"))])
    };
    let refused = |parents: &[(&str, Condition)], code, part: &str| {
        there().when(submit([(job(9), after(batch().named("self"), parents))])).refused(code, part);
    };
    refused(&[("nobody", FINISHED)], ErrorCode::NotFound, "`depends_on[0].job`: there is no job `nobody`");
    refused(&[("service", FINISHED), ("self", FINISHED)], ErrorCode::InvalidArgument, "self → self");
    refused(&[("failed", SUCCEEDED)], ErrorCode::InUse, "`failed`, which failed already");
    refused(&[("service", SUCCEEDED)], ErrorCode::Unsupported, "never succeeds");
    let same = job(2).to_string();
    refused(&[("service", FINISHED), (&same, FINISHED)], ErrorCode::InvalidArgument, "in the list already");
    there().when(submit([(job(9), after(batch(), &[("failed", FINISHED)]))])).happened();
    let circle =
        [("a", "c"), ("b", "a"), ("c", "b")].map(|(name, parent)| after(batch().named(name), &[(parent, FINISHED)]));
    let [a, b, c] = circle;
    there().when(submit([(job(7), a), (job(8), b), (job(9), c)])).refused(
        ErrorCode::InvalidArgument,
        "`depends_on` goes in a circle, so that none of these could begin: a → c → b → a",
    );
    there()
        .when(submit([(job(8), batch()), (job(9), after(batch(), &[("nobody", FINISHED)]))]))
        .refused(ErrorCode::NotFound, "`jobs[1].depends_on[0].job`");
}

#[test]
fn what_reaches_a_child_is_limited() {
    let half = "x".repeat(limits::RESULT_BYTES_MAX);
    let mut scene = given([joined(A)]);
    for number in [1, 2] {
        let spec = batch().named(&format!("parent-{number}"));
        let (ended, _) =
            scene.and(running(job(number), spec, A)).when(report(A, job(number), 1, with_result(&half))).happened();
        scene = ended;
    }
    let child = after(batch(), &[("parent-1", SUCCEEDED), ("parent-2", SUCCEEDED)]);
    let (scene, _) = scene.when(submit([(job(3), child)])).happened();
    assert_eq!(due(&scene), [settle(job(3))], "they had ended before");
    let (scene, _) = scene.when(settle(job(3))).happened();
    let reason = scene.job(job(3)).reason.clone().unwrap();
    assert!(reason.contains("have 524288 bytes together; the limit is 393216"), "{reason}");
}

#[test]
fn what_it_depends_on_stays_through_updates_and_it_cannot_be_stopped_before_it_runs() {
    let child = after(service().named("child"), &[("extract", SUCCEEDED)]);
    let scene = waiting(SUCCEEDED).and([submitted(job(3), child.clone()), depends(job(3), &[job(1)])]);
    let scene = scene.when(stop_service("child", true)).refused(ErrorCode::InUse, "waits for the jobs");
    let other = after(service(), &[("load", SUCCEEDED)]);
    let scene = scene.when(update("child", 1, other)).refused(ErrorCode::Unsupported, "`spec.depends_on`");
    let (scene, _) = scene.when(update("child", 1, service())).happened();
    assert_eq!(scene.job(job(3)).spec.depends_on, child.depends_on);
    assert!(scene.job(job(3)).awaits_others() && placeable(&scene).is_empty());
    let scene = scene.when(cancel("child")).then([finished(
        job(3),
        0,
        Status::Cancelled,
        Some("cancelled before it ran"),
        None,
    )]);
    // Nobody waits any more, so nothing is due when the parent ends.
    let scene = scene.when(cancel("load")).happened().0;
    let (scene, _) = scene.when(report(A, job(1), 1, exited(0))).happened();
    assert!(due(&scene).is_empty());
}

#[test]
fn a_job_that_is_tried_again_looks_at_its_parents_again() {
    let (scene, _) = waiting(SUCCEEDED).when(report(A, job(1), 1, exited(1))).happened();
    let scene = scene.when(settle(job(2))).happened().0;
    let retried = |job, attempt| Event::JobRetried(JobRetried { job, attempt: Attempt(attempt), request_id: None });
    // Its parent is as it was: so is what becomes of it.
    let again = scene.clone().and([retried(job(2), 0)]);
    assert_eq!(due(&again), [settle(job(2))]);
    // Both are tried again: it waits again.
    let again = scene.clone().and([retried(job(1), 1), retried(job(2), 0)]);
    assert!(due(&again).is_empty() && again.job(job(2)).awaits_others());
    let again = again.when(place(job(1), 2, A)).happened().0.when(report(A, job(1), 2, with_result("x"))).happened().0;
    again.when(settle(job(2))).then([met(job(2))]);
    // Its parent has come to succeed meanwhile.
    let later = scene.and([retried(job(1), 1)]).when(place(job(1), 2, A)).happened().0;
    let later = later.when(report(A, job(1), 2, with_result("x"))).happened().0.and([retried(job(2), 0)]);
    let later = later.when(settle(job(2))).then([met(job(2))]);
    assert_eq!(later.job(job(2)).input_files().len(), 1);
}

#[test]
fn a_job_that_is_tried_again_does_not_wait_for_one_that_went_meanwhile() {
    let scene = waiting(FINISHED).when(cancel("load")).happened().0;
    let scene = scene.when(report(A, job(1), 1, exited(0))).happened().0.when(delete("extract", None)).happened().0;
    let retried = Event::JobRetried(JobRetried { job: job(2), attempt: Attempt(0), request_id: None });
    let scene = scene.and([retried]);
    assert_eq!(due(&scene), [settle(job(2))]);
    let scene = scene.when(settle(job(2))).happened().0;
    let (status, reason) = (scene.job(job(2)).status, scene.job(job(2)).reason.clone());
    assert_eq!((status, reason.as_deref()), (Status::Failed, Some("job `extract`, which it depends on, was deleted")));
}

#[test]
fn of_jobs_that_are_tried_again_together_parents_go_first() {
    let (scene, _) = waiting(SUCCEEDED).when(report(A, job(1), 1, exited(1))).happened();
    let scene = scene.when(settle(job(2))).happened().0;
    let jobs = vec![job(2), job(1), job(2)];
    let command = Command::RetryJobs { namespace: namespace(), origin: origin(None), jobs };
    let (again, events) = scene.when(command).happened();
    assert_eq!(events.iter().filter_map(|envelope| envelope.event.job()).collect::<Vec<_>>(), [job(1), job(2)]);
    assert!(due(&again).is_empty() && again.job(job(2)).awaits_others());
}

#[test]
fn results_are_shared_again_after_an_image_is_loaded() {
    let (scene, _) = waiting(SUCCEEDED).when(report(A, job(1), 1, with_result("rows of some length"))).happened();
    let mut loaded: crate::state::State =
        rmp_serde::from_slice(&rmp_serde::to_vec_named(&scene.state).unwrap()).unwrap();
    loaded.rebuild_index();
    assert_eq!(loaded, scene.state);
    let address = |id| loaded.jobs[&id].result.as_ref().map(|result| result.0.as_ptr());
    let kept = loaded.jobs[&job(2)].depends.as_ref().unwrap().parents[0].end.as_ref().unwrap().result.as_ref().unwrap();
    assert_eq!(Some(kept.0.as_ptr()), address(job(1)));
}

#[test]
fn a_wide_diamond_costs_by_its_edges() {
    let names: Vec<String> = (0..998).map(|i| format!("middle-{i}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), SUCCEEDED)).collect();
    let mut jobs =
        vec![(job(1), Arc::new(after(noop().named("bottom"), &all))), (job(2), Arc::new(noop().named("top")))];
    for (i, name) in names.iter().enumerate() {
        jobs.push((job(10 + i as u64), Arc::new(after(noop().named(name), &[("top", SUCCEEDED)]))));
    }
    let mut scene = given([joined(A)]);
    scene.checked = false;
    let command = Command::SubmitJobs { namespace: namespace(), origin: origin(None), jobs };
    let (mut scene, events) = scene.when(command).happened();
    assert_eq!(events.len(), 1_999);
    let mut done = 0;
    while done < 1_000 {
        for command in depend::due(&scene.state, 2_000) {
            scene = scene.when(command).happened().0;
        }
        let proposals = plan(&scene.state, &Hints::default(), scene.time(), 10).proposals;
        assert!(!proposals.is_empty(), "{done} are done, and nothing can be placed");
        for p in proposals {
            scene = scene.when(place(p.job, 1, p.executor)).happened().0;
            scene = scene.when(report(p.executor, p.job, 1, with_result("1"))).happened().0;
            done += 1;
        }
    }
    assert_eq!(scene.job(job(1)).status, Status::Succeeded);
    assert_eq!(scene.job(job(1)).input_files().len(), 998);
    crate::invariant::check(&scene.state).unwrap();
}
