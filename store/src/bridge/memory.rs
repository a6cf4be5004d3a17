//! The bridge in memory, for tests and simulations, guarded by a [`MemoryLeadership`]; every fault on demand.

use super::{Bridge, BridgeError};
use crate::leadership::MemoryLeadership;
use crate::log::Stored;
use async_trait::async_trait;
use bytes::Bytes;
use outlive_schemas::id::{Sequence, Term};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bridge that every clone shares.
#[derive(Clone, Debug)]
pub struct MemoryBridge {
    leadership: MemoryLeadership,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    commits: BTreeMap<Sequence, Bytes>,
    out_of_reach: bool,
    unguarded: bool,
    lost_answers: usize,
    delayed_puts: usize,
    delayed: Vec<(Term, Stored)>,
}

impl MemoryBridge {
    pub fn new(leadership: &MemoryLeadership) -> MemoryBridge {
        MemoryBridge { leadership: leadership.clone(), inner: Arc::default() }
    }

    /// Fault: every request is `Unavailable` and does nothing, until this is called with `false`.
    pub fn set_out_of_reach(&self, out_of_reach: bool) {
        self.lock().out_of_reach = out_of_reach;
    }

    /// Fault: the next `count` puts are done, and their answers lost.
    pub fn lose_answers(&self, count: usize) {
        self.lock().lost_answers = count;
    }

    /// Fault: the next `count` puts are on their way until [`MemoryBridge::deliver_delayed`].
    pub fn delay_puts(&self, count: usize) {
        self.lock().delayed_puts = count;
    }

    /// The delayed puts arrive; their guard is checked now. Returns how many were done.
    pub fn deliver_delayed(&self) -> usize {
        let delayed = std::mem::take(&mut self.lock().delayed);
        delayed.into_iter().filter(|(term, commit)| self.do_put(*term, commit).is_ok()).count()
    }

    /// A deliberate bug for those who check the checkers: puts are taken from anybody.
    pub fn without_guard(&self) {
        self.lock().unguarded = true;
    }

    /// Everything that stands there, past all faults.
    pub fn contents(&self) -> Vec<Stored> {
        self.lock().commits.iter().map(|(seq, body)| Stored { seq: *seq, body: body.clone() }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<MutexGuard<'_, Inner>, BridgeError> {
        let inner = self.lock();
        if inner.out_of_reach { Err(unanswered()) } else { Ok(inner) }
    }

    fn guard(&self, inner: &Inner, term: Term) -> Result<(), BridgeError> {
        if inner.unguarded || self.leadership.holds(term) { Ok(()) } else { Err(BridgeError::Deposed { term }) }
    }

    fn do_put(&self, term: Term, commit: &Stored) -> Result<(), BridgeError> {
        let mut inner = self.lock();
        match inner.commits.get(&commit.seq) {
            Some(found) if *found == commit.body => Ok(()),
            Some(_) => Err(BridgeError::Occupied { at: commit.seq }),
            None => {
                self.guard(&inner, term)?;
                inner.commits.insert(commit.seq, commit.body.clone());
                Ok(())
            }
        }
    }
}

fn unanswered() -> BridgeError {
    BridgeError::Unavailable { reason: "injected".to_owned() }
}

/// Takes one from a fault's count.
fn spend(count: &mut usize) -> bool {
    let some = *count > 0;
    *count -= usize::from(some);
    some
}

#[async_trait]
impl Bridge for MemoryBridge {
    async fn put(&self, term: Term, commit: &Stored) -> Result<(), BridgeError> {
        let mut inner = self.reach()?;
        if spend(&mut inner.delayed_puts) {
            inner.delayed.push((term, commit.clone()));
            return Err(unanswered());
        }
        let lost = spend(&mut inner.lost_answers);
        drop(inner);
        let done = self.do_put(term, commit);
        if lost { Err(unanswered()) } else { done }
    }

    async fn list(&self) -> Result<Vec<Stored>, BridgeError> {
        drop(self.reach()?);
        Ok(self.contents())
    }

    async fn remove(&self, term: Term, at: Sequence) -> Result<(), BridgeError> {
        let mut inner = self.reach()?;
        self.guard(&inner, term)?;
        inner.commits.remove(&at);
        Ok(())
    }

    async fn discard(&self, at: Sequence) -> Result<(), BridgeError> {
        self.reach()?.commits.remove(&at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leadership::{Holder, Leadership as _};
    use std::time::Duration;

    #[tokio::test]
    async fn memory_conforms() {
        let leadership = MemoryLeadership::new(Duration::from_secs(5));
        super::super::conformance::conforms(&MemoryBridge::new(&leadership), &leadership).await;
    }

    #[tokio::test]
    async fn a_put_that_comes_too_late_is_refused_by_the_guard() {
        let leadership = MemoryLeadership::new(Duration::from_secs(5));
        let bridge = MemoryBridge::new(&leadership);
        let holder = Holder { scheduler: "s".parse().expect("a name"), zone: "a".parse().expect("a zone") };
        let tenure = leadership.campaign(holder).await.expect("in reach").expect("vacant");
        let commit = |seq| Stored { seq: Sequence(seq), body: Bytes::from_static(b"late") };
        bridge.delay_puts(2);
        bridge.put(tenure.term(), &commit(1)).await.expect_err("on its way");
        assert_eq!(bridge.deliver_delayed(), 1, "it still leads");
        bridge.put(tenure.term(), &commit(2)).await.expect_err("on its way");
        tenure.resign().await;
        assert_eq!(bridge.deliver_delayed(), 0, "it leads no more");
        assert_eq!(bridge.contents(), [commit(1)]);
    }
}
