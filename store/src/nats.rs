//! The connection to NATS: where the servers are, who we are to them, and whether they are new enough.
//!
//! Everything that a job's way takes over NATS goes through a [`Nats`] made here. What is kept there is the business
//! of `log`, `blob`, `key_store` and `job_log`. No credentials appear in logs or errors.

use crate::telemetry;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{AuthError, Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, jetstream};
use identity::Identity;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

pub use publish::{PublishFailure, publish};
pub use read::{BatchRequest, ReadBatchError, read_batch};
pub use stream::{EnsureStreamError, ensure_stream};

mod identity;
mod publish;
mod read;
mod stream;

/// A silent server is noticed after twice this. The client's own default of a minute would hide a lost host.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// One server's whole handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One request or acknowledgement; when it is over the outcome is unknown. Longer than a slow disk, shorter than
/// JetStream's election, so that waiting for the latter is a matter of trying again.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Delays between tries to reconnect begin here and double…
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(10);
/// …up to here: a server that is back should be used at once, and one dial in a quarter of a second hurts nobody.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(250);
/// Messages waiting for one subscriber. A batch read must stay below it, or the client drops what comes after.
pub const SUBSCRIPTION_CAPACITY: usize = 65_536;
/// The oldest server that Outlive runs on.
pub const SERVER_VERSION_MIN: (u64, u64, u64) = (2, 14, 4);

/// The `[nats]` section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    pub servers: Vec<String>,
    /// A credentials file as `nsc` writes it: a JWT and its key.
    pub creds_file: Option<PathBuf>,
    /// With `password_file`.
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    /// An nkey's seed.
    pub nkey_file: Option<PathBuf>,
    /// What the subjects of answers begin with, where this user may not subscribe to all of `_INBOX.>`.
    pub inbox_prefix: Option<String>,
    pub tls: Option<NatsTls>,
}

/// Asks for TLS; each file is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsTls {
    /// Whom to trust instead of the system's authorities.
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl Default for NatsConfig {
    fn default() -> Self {
        NatsConfig {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            creds_file: None,
            user: None,
            password_file: None,
            nkey_file: None,
            inbox_prefix: None,
            tls: None,
        }
    }
}

/// A connection that mends itself for ever.
#[derive(Clone, Debug)]
pub struct Nats {
    pub client: Client,
    pub jetstream: jetstream::Context,
}

#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("`nats.servers` is empty: name at least one server, such as nats://127.0.0.1:4222")]
    NoServers,
    #[error("`{server}` in `nats.servers` is no address of a NATS server: write it like nats://host:4222")]
    BadServer {
        server: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`nats.{first}` and `nats.{second}` are both set: a connection has one identity, remove one of them")]
    TwoIdentities { first: &'static str, second: &'static str },
    #[error("`nats.{given}` is set without `nats.{missing}`: set both or neither")]
    Incomplete { given: &'static str, missing: &'static str },
    #[error("`nats.inbox_prefix` is `{given}`: write a subject without wildcards, such as _INBOX.scheduler")]
    InboxPrefix { given: String },
    #[error("cannot use the file {} that `nats.{setting}` names: check that it exists, can be read and is valid", path.display())]
    File {
        setting: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the NATS servers refused our credentials (tried {servers}): check creds_file, user and password_file, or nkey_file under `nats`"
    )]
    Denied {
        servers: String,
        #[source]
        source: async_nats::ConnectError,
    },
    #[error(
        "no NATS server can be reached (tried {servers}): check that one runs there and that `nats.servers` is right"
    )]
    Unreachable {
        servers: String,
        #[source]
        source: async_nats::ConnectError,
    },
}

