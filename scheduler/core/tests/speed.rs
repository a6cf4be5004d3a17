//! No test: prints how fast the core decides, plans and folds. For whoever changes one of these.
//!
//! `cargo test --release -p outlive-core --test speed -- --ignored --nocapture`

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros, reason = "it measures")]

use outlive_core::decide::decide;
use outlive_core::fold::fold;
use outlive_core::plan::{Hints, plan};
use outlive_core::state::State;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{ExecutorId, JobId, Namespace, Sequence};
use outlive_schemas::job::{Driver, JobSpec, NoopSpec, ProcessSpec};
use outlive_schemas::message::{Ended, News, Outcome, Report};
use outlive_schemas::queue::{Concurrency, Priority};
use outlive_schemas::time::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const ROUNDS: u64 = 334;
/// As in a request, a round of planning and a message.
const JOBS_PER_ROUND: u64 = 1_000;
const EXECUTOR: ExecutorId = ExecutorId(Uuid::from_u128(7));
const BEGAN: Timestamp = Timestamp(1_700_000_000_000);

fn registration() -> Registration {
    Registration {
        id: EXECUTOR,
        name: "executor-a-1".parse().expect("a name"),
        zone: "a".parse().expect("a zone"),
        host: "host".to_owned(),
        capacity: Capacity { cpu_millis: 16_000, memory_bytes: 16 << 30, slots: 4_096 },
        labels: Default::default(),
        drivers: vec![DriverKind::Process, DriverKind::Noop],
        version: "0".to_owned(),
    }
}

/// What has been decided, and what each step of it took.
#[derive(Default)]
struct Run {
    state: State,
    log: Vec<Vec<Envelope>>,
    deciding: Duration,
    planning: Duration,
    folding: Duration,
}

impl Run {
    fn command(&mut self, command: Command, now: Timestamp) {
        let begun = Instant::now();
        let events = decide(&self.state, command, now).expect("accepted");
        let decided = Instant::now();
        let seq = Sequence(self.log.len() as u64);
        for event in &events {
            fold(&mut self.state, seq, event).expect("it fits");
        }
        self.deciding += decided - begun;
        self.folding += decided.elapsed();
        self.log.last_mut().expect("a commit").extend(events);
    }

    fn round(&mut self, round: u64) {
        self.log.push(Vec::new());
        let now = Timestamp(BEGAN.0 + round * 20);
        let namespace = Namespace::new("default").expect("a namespace");
        let id = |n: u64| JobId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(n)));
        let job = |n| (id(round * JOBS_PER_ROUND + n), Arc::new(JobSpec::new(Driver::Noop(NoopSpec {}))));
        let jobs = (0..JOBS_PER_ROUND).map(job).collect();
        self.command(Command::SubmitJobs { namespace, origin: Origin::default(), jobs }, now);
        let begun = Instant::now();
        let planned = plan(&self.state, &Hints::default(), now, JOBS_PER_ROUND as usize);
        self.planning += begun.elapsed();
        assert_eq!(planned.proposals.len() as u64, JOBS_PER_ROUND);
        for one in &planned.proposals {
            let place = Command::PlaceJob { job: one.job, attempt: one.attempt, executor: one.executor };
            self.command(place, now);
        }
        for one in planned.proposals {
            let over = Ended { outcome: Outcome::Exited { code: 0 }, ran_ms: Some(0), result: Some("x".into()) };
            let report = Report { job: one.job, attempt: one.attempt, age_ms: 0, news: News::Ended(over) };
            self.command(Command::Report { executor: EXECUTOR, report }, now);
        }
    }
}

#[test]
#[ignore = "prints figures; run with --ignored --nocapture, optimised"]
fn speed() {
    let mut run = Run::default();
    run.log.push(Vec::new());
    run.command(Command::AdmitExecutor(registration()), BEGAN);
    (1..=ROUNDS).for_each(|round| run.round(round));
    let jobs = (ROUNDS * JOBS_PER_ROUND) as f64;
    let events = run.log.iter().map(Vec::len).sum::<usize>() as f64;
    let each = |took: Duration, of: f64| took.as_secs_f64() * 1e9 / of;
    println!("{jobs} jobs, {events} events");
    println!(
        "decide {:.0} ns, plan {:.0} ns, fold {:.0} ns a job",
        each(run.deciding, jobs),
        each(run.planning, jobs),
        each(run.folding, jobs)
    );

    let begun = Instant::now();
    let mut again = State::default();
    for (seq, commit) in run.log.iter().enumerate() {
        for event in commit {
            fold(&mut again, Sequence(seq as u64), event).expect("it fits");
        }
    }
    let took = begun.elapsed();
    println!("fold alone {:.0} ns an event, {:.0} events/s", each(took, events), events / took.as_secs_f64());
    assert_eq!(again.jobs.len() as f64, jobs);
    let ends = run.log.iter().flatten().filter(|e| matches!(e.event, Event::JobFinished(_))).count();
    assert_eq!(ends as f64, jobs);
    let begun = Instant::now();
    drop(again);
    println!("dropping it all took {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
}

/// A round of planning where a hundred thousand jobs wait for ten thousand hosts, by what sets the jobs apart.
#[test]
#[ignore = "prints figures; run with --ignored --nocapture, optimised"]
fn rounds() {
    const HOSTS: u128 = 10_000;
    const WAITING: u64 = 100_000;
    type Apart = fn(&mut JobSpec, u64);
    let kinds: [(&str, Apart); 5] = [
        ("all alike", |_, _| {}),
        ("100 priorities", |spec, n| spec.priority = Priority((n % 101) as u32)),
        ("100 shapes", |spec, n| spec.resources.cpu_millis = 10 + (n % 100) as u32),
        ("1,000 keys", |spec, n| spec.concurrency = key(n % 1_000)),
        ("100,000 keys", |spec, n| spec.concurrency = key(n)),
    ];
    fn key(number: u64) -> Option<Box<Concurrency>> {
        Some(Box::new(Concurrency { key: format!("customer-{number}").into(), limit: 100 }))
    }
    for (kind, apart) in kinds {
        let mut run = Run::default();
        run.log.push(Vec::new());
        for host in 0..HOSTS {
            let zone = ["a", "b", "c"][host as usize % 3].parse().expect("a zone");
            let name = format!("executor-{host}").parse().expect("a name");
            let id = ExecutorId(Uuid::from_u128(host + 1));
            run.command(Command::AdmitExecutor(Registration { id, name, zone, ..registration() }), BEGAN);
        }
        let jobs = (0..WAITING).map(|number| {
            let command = vec!["true".to_owned()];
            let mut spec = JobSpec::new(Driver::Process(ProcessSpec { command, env: Default::default() }));
            apart(&mut spec, number);
            (JobId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number))), Arc::new(spec))
        });
        let namespace = Namespace::new("default").expect("a namespace");
        run.command(Command::SubmitJobs { namespace, origin: Origin::default(), jobs: jobs.collect() }, BEGAN);
        let mut took = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            let planned = plan(&run.state, &Hints::default(), BEGAN, JOBS_PER_ROUND as usize);
            took.push(begun.elapsed());
            assert_eq!(planned.proposals.len() as u64, JOBS_PER_ROUND);
            for one in planned.proposals {
                run.command(Command::PlaceJob { job: one.job, attempt: one.attempt, executor: one.executor }, BEGAN);
            }
        }
        let mean = took.iter().sum::<Duration>() / took.len() as u32;
        println!("{kind}: {mean:.1?} a round, {:.1?} the slowest", took.iter().max().expect("rounds"));
    }
}
