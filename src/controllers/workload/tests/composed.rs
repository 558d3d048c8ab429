//! What Compose made for the service that a spec was taken from.

use super::*;
use crate::{
    api::container::{ComposeSource, NetworkOptions},
    controllers::workload::observed::Composed,
};

const NAME: &str = "stack_web_1";

fn from_compose(image: &str) -> ContainerSpec {
    ContainerSpec {
        compose: Some(ComposeSource {
            file: "/c.yaml".into(),
            service: "web".into(),
            project: Some("stack".into()),
            profile: None,
        }),
        networks: vec!["stack_default".into()],
        network_options: [("stack_default".to_owned(), NetworkOptions { aliases: vec!["web".into()], create: None })]
            .into(),
        ..spec(image)
    }
}

/// Compose's container runs, as it was left: on its own network, with a restart policy of the engine's.
fn case(state: ContainerState, differences: &[&str]) -> Case {
    let mut case = Case::empty();
    case.live_spec().container = from_compose("web:1");
    let attachments =
        vec![Attachment { network: "stack_default".into(), aliases: vec!["site".into(), "web".into()], ip: None }];
    let container = Container { restarts_itself: true, attachments, ..foreign(NAME, state) };
    let differences = differences.iter().map(|text| (*text).to_owned()).collect();
    let health = Health { health: VariantHealth::Healthy, liveness_failed: false };
    let image = case.live().image.clone();
    *case.live() =
        VariantSeen { composed: Some(Composed { container, differences }), health, image, ..VariantSeen::default() };
    case
}

/// As it is once what was decided has been done.
fn settled(mut case: Case) -> Case {
    let composed = case.live().composed.as_mut().expect("it is there");
    composed.container.restarts_itself = false;
    composed.container.attachments.push(Attachment {
        network: "gaia-default".into(),
        aliases: vec!["web".into()],
        ip: None,
    });
    case
}

#[test]
fn one_that_is_as_the_spec_says_is_taken_over_as_it_runs() {
    let first = case(ContainerState::Running, &[]);
    assert_eq!(
        first.follows().stages.concat(),
        [format!("forbid restarts of {NAME}"), format!("attach {NAME} to gaia-default as [web]")]
    );
    let told: Vec<_> = first.plan().events.iter().map(|note| note.message.clone()).collect();
    assert!(told.iter().any(|message| message.contains("it is taken over")), "{told:?}");
    let after = settled(first.remember());
    assert_eq!(after.steps(), [""; 0]);
    assert_eq!(after.ready(), "True Running");
    let status = after.plan().status.expect("a status");
    assert_eq!(status.active, Some(Variant::Live));
    let live = status.live.expect("a live variant");
    assert_eq!((live.container_name.as_deref(), live.spec_hash), (Some(NAME), Some(from_compose("web:1").hash())));
    assert!(!after.remember().plan().events.iter().any(|note| note.message.contains("taken over")), "told once");
}

#[test]
fn one_that_was_never_as_the_spec_says_is_left_alone_and_the_differences_are_named() {
    let case = case(ContainerState::Running, &["image is a, and is to be b", "env A has another value"]);
    assert_eq!(case.steps(), [""; 0]);
    let follows = case.follows();
    assert_eq!(follows.stalled.as_deref(), Some("ComposeDiffers"));
    let conditions = case.plan().status.expect("a status").conditions;
    let message = &conditions.iter().find(|c| c.type_ == READY).expect("a verdict").message;
    assert!(message.contains("image is a, and is to be b; env A has another value"), "{message}");
    assert_eq!(case.remember().steps(), [""; 0], "and stays so");
}

#[test]
fn one_that_was_taken_over_gives_way_when_the_spec_changes() {
    let mut taken = settled(case(ContainerState::Running, &[]).remember());
    taken.live_spec().container = from_compose("web:2");
    taken.live().composed.as_mut().expect("it is there").differences = vec!["image is web:1".into()];
    taken.live().image.present = Some(true);
    assert_eq!(taken.steps(), [format!("remove {NAME}")]);
    let again = taken.remember();
    assert_eq!(again.steps(), [format!("remove {NAME}")], "also when the first attempt was lost");
    let gone = again.changed(|case| case.live().composed = None);
    assert_eq!(gone.steps(), ["create web-live"]);
}

#[test]
fn one_that_is_not_to_run_is_stopped_and_one_at_rest_is_started() {
    let stopped = settled(case(ContainerState::Running, &[])).changed(|case| case.live_spec().running = false);
    assert_eq!(stopped.steps(), [format!("stop {NAME}")]);
    let other =
        settled(case(ContainerState::Running, &["image is a"])).changed(|case| case.live_spec().running = false);
    assert_eq!(other.steps(), [format!("stop {NAME}")], "however it differs");
    let rests = settled(case(ContainerState::Exited, &[]));
    assert_eq!(rests.steps(), [format!("start {NAME}")]);
}

#[test]
fn names_that_it_has_besides_do_not_cost_it_its_connections() {
    let mut inactive = settled(case(ContainerState::Running, &[]));
    inactive.workload.spec.candidate = Some(CandidateSpec { running: true, container: spec("web:2") });
    inactive.workload.spec.active = Variant::Candidate;
    inactive.view().candidate = seen(ours(Variant::Candidate, &spec("web:2"), ContainerState::Running, true));
    assert_eq!(
        inactive.steps(),
        [format!("attach {NAME} to gaia-default as []"), format!("attach {NAME} to stack_default as []")],
        "only the workload's name must go to another"
    );
}

#[test]
fn deleting_the_workload_leaves_it_running() {
    let mut leaving = settled(case(ContainerState::Running, &[]).remember());
    leaving.workload.metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(leaving.steps(), [""; 0]);
}
