//! Observations → verdicts on executors.
//!
//! Being cut off is not the same as everybody else being dead: a leader that does not hear itself judges nobody, one
//! that has just come or come back waits a full window, and where several zones fall silent together the verdict
//! waits for the leases as well.

use outlive_schemas::command::LossReason;
use outlive_schemas::id::{ExecutorId, Zone};
use outlive_schemas::time::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Executors beat four times a second. One whose beat is a little late is asked: that costs a small message, and where
/// its process is gone the recovery of each of its jobs waits for the answer.
pub const PROBE_AFTER: Millis = Millis(300);
/// A beat may be late by nearly another before its executor gets no more work.
pub const SUSPECT_AFTER: Millis = Millis(450);
/// Two probes this far apart.
pub const PROBE_INTERVAL: Millis = Millis(100);
/// "Nobody listens there" this often in a row means that the process is gone.
pub const GONE_PROBES: u32 = 2;
/// Neither beats nor answers for this long is a loss.
pub const SILENT_AFTER: Millis = Millis(2_000);
/// Zones that have been silent for this long at the same time fell silent together: beats do not end on the same tick.
pub const SILENT_TOGETHER: Millis = Millis(1_000);
/// A leader hears its own beats, or it is cut off.
pub const OWN_BEAT_WITHIN: Millis = Millis(750);

/// What the leader has seen of one executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub zone: Zone,
    /// When it joined, or when this leader first heard of it.
    pub since: Timestamp,
    pub last_beat: Option<Timestamp>,
    pub last_probe: Option<Timestamp>,
    /// The last time it answered a probe.
    pub last_answer: Option<Timestamp>,
    /// Probes in a row that found nobody listening.
    pub gone: u32,
    /// Whether its registration is there, as far as is known.
    pub leased: bool,
    /// It said that it is going.
    pub leaving: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// When this leader began to listen, or was connected again.
    pub listening_since: Timestamp,
    pub own_beat_heard: Option<Timestamp>,
    pub executors: BTreeMap<ExecutorId, Observed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Probe(ExecutorId),
    Lost { executor: ExecutorId, reason: LossReason, last_seen: Timestamp },
}

impl Observed {
    pub fn new(zone: Zone, since: Timestamp) -> Observed {
        Observed {
            zone,
            since,
            last_beat: None,
            last_probe: None,
            last_answer: None,
            gone: 0,
            leased: true,
            leaving: false,
        }
    }

    pub fn heard(&mut self, now: Timestamp) {
        self.last_beat = Some(now);
        self.gone = 0;
    }

    /// The last sign of life.
    pub fn last_seen(&self) -> Timestamp {
        self.since.max(self.last_beat.unwrap_or_default()).max(self.last_answer.unwrap_or_default())
    }

    /// Whether it should get no work for now.
    pub fn is_suspect(&self, now: Timestamp) -> bool {
        self.unheard(now) > SUSPECT_AFTER
    }

    fn unheard(&self, now: Timestamp) -> Millis {
        now.since(self.last_beat.unwrap_or(self.since))
    }
}

impl Observations {
    /// Whether this leader is cut off, or too new, to judge anybody.
    pub fn is_isolated(&self, now: Timestamp) -> bool {
        self.own_beat_heard.is_none_or(|heard| now.since(heard) > OWN_BEAT_WITHIN)
    }
}

pub fn detect(observations: &Observations, now: Timestamp) -> Vec<Verdict> {
    if observations.is_isolated(now) {
        return Vec::new();
    }
    let since = observations.listening_since;
    // What was said before this leader listened was not for it to hear: nobody is silent before a full window.
    let silence = |e: &Observed| now.since(e.last_seen().max(since));
    let silent_zones: BTreeSet<&Zone> = observations
        .executors
        .values()
        .filter(|e| e.gone == 0 && silence(e) >= SILENT_TOGETHER)
        .map(|e| &e.zone)
        .collect();

    let mut verdicts = Vec::new();
    for (&executor, observed) in &observations.executors {
        let lost = |reason| Verdict::Lost { executor, reason, last_seen: observed.last_seen() };
        if observed.leaving && !observed.leased {
            verdicts.push(lost(LossReason::Left));
        } else if observed.gone >= GONE_PROBES {
            verdicts.push(lost(LossReason::ProcessGone));
        } else if silence(observed) >= SILENT_AFTER && (silent_zones.len() < 2 || !observed.leased) {
            verdicts.push(lost(LossReason::Silent));
        } else if observed.unheard(now) > PROBE_AFTER
            && now.since(since) > PROBE_AFTER
            && observed.last_probe.is_none_or(|at| now.since(at) >= PROBE_INTERVAL)
        {
            verdicts.push(Verdict::Probe(executor));
        }
    }
    verdicts
}
