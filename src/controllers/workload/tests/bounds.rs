//! What holds whatever is seen: properties over arbitrary observations.

use proptest::prelude::*;

use super::*;

fn any_state() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Created),
        Just(ContainerState::Running),
        Just(ContainerState::Paused),
        Just(ContainerState::Restarting),
        Just(ContainerState::Removing),
        Just(ContainerState::Exited),
        Just(ContainerState::Dead),
    ]
}

fn any_container(variant: Variant) -> impl Strategy<Value = Container> {
    (any_state(), 0..3u8, 0..4u8, any::<bool>()).prop_map(move |(state, made_from, n, active)| {
        let mut container = ours(variant, &spec(&format!("web:{made_from}")), state, active);
        container.id = ContainerId(format!("{variant:?}-{n}"));
        if n > 0 {
            container.name = format!("{}-{n}", container.name);
        }
        container
    })
}

fn any_seen(variant: Variant) -> impl Strategy<Value = VariantSeen> {
    let names = names::container("default", "web", variant);
    let foreign = proptest::option::of(any_state().prop_map(move |state| foreign(&names, state)));
    (proptest::collection::vec(any_container(variant), 0..4), foreign, any::<(bool, bool)>()).prop_map(
        |(mut ours, foreign, (present, liveness_failed))| {
            ours.sort_by(|a, b| a.id.cmp(&b.id));
            ours.dedup_by(|a, b| a.id == b.id);
            let named = foreign.or_else(|| ours.iter().find(|c| !c.name.ends_with(char::is_numeric)).cloned());
            let health = Health { health: VariantHealth::Unknown, liveness_failed };
            let mut seen = VariantSeen { ours, named, health, ..VariantSeen::default() };
            seen.image.present = Some(present);
            seen
        },
    )
}

fn any_case() -> impl Strategy<Value = Case> {
    let seen = (any_seen(Variant::Live), any_seen(Variant::Candidate));
    let wishes = any::<(bool, bool, bool, bool, bool)>();
    (seen, wishes, 0..3u8).prop_map(|((live, candidate), (live_runs, has_candidate, runs, swap, deleted), image)| {
        let mut case = Case::empty();
        case.live_spec().running = live_runs;
        case.live_spec().container = spec(&format!("web:{image}"));
        if has_candidate {
            case.workload.spec.candidate = Some(CandidateSpec { running: runs, container: spec("web:1") });
            case.workload.spec.active = if swap { Variant::Candidate } else { Variant::Live };
        }
        case.workload.metadata.deletion_timestamp = deleted.then(|| Time(at(-1)));
        *case.view() = EngineView { live, candidate };
        case
    })
}

fn touched(action: &Action) -> Option<&ContainerId> {
    match action {
        Action::Pull { .. } | Action::Create { .. } => None,
        Action::Start { container, .. }
        | Action::Stop { container, .. }
        | Action::Restart { container, .. }
        | Action::Remove { container, .. }
        | Action::Rename { container, .. }
        | Action::ForbidRestarts { container, .. }
        | Action::Attach { container, .. } => Some(&container.id),
    }
}

proptest! {
    /// Whatever is seen, only containers with our labels are touched, and none is both removed and used.
    #[test]
    fn only_ours_are_touched(case in any_case()) {
        let plan = case.plan();
        let view = case.observed.engine.as_ref().unwrap();
        let ours: Vec<&ContainerId> = view.live.ours.iter().chain(&view.candidate.ours).map(|c| &c.id).collect();
        let actions = plan.stages.concat();
        for action in &actions {
            prop_assert!(touched(action).is_none_or(|id| ours.contains(&id)), "{action:?}");
        }
        let removed: Vec<_> = actions.iter().filter(|a| a.verb() == Verb::Remove).filter_map(touched).collect();
        let used: Vec<_> = actions.iter().filter(|a| a.verb() != Verb::Remove).filter_map(touched).collect();
        prop_assert!(removed.iter().all(|id| !used.contains(id)), "{actions:?}");
    }

    /// A variant gets no second container: none is made while one of ours is there.
    #[test]
    fn none_is_made_beside_another(case in any_case()) {
        let view = case.observed.engine.as_ref().unwrap();
        for action in case.plan().stages.concat() {
            if action.verb() == Verb::Create {
                prop_assert!(view.of(action.variant()).ours.is_empty());
            }
        }
    }

    /// Nothing runs that is not wished to: a start only where the spec says so, and nothing at all while deleting but
    /// removals.
    #[test]
    fn starts_only_what_is_wished(case in any_case()) {
        for action in case.plan().stages.concat() {
            let wished = match action.variant() {
                Variant::Live => case.workload.spec.live.as_ref().is_some_and(|v| v.running),
                Variant::Candidate => case.workload.spec.candidate.as_ref().is_some_and(|v| v.running),
            };
            match action.verb() {
                Verb::Start | Verb::Create | Verb::Restart | Verb::Pull => prop_assert!(wished, "{action:?}"),
                Verb::Stop | Verb::Remove | Verb::Rename | Verb::ForbidRestarts | Verb::Attach => {}
            }
            if case.workload.metadata.deletion_timestamp.is_some() {
                prop_assert_eq!(action.verb(), Verb::Remove);
            }
        }
    }

    /// A plan acts, or says when it looks again, or all is as wished; and its status survives being stored.
    #[test]
    fn every_plan_goes_on(case in any_case()) {
        let plan = case.plan();
        let ready = plan.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == READY);
        let rests = case.workload.metadata.deletion_timestamp.is_some() || ready.is_none_or(|c| c.status == "True");
        prop_assert!(plan.acts() || plan.requeue != Requeue::OnChange || rests);
        if let Requeue::After(delay) = plan.requeue {
            prop_assert!(rests || delay <= Duration::from_secs(60));
        }
        let remembered = case.remember();
        let text = serde_json::to_string(&remembered.workload.status).unwrap();
        prop_assert_eq!(&remembered.workload.status, &serde_json::from_str(&text).unwrap());
    }
}
