//! Whether a leader is gone: what a standby hears of it → when to ask, and when to depose. Pure.
//!
//! The log is the fence, so taking over too early is safe; it only costs the fleet a moment. A leader whose process is
//! gone is known by its private subject, where nobody listens any more; a silent one by its silence.

use crate::watch::Probed;
use outlive_schemas::id::Term;
use outlive_schemas::time::{Millis, Timestamp};

/// A leader beats every quarter of a second; one whose beat is a little late is asked.
pub const PROBE_AFTER: Millis = Millis(300);
/// How often to look, and so the least time between two probes.
pub const PROBE_INTERVAL: Millis = Millis(100);
/// "Nobody listens there" this often in a row means that the process is gone.
pub const GONE_PROBES: u32 = 2;
/// Without a beat or an answer for this long a leader is taken for gone.
pub const SILENT_AFTER: Millis = Millis(2_000);

/// Why a leader is to be deposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    ProcessGone,
    Silent,
}

/// What a standby knows of the leader of one term.
#[derive(Clone, Copy, Debug)]
pub struct Suspicion {
    term: Term,
    heard: Timestamp,
    gone_probes: u32,
    /// Since when this standby is connected.
    connected: Timestamp,
}

impl Suspicion {
    pub fn new(term: Term, now: Timestamp) -> Suspicion {
        Suspicion { term, heard: now, gone_probes: 0, connected: Timestamp(0) }
    }

    /// Since when this standby is connected. A server that is back itself may not have found the others yet, and says
    /// that nobody is there of whoever is on theirs: for a while only silence counts.
    pub fn connected_since(&mut self, at: Timestamp) {
        self.connected = at;
    }

    /// A beat of this leader, or of a later one.
    pub fn beat(&mut self, term: Term, now: Timestamp) {
        if term >= self.term {
            (self.heard, self.gone_probes) = (now, 0);
        }
    }

    /// Every [`PROBE_INTERVAL`]: whether to probe now. Whoever does not listen, because it is not connected, hears
    /// nobody, and has no business judging.
    pub fn is_probe_due(&mut self, listening: bool, now: Timestamp) -> bool {
        if !listening {
            self.heard = now;
        }
        now.since(self.heard) >= PROBE_AFTER
    }

    /// What the probe found, and whether the leader is gone. Silence is judged only here, so that a standby that has
    /// been paused itself asks before it judges.
    pub fn probed(&mut self, found: Probed, now: Timestamp) -> Option<Gone> {
        match found {
            Probed::Here => (self.heard, self.gone_probes) = (now, 0),
            Probed::NobodyThere => self.gone_probes += 1,
            Probed::Silent => {}
        }
        if self.gone_probes >= GONE_PROBES && now.since(self.connected) >= SILENT_AFTER {
            return Some(Gone::ProcessGone);
        }
        (now.since(self.heard) >= SILENT_AFTER).then_some(Gone::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(10_000);

    fn suspicion() -> Suspicion {
        Suspicion::new(Term(3), START)
    }

    #[test]
    fn a_leader_that_beats_is_not_asked() {
        let mut suspicion = suspicion();
        assert!(!suspicion.is_probe_due(true, START + Millis(299)));
        suspicion.beat(Term(3), START + Millis(299));
        assert!(!suspicion.is_probe_due(true, START + Millis(598)));
        suspicion.beat(Term(2), START + Millis(590));
        assert!(suspicion.is_probe_due(true, START + Millis(599)), "an older leader's beat says nothing of this one");
    }

    #[test]
    fn nobody_there_twice_is_gone_and_one_answer_undoes_it() {
        let mut suspicion = suspicion();
        let at = START + Millis(500);
        assert_eq!(suspicion.probed(Probed::NobodyThere, at), None);
        assert_eq!(suspicion.probed(Probed::Here, at), None);
        assert_eq!(suspicion.probed(Probed::NobodyThere, at), None);
        assert_eq!(suspicion.probed(Probed::NobodyThere, at), Some(Gone::ProcessGone));
    }

    #[test]
    fn nobody_there_says_little_to_one_that_has_just_been_connected() {
        let mut suspicion = suspicion();
        suspicion.connected_since(START);
        let soon = |ms| START + Millis(ms);
        assert_eq!(suspicion.probed(Probed::NobodyThere, soon(400)), None);
        assert_eq!(suspicion.probed(Probed::NobodyThere, soon(500)), None, "its server may not have found the others");
        suspicion.beat(Term(3), soon(900));
        assert_eq!(suspicion.probed(Probed::NobodyThere, soon(2_000)), None);
        assert_eq!(suspicion.probed(Probed::NobodyThere, soon(2_100)), Some(Gone::ProcessGone));
    }

    #[test]
    fn silence_is_judged_after_asking_and_only_by_those_who_listen() {
        let mut suspicion = suspicion();
        assert!(suspicion.is_probe_due(true, START + Millis(60_000)), "it was paused, and asks first");
        assert_eq!(suspicion.probed(Probed::Here, START + Millis(60_000)), None);
        assert_eq!(suspicion.probed(Probed::Silent, START + Millis(61_999)), None);
        assert!(!suspicion.is_probe_due(false, START + Millis(61_999)), "deaf");
        assert_eq!(suspicion.probed(Probed::Silent, START + Millis(63_998)), None);
        assert_eq!(suspicion.probed(Probed::Silent, START + Millis(63_999)), Some(Gone::Silent));
    }
}
