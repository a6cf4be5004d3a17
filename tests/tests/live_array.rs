//! Arrays on a real system of three zones: thousands of tasks through the loss of a leader and of an executor, tasks
//! that go on from their checkpoints, cancellation and another try of all or of some, deletion, and what a task costs
//! the log.

use outlive_tests::{Client, Dev, EVENTUALLY, wait_until, wait_until_true};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Tasks whose bytes in the log are compared with as many jobs.
const MEASURED: usize = 2_000;
const MANY: u64 = 4_000;

fn small() -> Value {
    json!({"cpu_millis": 1, "memory": "1MiB"})
}

fn noops(name: &str, count: u64, parallel: u64) -> Value {
    json!({"name": name, "driver": {"noop": {}}, "resources": small(), "array": {"count": count, "parallel": parallel}})
}

async fn log_bytes(client: &Client) -> u64 {
    client.ask("sys.status", json!({})).await["log"]["bytes"].as_u64().expect("bytes")
}

fn tasks(view: &Value, which: &str) -> u64 {
    view["tasks"][which].as_u64().unwrap_or_else(|| panic!("no tasks in {view}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_one_job_of_many_tasks() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    a_task_costs_the_log_less_than_a_job(&client).await;
    thousands_through_the_loss_of_a_leader_and_an_executor(&dev, &client).await;
    tasks_go_on_from_their_checkpoints(&dev, &client).await;
    some_tasks_are_cancelled_and_tried_again(&dev, &client).await;
    a_failure_is_told_and_the_whole_is_cancelled(&dev, &client).await;
}

#[expect(clippy::print_stderr, reason = "the figures are for people to read")]
async fn a_task_costs_the_log_less_than_a_job(client: &Client) {
    let before = log_bytes(client).await;
    let job = json!({"driver": {"noop": {}}, "resources": small()});
    let mut ids = Vec::new();
    for _ in 0..MEASURED / 1_000 {
        let made = client.ask("job.submit_many", json!({"jobs": vec![job.clone(); 1_000]})).await;
        ids.extend(
            made["jobs"].as_array().expect("jobs").iter().map(|job| job["id"].as_str().expect("an id").to_owned()),
        );
    }
    for id in &ids {
        client.wait_for_status(id, "succeeded").await;
    }
    let between = log_bytes(client).await;
    client.submit(noops("measured", MEASURED as u64, 1_000)).await;
    let view = client.wait_for_status("measured", "succeeded").await;
    assert_eq!(tasks(&view, "succeeded"), MEASURED as u64);
    let after = log_bytes(client).await;
    let (jobs, array) = ((between - before) / MEASURED as u64, (after - between) / MEASURED as u64);
    eprintln!("bytes of the log: {jobs} for a noop job of submit_many, {array} for a task of an array");
    assert!(array * 3 < jobs * 2, "a task takes {array} bytes of the log, a job {jobs}");
}

async fn thousands_through_the_loss_of_a_leader_and_an_executor(dev: &Dev, client: &Client) {
    client.submit(noops("thousands", MANY, 50)).await;
    client.wait_for("thousands", "some have ended", |view| tasks(view, "succeeded") > 100).await;
    let leader = client.leader().await;
    dev.kill(&leader);
    dev.kill("executor-b-1");
    let view = client.wait_for_status("thousands", "succeeded").await;
    assert_eq!((tasks(&view, "succeeded"), tasks(&view, "failed"), tasks(&view, "pending")), (MANY, 0, 0));
    dev.restart(&leader).await;
    dev.restart("executor-b-1").await;
    // Each task was let go once and counted once.
    let history = client.history("thousands").await;
    let (mut released, mut ended) = (0, 0);
    for event in history.iter().filter(|event| event["type"] == "array_advanced") {
        released += outlive_indexes(&event["released"]);
        ended += outlive_indexes(&event["ended"]);
    }
    let whole = history.iter().filter(|event| event["type"] == "array_advanced").count() < 1_000;
    assert!(!whole || (released, ended) == (MANY, MANY), "{released} and {ended}");
    assert_eq!(history.last().map(|event| &event["type"]), Some(&json!("job_finished")));
}

/// How many indexes `3,7-9` names.
fn outlive_indexes(set: &Value) -> u64 {
    let number = |text: &str| text.parse::<u64>().expect("an index");
    let part = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(last) - number(first) + 1,
        None => 1,
    };
    set.as_str().map_or(0, |set| set.split(',').map(part).sum())
}

async fn tasks_go_on_from_their_checkpoints(dev: &Dev, client: &Client) {
    let ledger = dev.scratch().join("tasks");
    let script = r#"n=$(cat n 2>/dev/null || echo 0)
        while [ $n -lt 30 ]; do n=$((n+1)); echo $n > n.new; mv n.new n; sleep 0.1; done
        echo "$OUTLIVE_ARRAY_INDEX $OUTLIVE_JOB_NAME ${OUTLIVE_RESTORED_CHECKPOINT:-none}" >> "$LEDGER""#;
    let spec = json!({
        "name": "counters", "array": {"count": 18, "parallel": 9},
        "driver": {"process": {"command": ["sh", "-c", script], "env": {"LEDGER": ledger}}},
        "checkpoint": {"interval": "300ms", "min_pause": "100ms"}, "resources": small()
    });
    client.submit(spec).await;
    let victim = wait_until("a task has a checkpoint", EVENTUALLY, || async {
        for index in 0..9 {
            let view = client.get(&format!("counters-{index}")).await;
            if view["checkpoint"]["number"].as_u64() > Some(1) && view["status"] == "running" {
                return view["executor"].as_str().map(ToOwned::to_owned);
            }
        }
        None
    })
    .await;
    dev.kill(&victim);
    let view = client.wait_for_status("counters", "succeeded").await;
    assert_eq!(tasks(&view, "succeeded"), 18);
    dev.restart(&victim).await;
    let text = std::fs::read_to_string(&ledger).expect("the ledger");
    let mut ends: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let index: u32 = words.next().and_then(|index| index.parse().ok()).expect(line);
        assert_eq!(words.next(), Some(format!("counters-{index}").as_str()), "{line}");
        ends.entry(index).or_default().push(words.next().expect(line));
    }
    assert!(ends.keys().copied().eq(0..18), "{text}");
    assert!(ends.values().flatten().any(|from| *from != "none"), "none went on from a checkpoint: {text}");
}

