//! Real processes under real shims: how attempts start, speak, end, are frozen and are never left behind.
//!
//! Nothing here waits for a time to pass; everything waits for a condition, with a bound that is generous on a slow
//! machine.

// A test that cannot go on fails where it stands; the lint's own exception sees functions marked as tests only.
#![allow(clippy::unwrap_used)]

mod world;

mod channel;
mod ending;
mod freezing;
mod orphans;
mod starting;