/// Connects, and stays connected. `client_name` is how operators find this connection on the server.
///
/// Errors when none of the servers lets us in now; later losses of the connection are mended without end.
pub async fn connect(config: &NatsConfig, client_name: &str) -> Result<Nats, NatsError> {
    if config.servers.is_empty() {
        return Err(NatsError::NoServers);
    }
    let shown = config.servers.iter().map(|server| without_credentials(server)).collect::<Vec<_>>().join(", ");
    let addresses: Result<Vec<ServerAddr>, NatsError> = config
        .servers
        .iter()
        .map(|server| {
            let bad = |source| NatsError::BadServer { server: without_credentials(server), source };
            server.parse().map_err(bad)
        })
        .collect();
    let client = identified(config)
        .await?
        .name(client_name)
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .max_reconnects(None)
        // Whoever names the servers names those of its own zone first. One that hangs on another zone's server is taken
        // for lost together with that zone, for it notices only after some seconds that the server is gone.
        .retain_servers_order()
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(|event| async move { report(&event) })
        .connect(addresses?)
        .await
        .map_err(|source| match source.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                NatsError::Denied { servers: shown.clone(), source }
            }
            _ => NatsError::Unreachable { servers: shown.clone(), source },
        })?;
    let jetstream = ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
    Ok(Nats { client, jetstream })
}

/// The options that say who we are.
async fn identified(config: &NatsConfig) -> Result<ConnectOptions, NatsError> {
    let identity = Identity::of(config)?;
    // What is wrong with a file is best told before anybody is asked for a connection.
    identity.prove(b"").await?;
    let mut options = match identity {
        Identity::Nobody => ConnectOptions::new(),
        identity => ConnectOptions::with_auth_callback(move |nonce| {
            let identity = identity.clone();
            async move { identity.prove(&nonce).await.map_err(AuthError::new) }
        }),
    };
    if let Some(prefix) = &config.inbox_prefix {
        if prefix.is_empty() || prefix.starts_with('.') || prefix.ends_with('.') || prefix.contains(['*', '>', ' ']) {
            return Err(NatsError::InboxPrefix { given: prefix.clone() });
        }
        options = options.custom_inbox_prefix(prefix);
    }
    if let Some(tls) = &config.tls {
        options = options.require_tls(true);
        for (setting, path) in
            [("tls.ca_file", &tls.ca_file), ("tls.cert_file", &tls.cert_file), ("tls.key_file", &tls.key_file)]
        {
            if let Some(path) = path {
                let unreadable = |source| NatsError::File { setting, path: path.clone(), source };
                tokio::fs::metadata(path).await.map_err(unreadable)?;
            }
        }
        if let Some(path) = &tls.ca_file {
            options = options.add_root_certificates(path.clone());
        }
        match (&tls.cert_file, &tls.key_file) {
            (Some(cert), Some(key)) => options = options.add_client_certificate(cert.clone(), key.clone()),
            (Some(_), None) => return Err(NatsError::Incomplete { given: "tls.cert_file", missing: "tls.key_file" }),
            (None, Some(_)) => return Err(NatsError::Incomplete { given: "tls.key_file", missing: "tls.cert_file" }),
            (None, None) => {}
        }
    }
    Ok(options)
}

/// An address as it may be shown: what stands before the `@` can hold a password.
fn without_credentials(server: &str) -> String {
    let (scheme, rest) = server.split_once("://").map_or(("", server), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

fn reconnect_delay(tries: usize) -> Duration {
    let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    if tries == 0 { Duration::ZERO } else { (RECONNECT_DELAY_MIN * (1 << doublings)).min(RECONNECT_DELAY_MAX) }
}

fn report(event: &Event) {
    match event {
        Event::Connected => {
            telemetry::metric::nats_connected(true);
            tracing::info!("connected to NATS");
        }
        Event::Disconnected => {
            telemetry::metric::nats_connected(false);
            tracing::warn!("the connection to NATS is lost; reconnecting");
        }
        Event::SlowConsumer(subscription) => {
            tracing::error!(subscription, "messages are dropped, for they come faster than they are read");
        }
        other => tracing::info!("NATS: {other}"),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ServerVersionError {
    #[error(
        "the NATS server `{server}` has version {found}, and Outlive needs {} or newer: older ones do not fence \
         proposals by leadership term and can lose or repeat commits; upgrade it",
        written(SERVER_VERSION_MIN)
    )]
    TooOld { server: String, found: String },
    #[error(
        "the NATS server `{server}` says its version is `{found}`, which is no version; Outlive needs {} or newer",
        written(SERVER_VERSION_MIN)
    )]
    Unknown { server: String, found: String },
    #[error("the NATS server `{server}` has no JetStream: start it with JetStream on")]
    NoJetStream { server: String },
}

