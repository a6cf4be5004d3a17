//! `outlive job logs`: what a job has written, and with `-f` what it writes.
//!
//! Kept entries are asked for page by page; new ones come over plain NATS. Both carry the attempt and the entry's
//! number, so that the two are joined without a gap or a doubling: the subscription stands before the first page is
//! asked for, and a number that skips some sends the reader back to the kept ones.

use crate::args::Global;
use crate::client::Client;
use crate::human;
use crate::job::{Job, history, wait};
use crate::output::{self, Output};
use crate::progress::Progress;
use async_nats::{HeaderMap, Message, Subscriber};
use clap::Args;
use futures::{FutureExt, StreamExt};
use outlive_schemas::id::{Attempt, JobId, JobRef};
use outlive_schemas::limits;
use outlive_schemas::message::{LogEntry, LogStream};
use outlive_schemas::request::{JobRequest, LogsRequest, Until};
use outlive_schemas::subject;
use outlive_schemas::view::{FeedEvent, JobView, Logs};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  outlive job logs counter
  outlive job logs -f counter 2>errors
  outlive job logs counter --output json | jq -r '.entries[].text'";

/// After a job's end its last output may still be on its way; it is over once nothing has come for this long.
const QUIET_AT_END: Duration = Duration::from_millis(250);

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

/// Reads one job's output to its end.
pub struct Follower<'a> {
    client: &'a Client,
    job: JobId,
    sink: Sink,
    live: Subscriber,
    /// News of the job, where somebody watches.
    feed: Option<Subscriber>,
    progress: Option<Progress>,
    cursor: Option<String>,
    written: Written,
}

/// The highest entry of each attempt that has been written.
#[derive(Debug, Default)]
struct Written(BTreeMap<Attempt, u64>);

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Before,
    Next,
    /// Some are missing between.
    Beyond,
}

impl Written {
    fn place(&self, attempt: Attempt, number: u64) -> Place {
        let highest = self.0.get(&attempt).copied().unwrap_or(0);
        if number <= highest {
            Place::Before
        } else if number == highest + 1 {
            Place::Next
        } else {
            Place::Beyond
        }
    }

    fn note(&mut self, attempt: Attempt, number: u64) {
        let highest = self.0.entry(attempt).or_default();
        *highest = number.max(*highest);
    }
}

impl<'a> Follower<'a> {
    /// From here on no output is missed.
    pub async fn begin(client: &'a Client, job: JobId, sink: Sink) -> anyhow::Result<Follower<'a>> {
        let live = client.subscribe(subject::live_log(client.namespace(), job, "*")).await?;
        let (cursor, written) = (None, Written::default());
        Ok(Follower { client, job, sink, live, feed: None, progress: None, cursor, written })
    }

    /// Shows on the terminal what else happens to the job: `progress` until its first output, and then a line each
    /// time that it is moved.
    pub async fn telling(mut self, progress: Progress) -> anyhow::Result<Follower<'a>> {
        self.feed = Some(self.client.subscribe(subject::event(self.client.namespace(), self.job, "*")).await?);
        self.progress = Some(progress);
        Ok(self)
    }

    /// Writes everything the job has written and will write; returns how it ended.
    pub async fn until_the_end(mut self) -> anyhow::Result<JobView> {
        let (client, job) = (self.client, JobRef::Id(self.job));
        let mut finished = std::pin::pin!(wait::quietly(client, &job, Until::Finished, None, |_| ()));
        self.read_kept().await?;
        let ended = loop {
            tokio::select! {
                biased;
                message = self.live.next() => match message {
                    Some(message) => self.take(message).await?,
                    // The connection was closed for good; the kept entries will do.
                    None => break (&mut finished).await?,
                },
                Some(event) = next(&mut self.feed) => self.tell(&event),
                ended = &mut finished => break ended?,
            }
        };
        while let Ok(Some(message)) = tokio::time::timeout(QUIET_AT_END, self.live.next()).await {
            self.take(message).await?;
        }
        self.read_kept().await?;
        Ok(ended.body)
    }

    /// A live message, and all that wait behind it.
    async fn take(&mut self, first: Message) -> anyhow::Result<()> {
        let mut next = Some(first);
        let mut missing = false;
        while let Some(message) = next {
            missing |= !self.write_live(&message).await?;
            next = self.live.next().now_or_never().flatten();
        }
        if missing { self.read_kept().await } else { Ok(()) }
    }

