//! When a failed step is tried again: contract section 4.2, with a jitter so that what failed together does not come back
//! together.

use std::time::Duration;

/// `RETRY_BASE_DELAY_SEC` and `RETRY_MAX_DELAY_SEC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(5), max: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// After the `retries`-th failure (counted from 1): twice the base, then always twice as long, and never longer than the
    /// greatest. `jitter` is any number; it takes up to a tenth off.
    pub fn delay(&self, retries: u32, jitter: u64) -> Duration {
        let doubled = self.base.saturating_mul(2u32.saturating_pow(retries.min(31)));
        let delay = doubled.min(self.max);
        let tenth = u64::try_from(delay.as_millis() / 10).unwrap_or(u64::MAX);
        delay.saturating_sub(Duration::from_millis(jitter.checked_rem(tenth).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, 5)]
    #[case(1, 10)]
    #[case(2, 20)]
    #[case(3, 40)]
    #[case(6, 300)]
    #[case(4_000_000, 300)]
    fn delays_double_up_to_the_greatest(#[case] retries: u32, #[case] seconds: u64) {
        assert_eq!(Backoff::default().delay(retries, 0), Duration::from_secs(seconds));
    }

    #[test]
    fn a_jitter_takes_a_tenth_at_most() {
        let longest = Backoff::default().delay(1, 0);
        let jittered: Vec<Duration> = (0..5000).map(|jitter| Backoff::default().delay(1, jitter)).collect();
        assert!(jittered.iter().all(|delay| *delay <= longest && *delay > longest * 9 / 10 - Duration::from_millis(1)));
        assert!(jittered.iter().any(|delay| *delay != longest));
        let none = Backoff { base: Duration::ZERO, max: Duration::ZERO };
        assert_eq!(none.delay(3, 7), Duration::ZERO);
    }
}
