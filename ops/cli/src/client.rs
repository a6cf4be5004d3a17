//! Asking the scheduler: requests over NATS as any other client would send them (contract, section 1).
//!
//! A request is sent again, with the same `Nats-Msg-Id`, for as long as nobody answers or nobody who answers can act;
//! the id makes that harmless. Deliberately not here: what a reply means.

use crate::args::Global;
use crate::connection;
use crate::failure::Failure;
use crate::progress::Progress;
use anyhow::Context;
use async_nats::client::RequestErrorKind;
use async_nats::{HeaderMap, HeaderValue, Message, Request, Subscriber};
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use outlive_schemas::error::{ErrorCode, ErrorReply, Rejection};
use outlive_schemas::id::Namespace;
use outlive_schemas::limits;
use outlive_schemas::request::{EmptyRequest, Until, WaitRequest};
use outlive_schemas::subject;
use outlive_schemas::time::Millis;
use outlive_schemas::view::JobView;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long one answer may take before the request is sent again. A leader that is well answers within milliseconds;
/// one whose stream has lost its leader, within about ten seconds, and then the repetition finds it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_SLOWEST: Duration = Duration::from_secs(1);
/// How long one `job.wait` is held open. A wait that is lost with its leader is noticed after this.
const WAIT_SLICE: Millis = Millis::secs(10);

/// A connection, and in whose name and for how long requests are made.
#[derive(Debug)]
pub struct Client {
    nats: async_nats::Client,
    /// For messages: where the client connects to.
    servers: String,
    namespace: Namespace,
    actor: HeaderValue,
    patience: Duration,
}

/// What was answered, and the bytes it came as.
#[derive(Debug)]
pub struct Reply<T> {
    pub raw: Bytes,
    pub body: T,
}

/// Why one sending of a request brought no reply to it.
enum Fault {
    /// It is safe, and may help, to send it again.
    Again(String),
    Final(Failure),
}

impl Client {
    pub async fn connect(global: &Global) -> anyhow::Result<Client> {
        let patience = Duration::from(global.request_timeout);
        let (nats, servers) = connection::open(global, patience).await?;
        Ok(Client { nats, servers, namespace: global.namespace.clone(), actor: actor(), patience })
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Asks something that changes nothing, such as `job.get`.
    pub async fn ask<T: DeserializeOwned>(&self, operation: &str, body: &impl Serialize) -> anyhow::Result<Reply<T>> {
        let subject = subject::operation(&self.namespace, operation);
        self.send(subject, body, None, Duration::ZERO).await
    }

    /// Asks for a change. `request_id` makes asking twice harmless.
    pub async fn change<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &impl Serialize,
        request_id: &str,
    ) -> anyhow::Result<Reply<T>> {
        let subject = subject::operation(&self.namespace, operation);
        self.send(subject, body, Some(request_id), Duration::ZERO).await
    }

    /// Asks an operators' question, such as `status`.
    pub async fn ask_system<T: DeserializeOwned>(&self, operation: &str) -> anyhow::Result<Reply<T>> {
        self.send(subject::system_operation(operation), &EmptyRequest {}, None, Duration::ZERO).await
    }

    /// Asks something of operators' that has a body.
    pub async fn ask_system_with<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<Reply<T>> {
        self.send(subject::system_operation(operation), body, None, Duration::ZERO).await
    }

