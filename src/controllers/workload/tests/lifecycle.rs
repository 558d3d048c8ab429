//! The ways a workload goes when nothing refuses.

use super::*;
use crate::{
    api::{
        container::ImagePullPolicy,
        workload::{DependencyCondition, RestartPolicy},
    },
    controllers::workload::{
        observed::{DependencySeen, DependencyState},
        right::Right,
    },
    runtime::reconciler::Finalizer,
};

const NOTHING: [&str; 0] = [];

#[test]
fn what_runs_as_wished_is_left_alone() {
    let case = Case::running();
    assert_eq!(case.steps(), NOTHING);
    assert_eq!(case.ready(), "True Running");
    let status = case.plan().status.unwrap();
    assert_eq!(status.active, Some(Variant::Live));
    assert_eq!(status.observed_generation, Some(1));
}

#[test]
fn a_status_that_was_stored_is_decided_again_unchanged() {
    let case = Case::with_candidate().remember();
    let stored = serde_json::to_value(&case.workload).unwrap();
    let read_back = Case { workload: serde_json::from_value(stored).unwrap(), ..case };
    assert_eq!(read_back.workload.status, read_back.plan().status);
}

#[test]
fn it_is_made_then_started() {
    let case = Case::empty();
    assert_eq!(case.steps(), ["create web-live"]);
    assert_eq!(case.ready(), "False Creating");
    let made = case
        .remember()
        .changed(|c| *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Created, true)));
    assert_eq!(made.steps(), ["start web-live"]);
    assert_eq!(made.follows().reconciling.as_deref(), Some("Starting"));
}

#[test]
fn other_namespaces_have_names_and_networks_of_their_own() {
    let case = Case::empty().changed(|c| c.workload.metadata.namespace = Some("team".into()));
    let plan = case.plan();
    let Some(Action::Create { request, .. }) = plan.stages.concat().first().cloned() else { panic!("{plan:?}") };
    assert_eq!(request.name, "team.web-live");
    assert_eq!(request.networks, [("gaia-team".to_owned(), vec!["web".to_owned()])]);
}

#[test]
fn what_is_not_to_run_is_stopped_and_kept() {
    let stopping = Case::running().changed(|c| c.live_spec().running = false);
    assert_eq!(stopping.steps(), ["stop web-live"]);
    let stopped = Case::with_live(ContainerState::Exited).changed(|c| c.live_spec().running = false);
    assert_eq!(stopped.steps(), NOTHING);
    assert_eq!(stopped.ready(), "True Stopped");
    let absent = Case::empty().changed(|c| c.live_spec().running = false);
    assert_eq!(absent.steps(), NOTHING);
}

#[test]
fn what_was_stopped_for_a_handoff_has_not_crashed() {
    let gives = |c: &mut Case| {
        c.live().right = Right::Denied { message: "is giving gpu0 away (handoff there)".into(), lost_at: None };
    };
    let stops = |c: &mut Case| {
        c.container().state = ContainerState::Exited;
        c.container().finished_at = Some(at(9));
    };
    for policy in [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never] {
        let runs = Case::running().changed(|c| c.workload.spec.restart_policy = policy).remember();
        let giving = runs.clone().changed(gives);
        assert_eq!(giving.steps(), NOTHING, "stopping it is the handoff's business");
        let stopped = giving.remember().later(10).changed(stops);
        assert_eq!(stopped.ready(), "False WaitingForGpu");
        // Or all of it between two passes.
        for stopped in [stopped, runs.later(10).changed(gives).changed(stops)] {
            assert_eq!(stopped.steps(), NOTHING);
            let back = stopped.remember().changed(|c| c.live().right = Right::Granted);
            assert_eq!(back.steps(), ["start web-live"], "{policy:?}");
        }
    }
}

#[test]
fn a_changed_spec_makes_a_new_container_and_nothing_else_does() {
    let changed = Case::running().changed(|c| {
        c.live_spec().container = spec("web:9");
        c.live().image.present = Some(true);
    });
    assert_eq!(changed.steps(), ["remove web-live"]);
    assert_eq!(changed.ready(), "False Recreating");
    let gone = changed.remember().changed(|c| {
        *c.live() = VariantSeen::default();
        c.live().image.present = Some(true);
    });
    assert_eq!(gone.steps(), ["create web-live"]);
    assert!(gone.plan().events.iter().all(|note| note.reason != "Drift"), "we removed it ourselves");

    let elsewhere = Case::running().changed(|c| {
        c.workload.spec.stop_grace_seconds = 99;
        c.workload.metadata.generation = Some(2);
    });
    assert_eq!(elsewhere.steps(), NOTHING);
}

