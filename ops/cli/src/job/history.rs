//! `outlive job history`: what has happened to a job, oldest first.

use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::job::Job;
use crate::output::{self, Output, Table};
use clap::Args;
use outlive_schemas::event::HistoryEvent;
use outlive_schemas::limits;
use outlive_schemas::request::HistoryRequest;
use serde_json::{Map, Value, json};

const EXAMPLES: &str = "\
Examples:
  outlive job history counter
  outlive job history counter --output json | jq -r '.events[].type'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct HistoryArgs {
    #[command(flatten)]
    job: Job,
    /// At most so many events [default: all]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

pub async fn run(args: HistoryArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let limit = args.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Err(Failure::usage("--limit is 0: give 1 or more, or leave it out for all").into());
    }
    let mut request = HistoryRequest { job: args.job.job, limit: None, cursor: None };
    let mut events: Vec<Value> = Vec::new();
    let mut left_out = None;
    loop {
        request.limit = Some((limit - events.len()).min(limits::HISTORY_LIMIT_MAX));
        let page = client.ask::<Value>("job.history", &request).await?.body;
        if let Value::Object(mut page) = page {
            if let Some(Value::Array(found)) = page.remove("events") {
                events.extend(found);
            }
            request.cursor = page.remove("cursor").and_then(|c| c.as_str().map(str::to_owned));
            left_out = left_out.or(page.remove("left_out").and_then(|said| said.as_str().map(str::to_owned)));
        }
        if request.cursor.is_none() || events.len() >= limit {
            break;
        }
    }
    match global.output {
        Output::Json => {
            output::line(json!({"events": events, "cursor": request.cursor, "left_out": left_out}).to_string())?
        }
        Output::Table => {
            let events = events.into_iter().map(serde_json::from_value).collect::<Result<Vec<HistoryEvent>, _>>()?;
            output::line(table(&events).render())?;
            if let Some(left_out) = left_out {
                eprintln!("Not shown, for it is no longer kept: {left_out}.");
            }
            if request.cursor.is_some() {
                eprintln!("There may be more: give a larger --limit.");
            }
        }
    }
    Ok(())
}

fn table(events: &[HistoryEvent]) -> Table {
    let mut table = Table::new(&["TIME", "SEQ", "EVENT", "ATTEMPT", "WHAT"]);
    for event in events {
        let mut what = what(&event.kind, &event.details);
        if let Some(by) = &event.by {
            what = if what.is_empty() { format!("by {by}") } else { format!("{what}, by {by}") };
        }
        table.row(vec![
            output::cell(event.at),
            output::cell(event.seq),
            output::cell(&event.kind),
            output::maybe(event.attempt),
            output::cell(what),
        ]);
    }
    table
}

/// An event's details as a phrase; for events that this version does not know, each detail with its name.
pub fn what(kind: &str, details: &Map<String, Value>) -> String {
    let text = |key: &str| details.get(key).map(plain);
    let known = match kind {
        "job_submitted" => Some(format!("a {} job", text("kind").unwrap_or_default())),
        "attempt_started" => Some("the process is up".to_owned()).filter(|_| details.contains_key("started_at")),
        "job_placed" => Some(format!(
            "on {} in zone {}, {}",
            text("executor").unwrap_or_default(),
            text("zone").unwrap_or_default(),
            text("restore").map_or_else(|| "from an empty state".to_owned(), |n| format!("from checkpoint {n}")),
        )),
        "checkpoint_completed" => Some(format!(
            "{}: {} of state, {} uploaded, paused {}ms",
            text("checkpoint").unwrap_or_default(),
            amount(details.get("size_bytes")),
            amount(details.get("uploaded_bytes")),
            text("pause_ms").unwrap_or_default(),
        )),
        "job_restarting" => Some(format!(
            "{}: {}; next try at {}",
            text("cause").unwrap_or_default(),
            text("reason").unwrap_or_default(),
            text("next_try_at").unwrap_or_default(),
        )),
        "job_finished" => {
            let reason = text("reason").map(|reason| format!(": {reason}")).unwrap_or_default();
            let code = text("exit_code").map(|code| format!(", exit code {code}")).unwrap_or_default();
            Some(format!("{}{code}{reason}", text("outcome").unwrap_or_default()))
        }
        _ => None,
    };
    known.unwrap_or_else(|| {
        let pairs: Vec<String> = details.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        pairs.join(", ")
    })
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn amount(bytes: Option<&Value>) -> String {
    bytes.and_then(Value::as_u64).map(crate::human::size).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_event() {
        let at = "2026-01-01T00:00:00.000Z";
        let events: Vec<HistoryEvent> = serde_json::from_value(json!([
            {"seq": 2, "at": at, "type": "job_submitted", "attempt": null, "by": "me@host", "kind": "batch"},
            {"seq": 3, "at": at, "type": "attempt_started", "attempt": 1, "started_at": at},
            {"seq": 3, "at": at, "type": "job_placed", "attempt": 1, "executor": "executor-a-1", "zone": "a"},
            {"seq": 4, "at": at, "type": "checkpoint_completed", "attempt": 1, "checkpoint": 1, "size_bytes": 4096,
                "uploaded_bytes": 100, "duration_ms": 3, "pause_ms": 1},
            {"seq": 5, "at": at, "type": "job_restarting", "attempt": 1, "cause": "executor_lost", "reason": "gone",
                "failures": 0, "lost_at": at, "next_try_at": at},
            {"seq": 9, "at": at, "type": "job_finished", "attempt": 2, "outcome": "failed", "exit_code": 3},
            {"seq": 10, "at": at, "type": "job_painted", "attempt": 2, "colour": "red"},
        ]))
        .expect("events");
        assert_eq!(
            table(&events).render(),
            "\
TIME                      SEQ  EVENT                 ATTEMPT  WHAT
2026-01-01T00:00:00.000Z  2    job_submitted         -        a batch job, by me@host
2026-01-01T00:00:00.000Z  3    attempt_started       1        the process is up
2026-01-01T00:00:00.000Z  3    job_placed            1        on executor-a-1 in zone a, from an empty state
2026-01-01T00:00:00.000Z  4    checkpoint_completed  1        1: 4.0 KiB of state, 100 B uploaded, paused 1ms
2026-01-01T00:00:00.000Z  5    job_restarting        1        executor_lost: gone; next try at 2026-01-01T00:00:00.000Z
2026-01-01T00:00:00.000Z  9    job_finished          2        failed, exit code 3
2026-01-01T00:00:00.000Z  10   job_painted           2        colour=red"
        );
    }
}
