//! The part of the attempt machine that takes checkpoints because snapshots were asked for.
//!
//! Snapshots of a job are numbered, and one checkpoint serves all of those whose orders were heard before its state was
//! read. What it comes to is reported after the checkpoint itself; where nothing has changed since the last one, that is
//! what the snapshots are made of, and nothing is uploaded.

use super::checkpoint::Step;
use super::{AttemptMachine, Effect, State};
use compact_str::CompactString;
use outlive_schemas::checkpoint::BlobName;
use outlive_schemas::message::News;

/// What is asked for, by the snapshots' numbers.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The highest that was heard of.
    wanted: u64,
    /// The highest that the checkpoint under way serves; 0: none.
    served: u64,
    /// The highest that is reported.
    told: u64,
    /// What the state was when it was last stored, or restored.
    latest: Option<BlobName>,
}

impl Snapshots {
    pub fn restored(latest: Option<BlobName>) -> Snapshots {
        Snapshots { latest, ..Snapshots::default() }
    }

    fn is_wanting(&self) -> bool {
        self.wanted > self.told
    }
}

impl AttemptMachine {
    pub(super) fn snapshot(&mut self, up_to: u64, now_ms: u64, effects: &mut Vec<Effect>) {
        self.snapshots.wanted = self.snapshots.wanted.max(up_to);
        self.go_on_snapshotting(now_ms, effects);
    }

    /// Begins a checkpoint where a snapshot wants one. One that is being given back has its last one.
    pub(super) fn go_on_snapshotting(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let is_idle = matches!(self.state, State::Running { step: Step::Idle { .. }, .. });
        if is_idle && self.releasing.is_none() && self.snapshots.is_wanting() {
            self.begin_checkpoint(now_ms, effects);
        }
    }

    /// The state is about to be read.
    pub(super) fn snapshots_begin(&mut self) {
        self.snapshots.served = if self.snapshots.is_wanting() { self.snapshots.wanted } else { 0 };
    }

    /// The state is stored, as this manifest or as it was before.
    pub(super) fn snapshots_stored(&mut self, manifest: Option<BlobName>, now_ms: u64, effects: &mut Vec<Effect>) {
        if manifest.is_some() {
            self.snapshots.latest = manifest;
        }
        let manifest = self.snapshots.latest;
        if let Some(up_to) = self.snapshots_told() {
            effects.push(Effect::Report { at_ms: now_ms, news: News::Snapshot { up_to, manifest } });
        }
    }

    pub(super) fn snapshots_failed(&mut self, reason: &CompactString, now_ms: u64, effects: &mut Vec<Effect>) {
        if let Some(up_to) = self.snapshots_told() {
            let news = News::SnapshotFailed { up_to, reason: reason.clone() };
            effects.push(Effect::Report { at_ms: now_ms, news });
        }
    }

    fn snapshots_told(&mut self) -> Option<u64> {
        let served = std::mem::take(&mut self.snapshots.served);
        self.snapshots.told = self.snapshots.told.max(served);
        (served > 0).then_some(served)
    }
}
