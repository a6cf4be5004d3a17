//! What a schedule owes, counted beside the system: each tick once, and none left out.
//!
//! The expressions that simulated users put are of every so many seconds, so that the times follow from a sum here, and
//! not from what is being checked.

use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::id::{JobId, ScheduleName};
use outlive_schemas::schedule::{NextTick, TickKind, TickOutcome};
use outlive_schemas::time::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How late a tick may be once nothing is broken any more.
const BOUND: Millis = Millis::secs(20);

#[derive(Clone, Debug, Default)]
pub struct Ticks {
    schedules: BTreeMap<ScheduleName, Owed>,
    /// Ticks that led to a job; also those of schedules that have been deleted.
    started: BTreeSet<(ScheduleName, Timestamp)>,
    /// Jobs submitted in this commit, and not yet claimed by a tick.
    fresh: BTreeSet<JobId>,
}

#[derive(Clone, Debug)]
struct Owed {
    every: Millis,
    paused: bool,
    next: Option<Timestamp>,
    /// Oldest first.
    queued: VecDeque<Timestamp>,
}

/// The expression for every so many seconds, of which a minute is a multiple.
pub fn every(seconds: u64) -> String {
    format!("*/{seconds} * * * * *")
}

impl Ticks {
    pub fn begin_commit(&mut self) {
        self.fresh.clear();
    }

