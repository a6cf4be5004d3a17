//! The commands that ask a scheduler, against a real nats-server and a scheduler of the test's own making: what is
//! repeated and with which id, how replies are paged and joined, and how each ending is told to scripts.

mod stage;

use async_nats::HeaderMap;
use serde_json::{Value, json};
use stage::{SOON, Stage, ended};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const ID: &str = "0197f3c8-0000-7000-8000-000000000001";

fn submitted() -> Value {
    json!({"id": ID, "name": "x", "version": 1, "status": "pending", "duplicate": false})
}

fn view(status: &str) -> Value {
    json!({
        "id": ID, "namespace": "default", "name": "x", "kind": "batch", "version": 1, "status": status,
        "reason": null, "attempt": 1, "executor": null, "zone": null, "restarts": 0, "checkpoint": null,
        "last_recovery": null, "next_try_at": null, "submitted_at": "2026-01-01T00:00:00.000Z", "started_at": null,
        "finished_at": null, "exit_code": if status == "failed" { json!(3) } else { Value::Null }, "result": null,
        "labels": {}
    })
}

fn entry(number: u64, text: &str) -> Value {
    json!({"at": "2026-01-01T00:00:00.000Z", "attempt": 1, "number": number, "stream": "out", "text": text})
}

#[tokio::test]
async fn a_submission_is_repeated_under_one_id_until_somebody_can_act() {
    let stage = Stage::set().await;
    let mut refusals = 2;
    let seen = stage
        .scheduler(move |_| {
            if refusals == 0 {
                return Ok(submitted());
            }
            refusals -= 1;
            Err((503, "unavailable"))
        })
        .await;
    let outcome = stage.run(&["--output", "json", "job", "submit", "--", "true"]).await;
    assert_eq!((outcome.code, outcome.out.trim_end()), (Some(0), submitted().to_string().as_str()));
    let seen = seen.lock().expect("no panic before").clone();
    assert_eq!(seen.len(), 3);
    let ids: Vec<_> = seen.iter().map(|s| s.headers.get("Nats-Msg-Id").expect("an id").to_string()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(seen[0].headers.get("Outlive-Actor").expect("an actor").as_str().contains('@'));
    assert_eq!(seen[0].body, json!({"driver": {"process": {"command": ["true"]}}}));
}

#[tokio::test]
async fn where_nobody_listens_the_id_for_another_try_is_told() {
    let stage = Stage::set().await;
    let outcome =
        stage.run(&["--request-timeout", "200ms", "job", "submit", "--request-id", "order-7", "--", "true"]).await;
    assert_eq!(outcome.code, Some(6));
    assert!(outcome.err.contains("--request-id order-7"), "{}", outcome.err);
    assert_eq!(outcome.out, "");
}

#[tokio::test]
async fn every_refusal_ends_with_its_exit_code() {
    let stage = Stage::set().await;
    let refusal = Arc::new(Mutex::new((0, "")));
    let current = refusal.clone();
    stage.scheduler(move |_| Err(*current.lock().expect("no panic before"))).await;
    for (number, code, exit) in [
        (400, "invalid_request", 2),
        (400, "invalid_argument", 2),
        (400, "unsupported", 2),
        (404, "not_found", 3),
        (409, "in_use", 4),
        (409, "concurrent_modification", 4),
        (403, "unauthorized", 5),
        (429, "limit_exceeded", 5),
        (500, "internal", 1),
    ] {
        *refusal.lock().expect("no panic before") = (number, code);
        let outcome = stage.run(&["job", "get", "x"]).await;
        assert_eq!(outcome.code, Some(exit), "{code}");
        assert!(outcome.err.contains(&format!("it said {code}")), "{}", outcome.err);
        assert_eq!(outcome.out, "");
    }
}

#[tokio::test]
async fn a_wait_is_made_of_several_and_has_an_end() {
    let stage = Stage::set().await;
    let seen = stage
        .scheduler(|seen| match seen.operation.as_str() {
            "job.wait" => Err((408, "timeout")),
            _ => Ok(view("running")),
        })
        .await;
    let outcome = stage.run(&["job", "wait", "x", "--timeout", "300ms"]).await;
    assert_eq!(outcome.code, Some(7));
    assert!(outcome.err.contains("is not finished but running"), "{}", outcome.err);
    let waits = seen.lock().expect("no panic before").iter().filter(|s| s.operation == "job.wait").count();
    assert!(waits > 1, "{waits} wait");
}

#[tokio::test]
async fn a_job_that_failed_is_told_by_the_exit_code() {
    let stage = Stage::set().await;
    stage.scheduler(|_| Ok(view("failed"))).await;
    let outcome = stage.run(&["--output", "json", "job", "wait", "x"]).await;
    assert_eq!((outcome.code, outcome.out.trim_end()), (Some(10), view("failed").to_string().as_str()));
    assert!(outcome.err.contains("job x failed with exit code 3"), "{}", outcome.err);
}

#[tokio::test]
async fn a_list_is_read_page_by_page_up_to_the_limit() {
    let stage = Stage::set().await;
    // Of three pages the second is empty: one request looks at so many jobs, whatever it finds.
    stage
        .scheduler(|seen| {
            Ok(match seen.body["cursor"].as_str() {
                None => json!({"jobs": [view("running"), view("failed")], "cursor": "a"}),
                Some("a") => json!({"jobs": [], "cursor": "b"}),
                Some(_) => json!({"jobs": [view("pending")], "cursor": null}),
            })
        })
        .await;
    let all = stage.run(&["--output", "json", "job", "list"]).await;
    let all: Value = serde_json::from_str(&all.out).expect("one document");
    assert_eq!((all["jobs"].as_array().map(Vec::len), &all["cursor"]), (Some(3), &Value::Null));
    let two = stage.run(&["--output", "json", "job", "list", "--limit", "2"]).await;
    let two: Value = serde_json::from_str(&two.out).expect("one document");
    assert_eq!((two["jobs"].as_array().map(Vec::len), two["cursor"].as_str()), (Some(2), Some("a")));
}

#[tokio::test]
async fn tasks_of_an_array_are_named_by_their_indexes() {
    let stage = Stage::set().await;
    let seen = stage
        .scheduler(|seen| Ok(if seen.operation == "job.retry" { json!({"retried": 4}) } else { view("running") }))
        .await;
    let outcome = stage.run(&["job", "retry", "resize", "--indexes", "9,3,7-8"]).await;
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(0), "4 tasks of job resize are tried again\n"));
    let outcome = stage.run(&["job", "cancel", "resize", "--indexes", "3", "--grace", "1s"]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    let bodies: Vec<_> = seen.lock().expect("no panic before").iter().map(|s| s.body.clone()).collect();
    let expected =
        [json!({"job": "resize", "indexes": "3,7-9"}), json!({"job": "resize", "indexes": "3", "grace": "1s"})];
    assert_eq!(bodies, expected);
    let outcome = stage.run(&["job", "cancel", "resize", "--indexes", "9-3"]).await;
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.err.contains("`9-3` is no set of indexes below 100000, such as 3,7-9"), "{}", outcome.err);
    for wrong in [
        &["job", "retry", "--indexes", "3"][..],
        // It must not be taken for all jobs.
        &["job", "retry", "--all", "--indexes", "3"],
        &["job", "retry", "--status", "failed", "--indexes", "3"],
        &["job", "kill", "resize", "--indexes", "3"],
    ] {
        assert_eq!(stage.run(wrong).await.code, Some(2), "{wrong:?}");
    }
    assert_eq!(seen.lock().expect("no panic before").len(), 2, "what is no set of indexes is not sent");
}

