//! etcd as its clients see it: leases that run out, keys that go with them, create revisions that rise, transactions
//! that compare, and answers that get lost.

use super::env::{Env, Event, Happening, Micros, Node, SECOND, say};
use super::sabotage::Sabotage;
use bytes::Bytes;
use outlive_schemas::executor::Registration;
use outlive_schemas::id::{ExecutorId, Sequence, Term};
use outlive_store::bridge::BridgeError;
use outlive_store::log::Stored;
use outlive_store::witness::Witness;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub enum EtcdRequest {
    Grant {
        ttl: Micros,
    },
    Renew {
        lease: u64,
    },
    Revoke {
        lease: u64,
    },
    /// Put the leader's key if it is not there.
    Campaign {
        lease: u64,
        scheduler: usize,
        nonce: u64,
    },
    ReadLeader,
    ReadWitness,
    /// Only while `term` holds the leader's key.
    WriteWitness {
        term: Term,
        body: Vec<u8>,
    },
    /// At which revision an executor's entry was put; 0: there is none.
    Look {
        executor: ExecutorId,
    },
    /// Unless the entry was put since.
    Register {
        lease: u64,
        seen: u64,
        registration: Box<Registration>,
    },
    List,
    /// Put a commit into the bridge while `term` holds the leader's key.
    Bridge {
        term: Term,
        commit: Stored,
    },
    Unbridge {
        term: Term,
        at: Sequence,
    },
    ReadBridge,
}

