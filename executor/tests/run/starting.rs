//! How an executor begins, and why it may refuse to.

use crate::support::until;
use crate::world::{BOUND, World, assignment, new_job, run_on, script};
use outlive_executor::error::{ExecutorError, explained};
use outlive_schemas::codec::unpack;
use outlive_schemas::message::ProbeReply;
use outlive_schemas::subject;
use outlive_store::keyring::generate_file;
use std::future::pending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_registers_beats_and_answers_probes() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let registered = world.registered(&"e-1".parse().expect("a name")).await;
    assert_eq!((registered[0].capacity.cpu_millis, registered[0].capacity.slots), (4_000, 16));
    until("a heartbeat with a healthy host in it", BOUND, async || {
        leader.beat_of(executor.id).is_some_and(|beat| {
            beat.held == 0 && !beat.leaving && beat.health.memory_available_bytes > 0 && beat.seq_seen.0 == 1
        })
    })
    .await;
    let reply = world.client.request(subject::executor_probe(executor.id), "".into()).await.expect("an answer");
    assert_eq!(unpack::<ProbeReply>("a reply", &reply.payload).expect("a reply").executor, executor.id);

    let id = executor.id;
    executor.crash().await;
    until("nobody answers for it", BOUND, async || {
        world.client.request(subject::executor_probe(id), "".into()).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_executor_to_a_directory() {
    let world = World::new().await;
    let first = world.executor("e-1").await;
    let mut config = world.config("e-2");
    config.executor.data_dir = world.data_dir("e-1");
    let refused = outlive_executor::run(config, pending()).await.expect_err("taken");
    assert!(matches!(refused, ExecutorError::DataDirectoryTaken { .. }), "{refused}");
    first.leave().await.expect("left");
    // It may be taken over now.
    let second = world.executor("e-1").await;
    second.leave().await.expect("left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_or_missing_key_is_named_before_anything_starts() {
    let world = World::new().await;
    let mut config = world.config("e-1");
    let other = world.dir.path().join("other.key");
    generate_file(&other).expect("a key");
    config.keys.files = vec![other];
    let refused = outlive_executor::run(config.clone(), pending()).await.expect_err("another key");
    assert!(matches!(refused, ExecutorError::Keys(_)), "{refused}");
    assert!(explained(&refused).contains("unknown master key"), "{}", explained(&refused));

    config.keys.files = vec![world.dir.path().join("none.key")];
    let refused = outlive_executor::run(config.clone(), pending()).await.expect_err("no key");
    assert!(explained(&refused).contains("none.key"), "{}", explained(&refused));
    config.keys.files.clear();
    let refused = outlive_executor::run(config, pending()).await.expect_err("no keys");
    assert!(matches!(refused, ExecutorError::Keyring(_)), "{refused}");
    assert_eq!(world.registered(&"e-1".parse().expect("a name")).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_where_nobody_is_is_named() {
    let world = World::new().await;
    let mut config = world.config("e-1");
    config.nats.servers = vec!["nats://127.0.0.1:1".to_owned()];
    let refused = outlive_executor::run(config, pending()).await.expect_err("no NATS");
    assert!(matches!(refused, ExecutorError::Nats(_)) && explained(&refused).contains("127.0.0.1:1"), "{refused}");
    let mut config = world.config("e-1");
    config.etcd.endpoints = vec!["127.0.0.1:1".to_owned()];
    let refused = outlive_executor::run(config, pending()).await.expect_err("no etcd");
    assert!(matches!(refused, ExecutorError::Etcd(_)) && explained(&refused).contains("127.0.0.1:1"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_how_it_is() {
    let world = World::new().await;
    let mut config = world.config("e-1");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    config.executor.listen = Some(address);
    let executor = world.executor_with(config).await;
    let not_ready = page(address, "/readyz").await;
    assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("no leader"), "{not_ready}");
    assert!(page(address, "/livez").await.starts_with("HTTP/1.1 200"));
    let leader = world.leader().await;
    until("it is ready", BOUND, async || page(address, "/readyz").await.starts_with("HTTP/1.1 200")).await;
    let job = new_job();
    run_on(&leader, executor.id, &assignment(&leader, job, script("echo x > a; exec sleep 600"))).await;
    for name in [
        "outlive_build_info{version=",
        "outlive_checkpoints_total{outcome=\"stored\"} 1",
        "outlive_checkpoint_duration_seconds_bucket{le=",
        "outlive_checkpoint_pause_seconds_bucket{le=",
        "outlive_checkpoint_bytes_total{kind=\"state\"} 2",
        "outlive_checkpoint_age_seconds",
        "outlive_decrypt_failures_total 0",
        "outlive_restored_bytes_total{source=\"local\"} 0",
        "outlive_heartbeat_age_seconds 0",
        "outlive_attempts_held 1",
    ] {
        until(name, BOUND, async || page(address, "/metrics").await.contains(name)).await;
    }
}

async fn page(address: std::net::SocketAddr, path: &str) -> String {
    let mut connection = tokio::net::TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("answered");
    answer
}
