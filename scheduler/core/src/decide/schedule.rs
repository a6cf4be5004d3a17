//! Schedules: made, changed, paused; and their ticks, each of which is decided once.
//!
//! A tick that starts a job is one command: the job's submission and the tick stand in one commit, so there is never
//! one without the other, whoever leads before and after.

use super::{Refusal, fact, stop, submit};
use crate::calendar::{Calendar, in_a_name};
use crate::schedule::{Schedule, jitter};
use crate::state::State;
use compact_str::{CompactString, format_compact};
use outlive_schemas::command::{Origin, Stop};
use outlive_schemas::error::{ErrorCode, Rejection};
use outlive_schemas::event::{Envelope, Event};
use outlive_schemas::id::{JobId, JobName, JobRef, Namespace, ScheduleName};
use outlive_schemas::job::{JobSpec, invalid};
use outlive_schemas::limits;
use outlive_schemas::request::GRACE_DEFAULT;
use outlive_schemas::schedule::{
    CatchUp, Definition, NextTick, Overlap, ScheduleDeleted, SchedulePaused, ScheduleSet, ScheduleTicked, TickKind,
    TickOutcome,
};
use outlive_schemas::subject::RESERVED_NAMESPACES;
use outlive_schemas::time::{Millis, Timestamp};
use std::sync::Arc;

/// Who asked for the jobs of a schedule.
const SCHEDULE: &str = "schedule";

pub(super) fn put(
    state: &State,
    namespace: Namespace,
    origin: Origin,
    name: ScheduleName,
    definition: Definition,
    paused: bool,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Origin { request_id, by } = origin;
    if request_id.as_ref().is_some_and(|id| state.is_spent(&namespace, id)) {
        return Ok(Vec::new());
    }
    if RESERVED_NAMESPACES.contains(&namespace.as_str()) {
        return Err(invalid("namespace", &format!("is `{namespace}`, which is Outlive's own: choose another")).into());
    }
    definition.validate(&name)?;
    let calendar = Calendar::of(&definition.cron, &definition.time_zone)?;
    let first = calendar.next_after(now).ok_or_else(|| {
        invalid("cron", &format!("is `{}`, which never comes: no date is like that", definition.cron))
    })?;
    let known = state.schedule(&namespace, &name).ok();
    if known.is_some_and(|known| *known.definition == definition && known.paused == paused) {
        return Ok(Vec::new());
    }
    if known.is_none() {
        within_limits(state)?;
    }
    let same_times = |of: &Definition| of.cron == definition.cron && of.time_zone == definition.time_zone;
    // What is overdue is not forgotten because something else about the schedule is changed.
    let kept = known.filter(|known| same_times(&known.definition) && !known.paused && !paused);
    let tick = kept.and_then(|known| known.next).map_or(first, |next| next.tick);
    let next = Some(put_off(&namespace, &name, &definition, tick));
    let definition = Arc::new(definition);
    let event = Event::ScheduleSet(ScheduleSet { namespace, schedule: name, definition, paused, next, request_id });
    Ok(vec![Envelope { at: now, by, event }])
}

fn within_limits(state: &State) -> Result<(), Rejection> {
    let count = state.schedule_count();
    if count >= limits::SCHEDULES_MAX {
        let message = format!("there are {count} schedules, which is the limit: delete those that nobody needs");
        return Err(Rejection::new(ErrorCode::LimitExceeded, message));
    }
    submit::within_limits(state, 0)
}

pub(super) fn delete(
    state: &State,
    namespace: Namespace,
    origin: Origin,
    name: ScheduleName,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Origin { request_id, by } = origin;
    if request_id.as_ref().is_some_and(|id| state.is_spent(&namespace, id)) {
        return Ok(Vec::new());
    }
    state.schedule(&namespace, &name)?;
    let event = Event::ScheduleDeleted(ScheduleDeleted { namespace, schedule: name, request_id });
    Ok(vec![Envelope { at: now, by, event }])
}

pub(super) fn pause(
    state: &State,
    namespace: Namespace,
    origin: Origin,
    name: ScheduleName,
    paused: bool,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let Origin { request_id, by } = origin;
    let schedule = state.schedule(&namespace, &name)?;
    let spent = request_id.as_ref().is_some_and(|id| state.is_spent(&namespace, id));
    if spent || schedule.paused == paused {
        return Ok(Vec::new());
    }
    // What would have come while it was paused does not come.
    let definition = &schedule.definition;
    let calendar = Calendar::of(&definition.cron, &definition.time_zone)?;
    let next = calendar.next_after(now).map(|tick| put_off(&namespace, &name, definition, tick));
    let event = Event::SchedulePaused(SchedulePaused { namespace, schedule: name, paused, next, request_id });
    Ok(vec![Envelope { at: now, by, event }])
}

