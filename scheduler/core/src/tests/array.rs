//! Arrays: one job of many tasks.

use super::scene::*;
use crate::plan::{Hints, plan};
use crate::state::State;
use crate::{array, view};
use outlive_schemas::array::{ArrayAdvanced, ArrayCancelRequested, ArraySpec, TaskCounts, task_id};
use outlive_schemas::command::{Command, Stop};
use outlive_schemas::depend::{Condition, Dependency};
use outlive_schemas::error::ErrorCode;
use outlive_schemas::event::Event;
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::job::JobSpec;
use outlive_schemas::view::Status;
use outlive_schemas::when::JobRetried;

/// With room below it for the ids of its tasks.
const ARRAY: JobId = job(1 << 20);

fn task(index: u32) -> JobId {
    task_id(ARRAY, index)
}

fn of(spec: JobSpec, count: u32, parallel: u32) -> JobSpec {
    spec.with(|spec| spec.array = Some(ArraySpec { count, parallel: Some(parallel) }))
}

fn advanced(ended: &str, released: &str) -> Event {
    let set = |text: &str| text.parse().unwrap();
    Event::ArrayAdvanced(ArrayAdvanced { job: ARRAY, ended: set(ended), released: set(released), told: set("") })
}

fn attend() -> Command {
    Command::AttendArray { job: ARRAY }
}

fn due(scene: &Scene) -> bool {
    array::due(&scene.state, 10) == [attend()]
}

fn counts(scene: &Scene) -> [u32; 5] {
    let TaskCounts { pending, running, succeeded, failed, cancelled } =
        view::job(ARRAY, scene.job(ARRAY), scene.time()).tasks.unwrap();
    [pending, running, succeeded, failed, cancelled]
}

/// Five tasks, of which two may be on their way at once, and are.
fn begun(spec: JobSpec) -> Scene {
    let scene = given([joined(A)]).when(submit([(ARRAY, of(spec.named("resize"), 5, 2))])).happened().0;
    assert!(due(&scene) && counts(&scene) == [5, 0, 0, 0, 0]);
    let scene = scene.when(attend()).then([advanced("", "0-1")]);
    assert!(!due(&scene) && counts(&scene) == [3, 2, 0, 0, 0]);
    scene.when(attend()).stale()
}

/// Places a task and has it exit.
fn runs(scene: Scene, index: u32, code: i32) -> Scene {
    let attempt = scene.job(task(index)).attempt.0 + 1;
    let scene = scene.when(place(task(index), attempt, A)).happened().0;
    scene.when(report(A, task(index), attempt, exited(code))).happened().0
}

#[test]
fn tasks_follow_one_another_and_the_array_ends_with_the_last() {
    let mut scene = begun(batch());
    let placeable: Vec<_> =
        plan(&scene.state, &Hints::default(), scene.time(), 9).proposals.iter().map(|p| p.job).collect();
    assert_eq!(placeable.len(), 2, "{placeable:?}");
    assert_eq!(scene.job(task(1)).name(task(1)).as_str(), "resize-1");
    assert_eq!(scene.job(ARRAY).status, Status::Running);
    scene = runs(scene, 1, 0);
    assert!(due(&scene));
    scene = scene.when(attend()).then([advanced("1", "2")]);
    scene = runs(runs(scene, 0, 0), 2, 0);
    scene = scene.when(attend()).then([advanced("0,2", "3-4")]);
    scene = runs(runs(scene, 3, 0), 4, 0);
    scene = scene.when(attend()).then([advanced("3-4", "")]);
    assert_eq!(counts(&scene), [0, 0, 5, 0, 0]);
    scene = scene.when(attend()).then([finished(ARRAY, 0, Status::Succeeded, None, None)]);
    assert!(!due(&scene) && scene.state.jobs.len() == 1);
}

