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

impl Shape {
    pub fn of(spec: &JobSpec) -> Shape {
        let driver = spec.driver.kind();
        Shape { driver, need: Capacity::of(driver, &spec.resources), placement: spec.placement.clone() }
    }
}

/// Waiting jobs. Within a shape the one that has been ready longest comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    shapes: BTreeMap<Shape, BTreeSet<(Timestamp, JobId)>>,
}

impl Queue {
    pub(crate) fn insert(&mut self, shape: Shape, ready_at: Timestamp, job: JobId) {
        self.shapes.entry(shape).or_default().insert((ready_at, job));
    }

    pub(crate) fn remove(&mut self, shape: &Shape, ready_at: Timestamp, job: JobId) {
        if let Some(waiting) = self.shapes.get_mut(shape) {
            waiting.remove(&(ready_at, job));
            if waiting.is_empty() {
                self.shapes.remove(shape);
            }
        }
    }

    pub fn shapes(&self) -> impl Iterator<Item = (&Shape, &BTreeSet<(Timestamp, JobId)>)> {
        self.shapes.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }
}
