//! What leaves the machine, and when.

mod array;
mod life;

use super::*;
use crate::submission::{Operation, Raw, parse};
use outlive_schemas::event::Cause;
use outlive_schemas::executor::{Capacity, DriverKind};
use outlive_schemas::message::{AttemptDigest, Ended, Health, News, Outcome, Report};
use outlive_schemas::view::Status;
use outlive_store::frame::{ChainHash, FrameSealer};
use outlive_store::seal::Key;

struct Machine {
    leader: Leader,
    now: Timestamp,
    asked: u64,
}

const TERM: Term = Term(3);
const EXECUTOR: ExecutorId = ExecutorId(uuid::Uuid::from_u128(1));

fn machine(mode: WitnessMode) -> Machine {
    machine_on(State::default(), Timestamp(1_000_000), mode)
}

fn machine_on(state: State, now: Timestamp, mode: WitnessMode) -> Machine {
    let key = Key::from_bytes([7; 32]);
    let journal = Journal::new(state, FrameSealer::new(&key), TERM, Sequence(1), ChainHash::default());
    let identity =
        Identity { scheduler: "scheduler-a".parse().expect("a name"), zone: "a".parse().expect("a zone"), term: TERM };
    Machine { leader: Leader::new(identity, journal, Ids::new(1), now, mode), now, asked: 0 }
}

impl Machine {
    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.leader.input(input, self.now, &mut out);
        out
    }

    fn turn(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.leader.turn(self.now, &mut out);
        out
    }

    fn ask(&mut self, operation: Operation, body: &str, request_id: Option<&str>) -> Vec<Output> {
        let raw = Raw { operation, namespace: "default", request_id, actor: None, body: body.as_bytes() };
        let request = parse(raw, Format::Json).expect("a valid request");
        self.asked += 1;
        let to = ReplyTo { number: self.asked, format: Format::Json };
        self.input(Input::Request { request, to })
    }

    fn ask_system(&mut self, operation: Operation, body: &str) -> Vec<Output> {
        let raw = Raw { operation, namespace: "sys", request_id: None, actor: None, body: body.as_bytes() };
        let request = parse(raw, Format::Json).expect("a valid request");
        self.asked += 1;
        let to = ReplyTo { number: self.asked, format: Format::Json };
        self.input(Input::Request { request, to })
    }

    fn appended(&mut self) -> Vec<Output> {
        self.input(Input::Appended(Ok(())))
    }

    /// Turns and appends until nothing is on its way.
    fn settle(&mut self) -> Vec<Output> {
        let mut all = Vec::new();
        loop {
            let out = self.turn();
            let appends = out.iter().filter(|o| matches!(o, Output::Append(_))).count();
            all.extend(out);
            if appends == 0 {
                return all;
            }
            all.extend(self.appended());
        }
    }

    fn registration(&self, slots: u32) -> Registration {
        Registration {
            id: EXECUTOR,
            name: "executor-a-1".parse().expect("a name"),
            zone: "a".parse().expect("a zone"),
            host: "host".into(),
            capacity: Capacity { cpu_millis: 4_000, memory_bytes: 1 << 32, slots },
            labels: Default::default(),
            drivers: vec![DriverKind::Noop, DriverKind::Process],
            version: "0".into(),
        }
    }

    fn with_executor(mut self, slots: u32) -> Machine {
        let registration = self.registration(slots);
        self.input(Input::Registered(vec![registration]));
        self.settle();
        self.input(Input::Beat(self.well(EXECUTOR)));
        self
    }

    /// So much later, probes find nobody there, twice.
    fn found_gone(&mut self, executor: ExecutorId, later: Millis) {
        self.now = self.now + later;
        self.input(Input::OwnBeat);
        for _ in 0..2 {
            self.input(Input::Probed { executor, found: Probed::NobodyThere });
        }
    }

    /// The beat of one that is well and holds nothing.
    fn well(&self, executor: ExecutorId) -> Heartbeat {
        Heartbeat {
            executor,
            name: "executor-a-1".parse().expect("a name"),
            seq_seen: self.leader.acked(),
            term_seen: TERM,
            seq_before: Sequence(0),
            digest: AttemptDigest::default(),
            held: 0,
            health: Health::default(),
            leaving: false,
            degraded: None,
        }
    }

    fn report(&mut self, reports: Vec<Report>) -> Vec<Output> {
        self.asked += 1;
        let to = ReplyTo { number: self.asked, format: Format::MessagePack };
        let (seq_seen, term_seen) = (self.leader.acked(), TERM);
        let batch = ReportBatch { executor: EXECUTOR, seq_seen, term_seen, seq_before: Sequence(0), reports };
        self.input(Input::Reports { batch, to })
    }

    fn beat(&mut self, seq_seen: Sequence, digest: AttemptDigest) -> Vec<Output> {
        self.beat_of(Told { term: TERM, seq: seq_seen, before: Sequence(0) }, digest)
    }

    fn beat_of(&mut self, told: Told, digest: AttemptDigest) -> Vec<Output> {
        let (seq_seen, term_seen, seq_before) = (told.seq, told.term, told.before);
        self.input(Input::Beat(Heartbeat { seq_seen, term_seen, seq_before, digest, ..self.well(EXECUTOR) }))
    }
}

