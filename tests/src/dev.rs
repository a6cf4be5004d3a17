//! `outlive dev`, started for a test and stopped with it.

use crate::client::Client;
use crate::command::{self, Outcome, outlive_bin};
use crate::wait::wait_until_true;
use crate::{EVENTUALLY, SOON};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For a whole system to be ready, on a machine that builds at the same time.
const READY_BOUND: Duration = Duration::from_secs(240);
/// For it to stop by itself.
const STOP_BOUND: Duration = Duration::from_secs(45);
const TAIL_LINES: usize = 25;

/// What to start, where it is not the usual.
#[derive(Clone, Debug)]
pub struct Options {
    pub executors_per_zone: usize,
    /// The program, where it is not the one under test: an older one to upgrade from.
    pub bin: Option<PathBuf>,
    /// Further arguments of `outlive dev`.
    pub args: Vec<String>,
    /// Settings, as `OUTLIVE_SECTION__KEY`, that every part reads.
    pub env: Vec<(&'static str, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Options { executors_per_zone: 1, bin: None, args: Vec::new(), env: Vec::new() }
    }
}

/// A process, as `processes.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    pub role: String,
    pub zone: String,
    pub pid: Option<u32>,
    pub state: String,
    pub metrics: Option<String>,
}

/// One that has been started and has not said that it is ready.
#[derive(Debug)]
pub struct Starting(std::process::ChildStdout);

/// A whole system on this machine, stopped when this is dropped.
#[derive(Debug)]
pub struct Dev {
    zones: usize,
    options: Options,
    child: Option<Child>,
    scratch: TempDir,
    nats: Vec<String>,
}

impl Dev {
    pub async fn start(zones: usize) -> Dev {
        Dev::start_with(zones, Options::default()).await
    }

    pub async fn start_with(zones: usize, options: Options) -> Dev {
        let scratch = tempfile::Builder::new().prefix("outlive-live-").tempdir().expect("a temporary directory");
        let mut dev = Dev { zones, options, child: None, scratch, nats: Vec::new() };
        dev.start_again().await;
        dev
    }

    /// Another system with the same master key.
    pub async fn start_with_key_of(other: &Dev, zones: usize) -> Dev {
        let scratch = tempfile::Builder::new().prefix("outlive-live-").tempdir().expect("a temporary directory");
        let keys = scratch.path().join("data/keys");
        fs::create_dir_all(&keys).expect("a directory for the key");
        fs::copy(other.data().join("keys/master.key"), keys.join("master.key")).expect("the key is copied");
        let mut dev = Dev { zones, options: Options::default(), child: None, scratch, nats: Vec::new() };
        dev.start_again().await;
        dev
    }

    /// `kill -9` of every scheduler and executor; the servers go on.
    pub async fn kill_roles(&self) {
        for process in self.processes().into_iter().filter(|p| p.role == "scheduler" || p.role == "executor") {
            if let Some(pid) = process.pid {
                signal_process(pid, Signal::KILL);
                wait_until_true(&format!("{} is dead", process.name), SOON, || async { !is_alive(pid) }).await;
            }
        }
    }

    /// Starts them again.
    pub async fn restart_roles(&self) {
        for role in ["scheduler", "executor"] {
            for process in self.processes().into_iter().filter(|p| p.role == role) {
                self.restart(&process.name).await;
            }
        }
    }

    /// Addresses of etcd.
    pub fn etcd_addresses(&self) -> Vec<String> {
        let text = fs::read(self.data().join("processes.json")).expect("processes.json is there");
        let record: Value = serde_json::from_slice(&text).expect("processes.json is never half written");
        let all = record["etcd"].as_array().expect("a list").iter();
        all.map(|address| address.as_str().expect("an address is text").to_owned()).collect()
    }

    /// Starts it on the same directory, after it was stopped or killed.
    pub async fn start_again(&mut self) {
        let starting = self.begin_again();
        self.until_ready(starting).await;
    }

