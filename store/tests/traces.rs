//! Spans to a collector that speaks TLS: delivered where its authority is trusted, and to nobody else.

use outlive_schemas::trace::TraceContext;
use outlive_store::telemetry::trace::{SpanRecord, TelemetryConfig, Tracer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How long anything may take that should come soon: generous, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came to the collector.
#[derive(Debug)]
enum Came {
    Request {
        line: String,
        body: Vec<u8>,
    },
    /// Somebody who hung up on our certificate.
    Nobody,
}

/// An authority, and a certificate of it for this machine: as files, the latter with its key.
fn authority(dir: &Path, name: &str) -> [PathBuf; 3] {
    let files = ["ca", "server", "key"].map(|what| dir.join(format!("{name}-{what}.pem")));
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, format!("outlive test {name}"));
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(&files[0], certificate.pem()).expect("written");
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    std::fs::write(&files[1], certificate.pem()).expect("written");
    std::fs::write(&files[2], key.serialize_pem()).expect("written");
    files
}

async fn request(acceptor: TlsAcceptor, connection: TcpStream) -> std::io::Result<Came> {
    let mut connection = BufReader::new(acceptor.accept(connection).await?);
    let (mut line, mut length) = (String::new(), 0);
    connection.read_line(&mut line).await?;
    loop {
        let mut header = String::new();
        connection.read_line(&mut header).await?;
        let header = header.trim().to_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
    connection.shutdown().await?;
    Ok(Came::Request { line, body })
}

/// Takes one request from each connection.
async fn collector(certificate: &Path, key: &Path) -> (String, mpsc::UnboundedReceiver<Came>) {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).expect("a file").collect();
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.expect("certificates"), key)
        .expect("a certificate with its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
    let endpoint = format!("https://{}", listener.local_addr().expect("an address"));
    let (came, comes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let told = request(acceptor.clone(), connection).await.unwrap_or(Came::Nobody);
            if came.send(told).is_err() {
                return;
            }
        }
    });
    (endpoint, comes)
}

fn record(tracer: &Tracer, name: &'static str) {
    let (now, context) = (SystemTime::now(), TraceContext { trace: 7, span: 8, sampled: true });
    tracer.record(SpanRecord { context, parent: 9, name, begun: now, ended: now, attributes: Vec::new() });
}

#[tokio::test]
async fn spans_go_over_tls_to_whom_is_trusted_and_to_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let [ours, certificate, key] = authority(dir.path(), "ours");
    let [theirs, ..] = authority(dir.path(), "theirs");
    let (endpoint, mut comes) = collector(&certificate, &key).await;
    let mut next = async || {
        let came = tokio::time::timeout(PATIENCE, comes.recv()).await.expect("somebody comes");
        came.expect("the collector listens")
    };
    let tracer = |ca_file: PathBuf| {
        let config = TelemetryConfig { otlp_endpoint: Some(endpoint.clone()), otlp_ca_file: Some(ca_file) };
        Tracer::start(&config, "scheduler", "scheduler-a").expect("the configuration is well formed")
    };
    // Whoever trusts another authority hangs up before anything is said.
    record(&tracer(theirs), "secret-step");
    assert!(matches!(next().await, Came::Nobody));

    record(&tracer(ours), "open-step");
    loop {
        // The other may have tried once more.
        let Came::Request { line, body } = next().await else { continue };
        assert!(line.starts_with("POST /v1/traces HTTP/1.1"), "{line}");
        let holds = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("open-step") && holds("outlive-scheduler") && !holds("secret-step"));
        break;
    }
}
