//! A node's own clock: off by some, and running a little too fast or too slow.

use super::env::{MS, Micros};
use outlive_schemas::time::Timestamp;

/// When every run begins, by a clock that is right.
const EPOCH_MS: u64 = 1_800_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
pub struct NodeClock {
    /// Milliseconds ahead of the right time; negative: behind.
    pub ahead_ms: i64,
    /// Parts per million by which it runs fast.
    pub fast_ppm: i64,
}

impl NodeClock {
    /// By a monotonic clock of this node's.
    pub fn micros(&self, now: Micros) -> Micros {
        let drift = (now as i128 * i128::from(self.fast_ppm)) / 1_000_000;
        (now as i128 + drift) as u64
    }

    pub fn wall(&self, now: Micros) -> Timestamp {
        Timestamp((EPOCH_MS + self.micros(now) / MS).saturating_add_signed(self.ahead_ms))
    }
}
