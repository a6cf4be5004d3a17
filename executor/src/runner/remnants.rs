//! What ended attempts have left of their states, kept for a while for their jobs' next attempts here.
//!
//! Most of what a job needs to be tried again in place lies there already, so that its restore need not fetch it
//! (`restore/local.rs`). A remnant is only ever a shorter way to what the blob store has: it may be removed at any time,
//! and is when the job's next attempt has restored its state, when it has expired, when there are too many or too little
//! disk, and when this incarnation of the executor ends. An executor that is killed leaves them to the next one, which
//! removes all that it finds (`directory`).
//!
//! Executors do not hear that a job was deleted: that nothing of it stays is what the expiry is for. Deliberately not
//! here: which attempts leave one, which `machine` says.

use super::directory::AttemptDirectory;
use crate::checkpoint::blocking;
use outlive_schemas::id::JobId;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longer than a job waits for its next try, which is a minute and a tenth of it by default at most; and short, for
/// what a deleted job has left lies there in the clear for as long.
const KEPT_MS_MAX: u64 = 2 * 60_000;
/// More than this many jobs fail within two minutes only where something else is wrong.
const REMNANTS_MAX: usize = 64;
/// A disk of which less is free is short: what is left belongs to the jobs that run.
const FREE_PERCENT_MIN: u64 = 5;
/// How long the end of the executor waits for the removal. What is left then is removed at its next start.
const CLEAR_LIMIT: Duration = Duration::from_secs(10);

/// The directory of an attempt that has ended.
#[derive(Debug)]
struct Remnant {
    directory: AttemptDirectory,
    /// Since when it is one.
    since_ms: u64,
    /// The job's next attempt is at it: restoring a large state takes its time.
    is_lent: bool,
}

/// At most one of each job.
#[derive(Debug, Default)]
pub struct Remnants(Mutex<BTreeMap<JobId, Remnant>>);

impl Remnants {
    /// Keeps an attempt's directory, and gives back what is to be removed for it. An attempt that had borrowed what an
    /// earlier one left did not come to have its own state: then that is what stays.
    #[must_use]
    pub fn keep(&self, job: JobId, directory: AttemptDirectory, now_ms: u64) -> Vec<AttemptDirectory> {
        let mut remnants = self.lock();
        if let Some(earlier) = remnants.get_mut(&job).filter(|earlier| earlier.is_lent) {
            earlier.is_lent = false;
            return vec![directory];
        }
        let remnant = Remnant { directory, since_ms: now_ms, is_lent: false };
        let mut removed: Vec<_> = remnants.insert(job, remnant).into_iter().collect();
        if remnants.len() > REMNANTS_MAX
            && let Some(oldest) = remnants.iter().min_by_key(|(_, remnant)| remnant.since_ms).map(|(job, _)| *job)
        {
            removed.extend(remnants.remove(&oldest));
        }
        directories(removed)
    }

    /// Lends the job's next attempt, whose own directory is `borrower`, what there is. It does not expire until that
    /// attempt has its state, or is over.
    pub fn lend(&self, job: JobId, borrower: &AttemptDirectory) -> Option<AttemptDirectory> {
        let mut remnants = self.lock();
        let remnant = remnants.get_mut(&job)?;
        if remnant.directory == *borrower {
            // The same attempt once more: it makes its directory anew.
            remnants.remove(&job);
            return None;
        }
        remnant.is_lent = true;
        Some(remnant.directory.clone())
    }

    /// What there is of a job, to be removed.
    #[must_use]
    pub fn give_up(&self, job: JobId) -> Vec<AttemptDirectory> {
        directories(self.lock().remove(&job))
    }

    /// Those whose time is over, to be removed.
    #[must_use]
    pub fn expired(&self, now_ms: u64) -> Vec<AttemptDirectory> {
        let is_over = |_: &JobId, remnant: &mut Remnant| {
            !remnant.is_lent && now_ms.saturating_sub(remnant.since_ms) >= KEPT_MS_MAX
        };
        directories(self.lock().extract_if(.., is_over).map(|(_, remnant)| remnant))
    }

