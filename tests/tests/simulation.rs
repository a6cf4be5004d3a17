//! The simulation: many seeds, seeds that failed once, determinism, and deliberate bugs that must be found.

use outlive_tests::sim::{self, Kind, Options, Report, Sabotage};
use std::collections::BTreeMap;
use std::panic::resume_unwind;

/// Seeds run by every run of the checks.
const SEEDS: u64 = 300;
/// Events of each before everything is healed: fewer than `simulate` takes, so that the checks stay quick.
const STEPS: u64 = 4_000;

/// Seeds that have found something, as they found it. What they found is told in `ops/docs/reliability.md`; what else is
/// drawn from a seed may change.
fn once_failed() -> Vec<(u64, Options)> {
    let plain = Options::default();
    let all = Options { life: true, drains: true, schedules: true, ..plain };
    let at_the_end = Options { lose_tail: true, steps: 6_000, ..all };
    let zones = Options { focus: &[Kind::KillZone, Kind::Isolate, Kind::Log, Kind::Etcd], ..all };
    vec![
        (30_018, plain),
        (104_824, all),
        (1_000_074, Options { steps: 40_000, ..all }),
        (5_000_189, at_the_end),
        (5_001_282, at_the_end),
        (5_300_934, zones),
        (5_600_856, Options { lose_tail: true, ..plain }),
    ]
}

fn holds(seed: u64, options: &Options) -> Report {
    let report = sim::run(seed, options);
    if let Some(violation) = &report.violation {
        let told = sim::run_traced(seed, options).lines;
        let from = told.len().saturating_sub(200);
        panic!(
            "{violation}\n{}\nseed {seed}: cargo run --release -p outlive-tests --bin simulate -- --seeds 1 \
             --first-seed {seed} --steps {} --trace",
            told[from..].join("\n"),
            options.steps
        );
    }
    report
}

/// Both cores share the seeds: each run is a thread's own. How often each type of event was stored.
fn each(seeds: impl Iterator<Item = (u64, Options)>) -> BTreeMap<&'static str, u64> {
    let seeds: Vec<_> = seeds.collect();
    let half = seeds.len().div_ceil(2).max(1);
    let mut came = BTreeMap::new();
    std::thread::scope(|scope| {
        let run = |part: &[(u64, Options)]| {
            part.iter().flat_map(|(seed, options)| holds(*seed, options).events).collect::<Vec<_>>()
        };
        let parts: Vec<_> = seeds.chunks(half).map(|part| scope.spawn(move || run(part))).collect();
        for (event, times) in parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|e| resume_unwind(e))) {
            *came.entry(event).or_insert(0) += times;
        }
    });
    came
}

#[test]
fn nothing_is_lost_doubled_or_stuck() {
    each((0..SEEDS).map(|seed| (seed, Options { steps: STEPS, ..Options::default() })));
}

#[test]
fn stops_updates_and_snapshots_end_whoever_is_lost() {
    let options = Options { steps: 2 * STEPS, life: true, ..Options::default() };
    let came = each((20_000..20_100).map(|seed| (seed, options)));
    // Each step of them is come to, often enough that faults come at all of them.
    for event in [
        "snapshot_completed",
        "job_stopped",
        "start_requested",
        "update_requested",
        "version_started",
        "version_proven",
        "rollback_begun",
        "version_restored",
    ] {
        assert!(came.get(event).is_some_and(|times| *times >= 10), "{event}: {came:?}");
    }
}

#[test]
fn drains_of_executors_and_zones_redo_nothing() {
    each((30_000..30_055).map(|seed| (seed, Options { steps: STEPS, drains: true, ..Options::default() })));
}

