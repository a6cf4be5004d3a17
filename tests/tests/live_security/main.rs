//! Outlive over servers with TLS, users and permissions: it works, and whatever the docs forbid is refused by the servers.

mod creds;
mod signed;
mod world;

use async_nats::Event;
use outlive_tests::{EVENTUALLY, SOON, wait_until_true};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use world::{OPERATOR_PASSWORD, TEAM_PASSWORD, World};

/// A connection, and what the server complained about on it.
struct Intruder {
    name: &'static str,
    client: async_nats::Client,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Intruder {
    async fn connect(world: &World, name: &'static str, options: async_nats::ConnectOptions) -> Intruder {
        let complaints: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&complaints);
        let options = options.event_callback(move |event| {
            let heard = Arc::clone(&heard);
            async move {
                if let Event::ServerError(error) = event {
                    heard.lock().expect("not poisoned").push(error.to_string());
                }
            }
        });
        let client = options.connect(&world.nats).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        Intruder { name, client, complaints }
    }

    async fn is_refused(&self, what: &str) {
        self.client.flush().await.expect("flushed");
        let told = format!("{} is refused {what}", self.name);
        wait_until_true(&told, SOON, || async {
            let complaints = self.complaints.lock().expect("not poisoned");
            let refused = |told: &str| told.contains("permissions violation") && told.contains(&what.to_lowercase());
            complaints.iter().any(|told| refused(&told.to_lowercase()))
        })
        .await;
    }

    async fn may_not_publish(&self, subjects: &[&str]) {
        for subject in subjects {
            self.client.publish((*subject).to_owned(), "x".into()).await.expect("sent");
            self.is_refused(&format!("\"{subject}\"")).await;
        }
    }

