//! Frames: sealed, chained, and every way of being wrong.

use super::*;
use crate::seal::{KeyId, OpenError};
use outlive_schemas::event::{AttemptStarted, Envelope, Event, TermStarted};
use outlive_schemas::id::{Attempt, JobId, Sequence, Term};
use outlive_schemas::limits::{COMMIT_OPENED_BYTES_MAX, COMMIT_SEALED_BYTES_MAX};
use outlive_schemas::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

fn log_key() -> Key {
    Key::from_bytes([7; 32])
}

fn started(number: u64) -> Envelope {
    let job = JobId(Uuid::from_u128(u128::from(number) << 64 | 0x7000_8000_0000_0000_0000));
    let started_at = Timestamp(1_767_225_600_000 + number);
    Envelope {
        at: started_at,
        by: None,
        event: Event::AttemptStarted(AttemptStarted { job, attempt: Attempt(1), started_at }),
    }
}

fn place(expected: u64, previous: ChainHash) -> Place {
    Place { shard: 0, expected: Sequence(expected), term: Term(3), previous }
}

fn sealed(events: &[Envelope]) -> Sealed {
    seal_commit(&log_key(), place(4, ChainHash([9; 32])), events).expect("a small commit")
}

fn open(body: &[u8]) -> Result<Commit, FrameError> {
    FrameOpener::new([&log_key()]).open(body, Sequence(4), ChainHash([9; 32]))
}

#[test]
fn a_chain_of_commits_reads_back() {
    let (mut sealer, mut opener) = (FrameSealer::new(&log_key()), FrameOpener::new([&log_key()]));
    let (mut written, mut read) = (ChainHash::START, ChainHash::START);
    for expected in 0..20u64 {
        let events: Vec<Envelope> = (0..expected * 7).map(started).collect();
        let sealed = sealer.seal(place(expected, written), &events.iter().collect()).expect("sealed");
        let commit = opener.open(&sealed.body, Sequence(expected), read).expect("opened");
        assert_eq!(commit.events, events);
        assert_eq!(commit.header.term, Term(3));
        assert_eq!(commit.header.events as usize, events.len());
        (written, read) = (sealed.chain, commit.chain);
        assert_eq!(written, read);
    }
}

#[test]
fn the_same_commit_gives_the_same_bytes_and_another_one_another_nonce() {
    let nonce = |body: &[u8]| body[HEADER_BYTES..HEADER_BYTES + 24].to_vec();
    let one = sealed(&[started(1)]);
    assert_eq!(one, sealed(&[started(1)]));
    assert_ne!(nonce(&one.body), nonce(&sealed(&[started(2)]).body));
    let elsewhere = seal_commit(&log_key(), place(5, ChainHash([9; 32])), &[started(1)]).expect("sealed");
    assert_ne!(nonce(&one.body), nonce(&elsewhere.body));
}

#[test]
fn what_stands_in_a_wrong_place_is_named() {
    let body = sealed(&[started(1)]).body;
    let mut opener = FrameOpener::new([&log_key()]);
    assert_eq!(
        opener.open(&body, Sequence(5), ChainHash([9; 32])),
        Err(FrameError::WrongPosition { at: Sequence(6), expected: Sequence(4) })
    );
    assert_eq!(
        opener.open(&body, Sequence(4), ChainHash([8; 32])),
        Err(FrameError::ChainBroken { at: Sequence(5), previous: ChainHash([8; 32]), found: ChainHash([9; 32]) })
    );
}

#[test]
fn keys_are_looked_up_by_their_id() {
    let body = sealed(&[started(1)]).body;
    let other = Key::from_bytes([8; 32]);
    let mut opener = FrameOpener::new([&other]);
    let unknown = FrameError::UnknownKey { at: Sequence(5), key: log_key().id() };
    assert_eq!(opener.open(&body, Sequence(4), ChainHash([9; 32])), Err(unknown.clone()));
    opener.add(&log_key());
    assert!(opener.knows(log_key().id()) && opener.open(&body, Sequence(4), ChainHash([9; 32])).is_ok());

    let known = |id: KeyId| (id == log_key().id()).then(log_key);
    assert!(open_commit(known, &body, Sequence(4), ChainHash([9; 32])).is_ok());
    assert_eq!(open_commit(|_| None, &body, Sequence(4), ChainHash([9; 32])), Err(unknown));
}

#[test]
fn what_is_no_commit_of_this_version_is_named() {
    let body = sealed(&[started(1)]).body.to_vec();
    assert_eq!(open(b""), Err(FrameError::TooShort { at: Sequence(5), bytes: 0 }));
    assert_eq!(open(&body[..HEADER_BYTES]), Err(FrameError::TooShort { at: Sequence(5), bytes: HEADER_BYTES }));
    assert_eq!(open(&[b'x'; 200]), Err(FrameError::NotACommit { at: Sequence(5) }));
    let mut newer = body;
    newer[3] = 2;
    let refused = open(&newer).expect_err("newer");
    assert_eq!(refused, FrameError::UnknownFormat { at: Sequence(5), format: 2 });
    assert!(refused.to_string().contains("newer version"), "{refused}");
}

