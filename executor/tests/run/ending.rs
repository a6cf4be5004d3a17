//! How an executor goes, and what it does when it may have been given up.

use crate::support::until;
use crate::world::{BOUND, World, assignment, end_of, new_job, run_on, script, start_of};
use outlive_schemas::event::Cause;
use outlive_schemas::id::Attempt;
use outlive_schemas::message::{News, Order, Otherwise, Outcome, Release, ReleaseAttempt, Released};
use outlive_schemas::time::Millis;

const FIRST: Attempt = Attempt(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_gives_everything_back_with_its_state() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let id = executor.id;
    let (job, later) = (new_job(), new_job());
    let mut spec = script(COUNTER);
    spec["checkpoint"]["interval"] = "24h".into();
    run_on(&leader, id, &assignment(&leader, job, spec)).await;
    start_of(&leader, job, FIRST).await;
    let ledger = world.dir.path().join("ledger");
    // Frozen before its first line stands there, it would have nothing to be held against.
    until("it counts", BOUND, async || std::fs::read_to_string(&ledger).is_ok_and(|text| text.lines().count() > 1))
        .await;
    leader.set_silent(true);
    let left = tokio::spawn(executor.leave());
    until("it says that it is going", BOUND, async || leader.beat_of(id).is_some_and(|beat| beat.leaving)).await;
    // What was placed before the leader knew is given back at once.
    run_on(&leader, id, &assignment(&leader, later, script("exec sleep 600"))).await;
    until("one is given back", BOUND, async || {
        [job, later].into_iter().any(|job| leader.news(job, FIRST).iter().any(|news| matches!(news, News::Ended(_))))
    })
    .await;
    leader.set_silent(false);
    left.await.expect("no panic").expect("left");
    let released = |outcome| match outcome {
        Outcome::Released(released) => released,
        other => panic!("not given back: {other:?}"),
    };
    let given_back = released(end_of(&leader, job, FIRST).await.outcome);
    assert_eq!((given_back.cause, given_back.fault), (Cause::Drain, None));
    let taken = given_back.checkpoint.expect("its last checkpoint");
    assert_eq!(released(end_of(&leader, later, FIRST).await.outcome).checkpoint, None);
    until("its last heartbeat says so", BOUND, async || {
        leader.beat_of(id).is_some_and(|beat| beat.leaving && beat.held == 0)
    })
    .await;
    assert_eq!(world.registered(&"e-1".parse().expect("a name")).await, []);

    // Where it is restored it has done everything that it ever did: the ledger outside knows.
    let second = world.executor("e-2").await;
    let mut again = assignment(&leader, job, script("cat n > $OUTLIVE_RESULT"));
    (again.attempt, again.restore) = (Attempt(2), crate::world::restore(1, taken));
    run_on(&leader, second.id, &again).await;
    let counted = crate::world::text(end_of(&leader, job, Attempt(2)).await.result);
    let outside = std::fs::read_to_string(ledger).expect("a ledger");
    let last = |text: &str| text.trim().lines().last().and_then(|line| line.parse::<u64>().ok()).expect("a number");
    // It may have stood still between the two.
    assert!((last(&outside)..=last(&outside) + 1).contains(&last(&counted)), "{counted} of {}", last(&outside));
}

/// Counts, first in its state and then in a ledger outside of it.
const COUNTER: &str = r#"
    n=0
    while :; do n=$((n + 1)); echo $n > n.new; mv n.new n; echo $n >> ../../../../ledger; done
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_given_back_by_order() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let (moved, killed, refused) = (new_job(), new_job(), new_job());
    let running = r#"echo x > n; touch ready; exec sleep 600"#;
    // A file that cannot be kept: no checkpoint can be had.
    let unkept = r#"ln -s /etc/hostname outside; touch ready; exec sleep 600"#;
    for (job, text) in [(moved, running), (killed, running), (refused, unkept)] {
        let mut spec = script(text);
        spec["checkpoint"]["interval"] = "24h".into();
        run_on(&leader, executor.id, &assignment(&leader, job, spec)).await;
        crate::world::file(&world.data_dir("e-1").join(format!("attempts/{job}-1/state/ready"))).await;
    }
    let release = |job, how| ReleaseAttempt { job, attempt: FIRST, cause: Cause::Update, how };
    let within = |ms, otherwise| Release::Checkpoint { within: Millis(ms), otherwise };
    let orders = vec![
        release(moved, within(60_000, Otherwise::Kill)),
        release(killed, Release::Kill),
        release(refused, within(700, Otherwise::GoOn)),
    ];
    leader.order(executor.id, Order::Release(orders)).await;
    let Outcome::Released(given_back) = end_of(&leader, moved, FIRST).await.outcome else { panic!("not released") };
    assert_eq!((given_back.cause, given_back.fault), (Cause::Update, None));
    assert!(given_back.checkpoint.is_some_and(|taken| taken.files == 2 && taken.size_bytes > 0));
    let nothing = Outcome::Released(Released { cause: Cause::Update, checkpoint: None, fault: None });
    assert_eq!(end_of(&leader, killed, FIRST).await.outcome, nothing);
    until("it goes on, and says why", BOUND, async || {
        leader
            .news(refused, FIRST)
            .iter()
            .any(|news| matches!(news, News::ReleaseFailed { reason } if reason.contains("outside")))
    })
    .await;
    assert!(leader.news(refused, FIRST).iter().all(|news| !matches!(news, News::Ended(_))));
    // What is not here is said to be missing.
    let unknown = new_job();
    leader.order(executor.id, Order::Release(vec![release(unknown, Release::Kill)])).await;
    until("it is missing", BOUND, async || leader.news(unknown, FIRST) == [News::Missing]).await;
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
