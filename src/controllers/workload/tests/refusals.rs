//! What follows when reality strays, refuses or is silent.

use rstest::rstest;

use super::*;
use crate::{api::container::ImagePullPolicy, runtime::reconciler::Finalizer};

const NOTHING: [&str; 0] = [];

#[test]
fn no_answer_says_unknown_and_does_nothing() {
    let case = Case::with_candidate().remember().changed(|c| c.observed.engine = Err("dockerd is away".into()));
    let plan = case.plan();
    assert_eq!((case.steps().len(), case.ready()), (0, "Unknown EngineUnreachable".into()));
    assert_eq!(plan.requeue, Requeue::Backoff);
    let live = plan.status.unwrap().live.unwrap();
    assert_eq!((live.state, live.health), (crate::api::workload::VariantState::Unknown, VariantHealth::Unknown));
    assert_eq!(live.container_id.as_deref(), Some("id-of-web-live"), "what was known of the past stays");
}

#[test]
fn no_answer_lets_no_deleted_workload_go() {
    let case = Case::running().changed(|c| {
        c.workload.metadata.deletion_timestamp = Some(Time(at(-1)));
        c.observed.engine = Err("dockerd is away".into());
    });
    assert_eq!(case.plan().finalizer, Finalizer::Leave);
}

#[test]
fn a_foreign_container_of_the_name_stalls_and_is_not_touched() {
    let case = Case::empty().changed(|c| c.live().named = Some(foreign("web-live", ContainerState::Running)));
    assert_eq!(case.steps(), NOTHING);
    assert_eq!(case.follows().stalled.as_deref(), Some("NameTaken"));
    assert_eq!(case.ready(), "False NameTaken");
}

#[test]
fn a_container_of_another_owner_is_foreign_too() {
    let case = Case::empty().changed(|c| {
        let mut other = ours(Variant::Live, &spec("web:1"), ContainerState::Running, true);
        other.labels.insert(crate::api::label::OWNER_UID.into(), "someone else".into());
        c.live().named = Some(other);
    });
    assert_eq!(case.steps(), NOTHING);
    assert_eq!(case.ready(), "False NameTaken");
}

fn notes(case: &Case) -> Vec<&'static str> {
    case.plan().events.iter().map(|note| note.reason).collect()
}

#[test]
fn a_container_renamed_by_hand_is_renamed_back_and_told() {
    let case = Case::running().remember().changed(|c| {
        c.container().name = "mine-now".into();
        c.live().named = None;
    });
    assert_eq!(case.steps(), ["rename mine-now to web-live"]);
    assert!(notes(&case).contains(&"Drift"));
}

#[rstest]
#[case::running(Case::running())]
#[case::not_to_run(Case::running().changed(|c| {
    c.live_spec().running = false;
    c.container().state = ContainerState::Exited;
}))]
fn a_restart_policy_given_by_hand_is_taken_away_and_told(#[case] case: Case) {
    let case = case.remember().changed(|c| c.container().restarts_itself = true);
    assert_eq!(case.steps(), ["forbid restarts of web-live"]);
    assert!(notes(&case).contains(&"Drift"));
}

#[test]
fn the_restart_policy_of_an_adopted_container_is_its_owners() {
    let case = Case::empty().changed(|c| {
        c.live_spec().container = adopting("vllm");
        let theirs = Container { restarts_itself: true, ..foreign("vllm", ContainerState::Running) };
        *c.live() = VariantSeen { ours: Vec::new(), ..seen(theirs) };
    });
    assert_eq!((case.steps().len(), case.ready()), (0, "True Running".into()));
}

#[test]
fn a_renamed_container_whose_name_is_taken_runs_on() {
    let case = Case::running().changed(|c| {
        c.container().name = "mine-now".into();
        c.live().named = Some(foreign("web-live", ContainerState::Running));
    });
    assert_eq!(case.steps(), NOTHING);
    assert_eq!(case.ready(), "False NameTaken");
}

#[test]
fn a_container_removed_by_hand_is_made_again_and_told() {
    let case = Case::running().remember().changed(|c| {
        *c.live() = VariantSeen::default();
        c.live().image.present = Some(true);
    });
    assert_eq!(case.steps(), ["create web-live"]);
    assert!(notes(&case).contains(&"Drift"));
}

#[test]
fn a_container_stopped_by_hand_is_started_again_and_told() {
    let case = Case::running().remember().changed(|c| {
        *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Exited, true));
    });
    assert_eq!(case.steps(), ["start web-live"]);
    assert!(notes(&case).contains(&"Exited"));
}

#[test]
fn of_two_the_one_with_the_right_spec_stays_then_the_one_that_runs() {
    let two = |first: Container, second: Container| {
        Case::running().changed(|c| {
            c.live().named = Some(first.clone());
            c.live().ours = vec![first, second];
        })
    };
    let named = |mut container: Container, name: &str| {
        container.id = ContainerId(name.into());
        container.name = name.into();
        container
    };
    let right = ours(Variant::Live, &spec("web:1"), ContainerState::Exited, true);
    let stale = named(ours(Variant::Live, &spec("web:0"), ContainerState::Running, true), "stale");
    assert_eq!(two(right.clone(), stale).steps()[0], "remove stale");
    let runs = named(ours(Variant::Live, &spec("web:1"), ContainerState::Running, true), "runs");
    let case = two(right, runs);
    assert_eq!(case.follows().stages, [["remove web-live"], ["rename runs to web-live"]]);
}

