//! What a running system shows of itself: metrics by the contract's names, liveness and readiness that follow the truth.

use outlive_store::telemetry::metric::inventory;
use outlive_tests::{Dev, EVENTUALLY, SOON, wait_until_true};
use serde_json::json;
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Section 7 of the contract: name, type.
const CONTRACT: [(&str, &str); 31] = [
    ("outlive_build_info", "gauge"),
    ("outlive_leader", "gauge"),
    ("outlive_term", "gauge"),
    ("outlive_log_sequence", "gauge"),
    ("outlive_log_commit_seconds", "histogram"),
    ("outlive_log_commit_events", "histogram"),
    ("outlive_log_append_conflicts_total", "counter"),
    ("outlive_witness_lag_commits", "gauge"),
    ("outlive_replay_events_total", "counter"),
    ("outlive_replay_seconds", "histogram"),
    ("outlive_jobs", "gauge"),
    ("outlive_jobs_submitted_total", "counter"),
    ("outlive_jobs_finished_total", "counter"),
    ("outlive_job_start_delay_seconds", "histogram"),
    ("outlive_job_recoveries_total", "counter"),
    ("outlive_job_recovery_seconds", "histogram"),
    ("outlive_job_downtime_seconds_total", "counter"),
    ("outlive_checkpoints_total", "counter"),
    ("outlive_checkpoint_duration_seconds", "histogram"),
    ("outlive_checkpoint_pause_seconds", "histogram"),
    ("outlive_checkpoint_bytes_total", "counter"),
    ("outlive_checkpoint_age_seconds", "gauge"),
    ("outlive_snapshots_total", "counter"),
    ("outlive_executors", "gauge"),
    ("outlive_executor_capacity", "gauge"),
    ("outlive_executor_allocated", "gauge"),
    ("outlive_heartbeat_age_seconds", "gauge"),
    ("outlive_leader_changes_total", "counter"),
    ("outlive_decrypt_failures_total", "counter"),
    // What must be there for a look at a failing log.
    ("outlive_log_append_retries_total", "counter"),
    ("outlive_stream_bytes_limit", "gauge"),
];

/// A page of a process: its status, and what it says.
async fn page(dev: &Dev, process: &str, path: &str) -> (u16, String) {
    let metrics = dev.process(process).metrics.expect("it serves metrics");
    let address = metrics.trim_start_matches("http://").trim_end_matches("/metrics");
    let Ok(mut connection) = tokio::net::TcpStream::connect(address).await else { return (0, String::new()) };
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    if connection.write_all(request.as_bytes()).await.is_err() {
        return (0, String::new());
    }
    let mut answer = String::new();
    if connection.read_to_string(&mut answer).await.is_err() {
        return (0, String::new());
    }
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn names(table: &str) -> BTreeSet<(String, String)> {
    let cells = |line: &str| {
        let mut cells = line.split(" | ");
        let name = cells.next()?.strip_prefix("| `")?.strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    };
    table.lines().filter_map(cells).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_those_of_the_docs_and_readiness_follows_the_truth() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let spec = json!({
        "name": "counter", "kind": "service",
        "driver": {"process": {"command": ["sh", "-c", "echo x > state; exec sleep 600"]}},
        "checkpoint": {"interval": "200ms", "min_pause": "0s"},
    });
    client.ask("job.submit", spec).await;
    client.ask("job.wait", json!({"job": "counter", "until": "running"})).await;

    // Each role shows exactly what the docs list.
    let docs = include_str!("../../ops/docs/metrics.md");
    let documented = |role: &str| {
        let table = docs.split(&format!("<!-- {role} -->\n")).nth(1).expect("a table");
        names(table.split("\n\n").next().expect("a table"))
    };
    let leader = client.ask("sys.status", json!({})).await["leader"]["scheduler"].as_str().expect("text").to_owned();
    wait_until_true("the leader shows what is documented", EVENTUALLY, || async {
        names(&inventory(&page(&dev, &leader, "/metrics").await.1)) == documented("scheduler")
    })
    .await;
    wait_until_true("an executor shows what is documented", EVENTUALLY, || async {
        names(&inventory(&page(&dev, "executor-a-1", "/metrics").await.1)) == documented("executor")
    })
    .await;
    let all: BTreeSet<_> = documented("scheduler").union(&documented("executor")).cloned().collect();
    for (name, kind) in CONTRACT {
        assert!(all.contains(&(name.to_owned(), kind.to_owned())), "{name} is not there as a {kind}");
    }

    // One leads, all are ready: the standbys have the log to its end.
    let schedulers = ["scheduler-a", "scheduler-b", "scheduler-c"];
    for scheduler in schedulers {
        wait_until_true(&format!("{scheduler} is ready"), SOON, || async {
            page(&dev, scheduler, "/readyz").await.0 == 200
        })
        .await;
        assert_eq!(page(&dev, scheduler, "/livez").await.0, 200);
        let shown = page(&dev, scheduler, "/metrics").await.1;
        let leads = f64::from(u8::from(scheduler == leader));
        assert!(shown.contains(&format!("outlive_leader {leads}")), "{scheduler}: {shown}");
    }
    // A standby's position moves with the log.
    let position = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("outlive_log_sequence ")).expect("the position");
        line.split(' ').nth(1).and_then(|number| number.parse::<f64>().ok()).expect("a number")
    };
    let standby = schedulers.into_iter().find(|name| *name != leader).expect("there are three");
    let before = position(&page(&dev, standby, "/metrics").await.1);
    client.ask("job.submit", json!({"driver": {"noop": {}}})).await;
    wait_until_true("the standby follows", SOON, || async {
        position(&page(&dev, standby, "/metrics").await.1) > before
    })
    .await;

    // An executor that hears no leader is alive, and not ready.
    for scheduler in schedulers {
        dev.pause(scheduler).await;
    }
    wait_until_true("the executor hears no leader", SOON, || async {
        let (status, why) = page(&dev, "executor-a-1", "/readyz").await;
        status == 503 && why.contains("leader")
    })
    .await;
    assert_eq!(page(&dev, "executor-a-1", "/livez").await.0, 200);
    for scheduler in schedulers {
        dev.resume(scheduler).await;
    }
    wait_until_true("the executor is ready again", EVENTUALLY, || async {
        page(&dev, "executor-a-1", "/readyz").await.0 == 200
    })
    .await;

    // Without JetStream's majority no standby can read on to the end, and each says so; all stay alive.
    for server in ["nats-a", "nats-b", "nats-c"] {
        dev.kill(server);
    }
    for scheduler in schedulers {
        wait_until_true(&format!("{scheduler} is not ready"), EVENTUALLY, || async {
            let (status, why) = page(&dev, scheduler, "/readyz").await;
            status == 503 && !why.is_empty()
        })
        .await;
        assert_eq!(page(&dev, scheduler, "/livez").await.0, 200);
    }
}
