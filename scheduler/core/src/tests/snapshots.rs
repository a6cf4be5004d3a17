//! Snapshots: who may ask, what becomes of them, and what is kept for them.

use super::scene::*;
use crate::timer;
use outlive_schemas::command::Command;
use outlive_schemas::error::ErrorCode::*;
use outlive_schemas::event::{Cause, Event};
use outlive_schemas::id::SnapshotName;
use outlive_schemas::limits;
use outlive_schemas::message::News;
use outlive_schemas::snapshot::*;
use outlive_schemas::view::Status;

fn up() -> Scene {
    given([joined(A), joined(B)]).and(running(job(1), service(), A))
}

fn shot(scene: &Scene, name: &str) -> crate::life::Snapshot {
    let name: SnapshotName = name.parse().unwrap();
    scene.job(job(1)).life.as_ref().and_then(|life| life.snapshot(&name)).expect("it is there").clone()
}

fn status(scene: &Scene, name: &str) -> SnapshotStatus {
    shot(scene, name).status
}

fn told(up_to: u64, contents: Option<u64>) -> Command {
    report(A, job(1), 1, News::Snapshot { up_to, manifest: contents.map(|contents| taken(contents).manifest) })
}

#[test]
fn one_checkpoint_serves_every_snapshot_that_was_asked_for_before_it() {
    let scene = up().when(create_snapshot(job(1), "a")).happened().0;
    let scene = scene.at(10).when(create_snapshot(job(1), "b")).happened().0;
    let scene = scene.when(create_snapshot(job(1), "c")).happened().0;
    assert_eq!(status(&scene, "c"), SnapshotStatus::Creating);
    assert!(scene.state.attended().eq([job(1)]));
    let scene = scene.when(report(A, job(1), 1, News::Checkpoint(taken(1)))).happened().0;
    let (scene, events) = scene.at(20).when(told(2, Some(1))).happened();
    assert_eq!(events.len(), 2);
    let b = shot(&scene, "b");
    assert_eq!((b.status, b.ready_at, b.created_at), (SnapshotStatus::Ready, Some(at(20)), at(10)));
    assert_eq!(b.content.map(|content| (content.number.0, content.taken)), Some((1, taken(1))));
    assert_eq!(status(&scene, "c"), SnapshotStatus::Creating);
    // The rest comes of an unchanged state, without another checkpoint; and what is said twice changes nothing.
    let scene = scene.when(told(3, Some(1))).happened().0;
    assert_eq!(shot(&scene, "c").content.map(|content| content.number.0), Some(1));
    assert_eq!(scene.state.attended().count(), 0);
    scene.when(told(3, Some(1))).nothing();
}

#[test]
fn an_empty_state_is_a_snapshot_as_well() {
    let scene = up().when(create_snapshot(job(1), "a")).happened().0.when(told(1, None)).happened().0;
    assert_eq!((status(&scene, "a"), shot(&scene, "a").content), (SnapshotStatus::Ready, None));
}

#[test]
fn bad_requests_change_nothing() {
    up().when(create_snapshot(job(2), "a")).refused(NotFound, "job");
    up().when(create_snapshot(job(1), "system-mine")).refused(InvalidArgument, "system-");
    let taken = up().when(create_snapshot(job(1), "a")).happened().0;
    taken.clone().when(create_snapshot(job(1), "a")).refused(InUse, "is taken by a snapshot");
    taken.clone().when(delete_snapshot(job(1), "a", T0)).refused(InUse, "is being created");
    taken.clone().when(delete_snapshot(job(1), "b", T0)).refused(NotFound, "snapshot `b`");
    taken.when(delete_snapshot(job(1), "a", at(1))).refused(ConcurrentModification, "was created at");
    given([submitted(job(1), service())]).when(create_snapshot(job(1), "a")).refused(InUse, "is pending");
    up().and([restarting(job(1), 1, Cause::ProcessExit, 1)])
        .when(create_snapshot(job(1), "a"))
        .refused(InUse, "is restarting");
    given([joined(A), submitted(job(1), noop())]).when(create_snapshot(job(1), "a")).refused(Unsupported, "noop");
}

#[test]
fn a_repeated_request_makes_one_snapshot() {
    let Command::CreateSnapshot { namespace, job: of, name, .. } = create_snapshot(job(1), "a") else { unreachable!() };
    let ask = |id| Command::CreateSnapshot {
        namespace: namespace.clone(),
        job: of.clone(),
        name: name.clone(),
        origin: origin(Some(id)),
    };
    let scene = up().when(ask("r-1")).happened().0;
    scene.clone().when(ask("r-1")).nothing();
    scene.when(ask("r-2")).refused(InUse, "is taken");
}

