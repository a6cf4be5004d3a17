//! Arrays: one job of many tasks.

use super::scene::*;
use crate::plan::{Hints, plan};
use crate::state::State;
use crate::{array, view};
use outlive_schemas::array::{
    ArrayAdvanced, ArrayCancelRequested, ArraySpec, ArrayTasksCancelled, ArrayTasksRetried, TaskCounts, task_id,
};
use outlive_schemas::command::{Command, Stop};
use outlive_schemas::depend::{Condition, Dependency};
use outlive_schemas::error::ErrorCode;
use outlive_schemas::event::Event;
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::job::JobSpec;
use outlive_schemas::time::Millis;
use outlive_schemas::view::{JobView, Status};
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

fn tasks_cancelled(tasks: &str, request_id: Option<&str>) -> Event {
    let (tasks, request_id) = (tasks.parse().unwrap(), request_id.map(Into::into));
    Event::ArrayTasksCancelled(ArrayTasksCancelled { job: ARRAY, tasks, request_id })
}

fn tasks_retried(tasks: &str, request_id: Option<&str>) -> Event {
    let (tasks, request_id) = (tasks.parse().unwrap(), request_id.map(Into::into));
    Event::ArrayTasksRetried(ArrayTasksRetried { job: ARRAY, tasks, request_id })
}

/// Cancels these tasks of `resize`.
fn end(tasks: &str, request_id: Option<&str>) -> Command {
    cancel_tasks(origin(request_id), "resize", tasks, GRACEFUL)
}

/// Tries these tasks of `resize` again.
fn again(tasks: &str, request_id: Option<&str>) -> Command {
    retry_tasks(origin(request_id), "resize", tasks)
}

