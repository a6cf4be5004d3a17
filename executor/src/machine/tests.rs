//! What an executor makes of orders around the loss of its lease, and which attempts leave their states.

use super::{Effect, ExecutorMachine, Input};
use crate::attempt::tests::assignment;
use crate::attempt::{self, ResultFile};
use crate::intake::Intake;
use crate::shim::protocol::Exit;
use outlive_schemas::checkpoint::{BlobName, CheckpointRef, Taken};
use outlive_schemas::command::Stop;
use outlive_schemas::event::Cause;
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{Attempt, CheckpointNumber, ExecutorId, ExecutorName, JobId, Sequence, Term, Zone};
use outlive_schemas::message::{Assignment, News, Order, Outcome, ReportBatch, ReportReply, StopAttempt, ToExecutor};
use uuid::Uuid;

const EXCLUSIVE: &str = r#"{"driver": {"process": {"command": ["true"]}}, "exclusive": true}"#;
const ORDINARY: &str = r#"{"driver": {"process": {"command": ["true"]}}}"#;

struct Scene {
    machine: ExecutorMachine,
    now_ms: u64,
    out: Vec<Effect>,
}

fn executor() -> Scene {
    let registration = Registration {
        id: ExecutorId(Uuid::from_u128(1)),
        name: ExecutorName::new("executor-a-1").expect("a name"),
        zone: Zone::new("a").expect("a zone"),
        host: "a".to_owned(),
        capacity: Capacity { cpu_millis: 10_000, memory_bytes: 1 << 40, slots: 10 },
        labels: Default::default(),
        drivers: vec![DriverKind::Process, DriverKind::Noop],
        version: "1.2.3".into(),
    };
    Scene { machine: ExecutorMachine::new(registration, Intake::default()), now_ms: 1_000, out: Vec::new() }
}

fn attempt_of(job: u128, attempt: u32, spec: &str) -> Assignment {
    let job = JobId(Uuid::from_u128(job));
    Assignment { job, attempt: Attempt(attempt), placed_at: Sequence(u64::from(attempt)), ..assignment(spec) }
}

impl Scene {
    fn input(mut self, input: Input) -> Scene {
        self.now_ms += 1_000;
        self.out.extend(self.machine.input(input, self.now_ms));
        self
    }

    fn ordered(self, assignment: Assignment) -> Scene {
        let order = Order::Assign(vec![assignment]);
        self.input(Input::Order(ToExecutor { term: Term(1), seq: Sequence(1), order }))
    }

    fn answered(self, superseded: &[(JobId, Attempt)]) -> Scene {
        let reply =
            ReportReply { term: Term(1), seq: Sequence(1), superseded: superseded.to_vec(), retained: Vec::new() };
        self.input(Input::Answer(Some(reply)))
    }

    /// Attempts that were begun since this was asked last.
    fn begun(&mut self) -> Vec<u32> {
        let begun = |effect: &Effect| match effect {
            Effect::Begin(assignment) => Some(assignment.attempt.0),
            _ => None,
        };
        std::mem::take(&mut self.out).iter().filter_map(begun).collect()
    }

    fn batch(&self) -> Option<&ReportBatch> {
        self.out.iter().rev().find_map(|effect| match effect {
            Effect::Report(batch) => Some(batch),
            _ => None,
        })
    }

    /// Attempts that the last batch gives back because the lease was lost.
    fn given_back(&self) -> Vec<u32> {
        let lost = |news: &News| match news {
            News::Ended(ended) => {
                matches!(&ended.outcome, Outcome::Released(released) if released.cause == Cause::ExecutorLost)
            }
            _ => false,
        };
        let reports = self.batch().map(|batch| batch.reports.as_slice()).unwrap_or_default();
        reports.iter().filter(|report| lost(&report.news)).map(|report| report.attempt.0).collect()
    }
}

#[test]
fn a_late_copy_of_an_assignment_runs_nothing_that_is_not_wanted_any_more() {
    for spec in [EXCLUSIVE, ORDINARY] {
        let wanted = |scene: Scene, seq| {
            scene.input(Input::Order(ToExecutor { term: Term(1), seq: Sequence(seq), order: Order::Want(Vec::new()) }))
        };
        // The job has moved on, and its next attempt is elsewhere.
        let mut scene = wanted(executor().ordered(attempt_of(1, 1, spec)), 5);
        assert_eq!(scene.begun(), [1]);
        let mut scene = scene.ordered(attempt_of(1, 1, spec));
        assert_eq!(scene.begun(), [0; 0]);
        // The one after that may be here.
        let mut scene = scene.ordered(attempt_of(1, 3, spec)).input(Input::Wake);
        assert!(scene.begun() == [3] || scene.machine.waiting.len() == 1, "it begins once the older one is gone");
    }
}

