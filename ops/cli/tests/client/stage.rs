//! A nats-server of the test's own, a scheduler that answers as the test tells it to, and the command between them.

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// For what takes a moment: generous, for a busy machine that builds while it tests.
pub const SOON: Duration = Duration::from_secs(60);

pub struct Stage {
    pub nats: async_nats::Client,
    url: String,
    /// Killed when the stage is dropped.
    _server: Child,
    _directory: TempDir,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Such as `job.submit`.
    pub operation: String,
    pub body: Value,
    pub headers: HeaderMap,
}

/// What a scheduler says: a reply, or a refusal's HTTP-like number and code.
pub type Answer = Result<Value, (u16, &'static str)>;

/// How the command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Stage {
    pub async fn set() -> Stage {
        let directory = TempDir::new().expect("a temporary directory");
        let server = Command::new(nats_server())
            .args(["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("nats-server starts");
        let begun = Instant::now();
        let url = loop {
            if let Some(url) = port_file(directory.path()) {
                break url;
            }
            assert!(begun.elapsed() < SOON, "nats-server did not say its port");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let nats = async_nats::connect(&url).await.expect("nats-server listens");
        Stage { nats, url, _server: server, _directory: directory }
    }

    /// A scheduler that answers every request by `answer`; what it was asked is noted.
    pub async fn scheduler(&self, mut answer: impl FnMut(&Seen) -> Answer + Send + 'static) -> Arc<Mutex<Vec<Seen>>> {
        let mut requests = self.nats.subscribe("outlive.v1.default.job.*").await.expect("subscribed");
        self.nats.flush().await.expect("the subscription stands");
        let (nats, seen) = (self.nats.clone(), Arc::new(Mutex::new(Vec::new())));
        let noted = seen.clone();
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let operation = request.subject.split('.').skip(3).collect::<Vec<_>>().join(".");
                let body = serde_json::from_slice(&request.payload).expect("requests are JSON");
                let seen = Seen { operation, body, headers: request.headers.unwrap_or_default() };
                noted.lock().expect("no panic before").push(seen.clone());
                let to = request.reply.expect("it is a request");
                match answer(&seen) {
                    Ok(body) => nats.publish(to, Bytes::from(body.to_string())).await.expect("published"),
                    Err((number, code)) => {
                        let mut headers = HeaderMap::new();
                        headers.insert("Nats-Service-Error-Code", number.to_string());
                        headers.insert("Nats-Service-Error", code);
                        let body = json!({"error": {"code": code, "message": format!("it said {code}")}}).to_string();
                        nats.publish_with_headers(to, headers, body.into()).await.expect("published");
                    }
                }
            }
        });
        seen
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        // Whoever runs the tests may have a configuration; these do not see it.
        let nowhere = self._directory.path();
        Command::new(env!("CARGO_BIN_EXE_outlive"))
            .args(["--server", &self.url])
            .args(arguments)
            .env_clear()
            .env("XDG_CONFIG_HOME", nowhere)
            .env("HOME", nowhere)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the command starts")
    }

    pub async fn run(&self, arguments: &[&str]) -> Outcome {
        ended(self.start(arguments)).await
    }
}

pub async fn ended(child: Child) -> Outcome {
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it ends").expect("it is ours");
    Outcome {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// `OUTLIVE_NATS_SERVER`, else on `PATH`, else the repository's own.
fn nats_server() -> PathBuf {
    if let Some(named) = std::env::var_os("OUTLIVE_NATS_SERVER") {
        return named.into();
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin");
    let found =
        std::env::split_paths(&search).chain([own]).map(|folder| folder.join("nats-server")).find(|p| p.is_file());
    found.expect("nats-server is on PATH or in .tools/bin: run ops/setup, or set OUTLIVE_NATS_SERVER")
}

/// The address in the file that nats-server writes once it listens.
fn port_file(directory: &Path) -> Option<String> {
    let entry =
        std::fs::read_dir(directory).ok()?.flatten().find(|e| e.path().extension().is_some_and(|x| x == "ports"))?;
    let ports: Value = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
    ports["nats"][0].as_str().map(str::to_owned)
}
