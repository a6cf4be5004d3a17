//! What a user sees of schedules.

use super::{bad_cursor, page};
use crate::calendar::Calendar;
use crate::schedule::Schedule;
use crate::state::State;
use outlive_schemas::error::Rejection;
use outlive_schemas::id::{Namespace, ScheduleName};
use outlive_schemas::limits;
use outlive_schemas::schedule::{LastTickView, ScheduleList, ScheduleListRequest, ScheduleView};
use std::ops::Bound;

pub fn schedule(state: &State, namespace: &Namespace, name: &ScheduleName) -> Result<ScheduleView, Rejection> {
    state.schedule(namespace, name).map(|schedule| view(state, namespace, name, schedule))
}

fn view(state: &State, namespace: &Namespace, name: &ScheduleName, schedule: &Schedule) -> ScheduleView {
    let definition = &schedule.definition;
    let calendar = Calendar::of(&definition.cron, &definition.time_zone).ok();
    let next = match (calendar, schedule.next.filter(|_| !schedule.paused)) {
        (Some(calendar), Some(next)) => calendar.from(next.tick).take(limits::NEXT_TICKS_SHOWN).collect(),
        _ => Vec::new(),
    };
    let last = schedule.last.as_ref().map(|last| LastTickView {
        tick: last.tick,
        at: last.at,
        outcome: last.outcome,
        reason: last.reason.clone(),
        job: last.job,
        name: last.job.and_then(|id| state.jobs.get(&id).map(|job| job.name(id))),
    });
    ScheduleView {
        name: name.clone(),
        namespace: namespace.clone(),
        cron: definition.cron.clone(),
        time_zone: definition.time_zone.clone(),
        overlap: definition.overlap,
        catch_up: definition.catch_up,
        jitter: definition.jitter,
        paused: schedule.paused,
        next,
        last,
        running: state.running_of(namespace, name).take(limits::LIST_LIMIT_DEFAULT).collect(),
        queued: schedule.queued.iter().copied().collect(),
        started: schedule.started,
        skipped: schedule.skipped,
        missed: schedule.missed,
        created_at: schedule.created_at,
        updated_at: schedule.updated_at,
        spec: definition.spec.clone(),
    }
}

/// One page of a namespace's schedules, by name.
pub fn schedules(
    state: &State,
    namespace: &Namespace,
    request: &ScheduleListRequest,
) -> Result<ScheduleList, Rejection> {
    let limit = page(request.limit, limits::SCHEDULES_LIMIT_DEFAULT, limits::SCHEDULES_LIMIT_MAX)?;
    let after = match &request.cursor {
        None => Bound::Unbounded,
        Some(text) => Bound::Excluded(ScheduleName::new(text).map_err(|_| bad_cursor(text))?),
    };
    let prefix = request.name_prefix.as_deref().unwrap_or_default();
    let known = state.schedules.get(namespace);
    let later = known.into_iter().flat_map(|of| of.range((after.clone(), Bound::Unbounded)));
    let mut found = ScheduleList { schedules: Vec::new(), cursor: None };
    let (mut last, mut bytes) = (None, 0);
    let is_meant = |name: &ScheduleName| request.name.as_ref().is_none_or(|only| only == name);
    for (name, schedule) in later.filter(|(name, _)| is_meant(name) && name.as_str().starts_with(prefix)) {
        if found.schedules.len() == limit || bytes > limits::MESSAGE_BYTES_MAX / 2 {
            found.cursor = last.map(|name: &ScheduleName| name.to_string());
            break;
        }
        last = Some(name);
        bytes += schedule.held_bytes() as usize * 4 / 3;
        found.schedules.push(view(state, namespace, name, schedule));
    }
    Ok(found)
}
