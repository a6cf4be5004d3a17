//! What Outlive refuses to run on, by name: a key that does not fit, a stream that would not keep its promises.

use outlive_tests::command::{Outcome, outlive_bin, run};
use outlive_tests::{Dev, EVENTUALLY, wait_until_true};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

/// A role's configuration with some of its lines replaced.
fn with(dev: &Dev, role_file: &str, name: &str, changes: &[(&str, String)]) -> PathBuf {
    let text = std::fs::read_to_string(dev.data().join("zones/a").join(role_file)).expect("dev wrote it");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (key, value) in changes {
        let prefix = format!("{key} = ");
        let line = lines.iter_mut().rfind(|line| line.starts_with(&prefix)).expect("the setting is there");
        *line = format!("{prefix}{value}");
    }
    let path = dev.scratch().join(name);
    std::fs::write(&path, lines.join("\n")).expect("a configuration");
    path
}

/// Runs a role that has to give up by itself.
async fn run_role(role: &str, config: &Path) -> Outcome {
    let mut command = tokio::process::Command::new(outlive_bin());
    command.arg("--config").arg(config).arg(role).env_remove("NATS_URL");
    run(command, EVENTUALLY).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_fit_is_named_and_nothing_is_started() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    client.ask("job.submit", json!({"driver": {"noop": {}}})).await;
    let term = client.ask("sys.status", json!({})).await["leader"]["term"].clone();

    let other = dev.scratch().join("other.key");
    let other_text = other.display().to_string();
    dev.outlive(&["keys", "generate", &other_text]).await.expect_ok("keys generate");
    let again = dev.outlive(&["keys", "generate", &other_text]).await;
    assert_ne!(again.code, Some(0), "a key is never overwritten");
    let damaged = dev.scratch().join("damaged.key");
    std::fs::write(&damaged, "not a key at all").expect("write");

    for (role, role_file) in [("scheduler", "scheduler-a.toml"), ("executor", "executor-a-1.toml")] {
        for (what, path) in [
            ("another", other.clone()),
            ("a damaged", damaged.clone()),
            ("a missing", dev.scratch().join("missing.key")),
        ] {
            let mut changes = vec![
                ("files", json!([path]).to_string()),
                ("name", json!("intruder").to_string()),
                ("listen", json!("127.0.0.1:0").to_string()),
            ];
            if role == "executor" {
                changes.push(("data_dir", json!(dev.scratch().join("intruder")).to_string()));
            }
            let config = with(&dev, role_file, "wrong-key.toml", &changes);
            let outcome = run_role(role, &config).await;
            assert_eq!(outcome.out, "");
            assert!(
                !matches!(outcome.code, None | Some(0)),
                "a {role} with {what} key did not give up: {:?} {}",
                outcome.code,
                outcome.err
            );
            let said = outcome.err.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
            assert!(said.contains("key"), "a {role} with {what} key does not say so: {}", outcome.err);
        }
    }

    // Whoever had the right key was not disturbed.
    let status = client.ask("sys.status", json!({})).await;
    assert_eq!(status["leader"]["term"], term);
    let executors = client.ask("sys.executor.list", json!({})).await;
    assert!(!executors.to_string().contains("intruder"), "{executors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_unsafe_settings_is_refused_by_the_name_of_the_setting() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let config = dev.data().join("zones/a/scheduler-a.toml");
    client.ask("job.submit", json!({"driver": {"noop": {}}})).await;
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    dev.kill("scheduler-a");
    wait_until_true("dev knows", EVENTUALLY, || async { dev.process("scheduler-a").state == "dead" }).await;

    let safe = jetstream.get_stream("OUTLIVE_LOG").await.expect("the log").cached_info().config.clone();
    let unsafe_settings: [(&str, async_nats::jetstream::stream::Config); 3] = [
        ("allow_rollup", async_nats::jetstream::stream::Config { allow_rollup: true, ..safe.clone() }),
        (
            "discard",
            async_nats::jetstream::stream::Config {
                discard: async_nats::jetstream::stream::DiscardPolicy::Old,
                ..safe.clone()
            },
        ),
        (
            "max_age",
            async_nats::jetstream::stream::Config { max_age: std::time::Duration::from_secs(3_600), ..safe.clone() },
        ),
    ];
    for (setting, unsafe_config) in unsafe_settings {
        jetstream.update_stream(unsafe_config).await.unwrap_or_else(|e| panic!("{setting}: {e}"));
        let outcome = run_role("scheduler", &config).await;
        assert!(!matches!(outcome.code, None | Some(0)), "{setting}: {:?} {}", outcome.code, outcome.err);
        assert!(outcome.err.contains("OUTLIVE_LOG"), "{setting}: {}", outcome.err);
        assert!(outcome.err.contains(setting), "{setting} is not named: {}", outcome.err);
    }
    jetstream.update_stream(safe).await.expect("safe again");
    dev.restart("scheduler-a").await;
    client.ask("job.submit", json!({"driver": {"noop": {}}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_says_what_is_in_its_way() {
    let mut dev = Dev::start(1).await;
    let data = dev.data();
    let dev_again = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(outlive_bin());
        command.args(["dev", "--json", "--data-dir"]).arg(&data).args(args);
        run(command, EVENTUALLY).await
    };
    let refused = dev_again(&[]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.contains("another `outlive dev` runs in"), "{}", refused.err);

    dev.stop().await;
    let refused = dev_again(&["--zones", "3"]).await;
    assert!(refused.err.contains("was made with 1 zones, not 3"), "{}", refused.err);

    let ports: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.join("ports.json")).expect("ports.json")).expect("JSON");
    let port = ports["ports"]["etcd-a/listen"].as_u64().expect("a port") as u16;
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("it is free while dev does not run");
    let refused = dev_again(&[]).await;
    assert!(
        refused.err.contains(&format!("port {port}, which is etcd-a/listen's here, is taken by")),
        "{}",
        refused.err
    );
    assert!(refused.err.contains(&std::process::id().to_string()), "{}", refused.err);
    drop(taken);

    let mut command = tokio::process::Command::new(outlive_bin());
    command.args(["dev", "--data-dir"]).arg(&data).env("OUTLIVE_ETCD", "/no/such/etcd");
    let refused = run(command, EVENTUALLY).await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("OUTLIVE_ETCD") && refused.err.contains("/no/such/etcd"), "{}", refused.err);

    // A server that is too old, and one that dies as it starts: its own words are shown, and nothing is left running.
    let fake = dev.scratch().join("nats-server");
    let with_fake = async |version: &str| {
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo nats-server: v{version}; exit; fi\n\
             echo the disk is on fire >&2; exit 3\n"
        );
        std::fs::write(&fake, script).expect("a script");
        std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
        let mut command = tokio::process::Command::new(outlive_bin());
        command.args(["dev", "--json", "--data-dir"]).arg(&data).env("OUTLIVE_NATS_SERVER", &fake);
        run(command, EVENTUALLY).await
    };
    let refused = with_fake("2.10.27").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("version 2.10.27; nats-server 2.14.4 or newer is needed"), "{}", refused.err);
    let refused = with_fake("2.15.1").await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.contains("nats-a ended while everything was starting (exit status: 3)"), "{}", refused.err);
    assert!(refused.err.contains("the disk is on fire"), "{}", refused.err);
    assert!(dev.processes().iter().all(|process| process.pid.is_none()), "{:?}", dev.processes());

    dev.start_again().await;
}

