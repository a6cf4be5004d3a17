//! Collecting what no checkpoint of the job refers to any more.
//!
//! Whoever deletes a chunk must be sure that nobody refers to it, nor is about to. Three things make it so:
//!
//! - **By the leader's word.** What stays is what the leader says is referred to, in its answer to a checkpoint's report.
//!   The answer rests on a commit in which this attempt was the job's current one. A mark in the store's own order, read
//!   before the report, stands for that moment: what was stored by then was stored by this attempt or an older one.
//!   Only that is deleted, by its place in the store: what a later attempt puts, it puts behind the mark, so that a
//!   collector that was stopped half-way and wakes up an hour later can delete nothing of it.
//! - **By what this attempt knows.** Its baseline and what it has put since stay, whatever the leader says; and it does
//!   not upload while it collects.
//! - **By not trusting what merely is there.** A chunk that is stored already counts as stored only if a retained
//!   checkpoint refers to it, or if this attempt put it. Any other may be about to be collected by somebody: it is put
//!   anew, behind every mark (see [`Checkpointer::put`]).
//!
//! A collector that stops anywhere leaves garbage, and the next one finds it. Deliberately not here: what is retained.

use super::Checkpointer;
use crate::restore::{self, RestoreError, Unreadable};
use futures::StreamExt as _;
use outlive_schemas::checkpoint::BlobName;
use outlive_store::blob::{BlobError, Mark, Owner};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two rounds: listing a job's blobs costs by their number.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// A round that takes long, because there is much to look at, is followed by so many times its length of rest.
const REST_FACTOR: u32 = 20;
/// Deletions in one round. Checkpoints wait meanwhile, so it must be a matter of a second; the next round goes on.
const DELETIONS_MAX: usize = 2_000;
/// Under way at once.
const DELETIONS_IN_FLIGHT: usize = 16;

/// What a round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub deleted: usize,
    /// What was left for the next round.
    pub left: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// What it refers to is not known, so everything may be.
    #[error("nothing is collected: the retained checkpoint {manifest} cannot be read")]
    Unreadable {
        manifest: BlobName,
        #[source]
        source: RestoreError,
    },
    #[error("nothing is collected: the blob store failed")]
    Store(#[source] BlobError),
}

/// What is kept between rounds.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Every manifest that something refers to, as the leader said last.
    retained: Vec<BlobName>,
    /// What they lead to, but for those that this attempt made; read when it is first asked for.
    elders: Option<HashSet<BlobName>>,
    /// What the checkpoints lead to that this attempt made or began from.
    made: BTreeMap<BlobName, Arc<HashSet<BlobName>>>,
    /// What was stored by the time of the last committed checkpoint, where a round may follow it.
    mark: Option<Mark>,
    rest_until: Option<Instant>,
    /// Instead of the usual one.
    pause: Option<Duration>,
}

impl Keeping {
    pub fn begin(retained: Vec<BlobName>) -> Keeping {
        Keeping { retained, ..Keeping::default() }
    }

    pub fn is_due(&self) -> bool {
        self.rest_until.is_none_or(|until| Instant::now() >= until)
    }

    /// A checkpoint of this attempt exists, or is what it began from.
    pub fn committed(&mut self, manifest: BlobName, blobs: Arc<HashSet<BlobName>>, mark: Option<Mark>) {
        self.made.insert(manifest, blobs);
        self.mark = mark.or(self.mark);
    }
}

impl Checkpointer {
    /// The same, for a job of which the leader says that these manifests are referred to.
    #[must_use]
    pub fn with_retained(self, retained: Vec<BlobName>) -> Self {
        {
            let mut known = self.known();
            let made = std::mem::take(&mut known.keeping.made);
            known.keeping = Keeping { made, ..Keeping::begin(retained) };
        }
        self
    }

    /// The same with another pause between two rounds of collecting: for tests.
    #[must_use]
    pub fn with_collect_pause(self, pause: Duration) -> Self {
        self.known().keeping.pause = Some(pause);
        self
    }

