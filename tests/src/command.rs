//! Running the `outlive` command, and other programs, to their end.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Nothing where a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// Panics with everything it said where it failed.
    pub fn expect_ok(self, what: &str) -> Outcome {
        assert_eq!(self.code, Some(0), "{what} failed\nstdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {}\nstderr: {}", self.out, self.err))
    }
}

/// Runs a program to its end; kills it, and panics, when the bound is over.
pub async fn run(mut command: Command, bound: Duration) -> Outcome {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let shown = format!("{command:?}");
    let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {shown}: {e}"));
    let ended = tokio::time::timeout(bound, child.wait_with_output()).await;
    let output = ended
        .unwrap_or_else(|_| panic!("did not end within {} s: {shown}", bound.as_secs()))
        .unwrap_or_else(|e| panic!("cannot wait for {shown}: {e}"));
    Outcome {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The program under test: `OUTLIVE_BIN`, else the one built beside this test.
pub fn outlive_bin() -> PathBuf {
    if let Some(named) = std::env::var_os("OUTLIVE_BIN") {
        return named.into();
    }
    let own = std::env::current_exe().expect("a test knows its own path");
    let beside = own.parent().and_then(|deps| deps.parent()).map(|built| built.join("outlive"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "there is no `outlive` beside {}: build it (cargo build -p outlive-cli), or set OUTLIVE_BIN",
            own.display()
        )
    })
}

/// A Python that has nats-py: `OUTLIVE_TEST_PYTHON`, else the one that `ops/setup --test` made.
pub fn python_with_nats() -> PathBuf {
    let own = repository().join(".tools/venv/bin/python");
    let python = std::env::var_os("OUTLIVE_TEST_PYTHON").map_or(own, PathBuf::from);
    assert!(python.is_file(), "there is no {}: run ops/setup --test, or set OUTLIVE_TEST_PYTHON", python.display());
    python
}

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the tests are in the repository")
}
