//! Who answers while live does not do well.

use rstest::rstest;

use super::*;
use crate::{
    api::{
        container::Adopt,
        workload::{Probe, Probes, TcpProbe},
    },
    controllers::workload::failover::{self, Answering},
};

/// Live answers, both are healthy, and the spec allows it.
fn both_well() -> Case {
    Case::with_candidate().changed(|c| c.workload.spec.failover = Some(true)).remember()
}

/// The candidate has the name, as after a failover.
fn failed_over() -> Case {
    both_well().changed(|c| {
        *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Running, false));
        c.view().candidate = seen(ours(Variant::Candidate, &spec("web:2"), ContainerState::Running, true));
    })
}

#[derive(Debug, Clone, Copy)]
enum Is {
    Gone,
    Stopped,
    Starting,
    Unhealthy,
    Silent,
    Healthy,
}

impl Case {
    fn with(self, variant: Variant, is: Is) -> Self {
        self.changed(|c| {
            let view = c.view();
            let seen = match variant {
                Variant::Live => &mut view.live,
                Variant::Candidate => &mut view.candidate,
            };
            let health = match is {
                Is::Gone => return *seen = VariantSeen::default(),
                Is::Stopped => {
                    seen.ours[0].state = ContainerState::Exited;
                    VariantHealth::Unknown
                }
                Is::Starting => VariantHealth::Starting,
                Is::Unhealthy => VariantHealth::Unhealthy,
                Is::Silent => VariantHealth::Unknown,
                Is::Healthy => VariantHealth::Healthy,
            };
            seen.health = Health { health, liveness_failed: false };
        })
    }

    fn answering(&self) -> Answering {
        failover::decide(&self.workload, self.observed.engine.as_ref().expect("the engine answers"), self.now)
    }
}

#[rstest]
#[case::all_is_well(Is::Healthy, Is::Healthy, Variant::Live)]
#[case::unhealthy(Is::Unhealthy, Is::Healthy, Variant::Candidate)]
#[case::stopped(Is::Stopped, Is::Healthy, Variant::Candidate)]
#[case::gone(Is::Gone, Is::Healthy, Variant::Candidate)]
#[case::starting(Is::Starting, Is::Healthy, Variant::Candidate)]
#[case::not_known_is_not_unwell(Is::Silent, Is::Healthy, Variant::Live)]
#[case::nor_does_one_who_is_unwell_help(Is::Unhealthy, Is::Unhealthy, Variant::Live)]
#[case::nor_one_who_starts(Is::Stopped, Is::Starting, Variant::Live)]
#[case::nor_one_of_whom_nothing_is_known(Is::Stopped, Is::Silent, Variant::Live)]
#[case::nor_one_who_is_not_there(Is::Stopped, Is::Gone, Variant::Live)]
fn live_answers_until_it_is_known_that_it_cannot(#[case] live: Is, #[case] candidate: Is, #[case] expected: Variant) {
    let case = both_well().with(Variant::Live, live).with(Variant::Candidate, candidate);
    assert_eq!(case.answering().variant, expected);
}

#[rstest]
#[case::live_is_still_unwell(Is::Unhealthy, Is::Healthy, Variant::Candidate)]
#[case::live_starts(Is::Starting, Is::Healthy, Variant::Candidate)]
#[case::live_says_nothing(Is::Silent, Is::Healthy, Variant::Candidate)]
#[case::live_has_only_just_come_back(Is::Healthy, Is::Healthy, Variant::Candidate)]
#[case::the_candidate_is_now_the_worse(Is::Healthy, Is::Unhealthy, Variant::Live)]
#[case::nobody_does_well(Is::Stopped, Is::Unhealthy, Variant::Candidate)]
#[case::the_candidate_ended(Is::Stopped, Is::Stopped, Variant::Live)]
fn the_candidate_answers_until_live_does_well(#[case] live: Is, #[case] candidate: Is, #[case] expected: Variant) {
    let unwell = failed_over().with(Variant::Live, Is::Unhealthy).remember();
    let case = unwell.with(Variant::Live, live).with(Variant::Candidate, candidate);
    assert_eq!(case.answering().variant, expected);
}

