//! Jobs that wait for others, on a real system of three zones: a diamond of a thousand, results that reach a child
//! again after its host was lost, and children that can never run.

use outlive_tests::{Client, Dev, wait_until_true};
use serde_json::{Value, json};

/// The middle of the diamond.
const WIDTH: usize = 998;

fn script(name: &str, text: &str, parents: Value) -> Value {
    json!({
        "name": name, "driver": {"process": {"command": ["sh", "-c", text]}}, "depends_on": parents,
        "restart": {"initial_backoff": "100ms", "max_attempts": 1}
    })
}

fn noop(name: &str, input: &str, parents: Value) -> Value {
    json!({
        "name": name, "driver": {"noop": {}}, "input": input, "depends_on": parents,
        "resources": {"cpu_millis": 1, "memory": "1MiB"}
    })
}

async fn ends(client: &Client, job: &str, status: &str) -> Value {
    client.wait_for_status(job, status).await
}

#[tokio::test(flavor = "multi_thread")]
async fn children_begin_when_their_parents_have_ended_and_find_what_they_left() {
    let dev = Dev::start(3).await;
    let client = dev.client().await;
    a_diamond_of_a_thousand(&client).await;
    results_reach_a_child_again_on_another_host(&dev, &client).await;
    children_that_can_never_run(&dev, &client).await;
    the_readmes_example(&client).await;
}

async fn the_readmes_example(client: &Client) {
    let readme = std::fs::read_to_string(outlive_tests::command::repository().join("README.md")).expect("the README");
    let (_, told) = readme.split_once("## Jobs that wait for others").expect("its section");
    let (_, example) = told.split_once("```json\n").expect("its example");
    let (example, _) = example.split_once("```").expect("its end");
    client.ask("job.submit_many", serde_json::from_str(example).expect("JSON")).await;
    assert_eq!(ends(client, "load", "succeeded").await["result"], "3 rows");
}

/// One request, the last job first.
async fn a_diamond_of_a_thousand(client: &Client) {
    let of = |i: usize| format!("middle-{i}");
    let all: Vec<Value> = (0..WIDTH).map(|i| json!({"job": of(i)})).collect();
    let sum = "cd $OUTLIVE_INPUTS; ls | wc -l > $OUTLIVE_RESULT; cat * | sort -n | tail -1 >> $OUTLIVE_RESULT";
    let mut jobs = vec![script("bottom", sum, json!(all))];
    jobs.extend((0..WIDTH).map(|i| noop(&of(i), &format!("{i}\n"), json!([{"job": "top"}]))));
    jobs.push(script("top", "echo done > $OUTLIVE_RESULT", json!([])));
    let made = client.ask("job.submit_many", json!({"jobs": jobs})).await;
    assert_eq!(made["jobs"].as_array().map(Vec::len), Some(1_000));
    let view = ends(client, "bottom", "succeeded").await;
    assert_eq!(view["result"], "998\n997\n");
    let bottom_began = view["started_at"].as_str().expect("a time").to_owned();
    let top = client.get("top").await;
    for i in 0..WIDTH {
        let view = client.get(&of(i)).await;
        assert_eq!(view["status"], "succeeded", "{view}");
        assert!(view["started_at"].as_str() >= top["finished_at"].as_str(), "{view} after {top}");
        assert!(view["finished_at"].as_str() <= Some(&bottom_began), "{view} before {bottom_began}");
    }
    let history = client.history("bottom").await;
    let types: Vec<_> = history.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(types[..4], ["job_submitted", "job_depends", "dependencies_met", "job_placed"]);
}

async fn results_reach_a_child_again_on_another_host(dev: &Dev, client: &Client) {
    let go = dev.scratch().join("go");
    let wait = "while [ ! -e \"$GO\" ]; do sleep 0.05; done; printf 'seven rows' > $OUTLIVE_RESULT";
    let mut parent = script("extract", wait, json!([]));
    parent["driver"]["process"]["env"] = json!({"GO": go});
    client.submit(parent).await;
    let work = "echo \"attempt $OUTLIVE_ATTEMPT has $(cat $OUTLIVE_INPUTS/extract)\"; \
                [ $OUTLIVE_ATTEMPT -ge 2 ] && cp $OUTLIVE_INPUTS/extract $OUTLIVE_RESULT && exit 0; sleep 1000";
    let mut child = script("load", work, json!([{"job": "extract"}]));
    child["exclusive"] = json!(false);
    client.submit(child).await;
    let view = client.get("load").await;
    assert_eq!((&view["status"], &view["reason"]), (&json!("pending"), &json!("waiting_for_jobs")));
    let why = dev.outlive(&["job", "why", "load"]).await.expect_ok("job why");
    assert!(why.out.contains("it waits for 1 of the 1 jobs that it depends on: extract"), "{}", why.out);
    std::fs::write(&go, "").expect("a file");
    client.wait_for_log("load", "attempt 1 has seven rows").await;
    // What it needs of its parent is its own by now.
    ends(client, "extract", "succeeded").await;
    client.ask("job.delete", json!({"job": "extract"})).await;
    let host = client.get("load").await["executor"].as_str().expect("an executor").to_owned();
    dev.kill(&host);
    let view = ends(client, "load", "succeeded").await;
    assert_eq!((&view["attempt"], &view["result"]), (&json!(2), &json!("seven rows")));
    assert_ne!(view["executor"], json!(host));
    dev.restart(&host).await;
}

async fn children_that_can_never_run(dev: &Dev, client: &Client) {
    let go = dev.scratch().join("fail");
    let mut parent = script("broken", "while [ ! -e \"$GO\" ]; do sleep 0.05; done; exit 3", json!([]));
    parent["driver"]["process"]["env"] = json!({"GO": go});
    client.submit(parent).await;
    client.submit(noop("child", "", json!([{"job": "broken"}]))).await;
    client.submit(noop("grandchild", "", json!([{"job": "child"}]))).await;
    client.submit(noop("clean-up", "", json!([{"job": "broken", "until": "finished"}]))).await;
    std::fs::write(&go, "").expect("a file");
    let view = client.wait_for("grandchild", "it is over", |view| view["status"] == "failed").await;
    assert_eq!(view["reason"], "job `child`, which it depends on, failed");
    assert_eq!(client.get("child").await["reason"], "job `broken`, which it depends on, failed");
    ends(client, "clean-up", "succeeded").await;
    let late = client.refusal("job.submit", noop("late", "", json!([{"job": "broken"}]))).await;
    assert_eq!(late.code, "in_use", "{late:?}");
    let missing = client.refusal("job.submit", noop("late", "", json!([{"job": "nobody"}]))).await;
    assert_eq!(missing.code, "not_found", "{missing:?}");
    let circle = json!({"jobs": [noop("a", "", json!([{"job": "b"}])), noop("b", "", json!([{"job": "a"}]))]});
    let circle = client.refusal("job.submit_many", circle).await;
    assert!(circle.message.contains("a → b → a"), "{circle:?}");
    wait_until_true("nothing waits any more", outlive_tests::EVENTUALLY, || async {
        client.ask("sys.status", json!({})).await["jobs"]["pending"] == 0
    })
    .await;
}
