//! What a long-running role shows of itself: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever restarts it,
//! and the same for the service manager that started it.
//!
//! It stands here because schedulers and executors share it and both stand on this crate. Deliberately not here: which
//! metrics there are; each role has a table of its own.

pub mod manager;
pub mod metric;
pub mod pulse;
pub mod trace;

pub use manager::Manager;
pub use metric::Metric;
pub use pulse::Pulse;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, PrometheusHandle};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;

/// How often the recorder tidies up what it has gathered. Between two scrapes of a usual Prometheus.
const UPKEEP_PAUSE: Duration = Duration::from_secs(5);

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the metrics recorder cannot be set up")]
    Recorder(#[source] BuildError),
    #[error("cannot listen on {listen} for metrics; choose another address, or none")]
    Listen {
        listen: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// The process has one recorder. Whoever asks first sets it up; the others get the same, buckets included.
static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Sets up the recorder behind the `metrics` macros, and tells it what each of the role's metrics means. A histogram
/// that is not in the table comes out as a summary.
pub fn install(metrics: &[Metric]) -> Result<PrometheusHandle, TelemetryError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let builder = metric::builder(metrics).map_err(TelemetryError::Recorder)?;
    let handle = builder.install_recorder().map_err(TelemetryError::Recorder)?;
    metric::describe(metrics);
    *installed = Some(handle.clone());
    Ok(handle)
}

/// Listens, and answers until the returned value is dropped.
///
/// `ready` says why this role cannot do its work at present; `pulse` whether its loop turns.
pub async fn serve(
    listen: SocketAddr,
    handle: PrometheusHandle,
    pulse: Pulse,
    ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Result<Telemetry, TelemetryError> {
    let failed = |source| TelemetryError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let ready = Arc::new(ready);
    let scraped = handle.clone();
    let routes = Router::new()
        .route("/metrics", get(async move || ([(CONTENT_TYPE, TEXT_FORMAT)], scraped.render())))
        .route("/livez", get(async move || page(pulse.check())))
        .route("/readyz", get(async move || page(ready())));
    let serving = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    });
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_PAUSE).await;
            handle.run_upkeep();
        }
    });
    Ok(Telemetry { address, tasks: [serving.abort_handle(), upkeep.abort_handle()] })
}

fn page(checked: Result<(), String>) -> impl IntoResponse {
    match checked {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// A telemetry endpoint; dropping it closes it.
#[derive(Debug)]
pub struct Telemetry {
    address: SocketAddr,
    tasks: [tokio::task::AbortHandle; 2],
}

impl Telemetry {
    /// Where it listens, with the port that the system chose where none was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut connection = tokio::net::TcpStream::connect(address).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.expect("request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("answer");
        answer
    }

    #[tokio::test]
    async fn the_three_pages() {
        let recorder = metric::recorder(&[Metric::histogram("wait_seconds", &[0.1, 1.0], "Waiting.")]);
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("tries_total", "outcome" => "good").increment(3);
            metrics::histogram!("wait_seconds").record(0.5);
        });
        let is_ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_ready);
        let ready = move || if asked.load(Ordering::SeqCst) { Ok(()) } else { Err("no leader yet".to_owned()) };
        let telemetry = serve("127.0.0.1:0".parse().expect("address"), handle.clone(), Pulse::default(), ready)
            .await
            .expect("serve");

        let metrics = fetch(telemetry.address(), "/metrics").await;
        assert!(metrics.contains("tries_total{outcome=\"good\"} 3"), "{metrics}");
        assert!(metrics.contains("wait_seconds_bucket{le=\"1\"} 1"), "{metrics}");
        assert!(fetch(telemetry.address(), "/livez").await.starts_with("HTTP/1.1 200"));
        let not_ready = fetch(telemetry.address(), "/readyz").await;
        assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("no leader yet"), "{not_ready}");
        is_ready.store(true, Ordering::SeqCst);
        assert!(fetch(telemetry.address(), "/readyz").await.starts_with("HTTP/1.1 200"));

        let taken = serve(telemetry.address(), handle, Pulse::default(), || Ok(())).await;
        assert!(matches!(taken, Err(TelemetryError::Listen { .. })));
    }
}
