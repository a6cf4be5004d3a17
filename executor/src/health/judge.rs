//! Measurements → whether this host is well, with hysteresis.
//!
//! A host is not well when it has been beyond a threshold for a while, and is well again only after it has been far from
//! all of them for three times as long: one that goes to and fro would have its jobs moved to and fro.
//!
//! Pure. What follows is the leader's to say: it sees whether others are any better.

use compact_str::{CompactString, format_compact};
use outlive_schemas::message::Health;
use outlive_schemas::size::ByteSize;
use outlive_schemas::time::Millis;
use serde::{Deserialize, Serialize};

/// The `[executor.health]` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// A small write to the data directory, with its fsync.
    pub disk_write_max: Millis,
    /// How late a timer fires.
    pub scheduling_lag_max: Millis,
    pub memory_available_min: ByteSize,
    /// How long beyond a threshold counts.
    pub patience: Millis,
}

impl Default for HealthConfig {
    fn default() -> Self {
        HealthConfig {
            // Checkpoints of a job that writes at all take minutes on such a disk.
            disk_write_max: Millis::secs(2),
            // Heartbeats are late by then, and the executor is about to be taken for lost.
            scheduling_lag_max: Millis(1_500),
            // The kernel is about to choose whom to kill.
            memory_available_min: ByteSize::mib(64),
            patience: Millis::secs(10),
        }
    }
}

/// Well again after so many times the patience.
const RECOVERY_FACTOR: u64 = 3;

#[derive(Debug)]
pub struct Judge {
    config: HealthConfig,
    /// Since when it is beyond a threshold; since when it is far from all.
    bad_since_ms: Option<u64>,
    good_since_ms: Option<u64>,
    degraded: Option<CompactString>,
}

impl Judge {
    pub fn new(config: HealthConfig) -> Judge {
        Judge { config, bad_since_ms: None, good_since_ms: None, degraded: None }
    }

    /// Why the host should be spared, if it should.
    pub fn judge(&mut self, health: &Health, now_ms: u64) -> Option<&CompactString> {
        let HealthConfig { patience, .. } = self.config;
        match self.complaint(health, false) {
            Some(complaint) => {
                self.good_since_ms = None;
                let since = *self.bad_since_ms.get_or_insert(now_ms);
                if now_ms.saturating_sub(since) >= patience.0 || self.degraded.is_some() {
                    self.degraded = Some(complaint);
                }
            }
            None => {
                self.bad_since_ms = None;
                // Between the threshold and half of it nothing changes.
                if self.complaint(health, true).is_some() {
                    self.good_since_ms = None;
                } else {
                    let since = *self.good_since_ms.get_or_insert(now_ms);
                    if now_ms.saturating_sub(since) >= patience.0.saturating_mul(RECOVERY_FACTOR) {
                        self.degraded = None;
                    }
                }
            }
        }
        self.degraded.as_ref()
    }

    /// The first threshold that is passed; `strictly`: half of one.
    fn complaint(&self, health: &Health, strictly: bool) -> Option<CompactString> {
        let HealthConfig { disk_write_max, scheduling_lag_max, memory_available_min, .. } = self.config;
        let part = if strictly { 2 } else { 1 };
        let over = |micros: u64, max: Millis| micros > max.0.saturating_mul(1_000) / part;
        let millis = |micros: u64| Millis(micros / 1_000);
        if over(health.disk_write_us, disk_write_max) {
            let took = match health.disk_write_us {
                u64::MAX => "its data directory cannot be written".into(),
                took => format_compact!("a write to its data directory takes {}", millis(took)),
            };
            return Some(format_compact!("{took}; the limit is {disk_write_max}"));
        }
        if over(health.scheduling_lag_us, scheduling_lag_max) {
            let late = millis(health.scheduling_lag_us);
            return Some(format_compact!("its timers are late by {late}; the limit is {scheduling_lag_max}"));
        }
        // 0: the kernel does not say.
        let available = health.memory_available_bytes;
        if available > 0 && available < memory_available_min.0.saturating_mul(part) {
            let available = ByteSize::mib(available >> 20);
            return Some(format_compact!(
                "{available} of its memory are available; the least is {memory_available_min}"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Health = Health { scheduling_lag_us: 900, disk_write_us: 4_000, memory_available_bytes: 1 << 32 };

    fn slow(millis: u64) -> Health {
        Health { disk_write_us: millis * 1_000, ..WELL }
    }

    #[test]
    fn a_moment_is_no_illness_and_a_good_moment_no_recovery() {
        let mut judge = Judge::new(HealthConfig::default());
        let mut check = |at_ms, health: Health, degraded: bool| {
            assert_eq!(judge.judge(&health, at_ms).is_some(), degraded, "{health:?} at {at_ms}");
        };
        check(0, WELL, false);
        check(1_000, slow(2_001), false);
        check(10_999, slow(3_000), false);
        check(11_000, slow(3_000), true);
        check(12_000, WELL, true);
        check(41_999, WELL, true);
        // Half-way back is not back, and begins the wait anew.
        check(42_000, slow(1_500), true);
        check(43_000, WELL, true);
        check(72_999, WELL, true);
        check(73_000, WELL, false);
        // Nor is what comes and goes an illness.
        for turn in 0..100 {
            check(80_000 + turn * 9_000, slow(9_000), false);
            check(80_001 + turn * 9_000, WELL, false);
        }
    }

    #[test]
    fn every_measure_has_its_words() {
        let at_once = HealthConfig { patience: Millis::ZERO, ..HealthConfig::default() };
        let words = |health: Health| Judge::new(at_once).judge(&health, 0).map(ToString::to_string);
        assert_eq!(words(WELL), None);
        assert_eq!(words(slow(5_000)).as_deref(), Some("a write to its data directory takes 5s; the limit is 2s"));
        let unwritable = Health { disk_write_us: u64::MAX, ..WELL };
        assert_eq!(words(unwritable).as_deref(), Some("its data directory cannot be written; the limit is 2s"));
        let late = Health { scheduling_lag_us: 1_600_000, ..WELL };
        assert_eq!(words(late).as_deref(), Some("its timers are late by 1s600ms; the limit is 1s500ms"));
        let full = Health { memory_available_bytes: 1 << 20, ..WELL };
        assert_eq!(words(full).as_deref(), Some("1MiB of its memory are available; the least is 64MiB"));
        assert_eq!(words(Health { memory_available_bytes: 0, ..WELL }), None, "the kernel does not say");
    }
}
