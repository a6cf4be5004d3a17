//! Images: a scheduler begins at one, and the log below the oldest is let go.

use futures::TryStreamExt as _;
use outlive_tests::{Dev, EVENTUALLY, Options, wait_until_true};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_below_its_images_and_nothing_is_forgotten() {
    let env =
        vec![("OUTLIVE_LOG__IMAGE_EVERY_EVENTS", "6".to_owned()), ("OUTLIVE_LOG__HISTORY_EVENTS", "0".to_owned())];
    let mut dev = Dev::start_with(1, Options { env, ..Options::default() }).await;
    let client = dev.client().await;
    let first = client.submit(json!({"name": "first", "driver": {"noop": {}}, "input": "kept"})).await;
    client.wait_for_status(&first, "succeeded").await;

    // Each image needs events of its own, so jobs go on coming until the log has been let go.
    let purged = || async {
        let job = client.submit(json!({"driver": {"noop": {}}})).await;
        client.wait_for_status(&job, "succeeded").await;
        client.ask("sys.status", json!({})).await["log"]["first_seq"].as_u64() > Some(1)
    };
    wait_until_true("the log is purged below its oldest image", EVENTUALLY, purged).await;
    let before = client.list(json!({})).await.len();

    // What is left of the log is not enough to know the first job: only an image can.
    dev.kill_all().await;
    dev.start_again().await;
    let client = dev.client().await;
    assert_eq!(client.get(&first).await["result"], json!("kept"));
    assert_eq!(client.list(json!({})).await.len(), before);
    let after = client.submit(json!({"driver": {"noop": {}}})).await;
    client.wait_for_status(&after, "succeeded").await;

    // The newest image loses a piece: an older one serves, with more of the log behind it.
    dev.kill_roles().await;
    let blobs = async_nats::jetstream::new(client.nats().clone()).get_stream("OUTLIVE_BLOB").await.expect("the stream");
    let mut pieces = blobs.info_with_subjects("outlive.blob.image.*").await.expect("its subjects");
    let mut newest = String::new();
    while let Some((piece, _)) = pieces.try_next().await.expect("a subject") {
        // Names begin with the commit's sequence.
        newest = newest.max(piece);
    }
    let seq = blobs.get_last_raw_message_by_subject(&newest).await.expect("the piece").sequence;
    assert!(blobs.delete_message(seq).await.expect("deleted"));
    dev.restart_roles().await;
    assert_eq!(client.get(&first).await["result"], json!("kept"));
    assert_eq!(client.get(&after).await["status"], "succeeded");
    let log = std::fs::read_to_string(dev.data().join("logs/scheduler-a.log")).expect("the scheduler's log");
    assert!(log.contains("an image cannot be read; trying an older one"), "it was not missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_deposed_begins_anew_and_leads_again() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let done = async || {
        let job = client.submit(json!({"driver": {"noop": {}}, "input": "kept"})).await;
        client.wait_for_status(&job, "succeeded").await;
        job
    };
    let first = done().await;
    let deposed = client.leader().await;
    dev.pause(&deposed).await;
    wait_until_true("another leads", EVENTUALLY, || async { client.leader().await != deposed }).await;
    let second = done().await;
    dev.resume(&deposed).await;
    // Nobody else is left.
    for other in dev.processes().iter().filter(|process| process.role == "scheduler" && process.name != deposed) {
        dev.kill(&other.name);
    }
    wait_until_true("it leads again", EVENTUALLY, || async { client.leader().await == deposed }).await;
    done().await;
    for job in [first, second] {
        assert_eq!(client.get(&job).await["result"], json!("kept"));
    }
    dev.outlive(&["log", "verify"]).await.expect_ok("log verify");
}
