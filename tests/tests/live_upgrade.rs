//! Two versions at work together: executors, then schedulers, are replaced one at a time under load, as
//! `ops/docs/upgrading.md` says, and nothing is lost.
//!
//! OUTLIVE_PREVIOUS_BIN names the older program; `ops/upgrade-test` builds one and runs this. Without it there is
//! nothing to upgrade from, and the test says so.

use outlive_tests::command::outlive_bin;
use outlive_tests::dev::{Process, signal_process};
use outlive_tests::{Client, Dev, EVENTUALLY, Options, wait_until, wait_until_true};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A role of the new version, in the place of one of the old.
struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        signal_process(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Stops the old one as a service manager would, and starts the new one with the same configuration.
async fn replace(dev: &Dev, process: &Process) -> Role {
    signal_process(process.pid.expect("it runs"), Signal::TERM);
    wait_until_true(&format!("the old {} is gone", process.name), EVENTUALLY, || async {
        dev.process(&process.name).pid.is_none()
    })
    .await;
    let log = std::fs::File::create(dev.scratch().join(format!("{}.new.log", process.name))).expect("a log");
    let config = dev.data().join("zones").join(&process.zone).join(format!("{}.toml", process.name));
    let child = Command::new(outlive_bin())
        .arg("--config")
        .arg(config)
        .arg(&process.role)
        .env_remove("NATS_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the new version can be started");
    let role = Role(child);
    let metrics = process.metrics.clone().expect("it serves its health");
    let address = metrics.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    wait_until_true(&format!("the new {} is ready", process.name), EVENTUALLY, || async {
        is_ready(&address).await.unwrap_or(false)
    })
    .await;
    role
}

async fn is_ready(address: &str) -> Option<bool> {
    let mut connection = tokio::net::TcpStream::connect(address).await.ok()?;
    connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer.starts_with("HTTP/1.1 200"))
}

/// Submits without end until told to stop, and notes what was acknowledged.
async fn load(client: Client, acknowledged: Arc<Mutex<Vec<String>>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let spec = json!({"driver": {"process": {"command": ["sh", "-c", "echo done > $OUTLIVE_RESULT"]}}});
        // `ask` repeats a request that nobody answered under the same id.
        let reply = client.ask("job.submit", spec).await;
        let id = reply["id"].as_str().expect("an id").to_owned();
        acknowledged.lock().expect("not poisoned").push(id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded_one_part_at_a_time_under_load() {
    let Some(previous) = std::env::var_os("OUTLIVE_PREVIOUS_BIN").map(PathBuf::from) else {
        eprintln!("skipped: OUTLIVE_PREVIOUS_BIN names no older version to upgrade from; see ops/upgrade-test");
        return;
    };
    let dev = Dev::start_with(3, Options { bin: Some(previous), ..Options::default() }).await;
    let client = dev.client().await;
    let counter = json!({
        "name": "counter", "kind": "service",
        "driver": {"process": {"command": ["sh", "-c",
            "n=$(cat n 2>/dev/null || echo 0); while :; do n=$((n+1)); echo $n > n.new && mv n.new n; sleep 0.05; done"]}},
        "checkpoint": {"interval": "200ms", "min_pause": "0s"},
    });
    client.ask("job.submit", counter).await;
    client.ask("job.wait", json!({"job": "counter", "until": "running"})).await;
    wait_until_true("the service has a checkpoint", EVENTUALLY, || async {
        client.ask("job.get", json!({"job": "counter"})).await["checkpoint"]["number"].is_number()
    })
    .await;
    let (acknowledged, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let loading = tokio::spawn(load(dev.client().await, Arc::clone(&acknowledged), Arc::clone(&stop)));
    let count = || acknowledged.lock().expect("not poisoned").len();
    let goes_on = async |what: &str| {
        let before = count();
        wait_until_true(&format!("jobs are accepted after {what}"), EVENTUALLY, || async { count() > before + 3 })
            .await;
    };
    goes_on("the start").await;

    // Executors first: they do nothing new before a leader asks for it.
    let mut roles = Vec::new();
    for process in dev.processes().into_iter().filter(|process| process.role == "executor") {
        roles.push(replace(&dev, &process).await);
        goes_on(&process.name).await;
    }
    // Then the schedulers, the leader last: from then on the log may hold what only the new ones understand.
    let leader = client.ask("sys.status", json!({})).await["leader"]["scheduler"].as_str().expect("text").to_owned();
    let mut schedulers: Vec<Process> = dev.processes().into_iter().filter(|p| p.role == "scheduler").collect();
    schedulers.sort_by_key(|process| process.name == leader);
    for process in schedulers {
        roles.push(replace(&dev, &process).await);
        goes_on(&process.name).await;
    }
    let now = client.ask("sys.status", json!({})).await;
    assert_ne!(now["leader"]["scheduler"].as_str(), Some(leader.as_str()), "the old leader handed over: {now}");

    stop.store(true, Ordering::SeqCst);
    loading.await.expect("the load ends well");
    let all = acknowledged.lock().expect("not poisoned").clone();
    for id in &all {
        let view: Value = wait_until(&format!("job {id} is over"), EVENTUALLY, || async {
            let view = client.ask("job.get", json!({"job": id})).await;
            matches!(view["status"].as_str(), Some("succeeded" | "failed" | "cancelled")).then_some(view)
        })
        .await;
        assert_eq!((view["status"].as_str(), view["result"].as_str()), (Some("succeeded"), Some("done\n")), "{view}");
    }
    // The service was moved, each time from a checkpoint.
    let view = client.ask("job.get", json!({"job": "counter"})).await;
    assert_eq!(view["status"], "running", "{view}");
    let recovery = &view["last_recovery"];
    assert!(recovery["restored_checkpoint"].is_number(), "it began anew: {view}");
    let mut verify = tokio::process::Command::new(outlive_bin());
    verify.arg("--config").arg(dev.config()).args(["log", "verify"]).env_remove("NATS_URL");
    outlive_tests::command::run(verify, EVENTUALLY).await.expect_ok("log verify by the new version");
    eprintln!(
        "{} acknowledged jobs, all succeeded; the service restored from checkpoint {}",
        all.len(),
        recovery["restored_checkpoint"]
    );
}
