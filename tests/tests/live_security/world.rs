//! Servers with TLS, users and permissions, as `ops/nats/secure.conf` and the docs have them, and Outlive over them.

use outlive_tests::command::{Outcome, outlive_bin, run};
use outlive_tests::{EVENTUALLY, wait_until_true};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub const OPERATOR_PASSWORD: &str = "operator-password";
pub const TEAM_PASSWORD: &str = "team-a-password";
const ETCD_PASSWORD: &str = "etcd-password";

/// A process that ends with the test.
pub struct Running(Child);

impl Running {
    /// As a host's loss would be.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // One that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

pub struct World {
    dir: TempDir,
    pub nats: String,
    pub etcd: String,
    /// nats-server, and behind it etcd.
    pub servers: Vec<Running>,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn program(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin");
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search).chain([tools]).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not there: run ops/setup, or set {variable}"))
}

/// A file that only its owner may read.
pub fn private(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}

/// One authority, a certificate for the servers, and one for everybody else.
fn certificates(dir: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "outlive test authority");
    let authority = params.self_signed(&key).expect("a certificate");
    private(&dir.join("ca.pem"), &authority.pem());
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.distinguished_name.push(DnType::CommonName, format!("outlive test {name}"));
        // etcd is a client of itself.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        private(&dir.join(format!("{name}.pem")), &certificate.pem());
        private(&dir.join(format!("{name}.key")), &key.serialize_pem());
    }
}

pub async fn listens(port: u16) {
    wait_until_true("the server listens", EVENTUALLY, || async {
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
    })
    .await;
}

impl World {
    pub async fn start() -> World {
        let world = World::with_nats("tls", spawn_nats).await;
        world.configure();
        world.enable_etcd_users().await;
        world
    }

    /// With certificates, an etcd that asks for them, a master key, and such a nats-server.
    pub async fn with_nats(scheme: &str, spawn: impl FnOnce(&Path, u16) -> Running) -> World {
        // Two providers of ciphers are in the tree of the tests; ours is ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("outlive-secure-").tempdir().expect("a directory");
        let path = dir.path();
        certificates(path);
        let (nats_port, etcd_port, peer_port) = (free_port(), free_port(), free_port());
        let servers = vec![spawn(path, nats_port), spawn_etcd(path, etcd_port, peer_port)];
        let (nats, etcd) = (format!("{scheme}://127.0.0.1:{nats_port}"), format!("https://127.0.0.1:{etcd_port}"));
        let world = World { nats, etcd, servers, dir };
        listens(nats_port).await;
        listens(etcd_port).await;
        private(&world.path("empty.toml"), "");
        let key = world.path("master.key").display().to_string();
        world.outlive("empty.toml", &["keys", "generate", &key]).await.expect_ok("keys generate");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path as a configuration has it.
    pub fn file(&self, name: &str) -> String {
        format!("{:?}", self.path(name).display().to_string())
    }

    fn tls(&self, section: &str) -> String {
        let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|name| self.file(name));
        format!("[{section}.tls]\nca_file = {ca}\ncert_file = {cert}\nkey_file = {key}\n")
    }

    /// What schedulers and executors are told alike, but for NATS. `etcd_user` is what says who they are to etcd.
    pub fn shared(&self, cluster: &str, etcd_user: &str) -> String {
        format!(
            "[cluster]\nname = {cluster:?}\nzone = \"a\"\n[keys]\nfiles = [{}]\n\
             [etcd]\nendpoints = [{:?}]\n{etcd_user}\n{}\
             [log]\nmax_bytes = \"64MiB\"\n[blobs]\nmax_bytes = \"64MiB\"\njob_logs_max_bytes = \"16MiB\"\n",
            self.file("master.key"),
            self.etcd,
            self.tls("etcd"),
        )
    }

    fn configure(&self) {
        let (file, tls) = (|name: &str| self.file(name), |section: &str| self.tls(section));
        let nats = |who: &str, inbox: &str| {
            format!("[nats]\nservers = [{:?}]\n{who}\ninbox_prefix = {inbox:?}\n{}", self.nats, tls("nats"))
        };
        private(&self.path("etcd.password"), ETCD_PASSWORD);
        private(&self.path("operator.password"), OPERATOR_PASSWORD);
        private(&self.path("team-a.password"), &format!("{TEAM_PASSWORD}\n"));
        let etcd_user = format!("user = \"outlive\"\npassword_file = {}", file("etcd.password"));
        let shared = self.shared("secure", &etcd_user);
        let by_key = |name: &str| format!("nkey_file = {}", file(name));
        let by_password =
            |user: &str| format!("user = {user:?}\npassword_file = {}", file(&format!("{user}.password")));
        let scheduler = nats(&by_key("scheduler.nk"), "_INBOX.scheduler");
        private(&self.path("scheduler.toml"), &format!("{shared}{scheduler}[scheduler]\nname = \"scheduler-a\"\n"));
        let executor = nats(&by_key("executor.nk"), "_INBOX.executor");
        let data_dir = file("executor");
        private(
            &self.path("executor.toml"),
            &format!("{shared}{executor}[executor]\nname = \"executor-a-1\"\ndata_dir = {data_dir}\n"),
        );
        private(&self.path("user.toml"), &nats(&by_password("team-a"), "_INBOX.ns.team-a"));
        private(&self.path("operator.toml"), &nats(&by_password("operator"), "_INBOX.operator"));
    }

