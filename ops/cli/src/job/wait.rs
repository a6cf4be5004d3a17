//! `outlive job wait`: waits as long as asked, in slices, so that the loss of a leader loses no wait.

use crate::args::Global;
use crate::client::{Client, Reply};
use crate::failure::Failure;
use crate::human;
use crate::job::{Job, view};
use crate::output::{self, Output};
use crate::progress::Progress;
use clap::{Args, ValueEnum};
use outlive_schemas::id::JobRef;
use outlive_schemas::request::{JobRequest, Until};
use outlive_schemas::time::Millis;
use outlive_schemas::view::{JobView, Status};
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  outlive job wait counter
  outlive job wait counter --until running --timeout 30s";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WaitArgs {
    #[command(flatten)]
    job: Job,
    /// What to wait for
    #[arg(long, value_enum, default_value_t = Goal::Finished)]
    until: Goal,
    /// How long to wait; then the exit code is 7 [default: for ever]
    #[arg(long, value_parser = Millis::parse, value_name = "DURATION")]
    timeout: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Goal {
    Finished,
    Running,
}

pub async fn run(args: WaitArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let until = match args.until {
        Goal::Finished => Until::Finished,
        Goal::Running => Until::Running,
    };
    let reply = wait(&client, &args.job.job, until, args.timeout).await?;
    match global.output {
        Output::Json => output::line(&reply.raw)?,
        Output::Table => output::line(view::details(&reply.body, human::now()).render())?,
    }
    verdict(&reply.body)
}

/// An error where the job did not do what was asked of it.
pub fn verdict(job: &JobView) -> anyhow::Result<()> {
    match job.status {
        Status::Failed | Status::Cancelled => Err(Failure::JobFailed(view::ending(job)).into()),
        _ => Ok(()),
    }
}

async fn wait(client: &Client, job: &JobRef, until: Until, timeout: Option<Millis>) -> anyhow::Result<Reply<JobView>> {
    let progress = Progress::start(format!("waiting for {job}"));
    quietly(client, job, until, timeout, |seen| progress.say(view::in_short(seen))).await
}

/// Waits for the job, and gives `look` a look at it now and then.
///
/// Errors: [`Failure::Timeout`] where it takes longer than `timeout`.
pub async fn quietly(
    client: &Client,
    job: &JobRef,
    until: Until,
    timeout: Option<Millis>,
    look: impl Fn(&JobView),
) -> anyhow::Result<Reply<JobView>> {
    let deadline = timeout.and_then(|length| Instant::now().checked_add(length.into()));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Some(reply) = client.wait_a_while(job, until, left.map(whole_millis)).await? {
            return Ok(reply);
        }
        let seen = client.ask::<JobView>("job.get", &JobRequest { job: job.clone() }).await?.body;
        look(&seen);
        if let (Some(timeout), Some(deadline)) = (timeout, deadline)
            && Instant::now() >= deadline
        {
            let goal = match until {
                Until::Finished => "finished",
                Until::Running => "running",
            };
            let why = format!("`outlive job why {job}` may tell why");
            let message = format!("after {timeout} job {} is not {goal} but {}; {why}", seen.name, seen.status);
            return Err(Failure::Timeout(message).into());
        }
    }
}

/// Never nothing, for that would be refused.
fn whole_millis(length: Duration) -> Millis {
    Millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1))
}
