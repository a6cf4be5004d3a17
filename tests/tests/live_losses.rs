//! What is promised when hosts and leaders are lost: jobs go on elsewhere, and nothing acknowledged is lost or doubled.

use outlive_tests::command::{repository, run};
use outlive_tests::examples::{example, noop};
use outlive_tests::{Chance, Client, Dev, EVENTUALLY, SOON, wait_until_true};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

fn text(view: &Value, field: &str) -> String {
    view[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {view}")).to_owned()
}

fn number(view: &Value, field: &str) -> u64 {
    view[field].as_u64().unwrap_or_else(|| panic!("no number `{field}` in {view}"))
}

fn runs_with_checkpoint(view: &Value, attempt: u64, checkpoint: u64) -> bool {
    view["status"] == "running"
        && view["attempt"].as_u64() == Some(attempt)
        && view["checkpoint"]["number"].as_u64() >= Some(checkpoint)
}

/// The number of the last event of a kind in the history.
fn last_checkpoint_before_attempt(history: &[Value], attempt: u64) -> u64 {
    history
        .iter()
        .take_while(|e| !(e["type"] == "job_placed" && e["attempt"].as_u64() == Some(attempt)))
        .filter(|e| e["type"] == "checkpoint_completed")
        .map(|e| number(e, "checkpoint"))
        .max()
        .expect("there was a checkpoint")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_from_its_latest_checkpoint_in_another_zone() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let job = client.submit(example("counter")).await;
    let before = client.wait_for(&job, "three checkpoints", |view| runs_with_checkpoint(view, 1, 3)).await;
    let (executor, zone) = (text(&before, "executor"), text(&before, "zone"));
    assert_eq!(dev.zone_of(&executor), zone);

    dev.kill(&executor);
    let after = client.wait_for(&job, "attempt 2 runs", |view| runs_with_checkpoint(view, 2, 1)).await;
    assert_ne!(text(&after, "zone"), zone, "the only executor of zone {zone} is dead");
    assert_eq!(number(&after, "restarts"), 1);
    let recovery = &after["last_recovery"];
    assert_eq!(recovery["from_zone"], json!(zone));
    assert_eq!(recovery["to_zone"], after["zone"]);
    assert!(["executor_lost", "zone_lost"].contains(&text(recovery, "cause").as_str()), "{recovery}");
    assert!(number(recovery, "recovery_ms") > 0, "{recovery}");

    // From the latest one that was committed, not an earlier one, and the job saw it.
    let history = client.history(&job).await;
    let latest = last_checkpoint_before_attempt(&history, 2);
    assert!(latest >= number(&before["checkpoint"], "number"));
    assert_eq!(number(recovery, "restored_checkpoint"), latest);
    let logs = client.wait_for_log(&job, "attempt 2 goes on from").await;
    assert!(logs.contains(&format!("(checkpoint {latest})")), "{logs}");
    assert!(!logs.contains("attempt 2 starts from nothing"), "{logs}");
    let kinds: Vec<&str> = history.iter().filter_map(|event| event["type"].as_str()).collect();
    for kind in ["job_submitted", "job_placed", "attempt_started", "checkpoint_completed", "job_restarting"] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }

    // Nothing of the first attempt runs any more.
    wait_until_true("the first attempt's processes are gone", SOON, || async {
        let of_job = dev.processes_with(&format!("OUTLIVE_JOB_ID={job}"));
        let of_first: BTreeSet<u32> = dev.processes_with("OUTLIVE_ATTEMPT=1").into_iter().collect();
        !of_job.is_empty() && of_job.iter().all(|pid| !of_first.contains(pid))
    })
    .await;
    dev.restart(&executor).await;

    a_late_report_changes_nothing(&dev, &client, &job).await;
}

