//! `outlive job retry` and `delete`: of one job, or of all that a filter finds.

use crate::args::Global;
use crate::client::{Client, new_request_id};
use crate::failure::Failure;
use crate::job::list::parse_status;
use crate::job::spec::{labels, parse_pair};
use crate::output::{self, Output};
use clap::Args;
use outlive_schemas::array::Indexes;
use outlive_schemas::id::JobRef;
use outlive_schemas::request::ListRequest;
use outlive_schemas::view::Status;
use outlive_schemas::when::{DeletedMany, Retried, SelectRequest};
use serde_json::{Value, json};

const RETRY_EXAMPLES: &str = "\
Examples:
  outlive job retry nightly-report
  outlive job retry resize --indexes 3,7-9     these tasks of an array
  outlive job retry --all                      every job that failed
  outlive job retry --label team=data
  outlive job retry --name-prefix import- --status failed,cancelled";

const DELETE_EXAMPLES: &str = "\
Examples:
  outlive job delete counter
  outlive job delete --status failed --label team=data
  outlive job delete --status succeeded,failed,cancelled --name-prefix import-";

#[derive(Debug, Args)]
#[command(after_help = RETRY_EXAMPLES)]
pub struct RetryArgs {
    /// The job's id, or its name: then the newest of that name
    #[arg(value_name = "JOB", required_unless_present_any = ["all", "status", "name_prefix", "label"])]
    job: Option<JobRef>,
    /// Every job that failed
    #[arg(long, conflicts_with_all = ["job", "status", "name_prefix", "label"])]
    all: bool,
    /// Of an array these tasks, and not all that failed or were cancelled
    #[arg(long, value_name = "INDEXES", requires = "job", conflicts_with_all = ["all", "status", "name_prefix", "label"])]
    indexes: Option<Indexes>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub struct DeleteArgs {
    /// The job's id, or its name: then the newest of that name
    #[arg(value_name = "JOB", required_unless_present = "status")]
    job: Option<JobRef>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Args)]
struct Filter {
    /// Only jobs of this status; may be repeated, or given with commas
    #[arg(long, value_delimiter = ',', value_parser = parse_status, conflicts_with = "job")]
    status: Vec<Status>,
    /// Only jobs whose names begin so
    #[arg(long, value_name = "TEXT", conflicts_with = "job")]
    name_prefix: Option<String>,
    /// Only jobs with this label; may be repeated
    #[arg(long, value_parser = parse_pair, value_name = "KEY=VALUE", conflicts_with = "job")]
    label: Vec<(String, String)>,
}

impl Filter {
    fn request(self) -> ListRequest {
        ListRequest {
            status: (!self.status.is_empty()).then_some(self.status),
            name_prefix: self.name_prefix,
            labels: (!self.label.is_empty()).then(|| labels(&self.label)),
            limit: None,
            cursor: None,
        }
    }
}

fn one(job: JobRef) -> SelectRequest {
    SelectRequest { job: Some(job), filter: None, indexes: None }
}

fn many(filter: ListRequest) -> SelectRequest {
    SelectRequest { job: None, filter: Some(filter), indexes: None }
}

pub async fn retry(args: RetryArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let mut all = Retried::default();
    match args.job {
        Some(job) => {
            let request = SelectRequest { indexes: args.indexes, ..one(job.clone()) };
            let reply = client.change::<Retried>("job.retry", &request, &new_request_id()).await?;
            match (global.output, &request.indexes) {
                (Output::Json, _) => output::line(&reply.raw)?,
                (Output::Table, None) => output::line(format!("job {job} is tried again"))?,
                (Output::Table, Some(_)) => {
                    output::line(format!("{} tasks of job {job} are tried again", reply.body.retried))?;
                }
            }
            return Ok(());
        }
        None => {
            let mut filter = args.filter.request();
            loop {
                let request = many(filter.clone());
                let reply = client.change::<Retried>("job.retry", &request, &new_request_id()).await?.body;
                all.retried += reply.retried;
                all.skipped += reply.skipped;
                match reply.cursor {
                    Some(cursor) => filter.cursor = Some(cursor),
                    None => break,
                }
            }
        }
    }
    match global.output {
        Output::Json => output::line(json!(all).to_string())?,
        Output::Table => {
            output::line(format!("{} jobs are tried again", all.retried))?;
            if all.skipped > 0 {
                eprintln!("{} are not, for a live job has their name.", all.skipped);
            }
        }
    }
    Ok(())
}

pub async fn delete(args: DeleteArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    if let Some(job) = args.job {
        let reply = client.change::<Value>("job.delete", &one(job.clone()), &new_request_id()).await?;
        match global.output {
            Output::Json => output::line(&reply.raw)?,
            Output::Table => output::line(format!("job {job} is deleted"))?,
        }
        return Ok(());
    }
    let mut filter = args.filter.request();
    if filter.status.is_none() {
        return Err(Failure::usage("give a JOB, or --status to say which jobs, such as --status failed").into());
    }
    let mut deleted = 0;
    loop {
        let request = many(filter.clone());
        let reply = client.change::<DeletedMany>("job.delete", &request, &new_request_id()).await?.body;
        deleted += reply.deleted;
        match reply.cursor {
            Some(cursor) => filter.cursor = Some(cursor),
            None => break,
        }
    }
    match global.output {
        Output::Json => output::line(json!(DeletedMany { deleted, cursor: None }).to_string())?,
        Output::Table => output::line(format!("{deleted} jobs are deleted"))?,
    }
    Ok(())
}
