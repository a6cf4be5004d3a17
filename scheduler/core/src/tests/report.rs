//! What executors say happened: once or twice, late, about attempts that are not theirs, with figures that cannot be.

use super::scene::*;
use crate::queue::Turn;
use outlive_schemas::event::{
    AttemptStarted, Cause, CheckpointCompleted, CheckpointFailed, Event, JobFinished, JobRestarting,
};
use outlive_schemas::id::{Attempt, CheckpointNumber};
use outlive_schemas::limits;
use outlive_schemas::message::{Ended, News, Outcome, Released};
use outlive_schemas::payload::Payload;
use outlive_schemas::time::Millis;
use outlive_schemas::view::Status;

fn starting() -> Scene {
    given([joined(A), joined(B), submitted(job(1), batch()), placed(job(1), 1, A)])
}

fn up() -> Scene {
    starting().and([started(job(1), 1, T0)])
}

fn every_news() -> Vec<News> {
    vec![
        News::Started,
        News::Checkpoint(taken(1)),
        News::CheckpointFailed { reason: "no room".into() },
        exited(0),
        exited(1),
        unreadable(1),
        News::Missing,
    ]
}

#[test]
fn a_start_makes_a_job_run() {
    let scene =
        starting().at(500).when(report_aged(A, job(1), 1, 200, News::Started)).then([started(job(1), 1, at(300))]);
    let job = scene.job(job(1));
    assert_eq!((job.status, job.started_at, job.attempt_started_at), (Status::Running, Some(at(300)), Some(at(300))));
}

#[test]
fn a_start_that_is_said_twice_counts_once() {
    starting()
        .when(report(A, job(1), 1, News::Started))
        .happened()
        .0
        .at(900)
        .when(report(A, job(1), 1, News::Started))
        .nothing();
}

#[test]
fn only_the_newest_attempt_on_the_executor_that_holds_it_counts() {
    let second = up().and([lost(A), restarting(job(1), 1, Cause::ExecutorLost, 0), placed(job(1), 2, B)]);
    for news in every_news() {
        up().when(report(A, job(1), 2, news.clone())).superseded();
        up().when(report(A, job(1), 0, news.clone())).superseded();
        up().when(report(B, job(1), 1, news.clone())).superseded();
        up().when(report(C, job(1), 1, news.clone())).superseded();
        up().when(report(A, job(2), 1, news.clone())).superseded();
        up().and([lost(A)]).when(report(A, job(1), 1, news.clone())).superseded();
        let before = second.clone();
        let after = second.clone().when(report(A, job(1), 1, news.clone())).superseded();
        assert_eq!(after.state, before.state, "a late report changes nothing");
        // Between two attempts, and after the end, nobody has anything to say.
        up().and([restarting(job(1), 1, Cause::ProcessExit, 1)]).when(report(A, job(1), 1, news.clone())).superseded();
        up().and([finished(job(1), 1, Status::Failed, None, None)]).when(report(A, job(1), 1, news)).superseded();
    }
}

#[test]
fn a_batch_job_that_exits_with_0_has_succeeded() {
    let result = Some(Payload::from("42"));
    let news = News::Ended(Ended { outcome: Outcome::Exited { code: 0 }, ran_ms: Some(100), result: result.clone() });
    let scene = up().at(1_000).when(report(A, job(1), 1, news.clone())).then([Event::JobFinished(JobFinished {
        job: job(1),
        attempt: Attempt(1),
        status: Status::Succeeded,
        reason: None,
        exit_code: Some(0),
        started_at: Some(at(900)),
        result: result.clone(),
        request_id: None,
    })]);
    let done = scene.job(job(1));
    assert_eq!((done.status, done.exit_code, &done.result), (Status::Succeeded, Some(0), &result));
    assert_eq!((done.finished_at, done.started_at), (Some(at(1_000)), Some(T0)));
    assert!(scene.state.executors[&A].attempts.is_empty() && scene.state.executors[&A].allocated == Default::default());
    scene.when(report(A, job(1), 1, news)).superseded();
}

