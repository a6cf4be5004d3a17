//! Logs and traces as their readers get them: JSON lines with stable keys, and one trace from a client's submission to
//! the job's own environment, taken by a real OTLP receiver.

use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use outlive_tests::{Dev, EVENTUALLY, Options, wait_until, wait_until_true};
use prost::Message as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";

/// A span as it arrived: its trace, itself, its parent, and who did it.
#[derive(Clone, Debug)]
struct Seen {
    trace: String,
    span: String,
    parent: String,
    name: String,
    service: String,
    ordered: bool,
    job: Option<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seen(request: ExportTraceServiceRequest) -> Vec<Seen> {
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
    let text = |all: &[KeyValue], key: &str| {
        let value = all.iter().find(|pair| pair.key == key)?.value.clone()?.value?;
        if let Any::StringValue(text) = value { Some(text) } else { None }
    };
    let mut found = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = text(&attributes, "service.name").unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            found.push(Seen {
                trace: hex(&span.trace_id),
                span: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name.clone(),
                service: service.clone(),
                ordered: span.start_time_unix_nano <= span.end_time_unix_nano,
                job: text(&span.attributes, "job"),
            });
        }
    }
    found
}

/// A collector: what it was sent so far, and where it listens.
async fn collector() -> (Arc<Mutex<Vec<Seen>>>, String) {
    let spans: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let taken = Arc::clone(&spans);
    let take = post(move |body: Bytes| {
        let taken = Arc::clone(&taken);
        async move {
            let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
            taken.lock().expect("not poisoned").extend(seen(request));
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let router = axum::Router::new().route("/v1/traces", take);
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    (spans, format!("http://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_spans_a_submission_and_logs_have_stable_keys() {
    let (spans, endpoint) = collector().await;
    let env = vec![("OUTLIVE_TELEMETRY__OTLP_ENDPOINT", endpoint)];
    let dev = Dev::start_with(1, Options { env, ..Options::default() }).await;
    let client = dev.client().await;

    let mut headers = async_nats::HeaderMap::new();
    headers.insert("traceparent", format!("00-{TRACE}-{CLIENT_SPAN}-01").as_str());
    let spec = json!({
        "name": "traced",
        "driver": {"process": {"command": ["sh", "-c", "printf %s \"$TRACEPARENT\" > $OUTLIVE_RESULT"]}},
    });
    let body = serde_json::to_vec(&spec).expect("JSON").into();
    let submit = "outlive.v1.default.job.submit";
    let reply = client.nats().request_with_headers(submit, headers, body).await.expect("an answer");
    let job: Value = serde_json::from_slice(&reply.payload).expect("JSON");
    let job = job["id"].as_str().unwrap_or_else(|| panic!("refused: {job}")).to_owned();
    let over = client.ask("job.wait", json!({"job": job})).await;
    assert_eq!(over["status"], "succeeded", "{over}");

    let of_trace = || {
        let all = spans.lock().expect("not poisoned").clone();
        let ours = all.into_iter().filter(|span| span.trace == TRACE);
        ours.map(|span| (span.name.clone(), span)).collect::<BTreeMap<String, Seen>>()
    };
    let steps = wait_until("all four spans", EVENTUALLY, || async {
        let found = of_trace();
        (found.len() == 4).then_some(found)
    })
    .await;
    let (submit, commit, place, start) = (&steps["submit"], &steps["commit"], &steps["place"], &steps["start"]);
    assert_eq!(submit.parent, CLIENT_SPAN);
    assert_eq!((&commit.parent, &place.parent), (&submit.span, &submit.span));
    assert_eq!(start.parent, place.span);
    assert_eq!(
        [&submit.service, &place.service, &start.service],
        ["outlive-scheduler", "outlive-scheduler", "outlive-executor"]
    );
    assert!(steps.values().all(|span| span.ordered && span.job.as_deref() == Some(&job)), "{steps:?}");
    assert_eq!(over["result"], format!("00-{TRACE}-{}-01", start.span));

    // A job whose client began no trace is one of its own.
    let job = client.ask("job.submit", json!({"driver": {"noop": {}}})).await;
    let own = job["id"].as_str().expect("an id").replace('-', "");
    wait_until_true("its own trace", EVENTUALLY, || async {
        spans.lock().expect("not poisoned").iter().any(|span| span.trace == own && span.name == "submit")
    })
    .await;

    // Elsewhere than on a terminal each line is JSON, and the keys are the same everywhere.
    let lines = |process: &str| -> Vec<Value> {
        let path = dev.data().join("logs").join(format!("{process}.log"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{process}: {e}: {line}"));
        text.lines().map(line).collect()
    };
    let has = |process: &str, message: &str, keys: &[&str]| {
        let all = lines(process);
        let found = all.iter().find(|line| line["message"] == message);
        let found = found.unwrap_or_else(|| panic!("{process} never said `{message}`: {all:?}"));
        for key in keys {
            assert!(found[key].is_string() || found[key].is_u64(), "{process}: `{message}` has no `{key}`: {found}");
        }
        found.clone()
    };
    has("scheduler-a", "leading", &["scheduler", "zone", "term", "seq", "timestamp", "level", "target"]);
    has("executor-a-1", "registered", &["executor", "name", "zone"]);
    let started = has("executor-a-1", "started", &["job", "attempt", "namespace", "executor", "zone"]);
    assert_eq!((started["namespace"].as_str(), started["attempt"].as_str()), (Some("default"), Some("1")), "{started}");

    tells_its_service_manager(&dev).await;
}

/// A scheduler as systemd starts it: ready when it follows the log, alive while its loop turns, and gone with notice.
async fn tells_its_service_manager(dev: &Dev) {
    let socket = dev.scratch().join("notify");
    let manager = tokio::net::UnixDatagram::bind(&socket).expect("a socket");
    let mut child = dev
        .command(&["scheduler"])
        .env("OUTLIVE_CLUSTER__ZONE", "a")
        .env("OUTLIVE_SCHEDULER__NAME", "scheduler-of-systemd")
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "3000000")
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let heard = async |wanted: &str| {
        let mut told = Vec::new();
        let mut buffer = [0; 4_096];
        loop {
            let told_now = tokio::time::timeout(EVENTUALLY, manager.recv(&mut buffer)).await;
            let length = told_now.unwrap_or_else(|_| panic!("{wanted} never came: {told:?}")).expect("a message");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return told;
            }
            told.push(text);
        }
    };
    let before = heard("READY=1").await;
    assert!(!before.iter().any(|told| told.contains("STOPPING")), "{before:?}");
    heard("WATCHDOG=1").await;
    outlive_tests::dev::signal_process(child.id().expect("it runs"), rustix::process::Signal::TERM);
    heard("STOPPING=1").await;
    let ended = tokio::time::timeout(EVENTUALLY, child.wait()).await.expect("it ends").expect("a status");
    assert!(ended.success(), "{ended}");
}
