//! The words the cases are written in: an attempt with a directory and a mark, and what `/proc` says about it.
//!
//! The mark is an environment variable that every process of an attempt inherits, so that they can be found whatever
//! became of their parents and sessions. The shim's environment has nothing of the job's, and it is not among them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use outlive_executor::driver::limit::Limits;
use outlive_executor::driver::process::{
    BootTime, Exit, LaunchError, ProcessAttempt, ProcessEvent, ProcessHandle, StartSpec,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Everything here takes milliseconds; this is for a machine that is doing much else.
pub const BOUND: Duration = Duration::from_secs(60);

pub const MARK: &str = "OUTLIVE_TEST_MARK";

pub fn shim() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_outlive-shim"))
}

/// An attempt under test.
pub struct World {
    pub handle: ProcessHandle,
    pub events: mpsc::Receiver<ProcessEvent>,
    pub stdout: JoinHandle<Vec<u8>>,
    pub stderr: JoinHandle<Vec<u8>>,
    pub dir: TempDir,
    pub mark: String,
}

/// A mark no other attempt has.
pub fn new_mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}-{:?}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed), BootTime::now())
}

pub fn spec(command: &[&str], dir: &Path, mark: &str) -> StartSpec {
    StartSpec {
        command: command.iter().map(ToString::to_string).collect(),
        env: vec![(MARK.into(), mark.into())],
        cwd: dir.to_path_buf(),
        limits: Limits { memory_bytes: 64 << 20 },
        deadline: BootTime::now().after(Duration::from_secs(600)),
    }
}

/// Runs a shell script as an attempt.
pub async fn run(script: &str) -> World {
    run_with(&["sh", "-c", script], |_| {}).await
}

pub async fn run_with(command: &[&str], change: impl FnOnce(&mut StartSpec)) -> World {
    let dir = tempfile::tempdir().unwrap();
    let mark = new_mark();
    let mut spec = spec(command, dir.path(), &mark);
    change(&mut spec);
    let attempt = ProcessAttempt::spawn(shim(), spec).await.unwrap();
    let (stdout, stderr) = (collect(attempt.stdout), collect(attempt.stderr));
    World { handle: attempt.handle, events: attempt.events, stdout, stderr, dir, mark }
}

/// Why a command was not started.
pub async fn refusal(command: &[&str], change: impl FnOnce(&mut StartSpec)) -> LaunchError {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(command, dir.path(), &new_mark());
    change(&mut spec);
    ProcessAttempt::spawn(shim(), spec).await.unwrap_err()
}

fn collect(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> JoinHandle<Vec<u8>> {
    tokio::spawn(async move {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).await.unwrap();
        all
    })
}

impl World {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The next event but `Started`, which every attempt begins with.
    pub async fn event(&mut self) -> ProcessEvent {
        loop {
            let event = tokio::time::timeout(BOUND, self.events.recv()).await.expect("no event came");
            match event.expect("the events ended") {
                ProcessEvent::Started { pid, .. } => assert_eq!(pid, self.handle.pid()),
                event => return event,
            }
        }
    }

    /// How it ended, once nothing is left of it.
    pub async fn outcome(&mut self) -> Exit {
        let ProcessEvent::Exited(exit) = self.event().await else { panic!("not an exit") };
        self.is_gone().await;
        exit
    }

    pub async fn is_gone(&mut self) {
        assert_eq!(self.event().await, ProcessEvent::Gone);
        assert_eq!(members(&self.mark), BTreeMap::new());
        self.handle.gone().await;
    }

    /// Waits until the attempt has written this file, and gives what is in it.
    pub async fn file(&self, name: &str) -> String {
        let path = self.path(name);
        until(&format!("{name} exists"), || fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'))).await;
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// Waits for a number that the attempt writes to grow beyond `than`.
    pub async fn grows(&self, name: &str, than: u64) -> u64 {
        until(&format!("{name} grows beyond {than}"), || self.number(name) > than).await;
        self.number(name)
    }

    /// The size of a file that the attempt keeps appending to.
    pub fn number(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).map_or(0, |metadata| metadata.len())
    }

    pub async fn stdout(self) -> String {
        String::from_utf8(self.stdout.await.unwrap()).unwrap()
    }

    /// Asserts that every thread of every process of the attempt is stopped, as often as it takes to see one that is
    /// not.
    pub fn stands_still(&self) {
        let first = members(&self.mark);
        assert!(!first.is_empty());
        for _ in 0..20 {
            let now = members(&self.mark);
            assert_eq!(now, first, "processes came or went, or changed their state, during a freeze");
            for (pid, states) in &now {
                assert!(states.chars().all(|state| "TtZX".contains(state)), "process {pid} is in {states}");
            }
        }
    }
}

/// The living processes that carry a mark, with the states of their threads.
pub fn members(mark: &str) -> BTreeMap<i32, String> {
    let wanted = format!("{MARK}={mark}");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A zombie has no environment any more and is not found.
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        if environ.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes()) {
            found.insert(pid, states(pid));
        }
    }
    found
}

fn states(pid: i32) -> String {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return String::new() };
    threads.flatten().filter_map(|thread| state(&thread.path().join("stat"))).collect()
}

fn state(stat: &Path) -> Option<char> {
    let text = fs::read_to_string(stat).ok()?;
    text.rsplit(')').next()?.trim_start().chars().next()
}

/// Whether a process of this number runs (a zombie does not).
pub fn is_alive(pid: i32) -> bool {
    state(Path::new(&format!("/proc/{pid}/stat"))).is_some_and(|state| !"ZX".contains(state))
}

/// The parent of a process.
pub fn parent(pid: i32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub fn kill(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < BOUND, "waited {BOUND:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
