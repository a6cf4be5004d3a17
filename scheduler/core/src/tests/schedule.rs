//! Schedules: what may be put, what each tick leads to, and that none is taken twice or lost.

use super::scene::*;
use crate::calendar::Calendar;
use crate::schedule::jitter;
use crate::state::State;
use crate::{timer, view};
use outlive_schemas::array::ArraySpec;
use outlive_schemas::command::Command;
use outlive_schemas::error::ErrorCode::{self, InUse, InvalidArgument, LimitExceeded, NotFound};
use outlive_schemas::event::Event;
use outlive_schemas::id::{JobId, ScheduleName};
use outlive_schemas::limits;
use outlive_schemas::schedule::{CatchUp, Definition, Overlap, ScheduleListRequest, TickOutcome};
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::Status;
use outlive_schemas::when::Start;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

fn nightly() -> ScheduleName {
    "nightly".parse().unwrap()
}

fn every(cron: &str) -> Definition {
    Definition {
        cron: cron.into(),
        time_zone: "UTC".into(),
        overlap: Overlap::Skip,
        catch_up: CatchUp::One,
        jitter: None,
        spec: Arc::new(batch()),
    }
}

const EACH_SECOND: &str = "* * * * * *";

fn put_as(request_id: Option<&str>, definition: Definition, paused: bool) -> Command {
    let (namespace, origin, definition) = (namespace(), origin(request_id), Box::new(definition));
    Command::PutSchedule { namespace, origin, schedule: nightly(), definition, paused }
}

fn put(definition: Definition) -> Command {
    put_as(None, definition, false)
}

fn tick(number: u64) -> Command {
    Command::TickSchedule { namespace: namespace(), schedule: nightly(), job: job(number) }
}

fn pause(paused: bool) -> Command {
    Command::PauseSchedule { namespace: namespace(), origin: origin(None), schedule: nightly(), paused }
}

fn trigger(number: u64, request_id: Option<&str>) -> Command {
    let (namespace, origin) = (namespace(), origin(request_id));
    Command::TriggerSchedule { namespace, origin, schedule: nightly(), job: job(number) }
}

impl Scene {
    /// Takes every tick that is due, with jobs of fresh numbers, and says what became of each.
    #[track_caller]
    fn ticks(mut self, first_job: u64) -> (Scene, Vec<(u64, TickOutcome, u64)>) {
        let (mut told, mut number) = (Vec::new(), first_job);
        while let Some((_, schedule)) = timer::ticks(&self.state, self.time(), 10).pop() {
            assert_eq!(schedule, nightly());
            let (scene, events) = self.when(tick(number)).happened();
            number += 1;
            told.extend(events.iter().filter_map(|envelope| match &envelope.event {
                Event::ScheduleTicked(e) => Some((e.tick.0 - T0.0, e.outcome, e.count)),
                _ => None,
            }));
            self = scene;
            assert!(told.len() < 5_000, "ticks come to an end");
        }
        (self, told)
    }

    fn finish(self, number: u64) -> Scene {
        self.and([finished(job(number), 0, Status::Succeeded, None, Some(0))])
    }

