//! The attempt machine, case by case.

use super::*;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::id::{Attempt, JobId, JobName, JobVersion, Namespace, Sequence};
use outlive_schemas::message::Otherwise;
use outlive_schemas::time::Millis;
use std::sync::Arc;

/// An assignment of the job that `spec` describes.
pub(crate) fn assignment(spec: &str) -> Assignment {
    let job: JobId = "0197f3c8-0000-7000-8000-000000000001".parse().expect("an id");
    Assignment {
        job,
        attempt: Attempt(2),
        namespace: Namespace::new("default").expect("a namespace"),
        name: JobName::new("counter").expect("a name"),
        version: JobVersion(1),
        placed_at: Sequence(7),
        restore: None,
        retained: Vec::new(),
        spec: Arc::new(serde_json::from_str(spec).expect(spec)),
        array_index: None,
        inputs: Vec::new(),
        trace: None,
    }
}

const PLAN: Plan = Plan {
    manifest: None,
    restore: None,
    interval_ms: 10_000,
    min_pause_ms: 5_000,
    checkpoint_timeout_ms: 60_000,
    run_timeout_ms: None,
    silence_max_ms: None,
};

/// Feeds a machine, and shows what it does.
struct Scene {
    machine: AttemptMachine,
    now_ms: u64,
}

fn scene(plan: Plan) -> Scene {
    let (machine, effects) = AttemptMachine::new(plan);
    assert_eq!(effects, [Effect::Prepare]);
    Scene { machine, now_ms: 0 }
}

/// One whose process was started at 1 s.
fn running(plan: Plan) -> Scene {
    let mut scene = scene(plan);
    scene.check(100, Input::Prepared, &[Effect::Start]);
    scene.check(1_000, Input::Started { at_ms: 1_000 }, &[report(1_000, News::Started)]);
    scene
}

/// One whose first checkpoint is being read, since 11 s.
fn reading() -> Scene {
    let mut scene = running(PLAN);
    scene.check(11_000, Input::Wake, &[Effect::Read { round: 1 }]);
    scene
}

impl Scene {
    #[track_caller]
    fn check(&mut self, at_ms: u64, input: Input, expected: &[Effect]) -> &mut Self {
        assert!(at_ms >= self.now_ms, "time goes on");
        self.now_ms = at_ms;
        let shown = format!("{input:?}");
        assert_eq!(self.machine.step(input, at_ms), expected, "after {shown} at {at_ms}");
        self
    }

    #[track_caller]
    fn wakes_at(&mut self, expected: Option<u64>) -> &mut Self {
        assert_eq!(self.machine.wake_at(), expected);
        self
    }
}

fn report(at_ms: u64, news: News) -> Effect {
    Effect::Report { at_ms, news }
}

fn ended(at_ms: u64, outcome: Outcome, ran_ms: Option<u64>) -> Effect {
    report(at_ms, News::Ended(Ended { outcome, ran_ms, result: None }))
}

fn taken(manifest: u8) -> Taken {
    let manifest = BlobName([manifest; 32]);
    Taken { manifest, size_bytes: 9, uploaded_bytes: 3, files: 1, duration_ms: 0, pause_ms: 0 }
}

fn failed(reason: &str) -> CheckpointFault {
    CheckpointFault::Failed { reason: reason.into() }
}

const GRACEFUL: Input = Input::Stop(Stop::Graceful { grace: Millis(2_000) });
const KILL: Input = Input::Stop(Stop::Kill);

#[test]
fn a_job_that_succeeds() {
    let mut scene = running(PLAN);
    scene
        .check(5_000, Input::Exited(Exit::Code(0)), &[])
        .check(5_010, Input::Gone, &[Effect::Collect { result: true }])
        .wakes_at(None);
    let result = Payload::from("42");
    let end = Ended { outcome: Outcome::Exited { code: 0 }, ran_ms: Some(4_000), result: Some(result.clone()) };
    scene
        .check(5_020, Input::Collected(ResultFile::Left(result)), &[report(5_000, News::Ended(end))])
        .check(6_000, Input::EndAcknowledged, &[Effect::Forget])
        .check(6_001, Input::EndAcknowledged, &[]);
}

