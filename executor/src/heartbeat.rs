//! The executor's sign of life: what it holds, how its host feels, and how much it was ever told.

use crate::intake::Intake;
use crate::machine::holdings::Holdings;
use outlive_schemas::id::{ExecutorId, ExecutorName};
use outlive_schemas::message::{Health, Heartbeat};
use std::time::Duration;

/// Between two heartbeats. The leader takes two seconds of silence for a reason to look.
pub const PAUSE: Duration = Duration::from_millis(250);

/// The one to send now.
pub fn heartbeat(
    executor: ExecutorId,
    name: &ExecutorName,
    intake: &Intake,
    holdings: &Holdings,
    health: Health,
    leaving: bool,
) -> Heartbeat {
    let told = intake.told();
    Heartbeat {
        executor,
        name: name.clone(),
        seq_seen: told.seq,
        term_seen: told.term,
        seq_before: told.before,
        digest: holdings.digest(),
        held: u32::try_from(holdings.len()).unwrap_or(u32::MAX),
        health,
        leaving,
        degraded: None,
    }
}
