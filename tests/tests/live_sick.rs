//! A host that is alive and of no use: its disk takes seconds for a write. It is emptied, checkpoint first, says why, gets
//! nothing new while there are others, and is taken back once it has been well for long enough.
//!
//! Needs the right to hold back a process's writes (root, and cgroup v1's block controller). Where that is not given it
//! says so, and tries nothing.

use outlive_tests::slow_disk::SlowDisk;
use outlive_tests::{Client, Dev, Options, wait_until_true};
use serde_json::{Value, json};
use std::path::Path;

/// Counts in its state and then in a ledger outside, which nobody takes back.
fn counter(name: &str, ledger: &Path) -> Value {
    let script = r#"
        n=$(cat n 2>/dev/null || echo 0)
        while :; do
            n=$((n + 1)); echo $n > n.new; mv n.new n
            echo $n >> "$LEDGER"
            sleep 0.05
        done"#;
    json!({
        "name": name, "kind": "service",
        "driver": {"process": {"command": ["sh", "-c", script], "env": {"LEDGER": ledger}}},
        "resources": {"cpu_millis": 100},
        "checkpoint": {"interval": "1s", "min_pause": "100ms"}
    })
}

fn counted(ledger: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("a number: {line:?}"))).collect()
}

async fn executor(client: &Client, name: &str) -> Value {
    client.ask("sys.executor.get", json!({"executor": name})).await
}

async fn executor_is(client: &Client, name: &str, state: &str) -> Value {
    wait_until_true(&format!("{name} is {state}"), BOUND, || async { executor(client, name).await["state"] == state })
        .await;
    executor(client, name).await
}

/// Ten seconds beyond the limit until it counts, and three times as long far from it, times what a busy machine adds.
const BOUND: std::time::Duration = std::time::Duration::from_secs(180);
/// What waits for room at once, and what is placed while the host is sick.
const JOBS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_slow_disk_is_emptied_checkpoint_first_and_taken_back() {
    // Well below what one write a second takes, and far above what a busy disk does.
    let env = vec![("OUTLIVE_EXECUTOR__HEALTH__PATIENCE", "3s".to_owned())];
    let dev = Dev::start_with(3, Options { env, ..Options::default() }).await;
    let client = dev.client().await;
    let ledgers: Vec<_> = (0..JOBS).map(|i| dev.scratch().join(format!("ledger-{i}"))).collect();
    let mut jobs = Vec::new();
    for (i, ledger) in ledgers.iter().enumerate() {
        jobs.push(client.submit(counter(&format!("counter-{i}"), ledger)).await);
    }
    let mut held = Vec::new();
    for job in &jobs {
        let view = client.wait_for(job, "it runs", |view| view["status"] == "running").await;
        held.push(view["executor"].as_str().expect("an executor").to_owned());
    }
    let sick = held[0].clone();
    let there = held.iter().filter(|name| **name == sick).count();

    let pid = dev.process(&sick).pid.expect("it runs");
    let slow = match SlowDisk::for_process(pid, &dev.data()) {
        Ok(slow) => slow,
        Err(why) => return eprintln!("skipped: this machine permits no slow disk ({why})"),
    };
    let view = executor_is(&client, &sick, "degraded").await;
    let reason = view["reason"].as_str().expect("a reason");
    assert!(reason.contains("a write to its data directory takes"), "{view:#}");

    // Every job of it is handed on, and nothing that was counted once is counted again.
    for (job, was) in jobs.iter().zip(&held) {
        if *was == sick {
            let moved = |view: &Value| view["status"] == "running" && view["executor"] != json!(sick);
            let view = client.wait_for_within(BOUND, job, "it runs elsewhere", moved).await;
            assert_eq!(view["last_recovery"]["cause"], "host_degraded", "{view:#}");
            assert_eq!(view["attempt"], 2, "{view:#}");
        }
    }
    assert_eq!(executor(&client, &sick).await["running"], 0);
    for i in 0..JOBS {
        let job = client.submit(counter(&format!("new-{i}"), &dev.scratch().join(format!("new-{i}")))).await;
        let view = client.wait_for(&job, "it runs", |view| view["status"] == "running").await;
        assert_ne!(view["executor"], json!(sick), "{view:#}");
    }
    for (ledger, job) in ledgers.iter().zip(&jobs) {
        let before = counted(ledger).len();
        wait_until_true(&format!("{job} goes on"), BOUND, || async { counted(ledger).len() > before }).await;
        let numbers = counted(ledger);
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "redone or left out: {numbers:?}");
    }
    eprintln!("{there} jobs were handed on: {reason}");

    // Well again: it is taken back, and what has left it stays where it is.
    drop(slow);
    executor_is(&client, &sick, "ready").await;
    for (job, was) in jobs.iter().zip(&held) {
        let view = client.get(job).await;
        assert_eq!(view["attempt"], if *was == sick { 2 } else { 1 }, "{view:#}");
    }
}