/// Entries 1 and 4 are sent live, 2 and 3 are lost on the way and kept a moment later, and 4 comes twice.
#[tokio::test]
async fn a_followed_log_has_no_gap_and_no_doubling() {
    let stage = Stage::set().await;
    let kept: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (finished, pages) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (in_log, over, asked) = (kept.clone(), finished.clone(), pages.clone());
    stage
        .scheduler(move |seen| match seen.operation.as_str() {
            "job.submit" => Ok(submitted()),
            "job.logs" => {
                asked.fetch_add(1, Ordering::SeqCst);
                let from: usize = seen.body["cursor"].as_str().map_or(0, |c| c.parse().expect("a cursor of ours"));
                let kept = in_log.lock().expect("no panic before");
                Ok(json!({"entries": kept[from..], "cursor": kept.len().to_string(), "end": true}))
            }
            "job.wait" if over.load(Ordering::SeqCst) => Ok(view("failed")),
            "job.wait" => Err((408, "timeout")),
            _ => Ok(view("running")),
        })
        .await;
    let command = stage.start(&["job", "run", "--", "true"]);
    // The first page is asked for once the subscription stands.
    reaches(&pages, 1).await;
    let live = async |number: u64, text: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("Outlive-Attempt", "1");
        headers.insert("Outlive-Entry", number.to_string());
        let subject = format!("outlive.v1.default.log.{ID}.out");
        stage.nats.publish_with_headers(subject, headers, text.into()).await.expect("published");
        stage.nats.flush().await.expect("sent");
    };
    live(1, "one\n").await;
    live(4, "four\n").await;
    // It has looked for the missing ones, and they are not kept yet.
    reaches(&pages, pages.load(Ordering::SeqCst) + 1).await;
    live(4, "four\n").await;
    let entries = [entry(1, "one\n"), entry(2, "two\n"), entry(3, "three\n"), entry(4, "four\n"), entry(5, "five\n")];
    kept.lock().expect("no panic before").extend(entries);
    finished.store(true, Ordering::SeqCst);
    let outcome = ended(command).await;
    assert_eq!(outcome.out, "one\ntwo\nthree\nfour\nfive\n");
    assert_eq!(outcome.code, Some(10));
    assert!(outcome.err.contains("job x failed with exit code 3"), "{}", outcome.err);
}

async fn reaches(count: &AtomicUsize, wanted: usize) {
    let begun = std::time::Instant::now();
    while count.load(Ordering::SeqCst) < wanted {
        assert!(begun.elapsed() < SOON, "{} of {wanted}", count.load(Ordering::SeqCst));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
