//! Images: a scheduler begins at one, and the log below the oldest is let go.

use futures::TryStreamExt as _;
use outlive_tests::examples::script;
use outlive_tests::{Client, Dev, EVENTUALLY, Options, wait_until, wait_until_true};
use serde_json::{Value, json};

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

/// Runs so many small jobs, one after the other.
async fn fill(client: &Client, jobs: usize) {
    for _ in 0..jobs {
        let job = client.submit(json!({"driver": {"noop": {}}})).await;
        client.wait_for_status(&job, "succeeded").await;
    }
}

async fn first_seq(client: &Client) -> u64 {
    client.ask("sys.status", json!({})).await["log"]["first_seq"].as_u64().expect("a position")
}

/// The positions of the images that are there, the oldest first.
async fn images(client: &Client) -> Vec<u64> {
    let blobs = async_nats::jetstream::new(client.nats().clone()).get_stream("OUTLIVE_BLOB").await.expect("the stream");
    let mut heads = blobs.info_with_subjects("outlive.blob.imagehead.*").await.expect("its subjects");
    let mut found = Vec::new();
    while let Some((head, _)) = heads.try_next().await.expect("a subject") {
        let name = head.rsplit('.').next().expect("a name");
        // Names begin with the commit's sequence.
        found.push(u64::from_str_radix(&name[..16], 16).expect("a sequence"));
    }
    found.sort_unstable();
    found
}

fn kinds(history: &[Value]) -> Vec<&str> {
    let all = history.iter().map(|event| event["type"].as_str().expect("a type"));
    all.filter(|kind| *kind != "checkpoint_completed").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_history_is_whole_as_far_back_as_the_log_goes() {
    // The window holds the job's life and some jobs beside it, and not the hundreds before and after.
    let env =
        vec![("OUTLIVE_LOG__IMAGE_EVERY_EVENTS", "6".to_owned()), ("OUTLIVE_LOG__HISTORY_EVENTS", "400".to_owned())];
    let mut dev = Dev::start_with(1, Options { executors_per_zone: 2, env, ..Options::default() }).await;
    let client = dev.client().await;
    wait_until_true("the log is purged before the job is there", EVENTUALLY, || async {
        fill(&client, 1).await;
        first_seq(&client).await > 1
    })
    .await;

    // A life with an end of every kind, and who asked for what.
    let file = dev.scratch().join("told.json");
    let mut spec = script("told", "while :; do date > state; sleep 0.1; done");
    spec["kind"] = json!("service");
    spec["checkpoint"] = json!({"interval": "24h"});
    std::fs::write(&file, spec.to_string()).expect("written");
    let asks = async |args: &[&str]| {
        dev.outlive(&[&["job"], args].concat()).await.expect_ok(&args.join(" "));
    };
    asks(&["submit", file.to_str().expect("UTF-8")]).await;
    let ran_on = client.wait_for_status("told", "running").await["executor"].as_str().expect("a name").to_owned();
    dev.kill(&ran_on);
    client.wait_for("told", "it resumes", |view| view["attempt"] == 2 && view["status"] == "running").await;
    asks(&["stop", "told"]).await;
    client.wait_for_status("told", "stopped").await;
    asks(&["start", "told"]).await;
    client.wait_for_status("told", "running").await;
    asks(&["cancel", "told"]).await;
    client.wait_for_status("told", "cancelled").await;
    dev.restart(&ran_on).await;

    let told = client.history("told").await;
    let expected = [
        "job_submitted",
        "job_placed",
        "attempt_started",
        "job_restarting",
        "job_placed",
        "attempt_started",
        "stop_requested",
        "snapshot_requested",
        "snapshot_completed",
        "job_stopped",
        "start_requested",
        "job_placed",
        "attempt_started",
        "cancel_requested",
        "job_finished",
    ];
    let mut found = kinds(&told);
    // The request and the snapshot that it leads to are one commit.
    found.sort_unstable();
    let mut sorted = expected;
    sorted.sort_unstable();
    assert_eq!(found, sorted, "{told:#?}");
    assert!(told.iter().all(|event| event["at"].is_string()), "{told:#?}");
    let of_kind = |kind: &str| told.iter().find(|event| event["type"] == kind).expect("it is there");
    assert_eq!(of_kind("job_restarting")["cause"], "executor_lost");
    for asked in ["job_submitted", "stop_requested", "start_requested", "cancel_requested"] {
        assert!(of_kind(asked)["by"].as_str().is_some_and(|by| by.contains('@')), "{:#}", of_kind(asked));
    }
    let seq_of = |event: Option<&Value>| event.and_then(|event| event["seq"].as_u64()).expect("a position");
    let (begun, over) = (seq_of(told.first()), seq_of(told.last()));

    // Every image that is kept is of after the job's end: nobody folds what it went through any more.
    wait_until_true("all images are newer", EVENTUALLY, || async {
        let before = images(&client).await;
        fill(&client, 3).await;
        wait_until("another image", EVENTUALLY, || async { (images(&client).await != before).then_some(()) }).await;
        images(&client).await.first().is_some_and(|oldest| *oldest > over)
    })
    .await;
    dev.kill_all().await;
    dev.start_again().await;
    let client = dev.client().await;
    assert!((2..=begun).contains(&first_seq(&client).await), "what was before the job is purged, and no more");
    let page = client.ask("job.history", json!({"job": "told"})).await;
    assert_eq!(page["events"].as_array(), Some(&told), "it is all there as it was");
    assert!(page["left_out"].is_null() && page["cursor"].is_null(), "{page:#}");
    let shown = dev.outlive(&["job", "history", "told"]).await.expect_ok("job history");
    let line = |kind: &str| shown.out.lines().find(|line| line.contains(kind)).expect("a line").to_owned();
    assert!(line("job_submitted").contains(", by "), "{}", shown.out);
    assert!(line("job_restarting").contains("executor_lost"), "{}", shown.out);
    assert!(!shown.err.contains("no longer kept"), "{}", shown.err);

    // Once the log has let go of it, the history says so, and from where on it is kept; what comes then is in it.
    wait_until_true("the job's life is purged", EVENTUALLY, || async {
        fill(&client, 1).await;
        first_seq(&client).await > over
    })
    .await;
    assert_eq!(client.get("told").await["status"], "cancelled", "what it is, is known from the image");
    dev.outlive(&["job", "retry", "told"]).await.expect_ok("job retry");
    client.wait_for_status("told", "running").await;
    let page = client.ask("job.history", json!({"job": "told"})).await;
    let events = page["events"].as_array().expect("events");
    assert_eq!(events[0]["type"], "job_retried", "{page:#}");
    let says = |text: &str| text.contains("older than commit") && text.contains("log.history_events");
    assert!(page["left_out"].as_str().is_some_and(says), "{page:#}");
    let shown = dev.outlive(&["job", "history", "told"]).await.expect_ok("job history");
    assert!(shown.err.contains("no longer kept") && says(&shown.err), "{}", shown.err);
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