#[test]
fn an_end_without_a_start_says_when_it_started() {
    let scene = starting().at(1_000).when(report_aged(A, job(1), 1, 100, exited(0))).happened().0;
    assert_eq!(scene.job(job(1)).started_at, Some(at(800)));
    // Where another attempt follows, its history says so before it says why.
    let (scene, events) = starting().at(1_000).when(report_aged(A, job(1), 1, 100, exited(1))).happened();
    assert_eq!(events[0].event, started(job(1), 1, at(800)));
    assert!(matches!(events[1].event, Event::JobRestarting(_)) && events.len() == 2);
    assert_eq!(scene.job(job(1)).started_at, Some(at(800)));
    // It never started at all.
    let outcome = Outcome::LaunchFailed { reason: "no such file".into() };
    let never = News::Ended(Ended { outcome, ran_ms: None, result: None });
    let (scene, events) = starting().when(report(A, job(1), 1, never)).happened();
    assert_eq!((events.len(), scene.job(job(1)).started_at), (1, None));
}

#[test]
fn a_result_over_the_limit_is_a_failure() {
    let result = Some(Payload(vec![0; limits::RESULT_BYTES_MAX + 1].into()));
    let news = |code| News::Ended(Ended { outcome: Outcome::Exited { code }, ran_ms: Some(1), result: result.clone() });
    let (scene, _) = up().when(report(A, job(1), 1, news(0))).happened();
    let refused = scene.job(job(1));
    assert_eq!((refused.status, &refused.result), (Status::Restarting, &None));
    assert_eq!(refused.reason.as_deref(), Some("its result was refused: it has 262145 bytes; the limit is 262144"));
    let (scene, _) = up().when(report(A, job(1), 1, news(7))).happened();
    assert_eq!(scene.job(job(1)).reason.as_deref(), Some("exited with 7"));
}

#[test]
fn every_kind_of_end_has_its_words() {
    for (outcome, cause, reason, exit_code) in [
        (Outcome::Exited { code: 3 }, Cause::ProcessExit, "exited with 3", Some(3)),
        (Outcome::Signalled { signal: 9 }, Cause::ProcessExit, "killed by signal 9", Some(137)),
        (Outcome::Signalled { signal: i32::MAX }, Cause::ProcessExit, "killed by signal 2147483647", Some(i32::MAX)),
        (Outcome::TimedOut, Cause::Timeout, "its timeout was over", None),
        (Outcome::LaunchFailed { reason: "ENOENT".into() }, Cause::ProcessExit, "could not be started: ENOENT", None),
        (
            Outcome::ResultRefused { reason: "a device".into() },
            Cause::ProcessExit,
            "its result was refused: a device",
            Some(0),
        ),
    ] {
        up().at(200).when(report(A, job(1), 1, ended(outcome, 200))).then([Event::JobRestarting(JobRestarting {
            job: job(1),
            attempt: Attempt(1),
            cause,
            reason: reason.into(),
            exit_code,
            failures: 1,
            lost_at: at(200),
            next_try_at: at(1_200),
        })]);
    }
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let outcome = Outcome::LaunchFailed { reason: "ü".repeat(limits::REASON_BYTES_MAX).into() };
    let (scene, _) = up().when(report(A, job(1), 1, ended(outcome, 1))).happened();
    let reason = scene.job(job(1)).reason.as_deref().unwrap();
    assert!(reason.len() <= limits::REASON_BYTES_MAX + '…'.len_utf8() && reason.ends_with("ü…"), "{}", reason.len());
}

#[test]
fn ages_that_cannot_be_are_cut_short() {
    for age_ms in [2_000, u64::MAX] {
        let scene =
            starting().at(1_000).when(report_aged(A, job(1), 1, age_ms, News::Started)).then([started(job(1), 1, T0)]);
        assert_eq!(scene.job(job(1)).started_at, Some(T0), "not before it was submitted");
        let news = ended(Outcome::Exited { code: 1 }, u64::MAX);
        let (_, events) = starting().at(1_000).when(report_aged(A, job(1), 1, age_ms, news)).happened();
        assert_eq!(events[0].event, started(job(1), 1, T0));
        let Event::JobRestarting(restarting) = &events[1].event else { panic!("{events:?}") };
        assert_eq!(restarting.lost_at, T0);
    }
    // A second attempt cannot have started before the first was over.
    let due_later = Event::JobRestarting(JobRestarting {
        job: job(1),
        attempt: Attempt(1),
        cause: Cause::ProcessExit,
        reason: "exited with 1".into(),
        exit_code: Some(1),
        failures: 1,
        lost_at: at(1_000),
        next_try_at: at(2_000),
    });
    let second = up().at(1_000).and([due_later]).at(2_500).and([placed(job(1), 2, A)]);
    let scene = second.when(report_aged(A, job(1), 2, u64::MAX, News::Started)).then([started(job(1), 2, at(2_000))]);
    let recovery = scene.job(job(1)).last_recovery.as_deref().unwrap();
    assert_eq!((recovery.lost_at, recovery.resumed_at), (at(1_000), at(2_000)));
}