/// While JetStream elects, nothing can be appended for some seconds; and everybody lives.
#[test]
fn appends_that_stall_cost_nobody_an_executor() {
    let mut longest = 0;
    for seed in 50_000..50_030 {
        let options = Options { steps: STEPS, focus: &[Kind::Log], ..Options::default() };
        let report = holds(seed, &options);
        assert_eq!(report.lost_executors, 0, "seed {seed}");
        longest = longest.max(report.stalled_ms_max);
    }
    assert!(longest >= 8_000, "nothing stalled for longer than {longest} ms");
}

#[test]
fn no_tick_of_a_schedule_doubles_or_vanishes() {
    each((60_000..60_060).map(|seed| (seed, Options { steps: STEPS, schedules: true, ..Options::default() })));
}

/// With every third seed users have jobs tried again: single ones, arrays, some of their tasks, and all that a filter
/// finds.
#[test]
fn what_is_tried_again_begins_anew_and_ends() {
    let seeds = (70_000..70_180).filter(|seed| seed % 3 == 1);
    let came = each(seeds.map(|seed| (seed, Options { steps: 2 * STEPS, ..Options::default() })));
    for (event, least) in [("job_retried", 40), ("array_tasks_retried", 3), ("array_tasks_cancelled", 3)] {
        let times = came.get(event).copied().unwrap_or_default();
        assert!(times >= least, "{event} came {times} times: {came:?}");
    }
}

/// An executor that nobody hears for longer than an end is waited for holds its lease, and runs what it has.
#[test]
fn what_must_never_run_twice_is_not_given_up() {
    let options = Options { steps: 20_000, life: true, focus: &[Kind::LongCutFromNats], ..Options::default() };
    each((0..30).map(|seed| (seed, options)));
}

#[test]
fn seeds_that_failed_once_hold() {
    each(once_failed().into_iter());
}

#[test]
fn a_log_that_lost_its_tail_is_refused_by_whoever_can_know() {
    each((10_000..10_040).map(|seed| (seed, Options { steps: 2_000, lose_tail: true, ..Options::default() })));
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in [1, 7, 42] {
        let options = Options { steps: STEPS, ..Options::default() };
        let (one, other) = (sim::run_traced(seed, &options), sim::run_traced(seed, &options));
        assert!(one.lines.len() > 100, "seed {seed} tells little");
        assert_eq!(one.lines.join("\n"), other.lines.join("\n"), "seed {seed}");
        assert_eq!(sim::run(seed, &options).commits, one.commits, "telling changes nothing");
    }
}

/// A deliberate bug, what is broken so that it shows, and within how many seeds it must be found.
struct Case {
    sabotage: Sabotage,
    focus: &'static [Kind],
    lose_tail: bool,
    schedules: bool,
    life: bool,
    steps: u64,
    within: u64,
    /// What the checker that is meant says of it; nothing where any may find it.
    says: &'static str,
}

const fn case(sabotage: Sabotage, focus: &'static [Kind], within: u64) -> Case {
    Case { sabotage, focus, lose_tail: false, schedules: false, life: false, steps: STEPS, within, says: "" }
}

/// A bug in what a new leader begins with: leaders must come and go for it.
const fn misread(sabotage: Sabotage, within: u64, says: &'static str) -> Case {
    let case = case(sabotage, &[Kind::KillScheduler, Kind::StopScheduler, Kind::Depose], within);
    let schedules = matches!(sabotage, Sabotage::TickTakenAnew | Sabotage::TickForgotten);
    Case { schedules, says, ..case }
}

