//! The leader is lost at every step of a stop, an update and a rollback: the next one, which knows only what the log
//! holds, brings it to its end.

use super::*;
use outlive_core::fold::fold;
use outlive_core::invariant;
use outlive_schemas::checkpoint::{BlobName, Taken};
use outlive_schemas::id::Attempt;
use outlive_schemas::message::{Otherwise, Release, Released};
use outlive_schemas::snapshot::SnapshotStatus;
use outlive_store::frame::{FrameOpener, open_header};
use std::collections::VecDeque;

/// More than any of the stories takes.
const STEPS: usize = 400;
const STEP: Millis = Millis(250);

/// A leader, the log that outlives it, and an executor that keeps saying what happened until it is acknowledged.
struct World {
    machine: Machine,
    log: Vec<bytes::Bytes>,
    running: Option<(JobId, Attempt)>,
    /// Attempts that end by themselves as soon as they are up: those of this version.
    crashing: Option<u32>,
    to_report: VecDeque<Report>,
    state_number: u64,
    term: u64,
    /// The step at which the leader is lost: before what it has decided is durable, or after.
    lost_at: Option<(usize, bool)>,
}

fn world(lost_at: Option<(usize, bool)>) -> World {
    World {
        machine: machine(WitnessMode::Interval),
        log: Vec::new(),
        running: None,
        crashing: None,
        to_report: VecDeque::new(),
        state_number: 0,
        term: 3,
        lost_at,
    }
}

fn taken(contents: u64) -> Taken {
    let mut name = [0; 32];
    name[..8].copy_from_slice(&contents.to_be_bytes());
    Taken { manifest: BlobName(name), size_bytes: 1, uploaded_bytes: 1, files: 1, duration_ms: 1, pause_ms: 1 }
}

impl World {
    /// Everything that was appended, folded anew.
    fn next_leader(&mut self) {
        let key = Key::from_bytes([7; 32]);
        let (mut state, mut opener) = (State::default(), FrameOpener::new([&key]));
        let (mut seq, mut chain) = (Sequence(1), ChainHash::default());
        for body in &self.log {
            let header = open_header(body, seq.next()).expect("a frame");
            let commit = opener.open(body, header.expected, header.previous).expect("a commit");
            seq = seq.next();
            commit.events.iter().for_each(|envelope| fold(&mut state, seq, envelope).expect("it fits"));
            chain = commit.chain;
        }
        invariant::check(&state).expect("a sound state");
        self.term += 1;
        let term = Term(self.term);
        let journal = Journal::new(state, FrameSealer::new(&key), term, seq, chain);
        let zone: Zone = "a".parse().expect("a zone");
        let identity = Identity { scheduler: "scheduler-b".parse().expect("a name"), zone, term };
        let now = self.machine.now;
        self.machine.leader = Leader::new(identity, journal, Ids::new(self.term), now, WitnessMode::Interval);
    }

