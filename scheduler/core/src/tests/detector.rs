//! Observations → verdicts, as tables over time.

use super::scene::*;
use crate::detect::{
    GONE_PROBES, OWN_BEAT_WITHIN, Observations, Observed, PROBE_AFTER, PROBE_INTERVAL, SILENT_AFTER, SUSPECT_AFTER,
    Verdict, detect,
};
use outlive_schemas::command::LossReason;
use outlive_schemas::id::ExecutorId;
use outlive_schemas::time::Millis;

/// A leader that has listened for a long time, hears itself, and knows these executors, all of which beat at `T0`.
fn watching(executors: &[ExecutorId]) -> Observations {
    let mut observations = Observations { listening_since: T0 - Millis(60_000), ..Default::default() };
    for &executor in executors {
        let mut observed = Observed::new(zone_of(executor), T0 - Millis(60_000));
        observed.heard(T0);
        observations.executors.insert(executor, observed);
    }
    observations
}

/// What is judged so many milliseconds after `T0`, the leader hearing itself.
fn judged(observations: &Observations, ms: u64) -> Vec<Verdict> {
    detect(&Observations { own_beat_heard: Some(at(ms)), ..observations.clone() }, at(ms))
}

fn losses(observations: &Observations, ms: u64) -> Vec<(ExecutorId, LossReason)> {
    let lost = |verdict| match verdict {
        Verdict::Lost { executor, reason, .. } => Some((executor, reason)),
        Verdict::Probe(_) => None,
    };
    judged(observations, ms).into_iter().filter_map(lost).collect()
}

fn change(observations: &mut Observations, executor: ExecutorId, change: impl FnOnce(&mut Observed)) {
    change(observations.executors.get_mut(&executor).unwrap());
}

#[test]
fn beats_on_time_lead_to_nothing() {
    let mut observations = watching(&[A, B, C]);
    for beat in 1..=100_u64 {
        for ms in (beat - 1) * 250..beat * 250 {
            assert_eq!(judged(&observations, ms), []);
        }
        observations.executors.values_mut().for_each(|e| e.heard(at(beat * 250)));
    }
}

#[test]
fn a_late_beat_is_probed_for_and_not_too_often() {
    let mut observations = watching(&[A, B]);
    change(&mut observations, B, |b| b.heard(at(2_000)));
    assert_eq!(judged(&observations, PROBE_AFTER.0), []);
    assert_eq!(judged(&observations, PROBE_AFTER.0 + 1), [Verdict::Probe(A)]);
    change(&mut observations, A, |a| a.last_probe = Some(at(451)));
    assert_eq!(judged(&observations, 451 + PROBE_INTERVAL.0 - 1), []);
    assert_eq!(judged(&observations, 451 + PROBE_INTERVAL.0), [Verdict::Probe(A)]);
    // It is asked before it is suspected, which costs it work.
    let suspect = |ms| observations.executors[&A].is_suspect(at(ms));
    assert!(PROBE_AFTER < SUSPECT_AFTER && !suspect(SUSPECT_AFTER.0) && suspect(SUSPECT_AFTER.0 + 1));
    // A beat ends it.
    change(&mut observations, A, |a| a.heard(at(560)));
    assert_eq!(judged(&observations, 600), []);
}

#[test]
fn a_process_that_nobody_listens_for_twice_is_lost_at_once() {
    let mut observations = watching(&[A, B]);
    change(&mut observations, A, |a| a.gone = GONE_PROBES - 1);
    assert_eq!(losses(&observations, 500), []);
    change(&mut observations, A, |a| a.gone = GONE_PROBES);
    let lost = Verdict::Lost { executor: A, reason: LossReason::ProcessGone, last_seen: T0 };
    assert!(judged(&observations, 600).contains(&lost), "{:?}", judged(&observations, 600));
    // One that beats after all was only slow to subscribe.
    change(&mut observations, A, |a| a.heard(at(600)));
    assert_eq!(judged(&observations, 600), [Verdict::Probe(B)]);
}

/// Nobody was found there twice, first at that time.
fn gone(observations: &mut Observations, executor: ExecutorId, since_ms: u64) {
    change(observations, executor, |e| (e.gone, e.gone_since) = (GONE_PROBES, Some(at(since_ms))));
}

#[test]
fn nobody_anywhere_may_be_a_cut_and_waits_for_leases() {
    // A leader whose server lost its cluster hears itself, and finds nobody in any other zone.
    let mut observations = watching(&[A, B, C]);
    change(&mut observations, A, |a| a.heard(at(600)));
    gone(&mut observations, B, 400);
    gone(&mut observations, C, 420);
    assert_eq!(losses(&observations, 600), []);
    // Their leases tell.
    change(&mut observations, B, |b| b.leased = false);
    assert_eq!(losses(&observations, 5_000), [(B, LossReason::ProcessGone)]);
}

#[test]
fn the_other_zones_are_asked_before_one_is_judged() {
    // B's process is gone; C's last beat is older than that, though not late.
    let mut observations = watching(&[A, B, C]);
    change(&mut observations, A, |a| a.heard(at(410)));
    change(&mut observations, C, |c| c.heard(at(300)));
    gone(&mut observations, B, 400);
    assert_eq!(judged(&observations, 500), [Verdict::Probe(B), Verdict::Probe(C)]);
    change(&mut observations, C, |c| c.answered(at(501)));
    assert_eq!(losses(&observations, 501), [(B, LossReason::ProcessGone)]);
    // Of a zone with several, one that is heard is enough; and one zone alone asks nobody.
    let mut observations = watching(&[A, A2, B, B2]);
    gone(&mut observations, A, 400);
    change(&mut observations, B2, |b| b.heard(at(450)));
    assert_eq!(losses(&observations, 500), [(A, LossReason::ProcessGone)]);
    let mut observations = watching(&[A, A2]);
    gone(&mut observations, A, 400);
    assert_eq!(losses(&observations, 500), [(A, LossReason::ProcessGone)]);
}

