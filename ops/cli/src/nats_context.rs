//! NATS contexts: how the `nats` command keeps the addresses and credentials of servers, in
//! `~/.config/nats/context/<name>.json`.
//!
//! Deliberately not here: choosing one by itself. Only `--context` does.

use crate::failure::Failure;
use async_nats::ConnectOptions;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A context file is a few lines; this only keeps a wrong path from being read for ever.
const CONTEXT_BYTES_MAX: u64 = 1024 * 1024;

/// What a context may say. Fields that only other commands use are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NatsContext {
    pub url: String,
    token: String,
    user: String,
    password: String,
    creds: String,
    nkey: String,
    cert: String,
    key: String,
    ca: String,
    inbox_prefix: String,
    tls_first: bool,
    nsc: String,
    user_jwt: String,
    socks_proxy: String,
}

/// Reads the context called `name`.
pub fn load(name: &str) -> Result<NatsContext, Failure> {
    let directory = directory().ok_or_else(|| {
        Failure::usage(format!("the context `{name}` cannot be looked up: neither XDG_CONFIG_HOME nor HOME is set"))
    })?;
    load_from(&directory, name)
}

fn directory() -> Option<PathBuf> {
    let configuration = match std::env::var_os("XDG_CONFIG_HOME").filter(|v| !v.is_empty()) {
        Some(set) => PathBuf::from(set),
        None => std::env::home_dir()?.join(".config"),
    };
    Some(configuration.join("nats").join("context"))
}

fn load_from(directory: &Path, name: &str) -> Result<NatsContext, Failure> {
    if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(Failure::usage(format!("`{name}` is not the name of a NATS context: see `nats context ls`")));
    }
    let path = directory.join(format!("{name}.json"));
    let shown = path.display();
    let refused = |why: String| Failure::usage(format!("the NATS context `{name}` cannot be used: {shown} {why}"));
    let length = std::fs::metadata(&path).map_err(|e| refused(format!("cannot be read ({e})")))?.len();
    if length > CONTEXT_BYTES_MAX {
        return Err(refused(format!("has {length} bytes; a context has at most {CONTEXT_BYTES_MAX}")));
    }
    let text = std::fs::read(&path).map_err(|e| refused(format!("cannot be read ({e})")))?;
    let context: NatsContext = serde_json::from_slice(&text).map_err(|e| refused(format!("is not a context ({e})")))?;
    for (field, value) in
        [("nsc", &context.nsc), ("user_jwt", &context.user_jwt), ("socks_proxy", &context.socks_proxy)]
    {
        if !value.is_empty() {
            return Err(refused(format!("sets `{field}`, which outlive does not support: use `creds`")));
        }
    }
    Ok(context)
}

impl NatsContext {
    /// Adds what the context says to `options`. Reads the files that it names.
    pub fn apply(&self, mut options: ConnectOptions) -> Result<ConnectOptions, Failure> {
        if !self.creds.is_empty() {
            options = with_credentials(options, &expanded(&self.creds))?;
        } else if !self.nkey.is_empty() {
            let path = expanded(&self.nkey);
            let seed = std::fs::read_to_string(&path).map_err(|e| unreadable("nkey", &path, &e))?;
            options = options.nkey(seed.trim().to_owned());
        } else if !self.token.is_empty() {
            options = options.token(self.token.clone());
        } else if !self.user.is_empty() {
            options = if self.password.is_empty() {
                // As the `nats` command reads it: a user without a password is a token.
                options.token(self.user.clone())
            } else {
                options.user_and_password(self.user.clone(), self.password.clone())
            };
        }
        if !self.ca.is_empty() {
            options = options.add_root_certificates(expanded(&self.ca));
        }
        match (self.cert.is_empty(), self.key.is_empty()) {
            (true, true) => {}
            (false, false) => options = options.add_client_certificate(expanded(&self.cert), expanded(&self.key)),
            _ => return Err(Failure::usage("the NATS context gives one of `cert` and `key`: it takes both, or none")),
        }
        if !self.inbox_prefix.is_empty() {
            options = options.custom_inbox_prefix(&self.inbox_prefix);
        }
        Ok(if self.tls_first { options.tls_first() } else { options })
    }
}

/// Adds the credentials in the file at `path`.
pub fn with_credentials(options: ConnectOptions, path: &Path) -> Result<ConnectOptions, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| unreadable("credentials", path, &e))?;
    options.credentials(&text).map_err(|e| unreadable("credentials", path, &e))
}

fn unreadable(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("the {what} file {} cannot be used: {error}", path.display()))
}

fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(text: &str) -> Result<NatsContext, Failure> {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("prod.json"), text).expect("written");
        load_from(directory.path(), "prod")
    }

    #[test]
    fn a_context_is_read_with_what_others_put_there() {
        let context = stored(r#"{"description":"x","url":"nats://a:4222,nats://b:4222","user":"u","password":"p"}"#)
            .expect("it is read");
        assert_eq!(context.url, "nats://a:4222,nats://b:4222");
        assert!(context.apply(ConnectOptions::new()).is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let message = |result: Result<NatsContext, Failure>| result.expect_err("it is refused").to_string();
        assert!(message(stored("{")).contains("is not a context"));
        assert!(message(stored(r#"{"nsc":"nsc://x"}"#)).contains("`nsc`"));
        let directory = tempfile::tempdir().expect("a directory");
        assert!(message(load_from(directory.path(), "absent")).contains("absent.json cannot be read"));
        assert!(message(load_from(directory.path(), "../x")).contains("`../x`"));
        let no_file = NatsContext { creds: "/nonexistent/c".into(), ..NatsContext::default() };
        assert!(no_file.apply(ConnectOptions::new()).is_err());
        let half = NatsContext { cert: "c".into(), ..NatsContext::default() };
        assert!(half.apply(ConnectOptions::new()).is_err());
    }
}