/// Refuses the server that we are connected to if it is too old, or lacks JetStream.
pub fn require_server_version(client: &Client) -> Result<(), ServerVersionError> {
    let info = client.server_info();
    require_version(&info.server_name, &info.version)?;
    if info.jetstream { Ok(()) } else { Err(ServerVersionError::NoJetStream { server: info.server_name }) }
}

fn require_version(server: &str, found: &str) -> Result<(), ServerVersionError> {
    let (server, shown) = (server.to_owned(), found.chars().take(40).collect());
    match parsed(found) {
        Some(version) if version >= SERVER_VERSION_MIN => Ok(()),
        Some(_) => Err(ServerVersionError::TooOld { server, found: shown }),
        None => Err(ServerVersionError::Unknown { server, found: shown }),
    }
}

/// `2.15.1`, `v2.15.1` or `2.15.1-beta.2` as numbers.
pub(crate) fn parsed(version: &str) -> Option<(u64, u64, u64)> {
    let plain = version.trim_start_matches('v').split(['-', '+']).next()?;
    let mut numbers = plain.split('.').map(|part| part.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

fn written((major, minor, patch): (u64, u64, u64)) -> String {
    format!("{major}.{minor}.{patch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused_by_version() {
        for good in ["2.14.4", "2.15.1", "v2.15.0-beta.1", "3.0.0"] {
            assert!(require_version("n", good).is_ok(), "{good}");
        }
        for old in ["2.9.10", "2.10.27", "2.14.3", "0.0.1"] {
            let error = require_version("n1", old).expect_err(old);
            assert!(matches!(error, ServerVersionError::TooOld { .. }));
            let text = error.to_string();
            assert!(text.contains(old) && text.contains("2.14.4") && text.contains("n1"), "{text}");
        }
        for odd in ["", "latest", "2.15", "2.15.1.1", "-1.2.3"] {
            assert!(matches!(require_version("n", odd), Err(ServerVersionError::Unknown { .. })), "{odd}");
        }
    }

    #[test]
    fn addresses_are_shown_without_passwords() {
        assert_eq!(without_credentials("nats://user:p@ss@host:4222"), "nats://host:4222");
        assert_eq!(without_credentials("token@host"), "host");
        assert_eq!(without_credentials("tls://host:4222"), "tls://host:4222");
    }

    #[test]
    fn reconnecting_is_quick_and_capped() {
        assert_eq!(reconnect_delay(0), Duration::ZERO);
        assert_eq!(reconnect_delay(1), RECONNECT_DELAY_MIN);
        assert!((1..200).all(|tries| reconnect_delay(tries) <= RECONNECT_DELAY_MAX));
        assert_eq!(reconnect_delay(usize::MAX), RECONNECT_DELAY_MAX);
    }

    #[tokio::test]
    async fn contradictions_are_named() {
        let base = NatsConfig::default();
        let refused = async |config: NatsConfig| connect(&config, "test").await.expect_err("refused").to_string();
        assert!(refused(NatsConfig { servers: vec![], ..base.clone() }).await.contains("nats.servers"));
        let odd = vec!["ftp://me:secret@host".to_owned()];
        let text = refused(NatsConfig { servers: odd, ..base.clone() }).await;
        assert!(text.contains("ftp://host") && !text.contains("secret"), "{text}");
        let both = NatsConfig { creds_file: Some("a".into()), nkey_file: Some("b".into()), ..base.clone() };
        let text = refused(both).await;
        assert!(text.contains("creds_file") && text.contains("nkey_file"), "{text}");
        let text = refused(NatsConfig { user: Some("me".into()), ..base.clone() }).await;
        assert!(text.contains("password_file"), "{text}");
        let text = refused(NatsConfig { nkey_file: Some("/no/such/seed".into()), ..base.clone() }).await;
        assert!(text.contains("/no/such/seed"), "{text}");
        let tls = NatsTls { ca_file: Some("/no/such/ca.pem".into()), ..NatsTls::default() };
        let text = refused(NatsConfig { tls: Some(tls), ..base.clone() }).await;
        assert!(text.contains("/no/such/ca.pem") && text.contains("tls.ca_file"), "{text}");
        let text = refused(NatsConfig { inbox_prefix: Some("_INBOX.>".to_owned()), ..base }).await;
        assert!(text.contains("inbox_prefix"), "{text}");
    }
}
