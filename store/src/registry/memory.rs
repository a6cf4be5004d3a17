//! The registry in memory, for tests and simulations. Entries last until they are told to end.

use super::{Membership, Registry, RegistryError};
use async_trait::async_trait;
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{ExecutorId, SchedulerName};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// A registry that every clone shares.
#[derive(Clone, Debug, Default)]
pub struct MemoryRegistry(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<Key, Entry>,
    now_ms: u64,
    out_of_reach: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Executor(ExecutorId),
    Scheduler(SchedulerName),
}

#[derive(Debug)]
struct Entry {
    value: Value,
    over: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
enum Value {
    Executor(Box<Registration>),
    Scheduler(String),
}

impl MemoryRegistry {
    pub fn new() -> MemoryRegistry {
        MemoryRegistry::default()
    }

    /// Ends an executor's lease.
    pub fn expire(&self, executor: ExecutorId) {
        self.end(&Key::Executor(executor));
    }

    /// Fault: requests fail and renewals stop, until this is called with `false`.
    pub fn set_out_of_reach(&self, out_of_reach: bool) {
        self.lock().out_of_reach = out_of_reach;
    }

    /// Lets time pass, as [`Membership::renewed_ms_ago`] tells it.
    pub fn advance_ms(&self, by_ms: u64) {
        self.lock().now_ms += by_ms;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding this lock")
    }

    fn reach(&self) -> Result<MutexGuard<'_, Inner>, RegistryError> {
        let inner = self.lock();
        if inner.out_of_reach { Err(RegistryError::Unavailable { reason: "injected".to_owned() }) } else { Ok(inner) }
    }

    fn end(&self, key: &Key) {
        if let Some(entry) = self.lock().entries.remove(key) {
            entry.over.send_replace(true);
        }
    }

    fn enter(&self, key: Key, value: Value) -> Result<Arc<dyn Membership>, RegistryError> {
        let mut inner = self.reach()?;
        let over = watch::Sender::new(false);
        let renewed_ms = Mutex::new(inner.now_ms);
        // As in etcd, an earlier entry's lease goes on for itself, without its key.
        inner.entries.insert(key.clone(), Entry { value, over: over.clone() });
        Ok(Arc::new(MemoryMembership { registry: self.clone(), key, over, renewed_ms }))
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn register(&self, executor: &Registration) -> Result<Arc<dyn Membership>, RegistryError> {
        self.enter(Key::Executor(executor.id), Value::Executor(Box::new(executor.clone())))
    }

    async fn list(&self) -> Result<Vec<Registration>, RegistryError> {
        let inner = self.reach()?;
        let executors = inner.entries.values().filter_map(|entry| match &entry.value {
            Value::Executor(executor) => Some((**executor).clone()),
            Value::Scheduler(_) => None,
        });
        Ok(executors.collect())
    }

    async fn holds(&self, executor: ExecutorId) -> Result<bool, RegistryError> {
        Ok(self.reach()?.entries.contains_key(&Key::Executor(executor)))
    }

    async fn end_executors(&self) -> Result<usize, RegistryError> {
        let there = self.list().await?;
        there.iter().for_each(|executor| self.expire(executor.id));
        Ok(there.len())
    }

    async fn register_scheduler(
        &self,
        name: &SchedulerName,
        value: &str,
    ) -> Result<Arc<dyn Membership>, RegistryError> {
        self.enter(Key::Scheduler(name.clone()), Value::Scheduler(value.to_owned()))
    }

    async fn list_schedulers(&self) -> Result<Vec<(SchedulerName, String)>, RegistryError> {
        let inner = self.reach()?;
        let schedulers = inner.entries.iter().filter_map(|(key, entry)| match (key, &entry.value) {
            (Key::Scheduler(name), Value::Scheduler(value)) => Some((name.clone(), value.clone())),
            _ => None,
        });
        Ok(schedulers.collect())
    }
}

#[derive(Debug)]
struct MemoryMembership {
    registry: MemoryRegistry,
    key: Key,
    over: watch::Sender<bool>,
    /// The last moment at which the registry was seen in reach.
    renewed_ms: Mutex<u64>,
}

impl MemoryMembership {
    fn end(&self) {
        let mut inner = self.registry.lock();
        let ours = inner.entries.get(&self.key).is_some_and(|entry| entry.over.same_channel(&self.over));
        if ours {
            inner.entries.remove(&self.key);
        }
        self.over.send_replace(true);
    }
}

#[async_trait]
impl Membership for MemoryMembership {
    fn renewed_ms_ago(&self) -> u64 {
        let inner = self.registry.lock();
        let mut renewed_ms = self.renewed_ms.lock().expect("nobody panics while holding this lock");
        if !inner.out_of_reach && !*self.over.borrow() {
            *renewed_ms = inner.now_ms;
        }
        inner.now_ms - *renewed_ms
    }

    async fn lost(&self) {
        // The sender is our own.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    async fn leave(&self) {
        self.end();
    }
}

impl Drop for MemoryMembership {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_conforms() {
        super::super::conformance::conforms(&MemoryRegistry::new()).await;
    }

    #[tokio::test]
    async fn an_expired_entry_is_lost() {
        let registry = MemoryRegistry::new();
        let executor = super::super::conformance::executor(1);
        let membership = registry.register(&executor).await.expect("in reach");
        registry.set_out_of_reach(true);
        registry.advance_ms(300);
        assert_eq!(membership.renewed_ms_ago(), 300);
        assert!(registry.list().await.is_err());
        registry.set_out_of_reach(false);
        assert_eq!(membership.renewed_ms_ago(), 0);
        registry.expire(executor.id);
        membership.lost().await;
        assert_eq!(registry.holds(executor.id).await.ok(), Some(false));
    }
}
