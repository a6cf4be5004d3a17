//! `outlive job submit`: hands jobs in and returns once they are durable in the log.

use crate::args::Global;
use crate::client::{Client, Reply, new_request_id};
use crate::failure::Failure;
use crate::job::spec::{SpecArgs, Specs};
use crate::output::{self, Output, Table};
use crate::progress::Progress;
use clap::Args;
use outlive_schemas::job::JobSpec;
use outlive_schemas::limits;
use outlive_schemas::view::{SubmitManyReply, SubmitReply};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  outlive job submit job.json
  generate-jobs | outlive job submit -
  outlive job submit --name nightly --checkpoint-interval 10s -- /opt/import.sh
  outlive job submit job.json --request-id order-4711     once, however often it is given";

/// What a job adds to a submission besides its own specification: its envelope, ids and namespace.
const OVERHEAD_BYTES: usize = 512;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SubmitArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// The id that makes submitting twice harmless [default: a new one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// A submission of several jobs, all or none of them.
#[derive(Serialize)]
struct Batch<'a> {
    jobs: &'a [JobSpec],
}

pub async fn run(args: SubmitArgs, global: &Global) -> anyhow::Result<()> {
    let specs = args.spec.read()?;
    let client = Client::connect(global).await?;
    let request_id = args.request_id.unwrap_or_else(new_request_id);
    match specs {
        Specs::One(spec) => {
            let reply = one(&client, &spec, &request_id).await?;
            match global.output {
                Output::Json => output::line(&reply.raw)?,
                Output::Table => output::line(table(&[reply.body]).render())?,
            }
        }
        Specs::Many(specs) => {
            let replies = many(&client, &specs, &request_id).await?;
            match (global.output, &replies[..]) {
                (Output::Json, [only]) => output::line(&only.raw)?,
                (Output::Json, _) => {
                    let jobs = replies.into_iter().flat_map(|reply| reply.body.jobs).collect();
                    output::line(serde_json::to_vec(&SubmitManyReply { jobs })?)?;
                }
                (Output::Table, _) => {
                    let jobs: Vec<SubmitReply> = replies.into_iter().flat_map(|reply| reply.body.jobs).collect();
                    output::line(table(&jobs).render())?;
                }
            }
        }
    }
    Ok(())
}

pub async fn one(client: &Client, spec: &JobSpec, request_id: &str) -> anyhow::Result<Reply<SubmitReply>> {
    let submitted = client.change("job.submit", spec, request_id).await;
    submitted.map_err(|error| how_to_repeat(error, request_id))
}

/// Without an answer nobody knows whether it was submitted; only the same id makes another try harmless.
fn how_to_repeat(error: anyhow::Error, request_id: &str) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Failure::Unavailable(why)) => Failure::Unavailable(format!(
            "{why}. Whether anything was submitted is not known: give the same command again with --request-id \
             {request_id}, and nothing will be submitted twice"
        ))
        .into(),
        _ => error,
    }
}

/// Submits batch after batch. Each is all or none; a failure says how many were submitted before it.
async fn many(client: &Client, specs: &[JobSpec], request_id: &str) -> anyhow::Result<Vec<Reply<SubmitManyReply>>> {
    let batches = batches(specs)?;
    let progress = Progress::start(format!("submitting {} jobs", specs.len()));
    let mut replies = Vec::with_capacity(batches.len());
    let mut submitted = 0;
    for (number, batch) in batches.iter().enumerate() {
        // The same batches come of the same file, so that giving the whole command again repeats nothing.
        let id = if batches.len() == 1 { request_id.to_owned() } else { format!("{request_id}-{}", number + 1) };
        let reply = client.change("job.submit_many", &Batch { jobs: batch }, &id).await;
        let reply = reply.map_err(|error| {
            if submitted > 0 {
                eprintln!("outlive: {submitted} of {} jobs were submitted before this", specs.len());
            }
            how_to_repeat(error, request_id)
        })?;
        submitted += batch.len();
        progress.say(format!("submitted {submitted} of {} jobs", specs.len()));
        replies.push(reply);
    }
    Ok(replies)
}

/// Cuts the jobs into submissions that keep to the limits.
fn batches(specs: &[JobSpec]) -> anyhow::Result<Vec<&[JobSpec]>> {
    let mut batches = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (at, spec) in specs.iter().enumerate() {
        let needs = serde_json::to_vec(spec)?.len() + OVERHEAD_BYTES;
        let full = at - begin == limits::SUBMIT_MANY_MAX || bytes + needs > limits::SUBMISSION_BYTES_MAX;
        if full && at > begin {
            batches.push(&specs[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += needs;
    }
    batches.push(&specs[begin..]);
    Ok(batches)
}

fn table(jobs: &[SubmitReply]) -> Table {
    let mut table = Table::new(&["ID", "NAME", "VERSION", "STATUS"]);
    for job in jobs {
        let mut row =
            vec![output::cell(job.id), output::cell(&job.name), output::cell(job.version), output::status(job.status)];
        if job.duplicate {
            row.push(output::cell("(submitted before)"));
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::job::{Driver, NoopSpec};
    use outlive_schemas::payload::Payload;

    fn noop(input_bytes: usize) -> JobSpec {
        let mut spec = JobSpec::new(Driver::Noop(NoopSpec {}));
        spec.input = Some(Payload(vec![b'x'; input_bytes].into()));
        spec
    }

    #[test]
    fn a_submission_without_an_answer_says_how_to_repeat_it() {
        let error = how_to_repeat(Failure::Unavailable("nobody is there".into()).into(), "id-1");
        let failure = error.downcast_ref::<Failure>().expect("a failure");
        assert_eq!(failure.exit_code(), 6);
        assert!(failure.to_string().contains("--request-id id-1"));
        let other = how_to_repeat(Failure::usage("x").into(), "id-1");
        assert_eq!(other.to_string(), "x");
    }

    #[test]
    fn a_batch_has_at_most_a_thousand_jobs() {
        let specs = vec![noop(0); 2_500];
        let sizes: Vec<usize> = batches(&specs).expect("they can be written").iter().map(|batch| batch.len()).collect();
        assert_eq!(sizes, [1_000, 1_000, 500]);
    }

    #[test]
    fn a_batch_fits_one_request() {
        let specs = vec![noop(100_000); 20];
        let batches = batches(&specs).expect("they can be written");
        assert_eq!(batches.iter().map(|batch| batch.len()).sum::<usize>(), 20);
        for batch in &batches {
            let bytes = serde_json::to_vec(&Batch { jobs: batch }).expect("json").len();
            assert!(bytes <= limits::SUBMISSION_BYTES_MAX, "{bytes}");
        }
    }

    #[test]
    fn a_job_over_the_limit_is_left_to_the_scheduler_to_refuse() {
        let specs = vec![noop(2_000_000), noop(0)];
        assert_eq!(batches(&specs).expect("they can be written").len(), 2);
    }
}
