//! Blobs, images and job logs on a real nats-server.

mod support;

use async_nats::jetstream::stream::{Config, StorageType};
use bytes::Bytes;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::id::{Attempt, JobId, Namespace, Sequence};
use outlive_schemas::message::{LogEntry, LogStream};
use outlive_schemas::payload::Payload;
use outlive_schemas::time::Timestamp;
use outlive_store::blob::{self, BlobStore, JetStreamBlobs, Owner, Put, blob_stream};
use outlive_store::image::ImageStore;
use outlive_store::job_log::{self, JetStreamJobLogs, JobLogLimits, JobLogs};
use outlive_store::nats::{self, EnsureStreamError, Nats, NatsConfig, NatsError};
use outlive_store::seal::Key;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::{NatsServer, until};
use uuid::Uuid;

const BOUND: Duration = Duration::from_secs(60);

fn owner(number: u128) -> Owner {
    Owner::Job(JobId(Uuid::from_u128(number)))
}

fn name(number: u8) -> BlobName {
    BlobName([number; 32])
}

async fn connected(server: &NatsServer) -> Nats {
    let config = NatsConfig { servers: vec![server.url()], ..NatsConfig::default() };
    let nats = nats::connect(&config, "test").await.expect("connected");
    nats::require_server_version(&nats.client).expect("the tests' server is new enough");
    nats
}

async fn blobs(nats: &Nats) -> JetStreamBlobs {
    JetStreamBlobs::ensure(nats, blob_stream(1, None)).await.expect("the stream is made")
}

#[tokio::test]
async fn jetstream_blobs_conform() {
    let server = NatsServer::start();
    blob::conformance::conforms(&blobs(&connected(&server).await).await).await;
}

#[tokio::test]
async fn jetstream_job_logs_conform() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    let logs = JetStreamJobLogs::ensure(&nats, 1, JobLogLimits::default()).await.expect("the stream is made");
    job_log::conformance::conforms(&logs).await;
}

