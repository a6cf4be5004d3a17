//! Executors that are emptied, that are told to go, and that freeze: nothing is done twice that need not be, and what
//! must never run twice at once does not. One cluster, one job, and a ledger outside that nobody takes back.

use outlive_tests::{Client, Dev, EVENTUALLY, SOON, wait_until_true};
use serde_json::{Value, json};
use std::path::Path;

/// Counts in its state and then in the ledger. A line: the attempt, and what it counted.
fn counter(ledger: &Path) -> Value {
    let script = r#"
        n=$(cat n 2>/dev/null || echo 0)
        while :; do
            n=$((n + 1)); echo $n > n.new; mv n.new n
            echo "$OUTLIVE_ATTEMPT $n" >> "$LEDGER"
            sleep 0.02
        done"#;
    json!({
        "name": "counter", "kind": "service", "exclusive": true,
        "driver": {"process": {"command": ["sh", "-c", script], "env": {"LEDGER": ledger}}},
        "checkpoint": {"interval": "1s", "min_pause": "100ms"},
        "restart": {"initial_backoff": "100ms"}
    })
}

fn entries(ledger: &Path) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let whole = text.rsplit_once('\n').map(|(whole, _)| whole.to_owned()).unwrap_or_default();
    let entry =
        |line: &str| line.split_once(' ').map(|(attempt, n)| (attempt.parse().expect(line), n.parse().expect(line)));
    whole.lines().map(|line| entry(line).unwrap_or_else(|| panic!("a line: {line:?}"))).collect()
}

/// It runs as this attempt, and has written something.
async fn runs(client: &Client, ledger: &Path, job: &str, attempt: u64) -> Value {
    let what = format!("attempt {attempt} runs");
    let runs = |view: &Value| view["status"] == "running" && view["attempt"] == attempt;
    let view = client.wait_for(job, &what, runs).await;
    wait_until_true("it counts", SOON, || async { entries(ledger).iter().any(|(of, _)| *of == attempt) }).await;
    view
}

fn cause(view: &Value) -> &str {
    view["last_recovery"]["cause"].as_str().unwrap_or("none")
}

async fn executor_is(client: &Client, name: &str, state: &str, running: u64) {
    let what = format!("{name} is {state} and holds {running}");
    wait_until_true(&what, EVENTUALLY, || async {
        let view = client.ask("sys.executor.get", json!({"executor": name})).await;
        view["state"] == state && view["running"] == running
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_handed_on_and_never_runs_twice_at_once() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let ledger = dev.scratch().join("ledger");
    let job = client.submit(counter(&ledger)).await;
    let view = runs(&client, &ledger, &job, 1).await;

    // Drained by an operator.
    let first = view["executor"].as_str().expect("an executor").to_owned();
    let drained = dev.outlive(&["executor", "drain", &first, "--deadline", "1m", "--output", "json"]).await;
    assert_eq!(drained.expect_ok("executor drain").json()["state"], "draining");
    let view = runs(&client, &ledger, &job, 2).await;
    assert_eq!(cause(&view), "drain", "{view}");
    assert_ne!(view["executor"], json!(first));
    executor_is(&client, &first, "draining", 0).await;
    dev.outlive(&["executor", "undrain", &first]).await.expect_ok("executor undrain");
    executor_is(&client, &first, "ready", 0).await;

    // Its zone drained.
    let zone = view["zone"].as_str().expect("a zone").to_owned();
    dev.outlive(&["zone", "drain", &zone]).await.expect_ok("zone drain");
    let view = runs(&client, &ledger, &job, 3).await;
    assert_eq!((cause(&view), &view["last_recovery"]["from_zone"]), ("drain", &json!(zone)), "{view}");
    let zones = dev.outlive(&["zone", "list", "--output", "json"]).await.expect_ok("zone list").json();
    let state = |zones: &Value| {
        zones["zones"].as_array().expect("zones").iter().find(|z| z["zone"] == *zone).expect("the zone").clone()
    };
    assert_eq!(state(&zones)["state"], "draining", "{zones}");
    let undrained = client.ask("sys.zone.undrain", json!({"zone": zone})).await;
    assert_eq!(undrained["state"], "steady");
    let refused = client.refusal("sys.zone.drain", json!({"zone": "nowhere"})).await;
    assert_eq!(refused.code, "not_found");

    // Told to go, as a spot instance is.
    let going = view["executor"].as_str().expect("an executor").to_owned();
    let pid = dev.process(&going).pid.expect("it runs");
    let told = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status().expect("kill runs");
    assert!(told.success());
    let view = runs(&client, &ledger, &job, 4).await;
    assert_eq!(cause(&view), "drain", "{view}");
    wait_until_true("it has gone", SOON, || async { !outlive_tests::dev::is_alive(pid) }).await;
    dev.restart(&going).await;

    // None of these has cost it anything: what was counted once is never counted again.
    let counted: Vec<u64> = entries(&ledger).into_iter().map(|(_, n)| n).collect();
    assert!(counted.windows(2).all(|pair| pair[0] < pair[1]), "redone work: {counted:?}");

    // Frozen: its executor cannot kill the job, and the job must not be started elsewhere before it is dead.
    let frozen = view["executor"].as_str().expect("an executor").to_owned();
    dev.pause(&frozen).await;
    let view = runs(&client, &ledger, &job, 5).await;
    assert_eq!(cause(&view), "executor_lost", "{view}");
    dev.resume(&frozen).await;
    executor_is(&client, &frozen, "ready", 0).await;
    let view = runs(&client, &ledger, &job, 5).await;
    assert_eq!(view["restarts"], 4);
    let attempts: Vec<u64> = entries(&ledger).into_iter().map(|(attempt, _)| attempt).collect();
    assert!(attempts.is_sorted(), "two attempts at once: {attempts:?}");
}
