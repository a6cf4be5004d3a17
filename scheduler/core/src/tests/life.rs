//! Stop, start, update and rollback: every rule, every refusal, and whatever may be lost on the way.

use super::scene::*;
use crate::life::{Change, PROVEN_AFTER};
use crate::timer;
use outlive_schemas::command::Command;
use outlive_schemas::error::ErrorCode::*;
use outlive_schemas::event::Cause;
use outlive_schemas::id::Attempt;
use outlive_schemas::job::JobSpec;
use outlive_schemas::life::{RestoreMode, VersionStatus};
use outlive_schemas::message::{News, Outcome};
use outlive_schemas::snapshot::SnapshotStatus;
use outlive_schemas::view::Status;

const ATTEND: Command = Command::AttendJob { job: job(1) };

/// Attempt 1 runs on A, and has made checkpoint 1.
fn up() -> Scene {
    given([joined(A), joined(B)]).and(running(job(1), service(), A)).and([checkpointed(job(1), 1, 1)])
}

fn newer() -> JobSpec {
    service().with(|spec| {
        spec.labels.insert("version".into(), "newer".into());
    })
}

fn status(scene: &Scene) -> Status {
    scene.job(job(1)).status
}

fn restores(scene: &Scene) -> Option<u64> {
    scene.job(job(1)).restorable().map(|checkpoint| checkpoint.number.0)
}

fn versions(scene: &Scene) -> Vec<(u32, VersionStatus)> {
    let life = scene.job(job(1)).life.as_ref().expect("it has versions");
    life.versions.iter().map(|version| (version.version.0, version.status)).collect()
}

fn snapshot_of(scene: &Scene, name: &str) -> SnapshotStatus {
    let life = scene.job(job(1)).life.as_ref().expect("it has snapshots");
    life.snapshot(&name.parse().unwrap()).expect("it is there").status
}

// Stop and start.

#[test]
fn a_stop_takes_a_snapshot_and_keeps_the_name() {
    let scene = given([joined(A)]).and(running(job(1), service().named("counter"), A));
    let scene = scene.when(stop_service("counter", false)).happened().0;
    assert_eq!(status(&scene), Status::Stopping);
    assert!(scene.state.attended().eq([job(1)]));
    let scene = scene.when(stop_service(job(1), false)).nothing();
    let scene = scene.when(report(A, job(1), 1, released(Some(7), None))).happened().0;
    assert_eq!((status(&scene), snapshot_of(&scene, "system-stop-1")), (Status::Stopped, SnapshotStatus::Ready));
    assert!(scene.state.executors[&A].attempts.is_empty());
    let scene = scene.when(stop_service(job(1), false)).nothing();
    let scene = scene.when(submit([(job(2), service().named("counter"))])).refused(InUse, "is stopped");
    scene.when(delete(job(1), None)).happened();
}

#[test]
fn three_snapshots_and_each_way_to_start() {
    let mut scene = up();
    for (name, number) in [("one", 2), ("two", 3), ("three", 4)] {
        scene = scene.at(number * 10).when(create_snapshot(job(1), name)).happened().0;
        scene = scene.when(report(A, job(1), 1, News::Checkpoint(taken(number)))).happened().0;
        let told = News::Snapshot { up_to: number - 1, manifest: Some(taken(number).manifest) };
        scene = scene.when(report(A, job(1), 1, told)).happened().0;
    }
    let stopped = scene.at(50).when(stop_service(job(1), true)).happened().0;
    let stopped = stopped.when(report(A, job(1), 1, ended(Outcome::Signalled { signal: 9 }, 1))).happened().0;
    let begun = |mode, name| {
        let scene = stopped.clone().when(start(job(1), mode, name)).happened().0;
        assert_eq!(status(&scene), Status::Starting);
        let scene = scene.when(place(job(1), 2, B)).happened().0;
        (restores(&scene), scene.job(job(1)).placement.and_then(|placed| placed.restore).map(|number| number.0))
    };
    assert_eq!(begun("latest", None), (Some(4), Some(4)));
    assert_eq!(begun("snapshot", Some("one")), (Some(2), Some(2)));
    assert_eq!(begun("snapshot", Some("two")), (Some(3), Some(3)));
    assert_eq!(begun("none", None), (None, None));
    stopped.clone().when(start(job(1), "snapshot", Some("four"))).refused(NotFound, "snapshot `four`");
    stopped.clone().when(start(job(1), "snapshot", None)).refused(InvalidArgument, "restore.snapshot");
    let scene = stopped.when(start(job(1), "latest", Some("one"))).refused(InvalidArgument, "restore.snapshot");
    assert_eq!(status(&scene), Status::Stopped);
}