    /// Writes a live message. Not where it has to be read from the kept entries instead.
    async fn write_live(&mut self, message: &Message) -> anyhow::Result<bool> {
        let Some((attempt, number, stream)) = described(message) else { return Ok(false) };
        if self.sink == Sink::JsonLines {
            // Only the kept entry has all that the contract's shape says.
            return Ok(self.written.place(attempt, number) == Place::Before);
        }
        if self.written.place(attempt, number) == Place::Beyond {
            self.read_kept().await?;
        }
        if self.written.place(attempt, number) == Place::Before {
            return Ok(true);
        }
        let entry = LogEntry {
            at: human::now(),
            attempt,
            number,
            stream,
            text: outlive_schemas::payload::Payload(message.payload.clone()),
        };
        self.write(&entry)?;
        Ok(true)
    }

    /// Writes what is kept and was not written yet.
    async fn read_kept(&mut self) -> anyhow::Result<()> {
        loop {
            let request = LogsRequest {
                job: JobRef::Id(self.job),
                limit: Some(limits::LOGS_LIMIT_MAX),
                cursor: self.cursor.clone(),
            };
            let page = self.client.ask::<Logs>("job.logs", &request).await?.body;
            for entry in &page.entries {
                if self.written.place(entry.attempt, entry.number) != Place::Before {
                    self.write(entry)?;
                }
            }
            self.cursor = page.cursor.or(self.cursor.take());
            if page.end {
                return Ok(());
            }
        }
    }

    fn write(&mut self, entry: &LogEntry) -> io::Result<()> {
        if let Some(progress) = self.progress.take() {
            progress.clear();
        }
        self.sink.write(entry)?;
        self.written.note(entry.attempt, entry.number);
        Ok(())
    }

    fn tell(&self, event: &Message) {
        let Ok(event) = serde_json::from_slice::<FeedEvent>(&event.payload) else { return };
        let what = human::printable(&history::what(&event.kind, &event.details));
        if let Some(progress) = &self.progress {
            progress.say(format!("{} is {}: {what}", event.name, event.status));
        } else if matches!(event.kind.as_str(), "job_restarting" | "job_placed" | "cancel_requested") {
            let attempt = event.attempt.map(|a| format!(" (attempt {a})")).unwrap_or_default();
            eprintln!("outlive: {}{attempt}: {what}", event.kind);
        }
    }
}

/// Never, where there is none.
async fn next(feed: &mut Option<Subscriber>) -> Option<Message> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

/// Which entry a live message is.
fn described(message: &Message) -> Option<(Attempt, u64, LogStream)> {
    let headers = message.headers.as_ref()?;
    let attempt = number(headers, subject::HEADER_LOG_ATTEMPT).and_then(|n| u32::try_from(n).ok())?;
    let stream = match message.subject.rsplit('.').next()? {
        "out" => LogStream::Out,
        "err" => LogStream::Err,
        _ => LogStream::Outlive,
    };
    Some((Attempt(attempt), number(headers, subject::HEADER_LOG_NUMBER)?, stream))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn entries_are_placed_by_attempt_and_number() {
        let mut written = Written::default();
        assert_eq!(written.place(Attempt(1), 1), Place::Next);
        written.note(Attempt(1), 1);
        assert_eq!(written.place(Attempt(1), 1), Place::Before);
        assert_eq!(written.place(Attempt(1), 2), Place::Next);
        assert_eq!(written.place(Attempt(1), 3), Place::Beyond);
        assert_eq!(written.place(Attempt(2), 1), Place::Next);
        written.note(Attempt(1), 9);
        written.note(Attempt(1), 4);
        assert_eq!(written.place(Attempt(1), 9), Place::Before);
    }

    fn live(stream: &str, headers: &[(&str, &str)]) -> Message {
        let headers = headers.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
            map.insert(*name, *value);
            map
        });
        Message {
            subject: format!("outlive.v1.default.log.0197f3c8-0000-7000-8000-000000000001.{stream}").into(),
            reply: None,
            payload: Bytes::from_static(b"hello\n"),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn a_live_message_says_which_entry_it_is() {
        let headers = [(subject::HEADER_LOG_ATTEMPT, "2"), (subject::HEADER_LOG_NUMBER, "7")];
        assert_eq!(described(&live("out", &headers)), Some((Attempt(2), 7, LogStream::Out)));
        assert_eq!(described(&live("err", &headers)), Some((Attempt(2), 7, LogStream::Err)));
        assert_eq!(described(&live("out", &headers[..1])), None);
        assert_eq!(described(&live("out", &[headers[0], (subject::HEADER_LOG_NUMBER, "-7")])), None);
    }

    #[test]
    fn outlives_own_words_are_marked_and_end_their_line() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"outlive: ", b"3 entries were dropped").expect("written");
        put(&mut bytes, b"", b"no end").expect("written");
        assert_eq!(bytes, b"outlive: 3 entries were dropped\nno end");
    }
}
