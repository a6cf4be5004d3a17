//! The log and the keys on a real nats-server, which is killed in the middle.

mod support;

use async_nats::jetstream::stream;
use bytes::Bytes;
use futures::StreamExt as _;
use outlive_schemas::id::{JobId, Sequence};
use outlive_schemas::limits::COMMIT_SEALED_BYTES_MAX;
use outlive_schemas::subject;
use outlive_store::key_store::{FIRST_EPOCH, JetStreamKeys, KeyError, KeyStore, KeyStreamConfig};
use outlive_store::keyring::{Keyring, UnwrapError};
use outlive_store::log::conformance::conformance;
use outlive_store::log::jetstream::JetStreamLog;
use outlive_store::log::{AppendError, CommitLog, ReadError, Stored};
use outlive_store::nats::{self, Nats, NatsConfig};
use outlive_store::seal::Key;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::{NatsServer, until};

/// How long anything may take that should come soon: generous, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PLENTY: usize = 8 * 1024 * 1024;

async fn connect(server: &NatsServer) -> Nats {
    let config = NatsConfig { servers: vec![server.url()], ..NatsConfig::default() };
    nats::connect(&config, "test").await.expect("a connection")
}

/// A log that is fresh and empty, even if there was one before.
async fn fresh(nats: &Nats, config: stream::Config) -> JetStreamLog {
    let _ = nats.jetstream.delete_stream(subject::LOG_STREAM).await;
    nats.jetstream.create_stream(config).await.expect("the log's stream");
    JetStreamLog::new(nats.clone())
}