#[test]
fn silence_for_two_seconds_is_a_loss() {
    let mut observations = watching(&[A, B]);
    change(&mut observations, B, |b| b.heard(at(1_900)));
    assert_eq!(losses(&observations, SILENT_AFTER.0 - 1), []);
    assert_eq!(losses(&observations, SILENT_AFTER.0), [(A, LossReason::Silent)]);
    // An answer to a probe is a sign of life.
    change(&mut observations, A, |a| a.last_answer = Some(at(700)));
    assert_eq!(losses(&observations, 2_699), []);
    let lost = Verdict::Lost { executor: A, reason: LossReason::Silent, last_seen: at(700) };
    change(&mut observations, B, |b| b.heard(at(2_700)));
    assert_eq!(judged(&observations, 2_700), [lost]);
}

#[test]
fn one_that_never_beat_counts_from_when_it_came() {
    let mut observations = watching(&[B]);
    observations.executors.insert(A, Observed::new(zone("a"), at(100)));
    change(&mut observations, B, |b| b.heard(at(2_000)));
    assert_eq!(losses(&observations, 2_099), []);
    assert_eq!(losses(&observations, 2_100), [(A, LossReason::Silent)]);
}

#[test]
fn an_isolated_leader_judges_nobody() {
    let mut observations = watching(&[A, B]);
    change(&mut observations, A, |a| (a.gone, a.leaving, a.leased) = (5, true, false));
    for (own_beat, isolated) in
        [(None, true), (Some(at(10_000 - OWN_BEAT_WITHIN.0 - 1)), true), (Some(at(10_000)), false)]
    {
        observations.own_beat_heard = own_beat;
        assert_eq!(observations.is_isolated(at(10_000)), isolated);
        assert_eq!(detect(&observations, at(10_000)).is_empty(), isolated, "{own_beat:?}");
    }
}

#[test]
fn a_leader_that_has_just_come_waits_a_whole_window() {
    let mut observations = watching(&[A, B]);
    // Nothing has been heard from A since long before; that was for another to hear.
    observations.listening_since = at(10_000);
    change(&mut observations, B, |b| b.heard(at(11_900)));
    for (ms, verdicts) in [
        (10_000, vec![]),
        (10_300, vec![]),
        (10_301, vec![Verdict::Probe(A)]),
        (11_999, vec![Verdict::Probe(A)]),
        (12_000, vec![Verdict::Lost { executor: A, reason: LossReason::Silent, last_seen: T0 }]),
    ] {
        assert_eq!(judged(&observations, ms), verdicts, "after {ms} ms");
    }
    // That nobody listens there is known without waiting.
    change(&mut observations, A, |a| a.gone = 2);
    assert_eq!(losses(&observations, 10_100), [(A, LossReason::ProcessGone)]);
}

#[test]
fn zones_that_fall_silent_together_wait_for_their_leases() {
    // Their beats did not end on the same tick.
    let mut observations = watching(&[A, A2, B, C]);
    change(&mut observations, A2, |a| a.heard(at(100)));
    change(&mut observations, B, |b| b.heard(at(240)));
    for ms in [2_000, 2_100, 2_240, 3_000, 4_900] {
        change(&mut observations, C, |c| c.heard(at(ms)));
        assert_eq!(losses(&observations, ms), [], "after {ms} ms");
    }
    // A's lease is over: A is lost, and the others wait on.
    change(&mut observations, C, |c| c.heard(at(5_000)));
    change(&mut observations, A, |a| a.leased = false);
    assert_eq!(losses(&observations, 5_000), [(A, LossReason::Silent)]);
    observations.executors.remove(&A);
    assert_eq!(losses(&observations, 5_000), []);
    // B is heard again: A2 is alone in its silence.
    change(&mut observations, B, |b| b.heard(at(5_000)));
    assert_eq!(losses(&observations, 5_000), [(A2, LossReason::Silent)]);
}

#[test]
fn one_silent_zone_does_not_wait() {
    let mut observations = watching(&[A, A2, B]);
    change(&mut observations, B, |b| b.heard(at(1_900)));
    assert_eq!(losses(&observations, 2_000), [(A, LossReason::Silent), (A2, LossReason::Silent)]);
}

#[test]
fn one_that_leaves_is_lost_when_its_registration_is_gone() {
    let mut observations = watching(&[A, B]);
    change(&mut observations, A, |a| a.leaving = true);
    assert_eq!(judged(&observations, 100), []);
    change(&mut observations, A, |a| a.leased = false);
    assert_eq!(losses(&observations, 100), [(A, LossReason::Left)]);
    // A lease alone says nothing of one that still beats.
    change(&mut observations, A, |a| a.leaving = false);
    assert_eq!(judged(&observations, 100), []);
}

#[test]
fn a_clock_that_steps_back_condemns_nobody() {
    let observations = watching(&[A, B]);
    let earlier = T0 - Millis(30_000);
    let observations = Observations { own_beat_heard: Some(earlier), ..observations };
    assert_eq!(detect(&observations, earlier), []);
    assert_eq!(detect(&observations, T0 - Millis(1_000_000)), []);
}
