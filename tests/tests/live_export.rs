//! A snapshot goes in a file from one cluster into another that has nothing of it but the master key.

use outlive_tests::{Client, Dev, EVENTUALLY, command, wait_until, wait_until_true};
use serde_json::{Value, json};
use std::path::Path;

/// A service that says what it begins with, and writes what it finds in the file `word`.
fn keeper(word: &Path) -> Value {
    let script = "echo \"begins with $(cat word 2>/dev/null || echo nothing), $(cksum < large 2>/dev/null)\"; \
                  while :; do if [ -e \"$WORD\" ] && ! cmp -s \"$WORD\" word; then \
                  head -c 600000 /dev/urandom > large; cp \"$WORD\" new; mv new word; \
                  echo \"wrote $(cat word), $(cksum < large)\"; fi; sleep 0.05; done";
    json!({
        "name": "keeper", "kind": "service",
        "driver": {"process": {"command": ["sh", "-c", script], "env": {"WORD": word}}},
        "checkpoint": {"interval": "24h", "min_pause": "0ms", "timeout": "20s"}
    })
}

async fn stopped(client: &Client) {
    client.wait_for_status("keeper", "running").await;
    client.ask("job.stop", json!({"job": "keeper"})).await;
    client.wait_for_status("keeper", "stopped").await;
}

/// What the service said that begins with these words, its newest line.
async fn said(client: &Client, words: &str) -> String {
    wait_until(&format!("a line `{words}…`"), EVENTUALLY, || async {
        let logs = client.logs("keeper").await;
        logs.lines().rfind(|line| line.starts_with(words)).map(|line| line[words.len()..].to_owned())
    })
    .await
}

async fn snapshots(client: &Client) -> Vec<Value> {
    client.pages("snapshot.list", json!({"job": "keeper"}), "snapshots").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_into_another_cluster_in_a_file() {
    let from = Dev::start(1).await;
    let client = from.client().await;
    let word = from.scratch().join("word");
    client.submit(keeper(&word)).await;
    let mut written = Vec::new();
    for name in ["first", "second"] {
        std::fs::write(&word, name).expect("a file");
        written.push(said(&client, &format!("wrote {name}, ")).await);
        from.outlive(&["snapshot", "create", "keeper", name]).await.expect_ok("snapshot create");
    }
    let place = from.scratch().join("first.snapshot");
    let file = place.to_str().expect("UTF-8");
    let made = from.outlive(&["--output", "json", "snapshot", "export", "keeper", "first", file]).await;
    let made = made.expect_ok("snapshot export").json();
    assert_eq!(made["bytes"].as_u64(), Some(std::fs::metadata(&place).expect("there").len()));
    let again = from.outlive(&["snapshot", "export", "keeper", "second", file]).await;
    assert!(again.code == Some(2) && again.err.contains("is there already"), "{again:?}");
    let unknown = from.outlive(&["snapshot", "export", "keeper", "third", "third.snapshot"]).await;
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    let whole = std::fs::read(&place).expect("there");
    assert!(!whole.windows(5).any(|five| five == b"first"), "nothing in it can be read");

    let to = Dev::start_with_key_of(&from, 1).await;
    drop(from);
    let client = to.client().await;
    client.submit(keeper(&to.scratch().join("word"))).await;
    said(&client, "begins with nothing, ").await;
    let place = to.scratch().join("a.snapshot");
    let file = place.to_str().expect("UTF-8");
    std::fs::write(&place, &whole).expect("written");
    let running = to.outlive(&["snapshot", "import", "keeper", file]).await;
    assert!(running.code == Some(4) && running.err.contains("stop it"), "{running:?}");
    stopped(&client).await;

    // What is wrong is refused, and the cluster is as it was.
    let before = (snapshots(&client).await, client.history("keeper").await.len());
    let at = whole.len() / 2;
    let flipped = [&whole[..at], &[whole[at] ^ 1], &whole[at + 1..]].concat();
    for (bad, words) in [
        (&whole[..at], "cut short"),
        (&whole[..whole.len() - 1], "cut short"),
        (&flipped, "altered or moved"),
        (&[&whole[..], b"more"].concat(), "behind its end"),
        (b"something else", "does not begin as a snapshot's file does"),
    ] {
        std::fs::write(&place, bad).expect("written");
        let refused = to.outlive(&["snapshot", "import", "keeper", file]).await;
        assert!(refused.code == Some(2) && refused.err.contains(words), "{words}: {refused:?}");
    }
    std::fs::write(&place, &whole).expect("written");
    let other = to.scratch().join("other.key");
    to.outlive(&["keys", "generate", other.to_str().expect("UTF-8")]).await.expect_ok("keys generate");
    let mut command = to.command(&["snapshot", "import", "keeper", file]);
    command.env("OUTLIVE_KEYS__FILES", &other);
    let refused = command::run(command, EVENTUALLY).await;
    assert!(refused.code == Some(2) && refused.err.contains("unknown master key"), "{refused:?}");
    assert!(refused.err.contains("give the file that holds it"), "{refused:?}");
    assert_eq!((snapshots(&client).await, client.history("keeper").await.len()), before);

    // The job goes on from what the other cluster kept.
    let view = to.outlive(&["--output", "json", "snapshot", "import", "keeper", file]).await;
    let view = view.expect_ok("snapshot import").json();
    assert_eq!(
        (&view["status"], &view["name"], &view["initiator"]),
        (&json!("ready"), &json!("first"), &json!("user"))
    );
    // Once more changes nothing; under another name it is another one.
    to.outlive(&["snapshot", "import", "keeper", file]).await.expect_ok("snapshot import");
    let args = ["snapshot", "import", "keeper", file, "--name", "other"];
    to.outlive(&args).await.expect_ok("snapshot import");
    assert_eq!(snapshots(&client).await.len(), before.0.len() + 2);
    for name in ["first", "other"] {
        to.outlive(&["job", "start", "keeper", "--snapshot", name]).await.expect_ok("job start");
        wait_until_true("it begins with it", EVENTUALLY, || async {
            said(&client, "begins with ").await == format!("first, {}", written[0])
        })
        .await;
        stopped(&client).await;
    }
    to.outlive(&["log", "verify"]).await.expect_ok("log verify");
}
