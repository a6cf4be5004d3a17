//! A client of the service, as the contract says it may be used: requests, replies, refusals.

use crate::wait::wait_until;
use crate::{EVENTUALLY, SOON};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A request that reached a leader which died is never answered; it is sent again after this.
const REQUEST_BOUND: Duration = Duration::from_secs(5);

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: String,
    pub message: String,
}

#[derive(Clone, Debug)]
pub struct Client {
    nats: async_nats::Client,
    namespace: String,
}

/// Why there was no definite answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered(pub String);

impl Client {
    pub async fn connect(servers: &[String]) -> Client {
        let nats = async_nats::ConnectOptions::new()
            .ping_interval(Duration::from_secs(2))
            .request_timeout(Some(REQUEST_BOUND))
            .connect(servers)
            .await
            .expect("NATS is there: dev said so");
        Client { nats, namespace: "default".to_owned() }
    }

    pub fn in_namespace(&self, namespace: &str) -> Client {
        Client { nats: self.nats.clone(), namespace: namespace.to_owned() }
    }

    pub fn nats(&self) -> &async_nats::Client {
        &self.nats
    }

    /// One request, once. `job.get` is the namespace's; `sys.status` is the operators'.
    pub async fn try_request(
        &self,
        operation: &str,
        body: &Value,
        message_id: Option<&str>,
    ) -> Result<Result<Value, Refused>, Unanswered> {
        let subject = match operation.strip_prefix("sys.") {
            Some(system) => format!("outlive.v1.sys.{system}"),
            None => format!("outlive.v1.{}.{operation}", self.namespace),
        };
        let mut headers = async_nats::HeaderMap::new();
        if let Some(id) = message_id {
            headers.insert("Nats-Msg-Id", id);
        }
        let bytes = serde_json::to_vec(body).expect("a value is JSON");
        let reply = self
            .nats
            .request_with_headers(subject, headers, bytes.into())
            .await
            .map_err(|error| Unanswered(error.to_string()))?;
        let body: Value = serde_json::from_slice(&reply.payload)
            .unwrap_or_else(|e| panic!("{operation}: the reply is not JSON ({e}): {:?}", reply.payload));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match body.get("error") {
            Some(error) if error.get("code").is_some() => {
                Ok(Err(Refused { code: text(&error["code"]), message: text(&error["message"]) }))
            }
            _ => Ok(Ok(body)),
        }
    }

    /// Goes on asking while there is nobody to answer, under one id, as the contract allows. Gives the first definite
    /// answer.
    pub async fn insist(&self, operation: &str, body: &Value, message_id: &str) -> Result<Value, Refused> {
        let began = Instant::now();
        loop {
            let last = match self.try_request(operation, body, Some(message_id)).await {
                Ok(Err(refused)) if refused.code == "unavailable" => refused.message,
                Ok(answer) => return answer,
                Err(Unanswered(why)) => why,
            };
            assert!(began.elapsed() < EVENTUALLY, "{operation} was not answered: {last}");
            // Not a wait for anything: a client that is refused does not ask again without a pause.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One request; where nobody answers, again, under an id that makes this harmless.
    pub async fn request(&self, operation: &str, body: Value) -> Result<Value, Refused> {
        self.insist(operation, &body, &uuid::Uuid::now_v7().to_string()).await
    }

    /// A request that has to succeed.
    pub async fn ask(&self, operation: &str, body: Value) -> Value {
        let shown: String = body.to_string().chars().take(300).collect();
        self.request(operation, body)
            .await
            .unwrap_or_else(|refused| panic!("{operation} {shown} was refused: {refused:?}"))
    }

    /// A request that has to be refused.
    pub async fn refusal(&self, operation: &str, body: Value) -> Refused {
        let shown: String = body.to_string().chars().take(300).collect();
        self.request(operation, body).await.expect_err(&format!("{operation} {shown} was not refused"))
    }

    /// Submits a job, and gives its id.
    pub async fn submit(&self, spec: Value) -> String {
        let reply = self.ask("job.submit", spec).await;
        reply["id"].as_str().expect("a reply to a submission holds the id").to_owned()
    }

    pub async fn get(&self, job: &str) -> Value {
        self.ask("job.get", json!({"job": job})).await
    }

    pub async fn status_of(&self, job: &str) -> String {
        self.get(job).await["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the job's view fulfils the condition, and gives that view.
    pub async fn wait_for(&self, job: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_within(EVENTUALLY, job, what, condition).await
    }

    pub async fn wait_for_within(
        &self,
        bound: Duration,
        job: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let condition = &condition;
        let began = Instant::now();
        wait_until(&format!("job {job}: {what}"), bound * 2, || async move {
            let view = self.get(job).await;
            let holds = condition(&view);
            assert!(holds || began.elapsed() < bound, "job {job}: waited in vain for: {what}; it is {view:#}");
            holds.then_some(view)
        })
        .await
    }

    pub async fn wait_for_status(&self, job: &str, status: &str) -> Value {
        self.wait_for(job, status, |view| {
            let now = view["status"].as_str().unwrap_or_default();
            let over = ["succeeded", "failed", "cancelled"].contains(&now);
            assert!(now == status || !over, "job {job} should have become {status}, but is {view:#}");
            now == status
        })
        .await
    }

    /// Every event of the job's history, oldest first.
    pub async fn history(&self, job: &str) -> Vec<Value> {
        self.pages("job.history", json!({"job": job}), "events").await
    }

    /// Every job that the filter finds.
    pub async fn list(&self, filter: Value) -> Vec<Value> {
        self.pages("job.list", filter, "jobs").await
    }

    /// All pages of a request that has a cursor.
    pub async fn pages(&self, operation: &str, mut request: Value, items: &str) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let page = self.ask(operation, request.clone()).await;
            all.extend(page[items].as_array().unwrap_or_else(|| panic!("no `{items}` in {page}")).clone());
            if page["cursor"].is_null() || page["end"] == true {
                return all;
            }
            assert_ne!(page["cursor"], request["cursor"], "{operation} gives the same cursor again");
            request["cursor"] = page["cursor"].clone();
        }
    }

    /// How many subjects below this hold a message. A server that is busy erasing may take longer than the client waits.
    pub async fn subjects(&self, stream: &str, filter: &str) -> usize {
        let request = bytes::Bytes::from(json!({ "subjects_filter": filter }).to_string());
        let reply = wait_until("the stream is described", EVENTUALLY, || async {
            self.nats().request(format!("$JS.API.STREAM.INFO.{stream}"), request.clone()).await.ok()
        })
        .await;
        let info: Value = serde_json::from_slice(&reply.payload).expect("JSON");
        info["state"]["subjects"].as_object().map_or(0, serde_json::Map::len)
    }

    /// What the job has written so far.
    pub async fn logs(&self, job: &str) -> String {
        let entries = self.pages("job.logs", json!({"job": job, "limit": 500}), "entries").await;
        entries.iter().filter_map(|entry| entry["text"].as_str()).collect()
    }

    /// Waits until the job has written this.
    pub async fn wait_for_log(&self, job: &str, text: &str) -> String {
        let mut last = String::new();
        let began = Instant::now();
        loop {
            if last.contains(text) {
                return last;
            }
            assert!(began.elapsed() < SOON * 2, "job {job} should have written `{text}`; it wrote:\n{last}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            last = self.logs(job).await;
        }
    }

    /// The name of the scheduler that leads.
    pub async fn leader(&self) -> String {
        let status = self.ask("sys.status", json!({})).await;
        status["leader"]["scheduler"].as_str().expect("a leader that answers has a name").to_owned()
    }
}
