//! Images: a scheduler begins at one, and the log below the oldest is let go.

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
}
