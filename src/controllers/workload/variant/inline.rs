//! A container of our own making: one of them, made from the present spec, under its name.

use super::{Scene, Step, VariantPlan, composed, image, remove, run};
use crate::{
    adapters::containers::{Container, ContainerRequest, ContainerState},
    api::{
        container::ContainerSpec,
        workload::{VariantState, VariantStatus},
    },
    controllers::workload::{
        conclusion::{Conclusion, Kind},
        names,
        observed::{Action, Named, choose},
        reason::Reason,
        status,
    },
    runtime::events::Note,
};

pub(super) fn decide(scene: &Scene<'_>, plan: &mut VariantPlan, spec: &ContainerSpec, running: bool) {
    let hash = spec.hash();
    let keep = choose(&scene.seen.ours, Some(&hash));
    for duplicate in scene.seen.ours.iter().filter(|c| keep.is_none_or(|keep| keep.id != c.id)) {
        remove_duplicate(scene, plan, duplicate);
    }
    let Some(container) = keep else {
        return match &scene.seen.composed {
            Some(found) => composed::decide(scene, plan, spec, &hash, running, found),
            None => absent(scene, plan, spec, &hash, running),
        };
    };
    plan.kept = Some(container.clone());
    plan.status = Some(status::of(container, scene.seen.health, scene.before, scene.may_run(running), scene.now));
    if container.state == ContainerState::Dead {
        let message = format!("the removal of {} failed half way: it is tried again", container.name);
        plan.act(scene, Step::Clear, remove(scene, container), under_way(Reason::Removing, message));
    } else if running && names::spec_hash(container) != Some(&hash) {
        recreate(scene, plan, spec, container);
    } else if name_is_right(scene, plan, container) || container.state == ContainerState::Running {
        run::decide(scene, plan, container, running, Some(spec));
    }
}

/// Two for one variant: the answer to a creation was lost, or somebody copied our labels.
fn remove_duplicate(scene: &Scene<'_>, plan: &mut VariantPlan, duplicate: &Container) {
    let message = format!("{} ({}) is a second container of this variant: it is removed", duplicate.name, duplicate.id);
    let note = Note::warning(Reason::Duplicate.as_str(), Reason::Removing.as_str(), message.clone());
    if plan.act(scene, Step::Clear, remove(scene, duplicate), under_way(Reason::Removing, message)) {
        plan.notes.push(note);
    }
}

/// There is none: nothing to do, or the way to a new one.
fn absent(scene: &Scene<'_>, plan: &mut VariantPlan, spec: &ContainerSpec, hash: &str, running: bool) {
    plan.status = Some(status::absent());
    let name = scene.container_name();
    if !running {
        plan.conclude(Conclusion::new(
            Kind::AsWished,
            Reason::Stopped,
            format!("{name} does not exist, and is not to run"),
        ));
        return;
    }
    if let Some(taken) = name_taken(scene) {
        plan.conclude(taken);
        return;
    }
    if !image::ready(scene, plan, spec) {
        return;
    }
    let request = ContainerRequest {
        name: name.clone(),
        spec: spec.clone(),
        labels: names::labels(scene.uid(), scene.namespace(), &scene.name(), scene.variant, hash),
        networks: names::networks(scene.namespace(), &scene.name(), spec, scene.active),
    };
    let action = Action::Create { variant: scene.variant, request: Box::new(request) };
    let planned = plan.act(scene, Step::Build, action, under_way(Reason::Creating, format!("{name} is made")));
    if planned && let Some(before) = scene.before.filter(|before| vanished(before, hash)) {
        let id = before.container_id.as_deref().unwrap_or_default();
        let message = format!("{name} ({}) is gone, and not by us: it is made again", short(id));
        plan.notes.push(Note::warning(Reason::Drift.as_str(), Reason::Creating.as_str(), message));
    }
}

/// The last status speaks of a container made from this very spec. One that we removed ourselves was made from another.
fn vanished(before: &VariantStatus, hash: &str) -> bool {
    before.container_id.is_some() && before.state != VariantState::Absent && before.spec_hash.as_deref() == Some(hash)
}

/// Made from another spec: replaced, once everything that the new one needs is there.
pub(super) fn recreate(scene: &Scene<'_>, plan: &mut VariantPlan, spec: &ContainerSpec, old: &Container) {
    if let Some(taken) = name_taken(scene) {
        plan.conclude(taken);
        return;
    }
    if !image::ready(scene, plan, spec) {
        return;
    }
    // To replace a running container is to start one, and its dependencies gate that.
    if old.state == ContainerState::Running
        && let Some(gate) = scene.gate
    {
        plan.conclude(gate.clone());
        return;
    }
    let message = format!("the spec of {} has changed: it is made anew", old.name);
    let note = Note::normal(Reason::SpecChanged.as_str(), Reason::Recreating.as_str(), message.clone());
    if plan.act(scene, Step::Clear, remove(scene, old), under_way(Reason::Recreating, message)) {
        plan.notes.push(note);
    }
}

/// Renames a container of ours that somebody renamed. False while its name is not right.
fn name_is_right(scene: &Scene<'_>, plan: &mut VariantPlan, container: &Container) -> bool {
    let to = scene.container_name();
    if container.name == to {
        return true;
    }
    if let Some(taken) = name_taken(scene) {
        plan.conclude(taken);
        return false;
    }
    let message = format!("{to} was found under the name {}: it is renamed", container.name);
    let note = Note::warning(Reason::Drift.as_str(), Reason::Renaming.as_str(), message.clone());
    let action = Action::Rename { variant: scene.variant, container: Named::from(container), to };
    if plan.act(scene, Step::Rename, action, under_way(Reason::Renaming, message)) {
        plan.notes.push(note);
    }
    false
}

/// Somebody else's container has the name. One of ours that has it is renamed or removed in this very pass.
fn name_taken(scene: &Scene<'_>) -> Option<Conclusion> {
    let holder = scene.seen.named.as_ref()?;
    let message = match names::owner(&holder.labels) {
        Some(uid) if uid == scene.uid() => return None,
        Some(uid) => format!(
            "the container {} ({}) belongs to another object of gaia's, with uid {uid}: remove it if that object is gone",
            holder.name,
            short(&holder.id.0)
        ),
        None => format!(
            "the name {} is taken by the container {} ({}), which is not gaia's: rename or remove it, or adopt it",
            holder.name,
            short(&holder.id.0),
            holder.image
        ),
    };
    Some(Conclusion::new(Kind::Stalled, Reason::NameTaken, message))
}

pub(super) fn under_way(reason: Reason, message: impl Into<String>) -> Conclusion {
    Conclusion::new(Kind::UnderWay, reason, message)
}

/// As people see ids.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
