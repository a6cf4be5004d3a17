//! What a new leader believes that has not folded the log as it is: deliberate bugs of what a term begins with.

use crate::sim::sabotage::Sabotage;
use outlive_core::array::Array;
use outlive_core::calendar::Calendar;
use outlive_core::schedule::Schedule;
use outlive_core::state::{Job, State};
use outlive_schemas::queue::QueueSettings;
use outlive_schemas::schedule::NextTick;
use outlive_schemas::time::Timestamp;
use std::sync::Arc;

/// Changes the state that a term begins with as the deliberate bug would; nothing where there is none, or another.
pub(super) fn misread(state: &mut State, sabotage: Option<Sabotage>) {
    let Some(sabotage) = sabotage else { return };
    match sabotage {
        Sabotage::TickTakenAnew => schedules(state, |calendar, next| calendar.last_until(Timestamp(next.0 - 1))),
        Sabotage::TickForgotten => schedules(state, |calendar, next| calendar.next_after(next)),
        Sabotage::DependenciesForgotten => jobs(state, |job| {
            if let Some(depends) = job.depends.as_mut() {
                depends.met = true;
            }
        }),
        Sabotage::TaskLetGoAnew => jobs(state, |job| {
            if let Some(array) = job.array.as_mut().filter(|array| array.stop.is_none()) {
                let Array { succeeded, failed, pending, .. } = &mut **array;
                let over = succeeded.iter().chain(failed.iter()).next();
                if let Some(index) = over.filter(|index| succeeded.remove(*index) || failed.remove(*index)) {
                    pending.insert(index);
                }
            }
        }),
        Sabotage::ParallelForgotten => jobs(state, |job| {
            if job.array.is_some()
                && let Some(array) = &mut Arc::make_mut(&mut job.spec).array
            {
                array.parallel = None;
            }
        }),
        Sabotage::QueuesForgotten => state.queues.values_mut().for_each(|queue| {
            queue.settings = QueueSettings { weight: queue.settings.weight, ..QueueSettings::default() };
        }),
        Sabotage::KeysForgotten => jobs(state, |job| {
            if job.spec.concurrency.is_some() {
                Arc::make_mut(&mut job.spec).concurrency = None;
            }
        }),
        Sabotage::LossOverlooked => state.exclusive_held_until = Timestamp(0),
        _ => return,
    }
    state.rebuild_index();
}

/// Jobs that are not over.
fn jobs(state: &mut State, change: impl Fn(&mut Job)) {
    state.jobs.values_mut().filter(|job| !job.status.is_final()).for_each(|job| change(job));
}

/// The next tick of each schedule, by the one that it is.
fn schedules(state: &mut State, tick: impl Fn(&Calendar, Timestamp) -> Option<Timestamp>) {
    for schedule in state.schedules.values_mut().flat_map(|of| of.values_mut()) {
        let Schedule { definition, next, .. } = &mut **schedule;
        let calendar = Calendar::of(&definition.cron, &definition.time_zone).expect("it was put");
        *next = next.and_then(|next| tick(&calendar, next.tick)).map(|tick| NextTick { tick, due_at: tick });
    }
}