#[test]
fn the_thousand_and_first_is_refused_and_the_systems_own_is_still_taken() {
    let mut scene = up();
    scene.checked = false;
    for number in 1..=limits::SNAPSHOTS_PER_JOB_MAX {
        scene = scene.when(create_snapshot(job(1), &format!("s-{number}"))).happened().0;
    }
    let scene = scene.when(create_snapshot(job(1), "one-more")).refused(LimitExceeded, "the limit is 1000");
    let scene = scene.when(told(1_000, None)).happened().0;
    let scene = scene.when(stop_service(job(1), false)).happened().0;
    assert_eq!(status(&scene, "system-stop-1001"), SnapshotStatus::Creating);
    let scene = scene.when(report(A, job(1), 1, released(Some(5), None))).happened().0;
    assert_eq!(status(&scene, "system-stop-1001"), SnapshotStatus::Ready);
    // One that is deleted makes room.
    let scene = scene.when(delete_snapshot(job(1), "s-7", T0)).happened().0;
    let scene = scene.when(start(job(1), "latest", None)).happened().0;
    let scene = scene.and([placed_from(job(1), 2, A, 1), started(job(1), 2, T0)]);
    let scene = scene.when(create_snapshot(job(1), "one-more")).happened().0;
    scene.when(create_snapshot(job(1), "two-more")).refused(LimitExceeded, "1000 snapshots");
}

#[test]
fn a_lost_executor_leaves_the_snapshot_to_the_next_attempt() {
    let scene = up().and([checkpointed(job(1), 1, 1)]).when(create_snapshot(job(1), "a")).happened().0;
    let scene = scene.and([lost(A)]).when(evict(job(1), 1)).happened().0;
    assert_eq!(status(&scene, "a"), SnapshotStatus::Creating);
    assert_eq!(scene.state.attended().count(), 0);
    let scene = scene.and([placed_from(job(1), 2, B, 1), started(job(1), 2, T0)]);
    assert!(scene.state.attended().eq([job(1)]));
    let news = News::Snapshot { up_to: 1, manifest: Some(taken(1).manifest) };
    let scene = scene.when(report(B, job(1), 2, news)).happened().0;
    assert_eq!(status(&scene, "a"), SnapshotStatus::Ready);
}

#[test]
fn a_snapshot_is_never_being_created_for_ever() {
    let attend = Command::AttendJob { job: job(1) };
    let scene = up().when(create_snapshot(job(1), "a")).happened().0;
    // Ten minutes for a checkpoint, one more for everything else.
    assert_eq!(timer::due(&scene.state, at(659_999), 10), []);
    assert_eq!(timer::due(&scene.state, at(660_000), 10), std::slice::from_ref(&attend));
    let scene = scene.at(660_000).when(attend).happened().0;
    assert_eq!(shot(&scene, "a").error.as_deref(), Some("it was not ready after 11m"));
    assert_eq!(timer::due(&scene.state, at(9_000_000), 10), []);

    let failed = up().when(create_snapshot(job(1), "a")).happened().0;
    let news = News::SnapshotFailed { up_to: 1, reason: "disk full".into() };
    let failed = failed.when(report(A, job(1), 1, news)).happened().0;
    assert_eq!(
        (status(&failed, "a"), shot(&failed, "a").error.as_deref()),
        (SnapshotStatus::Failed, Some("disk full"))
    );

    let ended = up().when(create_snapshot(job(1), "a")).happened().0.when(kill(job(1))).happened().0;
    let ended = ended.when(report(A, job(1), 1, exited(0))).happened().0;
    assert_eq!((ended.job(job(1)).status, status(&ended, "a")), (Status::Cancelled, SnapshotStatus::Failed));
}

#[test]
fn what_a_snapshot_holds_is_kept_however_many_checkpoints_come() {
    let scene = up().and([checkpointed(job(1), 1, 1)]).when(create_snapshot(job(1), "a")).happened().0;
    let scene = scene.when(told(1, Some(1))).happened().0;
    let scene = scene.and((2..=20).map(|number| checkpointed(job(1), 1, number)));
    let kept = |scene: &Scene| scene.state.referenced_manifests(job(1)).collect::<Vec<_>>();
    assert!(kept(&scene).contains(&taken(1).manifest));
    assert!(!kept(&scene).contains(&taken(2).manifest));

    let (scene, _) = scene.when(delete_snapshot(job(1), "a", T0)).happened();
    assert_eq!(status(&scene, "a"), SnapshotStatus::Deleting);
    assert!(!kept(&scene).contains(&taken(1).manifest));
    let scene = scene.when(delete_snapshot(job(1), "a", T0)).nothing();
    // It is shown for a moment, and its name may be used again at once.
    scene.clone().when(create_snapshot(job(1), "a")).happened();
    let scene = scene.at(2_000).when(Command::AttendJob { job: job(1) }).happened().0;
    scene.when(delete_snapshot(job(1), "a", T0)).refused(NotFound, "snapshot `a`");
}

