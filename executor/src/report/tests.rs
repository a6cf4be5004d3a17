//! Reports: batched, repeated, acknowledged.

use super::*;
use outlive_schemas::checkpoint::{BlobName, Taken};
use outlive_schemas::codec::pack;
use outlive_schemas::event::Cause;
use outlive_schemas::id::{CheckpointNumber, Sequence, Term};
use outlive_schemas::message::Released;
use outlive_schemas::payload::Payload;
use uuid::Uuid;

fn job(number: u128) -> JobId {
    JobId(Uuid::from_u128(number))
}

fn ended(ran_ms: Option<u64>, result_bytes: usize) -> News {
    let result = (result_bytes > 0).then(|| Payload(vec![7; result_bytes].into()));
    News::Ended(Ended { outcome: Outcome::Exited { code: 0 }, ran_ms, result })
}

fn taken() -> Taken {
    let manifest = BlobName([0xff; 32]);
    let most = u64::MAX;
    Taken { manifest, size_bytes: most, uploaded_bytes: most, files: most, duration_ms: most, pause_ms: most }
}

fn batch(outbox: &mut Outbox, now_ms: u64) -> Option<ReportBatch> {
    let told = Told { term: Term(1), seq: Sequence(5), before: Sequence(0) };
    outbox.next_batch(ExecutorId(Uuid::from_u128(9)), told, now_ms)
}

fn kinds(batch: &ReportBatch) -> Vec<&'static str> {
    let kind = |report: &Report| match report.news {
        News::Started => "started",
        News::Checkpoint(_) => "checkpoint",
        News::CheckpointFailed { .. } => "checkpoint failed",
        News::Ended(_) => "ended",
        News::Missing => "missing",
        News::ReleaseFailed { .. } => "release failed",
        News::Snapshot { .. } => "snapshot",
        News::SnapshotFailed { .. } => "snapshot failed",
    };
    batch.reports.iter().map(kind).collect()
}

#[test]
fn one_batch_at_a_time_and_what_comes_meanwhile_fills_the_next() {
    let mut outbox = Outbox::default();
    assert_eq!(batch(&mut outbox, 0), None);
    outbox.push(job(1), Attempt(1), 10, News::Started);
    let first = batch(&mut outbox, 15).expect("a batch");
    assert_eq!((first.seq_seen, first.reports[0].age_ms), (Sequence(5), 5));
    outbox.push(job(2), Attempt(1), 16, News::Started);
    outbox.push(job(3), Attempt(1), 17, News::Started);
    assert_eq!(batch(&mut outbox, 20), None);
    assert_eq!(outbox.answered().len(), 1);
    assert_eq!(batch(&mut outbox, 30).expect("a batch").reports.len(), 2);
}

#[test]
fn what_is_not_answered_is_sent_again_as_it_was() {
    let mut outbox = Outbox::default();
    outbox.push(job(1), Attempt(1), 10, News::Started);
    let first = batch(&mut outbox, 10).expect("a batch");
    // This would have made the start superfluous, had it not been sent.
    outbox.push(job(1), Attempt(1), 20, ended(Some(10), 0));
    outbox.unanswered();
    let again = batch(&mut outbox, 1_010).expect("the batch again");
    assert_eq!(again.reports[0].age_ms, 1_000);
    let without_age = |mut batch: ReportBatch| {
        batch.reports.iter_mut().for_each(|report| report.age_ms = 0);
        batch
    };
    assert_eq!(without_age(first), without_age(again));
    assert_eq!(outbox.answered().len(), 1);
    assert_eq!(kinds(&batch(&mut outbox, 2_000).expect("the rest")), ["ended"]);
}

#[test]
fn a_start_and_an_end_in_one_batch_are_one_report() {
    let mut outbox = Outbox::default();
    outbox.push(job(1), Attempt(1), 0, News::Started);
    outbox.push(job(2), Attempt(1), 0, News::Started);
    outbox.push(job(1), Attempt(1), 1, ended(Some(1), 0));
    // Of another attempt.
    outbox.push(job(2), Attempt(2), 1, ended(None, 0));
    assert_eq!(kinds(&batch(&mut outbox, 2).expect("a batch")), ["started", "ended", "ended"]);
    outbox.answered();
    // A checkpoint in between is of a job that runs.
    outbox.push(job(3), Attempt(1), 3, News::Started);
    outbox.push(job(3), Attempt(1), 4, News::Checkpoint(taken()));
    outbox.push(job(3), Attempt(1), 5, ended(Some(2), 0));
    assert_eq!(kinds(&batch(&mut outbox, 6).expect("a batch")), ["started", "checkpoint", "ended"]);
}

