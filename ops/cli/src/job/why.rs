//! `outlive job why`.

use crate::args::Global;
use crate::client::Client;
use crate::human;
use crate::job::Job;
use crate::output::{self, Output, Table};
use clap::Args;
use outlive_schemas::request::JobRequest;
use outlive_schemas::view::Why;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  outlive job why counter")]
pub struct WhyArgs {
    #[command(flatten)]
    job: Job,
}

pub async fn run(args: WhyArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let reply = client.ask::<Why>("job.why", &JobRequest { job: args.job.job }).await?;
    match global.output {
        Output::Json => output::line(&reply.raw)?,
        Output::Table => output::line(render(&reply.body))?,
    }
    Ok(())
}

fn render(why: &Why) -> String {
    let mut text = format!("{}: {}", why.status, human::printable(&why.summary));
    if !why.reasons.is_empty() {
        let mut table = Table::new(&["EXECUTOR", "ZONE", "REFUSED BECAUSE"]);
        for reason in &why.reasons {
            table.row(vec![
                output::cell(&reason.executor),
                output::cell(&reason.zone),
                output::cell(&reason.refused_because),
            ]);
        }
        text = format!("{text}\n\n{}", table.render());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_and_then_the_reasons() {
        let why: Why = serde_json::from_value(serde_json::json!({
            "status": "pending", "summary": "no executor has room",
            "reasons": [
                {"executor": "executor-a-1", "zone": "a", "refused_because": "8 GiB of memory wanted, 2 GiB free"},
                {"executor": "executor-b-1", "zone": "b", "refused_because": "zone b is not among c"},
            ]
        }))
        .expect("a reply");
        assert_eq!(
            render(&why),
            "\
pending: no executor has room

EXECUTOR      ZONE  REFUSED BECAUSE
executor-a-1  a     8 GiB of memory wanted, 2 GiB free
executor-b-1  b     zone b is not among c"
        );
    }
}
