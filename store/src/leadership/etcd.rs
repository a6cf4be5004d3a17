//! Leadership as one key in etcd, under a lease; its create revision is the term.
//!
//! etcd's own election service is not used: it does not look at its key again after waiting. The leader's validity
//! here keeps two from acting at once while clocks can be trusted; the log's fence covers the rest.

use super::{Holder, Leadership, LeadershipError, Reign, Tenure, VALID_TENTHS};
use crate::etcd::{Ending, Etcd, KeptLease, RequestError, TRY_BOUND};
use crate::retry::retry;
use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, WatchOptions};
use outlive_schemas::id::Term;
use outlive_schemas::subject::etcd as keys;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The time of a lease: long enough for three renewals within the validity, short enough to wait for.
pub const TTL_DEFAULT: Duration = Duration::from_secs(5);
/// A watch can fall silent without an error; so the key is read now and then all the same.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Before a watch that could not be opened is opened again.
const WATCH_DELAY: Duration = Duration::from_millis(100);

/// What stands under the leader's key, as JSON so that operators can read it there.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    holder: Holder,
    /// One campaign's mark: tells our own put from that of an earlier campaign of ours.
    nonce: Uuid,
}

#[derive(Clone, Debug)]
pub struct EtcdLeadership {
    etcd: Etcd,
    leader_key: String,
    witness_key: String,
    ttl: Duration,
}

impl EtcdLeadership {
    /// `ttl`: how long a leader that fell silent is waited for; see [`TTL_DEFAULT`]. etcd grants at least 2 s.
    pub fn new(etcd: &Etcd, cluster: &str, ttl: Duration) -> EtcdLeadership {
        EtcdLeadership {
            etcd: etcd.clone(),
            leader_key: keys::leader(cluster),
            witness_key: keys::witness(cluster),
            ttl,
        }
    }

    /// The term we won, if the key is ours, after a transaction whose answer was unclear.
    ///
    /// The transaction may still be on its way, so "not ours" is final only once our lease, without which it cannot
    /// be done any more, is revoked.
    async fn settle(&self, lease: &KeptLease, value: &[u8]) -> Result<Option<Term>, LeadershipError> {
        let (found, _) = self.etcd.get(&self.leader_key).await.map_err(unavailable)?;
        match found {
            Some(entry) if entry.lease() == lease.id() && entry.value() == value => Ok(Some(term_of(&entry))),
            _ => {
                lease.revoke().await;
                Ok(None)
            }
        }
    }
}

fn unavailable(error: RequestError) -> LeadershipError {
    LeadershipError::Unavailable { reason: error.to_string() }
}

fn term_of(entry: &KeyValue) -> Term {
    Term(u64::try_from(entry.create_revision()).expect("etcd's revisions are positive"))
}

fn revision_of(term: Term) -> i64 {
    // A term that no revision can have is never the key's.
    i64::try_from(term.0).unwrap_or(i64::MAX)
}