#[test]
fn an_order_may_be_older_than_the_lease_until_a_leader_has_answered_under_it() {
    let mut scene = executor().ordered(attempt_of(1, 1, EXCLUSIVE));
    assert_eq!(scene.begun(), [1]);
    // It was on its way since before the loss.
    let scene = scene.input(Input::LeaseLost).answered(&[]).input(Input::Registered);
    let mut scene = scene.ordered(attempt_of(2, 2, EXCLUSIVE));
    assert_eq!(scene.given_back(), [2]);
    assert_eq!(scene.begun(), [0; 0]);
    let mut scene = scene.answered(&[]).ordered(attempt_of(2, 3, EXCLUSIVE));
    assert_eq!(scene.begun(), [3], "a leader knows of this executor as it is now");
    // What may run twice goes on as before.
    let mut scene = scene.input(Input::LeaseLost).ordered(attempt_of(3, 1, ORDINARY));
    assert_eq!(scene.begun(), [1]);
}

#[test]
fn an_answer_counts_only_if_it_was_asked_for_under_the_lease_and_knows_us() {
    // Asked before the loss, answered after it.
    let scene = executor().input(Input::LeaseLost).ordered(attempt_of(1, 1, EXCLUSIVE));
    assert_eq!(scene.given_back(), [1], "asked while there is no lease");
    let mut scene = scene.input(Input::Registered).answered(&[]).ordered(attempt_of(1, 2, EXCLUSIVE));
    assert_eq!(scene.given_back(), [2]);
    assert_eq!(scene.begun(), [0; 0]);
    // Whoever takes this attempt for superseded has perhaps declared this executor lost.
    let job = JobId(Uuid::from_u128(1));
    let mut scene = scene.answered(&[(job, Attempt(2))]).ordered(attempt_of(2, 3, EXCLUSIVE));
    assert_eq!(scene.begun(), [0; 0]);
    let mut scene = scene.answered(&[]).ordered(attempt_of(2, 4, EXCLUSIVE));
    assert_eq!(scene.begun(), [4]);
}

const JOB: JobId = JobId(Uuid::from_u128(1));

/// One that begins with a checkpoint.
fn restored(attempt: u32, spec: &str) -> Assignment {
    let from = CheckpointRef { number: CheckpointNumber(1), manifest: BlobName([1; 32]) };
    Assignment { restore: Some(from), ..attempt_of(1, attempt, spec) }
}

impl Scene {
    fn attempt(self, attempt: u32, input: attempt::Input) -> Scene {
        self.input(Input::Attempt(JOB, Attempt(attempt), input))
    }

    /// The attempt, which was ordered, runs.
    fn runs(self, attempt: u32) -> Scene {
        let at_ms = self.now_ms;
        self.attempt(attempt, attempt::Input::Prepared).attempt(attempt, attempt::Input::Started { at_ms })
    }

    /// Its process ends like this, and its end is reported.
    fn ends(self, attempt: u32, exit: Exit) -> Scene {
        let ended = self.attempt(attempt, attempt::Input::Exited(exit)).attempt(attempt, attempt::Input::Gone);
        ended.attempt(attempt, attempt::Input::Collected(ResultFile::None))
    }

    /// Attempts that were forgotten since this was asked last, and whether each leaves its state.
    fn forgotten(&mut self) -> Vec<(u32, bool)> {
        let mut kept = Vec::new();
        let mut forgotten = Vec::new();
        for effect in std::mem::take(&mut self.out) {
            match effect {
                Effect::Keep(_, attempt) => kept.push(attempt),
                Effect::Attempt(_, attempt, attempt::Effect::Forget) => {
                    forgotten.push((attempt.0, kept.contains(&attempt)));
                }
                _ => {}
            }
        }
        forgotten
    }
}