#[test]
fn a_result_counts_only_with_success_and_within_the_limit() {
    let mut scene = running(PLAN);
    scene.check(2_000, Input::Exited(Exit::Code(3)), &[]).check(
        2_001,
        Input::Gone,
        &[Effect::Collect { result: false }],
    );
    let stray = ResultFile::Left(Payload::from("no"));
    scene.check(2_002, Input::Collected(stray), &[ended(2_000, Outcome::Exited { code: 3 }, Some(1_000))]);

    let mut scene = running(PLAN);
    scene.check(2_000, Input::Exited(Exit::Code(0)), &[]).check(
        2_000,
        Input::Gone,
        &[Effect::Collect { result: true }],
    );
    let refused = Outcome::ResultRefused { reason: "too large".into() };
    scene.check(
        2_001,
        Input::Collected(ResultFile::Refused { reason: "too large".into() }),
        &[ended(2_000, refused, Some(1_000))],
    );
}

#[test]
fn signals_and_a_lost_shim() {
    let mut scene = running(PLAN);
    scene.check(2_000, Input::Exited(Exit::Signal(11)), &[]).check(
        2_000,
        Input::Gone,
        &[Effect::Collect { result: false }],
    );
    let end = ended(2_000, Outcome::Signalled { signal: 11 }, Some(1_000));
    scene.check(2_000, Input::Collected(ResultFile::None), &[end]);

    let mut scene = running(PLAN);
    scene.check(3_000, Input::Gone, &[Effect::Collect { result: false }]);
    let end = ended(3_000, Outcome::Signalled { signal: 9 }, Some(2_000));
    scene.check(3_000, Input::Collected(ResultFile::None), &[end]);
}

#[test]
fn what_is_out_of_reach_is_tried_again_but_not_for_ever() {
    let mut scene = scene(Plan { restore: Some(CheckpointNumber(3)), ..PLAN });
    let fault = || Input::NotPrepared(PrepareFault::Unavailable { reason: "no stream leader".into() });
    let mut at = 0;
    for nth in 1..PREPARE_TRIES_MAX {
        scene.check(at, fault(), &[]);
        let retry = scene.machine.wake_at().expect("another try");
        assert!((at + 1..=at + PREPARE_DELAY_MS_MAX).contains(&retry), "try {nth}");
        scene.check(retry - 1, Input::Wake, &[]);
        scene.check(retry, Input::Wake, &[Effect::Prepare]).wakes_at(None);
        at = retry;
    }
    let effects = scene.machine.step(fault(), at);
    let [Effect::Report { news: News::Ended(Ended { outcome: Outcome::LaunchFailed { reason }, .. }), .. }] =
        &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert!(reason.contains("20 times") && reason.contains("no stream leader"), "{reason}");
}

#[test]
fn an_unreadable_checkpoint_is_named_and_a_local_fault_is_not_its_own() {
    let unreadable = || Input::NotPrepared(PrepareFault::Unreadable { reason: "damaged".into() });
    let outcome = Outcome::RestoreFailed { number: CheckpointNumber(3), reason: "damaged".into() };
    scene(Plan { restore: Some(CheckpointNumber(3)), ..PLAN }).check(5, unreadable(), &[ended(5, outcome, None)]);
    let outcome = Outcome::LaunchFailed { reason: "disk full".into() };
    let local = Input::NotPrepared(PrepareFault::Local { reason: "disk full".into() });
    scene(Plan { restore: Some(CheckpointNumber(3)), ..PLAN }).check(5, local, &[ended(5, outcome, None)]);
}

#[test]
fn a_command_that_cannot_be_started() {
    let mut scene = scene(PLAN);
    scene.check(1, Input::Prepared, &[Effect::Start]);
    let outcome = Outcome::LaunchFailed { reason: "no such file".into() };
    scene.check(2, Input::NotStarted { reason: "no such file".into() }, &[ended(2, outcome, None)]).check(
        3,
        Input::EndAcknowledged,
        &[Effect::Forget],
    );
}

