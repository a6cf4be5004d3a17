//! What is on disk: nothing that can be read, everything that was promised, and no more than what changed.

use outlive_tests::dev::is_alive;
use outlive_tests::examples::{example, python, script};
use outlive_tests::{Dev, EVENTUALLY, on_disk_contains};
use serde_json::{Value, json};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_job_can_be_read_in_any_file_of_nats_or_etcd() {
    const STORED: [&str; 2] = ["nats", "etcd"];
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let marker = |what: &str| format!("marker-of-{what}-2f8e61c09b");
    let kinds = ["input", "env", "command", "state", "result", "out", "err", "file-name"];

    let program = format!(
        "# {command}\n\
         cat \"$OUTLIVE_INPUT\" >/dev/null; echo {state} > state; echo x > {file}\n\
         echo {out}; echo {err} >&2; printf %s {result} > \"$OUTLIVE_RESULT\"\n\
         while ! [ -e {gate} ]; do sleep 0.05; done\n",
        command = marker("command"),
        state = marker("state"),
        file = marker("file-name"),
        out = marker("out"),
        err = marker("err"),
        result = marker("result"),
        gate = dev.scratch().join("go-on").display(),
    );
    let mut spec = script("secretive", &program);
    spec["input"] = json!(marker("input"));
    spec["driver"]["process"]["env"] = json!({"SECRET": marker("env")});
    spec["checkpoint"] = json!({"interval": "200ms", "min_pause": "0ms"});
    let job = client.submit(spec).await;
    client.wait_for(&job, "a checkpoint", |view| view["checkpoint"]["size_bytes"].as_u64() > Some(0)).await;
    std::fs::write(dev.scratch().join("go-on"), "").expect("the gate opens");
    let mut echo = json!({"driver": {"noop": {}}, "input": marker("input")});
    echo["name"] = json!("echo");
    let echo = client.submit(echo).await;

    // Through the API it is all there.
    let view = client.wait_for_status(&job, "succeeded").await;
    assert_eq!(view["result"], json!(marker("result")));
    assert_eq!(client.wait_for_status(&echo, "succeeded").await["result"], json!(marker("input")));
    let logs = client.wait_for_log(&job, &marker("err")).await;
    assert!(logs.contains(&marker("out")), "{logs}");

    // On disk it is nowhere, while the servers run and after they have written out everything.
    let markers = kinds.map(marker);
    for server in STORED {
        let found = on_disk_contains(&dev.stored_by("a", server), &markers);
        assert_eq!(found, None, "it can be read while {server} runs");
    }
    // The search finds what is there: a message of our own, in the same server.
    let jetstream = async_nats::jetstream::new(client.nats().clone());
    let control = async_nats::jetstream::stream::Config {
        name: "CONTROL".to_owned(),
        subjects: vec!["control".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(control).await.expect("a stream of our own");
    let ack = jetstream.publish("control", marker("control").into()).await.expect("sent");
    ack.await.expect("stored");
    let control = on_disk_contains(&dev.stored_by("a", "nats"), &[marker("control")]);
    assert!(control.is_some(), "the search is blind");

    // What is deleted is gone from every store, and its key from the disk: what may be left of its bytes opens no more.
    let of_job = [
        ("OUTLIVE_KEYS", format!("outlive.key.job.{job}")),
        ("OUTLIVE_BLOB", format!("outlive.blob.job.{job}.*")),
        ("OUTLIVE_JOB_LOGS", format!("outlive.joblog.default.{job}")),
    ];
    for (stream, filter) in &of_job {
        assert!(client.subjects(stream, filter).await > 0, "{filter}");
    }
    let keys = jetstream.get_stream("OUTLIVE_KEYS").await.expect("the stream of keys");
    let key = keys.get_last_raw_message_by_subject(&of_job[0].1).await.expect("the job's key").payload;
    assert!(holds(&dev.stored_by("a", "nats"), &key), "the search for the key is blind");
    assert_eq!(client.ask("job.delete", json!({"job": job})).await, json!({}));
    for (stream, filter) in &of_job {
        assert_eq!(client.subjects(stream, filter).await, 0, "{filter}");
    }
    for server in STORED {
        assert!(!holds(&dev.stored_by("a", server), &key), "the key of a deleted job is on the disk of {server}");
    }

    let mut dev = dev;
    dev.stop().await;
    for server in STORED {
        assert!(!holds(&dev.stored_by("a", server), &key), "the key of a deleted job is on the disk of {server}");
        let found = on_disk_contains(&dev.stored_by("a", server), &markers);
        assert_eq!(found, None, "it can be read after {server} was stopped");
    }
    // Nor in the logs of the servers, which people send to one another.
    assert_eq!(on_disk_contains(&dev.data().join("logs"), &markers), None, "it is in a log");
}

/// Whether any file below holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return holds(&path, bytes);
        }
        std::fs::read(path).is_ok_and(|text| text.windows(bytes.len()).any(|window| window == bytes))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn data_outlives_a_stop_and_a_kill_of_everything() {
    let mut dev = Dev::start(3).await;
    let client = dev.client().await;
    let counter = client.submit(example("counter")).await;
    let done = client.submit(json!({"name": "done", "driver": {"noop": {}}, "input": "kept"})).await;
    client.wait_for_status(&done, "succeeded").await;
    client.wait_for(&counter, "two checkpoints", |view| view["checkpoint"]["number"].as_u64() >= Some(2)).await;

    for (round, way) in ["stopped", "killed"].into_iter().enumerate() {
        let client = dev.client().await;
        let before = client.get(&counter).await;
        if way == "stopped" {
            dev.stop().await;
        } else {
            dev.kill_all().await;
        }
        let left = dev.processes_with(&format!("OUTLIVE_JOB_ID={counter}"));
        outlive_tests::wait_until_true("the job's processes end as well", outlive_tests::SOON, || async {
            left.iter().all(|pid| !is_alive(*pid))
        })
        .await;

        dev.start_again().await;
        let client = dev.client().await;
        assert_eq!(client.get(&done).await["result"], json!("kept"), "after it was {way}");
        let attempt = before["attempt"].as_u64().expect("it ran");
        let checkpoint = before["checkpoint"]["number"].as_u64().expect("it was checkpointed");
        let view = client
            .wait_for_within(EVENTUALLY, &counter, "it goes on with a higher attempt", |view| {
                view["status"] == "running" && view["attempt"].as_u64() > Some(attempt)
            })
            .await;
        assert!(view["last_recovery"]["restored_checkpoint"].as_u64() >= Some(checkpoint), "{way}: {view:#}");
        client
            .wait_for(&counter, "new checkpoints", |view| {
                view["checkpoint"]["number"].as_u64() > Some(checkpoint + 1 + round as u64)
            })
            .await;
    }
    let logs = dev.client().await.logs(&counter).await;
    assert_eq!(logs.matches("starts from nothing").count(), 1, "only once:\n{logs}");
    dev.outlive(&["log", "verify"]).await.expect_ok("log verify");
}

const FILES: u64 = 2_000;
const FILE_BYTES: u64 = 100_000;
/// Of a hundred.
const CHANGED_PERCENT: u64 = 1;

/// Writes its files, changes a hundredth of them when told to, and says what all of them are.
const BIG_STATE: &str = r#"
import hashlib, os, pathlib, sys, time
files, size, changed, gate = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def path(i): return pathlib.Path(f"folder-{i % 40}", f"file-{i}")
def write(i):
    beside = path(i).with_suffix(".new")
    beside.write_bytes(os.urandom(size))
    os.replace(beside, path(i))
def digest():
    all = hashlib.sha256()
    for i in range(files): all.update(path(i).read_bytes())
    return all.hexdigest()
if os.environ["OUTLIVE_RESTORED_CHECKPOINT"]:
    print("restored", digest(), flush=True)
else:
    for i in range(40): os.makedirs(f"folder-{i}", exist_ok=True)
    for i in range(files): write(i)
    print("written", flush=True)
    while not os.path.exists(gate): time.sleep(0.05)
    for i in range(0, files, files // changed): write(i)
    print("changed", digest(), flush=True)
while True: time.sleep(1)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_a_large_state_uploads_what_changed() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let gate = dev.scratch().join("change");
    let mut spec = python("large", BIG_STATE);
    let command = spec["driver"]["process"]["command"].as_array_mut().expect("a command");
    let changed_files = FILES * CHANGED_PERCENT / 100;
    for word in [FILES.to_string(), FILE_BYTES.to_string(), changed_files.to_string(), gate.display().to_string()] {
        command.push(json!(word));
    }
    spec["kind"] = json!("service");
    spec["resources"] = json!({"memory": "1GiB"});
    spec["checkpoint"] = json!({"interval": "1s", "min_pause": "200ms"});
    let job = client.submit(spec).await;
    client.wait_for_log(&job, "written").await;
    let whole = client
        .wait_for(&job, "a checkpoint of all of it", |view| {
            view["checkpoint"]["size_bytes"].as_u64() >= Some(FILES * FILE_BYTES)
        })
        .await;
    let first = whole["checkpoint"]["number"].as_u64().expect("number");

    std::fs::write(&gate, "").expect("the gate opens");
    let logs = client.wait_for_log(&job, "changed").await;
    let digest = word_after(&logs, "changed");
    client
        .wait_for(&job, "a checkpoint of the change", |view| view["checkpoint"]["number"].as_u64() > Some(first))
        .await;
    // An unchanged state makes no new checkpoint, so those that follow the change are all there will be. The executor's
    // next attempt starts from the last of them.
    dev.kill("executor-a-1");
    dev.restart("executor-a-1").await;
    let logs = client.wait_for_log(&job, "restored").await;
    assert_eq!(word_after(&logs, "restored"), digest, "what is restored is what was there");

    let history = client.history(&job).await;
    let after: Vec<&Value> = history
        .iter()
        .filter(|e| e["type"] == "checkpoint_completed" && e["checkpoint"].as_u64() > Some(first))
        .collect();
    assert!(!after.is_empty());
    let uploaded: u64 = after.iter().map(|e| e["uploaded_bytes"].as_u64().expect("bytes")).sum();
    let changed = changed_files * FILE_BYTES;
    eprintln!("changed {changed} bytes, uploaded {uploaded} in {} checkpoints: {after:?}", after.len());
    assert!(uploaded <= 2 * changed, "{changed} bytes changed, {uploaded} were uploaded: {after:?}");
    assert!(uploaded >= changed, "random bytes cannot be compressed: {uploaded} of {changed}");
    assert!(after.iter().all(|e| e["pause_ms"].is_u64()), "{after:?}");
}

fn word_after(text: &str, word: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("no `{word}` in {text}"));
    line.trim().to_owned()
}
