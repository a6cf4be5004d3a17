//! What an executor makes of orders around the loss of its lease.

use super::{Effect, ExecutorMachine, Input};
use crate::attempt::tests::assignment;
use crate::intake::Intake;
use outlive_schemas::event::Cause;
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{Attempt, ExecutorId, ExecutorName, JobId, Sequence, Term, Zone};
use outlive_schemas::message::{Assignment, News, Order, Outcome, ReportBatch, ReportReply, ToExecutor};
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
