//! Schedules and their ticks.

use super::{Applied, change, remember};
use crate::schedule::{LastTick, Schedule, TickOf};
use crate::state::State;
use outlive_schemas::id::{Namespace, ScheduleName, Sequence};
use outlive_schemas::schedule::{ScheduleDeleted, SchedulePaused, ScheduleSet, ScheduleTicked, TickKind, TickOutcome};
use outlive_schemas::time::Timestamp;
use std::collections::VecDeque;

pub(super) fn set(state: &mut State, at: Timestamp, e: &ScheduleSet) {
    let of = state.schedules.entry(e.namespace.clone()).or_default();
    let mut schedule = match of.remove(&e.schedule) {
        Some(known) => {
            state.index.schedules.leave(&e.namespace, &e.schedule, &known);
            state.index.held_bytes -= known.held_bytes();
            known
        }
        None => Box::new(Schedule {
            definition: e.definition.clone(),
            paused: e.paused,
            created_at: at,
            updated_at: at,
            next: None,
            queued: VecDeque::new(),
            last: None,
            started: 0,
            skipped: 0,
            missed: 0,
        }),
    };
    schedule.definition = e.definition.clone();
    schedule.paused = e.paused;
    schedule.updated_at = at;
    schedule.next = e.next;
    state.index.schedules.enter(&e.namespace, &e.schedule, &schedule);
    state.index.held_bytes += schedule.held_bytes();
    of.insert(e.schedule.clone(), schedule);
    remember(state, &e.namespace, e.request_id.as_ref());
}

pub(super) fn paused(state: &mut State, at: Timestamp, e: &SchedulePaused) -> Applied {
    alter(state, &e.namespace, &e.schedule, |schedule| {
        schedule.paused = e.paused;
        schedule.updated_at = at;
        schedule.next = e.next;
        Ok(())
    })?;
    remember(state, &e.namespace, e.request_id.as_ref());
    Ok(())
}

pub(super) fn deleted(state: &mut State, e: &ScheduleDeleted) -> Applied {
    let of = state.schedules.get_mut(&e.namespace).ok_or("there is no such schedule")?;
    let schedule = of.remove(&e.schedule).ok_or("there is no such schedule")?;
    if of.is_empty() {
        state.schedules.remove(&e.namespace);
    }
    state.index.schedules.leave(&e.namespace, &e.schedule, &schedule);
    state.index.held_bytes -= schedule.held_bytes();
    remember(state, &e.namespace, e.request_id.as_ref());
    Ok(())
}

pub(super) fn ticked(state: &mut State, seq: Sequence, at: Timestamp, e: &ScheduleTicked) -> Applied {
    alter(state, &e.namespace, &e.schedule, |schedule| {
        match e.kind {
            TickKind::Due if schedule.next.map(|next| next.tick) != Some(e.tick) => {
                return Err("the tick is not the next one");
            }
            TickKind::Due => schedule.next = e.next,
            TickKind::Waited if schedule.queued.pop_front() != Some(e.tick) => {
                return Err("the tick is not the one that has waited longest");
            }
            TickKind::Waited | TickKind::Triggered => {}
        }
        match e.outcome {
            TickOutcome::Started => schedule.started += 1,
            TickOutcome::Queued => schedule.queued.push_back(e.tick),
            TickOutcome::Skipped => schedule.skipped += e.count,
            TickOutcome::Missed => schedule.missed += e.count,
        }
        let (outcome, reason, job) = (e.outcome, e.reason.clone(), e.job);
        schedule.last = Some(LastTick { tick: e.tick, at, outcome, reason, job });
        Ok(())
    })?;
    if let Some(job) = e.job {
        change(state, job, seq, |job| {
            let of = TickOf { schedule: e.schedule.clone(), tick: e.tick };
            job.timing.get_or_insert_default().tick_of = Some(of);
            Ok(())
        })?;
    }
    remember(state, &e.namespace, e.request_id.as_ref());
    Ok(())
}

fn alter(
    state: &mut State,
    namespace: &Namespace,
    name: &ScheduleName,
    with: impl FnOnce(&mut Schedule) -> Applied,
) -> Applied {
    let State { schedules, index, .. } = state;
    let schedule = schedules.get_mut(namespace).and_then(|of| of.get_mut(name)).ok_or("there is no such schedule")?;
    index.schedules.leave(namespace, name, schedule);
    let applied = with(schedule);
    index.schedules.enter(namespace, name, schedule);
    applied
}
