//! `outlive job list`: every page of it.

use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::human::{self, relative};
use crate::job::spec::{labels, parse_pair};
use crate::job::view;
use crate::output::{self, Output, Table};
use clap::Args;
use outlive_schemas::limits;
use outlive_schemas::request::ListRequest;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{JobView, Status};
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  outlive job list
  outlive job list --status running --status restarting
  outlive job list --label team=data --limit 20
  outlive job list --output json | jq -r '.jobs[].name'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    /// Only jobs of this status; may be repeated, or given with commas
    #[arg(long, value_delimiter = ',', value_parser = parse_status)]
    status: Vec<Status>,
    /// Only jobs whose names begin so
    #[arg(long, value_name = "TEXT")]
    name_prefix: Option<String>,
    /// Only jobs with this label; may be repeated
    #[arg(long, value_parser = parse_pair, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// At most so many [default: all]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

pub(super) fn parse_status(text: &str) -> Result<Status, String> {
    let known = Status::ALL.iter().find(|status| status.as_str() == text);
    known.copied().ok_or_else(|| {
        let all: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
        format!("the statuses are {}", all.join(", "))
    })
}

pub async fn run(args: ListArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let limit = args.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Err(Failure::usage("--limit is 0: give 1 or more, or leave it out for all").into());
    }
    let mut request = ListRequest {
        status: (!args.status.is_empty()).then_some(args.status),
        name_prefix: args.name_prefix,
        labels: (!args.label.is_empty()).then(|| labels(&args.label)),
        limit: None,
        cursor: None,
    };
    let mut jobs: Vec<Value> = Vec::new();
    loop {
        request.limit = Some((limit - jobs.len()).min(limits::LIST_LIMIT_MAX));
        // As values, so that what this version does not know of is passed on all the same.
        let page = client.ask::<Value>("job.list", &request).await?.body;
        if let Value::Object(mut page) = page {
            if let Some(Value::Array(found)) = page.remove("jobs") {
                jobs.extend(found);
            }
            request.cursor = page.remove("cursor").and_then(|c| c.as_str().map(str::to_owned));
        }
        // A page may be empty and still have a next one: it is what one request looks through.
        if request.cursor.is_none() || jobs.len() >= limit {
            break;
        }
    }
    match global.output {
        Output::Json => output::line(json!({"jobs": jobs, "cursor": request.cursor}).to_string())?,
        Output::Table => {
            let jobs = jobs.into_iter().map(serde_json::from_value).collect::<Result<Vec<JobView>, _>>()?;
            output::line(table(&jobs, human::now()).render())?;
            if request.cursor.is_some() {
                eprintln!("There may be more: give a larger --limit.");
            }
        }
    }
    Ok(())
}

fn table(jobs: &[JobView], now: Timestamp) -> Table {
    let mut table =
        Table::new(&["ID", "NAME", "KIND", "STATUS", "ATTEMPT", "EXECUTOR", "ZONE", "CHECKPOINT", "SUBMITTED"]);
    for job in jobs {
        let checkpoint = job.checkpoint.as_ref().map(|c| format!("{}, {}", c.number, relative(c.at, now)));
        table.row(vec![
            output::cell(job.id),
            output::cell(&job.name),
            output::cell(view::kind(job.kind)),
            output::status(job.status),
            output::cell(job.attempt),
            output::maybe(job.executor.as_ref()),
            output::maybe(job.zone.as_ref()),
            output::maybe(checkpoint),
            output::cell(relative(job.submitted_at, now)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_job() {
        let job = view::tests::example();
        let mut pending = job.clone();
        pending.status = Status::Pending;
        (pending.executor, pending.zone, pending.checkpoint) = (None, None, None);
        let now = Timestamp::parse("2026-01-01T00:01:00Z").expect("a time");
        assert_eq!(
            table(&[job, pending], now).render(),
            "\
ID                                    NAME     KIND     STATUS   ATTEMPT  EXECUTOR      ZONE  CHECKPOINT   SUBMITTED
0197f3c8-0000-7000-8000-000000000001  counter  service  running  2        executor-b-1  b     12, 10s ago  1m ago
0197f3c8-0000-7000-8000-000000000001  counter  service  pending  2        -             -     -            1m ago"
        );
    }

    #[test]
    fn statuses_are_those_of_the_contract() {
        assert_eq!(parse_status("rolling_back"), Ok(Status::RollingBack));
        assert!(parse_status("done").expect_err("it is refused").contains("succeeded"));
    }
}
