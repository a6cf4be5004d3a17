//! Leadership as one key in etcd, under a lease; its create revision, above the generation's base, is the term.
//!
//! The base stands under a key of its own and changes only while nobody leads (see the ADR on generations), so it is
//! read together with the leader's key, and a term that was won keeps the one it was won with.
//!
//! etcd's own election service is not used: it does not look at its key again after waiting. The leader's validity
//! here keeps two from acting at once while clocks can be trusted; the log's fence covers the rest.

use super::{Holder, Leadership, LeadershipError, Reign, Tenure, VALID_TENTHS};
use crate::etcd::{Ending, Etcd, KeptLease, RequestError, TRY_BOUND};
use crate::retry::retry;
use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse, WatchOptions};
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
    base_key: String,
    ttl: Duration,
}

/// The leader's key and the generation's base, read at once.
struct Standing {
    entry: Option<KeyValue>,
    base: Base,
    revision: i64,
}

/// What the terms of a generation begin from, and at which revision that was written; both 0 before the first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Base {
    term: u64,
    revision: i64,
}

impl Base {
    pub(crate) fn read(entry: Option<&KeyValue>) -> Result<Base, LeadershipError> {
        let Some(entry) = entry else { return Ok(Base::default()) };
        let text = std::str::from_utf8(entry.value()).ok().and_then(|text| text.trim().parse().ok());
        let term = text.ok_or_else(|| LeadershipError::Unavailable {
            reason: "the key term-base holds no number: something else than outlive wrote it".to_owned(),
        })?;
        Ok(Base { term, revision: entry.mod_revision() })
    }

    /// The create revision of the leader's key of a term, if it is of this generation.
    pub(crate) fn revision_of(self, term: Term) -> Option<i64> {
        term.0.checked_sub(self.term).and_then(|revision| i64::try_from(revision).ok())
    }

    fn term_at(self, revision: i64) -> Term {
        Term(self.term + u64::try_from(revision).expect("etcd's revisions are positive"))
    }
}

impl Standing {
    fn term(&self) -> Option<Term> {
        self.entry.as_ref().map(|entry| self.base.term_at(entry.create_revision()))
    }
}

/// What each read of a transaction found.
fn found(done: &TxnResponse) -> Vec<Option<KeyValue>> {
    let reads = done.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(got) => Some(got.kvs().first().cloned()),
        _ => None,
    });
    reads.collect()
}

impl EtcdLeadership {
    /// `ttl`: how long a leader that fell silent is waited for; see [`TTL_DEFAULT`]. etcd grants at least 2 s.
    pub fn new(etcd: &Etcd, cluster: &str, ttl: Duration) -> EtcdLeadership {
        EtcdLeadership {
            etcd: etcd.clone(),
            leader_key: keys::leader(cluster),
            witness_key: keys::witness(cluster),
            base_key: keys::term_base(cluster),
            ttl,
        }
    }

    async fn standing(&self) -> Result<Standing, LeadershipError> {
        let read =
            Txn::new().and_then([TxnOp::get(self.leader_key.as_str(), None), TxnOp::get(self.base_key.as_str(), None)]);
        let asked = self.etcd.insist("read who leads", |mut client| {
            let read = read.clone();
            async move { client.txn(read).await }
        });
        let done = asked.await.map_err(unavailable)?;
        let revision = done.header().map_or(0, |header| header.revision());
        let mut reads = found(&done).into_iter();
        let (entry, base) = (reads.next().flatten(), reads.next().flatten());
        Ok(Standing { entry, base: Base::read(base.as_ref())?, revision })
    }

