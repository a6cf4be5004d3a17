//! The long work of attempts, each piece a task of its own: fetch and restore, launch, read, store, collect.
//!
//! A task gets what it needs by value, sends one input to the loop when it is done, and can be given up at any time.
//! How many of each kind work at once is limited here; what waits for its turn holds nothing up.

use crate::attempt::{CheckpointFault, PrepareFault, ResultFile};
use crate::checkpoint::{Baseline, Checkpointer, blocking};
use crate::driver::limit::Limits;
use crate::driver::process::{
    FreezeError, Frozen, LAST_HOLD_LIMIT, ProcessAttempt, ProcessEvent, ProcessHandle, StartSpec,
};
use crate::environment::{self, Place};
use crate::error::{explained, shortened};
use crate::logs::{LogPump, LogSink, LogTarget, Output, spawn_logs};
use crate::metrics;
use crate::restore::{RestoreError, restore};
use crate::runner::directory::AttemptDirectory;
use crate::runner::remnants::{self, Remnants};
use crate::scan::Reading;
use crate::shim::BootTime;
use compact_str::CompactString;
use outlive_schemas::checkpoint::{CheckpointRef, Taken};
use outlive_schemas::job::{Driver, Quiesce};
use outlive_schemas::message::Assignment;
use outlive_store::blob::BlobStore;
use outlive_store::key_store::{KeyError, KeyStore};
use outlive_store::seal::Key;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

/// Restores write to the disk that running jobs use as well.
const RESTORES_MAX: usize = 8;
/// A launch is two processes; more at once than there are cores makes none of them faster.
const LAUNCHES_MAX: usize = 16;
/// Jobs that stand still at once: each waits for the disk behind the others.
const READINGS_MAX: usize = 4;
/// Checkpoints being uploaded at once, each with its own bounded memory.
const STORES_MAX: usize = 8;

/// How long the end of an attempt waits for its last log entries. The log must not keep a job from ending.
const LOG_END_LIMIT: Duration = Duration::from_secs(5);

/// What every attempt's work needs.
pub struct Workshop {
    pub blobs: Arc<dyn BlobStore>,
    pub keys: Arc<dyn KeyStore>,
    pub logs: Arc<LogSink>,
    pub shim: PathBuf,
    pub place: Place,
    pub remnants: Remnants,
    restores: Semaphore,
    launches: Semaphore,
    readings: Semaphore,
    stores: Semaphore,
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What an attempt begins with.
#[derive(Debug)]
pub struct Ground {
    pub checkpointer: Arc<Checkpointer>,
}

/// An attempt whose process runs, and whose output is being carried away.
#[derive(Debug)]
pub struct Launched {
    pub handle: ProcessHandle,
    pub events: mpsc::Receiver<ProcessEvent>,
    pub logs: LogPump,
    pub output: Output,
}

impl Workshop {
    pub fn new(
        blobs: Arc<dyn BlobStore>,
        keys: Arc<dyn KeyStore>,
        logs: Arc<LogSink>,
        shim: PathBuf,
        place: Place,
    ) -> Workshop {
        Workshop {
            blobs,
            keys,
            logs,
            shim,
            place,
            remnants: Remnants::default(),
            restores: Semaphore::new(RESTORES_MAX),
            launches: Semaphore::new(LAUNCHES_MAX),
            readings: Semaphore::new(READINGS_MAX),
            stores: Semaphore::new(STORES_MAX),
        }
    }

    /// Makes the directory, gets the key, and restores the state if there is one, with the help of what an `earlier`
    /// attempt left here.
    pub async fn prepare(
        &self,
        assignment: &Assignment,
        directory: &AttemptDirectory,
        earlier: Option<&AttemptDirectory>,
    ) -> Result<Ground, PrepareFault> {
        let _turn = turn(&self.restores).await;
        let key = self.key(assignment).await?;
        make(assignment, directory).await?;
        let baseline = match assignment.restore {
            None => None,
            Some(from) => Some(self.restore(assignment, from, &key, directory, earlier).await?),
        };
        let (state, staging, blobs) = (directory.state(), directory.staging(), Arc::clone(&self.blobs));
        let checkpointer = Checkpointer::new(assignment.job, key, state, staging, blobs, baseline)
            .with_retained(assignment.retained.clone());
        Ok(Ground { checkpointer: Arc::new(checkpointer) })
    }