#[test]
fn the_choice_survives_losses_and_unrelated_updates_until_there_is_a_checkpoint_of_the_run() {
    let scene = up().and((2..=3).map(|number| checkpointed(job(1), 1, number)));
    let scene = scene.when(stop_service(job(1), true)).happened().0;
    let scene = scene.when(report(A, job(1), 1, exited(1))).happened().0;
    let scene = scene.when(start(job(1), "none", None)).happened().0;
    assert_eq!(restores(&scene), None);
    let scene = scene.when(update(job(1), 1, newer())).happened().0;
    assert_eq!(restores(&scene), None);
    let scene = scene.when(place(job(1), 2, B)).happened().0.and([lost(B)]);
    let scene = scene.when(evict(job(1), 2)).happened().0;
    assert_eq!((status(&scene), restores(&scene)), (Status::Updating, None));
    let scene = scene.when(place(job(1), 3, A)).happened().0.and([started(job(1), 3, T0)]);
    let scene = scene.and([checkpointed(job(1), 3, 4)]);
    assert_eq!(restores(&scene), Some(4));
}

#[test]
fn force_stops_whatever_it_is() {
    let over = |scene: Scene| {
        let (scene, _) = scene.when(stop_service(job(1), true)).happened();
        let placed = scene.job(job(1)).placement.is_some();
        let attempt = scene.job(job(1)).attempt.0;
        let scene = if placed { scene.when(report(A, job(1), attempt, exited(1))).happened().0 } else { scene };
        assert_eq!(status(&scene), Status::Stopped);
        assert_eq!(scene.job(job(1)).change(), None);
        scene
    };
    over(given([joined(A), submitted(job(1), service())]));
    over(given([joined(A), submitted(job(1), service()), placed(job(1), 1, A)]));
    over(up());
    over(up().and([restarting(job(1), 1, Cause::ProcessExit, 3)]));
    let stopping = over(up().when(stop_service(job(1), false)).happened().0);
    assert_eq!(snapshot_of(&stopping, "system-stop-1"), SnapshotStatus::Failed);
    let updating = over(up().when(update(job(1), 1, newer())).happened().0);
    assert_eq!(versions(&updating), [(1, VersionStatus::Active)]);
    let proving = over(proving());
    assert_eq!(versions(&proving), [(1, VersionStatus::Superseded), (2, VersionStatus::Active)]);
    // Its latest checkpoint is still there to start from.
    assert_eq!(restores(&over(up())), Some(1));
}

#[test]
fn the_next_attempt_of_one_that_must_never_run_twice_waits_until_nothing_of_this_one_is_left() {
    let up = given([joined(A), joined(B)]).and(running(job(1), alone(service()), A));
    let starting = given([joined(A), joined(B), submitted(job(1), alone(service())), placed(job(1), 1, A)]);
    let update = |allow_lost_state| update_as(origin(None), job(1), 1, alone(newer()), allow_lost_state);
    for (scene, change) in [
        (up.clone(), stop_service(job(1), true)),
        (up, update(true)),
        (starting.clone(), stop_service(job(1), true)),
        (starting.clone(), update(false)),
        (alone_and_proving(), roll_back(job(1), 2)),
    ] {
        let scene = scene.when(change).happened().0.at(9_999_999);
        assert_eq!(timer::due(&scene.state, scene.time(), 9), [], "no time ends its waiting");
        let attempt = scene.job(job(1)).attempt.0;
        let scene = scene.when(ATTEND).stale();
        assert!(scene.job(job(1)).placement.is_some());
        let gone = scene.clone().and([lost(A)]).when(evict(job(1), attempt)).happened().0;
        assert!(gone.job(job(1)).placement.is_none());
        let told = scene.when(report(A, job(1), attempt, exited(1))).happened().0;
        assert!(told.job(job(1)).placement.is_none());
    }
    // One that is up can fail to give its state back in time, and goes on.
    let scene = starting.when(update(false)).happened().0.at(650_000).and([started(job(1), 1, T0)]);
    assert_eq!(timer::due(&scene.state, scene.time(), 9), [ATTEND]);
    assert_eq!(status(&scene.when(ATTEND).happened().0), Status::Running);
}

