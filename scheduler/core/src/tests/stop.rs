//! Cancelling and killing, in every status; giving up on an executor that does not confirm.

use super::scene::*;
use crate::timer;
use outlive_schemas::command::{Command, Stop};
use outlive_schemas::error::ErrorCode::{InUse, InvalidArgument, NotFound};
use outlive_schemas::event::Cause;
use outlive_schemas::message::{News, Outcome};
use outlive_schemas::time::Millis;
use outlive_schemas::view::Status;

const BEFORE_IT_RAN: &str = "cancelled before it ran";
const UNCONFIRMED: &str = "cancelled; its executor did not confirm that nothing of it is left";

fn starting() -> Scene {
    given([joined(A), submitted(job(1), service()), placed(job(1), 1, A)])
}

fn up() -> Scene {
    starting().and([started(job(1), 1, T0)])
}

#[test]
fn a_job_that_holds_no_room_is_over_at_once() {
    for command in [cancel(job(1)), kill(job(1))] {
        let pending = given([submitted(job(1), service())]);
        pending.when(command.clone()).then([finished(job(1), 0, Status::Cancelled, Some(BEFORE_IT_RAN), None)]);
        let between_attempts = up().and([restarting(job(1), 1, Cause::ProcessExit, 1)]);
        let scene = between_attempts.when(command).happened().0;
        assert_eq!((scene.job(job(1)).status, scene.job(job(1)).finished_at), (Status::Cancelled, Some(T0)));
        assert!(scene.state.queue().is_empty());
    }
}

#[test]
fn a_job_between_attempts_does_not_claim_that_it_never_ran() {
    let (scene, _) = up().and([restarting(job(1), 1, Cause::ProcessExit, 1)]).when(cancel(job(1))).happened();
    assert_eq!(scene.job(job(1)).reason.as_deref(), Some("cancelled between two attempts"));
}

#[test]
fn a_job_on_an_executor_is_over_when_that_says_so() {
    for (scene, how) in [(starting(), GRACEFUL), (starting(), Stop::Kill), (up(), GRACEFUL), (up(), Stop::Kill)] {
        let scene = scene.when(stop(job(1), how)).then([cancel_requested(job(1), 1, how)]);
        assert_eq!(scene.job(job(1)).status, Status::Stopping);
        assert!(scene.job(job(1)).placement.is_some(), "it holds its room until nothing of it is left");
        assert_eq!(scene.state.stopping().collect::<Vec<_>>(), [job(1)]);
        let scene = scene.when(report(A, job(1), 1, ended(Outcome::Signalled { signal: 15 }, 50))).happened().0;
        let job = scene.job(job(1));
        assert_eq!(
            (job.status, job.exit_code, job.reason.as_deref()),
            (Status::Cancelled, Some(143), Some("cancelled"))
        );
        assert!(job.placement.is_none() && scene.state.executors[&A].attempts.is_empty());
        assert_eq!(scene.state.stopping().count(), 0);
    }
}

#[test]
fn a_stopping_job_is_cancelled_however_it_ends() {
    for outcome in [
        Outcome::Exited { code: 0 },
        Outcome::Exited { code: 1 },
        Outcome::TimedOut,
        Outcome::LaunchFailed { reason: "no such file".into() },
        Outcome::ResultRefused { reason: "too large".into() },
        Outcome::RestoreFailed { number: outlive_schemas::id::CheckpointNumber(1), reason: "gone".into() },
    ] {
        let stopping = up().and([checkpointed(job(1), 1, 1), cancel_requested(job(1), 1, GRACEFUL)]);
        let (scene, events) = stopping.when(report(A, job(1), 1, ended(outcome, 50))).happened();
        assert_eq!((events.len(), scene.job(job(1)).status), (1, Status::Cancelled));
    }
}

#[test]
fn a_job_that_starts_while_it_is_being_stopped_goes_on_stopping() {
    let scene = starting()
        .and([cancel_requested(job(1), 1, GRACEFUL)])
        .when(report(A, job(1), 1, News::Started))
        .then([started(job(1), 1, T0)]);
    assert_eq!((scene.job(job(1)).status, scene.job(job(1)).started_at), (Status::Stopping, Some(T0)));
}

#[test]
fn asking_twice_is_no_fault() {
    up().when(cancel(job(1))).happened().0.when(cancel(job(1))).nothing();
    up().when(kill(job(1))).happened().0.when(kill(job(1))).nothing();
    // What has been killed is not asked to stop kindly.
    up().when(kill(job(1))).happened().0.when(cancel(job(1))).nothing();
    let over = given([submitted(job(1), service()), finished(job(1), 0, Status::Cancelled, None, None)]);
    over.clone().when(cancel(job(1))).nothing();
    over.when(kill(job(1))).nothing();
}

#[test]
fn killing_hastens_a_cancellation() {
    let scene = up().when(cancel(job(1))).happened().0;
    assert_eq!(scene.job(job(1)).stop.as_ref().unwrap().give_up_at, at(40_000));
    let scene = scene.at(5_000).when(kill(job(1))).then([cancel_requested(job(1), 1, Stop::Kill)]);
    let order = scene.job(job(1)).stop.as_ref().unwrap();
    assert_eq!((order.how, order.give_up_at), (Stop::Kill, at(35_000)));
}

