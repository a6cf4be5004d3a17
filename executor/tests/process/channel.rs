//! A shim whose control channel brings nonsense, or ends early, ends as well and takes its job with it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use outlive_executor::shim::protocol::{FRAME_BYTES_MAX, FromShim, Inbox, PROTOCOL_VERSION, Start, ToShim, encode};

use crate::world::{BOUND, members, new_mark, shim, spec, until};

/// A bare shim, with the other end of its channel in our hands.
struct Bare {
    process: Child,
    channel: UnixStream,
    inbox: Inbox,
}

impl Bare {
    fn new() -> Self {
        let (channel, theirs) = UnixStream::pair().unwrap();
        channel.set_read_timeout(Some(BOUND)).unwrap();
        let process = Command::new(shim())
            .arg("shim")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process, channel, inbox: Inbox::default() }
    }

    fn start(&mut self, protocol: u32, mark: &str) {
        let spec = spec(&["sh", "-c", "(setsid sleep 1000 &) ; sleep 1000"], Path::new("/"), mark);
        let mut env = spec.env;
        env.push(("PATH".into(), "/usr/bin:/bin".into()));
        let (command, cwd, limits, deadline) = (spec.command, spec.cwd, spec.limits, spec.deadline);
        let start = Start { protocol, command, env, cwd, limits, deadline };
        self.channel.write_all(&encode(&ToShim::Start(start)).unwrap()).unwrap();
    }

    fn hear(&mut self) -> FromShim {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.inbox.take().unwrap() {
                return message;
            }
            let filled = self.channel.read(&mut buffer).unwrap();
            assert!(filled > 0, "the shim ended");
            self.inbox.push(&buffer[..filled]);
        }
    }

    /// Its exit code and what it complained of.
    fn ends(mut self) -> (i32, String) {
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap().code().unwrap(), said)
    }
}

#[tokio::test]
async fn nonsense_instead_of_a_start_is_named() {
    for nonsense in [&u32::MAX.to_le_bytes()[..], &[3, 0, 0, 0, 0xc1, 0xc1, 0xc1][..]] {
        let mut bare = Bare::new();
        bare.channel.write_all(nonsense).unwrap();
        let (code, said) = bare.ends();
        assert_eq!(code, 70);
        assert!(said.contains("what a shim does not understand: a control frame"), "{said}");
    }
}

#[tokio::test]
async fn nonsense_to_a_running_attempt_ends_it() {
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    for nonsense in [&too_long[..], &[3, 0, 0, 0, 0xc1, 0xc1, 0xc1][..]] {
        let mark = new_mark();
        let mut bare = Bare::new();
        bare.start(PROTOCOL_VERSION, &mark);
        assert!(matches!(bare.hear(), FromShim::Started { .. }));
        until("it runs", || members(&mark).len() >= 2).await;
        bare.channel.write_all(nonsense).unwrap();
        until("it is dead", || members(&mark).is_empty()).await;
        assert_eq!(bare.ends().0, 0);
    }
}

#[tokio::test]
async fn another_version_is_refused() {
    let mut bare = Bare::new();
    bare.start(PROTOCOL_VERSION + 1, &new_mark());
    let FromShim::LaunchFailed { reason } = bare.hear() else { panic!("it started") };
    assert!(reason.contains("let the executor use its own binary"), "{reason}");
    assert_eq!(bare.ends().0, 0);
}

#[tokio::test]
async fn a_channel_that_ends_before_the_start_ends_the_shim() {
    let bare = Bare::new();
    bare.channel.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(bare.ends(), (0, String::new()));
}

#[tokio::test]
async fn a_start_and_a_closed_channel_leave_nothing_behind() {
    let mark = new_mark();
    let mut bare = Bare::new();
    bare.start(PROTOCOL_VERSION, &mark);
    bare.channel.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(bare.hear(), FromShim::Started { .. }));
    assert!(matches!(bare.hear(), FromShim::Exited(_)));
    assert_eq!(bare.hear(), FromShim::Gone);
    assert_eq!(bare.ends().0, 0);
    assert!(members(&mark).is_empty());
}
