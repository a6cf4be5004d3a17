//! Randomness that can be had again: a test says its seed, and `OUTLIVE_TEST_SEED` gives it back.

use std::time::Duration;

/// SplitMix64: small, good enough to choose moments, and the same everywhere.
#[derive(Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// Prints the seed, so that a failed run tells it.
    pub fn seeded() -> Chance {
        let given =
            std::env::var("OUTLIVE_TEST_SEED").ok().map(|text| text.parse().expect("OUTLIVE_TEST_SEED is a number"));
        let seed = given.unwrap_or_else(|| uuid::Uuid::now_v7().as_u128() as u64);
        eprintln!("seed: OUTLIVE_TEST_SEED={seed}");
        Chance { state: seed }
    }

    pub fn of(seed: u64) -> Chance {
        Chance { state: seed }
    }

    /// Something from 0 up to, and without, `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        for multiplier in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(multiplier);
        }
        (mixed ^ (mixed >> 31)) % bound
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True this often in a thousand times.
    pub fn per_mille(&mut self, often: u64) -> bool {
        self.below(1_000) < often
    }

    pub fn one_of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u64) as usize]
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Lets a random time go by: what happens at its end happens at a random moment, which is all it is for.
    pub async fn moment(&mut self, longest: Duration) {
        let ms = self.below(longest.as_millis() as u64 + 1);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
