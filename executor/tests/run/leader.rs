//! A leader of our own: beats, gives orders, answers reports, and remembers what it heard. It has no log and no plan.

use futures::StreamExt;
use outlive_schemas::codec::{pack, unpack};
use outlive_schemas::id::{Attempt, ExecutorId, JobId, SchedulerName, Sequence, Term, Zone};
use outlive_schemas::message::{Heartbeat, LeaderBeat, News, Order, Report, ReportBatch, ReportReply, ToExecutor};
use outlive_schemas::subject;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::JoinHandle;

#[derive(Default)]
struct Heard {
    /// Everything ever reported, repetitions included.
    reports: Vec<(ExecutorId, Report)>,
    largest_batch: usize,
    beats: BTreeMap<ExecutorId, Heartbeat>,
    superseded: BTreeSet<(JobId, Attempt)>,
    silent: bool,
    answer_term: Option<Term>,
}

pub struct Leader {
    client: async_nats::Client,
    term: Term,
    seq: Mutex<Sequence>,
    heard: Arc<Mutex<Heard>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Leader {
    pub async fn start(client: async_nats::Client, term: u64) -> Leader {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let term = Term(term);
        let mut reports = client.subscribe(subject::REPORT).await.expect("subscribed");
        let mut beats = client.subscribe(subject::HEARTBEAT).await.expect("subscribed");
        client.flush().await.expect("flushed");
        let (answering, listening) = (Arc::clone(&heard), Arc::clone(&heard));
        let (replying, beating) = (client.clone(), client.clone());
        let answers = tokio::spawn(async move {
            while let Some(message) = reports.next().await {
                let batch: ReportBatch = unpack("a report", &message.payload).expect("a batch");
                let reply = answer(&mut lock(&answering), batch, term);
                if let Some((reply, to)) = reply.zip(message.reply) {
                    replying.publish(to, pack(&reply).into()).await.expect("answered");
                }
            }
        });
        let heartbeats = tokio::spawn(async move {
            while let Some(message) = beats.next().await {
                let beat: Heartbeat = unpack("a heartbeat", &message.payload).expect("a heartbeat");
                lock(&listening).beats.insert(beat.executor, beat);
            }
        });
        let own = tokio::spawn(async move {
            let beat = LeaderBeat {
                term,
                scheduler: SchedulerName::new("test").expect("a name"),
                zone: Zone::new("a").expect("a zone"),
                seq: Sequence(1),
            };
            loop {
                beating.publish(subject::LEADER_BEAT, pack(&beat).into()).await.expect("sent");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Leader { client, term, seq: Mutex::new(Sequence(1)), heard, tasks: vec![answers, heartbeats, own] }
    }

    /// Gives an order, after one more commit.
    pub async fn order(&self, executor: ExecutorId, order: Order) {
        let seq = {
            let mut seq = self.seq.lock().expect("not poisoned");
            *seq = seq.next();
            *seq
        };
        self.order_as(executor, self.term, seq, order).await;
    }

    pub async fn order_as(&self, executor: ExecutorId, term: Term, seq: Sequence, order: Order) {
        let body = pack(&ToExecutor { term, seq, order });
        self.client.publish(subject::executor_orders(executor), body.into()).await.expect("sent");
    }

    pub fn seq(&self) -> Sequence {
        *self.seq.lock().expect("not poisoned")
    }

    /// Whether reports get no answer.
    pub fn set_silent(&self, silent: bool) {
        lock(&self.heard).silent = silent;
    }

    /// Answers as a leader of another term would.
    pub fn answer_as(&self, term: Option<Term>) {
        lock(&self.heard).answer_term = term;
    }

    /// From now on reports of this attempt are none of the reporter's business.
    pub fn supersede(&self, job: JobId, attempt: Attempt) {
        lock(&self.heard).superseded.insert((job, attempt));
    }

    pub fn beat_of(&self, executor: ExecutorId) -> Option<Heartbeat> {
        lock(&self.heard).beats.get(&executor).cloned()
    }

    pub fn largest_batch(&self) -> usize {
        lock(&self.heard).largest_batch
    }

    /// What was reported of an attempt, in order, repetitions included.
    pub fn news(&self, job: JobId, attempt: Attempt) -> Vec<News> {
        let heard = lock(&self.heard);
        let of_it = heard.reports.iter().filter(|(_, report)| (report.job, report.attempt) == (job, attempt));
        of_it.map(|(_, report)| report.news.clone()).collect()
    }

    pub fn reports(&self) -> usize {
        lock(&self.heard).reports.len()
    }
}

fn answer(heard: &mut Heard, batch: ReportBatch, term: Term) -> Option<ReportReply> {
    heard.largest_batch = heard.largest_batch.max(batch.reports.len());
    let of: BTreeSet<_> = batch.reports.iter().map(|report| (report.job, report.attempt)).collect();
    heard.reports.extend(batch.reports.into_iter().map(|report| (batch.executor, report)));
    let superseded = heard.superseded.intersection(&of).copied().collect();
    let reply =
        ReportReply { term: heard.answer_term.unwrap_or(term), seq: Sequence(1), superseded, retained: Vec::new() };
    (!heard.silent).then_some(reply)
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().expect("not poisoned")
}