#[test]
fn an_imported_snapshot_is_begun_and_ended_and_takes_a_number_of_its_own() {
    let scene = up().and([checkpointed(job(1), 1, 1)]);
    let scene = scene.when(import_snapshot(job(1), "a", None)).refused(InUse, "is running");
    let scene = scene.when(stop_service(job(1), true)).happened().0.when(report(A, job(1), 1, exited(0))).happened().0;
    let scene = scene.when(import_snapshot(job(1), "a", None)).happened().0;
    assert!(scene.job(job(1)).is_importing());
    assert_eq!(scene.state.attended().count(), 0, "no attempt makes it");
    let content = |ms| Some(ImportedContent { created_at: at(ms), taken: Some(taken(9)) });
    let scene = scene.when(import_snapshot(job(1), "a", content(1))).refused(ConcurrentModification, "import");
    let scene = scene.when(import_snapshot(job(1), "a", content(0))).happened().0;
    assert_eq!(shot(&scene, "a").content.map(|content| content.number.0), Some(2));
    let scene = scene.when(import_snapshot(job(1), "a", content(0))).nothing();
    let scene = scene.when(start(job(1), "snapshot", Some("a"))).happened().0;
    let scene = scene.and([placed_from(job(1), 2, A, 2), started(job(1), 2, T0)]);
    let (_, events) = scene.when(report(A, job(1), 2, News::Checkpoint(taken(3)))).happened();
    assert!(matches!(&events[0].event, Event::CheckpointCompleted(e) if e.number.0 == 3), "{events:?}");
}

#[test]
fn an_import_whose_client_is_gone_has_failed() {
    let scene = up().when(stop_service(job(1), true)).happened().0.when(report(A, job(1), 1, exited(0))).happened().0;
    let scene = scene.when(import_snapshot(job(1), "a", None)).happened().0;
    let open =
        |scene: &Scene| scene.state.open_imports().map(|(id, known)| (id, known.name.to_string())).collect::<Vec<_>>();
    assert_eq!(open(&scene), [(job(1), "a".to_owned())]);
    // They are looked for once a second: among those that there are, and not among all that is due.
    let scene = scene.and(running(job(2), service(), B)).when(create_snapshot(job(2), "c")).happened().0;
    assert!(scene.state.index.importing.iter().eq([&job(1)]) && scene.state.index.due.len() == 2);
    let give_up = |name: &str| Command::GiveUpImport { job: job(1), name: name.parse().unwrap() };
    scene.clone().when(give_up("b")).stale();
    let scene = scene.at(60_000).when(give_up("a")).happened().0;
    assert_eq!(shot(&scene, "a").error.as_deref(), Some("nothing was heard of who imports it for 1m"));
    assert_eq!(open(&scene), []);
    assert!(scene.state.index.importing.is_empty());
    // The client was only slow: it is told.
    let content = Some(ImportedContent { created_at: at(0), taken: Some(taken(9)) });
    let scene = scene.when(import_snapshot(job(1), "a", content)).refused(InUse, "is over: it is failed");
    scene.when(give_up("a")).stale();
}

#[test]
fn snapshots_are_listed_newest_first_in_pages() {
    let mut scene = up();
    for name in ["a", "b", "c"] {
        scene = scene.when(create_snapshot(job(1), name)).happened().0;
    }
    let page = |cursor: Option<String>| {
        let request = SnapshotListRequest { job: job(1).to_string().parse().unwrap(), limit: Some(2), cursor };
        crate::view::snapshots(job(1), scene.job(job(1)), &request)
    };
    let first = page(None).unwrap();
    assert_eq!(first.snapshots.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["c", "b"]);
    let last = page(first.cursor).unwrap();
    assert_eq!((last.snapshots.len(), last.snapshots[0].name.as_str(), last.cursor), (1, "a", None));
    assert_eq!(page(Some("x".into())).unwrap_err().code, InvalidArgument);
}
