//! A whole system of three zones with every part on a host of its own, so that any of them can be cut off.
//!
//! In zone `a`: `servers-a` has nats-server and etcd, `scheduler-a` and `executor-a` what they are called after.

use crate::client::Client;
use crate::command::{self, Outcome, outlive_bin};
use crate::dev::is_alive;
use crate::hosts::Network;
use crate::wait::wait_until_true;
use crate::{EVENTUALLY, SOON};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;
use tempfile::TempDir;

pub const ZONES: [&str; 3] = ["a", "b", "c"];
const ROLES: [&str; 3] = ["servers", "scheduler", "executor"];
const TAIL_LINES: usize = 25;

#[derive(Debug)]
pub struct Scattered {
    pub network: Network,
    scratch: TempDir,
    children: Vec<(String, Child)>,
}

fn program(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
}

impl Scattered {
    /// Errors: why this machine does not permit it.
    pub async fn start() -> Result<Scattered, String> {
        let names: Vec<String> = ZONES.iter().flat_map(|zone| ROLES.map(|role| format!("{role}-{zone}"))).collect();
        let network = Network::of(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let scratch = tempfile::Builder::new().prefix("outlive-hosts-").tempdir().expect("a temporary directory");
        let mut world = Scattered { network, scratch, children: Vec::new() };
        let key = world.path("master.key");
        let mut generate = tokio::process::Command::new(outlive_bin());
        generate.args(["keys", "generate"]).arg(&key);
        command::run(generate, SOON).await.expect_ok("keys generate");
        fs::write(world.config(), world.shared(None)).expect("a configuration");
        for zone in ZONES {
            world.start_servers(zone);
        }
        for zone in ZONES {
            world.start_role("scheduler", zone);
            world.start_role("executor", zone);
        }
        let client = world.client().await;
        wait_until_true("every executor is ready", EVENTUALLY, || async {
            let list = client.ask("sys.executor.list", json!({})).await;
            list["executors"].as_array().expect("a list").iter().filter(|e| e["state"] == "ready").count() == 3
        })
        .await;
        Ok(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("outlive.toml")
    }

    fn address(&self, role: &str, zone: &str) -> String {
        self.network.host(&format!("{role}-{zone}")).address.clone()
    }

    /// A zone's own first, as where it runs for real.
    fn every(&self, first: Option<&str>, shown: impl Fn(&str) -> String) -> Vec<String> {
        let mut zones = ZONES.to_vec();
        zones.sort_by_key(|zone| Some(*zone) != first);
        zones.into_iter().map(|zone| shown(&self.address("servers", zone))).collect()
    }

    fn nats(&self) -> Vec<String> {
        self.every(None, |address| format!("nats://{address}:4222"))
    }

    fn shared(&self, zone: Option<&str>) -> String {
        let nats = self.every(zone, |address| format!("nats://{address}:4222"));
        let etcd = self.every(zone, |address| format!("{address}:2379"));
        let zone = zone.map(|zone| format!("zone = \"{zone}\"\n")).unwrap_or_default();
        format!(
            "[cluster]\nname = \"hosts\"\n{zone}[nats]\nservers = {nats:?}\n[etcd]\nendpoints = {etcd:?}\n[keys]\nfiles = \
             [{:?}]\n[log]\nreplicas = 3\n",
            self.path("master.key")
        )
    }

    fn launch(&mut self, host: &str, name: &str, program: &Path, args: &[String]) {
        let child = self.network.start(host, program, args, &self.path(&format!("{name}.log")));
        self.children.push((name.to_owned(), child));
    }

    fn start_servers(&mut self, zone: &str) {
        let own = self.address("servers", zone);
        let host = format!("servers-{zone}");
        let routes: Vec<String> = self.every(Some(zone), |address| format!("nats://{address}:6222"));
        let store = self.path(&format!("nats-{zone}"));
        let text = format!(
            "server_name: nats-{zone}\nlisten: \"{own}:4222\"\nmax_payload: 8388608\nping_interval: \"2s\"\nping_max: 2\n\
             server_tags: [\"az:{zone}\"]\njetstream {{\n store_dir: {store:?}\n max_file_store: 1TB\n sync_interval: \
             always\n unique_tag: \"az:\"\n}}\ncluster {{\n name: hosts\n listen: \"{own}:6222\"\n routes: {routes:?}\n}}\n",
            routes = &routes[1..],
        );
        let config = self.path(&format!("nats-{zone}.conf"));
        fs::write(&config, text).expect("a configuration");
        let nats = program("OUTLIVE_NATS_SERVER", "nats-server");
        self.launch(&host, &format!("nats-{zone}"), &nats, &["--config".into(), config.display().to_string()]);

        let cluster: Vec<String> =
            ZONES.iter().map(|zone| format!("etcd-{zone}=http://{}:2380", self.address("servers", zone))).collect();
        let args = [
            ("--name", format!("etcd-{zone}")),
            ("--data-dir", self.path(&format!("etcd-{zone}")).display().to_string()),
            ("--listen-client-urls", format!("http://{own}:2379")),
            ("--advertise-client-urls", format!("http://{own}:2379")),
            ("--listen-peer-urls", format!("http://{own}:2380")),
            ("--initial-advertise-peer-urls", format!("http://{own}:2380")),
            ("--initial-cluster", cluster.join(",")),
            ("--initial-cluster-state", "new".to_owned()),
        ];
        let args: Vec<String> = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        self.launch(&host, &format!("etcd-{zone}"), &program("OUTLIVE_ETCD", "etcd"), &args);
    }

    fn start_role(&mut self, role: &str, zone: &str) {
        let host = format!("{role}-{zone}");
        let listen = format!("{}:9000", self.address(role, zone));
        let mut text = format!("{}[{role}]\nname = \"{host}\"\nlisten = \"{listen}\"\n", self.shared(Some(zone)));
        if role == "executor" {
            text +=
                &format!("data_dir = {:?}\ncapacity = {{ cpu_millis = 16000, memory = \"8GiB\" }}\n", self.path(&host));
        }
        let config = self.path(&format!("{host}.toml"));
        fs::write(&config, text).expect("a configuration");
        let args = ["--config".to_owned(), config.display().to_string(), role.to_owned()];
        self.launch(&host, &host, &outlive_bin(), &args);
    }

    pub async fn client(&self) -> Client {
        let nats = self.nats();
        let began = Instant::now();
        while async_nats::connect(nats.clone()).await.is_err() {
            assert!(began.elapsed() < EVENTUALLY, "no NATS server answers");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Client::connect(&nats).await
    }

    /// Cuts a whole zone off.
    pub fn cut_zone(&self, zone: &str) {
        ROLES.iter().for_each(|role| self.network.cut(&format!("{role}-{zone}")));
    }

    pub fn mend_zone(&self, zone: &str) {
        ROLES.iter().for_each(|role| self.network.mend(&format!("{role}-{zone}")));
    }

    /// Whoever has ended: a partition is a reason to wait, and to nobody a reason to go.
    pub fn ended(&self) -> Vec<&str> {
        self.children.iter().filter(|(_, child)| !is_alive(child.id())).map(|(name, _)| name.as_str()).collect()
    }

    pub async fn outlive(&self, args: &[&str]) -> Outcome {
        let mut command = tokio::process::Command::new(outlive_bin());
        command.arg("--config").arg(self.config()).args(args).env_remove("NATS_URL").current_dir(self.scratch.path());
        command::run(command, EVENTUALLY).await
    }

    fn print_logs(&self) {
        let mut logs: Vec<PathBuf> =
            fs::read_dir(self.scratch.path()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|end| end == "log"));
        logs.sort();
        for path in logs {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("---- the end of {}", path.display());
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                eprintln!("{}", line.chars().take(400).collect::<String>());
            }
        }
    }
}

impl Drop for Scattered {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        if std::env::var_os("OUTLIVE_TEST_KEEP").is_some() {
            self.scratch.disable_cleanup(true);
            eprintln!("kept: {}", self.scratch.path().display());
        }
        for (_, child) in self.children.iter().rev() {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for (_, child) in &mut self.children {
            drop(child.wait());
        }
        // The executors' shims notice the end of their pipes, and take their jobs along.
        let left = || {
            let all = fs::read_dir("/proc").into_iter().flatten().flatten();
            let own = self.scratch.path().as_os_str().as_encoded_bytes().to_vec();
            all.filter(|entry| {
                let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
                environment.windows(own.len()).any(|part| part == own)
            })
            .count()
        };
        let began = Instant::now();
        while left() > 0 && began.elapsed() < SOON {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
