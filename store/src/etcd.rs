//! The connection to etcd, shared by leadership, the registry and the witness.
//!
//! Requests here end: each has a time-out, reads are tried again for a while, and a write whose answer is unclear is
//! reported as such, for only its caller knows how to settle it. Nothing here says what the keys mean.

use crate::retry::retry;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error as ClientError, GetOptions, Identity, KeyValue,
    PutOptions, ResponseHeader, TlsOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::sync::OnceCell;

pub(crate) use lease::{Ending, KeptLease};

pub(crate) mod lease;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// One request to one member. It is what a member that froze costs, once; an election takes about as long, and is
/// outlasted by trying again.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long reads, and writes that may be repeated, are tried.
pub(crate) const TRY_BOUND: Duration = Duration::from_secs(5);
/// Pings on an idle connection; a host that is gone is noticed after the sum of both.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys in one page of a listing: with values of up to a KiB or so, well below gRPC's 4 MiB for one answer.
const PAGE_KEYS: i64 = 1_000;

/// The `[etcd]` section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EtcdConfig {
    /// `host:port`, or with `http://` or `https://` before it. The first that answers is used: name the nearest first.
    pub endpoints: Vec<String>,
    /// With `password_file`.
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
    pub tls: Option<EtcdTls>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdTls {
    /// Whom to trust.
    pub ca_file: PathBuf,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        EtcdConfig { endpoints: vec!["127.0.0.1:2379".to_owned()], user: None, password_file: None, tls: None }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error("`etcd.endpoints` is empty: name at least one, such as 127.0.0.1:2379")]
    NoEndpoints,
    #[error("`etcd.{given}` is set without `etcd.{missing}`: set both or neither")]
    Incomplete { given: &'static str, missing: &'static str },
    #[error("cannot read the file {} that `etcd.{setting}` names: check that it exists and can be read", path.display())]
    File {
        setting: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`etcd.endpoints` or `etcd.tls` cannot be used (endpoints {endpoints}): {reason}")]
    Unusable { endpoints: String, reason: String },
    #[error(
        "etcd refused our credentials (endpoints {endpoints}): check `etcd.user` and `etcd.password_file`: {reason}"
    )]
    Denied { endpoints: String, reason: String },
    #[error(
        "no etcd can be reached (tried {endpoints}): check that one runs there and that `etcd.endpoints` is right: {reason}"
    )]
    Unreachable { endpoints: String, reason: String },
}

/// A connection that mends itself.
///
/// It stays with one member until that one fails, and then takes the next. The client's own balancing is not used: it
/// takes a frozen member for an idle one, and sends it half of all requests.
#[derive(Clone)]
pub struct Etcd(Arc<Members>);

struct Members {
    members: Vec<Member>,
    options: ConnectOptions,
    /// Which of them is used.
    used: AtomicUsize,
}

struct Member {
    endpoint: String,
    /// Made on first use, because with a user this already asks the member for a token.
    client: OnceCell<Client>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.members.iter().map(|member| &member.endpoint)).finish()
    }
}

/// Connects, and asks for the server's version, so that a wrong address is noticed here and not in an election.
pub async fn connect(config: &EtcdConfig) -> Result<Etcd, EtcdError> {
    if config.endpoints.is_empty() {
        return Err(EtcdError::NoEndpoints);
    }
    let endpoints = config.endpoints.join(", ");
    let members =
        config.endpoints.iter().map(|endpoint| Member { endpoint: endpoint.clone(), client: OnceCell::new() });
    let members = Members { members: members.collect(), options: options(config).await?, used: AtomicUsize::new(0) };
    let etcd = Etcd(Arc::new(members));
    let status = etcd.insist("ask etcd for its version", |mut client| async move { client.status().await }).await;
    let status = status.map_err(|error| match error {
        RequestError::Unusable { reason } => EtcdError::Unusable { endpoints, reason },
        RequestError::Refused { reason, .. } => EtcdError::Denied { endpoints, reason },
        error => EtcdError::Unreachable { endpoints, reason: error.to_string() },
    })?;
    warn_of(status.version());
    Ok(etcd)
}

async fn options(config: &EtcdConfig) -> Result<ConnectOptions, EtcdError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        // A member cut off from the others must say so instead of keeping streams open that stay silent.
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    match (&config.user, &config.password_file) {
        (Some(user), Some(path)) => {
            let password = file("password_file", path).await?;
            let password = String::from_utf8_lossy(&password);
            options = options.with_user(user.as_str(), password.trim_end_matches(['\r', '\n']));
        }
        (Some(_), None) => return Err(EtcdError::Incomplete { given: "user", missing: "password_file" }),
        (None, Some(_)) => return Err(EtcdError::Incomplete { given: "password_file", missing: "user" }),
        (None, None) => {}
    }
    if let Some(tls) = &config.tls {
        let mut with =
            TlsOptions::new().ca_certificate(Certificate::from_pem(file("tls.ca_file", &tls.ca_file).await?));
        match (&tls.cert_file, &tls.key_file) {
            (Some(cert), Some(key)) => {
                let (cert, key) = (file("tls.cert_file", cert).await?, file("tls.key_file", key).await?);
                with = with.identity(Identity::from_pem(cert, key));
            }
            (Some(_), None) => return Err(EtcdError::Incomplete { given: "tls.cert_file", missing: "tls.key_file" }),
            (None, Some(_)) => return Err(EtcdError::Incomplete { given: "tls.key_file", missing: "tls.cert_file" }),
            (None, None) => {}
        }
        options = options.with_tls(with);
    }
    Ok(options)
}

