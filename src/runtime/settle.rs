//! The one place where every end of a pass is handled, counted and turned into the next wake-up.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tracing::{debug, error, warn};

use super::{
    backoff::{Backoff, seed_of},
    metrics::{PassEnd, PassLabels, RuntimeMetrics},
    reconciler::{Outcome, PassError, Requeue, chain},
};
use crate::registry::ObjectName;

/// Between passes that failed or were voided.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// A terminal error is looked at again this often, for nobody tells us when the world has changed.
const AFTER_TERMINAL: Duration = Duration::from_secs(60);
/// So many passes in a row may act and be followed at once. Beyond it something does not converge, and backs off.
const MOST_ACTING_PASSES: u32 = 12;

/// Remembers, per object, how many passes in a row did not come to rest.
#[derive(Debug)]
pub struct Settler {
    controller: &'static str,
    metrics: RuntimeMetrics,
    seed: u64,
    restless: Mutex<HashMap<ObjectName, Restless>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Restless {
    failed: u32,
    acted: u32,
}

impl Settler {
    pub fn new(controller: &'static str, metrics: RuntimeMetrics, seed: u64) -> Self {
        Self { controller, metrics, seed, restless: Mutex::default() }
    }

    /// None: when something wakes the object.
    pub fn settle(&self, name: &ObjectName, outcome: Outcome) -> Option<Duration> {
        self.count(&outcome);
        match outcome {
            Outcome::Gone => {
                self.lock().remove(name);
                None
            }
            Outcome::Settled(Requeue::OnChange) => {
                self.lock().remove(name);
                None
            }
            Outcome::Settled(Requeue::After(delay)) => {
                self.lock().remove(name);
                Some(delay)
            }
            Outcome::Settled(Requeue::Backoff) => Some(self.after_failure(name)),
            Outcome::Acted => Some(self.after_acting(name)),
            Outcome::Conflict => {
                debug!(controller = self.controller, ?name, "the object moved on during the pass");
                Some(self.after_failure(name))
            }
            Outcome::Failed(PassError::Terminal(message)) => {
                error!(controller = self.controller, ?name, message, "pass cannot succeed");
                Some(AFTER_TERMINAL)
            }
            Outcome::Failed(error @ (PassError::Objects { .. } | PassError::Effect { .. })) => {
                warn!(controller = self.controller, ?name, error = chain(&error), "pass failed");
                Some(self.after_failure(name))
            }
        }
    }

    fn after_failure(&self, name: &ObjectName) -> Duration {
        let mut restless = self.lock();
        let entry = restless.entry(name.clone()).or_default();
        let delay = RETRY.delay(entry.failed, self.jitter(name));
        entry.failed = entry.failed.saturating_add(1);
        delay
    }

    fn after_acting(&self, name: &ObjectName) -> Duration {
        let mut restless = self.lock();
        let entry = restless.entry(name.clone()).or_default();
        entry.failed = 0;
        entry.acted = entry.acted.saturating_add(1);
        match entry.acted.checked_sub(MOST_ACTING_PASSES) {
            None => Duration::ZERO,
            Some(beyond) => {
                warn!(controller = self.controller, ?name, passes = entry.acted, "acts again and again");
                RETRY.delay(beyond, self.jitter(name))
            }
        }
    }

    fn jitter(&self, name: &ObjectName) -> u64 {
        self.seed ^ seed_of(name.namespace.as_deref().unwrap_or_default()).rotate_left(1) ^ seed_of(&name.name)
    }

    fn count(&self, outcome: &Outcome) {
        let end = match outcome {
            Outcome::Gone => PassEnd::Gone,
            Outcome::Settled(_) => PassEnd::Settled,
            Outcome::Acted => PassEnd::Acted,
            Outcome::Conflict => PassEnd::Conflict,
            Outcome::Failed(PassError::Terminal(_)) => PassEnd::Terminal,
            Outcome::Failed(PassError::Objects { .. } | PassError::Effect { .. }) => PassEnd::Failed,
        };
        self.metrics.passes.get_or_create(&PassLabels { controller: self.controller, end }).inc();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectName, Restless>> {
        self.restless.lock().expect("no code panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{ApiError, Reason};

    fn settler() -> Settler {
        Settler::new("test", RuntimeMetrics::default(), 7)
    }

    fn name() -> ObjectName {
        ObjectName { namespace: None, name: "web".into() }
    }

    fn failed() -> Outcome {
        let source = ApiError::new(Reason::ServiceUnavailable, "the disk is full");
        Outcome::Failed(PassError::Objects { doing: "write the status", source })
    }

    #[test]
    fn failures_wait_longer_each_time_and_rest_resets_them() {
        let settler = settler();
        let waits: Vec<Duration> = (0..12).map(|_| settler.settle(&name(), failed()).unwrap()).collect();
        assert!(waits[0] <= Duration::from_millis(100));
        assert!(waits.windows(2).take(6).all(|w| w[1] > w[0]), "{waits:?}");
        assert!(waits.iter().all(|w| *w <= RETRY.max));
        assert_eq!(settler.settle(&name(), Outcome::Settled(Requeue::OnChange)), None);
        assert_eq!(settler.settle(&name(), failed()), Some(waits[0]));
    }

    #[test]
    fn an_unanswered_look_counts_as_a_failure() {
        let settler = settler();
        let first = settler.settle(&name(), Outcome::Settled(Requeue::Backoff)).unwrap();
        let second = settler.settle(&name(), Outcome::Settled(Requeue::Backoff)).unwrap();
        assert!(second > first);
    }

    #[test]
    fn acting_is_followed_at_once_until_it_does_not_converge() {
        let settler = settler();
        for _ in 1..MOST_ACTING_PASSES {
            assert_eq!(settler.settle(&name(), Outcome::Acted), Some(Duration::ZERO));
        }
        assert!(settler.settle(&name(), Outcome::Acted).unwrap() > Duration::ZERO);
    }

    #[test]
    fn an_object_that_is_gone_is_forgotten() {
        let settler = settler();
        let first = settler.settle(&name(), failed());
        assert_eq!(settler.settle(&name(), Outcome::Gone), None);
        assert_eq!(settler.settle(&name(), failed()), first);
    }

    #[test]
    fn a_terminal_error_is_not_hurried() {
        let outcome = Outcome::Failed(PassError::Terminal("no such thing".into()));
        assert_eq!(settler().settle(&name(), outcome), Some(AFTER_TERMINAL));
    }
}
