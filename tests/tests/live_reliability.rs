//! Nothing acknowledged is lost, whatever dies: kills and pauses of every role, alone and in pairs, all of it at once.
//!
//! One system, many rounds. All the while jobs are submitted and written into a ledger, and counters run; in the end
//! the ledger is held against the log.

use outlive_tests::examples::{example, noop};
use outlive_tests::ledger::Ledger;
use outlive_tests::{Client, Dev, EVENTUALLY, wait_until_true};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore};

fn text(view: &Value, field: &str) -> String {
    view[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {view}")).to_owned()
}

/// What one blow of a round is aimed at.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// The executor that runs the counter.
    Executor,
    /// The scheduler that leads.
    Leader,
    /// The server that leads the log's stream.
    StreamLeader,
    /// The etcd member that the leader asks first.
    Etcd,
}

impl Target {
    async fn name(self, client: &Client, counter: &str) -> String {
        let status = client.ask("sys.status", json!({})).await;
        match self {
            Self::Executor => {
                let running = client.wait_for(counter, "it runs", |view| view["status"] == "running").await;
                text(&running, "executor")
            }
            Self::Leader => text(&status["leader"], "scheduler"),
            Self::StreamLeader => {
                status["log"]["stream_leader"].as_str().map_or_else(|| "nats-a".to_owned(), str::to_owned)
            }
            Self::Etcd => format!("etcd-{}", text(&status["leader"], "zone")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    Kill,
    Pause,
}

use Blow::{Kill, Pause};
use Target::{Etcd, Executor, Leader, StreamLeader};

/// Every role alone, killed and paused; and in pairs.
const ROUNDS: &[&[(Blow, Target)]] = &[
    &[(Kill, Executor)],
    &[(Kill, Leader)],
    &[(Kill, StreamLeader)],
    &[(Kill, Etcd)],
    &[(Pause, Executor)],
    &[(Pause, Leader)],
    &[(Pause, StreamLeader)],
    &[(Pause, Etcd)],
    &[(Kill, Executor), (Kill, Leader)],
    &[(Kill, Executor), (Kill, StreamLeader)],
    &[(Kill, Executor), (Kill, Etcd)],
    &[(Kill, Leader), (Kill, StreamLeader)],
    &[(Kill, Leader), (Kill, Etcd)],
    &[(Kill, StreamLeader), (Kill, Etcd)],
    &[(Pause, Leader), (Kill, StreamLeader)],
    &[(Pause, StreamLeader), (Kill, Executor)],
];

/// Acknowledged while something is broken, before it is healed.
const ACKNOWLEDGED_PER_ROUND: usize = 20;

async fn round(dev: &Dev, client: &Client, counter: &str, ledger: &Ledger, blows: &[(Blow, Target)]) {
    let mut targets = Vec::new();
    for (blow, target) in blows {
        targets.push((*blow, target.name(client, counter).await));
    }
    let before = client.wait_for(counter, "it runs", |view| view["status"] == "running").await;
    for (blow, name) in &targets {
        match blow {
            Kill => dev.kill(name),
            Pause => dev.pause(name).await,
        }
    }
    let struck = ledger.count();
    let began = std::time::Instant::now();
    wait_until_true(&format!("submissions go on after {targets:?}"), EVENTUALLY, || async {
        ledger.count() >= struck + ACKNOWLEDGED_PER_ROUND
    })
    .await;
    let hit = targets.iter().any(|(_, name)| *name == text(&before, "executor"));
    let attempt = before["attempt"].as_u64().unwrap_or_default() + u64::from(hit);
    let after = client
        .wait_for(counter, "it goes on", |view| {
            view["status"] == "running" && view["attempt"].as_u64() >= Some(attempt)
        })
        .await;
    // An executor that hears of nobody through a server that is frozen is taken for silent.
    let unheard = targets.contains(&(Pause, format!("nats-{}", text(&before, "zone"))));
    if !hit && !unheard {
        assert_eq!(after["attempt"], before["attempt"], "{targets:?}: a running job does not notice");
    }
    eprintln!("{targets:?}: {} acknowledged and the counter runs after {:?}", ledger.count() - struck, began.elapsed());
    dev.outlive(&["chaos", "--wait", "0s", "heal"]).await.expect_ok("chaos heal");
    wait_until_true("every executor is ready again", EVENTUALLY, || async {
        let list = client.ask("sys.executor.list", json!({})).await;
        list["executors"].as_array().expect("a list").iter().filter(|e| e["state"] == "ready").count() == 3
    })
    .await;
}

/// Submissions, and how many may be on their way at once.
const SUBMISSIONS: usize = 10_000;
const IN_FLIGHT: usize = 200;

/// The nats-server that leads the log's stream is killed in the middle of ten thousand submissions.
async fn ten_thousand_submissions(dev: &Dev, client: &Client) {
    let victim = StreamLeader.name(client, "").await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let (third, slots) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(IN_FLIGHT)));
    let mut submissions = tokio::task::JoinSet::new();
    for number in 0..SUBMISSIONS {
        let (client, acknowledged, third, slots) = (client.clone(), acknowledged.clone(), third.clone(), slots.clone());
        submissions.spawn(async move {
            let _slot = slots.acquire().await.expect("it is never closed");
            let mut spec = noop("one of many");
            spec["name"] = json!(format!("many-{number:05}"));
            let reply = client.insist("job.submit", &spec, &format!("many/{number}")).await.expect("a good job");
            if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == SUBMISSIONS / 3 {
                third.notify_one();
            }
            (text(&reply, "name"), text(&reply, "id"))
        });
    }
    tokio::time::timeout(EVENTUALLY, third.notified()).await.expect("a third is acknowledged in time");
    dev.kill(&victim);
    eprintln!("killed {victim} after {} of {SUBMISSIONS}", acknowledged.load(Ordering::Relaxed));
    let mut given = BTreeMap::new();
    while let Some(submission) = submissions.join_next().await {
        let (name, id) = submission.expect("a submission ends");
        given.insert(name, id);
    }
    let listed = client.list(json!({"name_prefix": "many-", "limit": 1_000})).await;
    let mut found = BTreeMap::new();
    for job in &listed {
        assert_eq!(found.insert(text(job, "name"), text(job, "id")), None, "{} exists twice", job["name"]);
    }
    assert_eq!(given.len(), SUBMISSIONS);
    assert!(found == given, "each acknowledged job exists, and no other: {} and {}", found.len(), given.len());
    dev.outlive(&["chaos", "--wait", "0s", "heal"]).await.expect_ok("chaos heal");
}

fn checkpoint(view: &Value) -> u64 {
    view["checkpoint"]["number"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_whatever_dies() {
    let mut dev = Dev::start(3).await;
    let client = dev.client().await;
    let counter = client.submit(example("counter")).await;
    client.wait_for(&counter, "a checkpoint", |view| checkpoint(view) >= 1).await;
    let ledger = Ledger::begin(&client);
    for blows in ROUNDS {
        round(&dev, &client, &counter, &ledger, blows).await;
    }
    ten_thousand_submissions(&dev, &client).await;
    let acknowledged = ledger.close("after every round").await;
    eprintln!("{acknowledged} in the ledger");
    dev.outlive(&["log", "verify"]).await.expect_ok("log verify");

    // Every process there is, at once.
    let before = client.get(&counter).await;
    let names: Vec<Value> = client.list(json!({"name_prefix": "ledger-", "limit": 1_000})).await;
    dev.kill_all().await;
    dev.start_again().await;
    let client = dev.client().await;
    let after = client
        .wait_for(&counter, "it goes on", |view| {
            view["status"] == "running" && view["attempt"].as_u64() > before["attempt"].as_u64()
        })
        .await;
    assert!(after["last_recovery"]["restored_checkpoint"].as_u64() >= Some(checkpoint(&before)), "{after:#}");
    let again: Vec<Value> = client.list(json!({"name_prefix": "ledger-", "limit": 1_000})).await;
    let ids = |jobs: &[Value]| jobs.iter().map(|job| (text(job, "name"), text(job, "status"))).collect::<Vec<_>>();
    assert!(ids(&again) == ids(&names), "{} of {} are there", again.len(), names.len());
    dev.outlive(&["log", "verify"]).await.expect_ok("log verify");
}
