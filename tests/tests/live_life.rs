//! Snapshots, stops, starts, updates and rollbacks, on a real system of three zones.

use futures::StreamExt as _;
use outlive_tests::{Client, Dev, EVENTUALLY, Options, wait_until, wait_until_true};
use serde_json::{Value, json};
use std::path::Path;

/// A service whose whole state is one number. It says what it begins with, and adds one whenever the file `add` is
/// there.
fn keeper(version: &str, add: &Path) -> Value {
    let script = format!(
        "n=$(cat n 2>/dev/null || echo 0); echo \"{version} begins with $n\"; while :; do if [ -e \"$ADD\" ]; then \
         n=$((n+1)); echo $n > n.new && mv n.new n; echo \"now $n\"; rm -f \"$ADD\"; fi; sleep 0.05; done"
    );
    json!({
        "name": "keeper", "kind": "service",
        "driver": {"process": {"command": ["sh", "-c", script], "env": {"ADD": add}}},
        "checkpoint": {"interval": "24h", "min_pause": "0ms", "timeout": "20s"},
        "restart": {"initial_backoff": "100ms", "max_backoff": "100ms", "jitter": 0}
    })
}

/// Waits until the job runs and has said so often that it begins with this.
async fn begins(client: &Client, line: &str, times: usize) {
    client.wait_for_status("keeper", "running").await;
    wait_until_true(&format!("`{line}` {times} times"), EVENTUALLY, || async {
        client.logs("keeper").await.matches(line).count() >= times
    })
    .await;
}

async fn stopped(client: &Client, force: bool) {
    client.ask("job.stop", json!({"job": "keeper", "force": force})).await;
    client.wait_for_status("keeper", "stopped").await;
}

async fn versions(client: &Client) -> Vec<Value> {
    client.ask("job.versions", json!({"job": "keeper"})).await["versions"].as_array().expect("versions").clone()
}