#[test]
fn checkpoints_go_round() {
    let mut scene = running(PLAN);
    scene
        .wakes_at(Some(11_000))
        .check(10_999, Input::Wake, &[])
        .check(11_000, Input::Wake, &[Effect::Read { round: 1 }])
        .wakes_at(Some(71_000))
        .check(11_010, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }])
        .check(
            11_500,
            Input::Stored { round: 1, result: Ok(Some(taken(1))) },
            &[report(11_500, News::Checkpoint(taken(1)))],
        )
        // The next one is compared with this one, so nothing begins before this one counts.
        .wakes_at(None)
        .check(90_000, Input::Wake, &[])
        .check(90_001, Input::CheckpointAcknowledged, &[Effect::CommitCheckpoint])
        .check(90_002, Input::CheckpointAcknowledged, &[])
        .wakes_at(Some(21_000))
        .check(90_003, Input::Wake, &[Effect::Read { round: 2 }]);
}

#[test]
fn an_unchanged_state_makes_no_checkpoint_and_a_slow_one_a_pause() {
    let mut scene = reading();
    scene
        .check(11_001, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }])
        .check(11_002, Input::Stored { round: 1, result: Ok(None) }, &[])
        .wakes_at(Some(21_000))
        .check(21_000, Input::Wake, &[Effect::Read { round: 2 }])
        .check(30_000, Input::Read { round: 2, result: Ok(()) }, &[Effect::Store { round: 2 }])
        .check(31_000, Input::Stored { round: 2, result: Ok(None) }, &[])
        // 21 s + the interval would be 31 s, but the pause is 5 s.
        .wakes_at(Some(36_000));
}

#[test]
fn a_failed_checkpoint_is_reported_and_followed_by_another() {
    let mut scene = reading();
    let news = News::CheckpointFailed { reason: "device".into() };
    scene
        .check(11_001, Input::Read { round: 1, result: Err(failed("device")) }, &[report(11_001, news)])
        .wakes_at(Some(21_000))
        .check(21_000, Input::Wake, &[Effect::Read { round: 2 }])
        .check(21_001, Input::Read { round: 2, result: Ok(()) }, &[Effect::Store { round: 2 }]);
    let news = News::CheckpointFailed { reason: "full".into() };
    scene.check(29_000, Input::Stored { round: 2, result: Err(failed("full")) }, &[report(29_000, news)]);
    scene.wakes_at(Some(29_000 + 1_000 + 5_000));
}

#[test]
fn a_checkpoint_that_takes_too_long_is_given_up_and_its_late_answer_ignored() {
    let mut scene = reading();
    let reason = "the checkpoint took longer than checkpoint.timeout, which is 1m";
    let news = News::CheckpointFailed { reason: reason.into() };
    scene
        .check(71_000, Input::Wake, &[Effect::CancelCheckpoint, report(71_000, news)])
        .wakes_at(Some(77_000))
        .check(77_000, Input::Wake, &[Effect::Read { round: 2 }])
        .check(77_001, Input::Read { round: 1, result: Ok(()) }, &[])
        .check(77_002, Input::Read { round: 2, result: Ok(()) }, &[Effect::Store { round: 2 }])
        .check(77_003, Input::Stored { round: 1, result: Ok(Some(taken(1))) }, &[]);
}

