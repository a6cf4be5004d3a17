//! Two versions at work together, as far as shapes can tell: what schedulers and executors say to one another may gain
//! fields that the other side does not know; what stands in the log may not, for every field of it counts.

use outlive_schemas::checkpoint::{BlobName, Taken};
use outlive_schemas::codec::{pack, unpack};
use outlive_schemas::command::Stop;
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::executor::{DriverKind, Registration};
use outlive_schemas::id::*;
use outlive_schemas::message::*;
use outlive_schemas::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// The map that begins at `at` and ends with the bytes, with one more field in it.
fn with_future_field(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    assert!((0x80..0x8f).contains(&bytes[at]), "a map of fewer than 15 fields: {:#x}", bytes[at]);
    bytes[at] += 1;
    bytes.extend_from_slice(b"\xabfrom_future\x2a");
    bytes
}

fn tolerated<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let read: T =
        unpack("a message", &with_future_field(pack(value), 0)).unwrap_or_else(|e| panic!("{value:?}: {e:?}"));
    assert_eq!(read, *value);
}

#[test]
fn messages_may_gain_fields() {
    let (job, attempt, executor) = (JobId(Uuid::nil()), Attempt(1), ExecutorId(Uuid::nil()));
    let taken =
        Taken { manifest: BlobName([1; 32]), size_bytes: 1, uploaded_bytes: 1, files: 1, duration_ms: 1, pause_ms: 1 };
    let zone: Zone = "a".parse().expect("a zone");
    tolerated(&LeaderBeat { term: Term(1), scheduler: "s".parse().expect("a name"), zone, seq: Sequence(1) });
    tolerated(&Heartbeat {
        executor,
        name: "e".parse().expect("a name"),
        seq_seen: Sequence(1),
        term_seen: Term(1),
        seq_before: Sequence(0),
        digest: AttemptDigest(1),
        held: 1,
        health: Health::default(),
        leaving: false,
        degraded: Some("a slow disk".into()),
    });
    tolerated(&Health::default());
    tolerated(&ToExecutor { term: Term(1), seq: Sequence(1), order: Order::Dismiss });
    tolerated(&Assignment {
        job,
        attempt,
        namespace: "n".parse().expect("a namespace"),
        name: "j".parse().expect("a name"),
        version: JobVersion(1),
        placed_at: Sequence(1),
        restore: None,
        retained: vec![],
        spec: Arc::new(serde_json::from_str(r#"{"driver":{"noop":{}}}"#).expect("a spec")),
        array_index: None,
        inputs: vec![],
        trace: None,
    });
    tolerated(&StopAttempt { job, attempt, how: Stop::Kill });
    let ended = Ended { outcome: Outcome::TimedOut, ran_ms: None, result: None };
    tolerated(&ended);
    let report = Report { job, attempt, age_ms: 1, news: News::Ended(ended) };
    tolerated(&report);
    tolerated(&ReportBatch {
        executor,
        seq_seen: Sequence(1),
        term_seen: Term(1),
        seq_before: Sequence(0),
        reports: vec![report],
    });
    tolerated(&ReportReply { term: Term(1), seq: Sequence(1), superseded: vec![], retained: vec![] });
    tolerated(&ProbeReply { executor });
    tolerated(&taken);
    tolerated(&LogEntry { at: Timestamp(1), attempt, number: 1, stream: LogStream::Out, text: "x".into() });
}

#[test]
fn a_registration_may_gain_fields_and_drivers() {
    let newer = r#"{"id":"00000000-0000-0000-0000-000000000000","name":"e","zone":"a","host":"h",
        "capacity":{"cpu_millis":1,"memory_bytes":1,"slots":1,"gpus":4},
        "drivers":["wasm","process"],"version":"9","from_future":{"a":[1]}}"#;
    let read: Registration = serde_json::from_str(newer).expect("it is read");
    assert_eq!(read.drivers, [DriverKind::Process], "what needs a driver that we do not know is not placed there");
}

#[test]
fn an_event_may_not_gain_fields() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut events = 0;
    for file in std::fs::read_dir(golden).expect("the golden files") {
        let path = file.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("read");
        let envelopes: Vec<Envelope> = unpack("golden envelopes", &bytes).expect("golden envelopes");
        for envelope in envelopes {
            events += 1;
            let event = pack(&envelope.event);
            // A map of one, its key the tag: the event's own map comes after it.
            let tag = usize::from(event[1] & 0x1f);
            assert!(event[0] == 0x81 && event[1] & 0xe0 == 0xa0, "{}", path.display());
            let newer = with_future_field(event, 2 + tag);
            let error = unpack::<Event>("an event", &newer).expect_err(&path.display().to_string());
            let told = std::error::Error::source(&error).expect("a cause").to_string();
            assert!(told.contains("from_future"), "{}: {told}", path.display());
            let newer = with_future_field(pack(&envelope), 0);
            assert!(unpack::<Envelope>("an envelope", &newer).is_err(), "{}", path.display());
        }
    }
    assert!(events > 20, "{events} golden events");
}

#[test]
fn an_event_of_a_newer_version_is_named() {
    let newer = pack(&std::collections::BTreeMap::from([("job_placed/2", 1)]));
    let error = unpack::<Event>("an event", &newer).expect_err("it is refused");
    assert!(std::error::Error::source(&error).expect("a cause").to_string().contains("job_placed/2"));
}
