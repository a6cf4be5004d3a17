//! A job is tried again where it was: what its last attempt has left there is used, and does not stay.

use crate::leader::Leader;
use crate::support::until;
use crate::world::{BOUND, Running, World, assignment, checkpoints, end_of, new_job, restore, run_on, script, text};
use outlive_schemas::checkpoint::Taken;
use outlive_schemas::command::Stop;
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::message::{Ended, Order, Outcome, StopAttempt};
use outlive_store::blob::{BlobStore, Owner};
use rustix::mount::{MountFlags, UnmountFlags};
use std::path::{Path, PathBuf};
use std::time::Instant;

const FIRST: Attempt = Attempt(1);
const FILES: u64 = 40;
/// Reads everything, in the order in which it was made.
const SUM: &str = "cat $(seq 40) | cksum > $OUTLIVE_RESULT";

/// A job whose first attempt has a state of some size, and waits to be told how to end.
struct Job {
    id: JobId,
    taken: Taken,
    state: PathBuf,
    ending: PathBuf,
}

impl Job {
    async fn new(world: &World, leader: &Leader, executor: &Running) -> Job {
        Job::of_files(FILES, 50_000, world, leader, executor).await
    }

    async fn of_files(files: u64, bytes: u64, world: &World, leader: &Leader, executor: &Running) -> Job {
        let id = new_job();
        let ending = world.dir.path().join(format!("ending-{id}"));
        let text = format!(
            "for n in $(seq {files}); do head -c {bytes} /dev/urandom > $n; done\n\
             while [ ! -e {0} ]; do sleep 0.02; done; . {0}",
            ending.display()
        );
        run_on(leader, executor.id, &assignment(leader, id, script(&text))).await;
        let whole = || checkpoints(leader, id, FIRST).into_iter().find(|taken| taken.size_bytes == files * bytes);
        until("a checkpoint of all of it", BOUND, async || whole().is_some()).await;
        let state = world.data_dir("e-1").join(format!("attempts/{id}-1/state"));
        Job { id, taken: whole().expect("just found"), state, ending }
    }

    /// Has the first attempt end by this command, and waits until its end is confirmed.
    async fn end(&self, leader: &Leader, executor: &Running, command: &str) -> Ended {
        let draft = self.ending.with_extension("draft");
        std::fs::write(&draft, command).expect("written");
        std::fs::rename(draft, &self.ending).expect("moved");
        let ended = end_of(leader, self.id, FIRST).await;
        nothing_held(leader, executor).await;
        ended
    }

    /// What [`SUM`] says of the state.
    fn sum(&self) -> String {
        let summed = std::process::Command::new("sh")
            .args(["-c", "cat $(seq 40) | cksum"])
            .current_dir(&self.state)
            .output()
            .expect("summed");
        String::from_utf8(summed.stdout).expect("text")
    }

    async fn again(&self, leader: &Leader, executor: &Running, attempt: u32, command: &str) -> Ended {
        let mut again = assignment(leader, self.id, script(command));
        (again.attempt, again.restore) = (Attempt(attempt), restore(1, self.taken));
        run_on(leader, executor.id, &again).await;
        end_of(leader, self.id, Attempt(attempt)).await
    }
}

async fn nothing_held(leader: &Leader, executor: &Running) {
    until("it holds nothing", BOUND, async || leader.beat_of(executor.id).is_some_and(|beat| beat.held == 0)).await;
}

