//! Unwrapped keys, kept for a while: asking a server for each chunk's key would cost more than the chunk.

use crate::seal::Key;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys held at once. At a hundred bytes each this is a megabyte; a host runs fewer jobs than that.
const CACHED_KEYS_MAX: usize = 10_000;

/// A bounded cache in two generations: what was not asked for during one whole generation falls out.
#[derive(Debug)]
pub(super) struct Cache<K> {
    generations: Mutex<Generations<K>>,
    max: usize,
}

#[derive(Debug)]
struct Generations<K> {
    young: HashMap<K, Key>,
    old: HashMap<K, Key>,
}

impl<K: Eq + Hash> Cache<K> {
    pub(super) fn new() -> Cache<K> {
        Cache::with_max(CACHED_KEYS_MAX)
    }

    fn with_max(max: usize) -> Cache<K> {
        Cache { generations: Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }), max }
    }

    pub(super) fn get(&self, name: &K) -> Option<Key>
    where
        K: Copy,
    {
        let mut generations = self.lock();
        if let Some(key) = generations.young.get(name) {
            return Some(key.clone());
        }
        let key = generations.old.remove(name)?;
        generations.insert(*name, key.clone(), self.max);
        Some(key)
    }

    pub(super) fn insert(&self, name: K, key: Key) {
        self.lock().insert(name, key, self.max);
    }

    pub(super) fn remove(&self, name: &K) {
        let mut generations = self.lock();
        generations.young.remove(name);
        generations.old.remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K>> {
        // Every change is one step on a map: a panic elsewhere leaves nothing half done.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Generations<K> {
    fn insert(&mut self, name: K, key: Key, max: usize) {
        if self.young.len() >= max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::with_max(10);
        for number in 0..1_000u32 {
            cache.insert(number, Key::from_bytes([1; 32]));
            assert!(cache.get(&0).is_some(), "{number}");
        }
        assert_eq!(cache.get(&1), None);
        assert!(cache.get(&999).is_some());
        let held = cache.lock();
        assert!(held.young.len() + held.old.len() <= 10);
    }

    #[test]
    fn what_is_removed_is_gone_from_both_generations() {
        let cache = Cache::with_max(4);
        for number in 0..4u32 {
            cache.insert(number, Key::from_bytes([1; 32]));
        }
        (0..4).for_each(|number| cache.remove(&number));
        assert!((0..4).all(|number| cache.get(&number).is_none()));
    }
}
