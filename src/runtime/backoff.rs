//! How long to wait after failures. Pure: the attempt and the seed of the jitter are arguments.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Doubling from `first` to `max`, each delay shortened by up to a quarter so that objects that failed together do not
/// come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub max: Duration,
}

/// Doublings beyond this one never matter: 2^40 of any delay is above every `max`.
const MOST_DOUBLINGS: u32 = 40;

impl Backoff {
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The wait after `failures` failures in a row; the first failure is number 0.
    pub fn delay(&self, failures: u32, seed: u64) -> Duration {
        let whole = self.without_jitter(failures);
        let quarter = whole.as_nanos() / 4;
        let cut = quarter * u128::from(mix(seed, failures) >> 32) / u128::from(u32::MAX);
        whole - Duration::from_nanos(u64::try_from(cut).unwrap_or(u64::MAX))
    }

    /// The delay before jitter.
    pub fn without_jitter(&self, failures: u32) -> Duration {
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.max)
            .with_factor(2.0)
            .without_max_times()
            .build()
            .nth(failures.min(MOST_DOUBLINGS) as usize)
            .unwrap_or(self.max)
            .min(self.max)
    }
}

/// A seed from a name or uid, the same in every process.
pub fn seed_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Bits that look random in `seed` and `n` alike (the finaliser of splitmix64).
fn mix(seed: u64, n: u32) -> u64 {
    let mut z = seed.wrapping_add(u64::from(n).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));

    #[test]
    fn doubles_up_to_the_limit() {
        let delays: Vec<u64> = (0..11).map(|n| BACKOFF.without_jitter(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(BACKOFF.without_jitter(u32::MAX).as_secs(), 300);
    }

    #[test]
    fn jitter_takes_at_most_a_quarter_and_depends_on_the_seed() {
        for seed in 0..200 {
            for failures in 0..12 {
                let (delay, whole) = (BACKOFF.delay(failures, seed), BACKOFF.without_jitter(failures));
                assert!(delay <= whole && delay >= whole * 3 / 4, "{delay:?} of {whole:?}");
                assert_eq!(delay, BACKOFF.delay(failures, seed));
            }
        }
        assert_ne!(BACKOFF.delay(5, seed_of("a")), BACKOFF.delay(5, seed_of("b")));
    }
}
