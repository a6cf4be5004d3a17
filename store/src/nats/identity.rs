//! Who we are to NATS. Each connection reads it anew from its files, so that what is replaced there counts from the
//! next connection on, and a running one is not disturbed.

use super::{NatsConfig, NatsError};
use async_nats::Auth;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Credentials are a few lines; more is some other file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Nobody,
    /// A JWT and the seed of its key, as `nsc` writes them.
    Creds(PathBuf),
    /// The seed of a key that the server knows.
    Nkey(PathBuf),
    User {
        user: String,
        password_file: PathBuf,
    },
}

impl Identity {
    /// Errors where the configuration contradicts itself.
    pub(super) fn of(config: &NatsConfig) -> Result<Identity, NatsError> {
        let identities = [
            ("creds_file", config.creds_file.is_some()),
            ("user", config.user.is_some()),
            ("nkey_file", config.nkey_file.is_some()),
        ];
        let mut given = identities.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            return Err(NatsError::TwoIdentities { first, second });
        }
        Ok(match (&config.user, &config.password_file) {
            (Some(user), Some(path)) => Identity::User { user: user.clone(), password_file: path.clone() },
            (Some(_), None) => return Err(NatsError::Incomplete { given: "user", missing: "password_file" }),
            (None, Some(_)) => return Err(NatsError::Incomplete { given: "password_file", missing: "user" }),
            (None, None) => match (&config.creds_file, &config.nkey_file) {
                (Some(path), _) => Identity::Creds(path.clone()),
                (None, Some(path)) => Identity::Nkey(path.clone()),
                (None, None) => Identity::Nobody,
            },
        })
    }

    /// What a connection says, given what the server wants signed.
    pub(super) async fn prove(&self, nonce: &[u8]) -> Result<Auth, NatsError> {
        let mut auth = Auth::new();
        match self {
            Identity::Nobody => {}
            Identity::User { user, password_file } => {
                let password = secret("password_file", password_file).await?;
                auth.username = Some(user.clone());
                auth.password = Some(password.trim_end_matches(['\r', '\n']).to_owned());
            }
            Identity::Nkey(path) => {
                let seed = secret("nkey_file", path).await?;
                let key = nkeys::KeyPair::from_seed(seed.trim()).map_err(|e| bad("nkey_file", path, e))?;
                auth.nkey = Some(key.public_key());
                auth.signature = Some(key.sign(nonce).map_err(|e| bad("nkey_file", path, e))?);
            }
            Identity::Creds(path) => {
                let text = secret("creds_file", path).await?;
                let part = |what: &str| {
                    enclosed(&text, what).ok_or_else(|| bad("creds_file", path, format!("it holds no {what}")))
                };
                let (jwt, seed) = (part("NATS USER JWT")?, part("USER NKEY SEED")?);
                let key = nkeys::KeyPair::from_seed(seed).map_err(|e| bad("creds_file", path, e))?;
                auth.jwt = Some(jwt.to_owned());
                auth.signature = Some(key.sign(nonce).map_err(|e| bad("creds_file", path, e))?);
            }
        }
        Ok(auth)
    }
}

/// What stands between the lines that begin and end `what`.
fn enclosed<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    let begin = format!("BEGIN {what}-");
    let mut lines = text.lines();
    lines.by_ref().find(|line| line.contains(&begin))?;
    lines.map(str::trim).find(|line| !line.is_empty()).filter(|line| !line.starts_with('-'))
}

fn bad(setting: &'static str, path: &Path, why: impl ToString) -> NatsError {
    let source = io::Error::new(io::ErrorKind::InvalidData, why.to_string());
    NatsError::File { setting, path: path.to_owned(), source }
}

async fn secret(setting: &'static str, path: &Path) -> Result<Zeroizing<String>, NatsError> {
    let unreadable = |source| NatsError::File { setting, path: path.to_owned(), source };
    let length = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        return Err(bad(setting, path, format!("it has {length} bytes; the limit is {FILE_BYTES_MAX}")));
    }
    tokio::fs::read_to_string(path).await.map(Zeroizing::new).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY";

    #[tokio::test]
    async fn each_connection_reads_its_files_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("password");
        std::fs::write(&path, "first\n").expect("written");
        let identity = Identity::User { user: "me".to_owned(), password_file: path.clone() };
        let said = async || identity.prove(b"").await.expect("proved").password.expect("a password");
        assert_eq!(said().await, "first");
        std::fs::write(&path, "second").expect("written");
        assert_eq!(said().await, "second");
    }

    #[tokio::test]
    async fn keys_and_credentials_sign_what_the_server_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let (nkey, creds) = (dir.path().join("seed"), dir.path().join("creds"));
        std::fs::write(&nkey, format!("{SEED}\n")).expect("written");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\nheader.body.signature\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(&creds, text).expect("written");
        let key = nkeys::KeyPair::from_seed(SEED).expect("a seed");
        let auth = Identity::Nkey(nkey).prove(b"nonce").await.expect("proved");
        assert_eq!(auth.nkey, Some(key.public_key()));
        key.verify(b"nonce", &auth.signature.expect("signed")).expect("by this key");
        let auth = Identity::Creds(creds.clone()).prove(b"nonce").await.expect("proved");
        assert_eq!(auth.jwt.as_deref(), Some("header.body.signature"));
        key.verify(b"nonce", &auth.signature.expect("signed")).expect("by this key");

        std::fs::write(&creds, "-----BEGIN NATS USER JWT-----\n------END NATS USER JWT------\n").expect("written");
        let error = Identity::Creds(creds).prove(b"").await.map(drop).expect_err("nothing in it");
        assert!(error.to_string().contains("nats.creds_file"), "{error}");
    }
}
