//! What every log must do, as one suite of checks. Each implementation's tests run it; it panics at the first breach.

use super::{AppendError, CommitLog, ReadError, Stored};
use bytes::Bytes;
use futures::StreamExt as _;
use outlive_schemas::id::Sequence;
use outlive_schemas::limits::COMMIT_SEALED_BYTES_MAX;
use std::time::Duration;

/// How long anything may take that should come at once: generous, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that a read may bring where the check does not care.
const PLENTY: usize = 8 * 1024 * 1024;

/// Runs every check. `make` gives two handles on one log that is fresh and empty each time.
pub async fn conformance<L: CommitLog>(make: impl AsyncFn() -> (L, L)) {
    an_empty_log_has_nothing(&make().await.0).await;
    what_is_appended_is_read_back(&make().await.0).await;
    the_fence_holds(&make().await).await;
    the_same_bytes_are_stored_once(&make().await).await;
    reads_are_in_order_and_bounded(&make().await.0).await;
    purging_takes_from_the_front_only(&make().await.0).await;
    the_tail_shows_what_is_stored(&make().await).await;
    size_is_limited(&make().await.0).await;
    two_writers_neither_lose_nor_double(&make().await).await;
}

fn body(text: impl ToString) -> Bytes {
    Bytes::from(text.to_string())
}

/// Appends numbered bodies behind `last`.
async fn fill(log: &impl CommitLog, last: u64, count: u64) {
    for seq in last..last + count {
        log.append(Sequence(seq), body(format!("body {}", seq + 1))).await.expect("an append to a log of our own");
    }
}

