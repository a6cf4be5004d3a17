//! What a job is given, what it is not given, and what is said when it cannot be started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use outlive_executor::driver::process::{BootTime, Exit, LaunchError, ProcessAttempt};

use crate::world::{new_mark, refusal, run, run_with, shim, spec};

#[tokio::test]
async fn exit_codes_come_through() {
    for code in [0, 1, 3, 127, 255] {
        let mut world = run(&format!("exit {code}")).await;
        let exit = world.outcome().await;
        assert_eq!(exit, Exit::Code(code));
        assert_eq!(exit.is_success(), code == 0);
    }
}

#[tokio::test]
async fn deaths_by_signal_come_through() {
    for signal in [6, 9, 11, 15] {
        assert_eq!(run(&format!("kill -{signal} $$")).await.outcome().await, Exit::Signal(signal));
    }
}

#[tokio::test]
async fn output_is_complete_and_in_order() {
    let mut world = run("seq 1 1200000; seq 5 >&2").await;
    assert_eq!(world.outcome().await, Exit::Code(0));
    let stdout = String::from_utf8((&mut world.stdout).await.unwrap()).unwrap();
    assert!(stdout.len() > 8_000_000);
    assert!(stdout.lines().enumerate().all(|(at, line)| line == (at + 1).to_string()));
    assert_eq!(stdout.lines().count(), 1_200_000);
    assert_eq!(world.stderr.await.unwrap(), b"1\n2\n3\n4\n5\n");
}

#[tokio::test]
async fn a_job_has_three_descriptors_and_no_more() {
    // Two that the executor itself got from somewhere without the mark to be closed.
    let (_read, _write) = rustix::pipe::pipe().unwrap();
    let mut world = run("ls -l /proc/self/fd; cat").await;
    assert_eq!(world.outcome().await, Exit::Code(0));
    let stdout = world.stdout().await;
    let open: Vec<&str> = stdout.lines().filter_map(|line| line.split(" -> ").nth(1)).collect();
    // Standard input, output and error, and the directory that `ls` reads.
    assert_eq!(open.len(), 4, "{stdout}");
    assert_eq!(open[0], "/dev/null");
    assert!(open[1].starts_with("pipe:") && open[2].starts_with("pipe:") && open[1] != open[2]);
    assert!(open[3].starts_with("/proc/"));
}

#[tokio::test]
async fn output_that_the_job_closes_ends_while_the_job_goes_on() {
    let mut world = run("echo last; exec >&- 2>&-; sleep 1000").await;
    assert_eq!((&mut world.stdout).await.unwrap(), b"last\n");
    assert_eq!((&mut world.stderr).await.unwrap(), b"");
    // It still runs: it can be frozen.
    world.handle.freeze().await.unwrap().thaw().await.unwrap();
    world.handle.kill().await.unwrap();
    assert_eq!(world.outcome().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_job_finds_nothing_of_the_executor_in_its_shim() {
    let mut world = run("tr '\\0' '\\n' < /proc/$PPID/environ; readlink /proc/$PPID/cwd").await;
    assert_eq!(world.outcome().await, Exit::Code(0));
    assert_eq!(world.stdout().await, "MIMALLOC_ARENA_EAGER_COMMIT=0\n/\n");
}

#[tokio::test]
async fn the_environment_is_what_was_given_and_four_basics() {
    let mut world = run_with(&["env"], |spec| {
        spec.env.push(("GREETING".into(), "hello = world".into()));
        spec.env.push(("LANG".into(), "C".into()));
    })
    .await;
    world.outcome().await;
    let home = format!("HOME={}", world.dir.path().display());
    let stdout = world.stdout().await;
    let names: Vec<&str> = stdout.lines().filter_map(|line| line.split('=').next()).collect();
    for name in &names {
        assert!(["OUTLIVE_TEST_MARK", "GREETING", "LANG", "PATH", "HOME", "TZ"].contains(name), "{name} leaked");
    }
    assert!(names.contains(&"PATH"));
    assert!(stdout.lines().any(|line| line == "GREETING=hello = world"));
    assert!(stdout.lines().any(|line| line == "LANG=C"));
    assert!(stdout.lines().any(|line| line == home));
}

#[tokio::test]
async fn a_job_begins_in_its_directory_with_ordinary_signals_and_limits() {
    let mut world =
        run("pwd; grep -E 'Sig(Blk|Ign)' /proc/self/status; ulimit -c; ulimit -d; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status").await;
    world.outcome().await;
    let dir = fs::canonicalize(world.dir.path()).unwrap();
    let before: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let stdout = world.stdout().await;
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], dir.to_str().unwrap());
    for (line, label) in [(lines[1], "SigBlk:\t"), (lines[2], "SigIgn:\t")] {
        let signals = u64::from_str_radix(line.strip_prefix(label).unwrap(), 16).unwrap();
        // The 31 ordinary ones. What this test itself was started with beyond them is not the shim's.
        assert_eq!(signals & 0x7fff_ffff, 0, "{line}");
    }
    assert_eq!(lines[3], "0");
    assert_eq!(lines[4], (512 * 1024).to_string());
    assert_eq!(lines[5], (before + 500).min(1000).to_string());
    assert_eq!(lines[6], "NoNewPrivs:\t1");
}

