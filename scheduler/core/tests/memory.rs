//! What a job costs in the leader's memory. Ten million live ones are the limit, so a byte is ten megabytes.
//!
//! A binary of its own: the allocator that counts is the whole process's.

use outlive_core::array;
use outlive_core::decide::decide;
use outlive_core::fold::fold;
use outlive_core::state::{Job, State};
use outlive_schemas::array::ArraySpec;
use outlive_schemas::command::{Command, Origin};
use outlive_schemas::id::{JobId, Namespace, Sequence};
use outlive_schemas::job::{Driver, JobSpec, NoopSpec};
use outlive_schemas::time::Timestamp;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; only sums are kept beside it.
#[allow(unsafe_code, reason = "an allocator cannot be counted from outside")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What the usual allocators take for it: eight bytes of their own, in steps of sixteen, at least thirty-two.
fn taken(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const JOBS: u64 = 20_000;
/// The limits on live jobs reckon with 1 KiB for the usual job.
const BYTES_MAX: usize = 1_024;
/// What the extras may add: a request id, and a specification unlike the one before.
const EXTRAS_BYTES_MAX: usize = 512;

/// Submits jobs one by one, each with a specification of its own, as they come from the wire.
fn submit(state: &mut State, with_request_ids: bool, alike: bool) {
    let namespace = Namespace::new("default").expect("a namespace");
    for number in 1..=JOBS {
        let id = JobId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)));
        let request_id = with_request_ids.then(|| Uuid::from_u128(u128::from(number)).to_string().into());
        let origin = Origin { request_id, by: None };
        let mut spec = JobSpec::new(Driver::Noop(NoopSpec {}));
        if !alike {
            spec.resources.cpu_millis = 100 + (number % 2) as u32;
        }
        let jobs = vec![(id, Arc::new(spec))];
        let command = Command::SubmitJobs { namespace: namespace.clone(), origin, jobs };
        let events = decide(state, command, Timestamp(1_700_000_000_000 + number / 50)).expect("accepted");
        for event in events {
            fold(state, Sequence(number), &event).expect("it fits");
        }
    }
}

fn bytes_per_job(with_request_ids: bool, alike: bool) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    let mut state = State::default();
    submit(&mut state, with_request_ids, alike);
    let held = HELD.load(Ordering::Relaxed) - before;
    assert_eq!(state.live_jobs(), JOBS);
    held / JOBS as usize
}

/// One array of as many tasks as there are jobs elsewhere, with as many on their way as there may be by default.
fn bytes_per_task() -> usize {
    let before = HELD.load(Ordering::Relaxed);
    let mut state = State::default();
    let namespace = Namespace::new("default").expect("a namespace");
    let mut spec = JobSpec::new(Driver::Noop(NoopSpec {}));
    spec.array = Some(ArraySpec { count: JOBS as u32, parallel: None });
    let id = JobId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000));
    let jobs = vec![(id, Arc::new(spec))];
    let mut commands = vec![Command::SubmitJobs { namespace, origin: Origin::default(), jobs }];
    let mut seq = 0;
    while !commands.is_empty() {
        for command in commands {
            for event in decide(&state, command, Timestamp(1_700_000_000_000)).expect("accepted") {
                seq += 1;
                fold(&mut state, Sequence(seq), &event).expect("it fits");
            }
        }
        commands = array::due(&state, 10);
    }
    assert_eq!(state.live_jobs(), 1_001);
    (HELD.load(Ordering::Relaxed) - before) / JOBS as usize
}

// One test: two at once would count one another's bytes.
#[test]
#[allow(clippy::disallowed_macros, reason = "the figure is for people to read")]
fn a_pending_noop_job_stays_small() {
    let plain = bytes_per_job(false, true);
    let unlike = bytes_per_job(false, false);
    let idempotent = bytes_per_job(true, true);
    println!("a pending noop job takes {plain} bytes");
    println!("with a specification unlike the one before {unlike}, with a request id of 36 characters {idempotent}");
    let task = bytes_per_task();
    println!("a task of an array takes {task} bytes, with 1,000 of {JOBS} on their way");
    assert!(task * 10 <= plain, "{task} bytes; a job takes {plain}");
    println!("of these Job is {}, JobSpec {}", size_of::<Job>(), size_of::<JobSpec>());
    assert!(plain <= BYTES_MAX, "{plain} bytes; the limit is {BYTES_MAX}");
    assert!(unlike <= plain + EXTRAS_BYTES_MAX && idempotent <= plain + EXTRAS_BYTES_MAX, "{unlike}, {idempotent}");
}
