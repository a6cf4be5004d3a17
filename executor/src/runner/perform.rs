//! Between the machines and the tasks: what a task came back with becomes a machine's input, and a machine's effects
//! become tasks.

use super::remnants;
use super::work::{self, Ground, Launched};
use super::{AttemptInput, Input, Live, Runner, ask};
use crate::attempt::{self, Effect};
use crate::checkpoint::blocking;
use crate::driver::process::{ControlError, ProcessEvent, ProcessHandle};
use crate::error::explained;
use crate::machine;
use crate::metrics;
use crate::runner::directory::AttemptDirectory;
use crate::shim::BootTime;
use futures::future::FutureExt as _;
use outlive_schemas::checkpoint::Taken;
use outlive_schemas::codec::pack;
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::message::{Assignment, Heartbeat, Retained};
use outlive_schemas::subject;
use outlive_schemas::trace::Step;
use outlive_store::telemetry::trace::SpanRecord;
use rustix::process::Signal;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

impl Runner {
    /// Gives the machine an input and does what it says.
    pub(super) async fn step(&mut self, input: machine::Input) {
        let now_ms = self.now_ms();
        for effect in self.machine.input(input, now_ms) {
            self.perform(effect).await;
        }
    }

    /// Says of attempts whose silence counts when they last wrote something.
    pub(super) async fn note_output(&mut self) {
        let last = |live: &Live| Some(millis(live.output.as_ref()?.last()?.since(self.origin)));
        let wrote: Vec<_> = self.live.iter().filter_map(|(key, live)| Some((*key, last(live)?))).collect();
        for ((job, attempt), at_ms) in wrote {
            self.step(machine::Input::Attempt(job, attempt, attempt::Input::Output { at_ms })).await;
        }
    }

    /// An attempt that is not there any more needs nothing.
    pub(super) async fn attempt_input(&mut self, job: JobId, attempt: Attempt, input: AttemptInput) {
        let now_ms = self.now_ms();
        let Some(live) = self.live.get_mut(&(job, attempt)) else { return };
        let input = match input {
            AttemptInput::Prepared(Ok(Ground { checkpointer })) => {
                live.earlier = None;
                clean_up(self.workshop.remnants.give_up(job));
                live.checkpointer = Some(checkpointer);
                attempt::Input::Prepared
            }
            AttemptInput::Prepared(Err(fault)) => {
                tracing::warn!(%job, %attempt, ?fault, "an attempt is not prepared");
                attempt::Input::NotPrepared(fault)
            }
            AttemptInput::Launched(Ok(Launched { handle, events, logs, output })) => {
                live.logs = Some(logs);
                live.output = Some(output).filter(|_| live.assignment.spec.progress_timeout.is_some());
                live.process = Some(handle.clone());
                let watcher = Watcher {
                    job,
                    attempt,
                    exclusive: live.assignment.spec.exclusive,
                    registration: live.registration,
                    handle,
                    deadlines: self.deadlines.subscribe(),
                    tasks: self.tasks.clone(),
                };
                tokio::spawn(watcher.run(events));
                return;
            }
            AttemptInput::Launched(Err(reason)) => {
                tracing::warn!(%job, %attempt, %reason, "an attempt is not launched");
                attempt::Input::NotStarted { reason }
            }
            AttemptInput::Process(ProcessEvent::Started { pid, at }) => {
                let at_ms = millis(at.since(self.origin));
                let (namespace, version) = (&live.assignment.namespace, live.assignment.version);
                let registration = self.machine.registration();
                let (executor, zone) = (&registration.name, &registration.zone);
                tracing::info!(%job, %attempt, %namespace, %version, %executor, %zone, pid, "started");
                if let Some(place) = live.assignment.trace {
                    self.tracer.record(SpanRecord {
                        context: place.at(job, attempt, Step::Start),
                        parent: place.span,
                        name: Step::Start.name(),
                        begun: live.begun,
                        ended: SystemTime::now(),
                        attributes: vec![("job", job.to_string()), ("attempt", attempt.to_string())],
                    });
                }
                live.safe_since_ms = Some(now_ms);
                attempt::Input::Started { at_ms }
            }
            AttemptInput::Process(ProcessEvent::Exited(exit)) => {
                tracing::info!(%job, %attempt, %exit, "ended");
                attempt::Input::Exited(exit)
            }
            AttemptInput::Process(ProcessEvent::Gone | ProcessEvent::ShimLost { .. }) => {
                live.process = None;
                live.frozen = None;
                live.safe_since_ms = None;
                attempt::Input::Gone
            }
            AttemptInput::Process(ProcessEvent::DeadlinePassed) => {
                // Its exit follows.
                tracing::warn!(%job, %attempt, "killed by its shim, for the lease was not renewed in time");
                return;
            }
            AttemptInput::Process(ProcessEvent::Stuck { processes }) => {
                tracing::error!(%job, %attempt, processes, "processes survive SIGKILL; is a disk hanging?");
                return;
            }
            AttemptInput::Read(round, result) => {
                let result = result.map(|(reading, pause)| {
                    live.reading = Some(reading);
                    live.pause = pause;
                });
                attempt::Input::Read { round, result }
            }
            AttemptInput::Stored(round, result) => {
                let now = BootTime::now();
                let took = now.since(live.checkpoint_began);
                if let Some((_, since)) = &live.frozen {
                    live.pause = now.since(*since);
                }
                let result = result.map(|taken| {
                    taken.map(|taken| Taken { duration_ms: millis(took), pause_ms: millis(live.pause), ..taken })
                });
                if let Ok(taken) = &result {
                    live.taken = *taken;
                    match taken {
                        Some(taken) => metrics::checkpoint_stored(taken),
                        None => {
                            // What the last one holds is what there is now.
                            live.safe_since_ms = Some(now_ms);
                            metrics::checkpoint_unchanged();
                        }
                    }
                }
                attempt::Input::Stored { round, result }
            }
            AttemptInput::ReadLast(round, result) => {
                let result = result.map(|(reading, frozen)| {
                    let since = live.checkpoint_began;
                    live.reading = Some(reading);
                    live.frozen = Some((frozen, since));
                });
                attempt::Input::Read { round, result }
            }
            AttemptInput::EndedFrozen(round, result) => attempt::Input::EndedFrozen { round, result },
            AttemptInput::Collected(file) => attempt::Input::Collected(file),
        };
        self.step(machine::Input::Attempt(job, attempt, input)).await;
    }