    /// Deletes what nothing refers to, now that the leader has committed a checkpoint and said what is retained. Does
    /// nothing where no mark was read for it.
    pub async fn collect(&self, retained: &[BlobName]) -> Result<Collected, CollectError> {
        let _turn = self.turn.lock().await;
        let began = Instant::now();
        let Some(mark) = self.begin_round(retained) else { return Ok(Collected::default()) };
        let stays = self.stays(retained).await?;
        let listed = self.blobs.list(Owner::Job(self.job)).await.map_err(CollectError::Store)?;
        let garbage: Vec<BlobName> = listed.into_iter().filter(|name| !stays.contains(name)).collect();
        let deleted = garbage.len().min(DELETIONS_MAX);
        let left = garbage.len() - deleted;
        let mut deleting = futures::stream::iter(garbage.into_iter().take(DELETIONS_MAX))
            .map(|name| self.blobs.delete_stored_by(Owner::Job(self.job), name, mark))
            .buffer_unordered(DELETIONS_IN_FLIGHT);
        while let Some(done) = deleting.next().await {
            done.map_err(CollectError::Store)?;
        }
        let keeping = &mut self.known().keeping;
        let usual = keeping.pause.unwrap_or_else(|| PAUSE_MIN.max(began.elapsed() * REST_FACTOR));
        let rest = if left > 0 { Duration::ZERO } else { usual };
        keeping.rest_until = Some(Instant::now() + rest);
        tracing::debug!(job = %self.job, deleted, left, "collected");
        Ok(Collected { deleted, left })
    }

    /// Takes the leader's word on what is retained, and the mark up to which the rest may go.
    fn begin_round(&self, retained: &[BlobName]) -> Option<Mark> {
        let keeping = &mut self.known().keeping;
        if keeping.retained != retained {
            keeping.retained = retained.to_vec();
            keeping.elders = None;
        }
        keeping.made.retain(|manifest, _| retained.contains(manifest));
        keeping.mark.take()
    }

    /// Everything that something refers to, or that this attempt is about to refer to.
    async fn stays(&self, retained: &[BlobName]) -> Result<HashSet<BlobName>, CollectError> {
        let (mut stays, unread) = {
            let known = self.known();
            let mut stays: HashSet<BlobName> = known.put.iter().copied().collect();
            stays.extend(known.baseline.blobs.iter());
            stays.extend(known.stored.iter().flat_map(|stored| stored.blobs.iter()));
            stays.extend(known.keeping.made.values().flat_map(|blobs| blobs.iter()));
            let unread: Vec<_> = retained.iter().filter(|m| !known.keeping.made.contains_key(*m)).copied().collect();
            (stays, unread)
        };
        for manifest in unread {
            let blobs = restore::blobs_sealed_by(self.blobs.clone(), self.sealer.clone(), self.job, manifest).await;
            stays.extend(blobs.map_err(|source| CollectError::Unreadable { manifest, source })?);
        }
        Ok(stays)
    }

    /// Whether a retained checkpoint refers to a blob. One that is damaged or gone refers to nothing that could be of
    /// use; but one that a newer version wrote is neither, and then there is no answer.
    pub(super) async fn is_retained(&self, name: BlobName) -> Result<bool, BlobError> {
        let unread: Vec<BlobName> = {
            let known = self.known();
            let keeping = &known.keeping;
            if keeping.made.values().any(|blobs| blobs.contains(&name)) {
                return Ok(true);
            }
            if let Some(elders) = &keeping.elders {
                return Ok(elders.contains(&name));
            }
            keeping.retained.iter().filter(|manifest| !keeping.made.contains_key(*manifest)).copied().collect()
        };
        let mut elders = HashSet::new();
        for manifest in unread {
            match restore::blobs_sealed_by(self.blobs.clone(), self.sealer.clone(), self.job, manifest).await {
                Ok(blobs) => elders.extend(blobs),
                Err(RestoreError::Unreadable { fault: Unreadable::Missing { .. } | Unreadable::Damaged { .. } }) => {
                    tracing::warn!(job = %self.job, %manifest, "a retained checkpoint is damaged, and is not built upon");
                }
                Err(RestoreError::Unavailable { source }) => return Err(source),
                Err(error) => {
                    let reason = format!("the retained checkpoint {manifest} cannot be read: {error}");
                    return Err(BlobError::Unavailable { reason });
                }
            }
        }
        let found = elders.contains(&name);
        self.known().keeping.elders = Some(elders);
        Ok(found)
    }
}
