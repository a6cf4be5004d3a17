//! Observations → verdicts on executors.
//!
//! Being cut off is not the same as everybody else being dead: a leader that does not hear itself judges nobody, one
//! that has just come or come back waits a full window, and where several zones fall silent together the verdict
//! waits for the leases as well.

pub mod zone;

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
    /// Probes in a row that found nobody listening, and when the first of them did.
    pub gone: u32,
    pub gone_since: Option<Timestamp>,
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
    pub zones: BTreeMap<Zone, zone::ZoneSeen>,
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
            gone_since: None,
            leased: true,
            leaving: false,
        }
    }

    pub fn heard(&mut self, now: Timestamp) {
        self.last_beat = Some(now);
        self.found();
    }

    /// It answered a probe.
    pub fn answered(&mut self, now: Timestamp) {
        self.last_answer = Some(now);
        self.found();
    }

    fn found(&mut self) {
        self.gone = 0;
        self.gone_since = None;
    }

    /// A probe found nobody listening.
    pub fn not_there(&mut self, now: Timestamp) {
        self.gone += 1;
        self.gone_since.get_or_insert(now);
    }

    /// The last sign of life.
    pub fn last_seen(&self) -> Timestamp {
        self.since.max(self.last_beat.unwrap_or_default()).max(self.last_answer.unwrap_or_default())
    }

    /// Whether it should get no work for now: a registration alone may be that of a process that is dead.
    pub fn is_suspect(&self, now: Timestamp) -> bool {
        self.last_beat.is_none() || self.is_late(now, SUSPECT_AFTER)
    }

    pub fn is_late(&self, now: Timestamp, by: Millis) -> bool {
        now.since(self.last_beat.unwrap_or(self.since)) > by
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
    let silent_zones: BTreeSet<&Zone> =
        observations.executors.values().filter(|e| silence(e) >= SILENT_TOGETHER).map(|e| &e.zone).collect();

    // Somebody in every other zone must have been heard since nobody was found here: a leader whose server has lost the
    // others finds nobody anywhere.
    let anybody_gone = observations.executors.values().any(|observed| observed.gone > 0);
    let heard = if anybody_gone { heard(observations) } else { BTreeMap::new() };
    let mut asked: BTreeSet<&Zone> = BTreeSet::new();
    for observed in observations.executors.values().filter(|observed| observed.gone > 0) {
        asked.extend(unheard(&heard, observed));
    }

    let mut verdicts = Vec::new();
    for (&executor, observed) in &observations.executors {
        let lost = |reason| Verdict::Lost { executor, reason, last_seen: observed.last_seen() };
        if observed.leaving && !observed.leased {
            verdicts.push(lost(LossReason::Left));
        } else if observed.gone >= GONE_PROBES && (!observed.leased || unheard(&heard, observed).next().is_none()) {
            verdicts.push(lost(LossReason::ProcessGone));
        } else if silence(observed) >= SILENT_AFTER && (silent_zones.len() < 2 || !observed.leased) {
            verdicts.push(lost(LossReason::Silent));
        } else if ((observed.is_late(now, PROBE_AFTER) && now.since(since) > PROBE_AFTER)
            || asked.contains(&observed.zone))
            && observed.last_probe.is_none_or(|at| now.since(at) >= PROBE_INTERVAL)
        {
            verdicts.push(Verdict::Probe(executor));
        }
    }
    verdicts
}

/// Other zones of which nobody was heard since nobody was found here.
fn unheard<'a>(heard: &'a BTreeMap<&'a Zone, Timestamp>, than: &'a Observed) -> impl Iterator<Item = &'a Zone> {
    let gone_since = than.gone_since.unwrap_or_else(|| than.last_seen());
    let silent = heard.iter().filter(move |(zone, at)| **zone != &than.zone && **at < gone_since);
    silent.map(|(zone, _)| *zone)
}

/// When anybody of each zone was last heard.
fn heard(observations: &Observations) -> BTreeMap<&Zone, Timestamp> {
    let mut heard: BTreeMap<&Zone, Timestamp> = BTreeMap::new();
    for observed in observations.executors.values() {
        let at = heard.entry(&observed.zone).or_default();
        *at = observed.last_seen().max(*at);
    }
    heard
}