/// An executor that was silent for too long comes back and finds its attempt superseded.
async fn a_late_report_changes_nothing(dev: &Dev, client: &Client, job: &str) {
    let view =
        client.wait_for(job, "attempt 2 has a checkpoint of its own", |view| runs_with_checkpoint(view, 2, 1)).await;
    let executor = text(&view, "executor");
    dev.pause(&executor).await;
    client.wait_for(job, "attempt 3 runs elsewhere", |view| runs_with_checkpoint(view, 3, 1)).await;
    dev.resume(&executor).await;
    wait_until_true("the executor is taken back", EVENTUALLY, || async {
        let list = client.ask("sys.executor.list", json!({})).await;
        let all = list["executors"].as_array().expect("executors").clone();
        all.iter().any(|e| e["name"] == *executor && e["state"] == "ready" && e["running"] == 0)
    })
    .await;
    wait_until_true("one attempt's processes are left", SOON, || async {
        let of_job: BTreeSet<u32> = dev.processes_with(&format!("OUTLIVE_JOB_ID={job}")).into_iter().collect();
        let of_third: BTreeSet<u32> = dev.processes_with("OUTLIVE_ATTEMPT=3").into_iter().collect();
        !of_job.is_empty() && of_job.is_subset(&of_third)
    })
    .await;
    let view = client.get(job).await;
    assert_eq!((number(&view, "attempt"), text(&view, "status")), (3, "running".to_owned()));
    // Attempt numbers never fall in the history: nothing of an old attempt is taken once a new one is placed.
    let history = client.history(job).await;
    let attempts: Vec<u64> = history.iter().filter_map(|event| event["attempt"].as_u64()).collect();
    assert!(attempts.is_sorted(), "{attempts:?}");
    let checkpoints: Vec<u64> =
        history.iter().filter(|e| e["type"] == "checkpoint_completed").map(|e| number(e, "checkpoint")).collect();
    assert!(checkpoints.windows(2).all(|pair| pair[1] == pair[0] + 1), "numbered one by one: {checkpoints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_dies_its_jobs_go_on_elsewhere_and_it_is_healed() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let job = client.submit(example("counter")).await;
    let before = client.wait_for(&job, "a checkpoint", |view| runs_with_checkpoint(view, 1, 1)).await;
    let zone = text(&before, "zone");
    let chaos = async |args: &[&str]| {
        let outcome = dev.outlive(&[&["--output", "json", "chaos"], args].concat()).await;
        outcome.expect_ok(&format!("chaos {args:?}")).json()["done"].as_array().expect("a list").clone()
    };

    let killed = chaos(&["kill-zone", &zone]).await;
    let names: BTreeSet<String> = killed.iter().map(|done| text(done, "name")).collect();
    let expected = ["nats", "etcd", "scheduler"].map(|role| format!("{role}-{zone}"));
    let expected: BTreeSet<String> = expected.into_iter().chain([format!("executor-{zone}-1")]).collect();
    assert_eq!(names, expected);
    for process in dev.processes() {
        let (state, has_pid) = if process.zone == zone { ("dead", false) } else { ("running", true) };
        assert_eq!((process.state.as_str(), process.pid.is_some()), (state, has_pid), "{}", process.name);
    }
    let again = dev.outlive(&["chaos", "kill", "executor", &format!("executor-{zone}-1")]).await;
    assert_eq!(again.code, Some(4), "what is dead cannot be killed: {}", again.err);

    let after = client.wait_for(&job, "attempt 2 runs", |view| runs_with_checkpoint(view, 2, 1)).await;
    assert_ne!(text(&after, "zone"), zone);
    assert!(after["last_recovery"]["restored_checkpoint"].as_u64() >= Some(1), "{after:#}");

    let healed = chaos(&["heal"]).await;
    let started: BTreeSet<String> = healed.iter().map(|done| text(done, "name")).collect();
    assert_eq!(started, expected);
    for done in &healed {
        assert!(done["ready_after_ms"].is_u64(), "{done}");
    }
    assert_eq!(chaos(&["heal"]).await, Vec::<Value>::new(), "there is nothing left to heal");
    wait_until_true("the zone's executor is taken back", EVENTUALLY, || async {
        let list = client.ask("sys.executor.list", json!({})).await;
        let all = list["executors"].as_array().expect("executors").clone();
        all.iter().filter(|e| e["state"] == "ready").count() == 3
    })
    .await;
    dev.outlive(&["log", "verify"]).await.expect_ok("log verify");
}

/// Submissions in flight while the leader is killed.
const IN_FLIGHT: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_job_exists_once_after_the_leader_is_killed() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    let leader = client.leader().await;
    let term = client.ask("sys.status", json!({})).await["leader"]["term"].clone();

    let acknowledged = Arc::new(AtomicUsize::new(0));
    let a_tenth = Arc::new(Notify::new());
    let submissions: Vec<_> = (0..IN_FLIGHT)
        .map(|i| {
            let (client, acknowledged, a_tenth) = (client.clone(), acknowledged.clone(), a_tenth.clone());
            tokio::spawn(async move {
                let mut spec = noop("in flight");
                spec["name"] = json!(format!("flight-{i:04}"));
                let request_id = format!("flight/{i}");
                // Some were sent and acknowledged before, some are on their way, some come when nobody leads.
                let reply = client.insist("job.submit", &spec, &request_id).await.expect("a good job is taken");
                if acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == IN_FLIGHT / 10 {
                    a_tenth.notify_one();
                }
                (text(&reply, "name"), text(&reply, "id"))
            })
        })
        .collect();
    tokio::time::timeout(EVENTUALLY, a_tenth.notified()).await.expect("a tenth is acknowledged in time");
    dev.kill(&leader);
    let before = acknowledged.load(Ordering::Relaxed);
    eprintln!("killed {leader} after {before} of {IN_FLIGHT}");
    assert!(before < IN_FLIGHT, "the kill came too late to lose anything");
    let mut given = BTreeMap::new();
    for submission in submissions {
        let (name, id) = submission.await.expect("a submission ends");
        given.insert(name, id);
    }

    assert_eq!(given.len(), IN_FLIGHT);
    let status = client.ask("sys.status", json!({})).await;
    assert_ne!(status["leader"]["scheduler"], json!(leader), "another one leads");
    assert!(status["leader"]["term"].as_u64() > term.as_u64(), "terms rise");
    let listed = client.list(json!({"name_prefix": "flight-", "limit": 1_000})).await;
    let mut found = BTreeMap::new();
    for job in &listed {
        let twice = found.insert(text(job, "name"), text(job, "id"));
        assert_eq!(twice, None, "{} exists twice", job["name"]);
    }
    assert_eq!(found, given, "each acknowledged job exists, and no other");
    for job in given.values() {
        client.wait_for_status(job, "succeeded").await;
    }

    // What was acknowledged by the old leader is known as a duplicate by the new one.
    let mut spec = noop("in flight");
    spec["name"] = json!("flight-0000");
    let again = client.insist("job.submit", &spec, "flight/0").await.expect("a duplicate is a success");
    assert_eq!(
        (again["duplicate"].clone(), again["id"].as_str()),
        (json!(true), given.get("flight-0000").map(String::as_str))
    );
    dev.outlive(&["log", "verify"]).await.expect_ok("log verify");
    dev.restart(&leader).await;
}