fn completed(number: u64, contents: u64) -> Event {
    Event::CheckpointCompleted(CheckpointCompleted {
        job: job(1),
        attempt: Attempt(1),
        number: CheckpointNumber(number),
        taken: taken(contents),
    })
}

#[test]
fn the_leader_numbers_checkpoints_and_keeps_as_many_as_asked() {
    let mut scene = up();
    for number in 1..=5 {
        scene = scene.when(report(A, job(1), 1, News::Checkpoint(taken(number)))).then([completed(number, number)]);
    }
    let kept: Vec<_> = scene.job(job(1)).checkpoints.iter().map(|c| c.number.0).collect();
    assert_eq!(kept, [3, 4, 5]);
    assert_eq!(scene.job(job(1)).restorable().unwrap().number, CheckpointNumber(5));
}

#[test]
fn a_state_that_did_not_change_makes_no_new_checkpoint() {
    let scene = up().and([checkpointed(job(1), 1, 1)]);
    scene.clone().when(report(A, job(1), 1, News::Checkpoint(taken(1)))).nothing();
    // Nor in the next attempt, which was restored from it.
    let scene = scene.and([restarting(job(1), 1, Cause::ProcessExit, 1), placed_from(job(1), 2, B, 1)]);
    scene.when(report(B, job(1), 2, News::Checkpoint(taken(1)))).nothing();
}

#[test]
fn a_batch_of_reports_that_comes_twice_brings_no_older_checkpoint_back() {
    let reports = [
        report_aged(A, job(1), 1, 300, News::Started),
        report_aged(A, job(1), 1, 200, News::Checkpoint(taken(1))),
        report_aged(A, job(1), 1, 100, News::Checkpoint(taken(2))),
        report_aged(A, job(1), 1, 0, News::Checkpoint(taken(3))),
    ];
    let mut scene = starting().at(1_000);
    for report in reports.clone() {
        scene = scene.when(report).happened().0;
    }
    let before = scene.state.clone();
    for report in reports {
        scene = scene.when(report).nothing();
    }
    assert_eq!(scene.state, before);
}

#[test]
fn a_state_that_is_again_what_it_was_is_a_new_checkpoint() {
    let scene = up().and([checkpointed(job(1), 1, 1), checkpointed(job(1), 1, 2)]);
    // Read after checkpoint 2 was known.
    scene.clone().at(1_000).when(report(A, job(1), 1, News::Checkpoint(taken(1)))).then([completed(3, 1)]);
    // Or with other figures: nothing had to be uploaded this time.
    let mut cheap = taken(1);
    cheap.uploaded_bytes = 0;
    let (scene, _) = scene.when(report(A, job(1), 1, News::Checkpoint(cheap))).happened();
    assert_eq!(scene.job(job(1)).restorable().unwrap().number, CheckpointNumber(3));
}

#[test]
fn a_checkpoint_that_failed_is_told_and_changes_nothing_else() {
    let news = News::CheckpointFailed { reason: "the store is full".into() };
    let failed = CheckpointFailed { job: job(1), attempt: Attempt(1), reason: "the store is full".into() };
    let scene = up().and([checkpointed(job(1), 1, 1)]);
    let before = scene.job(job(1)).clone();
    let after = scene.when(report(A, job(1), 1, news)).then([Event::CheckpointFailed(failed)]);
    let mut after = after.job(job(1)).clone();
    let noted = after.checkpoint_commits.pop().map(|seq| seq.0);
    assert_eq!(noted, Some(before.checkpoint_commits.last().unwrap().0 + 1));
    assert_eq!(after, before);
}

#[test]
fn an_attempt_that_is_missing_is_only_to_be_assigned_again() {
    up().when(report(A, job(1), 1, News::Missing)).nothing();
}

fn given_back(cause: Cause, checkpoint: Option<u64>, fault: Option<&str>) -> News {
    let (checkpoint, fault) = (checkpoint.map(taken), fault.map(Into::into));
    ended(Outcome::Released(Released { cause, checkpoint, fault }), 900)
}

