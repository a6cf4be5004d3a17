//! Output through pipes that stand in for a job's, into stores in memory.

use std::sync::Mutex;
use std::time::Instant;

use outlive_schemas::limits::LOG_HELD_BYTES_MAX;
use outlive_schemas::message::{LogEntry, LogStream};
use outlive_schemas::subject::{HEADER_LOG_ATTEMPT, HEADER_LOG_NUMBER};
use outlive_store::job_log::MemoryJobLogs;
use outlive_store::key_store::MemoryKeys;
use outlive_store::seal::Key;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::*;

const JOB: JobId = JobId(uuid::Uuid::from_u128(0x0197));
const BOUND: Duration = Duration::from_secs(60);

/// What was sent live: subject, attempt, number, text.
type Sent = (String, String, u64, Vec<u8>);

struct World {
    logs: Arc<MemoryJobLogs>,
    keys: Arc<MemoryKeys>,
    sent: Arc<Mutex<Vec<Sent>>>,
    sink: Arc<LogSink>,
}

impl World {
    fn new() -> World {
        let logs = Arc::new(MemoryJobLogs::new());
        let keys = Arc::new(MemoryKeys::new(Key::from_bytes([5; 32])));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let hear = sent.clone();
        let live =
            move |subject: String, headers: HeaderMap, text: Bytes| -> Pin<Box<dyn Future<Output = ()> + Send>> {
                let header = |name| headers.get(name).expect("a header").as_str().to_owned();
                let number = header(HEADER_LOG_NUMBER).parse().expect("a number");
                hear.lock().expect("whole").push((subject, header(HEADER_LOG_ATTEMPT), number, text.to_vec()));
                Box::pin(std::future::ready(()))
            };
        let sink = Arc::new(LogSink { live: Box::new(live), logs: logs.clone(), keys: keys.clone() });
        World { logs, keys, sent, sink }
    }

    /// A job's two pipes, from its side.
    fn job(&self) -> (LogPump, DuplexStream, DuplexStream) {
        let ((out, stdout), (err, stderr)) = (tokio::io::duplex(65_536), tokio::io::duplex(65_536));
        let output = Output::since_now();
        let target =
            LogTarget { sink: self.sink.clone(), namespace: namespace(), job: JOB, attempt: Attempt(3), output };
        (spawn_logs(target, stdout, stderr), out, err)
    }

    async fn kept(&self) -> Vec<LogEntry> {
        let Some(key) = self.keys.existing_job_key(JOB).await.expect("known") else { return vec![] };
        let batches = self.logs.read(&namespace(), JOB, &key, 0, 10_000).await.expect("read");
        batches.into_iter().flat_map(|(_, entries)| entries).collect()
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().expect("whole").clone()
    }
}

fn namespace() -> Namespace {
    Namespace::new("default").expect("a namespace")
}

fn text_of(entries: &[LogEntry], stream: LogStream) -> String {
    let bytes = entries.iter().filter(|entry| entry.stream == stream).flat_map(|entry| entry.text.0.to_vec());
    String::from_utf8(bytes.collect()).expect("text")
}

/// Until `holds`.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < BOUND, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn output_is_sent_live_and_kept() {
    let world = World::new();
    let (pump, mut out, mut err) = world.job();
    out.write_all(b"one\ntwo\nthr").await.expect("written");
    err.write_all("grüße\n".as_bytes()).await.expect("written");
    // While it runs, and an unfinished line as well.
    until("sent live", async || world.sent().iter().map(|(.., text)| text.len()).sum::<usize>() == 11 + 8).await;
    until("kept", async || world.kept().await.iter().map(|entry| entry.text.0.len()).sum::<usize>() == 11 + 8).await;
    out.write_all(b"ee").await.expect("written");
    drop((out, err));
    pump.finish(BOUND).await;

    let kept = world.kept().await;
    assert_eq!(text_of(&kept, LogStream::Out), "one\ntwo\nthree");
    assert_eq!(text_of(&kept, LogStream::Err), "grüße\n");
    assert!(kept.iter().any(|entry| entry.text.0.ends_with(b"two\n")), "lines stay whole");
    let numbers: Vec<_> = kept.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (1..=kept.len() as u64).collect::<Vec<_>>());
    assert!(kept.iter().all(|entry| entry.attempt == Attempt(3)));
    // The same entries under the same numbers.
    let sent = world.sent();
    assert_eq!(sent.len(), kept.len());
    for (entry, (subject, attempt, number, text)) in kept.iter().zip(sent) {
        let stream = if entry.stream == LogStream::Out { "out" } else { "err" };
        assert_eq!(subject, format!("outlive.v1.default.log.{JOB}.{stream}"));
        assert_eq!((attempt.as_str(), number, text), ("3", entry.number, entry.text.0.to_vec()));
    }
}