#[test]
fn a_paused_container_is_left_and_named() {
    let case = Case::with_live(ContainerState::Paused);
    assert_eq!((case.steps().len(), case.follows().stalled.as_deref()), (0, Some("Paused")));
}

#[test]
fn an_adopted_container_that_is_missing_stalls() {
    let case = Case::empty().changed(|c| c.live_spec().container = adopting("vllm"));
    assert_eq!((case.steps().len(), case.ready()), (0, "False AdoptedContainerNotFound".into()));
}

#[test]
fn a_container_of_gaias_cannot_be_adopted() {
    let case = Case::empty().changed(|c| {
        c.live_spec().container = adopting("other-live");
        let mut made = ours(Variant::Live, &spec("web:1"), ContainerState::Exited, true);
        made.name = "other-live".into();
        c.live().named = Some(made);
    });
    assert_eq!((case.steps().len(), case.ready()), (0, "False AdoptedContainerManaged".into()));
}

#[test]
fn a_refusal_stalls_and_is_tried_again_when_its_time_has_come() {
    let refused = |retry_in| {
        Case::with_live(ContainerState::Created)
            .changed(|c| c.live().failures = vec![failure(Verb::Start, Some(Reason::PortInUse), retry_in)])
    };
    let waiting = refused(20);
    assert_eq!((waiting.steps().len(), waiting.follows().stalled.as_deref()), (0, Some("PortInUse")));
    assert!((waiting.requeue_seconds() - 20.0).abs() < 0.001);
    let due = refused(0);
    assert_eq!(due.steps(), ["start web-live"]);
    assert_eq!(due.follows().stalled.as_deref(), Some("PortInUse"), "still what is known");
}

#[test]
fn a_changed_spec_is_tried_at_once() {
    let case = Case::with_live(ContainerState::Created).changed(|c| {
        c.live().failures = vec![failure(Verb::Start, Some(Reason::PortInUse), 200)];
        c.workload.metadata.generation = Some(2);
    });
    assert_eq!(case.steps(), ["start web-live"]);
    assert_eq!(case.follows().stalled, None);
}

#[test]
fn an_ambiguous_answer_is_no_reason_to_stall() {
    let case =
        Case::with_live(ContainerState::Created).changed(|c| c.live().failures = vec![failure(Verb::Start, None, 5)]);
    assert_eq!((case.follows().stalled, case.ready()), (None, "False EngineError".into()));
    // It had taken effect.
    let started = case.changed(|c| {
        let failures = std::mem::take(&mut c.live().failures);
        *c.live() =
            VariantSeen { failures, ..seen(ours(Variant::Live, &spec("web:1"), ContainerState::Running, true)) };
    });
    assert_eq!(started.ready(), "True Running");
}

#[test]
fn a_failure_to_start_does_not_hold_a_stop_back() {
    let case = Case::running().changed(|c| {
        c.live_spec().running = false;
        c.live().failures = vec![failure(Verb::Start, Some(Reason::PortInUse), 200)];
    });
    assert_eq!(case.steps(), ["stop web-live"]);
}

#[test]
fn one_variants_refusal_does_not_hold_the_other_back() {
    let case = Case::with_candidate().changed(|c| {
        *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Created, true));
        c.live().failures = vec![failure(Verb::Start, Some(Reason::PortInUse), 200)];
        c.view().candidate = seen(ours(Variant::Candidate, &spec("web:2"), ContainerState::Created, false));
    });
    assert_eq!(case.steps(), ["start web-candidate"]);
    assert_eq!(case.ready(), "False PortInUse", "the worst speaks");
}

#[test]
fn an_image_that_cannot_be_pulled_waits_and_is_tried_again() {
    let failed = |retry_in| {
        Case::empty().changed(|c| {
            c.live().image.present = Some(false);
            c.live().image.pull = PullSeen::Failed { message: "no such image".into(), retry_at: at(retry_in) };
        })
    };
    assert_eq!((failed(30).steps().len(), failed(30).ready()), (0, "False ImagePullBackOff".into()));
    assert_eq!(failed(0).steps(), ["pull web:1"]);
    let never = failed(0).changed(|c| c.live_spec().container.image_pull_policy = Some(ImagePullPolicy::Never));
    assert_eq!((never.steps().len(), never.follows().stalled.as_deref()), (0, Some("ImageNeverPull")));
}

#[test]
fn suspended_means_hands_off_but_for_deletion() {
    let suspended = |case: Case| case.changed(|c| c.workload.spec.suspend = Some(true));
    let case = suspended(Case::empty());
    assert_eq!((case.steps().len(), case.ready()), (0, "False Suspended".into()));
    assert_eq!(suspended(Case::running()).ready(), "True Running");
    let deleted = suspended(Case::running()).changed(|c| c.workload.metadata.deletion_timestamp = Some(Time(at(-1))));
    assert_eq!(deleted.steps(), ["remove web-live"]);
}

#[test]
fn a_workload_of_another_node_is_not_spoken_of() {
    let case = Case::empty().changed(|c| c.workload.spec.node_name = Some("elsewhere".into()));
    let plan = case.plan();
    assert_eq!((plan.status, plan.stages.concat().len(), plan.requeue), (None, 0, Requeue::OnChange));
}

#[test]
fn a_transition_is_told_once() {
    let case = Case::empty().changed(|c| c.live().named = Some(foreign("web-live", ContainerState::Running)));
    assert_eq!(notes(&case), ["NameTaken"]);
    assert_eq!(notes(&case.remember()), NOTHING);
}
