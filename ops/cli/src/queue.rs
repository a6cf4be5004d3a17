//! `outlive queue`: sets queues up, pauses them, and says how they are.

use crate::args::Global;
use crate::client::{Client, new_request_id};
use crate::human;
use crate::output::{self, Details, Output, Table};
use clap::{Args, Subcommand};
use outlive_schemas::id::QueueName;
use outlive_schemas::queue::{QueueList, QueuePutRequest, QueueRequest, QueueSettings, QueueView, Rate};
use outlive_schemas::request::EmptyRequest;
use outlive_schemas::time::{Millis, Timestamp};
use serde_json::Value;

#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Make a queue, or set it up anew
    Put(PutArgs),
    /// Show a queue
    Get(NamedArgs),
    /// List the namespace's queues
    List(ListArgs),
    /// Start nothing more from a queue; what runs goes on
    Pause(PauseArgs),
    /// Start jobs from a paused queue again
    Resume(ResumeArgs),
    /// Delete a queue that holds no jobs
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive queue put mail --concurrency 20 --rate 100/1m
  outlive queue put reports --weight 3 --max-waiting 10000
  outlive queue put default --concurrency 500     the queue of jobs that name none

What is left out is not limited, whatever it was before.")]
pub struct PutArgs {
    /// The queue's name
    name: QueueName,
    /// Jobs that may run at once
    #[arg(long, value_name = "NUMBER")]
    concurrency: Option<u32>,
    /// Attempts that may be started in any stretch of time, such as 100/1m
    #[arg(long, value_parser = parse_rate, value_name = "NUMBER/DURATION")]
    rate: Option<Rate>,
    /// Its share of the room beside other queues
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    weight: u32,
    /// Jobs that may wait; submissions beyond it are refused
    #[arg(long, value_name = "NUMBER")]
    max_waiting: Option<u32>,
    /// Start nothing from it until it is resumed
    #[arg(long)]
    paused: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive queue get mail\n  outlive queue get default --output json")]
pub struct NamedArgs {
    /// The queue's name
    name: QueueName,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive queue list\n  outlive queue list --namespace team-a --output json")]
pub struct ListArgs {}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive queue pause mail")]
pub struct PauseArgs {
    /// The queue's name
    name: QueueName,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive queue resume mail")]
pub struct ResumeArgs {
    /// The queue's name
    name: QueueName,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive queue delete mail")]
pub struct DeleteArgs {
    /// The queue's name
    name: QueueName,
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let (limit, per) = text.split_once('/').ok_or("write it as NUMBER/DURATION, such as 100/1m")?;
    let limit = limit.parse().map_err(|_| format!("`{limit}` is not a number: write 100/1m"))?;
    let per = Millis::parse(per).map_err(|error| error.to_string())?;
    Ok(Rate { limit, per })
}

pub async fn run(command: QueueCommand, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    match command {
        QueueCommand::Put(PutArgs { name, concurrency, rate, weight, max_waiting, paused }) => {
            put(&client, &QueuePutRequest { name, concurrency, rate, weight, max_waiting, paused }, global).await
        }
        QueueCommand::Get(NamedArgs { name }) => {
            let reply = client.ask::<QueueView>("queue.get", &QueueRequest { name }).await?;
            show(&reply.raw, &reply.body, global)
        }
        QueueCommand::List(ListArgs {}) => list(&client, global).await,
        QueueCommand::Pause(PauseArgs { name }) => set_paused(&client, name, true, global).await,
        QueueCommand::Resume(ResumeArgs { name }) => set_paused(&client, name, false, global).await,
        QueueCommand::Delete(DeleteArgs { name }) => {
            let reply = client.change::<Value>("queue.delete", &QueueRequest { name }, &new_request_id()).await?;
            match global.output {
                Output::Json => Ok(output::line(&reply.raw)?),
                Output::Table => Ok(()),
            }
        }
    }
}

async fn put(client: &Client, request: &QueuePutRequest, global: &Global) -> anyhow::Result<()> {
    let reply = client.change::<QueueView>("queue.put", request, &new_request_id()).await?;
    show(&reply.raw, &reply.body, global)
}

/// Puts the queue as it is, but for this.
async fn set_paused(client: &Client, name: QueueName, paused: bool, global: &Global) -> anyhow::Result<()> {
    let view = client.ask::<QueueView>("queue.get", &QueueRequest { name }).await?.body;
    let QueueView { name, concurrency, rate, weight, max_waiting, .. } = view;
    let settings = QueueSettings { concurrency, rate, weight, max_waiting, paused };
    put(client, &QueuePutRequest::new(name, settings), global).await
}

async fn list(client: &Client, global: &Global) -> anyhow::Result<()> {
    let reply = client.ask::<QueueList>("queue.list", &EmptyRequest {}).await?;
    match global.output {
        Output::Json => Ok(output::line(&reply.raw)?),
        Output::Table => Ok(output::line(table(&reply.body.queues).render())?),
    }
}

fn show(raw: &[u8], view: &QueueView, global: &Global) -> anyhow::Result<()> {
    match global.output {
        Output::Json => Ok(output::line(raw)?),
        Output::Table => Ok(output::line(details(view, human::now()).render())?),
    }
}

fn rate(of: Rate) -> String {
    format!("{}/{}", of.limit, of.per)
}

fn waited(ms: u64) -> String {
    human::rough(Millis(ms))
}

fn details(view: &QueueView, now: Timestamp) -> Details {
    let mut details = Details::new();
    details.line("Name", &view.name);
    details.line("Paused", if view.paused { "yes" } else { "no" });
    details.maybe("Held by", view.held_by.map(|held| held.as_str()));
    details.maybe("Next start", view.next_start_at.map(|at| format!("{at} ({})", human::relative(at, now))));
    details.line("Waiting", view.waiting);
    details.maybe("Oldest wait", view.oldest_wait_ms.map(waited));
    details.line("Running", view.running);
    details.maybe("Concurrency", view.concurrency);
    details.maybe("Rate", view.rate.map(rate));
    details.line("Weight", view.weight);
    details.maybe("Max waiting", view.max_waiting);
    details
}

fn table(views: &[QueueView]) -> Table {
    let headers = ["NAME", "WAITING", "OLDEST", "RUNNING", "CONCURRENCY", "RATE", "WEIGHT", "MAX WAITING", "HELD BY"];
    let mut table = Table::new(&headers);
    for view in views {
        table.row(vec![
            output::cell(&view.name),
            output::cell(view.waiting),
            output::maybe(view.oldest_wait_ms.map(waited)),
            output::cell(view.running),
            output::maybe(view.concurrency),
            output::maybe(view.rate.map(rate)),
            output::cell(view.weight),
            output::maybe(view.max_waiting),
            output::maybe(view.held_by.map(|held| held.as_str())),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_for_each_queue_and_all_of_one() {
        let views: Vec<QueueView> = serde_json::from_value(json!([
            {"namespace": "default", "name": "default", "concurrency": null, "rate": null, "weight": 1,
                "max_waiting": null, "paused": false, "waiting": 0, "running": 3, "oldest_wait_ms": null,
                "held_by": null, "next_start_at": null},
            {"namespace": "default", "name": "mail", "concurrency": 20, "rate": {"limit": 100, "per": "1m"},
                "weight": 3, "max_waiting": 1000, "paused": false, "waiting": 40, "running": 2,
                "oldest_wait_ms": 61_000, "held_by": "rate", "next_start_at": "2026-01-01T00:01:30.000Z"},
        ]))
        .expect("views");
        let lines: Vec<String> =
            table(&views).render().lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1], "default 0 - 3 - - 1 - -");
        assert!(lines[2].starts_with("mail 40 ") && lines[2].ends_with(" 2 20 100/1m 3 1000 rate"), "{}", lines[2]);
        let now = Timestamp::parse("2026-01-01T00:01:00Z").expect("a time");
        let shown = details(&views[1], now).render();
        assert!(shown.contains("Held by") && shown.contains("2026-01-01T00:01:30.000Z"), "{shown}");
    }

    #[test]
    fn a_rate_is_a_number_and_a_time() {
        assert_eq!(parse_rate("100/1m"), Ok(Rate { limit: 100, per: Millis::minutes(1) }));
        for bad in ["100", "x/1m", "5/soon", ""] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