#[tokio::test]
async fn a_job_that_prints_nothing_makes_no_key() {
    let world = World::new();
    let (pump, out, err) = world.job();
    drop((out, err));
    pump.finish(BOUND).await;
    assert!(world.keys.existing_job_key(JOB).await.expect("known").is_none());
    assert!(world.sent().is_empty());
}

#[tokio::test]
async fn a_burst_is_kept_whole_in_few_entries() {
    let world = World::new();
    let (pump, mut out, err) = world.job();
    let lines: String = (0..60_000).map(|line| format!("line {line}\n")).collect();
    out.write_all(lines.as_bytes()).await.expect("written");
    drop((out, err));
    pump.finish(BOUND).await;
    let kept = world.kept().await;
    assert!(text_of(&kept, LogStream::Out) == lines);
    assert!(kept.len() < 100, "{} entries", kept.len());
    assert!(kept.iter().all(|entry| entry.text.0.ends_with(b"\n")));
}

#[tokio::test]
async fn a_store_out_of_reach_holds_no_job_back_and_what_is_dropped_is_told() {
    let world = World::new();
    world.logs.set_out_of_reach(true);
    let (pump, mut out, err) = world.job();
    let line = [b'x'; 999];
    let total = LOG_HELD_BYTES_MAX / 1_000 * 3;
    for _ in 0..total {
        out.write_all(&line).await.expect("written");
        out.write_all(b"\n").await.expect("written");
    }
    until("all of it came", async || world.sent().iter().map(|(.., text)| text.len()).sum::<usize>() == total * 1_000)
        .await;
    world.logs.set_out_of_reach(false);
    drop((out, err));
    pump.finish(BOUND).await;

    let kept = world.kept().await;
    let told: Vec<_> = kept.iter().filter(|entry| entry.stream == LogStream::Outlive).collect();
    assert_eq!((told.len(), told[0].number, kept[0].number), (1, 1, 1));
    let dropped = std::str::from_utf8(&told[0].text.0).expect("text").split(' ').next().expect("a word");
    let dropped: usize = dropped.parse().expect("a number");
    let left = text_of(&kept, LogStream::Out).len();
    assert_eq!(dropped + left, total * 1_000, "everything is there or told");
    assert!(left > LOG_HELD_BYTES_MAX / 2 && left <= LOG_HELD_BYTES_MAX + 200_000, "{left} bytes left");
    assert!(kept.windows(2).all(|pair| pair[0].number < pair[1].number));
}

#[tokio::test]
async fn finishing_is_bounded() {
    let world = World::new();
    world.logs.set_out_of_reach(true);
    let (pump, mut out, err) = world.job();
    out.write_all(b"never kept\n").await.expect("written");
    // One pipe stays open, as a process that escaped would keep it.
    drop(out);
    let began = Instant::now();
    pump.finish(Duration::from_millis(300)).await;
    assert!(began.elapsed() < BOUND);
    drop(err);
}

#[tokio::test]
async fn a_noisy_job_is_held_back() {
    let world = World::new();
    let (pump, mut out, err) = world.job();
    let began = Instant::now();
    let piece = vec![b'y'; 1 << 20];
    for _ in 0..4 {
        out.write_all(&piece).await.expect("written");
    }
    drop((out, err));
    pump.finish(BOUND).await;
    // A burst of one, then three at four a second. The pipe holds very little.
    assert!(began.elapsed() > Duration::from_millis(600), "4 MiB were taken in {:?}", began.elapsed());
    assert_eq!(text_of(&world.kept().await, LogStream::Out).len(), 4 << 20, "and nothing is lost");
}
