//! Keeps the two leaders in different zones: the scheduler that leads, and the server that leads the log's stream.
//!
//! A zone that holds both takes both with it, and then nothing can be appended, neither to the stream nor to the
//! bridge, until JetStream has elected. So a scheduler that finds itself in the zone of the stream's leader asks
//! JetStream to move that one; it takes a fraction of a second, which the bridge covers. It is a wish: where it is
//! not granted nothing is lost but time, later.

use crate::lookup::zone_of;
use crate::stores::Stores;
use async_nats::jetstream::stream::ClusterInfo;
use outlive_schemas::id::Zone;
use outlive_schemas::subject;
use serde_json::json;
use std::time::Duration;

/// How often it looks. The first look waits for as long, for a take-over has more urgent things to do.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two wishes: a stream's leader that is moved again and again serves nobody.
const ASK_EVERY: Duration = Duration::from_secs(30);
const REQUEST_MAX: Duration = Duration::from_secs(3);

/// Runs for as long as this scheduler leads.
pub async fn keep_apart(stores: Stores, own: Zone) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(cluster) = cluster_of(&stores).await else { continue };
        let Some(preferred) = better_leader(&cluster, &own) else { continue };
        match ask(&stores, &preferred).await {
            Ok(()) => {
                tracing::info!(
                    from = cluster.leader,
                    to = preferred,
                    "moved the lead of the log's stream to another zone"
                );
            }
            Err(reason) => tracing::warn!(to = preferred, reason, "the lead of the log's stream could not be moved"),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn cluster_of(stores: &Stores) -> Option<ClusterInfo> {
    let stream = stores.nats.jetstream.get_stream(subject::LOG_STREAM).await.ok()?;
    stream.cached_info().cluster.clone()
}

/// A replica that would lead in another zone, if the leader of the stream is in this one.
fn better_leader(cluster: &ClusterInfo, own: &Zone) -> Option<String> {
    let elsewhere = |server: &str| zone_of(server).is_some_and(|zone| zone != *own);
    if cluster.leader.as_deref().and_then(zone_of).as_ref() != Some(own) {
        return None;
    }
    let replicas = cluster.replicas.iter().filter(|replica| replica.current && !replica.offline);
    replicas.map(|replica| replica.name.clone()).filter(|name| elsewhere(name)).min()
}

async fn ask(stores: &Stores, preferred: &str) -> Result<(), String> {
    let body = json!({"placement": {"preferred": preferred}}).to_string();
    let request = async_nats::Request::new().payload(body.into()).timeout(Some(REQUEST_MAX));
    let asked = stores.nats.client.send_request(subject::log_stream_step_down(), request).await;
    let reply = asked.map_err(|error| error.to_string())?;
    let reply: serde_json::Value = serde_json::from_slice(&reply.payload).map_err(|error| error.to_string())?;
    match &reply["error"] {
        serde_json::Value::Null => Ok(()),
        error => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(leader: &str, replicas: &[(&str, bool, bool)]) -> ClusterInfo {
        let replicas: Vec<_> = replicas
            .iter()
            .map(|(name, current, offline)| json!({"name": name, "current": current, "offline": offline, "active": 0}))
            .collect();
        serde_json::from_value(json!({"name": "c", "leader": leader, "replicas": replicas})).expect("a cluster")
    }

    #[test]
    fn the_streams_leader_moves_out_of_our_zone_and_never_otherwise() {
        let zone: Zone = "a".parse().expect("a zone");
        let better = |leader: &str, replicas: &[_]| better_leader(&cluster(leader, replicas), &zone);
        let all = [("nats-c", true, false), ("nats-b", true, false)];
        assert_eq!(better("nats-a", &all).as_deref(), Some("nats-b"));
        assert_eq!(better("nats-b", &[("nats-a", true, false), ("nats-c", true, false)]), None);
        assert_eq!(better("", &all), None, "nobody leads it");
        // One that is behind or gone would make it worse.
        assert_eq!(better("nats-a", &[("nats-b", false, false), ("nats-c", true, true)]), None);
        assert_eq!(better("nats-a", &[("nats2-a", true, false)]), None, "in the same zone");
    }
}
