//! The machine under a script, and the log that it makes.

use super::{BridgedLog, Bridging, Input, Output, Standing};
use crate::bridge::{Bridge as _, BridgeError, MemoryBridge};
use crate::leadership::{Holder, Leadership as _, MemoryLeadership};
use crate::log::memory::MemoryLog;
use crate::log::{AppendError, CommitLog as _, Stored};
use bytes::Bytes;
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::limits::BRIDGE_COMMITS_MAX;
use outlive_schemas::time::{Millis, Timestamp};
use std::sync::Arc;
use std::time::Duration;

mod explored;

fn at(seq: u64) -> Stored {
    Stored { seq: Sequence(seq), body: Bytes::from(format!("commit {seq}")) }
}

/// The machine under a script: what it says to each input.
struct Script {
    machine: Bridging,
    now: Timestamp,
}

impl Script {
    /// With the barrier at 1.
    fn new() -> Script {
        Script { machine: Bridging::after_barrier(Sequence(1)), now: Timestamp(1_000) }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.machine.input(input, self.now, &mut out);
        out
    }

    fn append(&mut self, seq: u64) -> Vec<Output> {
        self.input(Input::Append { expected: Sequence(seq - 1), body: at(seq).body })
    }

    fn streamed(&mut self, seq: u64) -> Vec<Output> {
        self.input(Input::Streamed { at: Sequence(seq), result: Ok(()) })
    }

    fn bridged(&mut self, seq: u64) -> Vec<Output> {
        self.input(Input::Bridged { at: Sequence(seq), result: Ok(()) })
    }

    fn refused(&mut self, seq: u64, error: BridgeError) -> Vec<Output> {
        self.input(Input::Bridged { at: Sequence(seq), result: Err(error) })
    }

    fn pass(&mut self, ms: u64) -> Vec<Output> {
        self.now = self.now + Millis(ms);
        let mut out = Vec::new();
        self.machine.tick(self.now, &mut out);
        out
    }

    /// Passes the time until the machine wants to be called.
    fn wake(&mut self) -> Vec<Output> {
        let due = self.machine.wake_at().expect("it waits for something");
        let ms = due.since(self.now).0;
        self.pass(ms)
    }

    fn holds(&self) -> Vec<u64> {
        self.machine.bridged().map(|commit| commit.seq.0).collect()
    }
}

fn durable(seq: u64) -> Output {
    Output::Appended { at: Sequence(seq), result: Ok(()) }
}

#[test]
fn a_stream_that_answers_is_all_there_is() {
    let mut script = Script::new();
    for seq in 2..100 {
        assert_eq!(script.append(seq), [Output::ToStream(at(seq))]);
        assert_eq!(script.pass(299), []);
        assert_eq!(script.streamed(seq), [durable(seq)]);
    }
    assert_eq!(script.machine.wake_at(), None);
}

#[test]
fn what_is_overdue_goes_to_the_bridge_and_drains_in_order() {
    let mut script = Script::new();
    script.append(2);
    assert_eq!(script.wake(), [Output::ToBridge(at(2))]);
    assert_eq!(script.pass(10_000), [], "one put at a time");
    assert_eq!(script.bridged(2), [durable(2)]);
    // The stream is known to be out of reach: the next ones go at once.
    assert_eq!(script.append(3), [Output::ToBridge(at(3))]);
    assert_eq!(script.bridged(3), [durable(3)]);
    assert_eq!(script.holds(), [2, 3]);
    // It is back: each follows the one before, and is removed.
    assert_eq!(script.streamed(2), [Output::FromBridge(Sequence(2)), Output::ToStream(at(3))]);
    assert_eq!(script.append(4), [], "not to the bridge, for the stream answers");
    assert_eq!(script.streamed(3), [Output::FromBridge(Sequence(3)), Output::ToStream(at(4))]);
    assert_eq!(script.streamed(4), [durable(4)]);
    assert_eq!(script.holds(), [0; 0]);
}

#[test]
fn a_put_without_an_answer_is_repeated_and_a_late_one_removed() {
    let unanswered = || BridgeError::Unavailable { reason: "slow".to_owned() };
    let mut script = Script::new();
    script.append(2);
    script.wake();
    assert_eq!(script.refused(2, unanswered()), []);
    assert_eq!(script.pass(99), []);
    assert_eq!(script.wake(), [Output::ToBridge(at(2))]);
    // The stream is quicker: it may still come to stand in the bridge, and goes once that is known.
    assert_eq!(script.streamed(2), [durable(2)]);
    assert_eq!(script.refused(2, unanswered()), [Output::FromBridge(Sequence(2))]);
    // Tried, unanswered, and no longer under way.
    script.append(3);
    script.wake();
    script.refused(3, unanswered());
    assert_eq!(script.streamed(3), [durable(3), Output::FromBridge(Sequence(3))]);
}

