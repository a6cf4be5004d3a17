//! The log in memory, and its faults.

use super::*;
use crate::log::conformance::conformance;

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn texts(log: &MemoryLog) -> Vec<String> {
    log.contents().iter().map(|stored| String::from_utf8_lossy(&stored.body).into_owned()).collect()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    conformance(async || {
        let log = MemoryLog::new();
        (log.clone(), log)
    })
    .await;
}

#[tokio::test]
async fn a_lost_acknowledgement_neither_loses_nor_doubles() {
    let log = MemoryLog::new();
    log.lose_acks(1);
    log.append(Sequence(0), body("a")).await.expect("stored");
    log.lose_acks(1);
    log.lose_publishes(3);
    log.append(Sequence(1), body("b")).await.expect("stored");
    assert_eq!(texts(&log), ["a", "b"]);
}

#[tokio::test]
async fn a_lost_acknowledgement_after_the_duplicate_window_is_settled_by_reading() {
    let log = MemoryLog::new();
    log.append(Sequence(0), body("a")).await.expect("stored");
    log.forget_message_ids();
    log.append(Sequence(0), body("a")).await.expect("stands there");
    assert_eq!(texts(&log), ["a"]);
}

#[tokio::test]
async fn delayed_copies_change_nothing() {
    let log = MemoryLog::new();
    log.delay_copies(2);
    log.append(Sequence(0), body("a")).await.expect("stored");
    log.append(Sequence(1), body("b")).await.expect("stored");
    log.forget_message_ids();
    assert_eq!(log.deliver_delayed(), 0);
    assert_eq!(texts(&log), ["a", "b"]);
}

#[tokio::test]
async fn a_publish_that_comes_late_is_the_one_that_is_stored_once() {
    let log = MemoryLog::new();
    log.delay_copies(1);
    log.set_available(true);
    log.lose_publishes(1);
    let mut append = Box::pin(log.append(Sequence(0), body("a")));
    // The first try is lost on its way, and the append waits for its turn to try again.
    assert!(futures::poll!(&mut append).is_pending());
    assert_eq!(log.deliver_delayed(), 1);
    append.await.expect("stored by the late copy");
    assert_eq!(texts(&log), ["a"]);
}

#[tokio::test]
async fn an_intruder_deposes_the_writer() {
    let log = MemoryLog::new();
    log.append(Sequence(0), body("a")).await.expect("stored");
    assert_eq!(log.intrude(body("x")), Sequence(2));
    let conflict = log.append(Sequence(1), body("b")).await.expect_err("deposed");
    assert!(matches!(conflict, AppendError::Conflict { at: Sequence(2) }));
    // Even where the first try was stored unnoticed, somebody else's message at the place decides.
    log.lose_publishes(1);
    let mut append = Box::pin(log.append(Sequence(2), body("c")));
    assert!(futures::poll!(&mut append).is_pending());
    log.intrude(body("y"));
    assert!(matches!(append.await, Err(AppendError::Conflict { at: Sequence(3) })));
    assert_eq!(texts(&log), ["a", "x", "y"]);
}

#[tokio::test]
async fn while_unavailable_appends_wait_and_reads_fail() {
    let log = MemoryLog::new();
    log.set_available(false);
    let mut append = Box::pin(log.append(Sequence(0), body("a")));
    assert!(futures::poll!(&mut append).is_pending());
    assert!(matches!(log.read(Sequence(1), 100).await, Err(ReadError::Unavailable { .. })));
    assert!(matches!(log.extent().await, Err(ReadError::Unavailable { .. })));
    assert!(log.tail().await.is_err());
    log.set_available(true);
    append.await.expect("stored");
    assert_eq!(texts(&log), ["a"]);
}

#[tokio::test]
async fn a_replica_that_is_behind_shows_less() {
    let log = MemoryLog::new();
    log.append(Sequence(0), body("a")).await.expect("stored");
    log.append(Sequence(1), body("b")).await.expect("stored");
    log.set_reads_end(Some(Sequence(1)));
    assert_eq!(log.read(Sequence(1), 100).await.expect("read").len(), 1);
    assert_eq!(log.read(Sequence(2), 100).await.expect("read"), []);
    assert_eq!(log.extent().await.expect("extent").last, Sequence(1));
    log.append(Sequence(2), body("c")).await.expect("the fence is not behind");
}

#[tokio::test]
async fn losses_show() {
    let log = MemoryLog::new();
    for (seq, text) in ["a", "b", "c"].into_iter().enumerate() {
        log.append(Sequence(seq as u64), body(text)).await.expect("stored");
    }
    log.replace(Sequence(1), body("z"));
    log.lose_tail(Sequence(2));
    assert_eq!(texts(&log), ["z", "b"]);
    let refused = log.append(Sequence(3), body("d")).await.expect_err("behind").to_string();
    assert!(refused.contains("ends at 2, before 3"), "{refused}");
    log.set_bytes_max(Some(2));
    let refused = log.append(Sequence(2), body("d")).await.expect_err("full").to_string();
    assert!(refused.contains("full"), "{refused}");
}