#[test]
fn a_task_that_fails_is_told_of_after_its_record_is_gone() {
    let scene = begun(batch().attempts(Some(2)));
    let scene = runs(scene, 0, 3);
    assert_eq!(scene.job(task(0)).status, Status::Restarting, "it is tried again like any job");
    let scene = runs(scene.at(60_000), 0, 3).when(attend()).then([advanced("0", "2")]);
    let shown = scene.state.counted_task(&namespace(), &"resize-0".parse().unwrap(), scene.time()).unwrap();
    assert_eq!((shown.id, shown.status, shown.attempt.0, shown.exit_code), (task(0), Status::Failed, 2, Some(3)));
    assert_eq!(shown.reason.as_deref(), Some("exited with 3; 2 of 2 attempts failed"));
    let waiting = scene.state.counted_task(&namespace(), &"resize-4".parse().unwrap(), scene.time()).unwrap();
    assert_eq!((waiting.status, waiting.reason.as_deref()), (Status::Pending, Some("waiting_for_array")));
    assert_eq!(scene.state.counted_task(&namespace(), &"resize-5".parse().unwrap(), scene.time()), None);
    assert_eq!(scene.state.resolve(&namespace(), &"resize-1".parse().unwrap()).map(|(id, _)| id), Ok(task(1)));
    let mut scene = runs(runs(scene, 1, 0), 2, 0).when(attend()).happened().0;
    scene = runs(runs(scene, 3, 0), 4, 0).when(attend()).happened().0;
    let scene = scene.when(attend()).then([finished(ARRAY, 0, Status::Failed, Some("1 of 5 tasks failed"), None)]);
    // Tried again, it runs what failed, and nothing else; attempts count on.
    let again = Event::JobRetried(JobRetried { job: ARRAY, attempt: Attempt(0), request_id: None });
    let again = scene.clone().and([again]);
    assert_eq!((again.job(ARRAY).status, counts(&again)), (Status::Pending, [1, 0, 4, 0, 0]));
    let again = again.when(attend()).then([advanced("", "0")]);
    assert_eq!(again.job(task(0)).attempt.0, 2);
    let again = runs(again, 0, 0).when(attend()).happened().0;
    again.when(attend()).then([finished(ARRAY, 0, Status::Succeeded, None, None)]);
    // All that its tasks left is erased with it.
    let scene = scene.when(delete("resize", None)).then([deleted(ARRAY)]);
    assert!((0..5).all(|index| scene.state.to_erase.contains_key(&task(index))) && scene.state.to_erase.len() == 5);
}

#[test]
fn the_whole_is_cancelled_with_what_is_on_its_way() {
    let scene = begun(batch());
    let scene = scene.when(place(task(0), 1, A)).happened().0;
    let asked = |how| Event::ArrayCancelRequested(ArrayCancelRequested { job: ARRAY, how });
    let scene = scene.when(cancel("resize")).then([asked(GRACEFUL)]);
    let scene = scene.when(cancel("resize")).nothing();
    assert_eq!((scene.job(ARRAY).status, counts(&scene)), (Status::Stopping, [0, 2, 0, 0, 3]));
    let told = Event::ArrayAdvanced(ArrayAdvanced {
        job: ARRAY,
        ended: "".parse().unwrap(),
        released: "".parse().unwrap(),
        told: "0-1".parse().unwrap(),
    });
    let never = finished(task(1), 0, Status::Cancelled, Some("cancelled before it ran"), None);
    let scene = scene.when(attend()).then([cancel_requested(task(0), 1, GRACEFUL), never, told]);
    let scene = scene.when(kill("resize")).then([asked(Stop::Kill)]);
    let (scene, events) = scene.when(attend()).happened();
    assert_eq!(events[0].event, cancel_requested(task(0), 1, Stop::Kill));
    assert!(!due(&scene));
    let scene = scene.when(report(A, task(0), 1, exited(1))).happened().0;
    let scene = scene.when(attend()).then([advanced("0", "")]);
    let reason = "cancelled; of 5 tasks 0 had succeeded and 0 had failed";
    scene.when(attend()).then([finished(ARRAY, 0, Status::Cancelled, Some(reason), None)]);
}

#[test]
fn one_task_can_be_cancelled_and_the_others_go_on() {
    let scene = begun(batch()).when(cancel("resize-0")).happened().0;
    let mut scene = scene.when(attend()).then([advanced("0", "2")]);
    scene = runs(runs(scene, 1, 0), 2, 0).when(attend()).happened().0;
    scene = runs(runs(scene, 3, 0), 4, 0).when(attend()).happened().0;
    let reason = "0 of 5 tasks failed, and 1 were cancelled";
    scene.when(attend()).then([finished(ARRAY, 0, Status::Failed, Some(reason), None)]);
}

