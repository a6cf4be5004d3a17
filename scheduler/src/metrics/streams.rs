//! How full and how whole the streams are. Every scheduler looks, so that they are watched while nobody leads as well.

use crate::stores::Stores;
use async_nats::jetstream::stream::Info;
use metrics::gauge;
use outlive_schemas::subject;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks for as long as the scheduler runs.
pub async fn run(stores: Stores) {
    loop {
        for stream in [subject::LOG_STREAM, subject::BLOB_STREAM, subject::KEY_STREAM, subject::JOB_LOG_STREAM] {
            look(&stores, stream).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(stores: &Stores, stream: &'static str) {
    match stores.nats.jetstream.get_stream(stream).await {
        Ok(found) => show(stream, &Seen::of(found.cached_info())),
        // While JetStream elects, nobody answers.
        Err(_) => gauge!("outlive_stream_has_leader", "stream" => stream).set(0.0),
    }
}

/// A stream as its leader told of it.
#[derive(Debug, Default)]
pub struct Seen {
    pub bytes: u64,
    pub messages: u64,
    pub limit: Option<u64>,
    pub leads: bool,
    pub current: u32,
    pub lagging: u32,
    pub offline: u32,
}

impl Seen {
    fn of(info: &Info) -> Seen {
        let mut seen = Seen {
            bytes: info.state.bytes,
            messages: info.state.messages,
            limit: u64::try_from(info.config.max_bytes).ok().filter(|limit| *limit > 0),
            // A server that is in no cluster holds the only replica, and leads.
            leads: true,
            current: 1,
            ..Seen::default()
        };
        if let Some(cluster) = &info.cluster {
            seen.leads = cluster.leader.as_ref().is_some_and(|leader| !leader.is_empty());
            seen.current = u32::from(seen.leads);
            for replica in &cluster.replicas {
                match (replica.offline, replica.current) {
                    (true, _) => seen.offline += 1,
                    (false, true) => seen.current += 1,
                    (false, false) => seen.lagging += 1,
                }
            }
        }
        seen
    }
}

pub fn show(stream: &'static str, seen: &Seen) {
    gauge!("outlive_stream_bytes", "stream" => stream).set(seen.bytes as f64);
    gauge!("outlive_stream_messages", "stream" => stream).set(seen.messages as f64);
    if let Some(limit) = seen.limit {
        gauge!("outlive_stream_bytes_limit", "stream" => stream).set(limit as f64);
    }
    gauge!("outlive_stream_has_leader", "stream" => stream).set(f64::from(u8::from(seen.leads)));
    for (state, count) in [("current", seen.current), ("lagging", seen.lagging), ("offline", seen.offline)] {
        gauge!("outlive_stream_replicas", "stream" => stream, "state" => state).set(f64::from(count));
    }
}
