//! What the leader knows as a whole, about once a second.

use super::board::Board;
use crate::leader::Leader;
use crate::watch;
use outlive_core::plan::admission;
use outlive_core::queue::QueueId;
use outlive_core::state::{Loss, State};
use outlive_core::view;
use outlive_schemas::command::LossReason;
use outlive_schemas::limits;
use outlive_schemas::queue::HeldBy;
use outlive_schemas::time::{Millis, Timestamp};
use outlive_schemas::view::{ExecutorState, Status, ZoneState};
use std::collections::{BTreeMap, BTreeSet};

/// For how long the loss of an executor is news: time enough to be seen, and not for ever.
const RECENTLY: Millis = Millis::secs(600);

/// What a leader shows for as long as it leads.
#[derive(Default)]
pub struct Survey(Board);

impl Survey {
    pub fn take(&mut self, leader: &Leader, now: Timestamp) {
        let board = &mut self.0;
        let state = leader.state();
        let seconds = |since: Option<Timestamp>| since.map_or(0.0, |at| now.since(at).as_secs_f64());
        board.set("outlive_witness_lag_commits", &[], leader.acked().0.saturating_sub(leader.witnessed().0) as f64);
        board.set("outlive_witness_lag_seconds", &[], seconds(leader.unwitnessed_since()));
        board.set("outlive_log_append_waiting_seconds", &[], seconds(leader.append_since()));
        board.set("outlive_log_commits_waiting", &[], leader.commits_waiting() as f64);
        board.set("outlive_held_bytes", &[], state.held_bytes() as f64);
        board.set("outlive_queue_oldest_seconds", &[], seconds(longest_waiting(state, now)));
        let checkpoint = view::oldest_checkpoint(state).map(|oldest| oldest.at);
        board.set("outlive_checkpoint_age_seconds", &[], seconds(checkpoint));
        board.set(
            "outlive_job_restarting_oldest_seconds",
            &[],
            seconds(state.restarting().next().map(|(since, _)| since)),
        );
        jobs(board, state);
        board.set("outlive_schedules", &[], state.schedule_count() as f64);
        let overdue = state.next_tick_due().filter(|due_at| *due_at < now);
        board.set("outlive_schedule_tick_overdue_seconds", &[], seconds(overdue));
        queues(board, state, now);
        executors(board, leader, now);
        capacity(board, state);
        lost_recently(board, state, now);
        board.done();
    }
}

fn jobs(board: &mut Board, state: &State) {
    for status in Status::ALL {
        let count = state.counts().get(&status).copied().unwrap_or(0);
        board.set("outlive_jobs", &[("status", status.as_str())], count as f64);
    }
    for (namespace, counts) in state.namespace_counts().iter().take(limits::NAMESPACES_SHOWN_MAX) {
        for (status, count) in counts.iter() {
            let labels = [("namespace", namespace.as_str()), ("status", status.as_str())];
            board.set("outlive_namespace_jobs", &labels, *count as f64);
        }
    }
}

/// Those that were put, and what else has jobs.
fn queues(board: &mut Board, state: &State, now: Timestamp) {
    let waiting = state.queue().queues().map(|(id, _)| id);
    let known = state.queues.keys().chain(waiting).chain(state.running().queues().map(|(id, _)| id));
    let known: BTreeSet<&QueueId> = known.collect();
    for id in known.into_iter().take(limits::QUEUES_SHOWN_MAX) {
        let view = view::queue::seen(state, id, now);
        let labels = [("namespace", view.namespace.as_str()), ("queue", view.name.as_str())];
        let oldest = Millis(view.oldest_wait_ms.unwrap_or(0)).as_secs_f64();
        board.set("outlive_queue_waiting_jobs", &labels, view.waiting as f64);
        board.set("outlive_queue_running_jobs", &labels, f64::from(view.running));
        board.set("outlive_queue_oldest_wait_seconds", &labels, oldest);
        for by in HeldBy::OF_QUEUES {
            let labels = [labels[0], labels[1], ("by", by.as_str())];
            let holds = view.held_by == Some(by) && view.waiting > 0;
            board.set("outlive_queue_throttled", &labels, if holds { 1.0 } else { 0.0 });
        }
    }
}

/// Since when the job that waits longest for a place could have run. Those that their queue or key holds do not want for
/// room.
fn longest_waiting(state: &State, now: Timestamp) -> Option<Timestamp> {
    let ready = state.queue().queues().filter_map(|(id, lines)| admission::longest_ready(state, id, lines, now));
    ready.min()
}

fn executors(board: &mut Board, leader: &Leader, now: Timestamp) {
    let mut states: BTreeMap<(String, ExecutorState), u32> = BTreeMap::new();
    let mut oldest_beat_ms = 0;
    for view in leader.watch().executors(leader.state(), now) {
        for known in ExecutorState::ALL {
            states.entry((view.zone.to_string(), known)).or_default();
        }
        *states.entry((view.zone.to_string(), view.state)).or_default() += 1;
        if view.state != ExecutorState::Lost {
            oldest_beat_ms = oldest_beat_ms.max(view.last_heartbeat_ms.unwrap_or(0));
        }
    }
    for ((zone, state), count) in &states {
        board.set("outlive_executors", &[("zone", zone), ("state", state.as_str())], f64::from(*count));
    }
    board.set("outlive_heartbeat_age_seconds", &[], oldest_beat_ms as f64 / 1_000.0);
    for view in watch::zones(leader.state()) {
        for state in ZoneState::ALL {
            let is = f64::from(u8::from(view.state == state));
            board.set("outlive_zone_state", &[("zone", view.zone.as_str()), ("state", state.as_str())], is);
        }
    }
}

/// Hosts that were replaced by others stay among the lost for as long as there is room to show them; this tells those
/// whose loss is news.
fn lost_recently(board: &mut Board, state: &State, now: Timestamp) {
    let is_news = |loss: Loss| loss.reason != LossReason::Left && now.since(loss.last_seen) < RECENTLY;
    let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
    for executor in state.executors.values() {
        *zones.entry(executor.registration.zone.as_str()).or_default() += u32::from(executor.lost.is_some_and(is_news));
    }
    for (zone, count) in zones {
        board.set("outlive_executors_lost_recently", &[("zone", zone)], f64::from(count));
    }
}

fn capacity(board: &mut Board, state: &State) {
    let mut zones: BTreeMap<&str, [(f64, f64); 3]> = BTreeMap::new();
    for executor in state.executors.values() {
        let sums = zones.entry(executor.registration.zone.as_str()).or_default();
        if executor.is_alive() {
            let (has, taken) = (&executor.registration.capacity, &executor.allocated);
            let pairs = [
                (has.cpu_millis as f64 / 1_000.0, taken.cpu_millis as f64 / 1_000.0),
                (has.memory_bytes as f64, taken.memory_bytes as f64),
                (f64::from(has.slots), f64::from(taken.slots)),
            ];
            for (sum, pair) in sums.iter_mut().zip(pairs) {
                sum.0 += pair.0;
                sum.1 += pair.1;
            }
        }
    }
    for (zone, sums) in zones {
        for (resource, (capacity, allocated)) in super::RESOURCES.into_iter().zip(sums) {
            let labels = [("zone", zone), ("resource", resource)];
            board.set("outlive_executor_capacity", &labels, capacity);
            board.set("outlive_executor_allocated", &labels, allocated);
        }
    }
}