    /// The term we won, if the key is ours, after a transaction whose answer was unclear.
    ///
    /// The transaction may still be on its way, so "not ours" is final only once our lease, without which it cannot
    /// be done any more, is revoked.
    async fn settle(&self, lease: &KeptLease, value: &[u8]) -> Result<Option<Won>, LeadershipError> {
        let Standing { entry, base, .. } = self.standing().await?;
        match entry {
            Some(entry) if entry.lease() == lease.id() && entry.value() == value => {
                let revision = entry.create_revision();
                Ok(Some(Won { term: base.term_at(revision), revision }))
            }
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

/// A term, and the create revision by which etcd knows it.
#[derive(Clone, Copy)]
struct Won {
    term: Term,
    revision: i64,
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
        let take =
            Txn::new().when([Compare::create_revision(self.leader_key.as_str(), CompareOp::Equal, 0)]).and_then([
                TxnOp::put(self.leader_key.as_str(), value.clone(), Some(put)),
                TxnOp::get(self.base_key.as_str(), None),
            ]);
        let won = match self.etcd.transaction(take).await {
            // The put created the key, so this revision is its create revision.
            Ok(done) if done.succeeded() => {
                let base = Base::read(found(&done).into_iter().next().flatten().as_ref())?;
                done.header().map(|header| Won { term: base.term_at(header.revision()), revision: header.revision() })
            }
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
        let Some(Won { term, revision }) = won else { return Ok(None) };
        let EtcdLeadership { etcd, leader_key, witness_key, .. } = self.clone();
        Ok(Some(Arc::new(EtcdTenure { etcd, leader_key, witness_key, term, revision, lease })))
    }

    async fn reign(&self) -> Result<Option<Reign>, LeadershipError> {
        let Standing { entry, base, .. } = self.standing().await?;
        let Some(entry) = entry else { return Ok(None) };
        let read: Entry = serde_json::from_slice(entry.value()).map_err(|error| LeadershipError::Unavailable {
            reason: format!("the key {} holds something that Outlive did not write: {error}", self.leader_key),
        })?;
        Ok(Some(Reign { term: base.term_at(entry.create_revision()), holder: read.holder, lease: entry.lease() }))
    }

    async fn vacancy(&self, term: Term) -> Result<(), LeadershipError> {
        loop {
            let standing = self.standing().await?;
            if standing.term() != Some(term) {
                return Ok(());
            }
            let revision = standing.revision;
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
                        if self.standing().await?.term() != Some(term) {
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
        self.etcd.put(&self.witness_key, &body).await.map_err(unavailable)
    }

    async fn begin_generation(&self, above: Term) -> Result<Term, LeadershipError> {
        let standing = self.standing().await?;
        let base = above.max(Term(standing.base.term)).next_generation();
        // Of two who do this at once, one begins it.
        let unchanged = Compare::mod_revision(self.base_key.as_str(), CompareOp::Equal, standing.base.revision);
        let vacant = Compare::create_revision(self.leader_key.as_str(), CompareOp::Equal, 0);
        let put = TxnOp::put(self.base_key.as_str(), base.0.to_string(), None);
        let done = self.etcd.transaction(Txn::new().when([vacant, unchanged]).and_then([put])).await;
        if done.map_err(unavailable)?.succeeded() {
            return Ok(base);
        }
        match self.reign().await? {
            Some(Reign { term, holder, .. }) => Err(LeadershipError::Held { scheduler: holder.scheduler, term }),
            None => Err(LeadershipError::Unavailable { reason: "somebody else changed it: try again".to_owned() }),
        }
    }
}

#[derive(Debug)]
struct EtcdTenure {
    etcd: Etcd,
    leader_key: String,
    witness_key: String,
    term: Term,
    /// By which etcd knows the term.
    revision: i64,
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
            let holds = Compare::create_revision(self.leader_key.as_str(), CompareOp::Equal, self.revision);
            let put = TxnOp::put(self.witness_key.as_str(), body.clone(), None);
            self.etcd.transaction(Txn::new().when([holds]).and_then([put]))
        })
        .await
        .map_err(unavailable)?;
        if done.succeeded() { Ok(()) } else { Err(LeadershipError::Deposed { term: self.term }) }
    }
}