    /// Waits for one slice of time at most; nothing where the job is not there yet.
    pub async fn wait_a_while(
        &self,
        job: &outlive_schemas::id::JobRef,
        until: Until,
        at_most: Option<Millis>,
    ) -> anyhow::Result<Option<Reply<JobView>>> {
        let timeout = at_most.map_or(WAIT_SLICE, |most| most.min(WAIT_SLICE));
        let body = WaitRequest { job: job.clone(), until, timeout: Some(timeout) };
        let subject = subject::operation(&self.namespace, "job.wait");
        match self.send(subject, &body, None, timeout.into()).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) => match error.downcast_ref() {
                Some(Failure::Refused(rejection)) if rejection.code == ErrorCode::Timeout => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Messages from now on. What is sent after this returns is not missed.
    pub async fn subscribe(&self, subject: String) -> anyhow::Result<Subscriber> {
        let failed = || format!("cannot subscribe to {subject} at {}", self.servers);
        let subscriber = self.nats.subscribe(subject.clone()).await.with_context(failed)?;
        self.nats.flush().await.with_context(failed)?;
        Ok(subscriber)
    }

    /// Sends until there is an answer. `held` is how long the scheduler may hold the answer back on purpose.
    async fn send<T: DeserializeOwned>(
        &self,
        subject: String,
        body: &impl Serialize,
        request_id: Option<&str>,
        held: Duration,
    ) -> anyhow::Result<Reply<T>> {
        let body = Bytes::from(serde_json::to_vec(body).context("the request cannot be written as JSON")?);
        if body.len() > limits::REQUEST_BYTES_MAX {
            return Err(too_large(&subject, body.len()).into());
        }
        let headers = self.headers(request_id)?;
        let deadline = Instant::now() + self.patience;
        let progress = std::cell::OnceCell::new();
        let once = || async {
            // The last try gets no longer than is left, or a dead scheduler would be waited for beyond the time given.
            let left = deadline.saturating_duration_since(Instant::now()).max(RETRY_FIRST);
            let request = Request::new()
                .payload(body.clone())
                .headers(headers.clone())
                .timeout(Some(left.min(ANSWER_WITHIN) + held));
            let answer = self.nats.send_request(subject.clone(), request).await;
            match answer {
                Ok(message) => judge(message),
                Err(error) => Err(match error.kind() {
                    RequestErrorKind::NoResponders => Fault::Again("no scheduler listens".to_owned()),
                    RequestErrorKind::TimedOut => Fault::Again("no answer came in time".to_owned()),
                    RequestErrorKind::MaxPayloadExceeded => Fault::Final(too_large(&subject, body.len())),
                    RequestErrorKind::InvalidSubject | RequestErrorKind::Other => Fault::Again(error.to_string()),
                }),
            }
        };
        let answer = once
            .retry(pauses())
            .when(|fault| matches!(fault, Fault::Again(_)) && Instant::now() < deadline)
            .notify(|fault, _| {
                if let Fault::Again(why) = fault {
                    progress.get_or_init(|| Progress::start("")).say(format!("{why}; trying again"));
                }
            })
            .await;
        drop(progress);
        let raw = answer.map_err(|fault| match fault {
            Fault::Final(failure) => failure,
            Fault::Again(why) => self.unavailable(&subject, &why),
        })?;
        let body = serde_json::from_slice(&raw)
            .with_context(|| format!("the reply to {subject} is not what this version of outlive expects"))?;
        Ok(Reply { raw, body })
    }

    fn headers(&self, request_id: Option<&str>) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(subject::HEADER_ACTOR, self.actor.clone());
        if let Some(id) = request_id {
            let value = HeaderValue::from_str(id).ok().filter(|_| id.len() <= limits::REQUEST_ID_BYTES_MAX);
            let refused = || {
                let most = limits::REQUEST_ID_BYTES_MAX;
                let shown = id.escape_default();
                Failure::usage(format!("`{shown}` is not a request id: give one line of at most {most} bytes"))
            };
            headers.insert(subject::HEADER_REQUEST_ID, value.ok_or_else(refused)?);
        }
        Ok(headers)
    }

    fn unavailable(&self, subject: &str, why: &str) -> Failure {
        Failure::Unavailable(format!(
            "{subject} got no answer from {} within {}: {why}. Check that a scheduler runs there (`outlive scheduler`, \
             or `outlive dev` for a trial) and that --server, --context or nats.servers names the right servers",
            self.servers,
            Millis(u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX)),
        ))
    }
}

/// A new id for a request.
pub fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}

/// The pauses between two sendings, without an end: the deadline ends them.
pub fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(RETRY_FIRST)
        .with_max_delay(RETRY_SLOWEST)
        .with_jitter()
        .without_max_times()
}

