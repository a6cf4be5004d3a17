//! What users see of a job, and of many.

use super::scene::*;
use crate::view::{self, list};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Cause, Event, JobFinished};
use outlive_schemas::id::{Attempt, JobName, Namespace};
use outlive_schemas::limits;
use outlive_schemas::payload::Payload;
use outlive_schemas::request::ListRequest;
use outlive_schemas::view::{JobList, JobView, Status};

impl Scene {
    fn view(&self, number: u64) -> JobView {
        view::job(job(number), self.job(job(number)), at(1_000_000))
    }

    fn list(&self, request: &ListRequest) -> Result<JobList, Rejection> {
        list(&self.state, &namespace(), request, at(1_000_000))
    }

    /// The numbers of the jobs found, over all pages, and how many pages there were.
    fn listed(&self, mut request: ListRequest) -> (Vec<u64>, usize) {
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let page = self.list(&request).unwrap();
            pages += 1;
            found.extend(page.jobs.iter().map(|job| job.id.0.as_u128() as u16 as u64));
            match page.cursor {
                Some(cursor) => request.cursor = Some(cursor),
                None => return (found, pages),
            }
        }
    }
}

#[test]
fn a_job_shows_its_host_only_while_it_has_one_or_had_its_last() {
    let host = |scene: &Scene| scene.view(1).executor.map(|name| name.to_string());
    let scene = given([joined(A), submitted(job(1), service().named("counter"))]);
    assert_eq!((host(&scene), scene.view(1).attempt), (None, Attempt(0)));
    let scene = scene.and([placed(job(1), 1, A)]);
    assert_eq!(host(&scene).as_deref(), Some("executor-a-1"));
    let scene = scene.and([started(job(1), 1, T0), restarting(job(1), 1, Cause::ProcessExit, 1)]);
    assert_eq!(host(&scene), None);
    let scene = scene.and([placed(job(1), 2, A), finished(job(1), 2, Status::Failed, Some("x"), Some(1))]);
    let view = scene.view(1);
    assert_eq!((host(&scene).as_deref(), view.zone), (Some("executor-a-1"), Some(zone("a"))));
    assert_eq!(
        (view.status, view.reason.as_deref(), view.exit_code, view.restarts),
        (Status::Failed, Some("x"), Some(1), 1)
    );
    assert_eq!((view.name.as_str(), view.finished_at), ("counter", Some(T0)));
}

#[test]
fn the_next_try_is_shown_between_attempts_only() {
    let scene = given([joined(A)]).and(running(job(1), service(), A));
    assert_eq!(scene.view(1).next_try_at, None);
    let scene = scene.when(report(A, job(1), 1, exited(1))).happened().0;
    assert_eq!(scene.view(1).next_try_at, Some(at(1_000)));
    let scene = scene.and([placed(job(1), 2, A)]);
    assert_eq!(scene.view(1).next_try_at, None);
}

#[test]
fn a_recovery_is_measured_from_the_last_sign_of_life_to_the_new_start() {
    let scene = given([joined(A), joined(B)]).and(running(job(1), service(), A)).and([checkpointed(job(1), 1, 1)]);
    let scene = scene.at(2_000).when(lose(A, at(1_200))).happened().0.when(evict(job(1), 1)).happened().0;
    let scene = scene.at(2_010).when(place(job(1), 2, B)).happened().0;
    let start = report_aged(B, job(1), 2, 20, outlive_schemas::message::News::Started);
    let view = scene.at(2_100).when(start).happened().0.view(1);
    let recovery = view.last_recovery.unwrap();
    assert_eq!((recovery.lost_at, recovery.resumed_at, recovery.recovery_ms), (at(1_200), at(2_080), 880));
    assert_eq!((recovery.from_zone, recovery.to_zone), (Some(zone("a")), Some(zone("b"))));
    assert_eq!(recovery.restored_checkpoint.map(|n| n.0), Some(1));
    assert_eq!(view.checkpoint.map(|c| (c.number.0, c.size_bytes, c.uploaded_bytes)), Some((1, 4_096, 513)));
    assert_eq!(view.started_at, Some(T0));
}