async fn file(setting: &'static str, path: &Path) -> Result<Vec<u8>, EtcdError> {
    tokio::fs::read(path).await.map_err(|source| EtcdError::File { setting, path: path.to_owned(), source })
}

/// Says once per process what is wrong with an old etcd. It is not refused: the log's fence holds all the same.
fn warn_of(version: &str) {
    static ONCE: Once = Once::new();
    if let Some(fault) = fault_of(version) {
        ONCE.call_once(|| tracing::warn!(version, "this etcd {fault}: use 3.5.23 or newer in production"));
    }
}

fn fault_of(version: &str) -> Option<&'static str> {
    match crate::nats::parsed(version)? {
        older if older < (3, 5, 0) => Some("can revoke leases wrongly after a change of its leader"),
        corrupting if corrupting < (3, 5, 3) => Some("can corrupt its data when it is killed"),
        _ => None,
    }
}

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// Of a write it is unknown whether it was done.
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    /// The connection failed; of a write it is unknown whether it was done.
    #[error("{reason}")]
    Broken { reason: String },
    /// etcd's own no, with gRPC's number for it.
    #[error("{reason}")]
    Refused { code: i32, reason: String },
    /// The configuration can never work.
    #[error("{reason}")]
    Unusable { reason: String },
}

/// gRPC's number for "no such thing", which etcd answers for a lease that is over.
pub(crate) const NOT_FOUND: i32 = 5;
/// Refusals that asking again will not change: invalid argument, not found, exists, denied, exhausted (of etcd: its
/// database is full), failed precondition, out of range, unimplemented, unauthenticated.
const FINAL_CODES: [i32; 9] = [3, NOT_FOUND, 6, 7, 8, 9, 11, 12, 16];

impl RequestError {
    fn of(error: &ClientError) -> RequestError {
        match error {
            ClientError::GRpcStatus(status) if FINAL_CODES.contains(&(status.code() as i32)) => {
                RequestError::Refused { code: status.code() as i32, reason: status.message().to_owned() }
            }
            ClientError::GRpcStatus(status) => RequestError::Broken { reason: status.message().to_owned() },
            other => RequestError::Broken { reason: other.to_string() },
        }
    }

    pub(crate) fn passes(&self) -> bool {
        matches!(self, RequestError::TimedOut | RequestError::Broken { .. })
    }
}

impl Etcd {
    /// The member in use, by its number, for what needs a stream. If the stream fails, say so by
    /// [`Etcd::avoid`].
    pub(crate) async fn member(&self) -> Result<(usize, Client), RequestError> {
        let used = self.used();
        let member = &self.0.members[used];
        let connecting = member.client.get_or_try_init(|| async {
            match Client::connect([&member.endpoint], Some(self.0.options.clone())).await {
                Ok(client) => Ok(client),
                Err(error @ (ClientError::InvalidArgs(_) | ClientError::InvalidUri(_))) => {
                    Err(RequestError::Unusable { reason: error.to_string() })
                }
                Err(error) => Err(RequestError::of(&error)),
            }
        });
        let client = match tokio::time::timeout(REQUEST_TIMEOUT, connecting).await {
            Ok(Ok(client)) => client.clone(),
            Ok(Err(error)) => {
                self.avoid(used);
                return Err(error);
            }
            Err(_) => {
                self.avoid(used);
                return Err(RequestError::TimedOut);
            }
        };
        Ok((used, client))
    }

    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes the next member, if this one is still in use: of many whose requests failed, one changes it.
    pub(crate) fn avoid(&self, failed: usize) {
        let next = (failed + 1) % self.0.members.len();
        if self.0.used.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() && next != failed {
            let (from, to) = (&self.0.members[failed].endpoint, &self.0.members[next].endpoint);
            tracing::info!(%from, %to, "an etcd member failed, taking the next");
        }
    }

