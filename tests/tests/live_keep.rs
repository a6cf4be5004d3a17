//! How long things are kept, and that they can be had back: retention, collected chunks, backups.

use outlive_tests::dev::is_alive;
use outlive_tests::examples::{example, script};
use outlive_tests::{Client, Dev, EVENTUALLY, Options, wait_until_true};
use serde_json::json;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_goes_and_what_nothing_refers_to_is_collected() {
    let env = vec![
        ("OUTLIVE_RETENTION__FINISHED_FOR", "4s".to_owned()),
        ("OUTLIVE_RETENTION__FINISHED_AT_LEAST", "1s".to_owned()),
    ];
    let dev = Dev::start_with(1, Options { env, ..Options::default() }).await;
    let client = dev.client().await;

    // Each checkpoint holds other bytes, so that without collecting there would be three chunks more for each.
    let churn = "while :; do head -c 300000 /dev/urandom > state.new; mv state.new state; sleep 0.1; done";
    let mut spec = script("churn", churn);
    spec["kind"] = json!("service");
    spec["checkpoint"] = json!({"interval": "200ms", "min_pause": "0ms"});
    let churn = client.submit(spec).await;

    let mut spec =
        script("short", "echo state > state; echo said; while ! [ -e go ]; do sleep 0.1; touch go; done; sleep 1");
    spec["checkpoint"] = json!({"interval": "200ms", "min_pause": "0ms"});
    let short = client.submit(spec).await;
    client.wait_for(&short, "a checkpoint", |view| view["checkpoint"]["number"].as_u64() >= Some(1)).await;
    let (key, log) = (format!("outlive.key.job.{short}"), format!("outlive.joblog.default.{short}"));
    let blobs = format!("outlive.blob.job.{short}.*");
    assert_eq!(client.subjects("OUTLIVE_KEYS", &key).await, 1);
    assert!(client.subjects("OUTLIVE_BLOB", &blobs).await > 0);
    client.wait_for_status(&short, "succeeded").await;
    wait_until_true("the finished job is forgotten", EVENTUALLY, || async {
        client.request("job.get", json!({"job": short})).await.is_err_and(|refused| refused.code == "not_found")
    })
    .await;
    wait_until_true("nothing of it is left in any store", EVENTUALLY, || async {
        client.subjects("OUTLIVE_KEYS", &key).await == 0
            && client.subjects("OUTLIVE_BLOB", &blobs).await == 0
            && client.subjects("OUTLIVE_JOB_LOGS", &log).await == 0
    })
    .await;

    let blobs = format!("outlive.blob.job.{churn}.*");
    client.wait_for(&churn, "many checkpoints", |view| view["checkpoint"]["number"].as_u64() >= Some(40)).await;
    wait_until_true("what fell out of retention is collected", EVENTUALLY, || async {
        // Three checkpoints with some chunks each, and what came since the last round.
        let number = client.get(&churn).await["checkpoint"]["number"].as_u64().unwrap_or_default() as usize;
        client.subjects("OUTLIVE_BLOB", &blobs).await < number
    })
    .await;
    // What is left is what it goes on from.
    let before = client.get(&churn).await["attempt"].as_u64();
    dev.kill("executor-a-1");
    dev.restart("executor-a-1").await;
    let view = client
        .wait_for(&churn, "it goes on", |view| view["status"] == "running" && view["attempt"].as_u64() > before)
        .await;
    assert!(view["last_recovery"]["restored_checkpoint"].as_u64() >= Some(40), "{view:#}");
    let stored = client.ask("sys.status", json!({})).await["stored"].clone();
    let kinds: Vec<&str> = stored.as_array().expect("a list").iter().filter_map(|kind| kind["kind"].as_str()).collect();
    for kind in ["log", "checkpoints", "images", "job_logs", "keys"] {
        assert!(kinds.contains(&kind), "{stored}");
    }
}

