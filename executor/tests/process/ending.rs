//! The ends that an executor asks for or that a job comes to by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use outlive_executor::driver::process::{ControlError, Exit, ProcessEvent, Stopped};
use rustix::process::Signal;

use crate::world::{kill, members, parent, run, run_with, until};

/// Starts, below the main process, a child, a child in a session of its own, and an orphan in a session of its own
/// whose parent has ended, and waits for all three.
pub const FAMILY: &str = "
    sh -c 'echo $$ > child; sleep 1000' &
    setsid sh -c 'echo $$ > session; sleep 1000' &
    (setsid sh -c 'echo $$ > orphan; sleep 1000' &)
";

/// Processes that start their successor and end, for ever: none of them lives long enough to be looked at twice.
pub const COMET: &str = "echo 'printf x >> ticks; setsid sh comet & exit' > comet; sh comet & sleep 1000";

#[tokio::test]
async fn what_the_main_process_leaves_behind_is_killed() {
    let mut world = run(&format!("{FAMILY} until test -s child -a -s session -a -s orphan; do :; done; exit 7")).await;
    assert_eq!(world.outcome().await, Exit::Code(7));
    // And the pipes end, though nobody closed them.
    assert_eq!(world.stdout().await, "");
}

#[tokio::test]
async fn a_kill_reaches_everybody() {
    let mut world = run(&format!("{FAMILY} sleep 1000")).await;
    for name in ["child", "session", "orphan"] {
        world.file(name).await;
    }
    let orphan: i32 = world.file("orphan").await.parse().unwrap();
    let shim = parent(world.handle.pid());
    until("the orphan has come to the shim", || parent(orphan) == shim).await;
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_kill_catches_a_tree_that_forks_all_the_time() {
    let mut world = run("while :; do (sleep 0.01 & echo >> ticks); done").await;
    world.grows("ticks", 50).await;
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_kill_catches_a_comet() {
    let mut world = run(COMET).await;
    world.grows("ticks", 20).await;
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_graceful_stop_gives_time_to_everybody() {
    let script = "
        sh -c 'trap \"echo bye > child-bye; exit\" TERM; echo > child; while :; do sleep 0.01; done' &
        trap 'wait; echo bye > bye; exit 5' TERM; echo > main; while :; do sleep 0.01; done";
    let mut world = run(script).await;
    until("both listen", || world.path("child").exists() && world.path("main").exists()).await;
    assert_eq!(world.handle.stop(Duration::from_secs(60)).await, Stopped::InTime);
    assert_eq!(world.outcome().await, Exit::Code(5));
    assert_eq!(world.file("bye").await, "bye");
    assert_eq!(world.file("child-bye").await, "bye");
}

#[tokio::test]
async fn who_ignores_a_graceful_stop_is_killed_after_the_grace() {
    let mut world = run("trap '' TERM; echo > deaf; while :; do sleep 1000; done").await;
    until("it is deaf", || world.path("deaf").exists()).await;
    assert_eq!(world.handle.stop(Duration::from_millis(50)).await, Stopped::Killed);
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_graceful_stop_wakes_what_the_job_had_stopped() {
    let mut world = run("trap 'exit 6' TERM; echo > listens; kill -STOP $$; while :; do sleep 1000; done").await;
    until("it has stopped itself", || members(&world.mark).values().any(|states| states == "T")).await;
    assert_eq!(world.handle.stop(Duration::from_secs(60)).await, Stopped::InTime);
    assert_eq!(world.outcome().await, Exit::Code(6));
}

#[tokio::test]
async fn signals_come_through_and_nonsense_does_not() {
    let mut world = run("trap 'echo > got' USR1; echo > listens; until test -e got; do sleep 0.01; done; exit 0").await;
    until("it listens", || world.path("listens").exists()).await;
    assert_eq!(world.handle.signal(0).await, Err(ControlError::NoSuchSignal(0)));
    assert_eq!(world.handle.signal(12345).await, Err(ControlError::NoSuchSignal(12345)));
    // To the shell and to its `sleep`; the latter dies of it, and the loop goes on.
    world.handle.signal(Signal::USR1.as_raw()).await.unwrap();
    assert_eq!(world.outcome().await, Exit::Code(0));
}

#[tokio::test]
async fn a_deadline_that_is_not_moved_kills() {
    let mut world = run(&format!("{FAMILY} sleep 1000")).await;
    for name in ["child", "session", "orphan"] {
        world.file(name).await;
    }
    world.handle.extend(Duration::ZERO).await.unwrap();
    // It does not move backwards.
    assert!(world.handle.freeze().await.unwrap().thaw().await.is_ok());
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));

    let mut world = run_with(&["sh", "-c", FAMILY_WAITING], |spec| {
        spec.deadline = outlive_executor::driver::process::BootTime::now().after(Duration::from_secs(2));
    })
    .await;
    assert_eq!(world.event().await, ProcessEvent::DeadlinePassed);
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

const FAMILY_WAITING: &str = "(setsid sleep 1000 &) ; sleep 1000";

#[tokio::test]
async fn a_deadline_that_is_moved_in_time_does_not() {
    let first = outlive_executor::driver::process::BootTime::now().after(Duration::from_secs(2));
    let script = "while :; do echo >> ticks; sleep 0.01; done";
    let mut world = run_with(&["sh", "-c", script], |spec| spec.deadline = first).await;
    world.handle.extend(Duration::from_secs(600)).await.unwrap();
    until("the first deadline has passed", || outlive_executor::driver::process::BootTime::now() > first).await;
    let ticks = world.number("ticks");
    world.grows("ticks", ticks + 3).await;
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn signals_to_the_shim_do_not_end_an_attempt() {
    let mut world = run("while :; do echo >> ticks; sleep 0.01; done").await;
    let shim = parent(world.handle.pid());
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        kill(shim, signal);
    }
    // It still answers and the job still runs.
    world.handle.freeze().await.unwrap().thaw().await.unwrap();
    let ticks = world.number("ticks");
    world.grows("ticks", ticks + 3).await;
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn requests_after_the_end_say_so() {
    let mut world = run("exit 0").await;
    assert_eq!(world.outcome().await, Exit::Code(0));
    assert_eq!(world.handle.kill().await, Err(ControlError::Gone));
    assert!(world.handle.freeze().await.is_err());
    assert_eq!(world.handle.stop(Duration::from_secs(60)).await, Stopped::InTime);
    assert_eq!(members(&world.mark), BTreeMap::new());
    assert_eq!(world.events.recv().await, None);
}
