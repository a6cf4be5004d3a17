//! What the contract promises to clients: requests over NATS from a client that is not ours, and the command line.

use outlive_tests::command::{python_with_nats, repository, run};
use outlive_tests::examples::{example, python, script};
use outlive_tests::{Dev, EVENTUALLY, Options, SOON, wait_until, wait_until_true};
use serde_json::json;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_ours_needs_the_contract_only() {
    let dev = Dev::start(1).await;
    let mut command = tokio::process::Command::new(python_with_nats());
    command.arg(repository().join("tests/clients/contract.py")).arg(&dev.nats_urls()[0]);
    let outcome = run(command, EVENTUALLY).await;
    eprintln!("{}", outcome.out);
    outcome.expect_ok("the client in Python");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_ends_as_it_should() {
    let dev = Dev::start_with(1, Options { executors_per_zone: 2, ..Options::default() }).await;
    let client = dev.client().await;

    // `job run` shows the output and ends as the job does.
    let done = dev.outlive(&["job", "run", "--", "sh", "-c", "echo to-out; echo to-err >&2"]).await;
    let done = done.expect_ok("job run");
    assert_eq!(done.out, "to-out\n");
    assert!(done.err.contains("to-err"), "{}", done.err);
    // A command by its path, with as little memory as can be asked for.
    let by_path = dev.outlive(&["job", "run", "--memory", "1MiB", "--", "/bin/sh", "-c", "echo by-path"]).await;
    assert_eq!(by_path.expect_ok("job run of a path").out, "by-path\n");
    let file = dev.scratch().join("failing.json");
    let mut failing = script("failing", "echo about to fail; exit 7");
    failing["restart"] = json!({"max_attempts": 1});
    std::fs::write(&file, failing.to_string()).expect("a job file");
    let failed = dev.outlive(&["job", "run", file.to_str().expect("UTF-8")]).await;
    assert_eq!(failed.code, Some(10), "{}", failed.err);
    assert_eq!(failed.out, "about to fail\n");
    assert!(failed.err.contains("exit code 7") || failed.err.contains("exited with 7"), "{}", failed.err);

    // Every way of failing has its exit code.
    std::fs::write(&file, r#"{"driver": {"noop": {}}, "colour": "red"}"#).expect("a job file");
    let file = file.to_str().expect("UTF-8");
    for (args, code, word) in [
        (&["job", "get", "nobody"][..], 3, "nobody"),
        (&["job", "submit", file], 2, "colour"),
        (&["job", "submit", "/no/such/file.json"], 2, "/no/such/file.json"),
        (&["job", "explode"], 2, "explode"),
        (&["job", "wait", "nobody", "--timeout", "1s"], 3, "nobody"),
        (&["chaos", "kill", "executor", "executor-z-9"], 3, "executor-z-9"),
        (&["-s", "nats://127.0.0.1:1", "--request-timeout", "500ms", "status"], 6, "127.0.0.1:1"),
    ] {
        let outcome = dev.outlive(args).await;
        assert_eq!(outcome.code, Some(code), "outlive {args:?}: {} {}", outcome.out, outcome.err);
        assert!(outcome.err.contains(word), "outlive {args:?} does not say `{word}`: {}", outcome.err);
        assert_eq!(outcome.out, "", "what went wrong goes to standard error");
    }

    // For programs: one JSON document, the reply as it came.
    let submitted = dev.outlive(&["--output", "json", "job", "run", "--", "true"]).await.expect_ok("job run").json();
    let got = dev.outlive(&["job", "get", submitted["name"].as_str().expect("name"), "--output", "json"]).await;
    assert_eq!(got.expect_ok("job get").json(), client.get(submitted["id"].as_str().expect("id")).await);
    let status = dev.outlive(&["status", "--output", "json"]).await.expect_ok("status").json();
    assert_eq!(status["cluster"], "dev");
    let executors = dev.outlive(&["executor", "list"]).await.expect_ok("executor list").out;
    assert!(executors.contains("executor-a-1") && executors.contains("executor-a-2"), "{executors}");

    logs_are_followed_and_kept(&dev).await;
}

/// Output is followed as it comes, and stays readable when the job, and then its executor, is gone.
async fn logs_are_followed_and_kept(dev: &Dev) {
    let client = dev.client().await;
    let gate = dev.scratch().join("go-on");
    let talker = script(
        "talker",
        &format!(
            "for i in 1 2 3; do echo early $i; done; while ! [ -e {0} ]; do sleep 0.05; done; echo late",
            gate.display()
        ),
    );
    let id = client.submit(talker).await;
    let mut following = dev.command(&["job", "logs", "-f", "talker"]);
    let mut following =
        following.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("job logs starts");
    let mut lines = BufReader::new(following.stdout.take().expect("piped")).lines();
    let mut next = async || {
        let line = tokio::time::timeout(SOON, lines.next_line()).await.expect("a line comes soon");
        line.expect("it can be read")
    };
    for i in 1..=3 {
        let line = next().await.expect("a line");
        assert!(line.ends_with(&format!("early {i}")), "{line}");
    }
    assert_eq!(client.status_of(&id).await, "running", "its lines came while it ran");
    std::fs::write(&gate, "").expect("the gate opens");
    let line = next().await.expect("a line");
    assert!(line.ends_with("late"), "{line}");
    assert_eq!(next().await, None, "following ends with the job");
    assert!(following.wait().await.expect("it ended").success());

    let kept = "early 1\nearly 2\nearly 3\nlate\n";
    let view = client.wait_for_status(&id, "succeeded").await;
    assert_eq!(client.wait_for_log(&id, "late").await, kept);
    let executor = view["executor"].as_str().expect("it ran somewhere").to_owned();
    dev.kill(&executor);
    wait_until_true("the leader knows that the executor is gone", EVENTUALLY, || async {
        let list = client.ask("sys.executor.list", json!({})).await;
        let all = list["executors"].as_array().expect("executors").clone();
        !all.iter().any(|e| e["name"] == *executor && e["state"] == "ready")
    })
    .await;
    assert_eq!(client.logs(&id).await, kept, "the log outlives the executor");
    let printed = dev.outlive(&["job", "logs", "talker"]).await.expect_ok("job logs").out;
    assert!(printed.contains("early 1") && printed.contains("late"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_comes_fast_is_kept_up_to_its_bound_and_says_what_is_missing() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    // 20 MB in lines: all of it fits the entries, none of it may be cut in the middle, or doubled.
    let lines = 200_000;
    let id = client
        .submit(python("chatty", &format!("for i in range({lines}): print(f'{{i:08}} ' + 'x' * 91)\nprint('the end')")))
        .await;
    client.wait_for_status(&id, "succeeded").await;
    let entries = wait_until("the end of the output is stored", SOON, || async {
        let entries = client.pages("job.logs", json!({"job": id, "limit": 500}), "entries").await;
        let ended = entries.iter().any(|e| e["text"].as_str().is_some_and(|text| text.ends_with("the end\n")));
        ended.then_some(entries)
    })
    .await;
    let numbers: Vec<u64> = entries.iter().map(|e| e["number"].as_u64().expect("number")).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "entries come once and in order: {numbers:?}");
    let text: String = entries.iter().filter(|e| e["stream"] == "out").filter_map(|e| e["text"].as_str()).collect();
    let complete = text.lines().filter(|line| line.len() == 100).count();
    let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    let said_so = entries.iter().any(|e| e["stream"] == "outlive");
    assert!(
        complete == lines || gaps > 0 || said_so,
        "{complete} of {lines} lines, and nothing says that some are missing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let counter = client.submit(example("counter")).await;
    client.wait_for_log(&counter, "attempt 1: 5").await;
    client.wait_for(&counter, "a checkpoint", |view| view["checkpoint"]["number"].as_u64() >= Some(1)).await;
    client.ask("job.cancel", json!({"job": counter, "grace": "1s"})).await;

    let mut digest = example("digest");
    digest["input"] = json!(r#"{"steps": 40, "pause_ms_per_step": 5}"#);
    let digest = client.submit(digest).await;
    let mut index = example("word-index");
    index["input"] = json!(format!(r#"{{"directory": "{}"}}"#, repository().join("ops").display()));
    let index = client.submit(index).await;
    for job in [&digest, &index] {
        let view = client.wait_for_status(job, "succeeded").await;
        assert!(view["result"].as_str().is_some_and(|result| result.len() > 32), "{view}");
    }
    client.wait_for_status(&counter, "cancelled").await;
}