pub(super) fn trigger(
    state: &State,
    namespace: Namespace,
    origin: Origin,
    name: ScheduleName,
    job: JobId,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let schedule = state.schedule(&namespace, &name)?;
    if origin.request_id.as_ref().is_some_and(|id| state.is_spent(&namespace, id)) {
        return Ok(Vec::new());
    }
    let running = state.running_of(&namespace, &name).next();
    if let Some(running) = running.filter(|_| schedule.definition.overlap == Overlap::Skip) {
        let message = format!(
            "job {running} of schedule `{name}` is not over, and its `overlap` is skip: wait for it, or cancel it"
        );
        return Err(Rejection::new(ErrorCode::InUse, message).into());
    }
    let scene = Scene { state, namespace: &namespace, name: &name, schedule, now };
    // Never a whole second, which a tick of the schedule's own may be.
    let moment = if now.0.is_multiple_of(1_000) { now + Millis(1) } else { now };
    let mut events = scene.take(TickKind::Triggered, moment, job, None);
    // A user who asks is told what is wrong.
    if let Some(Envelope { event: Event::ScheduleTicked(e), .. }) = events.last()
        && e.outcome == TickOutcome::Skipped
    {
        let reason = e.reason.clone().unwrap_or_default();
        return Err(Rejection::new(ErrorCode::LimitExceeded, reason.into_string()).into());
    }
    for envelope in &mut events {
        envelope.by.clone_from(&origin.by);
        if let Event::ScheduleTicked(e) = &mut envelope.event {
            e.request_id.clone_from(&origin.request_id);
        }
    }
    Ok(events)
}

/// The one that waits goes first, then the one that is due.
pub(super) fn tick(
    state: &State,
    namespace: &Namespace,
    name: &ScheduleName,
    job: JobId,
    now: Timestamp,
) -> Result<Vec<Envelope>, Refusal> {
    let schedule = state.schedule(namespace, name).map_err(|_| Refusal::Stale)?;
    if schedule.paused {
        return Err(Refusal::Stale);
    }
    let scene = Scene { state, namespace, name, schedule, now };
    if let Some(waited) = schedule.queued.front()
        && !scene.is_running()
    {
        return Ok(scene.take(TickKind::Waited, *waited, job, None));
    }
    let due = schedule.next.filter(|next| next.due_at <= now).ok_or(Refusal::Stale)?;
    let definition = &schedule.definition;
    // It was read when the schedule was put; a scheduler that cannot read it any more leaves it to another.
    let calendar = Calendar::of(&definition.cron, &definition.time_zone).map_err(|_| Refusal::Stale)?;
    if let Some(missed) = scene.missed(&calendar, due.tick) {
        return Ok(missed);
    }
    let next = calendar.next_after(due.tick).map(|tick| put_off(namespace, name, definition, tick));
    Ok(scene.take(TickKind::Due, due.tick, job, next))
}

fn put_off(namespace: &Namespace, name: &ScheduleName, of: &Definition, tick: Timestamp) -> NextTick {
    let off = of.jitter.map_or(Millis::ZERO, |most| jitter(namespace, name, tick, most));
    NextTick { tick, due_at: tick + off }
}

struct Scene<'a> {
    state: &'a State,
    namespace: &'a Namespace,
    name: &'a ScheduleName,
    schedule: &'a Schedule,
    now: Timestamp,
}