#[test]
fn an_attempt_that_may_be_followed_here_leaves_its_state() {
    let mut scene = executor().ordered(restored(1, ORDINARY)).runs(1).ends(1, Exit::Code(1));
    assert_eq!(scene.forgotten(), [], "its end is not confirmed");
    let mut scene = scene.answered(&[]).answered(&[]);
    assert_eq!(scene.forgotten(), [(1, true)]);
    // Without a checkpoint of its own, or one that it began with, there is nothing to come back to.
    let scene = executor().ordered(attempt_of(1, 1, ORDINARY)).runs(1).ends(1, Exit::Code(1));
    assert_eq!(scene.answered(&[]).answered(&[]).forgotten(), [(1, false)]);
    let mut scene = executor().ordered(attempt_of(1, 1, ORDINARY)).runs(1);
    scene.now_ms += 1_000_000;
    let taken =
        Taken { manifest: BlobName([2; 32]), size_bytes: 1, uploaded_bytes: 1, files: 1, duration_ms: 0, pause_ms: 0 };
    let scene = scene.input(Input::Wake).attempt(1, attempt::Input::Read { round: 1, result: Ok(()) });
    let scene = scene.attempt(1, attempt::Input::Stored { round: 1, result: Ok(Some(taken)) });
    let scene = scene.ends(1, Exit::Signal(9));
    assert_eq!(scene.answered(&[]).answered(&[]).forgotten(), [(1, true)]);
}

#[test]
fn one_that_is_not_followed_here_leaves_nothing() {
    let running = || executor().ordered(restored(1, ORDINARY)).runs(1);
    assert_eq!(running().ends(1, Exit::Code(0)).answered(&[]).answered(&[]).forgotten(), [(1, false)]);
    // The job is cancelled.
    let stop = StopAttempt { job: JOB, attempt: Attempt(1), how: Stop::Kill };
    let order = ToExecutor { term: Term(1), seq: Sequence(1), order: Order::Stop(vec![stop]) };
    let stopped = running().input(Input::Order(order)).ends(1, Exit::Signal(9));
    assert_eq!(stopped.answered(&[]).answered(&[]).forgotten(), [(1, false)]);
    // It goes on elsewhere, whether it still runs here or not.
    let superseded = [(JOB, Attempt(1))];
    let mut elsewhere = running().answered(&superseded);
    assert_eq!(elsewhere.forgotten(), []);
    assert_eq!(elsewhere.attempt(1, attempt::Input::Gone).forgotten(), [(1, false)]);
    let failed = running().answered(&[]).ends(1, Exit::Code(1));
    assert_eq!(failed.answered(&superseded).forgotten(), [(1, false)]);
    // The executor is going, or is declared lost.
    let leaving = running().ends(1, Exit::Code(1)).input(Input::Shutdown);
    assert_eq!(leaving.answered(&[]).answered(&[]).forgotten(), [(1, false)]);
    let dismiss = ToExecutor { term: Term(1), seq: Sequence(1), order: Order::Dismiss };
    let dismissed = running().ends(1, Exit::Code(1)).input(Input::Order(dismiss));
    assert_eq!({ dismissed }.forgotten(), [(1, false)]);
}

#[test]
fn one_that_is_replaced_here_leaves_its_state_to_its_successor() {
    // It has ended, and the order comes before the answer to its report.
    let ended = executor().ordered(restored(1, ORDINARY)).runs(1).ends(1, Exit::Code(1));
    assert_eq!(ended.ordered(restored(2, ORDINARY)).forgotten(), [(1, true)]);
    // It still runs.
    let mut replaced = executor().ordered(restored(1, ORDINARY)).runs(1).ordered(restored(2, ORDINARY));
    assert_eq!(replaced.forgotten(), []);
    let mut gone = replaced.attempt(1, attempt::Input::Gone);
    assert!(matches!(
        gone.out.as_slice(),
        [Effect::Keep(..), Effect::Attempt(_, _, attempt::Effect::Forget), Effect::Begin(_), ..]
    ));
    assert_eq!(gone.forgotten(), [(1, true)]);
    // It has not even begun, and what it found goes on to the next.
    let preparing = executor().ordered(restored(1, ORDINARY));
    assert_eq!(preparing.ordered(restored(2, ORDINARY)).forgotten(), [(1, true)]);
    // By one that is refused.
    let huge = r#"{"driver": {"process": {"command": ["true"]}}, "resources": {"cpu_millis": 1000000}}"#;
    let refused = executor().ordered(restored(1, ORDINARY)).ordered(restored(2, huge));
    assert_eq!({ refused }.forgotten(), [(1, false)]);
}
