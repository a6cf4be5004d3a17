//! A log that has lost what was acknowledged: nobody leads, everything needed to look at it stays up, and a person
//! decides.

use outlive_tests::{Dev, EVENTUALLY, wait_until_true};
use serde_json::json;
use std::path::Path;
use std::process::Command;

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(done.success(), "{} to {}", from.display(), to.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_keeps_its_servers_up_where_the_log_has_lost_what_was_acknowledged() {
    let mut dev = Dev::start(1).await;
    let kept = dev.client().await.submit(json!({"name": "kept", "driver": {"noop": {}}})).await;
    dev.client().await.wait_for_status(&kept, "succeeded").await;
    dev.stop().await;
    let (stored, older) = (dev.stored_by("a", "nats"), dev.scratch().join("older"));
    copy(&stored, &older);

    // What happens now is acknowledged, and then NATS comes back with what it had before.
    dev.start_again().await;
    let lost = dev.client().await.submit(json!({"name": "lost", "driver": {"noop": {}}})).await;
    dev.client().await.wait_for_status(&lost, "succeeded").await;
    dev.stop().await;
    std::fs::remove_dir_all(&stored).expect("the newer data is gone");
    copy(&older, &stored);

    let starting = dev.begin_again();
    wait_until_true("dev says what to do", EVENTUALLY, || async {
        let said = dev.said();
        ["log verify", "log accept-loss --yes", "chaos heal", "log_lost_acknowledged_commits"]
            .iter()
            .all(|part| said.contains(part))
    })
    .await;
    assert_eq!(dev.process("scheduler-a").state, "dead");
    for server in ["nats-a", "etcd-a", "executor-a-1"] {
        assert_eq!(dev.process(server).state, "running", "{server} stays up");
    }

    // As it said.
    let verified = dev.outlive(&["log", "verify"]).await;
    assert_eq!(verified.code, Some(1), "{}", verified.err);
    assert!(verified.out.contains("log_lost_acknowledged_commits"), "{}", verified.out);
    assert_eq!(dev.outlive(&["log", "accept-loss"]).await.code, Some(2), "not without a yes");
    dev.outlive(&["log", "accept-loss", "--yes"]).await.expect_ok("log accept-loss");
    dev.outlive(&["chaos", "heal"]).await.expect_ok("chaos heal");
    dev.until_ready(starting).await;
    let client = dev.client().await;
    assert_eq!(client.get(&kept).await["status"], json!("succeeded"));
    let refused = client.refusal("job.get", json!({"job": lost})).await;
    assert_eq!(refused.code, "not_found");
    dev.outlive(&["log", "verify"]).await.expect_ok("log verify");
}
