//! Taking checkpoints of one attempt's state directory.
//!
//! In three steps, so that the job waits only for the first: [`Checkpointer::read`] while it is frozen,
//! [`Checkpointer::store`] after the thaw, and [`Checkpointer::commit`] once the leader has made the checkpoint exist.
//! Only then does the next one build on it: a checkpoint that failed anywhere on the way leaves the one before as the
//! base, and costs no more than what it uploaded, which stays known and is not uploaded twice.
//!
//! A manifest's root is put last, when every chunk it leads to is acknowledged. Nothing is ever taken for stored but what
//! a retained checkpoint refers to and what this attempt put since: other chunks may be about to be collected, which
//! is `checkpoint/collect.rs`.
//!
//! Deliberately not here: when to take one, freezing, and reporting; see `runner.rs`.

pub mod collect;
mod work;

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use outlive_schemas::checkpoint::{BlobName, Taken};
use outlive_schemas::id::JobId;
use outlive_store::blob::{BlobError, BlobStore, Mark, Owner, Put};
use outlive_store::seal::Key;

use crate::chunk::Sealer;
use crate::manifest::ManifestError;
use crate::scan::{self, Index, Reading, ScanError};
use collect::Keeping;
use work::{Step, Work};

/// Uploads under way at once. At 128 KiB each this is 4 MiB, several round trips' worth of a fast network.
const UPLOADS_MAX: usize = 32;
/// How often a leftover is put anew. A replica that is behind may hide what is to be deleted, for a moment.
const RENEWALS_MAX: usize = 10;

/// What a checkpoint consists of that exists: what the next one builds on.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    pub(crate) manifest: Option<BlobName>,
    /// Every blob that it refers to.
    pub(crate) blobs: Arc<HashSet<BlobName>>,
    pub(crate) index: Arc<Index>,
}

/// Why there is no checkpoint. The one before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the state cannot be read")]
    Scan {
        #[source]
        source: ScanError,
    },
    #[error("the state is too large for one checkpoint")]
    TooLarge {
        #[source]
        source: ManifestError,
    },
    #[error("the chunk or manifest {name} could not be stored")]
    Store {
        name: BlobName,
        #[source]
        source: BlobError,
    },
    /// The host's fault.
    #[error("the copy of `{path}` could not be read back")]
    Local {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("a later checkpoint was committed since this state was read; the next one will hold it")]
    Outdated,
    #[error("the checkpoint was cancelled")]
    Cancelled,
}

/// Takes the checkpoints of one attempt, one after the other.
pub struct Checkpointer {
    job: JobId,
    sealer: Arc<Sealer>,
    state_dir: PathBuf,
    staging_dir: PathBuf,
    blobs: Arc<dyn BlobStore>,
    /// Held by whoever uploads or collects.
    turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    baseline: Baseline,
    /// Put since, by checkpoints that failed or are not committed yet.
    put: HashSet<BlobName>,
    /// Stored, and not committed yet.
    stored: Option<Baseline>,
    /// And what had been stored by then.
    stored_mark: Option<Mark>,
    keeping: Keeping,
}

impl std::fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpointer")
            .field("job", &self.job)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

impl Checkpointer {
    /// `baseline` is what was restored into `state_dir`, if anything was. `staging_dir` is for copies that do not fit
    /// into memory; nothing stays in it.
    pub fn new(
        job: JobId,
        key: Key,
        state_dir: PathBuf,
        staging_dir: PathBuf,
        blobs: Arc<dyn BlobStore>,
        baseline: Option<Baseline>,
    ) -> Self {
        let mut known = Known { baseline: baseline.unwrap_or_default(), ..Known::default() };
        if let Some(manifest) = known.baseline.manifest {
            known.keeping.committed(manifest, known.baseline.blobs.clone(), None);
        }
        let sealer = Arc::new(Sealer::new(job, &key));
        let turn = tokio::sync::Mutex::new(());
        Checkpointer { job, sealer, state_dir, staging_dir, blobs, turn, known: Mutex::new(known) }
    }

    /// Reads what changed. Blocks, for a time in proportion to what changed; the job should stand still meanwhile.
    ///
    /// For a directory that no process writes to through memory; for a job's own see [`Checkpointer::read_of`].
    pub fn read(&self) -> Result<Reading, CheckpointError> {
        self.read_with(None)
    }

    /// As [`Checkpointer::read`], while `process`, the job's first, and others below its shim may have files mapped.
    pub fn read_of(&self, process: i32) -> Result<Reading, CheckpointError> {
        self.read_with(Some(process))
    }

    fn read_with(&self, process: Option<i32>) -> Result<Reading, CheckpointError> {
        let index = self.known().baseline.index.clone();
        let reading = scan::scan(&self.state_dir, &self.staging_dir, &index, process)
            .map_err(|source| CheckpointError::Scan { source })?;
        tracing::debug!(
            job = %self.job,
            entries = reading.entries.len(),
            files_read = reading.files_read,
            bytes_read = reading.bytes_read,
            sockets_left_out = reading.sockets,
            "state read"
        );
        Ok(reading)
    }