    async fn perform(&mut self, effect: machine::Effect) {
        match effect {
            machine::Effect::Begin(assignment) => self.begin(assignment),
            machine::Effect::Attempt(job, attempt, effect) => self.perform_for(job, attempt, effect),
            machine::Effect::Keep(job, attempt) => {
                if let Some(live) = self.live.get_mut(&(job, attempt)) {
                    live.is_kept = true;
                }
            }
            machine::Effect::Report(batch) => self.answer = Some(ask(self.client.clone(), batch).boxed()),
            machine::Effect::CollectGarbage(retained) => self.collect_garbage(retained),
            machine::Effect::ForgetReport => self.answer = None,
            machine::Effect::Beat(beat) => {
                let (health, degraded) = (self.health.latest(), self.health.degraded());
                let beat = Heartbeat { health, degraded, ..beat };
                self.publish(subject::HEARTBEAT.to_owned(), pack(&beat)).await;
            }
            machine::Effect::Register => self.register(),
            machine::Effect::LeaderHeard => self.readiness.leader_heard(),
            machine::Effect::Withdrawn => self.readiness.set_registered(false),
        }
    }

    fn begin(&mut self, assignment: Arc<Assignment>) {
        let (job, attempt) = (assignment.job, assignment.attempt);
        let directory = AttemptDirectory::new(&self.data_dir, job, attempt);
        let mut earlier = self.workshop.remnants.lend(job, &directory);
        if assignment.restore.is_none() {
            earlier = None;
            clean_up(self.workshop.remnants.give_up(job));
        }
        let live = Live {
            assignment,
            directory,
            earlier,
            is_kept: false,
            checkpointer: None,
            process: None,
            logs: None,
            output: None,
            reading: None,
            pause: Duration::ZERO,
            checkpoint_began: BootTime::now(),
            frozen: None,
            taken: None,
            safe_since_ms: None,
            begun: SystemTime::now(),
            registration: self.registration,
            preparing: None,
            checkpointing: None,
        };
        self.live.insert((job, attempt), live);
    }

