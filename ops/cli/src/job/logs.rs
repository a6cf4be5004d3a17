//! `outlive job logs`: what a job has written, and with `-f` what it writes.
//!
//! Kept entries are asked for page by page; new ones come over plain NATS (`follow`), and `joined` puts the two together.

mod follow;
mod joined;

pub use follow::Follower;

use crate::args::Global;
use crate::client::Client;
use crate::job::Job;
use crate::output::{self, Output};
use clap::Args;
use outlive_schemas::id::JobRef;
use outlive_schemas::limits;
use outlive_schemas::message::{LogEntry, LogStream};
use outlive_schemas::request::{JobRequest, LogsRequest};
use outlive_schemas::view::{JobView, Logs};
use serde_json::{Value, json};
use std::io::{self, Write};

const EXAMPLES: &str = "\
Examples:
  outlive job logs counter
  outlive job logs -f counter 2>errors
  outlive job logs counter --output json | jq -r '.entries[].text'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LogsArgs {
    #[command(flatten)]
    job: Job,
    /// Go on until the job is finished. With `--output json`, one entry a line
    #[arg(long, short)]
    follow: bool,
}

pub async fn run(args: LogsArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    if !args.follow {
        return kept(&client, args.job.job, global.output).await;
    }
    let job = client.ask::<JobView>("job.get", &JobRequest { job: args.job.job }).await?.body;
    let sink = match global.output {
        Output::Table => Sink::Streams,
        Output::Json => Sink::JsonLines,
    };
    Follower::begin(&client, job.id, sink).await?.until_the_end().await?;
    Ok(())
}

async fn kept(client: &Client, job: JobRef, output: Output) -> anyhow::Result<()> {
    let mut entries: Vec<Value> = Vec::new();
    let mut request = LogsRequest { job, limit: Some(limits::LOGS_LIMIT_MAX), cursor: None };
    loop {
        let page = client.ask::<Logs>("job.logs", &request).await?;
        request.cursor = page.body.cursor.clone().or(request.cursor);
        match output {
            Output::Table => page.body.entries.iter().try_for_each(|entry| Sink::Streams.write(entry))?,
            Output::Json => {
                let mut page: Value = serde_json::from_slice(&page.raw)?;
                if let Some(Value::Array(found)) = page.get_mut("entries").map(Value::take) {
                    entries.extend(found);
                }
            }
        }
        if page.body.end {
            break;
        }
    }
    if output == Output::Json {
        output::line(json!({"entries": entries, "cursor": request.cursor, "end": true}).to_string())?;
    }
    Ok(())
}

/// Where a job's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Each stream to our own of that name.
    Streams,
    /// Both to standard error, because standard output is for the result.
    StandardError,
    /// To standard output, as the contract's JSON, an entry a line.
    JsonLines,
}

impl Sink {
    fn write(self, entry: &LogEntry) -> io::Result<()> {
        match (self, entry.stream) {
            (Sink::JsonLines, _) => output::line(serde_json::to_vec(entry)?),
            (Sink::Streams, LogStream::Out) => put(io::stdout().lock(), b"", &entry.text.0),
            (_, LogStream::Out | LogStream::Err) => put(io::stderr().lock(), b"", &entry.text.0),
            (_, LogStream::Outlive) => put(io::stderr().lock(), b"outlive: ", &entry.text.0),
        }
    }
}

/// As it came: a job's output is bytes, not always text.
fn put(mut to: impl Write, before: &[u8], text: &[u8]) -> io::Result<()> {
    to.write_all(before)?;
    to.write_all(text)?;
    if !before.is_empty() && !text.ends_with(b"\n") {
        to.write_all(b"\n")?;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlives_own_words_are_marked_and_end_their_line() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"outlive: ", b"3 entries were dropped").expect("written");
        put(&mut bytes, b"", b"no end").expect("written");
        assert_eq!(bytes, b"outlive: 3 entries were dropped\nno end");
    }
}
