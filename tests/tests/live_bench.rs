//! `outlive bench` against a system that runs already.

use outlive_tests::command::{outlive_bin, run};
use outlive_tests::{Dev, EVENTUALLY};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_says_what_is_there_and_not_what_it_would_have_started() {
    let dev = Dev::start(3).await;
    let mut bench = Command::new(outlive_bin());
    bench
        .args(["--server", &dev.nats_urls()[0], "bench", "latency", "--jobs", "5", "--json"])
        .current_dir(dev.scratch());
    let figures = run(bench, EVENTUALLY).await.expect_ok("the bench").json();
    assert_eq!((&figures["zones"], &figures["replicas"], &figures["jobs"]), (&3.into(), &3.into(), &5.into()));
}