    /// Asks once. Of a write, any error but a refusal leaves the outcome unknown.
    pub(crate) async fn ask<T, Fut>(&self, request: impl FnOnce(Client) -> Fut) -> Result<T, RequestError>
    where
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let (used, client) = self.member().await?;
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, request(client)).await {
            Ok(answer) => answer.map_err(|error| RequestError::of(&error)),
            Err(_) => Err(RequestError::TimedOut),
        };
        answer.inspect_err(|error| {
            if error.passes() {
                self.avoid(used);
            }
        })
    }

    /// Asks again and again, each time the member that is then in use; for what is harmless to repeat.
    pub(crate) async fn insist<T, Fut>(
        &self,
        what: &'static str,
        request: impl Fn(Client) -> Fut,
    ) -> Result<T, RequestError>
    where
        Fut: Future<Output = Result<T, ClientError>>,
    {
        retry(what, TRY_BOUND, RequestError::passes, || self.ask(&request)).await
    }

    /// One key, and the revision at which it was read.
    pub(crate) async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), RequestError> {
        let mut answer = self.insist("read from etcd", |mut client| async move { client.get(key, None).await }).await?;
        let revision = answer.header().map_or(0, ResponseHeader::revision);
        Ok((answer.take_kvs().into_iter().next(), revision))
    }

    /// Every key with this prefix, all as of one revision. It stops in the page that passes `keys_max`, so that the
    /// caller can tell that there are more.
    pub(crate) async fn list(&self, prefix: &str, keys_max: usize) -> Result<Vec<KeyValue>, RequestError> {
        let (mut found, mut from) = (Vec::<KeyValue>::new(), prefix.as_bytes().to_vec());
        let mut options = GetOptions::new().with_range(end_of(prefix)).with_limit(PAGE_KEYS);
        loop {
            let page = self.insist("list from etcd", |mut client| {
                let (from, options) = (from.clone(), options.clone());
                async move { client.get(from, Some(options)).await }
            });
            let mut page = page.await?;
            if found.is_empty() {
                options = options.with_revision(page.header().map_or(0, ResponseHeader::revision));
            }
            let more = page.more();
            found.append(&mut page.take_kvs());
            match found.last() {
                Some(last) if more && found.len() <= keys_max => from = [last.key(), &[0]].concat(),
                _ => return Ok(found),
            }
        }
    }

    /// The names of every key with this prefix, or one more than `keys_max`.
    pub(crate) async fn keys(&self, prefix: &str, keys_max: usize) -> Result<Vec<String>, RequestError> {
        let limit = i64::try_from(keys_max).unwrap_or(i64::MAX).saturating_add(1);
        let options = GetOptions::new().with_range(end_of(prefix)).with_keys_only().with_limit(limit);
        let found = self.insist("list from etcd", |mut client| {
            let options = options.clone();
            async move { client.get(prefix, Some(options)).await }
        });
        let found = found.await?.take_kvs();
        Ok(found.iter().map(|entry| String::from_utf8_lossy(entry.key()).into_owned()).collect())
    }

    /// Puts a key that only this process writes, so that repeating it is harmless.
    pub(crate) async fn put(&self, key: &str, value: &[u8]) -> Result<(), RequestError> {
        self.insist("write to etcd", |mut client| async move { client.put(key, value, None).await }).await.map(|_| ())
    }

    /// Puts a key under a lease, if it has not changed since the revision `seen` (0: if it is not there). Whether it is
    /// under that lease now, by whichever try.
    pub(crate) async fn put_after(&self, key: &str, value: &[u8], lease: i64, seen: i64) -> Result<bool, RequestError> {
        let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
        let transaction = Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, seen)])
            .and_then([put])
            .or_else([TxnOp::get(key, None)]);
        let done = self.insist("write to etcd", |mut client| {
            let transaction = transaction.clone();
            async move { client.txn(transaction).await }
        });
        let done = done.await?;
        let is_ours = |answer: TxnOpResponse| match answer {
            TxnOpResponse::Get(found) => found.kvs().iter().any(|entry| entry.lease() == lease),
            _ => false,
        };
        Ok(done.succeeded() || done.op_responses().into_iter().any(is_ours))
    }

    /// Tries a transaction once. Any error but a refusal leaves its outcome unknown.
    pub(crate) async fn transaction(&self, transaction: Txn) -> Result<TxnResponse, RequestError> {
        self.ask(|mut client| async move { client.txn(transaction).await }).await
    }

    /// Ends a lease, and with it every key under it. One that is over already is a success.
    pub(crate) async fn revoke(&self, lease: i64, bound: Duration) -> Result<(), RequestError> {
        let revoked = retry("revoke a lease", bound, RequestError::passes, || {
            self.ask(|mut client| async move { client.lease_revoke(lease).await })
        });
        match revoked.await {
            Ok(_) | Err(RequestError::Refused { code: NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The first key after all those with the prefix. Our prefixes end in `/`.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_have_named_faults() {
        assert!(fault_of("3.4.23").is_some_and(|fault| fault.contains("leases")));
        assert!(fault_of("3.5.1").is_some_and(|fault| fault.contains("corrupt")));
        assert_eq!(fault_of("3.5.23"), None);
        assert_eq!(fault_of("3.6.0"), None);
        assert_eq!(fault_of("odd"), None);
    }

    #[tokio::test]
    async fn contradictions_are_named() {
        let base = EtcdConfig::default();
        let refused = async |config: EtcdConfig| connect(&config).await.expect_err("refused").to_string();
        assert!(refused(EtcdConfig { endpoints: vec![], ..base.clone() }).await.contains("etcd.endpoints"));
        assert!(refused(EtcdConfig { user: Some("me".into()), ..base.clone() }).await.contains("password_file"));
        let (user, password_file) = (Some("me".into()), Some("/no/such/password".into()));
        let text = refused(EtcdConfig { user, password_file, ..base }).await;
        assert!(text.contains("/no/such/password"), "{text}");
    }
}