#[test]
fn an_array_waits_as_a_whole_and_its_tasks_find_what_it_waited_for() {
    let parent = |of: &str| Dependency { job: of.parse().unwrap(), until: Condition::Succeeded };
    let scene = given([joined(A)]).and([submitted(job(1), batch().named("extract"))]);
    let spec = of(batch().named("resize"), 2, 2).with(|spec| spec.depends_on.push(parent("extract")));
    let after = batch().with(|spec| spec.depends_on.push(parent("resize")));
    let scene = scene.when(submit([(ARRAY, spec), (job(3), after)])).happened().0;
    assert!(array::due(&scene.state, 9).is_empty());
    // Cancelled before its time, it is over at once.
    let cancelled = scene.clone().when(cancel("resize")).happened().0;
    let cancelled = cancelled.when(attend()).happened().0;
    assert_eq!((cancelled.job(ARRAY).status, counts(&cancelled)), (Status::Cancelled, [0, 0, 0, 0, 2]));
    let scene = scene.when(place(job(1), 1, A)).happened().0;
    let mut ended = outlive_schemas::message::Ended {
        outcome: outlive_schemas::message::Outcome::Exited { code: 0 },
        ran_ms: None,
        result: None,
    };
    ended.result = Some("rows".into());
    let scene = scene.when(report(A, job(1), 1, outlive_schemas::message::News::Ended(ended))).happened().0;
    let scene = scene.when(Command::SettleDependencies { job: ARRAY }).happened().0;
    let scene = scene.when(attend()).then([advanced("", "0-1")]);
    assert_eq!(scene.job(task(1)).input_files()[0].content, "rows".into());
    let part = |index: u32| batch().with(|spec| spec.depends_on.push(parent(&format!("resize-{index}"))));
    let scene = scene.when(submit([(job(9), part(0))])).refused(ErrorCode::Unsupported, "depend on the whole");
    let scene = runs(runs(scene, 0, 0), 1, 0).when(attend()).happened().0;
    let scene = scene.when(attend()).happened().0;
    scene.when(Command::SettleDependencies { job: job(3) }).happened();
}

#[test]
fn what_is_not_for_arrays_is_said() {
    let scene = begun(batch());
    let scene = scene.when(update("resize", 1, batch())).refused(ErrorCode::Unsupported, "is an array");
    let scene = scene.when(delete("resize-0", None)).refused(ErrorCode::Unsupported, "is a task of array");
    let over = runs(scene.clone(), 0, 0);
    let (namespace_of, jobs) = (namespace(), vec![task(0)]);
    let many = Command::DeleteJobs { namespace: namespace_of, origin: origin(None), jobs };
    over.when(many).refused(ErrorCode::Unsupported, "delete the array");
    let failed = runs(begun(batch().attempts(Some(1))), 0, 1);
    let many = Command::RetryJobs { namespace: namespace(), origin: origin(None), jobs: vec![task(0)] };
    failed.when(many).refused(ErrorCode::Unsupported, "retry the array");
    let scene = scene.when(create_snapshot("resize", "x")).refused(ErrorCode::Unsupported, "is an array");
    let other = of(batch(), 2, 2);
    let scene = scene.and([submitted(job(1), batch())]);
    let scene = scene.when(update(job(1), 1, other)).refused(ErrorCode::Unsupported, "`spec.array`");
    let near = JobId(uuid::Uuid::from_u128(ARRAY.0.as_u128() ^ 2));
    let scene = scene.when(submit([(near, of(batch(), 3, 3))])).refused(ErrorCode::Unavailable, "send it again");
    assert!(
        view::list(&scene.state, &namespace(), &Default::default(), scene.time()).unwrap().jobs.len() == 2,
        "tasks are not listed"
    );
}

#[test]
fn an_image_holds_it_all() {
    let scene = runs(begun(batch()), 0, 0).when(attend()).happened().0;
    let mut loaded: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(&scene.state).unwrap()).unwrap();
    loaded.rebuild_index();
    assert_eq!(loaded, scene.state);
    assert!(std::sync::Arc::ptr_eq(&loaded.jobs[&ARRAY].spec, &loaded.jobs[&task(1)].spec));
}