    /// All, to be removed.
    #[must_use]
    pub fn all(&self) -> Vec<AttemptDirectory> {
        directories(std::mem::take(&mut *self.lock()).into_values())
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Removes all of them, and waits for that; how many there were.
    pub async fn clear(&self) -> usize {
        let all = self.all();
        let count = all.len();
        if count > 0 && tokio::time::timeout(CLEAR_LIMIT, blocking(move || remove(&all))).await.is_err() {
            tracing::warn!("what ended attempts have left is not all removed; the next start of the executor does it");
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Remnant>> {
        // Nothing panics while it holds the lock half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes directories, one after the other. Whether or not that works, their attempts are over. Blocks.
pub fn remove(removed: &[AttemptDirectory]) {
    for directory in removed {
        if let Err(error) = directory.remove() {
            tracing::warn!(?directory, %error, "an attempt's directory was not removed");
        }
    }
}

/// Whether the file system of `path` has too little left to keep anything that can be had elsewhere. Blocks.
pub fn is_disk_short(path: &Path) -> bool {
    match rustix::fs::statvfs(path) {
        Ok(stat) => is_short(stat.f_bavail, stat.f_blocks),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "what is free cannot be told");
            true
        }
    }
}

fn is_short(available_blocks: u64, blocks: u64) -> bool {
    available_blocks < blocks / 100 * FREE_PERCENT_MIN
}

fn directories(remnants: impl IntoIterator<Item = Remnant>) -> Vec<AttemptDirectory> {
    remnants.into_iter().map(|remnant| remnant.directory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::id::Attempt;

    fn job(number: u128) -> JobId {
        JobId(uuid::Uuid::from_u128(number))
    }

    fn directory(number: u128, attempt: u32) -> AttemptDirectory {
        AttemptDirectory::new(Path::new("/data"), job(number), Attempt(attempt))
    }

    #[test]
    fn one_for_a_job_and_the_newest_counts() {
        let remnants = Remnants::default();
        assert_eq!(remnants.keep(job(1), directory(1, 1), 10), []);
        assert_eq!(remnants.keep(job(1), directory(1, 2), 20), [directory(1, 1)]);
        assert_eq!(remnants.lend(job(2), &directory(2, 1)), None, "another job's is nobody else's");
        assert_eq!(remnants.give_up(job(2)), []);
        assert_eq!(remnants.lend(job(1), &directory(1, 3)), Some(directory(1, 2)));
        assert_eq!(remnants.give_up(job(1)), [directory(1, 2)]);
        assert_eq!(remnants.give_up(job(1)), []);
    }

    #[test]
    fn they_expire_unless_somebody_is_at_them() {
        let remnants = Remnants::default();
        for number in 1..=3 {
            assert_eq!(remnants.keep(job(number), directory(number, 1), 1_000 * number as u64), []);
        }
        assert_eq!(remnants.expired(1_000 + KEPT_MS_MAX - 1), []);
        assert_eq!(remnants.expired(1_000 + KEPT_MS_MAX), [directory(1, 1)]);
        assert_eq!(remnants.lend(job(1), &directory(1, 2)), None);
        assert_eq!(remnants.lend(job(2), &directory(2, 2)), Some(directory(2, 1)));
        assert_eq!(remnants.expired(2 * KEPT_MS_MAX), [directory(3, 1)]);
        // The attempt never had its state, so what it borrowed stays, and is not younger for it.
        assert_eq!(remnants.keep(job(2), directory(2, 2), 2 * KEPT_MS_MAX), [directory(2, 2)]);
        assert_eq!(remnants.expired(2 * KEPT_MS_MAX), [directory(2, 1)]);
        assert!(remnants.is_empty());
    }

    #[test]
    fn an_attempt_does_not_borrow_from_itself() {
        let remnants = Remnants::default();
        assert_eq!(remnants.keep(job(1), directory(1, 1), 0), []);
        assert_eq!(remnants.lend(job(1), &directory(1, 1)), None);
        assert!(remnants.is_empty(), "it would be removed while the attempt runs in it");
    }

    #[test]
    fn beyond_their_number_the_oldest_goes() {
        let remnants = Remnants::default();
        // The oldest is neither the first nor the last.
        let since = |number: usize| if number == 7 { 1 } else { 100 + number as u64 };
        for number in 0..REMNANTS_MAX {
            assert_eq!(remnants.keep(job(number as u128), directory(number as u128, 1), since(number)), []);
        }
        assert_eq!(remnants.keep(job(1_000), directory(1_000, 1), 5_000), [directory(7, 1)]);
        assert_eq!(remnants.all().len(), REMNANTS_MAX);
    }

    #[test]
    fn a_disk_is_short_below_its_least_and_where_nobody_can_tell() {
        assert!(!is_short(5_000, 100_000));
        assert!(is_short(4_999, 100_000));
        assert!(is_disk_short(Path::new("/nowhere at all")));
    }

    #[tokio::test]
    async fn clearing_removes_them_from_the_disk() {
        let place = tempfile::tempdir().expect("a directory");
        let left = AttemptDirectory::new(place.path(), job(1), Attempt(1));
        left.create(None, &[]).expect("made");
        std::fs::write(left.state().join("secret"), "x").expect("written");
        let remnants = Remnants::default();
        assert_eq!(remnants.keep(job(1), left.clone(), 0), []);
        assert_eq!(remnants.clear().await, 1);
        assert!(!left.state().exists() && remnants.is_empty());
    }
}