#[test]
fn an_exit_while_a_checkpoint_is_under_way_gives_it_up() {
    for stored in [false, true] {
        let mut scene = reading();
        if stored {
            scene.check(11_001, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }]);
        }
        scene
            .check(11_002, Input::Exited(Exit::Code(1)), &[Effect::CancelCheckpoint])
            .check(11_003, Input::Read { round: 1, result: Ok(()) }, &[])
            .check(11_003, Input::Stored { round: 1, result: Ok(Some(taken(1))) }, &[])
            .check(11_004, Input::Gone, &[Effect::Collect { result: false }])
            .check(
                11_005,
                Input::Collected(ResultFile::None),
                &[ended(11_002, Outcome::Exited { code: 1 }, Some(10_002))],
            );
    }
    // A freeze that fails because the job has just ended is no failed checkpoint.
    reading().check(11_001, Input::Read { round: 1, result: Err(CheckpointFault::Over) }, &[]);
}

#[test]
fn a_reported_checkpoint_stays_reported_when_the_job_ends() {
    let mut scene = reading();
    scene.check(11_001, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }]);
    let stored = Input::Stored { round: 1, result: Ok(Some(taken(1))) };
    scene
        .check(11_002, stored, &[report(11_002, News::Checkpoint(taken(1)))])
        .check(11_003, Input::Exited(Exit::Code(0)), &[])
        .check(11_004, Input::CheckpointAcknowledged, &[])
        .check(11_005, Input::Gone, &[Effect::Collect { result: true }]);
}

#[test]
fn a_graceful_stop_becomes_a_kill_when_its_grace_is_over() {
    let mut scene = reading();
    scene
        .check(12_000, GRACEFUL, &[Effect::CancelCheckpoint, Effect::Terminate])
        .wakes_at(Some(14_000))
        // The order is repeated; its grace is not.
        .check(13_000, GRACEFUL, &[])
        .wakes_at(Some(14_000))
        .check(14_000, Input::Wake, &[Effect::Kill])
        .wakes_at(None)
        .check(14_001, Input::Exited(Exit::Signal(9)), &[])
        .check(14_002, Input::Gone, &[Effect::Collect { result: false }])
        .check(
            14_003,
            Input::Collected(ResultFile::None),
            &[ended(14_001, Outcome::Signalled { signal: 9 }, Some(13_001))],
        );
}

#[test]
fn a_kill_overtakes_a_graceful_stop() {
    running(PLAN)
        .check(2_000, GRACEFUL, &[Effect::Terminate])
        .check(2_100, KILL, &[Effect::Kill])
        .wakes_at(None)
        .check(2_200, GRACEFUL, &[])
        .wakes_at(None);
}

#[test]
fn a_stop_before_there_is_a_process() {
    for (stop, signal) in [(GRACEFUL, 15), (KILL, 9)] {
        scene(PLAN).check(1, stop, &[Effect::CancelPrepare, ended(1, Outcome::Signalled { signal }, None)]);
    }
    let mut starting = scene(PLAN);
    starting.check(1, Input::Prepared, &[Effect::Start]).check(2, KILL, &[]).check(3, GRACEFUL, &[]).check(
        4,
        Input::Started { at_ms: 4 },
        &[report(4, News::Started), Effect::Kill],
    );
}

#[test]
fn a_stop_after_the_end_changes_nothing() {
    let mut scene = running(PLAN);
    scene.check(2_000, Input::Exited(Exit::Code(0)), &[]);
    scene.check(2_001, Input::Gone, &[Effect::Collect { result: true }]).check(2_002, KILL, &[]);
    let end = ended(2_000, Outcome::Exited { code: 0 }, Some(1_000));
    scene.check(2_003, Input::Collected(ResultFile::None), &[end]).check(2_004, KILL, &[]).check(2_005, GRACEFUL, &[]);
}

#[test]
fn a_job_that_runs_too_long() {
    let mut scene = running(Plan { run_timeout_ms: Some(3_000), ..PLAN });
    scene
        .wakes_at(Some(4_000))
        .check(4_000, Input::Wake, &[Effect::Kill])
        .check(4_001, Input::Exited(Exit::Signal(9)), &[])
        .check(4_002, Input::Gone, &[Effect::Collect { result: false }])
        .check(4_003, Input::Collected(ResultFile::None), &[ended(4_001, Outcome::TimedOut, Some(3_001))]);
    // What ended by itself at the last moment has its own outcome.
    let mut scene = running(Plan { run_timeout_ms: Some(3_000), ..PLAN });
    scene
        .check(4_000, Input::Wake, &[Effect::Kill])
        .check(4_001, Input::Exited(Exit::Code(0)), &[])
        .check(4_002, Input::Gone, &[Effect::Collect { result: true }])
        .check(4_003, Input::Collected(ResultFile::None), &[ended(4_001, Outcome::Exited { code: 0 }, Some(3_001))]);
}

