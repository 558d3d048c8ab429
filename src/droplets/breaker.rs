//! The circuit breaker of one droplet: after so many failures in a row nobody is sent there for a while, then one to see.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::droplet::{Circuit, DropletLimits};

/// Failures in a row, and since when the circuit is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    opened_at: Option<Timestamp>,
    /// When the request that tries was let through.
    trying_since: Option<Timestamp>,
}

/// Whether a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    Free,
    /// It is the one that tries.
    Trial,
    Barred {
        retry_after: Duration,
    },
}

impl Breaker {
    /// A trial that never came back counts as over after this many seconds, so that a lost one does not bar for ever.
    pub fn pass(&mut self, limits: &DropletLimits, now: Timestamp) -> Passage {
        let Some(opened_at) = self.opened_at else { return Passage::Free };
        if limits.failure_threshold == 0 {
            *self = Self::default();
            return Passage::Free;
        }
        let open = Duration::from_secs(limits.open_seconds.into());
        let left = |since: Timestamp| open.saturating_sub(elapsed(since, now));
        if !left(opened_at).is_zero() {
            return Passage::Barred { retry_after: left(opened_at) };
        }
        match self.trying_since {
            Some(since) if !left(since).is_zero() => Passage::Barred { retry_after: Duration::from_secs(1) },
            _ => {
                self.trying_since = Some(now);
                Passage::Trial
            }
        }
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub fn failed(&mut self, limits: &DropletLimits, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let trial = self.trying_since.take().is_some();
        let reached = limits.failure_threshold > 0 && self.failures >= limits.failure_threshold;
        if reached && (trial || self.opened_at.is_none()) {
            self.opened_at = Some(now);
        }
    }

    pub fn circuit(&self, limits: &DropletLimits, now: Timestamp) -> Circuit {
        match self.opened_at {
            None => Circuit::Closed,
            Some(at) if elapsed(at, now) < Duration::from_secs(limits.open_seconds.into()) => Circuit::Open,
            Some(_) => Circuit::HalfOpen,
        }
    }
}

/// A clock that was set back makes nothing older.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
    }

    #[test]
    fn opens_after_failures_in_a_row_and_lets_one_try() {
        let limits = DropletLimits { failure_threshold: 3, open_seconds: 10, ..DropletLimits::default() };
        let mut breaker = Breaker::default();
        breaker.failed(&limits, at(0));
        breaker.failed(&limits, at(0));
        breaker.succeeded();
        for _ in 0..3 {
            assert_eq!(breaker.pass(&limits, at(0)), Passage::Free);
            breaker.failed(&limits, at(0));
        }
        assert_eq!(breaker.circuit(&limits, at(1)), Circuit::Open);
        assert_eq!(breaker.pass(&limits, at(4)), Passage::Barred { retry_after: Duration::from_secs(6) });
        assert_eq!(breaker.circuit(&limits, at(10)), Circuit::HalfOpen);
        assert_eq!(breaker.pass(&limits, at(10)), Passage::Trial);
        assert!(matches!(breaker.pass(&limits, at(10)), Passage::Barred { .. }), "one alone tries");
        breaker.failed(&limits, at(11));
        assert!(matches!(breaker.pass(&limits, at(12)), Passage::Barred { .. }), "open again");
        assert_eq!(breaker.pass(&limits, at(21)), Passage::Trial);
        breaker.succeeded();
        assert_eq!(breaker.circuit(&limits, at(21)), Circuit::Closed);
    }

    #[test]
    fn a_trial_that_is_lost_does_not_bar_for_ever() {
        let limits = DropletLimits { failure_threshold: 1, open_seconds: 10, ..DropletLimits::default() };
        let mut breaker = Breaker::default();
        breaker.failed(&limits, at(0));
        assert_eq!(breaker.pass(&limits, at(10)), Passage::Trial);
        assert_eq!(breaker.pass(&limits, at(20)), Passage::Trial);
    }

    #[test]
    fn a_threshold_of_zero_never_opens() {
        let limits = DropletLimits::default();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.failed(&limits, at(0));
        }
        assert_eq!(breaker.pass(&limits, at(0)), Passage::Free);
    }
}
