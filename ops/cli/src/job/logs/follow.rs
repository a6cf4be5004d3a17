//! Following one job's output to its end: who is asked, and when.

use super::Sink;
use super::joined::Joined;
use crate::client::Client;
use crate::human;
use crate::job::{history, wait};
use crate::progress::Progress;
use async_nats::{HeaderMap, Message, Subscriber};
use futures::{FutureExt, StreamExt};
use outlive_schemas::id::{Attempt, JobId, JobRef};
use outlive_schemas::limits;
use outlive_schemas::message::{LogEntry, LogStream};
use outlive_schemas::payload::Payload;
use outlive_schemas::request::{LogsRequest, Until};
use outlive_schemas::subject;
use outlive_schemas::view::{FeedEvent, JobView, Logs};
use std::time::{Duration, Instant};

/// After a job's end its last output may still be on its way; it is over once nothing has come for this long.
const QUIET_AT_END: Duration = Duration::from_millis(250);
/// While entries are held, how often the missing ones are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Reads one job's output to its end.
pub struct Follower<'a> {
    client: &'a Client,
    job: JobId,
    live: Subscriber,
    /// News of the job, where somebody watches.
    feed: Option<Subscriber>,
    cursor: Option<String>,
    joined: Joined,
}

impl<'a> Follower<'a> {
    /// From here on no output is missed.
    pub async fn begin(client: &'a Client, job: JobId, sink: Sink) -> anyhow::Result<Follower<'a>> {
        let live = client.subscribe(subject::live_log(client.namespace(), job, "*")).await?;
        Ok(Follower { client, job, live, feed: None, cursor: None, joined: Joined::new(sink) })
    }

    /// Shows on the terminal what else happens to the job: `progress` until its first output, and then a line each
    /// time that it is moved.
    pub async fn telling(mut self, progress: Progress) -> anyhow::Result<Follower<'a>> {
        self.feed = Some(self.client.subscribe(subject::event(self.client.namespace(), self.job, "*")).await?);
        self.joined.progress = Some(progress);
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
                () = tokio::time::sleep(LOOK_AGAIN), if !self.joined.held.is_empty() => self.read_kept().await?,
                ended = &mut finished => break ended?,
            }
        };
        while let Ok(Some(message)) = tokio::time::timeout(QUIET_AT_END, self.live.next()).await {
            self.take(message).await?;
        }
        self.read_kept().await?;
        while !self.joined.held.is_empty() {
            tokio::time::sleep(LOOK_AGAIN).await;
            self.read_kept().await?;
        }
        Ok(ended.body)
    }

    /// A live message, and all that wait behind it.
    async fn take(&mut self, first: Message) -> anyhow::Result<()> {
        let mut next = Some(first);
        while let Some(message) = next {
            // What does not say which entry it is, is not an executor's.
            if let Some(entry) = entry_of(&message) {
                self.joined.live(entry)?;
            }
            next = self.live.next().now_or_never().flatten();
        }
        if self.joined.held.is_empty() { Ok(()) } else { self.read_kept().await }
    }

    /// Writes what is kept and was not written yet, and then what was held for it.
    async fn read_kept(&mut self) -> anyhow::Result<()> {
        loop {
            let request = LogsRequest {
                job: JobRef::Id(self.job),
                limit: Some(limits::LOGS_LIMIT_MAX),
                cursor: self.cursor.clone(),
            };
            let page = self.client.ask::<Logs>("job.logs", &request).await?.body;
            page.entries.iter().try_for_each(|entry| self.joined.kept(entry))?;
            self.cursor = page.cursor.or(self.cursor.take());
            if page.end {
                return Ok(self.joined.release(Instant::now())?);
            }
        }
    }

    fn tell(&self, event: &Message) {
        let Ok(event) = serde_json::from_slice::<FeedEvent>(&event.payload) else { return };
        let what = human::printable(&history::what(&event.kind, &event.details));
        if let Some(progress) = &self.joined.progress {
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

/// The entry that a live message is.
fn entry_of(message: &Message) -> Option<LogEntry> {
    let headers = message.headers.as_ref()?;
    let attempt = number(headers, subject::HEADER_LOG_ATTEMPT).and_then(|n| u32::try_from(n).ok())?;
    let stream = match message.subject.rsplit('.').next()? {
        "out" => LogStream::Out,
        "err" => LogStream::Err,
        _ => LogStream::Outlive,
    };
    Some(LogEntry {
        at: human::now(),
        attempt: Attempt(attempt),
        number: number(headers, subject::HEADER_LOG_NUMBER)?,
        stream,
        text: Payload(message.payload.clone()),
    })
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

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
        let described = |stream: &str, headers: &[(&str, &str)]| {
            entry_of(&live(stream, headers)).map(|entry| (entry.attempt, entry.number, entry.stream))
        };
        assert_eq!(described("out", &headers), Some((Attempt(2), 7, LogStream::Out)));
        assert_eq!(described("err", &headers), Some((Attempt(2), 7, LogStream::Err)));
        assert_eq!(described("out", &headers[..1]), None);
        assert_eq!(described("out", &[headers[0], (subject::HEADER_LOG_NUMBER, "-7")]), None);
    }
}