async fn read_all(log: &JetStreamLog) -> Vec<Stored> {
    let mut found: Vec<Stored> = Vec::new();
    loop {
        let next = found.last().map_or(Sequence(1), |stored| stored.seq.next());
        match log.read(next, PLENTY).await {
            Ok(more) if more.is_empty() => return found,
            Ok(more) => found.extend(more),
            // The connection may still be on its way back.
            Err(ReadError::Unavailable { .. }) => tokio::task::yield_now().await,
            Err(purged) => panic!("{purged}"),
        }
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let server = NatsServer::start();
    let (one, two) = (connect(&server).await, connect(&server).await);
    conformance(async || {
        let log = fresh(&one, JetStreamLog::stream_config(1, -1)).await;
        (log, JetStreamLog::new(two.clone()))
    })
    .await;
}

#[tokio::test]
async fn the_stream_that_is_created_is_safe() {
    let server = NatsServer::start();
    let nats = connect(&server).await;
    let _ = fresh(&nats, JetStreamLog::stream_config(1, 1 << 30)).await;
    let stored = nats.jetstream.get_stream(subject::LOG_STREAM).await.expect("the stream");
    JetStreamLog::check_stream(&stored.cached_info().config).expect("what the server made of it is safe");
    let stored = stored.delete_message(1).await.expect_err("deny_delete");
    assert!(stored.to_string().contains("delete"), "{stored}");

    let loose = stream::Config { name: "LOOSE".to_owned(), subjects: vec!["loose".to_owned()], ..Default::default() };
    let loose = nats.jetstream.create_stream(loose).await.expect("a stream with the server's defaults");
    let refused = JetStreamLog::check_stream(&loose.cached_info().config).expect_err("unsafe");
    let named: Vec<&str> = refused.settings.iter().map(|setting| setting.setting).collect();
    assert_eq!(named, ["subjects", "discard", "deny_delete", "allow_direct", "republish"], "{refused}");
}

#[tokio::test]
async fn a_full_log_refuses() {
    let server = NatsServer::start();
    let nats = connect(&server).await;
    let log = fresh(&nats, JetStreamLog::stream_config(1, 3 * 1024 * 1024)).await;
    let body = |seq: u64| Bytes::from(vec![seq as u8; COMMIT_SEALED_BYTES_MAX]);
    let mut last = 0;
    let refused = loop {
        match log.append(Sequence(last), body(last)).await {
            Ok(()) => last += 1,
            Err(refused) => break refused,
        }
        assert!(last < 10, "3 MiB do not hold 10 MiB");
    };
    assert!(matches!(&refused, AppendError::Refused { reason } if reason.contains("full")), "{refused:?}");
    log.append(Sequence(last), Bytes::from_static(b"small")).await.expect("there is room for a small one");
}

#[tokio::test]
async fn a_log_that_ends_before_the_expected_position_is_refused() {
    let server = NatsServer::start();
    let nats = connect(&server).await;
    let log = fresh(&nats, JetStreamLog::stream_config(1, -1)).await.with_behind_max(Duration::from_millis(100));
    log.append(Sequence(0), Bytes::from_static(b"one")).await.expect("an append");
    let refused = log.append(Sequence(5), Bytes::from_static(b"six")).await.expect_err("behind").to_string();
    assert!(refused.contains("ends at 1, before 5"), "{refused}");
}

#[tokio::test]
async fn a_stream_that_does_not_exist_is_out_of_reach() {
    let server = NatsServer::start();
    let log = JetStreamLog::new(connect(&server).await);
    assert!(matches!(log.read(Sequence(1), PLENTY).await, Err(ReadError::Unavailable { .. })));
    assert!(matches!(log.extent().await, Err(ReadError::Unavailable { .. })));
}

/// Beyond the duplicate window the server no longer knows a message's id: only what stands there tells whose it is.
#[tokio::test]
async fn an_append_whose_id_was_forgotten_is_settled_by_reading() {
    let server = NatsServer::start();
    let nats = connect(&server).await;
    let log = fresh(&nats, JetStreamLog::stream_config(1, -1)).await;
    for (last, body) in [(0, "ours"), (1, "somebody else's")] {
        // Without an id, as if it had been forgotten.
        let sent = nats.jetstream.publish(subject::LOG_SUBJECT, Bytes::from_static(body.as_bytes())).await;
        assert_eq!(sent.expect("sent").await.expect("stored").sequence, last + 1);
    }
    log.append(Sequence(0), Bytes::from_static(b"ours")).await.expect("it stands there");
    let conflict = log.append(Sequence(1), Bytes::from_static(b"ours too")).await.expect_err("deposed");
    assert!(matches!(conflict, AppendError::Conflict { at: Sequence(2) }), "{conflict:?}");
    assert_eq!(log.extent().await.expect("the extent").last, Sequence(2));
}

/// Another stream on the same subject would take commits that nobody finds.
#[tokio::test]
async fn a_stream_of_another_name_is_not_the_log() {
    let server = NatsServer::start();
    let nats = connect(&server).await;
    let other = stream::Config { name: "OTHER".to_owned(), ..JetStreamLog::stream_config(1, -1) };
    nats.jetstream.create_stream(other).await.expect("a stream");
    let refused = JetStreamLog::new(nats).append(Sequence(0), Bytes::from_static(b"lost")).await;
    assert!(matches!(&refused, Err(AppendError::Refused { reason }) if reason.contains("`OTHER`")), "{refused:?}");
}

/// Two writers, one of them deposed again and again by the other, while the server is killed and started five times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_neither_loses_nor_doubles() {
    let mut server = NatsServer::start();
    let nats = connect(&server).await;
    let log = fresh(&nats, JetStreamLog::stream_config(1, -1)).await;
    let stop_at = Arc::new(AtomicU64::new(u64::MAX));
    let reached = Arc::new(AtomicU64::new(0));
    let writers = two_writers(&[server.url()], &stop_at, &reached);

    for _ in 0..5 {
        let goal = reached.load(Ordering::Relaxed) + 60;
        until("60 more appends", PATIENCE, async || reached.load(Ordering::Relaxed) >= goal).await;
        server.kill();
        server.restart();
    }
    stop_at.store(reached.load(Ordering::Relaxed) + 60, Ordering::Relaxed);
    let acknowledged = what_they_stored(writers).await;
    assert!(acknowledged.len() >= 360, "{} appends", acknowledged.len());
    assert_holds_exactly(&log, &acknowledged).await;
}

