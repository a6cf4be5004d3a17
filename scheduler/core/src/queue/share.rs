//! Fair turns between queues: start-time fair queueing, in whole numbers and folded from placements, so that every
//! leader goes on where the one before it stopped.
//!
//! Each queue has a virtual time, which a start moves on by so much the less the greater its weight; of queues that
//! hold the same share of the room the one whose time is the least goes next. One that had nothing to start begins at
//! the clock, which is the time of whoever was started last: having been idle earns nothing.

use super::QueueId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// What a start costs a queue of weight 1: finer than the largest weight by far.
const START: u64 = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turns {
    clock: u64,
    /// Of queues that are ahead of the clock.
    served: BTreeMap<QueueId, u64>,
}

impl Turns {
    /// The virtual time of a queue's next start.
    pub fn next(&self, queue: &QueueId) -> u64 {
        self.served.get(queue).copied().unwrap_or_default().max(self.clock)
    }

    /// Notes a start.
    pub(crate) fn note(&mut self, queue: &QueueId, weight: u32) {
        let start = self.next(queue);
        self.clock = start;
        self.served.insert(queue.clone(), after(start, weight));
        // One that has fallen behind the clock need not be remembered. Each start looks at one other, so that the table
        // stays as small as the number of busy queues.
        let mut others = self.served.range::<QueueId, _>((Bound::Excluded(queue), Bound::Unbounded));
        let neighbour = others.next().or_else(|| self.served.first_key_value());
        if let Some(behind) = neighbour.filter(|(_, served)| **served <= start).map(|(id, _)| id.clone()) {
            self.served.remove(&behind);
        }
    }
}

/// The virtual time after one more start.
pub fn after(start: u64, weight: u32) -> u64 {
    start.saturating_add(START / u64::from(weight.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueId {
        QueueId("default".parse().unwrap(), name.parse().unwrap())
    }

    fn served(turns: &mut Turns, queues: &[(&str, u32)], starts: usize) -> Vec<String> {
        let mut order = Vec::new();
        for _ in 0..starts {
            let next = queues.iter().min_by_key(|(name, _)| (turns.next(&queue(name)), queue(name))).unwrap();
            turns.note(&queue(next.0), next.1);
            order.push(next.0.to_owned());
        }
        order
    }

    #[test]
    fn turns_go_by_weight() {
        let mut turns = Turns::default();
        let order = served(&mut turns, &[("a", 3), ("b", 1)], 400);
        assert_eq!(order.iter().filter(|name| *name == "a").count(), 300);
        // And evenly: b is never passed over for long.
        assert!(order.chunks(5).all(|five| five.iter().any(|name| name == "b")));
    }

    #[test]
    fn having_been_idle_earns_nothing() {
        let mut turns = Turns::default();
        served(&mut turns, &[("a", 1)], 1_000);
        let order = served(&mut turns, &[("a", 1), ("b", 1)], 100);
        assert!(order.iter().filter(|name| *name == "b").count() <= 51, "{order:?}");
    }

    #[test]
    fn who_is_idle_is_forgotten() {
        let mut turns = Turns::default();
        let names: Vec<String> = (0..100).map(|number| format!("q-{number}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        served(&mut turns, &all, 1_000);
        served(&mut turns, &[("q-1", 1), ("q-50", 1)], 200);
        assert!(turns.served.len() <= 3, "{:?}", turns.served);
    }
}