    fn perform_for(&mut self, job: JobId, attempt: Attempt, effect: Effect) {
        let Some(live) = self.live.get_mut(&(job, attempt)) else { return };
        let workshop = Arc::clone(&self.workshop);
        match effect {
            Effect::Prepare => {
                let (assignment, directory) = (Arc::clone(&live.assignment), live.directory.clone());
                let earlier = live.earlier.clone();
                let work = async move {
                    AttemptInput::Prepared(workshop.prepare(&assignment, &directory, earlier.as_ref()).await)
                };
                live.preparing = Some(spawn(&self.tasks, job, attempt, work));
            }
            Effect::CancelPrepare => give_up(&mut live.preparing),
            Effect::Start => {
                live.preparing = None;
                let (assignment, directory) = (Arc::clone(&live.assignment), live.directory.clone());
                let deadline = self.deadlines.borrow().of_attempt(assignment.spec.exclusive, live.registration);
                // Without one it is over already, and the shim starts nothing.
                let deadline = deadline.unwrap_or_else(BootTime::now);
                // Never given up: what it has started must be known.
                spawn(&self.tasks, job, attempt, async move {
                    AttemptInput::Launched(workshop.launch(&assignment, &directory, deadline).await)
                });
            }
            Effect::Terminate => control(live.process.clone(), async |process| {
                process.signal(Signal::TERM.as_raw()).await?;
                process.signal(Signal::CONT.as_raw()).await
            }),
            Effect::Kill => control(live.process.clone(), async |process| process.kill().await),
            Effect::Read { round } => {
                let Some(process) = live.process.clone() else { return };
                let checkpointer = live.checkpointer.clone().expect("an attempt runs after it was prepared");
                let quiesce = live.assignment.spec.checkpoint.quiesce;
                live.checkpoint_began = BootTime::now();
                live.checkpointing = Some(spawn(&self.tasks, job, attempt, async move {
                    AttemptInput::Read(round, workshop.read(checkpointer, process, quiesce).await)
                }));
            }
            Effect::Store { round } => {
                let reading = live.reading.take().expect("what is stored was read");
                let checkpointer = live.checkpointer.clone().expect("an attempt runs after it was prepared");
                live.checkpointing = Some(spawn(&self.tasks, job, attempt, async move {
                    AttemptInput::Stored(round, workshop.store(checkpointer, reading).await)
                }));
            }
            Effect::ReadLast { round } => {
                let Some(process) = live.process.clone() else { return };
                let checkpointer = live.checkpointer.clone().expect("an attempt runs after it was prepared");
                live.checkpoint_began = BootTime::now();
                live.checkpointing = Some(spawn(&self.tasks, job, attempt, async move {
                    AttemptInput::ReadLast(round, workshop.read_last(checkpointer, process).await)
                }));
            }
            Effect::EndFrozen { round } => {
                let Some((frozen, _)) = live.frozen.take() else { return };
                // Never given up: whether it was killed as it stood must be known.
                spawn(&self.tasks, job, attempt, async move {
                    AttemptInput::EndedFrozen(round, work::end_frozen(frozen).await)
                });
            }
            Effect::CancelCheckpoint => {
                give_up(&mut live.checkpointing);
                live.reading = None;
                // Where it stands still, it goes on.
                live.frozen = None;
            }
            Effect::CommitCheckpoint => {
                if let (Some(checkpointer), Some(taken)) = (&live.checkpointer, live.taken.take()) {
                    checkpointer.commit(&taken);
                    live.safe_since_ms = Some(millis(live.checkpoint_began.since(self.origin)));
                }
            }
            Effect::Collect { result } => {
                let (directory, logs) = (live.directory.clone(), live.logs.take());
                spawn(&self.tasks, job, attempt, async move {
                    AttemptInput::Collected(workshop.collect(directory, logs, result).await)
                });
            }
            Effect::Forget => {
                if let Some(live) = self.live.remove(&(job, attempt)) {
                    self.leave(job, live.directory, live.is_kept);
                }
            }
            // The machine keeps reports itself.
            Effect::Report { .. } => {}
        }
    }

