//! What a job costs in the leader's memory. Ten million live ones are the limit, so a byte is ten megabytes.
//!
//! A binary of its own: the allocator that counts is the whole process's.

use outlive_core::decide::decide;
use outlive_core::fold::fold;
use outlive_core::state::{Job, State};
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
/// The aim is 1 KiB; twice that is a fault.
const BYTES_MAX: usize = 2_048;

/// Submits jobs one by one, each with a specification of its own, as they come from the wire.
fn submit(state: &mut State, with_request_ids: bool) {
    let namespace = Namespace::new("default").expect("a namespace");
    for number in 1..=JOBS {
        let id = JobId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)));
        let request_id = with_request_ids.then(|| Uuid::from_u128(u128::from(number)).to_string().into());
        let origin = Origin { request_id, by: None };
        let jobs = vec![(id, Arc::new(JobSpec::new(Driver::Noop(NoopSpec {}))))];
        let command = Command::SubmitJobs { namespace: namespace.clone(), origin, jobs };
        let events = decide(state, command, Timestamp(1_700_000_000_000 + number / 50)).expect("accepted");
        for event in events {
            fold(state, Sequence(number), &event).expect("it fits");
        }
    }
}

fn bytes_per_job(with_request_ids: bool) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    let mut state = State::default();
    submit(&mut state, with_request_ids);
    let held = HELD.load(Ordering::Relaxed) - before;
    assert_eq!(state.live_jobs(), JOBS);
    held / JOBS as usize
}

// One test: two at once would count one another's bytes.
#[test]
#[allow(clippy::disallowed_macros, reason = "the figure is for people to read")]
fn a_pending_noop_job_stays_small() {
    let plain = bytes_per_job(false);
    let idempotent = bytes_per_job(true);
    println!("a pending noop job takes {plain} bytes; with a request id of 36 characters {idempotent}");
    println!("of these Job is {}, JobSpec {}", size_of::<Job>(), size_of::<JobSpec>());
    assert!(plain <= BYTES_MAX && idempotent <= BYTES_MAX, "{plain} and {idempotent} bytes; the limit is {BYTES_MAX}");
}
