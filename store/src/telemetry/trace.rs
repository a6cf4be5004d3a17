//! Spans to an OpenTelemetry collector, over OTLP/HTTP. Off unless an endpoint is configured, and then out of the way:
//! what is recorded waits in a bounded queue, and is dropped where the collector does not keep up.

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use outlive_schemas::trace::TraceContext;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Spans that wait for the collector.
const QUEUE_MAX: usize = 8_192;
/// Spans in one request.
const BATCH_MAX: usize = 512;
/// How long a batch gathers.
const GATHER: Duration = Duration::from_millis(500);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The `[telemetry]` section of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// An OpenTelemetry collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`. Absent: no traces.
    pub otlp_endpoint: Option<String>,
}

/// One thing that was done.
#[derive(Clone, Debug)]
pub struct SpanRecord {
    pub context: TraceContext,
    /// The span it belongs to.
    pub parent: u64,
    pub name: &'static str,
    pub begun: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<(&'static str, String)>,
}

/// Where spans go; cheap to clone. Without a collector it takes none.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    records: Option<mpsc::Sender<SpanRecord>>,
}

#[derive(Debug, thiserror::Error)]
#[error("`telemetry.otlp_endpoint` cannot be used ({endpoint}): write it like http://127.0.0.1:4318: {reason}")]
pub struct TraceError {
    endpoint: String,
    reason: String,
}

impl Tracer {
    /// Begins to export, if a collector is configured. To be called inside the runtime.
    pub fn start(config: &TelemetryConfig, role: &'static str, name: &str) -> Result<Tracer, TraceError> {
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(Tracer::default()) };
        let failed = |reason: String| TraceError { endpoint: endpoint.clone(), reason };
        if !endpoint.starts_with("http://") {
            return Err(failed("only http:// is spoken; put a collector beside this host".to_owned()));
        }
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(HyperClient::with_default_connector(EXPORT_TIMEOUT, None))
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.name", format!("outlive-{role}")))
            .with_attribute(KeyValue::new("service.instance.id", name.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        exporter.set_resource(&resource);
        let (records, recorded) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(export(exporter, recorded));
        Ok(Tracer { records: Some(records) })
    }

    pub fn is_on(&self) -> bool {
        self.records.is_some()
    }

    /// Takes a span, unless nobody wants it.
    pub fn record(&self, span: SpanRecord) {
        if let Some(records) = self.records.as_ref().filter(|_| span.context.sampled) {
            // A full queue means a collector that does not keep up: its loss, not the jobs'.
            let _ = records.try_send(span);
        }
    }
}

async fn export(exporter: SpanExporter, mut recorded: mpsc::Receiver<SpanRecord>) {
    let mut complained = false;
    let mut batch = Vec::new();
    while recorded.recv_many(&mut batch, BATCH_MAX).await > 0 {
        tokio::time::sleep(GATHER).await;
        while batch.len() < BATCH_MAX
            && let Ok(more) = recorded.try_recv()
        {
            batch.push(more);
        }
        match exporter.export(batch.drain(..).map(data).collect()).await {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                tracing::warn!(%error, "traces cannot be delivered, and are dropped until they can");
                complained = true;
            }
            Err(_) => {}
        }
    }
}

fn data(record: SpanRecord) -> SpanData {
    let context = record.context;
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(context.trace),
            SpanId::from(context.span),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: SpanId::from(record.parent),
        parent_span_is_remote: true,
        span_kind: SpanKind::Internal,
        name: record.name.into(),
        start_time: record.begun,
        end_time: record.ended.max(record.begun),
        attributes: record.attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("outlive").build(),
    }
}
