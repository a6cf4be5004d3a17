//! Jobs that begin later, are given up in time, stop writing, or are tried again; also while leaders die.

use outlive_tests::{Dev, EVENTUALLY, wait_until_true};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn script(name: &str, text: &str) -> Value {
    json!({"name": name, "driver": {"process": {"command": ["sh", "-c", text]}}, "restart": {"initial_backoff": "100ms"}})
}

fn with(mut spec: Value, more: Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        match (spec.get_mut(key).and_then(Value::as_object_mut), value) {
            (Some(known), Value::Object(more)) => known.extend(more.clone()),
            _ => spec[key] = value.clone(),
        }
    }
    spec
}

fn in_ms(ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    outlive_schemas::time::Timestamp(now + ms).to_string()
}

fn ms(view: &Value, field: &str) -> u64 {
    let text = view[field].as_str().unwrap_or_else(|| panic!("`{field}` of {view}"));
    outlive_schemas::time::Timestamp::parse(text).expect("a time").0
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_and_deadlines_outlive_their_leader() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;

    let at = in_ms(15_000);
    let later = client.submit(with(script("later", "true"), json!({"start": {"at": at}}))).await;
    let delayed = client.submit(with(script("delayed", "true"), json!({"start": {"delay": "14s"}}))).await;
    for job in [&later, &delayed] {
        let view = client.get(job).await;
        assert_eq!((view["status"].as_str(), view["reason"].as_str()), (Some("pending"), Some("not_yet")), "{view}");
        let why = client.ask("job.why", json!({"job": job})).await;
        assert!(why["summary"].as_str().expect("a summary").starts_with("not_yet: "), "{why}");
    }
    let nowhere = json!({"placement": {"zones": ["nowhere"]}, "deadline": {"start_within": "12s"}});
    let unplaced = client.submit(with(script("unplaced", "true"), nowhere)).await;
    let endless = json!({"deadline": {"finish_within": "12s"}});
    let endless = client.submit(with(script("endless", "sleep 600"), endless)).await;
    client.wait_for_status(&endless, "running").await;

    // All of it is in the log, and so it does not depend on who leads.
    let leader = client.leader().await;
    dev.kill(&leader);
    wait_until_true("dev knows", EVENTUALLY, || async { dev.process(&leader).state == "dead" }).await;

    for (job, part) in [(&unplaced, "(start_within)"), (&endless, "(finish_within)")] {
        client.wait_for_status(job, "failed").await;
        let view = client.get(job).await;
        assert!(view["reason"].as_str().expect("a reason").contains(part), "{view}");
        assert!(ms(&view, "finished_at") >= ms(&view, "submitted_at") + 12_000, "not before its time: {view}");
    }
    for job in [&later, &delayed] {
        client.wait_for_status(job, "succeeded").await;
        let view = client.get(job).await;
        assert!(ms(&view, "started_at") >= ms(&view, "submitted_at") + 13_500, "not before its time: {view}");
    }
    let begun = client.get(&later).await;
    assert!(begun["started_at"].as_str().expect("a start") >= at.as_str(), "{begun}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_tried_again_and_deleted() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;

    // What is wrong for good is not tried again.
    let codes = json!({"restart": {"no_retry_exit_codes": [64]}, "labels": {"team": "data"}});
    let hopeless = client.submit(with(script("hopeless", "exit 64"), codes)).await;
    client.wait_for_status(&hopeless, "failed").await;
    let view = client.get(&hopeless).await;
    assert_eq!((view["attempt"].as_u64(), view["exit_code"].as_i64()), (Some(1), Some(64)), "{view}");

    // One that fails until somebody has mended what it needs, and goes on from its state.
    let flag = dev.scratch().join("mended");
    let text =
        format!("echo try >> tries; sleep 1; test -e {} || exit 1; wc -l < tries > $OUTLIVE_RESULT", flag.display());
    let policy = json!({"restart": {"max_attempts": 1}, "checkpoint": {"interval": "100ms", "min_pause": "100ms"}});
    let mendable = client.submit(with(script("mendable", &text), policy)).await;
    client.wait_for_status(&mendable, "failed").await;

    let failed = client.list(json!({"status": ["failed"]})).await;
    assert_eq!(failed.len(), 2);
    std::fs::write(&flag, "").expect("a file");
    let reply = client.ask("job.retry", json!({"job": "mendable"})).await;
    assert_eq!(reply, json!({"retried": 1}));
    client.wait_for_status(&mendable, "succeeded").await;
    let view = client.get(&mendable).await;
    assert_eq!((view["attempt"].as_u64(), view["result"].as_str().map(str::trim)), (Some(2), Some("2")), "{view}");
    let history = client.ask("job.history", json!({"job": mendable})).await;
    let kinds: Vec<&str> =
        history["events"].as_array().expect("events").iter().filter_map(|e| e["type"].as_str()).collect();
    let place = |kind| kinds.iter().position(|known| *known == kind);
    assert!(place("job_finished") < place("job_retried"), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "job_finished").count(), 2, "{kinds:?}");

    // By filter; what does not match is left alone.
    let none = client.ask("job.retry", json!({"filter": {"labels": {"team": "other"}}})).await;
    assert_eq!(none, json!({"retried": 0}));
    let reply = client.ask("job.retry", json!({"filter": {"labels": {"team": "data"}}})).await;
    assert_eq!(reply, json!({"retried": 1}));
    wait_until_true("it failed again", EVENTUALLY, || async {
        let view = client.get(&hopeless).await;
        view["status"] == "failed" && view["attempt"] == 2
    })
    .await;
    let refused = client.refusal("job.delete", json!({"filter": {}})).await;
    assert!(refused.message.contains("`filter.status` is missing"), "{refused:?}");
    let refused = client.refusal("job.retry", json!({"job": "mendable"})).await;
    assert_eq!(refused.code, "in_use");
    let reply = client.ask("job.delete", json!({"filter": {"status": ["failed"]}})).await;
    assert_eq!(reply, json!({"deleted": 1}));
    assert_eq!(client.refusal("job.get", json!({"job": hopeless})).await.code, "not_found");
    assert_eq!(client.get(&mendable).await["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stops_writing_is_restarted() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    // Silent the first time, after it has written for longer than its silence may be; then well.
    let text = "if [ $OUTLIVE_ATTEMPT = 1 ]; then for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done; sleep 600; fi";
    let silent = json!({"progress_timeout": "2s"});
    let job = client.submit(with(script("silent", text), silent)).await;
    client.wait_for_status(&job, "succeeded").await;
    let view = client.get(&job).await;
    assert_eq!(view["attempt"], 2, "{view}");
    assert_eq!(view["last_recovery"]["cause"], "no_progress", "{view}");
    let history = client.ask("job.history", json!({"job": job})).await;
    let events = history["events"].as_array().expect("events");
    let restarting = events.iter().find(|event| event["type"] == "job_restarting").expect("it was restarted");
    assert_eq!(restarting["cause"], "no_progress");
    let ran = Duration::from_millis(ms(restarting, "lost_at") - ms(&view, "started_at"));
    assert!(ran >= Duration::from_millis(4_400), "it was not silent before: {ran:?}");
}
