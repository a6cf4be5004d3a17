//! Schedules on the real thing: every tick once, whoever leads.

use outlive_schemas::time::Timestamp;
use outlive_tests::{Client, Dev, EVENTUALLY, wait_until_true};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

const SCHEDULES: usize = 200;

fn noop() -> Value {
    json!({"driver": {"noop": {}}})
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn time(value: &Value) -> u64 {
    Timestamp::parse(value.as_str().unwrap_or_else(|| panic!("{value} is no time"))).expect("a time").0
}

async fn schedules(client: &Client) -> Vec<Value> {
    client.pages("schedule.list", json!({"limit": 200}), "schedules").await
}

/// Until every schedule has taken, and started, every tick up to then.
async fn all_ticks_taken(client: &Client, until: u64) {
    wait_until_true("every tick is taken", EVENTUALLY, || async {
        let known = schedules(client).await;
        known.len() == SCHEDULES
            && known.iter().all(|view| {
                let queued = view["queued"].as_array().expect("an array");
                time(&view["next"][0]) > until && queued.iter().all(|tick| time(tick) > until)
            })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_schedules_of_every_second_through_two_leaders_deaths() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    // What each should have: a tick for every second from its first on.
    let mut first = BTreeMap::new();
    for number in 0..SCHEDULES {
        let name = format!("every-second-{number:03}");
        let (overlap, catch_up) = ("queue", "all");
        let put =
            json!({"name": name, "cron": "* * * * * *", "overlap": overlap, "catch_up": catch_up, "spec": noop()});
        let view = client.ask("schedule.put", put).await;
        assert_eq!(view["next"].as_array().map(Vec::len), Some(10), "{view}");
        first.insert(name, time(&view["next"][0]));
    }
    for _ in 0..2 {
        all_ticks_taken(&client, now_ms() + 6_000).await;
        let leader = client.leader().await;
        dev.kill(&leader);
        wait_until_true("dev knows", EVENTUALLY, || async { dev.process(&leader).state == "dead" }).await;
        all_ticks_taken(&client, now_ms()).await;
        dev.restart(&leader).await;
    }
    let end = now_ms() + 5_000;
    all_ticks_taken(&client, end).await;

    let mut ticks: BTreeMap<String, BTreeMap<u64, u32>> = BTreeMap::new();
    for job in client.list(json!({"limit": 1_000, "name_prefix": "every-second-"})).await {
        let schedule = job["schedule"].as_str().expect("a schedule").to_owned();
        let name = job["name"].as_str().expect("a name");
        let text = name.strip_prefix(&format!("{schedule}-")).expect("named after its schedule");
        let (date, clock) = text.split_at(9);
        let written = format!(
            "{}-{}-{}T{}:{}:{}Z",
            &date[..4],
            &date[4..6],
            &date[6..8],
            &clock[..2],
            &clock[2..4],
            &clock[4..6]
        );
        let tick = time(&json!(written));
        *ticks.entry(schedule).or_default().entry(tick).or_default() += 1;
    }
    let mut expected = 0;
    for (name, first) in first {
        let wanted: Vec<u64> = (first..=end).step_by(1_000).collect();
        let had = ticks.remove(&name).unwrap_or_default();
        let twice: Vec<_> = had.iter().filter(|(_, jobs)| **jobs != 1).collect();
        assert!(twice.is_empty(), "{name} doubled {twice:?}");
        let had: Vec<u64> = had.into_keys().filter(|tick| *tick <= end).collect();
        assert_eq!(had, wanted, "{name}");
        expected += wanted.len();
    }
    println!("{expected} ticks of {SCHEDULES} schedules, each once");
    assert!(expected >= SCHEDULES * 10, "{expected} ticks show nothing");
    for view in schedules(&client).await {
        assert_eq!((view["missed"].as_u64(), view["skipped"].as_u64()), (Some(0), Some(0)), "{view}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_from_the_command_line() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let dry = dev.outlive(&["schedule", "put", "poll", "@hourly", "--dry-run", "--", "true"]).await;
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert_eq!(dry.out.lines().count(), 11, "the next ten times: {dry:?}");
    assert_eq!(client.refusal("schedule.get", json!({"name": "poll"})).await.code, "not_found");

    let put = ["schedule", "put", "poll", "* * * * * *", "--overlap", "replace", "--", "sleep", "600"];
    let put = dev.outlive(&put).await;
    assert_eq!(put.code, Some(0), "{put:?}");
    // Each takes the place of the one before.
    let view = wait_for(&client, "three ticks", |view| view["started"].as_u64() >= Some(3)).await;
    assert_eq!(view["running"].as_array().map(Vec::len), Some(1), "{view}");
    let cancelled = client.list(json!({"status": ["cancelled"], "name_prefix": "poll-"})).await;
    assert!(!cancelled.is_empty() && cancelled.iter().all(|job| job["schedule"] == "poll"), "{cancelled:?}");

    assert_eq!(dev.outlive(&["schedule", "pause", "poll"]).await.code, Some(0));
    let paused = client.ask("schedule.get", json!({"name": "poll"})).await;
    assert_eq!((&paused["paused"], &paused["next"]), (&json!(true), &json!([])));
    for job in paused["running"].as_array().expect("an array") {
        client.ask("job.kill", json!({"job": job})).await;
    }
    wait_for(&client, "its jobs are over", |view| view["running"].as_array().is_some_and(Vec::is_empty)).await;
    let triggered = dev.outlive(&["schedule", "trigger", "poll", "--output", "json"]).await;
    assert_eq!(triggered.code, Some(0), "{triggered:?}");
    let view = wait_for(&client, "one was asked for", |view| view["last"]["outcome"] == "started").await;
    assert_eq!(view["running"].as_array().map(Vec::len), Some(1), "{view}");

    assert_eq!(dev.outlive(&["schedule", "resume", "poll"]).await.code, Some(0));
    let listed = dev.outlive(&["schedule", "list"]).await;
    assert!(listed.out.contains("poll"), "{listed:?}");
    assert_eq!(dev.outlive(&["schedule", "delete", "poll"]).await.code, Some(0));
    assert_eq!(dev.outlive(&["schedule", "get", "poll"]).await.code, Some(3), "not found");
    assert!(!client.list(json!({"name_prefix": "poll-"})).await.is_empty(), "its jobs stay");
}

async fn wait_for(client: &Client, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let view = async || client.ask("schedule.get", json!({"name": "poll"})).await;
    wait_until_true(what, EVENTUALLY, || async { condition(&view().await) }).await;
    view().await
}
