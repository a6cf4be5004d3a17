//! What `/readyz` says of a scheduler: it has the log to its end, as a standby by having read there a moment ago, as the
//! leader by being the end.
//!
//! A rolling upgrade may go on to the next scheduler when this one is ready. Whether the process is alive is another
//! question; see `outlive_store::telemetry::pulse`, which this keeps beating.

use crate::metrics;
use outlive_schemas::id::{Sequence, Term};
use outlive_store::telemetry::Pulse;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The end of the log is looked for every second; after so long it is out of reach, or runs away from us.
const BEHIND_MAX: Duration = Duration::from_secs(5);
/// JetStream elects within ten seconds; an append that takes longer waits for something else.
const APPEND_MAX: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug)]
enum Phase {
    Starting,
    Replaying,
    Following {
        at_head: Instant,
    },
    TakingOver(Term),
    Leading {
        /// Since when an append waits, if one does.
        appending: Option<Instant>,
        /// Whether anybody can reach it.
        connected: bool,
    },
}

/// Held by what does the work, and by whoever asks.
#[derive(Clone, Debug)]
pub struct Readiness {
    phase: Arc<Mutex<Phase>>,
    pub pulse: Pulse,
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness { phase: Arc::new(Mutex::new(Phase::Starting)), pulse: Pulse::default() }
    }
}

impl Readiness {
    pub fn replays(&self) {
        self.set(Phase::Replaying);
    }

    /// More of the log is folded.
    pub fn folded(&self, seq: Sequence, events: u64) {
        self.pulse.turned();
        metrics::folded(events);
        metrics::position(seq);
    }

    /// There was no more to read a moment ago.
    pub fn at_head(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*phase, Phase::Replaying | Phase::Following { .. }) {
            *phase = Phase::Following { at_head: Instant::now() };
        }
    }

    pub fn takes_over(&self, term: Term) {
        self.set(Phase::TakingOver(term));
    }

    /// The leader's loop has turned.
    pub fn leads(&self, append_waits: Option<Duration>, connected: bool) {
        self.pulse.turned();
        let appending = append_waits.and_then(|waits| Instant::now().checked_sub(waits));
        self.set(Phase::Leading { appending, connected });
    }

    /// Why it is not ready, if it is not.
    pub fn check(&self) -> Result<(), String> {
        self.check_at(Instant::now())
    }

    fn check_at(&self, now: Instant) -> Result<(), String> {
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |at: Instant| now.saturating_duration_since(at);
        match phase {
            Phase::Starting => Err("starting: waiting for NATS, its streams, or etcd".to_owned()),
            Phase::Replaying => Err("replaying the log".to_owned()),
            Phase::Following { at_head } if since(at_head) > BEHIND_MAX => {
                Err(format!("the end of the log was last seen {} s ago", since(at_head).as_secs()))
            }
            Phase::TakingOver(term) => Err(format!("term {term} is won; reading the log to its end")),
            Phase::Leading { connected: false, .. } => Err("not connected to any NATS server".to_owned()),
            Phase::Leading { appending: Some(at), .. } if since(at) > APPEND_MAX => {
                Err(format!("the log has taken no commit for {} s", since(at).as_secs()))
            }
            Phase::Following { .. } | Phase::Leading { .. } => Ok(()),
        }
    }

    fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(readiness: &Readiness, seconds: u64) -> Result<(), String> {
        readiness.check_at(Instant::now() + Duration::from_secs(seconds))
    }

    #[test]
    fn a_standby_is_ready_while_it_reads_to_the_end() {
        let readiness = Readiness::default();
        assert!(readiness.check().is_err());
        // Whoever has not begun to replay has no end.
        readiness.at_head();
        assert!(readiness.check().is_err());
        readiness.replays();
        assert_eq!(readiness.check(), Err("replaying the log".to_owned()));
        readiness.at_head();
        assert_eq!(later(&readiness, 4), Ok(()));
        let why = later(&readiness, 60).expect_err("behind");
        assert!(why.contains("seen 60 s ago") || why.contains("seen 59 s ago"), "{why}");
    }

    #[test]
    fn a_leader_is_ready_once_it_leads_and_while_the_log_takes_commits() {
        let readiness = Readiness::default();
        readiness.takes_over(Term(7));
        assert!(readiness.check().expect_err("not yet").contains("term 7"));
        // Reading to the end on the way to the barrier does not make it ready.
        readiness.at_head();
        assert!(readiness.check().is_err());
        readiness.leads(None, true);
        assert_eq!(later(&readiness, 1_000), Ok(()));
        readiness.leads(Some(Duration::from_secs(1)), true);
        assert_eq!(later(&readiness, 10), Ok(()));
        assert!(later(&readiness, 30).expect_err("stalled").contains("no commit"));
        readiness.leads(None, false);
        assert!(readiness.check().expect_err("cut off").contains("NATS"));
        readiness.replays();
        assert!(readiness.check().is_err());
    }
}
