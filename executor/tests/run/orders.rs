//! Orders: taken once, refused when stale, converged on; and reports until they are answered.

use crate::support::until;
use crate::world::{
    BOUND, World, assignment, checkpoints, end_of, file, new_job, noop, run_on, script, start_of, text,
};
use outlive_schemas::command::Stop;
use outlive_schemas::id::{Attempt, Sequence, Term};
use outlive_schemas::message::{AttemptDigest, News, Order, Outcome, StopAttempt};
use outlive_schemas::time::Millis;

const FIRST: Attempt = Attempt(1);

type Expected = fn(&Outcome) -> bool;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noop_jobs_end_at_once_and_once() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let jobs: Vec<_> = (0..1_000).map(|_| new_job()).collect();
    let batch: Vec<_> = jobs.iter().map(|job| assignment(&leader, *job, noop(&job.to_string()))).collect();
    leader.order(executor.id, Order::Assign(batch.clone())).await;
    for job in &jobs {
        let ended = end_of(&leader, *job, FIRST).await;
        assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
        assert_eq!(text(ended.result), job.to_string());
    }
    assert!(leader.largest_batch() > 1, "reports are sent together");
    // The same order again is the same as once, also after its end was confirmed.
    let empty = || leader.beat_of(executor.id).is_some_and(|beat| beat.held == 0);
    until("nothing is held", BOUND, async || empty()).await;
    let heard = leader.reports();
    leader.order(executor.id, Order::Assign(batch)).await;
    let marker = new_job();
    run_on(&leader, executor.id, &assignment(&leader, marker, noop("marker"))).await;
    end_of(&leader, marker, FIRST).await;
    assert_eq!(leader.reports(), heard + 1);
    until("nothing is held", BOUND, async || {
        leader.beat_of(executor.id).is_some_and(|beat| beat.digest == AttemptDigest::default())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_answered_is_said_again_and_a_deposed_leaders_answer_is_none() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let job = new_job();
    until("a heartbeat", BOUND, async || leader.beat_of(executor.id).is_some_and(|beat| beat.seq_seen.0 > 0)).await;
    leader.set_silent(true);
    run_on(&leader, executor.id, &assignment(&leader, job, noop("x"))).await;
    until("the end is said twice", BOUND, async || leader.news(job, FIRST).len() >= 2).await;
    leader.answer_as(Some(Term(4)));
    leader.set_silent(false);
    let heard = leader.news(job, FIRST).len();
    until("the end is said again", BOUND, async || leader.news(job, FIRST).len() >= heard + 2).await;
    assert!(leader.beat_of(executor.id).is_some_and(|beat| beat.held == 1));
    leader.answer_as(None);
    until("nothing is held", BOUND, async || leader.beat_of(executor.id).is_some_and(|beat| beat.held == 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_of_a_deposed_leader_are_refused() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    until("the leader is known", BOUND, async || leader.beat_of(executor.id).is_some_and(|beat| beat.seq_seen.0 > 0))
        .await;
    let (stale, good) = (new_job(), new_job());
    let order = Order::Assign(vec![assignment(&leader, stale, noop("stale"))]);
    leader.order_as(executor.id, Term(4), Sequence(900), order).await;
    run_on(&leader, executor.id, &assignment(&leader, good, noop("good"))).await;
    end_of(&leader, good, FIRST).await;
    assert_eq!(leader.news(stale, FIRST), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_gets_what_the_contract_says_and_leaves_a_result() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let job = new_job();
    let mut spec = script(
        r#"test "$PWD" -ef "$OUTLIVE_STATE_DIR" || exit 9
           printf '%s %s %s %s %s' "$OUTLIVE_JOB_ID" "$OUTLIVE_ATTEMPT" "$OUTLIVE_ZONE" "$OUTLIVE_EXECUTOR" \
               "$(cat "$OUTLIVE_INPUT")" > "$OUTLIVE_RESULT""#,
    );
    spec["input"] = "hello".into();
    run_on(&leader, executor.id, &assignment(&leader, job, spec)).await;
    let ended = end_of(&leader, job, FIRST).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
    assert!(ended.ran_ms.is_some());
    assert_eq!(text(ended.result), format!("{job} 1 a e-1 hello"));
    // Confirmed, nothing of it stays.
    let attempts = world.data_dir("e-1").join("attempts");
    until("its directory is removed", BOUND, async || std::fs::read_dir(&attempts).expect("listed").next().is_none())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_end_has_its_outcome() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let mut timed = script("sleep 600");
    timed["timeout"] = "200ms".into();
    let mut silent = script("while :; do echo on; sleep 0.3; done & sleep 2; kill $!; sleep 600");
    silent["progress_timeout"] = "1s".into();
    let missing = serde_json::json!({"driver": {"process": {"command": ["/no/such/program"]}}});
    let cases: Vec<(serde_json::Value, Expected)> = vec![
        (script("exit 3"), |outcome| *outcome == Outcome::Exited { code: 3 }),
        (script("kill -SEGV $$"), |outcome| *outcome == Outcome::Signalled { signal: 11 }),
        (timed, |outcome| *outcome == Outcome::TimedOut),
        (silent, |outcome| *outcome == Outcome::NoProgress),
        (missing, |outcome| matches!(outcome, Outcome::LaunchFailed { reason } if reason.contains("/no/such/program"))),
        (
            script("head -c 262145 /dev/zero > $OUTLIVE_RESULT"),
            |outcome| matches!(outcome, Outcome::ResultRefused { reason } if reason.contains("262144")),
        ),
        (
            script("ln -s /etc/hostname $OUTLIVE_RESULT"),
            |outcome| matches!(outcome, Outcome::ResultRefused { reason } if reason.contains("symbolic link")),
        ),
    ];
    let mut running = Vec::new();
    for (spec, expected) in cases {
        let job = new_job();
        run_on(&leader, executor.id, &assignment(&leader, job, spec.clone())).await;
        running.push((job, spec, expected));
    }
    for (job, spec, expected) in running {
        let ended = end_of(&leader, job, FIRST).await;
        assert!(expected(&ended.outcome), "{:?} of {spec}", ended.outcome);
        assert_eq!(ended.result, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_are_graceful_or_not() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let (polite, deaf, killed) = (new_job(), new_job(), new_job());
    let handles = r#"trap 'exit 7' TERM; touch ready; while :; do sleep 0.05; done"#;
    let ignores = r#"trap '' TERM; touch ready; while :; do sleep 0.05; done"#;
    for (job, text) in [(polite, handles), (deaf, ignores), (killed, ignores)] {
        run_on(&leader, executor.id, &assignment(&leader, job, script(text))).await;
        file(&world.data_dir("e-1").join(format!("attempts/{job}-1/state/ready"))).await;
    }
    let stop = |job, how| StopAttempt { job, attempt: FIRST, how };
    let grace = |ms| Stop::Graceful { grace: Millis(ms) };
    let stops = vec![stop(polite, grace(60_000)), stop(deaf, grace(300)), stop(killed, Stop::Kill)];
    leader.order(executor.id, Order::Stop(stops)).await;
    assert_eq!(end_of(&leader, polite, FIRST).await.outcome, Outcome::Exited { code: 7 });
    assert_eq!(end_of(&leader, deaf, FIRST).await.outcome, Outcome::Signalled { signal: 9 });
    assert_eq!(end_of(&leader, killed, FIRST).await.outcome, Outcome::Signalled { signal: 9 });
    // What is not here is said to be missing.
    let unknown = new_job();
    leader.order(executor.id, Order::Stop(vec![stop(unknown, Stop::Kill)])).await;
    until("it is missing", BOUND, async || leader.news(unknown, FIRST) == [News::Missing]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wanted_set_is_converged_on() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let (wanted, unwanted, missing, later) = (new_job(), new_job(), new_job(), new_job());
    for job in [wanted, unwanted] {
        run_on(&leader, executor.id, &assignment(&leader, job, script("exec sleep 600"))).await;
        start_of(&leader, job, FIRST).await;
    }
    let seq = leader.seq();
    run_on(&leader, executor.id, &assignment(&leader, later, script("exec sleep 600"))).await;
    start_of(&leader, later, FIRST).await;
    leader.order_as(executor.id, Term(5), seq, Order::Want(vec![(wanted, FIRST), (missing, FIRST)])).await;
    let mut expected = AttemptDigest::default();
    expected.add(wanted, FIRST);
    expected.add(later, FIRST);
    until("what is not wanted is gone", BOUND, async || {
        leader.beat_of(executor.id).is_some_and(|beat| beat.digest == expected && beat.held == 2)
    })
    .await;
    until("what is missing is named", BOUND, async || leader.news(missing, FIRST) == [News::Missing]).await;
    let directory = world.data_dir("e-1").join(format!("attempts/{unwanted}-1"));
    until("its directory is gone", BOUND, async || !directory.exists()).await;
    assert_eq!(leader.news(unwanted, FIRST), [News::Started], "nobody wants to hear of its end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_superseded_is_stopped_and_a_higher_attempt_waits_for_the_older_ones_end() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let (here, elsewhere) = (new_job(), new_job());
    leader.supersede(elsewhere, FIRST);
    run_on(&leader, executor.id, &assignment(&leader, elsewhere, script("exec sleep 600"))).await;
    let directory = world.data_dir("e-1").join(format!("attempts/{elsewhere}-1"));
    until("it was begun, and is gone", BOUND, async || {
        !leader.news(elsewhere, FIRST).is_empty() && !directory.exists()
    })
    .await;

    // The first holds a lock until its last process has gone; the second would find it held.
    let place = world.dir.path().join("alone");
    let alone = format!(
        "exec 9> {p}; flock -n 9 || exit 5; [ $OUTLIVE_ATTEMPT = 2 ] && exit 0; touch {p}.held; exec sleep 600",
        p = place.display()
    );
    run_on(&leader, executor.id, &assignment(&leader, here, script(&alone))).await;
    file(&world.dir.path().join("alone.held")).await;
    start_of(&leader, here, FIRST).await;
    let mut second = assignment(&leader, here, script(&alone));
    second.attempt = Attempt(2);
    run_on(&leader, executor.id, &second).await;
    assert_eq!(end_of(&leader, here, Attempt(2)).await.outcome, Outcome::Exited { code: 0 });
    assert_eq!(leader.news(here, FIRST), [News::Started]);
    // The older one does not come back.
    run_on(&leader, executor.id, &assignment(&leader, here, script("exit 0"))).await;
    let marker = new_job();
    run_on(&leader, executor.id, &assignment(&leader, marker, noop("x"))).await;
    end_of(&leader, marker, FIRST).await;
    assert_eq!(leader.news(here, FIRST), [News::Started]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_given_back() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let job = new_job();
    let mut spec = script("exit 0");
    spec["resources"] = serde_json::json!({"cpu_millis": 5_000});
    run_on(&leader, executor.id, &assignment(&leader, job, spec)).await;
    let ended = end_of(&leader, job, FIRST).await;
    assert!(
        matches!(&ended.outcome, Outcome::LaunchFailed { reason } if reason.contains("5000")),
        "{:?}",
        ended.outcome
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dismissed_executor_ends_everything_and_begins_anew() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    let job = new_job();
    run_on(&leader, executor.id, &assignment(&leader, job, script("exec sleep 600"))).await;
    start_of(&leader, job, FIRST).await;
    leader.order(executor.id, Order::Dismiss).await;
    let name = "e-1".parse().expect("a name");
    let next = world.registered_beside(&name, &[executor.id]).await;
    until("it beats under its new id, and holds nothing", BOUND, async || {
        leader.beat_of(next).is_some_and(|beat| beat.held == 0)
    })
    .await;
    assert_eq!(world.registered(&name).await.len(), 1, "the old entry is gone");
    assert!(!executor.is_finished());
    assert!(checkpoints(&leader, job, FIRST).is_empty());
    let again = new_job();
    run_on(&leader, next, &assignment(&leader, again, noop("x"))).await;
    end_of(&leader, again, FIRST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_changes_nothing() {
    let world = World::new().await;
    let leader = world.leader().await;
    let executor = world.executor("e-1").await;
    for garbage in [&b""[..], b"\xc1", b"{}", &[0x91; 100_000]] {
        for subject in
            [outlive_schemas::subject::executor_orders(executor.id), outlive_schemas::subject::LEADER_BEAT.to_owned()]
        {
            world.client.publish(subject, garbage.to_vec().into()).await.expect("sent");
        }
    }
    let job = new_job();
    run_on(&leader, executor.id, &assignment(&leader, job, noop("x"))).await;
    end_of(&leader, job, FIRST).await;
}