/// On three servers, whichever leads the stream is killed: twice, and JetStream elects another each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_stream_leader_neither_loses_nor_doubles() {
    let mut servers = NatsServer::start_cluster();
    let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
    let config = NatsConfig { servers: urls.clone(), ..NatsConfig::default() };
    let nats = nats::connect(&config, "test").await.expect("a connection");
    let check = |config: &stream::Config| JetStreamLog::check_stream(config).map_err(|refused| refused.to_string());
    let creating = nats::ensure_stream(&nats.jetstream, JetStreamLog::stream_config(3, -1), check);
    tokio::time::timeout(PATIENCE, creating).await.expect("in time").expect("the log's stream");
    let log = JetStreamLog::new(nats.clone());
    let stop_at = Arc::new(AtomicU64::new(u64::MAX));
    let reached = Arc::new(AtomicU64::new(0));
    let writers = two_writers(&urls, &stop_at, &reached);
    for _ in 0..2 {
        let goal = reached.load(Ordering::Relaxed) + 60;
        until("60 more appends", PATIENCE, async || reached.load(Ordering::Relaxed) >= goal).await;
        let leader = stream_leader(&nats).await;
        let before = reached.load(Ordering::Relaxed);
        servers[leader].kill();
        // The other two know what was stored, whoever leads.
        until("a read from a survivor", PATIENCE, async || {
            log.read(Sequence(1), PLENTY).await.is_ok_and(|found| !found.is_empty())
        })
        .await;
        until("appends under another leader", PATIENCE, async || reached.load(Ordering::Relaxed) >= before + 60).await;
        assert_ne!(stream_leader(&nats).await, leader);
        servers[leader].restart();
    }
    stop_at.store(reached.load(Ordering::Relaxed) + 60, Ordering::Relaxed);
    let acknowledged = what_they_stored(writers).await;
    until("a replica that has caught up", PATIENCE, async || read_all(&log).await.len() >= acknowledged.len()).await;
    assert_holds_exactly(&log, &acknowledged).await;
}

/// The index of the server that leads the log's stream.
async fn stream_leader(nats: &Nats) -> usize {
    let begun = std::time::Instant::now();
    loop {
        let found = nats.jetstream.get_stream(subject::LOG_STREAM).await.ok();
        let leader = found.and_then(|found| found.cached_info().cluster.clone()).and_then(|cluster| cluster.leader);
        if let Some(index) = leader.and_then(|name| name.strip_prefix('n')?.parse().ok()) {
            return index;
        }
        assert!(begun.elapsed() < PATIENCE, "no leader of the stream within {PATIENCE:?}");
    }
}

type Writer = tokio::task::JoinHandle<Vec<Stored>>;

/// Two writers that take the end of the log from one another until it reaches `stop_at`. Each keeps what was
/// acknowledged to it.
fn two_writers(urls: &[String], stop_at: &Arc<AtomicU64>, reached: &Arc<AtomicU64>) -> Vec<Writer> {
    let start = |name: &'static str| {
        let (servers, stop_at, reached) = (urls.to_vec(), stop_at.clone(), reached.clone());
        tokio::spawn(async move {
            let config = NatsConfig { servers, ..NatsConfig::default() };
            let log = JetStreamLog::new(nats::connect(&config, name).await.expect("a connection"));
            let mut acknowledged = Vec::new();
            let mut last = Sequence(0);
            while last.0 < stop_at.load(Ordering::Relaxed) {
                // Some are large, so that a kill hits them half written.
                let filler = if last.0.is_multiple_of(16) { 300_000 } else { 20 };
                let mut body = format!("{name} {} ", last.next()).into_bytes();
                body.resize(body.len() + filler, b'.');
                let body = Bytes::from(body);
                match log.append(last, body.clone()).await {
                    Ok(()) => {
                        last = last.next();
                        acknowledged.push(Stored { seq: last, body });
                        reached.fetch_max(last.0, Ordering::Relaxed);
                    }
                    Err(AppendError::Conflict { .. }) => {
                        if let Ok(more) = log.read(last.next(), PLENTY).await {
                            last = more.last().map_or(last, |stored| stored.seq);
                        }
                    }
                    Err(refused) => panic!("{name}: {refused}"),
                }
            }
            acknowledged
        })
    };
    ["one", "two"].map(start).into()
}

