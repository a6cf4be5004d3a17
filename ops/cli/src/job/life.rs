//! `outlive job stop`, `start`, `update`, `rollback` and `versions`.

use crate::args::Global;
use crate::client::{Client, new_request_id};
use crate::failure::Failure;
use crate::human::{self, relative};
use crate::job::spec::{SpecArgs, Specs};
use crate::job::{Job, view};
use crate::output::{self, Output, Table};
use clap::Args;
use outlive_schemas::id::{JobVersion, SnapshotName};
use outlive_schemas::life::{
    RestoreMode, RestoreRequest, RollbackRequest, StartRequest, StopRequest, UpdateRequest, VersionList, VersionView,
    VersionsRequest,
};
use outlive_schemas::request::JobRequest;
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::JobView;
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive job stop counter\n  outlive job stop counter --force")]
pub struct StopArgs {
    #[command(flatten)]
    job: Job,
    /// Stop it without a snapshot, however it is; its latest checkpoint stays
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive job start counter                       from the newest snapshot or checkpoint
  outlive job start counter --snapshot before     from that snapshot
  outlive job start counter --empty               from an empty state")]
pub struct StartArgs {
    #[command(flatten)]
    job: Job,
    /// Start from this snapshot [default: from the newest snapshot or checkpoint]
    #[arg(long, value_name = "NAME", conflicts_with = "empty")]
    snapshot: Option<SnapshotName>,
    /// Start from an empty state
    #[arg(long)]
    empty: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive job update counter job.json
  outlive job update counter job.json --expected-version 3
  outlive job update counter --memory 128MiB -- /opt/counter --faster")]
pub struct UpdateArgs {
    #[command(flatten)]
    job: Job,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    expected: Expected,
    /// Go on even though no snapshot can be taken; then from the latest checkpoint
    #[arg(long)]
    allow_lost_state: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  outlive job rollback counter\n  outlive job rollback counter --expected-version 3"
)]
pub struct RollbackArgs {
    #[command(flatten)]
    job: Job,
    #[command(flatten)]
    expected: Expected,
}

#[derive(Debug, Args)]
struct Expected {
    /// Refuse if the job has another version by now [default: whichever it has]
    #[arg(long, value_name = "NUMBER")]
    expected_version: Option<u32>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive job versions counter")]
pub struct VersionsArgs {
    #[command(flatten)]
    job: Job,
}

impl Expected {
    async fn or_current(&self, client: &Client, job: &Job) -> anyhow::Result<JobVersion> {
        match self.expected_version {
            Some(version) => Ok(JobVersion(version)),
            None => {
                let request = JobRequest { job: job.job.clone() };
                Ok(client.ask::<JobView>("job.get", &request).await?.body.version)
            }
        }
    }
}

pub async fn stop(args: StopArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    change(&client, "job.stop", &StopRequest { job: args.job.job, force: args.force }, global).await
}

pub async fn start(args: StartArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let restore = match args.snapshot {
        Some(name) => RestoreRequest { mode: RestoreMode::Snapshot, snapshot: Some(name) },
        None if args.empty => RestoreRequest { mode: RestoreMode::None, snapshot: None },
        None => RestoreRequest::default(),
    };
    change(&client, "job.start", &StartRequest { job: args.job.job, restore }, global).await
}

pub async fn update(args: UpdateArgs, global: &Global) -> anyhow::Result<()> {
    let spec = match args.spec.read()? {
        Specs::One(spec) => *spec,
        Specs::Many(specs) => {
            let message = format!("the file holds {} jobs, and an update is for one", specs.len());
            return Err(Failure::usage(message).into());
        }
    };
    let client = Client::connect(global).await?;
    let expected_version = args.expected.or_current(&client, &args.job).await?;
    let allow_lost_state = args.allow_lost_state;
    let request = UpdateRequest { job: args.job.job, expected_version, spec, allow_lost_state };
    change(&client, "job.update", &request, global).await
}

pub async fn rollback(args: RollbackArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let expected_version = args.expected.or_current(&client, &args.job).await?;
    change(&client, "job.rollback", &RollbackRequest { job: args.job.job, expected_version }, global).await
}

async fn change(client: &Client, operation: &str, request: &impl Serialize, global: &Global) -> anyhow::Result<()> {
    let reply = client.change::<JobView>(operation, request, &new_request_id()).await?;
    match global.output {
        Output::Json => output::line(&reply.raw)?,
        Output::Table => output::line(view::details(&reply.body, human::now()).render())?,
    }
    Ok(())
}

pub async fn versions(args: VersionsArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let mut request = VersionsRequest { job: args.job.job, limit: None, cursor: None };
    let mut versions: Vec<Value> = Vec::new();
    loop {
        let mut page = client.ask::<Value>("job.versions", &request).await?.body;
        if let Some(Value::Array(found)) = page.get_mut("versions").map(Value::take) {
            versions.extend(found);
        }
        request.cursor = page.get("cursor").and_then(Value::as_str).map(str::to_owned);
        if request.cursor.is_none() {
            break;
        }
    }
    match global.output {
        Output::Json => output::line(json!({"versions": versions, "cursor": null}).to_string())?,
        Output::Table => {
            let list: VersionList = serde_json::from_value(json!({"versions": versions, "cursor": null}))?;
            output::line(table(&list.versions, human::now()).render())?;
        }
    }
    Ok(())
}

fn table(versions: &[VersionView], now: Timestamp) -> Table {
    let mut table = Table::new(&["VERSION", "STATUS", "SINCE", "LAST SNAPSHOT", "REASON"]);
    for version in versions {
        table.row(vec![
            output::cell(version.version),
            output::cell(version.status.as_str()),
            output::cell(relative(version.at, now)),
            output::maybe(version.snapshot.as_ref()),
            output::maybe(version.reason.as_ref()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_version() {
        let at = "2026-01-01T00:00:00.000Z";
        let spec = json!({"driver": {"process": {"command": ["true"]}}});
        let versions: Vec<VersionView> = serde_json::from_value(json!([
            {"version": 1, "at": at, "spec": spec, "status": "active", "reason": null, "snapshot": "system-update-1"},
            {"version": 2, "at": at, "spec": spec, "status": "rolled_back", "reason": "exited with 1",
                "snapshot": null},
        ]))
        .expect("versions");
        let now = Timestamp::parse("2026-01-01T00:01:00Z").expect("a time");
        assert_eq!(
            table(&versions, now).render(),
            "\
VERSION  STATUS       SINCE   LAST SNAPSHOT    REASON
1        active       1m ago  system-update-1  -
2        rolled_back  1m ago  -                exited with 1"
        );
    }
}