#[test]
fn a_job_whose_output_stops() {
    let mut scene = running(Plan { silence_max_ms: Some(3_000), ..PLAN });
    scene
        .wakes_at(Some(4_000))
        .check(4_000, Input::Output { at_ms: 3_500 }, &[])
        .check(4_000, Input::Wake, &[])
        .wakes_at(Some(6_500))
        // What was said before is not taken back.
        .check(6_499, Input::Output { at_ms: 2_000 }, &[])
        .wakes_at(Some(6_500))
        .check(6_500, Input::Wake, &[Effect::Kill])
        .check(6_501, Input::Exited(Exit::Signal(9)), &[])
        .check(6_502, Input::Gone, &[Effect::Collect { result: false }])
        .check(6_503, Input::Collected(ResultFile::None), &[ended(6_501, Outcome::NoProgress, Some(5_501))]);
    // One that stands still while its state is read cannot write: that time does not count.
    let mut scene = running(Plan { silence_max_ms: Some(10_500), ..PLAN });
    scene
        .check(11_000, Input::Wake, &[Effect::Read { round: 1 }])
        .check(12_000, Input::Wake, &[])
        .check(13_000, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }])
        // Two seconds later than it would have been.
        .wakes_at(Some(13_500))
        .check(13_500, Input::Wake, &[Effect::CancelCheckpoint, Effect::Kill]);
}

#[test]
fn an_abandoned_attempt_is_killed_and_says_nothing() {
    scene(PLAN).check(1, Input::Abandon, &[Effect::CancelPrepare, Effect::Forget]);

    let mut starting = scene(PLAN);
    starting.check(1, Input::Prepared, &[Effect::Start]).check(2, Input::Abandon, &[]);
    starting.check(3, Input::Started { at_ms: 3 }, &[Effect::Kill]).check(4, Input::Gone, &[Effect::Forget]);

    let mut starting = scene(PLAN);
    starting.check(1, Input::Prepared, &[Effect::Start]).check(2, Input::Abandon, &[]);
    starting.check(3, Input::NotStarted { reason: "x".into() }, &[Effect::Forget]);

    let mut busy = reading();
    busy.check(11_001, Input::Abandon, &[Effect::CancelCheckpoint, Effect::Kill])
        .check(11_002, Input::Abandon, &[])
        .check(11_003, Input::Exited(Exit::Signal(9)), &[])
        .check(11_004, Input::Gone, &[Effect::Forget])
        .wakes_at(None);

    let mut over = running(PLAN);
    over.check(2_000, Input::Exited(Exit::Code(0)), &[]).check(2_000, Input::Gone, &[Effect::Collect { result: true }]);
    over.check(2_001, Input::Abandon, &[Effect::Forget]).check(2_002, Input::Collected(ResultFile::None), &[]);
}

const HAND_OVER: Input = Input::Release {
    cause: Cause::Drain,
    how: Release::Checkpoint { within: Millis(3_000), otherwise: Otherwise::Kill },
};
const LET_GO: Input = Input::Release { cause: Cause::Update, how: Release::Kill };

fn released(checkpoint: Option<Taken>, fault: Option<&str>) -> Outcome {
    Outcome::Released(Released { cause: Cause::Drain, checkpoint, fault: fault.map(Into::into) })
}