/// Removes everything from a system whose roles are dead, as if its servers were new.
async fn empty(dev: &Dev, client: &Client) {
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    for stream in ["OUTLIVE_LOG", "OUTLIVE_BLOB", "OUTLIVE_KEYS", "OUTLIVE_JOB_LOGS"] {
        jetstream.delete_stream(stream).await.expect("deleted");
    }
    // "/outlive/" up to the first key behind it, in base64.
    let body = r#"{"key":"L291dGxpdmUv","range_end":"L291dGxpdmUw"}"#;
    let mut etcd = tokio::net::TcpStream::connect(&dev.etcd_addresses()[0]).await.expect("etcd");
    let request = format!(
        "POST /v3/kv/deleterange HTTP/1.1\r\nhost: etcd\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    etcd.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    etcd.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn sizes(directory: &Path) -> Vec<(String, u64)> {
    let mut all: Vec<_> = std::fs::read_dir(directory)
        .expect("there")
        .flatten()
        .filter(|entry| entry.file_name() != "manifest.json")
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.metadata().expect("there").len()))
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_restores_the_cluster_whole_or_up_to_a_position() {
    let mut dev = Dev::start(1).await;
    let client = dev.client().await;
    let counter = client.submit(example("counter")).await;
    let done = client.submit(json!({"name": "done", "driver": {"noop": {}}, "input": "kept"})).await;
    client.wait_for_status(&done, "succeeded").await;
    client.wait_for(&counter, "two checkpoints", |view| view["checkpoint"]["number"].as_u64() >= Some(2)).await;

    let place = dev.scratch().join("backup");
    let (place_text, backup) = (place.display().to_string(), ["--output", "json", "backup"]);
    let first = dev.outlive(&[&backup[..], &[&place_text]].concat()).await.expect_ok("backup").json();
    let files = sizes(&place);
    let first_end = first["run"]["log"]["seq"].as_u64().expect("a position");
    let later = client.submit(json!({"name": "later", "driver": {"noop": {}}, "input": "too"})).await;
    client.wait_for_status(&later, "succeeded").await;
    let second = dev.outlive(&[&backup[..], &[&place_text]].concat()).await.expect_ok("backup").json();
    assert!(second["run"]["log"]["seq"].as_u64() > Some(first_end), "{second}");
    assert!(second["added_bytes"].as_u64() < first["added_bytes"].as_u64(), "only what is new: {first} {second}");
    let kept = sizes(&place);
    assert!(files.iter().all(|file| file.0.starts_with("keys-") || kept.contains(file)), "{files:?} {kept:?}");
    let term = client.ask("sys.status", json!({})).await["leader"]["term"].as_u64().expect("a term");
    let checkpoint = client.get(&counter).await["checkpoint"]["number"].as_u64().expect("a number");

    // A cluster that is in use is left alone.
    let refused = dev.outlive(&["restore", &place_text]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("not empty"), "{refused:?}");

    let new = Dev::start_with_key_of(&dev, 1).await;
    dev.stop().await;
    let client = new.client().await;
    new.kill_roles().await;
    empty(&new, &client).await;
    // What was damaged is found before anything is written.
    let pack = place.join("log-1.pack");
    let whole = std::fs::read(&pack).expect("there");
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("a byte") ^= 1;
    std::fs::write(&pack, damaged).expect("written");
    let refused = new.outlive(&["restore", &place_text]).await;
    assert!(refused.code == Some(2) && refused.err.contains("log-1.pack is damaged"), "{refused:?}");
    std::fs::write(&pack, whole).expect("written");

    let restored = new.outlive(&["--output", "json", "restore", &place_text]).await.expect_ok("restore").json();
    assert_eq!(restored["log_end"], second["run"]["log"]["seq"]);
    assert_eq!(restored["missing"], 0, "{restored}");
    new.restart_roles().await;
    assert_eq!(client.get(&done).await["result"], json!("kept"));
    assert_eq!(client.get(&later).await["result"], json!("too"));
    let view = client
        .wait_for(&counter, "it goes on", |view| view["status"] == "running" && view["attempt"].as_u64() >= Some(2))
        .await;
    // The last checkpoint before the backup, or one soon before: the figure was taken after it.
    assert!(view["last_recovery"]["restored_checkpoint"].as_u64() >= Some(1), "{view:#}");
    client
        .wait_for(&counter, "new checkpoints", |view| view["checkpoint"]["number"].as_u64() > Some(checkpoint + 1))
        .await;
    let now = client.ask("sys.status", json!({})).await["leader"]["term"].as_u64();
    assert!(now > Some(term), "terms rise: {term} and {now:?}");
    let history = client.history(&counter).await;
    assert_eq!(history[0]["type"], "job_submitted");
    assert!(client.logs(&counter).await.matches("starts from nothing").count() == 1, "only once, in the old cluster");
    new.outlive(&["log", "verify"]).await.expect_ok("log verify");

    // Once more, up to the first backup.
    new.kill_roles().await;
    empty(&new, &client).await;
    let at = first_end.to_string();
    let restored =
        new.outlive(&["--output", "json", "restore", &place_text, "--at", &at]).await.expect_ok("restore").json();
    assert_eq!(restored["log_end"].as_u64(), Some(first_end));
    new.restart_roles().await;
    assert_eq!(client.get(&done).await["result"], json!("kept"));
    assert_eq!(client.refusal("job.get", json!({"job": later})).await.code, "not_found");
    client.wait_for(&counter, "it goes on", |view| view["status"] == "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_purged_is_restored_from_where_it_begins() {
    let env =
        vec![("OUTLIVE_LOG__IMAGE_EVERY_EVENTS", "6".to_owned()), ("OUTLIVE_LOG__HISTORY_EVENTS", "0".to_owned())];
    let mut dev = Dev::start_with(1, Options { env, ..Options::default() }).await;
    let client = dev.client().await;
    let counter = client.submit(example("counter")).await;
    let first = client.submit(json!({"name": "first", "driver": {"noop": {}}, "input": "kept"})).await;
    client.wait_for(&counter, "a checkpoint", |view| view["checkpoint"]["number"].as_u64() >= Some(1)).await;
    let first_seq = |status: &serde_json::Value| status["log"]["first_seq"].as_u64().expect("a position");
    wait_until_true("the log is purged below its oldest image", EVENTUALLY, || async {
        let job = client.submit(json!({"driver": {"noop": {}}})).await;
        client.wait_for_status(&job, "succeeded").await;
        first_seq(&client.ask("sys.status", json!({})).await) > 1
    })
    .await;
    let jobs = client.list(json!({})).await.len();
    let place = dev.scratch().join("backup").display().to_string();
    let made = dev.outlive(&["--output", "json", "backup", &place]).await.expect_ok("backup").json();

    let new = Dev::start_with_key_of(&dev, 1).await;
    dev.stop().await;
    let client = new.client().await;
    new.kill_roles().await;
    empty(&new, &client).await;
    let restored = new.outlive(&["--output", "json", "restore", &place]).await.expect_ok("restore").json();
    assert_eq!(restored["log_end"], made["run"]["log"]["seq"]);
    assert_eq!(restored["missing"], 0, "{restored}");
    new.restart_roles().await;
    // What is left of the log is not enough to know the first job: only an image can.
    assert!(first_seq(&client.ask("sys.status", json!({})).await) > 1);
    assert_eq!(client.get(&first).await["result"], json!("kept"));
    assert_eq!(client.list(json!({})).await.len(), jobs);
    let resumed = |view: &serde_json::Value| view["status"] == "running" && view["attempt"].as_u64() >= Some(2);
    client.wait_for(&counter, "it goes on", resumed).await;
    new.outlive(&["log", "verify"]).await.expect_ok("log verify");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_lived_through_a_restore_begins_anew() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let counter = client.submit(example("counter")).await;
    let number = |view: &serde_json::Value| view["checkpoint"]["number"].as_u64();
    client.wait_for(&counter, "a checkpoint", |view| number(view) >= Some(1)).await;
    let place = dev.scratch().join("backup").display().to_string();
    dev.outlive(&["backup", &place]).await.expect_ok("backup");
    let kept = number(&client.get(&counter).await).expect("a checkpoint");
    // It goes on and reports; of that the backup knows nothing.
    let before = client.wait_for(&counter, "more checkpoints", |view| number(view) > Some(kept + 1)).await;
    let term = client.ask("sys.status", json!({})).await["leader"]["term"].as_u64().expect("a term");
    let executor = dev.process("executor-a-1").pid;
    let old = dev.processes_with(&format!("OUTLIVE_JOB_ID={counter}"));
    assert!(!old.is_empty(), "it runs");

    dev.kill("scheduler-a");
    empty(&dev, &client).await;
    dev.outlive(&["restore", &place]).await.expect_ok("restore");
    dev.restart("scheduler-a").await;
    let view = client
        .wait_for(&counter, "it goes on", |view| {
            view["status"] == "running" && view["attempt"].as_u64() > before["attempt"].as_u64()
        })
        .await;
    assert_eq!(dev.process("executor-a-1").pid, executor, "the executor's process was not touched");
    assert!(view["last_recovery"]["restored_checkpoint"].as_u64() <= Some(kept + 1), "as the backup has it: {view:#}");
    wait_until_true("what ran there is ended", EVENTUALLY, || async { old.iter().all(|pid| !is_alive(*pid)) }).await;
    let running = dev.processes_with(&format!("OUTLIVE_JOB_ID={counter}"));
    let current = dev.processes_with(&format!("OUTLIVE_ATTEMPT={}", view["attempt"]));
    assert!(!running.is_empty() && running.iter().all(|pid| current.contains(pid)), "{running:?} {current:?}");
    client.wait_for(&counter, "new checkpoints", |now| number(now) > number(&view)).await;
    let now = client.ask("sys.status", json!({})).await["leader"]["term"].as_u64();
    assert!(now > Some(term), "terms rise: {term} and {now:?}");
    dev.outlive(&["log", "verify"]).await.expect_ok("log verify");
}