    /// As [`Dev::start_again`], without waiting until it is ready.
    pub fn begin_again(&mut self) -> Starting {
        assert!(self.child.is_none(), "it runs");
        let errors = File::options().create(true).append(true).open(self.errors()).expect("dev's log");
        let program = self.options.bin.clone().unwrap_or_else(outlive_bin);
        let mut child = Command::new(program)
            .args(["dev", "--json", "--zones", &self.zones.to_string()])
            .args(["--executors-per-zone", &self.options.executors_per_zone.to_string()])
            .arg("--data-dir")
            .arg(self.data())
            .args(&self.options.args)
            .envs(self.options.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("outlive can be started");
        let out = child.stdout.take().expect("it is piped");
        self.child = Some(child);
        Starting(out)
    }

    /// Waits until it says that it is ready.
    pub async fn until_ready(&mut self, Starting(out): Starting) {
        let ready = tokio::task::spawn_blocking(move || first_line(out)).await.expect("reading does not panic");
        let ready = ready.unwrap_or_else(|why| panic!("outlive dev did not get ready: {why}"));
        let ready: Value = serde_json::from_str(&ready).expect("the ready line is JSON");
        let urls = ready["nats"].as_array().expect("the ready line holds the addresses of NATS");
        self.nats = urls.iter().map(|url| url.as_str().expect("an address is text").to_owned()).collect();
        assert_eq!(self.nats.len(), self.zones);
    }

    /// Asks it to stop, and waits until it and everything it started is gone.
    pub async fn stop(&mut self) {
        let pids: Vec<u32> = self.processes().iter().filter_map(|process| process.pid).collect();
        self.send(Signal::TERM);
        let code = self.reap().await;
        assert_eq!(code, Some(0), "outlive dev ends well when it is asked to stop");
        for pid in pids {
            assert!(!is_alive(pid), "process {pid} was left behind");
        }
    }

    /// `kill -9` of `dev` itself; waits until everything it started is gone as well.
    pub async fn kill_all(&mut self) {
        let pids: Vec<u32> = self.processes().iter().filter_map(|process| process.pid).collect();
        self.send(Signal::KILL);
        self.reap().await;
        for pid in pids {
            wait_until_true(&format!("process {pid} ends with dev"), SOON, || async { !is_alive(pid) }).await;
        }
    }

    fn send(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        signal_process(child.id(), signal);
    }

    async fn reap(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        let status =
            tokio::task::spawn_blocking(move || wait_bounded(&mut child)).await.expect("waiting does not panic");
        status.unwrap_or_else(|| panic!("outlive dev did not stop within {} s", STOP_BOUND.as_secs())).code()
    }

    pub fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// A place for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The file with which every command works.
    pub fn config(&self) -> PathBuf {
        self.data().join("outlive.toml")
    }

    /// What a server of a zone, `nats` or `etcd`, has written to disk.
    pub fn stored_by(&self, zone: &str, server: &str) -> PathBuf {
        self.data().join("zones").join(zone).join(server)
    }

    /// What `dev` itself has said to people.
    pub fn said(&self) -> String {
        fs::read_to_string(self.errors()).unwrap_or_default()
    }

    fn errors(&self) -> PathBuf {
        self.scratch.path().join("dev.log")
    }

    pub fn nats_urls(&self) -> &[String] {
        &self.nats
    }

    pub fn processes(&self) -> Vec<Process> {
        let text = fs::read(self.data().join("processes.json")).expect("processes.json is there");
        let record: Value = serde_json::from_slice(&text).expect("processes.json is never half written");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let processes = record["processes"].as_array().expect("a list").iter().map(|process| Process {
            name: text(&process["name"]).expect("a name"),
            role: text(&process["role"]).expect("a role"),
            zone: text(&process["zone"]).expect("a zone"),
            pid: process["pid"].as_u64().map(|pid| pid as u32),
            state: text(&process["state"]).expect("a state"),
            metrics: text(&process["metrics"]),
        });
        processes.collect()
    }

    pub fn process(&self, name: &str) -> Process {
        let found = self.processes().into_iter().find(|process| process.name == name);
        found.unwrap_or_else(|| panic!("there is no process {name}"))
    }

    pub fn zone_of(&self, name: &str) -> String {
        self.process(name).zone
    }

    /// `kill -9`, as a host's loss would be.
    pub fn kill(&self, name: &str) {
        let pid = self.process(name).pid.unwrap_or_else(|| panic!("{name} is dead already"));
        signal_process(pid, Signal::KILL);
    }

    /// It is there, and says nothing.
    pub async fn pause(&self, name: &str) {
        self.chaos("pause", name).await;
    }

    pub async fn resume(&self, name: &str) {
        self.chaos("resume", name).await;
    }

    /// Starts a dead process, and waits until it is of use.
    pub async fn restart(&self, name: &str) {
        let done = self.chaos("restart", name).await;
        let started = done["done"].as_array().and_then(|all| all.last()).expect("something was done");
        assert!(started["ready_after_ms"].is_number(), "{name} was started and is of no use: {done}");
    }

    async fn chaos(&self, action: &str, name: &str) -> Value {
        let role = self.process(name).role;
        // What becomes of it is for the test to wait for.
        let outcome = self.outlive(&["--output", "json", "chaos", "--wait", "0s", action, &role, name]).await;
        outcome.expect_ok(&format!("chaos {action} {name}")).json()
    }

    /// Runs an `outlive` command against it.
    pub async fn outlive(&self, args: &[&str]) -> Outcome {
        command::run(self.command(args), EVENTUALLY).await
    }

    /// An `outlive` command, to be run otherwise.
    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(outlive_bin());
        command.arg("--config").arg(self.config()).args(args).env_remove("NATS_URL").current_dir(self.scratch.path());
        command
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.nats).await
    }

    /// Every process in whose environment this stands, such as `OUTLIVE_JOB_ID=…`.
    pub fn processes_with(&self, setting: &str) -> Vec<u32> {
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|found| found == setting.as_bytes())
        })
        .collect()
    }

    fn print_logs(&self) {
        let mut logs: Vec<PathBuf> =
            fs::read_dir(self.data().join("logs")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|end| end == "log"));
        logs.sort();
        logs.push(self.errors());
        for path in logs {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("---- the end of {}", path.display());
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                eprintln!("{}", line.chars().take(400).collect::<String>());
            }
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
            if std::env::var_os("OUTLIVE_TEST_KEEP").is_some() {
                self.scratch.disable_cleanup(true);
                eprintln!("kept: {}", self.scratch.path().display());
            }
        }
        if let Some(mut child) = self.child.take() {
            signal_process(child.id(), Signal::TERM);
            if wait_bounded(&mut child).is_none() {
                // Its children die with it.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// The first line that `dev` prints, or why there is none.
fn first_line(out: std::process::ChildStdout) -> Result<String, String> {
    let (line_from, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = BufReader::new(out).read_line(&mut text);
        // Whoever waited may have given up.
        let _ = line_from.send(read.map(|_| text));
    });
    match line.recv_timeout(READY_BOUND) {
        Ok(Ok(text)) if text.ends_with('\n') => Ok(text),
        Ok(Ok(_)) => Err("it ended".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("nothing was said in {} s", READY_BOUND.as_secs())),
    }
}

fn wait_bounded(child: &mut Child) -> Option<std::process::ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < STOP_BOUND {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

pub fn signal_process(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).unwrap_or_else(|e| panic!("cannot signal {pid:?}: {e}"));
}

/// A process that has ended and waits to be reaped is dead.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}
