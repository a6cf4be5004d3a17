//! What intake takes and what it refuses.

use super::*;
use crate::machine::holdings::Holding;
use outlive_schemas::message::AttemptDigest;
use proptest::prelude::*;
use uuid::Uuid;

const NEED: Capacity = Capacity { cpu_millis: 100, memory_bytes: 1 << 20, slots: 1 };
const CAPACITY: Capacity = Capacity { cpu_millis: 1_000, memory_bytes: 10 << 20, slots: 3 };

fn job(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

fn holding(attempt: u32, placed_at: u64) -> Holding {
    Holding { attempt: Attempt(attempt), placed_at: Sequence(placed_at), need: NEED, over: false }
}

fn holdings(held: &[(u128, u32, u64)]) -> Holdings {
    let mut holdings = Holdings::default();
    for &(number, attempt, placed_at) in held {
        holdings.insert(job(number), holding(attempt, placed_at));
    }
    holdings
}

#[test]
fn who_hears_of_a_later_generation_is_left_behind() {
    let mut intake = Intake::default();
    let later = Term(7).next_generation();
    assert!(intake.hear(later, Sequence(3)));
    assert!(!intake.is_left_behind(), "it knows of nothing else");
    let mut intake = Intake::default();
    intake.hear(Term(7), Sequence(100));
    assert!(intake.hear(later, Sequence(3)));
    assert!(intake.is_left_behind());
    assert_eq!(
        intake.told(),
        Told { term: later, seq: Sequence(3), before: Sequence(0) },
        "what it saw before was another log"
    );
    let next = intake.begin_anew();
    assert!(!next.is_left_behind());
    assert_eq!(next.told().seq, Sequence(3));
}

#[test]
fn a_deposed_leader_is_not_heard() {
    let mut intake = Intake::default();
    assert!(intake.hear(Term(5), Sequence(100)));
    assert!(!intake.hear(Term(4), Sequence(999)));
    assert!(intake.hear(Term(5), Sequence(90)));
    assert_eq!(intake.told(), Told { term: Term(5), seq: Sequence(999), before: Sequence(999) });
    assert_eq!(intake.term(), Term(5));
    assert!(intake.hear(Term(6), Sequence(1_001)));
    let next = intake.begin_anew();
    assert_eq!(next.told(), Told { term: Term(6), seq: Sequence(1_001), before: Sequence(999) });
}

#[test]
fn only_a_higher_attempt_is_taken() {
    let mut intake = Intake::default();
    let held = holdings(&[(1, 3, 10)]);
    let assign =
        |intake: &Intake, number, attempt| intake.assign(&held, &CAPACITY, job(number), Attempt(attempt), &NEED);
    assert_eq!(assign(&intake, 1, 3), Admission::Ignore);
    assert_eq!(assign(&intake, 1, 2), Admission::Ignore);
    assert_eq!(assign(&intake, 1, 4), Admission::Take);
    assert_eq!(assign(&intake, 2, 1), Admission::Take);
    intake.confirm(job(2), Attempt(5), 0);
    assert_eq!(assign(&intake, 2, 5), Admission::Ignore);
    assert_eq!(assign(&intake, 2, 6), Admission::Take);
}

#[test]
fn what_does_not_fit_is_refused_with_the_figures() {
    let intake = Intake::default();
    let mut held = holdings(&[(1, 1, 1), (2, 1, 1), (3, 1, 1)]);
    let Admission::Refuse { reason } = intake.assign(&held, &CAPACITY, job(4), Attempt(1), &NEED) else {
        panic!("taken")
    };
    assert!(reason.contains("700") && reason.contains("and 0"), "{reason}");
    // A higher attempt takes the older one's place, and one that is over has left its own.
    assert_eq!(intake.assign(&held, &CAPACITY, job(3), Attempt(2), &NEED), Admission::Take);
    held.end(job(1), Attempt(1));
    assert_eq!(intake.assign(&held, &CAPACITY, job(4), Attempt(1), &NEED), Admission::Take);
    let huge = Capacity { memory_bytes: 1 << 40, ..NEED };
    assert!(matches!(intake.assign(&held, &CAPACITY, job(4), Attempt(1), &huge), Admission::Refuse { .. }));
}

#[test]
fn the_wanted_set_is_converged_on() {
    let mut intake = Intake::default();
    // 1 is wanted, 2 is not, 3 was placed after the set was made, 4 is held in an older attempt.
    let held = holdings(&[(1, 1, 5), (2, 1, 5), (3, 1, 11), (4, 1, 5)]);
    intake.confirm(job(6), Attempt(1), 0);
    let wanted = [(job(1), Attempt(1)), (job(4), Attempt(2)), (job(5), Attempt(1)), (job(6), Attempt(1))];
    let difference = intake.want(&held, &wanted, Sequence(10));
    assert_eq!(difference.unwanted, [(job(2), Attempt(1)), (job(4), Attempt(1))]);
    assert_eq!(difference.missing, [(job(4), Attempt(2)), (job(5), Attempt(1))]);
}

#[test]
fn a_stop_for_what_is_not_here_is_noticed() {
    let mut intake = Intake::default();
    let held = holdings(&[(1, 2, 5)]);
    assert!(!intake.stops_missing(&held, job(1), Attempt(2)));
    assert!(!intake.stops_missing(&held, job(1), Attempt(1)));
    assert!(intake.stops_missing(&held, job(1), Attempt(3)));
    assert!(intake.stops_missing(&held, job(2), Attempt(1)));
    intake.confirm(job(2), Attempt(1), 0);
    assert!(!intake.stops_missing(&held, job(2), Attempt(1)));
}

#[test]
fn confirmed_attempts_are_forgotten_in_time() {
    let mut confirmed = Confirmed::default();
    confirmed.insert(job(1), Attempt(1), 0);
    confirmed.insert(job(1), Attempt(2), 1_000);
    confirmed.insert(job(2), Attempt(1), CONFIRMED_MS_MAX + 1);
    // The first entry is gone, and the second still covers the job.
    assert!(confirmed.covers(job(1), Attempt(2)) && confirmed.covers(job(1), Attempt(1)));
    confirmed.insert(job(3), Attempt(1), CONFIRMED_MS_MAX + 1_001);
    assert!(!confirmed.covers(job(1), Attempt(1)) && confirmed.covers(job(2), Attempt(1)));
    for number in 0..CONFIRMED_MAX as u128 {
        confirmed.insert(job(1_000 + number), Attempt(1), CONFIRMED_MS_MAX + 1_001);
    }
    assert_eq!((confirmed.order.len(), confirmed.by_job.len()), (CONFIRMED_MAX, CONFIRMED_MAX));
}

/// Everything that changes what is held.
#[derive(Clone, Debug)]
enum Change {
    Assign(u128, u32),
    End(u128, u32),
    Confirm(u128, u32),
    Want(Vec<(u128, u32)>, u64),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let attempt = || (0..6_u128, 1..5_u32);
    let change = prop_oneof![
        4 => attempt().prop_map(|(job, attempt)| Change::Assign(job, attempt)),
        2 => attempt().prop_map(|(job, attempt)| Change::End(job, attempt)),
        2 => attempt().prop_map(|(job, attempt)| Change::Confirm(job, attempt)),
        1 => (proptest::collection::vec(attempt(), 0..6), 0..80_u64).prop_map(|(set, seq)| Change::Want(set, seq)),
    ];
    proptest::collection::vec(change, 0..80)
}

/// As the runner applies them.
fn apply(intake: &mut Intake, held: &mut Holdings, change: &Change, seq: u64) {
    match change {
        Change::Assign(number, attempt) => {
            let admission = intake.assign(held, &CAPACITY, job(*number), Attempt(*attempt), &NEED);
            if admission == Admission::Take {
                held.insert(job(*number), holding(*attempt, seq));
            }
        }
        Change::End(number, attempt) => held.end(job(*number), Attempt(*attempt)),
        Change::Confirm(number, attempt) => {
            if held.get(job(*number)).is_some_and(|held| held.over && held.attempt == Attempt(*attempt)) {
                intake.confirm(job(*number), Attempt(*attempt), seq);
                held.remove(job(*number), Attempt(*attempt));
            }
        }
        Change::Want(wanted, at) => {
            let wanted: Vec<_> = wanted.iter().map(|&(number, attempt)| (job(number), Attempt(attempt))).collect();
            for (job, attempt) in intake.want(held, &wanted, Sequence(*at)).unwanted {
                held.remove(job, attempt);
            }
        }
    }
}

fn shown(held: &Holdings) -> Vec<(JobId, Holding)> {
    held.iter().map(|(job, held)| (job, *held)).collect()
}

proptest! {
    #[test]
    fn digest_and_room_are_what_a_recount_gives(changes in changes()) {
        let (mut intake, mut held) = (Intake::default(), Holdings::default());
        for (seq, change) in (1..).zip(&changes) {
            apply(&mut intake, &mut held, change, seq);
            let (mut digest, mut taken) = (AttemptDigest::default(), Capacity::default());
            for (job, held) in held.iter() {
                digest.add(job, held.attempt);
                if !held.over {
                    taken += held.need;
                }
            }
            prop_assert_eq!(held.digest(), digest);
            prop_assert_eq!(held.taken(), taken);
            prop_assert!(CAPACITY.holds(&held.taken()), "over-committed: {:?}", held.taken());
        }
    }

    #[test]
    fn an_order_twice_or_late_is_as_good_as_once(changes in changes(), late in (0..6_u128, 1..5_u32)) {
        let (mut intake, mut held) = (Intake::default(), Holdings::default());
        for (seq, change) in (1..).zip(&changes) {
            apply(&mut intake, &mut held, change, seq);
            if let Change::Assign(number, attempt) = change {
                let before = shown(&held);
                if held.holds(job(*number), Attempt(*attempt)) {
                    for stale in 1..=*attempt {
                        apply(&mut intake, &mut held, &Change::Assign(*number, stale), seq + 1_000);
                    }
                    prop_assert_eq!(&shown(&held), &before);
                }
            }
            if matches!(change, Change::Want(..)) {
                let before = shown(&held);
                apply(&mut intake, &mut held, change, seq);
                prop_assert_eq!(&shown(&held), &before);
            }
        }
        // What was confirmed never comes back.
        let (number, attempt) = late;
        if held.get(job(number)).is_none() && intake.confirmed.covers(job(number), Attempt(attempt)) {
            apply(&mut intake, &mut held, &Change::Assign(number, attempt), 9_999);
            prop_assert!(held.get(job(number)).is_none());
        }
    }

    #[test]
    fn a_job_never_goes_back_to_an_older_attempt(changes in changes()) {
        let (mut intake, mut held) = (Intake::default(), Holdings::default());
        for (seq, change) in (1..).zip(&changes) {
            let before = shown(&held);
            apply(&mut intake, &mut held, change, seq);
            for (job, older) in before {
                prop_assert!(held.get(job).is_none_or(|now| now.attempt >= older.attempt));
            }
        }
    }
}
