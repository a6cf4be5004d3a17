//! What a queue has started, as its rate needs it: a fact of the log, so that a new leader starts no more than the one
//! before it would have.
//!
//! A period is cut into a thousand steps, and a start counts until the end of its step is a whole period ago: by up to
//! a thousandth of the period longer than it must, never shorter.

use outlive_schemas::limits;
use outlive_schemas::queue::Rate;
use outlive_schemas::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Starts {
    /// Ends of steps, and how many were started in each; oldest first.
    steps: VecDeque<(Timestamp, u32)>,
    total: u64,
}

impl Starts {
    /// Notes a start, and forgets those that no longer count.
    pub(crate) fn note(&mut self, rate: Rate, at: Timestamp) {
        let step = (rate.per.0 / limits::QUEUE_RATE_STEPS).max(1);
        let end = Timestamp(at.0.div_ceil(step).saturating_mul(step));
        while let Some((oldest, started)) = self.steps.front().copied().filter(|(oldest, _)| *oldest + rate.per <= at) {
            debug_assert!(oldest <= at, "steps rise");
            self.total -= u64::from(started);
            self.steps.pop_front();
        }
        match self.steps.back_mut() {
            // A clock that was set back adds to the newest step.
            Some((newest, started)) if *newest >= end => *started += 1,
            _ => self.steps.push_back((end, 1)),
        }
        self.total += 1;
    }

    /// How many may still be started now; and if none, when one may.
    pub fn left(&self, rate: Rate, now: Timestamp) -> Result<u32, Timestamp> {
        let mut counted = self.total;
        let mut over = self.steps.iter().map(|(end, started)| (*end + rate.per, u64::from(*started)));
        let mut next = over.next();
        while let Some((until, started)) = next.filter(|(until, _)| *until <= now) {
            debug_assert!(until <= now, "steps rise");
            counted -= started;
            next = over.next();
        }
        let limit = u64::from(rate.limit);
        if counted < limit {
            return Ok(u32::try_from(limit - counted).unwrap_or(u32::MAX));
        }
        let mut at = now + Millis(1);
        while let Some((until, started)) = next.filter(|_| counted >= limit) {
            counted -= started;
            at = until;
            next = over.next();
        }
        Err(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BEGAN: u64 = 1_700_000_000_000;

    #[test]
    fn it_says_when_the_next_may_start() {
        let rate = Rate { limit: 2, per: Millis::secs(1) };
        let mut starts = Starts::default();
        assert_eq!(starts.left(rate, Timestamp(BEGAN)), Ok(2));
        starts.note(rate, Timestamp(BEGAN));
        starts.note(rate, Timestamp(BEGAN + 300));
        assert_eq!(starts.left(rate, Timestamp(BEGAN + 400)), Err(Timestamp(BEGAN + 1_000)));
        assert_eq!(starts.left(rate, Timestamp(BEGAN + 1_000)), Ok(1));
        assert_eq!(starts.left(rate, Timestamp(BEGAN + 1_300)), Ok(2));
        // A lower limit counts what was started under a higher one.
        let lower = Rate { limit: 1, ..rate };
        assert_eq!(starts.left(lower, Timestamp(BEGAN + 400)), Err(Timestamp(BEGAN + 1_300)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rate = Rate { limit: 1_000_000, per: Millis::minutes(60) };
        let mut starts = Starts::default();
        for number in 0..200_000 {
            starts.note(rate, Timestamp(BEGAN + number * 37));
        }
        assert!(starts.steps.len() as u64 <= limits::QUEUE_RATE_STEPS + 2, "{}", starts.steps.len());
    }

    proptest! {
        /// Whoever asks before each start never has more in any stretch of the period than the limit; and who waits
        /// until the time that is given may start.
        #[test]
        fn no_stretch_holds_more_than_the_limit(
            gaps in prop::collection::vec(0..400_u64, 1..400), limit in 1..6_u32, per in 100..5_000_u64,
        ) {
            let rate = Rate { limit, per: Millis(per) };
            let (mut starts, mut now, mut started) = (Starts::default(), BEGAN, Vec::new());
            for gap in gaps {
                now += gap;
                match starts.left(rate, Timestamp(now)) {
                    Ok(left) => {
                        prop_assert!((1..=limit).contains(&left));
                        starts.note(rate, Timestamp(now));
                        started.push(now);
                    }
                    Err(at) => {
                        prop_assert!(at.0 > now && starts.left(rate, at).is_ok());
                        prop_assert!(at.0 <= now + per + per / 1_000 + 1);
                    }
                }
            }
            for (first, from) in started.iter().enumerate() {
                let within = started[first..].iter().take_while(|at| **at < from + per).count();
                prop_assert!(within <= limit as usize, "{within} from {from}");
            }
        }
    }
}
