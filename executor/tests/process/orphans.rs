//! Nothing of a job outlives its executor, however that ends, nor its shim.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outlive_executor::driver::process::{BootTime, Exit, ProcessAttempt, ProcessEvent};
use rustix::process::Signal;

use crate::ending::FAMILY;
use crate::world::{MARK, is_alive, kill, members, new_mark, parent, run, shim, spec, until};

const EXECUTOR_DIR: &str = "OUTLIVE_TEST_EXECUTOR_DIR";
const EXECUTOR_DEADLINE_MS: &str = "OUTLIVE_TEST_EXECUTOR_DEADLINE_MS";

/// Not a case: the executor of the next ones, in a process of its own.
#[tokio::test]
async fn executor() {
    let Ok(dir) = std::env::var(EXECUTOR_DIR) else { return };
    let deadline_ms = std::env::var(EXECUTOR_DEADLINE_MS).unwrap().parse().unwrap();
    let script = format!("{FAMILY} echo $$ > main; sleep 1000");
    let mut spec = spec(&["sh", "-c", &script], Path::new(&dir), &std::env::var(MARK).unwrap());
    spec.deadline = BootTime::now().after(Duration::from_millis(deadline_ms));
    let mut attempt = ProcessAttempt::spawn(shim(), spec).await.unwrap();
    while attempt.events.recv().await.is_some() {}
}

struct Executor {
    process: Child,
    dir: tempfile::TempDir,
    /// The job's; the executor itself has it too.
    mark: String,
}

impl Executor {
    async fn start(deadline: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mark = new_mark();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "orphans::executor", "--nocapture"])
            .env(EXECUTOR_DIR, dir.path())
            .env(EXECUTOR_DEADLINE_MS, deadline.as_millis().to_string())
            .env(MARK, &mark)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let executor = Self { process, dir, mark };
        for name in ["main", "child", "session", "orphan"] {
            until(&format!("{name} runs"), || executor.pid(name).is_some_and(is_alive)).await;
        }
        let (orphan, main) = (executor.pid("orphan").unwrap(), executor.pid("main").unwrap());
        until("the orphan has come to the shim", || parent(orphan) == parent(main)).await;
        executor
    }

    fn pid(&self, name: &str) -> Option<i32> {
        std::fs::read_to_string(self.dir.path().join(name)).ok()?.trim().parse().ok()
    }

    /// Its job's processes.
    fn job(&self) -> BTreeMap<i32, String> {
        let mut members = members(&self.mark);
        members.remove(&self.process.id().cast_signed());
        members
    }
}

impl Drop for Executor {
    /// A case that failed leaves nothing behind either.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_killed_executor_leaves_nothing_behind() {
    let mut executor = Executor::start(Duration::from_secs(600)).await;
    let shim = parent(executor.pid("main").unwrap());
    assert!(executor.job().len() >= 4);
    executor.process.kill().unwrap();
    executor.process.wait().unwrap();
    until("the job is dead", || executor.job().is_empty()).await;
    until("the shim has ended", || !is_alive(shim)).await;
}

#[tokio::test]
async fn a_killed_executor_leaves_nothing_behind_even_if_its_job_was_stopped() {
    let mut executor = Executor::start(Duration::from_secs(600)).await;
    for pid in executor.job().into_keys() {
        kill(pid, Signal::STOP);
    }
    executor.process.kill().unwrap();
    executor.process.wait().unwrap();
    until("the job is dead", || executor.job().is_empty()).await;
}

#[tokio::test]
async fn a_frozen_executor_loses_its_jobs_at_the_deadline() {
    let mut executor = Executor::start(Duration::from_secs(3)).await;
    kill(executor.process.id().cast_signed(), Signal::STOP);
    until("the job is dead", || executor.job().is_empty()).await;
    executor.process.kill().unwrap();
    executor.process.wait().unwrap();
}

#[tokio::test]
async fn an_attempt_that_nobody_holds_is_killed() {
    let world = run(&format!("{FAMILY} sleep 1000")).await;
    for name in ["child", "session", "orphan"] {
        world.file(name).await;
    }
    let (mark, mut events) = (world.mark, world.events);
    drop(world.handle);
    until("the job is dead", || members(&mark).is_empty()).await;
    // Whoever still listens hears how it ended.
    assert!(matches!(events.recv().await, Some(ProcessEvent::Started { .. })));
    assert_eq!(events.recv().await, Some(ProcessEvent::Exited(Exit::Signal(9))));
    assert_eq!(events.recv().await, Some(ProcessEvent::Gone));
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn a_killed_shim_leaves_nothing_behind() {
    let mut world = run("
        (sh -c 'echo $$ > orphan; sleep 1000' &)
        setsid sh -c 'echo $$ > session; sleep 1000' &
        sleep 1000")
    .await;
    world.file("orphan").await;
    world.file("session").await;
    let shim = parent(world.handle.pid());
    kill(shim, Signal::KILL);
    let event = world.event().await;
    let ProcessEvent::ShimLost { status: Some(status), killed } = event else { panic!("{event:?}") };
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(killed >= 3, "{killed}");
    assert_eq!(members(&world.mark), BTreeMap::new());
    world.handle.gone().await;
    assert!(world.handle.kill().await.is_err());
}
