//! Jobs that wait to be placed, by queue and by what they need; and what queues hold and have been given.
//!
//! Jobs of one shape are alike to the planner: where one finds no room, none does. So a round of planning costs by
//! the number of shapes, keys and placements, not by the number of jobs that wait.

pub mod rate;
pub mod running;
pub mod share;

use outlive_schemas::executor::{Capacity, DriverKind};
use outlive_schemas::id::{JobId, Namespace, QueueName};
use outlive_schemas::job::{JobSpec, Placement};
use outlive_schemas::queue::{Concurrency, Priority, QueueSettings};
use outlive_schemas::time::Timestamp;
use rate::Starts;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What the planner needs to know of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub driver: DriverKind,
    pub need: Capacity,
    pub placement: Placement,
}

/// Who goes first, before anything else counts.
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

/// Which queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueId(pub Namespace, pub QueueName);

/// A queue that was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub settings: QueueSettings,
    /// What its rate is held against.
    pub starts: Starts,
}

/// What sets the jobs of a queue apart that are alike in shape: the more urgent first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rung {
    pub priority: Reverse<Priority>,
    pub concurrency: Option<Box<Concurrency>>,
}

/// Jobs that wait: of one rung and shape the one that has been ready longest comes first.
pub type Line = BTreeSet<(Timestamp, JobId)>;

/// Those of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    lines: BTreeMap<(Turn, Shape), BTreeMap<Rung, Line>>,
    count: u64,
}

/// Waiting jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    queues: BTreeMap<QueueId, Lines>,
}

/// Where a job waits.
pub(crate) struct Place {
    pub queue: QueueId,
    pub turn: Turn,
    pub shape: Shape,
    pub rung: Rung,
    pub ready_at: Timestamp,
}

impl Waiting {
    pub(crate) fn insert(&mut self, place: Place, job: JobId) {
        let Place { queue, turn, shape, rung, ready_at } = place;
        let of = self.queues.entry(queue).or_default();
        let added = of.lines.entry((turn, shape)).or_default().entry(rung).or_default().insert((ready_at, job));
        of.count += u64::from(added);
    }

    pub(crate) fn remove(&mut self, place: Place, job: JobId) {
        let Place { queue, turn, shape, rung, ready_at } = place;
        let Some(of) = self.queues.get_mut(&queue) else { return };
        let alike = (turn, shape);
        if let Some(rungs) = of.lines.get_mut(&alike)
            && let Some(line) = rungs.get_mut(&rung)
        {
            of.count -= u64::from(line.remove(&(ready_at, job)));
            if line.is_empty() {
                rungs.remove(&rung);
            }
            if rungs.is_empty() {
                of.lines.remove(&alike);
            }
        }
        if of.lines.is_empty() {
            self.queues.remove(&queue);
        }
    }

    pub fn queues(&self) -> impl Iterator<Item = (&QueueId, &Lines)> {
        self.queues.iter()
    }

    pub fn of(&self, queue: &QueueId) -> Option<&Lines> {
        self.queues.get(queue)
    }

    /// All lines of all queues.
    pub fn lines(&self) -> impl Iterator<Item = (Turn, &Shape, &Line)> {
        self.queues.values().flat_map(Lines::all).map(|(turn, shape, _, line)| (turn, shape, line))
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

impl Lines {
    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn all(&self) -> impl Iterator<Item = (Turn, &Shape, &Rung, &Line)> {
        self.lines
            .iter()
            .flat_map(|((turn, shape), rungs)| rungs.iter().map(move |(rung, line)| (*turn, shape, rung, line)))
    }

    /// The shapes of one turn, each with its lines.
    pub fn shapes(&self, of: Turn) -> impl Iterator<Item = (&Shape, &BTreeMap<Rung, Line>)> {
        // Recovering ones stand first.
        let passed = self.lines.iter().take_while(move |((turn, _), _)| *turn <= of);
        passed.filter(move |((turn, _), _)| *turn == of).map(|((_, shape), rungs)| (shape, rungs))
    }

    /// Since when the one has been ready that has been so the longest.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.all().filter_map(|(.., line)| line.first()).map(|(ready_at, _)| *ready_at).min()
    }

    /// How many go before a job, were there room for all: those of an earlier turn, of a higher priority, or of the
    /// same and ready before it.
    pub(crate) fn before(&self, place: &Place, job: JobId) -> u64 {
        let mine = (place.turn, place.rung.priority);
        let ahead = self.all().map(|(turn, _, rung, line)| match (turn, rung.priority).cmp(&mine) {
            std::cmp::Ordering::Less => line.len(),
            std::cmp::Ordering::Equal => line.range(..(place.ready_at, job)).count(),
            std::cmp::Ordering::Greater => 0,
        });
        ahead.sum::<usize>() as u64
    }
}
