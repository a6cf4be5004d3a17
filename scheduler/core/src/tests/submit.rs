//! Submissions: all of a request's jobs, or none; once for every request id; under names that are free.

use super::scene::*;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::error::ErrorCode::{InUse, InvalidArgument, LimitExceeded, Unsupported};
use outlive_schemas::id::{Attempt, JobRef, Namespace};
use outlive_schemas::job::{Factor, JobKind};
use outlive_schemas::payload::Payload;
use outlive_schemas::time::Millis;
use outlive_schemas::view::Status;

#[test]
fn a_job_begins_as_pending() {
    let scene = given([]).at(5).when(submit([(job(1), batch())])).then([submitted(job(1), batch())]);
    let job = scene.job(job(1));
    assert_eq!((job.status, job.attempt, job.version.0, job.restarts), (Status::Pending, Attempt(0), 1, 0));
    assert_eq!((job.submitted_at, job.ready_at, job.started_at, job.finished_at), (at(5), at(5), None, None));
    assert_eq!((job.placement, job.restorable(), job.reason.as_deref()), (None, None, None));
}

#[test]
fn a_job_that_says_little_gets_the_defaults() {
    let scene = given([]).when(submit([(job(1), noop())])).then([submitted(job(1), noop())]);
    let spec = &scene.job(job(1)).spec;
    assert_eq!((spec.kind, spec.max_attempts()), (JobKind::Batch, Some(3)));
    assert_eq!(service().max_attempts(), None);
    assert_eq!((spec.resources.cpu_millis, spec.resources.memory.0), (100, 64 << 20));
    assert_eq!((spec.checkpoint.interval, spec.checkpoint.retain), (Millis::secs(60), 3));
    assert_eq!((spec.restart.initial_backoff, spec.restart.max_backoff), (Millis::secs(1), Millis::minutes(1)));
    assert_eq!((spec.restart.multiplier, spec.restart.jitter), (Factor(1_500), Factor(100)));
    // A name that holds the id needs no index, and means the job everywhere.
    let name = scene.job(job(1)).name(job(1));
    assert_eq!(name.as_str(), format!("job-{}", job(1)));
    let by_name: JobRef = name.as_str().parse().unwrap();
    assert_eq!(scene.state.resolve(&namespace(), &by_name).unwrap().0, job(1));
}

#[test]
fn who_asked_stands_in_every_event() {
    let origin = Origin { request_id: None, by: Some("alice".into()) };
    let jobs = vec![(job(1), batch().into()), (job(2), batch().into())];
    let (_, events) = given([]).when(Command::SubmitJobs { namespace: namespace(), origin, jobs }).happened();
    assert!(events.len() == 2 && events.iter().all(|event| event.by.as_deref() == Some("alice")));
}

#[test]
fn a_request_that_comes_twice_makes_its_jobs_once() {
    let first = submit_as(Some("r-1"), [(job(1), batch()), (job(2), batch())]);
    let scene = given([])
        .when(first)
        .then([submitted_by("r-1", job(1), batch()), submitted_by("r-1", job(2), batch())])
        // The second time with other ids, for the scheduler draws fresh ones, and even with another body.
        .when(submit_as(Some("r-1"), [(job(3), service().named("other"))]))
        .nothing();
    assert_eq!(scene.state.submitted_by(&namespace(), &"r-1".into()), Some(&[job(1), job(2)][..]));
    scene
        .when(submit_as(Some("r-2"), [(job(3), batch())]))
        .then([submitted_by("r-2", job(3), batch())])
        .when(submit([(job(4), batch())]))
        .then([submitted(job(4), batch())]);
}

#[test]
fn a_request_id_belongs_to_its_namespace() {
    let (scene, _) = given([submitted_by("r-1", job(1), batch())])
        .when(Command::SubmitJobs {
            namespace: Namespace::new("other").unwrap(),
            origin: origin(Some("r-1")),
            jobs: vec![(job(2), batch().into())],
        })
        .happened();
    assert_eq!(scene.state.submitted_by(&namespace(), &"r-1".into()), Some(&[job(1)][..]));
}

#[test]
fn a_request_is_remembered_while_one_of_its_jobs_is() {
    let ended = |id| finished(id, 0, Status::Cancelled, None, None);
    let scene = given([
        submitted_by("r-1", job(1), batch()),
        submitted_by("r-1", job(2), batch()),
        ended(job(1)),
        ended(job(2)),
        deleted(job(1)),
    ]);
    let scene = scene.when(submit_as(Some("r-1"), [(job(3), batch())])).nothing();
    scene.and([deleted(job(2))]).when(submit_as(Some("r-1"), [(job(3), batch())])).then([submitted_by(
        "r-1",
        job(3),
        batch(),
    )]);
}