const KILLS: u64 = 5;
/// Long enough for five kills, each with its recovery.
const FILES: usize = 900;

#[tokio::test(flavor = "multi_thread")]
async fn results_are_the_same_after_five_kills_at_random_moments() {
    let mut chance = Chance::seeded();
    let dev = Dev::start(3).await;
    let client = dev.client().await;

    let texts = dev.scratch().join("texts");
    write_texts(&texts, &mut chance);
    let index_input =
        |pause_ms: u32| json!({"directory": texts, "pause_ms_per_file": pause_ms, "files_per_batch": 5}).to_string();
    let digest_input = |pause_ms: u32| json!({"seed": "live", "steps": 250, "pause_ms_per_step": pause_ms}).to_string();
    let mut index = example("word-index");
    index["input"] = json!(index_input(25));
    let mut digest = example("digest");
    digest["input"] = json!(digest_input(90));
    let mut jobs = BTreeMap::new();
    for (name, spec) in [("word-index", &mut index), ("digest", &mut digest)] {
        spec["checkpoint"] = json!({"interval": "500ms", "min_pause": "100ms"});
        jobs.insert(name, client.submit(spec.clone()).await);
    }

    // Whoever was killed less often is next. One executor's death may hit both.
    loop {
        let mut next: Option<(u64, String)> = None;
        for (name, id) in &jobs {
            let view = client.get(id).await;
            let kills = number(&view, "attempt").saturating_sub(1);
            let over = view["status"] == "succeeded";
            assert!(!over || kills >= KILLS, "{name} was over after {kills} kills: it has to be longer");
            assert_ne!(view["status"], "failed", "{view:#}");
            if kills < KILLS && next.as_ref().is_none_or(|(fewest, _)| kills < *fewest) {
                next = Some((kills, id.clone()));
            }
        }
        let Some((kills, id)) = next else { break };
        let running = client.wait_for(&id, "it runs", |view| view["status"] == "running").await;
        if chance.coin() {
            // Something new to lose, half of the time.
            let had = running["checkpoint"]["number"].as_u64();
            client.wait_for(&id, "another checkpoint", |view| view["checkpoint"]["number"].as_u64() > had).await;
        }
        chance.moment(Duration::from_millis(600)).await;
        let view = client.get(&id).await;
        if view["status"] != "running" {
            continue;
        }
        let executor = text(&view, "executor");
        eprintln!("kill {} of {}: {executor}", kills + 1, text(&view, "name"));
        dev.kill(&executor);
        if chance.coin() {
            dev.restart(&executor).await;
            client.wait_for(&id, "it goes on", |view| number(view, "attempt") > kills + 1).await;
        } else {
            client.wait_for(&id, "it goes on", |view| number(view, "attempt") > kills + 1).await;
            dev.restart(&executor).await;
        }
    }

    let undisturbed = dev.scratch().join("undisturbed");
    for (name, script, input) in
        [("word-index", "word-index/word_index.py", index_input(0)), ("digest", "digest/digest.py", digest_input(0))]
    {
        let view = client.wait_for_status(&jobs[name], "succeeded").await;
        assert!(number(&view, "attempt") > KILLS, "{view}");
        let logs = client.logs(&jobs[name]).await;
        let expected = run_undisturbed(&undisturbed.join(name), script, &input).await;
        assert_eq!(text(&view, "result"), expected, "{name} after its kills; it wrote:\n{logs}");
    }
}

/// Files of words, some of them rare, so that a lost or doubled row shows.
fn write_texts(folder: &Path, chance: &mut Chance) {
    std::fs::create_dir_all(folder).expect("mkdir");
    for number in 0..FILES {
        let words: Vec<String> = (0..200).map(|_| format!("w{}", letters(chance.below(5_000)))).collect();
        std::fs::write(folder.join(format!("text-{number:04}.txt")), words.join(" ")).expect("a text");
    }
}

fn letters(number: u64) -> String {
    number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
}

/// Runs an example's script without Outlive, and gives its result.
async fn run_undisturbed(folder: &Path, script: &str, input: &str) -> String {
    std::fs::create_dir_all(folder.join("state")).expect("mkdir");
    let (given, result) = (folder.join("input"), folder.join("result"));
    std::fs::write(&given, input).expect("the input");
    let mut command = tokio::process::Command::new("python3");
    command
        .arg(repository().join("ops/examples").join(script))
        .env("OUTLIVE_STATE_DIR", folder.join("state"))
        .env("OUTLIVE_INPUT", &given)
        .env("OUTLIVE_RESULT", &result);
    run(command, EVENTUALLY).await.expect_ok(script);
    std::fs::read_to_string(result).expect("the script leaves a result")
}