const CASES: [Case; 27] = [
    Case { steps: 10_000, ..case(Sabotage::FenceOff, &[Kind::Depose, Kind::CutFromLog, Kind::PauseScheduler], 30) },
    case(Sabotage::TimeoutTakenForAbsence, &[Kind::CutOneWay, Kind::PauseExecutor], 40),
    case(Sabotage::CheckpointBeforeUpload, &[], 5),
    case(Sabotage::DamageOverlooked, &[Kind::Damage, Kind::KillExecutor], 40),
    Case { lose_tail: true, ..case(Sabotage::WitnessIgnored, &[], 30) },
    case(Sabotage::AnswerBeforeDurable, &[], 5),
    case(Sabotage::NoBarrier, &[], 5),
    Case {
        life: true,
        steps: 10_000,
        says: "runs more than once",
        ..case(Sabotage::ShimDeadlineIgnored, &[Kind::Freeze, Kind::KillExecutor], 40)
    },
    Case {
        life: true,
        steps: 8_000,
        says: "runs more than once",
        ..case(Sabotage::AnyLeaseWillDo, &[Kind::StallAtStart], 30)
    },
    Case { steps: 10_000, ..case(Sabotage::ConflictTakenForSuccess, &[Kind::Depose], 40) },
    case(Sabotage::LeasesOverlooked, &[Kind::CutFromNats], 150),
    case(Sabotage::StaleReportAccepted, &[Kind::PauseExecutor, Kind::Cut, Kind::Freeze], 40),
    case(Sabotage::EmptyWhenUnreadable, &[Kind::Damage, Kind::KillExecutor], 40),
    case(Sabotage::GoesOnAfterLastReading, &[Kind::StopExecutor], 20),
    case(Sabotage::BridgeNotDrained, &[Kind::Log, Kind::KillScheduler], 20),
    Case { steps: 10_000, ..case(Sabotage::BridgeUnguarded, &[Kind::CutFromLog, Kind::Depose], 60) },
    case(Sabotage::BridgeAckedEarly, &[Kind::Log, Kind::Etcd, Kind::KillScheduler], 20),
    misread(Sabotage::TickTakenAnew, 60, "is taken, and"),
    misread(Sabotage::TickForgotten, 60, "is taken, and"),
    misread(Sabotage::DependenciesForgotten, 20, "for which it waits"),
    // A task must have ended before a leader does.
    Case { steps: 10_000, ..misread(Sabotage::TaskLetGoAnew, 60, "is let go twice") },
    misread(Sabotage::ParallelForgotten, 60, "are on their way at once"),
    misread(Sabotage::QueuesForgotten, 20, "of QueueId("),
    misread(Sabotage::KeysForgotten, 20, "run with Concurrency"),
    Case {
        lose_tail: true,
        life: true,
        steps: 6_000,
        says: "runs more than once",
        ..case(Sabotage::LossOverlooked, &[Kind::KillExecutor, Kind::VanishExecutor], 150)
    },
    Case {
        lose_tail: true,
        life: true,
        steps: 6_000,
        says: "runs more than once",
        ..case(Sabotage::LeasesOutliveTheLoss, &[Kind::KillExecutor, Kind::VanishExecutor], 100)
    },
    Case { steps: 8_000, says: "although nothing was lost", ..case(Sabotage::LostAtOnce, &[Kind::KillZone], 40) },
];

/// A checker that finds nothing where something is wrong would be worse than none.
#[test]
fn deliberate_bugs_are_found() {
    assert_eq!(CASES.len(), Sabotage::ALL.len(), "each has its case");
    let mut missed = Vec::new();
    for Case { sabotage, focus, lose_tail, schedules, life, steps, within, says } in CASES {
        let options =
            Options { steps, sabotage: Some(sabotage), focus, lose_tail, life, schedules, ..Options::default() };
        let violation = |seed| sim::run(seed, &options).violation;
        let found = (0..within).find_map(|seed| violation(seed).map(|violation| (seed, violation)));
        let Some((seed, violation)) = found else {
            missed.push(format!("{} within {within} seeds", sabotage.name()));
            continue;
        };
        eprintln!("{} is found by seed {seed}: {violation}", sabotage.name());
        if !violation.contains(says) {
            missed.push(format!("{} by the checker that says `{says}`, but: {violation}", sabotage.name()));
        }
        let well = Options { sabotage: None, ..options };
        assert_eq!(sim::run(seed, &well).violation, None, "without {}", sabotage.name());
    }
    assert!(missed.is_empty(), "not found: {}", missed.join(", "));
}
