//! Frozen means every thread of every process, whoever its parents are, and until it is thawed.

use std::process::Command;
use std::time::Duration;

use outlive_executor::driver::process::{BootTime, Exit, FreezeError, ProcessEvent, Stopped};
use rustix::process::Signal;

use crate::ending::COMET;
use crate::world::{kill, members, run, run_with, until};

/// Children, sessions and orphans that all keep writing.
const WRITERS: &str = "
    w() { while :; do echo >> $1; sleep 0.005; done; }
    w child & (w grandchild &)
    echo 'while :; do echo >> $1; sleep 0.005; done' > w
    setsid sh w session & (setsid sh w orphan &)
    w main";

const NAMES: [&str; 5] = ["main", "child", "grandchild", "session", "orphan"];

#[tokio::test]
async fn a_freeze_covers_sessions_and_orphans_and_a_thaw_lets_all_go_on() {
    let mut world = run(WRITERS).await;
    for _ in 0..10 {
        for name in NAMES {
            world.grows(name, world.number(name)).await;
        }
        let frozen = world.handle.freeze().await.unwrap();
        let before = NAMES.map(|name| world.number(name));
        world.stands_still();
        assert_eq!(NAMES.map(|name| world.number(name)), before);
        assert!(frozen.report().processes >= 5, "{:?}", frozen.report());
        assert_eq!(frozen.report().processes as usize, members(&world.mark).len());
        let report = frozen.thaw().await.unwrap();
        assert!(report.paused > Duration::ZERO);
    }
    for name in NAMES {
        world.grows(name, world.number(name)).await;
    }
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_freeze_catches_a_tree_that_forks_all_the_time() {
    let script = "f() { while :; do (sleep 0.02 & echo >> ticks); done; }; f & (f &) ; f";
    let mut world = run(script).await;
    for _ in 0..5 {
        world.grows("ticks", world.number("ticks") + 30).await;
        let frozen = world.handle.freeze().await.unwrap();
        let ticks = world.number("ticks");
        world.stands_still();
        assert_eq!(world.number("ticks"), ticks);
        frozen.thaw().await.unwrap();
    }
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_freeze_catches_a_comet() {
    let mut world = run(COMET).await;
    for _ in 0..5 {
        world.grows("ticks", world.number("ticks") + 5).await;
        let frozen = world.handle.freeze().await.unwrap();
        let ticks = world.number("ticks");
        world.stands_still();
        assert_eq!(world.number("ticks"), ticks);
        frozen.thaw().await.unwrap();
    }
    world.grows("ticks", world.number("ticks")).await;
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

/// Not a case: the job of the next one. Threads that write, and one that starts programs, which suspends it in a
/// `vfork` each time.
#[test]
fn job_with_threads() {
    if std::env::var_os("OUTLIVE_TEST_JOB").is_none() {
        return;
    }
    let write = |name: &str| {
        use std::io::Write;
        std::fs::OpenOptions::new().create(true).append(true).open(name).unwrap().write_all(b"x").unwrap();
    };
    std::thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                loop {
                    write(&format!("thread-{number}"));
                }
            });
        }
        scope.spawn(move || {
            loop {
                Command::new("true").status().unwrap();
                write("programs");
            }
        });
    });
}

