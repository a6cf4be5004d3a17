//! Partitions between real addresses: an executor, a leader and a zone are cut off, and come back.
//!
//! Needs the right to make network namespaces (root, on Linux, with iproute2). Where that is not given it says so, and
//! tries nothing.

use outlive_tests::examples::example;
use outlive_tests::ledger::Ledger;
use outlive_tests::scattered::{Scattered, ZONES};
use outlive_tests::{Client, EVENTUALLY, wait_until, wait_until_true};
use serde_json::{Value, json};

fn text(view: &Value, field: &str) -> String {
    view[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {view}")).to_owned()
}

async fn runs_in_attempt_after(client: &Client, job: &str, before: &Value) -> Value {
    client
        .wait_for(job, "it runs elsewhere", |view| {
            view["status"] == "running" && view["attempt"].as_u64() > before["attempt"].as_u64()
        })
        .await
}

async fn executors_are_ready(client: &Client) {
    wait_until_true("every executor is ready and holds what it should", EVENTUALLY, || async {
        let list = client.ask("sys.executor.list", json!({})).await;
        list["executors"].as_array().expect("a list").iter().filter(|e| e["state"] == "ready").count() == 3
    })
    .await;
}

async fn goes_on(ledger: &Ledger, what: &str) {
    let before = ledger.count();
    wait_until_true(&format!("submissions go on with {what} cut off"), EVENTUALLY, || async {
        ledger.count() >= before + 20
    })
    .await;
}

async fn an_executor(world: &Scattered, client: &Client, ledger: &Ledger, job: &str) {
    let before = client.wait_for(job, "it runs", |view| view["status"] == "running").await;
    let host = text(&before, "executor");
    world.network.cut(&host);
    let after = runs_in_attempt_after(client, job, &before).await;
    assert_ne!(text(&after, "executor"), host);
    goes_on(ledger, &host).await;
    world.network.mend(&host);
    executors_are_ready(client).await;
    // What it says of the attempt that is no longer its own changes nothing.
    let view = client.get(job).await;
    assert_eq!((&view["attempt"], &view["executor"]), (&after["attempt"], &after["executor"]), "{view:#}");
    let list = client.ask("sys.executor.list", json!({})).await;
    let back =
        list["executors"].as_array().expect("a list").iter().find(|e| e["name"] == *host && e["state"] == "ready");
    // The ledger's noop jobs may be there by now, which need a slot and nothing else; the counter needs a processor.
    assert_eq!(back.map(|executor| executor["allocated"]["cpu_millis"].clone()), Some(json!(0)), "{list:#}");
}

async fn a_leader(world: &Scattered, client: &Client, ledger: &Ledger, job: &str) {
    let before = client.wait_for(job, "it runs", |view| view["status"] == "running").await;
    let status = client.ask("sys.status", json!({})).await;
    let (host, term) = (text(&status["leader"], "scheduler"), status["leader"]["term"].as_u64());
    world.network.cut(&host);
    goes_on(ledger, &host).await;
    let status = client.ask("sys.status", json!({})).await;
    assert!(status["leader"]["term"].as_u64() > term && status["leader"]["scheduler"] != *host, "{status:#}");
    world.network.mend(&host);
    goes_on(ledger, "nobody").await;
    let again = client.ask("sys.status", json!({})).await;
    assert_eq!(again["leader"], status["leader"], "the old leader changes nothing when it is back");
    let view = client.get(job).await;
    assert_eq!(view["attempt"], before["attempt"], "a running job does not notice: {view:#}");
}

async fn a_zone(world: &Scattered, client: &Client, ledger: &Ledger, job: &str) {
    let before = client.wait_for(job, "it runs", |view| view["status"] == "running").await;
    let zone = text(&before, "zone");
    world.cut_zone(&zone);
    let after = runs_in_attempt_after(client, job, &before).await;
    assert_ne!(text(&after, "zone"), zone);
    goes_on(ledger, &format!("zone {zone}")).await;
    world.mend_zone(&zone);
    executors_are_ready(client).await;
    let view = client.get(job).await;
    assert_eq!((&view["attempt"], &view["zone"]), (&after["attempt"], &after["zone"]), "{view:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_cut_off_changes_nothing_when_it_is_back() {
    let world = match Scattered::start().await {
        Ok(world) => world,
        Err(why) => return eprintln!("skipped: this machine permits no network namespaces ({why})"),
    };
    let client = world.client().await;
    let job = client.submit(example("counter")).await;
    client.wait_for(&job, "a checkpoint", |view| view["checkpoint"]["number"].as_u64() >= Some(1)).await;
    let ledger = Ledger::begin(&client);
    an_executor(&world, &client, &ledger, &job).await;
    a_leader(&world, &client, &ledger, &job).await;
    a_zone(&world, &client, &ledger, &job).await;
    // And the zone that leads the log's stream, wherever the job may be.
    let zone = wait_until("the stream has a leader", EVENTUALLY, || async {
        let status = client.ask("sys.status", json!({})).await;
        status["log"]["stream_leader_zone"].as_str().filter(|zone| ZONES.contains(zone)).map(str::to_owned)
    })
    .await;
    world.cut_zone(&zone);
    goes_on(&ledger, &format!("the stream's leader in zone {zone}")).await;
    world.mend_zone(&zone);
    executors_are_ready(&client).await;
    eprintln!("{} in the ledger", ledger.close("after every partition").await);
    assert_eq!(world.ended(), [""; 0], "nobody takes being cut off for a lost log, or for anything else to stop for");
    let attempts: Vec<u64> = client.history(&job).await.iter().filter_map(|event| event["attempt"].as_u64()).collect();
    assert!(attempts.is_sorted(), "nothing of an old attempt is taken once a new one is placed: {attempts:?}");
    world.outlive(&["log", "verify"]).await.expect_ok("log verify");
}
