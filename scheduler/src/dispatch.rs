//! Committed placements → orders to executors. Nothing is chosen here.

use outlive_core::referenced;
use outlive_core::state::{Job, State};
use outlive_schemas::id::{ExecutorId, JobId, Sequence, Term};
use outlive_schemas::job::Driver;
use outlive_schemas::limits;
use outlive_schemas::message::{Assignment, Order, ReleaseAttempt, StopAttempt, ToExecutor};
use std::collections::BTreeMap;

/// Orders gathered for executors, to be sent together once the commit they rest on is durable.
#[derive(Debug, Default)]
pub struct Orders {
    assign: BTreeMap<ExecutorId, Vec<Assignment>>,
    stop: BTreeMap<ExecutorId, Vec<StopAttempt>>,
    release: BTreeMap<ExecutorId, Vec<ReleaseAttempt>>,
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

    pub fn is_empty(&self) -> bool {
        self.assign.is_empty() && self.stop.is_empty() && self.release.is_empty()
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
        messages
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
    1_024 + driver + input + labels + retained
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
