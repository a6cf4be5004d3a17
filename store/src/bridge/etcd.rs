//! The bridge as keys in etcd, one a commit, each written by a transaction that compares the leader's key.
//!
//! Not under the leader's lease: the keys must outlive it.

use super::{Bridge, BridgeError};
use crate::etcd::{Etcd, RequestError};
use crate::leadership::Base;
use crate::log::Stored;
use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};
use outlive_schemas::id::{Sequence, Term};
use outlive_schemas::subject::etcd as keys;

/// Far more than ever stand there at once; beyond it something is wrong, and is said.
const KEYS_MAX: usize = 4_096;

#[derive(Clone, Debug)]
pub struct EtcdBridge {
    etcd: Etcd,
    leader_key: String,
    base_key: String,
    prefix: String,
}

impl EtcdBridge {
    pub fn new(etcd: &Etcd, cluster: &str) -> EtcdBridge {
        let (leader_key, base_key) = (keys::leader(cluster), keys::term_base(cluster));
        EtcdBridge { etcd: etcd.clone(), leader_key, base_key, prefix: keys::bridge(cluster) }
    }

    fn key(&self, at: Sequence) -> String {
        format!("{}{at}", self.prefix)
    }

    /// That the leader's key is this term's. A base that is raised in between makes a later term of the same key, so
    /// what is compared then is still the key that this term was won by.
    async fn led_by(&self, term: Term) -> Result<Compare, BridgeError> {
        let (base, _) = self.etcd.get(&self.base_key).await.map_err(failed)?;
        let base = Base::read(base.as_ref()).map_err(|error| BridgeError::Unavailable { reason: error.to_string() })?;
        let revision = base.revision_of(term).ok_or(BridgeError::Deposed { term })?;
        Ok(Compare::create_revision(self.leader_key.as_str(), CompareOp::Equal, revision))
    }
}

fn failed(error: RequestError) -> BridgeError {
    match error {
        RequestError::Refused { reason, .. } => BridgeError::Refused { reason },
        other => BridgeError::Unavailable { reason: other.to_string() },
    }
}

#[async_trait]
impl Bridge for EtcdBridge {
    async fn put(&self, term: Term, commit: &Stored) -> Result<(), BridgeError> {
        let key = self.key(commit.seq);
        let vacant = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let put = Txn::new()
            .when([self.led_by(term).await?, vacant])
            .and_then([TxnOp::put(key.as_str(), commit.body.to_vec(), None)])
            .or_else([TxnOp::get(key.as_str(), None)]);
        // Once: who asked knows better when to ask again.
        let done = self.etcd.transaction(put).await.map_err(failed)?;
        if done.succeeded() {
            return Ok(());
        }
        let found = done.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next(),
            _ => None,
        });
        match found {
            // An earlier try of ours: it came through while the term held, so whoever led next has seen it.
            Some(entry) if entry.value() == commit.body => Ok(()),
            Some(_) => Err(BridgeError::Occupied { at: commit.seq }),
            None => Err(BridgeError::Deposed { term }),
        }
    }

    async fn list(&self) -> Result<Vec<Stored>, BridgeError> {
        let names = self.etcd.keys(&self.prefix, KEYS_MAX).await.map_err(failed)?;
        if names.len() > KEYS_MAX {
            let reason =
                format!("more than {KEYS_MAX} keys stand under {}: Outlive did not put them there", self.prefix);
            return Err(BridgeError::Refused { reason });
        }
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let Some(at) = name.strip_prefix(&self.prefix).and_then(|seq| seq.parse().ok()).map(Sequence) else {
                let reason = format!("the key {name} is not one that Outlive has put there");
                return Err(BridgeError::Refused { reason });
            };
            // One at a time: together they may be more than one answer can hold.
            if let (Some(entry), _) = self.etcd.get(&name).await.map_err(failed)? {
                found.push(Stored { seq: at, body: Bytes::copy_from_slice(entry.value()) });
            }
        }
        found.sort_by_key(|commit| commit.seq);
        Ok(found)
    }

    async fn remove(&self, term: Term, at: Sequence) -> Result<(), BridgeError> {
        let remove = Txn::new().when([self.led_by(term).await?]).and_then([TxnOp::delete(self.key(at), None)]);
        match self.etcd.transaction(remove).await.map_err(failed)?.succeeded() {
            true => Ok(()),
            false => Err(BridgeError::Deposed { term }),
        }
    }

    async fn discard(&self, at: Sequence) -> Result<(), BridgeError> {
        self.etcd.transaction(Txn::new().and_then([TxnOp::delete(self.key(at), None)])).await.map_err(failed)?;
        Ok(())
    }
}
