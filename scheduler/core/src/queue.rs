//! Jobs that wait to be placed, by what they need.
//!
//! Jobs of one shape are alike to the planner: where one finds no room, none does. So a round of planning costs by
//! the number of shapes and placements, not by the number of jobs that wait.

use outlive_schemas::executor::{Capacity, DriverKind};
use outlive_schemas::id::JobId;
use outlive_schemas::job::{JobSpec, Placement};
use outlive_schemas::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What the planner needs to know of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub driver: DriverKind,
    pub need: Capacity,
    pub placement: Placement,
}

/// Who goes first, before it counts who has waited longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// Jobs whose host was taken from them. They were running: they do not queue up behind a backlog again.
    Recovering,
    /// All others: new ones, and those that failed by their own doing.
    Waiting,
}

impl Shape {
    pub fn of(spec: &JobSpec) -> Shape {
        let driver = spec.driver.kind();
        Shape { driver, need: Capacity::of(driver, &spec.resources), placement: spec.placement.clone() }
    }
}

/// Waiting jobs. Within a turn and shape the one that has been ready longest comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    lines: BTreeMap<(Turn, Shape), BTreeSet<(Timestamp, JobId)>>,
}

impl Queue {
    pub(crate) fn insert(&mut self, turn: Turn, shape: Shape, ready_at: Timestamp, job: JobId) {
        self.lines.entry((turn, shape)).or_default().insert((ready_at, job));
    }

    pub(crate) fn remove(&mut self, turn: Turn, shape: Shape, ready_at: Timestamp, job: JobId) {
        let line = (turn, shape);
        if let Some(waiting) = self.lines.get_mut(&line) {
            waiting.remove(&(ready_at, job));
            if waiting.is_empty() {
                self.lines.remove(&line);
            }
        }
    }

    pub fn lines(&self) -> impl Iterator<Item = (Turn, &Shape, &BTreeSet<(Timestamp, JobId)>)> {
        self.lines.iter().map(|((turn, shape), waiting)| (*turn, shape, waiting))
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