    /// Holds an event against what is owed.
    pub fn hold(&mut self, envelope: &Envelope) -> Result<(), String> {
        match &envelope.event {
            Event::JobSubmitted(e) => {
                self.fresh.insert(e.job);
            }
            Event::ScheduleSet(e) => {
                let seconds = e.definition.cron.trim_start_matches("*/").split(' ').next().and_then(|n| n.parse().ok());
                let every = Millis::secs(seconds.ok_or("an expression that nobody put")?);
                let known = self.schedules.remove(&e.schedule);
                let goes_on = known.as_ref().filter(|known| known.every == every && !known.paused && !e.paused);
                let next = goes_on.map_or(Some(after(envelope.at, every)), |known| known.next);
                same(&e.schedule, next, e.next)?;
                let queued = known.map_or_else(VecDeque::new, |known| known.queued);
                self.schedules.insert(e.schedule.clone(), Owed { every, paused: e.paused, next, queued });
            }
            Event::SchedulePaused(e) => {
                let owed = self.schedules.get_mut(&e.schedule).ok_or("a schedule that nobody put")?;
                owed.paused = e.paused;
                owed.next = Some(after(envelope.at, owed.every));
                same(&e.schedule, owed.next, e.next)?;
            }
            Event::ScheduleDeleted(e) => {
                self.schedules.remove(&e.schedule);
            }
            Event::ScheduleTicked(e) => {
                let name = &e.schedule;
                let owed = self.schedules.get_mut(name).ok_or("a schedule that nobody put")?;
                match e.kind {
                    TickKind::Due => {
                        if owed.paused || owed.next != Some(e.tick) || e.tick > envelope.at {
                            let (tick, next) = (e.tick, owed.next);
                            return Err(format!("tick {tick} of {name} is taken, and {next:?} is owed"));
                        }
                        owed.next = Some(e.tick + Millis(owed.every.0 * e.count));
                        same(name, owed.next, e.next)?;
                    }
                    TickKind::Waited if owed.queued.pop_front() != Some(e.tick) => {
                        return Err(format!("tick {} of {name} is said to have waited longest, and did not", e.tick));
                    }
                    TickKind::Waited | TickKind::Triggered => {}
                }
                match e.outcome {
                    TickOutcome::Queued if is_its_own(e.tick) && owed.queued.contains(&e.tick) => {
                        return Err(format!("tick {} of {name} waits twice", e.tick));
                    }
                    TickOutcome::Queued => owed.queued.push_back(e.tick),
                    TickOutcome::Started => {
                        if !e.job.is_some_and(|job| self.fresh.remove(&job)) {
                            return Err(format!("tick {} of {name} has no job of its own in its commit", e.tick));
                        }
                        if is_its_own(e.tick) && !self.started.insert((name.clone(), e.tick)) {
                            return Err(format!("tick {} of {name} is doubled", e.tick));
                        }
                    }
                    TickOutcome::Skipped | TickOutcome::Missed => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The first tick that is owed and long overdue.
    pub fn overdue(&self, now: Timestamp) -> Option<String> {
        let late = self.schedules.iter().filter(|(_, owed)| !owed.paused);
        let mut late = late.filter_map(|(name, owed)| Some((name, owed.next.filter(|next| *next + BOUND < now)?)));
        late.next().map(|(name, next)| format!("tick {next} of {name} has vanished: it is {now}"))
    }

    pub fn names(&self) -> Vec<ScheduleName> {
        self.schedules.keys().cloned().collect()
    }
}

/// What users trigger never bears a whole second; they may do it twice in a millisecond.
fn is_its_own(tick: Timestamp) -> bool {
    tick.0.is_multiple_of(1_000)
}

fn after(moment: Timestamp, every: Millis) -> Timestamp {
    Timestamp((moment.0 / every.0 + 1) * every.0)
}

fn same(name: &ScheduleName, owed: Option<Timestamp>, told: Option<NextTick>) -> Result<(), String> {
    let told = told.map(|next| next.tick);
    if owed == told { Ok(()) } else { Err(format!("the next tick of {name} is {owed:?}, and {told:?} is told")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive_schemas::schedule::{CatchUp, Definition, Overlap, ScheduleSet, ScheduleTicked};
    use std::sync::Arc;

    const T0: Timestamp = Timestamp(1_700_000_000_000);

    fn at(ms: u64, event: Event) -> Envelope {
        Envelope { at: T0 + Millis(ms), by: None, event }
    }

    fn set() -> Envelope {
        let spec = serde_json::from_str(r#"{"driver":{"noop":{}}}"#).expect("a spec");
        let definition = Definition {
            cron: every(2).into(),
            time_zone: "UTC".into(),
            overlap: Overlap::Skip,
            catch_up: CatchUp::All,
            jitter: None,
            spec: Arc::new(spec),
        };
        let next = Some(NextTick { tick: T0 + Millis(2_000), due_at: T0 + Millis(2_000) });
        let (namespace, schedule) = ("n".parse().expect("a name"), "s".parse().expect("a name"));
        let definition = Arc::new(definition);
        at(
            0,
            Event::ScheduleSet(ScheduleSet { namespace, schedule, definition, paused: false, next, request_id: None }),
        )
    }

    fn tick(tick_ms: u64, next_ms: u64, outcome: TickOutcome) -> Envelope {
        let next = T0 + Millis(next_ms);
        at(
            60_000,
            Event::ScheduleTicked(ScheduleTicked {
                namespace: "n".parse().expect("a name"),
                schedule: "s".parse().expect("a name"),
                tick: T0 + Millis(tick_ms),
                kind: TickKind::Due,
                outcome,
                count: 1,
                job: None,
                reason: None,
                next: Some(NextTick { tick: next, due_at: next }),
                request_id: None,
            }),
        )
    }

    fn held(events: &[Envelope]) -> Result<Ticks, String> {
        let mut ticks = Ticks::default();
        events.iter().try_for_each(|event| ticks.hold(event)).map(|()| ticks)
    }

    #[test]
    fn a_tick_that_doubles_or_vanishes_is_seen() {
        use TickOutcome::{Skipped, Started};
        let ticks = held(&[set(), tick(2_000, 4_000, Skipped), tick(4_000, 6_000, Skipped)]).expect("as it should be");
        assert!(ticks.overdue(T0 + Millis(26_000)).is_none() && ticks.overdue(T0 + Millis(26_001)).is_some());
        assert!(held(&[set(), tick(2_000, 4_000, Skipped), tick(2_000, 4_000, Skipped)]).is_err(), "doubled");
        assert!(held(&[set(), tick(4_000, 6_000, Skipped)]).is_err(), "left out");
        assert!(held(&[set(), tick(2_000, 6_000, Skipped)]).is_err(), "the next one is left out");
        assert!(held(&[set(), tick(2_000, 4_000, Started)]).is_err(), "without a job");
    }

    #[test]
    fn users_may_trigger_twice_in_a_millisecond() {
        let triggered = |kind, outcome| {
            let mut envelope = tick(2_500, 2_000, outcome);
            if let Event::ScheduleTicked(ticked) = &mut envelope.event {
                ticked.kind = kind;
            }
            envelope
        };
        let queued = triggered(TickKind::Triggered, TickOutcome::Queued);
        let displaced = triggered(TickKind::Waited, TickOutcome::Skipped);
        let both = [set(), queued.clone(), queued, displaced.clone(), displaced.clone()];
        assert!(held(&both).is_ok());
        assert!(held(&[&both[..], &[displaced]].concat()).is_err(), "only two waited");
    }
}
