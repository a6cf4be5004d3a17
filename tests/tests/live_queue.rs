//! A queue that is much longer than there is room.

use outlive_tests::{Dev, EVENTUALLY, wait_until_true};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const QUEUED: usize = 100_000;
const AT_ONCE: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_jobs_wait_without_room_and_others_still_run() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let scheduler = dev.process("scheduler-a").pid;

    // More than any executor here has: each has its place in the queue, none can be placed.
    let waiting = |i: usize| {
        json!({
            "name": format!("waiting-{i:06}"),
            "driver": {"process": {"command": ["true"]}},
            "resources": {"cpu_millis": 900_000},
        })
    };
    let mut ids = BTreeSet::new();
    for first in (0..QUEUED).step_by(AT_ONCE) {
        let jobs: Vec<Value> = (first..first + AT_ONCE).map(waiting).collect();
        let reply = client.ask("job.submit_many", json!({"jobs": jobs})).await;
        for job in reply["jobs"].as_array().expect("jobs") {
            assert_eq!(job["status"], "pending");
            ids.insert(job["id"].as_str().expect("id").to_owned());
        }
    }
    assert_eq!(ids.len(), QUEUED);
    let pending = async || client.ask("sys.status", json!({})).await["jobs"]["pending"].as_u64();
    assert_eq!(pending().await, Some(QUEUED as u64));

    let why = client.ask("job.why", json!({"job": "waiting-050000"})).await;
    assert_eq!(why["status"], "pending");
    assert_eq!(why["reasons"][0]["executor"], "executor-a-1");
    let reason = why["reasons"][0]["refused_because"].as_str().expect("a reason");
    assert!(reason.contains("900000") || reason.contains("cpu"), "{why}");

    // Those that fit are not held up by those that do not.
    let fitting = client.submit(json!({"name": "fitting", "driver": {"process": {"command": ["true"]}}})).await;
    client.wait_for_status(&fitting, "succeeded").await;

    // Some leave the queue.
    for i in (0..QUEUED).step_by(QUEUED / 100) {
        let view = client.ask("job.cancel", json!({"job": format!("waiting-{i:06}")})).await;
        assert_eq!(view["status"], "cancelled", "a job that never ran is over at once");
    }
    assert_eq!(pending().await, Some(QUEUED as u64 - 100));

    let listed = client.list(json!({"status": ["pending"], "limit": 1_000})).await;
    let found: BTreeSet<String> = listed.iter().filter_map(|job| job["id"].as_str().map(str::to_owned)).collect();
    assert_eq!((listed.len(), found.len()), (QUEUED - 100, QUEUED - 100), "each is listed once");
    assert!(found.is_subset(&ids));

    // All of it is in the log, and not in somebody's memory only.
    assert_eq!(dev.process("scheduler-a").pid, scheduler, "the scheduler never died");
    dev.kill("scheduler-a");
    wait_until_true("dev knows", EVENTUALLY, || async { dev.process("scheduler-a").state == "dead" }).await;
    dev.restart("scheduler-a").await;
    assert_eq!(pending().await, Some(QUEUED as u64 - 100));
    let view = client.get("waiting-050001").await;
    assert_eq!(view["status"], "pending");
}