#[tokio::test]
async fn images_come_back_from_a_server() {
    let server = NatsServer::start();
    let store = Arc::new(blobs(&connected(&server).await).await);
    let images = ImageStore::new(store, Key::from_bytes([3; 32]));
    let mut content = vec![0; 3 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    for seq in [10, 20, 30] {
        let content = content.clone();
        images.save(Sequence(seq), [1; 32], move |onto| onto.write_all(&content)).await.expect("saved");
    }
    assert_eq!(images.retain(2).await.expect("retained"), Some(Sequence(20)));
    let heads = images.list().await.expect("listed");
    assert_eq!(heads.iter().map(|head| head.seq.0).collect::<Vec<_>>(), [30, 20]);
    let read = |from: &mut dyn std::io::BufRead| {
        let mut found = Vec::new();
        from.read_to_end(&mut found).map(|_| found)
    };
    assert!(images.load(&heads[0], read).await.expect("loaded").expect("read") == content);
}

#[tokio::test]
async fn acknowledged_blobs_survive_kill_9() {
    let mut server = NatsServer::start();
    let nats = connected(&server).await;
    let store = blobs(&nats).await;
    let body = |number: u8| Bytes::from(vec![number; 100_000]);
    for number in 0..20 {
        assert_eq!(store.put(owner(1), name(number), body(number)).await.expect("put"), Put::Stored);
    }
    server.kill();
    // These are asked for while there is no server, and answered once there is one again.
    let (waiting, putting) = (store.clone(), store.clone());
    let get = tokio::spawn(async move { waiting.get(owner(1), name(7)).await });
    let put = tokio::spawn(async move { putting.put(owner(1), name(100), Bytes::from_static(b"late")).await });
    server.restart();
    assert_eq!(get.await.expect("no panic").expect("got after the restart"), body(7));
    put.await.expect("no panic").expect("put after the restart");
    for number in 0..20 {
        assert_eq!(store.get(owner(1), name(number)).await.expect("survived"), body(number));
        assert_eq!(store.put(owner(1), name(number), body(number)).await.expect("put"), Put::Present);
    }
    assert_eq!(store.get(owner(1), name(100)).await.expect("stored once"), "late");
    assert_eq!(store.list(owner(1)).await.expect("listed").len(), 21);
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_settled() {
    let server = NatsServer::start();
    let store = blobs(&connected(&server).await).await;
    server.pause();
    let putting = store.clone();
    let put = tokio::spawn(async move { putting.put(owner(1), name(1), Bytes::from_static(b"once")).await });
    // The client takes the silent server's connection for dead, and the put for unanswered.
    until("the connection is given up", BOUND, || async { put.is_finished() || silent(&store).await }).await;
    server.resume();
    put.await.expect("no panic").expect("settled");
    assert_eq!(store.get(owner(1), name(1)).await.expect("stored"), "once");
    assert_eq!(store.usage().await.expect("usage").items, 1);
}

async fn silent(store: &JetStreamBlobs) -> bool {
    tokio::time::timeout(Duration::from_secs(6), store.usage()).await.is_err()
}

#[tokio::test]
async fn deleted_bytes_are_gone_from_disk() {
    let server = NatsServer::start();
    let store = blobs(&connected(&server).await).await;
    let marker = b"this marker is looked for in every file of the server".as_slice();
    store.put(owner(1), name(1), Bytes::from_static(marker)).await.expect("put");
    store.put(owner(1), name(2), Bytes::from_static(b"a neighbour that stays")).await.expect("put");
    until("the server has written the blob", BOUND, || async { holds(server.dir(), marker) }).await;
    store.delete(owner(1), name(1)).await.expect("deleted");
    until("the server has erased the blob", BOUND, || async { !holds(server.dir(), marker) }).await;
    assert_eq!(store.get(owner(1), name(2)).await.expect("stays"), "a neighbour that stays");
}

/// Whether any file below `dir` holds `marker`.
fn holds(dir: &Path, marker: &[u8]) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return holds(&path, marker);
        }
        // A file may be replaced between being listed and being read.
        std::fs::read(&path).is_ok_and(|bytes| bytes.windows(marker.len()).any(|window| window == marker))
    })
}

#[tokio::test]
async fn many_schedulers_may_make_the_stream_at_once() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    let all = (0..16).map(|_| JetStreamBlobs::ensure(&nats, blob_stream(1, None)));
    for made in futures::future::join_all(all).await {
        made.expect("made, or found");
    }
}

#[tokio::test]
async fn an_unsafe_stream_is_refused_by_its_setting() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    let found = Config { storage: StorageType::Memory, ..blob_stream(1, None) };
    nats.jetstream.create_stream(found).await.expect("created");
    let refused = JetStreamBlobs::ensure(&nats, blob_stream(1, None)).await.expect_err("refused");
    assert!(matches!(&refused, EnsureStreamError::Unsafe { reason, .. } if reason.contains("storage")), "{refused}");
    assert!(refused.to_string().contains("OUTLIVE_BLOB"), "{refused}");
}

#[tokio::test]
async fn a_stream_that_cannot_be_made_is_refused_with_the_servers_words() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    let refused = JetStreamBlobs::ensure(&nats, blob_stream(3, None)).await.expect_err("one server, three replicas");
    assert!(matches!(&refused, EnsureStreamError::Refused { reason, .. } if reason.contains("replicas")), "{refused}");
}

#[tokio::test]
async fn a_full_store_says_so() {
    let server = NatsServer::start();
    let nats = connected(&server).await;
    let store = JetStreamBlobs::ensure(&nats, blob_stream(1, Some(300_000))).await.expect("made");
    let put = |number: u8| store.put(owner(1), name(number), Bytes::from(vec![number; 100_000]));
    put(1).await.expect("fits");
    put(2).await.expect("fits");
    let full = put(3).await.expect_err("full");
    assert!(matches!(full, blob::BlobError::Full { .. }), "{full}");
    store.delete(owner(1), name(1)).await.expect("deleted");
    put(3).await.expect("fits again");
    assert_eq!(put(2).await.expect("there"), Put::Present, "nothing was thrown out");
}