#[tokio::test]
async fn a_freeze_covers_threads_and_programs_being_started() {
    let own = std::env::current_exe().unwrap();
    let command = [own.to_str().unwrap(), "--exact", "freezing::job_with_threads", "--nocapture"];
    let mut world = run_with(&command, |spec| spec.env.push(("OUTLIVE_TEST_JOB".into(), "1".into()))).await;
    let names = ["thread-0", "thread-1", "thread-2", "thread-3", "programs"];
    for _ in 0..20 {
        for name in names {
            world.grows(name, world.number(name)).await;
        }
        let frozen = world.handle.freeze().await.unwrap();
        let before = names.map(|name| world.number(name));
        world.stands_still();
        assert_eq!(names.map(|name| world.number(name)), before);
        frozen.thaw().await.unwrap();
    }
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn what_the_job_had_stopped_stays_stopped() {
    let mut world =
        run("sleep 1000 & echo $! > stopped; kill -STOP $!; while :; do echo >> main; sleep 0.01; done").await;
    let pid: i32 = world.file("stopped").await.parse().unwrap();
    until("it is stopped", || members(&world.mark).get(&pid).is_some_and(|states| states == "T")).await;
    let frozen = world.handle.freeze().await.unwrap();
    world.stands_still();
    frozen.thaw().await.unwrap();
    world.grows("main", world.number("main")).await;
    assert_eq!(members(&world.mark)[&pid], "T");
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_shell_with_job_control_does_not_notice() {
    let mut world = run("set -m; sleep 1000 & while :; do jobs > jobs.new; mv jobs.new jobs; echo >> main; done").await;
    for _ in 0..10 {
        world.grows("main", world.number("main")).await;
        world.handle.freeze().await.unwrap().thaw().await.unwrap();
    }
    world.grows("main", world.number("main") + 2).await;
    let jobs = std::fs::read_to_string(world.path("jobs")).unwrap();
    assert!(!jobs.contains("Stopped"), "{jobs}");
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn the_frozen_can_be_killed() {
    let mut world = run(WRITERS).await;
    for name in NAMES {
        world.grows(name, 0).await;
    }
    let frozen = world.handle.freeze().await.unwrap();
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
    assert_eq!(frozen.thaw().await, Err(FreezeError::NotRunning));
}

#[tokio::test]
async fn the_frozen_die_at_their_deadline() {
    let mut world = run_with(&["sh", "-c", "(setsid sleep 1000 &) ; sleep 1000"], |spec| {
        spec.deadline = BootTime::now().after(Duration::from_secs(2));
    })
    .await;
    let _frozen = world.handle.freeze().await.unwrap();
    assert_eq!(world.event().await, ProcessEvent::DeadlinePassed);
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_graceful_stop_does_not_wait_for_a_thaw() {
    let mut world = run("trap 'exit 4' TERM; echo > listens; while :; do sleep 0.01; done").await;
    until("it listens", || world.path("listens").exists()).await;
    let frozen = world.handle.freeze().await.unwrap();
    let stop = tokio::spawn({
        let handle = world.handle.clone();
        async move { handle.stop(Duration::from_secs(60)).await }
    });
    assert_eq!(world.outcome().await, Exit::Code(4));
    assert_eq!(stop.await.unwrap(), Stopped::InTime);
    assert!(frozen.thaw().await.is_err());
}

#[tokio::test]
async fn a_signal_ends_a_freeze() {
    let mut world = run("trap 'exit 8' USR1; echo > listens; while :; do sleep 0.01; done").await;
    until("it listens", || world.path("listens").exists()).await;
    // While nothing of it can end meanwhile, the reason can still be asked for.
    let frozen = world.handle.freeze().await.unwrap();
    world.handle.signal(Signal::WINCH.as_raw()).await.unwrap();
    assert_eq!(frozen.thaw().await, Err(FreezeError::Interrupted));
    let _frozen = world.handle.freeze().await.unwrap();
    world.handle.signal(Signal::USR1.as_raw()).await.unwrap();
    assert_eq!(world.outcome().await, Exit::Code(8));
}

#[tokio::test]
async fn two_freezes_at_once_are_refused() {
    let mut world = run("while :; do echo >> main; sleep 0.01; done").await;
    let frozen = world.handle.freeze().await.unwrap();
    assert_eq!(world.handle.freeze().await.unwrap_err(), FreezeError::Busy);
    world.stands_still();
    frozen.thaw().await.unwrap();
    world.grows("main", world.number("main")).await;
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_freeze_that_is_dropped_ends() {
    let mut world = run("while :; do echo >> main; sleep 0.01; done").await;
    drop(world.handle.freeze().await.unwrap());
    world.grows("main", world.number("main")).await;
    // Also one whose answer nobody waits for: polled once, so that it is on its way, then dropped.
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_micros(300), world.handle.freeze()).await;
        world.grows("main", world.number("main")).await;
    }
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_freeze_that_is_held_too_long_ends_and_says_so() {
    let mut world = run("while :; do echo >> main; sleep 0.01; done").await;
    let limit = Duration::from_millis(50);
    let frozen = world.handle.freeze_for(limit).await.unwrap();
    world.grows("main", world.number("main") + 1).await;
    assert_eq!(frozen.thaw().await, Err(FreezeError::HeldTooLong { limit }));
    // It is over; the next one works.
    world.handle.freeze().await.unwrap().thaw().await.unwrap();
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn who_was_woken_from_outside_makes_the_freeze_worthless() {
    let mut world = run("while :; do echo >> main; done").await;
    let frozen = world.handle.freeze().await.unwrap();
    let pid = world.handle.pid();
    kill(pid, Signal::CONT);
    world.grows("main", world.number("main")).await;
    assert_eq!(frozen.thaw().await, Err(FreezeError::Broken { pid }));
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

/// A process that waits for its `vfork` child, which does not come to an end, cannot be stopped, as one that hangs on a
/// disk cannot. (The number of the system call is that of one architecture.)
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn what_does_not_stop_in_time_is_an_error_and_everybody_goes_on() {
    let script = "perl -e 'syscall(58); `echo > hangs`; sleep 1000' & while :; do echo >> main; sleep 0.01; done";
    let mut world = run(script).await;
    until("it hangs", || world.path("hangs").exists()).await;
    let error = world.handle.freeze().await.unwrap_err();
    assert!(matches!(error, FreezeError::Timeout { moving: 1, state: 'D', .. }), "{error:?}");
    assert!(error.to_string().starts_with("freeze_timeout: "), "{error}");
    world.grows("main", world.number("main") + 3).await;
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}
