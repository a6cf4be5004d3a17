//! The metrics as Prometheus gets them, from the recorder that is used in earnest.

use super::*;
use crate::clock::Ids;
use crate::config::WitnessMode;
use crate::journal::Journal;
use crate::leader::{Identity, Input, Leader, Output};
use outlive_core::state::State;
use outlive_schemas::executor::{Capacity, DriverKind, Registration};
use outlive_schemas::id::ExecutorId;
use outlive_store::frame::{ChainHash, FrameSealer};
use outlive_store::seal::Key;
use outlive_store::telemetry::metric::{inventory, recorder};

const NOW: Timestamp = Timestamp(1_000_000);

/// One that leads two executors in one zone, and has committed that they joined.
fn leader() -> Leader {
    let key = Key::from_bytes([7; 32]);
    let journal = Journal::new(State::default(), FrameSealer::new(&key), Term(3), Sequence(1), ChainHash::default());
    let identity = Identity {
        scheduler: "scheduler-a".parse().expect("a name"),
        zone: "a".parse().expect("a zone"),
        term: Term(3),
    };
    let mut leader = Leader::new(identity, journal, Ids::new(1), NOW, WitnessMode::Interval);
    let registration = |number: u128| Registration {
        id: ExecutorId(uuid::Uuid::from_u128(number)),
        name: format!("executor-a-{number}").parse().expect("a name"),
        zone: "a".parse().expect("a zone"),
        host: "host".into(),
        capacity: Capacity { cpu_millis: 4_000, memory_bytes: 1 << 32, slots: 10 },
        labels: Default::default(),
        drivers: vec![DriverKind::Noop],
        version: "0".into(),
    };
    let mut out = Vec::new();
    leader.input(Input::Registered(vec![registration(1), registration(2)]), NOW, &mut out);
    leader.turn(NOW, &mut out);
    assert!(out.iter().any(|output| matches!(output, Output::Append(_))));
    leader.input(Input::Appended(Ok(())), NOW, &mut out);
    leader
}

fn submit(leader: &mut Leader) {
    let raw = crate::submission::Raw {
        operation: crate::submission::Operation::Submit,
        namespace: "team-a",
        request_id: None,
        actor: None,
        body: br#"{"driver":{"process":{"command":["true"]}}}"#,
    };
    let format = outlive_schemas::codec::Format::Json;
    let request = crate::submission::parse(raw, format).expect("a request");
    let to = crate::leader::ReplyTo { number: 1, format };
    leader.input(Input::Request { request, to }, NOW, &mut Vec::new());
}

#[test]
fn the_names_types_labels_and_help_are_those_of_the_docs() {
    let recorder = recorder(METRICS);
    metrics::with_local_recorder(&recorder, || {
        begin("0.1.0", &"a".parse().expect("a zone"));
        let mut leader = leader();
        submit(&mut leader);
        // Shown while it leads; it is what is there that is looked at here.
        let mut survey = Survey::default();
        survey.take(&leader, NOW);
        let seen = streams::Seen { bytes: 1, messages: 1, limit: Some(10), leads: true, ..Default::default() };
        streams::show("OUTLIVE_LOG", &seen);
        let found = inventory(&recorder.handle().render());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/docs/metrics.md");
        let text = std::fs::read_to_string(path).expect("ops/docs/metrics.md");
        let documented = text.split("<!-- scheduler -->\n").nth(1).expect("the scheduler's table");
        let documented = documented.split("\n\n").next().expect("a table");
        assert_eq!(found.trim_end(), documented.trim_end(), "put this into ops/docs/metrics.md:\n{found}");
        for metric in METRICS {
            assert!(found.contains(&format!("| `{}` |", metric.name)), "{} is never shown", metric.name);
        }
        assert!(!found.contains("|  |\n"), "each has a meaning: {found}");
    });
}

#[test]
fn who_leads_no_more_shows_nothing_of_what_it_knew() {
    let recorder = recorder(METRICS);
    metrics::with_local_recorder(&recorder, || {
        begin("0.1.0", &"a".parse().expect("a zone"));
        let mut leader = leader();
        submit(&mut leader);
        let mut survey = Survey::default();
        survey.take(&leader, NOW);
        let shown = recorder.handle().render();
        for line in [
            "outlive_jobs{status=\"pending\"} 1",
            "outlive_namespace_jobs{namespace=\"team-a\",status=\"pending\"} 1",
            // Nobody has been heard yet.
            "outlive_executors{zone=\"a\",state=\"suspect\"} 2",
            "outlive_executor_capacity{zone=\"a\",resource=\"slots\"} 20",
            "outlive_zone_state{zone=\"a\",state=\"steady\"} 1",
        ] {
            assert!(shown.contains(line), "{line} is not in:\n{shown}");
        }
        drop(survey);
        let shown = recorder.handle().render();
        for name in ["outlive_jobs{", "outlive_namespace_jobs{", "outlive_executors{", "outlive_executor_capacity{"] {
            let left: Vec<&str> = shown.lines().filter(|l| l.starts_with(name) && !l.ends_with(" 0")).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

#[test]
fn who_never_led_shows_what_the_contract_names() {
    let recorder = recorder(METRICS);
    metrics::with_local_recorder(&recorder, || begin("0.1.0", &"a".parse().expect("a zone")));
    let shown = recorder.handle().render();
    for line in [
        "outlive_leader 0",
        "outlive_witness_lag_commits 0",
        "outlive_jobs{status=\"rolling_back\"} 0",
        "outlive_executors{zone=\"a\",state=\"ready\"} 0",
        "outlive_executor_capacity{zone=\"a\",resource=\"cpu_cores\"} 0",
        "outlive_executor_allocated{zone=\"a\",resource=\"slots\"} 0",
        "outlive_checkpoint_age_seconds 0",
        "outlive_heartbeat_age_seconds 0",
    ] {
        assert!(shown.contains(line), "{line} is not in:\n{shown}");
    }
}

#[test]
fn downtime_adds_up_what_is_shorter_than_a_second() {
    let recorder = recorder(METRICS);
    // A sum of its own: other tests of this process have recoveries too.
    let sum = Downtime::default();
    metrics::with_local_recorder(&recorder, || (0..5).for_each(|_| sum.add(400)));
    let shown = recorder.handle().render();
    assert!(shown.contains("outlive_job_downtime_seconds_total 2"), "{shown}");
}
