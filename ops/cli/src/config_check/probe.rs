//! What only the servers can tell: asked with our own credentials, and as somebody who has none.

use super::inspect::is_local;
use super::{Finding, Level, Role};
use crate::config::Settings;
use async_nats::{HeaderMap, Request, RequestErrorKind};
use outlive_schemas::subject::{LOG_STREAM, LOG_SUBJECT};
use outlive_store::etcd::{self, EtcdConfig, EtcdTls};
use outlive_store::leadership::{EtcdLeadership, Leadership as _};
use outlive_store::log::jetstream::check_stream;
use outlive_store::nats::{self, NatsConfig, NatsError, NatsTls};
use serde::Deserialize;
use std::time::Duration;

const CLIENT_NAME: &str = "outlive config check";
/// A server that may answer does so at once; one that must not stays silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// For a connection and a question, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// A position that no log reaches: the write is refused even where it is permitted.
const NO_POSITION: &str = "18446744073709551614";
/// JetStream's "wrong last sequence": it would have taken the write.
const WRONG_LAST_SEQUENCE: u64 = 10_071;

pub async fn probe(settings: &Settings, role: Role) -> Vec<Finding> {
    let mut found = ask_nats(settings, role).await;
    if role != Role::Client {
        found.extend(ask_etcd(settings).await);
    }
    found
}

async fn ask_nats(settings: &Settings, role: Role) -> Vec<Finding> {
    let local = settings.nats.servers.iter().all(|server| is_local(server));
    // On one machine everybody is at home already.
    let exposed = if local { Level::Notice } else { Level::Unsafe };
    let mut found = Vec::new();
    let ours = match tokio::time::timeout(PATIENCE, nats::connect(&settings.nats, CLIENT_NAME)).await {
        Ok(Ok(ours)) => ours,
        Ok(Err(error @ (NatsError::Unreachable { .. } | NatsError::Denied { .. }))) => {
            let remedy = "see that the server runs and knows these credentials, or use --offline";
            return vec![Finding::new(Level::Unknown, "nats_unreachable", error.to_string(), remedy)];
        }
        Ok(Err(error)) => {
            return vec![Finding::new(Level::Unsafe, "nats_config", error.to_string(), "correct the setting")];
        }
        Err(_) => {
            return vec![Finding::new(Level::Unknown, "nats_unreachable", "NATS does not answer", "see that it runs")];
        }
    };
    if let Err(error) = nats::require_server_version(&ours.client) {
        found.push(Finding::new(Level::Unsafe, "nats_version", error.to_string(), "upgrade the NATS servers"));
    }
    if !ours.client.server_info().tls_required && !local {
        let message = "the NATS server does not require TLS: others may talk to it in the clear";
        found.push(Finding::new(Level::Unsafe, "nats_tls", message, "add a tls block to the server's configuration"));
    }
    if role == Role::Scheduler {
        found.extend(log_stream(&ours, settings.log.replicas).await);
    } else if may_write_log(&ours.client).await {
        let message = "the user of this configuration, who is no scheduler, may write the log";
        found.push(Finding::new(exposed, "log_writable", message, ACCOUNTS));
    }
    let stranger = NatsConfig {
        servers: settings.nats.servers.iter().map(|server| without_user(server)).collect(),
        tls: settings.nats.tls.as_ref().map(|tls| NatsTls { ca_file: tls.ca_file.clone(), ..NatsTls::default() }),
        ..NatsConfig::default()
    };
    if let Ok(Ok(stranger)) = tokio::time::timeout(PATIENCE, nats::connect(&stranger, CLIENT_NAME)).await {
        if may_write_log(&stranger.client).await {
            let message = "whoever reaches NATS may write the log, without any credentials";
            found.push(Finding::new(exposed, "log_writable", message, ACCOUNTS));
        } else {
            let message = "NATS lets in whoever reaches it, without credentials; the log is out of their reach";
            found.push(Finding::new(exposed, "nats_open", message, ACCOUNTS));
        }
    }
    found
}

