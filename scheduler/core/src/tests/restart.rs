//! How a failed attempt is followed by another: how often, and after what delay.

use super::scene::*;
use crate::decide::backoff;
use outlive_schemas::event::{Cause, Event};
use outlive_schemas::id::{Attempt, CheckpointNumber};
use outlive_schemas::job::{Factor, JobSpec, Restart};
use outlive_schemas::message::Outcome;
use outlive_schemas::time::Millis;
use outlive_schemas::view::Status;

fn up(spec: JobSpec) -> Scene {
    given([joined(A), joined(B)]).and(running(job(1), spec, A))
}

/// Lets attempt `attempt` fail and, where another follows, runs that one as soon as it is due.
fn fail(scene: Scene, attempt: u32, ran_ms: u64) -> Scene {
    let (scene, _) = scene.when(report(A, job(1), attempt, ended(Outcome::Exited { code: 1 }, ran_ms))).happened();
    if scene.job(job(1)).status.is_final() {
        return scene;
    }
    let due = scene.job(job(1)).ready_at.since(T0).0;
    let (scene, _) = scene.at(due).when(place(job(1), attempt + 1, A)).happened();
    scene.and([started(job(1), attempt + 1, at(due))])
}

#[test]
fn a_batch_job_has_three_attempts() {
    let scene = up(batch());
    let scene = fail(scene, 1, 100);
    let scene = fail(scene, 2, 100);
    assert_eq!((scene.job(job(1)).attempt, scene.job(job(1)).restarts), (Attempt(3), 2));
    let scene = fail(scene, 3, 100);
    let failed = scene.job(job(1));
    assert_eq!((failed.status, failed.exit_code, failed.restarts), (Status::Failed, Some(1), 2));
    assert_eq!(failed.reason.as_deref(), Some("exited with 1; 3 of 3 attempts failed"));
}

#[test]
fn the_number_of_attempts_is_the_users() {
    let scene = fail(up(batch().attempts(Some(1))), 1, 100);
    assert_eq!(scene.job(job(1)).status, Status::Failed);
    let scene = fail(up(service().attempts(Some(2))), 1, 100);
    assert_eq!(fail(scene, 2, 100).job(job(1)).status, Status::Failed);
    let mut endless = up(batch().attempts(None));
    for attempt in 1..=20 {
        endless = fail(endless, attempt, 100);
        assert_eq!(endless.job(job(1)).status, Status::Running);
    }
}

#[test]
fn a_service_is_restarted_without_end_and_whatever_it_exits_with() {
    let mut scene = up(service());
    for attempt in 1..=20 {
        scene = fail(scene, attempt, 100);
    }
    assert_eq!((scene.job(job(1)).status, scene.job(job(1)).restarts), (Status::Running, 20));
    let scene = up(service()).when(report(A, job(1), 1, exited(0))).happened().0;
    let again = scene.job(job(1));
    assert_eq!(
        (again.status, again.reason.as_deref(), again.exit_code),
        (Status::Restarting, Some("exited with 0"), Some(0))
    );
}

#[test]
fn a_batch_job_that_fails_late_each_time_fails_for_good_as_well() {
    const LATE: u64 = 3_600_000;
    let mut scene = up(batch());
    for attempt in 1..=2 {
        let begun = scene.job(job(1)).attempt_started_at.unwrap();
        scene = fail(scene, attempt, LATE);
        // Its host has done nothing wrong, so it is tried again as soon as after a first failure.
        assert_eq!(scene.job(job(1)).ready_at.since(begun), Millis(1_000), "after attempt {attempt}");
    }
    let failed = fail(scene, 3, LATE);
    assert_eq!(failed.job(job(1)).status, Status::Failed);
    assert_eq!(failed.job(job(1)).reason.as_deref(), Some("exited with 1; 3 of 3 attempts failed"));

    // Whatever is meant to run on begins the count anew.
    for spec in [service().attempts(Some(3)), batch().attempts(None), service()] {
        let mut scene = up(spec);
        for attempt in 1..=10 {
            scene = fail(scene, attempt, LATE);
            assert_eq!((scene.job(job(1)).status, scene.job(job(1)).failures), (Status::Running, 1));
        }
    }
}

#[test]
fn it_shows_why_it_restarts_until_it_runs() {
    let scene = up(service()).when(report(A, job(1), 1, exited(3))).happened().0.at(1_000);
    let scene = scene.when(place(job(1), 2, B)).happened().0;
    let starting = scene.job(job(1));
    assert_eq!((starting.status, starting.reason.as_deref()), (Status::Starting, Some("exited with 3")));
    let scene = scene.and([started(job(1), 2, at(1_000))]);
    let up = scene.job(job(1));
    assert_eq!((up.status, up.reason.as_deref(), up.exit_code), (Status::Running, None, None));
}

#[test]
fn delays_grow_and_a_healthy_stretch_wipes_them_out() {
    let mut scene = up(service());
    for (attempt, ran_ms, delay) in [
        (1, 100, 1_000),
        (2, 100, 1_500),
        (3, 599_999, 2_250),
        (4, 600_000, 1_000),
        (5, 100, 1_500),
        (6, u64::MAX, 1_000),
    ] {
        let now = scene.job(job(1)).attempt_started_at.unwrap();
        scene = fail(scene, attempt, ran_ms);
        assert_eq!(scene.job(job(1)).ready_at.since(now), Millis(delay), "after attempt {attempt}");
    }
}

