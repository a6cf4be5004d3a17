//! Jobs that begin later, deadlines, exit codes that are final, and jobs that are tried again.

use super::scene::*;
use crate::plan::{Hints, plan};
use crate::{explain, timer, view};
use outlive_schemas::command::Command;
use outlive_schemas::error::ErrorCode::{InUse, NotFound};
use outlive_schemas::event::{Cause, Event, JobRestarting, TermStarted};
use outlive_schemas::id::{Attempt, CheckpointNumber, JobId, Term};
use outlive_schemas::job::JobSpec;
use outlive_schemas::message::Outcome;
use outlive_schemas::time::Millis;
use outlive_schemas::view::Status;
use outlive_schemas::when::{Deadline, DeadlinePassed, GiveUp, JobRetried, Start};

const FIRST: &str = "deadline: it was not started within 10s (start_within)";
const LAST: &str = "deadline: it was not finished within 1m (finish_within)";

/// Longer than a new leader waits for reports that found none.
const SETTLED_MS: u64 = 3_600_000;

fn given_up(start_ms: Option<u64>, finish_ms: Option<u64>) -> JobSpec {
    let (start_within, finish_within) = (start_ms.map(Millis), finish_ms.map(Millis));
    batch().with(|spec| spec.deadline = Some(GiveUp { start_within, finish_within }))
}

fn give_up(number: u64) -> Command {
    Command::GiveUpJob { job: job(number) }
}

fn passed(number: u64, attempt: u32, deadline: Deadline, due_ms: u64) -> Event {
    Event::DeadlinePassed(DeadlinePassed { job: job(number), attempt: Attempt(attempt), deadline, due_at: at(due_ms) })
}

fn retry<const N: usize>(jobs: [JobId; N], request_id: Option<&str>) -> Command {
    Command::RetryJobs { namespace: namespace(), origin: origin(request_id), jobs: jobs.to_vec() }
}

fn retried(number: u64, attempt: u32, request_id: Option<&str>) -> Event {
    let request_id = request_id.map(Into::into);
    Event::JobRetried(JobRetried { job: job(number), attempt: Attempt(attempt), request_id })
}

#[track_caller]
fn placements(scene: &Scene) -> usize {
    plan(&scene.state, &Hints::default(), scene.time(), 10).proposals.len()
}

fn shown(scene: &Scene, number: u64) -> (Status, Option<String>) {
    let view = view::job(job(number), scene.job(job(number)), scene.time());
    (view.status, view.reason)
}

fn why(scene: &Scene, number: u64) -> String {
    let id = job(number);
    explain::why(&scene.state, &Hints::default(), id, scene.job(id), scene.time()).summary
}

#[test]
fn a_job_begins_at_its_time_and_says_not_yet_until_then() {
    for start in [Start::Delay(Millis(5_000)), Start::At(at(5_000))] {
        let scene = given([joined(A), submitted(job(1), batch().with(|spec| spec.start = Some(start)))]);
        let scene = scene.at(4_999);
        assert_eq!((placements(&scene), shown(&scene, 1)), (0, (Status::Pending, Some("not_yet".to_owned()))));
        assert_eq!(why(&scene, 1), format!("not_yet: it begins no earlier than {}", at(5_000)));
        let scene = scene.when(place(job(1), 1, A)).stale();
        let scene = scene.at(5_000);
        assert_eq!((placements(&scene), shown(&scene, 1)), (1, (Status::Pending, None)));
    }
    let past = given([joined(A)])
        .at(9_000)
        .and([submitted(job(1), batch().with(|spec| spec.start = Some(Start::At(at(5_000)))))]);
    assert_eq!(placements(&past), 1, "a time that is over means at once");
}

#[test]
fn an_update_of_a_job_that_waits_moves_its_time() {
    let later = |ms| batch().with(|spec| spec.start = Some(Start::Delay(Millis(ms))));
    let scene = given([joined(A), submitted(job(1), later(5_000))]).at(1_000);
    let (scene, _) = scene.when(update(job(1), 1, later(2_000))).happened();
    assert_eq!(placements(&scene.clone().at(1_999)), 0);
    assert_eq!(placements(&scene.at(2_000)), 1, "counted from its acceptance, as ever");
}