fn moved(cause: Cause, reason: &str) -> Event {
    let Event::JobRestarting(event) = restarting(job(1), 1, cause, 0) else { unreachable!() };
    Event::JobRestarting(JobRestarting { reason: reason.into(), lost_at: at(1_000), next_try_at: at(1_000), ..event })
}

#[test]
fn what_is_given_back_goes_on_from_its_last_checkpoint_at_once() {
    let drained = "moved off an executor that is drained";
    let scene = up()
        .and([checkpointed(job(1), 1, 1)])
        .at(1_000)
        .when(report(A, job(1), 1, given_back(Cause::Drain, Some(2), None)))
        .then([completed(2, 2), moved(Cause::Drain, drained)]);
    assert_eq!(scene.job(job(1)).restorable().map(|c| c.number), Some(CheckpointNumber(2)));
    assert_eq!((scene.job(job(1)).failures, scene.job(job(1)).turn()), (0, Turn::Recovering));
    // Said again, it is not that executor's any more.
    scene.when(report(A, job(1), 1, given_back(Cause::Drain, Some(2), None))).superseded();

    // Nothing was done since the latest checkpoint: there is no other.
    for checkpoint in [None, Some(1)] {
        up().and([checkpointed(job(1), 1, 1)])
            .at(1_000)
            .when(report(A, job(1), 1, given_back(Cause::Drain, checkpoint, None)))
            .then([moved(Cause::Drain, drained)]);
    }
    // One that lost something on the way says so.
    let news = given_back(Cause::HostDegraded, None, Some("no room"));
    let reason = "moved off a host that is not well, without a last checkpoint: no room";
    up().at(1_000).when(report(A, job(1), 1, news)).then([moved(Cause::HostDegraded, reason)]);
    // Whoever was to be cancelled is.
    let Event::JobFinished(cancelled) = finished(job(1), 1, Status::Cancelled, Some("cancelled"), None) else {
        unreachable!()
    };
    let cancelled = Event::JobFinished(JobFinished { started_at: Some(at(100)), ..cancelled });
    up().at(1_000)
        .and([cancel_requested(job(1), 1, GRACEFUL)])
        .when(report(A, job(1), 1, given_back(Cause::Drain, Some(2), None)))
        .then([cancelled]);
}

#[test]
fn one_that_is_not_given_back_goes_on() {
    let failed = CheckpointFailed { job: job(1), attempt: Attempt(1), reason: "no room".into() };
    let news = News::ReleaseFailed { reason: "no room".into() };
    let scene = up().when(report(A, job(1), 1, news)).then([Event::CheckpointFailed(failed)]);
    assert_eq!(scene.job(job(1)).status, Status::Running);
}

#[test]
fn a_job_stopping_may_still_leave_a_checkpoint() {
    up().and([cancel_requested(job(1), 1, GRACEFUL)])
        .when(report(A, job(1), 1, News::Checkpoint(taken(1))))
        .then([completed(1, 1)]);
}

#[test]
fn a_start_late_in_coming_does_not_hide_the_recovery() {
    // Two attempts, the second of which ends before its start was told: a recovery all the same.
    let scene = up()
        .and([
            checkpointed(job(1), 1, 1),
            lost(A),
            restarting(job(1), 1, Cause::ExecutorLost, 0),
            placed_from(job(1), 2, B, 1),
        ])
        .at(2_000)
        .when(report(B, job(1), 2, exited(0)))
        .happened()
        .0;
    let recovery = scene.job(job(1)).last_recovery.as_deref().unwrap();
    assert_eq!((recovery.cause, recovery.restored), (Cause::ExecutorLost, Some(CheckpointNumber(1))));
    assert_eq!((&recovery.from_zone, &recovery.to_zone), (&Some(zone("a")), &Some(zone("b"))));
    assert_eq!((recovery.lost_at, recovery.resumed_at), (T0, at(1_900)));
}

#[test]
fn started_at_is_the_first_attempts() {
    let event = |attempt, ms| {
        Event::AttemptStarted(AttemptStarted { job: job(1), attempt: Attempt(attempt), started_at: at(ms) })
    };
    let scene = starting().and([
        event(1, 10),
        restarting(job(1), 1, Cause::ProcessExit, 1),
        placed(job(1), 2, A),
        event(2, 500),
    ]);
    assert_eq!((scene.job(job(1)).started_at, scene.job(job(1)).attempt_started_at), (Some(at(10)), Some(at(500))));
    assert_eq!(at(500).since(at(10)), Millis(490));
}
