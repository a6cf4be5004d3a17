//! Executors' reports → commands.

use crate::dispatch;
use crate::leader::{Leader, Output};
use outlive_core::decide::Refusal;
use outlive_schemas::command::Command;
use outlive_schemas::id::{Attempt, JobId};
use outlive_schemas::limits;
use outlive_schemas::message::{News, Order, ReportBatch};
use outlive_schemas::time::Timestamp;

/// Takes a batch in. Returns the attempts that are not the executor's any more.
pub fn take(leader: &mut Leader, batch: ReportBatch, now: Timestamp, out: &mut Vec<Output>) -> Vec<(JobId, Attempt)> {
    let executor = batch.executor;
    let mut superseded = Vec::new();
    let mut missing = Vec::new();
    for report in batch.reports.into_iter().take(limits::MESSAGE_ITEMS_MAX) {
        let (job, attempt) = (report.job, report.attempt);
        let is_missing = report.news == News::Missing;
        match leader.commit(Command::Report { executor, report }, now, out) {
            Ok(()) if is_missing => missing.push(job),
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
            leader.order(executor, Order::Assign(vec![assignment]), out);
        }
    }
    superseded
}
