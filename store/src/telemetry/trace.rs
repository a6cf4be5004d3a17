//! Spans to an OpenTelemetry collector, over OTLP/HTTP. Off unless an endpoint is configured, and then out of the way:
//! what is recorded waits in a bounded queue, and is dropped where the collector does not keep up.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use outlive_schemas::trace::TraceContext;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    /// An OpenTelemetry collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318` or
    /// `https://collector:4318`. Absent: no traces.
    pub otlp_endpoint: Option<String>,
    /// With `https://`: whom to trust instead of the system's authorities.
    pub otlp_ca_file: Option<PathBuf>,
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
pub enum TraceError {
    #[error(
        "`telemetry.otlp_endpoint` cannot be used ({endpoint}): write it like http://127.0.0.1:4318 or \
         https://collector:4318: {reason}"
    )]
    Endpoint { endpoint: String, reason: String },
    #[error(
        "cannot use the file {} that `telemetry.otlp_ca_file` names: check that it exists, can be read and holds \
         certificates: {reason}",
        path.display()
    )]
    Authorities { path: PathBuf, reason: String },
    #[error("the system's certificate authorities cannot be used: name the collector's in `telemetry.otlp_ca_file`")]
    SystemAuthorities(#[source] std::io::Error),
}

impl Tracer {
    /// Begins to export, if a collector is configured. To be called inside the runtime.
    pub fn start(config: &TelemetryConfig, role: &'static str, name: &str) -> Result<Tracer, TraceError> {
        let Some(endpoint) = &config.otlp_endpoint else { return Ok(Tracer::default()) };
        let failed = |reason: String| TraceError::Endpoint { endpoint: endpoint.clone(), reason };
        let exporter = SpanExporter::builder().with_http();
        let exporter = match endpoint.split_once("://") {
            Some(("http", _)) => exporter.with_http_client(HyperClient::with_default_connector(EXPORT_TIMEOUT, None)),
            Some(("https", _)) => {
                let connector = over_tls(config.otlp_ca_file.as_deref())?;
                exporter.with_http_client(HyperClient::new(connector, EXPORT_TIMEOUT, None))
            }
            _ => return Err(failed("only http:// and https:// are spoken".to_owned())),
        };
        let mut exporter = exporter
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

/// Connects over TLS, and trusts these authorities, or else the system's.
fn over_tls(authorities: Option<&Path>) -> Result<HttpsConnector<HttpConnector>, TraceError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = HttpsConnectorBuilder::new();
    let builder = match authorities {
        None => builder.with_provider_and_native_roots(provider).map_err(TraceError::SystemAuthorities)?,
        Some(path) => {
            let unusable = |reason: String| TraceError::Authorities { path: path.to_owned(), reason };
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("ring has ciphers for every version that is safe")
                .with_root_certificates(authorities_in(path).map_err(unusable)?)
                .with_no_client_auth();
            builder.with_tls_config(config)
        }
    };
    Ok(builder.https_only().enable_http1().build())
}

fn authorities_in(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_a_collector_is_refused_by_name() {
        let started = |endpoint: &str, ca_file: Option<&Path>| {
            let (otlp_endpoint, otlp_ca_file) = (Some(endpoint.to_owned()), ca_file.map(Path::to_owned));
            Tracer::start(&TelemetryConfig { otlp_endpoint, otlp_ca_file }, "scheduler", "scheduler-a")
        };
        for odd in ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "", "http://", "https://no host"] {
            let error = started(odd, None).expect_err(odd).to_string();
            assert!(error.contains("telemetry.otlp_endpoint") && error.contains(odd), "{error}");
        }
        assert!(started("http://127.0.0.1:4318", None).expect("a collector").is_on());

        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ca.pem");
        for text in
            [None, Some("no certificate"), Some("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")]
        {
            if let Some(text) = text {
                std::fs::write(&file, text).expect("written");
            }
            let error = started("https://127.0.0.1:4318", Some(&file)).expect_err("refused").to_string();
            assert!(error.contains("telemetry.otlp_ca_file") && error.contains("ca.pem"), "{error}");
        }
        assert!(!Tracer::start(&TelemetryConfig::default(), "scheduler", "scheduler-a").expect("none").is_on());
    }
}