async fn what_they_stored(writers: Vec<Writer>) -> Vec<Stored> {
    let mut acknowledged = Vec::new();
    for writer in writers {
        let stored = tokio::time::timeout(PATIENCE, writer).await.expect("a writer comes to its end");
        acknowledged.extend(stored.expect("a writer does not panic"));
    }
    acknowledged.sort_by_key(|stored| stored.seq);
    acknowledged
}

/// An append returns only with a definite answer, so what is there is exactly what was acknowledged.
async fn assert_holds_exactly(log: &JetStreamLog, acknowledged: &[Stored]) {
    let found = read_all(log).await;
    let positions = |all: &[Stored]| all.iter().map(|stored| stored.seq.0).collect::<Vec<_>>();
    assert_eq!(positions(&found), positions(acknowledged));
    assert!(found == acknowledged, "each message is the one that was acknowledged there");
}

/// As after a frozen or partitioned writer: its publish is on its way while it hears nothing, and comes after all.
#[tokio::test]
async fn a_frozen_server_delays_but_does_not_double() {
    let server = NatsServer::start();
    let nats = connect(&server).await;
    let log = fresh(&nats, JetStreamLog::stream_config(1, -1)).await;
    log.append(Sequence(0), Bytes::from_static(b"before")).await.expect("an append");
    server.pause();
    let appending = tokio::spawn({
        let log = log.clone();
        async move { log.append(Sequence(1), Bytes::from_static(b"meanwhile")).await }
    });
    // Several tries have gone out by then, all of them into the frozen server's socket.
    let sent = || nats.client.statistics().out_messages.load(Ordering::Relaxed);
    let before = sent();
    until("three tries", PATIENCE, async || sent() >= before + 3).await;
    server.resume();
    let appended = tokio::time::timeout(PATIENCE, appending).await.expect("in time").expect("no panic");
    appended.expect("stored");
    log.append(Sequence(2), Bytes::from_static(b"after")).await.expect("an append");
    let bodies: Vec<Bytes> = read_all(&log).await.into_iter().map(|stored| stored.body).collect();
    assert_eq!(bodies, ["before", "meanwhile", "after"]);
}

#[tokio::test]
async fn the_tail_goes_on_after_a_restart_of_the_server() {
    let mut server = NatsServer::start();
    let nats = connect(&server).await;
    let log = fresh(&nats, JetStreamLog::stream_config(1, -1)).await;
    let mut tail = log.tail().await.expect("a tail");
    log.append(Sequence(0), Bytes::from_static(b"one")).await.expect("an append");
    let first = tokio::time::timeout(PATIENCE, tail.next()).await.expect("in time").expect("a message");
    assert_eq!(first, Stored { seq: Sequence(1), body: Bytes::from_static(b"one") });
    // What anybody may publish there is not a stored message.
    nats.client.publish(subject::LOG_TAIL_SUBJECT, Bytes::from_static(b"forged")).await.expect("published");
    server.kill();
    server.restart();
    log.append(Sequence(1), Bytes::from_static(b"two")).await.expect("an append");
    // It may have been skipped if the subscription was not back yet; the next ones are not.
    let mut last = Sequence(2);
    let seen = loop {
        log.append(last, Bytes::from(format!("more {last}"))).await.expect("an append");
        last = last.next();
        if let Ok(Some(stored)) = tokio::time::timeout(Duration::from_millis(500), tail.next()).await {
            break stored;
        }
    };
    let stored = log.read(seen.seq, PLENTY).await.expect("a read");
    assert_eq!(stored[0], seen);
}

fn job(number: u128) -> JobId {
    JobId(uuid::Uuid::from_u128(number))
}