#[test]
fn the_name_goes_over_at_once_and_is_told() {
    let case = both_well().with(Variant::Live, Is::Unhealthy);
    assert_eq!(
        case.follows().stages,
        [["attach web-candidate to gaia-default as [web]"], ["attach web-live to gaia-default as []"]]
    );
    assert!(case.plan().events.iter().any(|note| note.reason == "FailedOver"), "{:?}", case.plan().events);
    assert_eq!(case.plan().status.unwrap().active, None, "nobody who does well has the name yet");

    let over = failed_over().with(Variant::Live, Is::Unhealthy);
    assert_eq!(over.steps(), [""; 0]);
    assert_eq!(over.plan().status.unwrap().active, Some(Variant::Candidate));
    assert!(over.plan().events.iter().all(|note| note.reason != "FailedOver"), "told once");
}

#[test]
fn live_answers_again_when_it_has_been_healthy_for_a_while() {
    let well_again = failed_over().with(Variant::Live, Is::Unhealthy).remember().with(Variant::Live, Is::Healthy);
    assert_eq!(well_again.requeue_seconds(), 10.0);
    let later = well_again.remember().later(9);
    assert_eq!(later.answering().variant, Variant::Candidate);
    let settled = later.remember().later(1);
    assert_eq!(
        settled.follows().stages,
        [["attach web-live to gaia-default as [web]"], ["attach web-candidate to gaia-default as []"]]
    );
    assert!(settled.plan().events.iter().any(|note| note.reason == "FailedBack"));
}

#[test]
fn a_live_that_comes_and_goes_does_not_take_the_name_along() {
    let mut case = failed_over().with(Variant::Live, Is::Unhealthy).remember();
    for _ in 0..20 {
        case = case.later(8).with(Variant::Live, Is::Healthy).remember();
        assert_eq!(case.answering().variant, Variant::Candidate);
        case = case.later(8).with(Variant::Live, Is::Unhealthy).remember();
        assert_eq!(case.answering().variant, Variant::Candidate);
    }
}

#[test]
fn a_slow_probe_wants_longer() {
    let case = failed_over().with(Variant::Live, Is::Unhealthy).remember().changed(|c| {
        let readiness =
            Probe { tcp: Some(TcpProbe { port: 80 }), period_seconds: 20, failure_threshold: 3, ..Probe::default() };
        c.workload.spec.probes = Some(Probes { readiness: Some(readiness), ..Probes::default() });
    });
    let well_again = case.with(Variant::Live, Is::Healthy).remember();
    assert_eq!(well_again.answering().wake_at, Some(at(60)));
}

#[rstest]
#[case::not_allowed(|c: &mut Case| c.workload.spec.failover = None)]
#[case::the_candidate_is_not_to_run(|c: &mut Case| c.workload.spec.candidate.as_mut().unwrap().running = false)]
#[case::the_candidate_is_somebody_elses(|c: &mut Case| {
    c.workload.spec.candidate.as_mut().unwrap().container.adopt = Some(Adopt { name: "other".into() });
})]
fn without_leave_or_candidate_live_keeps_the_name(#[case] change: fn(&mut Case)) {
    let case = both_well().with(Variant::Live, Is::Unhealthy).changed(change);
    assert_eq!(case.answering().variant, Variant::Live);
}

#[test]
fn an_active_candidate_never_fails_over_to_live() {
    let case = failed_over().with(Variant::Candidate, Is::Unhealthy).changed(|c| {
        c.workload.spec.active = Variant::Candidate;
    });
    assert_eq!(case.answering().variant, Variant::Candidate);
}

#[test]
fn an_unhealthy_time_begins_the_count_anew() {
    let since = |case: &Case| {
        let live = case.workload.status.as_ref().and_then(|s| s.live.as_ref());
        live.and_then(|live| live.healthy_since.clone()).map(|time| time.0)
    };
    let well = both_well();
    assert_eq!(since(&well), Some(at(0)));
    let still = well.later(30).remember();
    assert_eq!(since(&still), Some(at(0)));
    let unwell = still.with(Variant::Live, Is::Unhealthy).remember();
    assert_eq!(since(&unwell), None);
    let again = unwell.later(5).with(Variant::Live, Is::Healthy).remember();
    assert_eq!(since(&again), Some(at(35)));
    let restarted = again.later(60).changed(|c| c.container().started_at = Some(at(90))).remember();
    assert_eq!(since(&restarted), Some(at(95)));
}