#[test]
fn losing_a_host_is_not_the_jobs_fault() {
    let spec = batch().attempts(Some(2));
    let scene = fail(up(spec), 1, 100);
    assert_eq!(scene.job(job(1)).failures, 1);
    let (scene, events) = scene.at(9_000).and([lost(A)]).when(evict(job(1), 2)).happened();
    let Event::JobRestarting(restarting) = &events[0].event else { panic!("{events:?}") };
    assert_eq!((restarting.cause, restarting.failures, restarting.next_try_at), (Cause::ExecutorLost, 1, at(9_000)));
    assert_eq!(restarting.reason.as_str(), "executor executor-a-1 was lost: process_gone");
    assert_eq!((scene.job(job(1)).status, scene.job(job(1)).restarts), (Status::Restarting, 2));
    // Nor does it wipe out what was before.
    let (scene, _) = scene.when(place(job(1), 3, B)).happened();
    let (scene, _) = scene.when(report(B, job(1), 3, exited(1))).happened();
    assert_eq!(scene.job(job(1)).status, Status::Failed);
}

#[test]
fn a_recovery_that_fails_before_the_job_is_up_is_one_recovery() {
    let scene = up(service()).and([checkpointed(job(1), 1, 1), lost(A)]).at(2_000).when(evict(job(1), 1)).happened().0;
    let scene = scene.when(place(job(1), 2, B)).happened().0;
    let never = Outcome::LaunchFailed { reason: "no such file".into() };
    let news = outlive_schemas::message::News::Ended(outlive_schemas::message::Ended {
        outcome: never,
        ran_ms: None,
        result: None,
    });
    let scene = scene.at(2_500).when(report(B, job(1), 2, news)).happened().0;
    let scene = scene.at(3_500).when(place(job(1), 3, B)).happened().0.and([started(job(1), 3, at(3_600))]);
    let recovery = scene.job(job(1)).last_recovery.as_deref().unwrap();
    assert_eq!((recovery.cause, recovery.lost_at, recovery.resumed_at), (Cause::ExecutorLost, T0, at(3_600)));
    assert_eq!(recovery.restored, Some(CheckpointNumber(1)));
}

fn policy(initial_ms: u64, max_ms: u64, multiplier: u32, jitter: u32) -> Restart {
    Restart {
        initial_backoff: Millis(initial_ms),
        max_backoff: Millis(max_ms),
        multiplier: Factor(multiplier),
        jitter: Factor(jitter),
        ..Restart::default()
    }
}

#[test]
fn delays_are_exact_without_jitter() {
    for (policy, delays) in [
        (policy(1_000, 60_000, 1_500, 0), vec![1_000, 1_500, 2_250, 3_375, 5_062, 7_593]),
        (policy(1_000, 5_000, 2_000, 0), vec![1_000, 2_000, 4_000, 5_000, 5_000]),
        (policy(1_000, 60_000, 1_000, 0), vec![1_000, 1_000, 1_000]),
        (policy(0, 60_000, 2_000, 0), vec![0, 0, 0]),
        (policy(0, 0, 2_000, 0), vec![0, 0]),
        // A millisecond grows too.
        (policy(1, 60_000, 1_500, 0), vec![1, 1, 2, 3, 5, 7, 11]),
    ] {
        for (failures, delay) in (1..).zip(delays) {
            assert_eq!(backoff(&policy, failures, job(1), Attempt(failures)), Millis(delay), "{policy:?}, {failures}");
        }
    }
}

#[test]
fn delays_stop_at_the_cap_however_many_failures_there_were() {
    // Also a test of time: a loop over every failure would never end here.
    let year = outlive_schemas::limits::DURATION_MS_MAX;
    for (policy, delay) in [
        (policy(1_000, 60_000, 1_500, 0), 60_000),
        (policy(1_000, 60_000, 1_000, 0), 1_000),
        (policy(1, year, 1_001, 0), year),
        (policy(year, year, 100_000, 0), year),
    ] {
        for failures in [1_000_000, u32::MAX] {
            assert_eq!(backoff(&policy, failures, job(1), Attempt(7)), Millis(delay), "{policy:?}");
        }
    }
    // Nor does the jitter lead over it.
    let capped = policy(60_000, 60_000, 1_500, 1_000);
    assert!((1..1_000).all(|n| backoff(&capped, 50, job(u64::from(n)), Attempt(n)) <= Millis(60_000)));
}

#[test]
fn jitter_spreads_within_its_bounds_and_is_the_same_each_time() {
    let tenth = policy(10_000, 60_000, 1_500, 100);
    let delays: Vec<u64> = (1..2_000).map(|n| backoff(&tenth, 1, job(n), Attempt(1)).0).collect();
    assert!(delays.iter().all(|delay| (9_000..=11_000).contains(delay)));
    // The spread is used: both ends are come near, and the middle is where it should be.
    let mean = delays.iter().sum::<u64>() / delays.len() as u64;
    assert!(delays.iter().any(|d| *d < 9_100) && delays.iter().any(|d| *d > 10_900), "{:?}", delays.iter().min());
    assert!((9_900..=10_100).contains(&mean), "{mean}");
    let again: Vec<u64> = (1..2_000).map(|n| backoff(&tenth, 1, job(n), Attempt(1)).0).collect();
    assert_eq!(delays, again);
    let attempts: Vec<u64> = (1..100).map(|n| backoff(&tenth, 1, job(1), Attempt(n)).0).collect();
    assert!(attempts.windows(2).any(|pair| pair[0] != pair[1]), "attempts of one job differ as well");
    let full = policy(10_000, 60_000, 1_500, 1_000);
    assert!((1..2_000).all(|n| backoff(&full, 1, job(n), Attempt(1)) <= Millis(20_000)));
}
