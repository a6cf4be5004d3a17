//! Queues on a real cluster: caps, rates, pauses and bounds that hold whoever leads. One cluster, and a leader that is
//! killed wherever it would hurt.

use outlive_schemas::time::Timestamp;
use outlive_tests::{Client, Dev, EVENTUALLY, wait_until_true};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// How many run at once may be in the capped queue, and starts in the throttled one.
const CAP: usize = 2;
const RATE: usize = 3;
const RATE_PER_MS: u64 = 3_000;

/// Says that it begins, waits for the gate, and says that it ends.
fn gated(name: &str, queue: &str, ledger: &Path, gate: &Path) -> Value {
    let script = r#"
        echo "begin $OUTLIVE_JOB_NAME" >> "$LEDGER"
        while [ ! -e "$GATE" ]; do sleep 0.05; done
        sleep 0.2
        echo "end $OUTLIVE_JOB_NAME" >> "$LEDGER""#;
    json!({
        "name": name, "queue": queue,
        "driver": {"process": {"command": ["sh", "-c", script], "env": {"LEDGER": ledger, "GATE": gate}}},
    })
}

/// The most that ran at once, and how many have ended.
fn told(ledger: &Path) -> (usize, usize) {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let (mut running, mut most, mut ended) = (0_usize, 0, 0);
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("begin", _)) => running += 1,
            Some(("end", _)) => (running, ended) = (running - 1, ended + 1),
            _ => panic!("a line: {line:?}"),
        }
        most = most.max(running);
    }
    (most, ended)
}

async fn queue_is(client: &Client, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let view = async || client.ask("queue.get", json!({"name": name})).await;
    wait_until_true(&format!("queue {name}: {what}"), EVENTUALLY, || async { is(&view().await) }).await;
    view().await
}