const NOOP: &str = r#"{"driver":{"noop":{}},"name":"canary"}"#;

fn answers(out: &[Output]) -> Vec<&Answer> {
    out.iter().filter_map(|o| if let Output::Answer { answer, .. } = o { Some(answer) } else { None }).collect()
}

fn assigned(out: &[Output]) -> Vec<(JobId, outlive_schemas::id::Attempt)> {
    let orders = out.iter().filter_map(|o| match o {
        Output::Order { order: ToExecutor { order: Order::Assign(list), .. }, .. } => Some(list),
        _ => None,
    });
    orders.flatten().map(|a| (a.job, a.attempt)).collect()
}

fn ended(job: JobId, attempt: outlive_schemas::id::Attempt) -> Report {
    let over = Ended { outcome: Outcome::Exited { code: 0 }, ran_ms: Some(1), result: Some("done".into()) };
    Report { job, attempt, age_ms: 0, news: News::Ended(over) }
}

#[test]
fn a_leader_whose_hosts_clock_is_behind_goes_on_from_the_log() {
    let mut before = machine(WitnessMode::Interval).with_executor(10);
    let host = before.now;
    // An hour ahead; and then this host's.
    before.now = before.now + Millis::minutes(60);
    before.ask(Operation::Submit, NOOP, None);
    let state = before.leader.state().clone();
    let due = state.jobs.values().map(|job| job.ready_at).max().expect("a job");
    assert!(due > host + Millis::minutes(59));

    let clock = crate::clock::TermClock::new(host, state.newest_event_at);
    let mut after = machine_on(state, clock.at(host), WitnessMode::Interval);
    after.beat(Sequence(1), AttemptDigest::default());
    after.settle();
    let placed = after.leader.state().jobs.values().map(|job| job.status).collect::<Vec<_>>();
    assert_eq!(placed, [Status::Starting], "what was due stays due");
}