fn alone(spec: JobSpec) -> JobSpec {
    spec.with(|spec| spec.exclusive = true)
}

/// Version 2 of a job that must never run twice is up in attempt 2 on A.
fn alone_and_proving() -> Scene {
    let scene = given([joined(A), joined(B)]).and(running(job(1), alone(service()), A));
    let scene = scene.when(update(job(1), 1, alone(newer()))).happened().0;
    let scene = scene.when(report(A, job(1), 1, released(Some(2), None))).happened().0;
    let scene = scene.when(place(job(1), 2, A)).happened().0;
    scene.when(report(A, job(1), 2, News::Started)).happened().0
}

#[test]
fn those_who_wait_for_their_executors_keep_nobody_else_waiting() {
    let mut scene = given([joined(A)]);
    for number in 1..=3 {
        scene = scene.and(running(job(number), alone(service()), A));
        scene = scene.when(stop_service(job(number), true)).happened().0;
    }
    let scene = scene.at(1).and(running(job(4), service(), A)).when(stop_service(job(4), true)).happened().0;
    assert_eq!(timer::due(&scene.state, at(40_000), 2), [Command::AttendJob { job: job(4) }]);
}

#[test]
fn without_force_only_a_running_service_stops() {
    for scene in [
        given([submitted(job(1), service())]),
        given([joined(A), submitted(job(1), service()), placed(job(1), 1, A)]),
        up().and([restarting(job(1), 1, Cause::ProcessExit, 1)]),
        up().when(update(job(1), 1, newer())).happened().0,
    ] {
        scene.when(stop_service(job(1), false)).refused(InUse, "force");
    }
    given([joined(A)]).and(running(job(1), batch(), A)).when(stop_service(job(1), true)).refused(Unsupported, "batch");
    given([]).when(stop_service(job(1), false)).refused(NotFound, "job");
    up().when(kill(job(1))).happened().0.when(stop_service(job(1), true)).refused(InUse, "cancelled");
    up().when(start(job(1), "latest", None)).refused(InUse, "is running");
    let over = up().and([finished(job(1), 1, Status::Failed, None, None)]);
    over.when(stop_service(job(1), true)).refused(InUse, "is over already");
}

#[test]
fn a_stop_without_its_snapshot_fails_and_the_job_goes_on() {
    let scene = up().when(stop_service(job(1), false)).happened().0;
    let news = News::ReleaseFailed { reason: "disk full".into() };
    let failed = scene.clone().when(report(A, job(1), 1, news)).happened().0;
    assert_eq!((status(&failed), snapshot_of(&failed, "system-stop-1")), (Status::Running, SnapshotStatus::Failed));
    assert!(failed.job(job(1)).reason.as_deref().unwrap().contains("disk full"));
    failed.when(stop_service(job(1), true)).happened();
    // Nothing heard for as long as a checkpoint may take, and half a minute more.
    assert_eq!(timer::due(&scene.state, at(630_000), 9), [ATTEND]);
    assert_eq!(status(&scene.at(630_000).when(ATTEND).happened().0), Status::Running);
}

#[test]
fn a_stop_ends_with_its_attempt_however_that_ends() {
    let stopping = up().when(stop_service(job(1), false)).happened().0;
    let crashed = stopping.clone().when(report(A, job(1), 1, exited(3))).happened().0;
    let reason = crashed.job(job(1)).reason.clone().unwrap();
    assert_eq!((status(&crashed), crashed.job(job(1)).exit_code), (Status::Stopped, Some(3)));
    assert!(reason.contains("exited with 3") && reason.contains("is lost"), "{reason}");
    let lost_host = stopping.and([lost(A)]).when(evict(job(1), 1)).happened().0;
    assert_eq!((status(&lost_host), restores(&lost_host)), (Status::Stopped, Some(1)));
    // With force it is over after half a minute even if nobody ever says so.
    let forced = up().when(stop_service(job(1), true)).happened().0;
    assert_eq!(timer::due(&forced.state, at(30_000), 9), [ATTEND]);
    assert_eq!(status(&forced.at(30_000).when(ATTEND).happened().0), Status::Stopped);
}