#[derive(Clone, Debug)]
pub enum EtcdReply {
    Granted(u64),
    Renewed,
    /// There is no such lease.
    Gone,
    Revoked,
    Won(Term),
    Held,
    Leader(Option<LeaderKey>),
    Witness(Option<Vec<u8>>),
    Written,
    Refused,
    Seen(u64),
    Registered,
    List(Vec<Registration>),
    Bridged(Result<(), BridgeError>),
    BridgeRead(Vec<Stored>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderKey {
    pub term: Term,
    pub scheduler: usize,
    pub nonce: u64,
    pub lease: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Micros,
    until: Micros,
}

#[derive(Clone, Debug)]
struct Entry {
    lease: u64,
    revision: u64,
    registration: Registration,
}

#[derive(Debug, Default)]
pub struct Etcd {
    revision: u64,
    /// What terms are counted from.
    base: u64,
    next_lease: u64,
    leases: BTreeMap<u64, Lease>,
    leader: Option<LeaderKey>,
    executors: BTreeMap<ExecutorId, Entry>,
    witness: Option<Vec<u8>>,
    bridge: BTreeMap<Sequence, Bytes>,
    pub closed: bool,
}

/// How often leases are looked at.
pub const SWEEP_EVERY: Micros = SECOND / 2;

impl Etcd {
    pub fn witness(&self) -> Option<&[u8]> {
        self.witness.as_deref()
    }

    pub fn leader(&self) -> Option<LeaderKey> {
        self.leader
    }

    pub fn is_leased(&self, executor: ExecutorId) -> bool {
        self.executors.contains_key(&executor)
    }

    fn put_at(&self, executor: ExecutorId) -> u64 {
        self.executors.get(&executor).map_or(0, |entry| entry.revision)
    }

    /// An election of etcd's own: every lease gets its full time again.
    pub fn open_again(&mut self, now: Micros) {
        self.closed = false;
        self.leases.values_mut().for_each(|lease| lease.until = now + lease.ttl);
    }

    /// Terms begin anew, above all that there were; while nobody leads.
    pub fn begin_generation(&mut self) {
        assert!(self.leader.is_none(), "nobody leads");
        self.base = Term(self.base + self.revision).next_generation().0;
    }

    /// Whatever stands there.
    pub fn put_witness(&mut self, witness: Witness) {
        self.revision += 1;
        self.witness = Some(witness.encode());
    }

    fn end(&mut self, lease: u64) -> Option<Term> {
        self.leases.remove(&lease)?;
        self.revision += 1;
        self.executors.retain(|_, entry| entry.lease != lease);
        let gone = self.leader.filter(|key| key.lease == lease)?;
        self.leader = None;
        Some(gone.term)
    }
}

/// Ends what has run out.
pub fn sweep(env: &mut Env) {
    if !env.etcd.closed {
        let now = env.now;
        let over: Vec<u64> = env.etcd.leases.iter().filter(|(_, l)| l.until <= now).map(|(id, _)| *id).collect();
        for lease in over {
            say!(env, "etcd        lease {lease} runs out");
            end(env, lease);
        }
    }
    env.after(SWEEP_EVERY, Event::Sweep);
}

/// The leader's lease ends, although the leader lives.
pub fn depose(env: &mut Env) {
    if let Some(key) = env.etcd.leader {
        end(env, key.lease);
    }
}

/// Ends the leases of all executors.
pub fn end_executors(env: &mut Env) {
    let leases: Vec<u64> = env.etcd.executors.values().map(|entry| entry.lease).collect();
    leases.into_iter().for_each(|lease| end(env, lease));
}

fn end(env: &mut Env, lease: u64) {
    let Some(term) = env.etcd.end(lease) else { return };
    say!(env, "etcd        the leader's key of term {term} is gone");
    for node in env.net.nodes() {
        if let Node::Scheduler(_) = node
            && env.net.etcd_reaches(node)
        {
            let delay = env.net.weather.delay(&mut env.chance);
            // Watches are opened anew by whoever comes up again, so a life that is over gets nothing.
            let run = u32::MAX;
            env.after(delay, Event::At { node, run, what: Happening::LeaderKeyGone(term) });
        }
    }
}

pub fn serve(env: &mut Env, _from: Node, request: EtcdRequest) -> Option<EtcdReply> {
    if env.etcd.closed {
        return None;
    }
    let now = env.now;
    let etcd = &mut env.etcd;
    Some(match request {
        EtcdRequest::Grant { ttl } => {
            etcd.next_lease += 1;
            etcd.leases.insert(etcd.next_lease, Lease { ttl, until: now + ttl });
            EtcdReply::Granted(etcd.next_lease)
        }
        EtcdRequest::Renew { lease } => match etcd.leases.get_mut(&lease) {
            Some(found) => {
                found.until = now + found.ttl;
                EtcdReply::Renewed
            }
            None => EtcdReply::Gone,
        },
        EtcdRequest::Revoke { lease } => {
            end(env, lease);
            EtcdReply::Revoked
        }
        EtcdRequest::Campaign { lease, scheduler, nonce } => {
            if etcd.leader.is_some() || !etcd.leases.contains_key(&lease) {
                EtcdReply::Held
            } else {
                etcd.revision += 1;
                let term = Term(etcd.base + etcd.revision);
                etcd.leader = Some(LeaderKey { term, scheduler, nonce, lease });
                say!(env, "etcd        scheduler-{scheduler} is elected for term {term}");
                EtcdReply::Won(term)
            }
        }
        EtcdRequest::ReadLeader => EtcdReply::Leader(etcd.leader),
        EtcdRequest::ReadWitness => EtcdReply::Witness(etcd.witness.clone()),
        EtcdRequest::WriteWitness { term, body } => {
            if etcd.leader.is_some_and(|key| key.term == term) {
                etcd.revision += 1;
                etcd.witness = Some(body);
                EtcdReply::Written
            } else {
                EtcdReply::Refused
            }
        }
        EtcdRequest::Look { executor } => EtcdReply::Seen(etcd.put_at(executor)),
        EtcdRequest::Register { lease, seen, registration } => {
            if !etcd.leases.contains_key(&lease) {
                EtcdReply::Gone
            } else if etcd.put_at(registration.id) == seen {
                etcd.revision += 1;
                let entry = Entry { lease, revision: etcd.revision, registration: *registration };
                etcd.executors.insert(entry.registration.id, entry);
                EtcdReply::Registered
            } else {
                EtcdReply::Refused
            }
        }
        EtcdRequest::Bridge { term, commit } => {
            let holds = etcd.leader.is_some_and(|key| key.term == term);
            let result = match etcd.bridge.get(&commit.seq) {
                Some(found) if *found == commit.body => Ok(()),
                Some(_) => Err(BridgeError::Occupied { at: commit.seq }),
                None if !holds && env.sabotage != Some(Sabotage::BridgeUnguarded) => Err(BridgeError::Deposed { term }),
                None => {
                    etcd.revision += 1;
                    etcd.bridge.insert(commit.seq, commit.body.clone());
                    say!(env, "etcd        commit {} of term {term} is in the bridge", commit.seq);
                    super::checkers::stored(env, &commit);
                    Ok(())
                }
            };
            EtcdReply::Bridged(result)
        }
        EtcdRequest::Unbridge { term, at } => {
            let holds = etcd.leader.is_some_and(|key| key.term == term);
            if holds {
                etcd.bridge.remove(&at);
            }
            EtcdReply::Bridged(if holds { Ok(()) } else { Err(BridgeError::Deposed { term }) })
        }
        EtcdRequest::ReadBridge => {
            let commits = etcd.bridge.iter().map(|(seq, body)| Stored { seq: *seq, body: body.clone() });
            EtcdReply::BridgeRead(commits.collect())
        }
        EtcdRequest::List => EtcdReply::List(etcd.executors.values().map(|entry| entry.registration.clone()).collect()),
    })
}
