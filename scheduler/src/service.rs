//! The micro-service on NATS: bytes in, inputs to the machine; and the table of requests that wait for an answer.
//!
//! Only the scheduler that leads registers it. A request sent while nobody leads gets NATS' own "no responders",
//! which is as safe to repeat as an `unavailable`.

use crate::leader::{Input, ReplyTo};
use crate::metrics;
use crate::submission::{self, Operation, Raw, Request};
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{self, Service, ServiceExt as _};
use async_nats::{Client, HeaderMap, HeaderValue, Message};
use bytes::Bytes;
use futures::StreamExt as _;
use outlive_schemas::codec::{self, Format};
use outlive_schemas::error::{ErrorReply, Rejection};
use outlive_schemas::message::{Heartbeat, LeaderBeat, ReportBatch};
use outlive_schemas::trace::TraceContext;
use outlive_schemas::{limits, subject};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A request that waits for its answer.
enum Open {
    Request(Box<service::Request>),
    /// From an executor: only where to send the reply.
    Message(async_nats::Subject),
}

/// Requests that wait. Whatever is left in it when the term ends is answered `unavailable`.
#[derive(Default)]
pub struct OpenRequests {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Open>>,
}

impl OpenRequests {
    fn add(&self, request: Open, format: Format) -> ReplyTo {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.table().insert(number, request);
        ReplyTo { number, format }
    }

