//! Which NATS servers to talk to, and as whom: flags first, then a NATS context, then the configuration.

use crate::args::Global;
use crate::client::pauses;
use crate::config;
use crate::failure::Failure;
use crate::nats_context::{self, NatsContext, with_credentials};
use crate::progress::Progress;
use async_nats::{ConnectErrorKind, ConnectOptions, ServerAddr};
use backon::Retryable;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::time::Millis;
use outlive_store::nats::{self, NatsConfig, NatsError};
use std::cell::OnceCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How this connection is called on the server.
const CLIENT_NAME: &str = "outlive command";
/// A dead server says nothing about itself; asked this often, it is given up within seconds.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long one server may take to let us in.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Where to connect to, and as whom.
#[derive(Debug)]
enum Target {
    Configured(NatsConfig),
    Context { servers: Vec<ServerAddr>, context: NatsContext, creds: Option<PathBuf> },
}

/// Why one try did not connect.
enum Fault {
    /// Nobody is there; somebody may be later.
    Again(anyhow::Error),
    Final(anyhow::Error),
}

/// Connects, and says to what. Tries again for as long as `patience` lasts where nobody is there.
pub async fn open(global: &Global, patience: Duration) -> anyhow::Result<(async_nats::Client, String)> {
    let target = Target::of(global)?;
    let shown = target.shown();
    let deadline = Instant::now() + patience;
    let progress = OnceCell::new();
    let connect = || target.connect();
    let connected = connect
        .retry(pauses())
        .when(|fault| matches!(fault, Fault::Again(_)) && Instant::now() < deadline)
        .notify(|_, _| {
            progress.get_or_init(|| Progress::start(format!("NATS at {shown} cannot be reached; trying again")));
        })
        .await;
    drop(progress);
    match connected {
        Ok(client) => Ok((client, shown)),
        Err(Fault::Final(error)) => Err(error),
        Err(Fault::Again(error)) => {
            let patience = Millis(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
            Err(error.context(Failure::Unavailable(format!(
                "NATS at {shown} could not be reached within {patience}: check that nats-server runs there and that \
                 --server, --context or nats.servers names it"
            ))))
        }
    }
}

impl Target {
    fn of(global: &Global) -> anyhow::Result<Target> {
        let Some(name) = &global.context else {
            let mut nats = config::load(global)?.settings.nats;
            if let Some(list) = &global.server {
                nats.servers = split(list);
            }
            if let Some(creds) = &global.creds {
                // One identity replaces another.
                let (servers, tls, inbox_prefix) = (nats.servers, nats.tls, nats.inbox_prefix);
                nats =
                    NatsConfig { servers, tls, inbox_prefix, creds_file: Some(creds.clone()), ..NatsConfig::default() };
            }
            return Ok(Target::Configured(nats));
        };
        let context = nats_context::load(name)?;
        let servers = parsed(&split(global.server.as_ref().unwrap_or(&context.url)))?;
        Ok(Target::Context { servers, context, creds: global.creds.clone() })
    }

    async fn connect(&self) -> Result<async_nats::Client, Fault> {
        match self {
            Target::Configured(config) => {
                let connected = nats::connect(config, CLIENT_NAME).await;
                connected.map(|nats| nats.client).map_err(|error| match error {
                    NatsError::Unreachable { .. } => Fault::Again(error.into()),
                    NatsError::Denied { .. } => Fault::Final(denied(error)),
                    wrong => {
                        let usage = Failure::usage("the connection to NATS is not set up well");
                        Fault::Final(anyhow::Error::from(wrong).context(usage))
                    }
                })
            }
            Target::Context { servers, context, creds } => {
                let options = options(context, creds.as_ref()).map_err(|failure| Fault::Final(failure.into()))?;
                options.connect(&servers[..]).await.map_err(|error| match error.kind() {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        Fault::Final(denied(error))
                    }
                    _ => Fault::Again(error.into()),
                })
            }
        }
    }

    /// The addresses as they may be shown: without the users and passwords they may hold.
    fn shown(&self) -> String {
        let shown = |server: &ServerAddr| format!("{}://{}:{}", server.scheme(), server.host(), server.port());
        let shown: Vec<String> = match self {
            // What does not parse is refused on connecting, by name.
            Target::Configured(config) => {
                config.servers.iter().filter_map(|s| s.parse().ok().as_ref().map(shown)).collect()
            }
            Target::Context { servers, .. } => servers.iter().map(shown).collect(),
        };
        shown.join(",")
    }
}

fn options(context: &NatsContext, creds: Option<&PathBuf>) -> Result<ConnectOptions, Failure> {
    let options = ConnectOptions::new().name(CLIENT_NAME).ping_interval(PING_EVERY).connection_timeout(CONNECT_WITHIN);
    let options = context.apply(options)?;
    match creds {
        Some(path) => with_credentials(options, path),
        None => Ok(options),
    }
}

fn denied(error: impl Into<anyhow::Error>) -> anyhow::Error {
    let message = "NATS refused the credentials: check --creds, --context, or `nats` in the configuration";
    error.into().context(Failure::Refused(Rejection::new(ErrorCode::Unauthorized, message)))
}

fn split(list: &str) -> Vec<String> {
    list.split(',').map(|server| server.trim().to_owned()).filter(|server| !server.is_empty()).collect()
}

fn parsed(servers: &[String]) -> Result<Vec<ServerAddr>, Failure> {
    if servers.is_empty() {
        return Err(Failure::usage("the NATS context names no server: give --server nats://host:4222 as well"));
    }
    let parse = |server: &String| {
        server.parse().map_err(|e| {
            Failure::usage(format!("`{server}` is not the address of a NATS server, such as nats://host:4222: {e}"))
        })
    };
    servers.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_split_and_checked() {
        assert_eq!(parsed(&split("nats://a:4222, b,")).expect("they parse").len(), 2);
        assert!(parsed(&split(" ,")).is_err());
        let error = parsed(&split("http://a")).expect_err("it is refused");
        assert!(error.to_string().contains("`http://a`"));
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        let servers = split("nats://me:secret@a:4222,b");
        let target = Target::Configured(NatsConfig { servers, ..NatsConfig::default() });
        assert_eq!(target.shown(), "nats://a:4222,nats://b:4222");
    }
}