async fn snapshot_is_over(client: &Client, job: &str, name: &str) -> Value {
    wait_until(&format!("snapshot {name} is over"), EVENTUALLY, || async {
        let view = client.ask("snapshot.get", json!({"job": job, "name": name})).await;
        (view["status"] != "creating").then_some(view)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_through_snapshots_stops_starts_updates_and_rollbacks() {
    let dev = Dev::start_with(3, Options { executors_per_zone: 1, ..Options::default() }).await;
    let client = dev.client().await;
    let add = dev.scratch().join("add");
    client.submit(keeper("v1", &add)).await;
    begins(&client, "v1 begins with 0", 1).await;

    // Three snapshots with different values.
    for (number, name) in [(1, "one"), (2, "two"), (3, "three")] {
        std::fs::write(&add, "").expect("a file");
        client.wait_for_log("keeper", &format!("now {number}\n")).await;
        let made = dev.outlive(&["--output", "json", "snapshot", "create", "keeper", name]).await;
        assert_eq!(made.expect_ok("snapshot create").json()["status"], "ready");
    }
    // Nothing has changed since: it is made of the same checkpoint.
    dev.outlive(&["snapshot", "create", "keeper", "again"]).await.expect_ok("snapshot create");
    let completed = client.history("keeper").await;
    let completed: Vec<_> = completed.iter().filter(|event| event["type"] == "snapshot_completed").collect();
    assert_eq!(completed[2]["checkpoint"], completed[3]["checkpoint"]);
    assert_eq!(client.refusal("snapshot.create", json!({"job": "keeper", "name": "one"})).await.code, "in_use");

    // Each way to start.
    stopped(&client, false).await;
    let listed = client.ask("snapshot.list", json!({"job": "keeper", "limit": 2})).await;
    assert_eq!(
        (&listed["snapshots"][0]["initiator"], &listed["snapshots"][1]["name"]),
        (&json!("system"), &json!("again"))
    );
    let restore = |restore: Value| json!({"job": "keeper", "restore": restore});
    let unknown = client.refusal("job.start", restore(json!({"mode": "snapshot", "snapshot": "four"}))).await;
    assert_eq!((unknown.code.as_str(), client.status_of("keeper").await.as_str()), ("not_found", "stopped"));
    assert_eq!(client.refusal("snapshot.create", json!({"job": "keeper", "name": "x"})).await.code, "in_use");
    let view = client.ask("job.start", restore(json!({"mode": "latest"}))).await;
    assert_eq!(view["status"], "starting");
    begins(&client, "v1 begins with 3", 1).await;
    stopped(&client, true).await;
    client.ask("job.start", restore(json!({"mode": "snapshot", "snapshot": "two"}))).await;
    begins(&client, "v1 begins with 2", 1).await;
    stopped(&client, true).await;
    client.ask("job.start", restore(json!({"mode": "none"}))).await;
    begins(&client, "v1 begins with 0", 2).await;
    stopped(&client, true).await;
    dev.outlive(&["job", "start", "keeper", "--snapshot", "three"]).await.expect_ok("job start");
    begins(&client, "v1 begins with 3", 2).await;

    // An update that crashes on start is rolled back to exactly what was before.
    let mut crashing = keeper("v2", &add);
    crashing["driver"]["process"]["command"] = json!(["sh", "-c", "echo 99 > n; exit 7"]);
    crashing["restart"]["max_attempts"] = json!(2);
    client.ask("job.update", json!({"job": "keeper", "expected_version": 1, "spec": crashing})).await;
    wait_until_true("it is rolled back", EVENTUALLY, || async {
        versions(&client).await.len() == 2 && client.get("keeper").await["version"] == 1
    })
    .await;
    begins(&client, "v1 begins with 3", 3).await;
    let known = versions(&client).await;
    assert_eq!((&known[0]["status"], &known[1]["status"]), (&json!("active"), &json!("rolled_back")));
    assert!(known[1]["reason"].as_str().is_some_and(|reason| reason.contains("exited with 7")), "{known:#?}");

    // Of two updates one wins, and it is the third version.
    let update =
        |version: u64, word: &str| json!({"job": "keeper", "expected_version": version, "spec": keeper(word, &add)});
    let (one, other) =
        tokio::join!(client.request("job.update", update(1, "v3")), client.request("job.update", update(1, "v3")));
    let refused: Vec<_> = [one, other].into_iter().filter_map(Result::err).map(|refused| refused.code).collect();
    assert_eq!(refused, ["concurrent_modification"]);
    begins(&client, "v3 begins with 3", 1).await;
    assert_eq!(client.get("keeper").await["version"], 3);

    // And back to the first, with what it ended with.
    dev.outlive(&["job", "rollback", "keeper"]).await.expect_ok("job rollback");
    begins(&client, "v1 begins with 3", 4).await;
    assert_eq!(client.get("keeper").await["version"], 1);
    let table = dev.outlive(&["job", "versions", "keeper"]).await.expect_ok("job versions").out;
    assert!(table.contains("rolled_back") && table.contains("it was asked for"), "{table}");

    // A restart loop is stopped by force only.
    let looping = json!({
        "name": "loop", "kind": "service", "driver": {"process": {"command": ["false"]}},
        "restart": {"initial_backoff": "300ms", "max_backoff": "300ms", "jitter": 0}
    });
    client.submit(looping).await;
    client.wait_for("loop", "it restarts", |view| view["restarts"].as_u64() > Some(1)).await;
    assert_eq!(client.refusal("job.stop", json!({"job": "loop"})).await.code, "in_use");
    client.ask("job.stop", json!({"job": "loop", "force": true})).await;
    client.wait_for_status("loop", "stopped").await;
    client.ask("job.delete", json!({"job": "loop"})).await;
    let batch = json!({"name": "batch", "driver": {"process": {"command": ["sleep", "600"]}}});
    client.submit(batch).await;
    assert_eq!(client.refusal("job.stop", json!({"job": "batch"})).await.code, "unsupported");
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_and_snapshots_end_whoever_is_lost_meanwhile() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let add = dev.scratch().join("add");
    client.submit(keeper("v1", &add)).await;
    begins(&client, "v1 begins with 0", 1).await;
    std::fs::write(&add, "").expect("a file");
    client.wait_for_log("keeper", "now 1\n").await;

    // The leader is killed as soon as the update is acknowledged, while the new version starts, and while it has to
    // show that it is healthy. The new one brings it to its end.
    for (step, version) in [("requested", 2_u64), ("version_started", 3), ("attempt_started", 4)] {
        let word = format!("v{version}");
        let spec = keeper(&word, &add);
        client.ask("job.update", json!({"job": "keeper", "expected_version": version - 1, "spec": spec})).await;
        if step != "requested" {
            wait_until_true(step, EVENTUALLY, || async {
                let events = client.history("keeper").await;
                let begun = events.iter().rposition(|event| event["type"] == "update_requested").unwrap_or(0);
                events[begun..].iter().any(|event| event["type"] == step)
            })
            .await;
        }
        let leader = client.leader().await;
        dev.kill(&leader);
        client.wait_for("keeper", &word, |view| view["version"] == version && view["status"] == "running").await;
        begins(&client, &format!("{word} begins with 1"), 1).await;
        dev.restart(&leader).await;
    }

    // Whoever is killed while a snapshot is asked for, its executor, the leader, or a whole zone: it ends, and is taken
    // of the next attempt where the one that was asked is gone.
    for loss in ["executor", "leader", "zone"] {
        let name = format!("through-the-loss-of-{loss}");
        let view = client.wait_for_status("keeper", "running").await;
        let leader = client.leader().await;
        client.ask("snapshot.create", json!({"job": "keeper", "name": name})).await;
        let lost = match loss {
            "executor" => vec![view["executor"].as_str().expect("it runs").to_owned()],
            "leader" => vec![leader],
            _ => {
                let zone = view["zone"].as_str().expect("it runs").to_owned();
                dev.processes().into_iter().filter(|process| process.zone == zone).map(|process| process.name).collect()
            }
        };
        lost.iter().for_each(|process| dev.kill(process));
        let view = snapshot_is_over(&client, "keeper", &name).await;
        assert_eq!((&view["status"], &view["error"]), (&json!("ready"), &Value::Null), "{loss}");
        client.wait_for_status("keeper", "running").await;
        dev.outlive(&["chaos", "--wait", "0s", "heal"]).await.expect_ok("chaos heal");
    }

    // A thousand snapshots, and one.
    let there_are = 3;
    futures::stream::iter(there_are..1_000)
        .for_each_concurrent(32, |number| {
            let client = client.clone();
            async move {
                client.ask("snapshot.create", json!({"job": "keeper", "name": format!("s-{number}")})).await;
            }
        })
        .await;
    let refused = client.refusal("snapshot.create", json!({"job": "keeper", "name": "one-more"})).await;
    assert_eq!(refused.code, "limit_exceeded", "{}", refused.message);
    let all = client.pages("snapshot.list", json!({"job": "keeper"}), "snapshots").await;
    assert_eq!(all.iter().filter(|view| view["initiator"] == "user").count(), 1_000);
    let last = snapshot_is_over(&client, "keeper", "s-999").await;
    assert_eq!(last["status"], "ready", "{last:#}");
    let gone = json!({"job": "keeper", "name": "s-7", "created_at": "2020-01-01T00:00:00.000Z"});
    assert_eq!(client.refusal("snapshot.delete", gone).await.code, "concurrent_modification");
    dev.outlive(&["snapshot", "delete", "keeper", "s-7"]).await.expect_ok("snapshot delete");
    client.ask("snapshot.create", json!({"job": "keeper", "name": "one-more"})).await;
    client.ask("job.stop", json!({"job": "keeper"})).await;
    client.wait_for_status("keeper", "stopped").await;
    assert!(
        client.ask("snapshot.list", json!({"job": "keeper", "limit": 1})).await["snapshots"][0]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("system-stop-"))
    );
}