    async fn may_not_subscribe(&self, subjects: &[&str]) {
        for subject in subjects {
            let subscribed = self.client.subscribe((*subject).to_owned()).await.expect("sent");
            self.is_refused(&format!("\"{subject}\"")).await;
            drop(subscribed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_over_tls_and_everything_forbidden_is_refused() {
    let world = World::start().await;
    let _scheduler = world.role("scheduler");
    let executor = world.role("executor");

    // A job runs, is checkpointed, loses its executor, and is restored by the next: every permission that is needed is
    // there.
    let script = "if [ -e state ]; then cat state > $OUTLIVE_RESULT; else echo kept > state; exec sleep 600; fi";
    let spec = serde_json::json!({
        "name": "kept", "driver": {"process": {"command": ["sh", "-c", script]}},
        "checkpoint": {"interval": "200ms", "min_pause": "0s"},
    });
    std::fs::write(world.path("job.json"), spec.to_string()).expect("written");
    let spec = world.path("job.json").display().to_string();
    let submitted = world.outlive("user.toml", &["--request-timeout", "90s", "job", "submit", &spec]).await;
    assert_eq!(
        submitted.code,
        Some(0),
        "{}\n---- scheduler\n{}\n---- executor\n{}",
        submitted.err,
        world.log("scheduler"),
        world.log("executor")
    );
    let job = async || {
        let outcome = world.outlive("user.toml", &["--output", "json", "job", "get", "kept"]).await;
        outcome.expect_ok("job get").json()
    };
    wait_until_true("a checkpoint", EVENTUALLY, || async { job().await["checkpoint"]["number"].is_number() }).await;
    executor.kill();
    let _executor = world.role("executor");
    let waited = world.outlive("user.toml", &["--output", "json", "job", "wait", "kept"]).await;
    let over = waited.expect_ok("job wait").json();
    assert_eq!((over["status"].as_str(), over["result"].as_str()), (Some("succeeded"), Some("kept\n")), "{over}");
    let status = world.outlive("operator.toml", &["--output", "json", "status"]).await.expect_ok("status").json();
    assert_eq!(status["cluster"], "secure");

    // Who has no certificate, no name or a wrong password does not get in.
    let bare = async_nats::ConnectOptions::new().require_tls(true).add_root_certificates(world.path("ca.pem"));
    assert!(bare.connect(&world.nats).await.is_err(), "without a certificate");
    assert!(world.options().connect(&world.nats).await.is_err(), "without a name");
    let wrong = world.options().user_and_password("operator".into(), TEAM_PASSWORD.into());
    assert!(wrong.connect(&world.nats).await.is_err(), "with another's password");
    let plain = world.nats.replace("tls://", "nats://");
    assert!(async_nats::ConnectOptions::new().connect(&plain).await.is_err(), "in the clear");

    const LOG_AND_STREAMS: [&str; 8] = [
        "outlive.log.0",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.UPDATE.OUTLIVE_LOG",
        "$JS.API.STREAM.PURGE.OUTLIVE_LOG",
        "$JS.API.STREAM.DELETE.OUTLIVE_BLOB",
        "$JS.API.STREAM.MSG.DELETE.OUTLIVE_KEYS",
        "$JS.API.DIRECT.GET.OUTLIVE_LOG",
        "outlive.internal.leader",
    ];
    let options = world.options().user_and_password("team-a".into(), TEAM_PASSWORD.into());
    let user = Intruder::connect(&world, "a namespace's user", options).await;
    user.may_not_publish(&LOG_AND_STREAMS).await;
    user.may_not_publish(&[
        "outlive.v1.team-b.job.submit",
        "outlive.v1.sys.status",
        "outlive.v1.team-a.event.x.job_finished",
        "outlive.internal.report",
        "outlive.key.job.x",
    ])
    .await;
    user.may_not_subscribe(&["outlive.v1.team-b.event.>", "outlive.v1.*.event.>", "outlive.tail.0", "_INBOX.>", ">"])
        .await;

    let options = world.options().nkey(world.seed("executor"));
    let executor = Intruder::connect(&world, "an executor", options).await;
    executor.may_not_publish(&LOG_AND_STREAMS).await;
    executor
        .may_not_publish(&[
            "outlive.internal.executor.x.orders",
            "outlive.key.log.1",
            "outlive.blob.image.x",
            "outlive.v1.team-a.job.submit",
        ])
        .await;
    executor.may_not_subscribe(&["outlive.log.0", "outlive.tail.0", "outlive.v1.team-a.job.submit", "_INBOX.>"]).await;

    let options = world.options().user_and_password("operator".into(), OPERATOR_PASSWORD.into());
    let operator = Intruder::connect(&world, "an operator", options).await;
    operator.may_not_publish(&LOG_AND_STREAMS).await;
    operator.may_not_publish(&["outlive.v1.team-a.job.submit"]).await;
    operator.may_not_subscribe(&["outlive.v1.team-a.log.>", "_INBOX.scheduler.>"]).await;

    // A scheduler itself may not listen where it would hide that no stream answers.
    let options = world.options().nkey(world.seed("scheduler"));
    let scheduler = Intruder::connect(&world, "a scheduler", options).await;
    scheduler.may_not_subscribe(&["outlive.log.0"]).await;

    // What the command says of it is what its code says, and the log is whole.
    let denied = world.outlive("user.toml", &["--request-timeout", "2s", "-n", "team-b", "job", "list"]).await;
    assert_eq!(denied.code, Some(6), "{}{}", denied.out, denied.err);
    world.outlive("scheduler.toml", &["log", "verify"]).await.expect_ok("log verify");

    // The set-up is safe, until a secret is left open.
    let checked = world.outlive("scheduler.toml", &["--output", "json", "config", "check"]).await;
    let report: Value = checked.expect_ok("config check").json();
    assert_eq!(
        (report["safe"].as_bool(), report["findings"].as_array().map(Vec::len)),
        (Some(true), Some(0)),
        "{report}"
    );
    world.outlive("executor.toml", &["config", "check"]).await.expect_ok("config check of an executor");
    std::fs::set_permissions(world.path("scheduler.nk"), std::fs::Permissions::from_mode(0o644)).expect("set");
    let checked = world.outlive("scheduler.toml", &["--output", "json", "config", "check"]).await;
    assert_eq!(checked.code, Some(2), "{}", checked.out);
    let report = checked.json();
    assert_eq!(report["findings"][0]["check"], "secret_file_open", "{report}");
    assert!(report["findings"][0]["message"].as_str().is_some_and(|text| text.contains("nats.nkey_file")), "{report}");
}
