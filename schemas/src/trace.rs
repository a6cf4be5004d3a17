//! Trace context as the W3C has it: the `traceparent` header of a submission, carried along to the job's processes.
//!
//! Spans of Outlive's own need no random ids: they follow from the job, the attempt and what is done, so that two
//! parts that never spoke agree on them, and repeating a thing does not make two of it.

use crate::id::{Attempt, JobId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A trace, and the span in it that what follows belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceContext {
    pub trace: u128,
    pub span: u64,
    /// Whether the one who began the trace records it.
    pub sampled: bool,
}

/// What Outlive does for a job that is worth a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// From the request until it is answered.
    Submit,
    /// The append that made it durable.
    Commit,
    /// From the decision where it runs until the order is sent.
    Place,
    /// On the executor, from the order until the process runs.
    Start,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Step::Submit => "submit",
            Step::Commit => "commit",
            Step::Place => "place",
            Step::Start => "start",
        }
    }
}

impl TraceContext {
    /// Reads a `traceparent`. What is malformed is nothing: a client's slip in it must not cost it its job.
    pub fn parse(text: &str) -> Option<TraceContext> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if !(hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2)) {
            return None;
        }
        // Version 00 has exactly four parts; later ones may have more.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let (trace, span) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (trace != 0 && span != 0).then_some(TraceContext { trace, span, sampled: flags & 1 == 1 })
    }

    /// A trace of our own, for a job whose client began none: the job's id is the trace's.
    pub fn of_job(job: JobId) -> TraceContext {
        TraceContext { trace: job.0.as_u128(), span: mixed(job, Attempt(0), 0), sampled: true }
    }

    /// The span of a step in the same trace.
    #[must_use]
    pub fn at(self, job: JobId, attempt: Attempt, step: Step) -> TraceContext {
        TraceContext { span: mixed(job, attempt, 1 + step as u64), ..self }
    }
}

/// Never 0, which would be no span.
fn mixed(job: JobId, attempt: Attempt, what: u64) -> u64 {
    let (high, low) = job.0.as_u64_pair();
    let mut mixed = high ^ low.rotate_left(32) ^ (u64::from(attempt.0) << 8 | what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(multiplier);
    }
    (mixed ^ (mixed >> 31)).max(1)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<TraceContext, D::Error> {
        let text = String::deserialize(from)?;
        TraceContext::parse(&text).ok_or_else(|| serde::de::Error::custom("it is no traceparent"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(text).expect("well formed");
        assert_eq!(context.to_string(), text);
        assert!(context.sampled);
        for malformed in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(malformed), None, "{malformed}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more";
        assert_eq!(TraceContext::parse(later).map(|context| context.sampled), Some(false));
    }

    #[test]
    fn each_step_of_each_attempt_has_a_span_of_its_own() {
        let job = JobId(uuid::Uuid::from_u128(7));
        let context = TraceContext::of_job(job);
        let mut spans = std::collections::BTreeSet::from([context.span]);
        for attempt in 0..100 {
            for step in [Step::Submit, Step::Commit, Step::Place, Step::Start] {
                let child = context.at(job, Attempt(attempt), step);
                assert_eq!(child.trace, context.trace);
                assert!(spans.insert(child.span), "{attempt} {step:?}");
            }
        }
    }
}