#[test]
fn the_old_container_runs_until_the_new_image_is_there() {
    let changed = Case::running().changed(|c| {
        c.live_spec().container = spec("web:9");
        c.live().image.present = Some(false);
    });
    assert_eq!(changed.steps(), ["pull web:9"]);
    let pulling = changed.changed(|c| c.live().image.pull = PullSeen::UnderWay);
    assert_eq!(pulling.steps(), NOTHING);
    assert_eq!(pulling.ready(), "False PullingImage");
}

#[test]
fn always_pulls_before_each_creation() {
    let always = Case::empty().changed(|c| c.live_spec().container.image_pull_policy = Some(ImagePullPolicy::Always));
    assert_eq!(always.steps(), ["pull web:1"]);
    let pulled = always.changed(|c| c.live().image.pull = PullSeen::Done { at: at(-10) });
    assert_eq!(pulled.steps(), ["create web-live"]);
    let long_ago = pulled.changed(|c| c.live().image.pull = PullSeen::Done { at: at(-3600) });
    assert_eq!(long_ago.steps(), ["pull web:1"]);
}

#[test]
fn a_variant_that_left_the_spec_is_removed() {
    let case = Case::with_candidate().changed(|c| c.workload.spec.candidate = None);
    assert_eq!(case.steps(), ["remove web-candidate"]);
}

#[test]
fn the_alias_goes_to_the_new_one_before_the_old_one_loses_it() {
    let case = Case::with_candidate().changed(|c| c.workload.spec.active = Variant::Candidate);
    assert_eq!(
        case.follows().stages,
        [["attach web-candidate to gaia-default as [web]"], ["attach web-live to gaia-default as []"]]
    );
    assert_eq!(case.plan().status.unwrap().active, None, "nobody is said to answer before it was seen");
}

#[test]
fn both_variants_move_at_once() {
    let case = Case::with_candidate().changed(|c| {
        *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Created, true));
        c.view().candidate = seen(ours(Variant::Candidate, &spec("web:2"), ContainerState::Created, false));
    });
    assert_eq!(case.follows().stages, [["start web-live", "start web-candidate"]]);
}

fn waits_for(state: DependencyState) -> Case {
    Case::with_live(ContainerState::Created).changed(|c| {
        c.observed.dependencies =
            vec![DependencySeen { workload: "db".into(), condition: DependencyCondition::Healthy, state }];
    })
}

#[test]
fn dependencies_gate_starting() {
    assert_eq!(waits_for(DependencyState::Met).steps(), ["start web-live"]);
    let unmet = waits_for(DependencyState::NotMet);
    assert_eq!((unmet.steps().len(), unmet.ready()), (0, "False WaitingForDependency".into()));
    let missing = waits_for(DependencyState::NotFound);
    assert_eq!((missing.steps().len(), missing.ready()), (0, "False DependencyNotFound".into()));
    assert_eq!(missing.follows().stalled, None, "it may come yet");
}

#[test]
fn dependencies_gate_starting_only() {
    let unmet = |state| {
        waits_for(DependencyState::NotMet)
            .changed(|c| *c.live() = seen(ours(Variant::Live, &spec("web:1"), state, true)))
    };
    assert_eq!(unmet(ContainerState::Running).ready(), "True Running");
    let made = waits_for(DependencyState::NotMet).changed(|c| {
        *c.live() = VariantSeen::default();
        c.live().image.present = Some(true);
    });
    assert_eq!(made.steps(), ["create web-live"]);
    let replaced = unmet(ContainerState::Running).changed(|c| {
        c.live_spec().container = spec("web:9");
        c.live().image.present = Some(true);
    });
    assert_eq!(replaced.steps(), NOTHING, "to replace is to start");
}

#[test]
fn who_depends_on_itself_is_stalled() {
    let case = Case::with_live(ContainerState::Created)
        .changed(|c| c.observed.cycle = Some(["web", "db", "web"].map(str::to_owned).to_vec()));
    assert_eq!(case.follows().stalled.as_deref(), Some("DependencyCycle"));
    assert_eq!(case.steps(), NOTHING);
}

/// Ran as wished, and was then found ended.
fn ended(exit_code: i64, policy: RestartPolicy) -> Case {
    Case::running().remember().changed(|c| {
        c.workload.spec.restart_policy = policy;
        *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Exited, true));
        c.container().exit_code = exit_code;
        c.container().started_at = Some(at(-900));
        c.container().finished_at = Some(at(-1));
    })
}