/// Tells a reply from a refusal.
fn judge(message: Message) -> Result<Bytes, Fault> {
    let headers = message.headers.as_ref();
    let Some(number) = headers.and_then(|h| h.get(subject::HEADER_ERROR_CODE)) else { return Ok(message.payload) };
    let rejection = match serde_json::from_slice::<ErrorReply>(&message.payload) {
        Ok(reply) => reply.error,
        // Not one of ours: the micro-service framework itself, or something between.
        Err(_) => {
            let said = headers.and_then(|h| h.get(subject::HEADER_ERROR)).map_or("no reason given", |v| v.as_str());
            Rejection::new(code_of(number.as_str()), format!("{} answered {number}: {said}", message.subject))
        }
    };
    Err(match rejection.code {
        ErrorCode::Unavailable => Fault::Again(rejection.message),
        _ => Fault::Final(Failure::Refused(rejection)),
    })
}

fn code_of(number: &str) -> ErrorCode {
    match u16::from_str(number) {
        Ok(400) => ErrorCode::InvalidRequest,
        Ok(401 | 403) => ErrorCode::Unauthorized,
        Ok(404) => ErrorCode::NotFound,
        Ok(408) => ErrorCode::Timeout,
        Ok(409) => ErrorCode::InUse,
        Ok(429) => ErrorCode::LimitExceeded,
        Ok(503) => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    }
}

fn too_large(subject: &str, bytes: usize) -> Failure {
    let most = limits::REQUEST_BYTES_MAX;
    Failure::Refused(Rejection::new(
        ErrorCode::LimitExceeded,
        format!("the request to {subject} has {bytes} bytes; the limit is {most}, and NATS' own max_payload"),
    ))
}

/// Who is asking, for the log: `user@host`.
/// Who asks: a user at a host.
pub fn actor() -> HeaderValue {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let user = user.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    let system = rustix::system::uname();
    let mut text = format!("{user}@{}", system.nodename().to_string_lossy());
    text.retain(|c| c.is_ascii_graphic());
    text.truncate(limits::ACTOR_BYTES_MAX);
    HeaderValue::from_str(&text).expect("visible ASCII is a header's value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::StatusCode;

    fn message(code: Option<&str>, payload: &'static str) -> Message {
        let headers = code.map(|code| {
            let mut headers = HeaderMap::new();
            headers.insert(subject::HEADER_ERROR_CODE, code);
            headers.insert(subject::HEADER_ERROR, "said so");
            headers
        });
        Message {
            subject: "outlive.v1.default.job.get".into(),
            reply: None,
            payload: Bytes::from_static(payload.as_bytes()),
            headers,
            status: None::<StatusCode>,
            description: None,
            length: payload.len(),
        }
    }

    #[test]
    fn a_reply_without_an_error_header_is_a_reply() {
        assert!(matches!(judge(message(None, "{}")), Ok(body) if body == "{}"));
    }

    #[test]
    fn refusals_are_final_but_unavailable_is_tried_again() {
        let refused = judge(message(Some("404"), r#"{"error":{"code":"not_found","message":"there is no job x"}}"#));
        assert!(matches!(refused, Err(Fault::Final(Failure::Refused(r))) if r.message == "there is no job x"));
        let unavailable = judge(message(Some("503"), r#"{"error":{"code":"unavailable","message":"no leader yet"}}"#));
        assert!(matches!(unavailable, Err(Fault::Again(why)) if why == "no leader yet"));
    }

    #[test]
    fn an_error_that_is_not_ours_is_told_by_its_number() {
        let refused = judge(message(Some("403"), "go away"));
        assert!(matches!(refused, Err(Fault::Final(failure @ Failure::Refused(_))) if failure.exit_code() == 5));
        let unavailable = judge(message(Some("503"), ""));
        assert!(matches!(unavailable, Err(Fault::Again(_))));
    }

    #[test]
    fn the_actor_is_a_user_at_a_host() {
        assert!(actor().as_str().contains('@'));
    }
}