async fn gone(path: &Path) {
    until(&format!("{} is gone", path.display()), BOUND, async || !path.exists()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_failed_finds_its_state_where_it_was() {
    let world = World::new().await;
    let leader = world.leader().await;
    let (first, second) = (world.executor("e-1").await, world.executor("e-2").await);
    let job = Job::new(&world, &leader, &first).await;
    let expected = job.sum();
    let ended = job.end(&leader, &first, "exit 3").await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 3 });
    // All that is left in the store is the manifest.
    let (blobs, owner) = (world.blobs().await, Owner::Job(job.id));
    let chunks: Vec<_> = blobs.list(owner).await.expect("listed");
    assert!(chunks.len() > FILES as usize, "{} blobs", chunks.len());
    for name in chunks.into_iter().filter(|name| *name != job.taken.manifest) {
        blobs.delete(owner, name).await.expect("deleted");
    }
    let elsewhere = job.again(&leader, &second, 2, SUM).await;
    assert!(matches!(elsewhere.outcome, Outcome::RestoreFailed { .. }), "{:?}", elsewhere.outcome);
    // A file that was not at hand would be fetched in vain; and what cannot be begun leaves what it found.
    let (one, away) = (job.state.join("17"), world.dir.path().join("away"));
    std::fs::rename(&one, &away).expect("moved");
    let incomplete = job.again(&leader, &first, 3, SUM).await;
    assert!(matches!(incomplete.outcome, Outcome::RestoreFailed { .. }), "{:?}", incomplete.outcome);
    nothing_held(&leader, &first).await;
    gone(&world.data_dir("e-1").join(format!("attempts/{}-3", job.id))).await;
    std::fs::rename(&away, &one).expect("moved back");

    let here = job.again(&leader, &first, 4, SUM).await;
    assert_eq!(here.outcome, Outcome::Exited { code: 0 }, "{here:?}");
    assert_eq!(text(here.result), expected);
    gone(&job.state).await;
    gone(&world.data_dir("e-1").join(format!("attempts/{}-4", job.id))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_job_that_may_come_back_leaves_something_and_not_beyond_its_executor() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    // One after the other, so that each is held alone.
    let finished = Job::new(&world, &leader, &executor).await;
    assert_eq!(finished.end(&leader, &executor, "exit 0").await.outcome, Outcome::Exited { code: 0 });
    gone(&finished.state).await;
    let stopped = Job::new(&world, &leader, &executor).await;
    let stop = StopAttempt { job: stopped.id, attempt: FIRST, how: Stop::Kill };
    leader.order(executor.id, Order::Stop(vec![stop])).await;
    assert_eq!(end_of(&leader, stopped.id, FIRST).await.outcome, Outcome::Signalled { signal: 9 });
    gone(&stopped.state).await;

    let failed = Job::new(&world, &leader, &executor).await;
    assert_eq!(failed.end(&leader, &executor, "kill -9 $$").await.outcome, Outcome::Signalled { signal: 9 });
    // Where there is no checkpoint there is nothing to come back to.
    let stateless = new_job();
    let mut spec = script("echo x > a; exit 1");
    spec["checkpoint"]["interval"] = "24h".into();
    run_on(&leader, executor.id, &assignment(&leader, stateless, spec)).await;
    end_of(&leader, stateless, FIRST).await;
    gone(&world.data_dir("e-1").join(format!("attempts/{stateless}-1"))).await;
    assert!(failed.state.exists());
    // It begins anew, from nothing.
    let mut anew = assignment(&leader, failed.id, script("ls > $OUTLIVE_RESULT"));
    anew.attempt = Attempt(2);
    run_on(&leader, executor.id, &anew).await;
    assert_eq!(text(end_of(&leader, failed.id, Attempt(2)).await.result), "");
    gone(&failed.state).await;

    let left = Job::new(&world, &leader, &executor).await;
    left.end(&leader, &executor, "exit 1").await;
    assert!(left.state.exists());
    executor.leave().await.expect("left");
    assert!(!left.state.exists(), "it has left in order");
}

/// A file system of its own, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Nothing where none may be mounted.
    fn mount(at: PathBuf, options: &std::ffi::CStr) -> Option<SmallDisk> {
        std::fs::create_dir(&at).expect("made");
        rustix::mount::mount("none", &at, "tmpfs", MountFlags::empty(), Some(options)).ok()?;
        Some(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).expect("unmounted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_room_for_both_the_state_is_fetched() {
    let world = World::new().await;
    let leader = world.leader().await;
    // Room for one and three quarters.
    let Some(_disk) = SmallDisk::mount(world.data_dir("e-1"), c"size=3500k") else { return };
    let executor = world.executor("e-1").await;
    let job = Job::new(&world, &leader, &executor).await;
    let expected = job.sum();
    job.end(&leader, &executor, "exit 3").await;
    assert!(job.state.exists());
    let again = job.again(&leader, &executor, 2, SUM).await;
    assert_eq!(again.outcome, Outcome::Exited { code: 0 }, "{again:?}");
    assert_eq!(text(again.result), expected);
    assert!(!job.state.exists());
}

/// `cargo test --release -p outlive-executor --test run -- --ignored --nocapture again`
///
/// From the order until the end of a process that ends at once, on the executor where the job was and on another of the same host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn how_long_a_restart_in_place_takes() {
    let world = World::new().await;
    let leader = world.leader().await;
    let (here, elsewhere) = (world.executor("e-1").await, world.executor("e-2").await);
    let job = Job::of_files(2_000, 100_000, &world, &leader, &here).await;
    job.end(&leader, &here, "exit 3").await;
    for round in 0..3 {
        for (attempt, executor, command) in [(2 * round + 2, &elsewhere, "exit 0"), (2 * round + 3, &here, "exit 3")] {
            let began = Instant::now();
            let ended = job.again(&leader, executor, attempt, command).await;
            let took = began.elapsed();
            let place = if attempt % 2 == 0 { "elsewhere" } else { "here" };
            println!("{place}: {took:.3?}, {:?} after {:?} ms", ended.outcome, ended.ran_ms);
            nothing_held(&leader, executor).await;
        }
    }
}
