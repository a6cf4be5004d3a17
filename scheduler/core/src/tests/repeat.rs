//! A request that comes again, late and under the same `Nats-Msg-Id`, does nothing: not to what came after it under the
//! same name, and not to what was changed back meanwhile.

use super::scene::*;
use outlive_schemas::array::ArraySpec;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::event::Cause;
use outlive_schemas::id::ExecutorRef;
use outlive_schemas::job::JobSpec;
use outlive_schemas::view::Status;

/// The same command as a request with this id.
fn asked(command: Command, id: &str) -> Command {
    let origin = || -> Origin { origin(Some(id)) };
    match command {
        Command::CancelJob { namespace, job, how, .. } => Command::CancelJob { namespace, origin: origin(), job, how },
        Command::PutQueue { namespace, name, settings, .. } => {
            Command::PutQueue { namespace, origin: origin(), name, settings }
        }
        Command::DeleteQueue { namespace, name, .. } => Command::DeleteQueue { namespace, origin: origin(), name },
        Command::CreateSnapshot { namespace, job, name, .. } => {
            Command::CreateSnapshot { namespace, origin: origin(), job, name }
        }
        Command::ImportSnapshot { namespace, job, name, content, .. } => {
            Command::ImportSnapshot { namespace, origin: origin(), job, name, content }
        }
        other => panic!("{other:?}"),
    }
}

/// It does something, and the same again does nothing once all this has happened.
#[track_caller]
fn once(scene: Scene, command: Command, then: impl FnOnce(Scene) -> Scene) {
    let scene = then(scene.when(command.clone()).happened().0);
    let scene = scene.when(command).nothing();
    // The next leader may begin with an image.
    let mut image = scene.state.clone();
    image.rebuild_index();
    assert_eq!(image, scene.state);
}

fn counter() -> JobSpec {
    service().named("counter")
}

fn next_runs(scene: Scene) -> Scene {
    scene.and(running(job(2), counter(), A))
}

#[test]
fn a_late_cancellation_does_not_meet_the_next_job_of_that_name() {
    let waiting = || given([joined(A), submitted(job(1), counter())]);
    let up = || given([joined(A)]).and(running(job(1), counter(), A));
    let away = || up().and([restarting(job(1), 1, Cause::ProcessExit, 1)]);
    let over = |scene: Scene| scene.and([finished(job(1), 1, Status::Cancelled, None, None)]);
    for command in [cancel("counter"), kill("counter")] {
        once(waiting(), asked(command.clone(), "1"), next_runs);
        once(away(), asked(command.clone(), "1"), next_runs);
        once(up(), asked(command.clone(), "1"), |scene| next_runs(over(scene)));
        // Without an id it is another request, and so is one with another id.
        for another in [command.clone(), asked(command.clone(), "2")] {
            let scene = next_runs(over(up().when(asked(command.clone(), "1")).happened().0));
            assert_eq!(scene.when(another).happened().0.job(job(2)).status, Status::Stopping);
        }
    }
    let array = || batch().named("counter").with(|spec| spec.array = Some(ArraySpec { count: 2, parallel: None }));
    let waiting = given([joined(A), submitted(job(1), array())]);
    once(waiting, asked(cancel("counter"), "1"), |scene| {
        next_runs(scene.and([finished(job(1), 0, Status::Cancelled, None, None)]))
    });
}

#[test]
fn a_late_request_about_a_queue_does_not_undo_a_newer_one() {
    let put = || asked(put_queue("mail", |q| q.weight = 3), "1");
    once(given([]), put(), |scene| scene.and([queue_put("mail", |q| q.weight = 9)]));
    let there = given([queue_put("mail", |_| {})]);
    once(there, asked(delete_queue("mail"), "1"), |scene| scene.and([queue_put("mail", |_| {})]));
}

#[test]
fn a_late_drain_does_not_empty_again_what_is_back() {
    let executor = || ExecutorRef::Name(name_of(A));
    let drain = |id| Command::DrainExecutor { origin: origin(id), executor: executor(), deadline: at(600_000) };
    let undrain = |id| Command::UndrainExecutor { origin: origin(id), executor: executor() };
    once(given([joined(A)]), drain(Some("1")), |scene| scene.when(undrain(None)).happened().0);
    let drained = given([joined(A)]).when(drain(None)).happened().0;
    once(drained, undrain(Some("1")), |scene| scene.when(drain(None)).happened().0);

    let drain = |id| Command::DrainZone { origin: origin(id), zone: zone("a"), deadline: at(600_000) };
    let undrain = |id| Command::UndrainZone { origin: origin(id), zone: zone("a") };
    once(given([joined(A)]), drain(Some("1")), |scene| scene.when(undrain(None)).happened().0);
    let drained = given([joined(A)]).when(drain(None)).happened().0;
    once(drained, undrain(Some("1")), |scene| scene.when(drain(None)).happened().0);
}

#[test]
fn a_late_snapshot_is_not_made_of_the_next_job_of_that_name() {
    let up = given([joined(A)]).and(running(job(1), counter(), A));
    let over = |scene: Scene| scene.when(report(A, job(1), 1, exited(0))).happened().0;
    let scene = up.clone().and([cancel_requested(job(1), 1, GRACEFUL)]);
    assert_eq!(over(scene).job(job(1)).status, Status::Cancelled);
    once(up.clone(), asked(create_snapshot("counter", "a"), "1"), |scene| {
        next_runs(over(scene.when(cancel(job(1))).happened().0))
    });
    let stopped = up.when(stop_service(job(1), true)).happened().0;
    let stopped = stopped.when(report(A, job(1), 1, exited(0))).happened().0;
    once(stopped, asked(import_snapshot("counter", "b", None), "1"), |scene| {
        next_runs(scene.when(cancel(job(1))).happened().0)
    });
}