    async fn key(&self, assignment: &Assignment) -> Result<Key, PrepareFault> {
        let found = match assignment.restore {
            None => self.keys.job_key(assignment.job).await.map(Some),
            // A new key could open nothing that the old one sealed.
            Some(_) => self.keys.existing_job_key(assignment.job).await,
        };
        match found {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(PrepareFault::Unreadable {
                reason: "the job's data key is gone, and its checkpoints with it".into(),
            }),
            Err(error @ KeyError::Unavailable { .. }) => Err(PrepareFault::Unavailable { reason: explained(&error) }),
            Err(error @ KeyError::Refused { .. }) => Err(PrepareFault::Local { reason: explained(&error) }),
            // The key is well; it is this executor that lacks the master key for it.
            Err(error @ KeyError::Wrapped { .. }) => {
                metrics::did_not_open();
                Err(PrepareFault::Local { reason: explained(&error) })
            }
        }
    }

    async fn restore(
        &self,
        assignment: &Assignment,
        from: CheckpointRef,
        key: &Key,
        directory: &AttemptDirectory,
        earlier: Option<&AttemptDirectory>,
    ) -> Result<Baseline, PrepareFault> {
        let began = BootTime::now();
        let restore = |earlier: Option<&AttemptDirectory>| {
            let (blobs, earlier) = (Arc::clone(&self.blobs), earlier.map(AttemptDirectory::state));
            restore(blobs, key.clone(), assignment.job, from, directory.state(), earlier)
        };
        let mut restored = restore(earlier).await;
        if restored.as_ref().is_err_and(is_disk_full) && self.make_room(earlier).await {
            make(assignment, directory).await?;
            restored = restore(None).await;
        }
        metrics::restored(restored.as_ref().ok().map(|restored| (BootTime::now().since(began), restored)));
        restored.map(|restored| restored.baseline).map_err(|error| {
            let reason = explained(&error);
            match error {
                RestoreError::Unavailable { .. } => PrepareFault::Unavailable { reason },
                RestoreError::Unreadable { .. } => {
                    metrics::did_not_open();
                    PrepareFault::Unreadable { reason }
                }
                RestoreError::Local { .. } => PrepareFault::Local { reason },
            }
        })
    }

    /// Removes whatever lies on the disk and can be had elsewhere. Whether there was anything.
    async fn make_room(&self, earlier: Option<&AttemptDirectory>) -> bool {
        let kept = self.remnants.clear().await;
        let Some(earlier) = earlier.cloned() else { return kept > 0 };
        blocking(move || remnants::remove(&[earlier])).await;
        true
    }

    /// Starts the process.
    pub async fn launch(
        &self,
        assignment: &Assignment,
        directory: &AttemptDirectory,
        deadline: BootTime,
    ) -> Result<Launched, CompactString> {
        let Driver::Process(process) = &assignment.spec.driver else {
            return Err("only process jobs have a process".into());
        };
        let spec = StartSpec {
            command: process.command.clone(),
            env: environment::variables(assignment, &self.place, directory),
            cwd: directory.state(),
            limits: Limits { memory_bytes: assignment.spec.resources.memory.0 },
            deadline,
        };
        let _turn = turn(&self.launches).await;
        let launched = ProcessAttempt::spawn(&self.shim, spec).await.map_err(|error| explained(&error))?;
        let ProcessAttempt { handle, stdout, stderr, events } = launched;
        let target = LogTarget {
            sink: Arc::clone(&self.logs),
            namespace: assignment.namespace.clone(),
            job: assignment.job,
            attempt: assignment.attempt,
            output: Output::since_now(),
        };
        let output = target.output.clone();
        Ok(Launched { handle, events, output, logs: spawn_logs(target, stdout, stderr) })
    }

