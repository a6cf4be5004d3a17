//! A job goes on elsewhere: checkpoints, crashes, restores.

use crate::support::until;
use crate::world::{
    BOUND, World, assignment, checkpoints, end_of, file, new_job, restore, run_on, script, start_of, text,
};
use outlive_schemas::id::{Attempt, CheckpointNumber};
use outlive_schemas::message::Outcome;
use std::cell::{Cell, RefCell};

/// Counts to 1,000,000 unless it finds a file `enough`; what it leaves is how far it came, and how often it began.
const COUNTER: &str = r#"
    echo "$OUTLIVE_ATTEMPT:$OUTLIVE_RESTORED_CHECKPOINT" >> begun
    n=$(cat count 2>/dev/null || echo 0)
    while [ ! -e enough ] && [ "$OUTLIVE_ATTEMPT" = 1 ]; do
        n=$((n + 1)); echo $n > count.new; mv count.new count; sleep 0.01
    done
    echo "$n" "$(tr '\n' ' ' < begun)" > "$OUTLIVE_RESULT"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_outlives_its_executor() {
    let world = World::new().await;
    let leader = world.leader().await;
    let first = world.executor("e-1").await;
    let job = new_job();
    run_on(&leader, first.id, &assignment(&leader, job, script(COUNTER))).await;
    until("three checkpoints", BOUND, async || checkpoints(&leader, job, Attempt(1)).len() >= 3).await;
    let count = world.data_dir("e-1").join(format!("attempts/{job}-1/state/count"));
    file(&count).await;
    first.crash().await;
    // Its shim ends the job, which would otherwise count on.
    let read = || std::fs::read_to_string(&count).unwrap_or_default();
    let last = RefCell::new((read(), 0));
    until("the old process counts no more", BOUND, async || {
        let (before, same) = last.take();
        let now = read();
        let same = if now == before { same + 1 } else { 0 };
        last.replace((now, same));
        same > 50
    })
    .await;

    let taken = *checkpoints(&leader, job, Attempt(1)).last().expect("a checkpoint");
    assert!(taken.size_bytes > 0 && taken.uploaded_bytes > 0 && taken.files >= 2, "{taken:?}");
    let second = world.executor("e-2").await;
    let mut again = assignment(&leader, job, script(COUNTER));
    (again.attempt, again.restore) = (Attempt(2), restore(3, taken));
    run_on(&leader, second.id, &again).await;
    let ended = end_of(&leader, job, Attempt(2)).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
    let result = text(ended.result);
    let (count, begun) = result.trim().split_once(' ').expect("two parts");
    assert!(count.parse::<u32>().expect("a count") > 0, "{result}");
    assert_eq!(begun.trim(), "1: 2:3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_state_makes_no_new_checkpoint() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let job = new_job();
    let go = world.dir.path().join("go");
    let text =
        format!("echo one > a; while [ ! -e {} ]; do sleep 0.02; done; echo two > b; exec sleep 600", go.display());
    run_on(&leader, executor.id, &assignment(&leader, job, script(&text))).await;
    until("the first checkpoint", BOUND, async || !checkpoints(&leader, job, Attempt(1)).is_empty()).await;
    let state = world.data_dir("e-1").join(format!("attempts/{job}-1/state"));
    // Long enough for ten more, were there anything to take; they are counted after the next real one.
    let beats = Cell::new(0);
    until("some time has passed", BOUND, async || {
        beats.set(beats.get() + 1);
        beats.get() > 100
    })
    .await;
    std::fs::write(&go, "").expect("written");
    file(&state.join("b")).await;
    until("the second checkpoint", BOUND, async || checkpoints(&leader, job, Attempt(1)).len() >= 2).await;
    let all = checkpoints(&leader, job, Attempt(1));
    assert!(all.len() <= 3, "the state changed once or, seen half-way, twice: {all:?}");
    assert!(all.windows(2).all(|two| two[0].manifest != two[1].manifest), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_cannot_be_read_is_named() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let job = new_job();
    run_on(&leader, executor.id, &assignment(&leader, job, script("echo x > a; exec sleep 600"))).await;
    until("a checkpoint", BOUND, async || !checkpoints(&leader, job, Attempt(1)).is_empty()).await;
    let mut taken = checkpoints(&leader, job, Attempt(1))[0];
    taken.manifest.0[0] ^= 1;
    let mut again = assignment(&leader, job, script("exit 0"));
    (again.attempt, again.restore) = (Attempt(2), restore(1, taken));
    run_on(&leader, executor.id, &again).await;
    let ended = end_of(&leader, job, Attempt(2)).await;
    let Outcome::RestoreFailed { number, reason } = ended.outcome else { panic!("{:?}", ended.outcome) };
    assert_eq!(number, CheckpointNumber(1));
    assert!(reason.contains("missing"), "{reason}");

    // A job without a key cannot have had a checkpoint.
    let other = new_job();
    let mut stray = assignment(&leader, other, script("exit 0"));
    stray.restore = restore(4, taken);
    run_on(&leader, executor.id, &stray).await;
    let ended = end_of(&leader, other, Attempt(1)).await;
    assert!(matches!(ended.outcome, Outcome::RestoreFailed { number: CheckpointNumber(4), .. }), "{:?}", ended.outcome);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_nats_for_a_while_costs_a_running_job_nothing() {
    let mut world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let job = new_job();
    let go = world.dir.path().join("go");
    let text = format!("while [ ! -e {} ]; do sleep 0.02; done; echo done > $OUTLIVE_RESULT", go.display());
    run_on(&leader, executor.id, &assignment(&leader, job, script(&text))).await;
    start_of(&leader, job, Attempt(1)).await;
    world.nats_server.kill();
    std::fs::write(&go, "").expect("written");
    let result = world.data_dir("e-1").join(format!("attempts/{job}-1/result"));
    file(&result).await;
    world.nats_server.restart();
    let ended = end_of(&leader, job, Attempt(1)).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
    until("it beats again, and holds nothing", BOUND, async || {
        leader.beat_of(executor.id).is_some_and(|beat| beat.held == 0)
    })
    .await;
}