#[test]
fn what_is_given_back_stands_still_from_its_last_checkpoint_to_its_end() {
    for (stored, changed) in [(Some(taken(1)), true), (None, false)] {
        let mut scene = running(PLAN);
        scene
            .check(2_000, HAND_OVER, &[Effect::ReadLast { round: 1 }])
            .wakes_at(Some(5_000))
            .check(2_001, HAND_OVER, &[])
            .check(2_002, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }])
            .check(2_900, Input::Stored { round: 1, result: Ok(stored) }, &[Effect::EndFrozen { round: 1 }])
            // Stored in time: however long the kill takes, nothing is given up.
            .wakes_at(None)
            .check(6_000, Input::EndedFrozen { round: 1, result: Ok(()) }, &[])
            .check(6_001, Input::Exited(Exit::Signal(9)), &[])
            .check(6_002, Input::Gone, &[Effect::Collect { result: false }]);
        let outcome = released(changed.then(|| taken(1)), None);
        scene.check(6_003, Input::Collected(ResultFile::None), &[ended(6_001, outcome, Some(5_001))]);
    }
}

#[test]
fn its_end_may_be_heard_of_before_the_answer_to_what_ended_it() {
    let mut scene = running(PLAN);
    scene
        .check(2_000, HAND_OVER, &[Effect::ReadLast { round: 1 }])
        .check(2_002, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }])
        .check(2_003, Input::Stored { round: 1, result: Ok(Some(taken(1))) }, &[Effect::EndFrozen { round: 1 }])
        .check(2_004, Input::Exited(Exit::Signal(9)), &[])
        .check(2_005, Input::EndedFrozen { round: 1, result: Ok(()) }, &[])
        .check(2_006, Input::Gone, &[Effect::Collect { result: false }]);
    let outcome = released(Some(taken(1)), None);
    scene.check(2_007, Input::Collected(ResultFile::None), &[ended(2_004, outcome, Some(1_004))]);
}

#[test]
fn a_checkpoint_under_way_is_waited_for_until_it_counts() {
    let mut scene = reading();
    scene
        .check(11_001, HAND_OVER, &[])
        .check(11_002, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }])
        .check(
            11_003,
            Input::Stored { round: 1, result: Ok(Some(taken(1))) },
            &[report(11_003, News::Checkpoint(taken(1)))],
        )
        .check(11_100, Input::CheckpointAcknowledged, &[Effect::CommitCheckpoint, Effect::ReadLast { round: 2 }])
        .check(11_101, Input::Read { round: 1, result: Ok(()) }, &[])
        .check(11_102, Input::Read { round: 2, result: Ok(()) }, &[Effect::Store { round: 2 }]);
}

#[test]
fn a_last_checkpoint_that_fails_is_tried_again_and_the_job_goes_on_meanwhile() {
    let mut scene = running(PLAN);
    scene
        .check(2_000, HAND_OVER, &[Effect::ReadLast { round: 1 }])
        .check(2_010, Input::Read { round: 1, result: Err(failed("a socket")) }, &[Effect::CancelCheckpoint])
        .wakes_at(Some(2_510))
        .check(2_510, Input::Wake, &[Effect::ReadLast { round: 2 }])
        .check(2_511, Input::Read { round: 2, result: Ok(()) }, &[Effect::Store { round: 2 }])
        .check(2_520, Input::Stored { round: 2, result: Err(failed("no room")) }, &[Effect::CancelCheckpoint])
        .check(3_020, Input::Wake, &[Effect::ReadLast { round: 3 }])
        .check(3_021, Input::Read { round: 3, result: Ok(()) }, &[Effect::Store { round: 3 }])
        .check(3_022, Input::Stored { round: 3, result: Ok(Some(taken(3))) }, &[Effect::EndFrozen { round: 3 }])
        // It was continued from outside: what was read is not what it was at its end.
        .check(3_023, Input::EndedFrozen { round: 3, result: Err(failed("broken")) }, &[Effect::CancelCheckpoint])
        .check(3_523, Input::Wake, &[Effect::ReadLast { round: 4 }])
        .check(5_000, Input::Wake, &[Effect::CancelCheckpoint, Effect::Kill])
        .check(5_001, Input::Exited(Exit::Signal(9)), &[])
        .check(5_002, Input::Gone, &[Effect::Collect { result: false }]);
    let outcome = released(None, Some("no last checkpoint within 3s: broken"));
    scene.check(5_003, Input::Collected(ResultFile::None), &[ended(5_001, outcome, Some(4_001))]);
}

