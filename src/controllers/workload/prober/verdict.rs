//! From the answers of probes to the health of a container. Pure.

use crate::{
    adapters::{
        containers::{Container, EngineHealth},
        probes::ProbeOutcome,
    },
    api::workload::{Probe, Probes, VariantHealth},
    controllers::workload::observed::Health,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Startup,
    Liveness,
    Readiness,
}

/// Answers in a row of one probe.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    successes: u32,
    failures: u32,
    passed: Option<bool>,
}

impl Count {
    /// What the probe comes to now. `None` until a threshold has been reached once; an answer that says nothing counts
    /// neither way.
    pub fn add(&mut self, outcome: &ProbeOutcome, probe: &Probe) -> Option<bool> {
        match outcome {
            ProbeOutcome::Success => (self.successes, self.failures) = (self.successes.saturating_add(1), 0),
            ProbeOutcome::Failure(_) => (self.successes, self.failures) = (0, self.failures.saturating_add(1)),
            ProbeOutcome::Unknown(_) => {}
        }
        if self.successes >= probe.success_threshold.max(1) {
            self.passed = Some(true);
        } else if self.failures >= probe.failure_threshold.max(1) {
            self.passed = Some(false);
        }
        self.passed
    }
}

/// What each probe comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdicts {
    startup: Option<bool>,
    liveness: Option<bool>,
    readiness: Option<bool>,
}

impl Verdicts {
    pub fn set(&mut self, which: Which, passed: Option<bool>) {
        match which {
            Which::Startup => self.startup = passed,
            Which::Liveness => self.liveness = passed,
            Which::Readiness => self.readiness = passed,
        }
    }

    /// `fresh`: the run has just begun, so that no answer yet means "starting".
    pub fn health(&self, probes: &Probes, fresh: bool) -> Health {
        let silent = if fresh { VariantHealth::Starting } else { VariantHealth::Unknown };
        let dead = Health { health: VariantHealth::Unhealthy, liveness_failed: true };
        if probes.startup.is_some() {
            match self.startup {
                Some(true) => {}
                Some(false) => return dead,
                None => return alive(VariantHealth::Starting),
            }
        }
        if probes.liveness.is_some() && self.liveness == Some(false) {
            return dead;
        }
        let decisive = match (&probes.readiness, &probes.liveness) {
            (Some(_), _) => self.readiness,
            (None, Some(_)) => self.liveness,
            // Only a startup probe, and it has passed.
            (None, None) => Some(true),
        };
        alive(match decisive {
            Some(true) => VariantHealth::Healthy,
            Some(false) => VariantHealth::Unhealthy,
            None => silent,
        })
    }
}

/// A running container without probes: Docker's own health check if it has one, else running is healthy.
pub fn without_probes(container: &Container) -> Health {
    alive(match container.health {
        Some(EngineHealth::Starting) => VariantHealth::Starting,
        Some(EngineHealth::Healthy) | None => VariantHealth::Healthy,
        Some(EngineHealth::Unhealthy) => VariantHealth::Unhealthy,
    })
}

fn alive(health: VariantHealth) -> Health {
    Health { health, liveness_failed: false }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn probe(failure_threshold: u32, success_threshold: u32) -> Probe {
        Probe { failure_threshold, success_threshold, ..Probe::default() }
    }

    /// `+` success, `-` failure, `?` nothing found out.
    fn after(answers: &str, failure_threshold: u32, success_threshold: u32) -> Option<bool> {
        let mut count = Count::default();
        answers.chars().fold(None, |_, answer| {
            let outcome = match answer {
                '+' => ProbeOutcome::Success,
                '-' => ProbeOutcome::Failure("no".into()),
                _ => ProbeOutcome::Unknown("nobody there to ask".into()),
            };
            count.add(&outcome, &probe(failure_threshold, success_threshold))
        })
    }

    #[rstest]
    #[case::one_success_is_enough("+", Some(true))]
    #[case::two_failures_are_not_three("--", None)]
    #[case::three_failures_in_a_row_fail("---", Some(false))]
    #[case::a_success_begins_the_count_anew("--+--", Some(true))]
    #[case::not_knowing_counts_neither_way("--??-", Some(false))]
    #[case::not_knowing_alone_says_nothing("??????", None)]
    #[case::a_failed_one_recovers("---+", Some(true))]
    fn thresholds(#[case] answers: &str, #[case] expected: Option<bool>) {
        assert_eq!(after(answers, 3, 1), expected);
    }

    #[test]
    fn a_success_threshold_wants_successes_in_a_row() {
        assert_eq!(after("---++", 3, 3), Some(false));
        assert_eq!(after("---+++", 3, 3), Some(true));
    }

    fn probes(which: &str) -> Probes {
        let given = |letter| which.contains(letter).then(|| probe(3, 1));
        Probes { startup: given('s'), liveness: given('l'), readiness: given('r') }
    }

    #[rstest]
    #[case::startup_holds_the_others_back("slr", [None, Some(false), Some(false)], VariantHealth::Starting, false)]
    #[case::startup_that_fails_is_dead("s", [Some(false), None, None], VariantHealth::Unhealthy, true)]
    #[case::startup_alone_is_enough("s", [Some(true), None, None], VariantHealth::Healthy, false)]
    #[case::liveness_that_fails_is_dead("lr", [None, Some(false), Some(true)], VariantHealth::Unhealthy, true)]
    #[case::readiness_decides("lr", [None, Some(true), Some(false)], VariantHealth::Unhealthy, false)]
    #[case::liveness_decides_alone("l", [None, Some(true), None], VariantHealth::Healthy, false)]
    #[case::alive_but_readiness_not_told("lr", [None, Some(true), None], VariantHealth::Unknown, false)]
    fn health_follows(
        #[case] which: &str,
        #[case] passed: [Option<bool>; 3],
        #[case] health: VariantHealth,
        #[case] liveness_failed: bool,
    ) {
        let [startup, liveness, readiness] = passed;
        let verdicts = Verdicts { startup, liveness, readiness };
        assert_eq!(verdicts.health(&probes(which), false), Health { health, liveness_failed });
    }

    #[test]
    fn silence_is_starting_at_first_and_unknown_in_a_container_found_running() {
        let silent = Verdicts::default();
        assert_eq!(silent.health(&probes("r"), true).health, VariantHealth::Starting);
        assert_eq!(silent.health(&probes("r"), false).health, VariantHealth::Unknown);
    }
}
