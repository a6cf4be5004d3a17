//! Hosts that a bench makes up: they register, beat and take what they are given as executors do, and run none of it.
//!
//! So many real executors would not fit one machine; to the scheduler these are the same.

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use outlive_scheduler::stores::Stores;
use outlive_schemas::codec::{pack, unpack};
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::{Attempt, ExecutorId, JobId, Sequence, Term, Zone};
use outlive_schemas::job::Labels;
use outlive_schemas::limits::MESSAGE_ITEMS_MAX;
use outlive_schemas::message::{
    AttemptDigest, Ended, Health, Heartbeat, News, Order, Outcome, Report, ReportBatch, ReportReply, ToExecutor,
};
use outlive_schemas::subject;
use outlive_store::registry::Membership;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// As executors beat.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Registrations under way at once.
const JOINING_MAX: usize = 16;
/// For a report to be committed.
const REPORT_BOUND: Duration = Duration::from_secs(30);

/// A big host, so that many jobs fit few of them.
pub const CAPACITY: Capacity = Capacity { cpu_millis: 64_000, memory_bytes: 256 << 30, slots: 4_096 };

struct Host {
    registration: Registration,
    held: BTreeMap<JobId, Attempt>,
    digest: AttemptDigest,
}

/// What the hosts have been told so far.
#[derive(Default)]
struct Told {
    hosts: BTreeMap<ExecutorId, Host>,
    seq: Sequence,
    jobs: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

pub struct Hosts {
    stores: Stores,
    told: Arc<Mutex<Told>>,
    memberships: Vec<Arc<dyn Membership>>,
    tasks: JoinSet<()>,
}

impl Hosts {
    /// Registers `count` hosts with so many slots each, spread over these zones, that all have the label.
    pub async fn join(
        stores: &Stores,
        zones: &[Zone],
        count: usize,
        slots: u32,
        labels: &Labels,
    ) -> anyhow::Result<Hosts> {
        let registrations: Vec<Registration> = zones
            .iter()
            .cycle()
            .take(count)
            .enumerate()
            .map(|(number, zone)| {
                let name = format!("bench-{}-{number}", std::process::id());
                anyhow::Ok(Registration {
                    id: ExecutorId(uuid::Uuid::now_v7()),
                    name: name.parse()?,
                    zone: zone.clone(),
                    host: name,
                    capacity: Capacity { slots, ..CAPACITY },
                    labels: labels.clone(),
                    drivers: vec![DriverKind::Process],
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let told = Arc::new(Mutex::new(Told::default()));
        let mut orders = stream::SelectAll::new();
        for registration in &registrations {
            let id = registration.id;
            let subscription = stores.nats.client.subscribe(subject::executor_orders(id)).await?;
            orders.push(subscription.map(move |message| (id, message)).boxed());
            let host = Host { registration: registration.clone(), held: BTreeMap::new(), digest: Default::default() };
            lock(&told).hosts.insert(id, host);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(take_orders(orders, told.clone()));
        tasks.spawn(beat(stores.clone(), told.clone()));
        let joining = registrations.iter().map(|registration| stores.registry.register(registration));
        let memberships = stream::iter(joining).buffer_unordered(JOINING_MAX).try_collect().await?;
        Ok(Hosts { stores: stores.clone(), told, memberships, tasks })
    }

    /// Jobs that were placed on them so far.
    pub fn placed(&self) -> u64 {
        lock(&self.told).jobs
    }

    /// From the first order to the last.
    pub fn span(&self) -> Duration {
        let told = lock(&self.told);
        told.first.zip(told.last).map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }

    /// Says that everything has ended well, and leaves.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        let (batches, seq_seen) = {
            let told = lock(&self.told);
            let held = told.hosts.iter().map(|(id, host)| (*id, host.held.clone().into_iter().collect::<Vec<_>>()));
            (held.collect::<Vec<_>>(), told.seq)
        };
        for (executor, held) in batches {
            for part in held.chunks(MESSAGE_ITEMS_MAX) {
                let reports = part.iter().map(|(job, attempt)| ended(*job, *attempt)).collect();
                let batch = ReportBatch { executor, seq_seen, term_seen: Term(0), seq_before: Sequence(0), reports };
                let request = async_nats::Request::new().payload(pack(&batch).into()).timeout(Some(REPORT_BOUND));
                let reply = self.stores.nats.client.send_request(subject::REPORT, request).await;
                let reply = reply.context("a report was not answered")?;
                unpack::<ReportReply>("the answer to a report", &reply.payload)?;
            }
        }
        for membership in &self.memberships {
            membership.leave().await;
        }
        self.tasks.shutdown().await;
        Ok(())
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended(job: JobId, attempt: Attempt) -> Report {
    let over = Ended { outcome: Outcome::Exited { code: 0 }, ran_ms: Some(0), result: None };
    Report { job, attempt, age_ms: 0, news: News::Ended(over) }
}

async fn take_orders(
    mut orders: impl futures::Stream<Item = (ExecutorId, async_nats::Message)> + Unpin,
    told: Arc<Mutex<Told>>,
) {
    while let Some((id, message)) = orders.next().await {
        let Ok(order) = unpack::<ToExecutor>("an order", &message.payload) else { continue };
        let mut told = lock(&told);
        told.seq = told.seq.max(order.seq);
        let Order::Assign(assignments) = order.order else { continue };
        let now = Instant::now();
        told.first.get_or_insert(now);
        told.last = Some(now);
        let Told { hosts, jobs, .. } = &mut *told;
        let Some(host) = hosts.get_mut(&id) else { continue };
        for assignment in assignments {
            if host.held.insert(assignment.job, assignment.attempt).is_none() {
                host.digest.add(assignment.job, assignment.attempt);
                *jobs += 1;
            }
        }
    }
}

async fn beat(stores: Stores, told: Arc<Mutex<Told>>) {
    let mut due = tokio::time::interval(BEAT_EVERY);
    loop {
        due.tick().await;
        let beats: Vec<Vec<u8>> = {
            let told = lock(&told);
            told.hosts.values().map(|host| pack(&heartbeat(host, told.seq))).collect()
        };
        for body in beats {
            // Others follow.
            stores.nats.client.publish(subject::HEARTBEAT, body.into()).await.ok();
        }
    }
}

fn heartbeat(host: &Host, seq_seen: Sequence) -> Heartbeat {
    Heartbeat {
        executor: host.registration.id,
        name: host.registration.name.clone(),
        seq_seen,
        // Of this bench's own: it has heard no leader before.
        term_seen: Term(0),
        seq_before: Sequence(0),
        digest: host.digest,
        held: host.held.len() as u32,
        health: Health { memory_available_bytes: CAPACITY.memory_bytes, ..Health::default() },
        leaving: false,
        degraded: None,
    }
}