#[test]
fn a_deposed_leader_waits_for_the_streams_verdict() {
    let mut script = Script::new();
    script.append(2);
    script.wake();
    script.bridged(2);
    script.append(3);
    assert_eq!(script.refused(3, BridgeError::Deposed { term: Term(7) }), []);
    assert_eq!(script.pass(60_000), [], "no put is tried again");
    // Its bridged commit was drained by the next leader, whose barrier then follows.
    assert_eq!(script.streamed(2), [Output::FromBridge(Sequence(2)), Output::ToStream(at(3))]);
    let conflict = AppendError::Conflict { at: Sequence(3) };
    assert_eq!(
        script.input(Input::Streamed { at: Sequence(3), result: Err(conflict.clone()) }),
        [Output::Appended { at: Sequence(3), result: Err(conflict.clone()) }, Output::Over(conflict.clone())]
    );
    assert_eq!(script.append(4), [Output::Appended { at: Sequence(4), result: Err(conflict) }]);
}

#[test]
fn an_idle_leader_learns_that_it_is_over() {
    let mut script = Script::new();
    script.append(2);
    script.wake();
    script.bridged(2);
    let conflict = AppendError::Conflict { at: Sequence(2) };
    let said = script.input(Input::Streamed { at: Sequence(2), result: Err(conflict.clone()) });
    assert_eq!(said, [Output::Over(conflict)]);
}

#[test]
fn another_commit_in_the_bridge_is_the_end() {
    let mut script = Script::new();
    script.append(2);
    script.wake();
    let said = script.refused(2, BridgeError::Occupied { at: Sequence(2) });
    assert!(matches!(&said[..], [Output::Appended { result: Err(_), .. }, Output::Over(_)]), "{said:?}");
}

#[test]
fn the_bridge_is_bounded_and_paced() {
    let mut script = Script::new();
    let begun = script.now;
    for seq in 2.. {
        script.append(seq);
        if script.machine.wake_at().is_none() && script.holds().len() == BRIDGE_COMMITS_MAX {
            break;
        }
        if script.machine.wake_at().is_some() {
            script.wake();
        }
        assert_eq!(script.bridged(seq), [durable(seq)]);
    }
    let lasted = script.now.since(begun);
    assert!(lasted >= Millis(5_000), "under load it was full after {lasted:?}");
    // Full: the next waits for room, which is made by the stream.
    assert_eq!(script.pass(60_000), []);
    assert_eq!(script.streamed(2), [Output::FromBridge(Sequence(2)), Output::ToStream(at(3))]);
    assert_eq!(script.pass(299), [], "the stream answers");
    assert!(matches!(&script.pass(1)[..], [Output::ToBridge(_)]), "or not");

    let mut large = Script::new();
    let body = Bytes::from(vec![0; 1_000_000]);
    let mut held = 0;
    for seq in 1.. {
        large.input(Input::Append { expected: Sequence(seq), body: body.clone() });
        if seq == 1 {
            large.wake();
        }
        if large.bridged(seq + 1).is_empty() {
            break;
        }
        held += body.len();
    }
    assert_eq!(held, 8 * body.len(), "8 MiB hold eight");
}

fn holder() -> Holder {
    Holder { scheduler: "s".parse().expect("a name"), zone: "a".parse().expect("a zone") }
}

#[tokio::test(start_paused = true)]
async fn the_log_goes_on_without_a_stream() {
    let (log, leadership) = (MemoryLog::new(), MemoryLeadership::new(Duration::from_secs(5)));
    let bridge = MemoryBridge::new(&leadership);
    let tenure = leadership.campaign(holder()).await.expect("in reach").expect("vacant");
    log.append(Sequence(0), at(1).body).await.expect("a barrier");
    let bridged =
        BridgedLog::after_barrier(Arc::new(log.clone()), Some(Arc::new(bridge.clone())), tenure.term(), Sequence(1));
    bridged.append(Sequence(1), at(2).body).await.expect("the stream takes it");
    log.set_available(false);
    bridge.lose_answers(1);
    for seq in 3..6 {
        bridged.append(Sequence(seq - 1), at(seq).body).await.expect("the bridge takes it");
    }
    assert_eq!(bridge.contents(), [at(3), at(4), at(5)]);
    assert_eq!(bridged.standing(), Standing { pending: 3, bridged: 3 });
    assert_eq!(bridged.read(Sequence(4), 1_000).await.expect("readable"), [at(4), at(5)]);
    bridged.read(Sequence(2), 1_000).await.expect_err("that one is in the stream alone");
    log.set_available(true);
    bridged.append(Sequence(5), at(6).body).await.expect("the stream takes it");
    assert_eq!(bridged.standing().pending, 0);
    assert_eq!(log.contents(), [at(1), at(2), at(3), at(4), at(5), at(6)]);
    assert_eq!(bridged.read(Sequence(1), 1_000).await.expect("readable"), log.contents());
    while !bridge.contents().is_empty() {
        tokio::task::yield_now().await;
    }
    // Somebody else leads: no puts, and the stream's verdict at last.
    tenure.resign().await;
    log.set_available(false);
    let append = bridged.append(Sequence(6), at(7).body);
    tokio::pin!(append);
    tokio::time::timeout(Duration::from_secs(60), &mut append).await.expect_err("neither place takes it");
    log.intrude(Bytes::from_static(b"another leader's"));
    log.set_available(true);
    assert_eq!(append.await, Err(AppendError::Conflict { at: Sequence(7) }));
    assert_eq!(bridged.over().await, AppendError::Conflict { at: Sequence(7) });
    assert_eq!(bridge.list().await, Ok(vec![]));
}