#[test]
fn a_name_is_taken_while_its_job_lives() {
    let counter = || service().named("counter");
    let again = || submit([(job(2), counter())]);
    let pending = given([joined(A), submitted(job(1), counter())]);
    let starting = pending.clone().and([placed(job(1), 1, A)]);
    let running = starting.clone().and([started(job(1), 1, T0)]);
    let restarting = running.clone().and([restarting(job(1), 1, outlive_schemas::event::Cause::ProcessExit, 1)]);
    let stopping = running.clone().and([cancel_requested(job(1), 1, GRACEFUL)]);
    for (scene, status) in [
        (pending, "pending"),
        (starting, "starting"),
        (running, "running"),
        (restarting, "restarting"),
        (stopping, "stopping"),
    ] {
        scene.when(again()).refused(InUse, &format!("taken by job {}, which is {status}", job(1)));
    }
}

#[test]
fn a_name_is_free_again_once_its_job_is_over() {
    let counter = || batch().named("counter");
    for status in [Status::Succeeded, Status::Failed, Status::Cancelled] {
        let over = given([submitted(job(1), counter()), finished(job(1), 0, status, None, None)]);
        let again = over.clone().when(submit([(job(2), counter())])).then([submitted(job(2), counter())]);
        // It means the newest; the older one goes by its id only.
        let named: JobRef = "counter".parse().unwrap();
        assert_eq!(again.state.resolve(&namespace(), &named).unwrap().0, job(2));
        again.when(submit([(job(3), counter())])).refused(InUse, "taken");
        over.and([deleted(job(1))]).when(submit([(job(2), counter())])).then([submitted(job(2), counter())]);
    }
}

#[test]
fn the_live_holder_counts_even_where_a_later_clock_gave_it_a_lower_id() {
    let counter = || batch().named("counter");
    let scene = given([
        submitted(job(9), counter()),
        finished(job(9), 0, Status::Cancelled, None, None),
        submitted(job(5), counter()),
    ]);
    let named: JobRef = "counter".parse().unwrap();
    assert_eq!(scene.state.resolve(&namespace(), &named).unwrap().0, job(5));
    scene.when(submit([(job(10), counter())])).refused(InUse, &format!("job {}", job(5)));
}

#[test]
fn a_name_belongs_to_its_namespace() {
    let other = Namespace::new("other").unwrap();
    let jobs = vec![(job(2), batch().named("counter").into())];
    let (scene, _) = given([submitted(job(1), batch().named("counter"))])
        .when(Command::SubmitJobs { namespace: other.clone(), origin: origin(None), jobs })
        .happened();
    let named: JobRef = "counter".parse().unwrap();
    assert_eq!(scene.state.resolve(&namespace(), &named).unwrap().0, job(1));
    assert_eq!(scene.state.resolve(&other, &named).unwrap().0, job(2));
    // Nor does an id reach across.
    let missing = scene.state.resolve(&other, &JobRef::Id(job(1))).unwrap_err();
    assert!(missing.message.contains("namespace `other`"), "{}", missing.message);
}

#[test]
fn one_request_cannot_use_a_name_twice() {
    given([])
        .when(submit([(job(1), batch().named("x")), (job(2), batch()), (job(3), batch().named("x"))]))
        .refused(InUse, "`jobs` has the name `x` twice");
}

#[test]
fn nobody_submits_to_the_systems_own_namespace() {
    let namespace = Namespace::new("sys").unwrap();
    given([])
        .when(Command::SubmitJobs { namespace, origin: origin(None), jobs: vec![(job(1), batch().into())] })
        .refused(InvalidArgument, "namespace `sys` is Outlive's own");
}

#[test]
fn one_bad_job_spoils_the_request_and_is_named() {
    let bad = batch().with(|spec| spec.checkpoint.retain = 0);
    given([])
        .when(submit([(job(1), batch()), (job(2), bad.clone())]))
        .refused(InvalidArgument, "`jobs[1]`: `checkpoint.retain` is 0");
    let scene = given([]).when(submit([(job(1), bad)])).refused(InvalidArgument, "`checkpoint.retain` is 0");
    assert!(scene.state.jobs.is_empty());
    let taken = given([submitted(job(1), batch().named("x"))])
        .when(submit([(job(2), batch()), (job(3), batch().named("x"))]))
        .refused(InUse, "the name `x` is taken");
    assert_eq!(taken.state.jobs.len(), 1);
}

#[test]
fn what_is_out_of_range_is_refused_by_its_field() {
    let reserved = format!("job-{}", job(7));
    for (spec, code, part) in [
        (batch().named(&reserved), InvalidArgument, "`name`"),
        (batch().needing(0, 64), InvalidArgument, "`resources.cpu_millis` is 0"),
        (batch().needing(100, 0), InvalidArgument, "`resources.memory`"),
        (batch().attempts(Some(0)), InvalidArgument, "`restart.max_attempts` is 0"),
        (batch().with(|s| s.restart.jitter = Factor(1_001)), InvalidArgument, "`restart.jitter` is 1.001"),
        (batch().with(|s| s.timeout = Some(Millis(0))), InvalidArgument, "`timeout`"),
        (batch().with(|s| s.input = Some(Payload(vec![0; 300_000].into()))), LimitExceeded, "`input` has 300000 bytes"),
        (noop().with(|s| s.kind = JobKind::Service), Unsupported, "a noop job ends at once"),
    ] {
        given([]).when(submit([(job(1), spec)])).refused(code, part);
    }
}
