//! From the spec and what was seen to the status and the next steps. Pure: the tables in [`super::tests`] call nothing
//! else.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    conclusion::{self, Conclusion, Kind},
    failover, names,
    observed::{Action, DependencySeen, DependencyState, EngineView, Named, Observed, Verb},
    reason::Reason,
    status,
    variant::{self, Scene, VariantPlan, Wish},
};
use crate::{
    adapters::containers::ContainerState,
    api::workload::{DependencyCondition, Variant, VariantStatus, Workload, WorkloadStatus},
    runtime::{
        backoff::{Backoff, seed_of},
        events::Note,
        reconciler::{Finalizer, Plan, Requeue},
    },
};

pub type WorkloadPlan = Plan<WorkloadStatus, Action>;

/// While not all is as wished, a look without news: 45 to 60 seconds, spread by the uid. What is as wished stays so until
/// somebody tells otherwise, be it only the list that confirms it ([`super::hints`]).
const CONFIRM: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(60));

/// The whole decision.
pub fn decide(workload: &Workload, observed: &Observed, now: Timestamp) -> WorkloadPlan {
    if workload.spec.node_name.as_ref().is_some_and(|node| *node != observed.node) {
        return Plan::leave();
    }
    match &observed.engine {
        Err(why) => engine_away(workload, why, now),
        Ok(view) if workload.metadata.deletion_timestamp.is_some() => delete(workload, view, now),
        Ok(view) => converge(workload, observed, view, now),
    }
}

/// Brings both variants where the spec wants them.
fn converge(workload: &Workload, observed: &Observed, view: &EngineView, now: Timestamp) -> WorkloadPlan {
    let gate = gate(workload, observed);
    let to_answer = failover::decide(workload, view, now);
    let active = to_answer.variant;
    let [first, second] = [active, active.other()].map(|variant| {
        let scene = Scene {
            workload,
            variant,
            wish: wish(workload, variant),
            active: variant == active,
            seen: view.of(variant),
            before: before(workload, variant),
            gate: gate.as_ref(),
            now,
        };
        variant::decide(&scene)
    });
    let mut status = workload.status.clone().unwrap_or_default();
    status.observed_generation = workload.metadata.generation;
    status.active = answering(workload, &first);
    for plan in [&first, &second] {
        match plan.variant {
            Variant::Live => status.live = plan.status.clone(),
            Variant::Candidate => status.candidate = plan.status.clone(),
        }
    }
    let suspended = workload.spec.suspend == Some(true);
    let conclusions: Vec<Conclusion> = [&first, &second]
        .into_iter()
        .filter_map(|plan| plan.conclusion.clone())
        .map(|c| suspend(c, suspended))
        .collect();
    let (conditions, news) =
        conclusion::conditions(&status.conditions, &conclusions, workload.metadata.generation, now);
    status.conditions = conditions;
    let wake = [first.wake_at, second.wake_at, to_answer.wake_at].into_iter().flatten().min();
    let mut events: Vec<Note> = news.into_iter().collect();
    let stages = if suspended {
        Vec::new()
    } else {
        events.extend(first.notes.iter().chain(&second.notes).cloned());
        let switches = first.stages.iter().flatten().any(|action| action.verb() == Verb::Attach);
        events.extend(to_answer.note.filter(|_| switches));
        merge(first.stages, second.stages)
    };
    let rests = conclusions.iter().all(|conclusion| conclusion.kind == Kind::AsWished);
    let requeue = if rests {
        wake.map_or(Requeue::OnChange, |at| Requeue::After(until(at, now)))
    } else {
        after(workload, wake, now)
    };
    Plan { status: Some(status), finalizer: Finalizer::Held, stages, events, requeue }
}

/// Nothing is known, so nothing is done, and the status says so.
fn engine_away(workload: &Workload, why: &str, now: Timestamp) -> WorkloadPlan {
    let mut status = workload.status.clone().unwrap_or_default();
    status.observed_generation = workload.metadata.generation;
    status.active = None;
    status.live = status.live.as_ref().map(status::unknown);
    status.candidate = status.candidate.as_ref().map(status::unknown);
    let unknown = Conclusion::new(Kind::Unknown, Reason::EngineUnreachable, why);
    let (conditions, news) = conclusion::conditions(&status.conditions, &[unknown], workload.metadata.generation, now);
    status.conditions = conditions;
    Plan {
        status: Some(status),
        finalizer: Finalizer::Leave,
        stages: Vec::new(),
        events: news.into_iter().collect(),
        requeue: Requeue::Backoff,
    }
}

