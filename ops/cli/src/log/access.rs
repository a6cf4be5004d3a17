//! The log, its keys and its witness, as the configuration leads to them.

use crate::args::Global;
use crate::config;
use crate::connection;
use crate::failure::Failure;
use anyhow::Context;
use outlive_store::bridge::EtcdBridge;
use outlive_store::etcd;
use outlive_store::frame::FrameOpener;
use outlive_store::key_store::{JetStreamKeys, KeyStore};
use outlive_store::keyring::Keyring;
use outlive_store::leadership::{EtcdLeadership, TTL_DEFAULT};
use outlive_store::log::jetstream::JetStreamLog;
use outlive_store::nats::Nats;
use outlive_store::registry::EtcdRegistry;
use outlive_store::seal::Key;
use std::sync::Arc;
use std::time::Duration;

pub struct Access {
    pub log: JetStreamLog,
    pub opener: FrameOpener,
    /// What a new commit is sealed with; nothing where there is no log yet.
    pub sealing: Option<Key>,
    pub leadership: EtcdLeadership,
    pub bridge: EtcdBridge,
    pub registry: EtcdRegistry,
}

pub async fn open(global: &Global) -> anyhow::Result<Access> {
    let settings = config::load(global)?.settings;
    let keyring =
        Keyring::load(&settings.keys).context(Failure::usage("the log cannot be opened without its master key"))?;
    let (client, servers) = connection::open(global, Duration::from(global.request_timeout)).await?;
    let nats = Nats { jetstream: async_nats::jetstream::new(client.clone()), client };
    let keys = JetStreamKeys::new(nats.jetstream.clone(), Arc::new(keyring)).log_keys().await;
    let keys = keys.with_context(|| format!("the log's keys cannot be read at {servers}"))?;
    let etcd = etcd::connect(&settings.etcd).await.context(Failure::Unavailable("etcd cannot be used".to_owned()))?;
    let leadership = EtcdLeadership::new(&etcd, &settings.cluster.name, TTL_DEFAULT);
    let bridge = EtcdBridge::new(&etcd, &settings.cluster.name);
    let registry = EtcdRegistry::new(&etcd, &settings.cluster.name, TTL_DEFAULT);
    let opener = FrameOpener::new(keys.iter());
    Ok(Access { log: JetStreamLog::new(nats), opener, sealing: keys.into_iter().next(), leadership, bridge, registry })
}