const ACCOUNTS: &str = "give the servers users and permissions: ops/nats/accounts.conf, ops/docs/security.md";

async fn log_stream(ours: &nats::Nats, replicas: usize) -> Vec<Finding> {
    let found = match tokio::time::timeout(PATIENCE, ours.jetstream.get_stream(LOG_STREAM)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let message = format!("the stream {LOG_STREAM} cannot be looked at: {error}");
            let remedy = "a scheduler makes it at its first start";
            return vec![Finding::new(Level::Notice, "log_stream", message, remedy)];
        }
        Err(_) => {
            let remedy = "a missing permission on $JS.API also looks like this";
            return vec![Finding::new(Level::Unknown, "log_stream", "JetStream does not answer", remedy)];
        }
    };
    let config = &found.cached_info().config;
    let mut findings = Vec::new();
    if let Err(faults) = check_stream(config) {
        findings.push(Finding::new(Level::Unsafe, "log_stream", faults.to_string(), "no scheduler starts on it"));
    }
    if config.num_replicas < replicas {
        let message = format!("{LOG_STREAM} has {} replicas, and log.replicas is {replicas}", config.num_replicas);
        let remedy = format!("nats stream edit {LOG_STREAM} --replicas {replicas}, and the other streams as well");
        findings.push(Finding::new(Level::Unsafe, "log_replicas", message, remedy));
    }
    findings
}

#[derive(Deserialize)]
struct Ack {
    error: Option<AckError>,
}

#[derive(Deserialize)]
struct AckError {
    err_code: u64,
}

/// Whether the log's stream would take a write from this connection. It gets none that it could take.
async fn may_write_log(client: &async_nats::Client) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Sequence", NO_POSITION);
    let request = Request::new().headers(headers).timeout(Some(ANSWER_WITHIN));
    match client.send_request(LOG_SUBJECT, request).await {
        // Any answer is the stream's: whoever may not publish hears nothing.
        Ok(reply) => serde_json::from_slice::<Ack>(&reply.payload)
            .map_or(true, |ack| ack.error.is_none_or(|error| error.err_code == WRONG_LAST_SEQUENCE)),
        Err(error) => matches!(error.kind(), RequestErrorKind::MaxPayloadExceeded),
    }
}

fn without_user(server: &str) -> String {
    match (server.split_once("://"), server.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => server.to_owned(),
    }
}

async fn ask_etcd(settings: &Settings) -> Vec<Finding> {
    let local = settings.etcd.endpoints.iter().all(|endpoint| is_local(endpoint));
    let mut found = Vec::new();
    match tokio::time::timeout(PATIENCE, etcd::connect(&settings.etcd)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            let remedy = "see that etcd runs and knows these credentials, or use --offline";
            return vec![Finding::new(Level::Unknown, "etcd_unreachable", error.to_string(), remedy)];
        }
        Err(_) => {
            return vec![Finding::new(Level::Unknown, "etcd_unreachable", "etcd does not answer", "see that it runs")];
        }
    }
    let stranger = EtcdConfig {
        endpoints: settings.etcd.endpoints.clone(),
        tls: settings.etcd.tls.as_ref().map(|tls| EtcdTls {
            ca_file: tls.ca_file.clone(),
            cert_file: None,
            key_file: None,
        }),
        ..EtcdConfig::default()
    };
    let asked = async {
        let etcd = etcd::connect(&stranger).await.ok()?;
        EtcdLeadership::new(&etcd, &settings.cluster.name, PATIENCE).reign().await.ok()
    };
    if let Ok(Some(_)) = tokio::time::timeout(PATIENCE, asked).await {
        let level = if local { Level::Notice } else { Level::Unsafe };
        let message = "whoever reaches etcd may read who leads, and so most likely end a reign";
        let remedy = "start etcd with --client-cert-auth and --trusted-ca-file, and enable its users";
        found.push(Finding::new(level, "etcd_open", message, remedy));
    }
    found
}