#[test]
fn what_was_chosen_and_cannot_be_read_is_not_replaced_by_something_else() {
    let scene = up().when(create_snapshot(job(1), "a")).happened().0;
    let told = News::Snapshot { up_to: 1, manifest: Some(taken(1).manifest) };
    let scene = scene.when(report(A, job(1), 1, told)).happened().0.and([checkpointed(job(1), 1, 2)]);
    let scene = scene.at(5).and([checkpointed(job(1), 1, 3)]);
    let scene = scene.when(stop_service(job(1), true)).happened().0;
    let scene = scene.when(report(A, job(1), 1, exited(1))).happened().0;
    let chosen = scene.clone().when(start(job(1), "snapshot", Some("a"))).happened().0;
    let chosen = chosen.when(place(job(1), 2, B)).happened().0;
    let chosen = chosen.when(report(B, job(1), 2, unreadable(1))).happened().0;
    assert_eq!(status(&chosen), Status::Stopped);
    assert!(chosen.job(job(1)).reason.as_deref().unwrap().contains("snapshot a cannot be read"));
    // The newest was asked for: the one before it will do, and the history says so.
    let latest = scene.when(start(job(1), "latest", None)).happened().0.when(place(job(1), 2, B)).happened().0;
    assert_eq!(restores(&latest), Some(3));
    let latest = latest.when(report(B, job(1), 2, unreadable(3))).happened().0;
    assert_eq!(status(&latest), Status::Restarting);
    assert_eq!(restores(&latest).map(|number| number < 3), Some(true));
    assert_eq!(latest.job(job(1)).life.as_ref().unwrap().restore, RestoreMode::Latest);
}

// Update and rollback.

/// Version 2 has been started from what version 1 left as checkpoint 2, and is up in attempt 2 on B, since `T0`.
fn proving() -> Scene {
    let scene = up().when(update(job(1), 1, newer())).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0), (Status::Updating, 1));
    let scene = scene.when(report(A, job(1), 1, released(Some(2), None))).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0, restores(&scene)), (Status::Updating, 2, Some(2)));
    let scene = scene.when(place(job(1), 2, A)).happened().0;
    assert_eq!(status(&scene), Status::Updating);
    scene.when(report(A, job(1), 2, News::Started)).happened().0
}

#[test]
fn an_update_that_stays_up_is_there_to_stay() {
    let scene = proving();
    assert_eq!(status(&scene), Status::Updating);
    assert_eq!(timer::due(&scene.state, at(PROVEN_AFTER.0 - 1), 9), []);
    assert_eq!(timer::due(&scene.state, at(PROVEN_AFTER.0), 9), [ATTEND]);
    let scene = scene.at(PROVEN_AFTER.0).when(ATTEND).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0), (Status::Running, 2));
    assert_eq!(versions(&scene), [(1, VersionStatus::Superseded), (2, VersionStatus::Active)]);
    assert_eq!(scene.job(job(1)).last_recovery.as_ref().map(|recovery| recovery.cause), Some(Cause::Update));
    assert_eq!(scene.job(job(1)).spec.labels["version"], "newer");
}

#[test]
fn one_that_fails_for_good_is_rolled_back_at_once_to_exactly_what_was_before() {
    let once = newer().attempts(Some(1));
    let scene = up().when(update(job(1), 1, once)).happened().0;
    let scene = scene.when(report(A, job(1), 1, released(Some(2), None))).happened().0;
    let scene = scene.when(place(job(1), 2, A)).happened().0.and([checkpointed(job(1), 2, 3)]);
    let scene = scene.when(report(A, job(1), 2, exited(1))).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0, restores(&scene)), (Status::RollingBack, 1, Some(2)));
    assert_eq!(versions(&scene), [(1, VersionStatus::Active), (2, VersionStatus::RolledBack)]);
    let reason = scene.job(job(1)).life.as_ref().unwrap().versions[1].reason.clone().unwrap();
    assert!(reason.contains("exited with 1"), "{reason}");
    assert_eq!(*scene.job(job(1)).spec, service());
    let scene = scene.when(place(job(1), 3, B)).happened().0;
    let scene = scene.when(report(B, job(1), 3, News::Started)).happened().0;
    assert_eq!(status(&scene), Status::Running);
    // The next one is version 3.
    let scene = scene.when(update(job(1), 1, newer())).happened().0;
    assert!(matches!(scene.job(job(1)).change(), Some(Change::Update { to, .. }) if to.0 == 3));
}