async fn key_stream(nats: &Nats) {
    let config = stream::Config::from(KeyStreamConfig { replicas: 1 });
    nats.jetstream.create_stream(config).await.expect("the keys' stream");
}

fn keys(nats: &Nats, master: &Key) -> JetStreamKeys {
    JetStreamKeys::new(nats.jetstream.clone(), Arc::new(Keyring::of(master)))
}

#[tokio::test]
async fn whoever_asks_first_everybody_gets_the_same_key() {
    let server = NatsServer::start();
    let nats = connect(&server).await;
    key_stream(&nats).await;
    let master = Key::generate();
    for number in 0..20 {
        let stores: Vec<JetStreamKeys> = (0..4).map(|_| keys(&nats, &master)).collect();
        let asked = stores.iter().map(|store| store.job_key(job(number)));
        let got: Vec<Key> = futures::future::try_join_all(asked).await.expect("keys");
        assert!(got.iter().all(|key| *key == got[0]), "job {number}");
    }
    let one = keys(&nats, &master);
    assert_ne!(one.job_key(job(0)).await.expect("a key"), one.job_key(job(1)).await.expect("a key"));
    assert_eq!(one.existing_job_key(job(99)).await.expect("an answer"), None);

    assert_eq!(one.log_keys().await.expect("none yet"), []);
    let first = one.log_key(FIRST_EPOCH).await.expect("a key");
    let second = one.log_key(FIRST_EPOCH + 1).await.expect("a key");
    assert_eq!(keys(&nats, &master).log_keys().await.expect("both"), [first, second]);
}

#[tokio::test]
async fn a_forgotten_key_is_gone_from_the_disk() {
    let mut server = NatsServer::start();
    let nats = connect(&server).await;
    key_stream(&nats).await;
    let master = Key::generate();
    let store = keys(&nats, &master);
    let key = store.job_key(job(1)).await.expect("a key");
    let kept = store.job_key(job(2)).await.expect("another key");
    let stream = nats.jetstream.get_stream(subject::KEY_STREAM).await.expect("the stream");
    let wrapped = stream.get_last_raw_message_by_subject(&subject::job_key(job(1))).await.expect("stored").payload;
    assert!(on_disk(&server, &wrapped), "the search finds a key that is there");

    store.forget_job(job(1)).await.expect("forgotten");
    store.forget_job(job(1)).await.expect("twice is as good");
    assert_eq!(store.existing_job_key(job(1)).await.expect("an answer"), None);
    server.kill();
    assert!(!on_disk(&server, &wrapped), "an erased key is overwritten");
    server.restart();

    let later = keys(&nats, &master);
    assert_eq!(later.existing_job_key(job(2)).await.expect("an answer"), Some(kept));
    assert_ne!(later.job_key(job(1)).await.expect("a new one"), key);
}

/// Whether any file of the server's holds these bytes.
fn on_disk(server: &NatsServer, bytes: &[u8]) -> bool {
    let mut directories = vec![server.dir().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if std::fs::read(path).is_ok_and(|text| text.windows(bytes.len()).any(|window| window == bytes)) {
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn a_wrong_master_key_is_named_and_a_stored_key_is_never_replaced() {
    let server = NatsServer::start();
    let nats = connect(&server).await;
    key_stream(&nats).await;
    let (right, wrong) = (Key::generate(), Key::generate());
    let key = keys(&nats, &right).job_key(job(1)).await.expect("a key");
    let refused = keys(&nats, &wrong).job_key(job(1)).await.expect_err("unknown master");
    let KeyError::Wrapped { source: UnwrapError::UnknownMaster { id }, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(id, right.id());

    let name = subject::job_key(job(1));
    let forced = nats.jetstream.publish(name, Bytes::from_static(b"another")).await.expect("sent").await;
    assert!(forced.is_err(), "the stream itself keeps the first: {forced:?}");
    assert_eq!(keys(&nats, &right).job_key(job(1)).await.expect("the same"), key);
}