/// Removes what is ours, whatever the spec says; then lets the object go. What was adopted runs on.
fn delete(workload: &Workload, view: &EngineView, now: Timestamp) -> WorkloadPlan {
    let grace = Duration::from_secs(workload.spec.stop_grace_seconds.into());
    let mut stage = Vec::new();
    let mut wake = None;
    let mut complaint = None;
    for variant in Variant::ALL {
        let seen = view.of(variant);
        for container in &seen.ours {
            let action = Action::Remove { variant, container: Named::from(container), grace };
            match variant::held_back(seen, &action, workload.metadata.generation, now) {
                Some((retry_at, conclusion)) => {
                    wake = wake.into_iter().chain([retry_at]).min();
                    complaint = Some(conclusion);
                }
                None => stage.push(action),
            }
        }
    }
    let left = Variant::ALL.iter().any(|variant| !view.of(*variant).ours.is_empty());
    if !left {
        return Plan { finalizer: Finalizer::Released, ..Plan::leave() };
    }
    let mut status = workload.status.clone().unwrap_or_default();
    status.observed_generation = workload.metadata.generation;
    let deleting =
        Conclusion::new(Kind::UnderWay, Reason::Deleting, "the workload is being deleted: its containers are removed");
    let (conditions, news) =
        conclusion::conditions(&status.conditions, &[complaint.unwrap_or(deleting)], workload.metadata.generation, now);
    status.conditions = conditions;
    Plan {
        status: Some(status),
        finalizer: Finalizer::Leave,
        stages: vec![stage],
        events: news.into_iter().collect(),
        requeue: after(workload, wake, now),
    }
}

pub fn wish(workload: &Workload, variant: Variant) -> Wish<'_> {
    let spec = &workload.spec;
    let found = match variant {
        Variant::Live => spec.live.as_ref().map(|live| (&live.container, live.running)),
        Variant::Candidate => spec.candidate.as_ref().map(|candidate| (&candidate.container, candidate.running)),
    };
    Wish::of(found)
}

/// The variant that is to answer under the workload's name. A candidate that is alone answers too.
pub fn active(workload: &Workload) -> Variant {
    match workload.spec.active {
        Variant::Live if workload.spec.live.is_none() => Variant::Candidate,
        variant => variant,
    }
}

pub fn before(workload: &Workload, variant: Variant) -> Option<&VariantStatus> {
    let status = workload.status.as_ref()?;
    match variant {
        Variant::Live => status.live.as_ref(),
        Variant::Candidate => status.candidate.as_ref(),
    }
}

/// Who answers now: the active variant, once it runs with the workload's name as its alias. An adopted container never
/// gets an alias from us; it answers under its own name.
fn answering(workload: &Workload, active: &VariantPlan) -> Option<Variant> {
    let container = active.kept.as_ref().filter(|c| c.state == ContainerState::Running)?;
    let name = workload.name_any();
    let network = names::network(workload.metadata.namespace.as_deref().unwrap_or("default"));
    let aliased = || container.attachments.iter().any(|a| a.network == network && a.aliases.contains(&name));
    (active.adopted || aliased()).then_some(active.variant)
}

/// What holds starting back, if anything.
fn gate(workload: &Workload, observed: &Observed) -> Option<Conclusion> {
    if let Some(cycle) = &observed.cycle {
        let message = format!("depends on itself: {}", cycle.join(" -> "));
        return Some(Conclusion::new(Kind::Stalled, Reason::DependencyCycle, message));
    }
    let waits = |state| observed.dependencies.iter().filter(move |d| d.state == state);
    let missing: Vec<&str> = waits(DependencyState::NotFound).map(|d| d.workload.as_str()).collect();
    if !missing.is_empty() {
        let message = format!("waits for workloads that do not exist: {}", missing.join(", "));
        return Some(Conclusion::new(Kind::UnderWay, Reason::DependencyNotFound, message));
    }
    let unmet: Vec<String> = waits(DependencyState::NotMet).map(told).collect();
    if unmet.is_empty() {
        return None;
    }
    let message = format!("{} waits for {}", workload.name_any(), unmet.join(", "));
    Some(Conclusion::new(Kind::UnderWay, Reason::WaitingForDependency, message))
}

fn told(dependency: &DependencySeen) -> String {
    match dependency.condition {
        DependencyCondition::Started => format!("{} to be started", dependency.workload),
        DependencyCondition::Healthy => format!("{} to be healthy", dependency.workload),
    }
}

/// Suspended: what would be under way is not, and what is as wished stays so.
fn suspend(conclusion: Conclusion, suspended: bool) -> Conclusion {
    match conclusion.kind {
        Kind::UnderWay | Kind::Stalled if suspended => Conclusion {
            kind: Kind::NotReady,
            reason: Reason::Suspended,
            message: format!("suspended; otherwise: {}", conclusion.message),
        },
        Kind::UnderWay | Kind::Stalled | Kind::AsWished | Kind::Unknown | Kind::NotReady => conclusion,
    }
}

fn merge(first: Vec<Vec<Action>>, second: Vec<Vec<Action>>) -> Vec<Vec<Action>> {
    let mut merged = first;
    for (index, stage) in second.into_iter().enumerate() {
        match merged.get_mut(index) {
            Some(into) => into.extend(stage),
            None => merged.push(stage),
        }
    }
    merged
}

fn after(workload: &Workload, wake: Option<Timestamp>, now: Timestamp) -> Requeue {
    let confirm = CONFIRM.delay(0, seed_of(workload.metadata.uid.as_deref().unwrap_or_default()));
    Requeue::After(wake.map_or(confirm, |at| until(at, now).min(confirm)))
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