async fn some_tasks_are_cancelled_and_tried_again(dev: &Dev, client: &Client) {
    let (ledger, gate) = (dev.scratch().join("chosen"), dev.scratch().join("gate"));
    let script = r#"echo "$OUTLIVE_ARRAY_INDEX $OUTLIVE_ATTEMPT" >> "$LEDGER"
        while [ ! -e "$GATE" ]; do sleep 0.1; done"#;
    let spec = json!({
        "name": "chosen", "array": {"count": 8, "parallel": 2}, "resources": small(),
        "driver": {"process": {"command": ["sh", "-c", script], "env": {"LEDGER": ledger, "GATE": gate}}}
    });
    client.submit(spec).await;
    client.wait_for("chosen-0", "it runs", |view| view["status"] == "running").await;
    wait_until_true("it has said so itself", EVENTUALLY, || async {
        std::fs::read_to_string(&ledger).is_ok_and(|text| text.contains("0 1\n"))
    })
    .await;
    let told = json!({"job": "chosen", "indexes": "0,5-6", "grace": "1s"});
    let view = client.ask("job.cancel", told.clone()).await;
    assert_eq!((tasks(&view, "pending"), tasks(&view, "cancelled")), (4, 2), "those that wait, at once: {view}");
    client
        .wait_for("chosen", "another follows the one that ran", |view| {
            (tasks(view, "pending"), tasks(view, "running"), tasks(view, "cancelled")) == (3, 2, 3)
        })
        .await;
    assert_eq!(client.get("chosen-0").await["status"], "cancelled");
    let waited = client.ask("job.wait", json!({"job": "chosen-6"})).await;
    assert_eq!((&waited["status"], &waited["reason"]), (&json!("cancelled"), &json!("cancelled before it ran")));
    let view = client.ask("job.cancel", told).await;
    assert_eq!(tasks(&view, "cancelled"), 3, "asking twice is no fault");
    for (operation, body, code) in [
        ("job.cancel", json!({"job": "chosen", "indexes": "7-8"}), "invalid_argument"),
        ("job.cancel", json!({"job": "chosen", "indexes": "8-7"}), "invalid_request"),
        ("job.retry", json!({"job": "chosen", "indexes": "7"}), "in_use"),
        ("job.delete", json!({"job": "chosen", "indexes": "7"}), "invalid_argument"),
        ("job.retry", json!({"job": "counters-0", "indexes": "7"}), "not_found"),
    ] {
        let refused = client.refusal(operation, body.clone()).await;
        assert_eq!(refused.code, code, "{operation} {body}: {}", refused.message);
        assert!(refused.message.contains("indexes") || code == "not_found", "{}", refused.message);
    }
    // While it runs, and once it is over.
    let said = dev.outlive(&["job", "retry", "chosen", "--indexes", "5"]).await.expect_ok("job retry");
    assert_eq!(said.out.trim_end(), "1 tasks of job chosen are tried again");
    std::fs::write(&gate, "").expect("the gate is opened");
    let view = client.wait_for_status("chosen", "failed").await;
    assert_eq!((tasks(&view, "succeeded"), tasks(&view, "cancelled")), (6, 2), "{view}");
    assert_eq!(view["reason"], "0 of 8 tasks failed, and 2 were cancelled");
    assert_eq!(client.refusal("job.cancel", json!({"job": "chosen", "indexes": "0"})).await.code, "in_use");
    client.ask("job.retry", json!({"job": "chosen", "indexes": "0"})).await;
    let view = client.wait_for_status("chosen", "failed").await;
    assert_eq!((tasks(&view, "succeeded"), tasks(&view, "cancelled")), (7, 1), "{view}");
    client.ask("job.retry", json!({"job": "chosen", "indexes": "6"})).await;
    let view = client.wait_for_status("chosen", "succeeded").await;
    assert_eq!(tasks(&view, "succeeded"), 8);
    // Each ran once, but for the one that was cancelled while it ran: its second attempt counts on.
    let text = std::fs::read_to_string(&ledger).expect("the ledger");
    let mut runs: Vec<&str> = text.lines().collect();
    runs.sort_unstable();
    assert_eq!(runs, ["0 1", "0 2", "1 1", "2 1", "3 1", "4 1", "5 1", "6 1", "7 1"]);
    let history = client.history("chosen").await;
    let told: Vec<_> = history
        .iter()
        .filter_map(|event| Some((event["type"].as_str()?.strip_prefix("array_tasks_")?, event["tasks"].as_str()?)))
        .collect();
    assert_eq!(told, [("cancelled", "0,5-6"), ("retried", "5"), ("retried", "0"), ("retried", "6")]);
}