#[test]
fn one_that_is_gone_back_to_and_is_not_started_in_time_is_tried_elsewhere() {
    let scene = up().when(update(job(1), 1, newer().attempts(Some(1)))).happened().0;
    let scene = scene.when(report(A, job(1), 1, released(Some(2), None))).happened().0;
    let scene = scene.when(place(job(1), 2, A)).happened().0;
    let scene = scene.when(report(A, job(1), 2, exited(1))).happened().0;
    let scene = scene.when(place(job(1), 3, B)).happened().0;
    assert_eq!(status(&scene), Status::RollingBack);
    let withdraw = Command::WithdrawAttempt { job: job(1), attempt: Attempt(3), cause: Cause::Timeout };
    assert_eq!(timer::due(&scene.state, at(719_999), 9), []);
    assert_eq!(timer::due(&scene.state, at(720_000), 9), std::slice::from_ref(&withdraw));
    let scene = scene.at(720_000).when(withdraw).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0, restores(&scene)), (Status::Restarting, 1, Some(2)));
    assert!(scene.job(job(1)).placement.is_none());
}

#[test]
fn one_that_keeps_crashing_is_rolled_back_after_a_minute() {
    let mut scene = proving();
    scene = scene.at(1_000).when(report(A, job(1), 2, exited(1))).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0), (Status::Updating, 2));
    assert_eq!(timer::due(&scene.state, at(59_999), 9), []);
    assert_eq!(timer::due(&scene.state, at(60_000), 9), [ATTEND]);
    let scene = scene.at(60_000).when(ATTEND).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0, restores(&scene)), (Status::RollingBack, 1, Some(2)));

    // One that is up just then is ended first, and so is one that nobody answers for.
    let late = proving().at(58_000).when(report(A, job(1), 2, exited(1))).happened().0.at(59_000);
    let late = late.and([placed_from(job(1), 3, A, 2), started(job(1), 3, at(59_000))]);
    let late = late.at(60_000).when(ATTEND).happened().0;
    assert_eq!((status(&late), late.job(job(1)).version.0), (Status::RollingBack, 2));
    let told = late.clone().when(report(A, job(1), 3, released(None, None))).happened().0;
    let untold = late.at(90_000).when(ATTEND).happened().0;
    for scene in [told, untold] {
        assert_eq!((scene.job(job(1)).version.0, restores(&scene)), (1, Some(2)));
    }
}

#[test]
fn a_lost_host_is_not_the_new_versions_fault() {
    let scene = proving().and([lost(A)]).when(evict(job(1), 2)).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0), (Status::Updating, 2));
    let scene = scene.when(place(job(1), 3, B)).happened().0;
    let scene = scene.when(report(B, job(1), 3, News::Started)).happened().0;
    assert_eq!(status(&scene.at(PROVEN_AFTER.0).when(ATTEND).happened().0), Status::Running);
}

#[test]
fn an_update_without_its_snapshot_fails_unless_state_may_be_lost() {
    let news = || News::ReleaseFailed { reason: "disk full".into() };
    let scene = up().when(update(job(1), 1, newer())).happened().0;
    let scene = scene.when(report(A, job(1), 1, news())).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0), (Status::Running, 1));
    assert_eq!(snapshot_of(&scene, "system-update-1"), SnapshotStatus::Failed);
    let scene = scene.when(update_as(origin(None), job(1), 1, newer(), true)).happened().0;
    let scene = scene.when(report(A, job(1), 1, released(None, Some("disk full")))).happened().0;
    assert_eq!((status(&scene), scene.job(job(1)).version.0, restores(&scene)), (Status::Updating, 2, Some(1)));
}

