//! The one clock, what a term makes of it, and the one source of ids. The machine gets time and ids handed in.

use outlive_schemas::id::JobId;
use outlive_schemas::time::{Millis, Timestamp};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time that never goes back: read once at the start, and counted on by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    wall_ms: u64,
}

impl Clock {
    pub fn start() -> Clock {
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        Clock { started: Instant::now(), wall_ms }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.wall_ms + self.started.elapsed().as_millis() as u64)
    }
}

/// A leader's time: its host's, unless the log is ahead of that.
///
/// What the log says has happened; so a leader whose host's clock is behind its predecessor's goes on from the newest
/// event, or jobs that are due would wait until its clock has caught up. It then runs a little slower than its host's
/// clock until the two agree: time neither jumps nor stands still.
#[derive(Clone, Copy, Debug)]
pub struct TermClock {
    began: Timestamp,
    ahead: Millis,
}

/// It loses one part in so many while it is ahead: nobody's back-off or deadline is off by more than a twentieth.
const LOSES_ONE_IN: u64 = 20;

impl TermClock {
    /// For a term that begins at `host` by its host's clock, after a log whose newest event is of `newest`.
    pub fn new(host: Timestamp, newest: Timestamp) -> TermClock {
        TermClock { began: host, ahead: newest.since(host) }
    }

    /// The term's time when it is `host` by its host's clock. Rises with it.
    pub fn at(&self, host: Timestamp) -> Timestamp {
        let lost = Millis(host.since(self.began).0 / LOSES_ONE_IN);
        host + Millis(self.ahead.0.saturating_sub(lost.0))
    }

    /// How far it was ahead of its host's clock when the term began.
    pub fn ahead(&self) -> Millis {
        self.ahead
    }
}

/// UUIDs of version 7 that rise, drawn from a seed.
#[derive(Clone, Debug)]
pub struct Ids {
    seed: u64,
    last_ms: u64,
    /// Within one millisecond; 12 bits of it show in the id.
    count: u16,
}

const COUNT_MAX: u16 = 0x0fff;

impl Ids {
    pub fn new(seed: u64) -> Ids {
        Ids { seed, last_ms: 0, count: 0 }
    }

    /// An id above all that this source has given.
    pub fn next(&mut self, now: Timestamp) -> JobId {
        if now.0 > self.last_ms {
            (self.last_ms, self.count) = (now.0, 0);
        } else if self.count == COUNT_MAX {
            // More than four thousand in a millisecond: borrow from the next.
            (self.last_ms, self.count) = (self.last_ms + 1, 0);
        } else {
            self.count += 1;
        }
        let mut tail = [0; 10];
        tail[..2].copy_from_slice(&self.count.to_be_bytes());
        tail[2..].copy_from_slice(&self.draw().to_be_bytes());
        JobId(uuid::Builder::from_unix_timestamp_millis(self.last_ms, &tail).into_uuid())
    }

    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terms_time_goes_on_from_the_log_and_comes_back_to_its_hosts() {
        let host = Timestamp(1_000_000);
        let behind = TermClock::new(host, host + Millis::secs(60));
        assert_eq!((behind.at(host), behind.ahead()), (host + Millis::secs(60), Millis::secs(60)));
        let times: Vec<_> = (0..2_000_000).step_by(7).map(|ms| behind.at(host + Millis(ms))).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "it rises all the time");
        assert_eq!(behind.at(host + Millis::minutes(20)), host + Millis::minutes(20), "a minute is lost in twenty");
        assert_eq!(behind.at(host + Millis::minutes(90)), host + Millis::minutes(90));

        let right = TermClock::new(host, Timestamp(999_999));
        assert_eq!((right.at(host), right.ahead()), (host, Millis::ZERO));
        assert_eq!(right.at(host + Millis(1)), host + Millis(1));
    }

    #[test]
    fn ids_rise_and_are_of_version_7() {
        let mut ids = Ids::new(7);
        let given: Vec<_> = (0..10_000).map(|i| ids.next(Timestamp(1_700_000_000_000 + i / 8_000))).collect();
        assert!(given.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(given.iter().all(|id| id.0.get_version_num() == 7));
    }
}
