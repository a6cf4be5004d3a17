//! Real servers for tests: a nats-server and an etcd of their own, on free ports of the loopback, in temporary
//! directories, killed when the test is over.
//!
//! Killing is always `kill -9`: nothing that Outlive promises may depend on a server having said goodbye.

// Each test binary includes this module and uses its own part of it.
#![allow(dead_code)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to be ready: generous, for a busy machine that builds while it tests.
const START_MAX: Duration = Duration::from_secs(30);

/// Waits until `ready` says so, looking every 10 ms; panics with `what` after `bound`.
pub async fn until<F, Fut>(what: &str, bound: Duration, mut ready: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begun = Instant::now();
    while !ready().await {
        assert!(begun.elapsed() < bound, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The path of a server: an environment variable, else `PATH`, else the repository's own tools.
fn program(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin");
    std::env::split_paths(&search).chain([tools]).map(|dir| dir.join(name)).find(|path| path.is_file()).unwrap_or_else(
        || panic!("{name} is neither on PATH nor in .tools/bin: run ops/setup, or set {variable} to its path"),
    )
}

/// A port that was free a moment ago. Ports are handed out in turn by the system, so a second call gets another.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A child process that does not outlive the test.
struct Server {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

impl Server {
    fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} is running already", self.name);
        let output = File::options().create(true).append(true).open(self.output()).expect("a file for the output");
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        self.child = Some(child);
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("output")
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("a running server").id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success(), "kill {signal} {pid}");
    }

    /// Blocks until `ready`, for at most [`START_MAX`].
    fn wait(&mut self, ready: impl Fn() -> bool) {
        let begun = Instant::now();
        while !ready() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || begun.elapsed() > START_MAX {
                let output = std::fs::read_to_string(self.output()).unwrap_or_default();
                panic!("{} is not ready ({ended:?}):\n{output}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the peer says within a second, if it says anything: after `request`, or unasked where that is empty.
fn ask(port: u16, request: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(request).ok()?;
    let mut reply = vec![0; 4096];
    let length = stream.read(&mut reply).ok()?;
    Some(String::from_utf8_lossy(&reply[..length]).into_owned())
}

/// One nats-server with JetStream, which syncs every write to disk.
pub struct NatsServer {
    server: Server,
    port: u16,
}

impl NatsServer {
    pub fn start() -> NatsServer {
        let mut nats = NatsServer::prepared("test", free_port(), "");
        nats.restart();
        nats
    }

    /// One that is not started yet. `more` is appended to its configuration.
    fn prepared(name: &str, port: u16, more: &str) -> NatsServer {
        let dir = TempDir::new().expect("a temporary directory");
        let config = dir.path().join("nats.conf");
        let store = dir.path().join("jetstream");
        let text = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nping_interval: \"2s\"\nping_max: 2\n\
             jetstream {{ store_dir: {store:?}, sync_interval: always }}\n{more}"
        );
        std::fs::write(&config, text).expect("the configuration is written");
        let args = vec!["-c".to_owned(), config.display().to_string()];
        let program = program("OUTLIVE_NATS_SERVER", "nats-server");
        NatsServer { server: Server { name: "nats-server", program, args, dir, child: None }, port }
    }

    /// Three servers with JetStream among them, named `n0` to `n2`.
    pub fn start_cluster() -> Vec<NatsServer> {
        let ports: Vec<_> = (0..3).map(|_| (free_port(), free_port())).collect();
        let routes: Vec<_> = ports.iter().map(|(_, route)| format!("\"nats://127.0.0.1:{route}\"")).collect();
        let routes = routes.join(", ");
        let prepared = ports.iter().enumerate().map(|(index, (port, route))| {
            let cluster = format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{route}\", routes: [{routes}], no_advertise: true }}\n"
            );
            NatsServer::prepared(&format!("n{index}"), *port, &cluster)
        });
        let mut servers: Vec<_> = prepared.collect();
        servers.iter_mut().for_each(NatsServer::restart);
        servers
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where everything is that the server has written.
    pub fn dir(&self) -> &Path {
        self.server.dir.path()
    }

    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again, on the same port and directory.
    pub fn restart(&mut self) {
        self.server.spawn();
        let port = self.port;
        self.server.wait(|| ask(port, b"").is_some_and(|hello| hello.starts_with("INFO ")));
    }

    pub fn pause(&self) {
        self.server.signal("-STOP");
    }

    pub fn resume(&self) {
        self.server.signal("-CONT");
    }
}

/// One etcd.
pub struct Etcd {
    server: Server,
    port: u16,
}

impl Etcd {
    pub fn start() -> Etcd {
        let mut members = Etcd::prepared(1);
        let mut etcd = members.remove(0);
        etcd.restart();
        etcd
    }

    /// Three members of one cluster.
    pub fn start_cluster() -> Vec<Etcd> {
        let mut members = Etcd::prepared(3);
        // None of them is ready alone.
        members.iter_mut().for_each(|member| member.server.spawn());
        members.iter_mut().for_each(Etcd::wait);
        members
    }

    fn prepared(count: usize) -> Vec<Etcd> {
        let ports: Vec<_> = (0..count).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<_> =
            ports.iter().enumerate().map(|(index, (_, peer))| format!("e{index}=http://127.0.0.1:{peer}")).collect();
        let prepared = ports.iter().enumerate().map(|(index, (port, peer))| {
            let dir = TempDir::new().expect("a temporary directory");
            let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
            let args = [
                ("--name", format!("e{index}")),
                ("--data-dir", dir.path().join("data").display().to_string()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", peers.join(",")),
            ];
            let args = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
            let program = program("OUTLIVE_ETCD", "etcd");
            Etcd { server: Server { name: "etcd", program, args, dir, child: None }, port: *port }
        });
        prepared.collect()
    }

    /// As a client takes it: host and port.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn dir(&self) -> &Path {
        self.server.dir.path()
    }

    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again, on the same port and directory.
    pub fn restart(&mut self) {
        self.server.spawn();
        self.wait();
    }

    fn wait(&mut self) {
        let port = self.port;
        let health = b"GET /health HTTP/1.0\r\n\r\n";
        self.server
            .wait(|| ask(port, health).is_some_and(|reply| reply.starts_with("HTTP/1.") && reply.contains(" 200 ")));
    }

    pub fn pause(&self) {
        self.server.signal("-STOP");
    }

    pub fn resume(&self) {
        self.server.signal("-CONT");
    }
}