    /// Keeps what an attempt leaves, or removes it with what is left of an earlier one.
    fn leave(&self, job: JobId, directory: AttemptDirectory, is_kept: bool) {
        let remnants = &self.workshop.remnants;
        if is_kept {
            return clean_up(remnants.keep(job, directory, self.now_ms()));
        }
        let mut removed = remnants.give_up(job);
        removed.push(directory);
        clean_up(removed);
    }

    /// Removes what has been kept for too long, and has somebody look at what is left of the disk.
    pub(super) fn tend_remnants(&mut self) {
        clean_up(self.workshop.remnants.expired(self.now_ms()));
        if self.looking_at_disk || self.workshop.remnants.is_empty() {
            return;
        }
        self.looking_at_disk = true;
        let (path, tasks) = (self.data_dir.clone(), self.tasks.clone());
        tokio::spawn(async move {
            let is_short = blocking(move || remnants::is_disk_short(&path)).await;
            // The loop has ended if nobody listens.
            let _ = tasks.send(Input::DiskLookedAt { is_short }).await;
        });
    }

    pub(super) fn disk_looked_at(&mut self, is_short: bool) {
        self.looking_at_disk = false;
        if is_short {
            let removed = self.workshop.remnants.all();
            if !removed.is_empty() {
                tracing::info!(removed = removed.len(), "the disk is short: no ended attempt's state is kept");
            }
            clean_up(removed);
        }
    }

    /// Beside everything else: what comes of it changes nothing here.
    fn collect_garbage(&self, Retained { job, attempt, manifests }: Retained) {
        let live = self.live.get(&(job, attempt));
        let Some(checkpointer) = live.and_then(|live| live.checkpointer.clone()) else { return };
        tokio::spawn(async move {
            if let Err(error) = checkpointer.collect(&manifests).await {
                tracing::warn!(%job, %attempt, error = %explained(&error), "stored chunks are left for the next time");
            }
        });
    }
}

/// Runs `work` beside the loop; what it comes to is an input.
fn spawn(
    tasks: &mpsc::Sender<Input>,
    job: JobId,
    attempt: Attempt,
    work: impl Future<Output = AttemptInput> + Send + 'static,
) -> AbortHandle {
    let tasks = tasks.clone();
    let task = tokio::spawn(async move {
        let input = work.await;
        // The loop has ended if nobody listens.
        let _ = tasks.send(Input::Attempt(job, attempt, input)).await;
    });
    task.abort_handle()
}

/// Removes directories where that may block.
fn clean_up(directories: Vec<AttemptDirectory>) {
    if !directories.is_empty() {
        tokio::task::spawn_blocking(move || remnants::remove(&directories));
    }
}

fn give_up(task: &mut Option<AbortHandle>) {
    if let Some(task) = task.take() {
        task.abort();
    }
}

/// Asks something of a process, which may have gone meanwhile.
fn control<F>(process: Option<ProcessHandle>, ask: impl FnOnce(ProcessHandle) -> F)
where
    F: Future<Output = Result<(), ControlError>> + Send + 'static,
{
    let Some(process) = process else { return };
    let asked = ask(process);
    tokio::spawn(async move {
        if let Err(error) = asked.await {
            tracing::debug!(%error, "asked of an attempt in vain");
        }
    });
}

/// Hands on what happens to a process, and moves its deadline, until it is gone.
struct Watcher {
    job: JobId,
    attempt: Attempt,
    exclusive: bool,
    /// Under which the attempt began.
    registration: u64,
    handle: ProcessHandle,
    deadlines: watch::Receiver<super::Deadlines>,
    tasks: mpsc::Sender<Input>,
}

impl Watcher {
    async fn run(mut self, mut events: mpsc::Receiver<ProcessEvent>) {
        // A renewal may have been confirmed since the launch began.
        self.extend().await;
        let mut renewals = true;
        loop {
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return };
                    let input = Input::Attempt(self.job, self.attempt, AttemptInput::Process(event));
                    if self.tasks.send(input).await.is_err() {
                        return;
                    }
                }
                changed = self.deadlines.changed(), if renewals => {
                    renewals = changed.is_ok();
                    self.extend().await;
                }
            }
        }
    }

    async fn extend(&mut self) {
        let Some(until) = self.deadlines.borrow_and_update().of_attempt(self.exclusive, self.registration) else {
            return;
        };
        // One that is gone says so by its last event.
        let _ = self.handle.extend_until(until).await;
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