async fn a_failure_is_told_and_the_whole_is_cancelled(dev: &Dev, client: &Client) {
    let script = "echo \"task $OUTLIVE_ARRAY_INDEX\"; [ $OUTLIVE_ARRAY_INDEX -ne 2 ] || exit 7; sleep 1000";
    let spec = json!({
        "name": "mixed", "array": {"count": 5_000, "parallel": 4}, "restart": {"max_attempts": 1},
        "driver": {"process": {"command": ["sh", "-c", script]}}, "resources": small()
    });
    client.submit(spec).await;
    client
        .wait_for("mixed", "one has failed and another follows it", |view| {
            tasks(view, "failed") == 1 && tasks(view, "running") == 4
        })
        .await;
    let failed = client.get("mixed-2").await;
    assert_eq!((&failed["status"], &failed["exit_code"]), (&json!("failed"), &json!(7)), "{failed}");
    // Its record is gone, and what it wrote is not.
    assert_eq!(client.logs("mixed-2").await, "task 2\n");
    assert_eq!(client.get("mixed-4999").await["reason"], "waiting_for_array");
    let why = dev.outlive(&["job", "why", "mixed"]).await.expect_ok("job why");
    assert!(why.out.contains("no more than 4 (`array.parallel`)"), "{}", why.out);
    let shown = dev.outlive(&["job", "get", "mixed"]).await.expect_ok("job get");
    assert!(shown.out.contains("4995 pending, 4 running, 0 succeeded, 1 failed"), "{}", shown.out);
    assert_eq!(client.refusal("job.delete", json!({"job": "mixed"})).await.code, "in_use");
    client.ask("job.cancel", json!({"job": "mixed", "grace": "1s"})).await;
    let view = client.wait_for_status("mixed", "cancelled").await;
    assert_eq!((tasks(&view, "cancelled"), tasks(&view, "failed")), (4_999, 1));
    let id = view["id"].as_str().expect("an id").to_owned();
    client.ask("job.delete", json!({"job": id})).await;
    assert_eq!(client.refusal("job.get", json!({"job": "mixed-2"})).await.code, "not_found");
    wait_until_true("what the tasks had written is erased", EVENTUALLY, || async {
        client.ask("sys.status", json!({})).await["jobs"]["running"] == 0
    })
    .await;
}