fn many() -> Scene {
    let mut scene = given([]);
    for number in 1..=30 {
        let spec = if number % 3 == 0 { batch() } else { batch().named(&format!("x-{number}")) };
        let spec =
            spec.with(|s| drop(s.labels.insert("team".into(), if number % 2 == 0 { "even" } else { "odd" }.into())));
        scene = scene.and([submitted(job(number), spec)]);
        if number <= 10 {
            scene = scene.and([finished(job(number), 0, Status::Cancelled, None, None)]);
        }
    }
    scene
}

#[test]
fn a_list_is_newest_first_in_pages() {
    let scene = many();
    let newest_first: Vec<u64> = (1..=30).rev().collect();
    assert_eq!(scene.listed(ListRequest::default()), (newest_first.clone(), 1));
    assert_eq!(scene.listed(ListRequest { limit: Some(30), ..Default::default() }), (newest_first.clone(), 1));
    assert_eq!(scene.listed(ListRequest { limit: Some(7), ..Default::default() }), (newest_first.clone(), 5));
    assert_eq!(scene.listed(ListRequest { limit: Some(1), ..Default::default() }), (newest_first, 30));
}

#[test]
fn a_list_can_be_narrowed() {
    let scene = many();
    let of = |request| scene.listed(request).0;
    let cancelled = ListRequest { status: Some(vec![Status::Cancelled]), ..Default::default() };
    assert_eq!(of(cancelled), (1..=10).rev().collect::<Vec<_>>());
    assert!(of(ListRequest { status: Some(vec![]), ..Default::default() }).is_empty());
    assert_eq!(
        of(ListRequest { name_prefix: Some("x-2".into()), ..Default::default() }),
        [29, 28, 26, 25, 23, 22, 20, 2]
    );
    let automatic = ListRequest { name_prefix: Some("job-".into()), ..Default::default() };
    assert_eq!(of(automatic), (1..=10).rev().map(|n| n * 3).collect::<Vec<_>>());
    let odd = ListRequest {
        labels: Some([("team".into(), "odd".into())].into()),
        status: Some(vec![Status::Pending]),
        limit: Some(3),
        ..Default::default()
    };
    assert_eq!(of(odd), [29, 27, 25, 23, 21, 19, 17, 15, 13, 11]);
    let elsewhere = list(&scene.state, &Namespace::new("other").unwrap(), &ListRequest::default(), T0).unwrap();
    assert!(elsewhere.jobs.is_empty() && elsewhere.cursor.is_none());
}

#[test]
fn a_bad_page_is_refused() {
    let scene = many();
    for (request, part) in [
        (ListRequest { limit: Some(0), ..Default::default() }, "`limit` is 0, not within 1 to 1000"),
        (ListRequest { limit: Some(1_001), ..Default::default() }, "`limit` is 1001"),
        (ListRequest { cursor: Some("../x".into()), ..Default::default() }, "`cursor` is `../x`"),
        (ListRequest { cursor: Some("ü".repeat(10_000)), ..Default::default() }, "`cursor`"),
    ] {
        let refused = scene.list(&request).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidArgument);
        assert!(refused.message.contains(part) && refused.message.len() < 400, "{}", refused.message);
    }
}

#[test]
fn a_page_fits_a_reply_whatever_it_holds() {
    let mut scene = given([]);
    for number in 1..=40 {
        let labels = (0..limits::LABELS_MAX).map(|n| (format!("label-{n}").into(), "v".repeat(128).into())).collect();
        let done = JobFinished {
            job: job(number),
            attempt: Attempt(0),
            status: Status::Succeeded,
            reason: None,
            exit_code: Some(0),
            started_at: None,
            result: Some(Payload("r".repeat(100_000).into())),
            request_id: None,
        };
        scene = scene.and([submitted(job(number), batch().with(|s| s.labels = labels)), Event::JobFinished(done)]);
    }
    let page = scene.list(&ListRequest::default()).unwrap();
    let bytes = outlive_schemas::codec::Format::Json.encode(&page).len();
    assert!(page.cursor.is_some() && bytes < limits::MESSAGE_BYTES_MAX, "{bytes}");
    let (all, pages) = scene.listed(ListRequest::default());
    assert_eq!(all.len(), 40);
    assert!(pages > 5, "{pages}");
    let held: u64 = scene.state.held_bytes();
    assert!(held > 40 * (100_000 + 64 * 128), "results and labels count as held: {held}");
    assert!(scene.view(1).name.as_str().parse::<JobName>().is_ok());
}