impl Scene<'_> {
    fn is_running(&self) -> bool {
        self.state.running_of(self.namespace, self.name).next().is_some()
    }

    fn ticked(&self, kind: TickKind, tick: Timestamp, outcome: TickOutcome) -> ScheduleTicked {
        ScheduleTicked {
            namespace: self.namespace.clone(),
            schedule: self.name.clone(),
            tick,
            kind,
            outcome,
            count: 1,
            job: None,
            reason: None,
            next: None,
            request_id: None,
        }
    }

    /// The ticks before the first that is run, if there are any: at their time, and for a while after it, nobody led.
    fn missed(&self, calendar: &Calendar, first: Timestamp) -> Option<Vec<Envelope>> {
        let definition = &self.schedule.definition;
        // Beyond this a tick is not late any more, whatever its jitter.
        let allowed = Millis(limits::TICK_LATE_MS_MAX + definition.jitter.map_or(0, |jitter| jitter.0));
        let newest_late = Timestamp(self.now.0.checked_sub(allowed.0)?.checked_sub(1)?);
        if first > newest_late {
            return None;
        }
        let wanted = match definition.catch_up {
            CatchUp::None => 0,
            CatchUp::One => 1,
            CatchUp::All => limits::CATCH_UP_MAX,
        };
        // The oldest of the late ones that is made up for; of few the first, which need not be looked for from the end.
        let late = calendar.from(first).take_while(|tick| *tick <= newest_late).take(wanted + 1).count();
        if late <= wanted {
            return None;
        }
        let made_up_from = match wanted {
            0 => Timestamp(newest_late.0 + 1),
            _ => {
                let mut oldest = calendar.last_until(newest_late)?;
                for _ in 1..wanted {
                    oldest = calendar.last_until(Timestamp(oldest.0.checked_sub(1)?))?;
                }
                oldest
            }
        };
        if first >= made_up_from {
            return None;
        }
        let (mut count, mut next) = (1, calendar.next_after(first));
        while count < limits::TICKS_MISSED_AT_ONCE
            && let Some(tick) = next.filter(|tick| *tick < made_up_from)
        {
            count += 1;
            next = calendar.next_after(tick);
        }
        let next = next.map(|tick| put_off(self.namespace, self.name, definition, tick));
        let reason = Some("nobody led at its time".into());
        let missed = self.ticked(TickKind::Due, first, TickOutcome::Missed);
        Some(fact(self.now, Event::ScheduleTicked(ScheduleTicked { count, reason, next, ..missed })))
    }

    /// Decides one tick.
    fn take(&self, kind: TickKind, tick: Timestamp, job: JobId, next: Option<NextTick>) -> Vec<Envelope> {
        let told = |outcome, reason: Option<CompactString>| {
            let told = self.ticked(kind, tick, outcome);
            Event::ScheduleTicked(ScheduleTicked { reason, next, ..told })
        };
        if kind != TickKind::Waited && (self.is_running() || !self.schedule.queued.is_empty()) {
            return match self.schedule.definition.overlap {
                Overlap::Skip => {
                    let reason = self.state.running_of(self.namespace, self.name).next().map_or_else(
                        || "an earlier tick waits".into(),
                        |running| format_compact!("job {running} of an earlier tick is not over"),
                    );
                    fact(self.now, told(TickOutcome::Skipped, Some(reason)))
                }
                Overlap::Queue if self.schedule.queued.len() >= limits::TICKS_QUEUED_MAX => {
                    let reason = format_compact!("{} ticks wait already, which is the limit", limits::TICKS_QUEUED_MAX);
                    fact(self.now, told(TickOutcome::Skipped, Some(reason)))
                }
                Overlap::Queue => fact(self.now, told(TickOutcome::Queued, None)),
                Overlap::Replace => self.replace(told(TickOutcome::Queued, None)),
            };
        }
        let origin = Origin { request_id: None, by: Some(SCHEDULE.into()) };
        let spec = JobSpec { name: self.job_name(tick), ..(*self.schedule.definition.spec).clone() };
        let submitted =
            submit::submit(self.state, self.namespace.clone(), origin, vec![(job, Arc::new(spec))], self.now);
        match submitted {
            Ok(mut events) => {
                let started = self.ticked(kind, tick, TickOutcome::Started);
                let started = ScheduleTicked { job: Some(job), next, ..started };
                events.extend(fact(self.now, Event::ScheduleTicked(started)));
                events
            }
            Err(Refusal::Rejected(rejection)) => {
                let reason = format_compact!("{}: {}", rejection.code.as_str(), rejection.message);
                fact(self.now, told(TickOutcome::Skipped, Some(reason)))
            }
            Err(Refusal::Superseded | Refusal::Stale) => {
                fact(self.now, told(TickOutcome::Skipped, Some("its job could not be submitted".into())))
            }
        }
    }

    /// The jobs of earlier ticks are told to end, and the one that waits for them, if any, gives way to this one.
    fn replace(&self, queued: Event) -> Vec<Envelope> {
        let mut events = Vec::new();
        let how = Stop::Graceful { grace: GRACE_DEFAULT };
        for running in self.state.running_of(self.namespace, self.name) {
            let origin = Origin { request_id: None, by: Some(SCHEDULE.into()) };
            let told = stop::cancel(self.state, self.namespace, origin, &JobRef::Id(running), how, self.now);
            events.extend(told.unwrap_or_default());
        }
        for waiting in &self.schedule.queued {
            let displaced = self.ticked(TickKind::Waited, *waiting, TickOutcome::Skipped);
            let reason = Some("a later tick took its place".into());
            events.extend(fact(self.now, Event::ScheduleTicked(ScheduleTicked { reason, ..displaced })));
        }
        events.extend(fact(self.now, queued));
        events
    }

    /// By the second, also where somebody has triggered it within one: a name is free again once the job that had it is
    /// over, and no tick is started before. Nothing where it would be too long, which the limit on schedules' names
    /// rules out.
    fn job_name(&self, tick: Timestamp) -> Option<JobName> {
        JobName::new(&format!("{}-{}", self.name, in_a_name(tick))).ok()
    }
}
