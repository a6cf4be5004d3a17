//! The registry in etcd: a JSON entry per executor and scheduler, each under its own lease.

use super::{Membership, Registry, RegistryError};
use crate::etcd::{Ending, Etcd, KeptLease, RequestError};
use async_trait::async_trait;
use etcd_client::KeyValue;
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{ExecutorId, SchedulerName};
use outlive_schemas::limits::EXECUTORS_MAX;
use outlive_schemas::subject::etcd as keys;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct EtcdRegistry {
    etcd: Etcd,
    executors: String,
    schedulers: String,
    ttl: Duration,
}

impl EtcdRegistry {
    /// `ttl`: how long an entry outlives a process that fell silent. etcd grants at least 2 s.
    pub fn new(etcd: &Etcd, cluster: &str, ttl: Duration) -> EtcdRegistry {
        EtcdRegistry {
            etcd: etcd.clone(),
            executors: keys::executors(cluster),
            schedulers: keys::schedulers(cluster),
            ttl,
        }
    }

    /// A put that was given up may still arrive, after the next try's. It must not bind the entry to its own lease then:
    /// the entry would end with that one, while who it stands for lives. So each put is nothing once there was another.
    async fn enter(&self, key: &str, value: &[u8]) -> Result<Arc<dyn Membership>, RegistryError> {
        let (found, _) = self.etcd.get(key).await.map_err(unavailable)?;
        let seen = found.map_or(0, |entry| entry.mod_revision());
        let lease = KeptLease::grant(&self.etcd, self.ttl, Ending::Proven).await.map_err(unavailable)?;
        let reason = match self.etcd.put_after(key, value, lease.id(), seen).await {
            Ok(true) => return Ok(Arc::new(EtcdMembership { lease })),
            Ok(false) => "an earlier try to register has come in between".to_owned(),
            Err(error) => error.to_string(),
        };
        lease.revoke().await;
        Err(RegistryError::Unavailable { reason })
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<KeyValue>, RegistryError> {
        let entries = self.etcd.list(prefix, EXECUTORS_MAX).await.map_err(unavailable)?;
        if entries.len() > EXECUTORS_MAX { Err(RegistryError::TooMany { max: EXECUTORS_MAX }) } else { Ok(entries) }
    }
}

fn unavailable(error: RequestError) -> RegistryError {
    RegistryError::Unavailable { reason: error.to_string() }
}

/// Says that an entry was not written by Outlive, or not by this version; the others are worth listing all the same.
fn unreadable(entry: &KeyValue, error: &dyn std::fmt::Display) {
    tracing::warn!(key = %String::from_utf8_lossy(entry.key()), "an entry in etcd cannot be read: {error}");
}

#[async_trait]
impl Registry for EtcdRegistry {
    async fn register(&self, executor: &Registration) -> Result<Arc<dyn Membership>, RegistryError> {
        let value = serde_json::to_vec(executor).expect("a registration can be written");
        self.enter(&format!("{}{}", self.executors, executor.id), &value).await
    }

    async fn list(&self) -> Result<Vec<Registration>, RegistryError> {
        let entries = self.entries(&self.executors).await?;
        let readable = |entry: &KeyValue| match serde_json::from_slice(entry.value()) {
            Ok(executor) => Some(executor),
            Err(error) => {
                unreadable(entry, &error);
                None
            }
        };
        Ok(entries.iter().filter_map(readable).collect())
    }

    async fn holds(&self, executor: ExecutorId) -> Result<bool, RegistryError> {
        let (found, _) = self.etcd.get(&format!("{}{executor}", self.executors)).await.map_err(unavailable)?;
        Ok(found.is_some())
    }

    async fn end_executors(&self) -> Result<usize, RegistryError> {
        let entries = self.entries(&self.executors).await?;
        for entry in entries.iter().filter(|entry| entry.lease() != 0) {
            self.etcd.revoke(entry.lease(), self.ttl).await.map_err(unavailable)?;
        }
        Ok(entries.len())
    }

    async fn register_scheduler(
        &self,
        name: &SchedulerName,
        value: &str,
    ) -> Result<Arc<dyn Membership>, RegistryError> {
        self.enter(&format!("{}{name}", self.schedulers), value.as_bytes()).await
    }

    async fn list_schedulers(&self) -> Result<Vec<(SchedulerName, String)>, RegistryError> {
        let entries = self.entries(&self.schedulers).await?;
        let readable = |entry: &KeyValue| {
            let name = entry.key().strip_prefix(self.schedulers.as_bytes()).unwrap_or_default();
            match SchedulerName::new(&String::from_utf8_lossy(name)) {
                Ok(name) => Some((name, String::from_utf8_lossy(entry.value()).into_owned())),
                Err(error) => {
                    unreadable(entry, &error);
                    None
                }
            }
        };
        Ok(entries.iter().filter_map(readable).collect())
    }
}

#[derive(Debug)]
struct EtcdMembership {
    lease: KeptLease,
}

#[async_trait]
impl Membership for EtcdMembership {
    fn renewed_ms_ago(&self) -> u64 {
        u64::try_from(self.lease.age().as_millis()).unwrap_or(u64::MAX)
    }

    async fn lost(&self) {
        self.lease.over().await;
    }

    async fn leave(&self) {
        self.lease.revoke().await;
    }
}
