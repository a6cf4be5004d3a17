//! Whether a job is likely to come back to where its attempt has ended, so that what the attempt leaves on the disk is
//! worth keeping for a while.
//!
//! The leader decides, by how often the job has failed and where there is room, and is not asked: to be wrong costs some
//! disk for a while, or fetching a state that could have been at hand. Pure.

use outlive_schemas::job::{JobKind, JobSpec};
use outlive_schemas::message::Outcome;

/// By how the attempt ended, where it was not ended by order.
pub(super) fn is_likely(spec: &JobSpec, outcome: &Outcome) -> bool {
    let exit_code = match outcome {
        // The job goes on with the checkpoint before.
        Outcome::RestoreFailed { .. } => return true,
        // Given back: to others, or for a change of the job, for which another host is preferred.
        Outcome::Released(released) if !released.cause.is_own_doing() => return false,
        Outcome::Exited { code: 0 } if spec.kind == JobKind::Batch => return false,
        Outcome::Exited { code } => Some(*code),
        Outcome::Signalled { signal } => Some(signal.saturating_add(128)),
        Outcome::ResultRefused { .. } => Some(0),
        Outcome::TimedOut | Outcome::LaunchFailed { .. } | Outcome::NoProgress | Outcome::Released(_) => None,
    };
    let is_last = exit_code.is_some_and(|code| spec.restart.no_retry_exit_codes.contains(code));
    // How many failures there were before is known to the leader only.
    !is_last && spec.max_attempts() != Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::event::Cause;
    use outlive_schemas::message::Released;

    #[track_caller]
    fn check(restart: &str, outcome: Outcome, expected: bool) {
        let spec = format!(r#"{{"driver": {{"process": {{"command": ["true"]}}}}, {restart}}}"#);
        let spec: JobSpec = serde_json::from_str(&spec).expect("a spec");
        assert_eq!(is_likely(&spec, &outcome), expected, "{restart} {outcome:?}");
    }

    #[test]
    fn a_failure_leads_back_and_an_end_or_a_hand_over_does_not() {
        let (batch, service) = (r#""kind": "batch""#, r#""kind": "service""#);
        for kind in [batch, service] {
            check(kind, Outcome::Exited { code: 1 }, true);
            check(kind, Outcome::Signalled { signal: 9 }, true);
            check(kind, Outcome::TimedOut, true);
            check(kind, Outcome::NoProgress, true);
            check(kind, Outcome::LaunchFailed { reason: "x".into() }, true);
            for (cause, expected) in [(Cause::Drain, false), (Cause::Update, false), (Cause::Timeout, true)] {
                let released = Released { cause, checkpoint: None, fault: None };
                check(kind, Outcome::Released(released), expected);
            }
        }
        check(batch, Outcome::Exited { code: 0 }, false);
        check(service, Outcome::Exited { code: 0 }, true);
    }

    #[test]
    fn what_is_surely_the_last_attempt_leaves_nothing() {
        let once = r#""restart": {"max_attempts": 1}"#;
        check(once, Outcome::Exited { code: 1 }, false);
        check(once, Outcome::TimedOut, false);
        let number = outlive_schemas::id::CheckpointNumber(1);
        check(once, Outcome::RestoreFailed { number, reason: "x".into() }, true);
        let codes = r#""restart": {"no_retry_exit_codes": [2, 137]}"#;
        check(codes, Outcome::Exited { code: 2 }, false);
        check(codes, Outcome::Exited { code: 3 }, true);
        check(codes, Outcome::Signalled { signal: 9 }, false);
        check(codes, Outcome::Signalled { signal: 15 }, true);
    }
}