/// Its executor may have stood still between the order and the start, while the job was moved elsewhere.
#[tokio::test]
async fn nothing_is_started_after_its_deadline() {
    let error = refusal(&["sh", "-c", "touch ran"], |spec| spec.deadline = BootTime::now()).await;
    assert!(matches!(error, LaunchError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("lease was not renewed in time"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_started_is_explained() {
    let said = |error: LaunchError| {
        assert!(matches!(error, LaunchError::Refused { .. }), "{error:?}");
        error.to_string()
    };
    let error = said(refusal(&["no-such-program"], |spec| spec.env.push(("PATH".into(), "/usr/bin".into()))).await);
    assert!(error.contains("no-such-program: not found in PATH (/usr/bin); install it"), "{error}");

    let error = said(refusal(&["/no/such/program"], |_| {}).await);
    assert!(error.contains("/no/such/program: there is no such file"), "{error}");

    let error = said(refusal(&["./script"], |spec| file(spec.cwd.join("script"), "#!/bin/sh\n", 0o644)).await);
    assert!(error.contains("./script: not executable"), "{error}");

    let error = said(refusal(&["./script"], |spec| file(spec.cwd.join("script"), "#!/no/sh\n", 0o755)).await);
    assert!(error.contains("./script: the file exists but what its first line"), "{error}");

    let error = said(refusal(&["./data"], |spec| file(spec.cwd.join("data"), "\u{1}\u{2}", 0o755)).await);
    assert!(error.contains("./data: not a program"), "{error}");

    let error = said(refusal(&["true"], |spec| spec.cwd = "/no/such/place".into()).await);
    assert!(error.contains("working directory /no/such/place cannot be entered: No such file"), "{error}");

    let error = said(refusal(&["true"], |spec| spec.command.push("x".repeat(3 << 20))).await);
    assert!(error.contains("true: its arguments and environment are longer"), "{error}");

    let error = said(refusal(&[""], |_| {}).await);
    assert!(error.contains("command is empty"), "{error}");

    let error = said(refusal(&["echo", "a\0b"], |_| {}).await);
    assert!(error.contains("zero byte"), "{error}");
}

fn file(path: std::path::PathBuf, text: &str, mode: u32) {
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn what_cannot_reach_a_shim_is_explained() {
    let error = refusal(&["true"], |spec| spec.cwd = "some/where".into()).await;
    assert!(matches!(error, LaunchError::Directory(_)), "{error:?}");
    let error = refusal(&["true"], |spec| spec.command.push("x".repeat(5 << 20))).await;
    assert!(matches!(error, LaunchError::Unsendable(_)), "{error:?}");
}

#[tokio::test]
async fn a_shim_that_is_none_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let with = async |path: &str| {
        let spec = spec(&["true"], dir.path(), &new_mark());
        ProcessAttempt::spawn(path.as_ref(), spec).await.unwrap_err()
    };
    let error = with("/no/such/shim").await;
    assert!(matches!(error, LaunchError::Shim { .. }), "{error:?}");
    assert!(error.to_string().contains("/no/such/shim"), "{error}");
    // It ends at once, without a word.
    let error = with("/bin/false").await;
    assert!(matches!(error, LaunchError::ShimFailed { .. }), "{error:?}");
    // It complains about its argument.
    let error = with("/bin/ls").await;
    assert!(error.to_string().contains("No such file or directory"), "{error}");
}

#[test]
fn a_shim_started_by_hand_says_so() {
    let output = Command::new(shim()).arg("shim").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("started by an executor and not by hand"), "{said}");
}
