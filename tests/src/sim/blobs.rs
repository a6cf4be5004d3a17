//! Where checkpoints lie: blobs by name, slow at times, out of reach at times, and damaged at times.

use super::env::{Env, Micros, say};
use bytes::Bytes;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::id::JobId;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub enum BlobRequest {
    Put { job: JobId, name: BlobName, body: Bytes },
    Get { job: JobId, name: BlobName },
}

#[derive(Clone, Debug)]
pub enum BlobReply {
    Kept,
    Found(Bytes),
    NotThere,
}

#[derive(Debug, Default)]
pub struct Blobs {
    kept: BTreeMap<(JobId, BlobName), Bytes>,
    damaged: BTreeSet<(JobId, BlobName)>,
    pub closed: bool,
    pub slow: Micros,
}

impl Blobs {
    pub fn holds(&self, job: JobId, name: BlobName) -> bool {
        self.kept.contains_key(&(job, name))
    }

    pub fn get(&self, job: JobId, name: BlobName) -> Option<&Bytes> {
        self.kept.get(&(job, name))
    }

    pub fn delete_all(&mut self, job: JobId) {
        self.kept.retain(|(of, _), _| *of != job);
    }
}

/// One blob that is there gets damaged, for good.
pub fn damage_one(env: &mut Env) {
    let names: Vec<_> = env.blobs.kept.keys().copied().collect();
    if names.is_empty() {
        return;
    }
    let (job, name) = env.chance.one_of(&names);
    say!(env, "fault       blob {name:.8} of job {job} is damaged");
    env.blobs.damaged.insert((job, name));
    if let Some(body) = env.blobs.kept.get_mut(&(job, name)) {
        let mut bytes = body.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x55;
        *body = bytes.into();
    }
}

pub fn serve(env: &mut Env, request: BlobRequest) -> Option<BlobReply> {
    if env.blobs.closed {
        return None;
    }
    Some(match request {
        BlobRequest::Put { job, name, body } => {
            // Put if absent, as the stream of blobs does.
            env.blobs.kept.entry((job, name)).or_insert(body);
            BlobReply::Kept
        }
        BlobRequest::Get { job, name } => match env.blobs.kept.get(&(job, name)) {
            Some(body) => BlobReply::Found(body.clone()),
            None => BlobReply::NotThere,
        },
    })
}