#[test]
fn each_altered_byte_is_noticed() {
    let good = sealed(&(0..3).map(started).collect::<Vec<_>>()).body;
    for at in 0..good.len() {
        let mut body = good.to_vec();
        body[at] ^= 0x10;
        let refused = open(&body).expect_err("altered");
        if at >= HEADER_BYTES {
            assert_eq!(refused, FrameError::SealBroken { at: Sequence(5), source: OpenError::Broken }, "byte {at}");
        }
        assert!(open(&good[..at]).is_err(), "{at} bytes");
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert!(open(&longer).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&bytes).is_err());
        let mut framed = b"OLC\x01".to_vec();
        framed.extend(&bytes);
        prop_assert!(open(&framed).is_err());
    }
}

/// Seals bytes of our choice as the contents: what only somebody with the key could do, such as another version.
fn forged(events: u32, packed: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        format: FORMAT,
        shard: 0,
        expected: Sequence(4),
        term: Term(3),
        key: log_key().id(),
        previous: ChainHash([9; 32]),
        events,
    };
    let mut body = header.encode().to_vec();
    let cipher = crate::seal::cipher(&cipher_key(&log_key()));
    crate::seal::seal_onto(&cipher, &[1; 24], &header.encode(), packed, &mut body);
    body
}

fn packed(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 1).expect("compressed")
}

#[test]
fn another_versions_event_is_named_and_never_skipped() {
    let event = serde_json::json!([{"at": 1, "event": {"job_teleported/7": {"job": 1}}}]);
    let body = forged(1, &packed(&rmp_serde::to_vec_named(&event).expect("packed")));
    let refused = open(&body).expect_err("unknown").to_string();
    assert!(refused.contains("at 5") && refused.contains("job_teleported/7"), "{refused}");
    assert!(refused.len() < 500, "{refused}");
}

#[test]
fn contents_that_do_not_fit_their_header_are_refused() {
    let two = rmp_serde::to_vec_named(&[started(1), started(2)]).expect("packed");
    assert_eq!(open(&forged(2, &packed(&two))).expect("well formed").events.len(), 2);
    assert_eq!(open(&forged(3, &packed(&two))), Err(FrameError::WrongCount { at: Sequence(5), said: 3, held: 2 }));
    let trailing = [two.as_slice(), b"\x01"].concat();
    assert!(matches!(open(&forged(2, &packed(&trailing))), Err(FrameError::UndecodableEvent { .. })));
    let cut = &two[..two.len() - 1];
    assert!(matches!(open(&forged(2, &packed(cut))), Err(FrameError::UndecodableEvent { .. })));
    assert!(matches!(open(&forged(0, b"not zstd")), Err(FrameError::Compression { .. })));
    let mut broken = packed(&two);
    broken.truncate(broken.len() - 4);
    assert!(matches!(open(&forged(2, &broken)), Err(FrameError::Compression { .. })));
    // An array that claims four thousand million events and holds none.
    assert!(matches!(open(&forged(1, &packed(b"\xdd\xff\xff\xff\xff"))), Err(FrameError::UndecodableEvent { .. })));
}

#[test]
fn a_bomb_is_refused_before_it_is_opened() {
    let bytes = COMMIT_OPENED_BYTES_MAX + 1;
    let bomb = packed(&vec![0; bytes]);
    assert!(bomb.len() < COMMIT_SEALED_BYTES_MAX);
    assert_eq!(open(&forged(1, &bomb)), Err(FrameError::TooLarge { at: Sequence(5), bytes: bytes as u64 }));
}

fn version_of(bytes: usize, random: bool) -> Envelope {
    let noise = blake3::Hasher::new().finalize_xof();
    let mut text = vec![b'a'; bytes];
    if random {
        let mut noise = noise;
        noise.fill(&mut text);
        text.iter_mut().for_each(|byte| *byte = b' ' + *byte % 95);
    }
    let event = Event::TermStarted(TermStarted {
        term: Term(1),
        scheduler: "s".parse().expect("a name"),
        zone: "a".parse().expect("a name"),
        version: std::str::from_utf8(&text).expect("text").into(),
    });
    Envelope { at: Timestamp(1), by: None, event }
}

#[test]
fn what_does_not_fit_is_refused_when_it_is_sealed() {
    let seal = |event: &Envelope| seal_commit(&log_key(), place(0, ChainHash::START), std::slice::from_ref(event));
    assert!(matches!(seal(&version_of(COMMIT_OPENED_BYTES_MAX, false)), Err(SealError::TooLarge { .. })));
    assert!(matches!(seal(&version_of(2 << 20, true)), Err(SealError::SealedTooLarge { .. })));
    assert!(seal(&version_of(1 << 20, false)).is_ok());
    // The largest that a submission may be fits, however badly it compresses.
    assert!(seal(&version_of(outlive_schemas::limits::SUBMISSION_BYTES_MAX, true)).is_ok());
}