#[tokio::test]
async fn job_logs_survive_kill_9_and_are_stored_once() {
    let mut server = NatsServer::start();
    let nats = connected(&server).await;
    let logs = JetStreamJobLogs::ensure(&nats, 1, JobLogLimits::default()).await.expect("made");
    let (namespace, job): (Namespace, _) = ("default".parse().expect("a namespace"), JobId(Uuid::from_u128(1)));
    let key = Key::from_bytes([5; 32]);
    let line = |number: u64| LogEntry {
        at: Timestamp(number),
        attempt: Attempt(1),
        number,
        stream: LogStream::Out,
        text: Payload::from("a line"),
    };
    logs.append(&namespace, job, &key, &[line(1)]).await.expect("appended");
    server.kill();
    let append = {
        let (logs, namespace, key) = (logs.clone(), namespace.clone(), key.clone());
        tokio::spawn(async move { logs.append(&namespace, job, &key, &[line(2)]).await })
    };
    server.restart();
    append.await.expect("no panic").expect("appended after the restart");
    let read = logs.read(&namespace, job, &key, 0, 100).await.expect("read");
    let numbers: Vec<_> = read.into_iter().flat_map(|(_, entries)| entries).map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test]
async fn nobody_there_is_named() {
    let mut server = NatsServer::start();
    server.kill();
    let config = NatsConfig { servers: vec![server.url()], ..NatsConfig::default() };
    let error = nats::connect(&config, "test").await.expect_err("nobody there");
    assert!(matches!(&error, NatsError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&server.url()) && error.to_string().contains("nats.servers"), "{error}");
}

#[tokio::test]
async fn no_acknowledged_blob_is_lost_with_the_streams_leader() {
    const BLOBS: u8 = 200;
    let mut servers = NatsServer::start_cluster();
    let urls: Vec<_> = servers.iter().map(NatsServer::url).collect();
    let config = NatsConfig { servers: urls, ..NatsConfig::default() };
    let nats = nats::connect(&config, "test").await.expect("connected");
    let ensuring = JetStreamBlobs::ensure(&nats, blob_stream(3, None));
    let store = tokio::time::timeout(BOUND, ensuring).await.expect("the cluster forms").expect("the stream is made");
    let body = |number: u8| Bytes::from(vec![number; 10_000]);
    let (half, over_half) = tokio::sync::oneshot::channel();
    let putting = store.clone();
    let puts = tokio::spawn(async move {
        let mut half = Some(half);
        for number in 0..BLOBS {
            putting.put(owner(1), name(number), body(number)).await.expect("put, whoever leads");
            if number == BLOBS / 2 {
                half.take().map(|half| half.send(()));
            }
        }
    });
    over_half.await.expect("half of the puts are done");
    let info = nats.jetstream.get_stream("OUTLIVE_BLOB").await.expect("the stream is there");
    let leader = info.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone()).expect("a leader");
    let index: usize = leader.trim_start_matches('n').parse().expect("the servers are named n0 to n2");
    servers[index].kill();
    // Reads go on: any replica answers.
    assert_eq!(store.get(owner(1), name(0)).await.expect("got without a leader"), body(0));
    tokio::time::timeout(BOUND, puts).await.expect("the others elect").expect("no panic");
    for number in 0..BLOBS {
        assert_eq!(store.get(owner(1), name(number)).await.expect("not lost"), body(number), "{number}");
    }
    assert_eq!(store.list(owner(1)).await.expect("listed").len(), usize::from(BLOBS));
    assert_eq!(store.usage().await.expect("usage").items, u64::from(BLOBS), "each stored once");
}
