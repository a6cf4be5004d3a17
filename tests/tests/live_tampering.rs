//! A log that was altered behind Outlive's back: `log verify` names the first bad commit, and only `log accept-loss`
//! leads past a lost end, and says so in the log.

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use outlive_schemas::id::Sequence;
use outlive_schemas::subject;
use outlive_store::log::jetstream::{JetStreamLog, stream_config};
use outlive_store::log::{CommitLog as _, Stored};
use outlive_store::nats::{Nats, NatsConfig, connect};
use outlive_tests::{Dev, EVENTUALLY, wait_until_true};
use serde_json::{Value, json};

struct Admin {
    nats: Nats,
    /// The log as it was.
    whole: Vec<Stored>,
}

impl Admin {
    async fn of(dev: &Dev) -> Admin {
        let config = NatsConfig { servers: dev.nats_urls().to_vec(), ..NatsConfig::default() };
        let nats = connect(&config, "a hostile operator").await.expect("connected");
        let whole = JetStreamLog::new(nats.clone()).read(Sequence(1), 64 << 20).await.expect("readable");
        Admin { nats, whole }
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.whole.iter().map(|stored| stored.body.clone()).collect()
    }

    /// Puts another stream in the log's place.
    async fn rebuild(&self, bodies: &[Bytes]) -> stream::Stream {
        self.rebuild_as(stream_config(1, 1 << 30), bodies).await
    }

    async fn rebuild_as(&self, config: stream::Config, bodies: &[Bytes]) -> stream::Stream {
        let jetstream = &self.nats.jetstream;
        jetstream.delete_stream(subject::LOG_STREAM).await.expect("deleted");
        let stream = jetstream.create_stream(config).await.expect("created");
        for body in bodies {
            put(jetstream, body.clone()).await;
        }
        stream
    }
}

async fn put(jetstream: &jetstream::Context, body: Bytes) {
    jetstream.publish(subject::LOG_SUBJECT, body).await.expect("sent").await.expect("stored");
}

async fn verdict(dev: &Dev) -> (Option<i32>, Value) {
    let outcome = dev.outlive(&["--output", "json", "log", "verify"]).await;
    let code = outcome.code;
    (code, outcome.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_altering_the_log_is_found_and_a_lost_end_is_given_up_on_the_record() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let mut jobs = Vec::new();
    for number in 0..6 {
        let job = client.submit(json!({"name": format!("job-{number}"), "driver": {"noop": {}}})).await;
        client.wait_for_status(&job, "succeeded").await;
        jobs.push(job);
    }
    wait_until_true("the witness has caught up", EVENTUALLY, || async {
        let log = client.ask("sys.status", json!({})).await["log"].clone();
        log["witness_seq"] == log["last_seq"]
    })
    .await;
    dev.kill("scheduler-a");
    dev.kill("executor-a-1");
    let admin = Admin::of(&dev).await;
    let end = admin.whole.len() as u64;
    assert!(end >= 10, "{end} commits");
    wait_until_true("nobody leads", EVENTUALLY, || async { verdict(&dev).await.0 == Some(0) }).await;

    let flipped = {
        let mut bodies = admin.bodies();
        let mut body = bodies[4].to_vec();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        bodies[4] = body.into();
        bodies
    };
    let mut header_flipped = admin.bodies();
    let mut body = header_flipped[6].to_vec();
    body[20] ^= 1;
    header_flipped[6] = body.into();
    let mut removed = admin.bodies();
    removed.remove(3);
    let mut swapped = admin.bodies();
    swapped.swap(5, 6);
    let mut transplanted = admin.bodies();
    transplanted[7] = transplanted[2].clone();
    let truncated = admin.bodies()[..8].to_vec();
    for (what, bodies, first_bad) in [
        ("a flipped bit", flipped, 5),
        ("a flipped bit in what is not encrypted", header_flipped, 7),
        ("a removed commit", removed, 4),
        ("two swapped commits", swapped, 6),
        ("a commit from elsewhere", transplanted, 8),
        ("a lost end", truncated, 9),
    ] {
        admin.rebuild(&bodies).await;
        let (code, found) = verdict(&dev).await;
        assert_eq!(code, Some(1), "{what}: {found}");
        assert_eq!(found["fault"]["seq"].as_u64(), Some(first_bad), "{what}: {found}");
    }
    // A hole, as where a server's disk has lost a block.
    let forgiving = stream::Config { deny_delete: false, ..stream_config(1, 1 << 30) };
    let stream = admin.rebuild_as(forgiving, &admin.bodies()).await;
    assert_eq!(verdict(&dev).await.0, Some(0), "it is whole again");
    stream.delete_message(6).await.expect("deleted");
    let (code, found) = verdict(&dev).await;
    assert_eq!((code, found["fault"]["seq"].as_u64()), (Some(1), Some(6)), "{found}");

    // A lost end: nobody leads, whoever tries.
    admin.rebuild(&admin.bodies()[..8]).await;
    let tried = dev.outlive(&["--output", "json", "chaos", "restart", "scheduler", "scheduler-a"]).await;
    wait_until_true("the scheduler gives up", EVENTUALLY, || async { dev.process("scheduler-a").pid.is_none() }).await;
    let said = std::fs::read_to_string(dev.data().join("logs/scheduler-a.log")).expect("it has a log");
    assert!(said.contains("log_lost_acknowledged_commits"), "{tried:?}\n{said}");
    let shown = dev.outlive(&["log", "accept-loss"]).await;
    assert_eq!(shown.code, Some(2), "{shown:?}");
    assert!(shown.err.contains(&format!("commits 9 to {end}")), "{shown:?}");
    assert_eq!(verdict(&dev).await.1["fault"]["seq"].as_u64(), Some(9), "asking changes nothing");
    dev.outlive(&["log", "accept-loss", "--yes"]).await.expect_ok("accept-loss");
    let (code, found) = verdict(&dev).await;
    assert_eq!(code, Some(0), "{found}");
    let loss = &found["losses"][0];
    assert_eq!(
        (loss["seq"].as_u64(), loss["log_end"].as_u64(), loss["witnessed"].as_u64()),
        (Some(9), Some(8), Some(end))
    );
    assert!(loss["by"].as_str().is_some_and(|by| by.contains('@')), "{loss}");

    dev.restart("scheduler-a").await;
    dev.restart("executor-a-1").await;
    let job = client.submit(json!({"driver": {"noop": {}}})).await;
    client.wait_for_status(&job, "succeeded").await;
    let (code, found) = verdict(&dev).await;
    assert_eq!(code, Some(0), "{found}");
    assert_eq!(found["losses"].as_array().map(Vec::len), Some(1));
}
