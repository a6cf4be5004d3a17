//! Blobs in memory, for tests and simulations, with the faults that the real ones have.

use super::{BlobError, BlobStore, Mark, Owner, Put, Usage};
use async_trait::async_trait;
use bytes::Bytes;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::limits::BLOB_BYTES_MAX;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// A store that forgets everything with the process.
#[derive(Debug, Default)]
pub struct MemoryBlobs(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Each with its place in the order of storing.
    blobs: BTreeMap<(Owner, BlobName), (u64, Bytes)>,
    stored: u64,
    out_of_reach: bool,
    /// Puts that will be stored and answered `Unavailable` all the same.
    answers_to_lose: usize,
    bytes_max: Option<u64>,
    fetched: BTreeMap<BlobName, u64>,
}

impl MemoryBlobs {
    pub fn new() -> MemoryBlobs {
        MemoryBlobs::default()
    }

    /// Fault: every call is `Unavailable` until this is called with `false`.
    pub fn set_out_of_reach(&self, out_of_reach: bool) {
        self.lock().out_of_reach = out_of_reach;
    }

    /// Fault: the next `count` puts are stored, and their answers lost.
    pub fn lose_answers(&self, count: usize) {
        self.lock().answers_to_lose = count;
    }

    /// Fault: puts that would take the sum of all blobs above this are `Full`.
    pub fn set_bytes_max(&self, bytes_max: Option<u64>) {
        self.lock().bytes_max = bytes_max;
    }

    /// Fault: flips one bit of a blob. Whether there was one.
    pub fn damage(&self, owner: Owner, name: BlobName) -> bool {
        let mut inner = self.lock();
        let Some((_, body)) = inner.blobs.get_mut(&(owner, name)) else { return false };
        let mut damaged = body.to_vec();
        let Some(byte) = damaged.last_mut() else { return false };
        *byte ^= 1;
        *body = damaged.into();
        true
    }

    /// What was asked for since this was called last, and how often.
    pub fn take_fetched(&self) -> BTreeMap<BlobName, u64> {
        std::mem::take(&mut self.lock().fetched)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding this lock")
    }

    /// The inside, if it is in reach.
    fn reach(&self) -> Result<MutexGuard<'_, Inner>, BlobError> {
        let inner = self.lock();
        if inner.out_of_reach { Err(BlobError::Unavailable { reason: "injected".to_owned() }) } else { Ok(inner) }
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn put(&self, owner: Owner, name: BlobName, body: Bytes) -> Result<Put, BlobError> {
        let mut inner = self.reach()?;
        if body.len() > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { bytes: body.len(), max: BLOB_BYTES_MAX });
        }
        if inner.blobs.contains_key(&(owner, name)) {
            return Ok(Put::Present);
        }
        let sum = inner.blobs.values().map(|(_, blob)| blob.len() as u64).sum::<u64>() + body.len() as u64;
        if let Some(max) = inner.bytes_max.filter(|max| sum > *max) {
            return Err(BlobError::Full { reason: format!("{sum} bytes would be over {max}") });
        }
        inner.stored += 1;
        let place = inner.stored;
        inner.blobs.insert((owner, name), (place, body));
        if inner.answers_to_lose > 0 {
            inner.answers_to_lose -= 1;
            return Err(BlobError::Unavailable { reason: "injected: the answer was lost".to_owned() });
        }
        Ok(Put::Stored)
    }

    async fn get(&self, owner: Owner, name: BlobName) -> Result<Bytes, BlobError> {
        let mut inner = self.reach()?;
        *inner.fetched.entry(name).or_default() += 1;
        inner.blobs.get(&(owner, name)).map(|(_, body)| body.clone()).ok_or(BlobError::Missing { name })
    }

    async fn list(&self, owner: Owner) -> Result<Vec<BlobName>, BlobError> {
        Ok(self.reach()?.blobs.keys().filter(|(whose, _)| *whose == owner).map(|(_, name)| *name).collect())
    }

    async fn delete(&self, owner: Owner, name: BlobName) -> Result<(), BlobError> {
        self.reach()?.blobs.remove(&(owner, name));
        Ok(())
    }

    async fn mark(&self) -> Result<Mark, BlobError> {
        Ok(Mark(self.reach()?.stored))
    }

    async fn delete_stored_by(&self, owner: Owner, name: BlobName, Mark(newest): Mark) -> Result<(), BlobError> {
        let mut inner = self.reach()?;
        if inner.blobs.get(&(owner, name)).is_some_and(|(place, _)| *place <= newest) {
            inner.blobs.remove(&(owner, name));
        }
        Ok(())
    }

    async fn delete_all(&self, owner: Owner) -> Result<(), BlobError> {
        self.reach()?.blobs.retain(|(whose, _), _| *whose != owner);
        Ok(())
    }

    async fn usage(&self) -> Result<Usage, BlobError> {
        let inner = self.reach()?;
        let bytes = inner.blobs.values().map(|(_, blob)| blob.len() as u64).sum();
        Ok(Usage { bytes, items: inner.blobs.len() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_conforms() {
        super::super::conformance::conforms(&MemoryBlobs::new()).await;
    }

    #[tokio::test]
    async fn faults_are_as_asked_for() {
        let blobs = MemoryBlobs::new();
        let put = |n: u8| blobs.put(Owner::Images, BlobName([n; 32]), Bytes::from(vec![n; 10]));
        blobs.lose_answers(1);
        assert!(matches!(put(1).await, Err(BlobError::Unavailable { .. })));
        assert!(matches!(put(1).await, Ok(Put::Present)), "the lost answer's put was stored");
        blobs.set_bytes_max(Some(15));
        assert!(matches!(put(2).await, Err(BlobError::Full { .. })));
        assert!(blobs.damage(Owner::Images, BlobName([1; 32])));
        assert!(!blobs.damage(Owner::Images, BlobName([2; 32])));
        assert_ne!(blobs.get(Owner::Images, BlobName([1; 32])).await.expect("there"), vec![1; 10]);
        blobs.set_out_of_reach(true);
        assert!(matches!(blobs.usage().await, Err(BlobError::Unavailable { .. })));
    }
}
