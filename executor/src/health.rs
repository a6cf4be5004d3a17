//! How this host feels: how late timers fire, how long a small durable write takes, and what memory is left.
//!
//! What follows from it is judged in `judge`, and acted on by the leader.

mod judge;

pub use judge::HealthConfig;

use compact_str::CompactString;
use judge::Judge;
use outlive_schemas::message::Health;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Between two looks at the clock and at memory.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// A timer's lateness is the worst of this many looks: two seconds.
const LAG_LOOKS: usize = 8;
/// Between two writes: often enough to see a disk degrade, too seldom to wear it.
const WRITE_PAUSE: Duration = Duration::from_secs(5);
/// What is written: one page.
const WRITE_BYTES: usize = 4096;

const PROBE_FILE: &str = "disk-probe";

/// Measures until it is dropped.
#[derive(Debug)]
pub struct HealthMonitor {
    latest: watch::Receiver<Health>,
    degraded: watch::Receiver<Option<CompactString>>,
    tasks: [AbortHandle; 2],
}

impl HealthMonitor {
    pub fn start(data_dir: &Path, config: HealthConfig) -> HealthMonitor {
        let (sender, latest) =
            watch::channel(Health { memory_available_bytes: memory_available(), ..Health::default() });
        let (said, degraded) = watch::channel(None);
        let writing_since = Arc::new(Mutex::new(None));
        let looking = tokio::spawn(look(sender.clone(), said, Arc::clone(&writing_since), config)).abort_handle();
        let writing = tokio::spawn(write(data_dir.join(PROBE_FILE), sender, writing_since)).abort_handle();
        HealthMonitor { latest, degraded, tasks: [looking, writing] }
    }

    /// Why this host should be spared, if it should.
    pub fn degraded(&self) -> Option<CompactString> {
        self.degraded.borrow().clone()
    }

    pub fn latest(&self) -> Health {
        *self.latest.borrow()
    }
}

impl Drop for HealthMonitor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Since when a write is under way, if one is: one that hangs is never measured otherwise.
type WritingSince = Arc<Mutex<Option<Instant>>>;

async fn look(
    health: watch::Sender<Health>,
    degraded: watch::Sender<Option<CompactString>>,
    writing_since: WritingSince,
    config: HealthConfig,
) {
    let started = Instant::now();
    let mut judge = Judge::new(config);
    let mut lags = [0; LAG_LOOKS];
    for turn in (0..LAG_LOOKS).cycle() {
        let began = Instant::now();
        tokio::time::sleep(LOOK_PAUSE).await;
        lags[turn] = micros(began.elapsed().saturating_sub(LOOK_PAUSE));
        let worst = lags.iter().copied().max().unwrap_or(0);
        let available = memory_available();
        let hanging = writing_since.lock().unwrap_or_else(PoisonError::into_inner).map_or(0, |at| micros(at.elapsed()));
        health.send_modify(|health| {
            health.scheduling_lag_us = worst;
            health.memory_available_bytes = available;
            health.disk_write_us = health.disk_write_us.max(hanging);
        });
        let latest = *health.borrow();
        let verdict = judge.judge(&latest, micros(started.elapsed()) / 1_000).cloned();
        degraded.send_if_modified(|last| {
            let changed = *last != verdict;
            if last.is_some() != verdict.is_some() {
                match &verdict {
                    Some(why) => tracing::warn!(%why, "this host is not well"),
                    None => tracing::info!("this host is well again"),
                }
            }
            *last = verdict;
            changed
        });
    }
}

async fn write(path: PathBuf, health: watch::Sender<Health>, writing_since: WritingSince) {
    let mut complained = false;
    loop {
        let probe = path.clone();
        let began = Instant::now();
        let under_way = |since| *writing_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
        under_way(Some(began));
        let written = tokio::task::spawn_blocking(move || write_durably(&probe)).await;
        under_way(None);
        match written {
            Ok(Ok(took)) => {
                complained = false;
                health.send_modify(|health| health.disk_write_us = micros(took));
            }
            // A disk that cannot be written is the slowest there is.
            Ok(Err(error)) => {
                if !complained {
                    tracing::warn!(path = %path.display(), %error, "the data directory cannot be written");
                    complained = true;
                }
                health.send_modify(|health| health.disk_write_us = u64::MAX);
            }
            Err(_) => health.send_modify(|health| health.disk_write_us = micros(began.elapsed())),
        }
        tokio::time::sleep(WRITE_PAUSE).await;
    }
}

fn write_durably(path: &Path) -> std::io::Result<Duration> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let began = Instant::now();
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&[0; WRITE_BYTES])?;
    file.sync_data()?;
    Ok(began.elapsed())
}

/// What the kernel would give without swapping; 0 where it does not say.
fn memory_available() -> u64 {
    std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_available(&text)).unwrap_or(0)
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::time::Millis;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse_available("MemTotal: 8 kB\nMemAvailable:    16 kB\n"), Some(16 * 1024));
        assert_eq!(parse_available("MemTotal: 8 kB\n"), None);
        assert_eq!(parse_available("MemAvailable: lots\n"), None);
        assert!(memory_available() > 0);
    }

    #[tokio::test]
    async fn a_host_is_measured() {
        let directory = tempfile::tempdir().expect("a directory");
        let monitor = HealthMonitor::start(directory.path(), HealthConfig::default());
        let mut latest = monitor.latest.clone();
        let measured = latest.wait_for(|health| health.disk_write_us > 0 && health.memory_available_bytes > 0);
        tokio::time::timeout(Duration::from_secs(30), measured).await.expect("in time").expect("measured");
    }

    #[tokio::test]
    async fn a_host_beyond_its_thresholds_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        // No disk is as fast as that.
        let config = HealthConfig { disk_write_max: Millis::ZERO, patience: Millis::ZERO, ..HealthConfig::default() };
        let monitor = HealthMonitor::start(directory.path(), config);
        let mut degraded = monitor.degraded.clone();
        let said = degraded.wait_for(|why| why.as_ref().is_some_and(|why| why.contains("data directory")));
        tokio::time::timeout(Duration::from_secs(30), said).await.expect("in time").expect("said");
        assert!(monitor.degraded().is_some());
    }

    #[tokio::test]
    async fn a_disk_that_cannot_be_written_is_as_slow_as_can_be() {
        let monitor = HealthMonitor::start(Path::new("/proc/nowhere"), HealthConfig::default());
        let mut latest = monitor.latest.clone();
        let measured = latest.wait_for(|health| health.disk_write_us == u64::MAX);
        tokio::time::timeout(Duration::from_secs(30), measured).await.expect("in time").expect("measured");
    }
}