#[test]
fn what_is_over_cannot_be_cancelled() {
    for (status, word) in [(Status::Succeeded, "succeeded"), (Status::Failed, "failed")] {
        let over = given([submitted(job(1), batch()), finished(job(1), 0, status, None, None)]);
        over.clone().when(cancel(job(1))).refused(InUse, &format!("is over already: it {word}"));
        over.when(kill(job(1))).refused(InUse, word);
    }
}

#[test]
fn what_is_not_there_cannot_be_cancelled() {
    given([]).when(cancel(job(1))).refused(NotFound, &format!("there is no job `{}`", job(1)));
    given([]).when(cancel("counter")).refused(NotFound, "there is no job `counter` in namespace `default`");
}

#[test]
fn a_grace_has_its_range() {
    let grace = Millis(outlive_schemas::limits::DURATION_MS_MAX + 1);
    up().when(stop(job(1), Stop::Graceful { grace })).refused(InvalidArgument, "`grace`");
    up().when(stop(job(1), Stop::Graceful { grace: Millis(u64::MAX) })).refused(InvalidArgument, "`grace`");
    let (scene, _) = up().when(stop(job(1), Stop::Graceful { grace: Millis::ZERO })).happened();
    assert_eq!(scene.job(job(1)).status, Status::Stopping);
}

#[test]
fn a_name_means_the_newest_job() {
    let counter = || service().named("counter");
    given([
        submitted(job(1), counter()),
        finished(job(1), 0, Status::Failed, None, None),
        submitted(job(2), counter()),
    ])
    .when(cancel("counter"))
    .then([finished(job(2), 0, Status::Cancelled, Some(BEFORE_IT_RAN), None)]);
}

#[test]
fn a_stop_that_nobody_confirms_is_given_up_in_time() {
    // Ten seconds of grace, thirty to confirm.
    let stopping = up().when(cancel(job(1))).happened().0;
    assert_eq!(timer::due(&stopping.state, at(39_999), 100), []);
    stopping.clone().at(39_999).when(abandon(job(1), 1)).stale();
    assert_eq!(timer::due(&stopping.state, at(40_000), 100), [abandon(job(1), 1)]);
    let scene = stopping.at(40_000).when(abandon(job(1), 1)).then([finished(
        job(1),
        1,
        Status::Cancelled,
        Some(UNCONFIRMED),
        None,
    )]);
    assert_eq!(timer::due(&scene.state, at(99_999), 100), []);
    // What still comes of it is refused, so that its executor stops it.
    scene.clone().when(report(A, job(1), 1, exited(0))).superseded();
    scene.when(abandon(job(1), 1)).stale();
}

#[test]
fn a_job_that_must_never_run_twice_is_not_given_up() {
    let alone = service().with(|spec| spec.exclusive = true);
    let up = given([joined(A), submitted(job(1), alone), placed(job(1), 1, A), started(job(1), 1, T0)]);
    let stopping = up.when(cancel(job(1))).happened().0;
    assert_eq!(timer::due(&stopping.state, at(99_999), 100), []);
    stopping.at(99_999).when(abandon(job(1), 1)).stale();
}

#[test]
fn only_the_attempt_that_was_told_to_stop_is_given_up() {
    up().at(99_999).when(abandon(job(1), 1)).stale();
    up().when(cancel(job(1))).happened().0.at(99_999).when(abandon(job(1), 2)).stale();
    given([]).when(abandon(job(1), 1)).stale();
}

#[test]
fn what_is_due_comes_in_order_and_within_the_limit() {
    let mut scene = given([joined(A)]);
    for (number, grace) in [(1, 3_000), (2, 1_000), (3, 2_000)] {
        scene = scene.and(running(job(number), service(), A));
        let how = Stop::Graceful { grace: Millis(grace) };
        scene = scene.when(stop(job(number), how)).happened().0;
    }
    let due = |now, limit| -> Vec<_> {
        let jobs = timer::due(&scene.state, at(now), limit).into_iter();
        jobs.map(|command| if let Command::AbandonAttempt { job, .. } = command { job } else { unreachable!() })
            .collect()
    };
    assert_eq!(due(40_000, 100), [job(2), job(3), job(1)]);
    assert_eq!(due(40_000, 2), [job(2), job(3)]);
    assert_eq!(due(31_000, 100), [job(2)]);
}

#[test]
fn a_lost_executor_ends_a_cancellation() {
    let reason = Some("cancelled; its executor was lost");
    up().and([cancel_requested(job(1), 1, GRACEFUL), lost(A)]).when(evict(job(1), 1)).then([finished(
        job(1),
        1,
        Status::Cancelled,
        reason,
        None,
    )]);
    // It was lost first, and the job is cancelled before it has been taken off.
    up().and([lost(A)])
        .when(kill(job(1)))
        .then([cancel_requested(job(1), 1, Stop::Kill)])
        .when(evict(job(1), 1))
        .then([finished(job(1), 1, Status::Cancelled, reason, None)]);
}