    /// One step of everybody; what the leader says reaches the executor only when it is durable.
    fn step(&mut self, number: usize) {
        self.machine.now = self.machine.now + STEP;
        self.machine.input(Input::OwnBeat);
        let mut out = Vec::new();
        let said = self.to_report.len();
        if said > 0 {
            self.machine.asked += 1;
            let to = ReplyTo { number: self.machine.asked, format: Format::MessagePack };
            let (seq_seen, term_seen, seq_before) = (Sequence(0), Term(0), Sequence(0));
            let reports = self.to_report.iter().cloned().collect();
            let batch = ReportBatch { executor: EXECUTOR, seq_seen, term_seen, seq_before, reports };
            out.extend(self.machine.input(Input::Reports { batch, to }));
        }
        out.extend(self.machine.beat(Sequence(0), AttemptDigest::default()));
        if self.lost_at == Some((number, false)) {
            return self.next_leader();
        }
        loop {
            let turned = self.machine.turn();
            let bodies: Vec<_> = turned
                .iter()
                .filter_map(|o| if let Output::Append(append) = o { Some(append.body.clone()) } else { None })
                .collect();
            out.extend(turned);
            if bodies.is_empty() {
                break;
            }
            self.log.extend(bodies);
            if self.lost_at == Some((number, true)) {
                return self.next_leader();
            }
            out.extend(self.machine.appended());
        }
        for output in out {
            match output {
                Output::ReportReply { .. } => drop(self.to_report.drain(..said)),
                Output::Order { order, .. } => self.obey(order.order),
                _ => {}
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let now = |job, attempt, news| Report { job, attempt, age_ms: 0, news };
        match order {
            Order::Assign(assignments) => {
                for assignment in assignments {
                    let (job, attempt) = (assignment.job, assignment.attempt);
                    if self.running.is_some_and(|(_, known)| known >= attempt) {
                        continue;
                    }
                    self.running = Some((job, attempt));
                    self.to_report.push_back(now(job, attempt, News::Started));
                    if self.crashing == Some(assignment.version.0) {
                        let over = Ended { outcome: Outcome::Exited { code: 1 }, ran_ms: Some(1), result: None };
                        self.to_report.push_back(now(job, attempt, News::Ended(over)));
                    }
                }
            }
            Order::Release(releases) => {
                for release in releases {
                    let key = (release.job, release.attempt);
                    let known = |r: &Report| (r.job, r.attempt) == key && matches!(r.news, News::Ended(_));
                    if self.running != Some(key) || self.to_report.iter().any(known) {
                        continue;
                    }
                    let checkpoint = match release.how {
                        Release::Checkpoint { otherwise: Otherwise::GoOn | Otherwise::Kill, .. } => {
                            self.state_number += 1;
                            Some(taken(self.state_number))
                        }
                        Release::Kill => None,
                    };
                    let released = Released { cause: release.cause, checkpoint, fault: None };
                    let over = Ended { outcome: Outcome::Released(released), ran_ms: Some(1), result: None };
                    self.to_report.push_back(now(key.0, key.1, News::Ended(over)));
                }
            }
            Order::Want(wanted) => {
                for (job, attempt) in wanted {
                    if self.running.is_none_or(|(_, known)| known < attempt) {
                        self.to_report.push_back(now(job, attempt, News::Missing));
                    }
                }
            }
            _ => {}
        }
    }

    fn job(&self) -> (JobId, &Job) {
        let (id, job) = self.machine.leader.state().jobs.iter().next().expect("the job");
        (*id, job)
    }

    /// Steps until the job is so, and gives the number of the next step.
    fn until(&mut self, from: usize, what: &str, condition: impl Fn(&Job) -> bool) -> usize {
        for number in from..STEPS {
            if self.machine.leader.state().jobs.values().next().is_some_and(|job| condition(job)) {
                return number;
            }
            self.step(number);
        }
        panic!("{:?}: it is not {what} but {:?}", self.lost_at, self.job().1);
    }

    /// A service that runs, from here on with steps that are counted.
    fn begun(lost_at: Option<(usize, bool)>) -> World {
        let mut world = world(None);
        let registration = world.machine.registration(10);
        world.machine.input(Input::Registered(vec![registration]));
        let service = r#"{"driver":{"process":{"command":["x"]}},"kind":"service","name":"s"}"#;
        world.machine.ask(Operation::Submit, service, None);
        world.until(0, "running", |job| job.status == Status::Running);
        world.lost_at = lost_at;
        world
    }

    /// Asks until it is done: a request that was lost with its leader is repeated under its id.
    fn ask(&mut self, operation: Operation, body: &str, done: impl Fn(&Job) -> bool) -> usize {
        for number in 0..STEPS {
            if done(self.job().1) {
                return number;
            }
            self.machine.ask(operation, body, Some("once"));
            self.step(number);
        }
        panic!("{:?}: {operation:?} is not done: {:?}", self.lost_at, self.job().1);
    }
}

/// Every step of the longest story, and none.
fn moments() -> impl Iterator<Item = Option<(usize, bool)>> {
    let all = (0..40).flat_map(|step| [Some((step, false)), Some((step, true))]);
    std::iter::once(None).chain(all)
}

#[test]
fn a_stop_ends_whenever_its_leader_is_lost() {
    for lost_at in moments() {
        let mut world = World::begun(lost_at);
        let next = world
            .ask(Operation::Stop, r#"{"job":"s"}"#, |job| matches!(job.status, Status::Stopping | Status::Stopped));
        world.until(next, "stopped", |job| job.status == Status::Stopped);
        let (_, job) = world.job();
        let life = job.life.as_ref().expect("a snapshot");
        assert_eq!(life.snapshots.len(), 1, "{lost_at:?}");
        assert_eq!(life.snapshots[0].status, SnapshotStatus::Ready, "{lost_at:?}");
        assert_eq!(life.snapshots[0].content.map(|content| content.taken), Some(taken(1)), "{lost_at:?}");
    }
}

const UPDATE: &str = r#"{"job":"s","expected_version":1,
    "spec":{"driver":{"process":{"command":["y"]}},"kind":"service","restart":{"max_attempts":2}}}"#;

#[test]
fn an_update_ends_in_the_new_version_whenever_its_leader_is_lost() {
    for lost_at in moments() {
        let mut world = World::begun(lost_at);
        let next = world.ask(Operation::Update, UPDATE, |job| job.version.0 == 2 || job.change().is_some());
        world.until(next, "version 2", |job| job.status == Status::Running && job.version.0 == 2);
        let (_, job) = world.job();
        assert_eq!(job.restorable_checkpoint().map(|checkpoint| checkpoint.taken), Some(taken(1)), "{lost_at:?}");
        assert_eq!(job.life.as_ref().map(|life| life.versions.len()), Some(2), "{lost_at:?}");
    }
}

#[test]
fn an_update_that_crashes_ends_in_the_old_version_whenever_its_leader_is_lost() {
    for lost_at in moments() {
        let mut world = World::begun(lost_at);
        world.crashing = Some(2);
        let next = world.ask(Operation::Update, UPDATE, |job| job.change().is_some() || job.life.is_some());
        world.until(next, "back", |job| {
            let rolled_back = job.life.as_ref().is_some_and(|life| life.versions.len() == 2);
            rolled_back && job.status == Status::Running && job.version.0 == 1
        });
        let (_, job) = world.job();
        let life = job.life.as_ref().expect("versions");
        assert!(life.versions[1].reason.as_ref().is_some_and(|reason| reason.contains("exited with 1")), "{lost_at:?}");
        assert_eq!(job.restorable_checkpoint().map(|checkpoint| checkpoint.taken), Some(taken(1)), "{lost_at:?}");
    }
}

#[test]
fn an_import_lasts_for_as_long_as_its_client_says_that_it_goes_on() {
    const IMPORT: &str = r#"{"job":"s","name":"brought"}"#;
    let mut world = World::begun(None);
    let next = world.ask(Operation::Stop, r#"{"job":"s"}"#, |job| job.status != Status::Running);
    world.until(next, "stopped", |job| job.status == Status::Stopped);
    let passes = |world: &mut World, ms: u64| (0..ms / STEP.0).for_each(|_| world.step(0));
    let is_open = |world: &World| world.job().1.is_importing();

    // Far longer than a silent one lasts.
    for _ in 0..4 {
        world.machine.ask(Operation::ImportSnapshot, IMPORT, Some("import-of-this-file"));
        passes(&mut world, 50_000);
        assert!(is_open(&world));
    }
    // A new leader does not know when the one before was told, and listens for as long again.
    world.next_leader();
    passes(&mut world, 50_000);
    assert!(is_open(&world));
    passes(&mut world, 15_000);
    let (_, job) = world.job();
    let brought = job.life.iter().flat_map(|life| &life.snapshots).find(|known| known.name.as_str() == "brought");
    let brought = brought.expect("it is shown");
    assert_eq!(brought.status, SnapshotStatus::Failed);
    assert!(brought.error.as_ref().is_some_and(|error| error.contains("nothing was heard")), "{brought:?}");
}