/// Everything from `from` on, by as many reads as it takes.
async fn read_all(log: &impl CommitLog, from: Sequence, max_bytes: usize) -> Vec<Stored> {
    let mut found: Vec<Stored> = Vec::new();
    loop {
        let next = found.last().map_or(from, |stored| stored.seq.next());
        let more = log.read(next, max_bytes).await.expect("a read");
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn assert_contiguous(found: &[Stored], from: u64) {
    let positions: Vec<u64> = found.iter().map(|stored| stored.seq.0).collect();
    let wanted: Vec<u64> = (from..from + found.len() as u64).collect();
    assert_eq!(positions, wanted, "reads are in order and without gaps");
}

async fn an_empty_log_has_nothing(log: &impl CommitLog) {
    let extent = log.extent().await.expect("the extent");
    assert_eq!((extent.first, extent.last, extent.bytes), (Sequence(1), Sequence(0), 0));
    assert_eq!(log.read(Sequence(1), PLENTY).await.expect("a read"), []);
    assert_eq!(log.read(Sequence(0), PLENTY).await.expect("a read"), []);
    assert_eq!(log.read(Sequence(1_000), PLENTY).await.expect("a read"), []);
}

async fn what_is_appended_is_read_back(log: &impl CommitLog) {
    let every_byte: Vec<u8> = (0..=255).collect();
    log.append(Sequence(0), every_byte.clone().into()).await.expect("an append");
    log.append(Sequence(1), body("second")).await.expect("an append");
    let found = read_all(log, Sequence(1), PLENTY).await;
    assert_contiguous(&found, 1);
    assert_eq!(found[0].body, every_byte);
    assert_eq!(found[1].body, "second");
    let extent = log.extent().await.expect("the extent");
    assert_eq!((extent.first, extent.last), (Sequence(1), Sequence(2)));
    assert!(extent.bytes >= 262, "{extent:?}");
}

async fn the_fence_holds((one, two): &(impl CommitLog, impl CommitLog)) {
    fill(one, 0, 3).await;
    for expected in 0..3 {
        let conflict = two.append(Sequence(expected), body("late")).await.expect_err("the position is taken");
        assert!(matches!(conflict, AppendError::Conflict { at } if at.0 == expected + 1), "{conflict:?}");
    }
    two.append(Sequence(3), body("in time")).await.expect("the end is free for anybody");
    let conflict = one.append(Sequence(3), body("deposed")).await.expect_err("deposed");
    assert!(matches!(conflict, AppendError::Conflict { at: Sequence(4) }), "{conflict:?}");
    assert_eq!(read_all(one, Sequence(1), PLENTY).await.len(), 4);
}

async fn the_same_bytes_are_stored_once((one, two): &(impl CommitLog, impl CommitLog)) {
    fill(one, 0, 2).await;
    for _ in 0..3 {
        one.append(Sequence(1), body("body 2")).await.expect("it stands there already");
        two.append(Sequence(1), body("body 2")).await.expect("whoever asks");
    }
    fill(one, 2, 2).await;
    one.append(Sequence(1), body("body 2")).await.expect("even when the log has gone on");
    // The same bytes for another position are not the same append.
    let conflict = one.append(Sequence(2), body("body 2")).await.expect_err("another one stands there");
    assert!(matches!(conflict, AppendError::Conflict { at: Sequence(3) }), "{conflict:?}");
    let found = read_all(one, Sequence(1), PLENTY).await;
    assert_eq!(found.len(), 4, "{found:?}");
}

async fn reads_are_in_order_and_bounded(log: &impl CommitLog) {
    fill(log, 0, 50).await;
    let some = log.read(Sequence(11), PLENTY).await.expect("a read");
    assert_contiguous(&some, 11);
    assert_eq!(some[0].body, "body 11");

    // The bound is about bytes as stored, headers included: so it is a bound from above, and never stops a reader.
    let bounded = log.read(Sequence(1), 64).await.expect("a read");
    assert_contiguous(&bounded, 1);
    assert!((1..=10).contains(&bounded.len()), "{} messages in about 64 bytes", bounded.len());
    assert_eq!(log.read(Sequence(1), 1).await.expect("a read").len(), 1, "a tiny bound still brings one");

    for max_bytes in [1, 100, PLENTY] {
        let all = read_all(log, Sequence(1), max_bytes).await;
        assert_contiguous(&all, 1);
        assert_eq!(all.len(), 50, "by {max_bytes} bytes");
    }
}

async fn purging_takes_from_the_front_only(log: &impl CommitLog) {
    fill(log, 0, 10).await;
    log.purge_below(Sequence(4)).await.expect("a purge");
    let extent = log.extent().await.expect("the extent");
    assert_eq!((extent.first, extent.last), (Sequence(4), Sequence(10)));
    let purged = log.read(Sequence(3), PLENTY).await.expect_err("let go of");
    assert!(matches!(purged, ReadError::Purged { wanted: Sequence(3), first: Sequence(4) }), "{purged:?}");
    let found = read_all(log, Sequence(4), PLENTY).await;
    assert_contiguous(&found, 4);
    assert_eq!(found.len(), 7);
    let conflict = log.append(Sequence(1), body("very late")).await.expect_err("long gone");
    assert!(matches!(conflict, AppendError::Conflict { at: Sequence(2) }), "{conflict:?}");

    log.purge_below(Sequence(2)).await.expect("what is gone is gone");
    log.purge_below(Sequence(1_000)).await.expect("more than there is");
    let extent = log.extent().await.expect("the extent");
    assert_eq!((extent.first, extent.last), (Sequence(10), Sequence(10)), "the newest stays");
    fill(log, 10, 2).await;
    assert_contiguous(&read_all(log, Sequence(10), PLENTY).await, 10);
}

async fn the_tail_shows_what_is_stored((one, two): &(impl CommitLog, impl CommitLog)) {
    fill(one, 0, 2).await;
    let mut tail = two.tail().await.expect("a tail");
    // What is read after the tail began overlaps with it, so nothing is missed between the two.
    let known = read_all(two, Sequence(1), PLENTY).await;
    assert_contiguous(&known, 1);
    fill(one, 2, 20).await;
    let mut last = known.last().map_or(Sequence(0), |stored| stored.seq);
    while last < Sequence(22) {
        let next = tokio::time::timeout(PATIENCE, tail.next()).await.expect("in time").expect("a tail goes on");
        assert_eq!(next.body, body(format!("body {}", next.seq)));
        assert!(next.seq <= last.next(), "nothing is skipped in a quiet place: {} after {last}", next.seq);
        last = last.max(next.seq);
    }
}

async fn size_is_limited(log: &impl CommitLog) {
    let largest = Bytes::from(vec![0xa5; COMMIT_SEALED_BYTES_MAX]);
    log.append(Sequence(0), largest.clone()).await.expect("the largest");
    let larger = Bytes::from(vec![0xa5; COMMIT_SEALED_BYTES_MAX + 1]);
    let refused = log.append(Sequence(1), larger).await.expect_err("over the limit");
    assert!(matches!(refused, AppendError::Refused { .. }), "{refused:?}");
    for seq in 1..8u64 {
        let mut large = vec![0; COMMIT_SEALED_BYTES_MAX];
        large[..8].copy_from_slice(&seq.to_be_bytes());
        log.append(Sequence(seq), large.into()).await.expect("after a refusal");
    }
    let found = read_all(log, Sequence(1), 3 * COMMIT_SEALED_BYTES_MAX).await;
    assert_contiguous(&found, 1);
    assert_eq!((found.len(), &found[0].body), (8, &largest));
}

/// Appends until `count` of its own are stored, giving way to the other each time.
async fn compete(log: &impl CommitLog, name: &str, count: usize) -> Vec<(Sequence, Bytes)> {
    let mut stored = Vec::new();
    let mut last = Sequence(0);
    while stored.len() < count {
        let mine = body(format!("{name} {}", stored.len()));
        match log.append(last, mine.clone()).await {
            Ok(()) => {
                last = last.next();
                stored.push((last, mine));
            }
            Err(AppendError::Conflict { at }) => {
                assert_eq!(at, last.next());
                let seen = read_all(log, at, PLENTY).await;
                last = seen.last().map_or(last, |stored| stored.seq);
            }
            Err(refused) => panic!("{name}: {refused}"),
        }
        // Let the other one in.
        tokio::task::yield_now().await;
    }
    stored
}

async fn two_writers_neither_lose_nor_double((one, two): &(impl CommitLog, impl CommitLog)) {
    let (ones, twos) = futures::join!(compete(one, "one", 100), compete(two, "two", 100));
    let found = read_all(one, Sequence(1), PLENTY).await;
    assert_contiguous(&found, 1);
    let mut acknowledged: Vec<(Sequence, Bytes)> = ones.into_iter().chain(twos).collect();
    acknowledged.sort();
    let found: Vec<(Sequence, Bytes)> = found.into_iter().map(|stored| (stored.seq, stored.body)).collect();
    assert_eq!(found, acknowledged, "what was acknowledged is there, once, where it was acknowledged");
}
