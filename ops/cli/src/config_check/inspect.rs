//! What the configuration and its files say by themselves.

use super::{Finding, Level, Role};
use crate::config::Settings;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub fn inspect(settings: &Settings, role: Role) -> Vec<Finding> {
    let mut found = Vec::new();
    for (setting, path) in secrets(settings) {
        found.extend(secret(setting, path));
    }
    if role != Role::Client && settings.keys.files.is_empty() {
        let remedy = "make one with `outlive keys generate FILE`, and name it in keys.files";
        found.push(Finding::new(Level::Unsafe, "master_key", "no master key is configured", remedy));
    }
    let encrypted = |server: &str| settings.nats.tls.is_some() || server.starts_with("tls://");
    for server in settings.nats.servers.iter().filter(|server| !is_local(server)) {
        if !encrypted(server) {
            let shown = host_of(server);
            let message =
                format!("NATS at {shown} is talked to without TLS: orders, results and passwords are readable");
            found.push(Finding::new(Level::Unsafe, "nats_tls", message, "set nats.tls.ca_file, and TLS on the server"));
        }
    }
    if settings.nats.servers.iter().any(|server| server.contains('@')) {
        let message = "an address in nats.servers holds credentials, which `config show` and process lists show";
        let remedy = "use nats.user with nats.password_file, nats.nkey_file or nats.creds_file";
        found.push(Finding::new(Level::Unsafe, "nats_password", message, remedy));
    }
    if role != Role::Client {
        for endpoint in settings.etcd.endpoints.iter().filter(|endpoint| !is_local(endpoint)) {
            if settings.etcd.tls.is_none() {
                let message = format!("etcd at {} is talked to without TLS", host_of(endpoint));
                let remedy = "set etcd.tls.ca_file, cert_file and key_file, and client-cert-auth on the server";
                found.push(Finding::new(Level::Unsafe, "etcd_tls", message, remedy));
            }
        }
    }
    if role == Role::Scheduler && settings.nats.servers.len() > 1 && settings.log.replicas < 3 {
        let (servers, replicas) = (settings.nats.servers.len(), settings.log.replicas);
        let message = format!("log.replicas is {replicas} with {servers} NATS servers: losing one can lose the log");
        found.push(Finding::new(Level::Unsafe, "log_replicas", message, "set log.replicas to 3, one for each zone"));
    }
    if let Some(endpoint) = settings.telemetry.otlp_endpoint.as_ref().filter(|endpoint| !is_local(endpoint))
        && !endpoint.starts_with("https://")
    {
        let message = format!("traces go to {} without TLS: jobs' ids and namespaces are readable", host_of(endpoint));
        let remedy = "write https:// in telemetry.otlp_endpoint, or put a collector on this host";
        found.push(Finding::new(Level::Notice, "otlp_tls", message, remedy));
    }
    for (setting, listen) in
        [("scheduler.listen", settings.scheduler.listen), ("executor.listen", settings.executor.listen)]
    {
        if listen.is_some_and(|address| !address.ip().is_loopback()) {
            let message = format!("{setting} serves metrics and health to whoever reaches it, without TLS");
            let remedy = "let only Prometheus and the health checks reach that port";
            found.push(Finding::new(Level::Notice, "metrics_exposed", message, remedy));
        }
    }
    found
}

/// Every file whose contents must stay secret, by its setting.
fn secrets(settings: &Settings) -> Vec<(&'static str, &PathBuf)> {
    let (nats, etcd) = (&settings.nats, &settings.etcd);
    let mut files: Vec<(&'static str, &PathBuf)> =
        settings.keys.files.iter().map(|path| ("keys.files", path)).collect();
    let single = [
        ("nats.creds_file", nats.creds_file.as_ref()),
        ("nats.password_file", nats.password_file.as_ref()),
        ("nats.nkey_file", nats.nkey_file.as_ref()),
        ("nats.tls.key_file", nats.tls.as_ref().and_then(|tls| tls.key_file.as_ref())),
        ("etcd.password_file", etcd.password_file.as_ref()),
        ("etcd.tls.key_file", etcd.tls.as_ref().and_then(|tls| tls.key_file.as_ref())),
    ];
    files.extend(single.into_iter().filter_map(|(setting, path)| path.map(|path| (setting, path))));
    files
}

fn secret(setting: &'static str, path: &Path) -> Option<Finding> {
    let shown = path.display();
    let mode = match std::fs::metadata(path) {
        Ok(found) => found.permissions().mode() & 0o777,
        Err(error) => {
            let message = format!("{shown}, which {setting} names, cannot be read: {error}");
            return Some(Finding::new(
                Level::Unsafe,
                "secret_file_missing",
                message,
                "put it there, or correct the setting",
            ));
        }
    };
    let remedy = format!("chmod 600 {shown}");
    if mode & 0o007 != 0 {
        let message = format!("{shown}, which {setting} names, is open to everybody on this host (mode {mode:03o})");
        return Some(Finding::new(Level::Unsafe, "secret_file_open", message, remedy));
    }
    (mode & 0o070 != 0).then(|| {
        let message = format!("{shown}, which {setting} names, is open to its group (mode {mode:03o})");
        Finding::new(Level::Notice, "secret_file_group", message, remedy)
    })
}

/// The host in an address such as `nats://user@host:4222` or `host:2379`.
pub fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    match rest.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or(six),
        None => rest.split(':').next().unwrap_or(rest),
    }
}

