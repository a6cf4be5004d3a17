//! What folding refuses, because the log cannot say it; and what it keeps within bounds.

use super::scene::*;
use crate::fold::fold;
use crate::state::State;
use outlive_schemas::event::{Cause, Envelope, Event, TermStarted};
use outlive_schemas::id::{SchedulerName, Sequence, Term};
use outlive_schemas::limits;
use outlive_schemas::view::Status;

#[track_caller]
fn broken(scene: Scene, event: Event, part: &str) {
    let mut state = scene.state;
    let error = fold(&mut state, Sequence(77), &Envelope { at: T0, by: None, event }).unwrap_err().to_string();
    assert!(error.contains("commit 77") && error.contains(part), "{error}");
}

fn up() -> Scene {
    given([joined(A), joined(B)]).and(running(job(1), batch(), A))
}

fn term(term: u64) -> Event {
    let scheduler = SchedulerName::new("scheduler-a").unwrap();
    Event::TermStarted(TermStarted { term: Term(term), scheduler, zone: zone("a"), version: "1.2.3".into() })
}

#[test]
fn events_that_contradict_the_state_are_named() {
    broken(
        up(),
        submitted(job(1), batch()),
        "the event `job_submitted` in commit 77 does not fit the state: the job is there",
    );
    broken(up(), joined(A), "the executor is there already");
    broken(up(), lost(C), "there is no such executor");
    broken(up(), placed(job(1), 2, B), "not waiting for this attempt");
    broken(up(), placed(job(2), 1, B), "there is no such job");
    broken(given([joined(A), submitted(job(1), batch())]), placed(job(1), 2, A), "not waiting for this attempt");
    broken(given([submitted(job(1), batch())]), placed(job(1), 1, A), "there is no such executor");
    broken(up(), started(job(1), 2, T0), "not the current one");
    broken(up(), restarting(job(1), 2, Cause::ProcessExit, 1), "not the current one");
    broken(up(), cancel_requested(job(1), 2, GRACEFUL), "not the current one");
    broken(given([submitted(job(1), batch())]), cancel_requested(job(1), 0, GRACEFUL), "not the current one");
    broken(up(), checkpointed(job(1), 2, 1), "not the current one");
    broken(up(), checkpointed(job(1), 1, 2), "number does not follow");
    broken(up(), finished(job(1), 2, Status::Failed, None, None), "another attempt is current");
    broken(up(), finished(job(1), 1, Status::Running, None, None), "is over already");
    let over = up().and([finished(job(1), 1, Status::Failed, None, None)]);
    broken(over, finished(job(1), 1, Status::Succeeded, None, None), "is over already");
    broken(given([]), deleted(job(1)), "there is no such job");
    broken(given([term(7)]), term(6), "below one that was there before");
}

#[test]
fn terms_rise() {
    let scene = given([term(7), term(7), term(9)]);
    assert_eq!(scene.state.term.as_ref().map(|(started, when)| (started.term, *when)), Some((Term(9), T0)));
}

#[test]
fn a_jobs_history_is_bounded_and_keeps_the_newest() {
    const MAX: usize = limits::HISTORY_CHECKPOINTS_PER_JOB_MAX;
    let mut scene = up();
    scene.checked = false;
    for number in 1..=2 * MAX as u64 {
        scene = scene.and([checkpointed(job(1), 1, number)]);
    }
    let job_1 = scene.job(job(1));
    let commits = &job_1.checkpoint_commits;
    assert!((MAX / 2..=MAX).contains(&commits.len()));
    assert!(commits.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(commits.last().map(|seq| seq.0), Some(5 + 2 * MAX as u64));
    assert_eq!(job_1.checkpoints.len(), 3);
    // However many checkpoints there were, what else happened to the job is all there.
    assert_eq!(job_1.commits.iter().map(|seq| seq.0).collect::<Vec<_>>(), [3, 4, 5]);
    let history = job_1.history();
    assert!(history.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!((history[0].0, history.len()), (3, 3 + commits.len()));
}

#[test]
fn a_life_of_many_restarts_keeps_the_newest() {
    const MAX: usize = limits::HISTORY_COMMITS_PER_JOB_MAX;
    let mut scene = up();
    scene.checked = false;
    for attempt in 1..MAX as u32 {
        scene = scene.and([restarting(job(1), attempt, Cause::ProcessExit, 1), placed(job(1), attempt + 1, A)]);
    }
    let commits = &scene.job(job(1)).commits;
    assert!((MAX / 2..=MAX).contains(&commits.len()), "{}", commits.len());
    assert!(commits.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn events_of_one_commit_are_one_entry_of_the_history() {
    // An end whose start was never told: two events in one commit.
    let scene = given([joined(A), submitted(job(1), batch()), placed(job(1), 1, A)]);
    let (scene, events) = scene.when(report(A, job(1), 1, exited(1))).happened();
    assert_eq!(events.len(), 2);
    assert_eq!(scene.job(job(1)).commits.iter().map(|seq| seq.0).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn what_is_held_is_counted_down_again() {
    let spec = batch().with(|s| s.input = Some("12345678".into()));
    let scene = given([submitted(job(1), spec), submitted(job(2), noop())]);
    // `sh -c true` is 8 bytes as well.
    assert_eq!((scene.state.held_bytes(), scene.state.live_jobs()), (16, 2));
    let scene = scene.and([finished(job(1), 0, Status::Cancelled, None, None)]);
    assert_eq!((scene.state.held_bytes(), scene.state.live_jobs()), (16, 1));
    let scene = scene.and([deleted(job(1))]);
    assert_eq!((scene.state.held_bytes(), scene.state.live_jobs()), (0, 1));
}

#[test]
fn an_executor_holds_what_its_digest_says() {
    use outlive_schemas::message::AttemptDigest;
    let scene = up().and(running(job(2), batch(), A));
    let mut digest = AttemptDigest::default();
    digest.add(job(2), outlive_schemas::id::Attempt(1));
    digest.add(job(1), outlive_schemas::id::Attempt(1));
    assert_eq!(scene.state.executors[&A].digest, digest);
    let scene =
        scene.and([finished(job(1), 1, Status::Failed, None, None), finished(job(2), 1, Status::Failed, None, None)]);
    assert_eq!(scene.state.executors[&A].digest, AttemptDigest::default());
}

#[test]
fn the_newest_events_time_is_known_from_an_image_of_before_it_was_kept_as_well() {
    let mut scene = up();
    assert_eq!(scene.state.newest_event_at, T0);
    scene = scene.at(500).when(report(A, job(1), 1, exited(0))).happened().0;
    assert_eq!(scene.state.newest_event_at, at(500));
    // A clock that goes back takes nothing back.
    fold(&mut scene.state, Sequence(99), &Envelope { at: at(100), by: None, event: submitted(job(2), batch()) })
        .unwrap();
    assert_eq!(scene.state.newest_event_at, at(500));

    let mut older = State { newest_event_at: Default::default(), ..scene.state };
    older.rebuild_index();
    assert_eq!(older.newest_event_at, at(500), "the job's end");
}

#[test]
fn an_empty_state_survives_its_image() {
    let bytes = rmp_serde::to_vec_named(&State::default()).unwrap();
    assert_eq!(rmp_serde::from_slice::<State>(&bytes).unwrap(), State::default());
}