#[async_trait]
impl Leadership for EtcdLeadership {
    async fn campaign(&self, holder: Holder) -> Result<Option<Arc<dyn Tenure>>, LeadershipError> {
        // Most campaigns find the key held: a read is cheaper than a lease.
        if self.etcd.get(&self.leader_key).await.map_err(unavailable)?.0.is_some() {
            return Ok(None);
        }
        let lease = KeptLease::grant(&self.etcd, self.ttl, Ending::Presumed).await.map_err(unavailable)?;
        let entry = Entry { holder, nonce: Uuid::now_v7() };
        let value = serde_json::to_vec(&entry).expect("names and an id can be written");
        let put = PutOptions::new().with_lease(lease.id());
        let take = Txn::new()
            .when([Compare::create_revision(self.leader_key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(self.leader_key.as_str(), value.clone(), Some(put))]);
        let term = match self.etcd.transaction(take).await {
            // The put created the key, so this revision is its create revision.
            Ok(done) if done.succeeded() => done.header().map(|header| Term(header.revision() as u64)),
            Ok(_) => {
                lease.revoke().await;
                return Ok(None);
            }
            Err(RequestError::Refused { reason, .. }) => {
                lease.revoke().await;
                return Err(LeadershipError::Unavailable { reason });
            }
            Err(unclear) => {
                tracing::warn!("the answer to a campaign is unclear, reading the key: {unclear}");
                self.settle(&lease, &value).await?
            }
        };
        let Some(term) = term else { return Ok(None) };
        let EtcdLeadership { etcd, leader_key, witness_key, .. } = self.clone();
        Ok(Some(Arc::new(EtcdTenure { etcd, leader_key, witness_key, term, lease })))
    }

    async fn reign(&self) -> Result<Option<Reign>, LeadershipError> {
        let (found, _) = self.etcd.get(&self.leader_key).await.map_err(unavailable)?;
        let Some(entry) = found else { return Ok(None) };
        let read: Entry = serde_json::from_slice(entry.value()).map_err(|error| LeadershipError::Unavailable {
            reason: format!("the key {} holds something that Outlive did not write: {error}", self.leader_key),
        })?;
        Ok(Some(Reign { term: term_of(&entry), holder: read.holder, lease: entry.lease() }))
    }

    async fn vacancy(&self, term: Term) -> Result<(), LeadershipError> {
        let holds = |entry: Option<KeyValue>| entry.is_some_and(|entry| term_of(&entry) == term);
        loop {
            let (found, revision) = self.etcd.get(&self.leader_key).await.map_err(unavailable)?;
            if !holds(found) {
                return Ok(());
            }
            let Ok((used, mut client)) = self.etcd.member().await else { continue };
            let options = WatchOptions::new().with_start_revision(revision + 1);
            let opening = client.watch(self.leader_key.as_str(), Some(options));
            let Ok(Ok(mut changes)) = tokio::time::timeout(READ_AGAIN, opening).await else {
                self.etcd.avoid(used);
                tokio::time::sleep(WATCH_DELAY).await;
                continue;
            };
            // Whatever the watch says, the meaning is in the next read. It never resumes: its end is a new watch.
            loop {
                match tokio::time::timeout(READ_AGAIN, changes.message()).await {
                    Ok(Ok(Some(change))) if change.events().is_empty() && !change.canceled() => {}
                    Err(_) => {
                        if !holds(self.etcd.get(&self.leader_key).await.map_err(unavailable)?.0) {
                            return Ok(());
                        }
                        // The member that is watched may have failed without a word, as others have noticed.
                        if self.etcd.used() != used {
                            break;
                        }
                    }
                    _ => break,
                }
            }
        }
    }

    async fn depose(&self, reign: &Reign) -> Result<(), LeadershipError> {
        self.etcd.revoke(reign.lease, TRY_BOUND).await.map_err(unavailable)
    }

    async fn read_witness(&self) -> Result<Option<Vec<u8>>, LeadershipError> {
        let (found, _) = self.etcd.get(&self.witness_key).await.map_err(unavailable)?;
        Ok(found.map(|entry| entry.value().to_vec()))
    }

    async fn overwrite_witness(&self, body: Vec<u8>) -> Result<(), LeadershipError> {
        self.etcd.put(&self.witness_key, &body, None).await.map_err(unavailable)
    }
}

#[derive(Debug)]
struct EtcdTenure {
    etcd: Etcd,
    leader_key: String,
    witness_key: String,
    term: Term,
    lease: KeptLease,
}

#[async_trait]
impl Tenure for EtcdTenure {
    fn term(&self) -> Term {
        self.term
    }

    fn is_valid(&self) -> bool {
        !self.lease.is_over() && self.lease.age() < self.lease.ttl() * VALID_TENTHS / 10
    }

    async fn lost(&self) {
        self.lease.over().await;
    }

    async fn resign(&self) {
        self.lease.revoke().await;
    }

    async fn witness(&self, body: Vec<u8>) -> Result<(), LeadershipError> {
        // One writer, and guarded by the term: doing it twice is harmless.
        let done = retry("write the witness", TRY_BOUND, RequestError::passes, || {
            let holds = Compare::create_revision(self.leader_key.as_str(), CompareOp::Equal, revision_of(self.term));
            let put = TxnOp::put(self.witness_key.as_str(), body.clone(), None);
            self.etcd.transaction(Txn::new().when([holds]).and_then([put]))
        })
        .await
        .map_err(unavailable)?;
        if done.succeeded() { Ok(()) } else { Err(LeadershipError::Deposed { term: self.term }) }
    }
}