#[test]
fn one_that_may_not_lose_anything_goes_on_when_its_last_checkpoint_fails() {
    let order = || Input::Release {
        cause: Cause::Update,
        how: Release::Checkpoint { within: Millis(3_000), otherwise: Otherwise::GoOn },
    };
    let mut scene = running(PLAN);
    let news = News::ReleaseFailed { reason: "no last checkpoint within 3s".into() };
    scene
        .check(2_000, order(), &[Effect::ReadLast { round: 1 }])
        .check(5_000, Input::Wake, &[Effect::CancelCheckpoint, report(5_000, news)])
        .wakes_at(Some(10_000))
        .check(10_000, Input::Wake, &[Effect::Read { round: 2 }])
        .check(10_001, Input::Read { round: 2, result: Ok(()) }, &[Effect::Store { round: 2 }])
        .check(10_002, Input::Stored { round: 2, result: Ok(None) }, &[])
        // It can be asked again.
        .check(10_003, order(), &[Effect::ReadLast { round: 3 }]);
}

#[test]
fn letting_go_asks_for_no_checkpoint() {
    let outcome = || Outcome::Released(Released { cause: Cause::Update, checkpoint: None, fault: None });
    let mut scene = reading();
    scene
        .check(11_001, LET_GO, &[Effect::CancelCheckpoint, Effect::Kill])
        .check(11_002, Input::Exited(Exit::Signal(9)), &[])
        .check(11_003, Input::Gone, &[Effect::Collect { result: false }])
        .check(11_004, Input::Collected(ResultFile::None), &[ended(11_002, outcome(), Some(10_002))]);
    // Impatience: the last checkpoint is not waited for any more.
    running(PLAN).check(2_000, HAND_OVER, &[Effect::ReadLast { round: 1 }]).check(
        2_001,
        LET_GO,
        &[Effect::CancelCheckpoint, Effect::Kill],
    );
    let mut starting = self::scene(PLAN);
    starting.check(1, Input::Prepared, &[Effect::Start]).check(2, LET_GO, &[]).check(
        3,
        Input::Started { at_ms: 3 },
        &[report(3, News::Started), Effect::Kill],
    );
}

