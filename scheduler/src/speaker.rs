//! Outputs → messages. Writes what the machine says, in its order, so that the machine need not wait for sockets.

use crate::leader::{Answer, Input, Lookup, Output, ReplyTo};
use crate::lookup;
use crate::service::OpenRequests;
use crate::stores::Stores;
use bytes::Bytes;
use outlive_schemas::codec::{Format, pack};
use outlive_schemas::error::{ErrorReply, Rejection};
use outlive_schemas::id::{JobId, Namespace};
use outlive_schemas::subject;
use outlive_store::blob::Owner;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Lookups under way at once; each may hold some megabytes.
const LOOKUPS_MAX: usize = 32;
/// Batches of outputs that may wait to be written.
pub const QUEUE_MAX: usize = 1_024;

#[derive(Clone)]
pub struct Speaker {
    pub stores: Stores,
    pub cluster: String,
    pub open: Arc<OpenRequests>,
    /// Where the machine hears of what came of an erasure.
    own: mpsc::Sender<Input>,
    lookups: Arc<Semaphore>,
}

impl Speaker {
    pub fn new(stores: Stores, cluster: String, open: Arc<OpenRequests>, own: mpsc::Sender<Input>) -> Speaker {
        Speaker { stores, cluster, open, own, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// Runs until the machine's side is closed and everything is written.
    pub async fn run(self, mut outputs: mpsc::Receiver<Vec<Output>>) {
        while let Some(batch) = outputs.recv().await {
            for output in batch {
                self.say(output).await;
            }
        }
    }

    async fn say(&self, output: Output) {
        match output {
            Output::Answer { to, answer } => {
                let (body, rejection) = written(answer, to.format);
                self.open.answer(&self.stores.nats.client, to, body, rejection.as_ref()).await;
            }
            Output::ReportReply { to, reply } => {
                self.open.answer(&self.stores.nats.client, to, pack(&reply).into(), None).await
            }
            Output::Order { executor, order } => self.publish(subject::executor_orders(executor), pack(&order)).await,
            Output::Feed { namespace, event } => {
                let subject = subject::event(&namespace, event.job, event.kind);
                self.publish(subject, Format::Json.encode(&event)).await;
            }
            Output::Beat(beat) => self.publish(subject::LEADER_BEAT.to_owned(), pack(&beat)).await,
            Output::Lookup { to, lookup } => self.look_up(to, lookup),
            Output::Erase { to, namespace, job } => self.erase(to, namespace, job),
            // The shell's own.
            Output::Append(_)
            | Output::Probe(_)
            | Output::ProbeZone(_)
            | Output::ReadRegistry
            | Output::Witness(_)
            | Output::Committed(_)
            | Output::Span(_)
            | Output::Resign(_) => {}
        }
    }

    async fn publish(&self, subject: String, body: Vec<u8>) {
        // Fails only on a closed client; what is lost on the way is repeated by those who need it.
        self.stores.nats.client.publish(subject, body.into()).await.ok();
    }

    fn look_up(&self, to: ReplyTo, lookup: Lookup) {
        let speaker = self.clone();
        tokio::spawn(async move {
            let _permit = speaker.lookups.acquire().await;
            let found = lookup::answer(&speaker.stores, &speaker.cluster, lookup, to.format).await;
            let (body, rejection) = match found {
                Ok(body) => (body.into(), None),
                Err(rejection) => refused(rejection, to.format),
            };
            speaker.open.answer(&speaker.stores.nats.client, to, body, rejection.as_ref()).await;
        });
    }

    /// Erases what a deleted job has left: the key first, which makes the rest unreadable wherever copies may lie.
    fn erase(&self, to: Option<ReplyTo>, namespace: Namespace, job: JobId) {
        let speaker = self.clone();
        tokio::spawn(async move {
            let erased = erased(&speaker.stores, &namespace, job).await;
            if let Err(reason) = &erased {
                tracing::warn!(%job, reason, "a deleted job's remains could not be erased yet; trying again later");
            }
            // The machine has ended if nobody listens; the next one begins with what is left.
            speaker.own.send(Input::Erased { job, gone: erased.is_ok() }).await.ok();
            let Some(to) = to else { return };
            let (body, rejection) = match erased {
                Ok(()) => written(Answer::Deleted, to.format),
                Err(reason) => {
                    let why = format_args!("the job is deleted, but its remains could not be erased yet: {reason}");
                    refused(Rejection::unavailable(why), to.format)
                }
            };
            speaker.open.answer(&speaker.stores.nats.client, to, body, rejection.as_ref()).await;
        });
    }
}

async fn erased(stores: &Stores, namespace: &Namespace, job: JobId) -> Result<(), String> {
    stores.keys.forget_job(job).await.map_err(|e| e.to_string())?;
    stores.blobs.delete_all(Owner::Job(job)).await.map_err(|e| e.to_string())?;
    stores.job_logs.delete(namespace, job).await.map_err(|e| e.to_string())
}

#[derive(Serialize)]
struct Empty {}

fn written(answer: Answer, format: Format) -> (Bytes, Option<Rejection>) {
    let body = match &answer {
        Answer::Rejected(rejection) => return refused(rejection.clone(), format),
        Answer::Submitted(reply) => format.encode(reply),
        Answer::SubmittedMany(reply) => format.encode(reply),
        Answer::Job(view) => format.encode(view),
        Answer::Jobs(list) => format.encode(list),
        Answer::Why(why) => format.encode(why),
        Answer::Executors(list) => format.encode(list),
        Answer::Executor(view) => format.encode(view),
        Answer::Zone(view) => format.encode(view),
        Answer::Versions(list) => format.encode(list),
        Answer::Snapshot(view) => format.encode(view),
        Answer::Snapshots(list) => format.encode(list),
        Answer::SnapshotPlace(place) => format.encode(place),
        Answer::Queue(view) => format.encode(view),
        Answer::Queues(list) => format.encode(list),
        Answer::Deleted => format.encode(&Empty {}),
        Answer::Schedule(view) => format.encode(view),
        Answer::Schedules(list) => format.encode(list),
        Answer::DeletedMany(reply) => format.encode(reply),
        Answer::Retried(reply) => format.encode(reply),
        Answer::Held(held) => format.encode(held),
    };
    (body.into(), None)
}

fn refused(rejection: Rejection, format: Format) -> (Bytes, Option<Rejection>) {
    (format.encode(&ErrorReply { error: rejection.clone() }).into(), Some(rejection))
}