#[test]
fn batches_stay_within_both_limits_and_in_order() {
    let mut outbox = Outbox::default();
    let count = limits::MESSAGE_ITEMS_MAX * 2 + 1;
    for number in 0..count {
        outbox.push(job(number as u128), Attempt(1), 0, ended(Some(0), 0));
    }
    let mut seen = Vec::new();
    while let Some(batch) = batch(&mut outbox, 0) {
        assert!(batch.reports.len() <= limits::MESSAGE_ITEMS_MAX);
        assert!(pack(&batch).len() <= limits::MESSAGE_BYTES_MAX);
        seen.extend(batch.reports.iter().map(|report| report.job));
        outbox.answered();
    }
    assert_eq!(seen, (0..count).map(|number| job(number as u128)).collect::<Vec<_>>());
    for number in 0..7 {
        outbox.push(job(number), Attempt(1), 0, ended(Some(0), limits::RESULT_BYTES_MAX));
    }
    let mut batches = 0;
    while let Some(batch) = batch(&mut outbox, 0) {
        assert!(pack(&batch).len() <= limits::MESSAGE_BYTES_MAX);
        batches += 1;
        outbox.answered();
    }
    assert_eq!(batches, 4, "two results of 256 KiB to a message of 768 KiB, names and numbers beside them");
}

#[test]
fn the_estimate_of_a_reports_size_is_never_too_low() {
    let reason = "ä".repeat(limits::REASON_BYTES_MAX / 2);
    let outcome = Outcome::RestoreFailed { number: CheckpointNumber(u64::MAX), reason: reason.as_str().into() };
    let given_back = Outcome::Released(Released {
        cause: Cause::HostDegraded,
        checkpoint: Some(taken()),
        fault: Some(reason.as_str().into()),
    });
    let news = [
        News::Started,
        News::Missing,
        News::Checkpoint(taken()),
        News::CheckpointFailed { reason: reason.as_str().into() },
        ended(Some(u64::MAX), 1_000),
        News::Ended(Ended { outcome, ran_ms: Some(u64::MAX), result: None }),
        News::Ended(Ended { outcome: given_back, ran_ms: Some(u64::MAX), result: None }),
        News::ReleaseFailed { reason: reason.as_str().into() },
    ];
    for news in news {
        let estimate = size(&news);
        let report = Report { job: JobId(Uuid::max()), attempt: Attempt(u32::MAX), age_ms: u64::MAX, news };
        assert!(pack(&report).len() <= estimate, "{} > {estimate} for {report:?}", pack(&report).len());
    }
}

#[test]
fn a_missing_attempt_is_reported_once_until_that_is_answered() {
    let mut outbox = Outbox::default();
    outbox.push(job(1), Attempt(1), 0, News::Missing);
    outbox.push(job(1), Attempt(1), 1, News::Missing);
    assert_eq!(batch(&mut outbox, 2).expect("a batch").reports.len(), 1);
    outbox.push(job(1), Attempt(1), 3, News::Missing);
    outbox.answered();
    assert!(outbox.is_empty());
    outbox.push(job(1), Attempt(1), 4, News::Missing);
    assert_eq!(outbox.len(), 1);
}

#[test]
fn what_nobody_wants_to_hear_is_taken_back() {
    let mut outbox = Outbox::default();
    outbox.push(job(1), Attempt(1), 0, News::Started);
    outbox.push(job(2), Attempt(1), 0, News::Missing);
    outbox.push(job(3), Attempt(1), 0, News::Started);
    outbox.withdraw(&BTreeSet::from([(job(1), Attempt(1)), (job(2), Attempt(1))]));
    assert_eq!(outbox.len(), 1);
    outbox.push(job(2), Attempt(1), 1, News::Missing);
    assert_eq!(outbox.len(), 2, "it may be missing again");
}

#[test]
fn too_much_unanswered_is_noticed() {
    let mut outbox = Outbox::default();
    for number in 0..limits::REPORTS_HELD_MAX {
        assert!(!outbox.is_full());
        outbox.push(job(number as u128), Attempt(1), 0, News::Started);
    }
    assert!(outbox.is_full());
    batch(&mut outbox, 0).expect("a batch");
    assert!(outbox.is_full(), "what is under way counts");
    outbox.answered();
    assert!(!outbox.is_full());
}