#[test]
fn a_job_that_does_not_run_is_updated_from_the_state_there_is() {
    let pending = given([submitted(job(1), service())]).when(update(job(1), 1, newer())).happened().0;
    assert_eq!((status(&pending), pending.job(job(1)).version.0), (Status::Pending, 2));
    let restarting = up().and([restarting(job(1), 1, Cause::ProcessExit, 5)]);
    let restarting = restarting.when(update(job(1), 1, newer())).happened().0;
    assert_eq!((status(&restarting), restarting.job(job(1)).version.0), (Status::Updating, 2));
    assert_eq!((restores(&restarting), restarting.job(job(1)).failures), (Some(1), 0));
    let stopped = up().when(stop_service(job(1), true)).happened().0.when(report(A, job(1), 1, exited(1))).happened().0;
    let stopped = stopped.when(update(job(1), 1, newer())).happened().0;
    assert_eq!((status(&stopped), stopped.job(job(1)).version.0), (Status::Stopped, 2));
    let ends = given([joined(A)]).and(running(job(1), batch(), A)).when(update(job(1), 1, batch()));
    assert_eq!(status(&ends.happened().0), Status::Updating);
}

#[test]
fn of_two_updates_one_wins() {
    let first = up().when(update(job(1), 1, newer())).happened().0;
    let first = first.when(update(job(1), 1, newer())).refused(ConcurrentModification, "is being updated to 2");
    first
        .when(report(A, job(1), 1, released(None, None)))
        .happened()
        .0
        .when(update(job(1), 1, newer()))
        .refused(ConcurrentModification, "has version 2");
    // The same request is the same update.
    let ask = || update_as(origin(Some("r-1")), job(1), 1, newer(), false);
    up().when(ask()).happened().0.when(ask()).nothing();
}

#[test]
fn what_makes_it_this_job_cannot_be_updated() {
    up().when(update(job(1), 7, newer())).refused(ConcurrentModification, "has version 1");
    up().when(update(job(1), 1, newer().named("other"))).refused(InvalidArgument, "keeps its name");
    up().when(update(job(1), 1, batch())).refused(Unsupported, "spec.kind");
    let tiny = newer().with(|spec| spec.checkpoint.retain = 0);
    up().when(update(job(1), 1, tiny)).refused(InvalidArgument, "checkpoint.retain");
    let process = given([joined(A), submitted(job(1), noop())]);
    process.when(update(job(1), 1, batch())).refused(Unsupported, "spec.driver");
    up().and([finished(job(1), 1, Status::Failed, None, None)])
        .when(update(job(1), 1, newer()))
        .refused(InUse, "is over already");
    proving().when(update(job(1), 2, newer())).refused(InUse, "is updating");
    up().when(update(job(2), 1, newer())).refused(NotFound, "job");
}

#[test]
fn a_rollback_goes_to_the_version_before_and_keeps_a_snapshot_of_what_it_leaves() {
    let healthy = proving().at(PROVEN_AFTER.0).when(ATTEND).happened().0.and([checkpointed(job(1), 2, 3)]);
    let scene = healthy.clone().when(roll_back(job(1), 2)).happened().0;
    assert_eq!(status(&scene), Status::RollingBack);
    scene.clone().when(roll_back(job(1), 2)).refused(InUse, "is rolling_back");
    let scene = scene.when(report(A, job(1), 2, released(Some(4), None))).happened().0;
    assert_eq!((scene.job(job(1)).version.0, restores(&scene)), (1, Some(2)));
    assert_eq!(snapshot_of(&scene, "system-rollback-2"), SnapshotStatus::Ready);
    assert_eq!(versions(&scene), [(1, VersionStatus::Active), (2, VersionStatus::RolledBack)]);
    scene.when(roll_back(job(1), 1)).refused(InUse, "is rolling_back");

    healthy.clone().when(roll_back(job(1), 1)).refused(ConcurrentModification, "has version 2");
    up().when(roll_back(job(1), 1)).refused(NotFound, "version of job");
    let without = healthy.when(delete_snapshot(job(1), "system-update-1", T0)).happened().0;
    without.when(roll_back(job(1), 2)).refused(NotFound, "ready snapshot of version 1");
    // An update that has not shown its worth yet is left without a snapshot.
    let scene = proving().when(roll_back(job(1), 2)).happened().0;
    let scene = scene.when(report(A, job(1), 2, released(None, None))).happened().0;
    assert_eq!((scene.job(job(1)).version.0, restores(&scene)), (1, Some(2)));
}