#[rstest::rstest]
#[case(1, RestartPolicy::Always, true)]
#[case(0, RestartPolicy::Always, true)]
#[case(1, RestartPolicy::OnFailure, true)]
#[case(0, RestartPolicy::OnFailure, false)]
#[case(1, RestartPolicy::Never, false)]
fn the_restart_policy_decides_after_an_end(#[case] code: i64, #[case] policy: RestartPolicy, #[case] again: bool) {
    let case = ended(code, policy).later(10);
    assert_eq!(!case.steps().is_empty(), again);
    if !again {
        assert_eq!(case.ready(), "False Exited");
    }
}

#[test]
fn no_policy_forbids_the_start_after_a_wished_stop() {
    let stopped = Case::running().remember().changed(|c| {
        c.workload.spec.restart_policy = RestartPolicy::Never;
        c.live_spec().running = false;
    });
    let at_rest = stopped.remember().changed(|c| {
        *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Exited, true));
    });
    let wished_again = at_rest.remember().changed(|c| c.live_spec().running = true);
    assert_eq!(wished_again.steps(), ["start web-live"]);
    // It ran to its end before anybody looked.
    let done = wished_again.remember().changed(|c| {
        c.container().started_at = Some(at(1));
        c.container().finished_at = Some(at(2));
    });
    assert_eq!(done.later(60).ready(), "False Exited");
}

#[test]
fn a_one_shot_that_ended_before_anybody_looked_is_not_run_twice() {
    let made = Case::with_live(ContainerState::Created).remember();
    let done = made.changed(|c| {
        c.workload.spec.restart_policy = RestartPolicy::Never;
        *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Exited, true));
    });
    assert_eq!(done.steps(), NOTHING);
}

