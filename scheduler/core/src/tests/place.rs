//! A planned placement, checked again: what was planned may have been overtaken.

use super::scene::*;
use outlive_schemas::event::Cause;
use outlive_schemas::executor::Capacity;
use outlive_schemas::id::Attempt;
use outlive_schemas::view::Status;

fn waiting() -> Scene {
    given([joined(A), joined(B), submitted(job(1), batch())])
}

#[test]
fn a_placement_takes_room() {
    let scene = waiting().when(place(job(1), 1, A)).then([placed(job(1), 1, A)]);
    let placed = scene.job(job(1));
    assert_eq!((placed.status, placed.attempt), (Status::Starting, Attempt(1)));
    assert_eq!((placed.placement.unwrap().executor, placed.placement.unwrap().at.0), (A, 4));
    assert_eq!(placed.last_host, Some((name_of(A), zone("a"))));
    assert_eq!(scene.state.executors[&A].allocated, Capacity { cpu_millis: 100, memory_bytes: 64 << 20, slots: 1 });
    assert!(scene.state.queue().is_empty());
}

#[test]
fn a_noop_takes_a_slot_only() {
    let scene = given([joined(A), submitted(job(1), noop())]).when(place(job(1), 1, A)).then([placed(job(1), 1, A)]);
    assert_eq!(scene.state.executors[&A].allocated, Capacity { slots: 1, ..Capacity::default() });
}

#[test]
fn only_the_next_attempt_is_placed() {
    waiting().when(place(job(1), 0, A)).stale();
    waiting().when(place(job(1), 2, A)).stale();
    waiting().when(place(job(2), 1, A)).stale();
    // Twice: the first has happened.
    let scene = waiting().when(place(job(1), 1, A)).happened().0;
    scene.clone().when(place(job(1), 1, B)).stale();
    scene.clone().when(place(job(1), 2, B)).stale();
    let again = scene.and([restarting(job(1), 1, Cause::ProcessExit, 1)]);
    again.clone().when(place(job(1), 1, B)).stale();
    again.when(place(job(1), 2, B)).then([placed(job(1), 2, B)]);
}

#[test]
fn what_is_over_is_not_placed() {
    waiting().and([finished(job(1), 0, Status::Cancelled, None, None)]).when(place(job(1), 1, A)).stale();
}

#[test]
fn what_is_not_due_is_not_placed() {
    let scene = given([joined(A)]).and(running(job(1), batch(), A));
    let scene = scene.when(report(A, job(1), 1, exited(1))).happened().0;
    let scene = scene.at(999).when(place(job(1), 2, A)).stale();
    scene.at(1_000).when(place(job(1), 2, A)).then([placed(job(1), 2, A)]);
}

#[test]
fn an_executor_must_be_there_and_suit() {
    waiting().when(place(job(1), 1, C)).stale();
    waiting().and([lost(A)]).when(place(job(1), 1, A)).stale();
    let picky = || given([joined(A), joined(B), submitted(job(1), batch().in_zones(&["b"]))]);
    picky().when(place(job(1), 1, A)).stale();
    picky().when(place(job(1), 1, B)).then([placed(job(1), 1, B)]);
    given([joined(A), submitted(job(1), batch().labelled("disk", "ssd"))]).when(place(job(1), 1, A)).stale();
}

#[test]
fn room_is_counted_when_it_is_taken() {
    let big = || batch().needing(600, 64);
    let scene = given([joined(A), submitted(job(1), big()), submitted(job(2), big()), submitted(job(3), batch())]);
    let scene = scene.when(place(job(1), 1, A)).happened().0;
    let scene = scene.when(place(job(2), 1, A)).stale();
    let scene = scene.when(place(job(3), 1, A)).happened().0;
    // It is given back at the end.
    let scene = scene.when(report(A, job(1), 1, exited(0))).happened().0;
    scene.when(place(job(2), 1, A)).then([placed(job(2), 1, A)]);
}
