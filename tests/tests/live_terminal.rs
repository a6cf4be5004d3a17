//! `outlive top` on a terminal: it draws in place, follows what happens, takes keys, and leaves the terminal as it was.

use outlive_tests::command::outlive_bin;
use outlive_tests::{Dev, EVENTUALLY, SOON, wait_until, wait_until_true};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

const ROWS: u16 = 30;
const COLUMNS: u16 = 110;

/// A program on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    /// What the program was given; kept, to be looked at after its end.
    line: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(dev: &Dev, args: &[&str]) -> Terminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let name = ptsname(&ours, Vec::new()).expect("its name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = File::from(rustix::fs::open(&name, flags, Mode::empty()).expect("its other end"));
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&line, size).expect("a size");
        let end = || line.try_clone().expect("another handle");
        let child = Command::new(outlive_bin())
            .arg("--config")
            .arg(dev.config())
            .args(args)
            .env_remove("NATS_URL")
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("outlive can be started");
        let keys = File::from(ours);
        let mut written = keys.try_clone().expect("another handle");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let drawn = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // It ends when nobody has the other end open any longer.
            while let Ok(count @ 1..) = written.read(&mut bytes) {
                drawn.lock().expect("not poisoned").process(&bytes[..count]);
            }
        });
        Terminal { child, keys, line, screen }
    }

    fn shows(&self, text: &str) -> bool {
        self.screen.lock().expect("not poisoned").screen().contents().contains(text)
    }

    async fn until_it_shows(&self, text: &str) {
        wait_until_true(&format!("the screen shows {text:?}"), EVENTUALLY, || async { self.shows(text) }).await;
    }

    fn is_drawn_on(&self) -> bool {
        self.screen.lock().expect("not poisoned").screen().alternate_screen()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the screen\n{}", self.screen.lock().expect("not poisoned").screen().contents());
        }
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn top_draws_in_place_follows_and_leaves_the_terminal_as_it_was() {
    let dev = Dev::start(1).await;
    let client = dev.client().await;
    let mut top = Terminal::start(&dev, &["top", "--interval", "500ms"]);
    for text in ["Leader", "scheduler-a", "zone a", "executor-a-1"] {
        top.until_it_shows(text).await;
    }
    assert!(top.is_drawn_on(), "it draws on a screen of its own");
    assert!(!top.shows("running 1"));

    let sleeps = json!({"name": "sleeps", "driver": {"process": {"command": ["sleep", "600"]}}});
    client.ask("job.submit", sleeps).await;
    top.until_it_shows("running 1").await;

    // Nobody answers: what is shown stays, and it says that it is old.
    dev.kill("scheduler-a");
    top.until_it_shows("what is shown is old").await;
    assert!(top.shows("executor-a-1"));

    top.keys.write_all(b"q").expect("a key");
    let ended = wait_until("it ends", SOON, || std::future::ready(top.child.try_wait().expect("it is ours"))).await;
    assert!(ended.success(), "{ended}");
    wait_until_true("the screen is given back", SOON, || async { !top.is_drawn_on() }).await;
    let modes = tcgetattr(&top.line).expect("the terminal is there").local_modes;
    assert!(modes.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON), "{modes:?}");
    dev.restart("scheduler-a").await;
}