#[test]
fn a_job_that_is_not_started_in_time_has_failed() {
    let scene = given([submitted(job(1), given_up(Some(10_000), None))]).at(9_999).when(give_up(1)).stale();
    assert_eq!(timer::due(&scene.state, at(9_999), 9), []);
    assert!(why(&scene, 1).ends_with(&format!("if it is not started by {}, it is given up", at(10_000))));
    let scene = scene.at(10_000);
    assert_eq!(timer::due(&scene.state, at(10_000), 9), [give_up(1)]);
    let scene = scene.when(give_up(1)).then([finished(job(1), 0, Status::Failed, Some(FIRST), None)]);
    assert_eq!(scene.state.deadlines().count(), 0);
    scene.when(give_up(1)).stale();
    // One that begins later has its time from then on.
    let late = given_up(Some(10_000), None).with(|spec| spec.start = Some(Start::Delay(Millis(5_000))));
    let scene = given([submitted(job(1), late)]).at(14_999).when(give_up(1)).stale();
    scene.at(15_000).when(give_up(1)).happened();
    // One that was started has met it, whatever comes later.
    let met = given([joined(A)]).and(running(job(1), given_up(Some(10_000), None), A));
    let met = met.and([restarting(job(1), 1, Cause::ProcessExit, 1)]);
    met.at(20_000).when(give_up(1)).stale();
}

#[test]
fn a_job_that_is_not_finished_in_time_is_ended_and_has_failed() {
    let scene = given([joined(A)]).and(running(job(1), given_up(None, Some(60_000)), A)).at(60_000);
    let scene = scene.when(give_up(1)).then([passed(1, 1, Deadline::Finish, 60_000)]);
    let job_now = scene.job(job(1));
    assert_eq!(job_now.status, Status::Stopping);
    assert!(job_now.stop.is_some_and_how(GRACEFUL), "its executor is told to end it");
    assert_eq!(why(&scene, 1), format!("{LAST}: attempt 1 on executor-a-1 in zone a has been told to stop"));
    // It ended in time, and its report came late.
    let in_time = scene.clone().at(60_500).when(report_aged(A, job(1), 1, 500, exited(0))).happened().0;
    assert_eq!(shown(&in_time, 1), (Status::Succeeded, None));
    let too_late = scene.clone().at(60_500).when(report_aged(A, job(1), 1, 499, exited(0))).happened().0;
    assert_eq!(shown(&too_late, 1), (Status::Failed, Some(LAST.to_owned())));
    let killed = report(A, job(1), 1, ended(Outcome::Signalled { signal: 15 }, 50));
    let killed = scene.clone().at(61_000).when(killed).happened().0;
    assert_eq!(shown(&killed, 1), (Status::Failed, Some(LAST.to_owned())));
    assert_eq!(killed.job(job(1)).exit_code, Some(143));
    // An executor that never confirms, or that is lost, does not make it cancelled.
    let given_up = scene.clone().at(200_000).when(abandon(job(1), 1)).happened().0;
    assert_eq!(shown(&given_up, 1), (Status::Failed, Some(LAST.to_owned())));
    let lost = scene.clone().and([lost(A)]).when(evict(job(1), 1)).happened().0;
    assert_eq!(shown(&lost, 1), (Status::Failed, Some(LAST.to_owned())));
    // Who kills it meanwhile has cancelled it.
    let scene = scene.when(kill(job(1))).happened().0;
    let scene = scene.when(report(A, job(1), 1, ended(Outcome::Signalled { signal: 9 }, 50))).happened().0;
    assert_eq!(scene.job(job(1)).status, Status::Cancelled);
}

trait HowIs {
    fn is_some_and_how(&self, how: outlive_schemas::command::Stop) -> bool;
}

impl HowIs for Option<Box<crate::state::StopOrder>> {
    fn is_some_and_how(&self, how: outlive_schemas::command::Stop) -> bool {
        self.as_ref().is_some_and(|order| order.how == how)
    }
}

#[test]
fn between_two_attempts_a_deadline_ends_the_job_at_once() {
    let scene = given([joined(A)]).and(running(job(1), given_up(None, Some(60_000)), A));
    let scene = scene.and([restarting(job(1), 1, Cause::ProcessExit, 1)]).at(60_000);
    scene.when(give_up(1)).then([finished(job(1), 1, Status::Failed, Some(LAST), None)]);
}

#[test]
fn a_new_leader_gives_late_reports_their_time_first() {
    let scene = given([joined(A)]).and(running(job(1), given_up(None, Some(60_000)), A));
    let scheduler = "scheduler-a".parse().unwrap();
    let barrier = TermStarted { term: Term(7), scheduler, zone: zone("a"), version: "1.2.3".into() };
    let scene = scene.at(59_000).and([Event::TermStarted(barrier)]);
    assert_eq!(timer::due(&scene.state, at(60_000), 9), []);
    assert_eq!(timer::due(&scene.state, at(62_000), 9), [give_up(1)]);
}