    fn take(&self, to: ReplyTo) -> Option<Open> {
        self.table().remove(&to.number)
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an answer; one that nobody waits for any more is let go.
    pub async fn answer(&self, client: &Client, to: ReplyTo, body: Bytes, rejection: Option<&Rejection>) {
        let Some(open) = self.take(to) else { return };
        let mut headers = HeaderMap::new();
        if to.format == Format::MessagePack {
            headers.insert(subject::HEADER_CONTENT_TYPE, codec::MESSAGE_PACK);
        }
        if let Some(rejection) = rejection {
            metrics::refused(rejection.code);
            headers.insert(subject::HEADER_ERROR_CODE, rejection.code.status().to_string().as_str());
            headers.insert(subject::HEADER_ERROR, error_header(rejection));
        }
        let sent = match open {
            Open::Request(request) => request.respond_with_headers(Ok(body), headers).await.map_err(|e| e.to_string()),
            Open::Message(reply) => client.publish(reply, body).await.map_err(|e| e.to_string()),
        };
        if let Err(reason) = sent {
            tracing::debug!(reason, "an answer could not be sent");
        }
    }

    /// Answers everything that still waits.
    pub async fn refuse_all(&self, client: &Client, why: &str) {
        let waiting: Vec<u64> = self.table().keys().copied().collect();
        let rejection = Rejection::unavailable(why);
        for number in waiting {
            let to = ReplyTo { number, format: Format::Json };
            let body = Format::Json.encode(&ErrorReply { error: rejection.clone() });
            self.answer(client, to, body.into(), Some(&rejection)).await;
        }
    }
}

/// A rejection as a header: its code and message without what a header cannot hold.
fn error_header(rejection: &Rejection) -> HeaderValue {
    let text = format!("{}: {}", rejection.code.as_str(), rejection.message);
    let plain: String = text.chars().map(|c| if c.is_control() || !c.is_ascii() { '?' } else { c }).take(512).collect();
    plain.parse().unwrap_or_else(|_| HeaderValue::from(rejection.code.as_str()))
}

/// Everything that listens for a leader. Stops when it is dropped.
pub struct Listening {
    service: Option<Service>,
    tasks: JoinSet<()>,
}

impl Listening {
    /// Stops taking requests in.
    pub async fn stop(mut self) {
        if let Some(service) = self.service.take() {
            // Only fails where the connection is gone, and then nothing arrives either.
            service.stop().await.ok();
        }
        self.tasks.shutdown().await;
    }
}

/// Where inputs go. What the machine waits for must get through even when it takes no more requests in.
#[derive(Clone)]
pub struct Inbox {
    /// Requests and reports.
    pub requests: mpsc::Sender<Input>,
    /// Everything else.
    pub own: mpsc::Sender<Input>,
}

#[derive(Debug, thiserror::Error)]
#[error("the service cannot be registered with NATS: {0}")]
pub struct ListenError(String);

/// Registers the service and subscribes to what executors say.
pub async fn listen(client: &Client, open: &Arc<OpenRequests>, inbox: &Inbox) -> Result<Listening, ListenError> {
    let failed = |error: &dyn std::fmt::Display| ListenError(error.to_string());
    let service = client
        .service_builder()
        .description("Jobs that outlive the machines they run on")
        .start(subject::SERVICE, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|e| failed(&e))?;
    let mut tasks = JoinSet::new();
    for operation in Operation::ALL {
        let namespace = if operation.is_system() { "sys" } else { "*" };
        let endpoint = service
            .endpoint_builder()
            .name(operation.suffix().replace(['.', '_'], "-"))
            .add(format!("{}.{namespace}.{}", subject::API, operation.suffix()))
            .await
            .map_err(|e| failed(&e))?;
        tasks.spawn(requests(operation, endpoint, client.clone(), open.clone(), inbox.requests.clone()));
    }
    let reports = client.subscribe(subject::REPORT).await.map_err(|e| failed(&e))?;
    tasks.spawn(self::reports(reports, open.clone(), inbox.requests.clone()));
    let beats = client.subscribe(subject::HEARTBEAT).await.map_err(|e| failed(&e))?;
    tasks.spawn(heartbeats(beats, inbox.own.clone()));
    client.flush().await.map_err(|e| failed(&e))?;
    Ok(Listening { service: Some(service), tasks })
}

async fn requests(
    operation: Operation,
    mut endpoint: Endpoint,
    client: Client,
    open: Arc<OpenRequests>,
    inbox: mpsc::Sender<Input>,
) {
    while let Some(request) = endpoint.next().await {
        let message = &request.message;
        let headers = message.headers.as_ref();
        let header = |name: &str| headers.and_then(|h| h.get(name)).map(HeaderValue::as_str);
        let content_type = header(subject::HEADER_CONTENT_TYPE).or_else(|| header("Content-Type"));
        let format = Format::of(content_type);
        let raw = Raw {
            operation,
            namespace: message.subject.split('.').nth(2).unwrap_or_default(),
            request_id: header(subject::HEADER_REQUEST_ID),
            actor: header(subject::HEADER_ACTOR),
            body: &message.payload,
        };
        let trace = header(subject::HEADER_TRACE).and_then(TraceContext::parse);
        let parsed = format.clone().and_then(|format| submission::parse(raw, format));
        let to = open.add(Open::Request(Box::new(request)), format.unwrap_or_default());
        let rejection = match parsed {
            Ok(request) => match inbox.try_send(Input::Request { request: Request { trace, ..request }, to }) {
                Ok(()) => continue,
                Err(mpsc::error::TrySendError::Full(_)) => Rejection::unavailable(format_args!(
                    "{} requests wait already, which is the limit",
                    limits::LEADER_QUEUE_MAX
                )),
                Err(mpsc::error::TrySendError::Closed(_)) => Rejection::unavailable("the scheduler no longer leads"),
            },
            Err(rejection) => rejection,
        };
        let body = to.format.encode(&ErrorReply { error: rejection.clone() });
        open.answer(&client, to, body.into(), Some(&rejection)).await;
    }
}

async fn reports(mut messages: async_nats::Subscriber, open: Arc<OpenRequests>, inbox: mpsc::Sender<Input>) {
    while let Some(Message { payload, reply, .. }) = messages.next().await {
        let Some(reply) = reply else { continue };
        match codec::unpack::<ReportBatch>("a batch of reports", &payload) {
            Ok(batch) => {
                let to = open.add(Open::Message(reply), Format::MessagePack);
                // Executors repeat what is not answered, so waiting for room here loses nothing.
                if inbox.send(Input::Reports { batch, to }).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(error = %crate::imager::chain_of(&error), "a batch of reports cannot be read"),
        }
    }
}

async fn heartbeats(mut messages: async_nats::Subscriber, inbox: mpsc::Sender<Input>) {
    while let Some(message) = messages.next().await {
        match codec::unpack::<Heartbeat>("a heartbeat", &message.payload) {
            Ok(beat) => {
                if inbox.send(Input::Beat(beat)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(error = %crate::imager::chain_of(&error), "a heartbeat cannot be read"),
        }
    }
}

/// Leaders' beats as they arrive.
pub async fn leader_beats(
    client: &Client,
) -> Result<impl futures::Stream<Item = LeaderBeat> + Send + use<>, ListenError> {
    let beats = client.subscribe(subject::LEADER_BEAT).await.map_err(|e| ListenError(e.to_string()))?;
    Ok(beats.filter_map(|message| async move { codec::unpack("a leader's beat", &message.payload).ok() }))
}