#[test]
fn crashes_in_a_row_wait_longer_and_a_long_run_starts_over() {
    let mut case = ended(1, RestartPolicy::Always).changed(|c| c.container().started_at = Some(at(-2)));
    let mut waits = Vec::new();
    for round in 0..9 {
        case = case.remember();
        waits.push(case.requeue_seconds());
        let now = at(1000 * (round + 1));
        case = case.changed(|c| {
            c.now = now;
            c.container().started_at = Some(now - SignedDuration::from_secs(1));
            c.container().finished_at = Some(now);
        });
    }
    assert!(waits[1..7].windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    let status = case.remember().workload.status.unwrap().live.unwrap();
    assert_eq!((status.restarts, status.restarts_in_a_row), (10, 10), "each new start was seen");

    let long = ended(1, RestartPolicy::Always).changed(|c| {
        c.live_before().restarts_in_a_row = 7;
        c.container().started_at = Some(at(-700));
        c.now = at(1);
    });
    assert_eq!(long.steps(), ["start web-live"]);
}

#[test]
fn the_first_crash_is_mended_at_once_and_the_next_after_a_pause() {
    let first = ended(1, RestartPolicy::Always);
    assert_eq!((first.steps(), first.ready()), (vec!["start web-live".to_owned()], "False Restarting".to_owned()));
    assert_eq!(first.plan().events.iter().map(|note| note.reason).collect::<Vec<_>>(), ["Exited"]);
    let second = first.remember().changed(|c| {
        c.container().started_at = Some(at(0));
        c.container().finished_at = Some(at(5));
        c.now = at(5);
    });
    assert_eq!((second.steps().len(), second.ready()), (0, "False CrashLoopBackOff".to_owned()));
    assert!((0.9..=1.0).contains(&second.requeue_seconds()));
    // A run is told from the one before by the second it began in.
    let hasty = ended(1, RestartPolicy::Always).changed(|c| {
        c.container().started_at = Some(at(0));
        c.live_before().started_at = Some(Time(at(0)));
    });
    assert_eq!((hasty.steps().len(), hasty.ready()), (0, "False Restarting".to_owned()));
    assert_eq!(hasty.later(1).steps(), ["start web-live"]);
}

#[test]
fn a_run_that_lasts_ends_the_row_by_itself() {
    let again = ended(1, RestartPolicy::Always).remember().changed(|c| {
        *c.live() = seen(ours(Variant::Live, &spec("web:1"), ContainerState::Running, true));
        c.container().started_at = Some(at(0));
        c.now = at(1);
    });
    let row = |case: &Case| case.plan().status.unwrap().live.unwrap().restarts_in_a_row;
    assert_eq!((row(&again), again.ready(), again.requeue_seconds()), (1, "True Running".to_owned(), 599.0));
    let lasted = again.remember().later(599);
    assert_eq!((row(&lasted), lasted.plan().requeue), (0, Requeue::OnChange));
}

#[test]
fn a_clock_set_back_does_not_hold_a_restart_for_longer_than_the_backoff() {
    let first = ended(1, RestartPolicy::Always).changed(|c| c.container().finished_at = Some(at(86_400)));
    assert_eq!(first.steps(), ["start web-live"]);
    let second = first.changed(|c| {
        c.container().started_at = Some(at(86_399));
        c.live_before().started_at = Some(Time(at(86_399)));
        c.live_before().restarts_in_a_row = 1;
    });
    assert_eq!((second.steps().len(), second.ready()), (0, "False CrashLoopBackOff".to_owned()));
    assert!(second.requeue_seconds() <= 1.0);
}

#[test]
fn liveness_restarts_and_never_only_stops() {
    let dead = |policy| {
        Case::running().remember().changed(|c| {
            c.workload.spec.restart_policy = policy;
            c.live().health = Health { health: VariantHealth::Unhealthy, liveness_failed: true };
        })
    };
    assert_eq!(dead(RestartPolicy::Always).steps(), ["restart web-live"]);
    assert_eq!(dead(RestartPolicy::OnFailure).steps(), ["restart web-live"]);
    assert_eq!(dead(RestartPolicy::Never).steps(), ["stop web-live"]);
}

#[test]
fn who_gives_its_card_away_is_not_started_anew_for_not_answering() {
    let why = "is giving gpu0 away (handoff there)";
    let case = Case::running().remember().changed(|c| {
        c.live().health = Health { health: VariantHealth::Unhealthy, liveness_failed: true };
        c.live().right = Right::Denied { message: why.into(), lost_at: None };
    });
    assert_eq!((case.steps().len(), case.ready().as_str()), (0, "False Unhealthy"));
    let back = case.changed(|c| c.live().right = Right::Granted);
    assert_eq!(back.steps(), ["restart web-live"]);
}

#[rstest::rstest]
#[case(VariantHealth::Healthy, "True Running")]
#[case(VariantHealth::Starting, "False Starting")]
#[case(VariantHealth::Unhealthy, "False Unhealthy")]
#[case(VariantHealth::Unknown, "Unknown HealthUnknown")]
fn health_alone_moves_nothing(#[case] health: VariantHealth, #[case] ready: &str) {
    let case = Case::running().changed(|c| c.live().health = Health { health, liveness_failed: false });
    assert_eq!((case.steps().len(), case.ready().as_str()), (0, ready));
}

#[test]
fn a_deleted_workload_takes_its_containers_along_and_is_let_go_last() {
    let deleted = |case: Case| case.changed(|c| c.workload.metadata.deletion_timestamp = Some(Time(at(-1))));
    let leaving = deleted(Case::with_candidate());
    assert_eq!(leaving.follows().stages, [["remove web-live", "remove web-candidate"]]);
    assert_eq!(leaving.plan().finalizer, Finalizer::Leave);
    let left = deleted(Case::empty());
    assert_eq!(left.plan().finalizer, Finalizer::Released);
}

#[test]
fn an_adopted_container_runs_on_when_the_workload_is_deleted() {
    let case =
        adopted(ContainerState::Running).changed(|c| c.workload.metadata.deletion_timestamp = Some(Time(at(-1))));
    assert_eq!(case.steps(), NOTHING);
    assert_eq!(case.plan().finalizer, Finalizer::Released);
}

fn adopted(state: ContainerState) -> Case {
    Case::empty().changed(|c| {
        c.live_spec().container = adopting("vllm");
        *c.live() = VariantSeen { ours: Vec::new(), ..seen(foreign("vllm", state)) };
    })
}

#[test]
fn an_adopted_container_is_started_and_stopped_and_nothing_more() {
    let running = adopted(ContainerState::Running);
    assert_eq!((running.steps().len(), running.ready()), (0, "True Running".into()));
    assert_eq!(running.plan().status.unwrap().active, Some(Variant::Live));
    assert_eq!(adopted(ContainerState::Exited).steps(), ["start vllm"]);
    let unwished = adopted(ContainerState::Running).changed(|c| c.live_spec().running = false);
    assert_eq!(unwished.steps(), ["stop vllm"]);
}

#[test]
fn what_we_had_made_gives_way_to_the_adopted_one() {
    let case = adopted(ContainerState::Running)
        .changed(|c| c.live().ours = vec![ours(Variant::Live, &spec("web:1"), ContainerState::Running, true)]);
    assert_eq!(case.steps(), ["remove web-live"]);
}
