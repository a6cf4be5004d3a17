//! Saves the folded state now and then, so that replay begins there, and lets go of the log below.
//!
//! It folds a state of its own, from the newest image on, and so needs nothing of the leader or the follower beside
//! it; and keeps that state between two images, so that no event is folded twice. Where there is a standby, a standby
//! does it; a scheduler that is alone does it itself.

use crate::config::LogConfig;
use crate::error::ReplayError;
use crate::follower::Follower;
use crate::stores::Stores;
use outlive_core::invariant;
use outlive_schemas::codec;
use outlive_schemas::id::{SchedulerName, Sequence};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it looks whether an image is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Images kept: should the newest turn out unreadable, the ones before it serve.
const IMAGES_KEPT: usize = 3;

pub struct Imager {
    pub stores: Stores,
    pub config: LogConfig,
    pub name: SchedulerName,
    /// Whether this scheduler leads at present.
    pub leading: Arc<AtomicBool>,
}

impl Imager {
    /// Runs for as long as the scheduler does.
    pub async fn run(self) {
        let mut kept = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.is_ours().await {
                kept = None;
                continue;
            }
            match self.write_if_due(&mut kept).await {
                Ok(Some(seq)) => tracing::info!(%seq, "an image was written"),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = %chain_of(&error), "no image could be written; trying again later")
                }
            }
        }
    }

    /// One scheduler writes: the first by name among those that do not lead, or the leader if it is alone.
    async fn is_ours(&self) -> bool {
        let leader = self.stores.leadership.reign().await.ok().flatten().map(|reign| reign.holder.scheduler);
        let Ok(present) = self.stores.registry.list_schedulers().await else { return false };
        let standbys = present.into_iter().map(|(name, _)| name).filter(|name| Some(name) != leader.as_ref());
        match standbys.min() {
            Some(first) => first == self.name,
            None => self.leading.load(Ordering::Relaxed),
        }
    }

    /// `kept` is what was folded so far; it is put back unless something failed.
    async fn write_if_due(&self, kept: &mut Option<Follower>) -> Result<Option<Sequence>, ReplayError> {
        let mut follower = match kept.take() {
            Some(follower) => follower,
            None => Follower::begin(&self.stores).await?,
        };
        follower.catch_up().await?;
        let written = if follower.events_since_image < self.config.image_every_events {
            None
        } else {
            let (after, seq) = self.write(follower).await?;
            follower = after;
            Some(seq)
        };
        *kept = Some(follower);
        Ok(written)
    }

    async fn write(&self, follower: Follower) -> Result<(Follower, Sequence), ReplayError> {
        let (seq, chain, events) = (follower.seq, follower.chain, follower.events_since_image);
        let checked = tokio::task::spawn_blocking(move || {
            // An image of a state that is wrong would hide the fault for ever.
            let checked = invariant::check(&follower.state);
            (follower, checked)
        });
        let (mut follower, checked) = checked.await.expect("checking a state does not panic");
        follower.events_since_image = 0;
        if let Err(broken) = checked {
            tracing::error!(%seq, broken, "the state is broken; no image of it is written");
            return Ok((follower, seq));
        }
        let shared = Arc::new(std::mem::take(&mut follower.state));
        let written = shared.clone();
        let write = move |onto: &mut dyn io::Write| codec::pack_into(&*written, onto);
        let saved = self.stores.images.save(seq, chain.0, write).await;
        follower.state = Arc::into_inner(shared).expect("who wrote it has let go of it");
        saved.map_err(ReplayError::Images)?;
        self.stores.images.retain(IMAGES_KEPT).await.map_err(ReplayError::Images)?;
        self.purge(events).await?;
        Ok((follower, seq))
    }

    /// Lets go of what stands below the oldest kept image and outside the history window.
    async fn purge(&self, events_per_image: u64) -> Result<(), ReplayError> {
        let images = self.stores.images.list().await.map_err(ReplayError::Images)?;
        let (Some(oldest), true) = (images.last(), images.len() >= IMAGES_KEPT) else { return Ok(()) };
        let extent = self.stores.log.extent().await.map_err(ReplayError::Read)?;
        let newest = images.first().map_or(oldest.seq, |head| head.seq);
        let commits_per_image = (newest.0 - oldest.seq.0) / (IMAGES_KEPT as u64 - 1).max(1);
        let window = window(self.config.history_events, events_per_image, commits_per_image);
        let below = Sequence(oldest.seq.0.min(extent.last.0.saturating_sub(window)));
        if below > extent.first {
            self.stores.log.purge_below(below).await.map_err(ReplayError::Read)?;
            tracing::info!(%below, "the log was purged");
        }
        Ok(())
    }
}

/// So many commits hold about so many events, going by how many commits lie between two images, and how many events.
/// Near enough for a window of millions.
fn window(events: u64, events_per_image: u64, commits_per_image: u64) -> u64 {
    let commits = u128::from(events) * u128::from(commits_per_image.max(1)) / u128::from(events_per_image.max(1));
    u64::try_from(commits).unwrap_or(u64::MAX)
}

/// An error with its causes, for one line of a log.
pub fn chain_of(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_counted_in_commits() {
        assert_eq!(window(10_000_000, 100_000, 25_000), 2_500_000);
        // Also where it is no multiple of what lies between two images.
        assert_eq!(window(150_000, 100_000, 50_000), 75_000);
        assert_eq!(window(400, 1_000, 500), 200);
        assert_eq!(window(0, 1_000, 500), 0);
        assert_eq!(window(u64::MAX, 0, 0), u64::MAX);
    }
}
