//! Answers that need more than the state: what the log, the job logs and the servers hold.

use crate::leader::{Lookup, StatusSoFar};
use crate::metrics;
use crate::stores::Stores;
use outlive_core::view::{bad_cursor, page};
use outlive_schemas::codec::Format;
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::HistoryEvent;
use outlive_schemas::id::{JobId, Namespace, Sequence, Zone};
use outlive_schemas::limits;
use outlive_schemas::request::{HistoryRequest, LogsRequest};
use outlive_schemas::view::{History, LogView, Logs, StoredView, SystemStatus};
use outlive_store::blob::Usage;
use outlive_store::frame::{FrameOpener, open_header};
use outlive_store::log::ReadError;
use serde::Serialize;
use std::fmt::Display;

/// Finds the answer and writes it.
pub async fn answer(stores: &Stores, cluster: &str, lookup: Lookup, format: Format) -> Result<Vec<u8>, Rejection> {
    match lookup {
        Lookup::History { job, commits, request } => encoded(format, history(stores, job, &commits, &request).await),
        Lookup::Logs { namespace, job, request } => encoded(format, logs(stores, &namespace, job, &request).await),
        Lookup::Status(status) => encoded(format, self::status(stores, cluster, status).await),
    }
}

fn encoded<T: Serialize>(format: Format, found: Result<T, Rejection>) -> Result<Vec<u8>, Rejection> {
    found.map(|value| format.encode(&value))
}

fn out_of_reach(what: &str, error: impl Display) -> Rejection {
    Rejection::unavailable(format_args!("{what} cannot be read: {error}"))
}

/// A job's events are found by the commits that speak of it. The cursor is the position after the last event shown:
/// its commit, and its place among that commit's events of this job.
async fn history(
    stores: &Stores,
    job: JobId,
    commits: &[Sequence],
    request: &HistoryRequest,
) -> Result<History, Rejection> {
    let limit = page(request.limit, limits::HISTORY_LIMIT_DEFAULT, limits::HISTORY_LIMIT_MAX)?;
    let (from, skip) = match &request.cursor {
        None => (Sequence(0), 0),
        Some(text) => read_position(text).ok_or_else(|| bad_cursor(text))?,
    };
    let keys = stores.keys.log_keys().await.map_err(|e| out_of_reach("the log's keys", e))?;
    let mut opener = FrameOpener::new(&keys);
    let mut found = History { events: Vec::new(), cursor: None, left_out: None };
    let mut purged: Option<Sequence> = None;
    'commits: for &seq in commits.iter().filter(|seq| **seq >= from) {
        // Older than the log's history window.
        if purged.is_some_and(|first| seq < first) {
            continue;
        }
        let stored = match stores.log.read(seq, 1).await {
            Ok(stored) => stored,
            Err(ReadError::Purged { first, .. }) => {
                purged = Some(first);
                continue;
            }
            Err(error) => return Err(out_of_reach("the log", error)),
        };
        let Some(stored) = stored.into_iter().next().filter(|stored| stored.seq == seq) else {
            return Err(out_of_reach("the log", "a replica is behind"));
        };
        let damaged = |e: &dyn Display| {
            tracing::error!(%seq, error = %e, "a commit cannot be opened");
            metrics::did_not_open();
            Rejection::new(ErrorCode::Internal, format!("commit {seq} cannot be opened: run `outlive log verify`"))
        };
        let header = open_header(&stored.body, seq).map_err(|e| damaged(&e))?;
        let commit = opener.open(&stored.body, header.expected, header.previous).map_err(|e| damaged(&e))?;
        let skip = if seq == from { skip } else { 0 };
        let of_job = commit.events.iter().filter(|envelope| envelope.event.job() == Some(job));
        for (place, envelope) in of_job.enumerate().skip(skip) {
            if found.events.len() == limit {
                found.cursor = Some(format!("{seq}.{place}"));
                break 'commits;
            }
            found.events.push(HistoryEvent::new(seq, envelope));
        }
    }
    found.left_out = match (&request.cursor, purged) {
        (None, _) => left_out(&found.events, purged, was_shortened(commits)),
        // It was purged since the page before was given.
        (Some(_), Some(first)) => Some(purged_below(first)),
        (Some(_), None) => None,
    };
    Ok(found)
}

