//! `outlive executor list`.

use crate::args::Global;
use crate::client::Client;
use crate::human::{rough, size};
use crate::output::{self, Output, Table};
use clap::Args;
use comfy_table::{Cell, Color};
use outlive_schemas::time::Millis;
use outlive_schemas::view::{ExecutorList, ExecutorState, ExecutorView};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive executor list\n  outlive executor list --output json")]
pub struct ListArgs {}

pub async fn run(_: ListArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let reply = client.ask_system::<ExecutorList>("executor.list").await?;
    match global.output {
        Output::Json => output::line(&reply.raw)?,
        Output::Table => output::line(table(&reply.body.executors).render())?,
    }
    Ok(())
}

pub(super) fn table(executors: &[ExecutorView]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "ID",
        "ZONE",
        "HOST",
        "STATE",
        "RUNNING",
        "CPU",
        "MEMORY",
        "SLOTS",
        "HEARTBEAT",
        "VERSION",
        "REASON",
    ]);
    for executor in executors {
        let ExecutorView { capacity, allocated, .. } = executor;
        table.row(vec![
            output::cell(&executor.name),
            output::cell(executor.id),
            output::cell(&executor.zone),
            output::cell(&executor.host),
            state(executor.state),
            output::cell(executor.running),
            output::cell(format!("{}/{}m", allocated.cpu_millis, capacity.cpu_millis)),
            output::cell(format!("{}/{}", size(allocated.memory_bytes), size(capacity.memory_bytes))),
            output::cell(format!("{}/{}", allocated.slots, capacity.slots)),
            output::maybe(executor.last_heartbeat_ms.map(|ms| format!("{} ago", rough(Millis(ms))))),
            output::cell(&executor.version),
            output::maybe(executor.reason.as_ref()),
        ]);
    }
    table
}

fn state(state: ExecutorState) -> Cell {
    Cell::new(state.as_str()).fg(match state {
        ExecutorState::Ready => Color::Green,
        ExecutorState::Suspect | ExecutorState::Degraded | ExecutorState::Draining => Color::Yellow,
        ExecutorState::Lost => Color::Red,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_executor() {
        let list: ExecutorList = serde_json::from_value(serde_json::json!({"executors": [{
            "name": "executor-a-1", "id": "0197f3c8-0000-7000-8000-000000000002", "zone": "a", "host": "h1",
            "state": "ready", "reason": null,
            "capacity": {"cpu_millis": 4000, "memory_bytes": 8589934592u64, "slots": 100},
            "allocated": {"cpu_millis": 100, "memory_bytes": 67108864, "slots": 1},
            "running": 1, "version": "0.1.0", "last_heartbeat_ms": 120
        }]}))
        .expect("a reply");
        let text = table(&list.executors).render();
        let line = text.lines().nth(1).expect("a line");
        for part in ["executor-a-1", "ready", "100/4000m", "64.0 MiB/8.0 GiB", "1/100", "120ms ago"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
