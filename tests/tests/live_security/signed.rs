//! Who vouches for whom to a nats-server in operator mode: an operator for accounts, an account for its users, each in
//! a JWT, as `nsc` makes them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use outlive_schemas::permission::Who;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// `-1` is what "without a limit" is written as.
const NO_LIMIT: i64 = -1;

pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
}

/// What `issuer` says of `subject`.
fn signed(issuer: &KeyPair, subject: &KeyPair, name: &str, kind: &str, mut claims: Value) -> String {
    claims["type"] = json!(kind);
    claims["version"] = json!(2);
    let mut body = json!({
        "iat": now_seconds(), "iss": issuer.public_key(), "name": name, "sub": subject.public_key(), "nats": claims,
    });
    // An id that is another for other claims; what it is made by nobody asks.
    body["jti"] = json!(blake3::hash(body.to_string().as_bytes()).to_hex().to_uppercase());
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let said = format!("{}.{}", part(json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(body));
    let signature = issuer.sign(said.as_bytes()).expect("it has a seed");
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Vouches for itself.
pub fn operator(key: &KeyPair) -> String {
    signed(key, key, "outlive-test", "operator", json!({}))
}

/// `revoked` are users' public keys, of whom nothing that was signed until now counts any more.
pub fn account(operator: &KeyPair, key: &KeyPair, name: &str, has_jetstream: bool, revoked: &[String]) -> String {
    let mut limits = json!({"wildcards": true});
    for limit in ["subs", "data", "payload", "imports", "exports", "conn", "leaf"] {
        limits[limit] = json!(NO_LIMIT);
    }
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        limits[limit] = json!(if has_jetstream { NO_LIMIT } else { 0 });
    }
    let revocations: serde_json::Map<_, _> = revoked.iter().map(|key| (key.clone(), json!(now_seconds()))).collect();
    let claims = json!({
        "limits": limits, "default_permissions": {"pub": {}, "sub": {}}, "revocations": revocations,
    });
    signed(operator, key, name, "account", claims)
}

/// A user's credentials file, with the permissions of such a user, and its public key.
pub fn credentials(account: &KeyPair, who: &Who, name: &str) -> (String, String) {
    let key = KeyPair::new_user();
    let may = who.permissions();
    let claims = json!({
        "pub": {"allow": may.publish}, "sub": {"allow": may.subscribe},
        "subs": NO_LIMIT, "data": NO_LIMIT, "payload": NO_LIMIT,
    });
    let jwt = signed(account, &key, name, "user", claims);
    let seed = key.seed().expect("it was made with a seed");
    let file = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    (file, key.public_key())
}