#[test]
fn nothing_is_answered_or_ordered_before_it_is_durable() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    assert!(m.ask(Operation::Submit, NOOP, None).is_empty());
    let out = m.turn();
    assert!(out.iter().any(|o| matches!(o, Output::Append(_))));
    assert!(answers(&out).is_empty() && assigned(&out).is_empty());

    // A read that would show it waits as well.
    assert!(answers(&m.ask(Operation::Get, r#"{"job":"canary"}"#, None)).is_empty());

    let out = m.appended();
    assert!(matches!(answers(&out)[..], [Answer::Submitted(_), Answer::Job(_)]), "{out:?}");
    assert_eq!(assigned(&out).len(), 1);
}

#[test]
fn a_commit_takes_in_what_came_while_the_one_before_was_on_its_way() {
    let mut m = machine(WitnessMode::Interval);
    m.ask(Operation::Submit, NOOP, None);
    m.turn();
    for _ in 0..500 {
        m.ask(Operation::Submit, r#"{"driver":{"noop":{}}}"#, None);
    }
    assert!(!m.turn().iter().any(|o| matches!(o, Output::Append(_))), "one at a time");
    m.appended();
    let appends = m.turn().into_iter().filter(|o| matches!(o, Output::Append(_))).count();
    assert_eq!(appends, 1);
    assert_eq!(answers(&m.appended()).len(), 500);
}

#[test]
fn the_same_request_makes_one_job() {
    let mut m = machine(WitnessMode::Interval);
    m.ask(Operation::Submit, NOOP, Some("once"));
    m.ask(Operation::Submit, NOOP, Some("once"));
    let out = m.settle();
    let [Answer::Submitted(first), Answer::Submitted(again)] = answers(&out)[..] else { panic!("{out:?}") };
    assert_eq!((first.id, first.duplicate), (again.id, false));
    assert!(again.duplicate);
    assert_eq!(m.leader.state().jobs.len(), 1);
}

#[test]
fn a_job_runs_and_its_waiter_hears_of_it_when_it_is_durable() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, NOOP, None);
    let (job, attempt) = assigned(&m.settle())[0];
    assert!(m.ask(Operation::Wait, r#"{"job":"canary","until":"finished","timeout":"5s"}"#, None).is_empty());
    assert!(answers(&m.report(vec![ended(job, attempt)])).is_empty());
    m.turn();
    let out = m.appended();
    let [Answer::Job(view)] = answers(&out)[..] else { panic!("{out:?}") };
    assert_eq!(view.status, Status::Succeeded);
    assert_eq!(view.result, Some("done".into()));
    assert!(out.iter().any(|o| matches!(o, Output::ReportReply { reply, .. } if reply.superseded.is_empty())));

    // Said again, it changes nothing, and the executor is told to forget it.
    let out = m.report(vec![ended(job, attempt)]);
    assert!(out.iter().any(|o| matches!(o, Output::ReportReply { reply, .. } if reply.superseded == [(job, attempt)])));
}

#[test]
fn a_delayed_attempt_is_placed_when_it_is_due_and_not_with_the_next_beat() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    let spec = r#"{"driver":{"noop":{}},"restart":{"initial_backoff":"100ms","jitter":0}}"#;
    m.ask(Operation::Submit, spec, None);
    let (job, attempt) = assigned(&m.settle())[0];
    let failed = Ended { outcome: Outcome::Exited { code: 1 }, ran_ms: Some(1), result: None };
    m.report(vec![Report { job, attempt, age_ms: 0, news: News::Ended(failed) }]);
    m.settle();
    m.now = m.now + Millis(99);
    assert_eq!(assigned(&m.settle()), []);
    m.now = m.now + Millis(1);
    assert_eq!(assigned(&m.settle()), [(job, attempt.next())]);
}

#[test]
fn a_wait_ends_by_its_time() {
    let mut m = machine(WitnessMode::Interval);
    m.ask(Operation::Submit, NOOP, None);
    m.settle();
    m.ask(Operation::Wait, r#"{"job":"canary","until":"finished","timeout":"1s"}"#, None);
    m.now = m.now + Millis(999);
    assert!(answers(&m.turn()).is_empty());
    m.now = m.now + Millis(1);
    let out = m.turn();
    let [Answer::Rejected(rejection)] = answers(&out)[..] else { panic!("{out:?}") };
    assert_eq!(rejection.code, ErrorCode::Timeout);
}

#[test]
fn another_writer_ends_the_reign_without_an_answer() {
    let mut m = machine(WitnessMode::Interval);
    m.ask(Operation::Submit, NOOP, None);
    m.turn();
    let out = m.input(Input::Appended(Err(AppendError::Conflict { at: Sequence(2) })));
    assert!(matches!(out[..], [Output::Resign(Resignation::Deposed)]), "{out:?}");
    assert!(m.ask(Operation::Get, r#"{"job":"canary"}"#, None).is_empty());
    assert!(m.turn().is_empty());
}

/// What a beat that tells of the log like this makes the leader say as it resigns.
fn resigns_at(told: Told) -> Option<String> {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    assert!(m.leader.acked() > Sequence(1), "its own commits have gone beyond its barrier, at 1");
    let out = m.beat_of(told, AttemptDigest::default());
    let why = out.iter().find_map(|o| if let Output::Resign(why) = o { Some(why.to_string()) } else { None });
    assert!(why.is_none() || out.len() == 1, "{out:?}");
    why
}

#[test]
fn a_fleet_that_has_seen_more_than_the_log_holds_stops_the_leader() {
    let (term, seq, none) = (Term(3), Sequence(2), Sequence(0));
    let lost = |told| resigns_at(told).is_some_and(|why| why.contains("log_lost_acknowledged_commits"));
    assert!(lost(Told { term: Term(2), seq: Sequence(1), before: none }), "where the barrier stands now stood another");
    assert!(lost(Told { term, seq, before: Sequence(1) }), "and that is known also after the new leader was heard");
    assert!(lost(Told { term: Term(0), seq: Sequence(99), before: none }), "an executor that tells the number only");
    assert_eq!(resigns_at(Told { term, seq, before: none }), None);
    assert_eq!(resigns_at(Told { term: Term(2), seq: none, before: none }), None, "it has not heard of this term yet");
}

#[test]
fn a_leader_that_hears_of_a_later_one_is_deposed_and_raises_no_alarm() {
    let why = resigns_at(Told { term: Term(4), seq: Sequence(99), before: Sequence(1) }).expect("it resigns");
    assert_eq!(why, Resignation::Deposed.to_string());
}

#[test]
fn every_commit_can_be_made_to_wait_for_its_witness() {
    let mut m = machine(WitnessMode::EveryCommit);
    m.ask(Operation::Submit, NOOP, None);
    m.turn();
    let out = m.appended();
    assert!(answers(&out).is_empty());
    let witness = out.iter().find_map(|o| if let Output::Witness(w) = o { Some(*w) } else { None }).expect("a witness");
    assert_eq!(answers(&m.input(Input::Witnessed(witness))).len(), 1);
}

#[test]
fn an_executor_that_holds_something_else_is_told_what_it_should_hold() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, NOOP, None);
    let (job, attempt) = assigned(&m.settle())[0];
    let seq = m.leader.acked();
    assert!(m.beat(seq, AttemptDigest::default()).is_empty(), "once may be what is on its way");
    let out = m.beat(seq, AttemptDigest::default());
    let [Output::Order { order: ToExecutor { order: Order::Want(wanted), .. }, .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(wanted[..], [(job, attempt)]);

    let missing = Report { job, attempt, age_ms: 0, news: News::Missing };
    assert_eq!(assigned(&m.report(vec![missing])), [(job, attempt)]);

    let mut digest = AttemptDigest::default();
    digest.add(job, attempt);
    assert!(m.beat(seq, digest).is_empty());
    assert!(m.beat(seq, digest).is_empty());
}

#[test]
fn a_lost_executors_job_moves_on_and_its_late_report_is_refused() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, r#"{"driver":{"process":{"command":["x"]}},"name":"p"}"#, None);
    let (job, attempt) = assigned(&m.settle())[0];
    m.report(vec![Report { job, attempt, age_ms: 0, news: News::Started }]);
    m.settle();

    // Silent, and nobody listens there any more.
    m.now = m.now + Millis(5_000);
    m.input(Input::OwnBeat);
    m.now = m.now + Millis(500);
    m.input(Input::OwnBeat);
    assert!(m.turn().iter().any(|o| matches!(o, Output::Probe(EXECUTOR))));
    for _ in 0..2 {
        m.input(Input::Probed { executor: EXECUTOR, found: Probed::NobodyThere });
    }
    m.settle();
    let found = &m.leader.state().jobs[&job];
    assert_eq!((found.status, found.restarts), (Status::Restarting, 1));

    let out = m.report(vec![ended(job, attempt)]);
    assert!(out.iter().any(|o| matches!(o, Output::ReportReply { reply, .. } if reply.superseded == [(job, attempt)])));
    assert_eq!(m.leader.state().jobs[&job].status, Status::Restarting);
    // Should it still be there, it is sent home.
    let seq = m.leader.acked();
    let out = m.beat(seq, AttemptDigest::default());
    assert!(matches!(&out[..], [Output::Order { order: ToExecutor { order: Order::Dismiss, .. }, .. }]), "{out:?}");
}

#[test]
fn a_stop_is_repeated_until_it_is_confirmed_and_given_up_in_the_end() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, r#"{"driver":{"process":{"command":["x"]}},"name":"p"}"#, None);
    m.settle();
    m.ask(Operation::Cancel, r#"{"job":"p","grace":"1s"}"#, None);
    let stops = |out: &[Output]| {
        out.iter()
            .filter(|o| matches!(o, Output::Order { order: ToExecutor { order: Order::Stop(_), .. }, .. }))
            .count()
    };
    assert!(stops(&m.settle()) >= 1);
    m.now = m.now + Millis(1_000);
    assert_eq!(stops(&m.turn()), 1);
    m.now = m.now + Millis(30_001);
    m.settle();
    let job = m.leader.state().jobs.values().next().expect("the job");
    assert_eq!(job.status, Status::Cancelled);
}

/// Orders of other kinds than assignments.
fn orders(out: &[Output]) -> Vec<&Order> {
    let orders = out.iter().filter_map(|o| if let Output::Order { order, .. } = o { Some(&order.order) } else { None });
    orders.filter(|order| !matches!(order, Order::Assign(_))).collect()
}

#[test]
fn what_is_said_again_waits_too_until_what_it_rests_on_is_durable() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, r#"{"driver":{"process":{"command":["x"]}},"name":"p"}"#, None);
    let (job, attempt) = assigned(&m.settle())[0];
    let mut digest = AttemptDigest::default();
    digest.add(job, attempt);
    m.report(vec![Report { job, attempt, age_ms: 0, news: News::Started }]);
    m.settle();

    // A stop.
    m.ask(Operation::Cancel, r#"{"job":"p","grace":"1s"}"#, None);
    m.now = m.now + Millis(1_000);
    assert_eq!(orders(&m.turn()), Vec::<&Order>::new(), "its cancellation is on its way");
    assert!(matches!(orders(&m.appended())[..], [Order::Stop(_), Order::Stop(_)]), "the first, and its repetition");

    // All that the executor is to hold: the attempt is given up.
    m.settle();
    m.now = m.now + Millis(30_001);
    m.turn();
    assert_eq!(m.leader.state().jobs[&job].status, Status::Cancelled);
    let seq = m.leader.acked();
    m.beat(seq, digest);
    assert_eq!(orders(&m.beat(seq, digest)), Vec::<&Order>::new(), "that is on its way");
    let out = m.appended();
    assert!(matches!(&orders(&out)[..], [Order::Want(wanted)] if wanted.is_empty()), "{out:?}");

    // That it counts as lost.
    m.settle();
    m.input(Input::OwnBeat);
    m.found_gone(EXECUTOR, Millis(500));
    m.turn();
    assert!(m.leader.state().executors[&EXECUTOR].lost.is_some());
    let seq = m.leader.acked();
    assert_eq!(orders(&m.beat(seq, AttemptDigest::default())), Vec::<&Order>::new(), "that is on its way");
    assert_eq!(orders(&m.appended()), [&Order::Dismiss]);
}

#[test]
fn ten_thousand_jobs_without_room_wait_their_turn() {
    let mut m = machine(WitnessMode::Interval).with_executor(3);
    for _ in 0..10 {
        let many = format!(r#"{{"jobs":[{}]}}"#, vec![r#"{"driver":{"noop":{}}}"#; 1_000].join(","));
        m.ask(Operation::SubmitMany, &many, None);
        m.settle();
    }
    assert_eq!(m.leader.state().counts()[&Status::Starting], 3);
    assert_eq!(m.leader.state().counts()[&Status::Pending], 9_997);
}

#[test]
fn a_trace_goes_with_its_job_also_where_that_was_stopped_before() {
    let mut m = machine(WitnessMode::Interval);
    m.leader.trace_all();
    m.ask(Operation::Submit, r#"{"driver":{"process":{"command":["x"]}},"name":"p","kind":"service"}"#, None);
    let job = *m.leader.state().jobs.keys().next().expect("the job");
    m.ask(Operation::Stop, r#"{"job":"p","force":true}"#, None);
    assert_eq!(m.leader.state().jobs[&job].status, Status::Stopped);
    let is_traced = |m: &Machine| m.leader.traces.of_attempt(job, outlive_schemas::id::Attempt(1)).is_some();
    assert!(is_traced(&m), "it may be started again");
    m.ask(Operation::Delete, r#"{"job":"p"}"#, None);
    assert!(m.leader.state().jobs.is_empty() && !is_traced(&m));
}

const PROCESS: &str = r#"{"driver":{"process":{"command":["true"]}},"name":"process"}"#;

/// Erasures asked for, and by whom.
fn erasures(out: &[Output]) -> Vec<(JobId, bool)> {
    let of = |o: &Output| if let Output::Erase { to, job, .. } = o { Some((*job, to.is_some())) } else { None };
    out.iter().filter_map(of).collect()
}

/// A finished job that had a process.
fn one_that_ran(m: &mut Machine) -> JobId {
    m.ask(Operation::Submit, PROCESS, None);
    let (job, attempt) = assigned(&m.settle())[0];
    m.report(vec![ended(job, attempt)]);
    m.settle();
    job
}

#[test]
fn what_a_deleted_job_left_is_erased_until_it_is_gone() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    let job = one_that_ran(&mut m);
    m.ask(Operation::Delete, r#"{"job":"process"}"#, None);
    let out = m.turn();
    assert!(erasures(&out).is_empty(), "not before the deletion is durable");
    assert_eq!(erasures(&m.appended()), [(job, true)]);
    assert!(erasures(&m.turn()).is_empty(), "once at a time");

    // It failed: it is tried again, after a while, by the leader itself.
    m.input(Input::Erased { job, gone: false });
    assert!(erasures(&m.turn()).is_empty());
    m.now = m.now + ERASURE_PAUSE;
    assert_eq!(erasures(&m.turn()), [(job, false)]);
    m.input(Input::Erased { job, gone: true });
    m.settle();
    assert!(m.leader.state().to_erase.is_empty());
    m.now = m.now + Millis(60_000);
    assert!(erasures(&m.settle()).is_empty());
}

#[test]
fn a_leader_erases_what_the_one_before_did_not_get_to() {
    let mut first = machine(WitnessMode::Interval).with_executor(10);
    let job = one_that_ran(&mut first);
    first.ask(Operation::Delete, r#"{"job":"process"}"#, None);
    first.turn();
    first.appended();
    let state = first.leader.state().clone();

    let mut next = machine(WitnessMode::Interval);
    let journal =
        Journal::new(state, FrameSealer::new(&Key::from_bytes([7; 32])), Term(4), Sequence(9), ChainHash::default());
    next.leader = Leader::new(next.leader.identity.clone(), journal, Ids::new(2), next.now, WitnessMode::Interval);
    assert_eq!(erasures(&next.turn()), [(job, false)]);
}

#[test]
fn retention_deletes_what_has_been_over_for_long_enough() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    let rules = Retention { finished_for: Millis(60_000), ..Retention::default() };
    let journal = std::mem::replace(&mut m, machine(WitnessMode::Interval)).leader.with_retention(rules);
    m.leader = journal;
    let job = one_that_ran(&mut m);
    m.now = m.now + Millis(59_999);
    assert!(erasures(&m.settle()).is_empty() && m.leader.state().jobs.contains_key(&job));
    m.now = m.now + Millis(1);
    assert_eq!(erasures(&m.settle()), [(job, false)]);
    assert!(m.leader.state().jobs.is_empty());
}

fn checkpoint(job: JobId, attempt: outlive_schemas::id::Attempt, contents: u8) -> Report {
    let taken = outlive_schemas::checkpoint::Taken {
        manifest: outlive_schemas::checkpoint::BlobName([contents; 32]),
        size_bytes: 1,
        uploaded_bytes: 1,
        files: 1,
        duration_ms: 1,
        pause_ms: 1,
    };
    Report { job, attempt, age_ms: 0, news: News::Checkpoint(taken) }
}

/// What the executor is told of what stays, as the contents of the manifests.
fn retained(out: &[Output]) -> Vec<Vec<u8>> {
    let replies = out.iter().filter_map(|o| if let Output::ReportReply { reply, .. } = o { Some(reply) } else { None });
    let stays = replies.flat_map(|reply| &reply.retained);
    stays.map(|stays| stays.manifests.iter().map(|name| name.0[0]).collect()).collect()
}

#[test]
fn an_executor_is_told_what_stays_once_its_checkpoint_is_durable() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, PROCESS, None);
    let (job, attempt) = assigned(&m.settle())[0];
    let started = Report { job, attempt, age_ms: 0, news: News::Started };
    assert!(retained(&m.report(vec![started, checkpoint(job, attempt, 1)])).is_empty());
    assert_eq!(retained(&m.settle()), [vec![1]]);
    for contents in 2..=4 {
        m.report(vec![checkpoint(job, attempt, contents)]);
    }
    assert_eq!(retained(&m.settle()).last(), Some(&vec![2, 3, 4]));

    // While somebody copies what is stored, nothing is said to be free to go.
    let raw = Raw {
        operation: Operation::HoldCollection,
        namespace: "sys",
        request_id: None,
        actor: Some("me"),
        body: br#"{"for":"60s"}"#,
    };
    let request = parse(raw, Format::Json).expect("a valid request");
    m.input(Input::Request { request, to: ReplyTo { number: 99, format: Format::Json } });
    assert!(answers(&m.settle()).iter().any(|answer| matches!(answer, Answer::Held(held) if held.until > m.now)));
    m.report(vec![checkpoint(job, attempt, 5)]);
    assert!(retained(&m.settle()).is_empty());
    m.now = m.now + Millis(60_000);
    m.report(vec![checkpoint(job, attempt, 6)]);
    assert_eq!(retained(&m.settle()), [vec![4, 5, 6]]);
}

#[test]
fn who_comes_from_before_a_restore_begins_anew() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.leader.identity.term = Term(3).next_generation();
    let out = m.beat(Sequence(1_000_000), AttemptDigest::default());
    assert!(!out.iter().any(|o| matches!(o, Output::Resign(_))), "what it saw was another log");
    assert!(out.iter().any(|o| matches!(o, Output::Order { order: ToExecutor { order: Order::Dismiss, .. }, .. })));
}

fn released(out: &[Output]) -> Vec<(JobId, Cause)> {
    let orders = out.iter().filter_map(|o| match o {
        Output::Order { order: ToExecutor { order: Order::Release(list), .. }, .. } => Some(list),
        _ => None,
    });
    orders.flatten().map(|release| (release.job, release.cause)).collect()
}

#[test]
fn a_drain_is_durable_before_anything_is_given_back_and_repeated_until_it_is() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, PROCESS, None);
    let (job, attempt) = assigned(&m.settle())[0];
    m.report(vec![Report { job, attempt, age_ms: 0, news: News::Started }]);
    m.settle();
    assert!(m.ask_system(Operation::DrainExecutor, r#"{"executor":"executor-a-1","deadline":"1m"}"#).is_empty());
    assert!(released(&m.turn()).is_empty());
    let out = m.appended();
    let [Answer::Executor(view)] = answers(&out)[..] else { panic!("{out:?}") };
    assert_eq!((view.state, view.running), (outlive_schemas::view::ExecutorState::Draining, 1));
    assert!(view.reason.as_ref().is_some_and(|reason| reason.contains("1 attempts")), "{:?}", view.reason);
    assert_eq!(released(&out), [(job, Cause::Drain)]);
    m.now = m.now + Millis(1_000);
    assert_eq!(released(&m.turn()), [(job, Cause::Drain)]);

    // Given back with its state, it waits for somebody else.
    let given_back = outlive_schemas::message::Released { cause: Cause::Drain, checkpoint: None, fault: None };
    let over = Ended { outcome: Outcome::Released(given_back), ran_ms: Some(1), result: None };
    m.report(vec![Report { job, attempt, age_ms: 0, news: News::Ended(over) }]);
    m.settle();
    assert_eq!(m.leader.state().jobs[&job].status, Status::Restarting);
    m.now = m.now + Millis(1_000);
    assert!(released(&m.turn()).is_empty());
    // Whoever is unknown is not drained; and taken back, it gets the job again.
    let out = m.ask_system(Operation::DrainZone, r#"{"zone":"x"}"#);
    let [Answer::Rejected(rejection)] = answers(&out)[..] else { panic!("{out:?}") };
    assert_eq!(rejection.code, ErrorCode::NotFound);
    m.input(Input::OwnBeat);
    let seq = m.leader.acked();
    m.beat(seq, AttemptDigest::default());
    m.ask_system(Operation::UndrainExecutor, r#"{"executor":"executor-a-1"}"#);
    assert_eq!(assigned(&m.settle()).iter().map(|(job, _)| *job).collect::<Vec<_>>(), [job]);
}

#[test]
fn what_must_never_run_twice_waits_until_the_lease_is_certainly_over() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, r#"{"driver":{"process":{"command":["x"]}},"name":"p","exclusive":true}"#, None);
    let (job, attempt) = assigned(&m.settle())[0];
    m.report(vec![Report { job, attempt, age_ms: 0, news: News::Started }]);
    m.settle();
    let registration = m.leader.state().executors[&EXECUTOR].registration.clone();
    m.found_gone(EXECUTOR, Millis(5_000));
    m.settle();
    assert!(m.leader.state().executors[&EXECUTOR].lost.is_some());
    // A frozen executor's lease can be kept alive by nobody, but a cut-off one keeps its own: it is still there.
    for _ in 0..60 {
        m.now = m.now + Millis(1_000);
        m.input(Input::OwnBeat);
        m.input(Input::Registered(vec![registration.clone()]));
        m.settle();
        assert_eq!(m.leader.state().jobs[&job].status, Status::Running);
    }
    m.input(Input::Registered(Vec::new()));
    m.settle();
    assert_eq!(m.leader.state().jobs[&job].status, Status::Restarting);
}

#[test]
fn a_zone_whose_last_executor_is_gone_is_lost_if_nobody_answers_there() {
    for (found, cause) in [(Probed::Here, Cause::ExecutorLost), (Probed::NobodyThere, Cause::ZoneLost)] {
        let mut m = machine(WitnessMode::Interval).with_executor(10);
        m.ask(Operation::Submit, PROCESS, None);
        let (job, attempt) = assigned(&m.settle())[0];
        m.report(vec![Report { job, attempt, age_ms: 0, news: News::Started }]);
        m.settle();
        m.now = m.now + Millis(5_000);
        m.input(Input::OwnBeat);
        m.now = m.now + Millis(500);
        m.input(Input::OwnBeat);
        let asked = m.turn().iter().any(|o| matches!(o, Output::ProbeZone(zone) if zone.as_str() == "a"));
        assert!(asked, "the zone is asked along with its executor");
        m.input(Input::ZoneProbed { zone: "a".parse().expect("a zone"), found });
        for _ in 0..2 {
            m.input(Input::Probed { executor: EXECUTOR, found: Probed::NobodyThere });
        }
        m.settle();
        let recovering = m.leader.state().jobs[&job].recovering.as_ref().expect("it recovers");
        assert_eq!(recovering.cause, cause);
    }
}

#[test]
fn an_executor_that_is_not_well_is_spared_unless_there_is_none_better() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.input(Input::OwnBeat);
    let sick = Heartbeat { degraded: Some("a slow disk".into()), ..m.well(EXECUTOR) };
    m.input(Input::Beat(sick.clone()));
    let views = m.leader.watch().executors(m.leader.state(), m.now);
    assert_eq!(views[0].state, outlive_schemas::view::ExecutorState::Degraded);
    assert_eq!(views[0].reason.as_deref(), Some("a slow disk"));
    // The only one there is gets the job all the same, and is not emptied into nothing.
    m.ask(Operation::Submit, PROCESS, None);
    let out = m.settle();
    assert_eq!(assigned(&out).len(), 1);
    m.now = m.now + Millis(1_000);
    m.input(Input::OwnBeat);
    m.input(Input::Beat(sick.clone()));
    assert!(released(&m.settle()).is_empty());

    let better = ExecutorId(uuid::Uuid::from_u128(2));
    let first = m.leader.state().executors[&EXECUTOR].registration.clone();
    let second = Registration {
        id: better,
        name: "executor-b-1".parse().expect("a name"),
        zone: "b".parse().expect("a zone"),
        ..first.clone()
    };
    m.input(Input::Registered(vec![first, second]));
    m.settle();
    m.now = m.now + Millis(1_000);
    m.input(Input::OwnBeat);
    m.input(Input::Beat(sick.clone()));
    m.input(Input::Beat(Heartbeat { executor: better, degraded: None, ..sick }));
    let out = m.settle();
    assert_eq!(released(&out).iter().map(|(_, cause)| *cause).collect::<Vec<_>>(), [Cause::HostDegraded]);
}

#[test]
fn what_dead_processes_have_registered_admits_nobody_and_who_was_never_heard_gets_nothing() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    let first = m.leader.state().executors[&EXECUTOR].registration.clone();
    let second = Registration { id: ExecutorId(uuid::Uuid::from_u128(EXECUTOR.0.as_u128() + 1)), ..first.clone() };
    m.found_gone(EXECUTOR, Millis(500));
    m.settle();
    m.input(Input::Registered(vec![first.clone(), second.clone()]));
    m.settle();
    let alive = |m: &Machine| {
        let all = m.leader.state().executors.iter().filter(|(_, executor)| executor.is_alive());
        all.map(|(id, _)| *id).collect::<Vec<_>>()
    };
    assert_eq!(alive(&m), [second.id]);
    // It is there, and may have died since; its first beat says that it has not.
    m.ask(Operation::Submit, PROCESS, None);
    assert!(assigned(&m.settle()).is_empty());
    m.input(Input::Beat(m.well(second.id)));
    assert_eq!(assigned(&m.settle()).len(), 1);

    // Both leases last, and the name is free.
    m.found_gone(second.id, Millis(500));
    m.settle();
    for _ in 0..3 {
        m.input(Input::Registered(vec![first.clone(), second.clone()]));
        m.settle();
    }
    assert_eq!(alive(&m), []);
    let third = Registration { id: ExecutorId(uuid::Uuid::from_u128(second.id.0.as_u128() + 1)), ..second.clone() };
    m.input(Input::Registered(vec![third.clone(), first, second]));
    m.settle();
    assert_eq!(alive(&m), [third.id]);
}
