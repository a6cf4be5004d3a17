//! Executors' reports → commands.

use crate::dispatch;
use crate::leader::{Leader, Output};
use outlive_core::decide::Refusal;
use outlive_core::referenced;
use outlive_schemas::command::Command;
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::limits;
use outlive_schemas::message::{News, Order, ReportBatch, Retained};
use outlive_schemas::time::Timestamp;
use std::collections::BTreeSet;

/// What the executor is to be told of a batch.
#[derive(Debug, Default)]
pub struct Taken {
    /// Attempts that are not the executor's any more.
    pub superseded: Vec<(JobId, Attempt)>,
    /// Of jobs with a checkpoint in it: what stays.
    pub retained: Vec<Retained>,
}

/// Takes a batch in.
pub fn take(leader: &mut Leader, batch: ReportBatch, now: Timestamp, out: &mut Vec<Output>) -> Taken {
    let executor = batch.executor;
    let mut superseded = Vec::new();
    let mut missing = Vec::new();
    let mut checkpointed = BTreeSet::new();
    for report in batch.reports.into_iter().take(limits::MESSAGE_ITEMS_MAX) {
        let (job, attempt) = (report.job, report.attempt);
        let is_missing = report.news == News::Missing;
        let is_checkpoint = matches!(report.news, News::Checkpoint(_));
        match leader.commit(Command::Report { executor, report }, now, out) {
            Ok(()) if is_missing => missing.push(job),
            Ok(()) if is_checkpoint => {
                checkpointed.insert((job, attempt));
            }
            Ok(()) => {}
            Err(Refusal::Superseded) => superseded.push((job, attempt)),
            Err(refusal) => tracing::warn!(%executor, %job, %attempt, ?refusal, "a report was refused"),
        }
    }
    let acked = leader.acked();
    for job in missing {
        // What is not durable yet is assigned when it is.
        let assignment = leader.state().jobs.get(&job).and_then(|found| dispatch::assignment(job, found));
        if let Some((executor, assignment)) = assignment.filter(|(_, a)| a.placed_at <= acked) {
            leader.order(executor, Order::Assign(vec![leader.traced(assignment)]), out);
        }
    }
    let retained = if now < leader.state().collection_held_until { Vec::new() } else { retained(leader, checkpointed) };
    Taken { superseded, retained }
}

/// The reply leaves once the commit is durable that made the checkpoints exist. So whoever reads it knows that it was
/// the job's attempt then, and that nobody else had put anything before.
fn retained(leader: &Leader, checkpointed: BTreeSet<(JobId, Attempt)>) -> Vec<Retained> {
    let of = |(job, attempt)| {
        let found = leader.state().jobs.get(&job).filter(|found| found.attempt == attempt && !found.is_importing())?;
        Some(Retained { job, attempt, manifests: referenced::manifests(found) })
    };
    checkpointed.into_iter().filter_map(of).collect()
}
