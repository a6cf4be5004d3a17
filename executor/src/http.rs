//! When this executor is ready: it is registered, and a leader was heard a moment ago.
//!
//! The pages themselves are `outlive_store::telemetry`'s, shared with the scheduler.

use crate::shim::BootTime;
use outlive_store::telemetry::Pulse;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// A leader is heard several times a second; after this long there is none, or we do not hear it.
const LEADER_SILENCE_MAX: Duration = Duration::from_secs(5);

/// What the loop knows and `/readyz` tells.
#[derive(Debug, Default)]
pub struct Readiness {
    /// Whether the loop turns, which `/livez` tells.
    pub pulse: Pulse,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    registered: bool,
    leader_heard_at: Option<BootTime>,
}

impl Readiness {
    pub fn set_registered(&self, registered: bool) {
        self.change(|state| state.registered = registered);
    }

    pub fn leader_heard(&self) {
        self.change(|state| state.leader_heard_at = Some(BootTime::now()));
    }

    pub fn leader_heard_ms_ago(&self) -> Option<u64> {
        let heard = self.state.lock().unwrap_or_else(PoisonError::into_inner).leader_heard_at;
        heard.map(|at| u64::try_from(BootTime::now().since(at).as_millis()).unwrap_or(u64::MAX))
    }

    /// Why it is not ready, if it is not.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.registered {
            return Err("not registered in etcd yet".to_owned());
        }
        match state.leader_heard_at.map(|at| BootTime::now().since(at)) {
            None => Err("no leader has been heard yet".to_owned()),
            Some(ago) if ago > LEADER_SILENCE_MAX => Err(format!("no leader has been heard for {} s", ago.as_secs())),
            Some(_) => Ok(()),
        }
    }

    /// A change of one field leaves nothing half done, so a poisoned lock is as good as any.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_registered_and_led() {
        let readiness = Readiness::default();
        assert!(readiness.check().expect_err("new").contains("registered"));
        readiness.set_registered(true);
        assert!(readiness.check().expect_err("alone").contains("leader"));
        assert_eq!(readiness.leader_heard_ms_ago(), None);
        readiness.leader_heard();
        assert_eq!(readiness.check(), Ok(()));
        readiness.set_registered(false);
        assert!(readiness.check().is_err());
    }
}