/// As much of a NATS server as it takes to be asked for its version.
async fn old_nats_server() -> u16 {
    const INFO: &str = concat!(
        r#"INFO {"server_id":"OLD","server_name":"old","version":"2.10.27","proto":1,"go":"go1.22","host":"127.0.0.1","#,
        r#""port":4222,"headers":true,"jetstream":true,"max_payload":1048576,"client_id":1}"#,
        "\r\n"
    );
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(INFO.as_bytes()).await.expect("said");
                let (reading, mut writing) = stream.into_split();
                let mut lines = BufReader::new(reading).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line == "PING" && writing.write_all(b"PONG\r\n").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_below_the_floor_is_refused_with_the_reason() {
    let dev = Dev::start(1).await;
    let old = old_nats_server().await;
    let servers = json!([format!("nats://127.0.0.1:{old}")]).to_string();
    let listen = json!("127.0.0.1:0").to_string();
    let config = with(&dev, "scheduler-a.toml", "old-server.toml", &[("servers", servers), ("listen", listen)]);
    let outcome = run_role("scheduler", &config).await;
    assert!(!matches!(outcome.code, None | Some(0)), "{:?} {}", outcome.code, outcome.err);
    for word in ["2.10.27", "2.14.4"] {
        assert!(outcome.err.contains(word), "`{word}` is not in: {}", outcome.err);
    }
}

/// What `config check` finds, by level, and its exit code.
async fn checked(dev: &Dev, config: &Path, role: &str) -> (Option<i32>, Vec<(String, String)>) {
    let mut command = tokio::process::Command::new(outlive_bin());
    command.arg("--config").arg(config).args(["--output", "json", "config", "check", "--role", role]);
    command.env_remove("NATS_URL").current_dir(dev.scratch());
    let outcome = run(command, EVENTUALLY).await;
    let report = outcome.json();
    let findings = report["findings"].as_array().expect("a list of findings");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let mut found: Vec<_> = findings.iter().map(|one| (text(&one["level"]), text(&one["check"]))).collect();
    found.sort();
    (outcome.code, found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_that_anybody_can_write_to_is_found_by_asking() {
    let dev = Dev::start(1).await;
    let (scheduler, executor) = ("scheduler-a.toml", "executor-a-1.toml");
    let finding = |level: &str, check: &str| (level.to_owned(), check.to_owned());

    // On one machine everybody is at home already: it is said, and no more.
    let (code, found) = checked(&dev, &dev.data().join("zones/a").join(scheduler), "scheduler").await;
    assert_eq!(code, Some(0), "{found:?}");
    for check in ["log_writable", "etcd_open"] {
        assert!(found.contains(&finding("notice", check)), "{check} is not in {found:?}");
    }

    // The same servers by an address that others could reach.
    let elsewhere = dev.nats_urls()[0].replace("127.0.0.1", "0.0.0.0");
    let far = |role_file: &str, name: &str| with(&dev, role_file, name, &[("servers", json!([elsewhere]).to_string())]);
    for (role, file) in [("scheduler", scheduler), ("executor", executor)] {
        let (code, found) = checked(&dev, &far(file, "far.toml"), role).await;
        assert_eq!(code, Some(2), "{role}: {found:?}");
        for check in ["log_writable", "nats_tls"] {
            assert!(found.contains(&finding("unsafe", check)), "{role}: {check} is not in {found:?}");
        }
    }

    // A server that is too old, and one that is not there.
    let old = json!([format!("nats://127.0.0.1:{}", old_nats_server().await)]).to_string();
    let (code, found) = checked(&dev, &with(&dev, scheduler, "old.toml", &[("servers", old)]), "scheduler").await;
    assert_eq!(code, Some(2), "{found:?}");
    assert!(found.contains(&finding("unsafe", "nats_version")), "{found:?}");
    let port = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind").local_addr().expect("an address").port();
    let nobody = json!([format!("nats://127.0.0.1:{port}")]).to_string();
    let (code, found) = checked(&dev, &with(&dev, scheduler, "nobody.toml", &[("servers", nobody)]), "scheduler").await;
    assert_eq!(code, Some(6), "{found:?}");
    assert!(found.contains(&finding("unknown", "nats_unreachable")), "{found:?}");

    // A stream that does not keep what it was promised to keep.
    let jetstream = async_nats::jetstream::new(dev.client().await.nats().clone());
    let safe = jetstream.get_stream("OUTLIVE_LOG").await.expect("the log").cached_info().config.clone();
    let config = async_nats::jetstream::stream::Config { allow_rollup: true, ..safe.clone() };
    jetstream.update_stream(config).await.expect("changed");
    let (code, found) = checked(&dev, &dev.data().join("zones/a").join(scheduler), "scheduler").await;
    assert_eq!(code, Some(2), "{found:?}");
    assert!(found.contains(&finding("unsafe", "log_stream")), "{found:?}");
    jetstream.update_stream(safe).await.expect("safe again");
}