/// Whether the job has had more commits than its history keeps. Where it did, half of them are there at least.
fn was_shortened(commits: &[Sequence]) -> bool {
    commits.len() >= limits::HISTORY_COMMITS_PER_JOB_MAX / 2
}

fn purged_below(first: Sequence) -> String {
    format!("what is older than commit {first}, for the log goes no further back (log.history_events)")
}

/// What the first page of a history says of what is not in it: the job's submission begins every whole one, but for a
/// task's, which was submitted with its array.
fn left_out(events: &[HistoryEvent], purged: Option<Sequence>, was_shortened: bool) -> Option<String> {
    let begins = events.first().is_some_and(|event| event.kind == "job_submitted");
    let numbers = events.iter().filter(|event| event.kind == "checkpoint_completed");
    let first_checkpoint = numbers.filter_map(|event| event.details.get("checkpoint")?.as_u64()).min();
    let mut said = Vec::new();
    match purged {
        Some(first) => said.push(purged_below(first)),
        None if was_shortened && !begins => said.push(format!(
            "the oldest events of a long life: a job's history keeps {} commits at most",
            limits::HISTORY_COMMITS_PER_JOB_MAX
        )),
        None => {}
    }
    if let Some(first) = first_checkpoint.filter(|first| *first > 1) {
        said.push(format!(
            "the checkpoints before {first}, of which the newest {} are kept at most",
            limits::HISTORY_CHECKPOINTS_PER_JOB_MAX
        ));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

fn read_position(text: &str) -> Option<(Sequence, usize)> {
    let (seq, place) = text.split_once('.')?;
    Some((Sequence(seq.parse().ok()?), place.parse().ok()?))
}

/// The cursor is the stored message after which to go on.
async fn logs(stores: &Stores, namespace: &Namespace, job: JobId, request: &LogsRequest) -> Result<Logs, Rejection> {
    let limit = page(request.limit, limits::LOGS_LIMIT_DEFAULT, limits::LOGS_LIMIT_MAX)?;
    let after = match &request.cursor {
        None => 0,
        Some(text) => text.parse().map_err(|_| bad_cursor(text))?,
    };
    let unreadable = |e: &dyn Display| out_of_reach("the job's log", e);
    // A job that never wrote anything has no key.
    let Some(key) = stores.keys.existing_job_key(job).await.map_err(|e| unreadable(&e))? else {
        return Ok(Logs { entries: Vec::new(), cursor: request.cursor.clone(), end: true });
    };
    let messages = stores.job_logs.read(namespace, job, &key, after, limit).await.map_err(|e| unreadable(&e))?;
    let mut found = Logs { entries: Vec::new(), cursor: Some(after.to_string()), end: messages.is_empty() };
    let mut bytes = 0;
    for (seq, entries) in messages {
        bytes += entries.iter().map(|entry| entry.text.0.len() * 4 / 3 + 160).sum::<usize>();
        // A page always brings something, and never more than fits a reply.
        if !found.entries.is_empty()
            && (found.entries.len() + entries.len() > limit || bytes > limits::MESSAGE_BYTES_MAX)
        {
            break;
        }
        found.entries.extend(entries);
        found.cursor = Some(seq.to_string());
    }
    Ok(found)
}

async fn status(stores: &Stores, cluster: &str, so_far: StatusSoFar) -> Result<SystemStatus, Rejection> {
    let (extent, blobs, images, job_logs, keys, leader) = tokio::join!(
        stores.log.extent(),
        stores.blobs.usage(),
        stores.images.usage(),
        stores.job_logs.usage(),
        stream_usage(stores, outlive_schemas::subject::KEY_STREAM),
        stream_leader(stores)
    );
    let extent = extent.map_err(|e| out_of_reach("the log", e))?;
    let blobs = blobs.map_err(|e| out_of_reach("the blob store", e))?;
    let images = images.map_err(|e| out_of_reach("the images", e))?;
    let keys = keys.map_err(|e| out_of_reach("the keys", e))?;
    let job_logs = job_logs.map_err(|e| out_of_reach("the job logs", e))?;
    let stored = |kind: &str, bytes, items| StoredView { kind: kind.to_owned(), bytes, items };
    Ok(SystemStatus {
        cluster: cluster.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leader: so_far.leader,
        log: LogView {
            first_seq: extent.first,
            last_seq: so_far.last_seq,
            bytes: extent.bytes,
            stream_leader_zone: leader.as_deref().and_then(zone_of),
            stream_leader: leader,
            witness_seq: so_far.witness_seq,
        },
        zones: so_far.zones,
        jobs: so_far.jobs,
        restarting: so_far.restarting,
        oldest_checkpoint: so_far.oldest_checkpoint,
        stored: vec![
            stored("log", extent.bytes, so_far.last_seq.0.saturating_sub(extent.first.0.saturating_sub(1))),
            stored("checkpoints", blobs.bytes.saturating_sub(images.bytes), blobs.items.saturating_sub(images.items)),
            stored("images", images.bytes, images.items),
            stored("job_logs", job_logs.bytes, job_logs.items),
            stored("keys", keys.bytes, keys.items),
            stored("scheduler_memory", so_far.held_bytes, so_far.held_jobs),
        ],
    })
}

/// What a stream takes.
async fn stream_usage(stores: &Stores, stream: &str) -> Result<Usage, String> {
    let stream = stores.nats.jetstream.get_stream_no_info(stream).await.map_err(|e| e.to_string())?;
    let info = stream.get_info().await.map_err(|e| e.to_string())?;
    Ok(Usage { bytes: info.state.bytes, items: info.state.messages })
}

/// The server that leads the log's stream; nothing where there is but one, which is in no cluster.
async fn stream_leader(stores: &Stores) -> Option<String> {
    let mut stream = stores.nats.jetstream.get_stream(outlive_schemas::subject::LOG_STREAM).await.ok()?;
    let info = stream.info().await.ok()?;
    match &info.cluster {
        Some(cluster) => cluster.leader.clone(),
        None => Some(stores.nats.client.server_info().server_name),
    }
}

/// A server's zone is what its name ends in: `nats-a` is in zone `a`, and where zones' names hold hyphens themselves,
/// `nats-0@eu-west-1a` in zone `eu-west-1a`.
pub fn zone_of(server: &str) -> Option<Zone> {
    let (_, tail) = server.rsplit_once('@').or_else(|| server.rsplit_once('-'))?;
    Zone::new(tail).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::time::Timestamp;

    #[test]
    fn a_servers_zone_is_what_its_name_ends_in() {
        for (server, zone) in [
            ("nats-a", Some("a")),
            ("nats-0@eu-west-1a", Some("eu-west-1a")),
            ("nats-eu-west-1a", Some("1a")),
            ("nats", None),
            ("nats-A", None),
        ] {
            assert_eq!(zone_of(server).as_ref().map(Zone::as_str), zone, "{server}");
        }
    }

    fn event(kind: &str, checkpoint: Option<u64>) -> HistoryEvent {
        let details = checkpoint.map(|number| ("checkpoint".to_owned(), number.into())).into_iter().collect();
        HistoryEvent { seq: Sequence(1), at: Timestamp(1), kind: kind.into(), attempt: None, by: None, details }
    }

    #[test]
    fn a_history_says_what_is_not_in_it() {
        let submitted = || event("job_submitted", None);
        let said = |events: &[HistoryEvent], purged| left_out(events, purged, true).expect("something");
        assert_eq!(left_out(&[submitted(), event("checkpoint_completed", Some(1))], None, true), None);
        let text = said(&[submitted(), event("checkpoint_completed", Some(500))], None);
        assert!(text.contains("checkpoints before 500"), "{text}");
        let text = said(&[event("job_placed", None)], None);
        assert!(text.contains("long life"), "{text}");
        assert_eq!(left_out(&[event("job_placed", None)], None, false), None, "a task's begins so");
        let text = said(&[event("job_placed", None)], Some(Sequence(77)));
        assert!(text.contains("older than commit 77") && text.contains("log.history_events"), "{text}");
    }
}
