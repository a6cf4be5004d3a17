//! Whether what was started is of use yet: each process says so itself, and the cluster as a whole answers a request.

use crate::dev::settings::Probe;
use outlive_schemas::subject;
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What one try may take.
const TRY_BOUND: Duration = Duration::from_secs(2);
/// Between two tries. nats-server logs each that it has to disappoint.
const POLL: Duration = Duration::from_millis(150);

/// Waits until the probe answers 200.
pub async fn until_answering(probe: Probe) {
    while !answers(probe).await {
        tokio::time::sleep(POLL).await;
    }
}

/// One try.
pub async fn answers(probe: Probe) -> bool {
    matches!(tokio::time::timeout(TRY_BOUND, status(probe)).await, Ok(Ok(200)))
}

async fn status(probe: Probe) -> io::Result<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, probe.port)).await?;
    let request = format!("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", probe.path);
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200 …`: the rest does not matter.
    let mut beginning = [0; 12];
    stream.read_exact(&mut beginning).await?;
    let text = std::str::from_utf8(&beginning[9..]).unwrap_or_default();
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP status line"))
}

/// Waits until a leader answers and says that all these executors are ready for jobs.
pub async fn until_led(nats: &async_nats::Client, executors: &BTreeSet<String>) {
    while !is_led(nats, executors).await {
        tokio::time::sleep(POLL).await;
    }
}

async fn is_led(nats: &async_nats::Client, executors: &BTreeSet<String>) -> bool {
    let list = subject::system_operation("executor.list");
    let Ok(Ok(reply)) = tokio::time::timeout(TRY_BOUND, nats.request(list, "{}".into())).await else { return false };
    let Ok(reply) = serde_json::from_slice::<serde_json::Value>(&reply.payload) else { return false };
    let listed = reply["executors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready: BTreeSet<&str> =
        listed.iter().filter(|e| e["state"] == "ready").filter_map(|e| e["name"].as_str()).collect();
    executors.iter().all(|name| ready.contains(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that gives every caller the same answer.
    async fn answering(answer: &'static [u8]) -> Probe {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 512];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            }
        });
        Probe { port, path: "/readyz" }
    }

    #[tokio::test]
    async fn only_200_is_ready() {
        assert!(answers(answering(b"HTTP/1.1 200 OK\r\n\r\nok").await).await);
        for answer in
            [b"HTTP/1.1 503 Service Unavailable\r\n\r\n".as_slice(), b"", b"HTTP/1.1 2", b"220 smtp ready\r\n"]
        {
            assert!(!answers(answering(answer).await).await, "{answer:?}");
        }
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = free.local_addr().expect("address").port();
        drop(free);
        assert!(!answers(Probe { port, path: "/" }).await, "nobody listens");
    }
}