    /// As the docs have it: a role for the prefix, a user with that role, and then no more strangers.
    async fn enable_etcd_users(&self) {
        use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, TlsOptions};
        let read = |name: &str| std::fs::read(self.path(name)).expect("a file");
        let identity = Identity::from_pem(read("client.pem"), read("client.key"));
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read("ca.pem"))).identity(identity);
        let options = ConnectOptions::new().with_tls(tls);
        let mut client = Client::connect([&self.etcd], Some(options)).await.expect("connected");
        wait_until_true("etcd answers", EVENTUALLY, || {
            let mut client = client.clone();
            async move { client.get("x", None).await.is_ok() }
        })
        .await;
        client.role_add("outlive").await.expect("a role");
        let all = Permission::read_write("/outlive/").with_prefix();
        client.role_grant_permission("outlive", all).await.expect("granted");
        for (user, role) in [("root", "root"), ("outlive", "outlive")] {
            client.user_add(user, ETCD_PASSWORD, None).await.expect("a user");
            client.user_grant_role(user, role).await.expect("granted");
        }
        client.auth_enable().await.expect("enabled");
    }

    /// Runs an `outlive` command with one of the configurations.
    pub async fn outlive(&self, config: &str, args: &[&str]) -> Outcome {
        let mut command = tokio::process::Command::new(outlive_bin());
        command.arg("--config").arg(self.path(config)).args(args).env_remove("NATS_URL");
        if !args.contains(&"-n") {
            command.args(["-n", "team-a"]);
        }
        run(command, EVENTUALLY).await
    }

    /// A long-running role.
    pub fn role(&self, role: &str) -> Running {
        let log = File::options().create(true).append(true).open(self.path(&format!("{role}.log"))).expect("a log");
        let child = Command::new(outlive_bin())
            .arg("--config")
            .arg(self.path(&format!("{role}.toml")))
            .arg(role)
            .env_remove("NATS_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("outlive can be started");
        Running(child)
    }

    pub fn log(&self, role: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{role}.log"))).unwrap_or_default()
    }

    /// The options of a connection with certificates, and nobody's name yet.
    pub fn options(&self) -> async_nats::ConnectOptions {
        async_nats::ConnectOptions::new()
            .require_tls(true)
            .add_root_certificates(self.path("ca.pem"))
            .add_client_certificate(self.path("client.pem"), self.path("client.key"))
    }

    pub fn seed(&self, role: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{role}.nk"))).expect("a seed").trim().to_owned()
    }
}

/// A nats-server with this configuration.
pub fn spawn_nats_with(conf: &Path, dir: &Path, settings: impl IntoIterator<Item = (&'static str, String)>) -> Running {
    let output = File::options().create(true).append(true).open(dir.join("nats.log")).expect("a log");
    let child = Command::new(program("OUTLIVE_NATS_SERVER", "nats-server"))
        .arg("-c")
        .arg(conf)
        .envs(settings)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a handle"))
        .stderr(output)
        .spawn()
        .expect("nats-server can be started");
    Running(child)
}

fn spawn_nats(dir: &Path, port: u16) -> Running {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/nats/secure.conf");
    let public = |role: &str| {
        let key = nkeys::KeyPair::new_user();
        private(&dir.join(format!("{role}.nk")), &key.seed().expect("a seed"));
        key.public_key()
    };
    let file = |name: &str| dir.join(name).display().to_string();
    let settings = [
        ("NATS_NAME", "nats-a".to_owned()),
        ("NATS_LISTEN", format!("127.0.0.1:{port}")),
        ("NATS_ZONE_TAG", "az:a".to_owned()),
        ("NATS_STORE", file("jetstream")),
        ("NATS_CERT", file("server.pem")),
        ("NATS_KEY", file("server.key")),
        ("NATS_CA", file("ca.pem")),
        ("NATS_SYS_PASSWORD", "sys-password".to_owned()),
        ("OUTLIVE_SCHEDULER_NKEY", public("scheduler")),
        ("OUTLIVE_EXECUTOR_NKEY", public("executor")),
        ("OUTLIVE_OPERATOR_PASSWORD", OPERATOR_PASSWORD.to_owned()),
        ("OUTLIVE_TEAM_A_PASSWORD", TEAM_PASSWORD.to_owned()),
    ];
    spawn_nats_with(&conf, dir, settings)
}

fn spawn_etcd(dir: &Path, port: u16, peer_port: u16) -> Running {
    let output = File::create(dir.join("etcd.log")).expect("a log");
    let file = |name: &str| dir.join(name).display().to_string();
    let (client, peer) = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let child = Command::new(program("OUTLIVE_ETCD", "etcd"))
        .args(["--name", "e", "--data-dir", &file("etcd")])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("e={peer}")])
        .args(["--cert-file", &file("server.pem"), "--key-file", &file("server.key")])
        .args(["--client-cert-auth", "--trusted-ca-file", &file("ca.pem")])
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a handle"))
        .stderr(output)
        .spawn()
        .expect("etcd can be started");
    Running(child)
}
