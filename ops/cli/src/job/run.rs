//! `outlive job run`: submits a job, shows its output as it comes, and ends as the job does.

use crate::args::Global;
use crate::client::{Client, new_request_id};
use crate::failure::Failure;
use crate::human;
use crate::job::logs::{Follower, Sink};
use crate::job::spec::{SpecArgs, Specs};
use crate::job::{submit, view, wait};
use crate::output::{self, Output};
use crate::progress::Progress;
use clap::Args;
use outlive_schemas::id::JobId;
use outlive_schemas::view::JobView;
use std::io::IsTerminal;

const EXAMPLES: &str = "\
Examples:
  outlive job run -- sh -c 'echo hello'
  outlive job run job.json
  outlive job run --name index --memory 512MiB --checkpoint-interval 5s -- /opt/index.sh /usr/share/doc

The job's output goes to standard output and standard error, and how it ended to standard error. The exit code is 0
where it succeeded, and 10 where it failed or was cancelled. Ctrl-C stops the following, not the job.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// The id that makes submitting twice harmless [default: a new one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub async fn run(args: RunArgs, global: &Global) -> anyhow::Result<()> {
    let Specs::One(spec) = args.spec.read()? else {
        return Err(Failure::usage("`job run` runs one job, and the file holds several: use `job submit`").into());
    };
    let client = Client::connect(global).await?;
    let request_id = args.request_id.unwrap_or_else(new_request_id);
    let submitted = submit::one(&client, &spec, &request_id).await?.body;
    let (id, name) = (submitted.id, submitted.name);
    let ended = tokio::select! {
        biased;
        ended = follow(&client, id, &name, global.output) => ended?,
        interrupt = tokio::signal::ctrl_c() => {
            interrupt?;
            return Err(Failure::Interrupted(format!(
                "job {name} goes on. Follow it again with `outlive job logs -f {id}`; end it with \
                 `outlive job cancel {id}`"
            ))
            .into());
        }
    };
    match global.output {
        Output::Json => output::line(serde_json::to_vec(&ended)?)?,
        Output::Table => tell(&ended),
    }
    wait::verdict(&ended)
}

async fn follow(client: &Client, id: JobId, name: &impl ToString, output: Output) -> anyhow::Result<JobView> {
    let sink = match output {
        Output::Table => Sink::Streams,
        Output::Json => Sink::StandardError,
    };
    let follower = Follower::begin(client, id, sink).await?;
    if !std::io::stderr().is_terminal() {
        return follower.until_the_end().await;
    }
    let progress = Progress::start(format!("job {} ({id}) is submitted", name.to_string()));
    follower.telling(progress).await?.until_the_end().await
}

/// How it ended. A failure's own words are those of the error that follows.
fn tell(job: &JobView) {
    if wait::verdict(job).is_ok() {
        eprintln!("outlive: {}", human::printable(&view::ending(job)));
    }
    if let Some(result) = &job.result {
        eprintln!("{}", human::printable(&view::result(result)));
    }
}
