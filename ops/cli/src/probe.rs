//! `outlive probe`: asks one HTTP page, and says by its exit code whether it answers 200.
//!
//! For health checks in images that hold nothing but `outlive`: no shell, no curl. Deliberately not here: TLS; the pages
//! that are asked are on this host.

use crate::failure::Failure;
use clap::Args;
use outlive_schemas::time::Millis;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const EXAMPLES: &str = "\
Examples:
  outlive probe http://127.0.0.1:9464/livez
  outlive probe http://127.0.0.1:9465/readyz --within 2s

Exit codes: 0 it answered 200; 6 it did not answer, or with something else.";

/// A page that says why something is not ready is a line; more is not shown.
const ANSWER_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ProbeArgs {
    /// The page, such as http://127.0.0.1:9464/readyz
    #[arg(value_parser = Page::parse)]
    url: Page,
    /// How long the answer may take
    #[arg(long, default_value = "2s", value_parser = Millis::parse, value_name = "DURATION")]
    within: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    authority: String,
    path: String,
}

impl Page {
    fn parse(text: &str) -> Result<Page, String> {
        let rest = text.strip_prefix("http://").ok_or("write it like http://127.0.0.1:9464/readyz")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(format!("`{authority}` is no host and port, such as 127.0.0.1:9464"));
        }
        if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("its path holds white space".to_owned());
        }
        Ok(Page { authority: authority.to_owned(), path: format!("/{path}") })
    }
}

pub async fn run(ProbeArgs { url, within }: ProbeArgs) -> Result<(), Failure> {
    let shown = format!("http://{}{}", url.authority, url.path);
    let answer = tokio::time::timeout(Duration::from_millis(within.0), ask(&url)).await;
    let answer = answer.map_err(|_| Failure::Unavailable(format!("{shown} did not answer within {within}")))?;
    let answer = answer.map_err(|e| Failure::Unavailable(format!("{shown} cannot be asked: {e}")))?;
    match judge(&answer) {
        Ok(()) => Ok(()),
        Err(said) => Err(Failure::Unavailable(format!("{shown} says: {said}"))),
    }
}

async fn ask(page: &Page) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(&page.authority).await?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", page.path, page.authority);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether it is 200; else what it says instead.
fn judge(answer: &str) -> Result<(), String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.lines().next().unwrap_or_default();
    match status.split_whitespace().nth(1) {
        Some("200") if status.starts_with("HTTP/") => Ok(()),
        _ => Err([status, body.trim()].join(" ").trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn a_page_is_a_host_a_port_and_a_path() {
        let page = Page::parse("http://127.0.0.1:9464/readyz").expect("a page");
        assert_eq!((page.authority.as_str(), page.path.as_str()), ("127.0.0.1:9464", "/readyz"));
        assert_eq!(Page::parse("http://[::1]:80").expect("a page").path, "/");
        for wrong in
            ["127.0.0.1:9464/readyz", "http://localhost/readyz", "http://:80/", "http://a:1/x y", "https://a:1/"]
        {
            assert!(Page::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn only_200_is_well_and_anything_else_is_told() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None),
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\nno leader has been heard yet\n",
                Some("no leader has been heard"),
            ),
            ("220 smtp ready\r\n", Some("220 smtp ready")),
            ("", Some("says:")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let url =
                Page::parse(&format!("http://{}/readyz", listener.local_addr().expect("address"))).expect("a page");
            let serving = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a caller");
                let mut request = [0; 512];
                let read = stream.read(&mut request).await.expect("a request");
                stream.write_all(answer.as_bytes()).await.expect("answered");
                String::from_utf8_lossy(&request[..read]).into_owned()
            });
            let outcome = run(ProbeArgs { url, within: Millis::secs(20) }).await.map_err(|e| e.to_string());
            match expected {
                None => assert_eq!(outcome, Ok(())),
                Some(part) => assert!(outcome.expect_err(answer).contains(part), "{answer}"),
            }
            assert!(serving.await.expect("served").starts_with("GET /readyz HTTP/1.1\r\n"));
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unavailable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = Page::parse(&format!("http://{}/", listener.local_addr().expect("address"))).expect("a page");
        drop(listener);
        let failure = run(ProbeArgs { url, within: Millis::secs(20) }).await.expect_err("nobody is there");
        assert_eq!(failure.exit_code(), 6);
    }
}