    /// Stores what was read. Nothing is returned if it is what the last committed checkpoint holds already, or if it is
    /// empty and there is none.
    ///
    /// `duration_ms` and `pause_ms` of the result are 0: the caller measures them. It may be dropped at any time, or
    /// ended by `cancel`: the checkpoint then does not exist.
    pub async fn store(
        &self,
        reading: Reading,
        cancel: impl Future<Output = ()> + Send,
    ) -> Result<Option<Taken>, CheckpointError> {
        tokio::select! {
            biased;
            () = cancel => Err(CheckpointError::Cancelled),
            stored = self.upload(reading) => stored,
        }
    }

    /// The leader has committed `taken`: from now on the next checkpoint builds on it. Anything but the last stored one
    /// changes nothing.
    pub fn commit(&self, taken: &Taken) {
        let mut known = self.known();
        if let Some(stored) = known.stored.take_if(|stored| stored.manifest == Some(taken.manifest)) {
            known.baseline = stored;
            known.put.clear();
            let (blobs, mark) = (known.baseline.blobs.clone(), known.stored_mark.take());
            known.keeping.committed(taken.manifest, blobs, mark);
        }
    }

    async fn upload(&self, reading: Reading) -> Result<Option<Taken>, CheckpointError> {
        let _turn = self.turn.lock().await;
        let base = self.known().baseline.clone();
        if reading.is_empty() && base.manifest.is_none() {
            return Ok(None);
        }
        let known: HashSet<BlobName> = self.known().put.clone();
        let work = Work::new(reading, self.sealer.clone(), base.blobs.clone(), known);
        let mut uploads = FuturesUnordered::new();
        let mut waiting = std::collections::VecDeque::new();
        let step = |work: Box<Work>| Box::pin(blocking(move || work.step()));
        let mut working = Some(step(work));
        let mut finished = None;
        let mut uploaded_bytes = 0;
        loop {
            while uploads.len() < UPLOADS_MAX
                && let Some((name, sealed)) = waiting.pop_front()
            {
                uploads.push(self.put(name, sealed));
            }
            tokio::select! {
                Some(put) = uploads.next(), if !uploads.is_empty() => uploaded_bytes += put?,
                // The next step waits until what the last one made is on its way, so that memory stays bounded.
                made = async { working.as_mut().expect("checked").await }, if working.is_some() && waiting.is_empty() => {
                    working = None;
                    match made? {
                        Step::Again { work, sealed } => {
                            waiting.extend(sealed);
                            working = Some(step(work));
                        }
                        Step::Finished(done) => finished = Some(done),
                    }
                }
                else => break,
            }
        }
        let done = finished.expect("the loop ends when the work has");
        let next = Baseline { manifest: Some(done.manifest), blobs: Arc::new(done.blobs), index: Arc::new(done.index) };
        if base.manifest == Some(done.manifest) {
            // Nothing changed, but more files may now be known to be as they were.
            let mut known = self.known();
            if known.baseline.manifest == next.manifest {
                known.baseline = next;
            }
            return Ok(None);
        }
        uploaded_bytes += self.put(done.manifest, done.root).await?;
        let mark = self.mark().await;
        {
            let mut known = self.known();
            known.stored = Some(next);
            known.stored_mark = mark;
        }
        let (manifest, size_bytes, files) = (done.manifest, done.size_bytes, done.files);
        Ok(Some(Taken { manifest, size_bytes, uploaded_bytes, files, duration_ms: 0, pause_ms: 0 }))
    }

    /// What is stored by now, if a round of collecting is due once the checkpoint is committed.
    async fn mark(&self) -> Option<Mark> {
        if !self.known().keeping.is_due() {
            return None;
        }
        let mark = self.blobs.mark().await;
        mark.inspect_err(|error| tracing::debug!(job = %self.job, %error, "nothing is collected this time")).ok()
    }

    /// How many bytes went out.
    ///
    /// A blob that is there already may be an older attempt's leftover, or our own from a try that was not answered.
    /// Unless a retained checkpoint refers to it, it may be about to be collected: then nobody needs it, and it is put
    /// anew, in a place that no collector has been told of.
    async fn put(&self, name: BlobName, sealed: Bytes) -> Result<u64, CheckpointError> {
        let (bytes, owner) = (sealed.len() as u64, Owner::Job(self.job));
        let failed = |source| CheckpointError::Store { name, source };
        for _ in 0..RENEWALS_MAX {
            let put = self.blobs.put(owner, name, sealed.clone()).await.map_err(failed)?;
            if put == Put::Stored || self.is_retained(name).await.map_err(failed)? {
                self.known().put.insert(name);
                return Ok(bytes);
            }
            self.blobs.delete(owner, name).await.map_err(failed)?;
        }
        let reason = format!("it is there again each of {RENEWALS_MAX} times it is deleted");
        Err(failed(BlobError::Unavailable { reason }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it holds the lock half-changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels such work, and then nothing is polled any more.
            Err(_) => std::future::pending().await,
        },
    }
}
