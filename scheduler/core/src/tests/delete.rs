//! Forgetting a job.

use super::scene::*;
use crate::state::State;
use outlive_schemas::error::ErrorCode::{InUse, NotFound};
use outlive_schemas::event::{Cause, Event, JobDeleted};
use outlive_schemas::limits;
use outlive_schemas::view::Status;

fn over(number: u64, name: &str) -> [Event; 2] {
    [
        submitted(job(number), batch().named(name)),
        finished(job(number), 0, Status::Cancelled, Some("cancelled before it ran"), None),
    ]
}

fn deleted_by(request: &str, number: u64) -> Event {
    Event::JobDeleted(JobDeleted { job: job(number), request_id: Some(request.into()) })
}

#[test]
fn a_job_that_is_over_is_forgotten() {
    for status in [Status::Succeeded, Status::Failed, Status::Cancelled] {
        let scene = given([submitted(job(1), batch()), finished(job(1), 0, status, None, None)])
            .when(delete(job(1), None))
            .then([deleted(job(1))]);
        let nothing = State { newest_event_at: T0, ..State::default() };
        assert_eq!(scene.state, nothing, "nothing is left of it");
        scene.when(delete(job(1), None)).refused(NotFound, "there is no job");
    }
}

#[test]
fn a_job_that_lives_is_not() {
    let pending = given([joined(A), submitted(job(1), service())]);
    let starting = pending.clone().and([placed(job(1), 1, A)]);
    let running = starting.clone().and([started(job(1), 1, T0)]);
    let restarting = running.clone().and([restarting(job(1), 1, Cause::ProcessExit, 1)]);
    let stopping = running.clone().and([cancel_requested(job(1), 1, GRACEFUL)]);
    for (scene, status) in [
        (pending, "pending"),
        (starting, "starting"),
        (running, "running"),
        (restarting, "restarting"),
        (stopping, "stopping"),
    ] {
        let message = format!("job {} is {status}: only a job that is over can be deleted", job(1));
        scene.when(delete(job(1), None)).refused(InUse, &message);
    }
}

#[test]
fn a_deletion_that_comes_twice_deletes_once() {
    let scene = given(over(1, "x")).and(over(2, "x"));
    let scene = scene.when(delete("x", Some("r-1"))).then([deleted_by("r-1", 2)]);
    // By its name the request would now mean the older job.
    let scene = scene.when(delete("x", Some("r-1"))).nothing();
    let scene = scene.when(delete("x", Some("r-2"))).then([deleted_by("r-2", 1)]);
    let scene = scene.when(delete("x", Some("r-2"))).nothing();
    scene.when(delete("x", Some("r-3"))).refused(NotFound, "there is no job `x`");
}

#[test]
fn without_a_request_id_a_name_means_the_newest_that_is_left() {
    let scene = given(over(1, "x")).and(over(2, "x"));
    let scene = scene.when(delete("x", None)).then([deleted(job(2))]);
    let scene = scene.when(delete("x", None)).then([deleted(job(1))]);
    scene.when(delete("x", None)).refused(NotFound, "there is no job `x`");
}

#[test]
fn requests_are_remembered_up_to_a_limit() {
    let mut scene = given([]);
    for number in 0..=limits::REQUESTS_REMEMBERED_MAX as u64 {
        scene = scene.and(over(1, "x")).and([deleted_by(&format!("r-{number}"), 1)]);
        if number == 2 {
            // Checking the whole state after every fold would make the rest take minutes.
            scene.checked = false;
        }
    }
    scene.checked = true;
    let scene = scene.and(over(1, "x"));
    let last = format!("r-{}", limits::REQUESTS_REMEMBERED_MAX);
    let scene = scene.when(delete("x", Some(&last))).nothing();
    scene.when(delete("x", Some("r-0"))).then([deleted_by("r-0", 1)]);
}