    fn live(&self) -> Vec<JobId> {
        self.state.running_of(&namespace(), &nightly()).collect()
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let refused = |definition: Definition, code: ErrorCode, part: &str| {
        drop(given([]).when(put(definition)).refused(code, part));
    };
    for cron in ["", "* * * *", "* * * * * * *", "61 * * * *", "x * * * *", "@reboot", "* @daily * * *", "🦀 * * * *"]
    {
        refused(every(cron), InvalidArgument, "`cron`");
    }
    refused(every("0 0 31 2 *"), InvalidArgument, "which never comes");
    refused(every(&"*".repeat(300)), LimitExceeded, "`cron` has 300 bytes; the limit is 256");
    for zone in ["", "Mars/Olympus", "../../etc/passwd", "Local"] {
        refused(Definition { time_zone: zone.into(), ..every(EACH_SECOND) }, InvalidArgument, "`time_zone`");
    }
    refused(Definition { jitter: Some(Millis::secs(86_401)), ..every(EACH_SECOND) }, InvalidArgument, "`jitter`");
    let with = |spec| Definition { spec: Arc::new(spec), ..every(EACH_SECOND) };
    refused(with(batch().named("mine")), InvalidArgument, "`spec.name`");
    let later = batch().with(|spec| spec.start = Some(Start::Delay(Millis(1))));
    refused(with(later), InvalidArgument, "`spec.start`");
    refused(with(batch().needing(0, 64)), InvalidArgument, "`spec`: `resources.cpu_millis`");
    let long = |length: usize, definition: Definition| Command::PutSchedule {
        namespace: namespace(),
        origin: origin(None),
        schedule: "a".repeat(length).parse().unwrap(),
        definition: Box::new(definition),
        paused: false,
    };
    let scene = given([]).when(long(46, every(EACH_SECOND))).happened().0;
    let scene =
        scene.when(long(47, every(EACH_SECOND))).refused(InvalidArgument, "`name` has 47 characters; the limit is 46");
    // The names of an array's tasks are longer still.
    let array = || with(batch().with(|spec| spec.array = Some(ArraySpec { count: 2, parallel: None })));
    let scene = scene.when(long(41, array())).refused(InvalidArgument, "`name` has 41 characters; the limit is 40");
    scene.when(long(40, array())).happened();
    given([]).when(pause(true)).refused(NotFound, "schedule `nightly`");
}

#[test]
fn the_forms_of_expressions_are_known() {
    for (cron, next) in [
        ("*/15 * * * *", "2023-11-14T22:15:00.000Z"),
        ("30 0 4 * * *", "2023-11-15T04:00:30.000Z"),
        ("0 9 * JAN MON", "2024-01-01T09:00:00.000Z"),
        ("0 9 * * MON-FRI", "2023-11-15T09:00:00.000Z"),
        ("@hourly", "2023-11-14T23:00:00.000Z"),
        ("@daily", "2023-11-15T00:00:00.000Z"),
        ("@weekly", "2023-11-19T00:00:00.000Z"),
        ("@monthly", "2023-12-01T00:00:00.000Z"),
        ("@yearly", "2024-01-01T00:00:00.000Z"),
    ] {
        let calendar = Calendar::of(cron, "UTC").unwrap();
        // 2023-11-14T22:13:20Z.
        assert_eq!(calendar.next_after(T0).unwrap().to_string(), next, "{cron}");
    }
    let tokyo = Calendar::of("0 4 * * *", "Asia/Tokyo").unwrap();
    assert_eq!(tokyo.next_after(T0).unwrap().to_string(), "2023-11-15T19:00:00.000Z");
}

#[test]
fn a_tick_is_its_jobs_submission_and_happens_once() {
    let scene = given([]).when(put_as(Some("p"), every(EACH_SECOND), false)).happened().0;
    let scene = scene.when(put_as(Some("p"), every(EACH_SECOND), false)).nothing();
    let scene = scene.at(999).when(tick(1)).stale().at(1_000);
    let (scene, events) = scene.when(tick(1)).happened();
    let kinds: Vec<_> = events.iter().map(|envelope| envelope.event.type_name()).collect();
    assert_eq!(kinds, ["job_submitted", "schedule_ticked"], "one commit, or none");
    let view = view::job(job(1), scene.job(job(1)), scene.time());
    assert_eq!((view.name.as_str(), view.schedule), ("nightly-20231114t221321z", Some(nightly())));
    // Whoever decides it once more, decides nothing.
    scene.when(tick(2)).stale();
}

#[test]
fn a_tick_that_comes_while_a_job_runs_is_let_go_or_waits_or_takes_over() {
    use TickOutcome::{Queued, Skipped, Started};
    let with = |overlap| given([]).when(put(Definition { overlap, ..every(EACH_SECOND) })).happened().0;
    let (scene, told) = with(Overlap::Skip).at(1_000).ticks(1);
    assert_eq!(told, [(1_000, Started, 1)]);
    let (scene, told) = scene.at(3_000).ticks(2);
    assert_eq!(told, [(2_000, Skipped, 1), (3_000, Skipped, 1)]);
    let (scene, told) = scene.finish(1).at(4_000).ticks(4);
    assert_eq!((told, scene.live()), (vec![(4_000, Started, 1)], vec![job(4)]));

    let (scene, told) = with(Overlap::Queue).at(3_000).ticks(1);
    assert_eq!(told, [(1_000, Started, 1), (2_000, Queued, 1), (3_000, Queued, 1)]);
    let (scene, told) = scene.finish(1).ticks(10);
    assert_eq!((told, scene.live()), (vec![(2_000, Started, 1)], vec![job(10)]));
    let (scene, told) = scene.finish(10).ticks(20);
    assert_eq!((told, scene.live()), (vec![(3_000, Started, 1)], vec![job(20)]));
    assert_eq!(scene.job(job(20)).name(job(20)).as_str(), "nightly-20231114t221323z");

    // One that holds no room is over at once; the last tick is what counts.
    let (scene, told) = with(Overlap::Replace).at(3_000).ticks(1);
    let all = [(1_000, Started, 1), (2_000, Queued, 1), (2_000, Started, 1), (3_000, Queued, 1), (3_000, Started, 1)];
    assert_eq!(told, all);
    assert_eq!(scene.live().len(), 1);
    // One that runs is told to stop, and waited for; a later tick takes the place of one that waits.
    let (name, started_job) = (nightly(), scene.live()[0]);
    let scene = scene.and([joined(A), placed(started_job, 1, A), started(started_job, 1, T0)]);
    let (scene, told) = scene.at(5_000).ticks(30);
    assert_eq!(told, [(4_000, Queued, 1), (4_000, Skipped, 1), (5_000, Queued, 1)]);
    assert_eq!(scene.job(started_job).status, Status::Stopping);
    let (scene, told) = scene.when(report(A, started_job, 1, exited(0))).happened().0.ticks(40);
    assert_eq!((told, scene.live()), (vec![(5_000, Started, 1)], vec![job(40)]));
    assert_eq!(scene.state.schedule(&namespace(), &name).unwrap().skipped, 1);
}

#[test]
fn what_nobody_led_for_is_made_up_for_as_the_schedule_says() {
    use TickOutcome::{Missed, Skipped, Started};
    // Every minute, of which nobody led for ten.
    let behind = |catch_up| {
        let scene = given([]).when(put(Definition { catch_up, ..every("* * * * *") })).happened().0;
        scene.at(605_000).ticks(1)
    };
    // 22:13:20 is T0, so 40 s after it is the first minute.
    let (scene, told) = behind(CatchUp::None);
    assert_eq!(told, [(40_000, Missed, 10)]);
    assert_eq!(scene.state.schedule(&namespace(), &nightly()).unwrap().missed, 10);
    let (scene, told) = behind(CatchUp::One);
    assert_eq!(told, [(40_000, Missed, 9), (580_000, Started, 1)]);
    assert_eq!(scene.at(640_000).finish(2).ticks(9).1, [(640_000, Started, 1)]);
    let (_, told) = behind(CatchUp::All);
    assert_eq!(
        (told[0], told[1], told.len()),
        ((40_000, Started, 1), (100_000, Skipped, 1), 10),
        "overlap decides too"
    );

    // A change of leaders is shorter than what counts as late.
    let scene = given([]).when(put(Definition { catch_up: CatchUp::None, ..every("* * * * *") })).happened().0;
    assert_eq!(scene.at(50_000).ticks(1).1, [(40_000, Started, 1)]);

    // Of many, the newest are made up for, and all are accounted for.
    let (overlap, catch_up) = (Overlap::Queue, CatchUp::All);
    let scene = given([]).when(put(Definition { overlap, catch_up, ..every(EACH_SECOND) })).happened().0;
    let (scene, told) = scene.at(3_000_000).ticks(1);
    let missed: u64 = told.iter().filter(|(_, outcome, _)| *outcome == Missed).map(|(.., count)| count).sum();
    assert_eq!(missed, 3_000 - limits::CATCH_UP_MAX as u64 - 11, "eleven are not late");
    let known = scene.state.schedule(&namespace(), &nightly()).unwrap();
    assert_eq!(known.missed + known.skipped + known.started + known.queued.len() as u64, 3_000);
    assert_eq!(known.queued.len(), limits::TICKS_QUEUED_MAX, "and no more wait than may");
}

#[test]
fn a_schedule_that_is_paused_starts_nothing_and_owes_nothing() {
    let scene = given([]).when(put(every(EACH_SECOND))).happened().0;
    let scene = scene.at(1_500).when(pause(true)).happened().0.when(pause(true)).nothing();
    let scene = scene.at(50_000).when(tick(1)).stale();
    assert_eq!(timer::ticks(&scene.state, scene.time(), 9), []);
    let shown = view::schedule(&scene.state, &namespace(), &nightly()).unwrap();
    assert!(shown.paused && shown.next.is_empty());
    let scene = scene.when(pause(false)).happened().0;
    let (scene, told) = scene.at(51_000).ticks(1);
    assert_eq!(told, [(51_000, TickOutcome::Started, 1)]);
    let shown = view::schedule(&scene.state, &namespace(), &nightly()).unwrap();
    assert_eq!((shown.next.len(), shown.next[0]), (10, at(52_000)));
    assert_eq!((shown.missed, shown.last.unwrap().job), (0, Some(job(1))));
}

#[test]
fn a_trigger_is_beside_the_ticks() {
    let scene = given([]).when(put(every("@yearly"))).happened().0.at(2_345);
    let (scene, events) = scene.when(trigger(1, Some("t"))).happened();
    assert!(events.iter().all(|envelope| envelope.at == at(2_345)));
    assert_eq!(scene.job(job(1)).name(job(1)).as_str(), "nightly-20231114t221322z", "as every job of it");
    let scene = scene.when(trigger(2, Some("t"))).nothing();
    let scene = scene.when(trigger(2, None)).refused(InUse, "`overlap` is skip");
    let scene = scene.finish(1).when(pause(true)).happened().0;
    let (scene, _) = scene.when(trigger(3, None)).happened();
    assert_eq!(scene.live(), [job(3)], "also while it is paused");
    assert_eq!(scene.state.schedule(&namespace(), &nightly()).unwrap().started, 2);
}

#[test]
fn deleting_a_schedule_leaves_its_jobs() {
    let delete = |request_id| Command::DeleteSchedule {
        namespace: namespace(),
        origin: origin(request_id),
        schedule: nightly(),
    };
    let scene = given([]).when(put(every(EACH_SECOND))).happened().0.at(1_000).ticks(1).0;
    let scene = scene.when(delete(Some("d"))).happened().0.when(delete(Some("d"))).nothing();
    let scene = scene.when(delete(None)).refused(NotFound, "schedule `nightly`");
    assert_eq!(scene.job(job(1)).status, Status::Pending);
    scene.at(2_000).when(tick(2)).stale();
}

#[test]
fn a_tick_whose_job_is_refused_is_let_go_and_says_why() {
    let scene = given([]).when(put(every(EACH_SECOND))).happened().0;
    let scene = scene.and([submitted(job(9), batch().named("nightly-20231114t221321z"))]);
    let (scene, told) = scene.at(1_000).ticks(1);
    assert_eq!(told, [(1_000, TickOutcome::Skipped, 1)]);
    let last = scene.state.schedule(&namespace(), &nightly()).unwrap().last.clone().unwrap();
    assert!(last.reason.unwrap().contains("in_use: the name"));
}

#[test]
fn jitter_is_the_same_for_all_who_ask_and_spread() {
    let most = Millis(10_000);
    let of = |name: &str, tick| jitter(&namespace(), &name.parse().unwrap(), at(tick), most);
    assert_eq!(of("a", 1_000), of("a", 1_000));
    let drawn: BTreeSet<_> = (0..100).map(|i| of("a", i * 1_000)).collect();
    assert!(drawn.len() > 90 && drawn.iter().all(|off| *off <= most));
    let halves = (0..1_000).filter(|i| of(&format!("s-{i}"), 0) < Millis(5_000)).count();
    assert!((400..600).contains(&halves), "{halves}");
    let scene = given([]).when(put(Definition { jitter: Some(most), ..every("* * * * *") })).happened().0;
    let due = scene.state.next_tick_due().unwrap();
    assert_eq!(due, at(40_000) + of("nightly", 40_000));
    let (scene, told) = scene.at(due.0 - T0.0 - 1).ticks(1);
    assert!(told.is_empty());
    let (scene, told) = scene.at(due.0 - T0.0).ticks(1);
    assert_eq!(told, [(40_000, TickOutcome::Started, 1)]);
    assert_eq!(scene.live(), [job(1)]);
}

#[test]
fn schedules_survive_an_image() {
    let scene = given([]).when(put(Definition { overlap: Overlap::Queue, ..every(EACH_SECOND) })).happened().0;
    let (scene, _) = scene.at(3_000).ticks(1);
    let mut loaded: State = rmp_serde::from_slice(&rmp_serde::to_vec_named(&scene.state).unwrap()).unwrap();
    loaded.rebuild_index();
    assert_eq!(loaded, scene.state);
}

#[test]
fn schedules_are_listed_by_name_and_in_pages() {
    let put = |name: String| Command::PutSchedule {
        namespace: namespace(),
        origin: origin(None),
        schedule: name.parse().unwrap(),
        definition: Box::new(every("@daily")),
        paused: false,
    };
    let mut scene = given([]);
    for number in 0..25 {
        scene = scene.when(put(format!("{}-{number:02}", if number % 5 == 0 { "b" } else { "a" }))).happened().0;
    }
    let list = |request: &str| {
        view::schedules(&scene.state, &namespace(), &page_of(request))
            .map(|list| (list.schedules.iter().map(|view| view.name.to_string()).collect::<Vec<_>>(), list.cursor))
    };
    let (first, cursor) = list("10,").unwrap();
    assert_eq!((first.len(), first[0].as_str(), cursor.as_deref()), (10, "a-01", Some("a-12")));
    let (rest, cursor) = list("500,a-12").unwrap();
    assert_eq!((rest.len(), rest[14].as_str(), cursor), (15, "b-20", None));
    assert!(list("0,").is_err() && list("501,").is_err() && list("5,Not A Name").is_err());
    let named = |name: &str| {
        let request = ScheduleListRequest { name: Some(name.parse().unwrap()), ..Default::default() };
        view::schedules(&scene.state, &namespace(), &request).unwrap().schedules.len()
    };
    assert_eq!((named("a-13"), named("a")), (1, 0));
}

/// `limit,cursor`.
fn page_of(text: &str) -> ScheduleListRequest {
    let (limit, cursor) = text.split_once(',').unwrap();
    let cursor = (!cursor.is_empty()).then(|| cursor.to_owned());
    ScheduleListRequest { limit: limit.parse().ok(), cursor, ..Default::default() }
}

// Times, against a slow and plain reading of what `calendar` says of changing clocks.

/// A zone, and a day on which its clocks change, or an ordinary one.
const CHANGES: [(&str, &str); 8] = [
    ("America/New_York", "2026-03-08T00:00:00Z"),
    ("America/New_York", "2026-11-01T00:00:00Z"),
    ("Europe/Berlin", "2026-03-28T12:00:00Z"),
    ("Europe/Berlin", "2026-10-24T12:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T00:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T00:00:00Z"),
    ("America/Santiago", "2026-09-05T12:00:00Z"),
    ("Asia/Kolkata", "2026-06-01T00:00:00Z"),
];

/// Minutes and hours as an expression has them: all, every so many, or one.
#[derive(Clone, Copy, Debug)]
enum Field {
    All,
    Every(i8),
    At(i8),
}

impl Field {
    fn text(self) -> String {
        match self {
            Field::All => "*".to_owned(),
            Field::Every(step) => format!("*/{step}"),
            Field::At(value) => value.to_string(),
        }
    }

