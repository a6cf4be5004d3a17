//! What leaves the machine where tasks of an array are named by their indexes.

use super::*;

const ARRAY: &str = r#"{"driver":{"noop":{}},"name":"resize","array":{"count":4,"parallel":1}}"#;

/// What is answered to it, whether or not there is a commit to wait for.
fn asked(m: &mut Machine, operation: Operation, body: &str, request_id: &str) -> Vec<Output> {
    let mut out = m.ask(operation, body, Some(request_id));
    out.extend(m.settle());
    out
}

#[test]
fn who_waits_for_a_task_that_is_cancelled_before_it_begins_is_answered() {
    for (cancel, cancelled) in [
        (r#"{"job":"resize","indexes":"0,3"}"#, 1),
        // Of the whole the same is true.
        (r#"{"job":"resize"}"#, 3),
    ] {
        let mut m = machine(WitnessMode::Interval).with_executor(10);
        m.ask(Operation::Submit, ARRAY, None);
        assert_eq!(assigned(&m.settle()).len(), 1, "the first task");
        assert!(m.ask(Operation::Wait, r#"{"job":"resize-3","timeout":"5s"}"#, None).is_empty());
        assert!(m.ask(Operation::Wait, r#"{"job":"resize-1","timeout":"5s"}"#, None).is_empty());
        let out = asked(&mut m, Operation::Cancel, cancel, "once");
        let views: Vec<_> = answers(&out)
            .into_iter()
            .filter_map(|a| if let Answer::Job(view) = a { Some(view) } else { None })
            .collect();
        let of = |name: &str| views.iter().find(|view| view.name.as_str() == name);
        let task = of("resize-3").expect("its wait is over");
        assert_eq!((task.status, task.reason.as_deref()), (Status::Cancelled, Some("cancelled before it ran")));
        assert_eq!(of("resize-1").is_some(), cancelled == 3);
        let tasks = of("resize").and_then(|array| array.tasks).expect("the answer to the cancellation");
        assert_eq!((tasks.pending, tasks.cancelled), (3 - cancelled, cancelled));
        assert!(out.iter().any(|o| matches!(o, Output::Order { order: ToExecutor { order: Order::Stop(_), .. }, .. })));
        let out = asked(&mut m, Operation::Wait, r#"{"job":"resize-3","timeout":"5s"}"#, "wait");
        assert!(matches!(answers(&out)[..], [Answer::Job(view)] if view.status == Status::Cancelled), "{out:?}");
    }
}

#[test]
fn tasks_are_tried_again_once_however_often_one_request_comes() {
    let mut m = machine(WitnessMode::Interval).with_executor(10);
    m.ask(Operation::Submit, ARRAY, None);
    m.settle();
    asked(&mut m, Operation::Cancel, r#"{"job":"resize","indexes":"2-3"}"#, "cancel");
    for (operation, indexes, id) in
        [(Operation::Retry, "3", "retry"), (Operation::Retry, "3", "retry"), (Operation::Cancel, "2-3", "cancel")]
    {
        let out = asked(&mut m, operation, &format!(r#"{{"job":"resize","indexes":"{indexes}"}}"#), id);
        match answers(&out)[..] {
            [Answer::Retried(retried)] => assert_eq!(retried.retried, 1),
            [Answer::Job(view)] => {
                let tasks = view.tasks.expect("an array");
                assert_eq!((tasks.pending, tasks.cancelled), (2, 1), "what was tried again since stays so");
            }
            _ => panic!("{out:?}"),
        }
    }
    let out = asked(&mut m, Operation::Retry, r#"{"job":"resize","indexes":"3"}"#, "another");
    let [Answer::Rejected(rejection)] = answers(&out)[..] else { panic!("{out:?}") };
    assert_eq!(rejection.code, ErrorCode::InUse, "{}", rejection.message);
}
