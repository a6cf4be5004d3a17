//! How an executor goes, and what it does when it may have been given up.

use crate::support::until;
use crate::world::{BOUND, World, assignment, checkpoints, end_of, new_job, run_on, script, start_of};
use outlive_schemas::id::Attempt;
use outlive_schemas::message::{News, Outcome};

const FIRST: Attempt = Attempt(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_takes_a_last_checkpoint_and_blames_nobody() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let id = executor.id;
    let job = new_job();
    let mut spec = script("echo x > a; exec sleep 600");
    spec["checkpoint"]["interval"] = "24h".into();
    run_on(&leader, id, &assignment(&leader, job, spec)).await;
    start_of(&leader, job, FIRST).await;
    let state = world.data_dir("e-1").join(format!("attempts/{job}-1/state/a"));
    crate::world::file(&state).await;
    executor.leave().await.expect("left");
    assert_eq!(checkpoints(&leader, job, FIRST).len(), 1);
    assert!(leader.news(job, FIRST).iter().all(|news| !matches!(news, News::Ended(_))), "its job goes on elsewhere");
    until("its last heartbeat says so", BOUND, async || {
        leader.beat_of(id).is_some_and(|beat| beat.leaving && beat.held == 0)
    })
    .await;
    assert_eq!(world.registered(&"e-1".parse().expect("a name")).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_ends_what_must_never_run_twice_and_nothing_else() {
    let mut world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let (ordinary, exclusive) = (new_job(), new_job());
    run_on(&leader, executor.id, &assignment(&leader, ordinary, script("exec sleep 600"))).await;
    let mut spec = script("exec sleep 600");
    spec["exclusive"] = true.into();
    run_on(&leader, executor.id, &assignment(&leader, exclusive, spec)).await;
    start_of(&leader, ordinary, FIRST).await;
    start_of(&leader, exclusive, FIRST).await;
    world.etcd_server.kill();
    assert_eq!(end_of(&leader, exclusive, FIRST).await.outcome, Outcome::Signalled { signal: 9 });
    world.etcd_server.restart();
    let name = "e-1".parse().expect("a name");
    until("it is registered again, as itself", BOUND, async || {
        world.registered(&name).await.iter().any(|registration| registration.id == executor.id)
    })
    .await;
    until("the ordinary one is still held", BOUND, async || {
        leader.beat_of(executor.id).is_some_and(|beat| beat.held == 1)
    })
    .await;
    assert_eq!(leader.news(ordinary, FIRST), [News::Started]);
}