#[test]
fn what_has_not_begun_or_is_over_is_given_back_as_it_is() {
    scene(PLAN).check(1, HAND_OVER, &[Effect::CancelPrepare, ended(1, released(None, None), None)]);
    let mut starting = scene(PLAN);
    starting.check(1, Input::Prepared, &[Effect::Start]).check(2, HAND_OVER, &[]).check(
        3,
        Input::Started { at_ms: 3 },
        &[report(3, News::Started), Effect::ReadLast { round: 1 }],
    );
    // What ends by itself has its own outcome.
    let mut over = running(PLAN);
    over.check(2_000, HAND_OVER, &[Effect::ReadLast { round: 1 }])
        .check(2_001, Input::Exited(Exit::Code(0)), &[Effect::CancelCheckpoint])
        .check(2_002, HAND_OVER, &[])
        .check(2_003, Input::Gone, &[Effect::Collect { result: true }]);
    over.check(2_004, Input::Collected(ResultFile::None), &[ended(2_001, Outcome::Exited { code: 0 }, Some(1_001))]);
    // Who ends a job for good has no use for its state.
    running(PLAN)
        .check(2_000, HAND_OVER, &[Effect::ReadLast { round: 1 }])
        .check(2_001, GRACEFUL, &[Effect::CancelCheckpoint, Effect::Terminate])
        .wakes_at(Some(4_001));
    running(PLAN)
        .check(2_000, HAND_OVER, &[Effect::ReadLast { round: 1 }])
        .check(2_001, Input::Abandon, &[Effect::CancelCheckpoint, Effect::Kill])
        .check(2_002, Input::Gone, &[Effect::Forget]);
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let late = || {
        [
            Input::Prepared,
            Input::NotPrepared(PrepareFault::Local { reason: "x".into() }),
            Input::Started { at_ms: 1 },
            Input::NotStarted { reason: "x".into() },
            Input::Read { round: 1, result: Ok(()) },
            Input::Stored { round: 1, result: Ok(None) },
            Input::Collected(ResultFile::None),
            Input::EndedFrozen { round: 1, result: Ok(()) },
            Input::CheckpointAcknowledged,
            Input::EndAcknowledged,
            Input::Wake,
        ]
    };
    let mut scene = running(PLAN);
    for input in late() {
        scene.check(1_001, input, &[]);
    }
    scene.wakes_at(Some(11_000));
    scene.check(2_000, Input::Exited(Exit::Code(0)), &[]);
    scene.check(2_000, Input::Gone, &[Effect::Collect { result: true }]);
    let end = ended(2_000, Outcome::Exited { code: 0 }, Some(1_000));
    scene.check(2_001, Input::Collected(ResultFile::None), &[end]).check(
        2_002,
        Input::EndAcknowledged,
        &[Effect::Forget],
    );
    for input in late().into_iter().chain([Input::Abandon, KILL, GRACEFUL, Input::Gone, HAND_OVER, LET_GO]) {
        scene.check(2_003, input, &[]);
    }
    scene.wakes_at(None);
}

#[test]
fn a_snapshot_is_a_checkpoint_at_once_and_one_serves_all_that_were_heard_before() {
    let snapshot = |up_to| Input::Snapshot { up_to };
    let told = |at, up_to, contents: Option<u8>| {
        report(at, News::Snapshot { up_to, manifest: contents.map(|n| taken(n).manifest) })
    };
    let mut scene = running(PLAN);
    scene
        .check(2_000, snapshot(2), &[Effect::Read { round: 1 }])
        // The order is repeated, and another comes after the reading has begun.
        .check(2_001, snapshot(2), &[])
        .check(2_002, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }])
        .check(2_003, snapshot(3), &[]);
    let stored = Input::Stored { round: 1, result: Ok(Some(taken(1))) };
    scene
        .check(2_004, stored, &[report(2_004, News::Checkpoint(taken(1))), told(2_004, 2, Some(1))])
        .check(2_005, Input::CheckpointAcknowledged, &[Effect::CommitCheckpoint, Effect::Read { round: 2 }])
        .check(2_006, Input::Read { round: 2, result: Ok(()) }, &[Effect::Store { round: 2 }])
        // Nothing has changed: it is what the last one holds, and nothing is uploaded.
        .check(2_007, Input::Stored { round: 2, result: Ok(None) }, &[told(2_007, 3, Some(1))])
        .check(2_008, snapshot(3), &[]);
    // An empty state that always was empty is a snapshot as well.
    running(PLAN)
        .check(2_000, snapshot(1), &[Effect::Read { round: 1 }])
        .check(2_001, Input::Read { round: 1, result: Ok(()) }, &[Effect::Store { round: 1 }])
        .check(2_002, Input::Stored { round: 1, result: Ok(None) }, &[told(2_002, 1, None)]);
}

#[test]
fn a_snapshot_whose_checkpoint_fails_has_failed() {
    let reason = CompactString::from("device");
    let failed = News::SnapshotFailed { up_to: 1, reason: reason.clone() };
    let fault = CheckpointFault::Failed { reason: reason.clone() };
    running(PLAN)
        .check(2_000, Input::Snapshot { up_to: 1 }, &[Effect::Read { round: 1 }])
        .check(
            2_001,
            Input::Read { round: 1, result: Err(fault) },
            &[report(2_001, failed), report(2_001, News::CheckpointFailed { reason })],
        )
        .check(2_002, Input::Snapshot { up_to: 1 }, &[]);
}