    fn has(self, value: i8) -> bool {
        match self {
            Field::All => true,
            Field::Every(step) => value % step == 0,
            Field::At(wanted) => value == wanted,
        }
    }
}

fn field(max: i8) -> impl Strategy<Value = Field> {
    prop_oneof![1 => Just(Field::All), 2 => (2..=max / 2).prop_map(Field::Every), 4 => (0..=max).prop_map(Field::At)]
}

/// Every minute of three days is asked whether it is a tick.
fn by_force(minute: Field, hour: Field, zone: &jiff::tz::TimeZone, from: Timestamp) -> Vec<Timestamp> {
    let fixed = matches!((minute, hour), (Field::At(_), Field::At(_)));
    let instant = |ms: u64| jiff::Timestamp::from_millisecond(ms as i64).unwrap();
    let mut found = Vec::new();
    let mut before: Option<jiff::Zoned> = None;
    for step in 0..3 * 24 * 60_u64 {
        let at = from.0 + step * 60_000;
        let local = instant(at).to_zoned(zone.clone());
        let matches = |time: jiff::civil::DateTime| minute.has(time.minute()) && hour.has(time.hour());
        let mut is_tick = matches(local.datetime());
        if let Some(before) = before.as_ref().filter(|_| fixed) {
            // What the clock leaves out comes at the first moment after it…
            let mut left_out = before.datetime() + jiff::SignedDuration::from_mins(1);
            while left_out < local.datetime() {
                is_tick |= matches(left_out);
                left_out += jiff::SignedDuration::from_mins(1);
            }
            // …and what it shows twice counts the first time.
            let resolved = zone.to_ambiguous_timestamp(local.datetime());
            if resolved.is_ambiguous() && resolved.earlier().unwrap() != local.timestamp() {
                is_tick = false;
            }
        }
        if is_tick {
            found.push(Timestamp(at));
        }
        before = Some(local);
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn times_are_those_that_a_plain_reading_finds(minute in field(59), hour in field(23), change in 0..CHANGES.len()) {
        let (name, day) = CHANGES[change];
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(name).unwrap();
        let from = Timestamp::parse(day).unwrap();
        let expected = by_force(minute, hour, &zone, from);
        let cron = format!("{} {} * * *", minute.text(), hour.text());
        let calendar = Calendar::of(&cron, name).unwrap();
        let end = from + Millis::minutes(3 * 24 * 60);
        let first = calendar.next_after(from - Millis(1)).unwrap();
        let found: Vec<_> = calendar.from(first).take_while(|tick| *tick < end).collect();
        prop_assert_eq!(&found, &expected, "{} in {}", cron, name);
        // Looking back finds the same.
        for pair in found.windows(2) {
            prop_assert_eq!(calendar.last_until(pair[1] - Millis(1)), Some(pair[0]), "{} in {}", cron, name);
        }
    }
}
