//! What was acknowledged, written down as it happens, to be held against the log afterwards.

use crate::client::Client;
use crate::examples::noop;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Clients that submit at the same time.
const WRITERS: usize = 4;
/// Between two submissions of one client: a user's pace, not a benchmark's.
const PAUSE: Duration = Duration::from_millis(20);

/// Submits noop jobs all the time, and keeps what each was acknowledged as.
pub struct Ledger {
    client: Client,
    shared: Arc<Shared>,
    writers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    acknowledged: Mutex<BTreeMap<String, String>>,
    count: AtomicUsize,
    stop: AtomicBool,
}

impl Ledger {
    pub fn begin(client: &Client) -> Ledger {
        let shared = Arc::<Shared>::default();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(writer, client.clone(), shared.clone()));
        }
        Ledger { client: client.clone(), shared, writers }
    }

    /// How many are acknowledged by now.
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Stops, and panics unless exactly what was acknowledged is there, once, and has finished.
    pub async fn close(mut self, what: &str) -> usize {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a writer ends well");
        }
        let acknowledged = self.shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listed = self.client.list(json!({"name_prefix": "ledger-", "limit": 1_000})).await;
        let mut found = BTreeMap::new();
        for job in &listed {
            let (name, id) = (text(job, "name"), text(job, "id"));
            assert_eq!(found.insert(name.clone(), id), None, "{what}: {name} exists twice");
        }
        for (name, id) in &acknowledged {
            assert_eq!(found.get(name), Some(id), "{what}: {name} was acknowledged as {id}, and is not there as that");
        }
        assert_eq!(found.len(), acknowledged.len(), "{what}: and nothing else is there");
        for id in acknowledged.values() {
            self.client.wait_for_status(id, "succeeded").await;
        }
        acknowledged.len()
    }
}

async fn write(writer: usize, client: Client, shared: Arc<Shared>) {
    for number in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("ledger-{writer}-{number:05}");
        let mut spec = noop("in the ledger");
        spec["name"] = json!(name);
        let reply = client.insist("job.submit", &spec, &format!("ledger/{writer}/{number}")).await;
        let id = text(&reply.expect("a good job is taken"), "id");
        shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(name, id);
        shared.count.fetch_add(1, Ordering::Relaxed);
        // Not a wait for anything: the pace.
        tokio::time::sleep(PAUSE).await;
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {value}")).to_owned()
}