async fn kill_the_leader(dev: &Dev, client: &Client) -> String {
    let leader = client.leader().await;
    dev.kill(&leader);
    wait_until_true("another leads", EVENTUALLY, || async {
        let status = client.request("sys.status", json!({})).await;
        status.is_ok_and(|status| status["leader"]["scheduler"] != json!(leader))
    })
    .await;
    leader
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_rates_pauses_and_bounds_hold_whoever_leads() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let path = |name: &str| -> PathBuf { dev.scratch().join(name) };

    let refused = client.refusal("job.submit", json!({"queue": "mail", "driver": {"noop": {}}})).await;
    assert_eq!(refused.code, "not_found", "{refused:?}");
    assert!(refused.message.contains("outlive queue put mail"), "{refused:?}");

    // A cap, and one by key.
    let put = ["queue", "put", "mail", "--concurrency", "2", "--output", "json"];
    let view = dev.outlive(&put).await.expect_ok("queue put").json();
    assert_eq!((&view["concurrency"], &view["weight"], &view["paused"]), (&json!(2), &json!(1), &json!(false)));
    let (ledger, gate) = (path("ledger"), path("gate"));
    let jobs: Vec<Value> = (0..6).map(|n| gated(&format!("mail-{n}"), "mail", &ledger, &gate)).collect();
    let submitted = client.ask("job.submit_many", json!({"jobs": jobs})).await;
    let ids: Vec<String> =
        submitted["jobs"].as_array().expect("jobs").iter().map(|j| j["id"].as_str().expect("id").to_owned()).collect();
    let view = queue_is(&client, "mail", "it is full", |view| view["running"] == 2 && view["waiting"] == 4).await;
    assert_eq!(view["held_by"], "concurrency", "{view}");
    wait_until_true("both begin", EVENTUALLY, || async { told(&ledger).0 == CAP }).await;
    let why = client.ask("job.why", json!({"job": ids[5]})).await;
    assert_eq!((&why["queue"]["held_by"], &why["queue"]["ahead"]), (&json!("concurrency"), &json!(3)), "{why}");
    assert!(why["summary"].as_str().expect("a summary").contains("its `concurrency` is 2"), "{why}");

    // A rate: while it is used up the leader dies, and the next one knows what was started.
    client.ask("queue.put", json!({"name": "calls", "rate": {"limit": RATE, "per": "3s"}})).await;
    let call = |n: usize| json!({"name": format!("call-{n}"), "queue": "calls", "driver": {"noop": {}}});
    let calls: Vec<Value> = (0..RATE * 3 + 1).map(call).collect();
    client.ask("job.submit_many", json!({"jobs": calls})).await;
    let killed = kill_the_leader(&dev, &client).await;
    for n in 0..=RATE * 3 {
        client.wait_for_status(&format!("call-{n}"), "succeeded").await;
    }
    let mut starts = Vec::new();
    for n in 0..=RATE * 3 {
        let history = client.history(&format!("call-{n}")).await;
        let placed = history.iter().filter(|event| event["type"] == "job_placed");
        starts.extend(placed.map(|event| Timestamp::parse(event["at"].as_str().expect("a time")).expect("a time").0));
    }
    starts.sort_unstable();
    assert!(starts.len() > RATE * 3, "each was started: {starts:?}");
    for within in starts.windows(RATE + 1) {
        assert!(within[RATE] - within[0] >= RATE_PER_MS, "more than {RATE} in {RATE_PER_MS} ms: {starts:?}");
    }

    // The cap has held meanwhile, and holds until all are through.
    dev.restart(&killed).await;
    std::fs::write(&gate, "").expect("the gate opens");
    for id in &ids {
        client.wait_for_status(id, "succeeded").await;
    }
    assert_eq!(told(&ledger), (CAP, 6), "never more than the cap at once");

    // A paused queue with a bound.
    client.ask("queue.put", json!({"name": "small", "max_waiting": 2, "paused": true})).await;
    let small = |n: usize| json!({"name": format!("small-{n}"), "queue": "small", "driver": {"noop": {}}});
    client.submit(small(0)).await;
    client.submit(small(1)).await;
    let refused = client.refusal("job.submit", small(2)).await;
    assert_eq!(refused.code, "limit_exceeded", "{refused:?}");
    assert!(refused.message.contains("queue `small`") && refused.message.contains("`max_waiting` is 2"), "{refused:?}");
    let why = client.ask("job.why", json!({"job": "small-0"})).await;
    assert_eq!(why["queue"]["held_by"], "paused", "{why}");
    let refused = client.refusal("queue.delete", json!({"name": "small"})).await;
    assert_eq!(refused.code, "in_use", "{refused:?}");
    kill_the_leader(&dev, &client).await;
    let view = client.ask("queue.get", json!({"name": "small"})).await;
    assert_eq!((&view["paused"], &view["waiting"], &view["max_waiting"]), (&json!(true), &json!(2), &json!(2)));
    let view = dev.outlive(&["queue", "resume", "small", "--output", "json"]).await.expect_ok("queue resume").json();
    assert_eq!((&view["paused"], &view["max_waiting"]), (&json!(false), &json!(2)), "what else it is stays: {view}");
    for n in 0..2 {
        client.wait_for_status(&format!("small-{n}"), "succeeded").await;
    }
    let listed = client.ask("queue.list", json!({})).await;
    let names: Vec<&str> =
        listed["queues"].as_array().expect("queues").iter().filter_map(|q| q["name"].as_str()).collect();
    assert_eq!(names, ["calls", "default", "mail", "small"]);
    client.ask("queue.delete", json!({"name": "small"})).await;
    assert_eq!(client.refusal("queue.get", json!({"name": "small"})).await.code, "not_found");
}