#[test]
fn an_exit_code_that_is_not_to_be_retried_is_the_last() {
    let spec = batch().attempts(None).with(|spec| spec.restart.no_retry_exit_codes = [2, 137].into_iter().collect());
    let up = given([joined(A)]).and(running(job(1), spec, A));
    for (outcome, code, said) in [
        (Outcome::Exited { code: 2 }, 2, "exited with 2"),
        (Outcome::Signalled { signal: 9 }, 137, "killed by signal 9"),
    ] {
        let reason = format!("{said}, which restart.no_retry_exit_codes says not to retry");
        let expected = finished(job(1), 1, Status::Failed, Some(&reason), Some(code));
        let (scene, events) = up.clone().when(report(A, job(1), 1, ended(outcome, 100))).happened();
        assert_eq!(shown(&scene, 1), (Status::Failed, Some(reason)));
        assert_eq!((events.len(), std::mem::discriminant(&events[0].event)), (1, std::mem::discriminant(&expected)));
    }
    let (scene, _) = up.when(report(A, job(1), 1, exited(3))).happened();
    assert_eq!(scene.job(job(1)).status, Status::Restarting);
}

#[test]
fn silence_has_a_cause_of_its_own() {
    let scene = given([joined(A)]).and(running(job(1), service(), A)).at(5_000);
    let (scene, events) = scene.when(report(A, job(1), 1, ended(Outcome::NoProgress, 5_000))).happened();
    assert!(matches!(&events[0].event, Event::JobRestarting(JobRestarting { cause: Cause::NoProgress, .. })));
    assert_eq!(scene.job(job(1)).failures, 1, "it is the job's own doing");
}

#[test]
fn a_job_that_failed_is_tried_again_with_its_past_and_its_state() {
    let spec = given_up(Some(10_000), Some(60_000)).named("nightly").attempts(Some(1));
    let scene = given([joined(A)]).and(running(job(1), spec, A)).and([checkpointed(job(1), 1, 1)]);
    let scene = scene.when(report(A, job(1), 1, exited(7))).happened().0.at(SETTLED_MS);
    let scene = scene.when(retry([job(1)], Some("r-1"))).then([retried(1, 1, Some("r-1"))]);
    let again = scene.job(job(1));
    assert_eq!((again.status, again.attempt, again.failures), (Status::Pending, Attempt(1), 0));
    assert_eq!((again.finished_at, again.started_at, again.exit_code), (None, None, None));
    assert!(again.commits.len() > 3, "its history is kept");
    // The same request once more, then a second one.
    let scene = scene.when(retry([job(1)], Some("r-1"))).nothing();
    let scene = scene.when(retry([job(1)], None)).refused(InUse, "only one that failed or was cancelled");
    // Its deadlines count anew.
    let scene = scene.at(SETTLED_MS + 9_999).when(give_up(1)).stale();
    assert_eq!(scene.state.deadlines().collect::<Vec<_>>(), [(at(SETTLED_MS + 10_000), job(1))]);
    let (scene, events) = scene.when(place(job(1), 2, A)).happened();
    assert!(matches!(&events[0].event, Event::JobPlaced(e) if e.restore == Some(CheckpointNumber(1))));
    let scene = scene.when(report(A, job(1), 2, exited(0))).happened().0;
    scene.when(retry([job(1)], None)).refused(InUse, "is succeeded");
}

#[test]
fn jobs_are_tried_again_all_or_none() {
    let failed = |number, name| {
        let named = submitted(job(number), batch().named(name));
        [named, finished(job(number), 0, Status::Failed, Some("for a reason"), None)]
    };
    let scene = given(failed(1, "one")).and(failed(2, "two")).and(failed(3, "one"));
    let scene = scene.when(retry([job(1), job(2), job(9)], None)).refused(NotFound, "job");
    let scene = scene.when(retry([job(1), job(2), job(3)], None)).refused(InUse, "a live job has its name, `one`");
    assert_eq!(scene.job(job(1)).status, Status::Failed);
    let scene = scene.when(retry([job(3), job(2)], Some("r"))).then([retried(3, 0, Some("r")), retried(2, 0, None)]);
    scene.when(retry([job(1)], None)).refused(InUse, "`one`");
}

#[test]
fn jobs_are_forgotten_all_or_none() {
    let delete = |jobs: &[JobId], request_id: Option<&str>| Command::DeleteJobs {
        namespace: namespace(),
        origin: origin(request_id),
        jobs: jobs.to_vec(),
    };
    let over = |number| [submitted(job(number), batch()), finished(job(number), 0, Status::Failed, None, None)];
    let scene = given(over(1)).and(over(2)).and([submitted(job(3), batch())]);
    let scene = scene.when(delete(&[job(1), job(3)], None)).refused(InUse, "is pending");
    let scene = scene.when(delete(&[job(1), job(2)], Some("d"))).happened().0;
    assert_eq!(scene.state.jobs.keys().copied().collect::<Vec<_>>(), [job(3)]);
    scene.when(delete(&[job(1), job(2)], Some("d"))).nothing();
}
