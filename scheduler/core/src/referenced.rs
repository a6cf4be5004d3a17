//! What of the blob store a job refers to: everything that its manifests lead to stays, and all else may go.
//!
//! There is one function for it, so that whatever comes to refer to manifests is added in one place. Who deletes what is
//! not here: see `executor/src/checkpoint/collect.rs`, and the ADR on collecting chunks.

use crate::state::Job;
use outlive_schemas::checkpoint::BlobName;

/// The manifests that something refers to, each once.
pub fn manifests(job: &Job) -> Vec<BlobName> {
    let mut names: Vec<BlobName> = job.manifests().collect();
    names.sort_unstable();
    names.dedup();
    names
}