    /// Reads the state while the job stands still, and says for how long it did.
    pub async fn read(
        &self,
        checkpointer: Arc<Checkpointer>,
        process: ProcessHandle,
        quiesce: Quiesce,
    ) -> Result<(Reading, Duration), CheckpointFault> {
        let _turn = turn(&self.readings).await;
        let frozen = match quiesce {
            Quiesce::None => None,
            Quiesce::Freeze => Some(process.freeze().await.map_err(unfrozen)?),
        };
        let tree = process.pid();
        let read = blocking(move || checkpointer.read_of(tree)).await;
        let pause = match frozen {
            None => Duration::ZERO,
            // Only if the job stood still to the end is what was read of one moment.
            Some(frozen) => frozen.thaw().await.map_err(unfrozen)?.paused,
        };
        let reading = read.map_err(|error| fault(&error))?;
        if quiesce == Quiesce::Freeze {
            metrics::paused(pause);
        }
        Ok((reading, pause))
    }

    /// Reads the state for the last time: the job does not go on after it, unless what is returned is dropped.
    pub async fn read_last(
        &self,
        checkpointer: Arc<Checkpointer>,
        process: ProcessHandle,
    ) -> Result<(Reading, Frozen), CheckpointFault> {
        let _turn = turn(&self.readings).await;
        let frozen = process.freeze_for(LAST_HOLD_LIMIT).await.map_err(unfrozen)?;
        let tree = process.pid();
        let reading = blocking(move || checkpointer.read_of(tree)).await.map_err(|error| fault(&error))?;
        Ok((reading, frozen))
    }

    /// Stores what was read. Nothing: it is what the last checkpoint holds.
    pub async fn store(
        &self,
        checkpointer: Arc<Checkpointer>,
        reading: Reading,
    ) -> Result<Option<Taken>, CheckpointFault> {
        let _turn = turn(&self.stores).await;
        // Given up by dropping this future.
        let stored = checkpointer.store(reading, std::future::pending()).await;
        stored.map_err(|error| fault(&error))
    }

    /// Waits for the last of the log, and reads the result where one counts.
    pub async fn collect(&self, directory: AttemptDirectory, logs: Option<LogPump>, result: bool) -> ResultFile {
        if let Some(logs) = logs {
            logs.finish(LOG_END_LIMIT).await;
        }
        if !result {
            return ResultFile::None;
        }
        blocking(move || directory.read_result()).await
    }
}

/// Kills an attempt as it stands. An error: it did not stand still, so what was read of it is worth nothing.
pub async fn end_frozen(frozen: Frozen) -> Result<(), CheckpointFault> {
    let ended = frozen.end().await.map_err(unfrozen)?;
    metrics::paused(ended.paused);
    Ok(())
}

fn unfrozen(error: FreezeError) -> CheckpointFault {
    match error {
        FreezeError::NotRunning => CheckpointFault::Over,
        error => fault(&error),
    }
}

fn fault(error: &dyn std::error::Error) -> CheckpointFault {
    CheckpointFault::Failed { reason: explained(error) }
}

async fn make(assignment: &Assignment, directory: &AttemptDirectory) -> Result<(), PrepareFault> {
    let (place, input, inputs) = (directory.clone(), assignment.spec.input.clone(), assignment.inputs.clone());
    let made = blocking(move || place.create(input.as_ref(), &inputs)).await;
    made.map_err(|error| PrepareFault::Local {
        reason: shortened(&format!("the attempt's directory cannot be made: {error}")),
    })
}

fn is_disk_full(error: &RestoreError) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, RestoreError::Local { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
}

async fn turn(gate: &Semaphore) -> SemaphorePermit<'_> {
    gate.acquire().await.expect("these are never closed")
}