/// Counts for ever, in its state and in a ledger outside: a line says the attempt, what it resumed from, and the count.
fn counter(name: &str, ledger: &Path, cpu_millis: u64, priority: u64, preemptible: bool) -> Value {
    let script = r#"
        n=$(cat n 2>/dev/null || echo 0)
        while :; do
            n=$((n + 1)); echo $n > n.new; mv n.new n
            echo "$OUTLIVE_ATTEMPT ${OUTLIVE_RESTORED_CHECKPOINT:-0} $n" >> "$LEDGER"
            sleep 0.05
        done"#;
    json!({
        "name": name, "kind": "service", "exclusive": true, "priority": priority, "preemptible": preemptible,
        "driver": {"process": {"command": ["sh", "-c", script], "env": {"LEDGER": ledger}}},
        "resources": {"cpu_millis": cpu_millis}, "placement": {"zones": ["a"]},
        "checkpoint": {"interval": "1h", "min_pause": "1h"},
    })
}

fn counted(ledger: &Path) -> Vec<(u64, u64, u64)> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let whole = text.rsplit_once('\n').map(|(whole, _)| whole.to_owned()).unwrap_or_default();
    let line = |line: &str| {
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect(line)).collect();
        (numbers[0], numbers[1], numbers[2])
    };
    whole.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_more_urgent_takes_the_room_and_who_gave_way_goes_on_from_where_it_was() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let path = |name: &str| -> PathBuf { dev.scratch().join(name) };
    let executors = client.ask("sys.executor.list", json!({})).await;
    let all = executors["executors"].as_array().expect("executors");
    let here = all.iter().find(|executor| executor["zone"] == "a").expect("one in zone a");
    let whole = here["capacity"]["cpu_millis"].as_u64().expect("a capacity");

    // It takes the whole of zone a, and makes no checkpoint of its own for an hour.
    let (low, urgent) = (path("low"), path("urgent"));
    client.submit(counter("low", &low, whole, 10, true)).await;
    client.wait_for_status("low", "running").await;
    wait_until_true("it counts", EVENTUALLY, || async { counted(&low).len() > 5 }).await;

    // An equal does not make it give way, and why says so.
    client.submit(counter("equal", &path("equal"), whole, 10, false)).await;
    let why = client.ask("job.why", json!({"job": "equal"})).await;
    assert!(why["summary"].as_str().expect("a summary").contains("waits for room"), "{why}");

    client.submit(counter("urgent", &urgent, whole, 90, false)).await;
    client.wait_for_status("urgent", "running").await;
    wait_until_true("the urgent one counts", EVENTUALLY, || async { counted(&urgent).len() > 5 }).await;
    let view = client.get("low").await;
    assert_eq!((&view["status"], &view["attempt"]), (&json!("pending"), &json!(1)), "{view}");
    assert!(view["reason"].as_str().expect("a reason").contains("gave way"), "{view}");
    let history = client.history("low").await;
    assert!(history.iter().any(|event| event["type"] == "job_preempted"), "{history:?}");
    let last = *counted(&low).last().expect("it has counted");

    // Whoever leads next knows that it waits, and from what it goes on.
    kill_the_leader(&dev, &client).await;
    assert_eq!(client.get("low").await["status"], "pending");
    client.ask("job.kill", json!({"job": "equal"})).await;
    client.ask("job.kill", json!({"job": "urgent"})).await;
    let resumed = |view: &Value| view["status"] == "running" && view["attempt"] == 2;
    client.wait_for("low", "attempt 2 runs", resumed).await;
    wait_until_true("it counts again", EVENTUALLY, || async {
        counted(&low).iter().any(|(attempt, ..)| *attempt == 2)
    })
    .await;
    let (_, restored, first) = *counted(&low).iter().find(|(attempt, ..)| *attempt == 2).expect("it counts");
    assert!(restored > 0, "it was restored from its last checkpoint");
    // It was frozen as its state was read: nothing is done again, but for a line that it had not written yet.
    assert!(first == last.2 + 1 || first == last.2 + 2, "it had come to {last:?}, and goes on at {first}");
    client.ask("job.kill", json!({"job": "low"})).await;
    client.wait_for_status("low", "cancelled").await;
}
