//! Committed placements → orders to executors. Nothing is chosen here.

use outlive_core::life::Change;
use outlive_core::referenced;
use outlive_core::state::{Job, State};
use outlive_schemas::command::Stop;
use outlive_schemas::event::Cause;
use outlive_schemas::id::{ExecutorId, JobId, Sequence, Term};
use outlive_schemas::job::Driver;
use outlive_schemas::limits;
use outlive_schemas::message::{
    Assignment, Order, Otherwise, Release, ReleaseAttempt, SnapshotAttempt, StopAttempt, ToExecutor,
};
use std::collections::BTreeMap;

/// Orders gathered for executors, to be sent together once the commit they rest on is durable.
#[derive(Debug, Default)]
pub struct Orders {
    assign: BTreeMap<ExecutorId, Vec<Assignment>>,
    stop: BTreeMap<ExecutorId, Vec<StopAttempt>>,
    release: BTreeMap<ExecutorId, Vec<ReleaseAttempt>>,
    snapshot: BTreeMap<ExecutorId, Vec<SnapshotAttempt>>,
}

impl Orders {
    pub fn assign(&mut self, executor: ExecutorId, assignment: Assignment) {
        self.assign.entry(executor).or_default().push(assignment);
    }

    pub fn stop(&mut self, executor: ExecutorId, stop: StopAttempt) {
        self.stop.entry(executor).or_default().push(stop);
    }

    pub fn release(&mut self, executor: ExecutorId, release: ReleaseAttempt) {
        self.release.entry(executor).or_default().push(release);
    }

    /// What its executor is to do about a job's snapshots, its stop, its update or its rollback.
    pub fn attend(&mut self, id: JobId, job: &Job) {
        let Some(placed) = job.placement else { return };
        let (executor, attempt) = (placed.executor, job.attempt);
        // With its state, where it has one to lose.
        let with_state = |otherwise| match job.attempt_started_at {
            Some(_) => Release::Checkpoint { within: job.spec.checkpoint.timeout, otherwise },
            None => Release::Kill,
        };
        let how = match job.ending() {
            None => {
                if let Some(up_to) = job.ordered_snapshots().map(|snapshot| snapshot.number).max() {
                    self.snapshot.entry(executor).or_default().push(SnapshotAttempt { job: id, attempt, up_to });
                }
                return;
            }
            Some(Change::Stop { force: true, .. }) => {
                return self.stop(executor, StopAttempt { job: id, attempt, how: Stop::Kill });
            }
            Some(Change::Stop { .. } | Change::Update { allow_lost_state: false, .. }) => with_state(Otherwise::GoOn),
            Some(Change::RollBack { snapshot: None, .. }) => Release::Kill,
            Some(_) => with_state(Otherwise::Kill),
        };
        self.release(executor, ReleaseAttempt { job: id, attempt, cause: Cause::Update, how });
    }

    pub fn append(&mut self, more: Orders) {
        let Orders { assign, stop, release, snapshot } = more;
        append(&mut self.assign, assign);
        append(&mut self.stop, stop);
        append(&mut self.release, release);
        append(&mut self.snapshot, snapshot);
    }

    pub fn is_empty(&self) -> bool {
        self.assign.is_empty() && self.stop.is_empty() && self.release.is_empty() && self.snapshot.is_empty()
    }

    /// As messages, none over the limits.
    pub fn into_messages(self, term: Term, seq: Sequence) -> Vec<(ExecutorId, ToExecutor)> {
        let mut messages = Vec::new();
        for (executor, assignments) in self.assign {
            for part in in_messages(assignments, assignment_bytes) {
                messages.push((executor, ToExecutor { term, seq, order: Order::Assign(part) }));
            }
        }
        for (executor, stops) in self.stop {
            for part in in_messages(stops, |_| 64) {
                messages.push((executor, ToExecutor { term, seq, order: Order::Stop(part) }));
            }
        }
        for (executor, releases) in self.release {
            for part in in_messages(releases, |_| 160) {
                messages.push((executor, ToExecutor { term, seq, order: Order::Release(part) }));
            }
        }
        for (executor, snapshots) in self.snapshot {
            for part in in_messages(snapshots, |_| 64) {
                messages.push((executor, ToExecutor { term, seq, order: Order::Snapshot(part) }));
            }
        }
        messages
    }
}

fn append<T>(to: &mut BTreeMap<ExecutorId, Vec<T>>, from: BTreeMap<ExecutorId, Vec<T>>) {
    for (executor, mut items) in from {
        to.entry(executor).or_default().append(&mut items);
    }
}

/// What an executor is told of a job that is placed there.
pub fn assignment(id: JobId, job: &Job) -> Option<(ExecutorId, Assignment)> {
    let placed = job.placement?;
    let assignment = Assignment {
        job: id,
        attempt: job.attempt,
        namespace: job.namespace.clone(),
        name: job.name(id),
        version: job.version,
        placed_at: placed.at,
        // An attempt that is assigned again may have made newer checkpoints than the one it began from.
        restore: job.restorable(),
        retained: referenced::manifests(job),
        spec: job.spec.clone(),
        array_index: job.task.map(|task| task.index),
        // Others have nowhere to find them.
        inputs: if job.spec.keeps_state() { job.input_files() } else { Vec::new() },
        trace: None,
    };
    Some((placed.executor, assignment))
}

/// What an executor is told of a job that it is to end.
pub fn stop(id: JobId, job: &Job) -> Option<(ExecutorId, StopAttempt)> {
    let how = job.stop.as_ref()?.how;
    Some((job.placement?.executor, StopAttempt { job: id, attempt: job.attempt, how }))
}

/// All that an executor is to hold, as far as the log up to `seq` says.
pub fn wanted(state: &State, executor: ExecutorId, seq: Sequence) -> Vec<(JobId, outlive_schemas::id::Attempt)> {
    let Some(executor) = state.executors.get(&executor) else { return Vec::new() };
    let held = executor.attempts.iter().filter_map(|id| state.jobs.get(id).map(|job| (*id, job)));
    held.filter(|(_, job)| job.placement.is_some_and(|p| p.at <= seq)).map(|(id, job)| (id, job.attempt)).collect()
}

/// A generous estimate of an assignment's encoded size.
fn assignment_bytes(assignment: &Assignment) -> usize {
    let driver = match &assignment.spec.driver {
        Driver::Noop(_) => 0,
        Driver::Process(p) => {
            p.command.iter().map(|w| w.len() + 8).sum::<usize>()
                + p.env.iter().map(|(k, v)| k.len() + v.len() + 16).sum::<usize>()
        }
    };
    let input = assignment.spec.input.as_ref().map_or(0, |payload| payload.0.len());
    let labels: usize = assignment.spec.labels.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
    let retained = assignment.retained.len() * 40;
    let inputs: usize = assignment.inputs.iter().map(|file| file.content.0.len() + 96).sum();
    1_024 + driver + input + labels + retained + inputs
}

fn in_messages<T>(items: Vec<T>, bytes_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut messages: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = bytes_of(&item);
        let full = bytes + more > limits::MESSAGE_BYTES_MAX
            || messages.last().is_none_or(|last| last.len() >= limits::MESSAGE_ITEMS_MAX);
        if full {
            messages.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(last) = messages.last_mut() {
            last.push(item);
        }
    }
    messages
}