/// A task that is no job at the moment.
fn counted(scene: &Scene, name: &str) -> JobView {
    scene.state.counted_task(&namespace(), &name.parse().unwrap(), scene.time()).unwrap()
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
    let asked = |how| Event::ArrayCancelRequested(ArrayCancelRequested { job: ARRAY, how, request_id: None });
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
fn some_tasks_are_cancelled_and_tried_again() {
    let scene = begun(batch()).when(place(task(0), 1, A)).happened().0;
    // One runs, one has been let go and runs nowhere yet, one waits.
    let never = finished(task(1), 0, Status::Cancelled, Some("cancelled before it ran"), None);
    let stopped = cancel_requested(task(0), 1, GRACEFUL);
    let scene = scene.when(end("0-1,3", Some("once"))).then([tasks_cancelled("0-1,3", Some("once")), stopped, never]);
    assert_eq!((scene.job(ARRAY).status, counts(&scene)), (Status::Running, [2, 2, 0, 0, 1]));
    let scene = scene.when(end("0-1,3", Some("once"))).nothing();
    let scene = scene.when(end("0-1,3", Some("twice"))).nothing();
    let shown = counted(&scene, "resize-3");
    assert_eq!((shown.status, shown.reason.as_deref()), (Status::Cancelled, Some("cancelled before it ran")));
    let killed = cancel_requested(task(0), 1, Stop::Kill);
    let kill = cancel_tasks(origin(None), "resize", "0,3", Stop::Kill);
    let scene = scene.when(kill).then([tasks_cancelled("0", None), killed]);
    let scene = scene.when(end("0", None)).nothing();

    // While the array runs, they wait again, and it goes on with what there is.
    let scene = scene.when(attend()).then([advanced("1", "2")]);
    let scene = scene.when(again("1,3", Some("more"))).then([tasks_retried("1,3", Some("more"))]);
    assert_eq!((scene.job(ARRAY).status, counts(&scene)), (Status::Running, [3, 2, 0, 0, 0]));
    let scene = scene.when(again("1,3", Some("more"))).nothing();
    let scene = scene.when(report(A, task(0), 1, exited(143))).happened().0;
    let mut scene = scene.when(attend()).then([advanced("0", "1")]);
    scene = runs(runs(scene, 1, 0), 2, 0).when(attend()).then([advanced("1-2", "3-4")]);
    scene = runs(runs(scene, 3, 0), 4, 0).when(attend()).then([advanced("3-4", "")]);
    let reason = "0 of 5 tasks failed, and 1 were cancelled";
    let scene = scene.when(attend()).then([finished(ARRAY, 0, Status::Failed, Some(reason), None)]);

    // Once it is over, it begins anew with them, and they count their attempts on.
    let scene = scene.when(again("0", None)).then([tasks_retried("0", None)]);
    let array = scene.job(ARRAY);
    assert_eq!((array.status, array.finished_at, &array.reason), (Status::Pending, None, &None));
    assert_eq!(counts(&scene), [1, 0, 4, 0, 0]);
    let waiting = counted(&scene, "resize-0");
    assert_eq!((waiting.status, waiting.reason.as_deref()), (Status::Pending, Some("waiting_for_array")));
    assert_eq!((waiting.attempt.0, waiting.exit_code, waiting.finished_at), (1, None, None));
    let scene = scene.when(attend()).then([advanced("", "0")]);
    assert_eq!(scene.job(task(0)).attempt, Attempt(1));
    let scene = runs(scene, 0, 0).when(attend()).happened().0;
    scene.when(attend()).then([finished(ARRAY, 0, Status::Succeeded, None, None)]);
}

#[test]
fn an_array_that_is_over_begins_anew_with_the_tasks_that_are_named_alone() {
    let mut scene = begun(batch().attempts(Some(1)));
    scene = runs(runs(scene, 0, 3), 1, 3).when(attend()).happened().0;
    scene = runs(runs(scene, 2, 3), 3, 3).when(attend()).happened().0;
    scene = runs(scene, 4, 0).when(attend()).happened().0;
    let scene = scene.when(attend()).then([finished(ARRAY, 0, Status::Failed, Some("4 of 5 tasks failed"), None)]);
    // A live job of its name keeps it from that.
    let taken = scene.clone().and([submitted(job(1), batch().named("resize"))]);
    taken
        .when(retry_tasks(origin(None), ARRAY, "0"))
        .refused(ErrorCode::InUse, "a live job has its name, `resize`; end that one first");
    let scene = scene.when(again("0-2", None)).then([tasks_retried("0-2", None)]);
    let scene = scene.when(attend()).then([advanced("", "0-1")]);
    assert_eq!(counts(&scene), [1, 2, 1, 1, 0]);
    // How it had failed is not how it ends now.
    let scene = scene.when(end("2", None)).then([tasks_cancelled("2", None)]);
    let shown = counted(&scene, "resize-2");
    assert_eq!((shown.status, shown.attempt, shown.exit_code), (Status::Cancelled, Attempt(1), None));
    assert_eq!(shown.reason.as_deref(), Some("cancelled before it was tried again"));
    let still = counted(&scene, "resize-3");
    assert_eq!((still.status, still.attempt, still.exit_code), (Status::Failed, Attempt(1), Some(3)));
    let scene = runs(runs(scene, 0, 0), 1, 0).when(attend()).happened().0;
    let reason = "1 of 5 tasks failed, and 1 were cancelled";
    let scene = scene.when(attend()).then([finished(ARRAY, 0, Status::Failed, Some(reason), None)]);
    // The whole takes in what is left.
    let whole = Command::RetryJobs { namespace: namespace(), origin: origin(None), jobs: vec![ARRAY] };
    let scene = scene.when(whole).happened().0;
    assert_eq!(counts(&scene), [2, 0, 3, 0, 0]);
    let scene = scene.when(attend()).then([advanced("", "2-3")]);
    assert_eq!((scene.job(task(2)).attempt, scene.job(task(3)).attempt), (Attempt(1), Attempt(1)));
}

#[test]
fn tasks_of_an_array_that_never_began_are_cancelled_and_tried_again_too() {
    let parent = Dependency { job: "extract".parse().unwrap(), until: Condition::Succeeded };
    let spec = of(batch().named("resize"), 5, 2).with(|spec| spec.depends_on.push(parent));
    let scene = given([joined(A)]).and([submitted(job(1), batch().named("extract"))]);
    let scene = scene.when(submit([(ARRAY, spec)])).happened().0;
    let scene = scene.when(end("0", None)).then([tasks_cancelled("0", None)]);
    let scene = scene.when(again("0", None)).then([tasks_retried("0", None)]);
    let all = scene.clone().when(end("0-4", None)).then([tasks_cancelled("0-4", None)]);
    assert!(!due(&all), "what it waits for has not come about");
    // Its parent does not succeed, and so it has failed with tasks that never began.
    let scene = scene.when(cancel("extract")).happened().0;
    let scene = scene.when(Command::SettleDependencies { job: ARRAY }).happened().0;
    assert_eq!((scene.job(ARRAY).status, counts(&scene)), (Status::Failed, [5, 0, 0, 0, 0]));
    let scene = scene.when(again("1-2", None)).then([tasks_retried("1-2", None)]);
    assert_eq!((scene.job(ARRAY).status, counts(&scene)), (Status::Pending, [2, 0, 0, 0, 3]));
    assert!(!due(&scene));
}

#[test]
fn indexes_that_mean_nothing_are_refused() {
    let over = |scene: &Scene, tasks: &str, code: ErrorCode, part: &str| {
        scene.clone().when(end(tasks, None)).refused(code, part);
        scene.clone().when(again(tasks, None)).refused(code, part);
    };
    let scene = begun(batch().attempts(Some(1))).and([submitted(job(1), batch().named("single"))]);
    over(&scene, "", ErrorCode::InvalidArgument, "`indexes` is empty: name tasks as in 3,7-9");
    over(&scene, "3-7,9", ErrorCode::InvalidArgument, "`indexes` has 5-7,9, and array");
    over(&scene, "5", ErrorCode::InvalidArgument, "has the tasks 0 to 4: leave out what is beyond");
    let odd: Vec<_> = (0..1_001).map(|index| (2 * index).to_string()).collect();
    over(&scene, &odd.join(","), ErrorCode::LimitExceeded, "1001 ranges; the limit is 1000: send several requests");
    for (name, code, part) in [
        ("single", ErrorCode::InvalidArgument, "`indexes` is 3, but job"),
        ("single", ErrorCode::InvalidArgument, "is no array: leave `indexes` out"),
        ("resize-0", ErrorCode::InvalidArgument, "is a task of array"),
        ("nowhere", ErrorCode::NotFound, "nowhere"),
    ] {
        scene.clone().when(cancel_tasks(origin(None), name, "3", GRACEFUL)).refused(code, part);
        scene.clone().when(retry_tasks(origin(None), name, "3")).refused(code, part);
    }
    let absurd = Stop::Graceful { grace: Millis(u64::MAX) };
    let absurd = cancel_tasks(origin(None), "resize", "3", absurd);
    scene.clone().when(absurd).refused(ErrorCode::InvalidArgument, "`grace`");
    // Neither those on their way nor those that wait can be tried again.
    scene.clone().when(again("0,3", None)).refused(ErrorCode::InUse, "`indexes` has 0,3: of array");

    // What is over is over, whether or not it is counted yet; and nothing else of the request is done.
    let scene = runs(runs(scene, 0, 0), 1, 3);
    scene.clone().when(end("0-4", None)).refused(ErrorCode::InUse, "`indexes` has 0-1: of array");
    let scene = scene.when(attend()).happened().0;
    scene.clone().when(end("0-4", None)).refused(ErrorCode::InUse, "have succeeded or failed; leave them out");
    scene.clone().when(again("0-1", None)).refused(ErrorCode::InUse, "`indexes` has 0: of array");

    let ending = scene.when(cancel("resize")).happened().0;
    let ending = ending.when(again("1", None)).refused(ErrorCode::InUse, "is being cancelled: once it is over");
    // One that has not heard of it yet may be told before the others.
    let never = finished(task(2), 0, Status::Cancelled, Some("cancelled before it ran"), None);
    let ending = ending.when(end("2,4", None)).then([tasks_cancelled("2", None), never]);
    let ending = ending.when(attend()).happened().0;
    let ending = ending.when(attend()).happened().0;
    let ended = ending.when(attend()).happened().0;
    assert_eq!(ended.job(ARRAY).status, Status::Cancelled);
    ended.clone().when(end("4", None)).refused(ErrorCode::InUse, "is over already: it was cancelled");
    ended.when(again("1,4", None)).then([tasks_retried("1,4", None)]);
}

#[test]
fn no_more_are_told_to_stop_at_once_than_a_commit_holds() {
    let scene = given([]).when(submit([(ARRAY, of(noop().named("resize"), 2_000, 600))])).happened().0;
    let scene = scene.when(attend()).happened().0.when(attend()).happened().0;
    assert_eq!(counts(&scene), [1_400, 600, 0, 0, 0]);
    let part = "`indexes` has 501 tasks of array";
    let scene = scene.when(end("99-1999", None)).refused(ErrorCode::LimitExceeded, part);
    // Those that wait take nothing.
    let (scene, events) = scene.when(end("100-1999", None)).happened();
    assert_eq!((events.len(), counts(&scene)), (501, [0, 600, 0, 0, 1_400]));
    let scene = scene.when(attend()).happened().0;
    assert_eq!(counts(&scene), [0, 100, 0, 0, 1_900]);
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