#[test]
fn a_batch_knows_its_size() {
    let mut batch = Batch::default();
    assert!(batch.is_empty());
    let one = batch.push(&started(1));
    assert_eq!(one, rmp_serde::to_vec_named(&started(1)).expect("packed").len());
    assert!(batch.push(&started(2)) > one && batch.events() == 2 && batch.bytes() > one);
    batch.clear();
    assert_eq!(batch, Batch::default());
}

/// What the committed fixture holds: sealed once with [`log_key`], and never again.
fn golden_events() -> Vec<Envelope> {
    let barrier = Event::TermStarted(TermStarted {
        term: Term(3),
        scheduler: "scheduler-a".parse().expect("a name"),
        zone: "a".parse().expect("a name"),
        version: "0.1.0".into(),
    });
    let barrier = Envelope { at: Timestamp(1_767_225_600_123), by: Some("somebody".into()), event: barrier };
    std::iter::once(barrier).chain((1..4).map(started)).collect()
}

#[test]
fn a_commit_that_was_ever_written_can_be_read() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/commit-1.bin");
    if !file.exists() && std::env::var("OUTLIVE_GOLDEN_NEW").is_ok_and(|new| new == "1") {
        std::fs::write(&file, sealed(&golden_events()).body).expect("a new golden file");
    }
    let body = std::fs::read(&file).unwrap_or_else(|error| {
        panic!(
            "{}: {error}. Take the file from the history; only for a NEW format that was never released, write it by \
             running this test with OUTLIVE_GOLDEN_NEW=1",
            file.display()
        )
    });
    let commit = open(&body).expect("what was written once can be read for ever");
    let previous = ChainHash([9; 32]);
    let (expected, term, key) = (Sequence(4), Term(3), log_key().id());
    assert_eq!(commit.header, FrameHeader { format: 1, shard: 0, expected, term, key, previous, events: 4 });
    assert_eq!(commit.events, golden_events());
    assert_eq!(commit.chain.to_string(), "5cb474b0224a732abf17016b8f253afa3adc510f67c37033fa818b6381248d2f");
}

/// The three events of a noop job's life, which is most of what a busy log holds.
fn lives(count: u64) -> Vec<Envelope> {
    use outlive_schemas::event::{JobFinished, JobPlaced, JobSubmitted};
    use outlive_schemas::job::{Driver, JobSpec, NoopSpec};
    let executor = outlive_schemas::id::ExecutorId(Uuid::from_u128(7));
    (0..count)
        .flat_map(|number| {
            let start = started(number);
            let Event::AttemptStarted(AttemptStarted { job, attempt, started_at }) = start.event else {
                unreachable!()
            };
            let submitted = Event::JobSubmitted(JobSubmitted {
                job,
                namespace: "default".parse().expect("a name"),
                request_id: Some(compact_str::format_compact!("request-{number}")),
                spec: std::sync::Arc::new(JobSpec::new(Driver::Noop(NoopSpec {}))),
            });
            let placed = Event::JobPlaced(JobPlaced {
                job,
                attempt,
                executor,
                name: "executor-a-1".parse().expect("a name"),
                zone: "a".parse().expect("a name"),
                restore: None,
            });
            let finished = Event::JobFinished(JobFinished {
                job,
                attempt,
                status: outlive_schemas::view::Status::Succeeded,
                reason: None,
                exit_code: None,
                started_at: Some(started_at),
                result: None,
                request_id: None,
            });
            [submitted, placed, finished].map(|event| Envelope { at: started_at, by: None, event })
        })
        .collect()
}

/// No test: prints how fast commits are sealed and opened.
#[test]
#[ignore = "prints figures; run with --ignored --nocapture, optimised"]
fn speed() {
    let events = lives(666);
    let (mut sealer, mut opener) = (FrameSealer::new(&log_key()), FrameOpener::new([&log_key()]));
    let rounds = 300;
    let timed = |what: &str, mut work: Box<dyn FnMut() + '_>| {
        work();
        let begun = std::time::Instant::now();
        (0..rounds).for_each(|_| work());
        let each = begun.elapsed().as_secs_f64() / f64::from(rounds);
        println!("{what}: {:.3} ms, {:.0} events/s", each * 1e3, events.len() as f64 / each);
    };
    let batch: Batch = events.iter().collect();
    let body = sealer.seal(place(4, ChainHash::START), &batch).expect("sealed").body;
    println!("{} events, {} bytes encoded, {} sealed", events.len(), batch.bytes(), body.len());
    timed("encode", Box::new(|| drop(events.iter().collect::<Batch>())));
    timed("seal", Box::new(|| drop(sealer.seal(place(4, ChainHash::START), &batch))));
    timed("seal_commit", Box::new(|| drop(seal_commit(&log_key(), place(4, ChainHash::START), &events))));
    timed("open", Box::new(|| drop(opener.open(&body, Sequence(4), ChainHash::START))));
    let fresh = || drop(open_commit(|_| Some(log_key()), &body, Sequence(4), ChainHash::START));
    timed("open_commit", Box::new(fresh));
    let plain = rmp_serde::to_vec_named(&events).expect("packed");
    timed("decode alone", Box::new(|| drop(rmp_serde::from_slice::<Vec<Envelope>>(&plain))));
}