/// Whether only this machine can be meant.
pub fn is_local(address: &str) -> bool {
    let host = host_of(address);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_store::etcd::EtcdTls;
    use outlive_store::nats::NatsTls;

    fn checks(settings: &Settings, role: Role) -> Vec<(Level, &'static str)> {
        inspect(settings, role).into_iter().map(|finding| (finding.level, finding.check)).collect()
    }

    fn file(dir: &Path, name: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, "x").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    #[test]
    fn what_is_safe_is_not_complained_about() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::default();
        settings.keys.files = vec![file(dir.path(), "key", 0o600)];
        assert_eq!(checks(&settings, Role::Scheduler), []);
        settings.nats.servers = ["a", "b", "c"].map(|zone| format!("tls://nats-{zone}:4222")).to_vec();
        settings.nats.nkey_file = Some(file(dir.path(), "seed", 0o400));
        settings.etcd.endpoints = vec!["https://etcd-a:2379".to_owned()];
        settings.etcd.tls = Some(EtcdTls { ca_file: dir.path().join("ca"), cert_file: None, key_file: None });
        settings.log.replicas = 3;
        assert_eq!(checks(&settings, Role::Scheduler), []);
    }

    #[test]
    fn each_fault_is_found_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut safe = Settings::default();
        safe.keys.files = vec![file(dir.path(), "key", 0o600)];
        let with = |change: &dyn Fn(&mut Settings)| {
            let mut settings = safe.clone();
            change(&mut settings);
            checks(&settings, Role::Scheduler)
        };
        let open = file(dir.path(), "open", 0o644);
        let group = file(dir.path(), "group", 0o640);
        let missing = dir.path().join("missing");
        assert_eq!(with(&|s| s.keys.files.clear()), [(Level::Unsafe, "master_key")]);
        assert_eq!(with(&|s| s.keys.files.push(open.clone())), [(Level::Unsafe, "secret_file_open")]);
        assert_eq!(with(&|s| s.nats.creds_file = Some(open.clone())), [(Level::Unsafe, "secret_file_open")]);
        assert_eq!(with(&|s| s.nats.password_file = Some(group.clone())), [(Level::Notice, "secret_file_group")]);
        assert_eq!(with(&|s| s.nats.nkey_file = Some(missing.clone())), [(Level::Unsafe, "secret_file_missing")]);
        let tls = NatsTls { key_file: Some(open.clone()), ..NatsTls::default() };
        assert_eq!(with(&|s| s.nats.tls = Some(tls.clone())), [(Level::Unsafe, "secret_file_open")]);
        assert_eq!(with(&|s| s.nats.servers = vec!["nats://far:4222".into()]), [(Level::Unsafe, "nats_tls")]);
        let named = "tls://me:secret@far:4222";
        assert_eq!(with(&|s| s.nats.servers = vec![named.into()]), [(Level::Unsafe, "nats_password")]);
        assert_eq!(with(&|s| s.etcd.endpoints = vec!["10.0.0.1:2379".into()]), [(Level::Unsafe, "etcd_tls")]);
        let three = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(str::to_owned).to_vec();
        assert_eq!(with(&|s| s.nats.servers = three.clone()), [(Level::Unsafe, "log_replicas")]);
        let everywhere = "0.0.0.0:9090".parse().expect("an address");
        assert_eq!(with(&|s| s.scheduler.listen = Some(everywhere)), [(Level::Notice, "metrics_exposed")]);
        let collector = |endpoint: &str| with(&|s| s.telemetry.otlp_endpoint = Some(endpoint.to_owned()));
        assert_eq!(collector("http://collector:4318"), [(Level::Notice, "otlp_tls")]);
        assert_eq!(collector("https://collector:4318"), []);
        assert_eq!(collector("http://127.0.0.1:4318"), []);
        let messages: String = inspect(
            &{
                let mut s = safe.clone();
                s.nats.servers = vec![named.into()];
                s
            },
            Role::Client,
        )
        .into_iter()
        .map(|finding| finding.message)
        .collect();
        assert!(!messages.contains("secret"), "{messages}");
    }

    #[test]
    fn hosts_are_read_from_addresses() {
        for (address, host, local) in [
            ("nats://127.0.0.1:4222", "127.0.0.1", true),
            ("tls://u:p@nats-a:4222", "nats-a", false),
            ("localhost", "localhost", true),
            ("[::1]:2379", "::1", true),
            ("https://[2001:db8::1]:2379", "2001:db8::1", false),
            ("10.0.0.1:2379", "10.0.0.1", false),
        ] {
            assert_eq!((host_of(address), is_local(address)), (host, local), "{address}");
        }
    }
}
