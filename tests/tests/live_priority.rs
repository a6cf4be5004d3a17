//! A zone is lost when there is room for nothing more: what it held goes on in the order of its priority, as room is made.

use outlive_tests::{Client, Dev};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ZONES: usize = 3;

/// Holds half of an executor. The later it was submitted the more urgent it is, so that no order but that of the
/// priorities looks the same.
fn half(name: &str, cpu_millis: u64, priority: u64) -> Value {
    json!({
        "name": name, "kind": "service", "priority": priority,
        "driver": {"process": {"command": ["sleep", "100000"]}},
        "resources": {"cpu_millis": cpu_millis}
    })
}

async fn runs(client: &Client, job: &str, attempt: u64) -> Value {
    let runs = |view: &Value| view["status"] == "running" && view["attempt"] == attempt;
    client.wait_for(job, &format!("attempt {attempt} runs"), runs).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_zone_held_goes_on_in_the_order_of_its_priority() {
    let dev = Dev::start(ZONES).await;
    let client = dev.client().await;
    let executors = client.ask("sys.executor.list", json!({})).await;
    let whole = executors["executors"][0]["capacity"]["cpu_millis"].as_u64().expect("a capacity");

    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for i in 0..2 * ZONES {
        let job = client.submit(half(&format!("job-{i}"), whole / 2, 10 + i as u64)).await;
        let view = runs(&client, &job, 1).await;
        held.entry(view["zone"].as_str().expect("a zone").to_owned()).or_default().push(job);
    }
    assert!(held.len() == ZONES && held.values().all(|jobs| jobs.len() == 2), "{held:?}");
    let waiting = client.submit(half("waiting", whole / 2, 5)).await;

    let (zone, lost) = held.pop_first().expect("zones");
    dev.outlive(&["chaos", "--wait", "0s", "kill-zone", &zone]).await.expect_ok("chaos kill-zone");
    for job in &lost {
        client.wait_for(job, "its loss is noticed", |view| view["status"] != "running").await;
    }

    // Room for one, and then for another.
    let mut others = held.into_values().flatten();
    let [patient, urgent] = lost.as_slice() else { panic!("two jobs: {lost:?}") };
    for (job, still) in [(urgent, vec![patient, &waiting]), (patient, vec![&waiting])] {
        let gone = others.next().expect("one that runs elsewhere");
        client.ask("job.cancel", json!({"job": gone})).await;
        let view = runs(&client, job, 2).await;
        assert_ne!(view["zone"], json!(zone), "{view:#}");
        assert_eq!(view["last_recovery"]["cause"], "zone_lost", "{view:#}");
        for job in still {
            let view = client.get(job).await;
            assert!(view["status"] != "running" && view["executor"].is_null(), "{view:#}");
        }
    }
    client.ask("job.cancel", json!({"job": others.next().expect("a third")})).await;
    runs(&client, &waiting, 1).await;
}
