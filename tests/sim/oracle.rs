//! What must never happen, looked at before and after every effect; and what must be in the end.

use std::{collections::BTreeMap, sync::Arc};

use futures::FutureExt;
use gaia::{
    adapters::{
        containers::{Container, ContainerState},
        simulated::containers::Effect,
    },
    api::{
        FINALIZER, GROUP, condition,
        container::{ContainerSource, ContainerSpec},
        label,
        source::Source,
        workload::{Variant, VariantState, Workload},
    },
    store::Prefix,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    holders,
    people::HANDMADE,
    world::{ByName, World},
};

/// Nothing of other people's is touched; what is adopted is started and stopped at most; nothing of ours is made for an
/// object that does not hold the finalizer.
pub fn before_effect(world: &World, effect: &Effect) {
    let (name, adoptable) = match effect {
        Effect::Start { name } if world.has_cards => {
            holders::before_start(world, name);
            (name, true)
        }
        Effect::Start { name } | Effect::Stop { name } | Effect::Exec { name, .. } | Effect::Ask { name, .. } => {
            (name, true)
        }
        Effect::Remove { name }
        | Effect::Rename { from: name, .. }
        | Effect::ForbidRestarts { name }
        | Effect::Attach { name, .. } => (name, false),
        Effect::Create { name, .. } => return finalizer_is_held(world, name),
        Effect::EnsureNetwork { .. } | Effect::Pull { .. } => return,
    };
    let containers = world.engine.observed();
    // One that is gone is named by its id, and nothing can be done to it.
    let Some(container) = containers.iter().find(|container| container.name == *name) else { return };
    let allowed = container.labels.contains_key(label::OWNER_UID) || (adoptable && name == HANDMADE);
    if !allowed {
        world.violated(format!("{effect}, which is somebody else's"));
    }
}

fn finalizer_is_held(world: &World, container: &str) {
    let Some(workloads) = stored::<Workload>(world, "workloads") else { return };
    let owner = workloads.iter().find(|w| Variant::ALL.iter().any(|v| name_of(w, *v) == container));
    match owner {
        Some(workload) if workload.finalizers().iter().any(|f| f == FINALIZER) => {}
        Some(workload) => {
            world.violated(format!("{container} is made before {} holds the finalizer", workload.name_any()))
        }
        // Deleted this very moment; its finalizer was there, or it could not have vanished without one.
        None => world.violated(format!("{container} is made for no workload at all")),
    }
}

/// At most one container of a variant runs.
pub fn after_effect(world: &World, effect: &Effect) {
    if world.has_cards {
        if let Effect::Start { name } = effect {
            holders::after_start(world, name);
        }
        holders::look(world);
    }
    let mut seen: BTreeMap<(String, String), String> = BTreeMap::new();
    for container in world.engine.observed() {
        if container.state != ContainerState::Running {
            continue;
        }
        let Some(owner) = container.labels.get(label::OWNER_UID) else { continue };
        let variant = container.labels.get(label::VARIANT).cloned().unwrap_or_default();
        if let Some(other) = seen.insert((owner.clone(), variant), container.name.clone()) {
            world.violated(format!("{} and {other} run for one variant", container.name));
        }
    }
}

/// At a start: nothing acknowledged is lost.
pub async fn after_start(world: &World, store: &dyn gaia::store::Store) {
    match store.revision().await {
        Ok(revision) if revision >= world.acknowledged() => {}
        Ok(revision) => {
            world.violated(format!("revision {} was acknowledged, the store is at {revision}", world.acknowledged()));
        }
        Err(error) => world.violated(format!("the store does not open: {error}")),
    }
}

/// While a file does not parse, no object vanishes for want of being named.
pub fn on_deletion(world: &World, name: &str) {
    let wishes = world.wishes.lock().expect("never poisoned");
    if wishes.broken.is_empty() || wishes.deleted.contains(name) {
        return;
    }
    let broken = wishes.broken.iter().cloned().collect::<Vec<_>>().join(", ");
    drop(wishes);
    world.violated(format!("{name} is pruned while the file of {broken} does not parse"));
}

/// What runs: container id by name.
pub fn running(world: &World) -> ByName<String> {
    let observed = world.engine.observed().into_iter();
    observed.filter(|c| c.state == ContainerState::Running).map(|c| (c.name, c.id.0)).collect()
}

/// Whether everything is as people want it. `Err` says what is not.
pub async fn converged(world: &World) -> Result<(), String> {
    let containers = world.engine.observed();
    let (stated, foreign) = {
        let wishes = world.wishes.lock().expect("never poisoned");
        (wishes.stated.clone(), wishes.foreign.clone())
    };
    foreign_are_untouched(&containers, &foreign)?;
    let sources = stored::<Source>(world, "sources").ok_or("gaia is down")?;
    let source = sources.first().ok_or("there is no Source")?;
    let status = source.status.clone().unwrap_or_default();
    if !condition::is_true(&status.conditions, condition::READY) {
        return Err(format!("the Source is not Ready: {:?} {:?}", status.conditions, status.errors));
    }
    let workloads = stored::<Workload>(world, "workloads").ok_or("gaia is down")?;
    let names: Vec<String> = workloads.iter().map(|it| it.name_any()).collect();
    let wanted: Vec<String> = stated.keys().cloned().collect();
    if names != wanted {
        return Err(format!("the files name {wanted:?}, the workloads are {names:?}"));
    }
    for container in &containers {
        let owner = container.labels.get(label::OWNER_UID);
        if owner.is_some_and(|uid| !workloads.iter().any(|w| w.uid().as_ref() == Some(uid))) {
            return Err(format!("{} was left behind", container.name));
        }
    }
    for workload in &workloads {
        let name = workload.name_any();
        as_stated(workload, &stated[&name]).map_err(|why| format!("{name}: {why}"))?;
        as_wished(world, workload, &containers).map_err(|why| format!("{name}: {why}"))?;
    }
    if world.has_cards { holders::settled(world) } else { Ok(()) }
}

fn foreign_are_untouched(containers: &[Container], foreign: &ByName<String>) -> Result<(), String> {
    for (name, id) in foreign {
        match containers.iter().find(|container| container.id.0 == *id) {
            Some(container) if container.name == *name => {}
            Some(container) => return Err(format!("somebody's {name} is called {} now", container.name)),
            None => return Err(format!("somebody's {name} is gone")),
        }
    }
    Ok(())
}

/// Everything the file states is in the object.
fn as_stated(workload: &Workload, stated: &Value) -> Result<(), String> {
    let spec = serde_json::to_value(&workload.spec).expect("a spec is plain data");
    if covers(&spec, stated) { Ok(()) } else { Err(format!("the file says {stated}, the object {spec}")) }
}

fn covers(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(have), Value::Object(want)) => {
            want.iter().all(|(key, value)| have.get(key).is_some_and(|have| covers(have, value)))
        }
        (Value::Array(have), Value::Array(want)) => {
            have.len() == want.len() && have.iter().zip(want).all(|(have, want)| covers(have, want))
        }
        (have, want) => have == want,
    }
}

fn as_wished(world: &World, workload: &Workload, containers: &[Container]) -> Result<(), String> {
    let spec = &workload.spec;
    let status = workload.status.clone().unwrap_or_default();
    if status.observed_generation != workload.metadata.generation {
        return Err("the status speaks of an older generation".to_owned());
    }
    let waits = |variant| world.has_cards && holders::waits(world, workload, variant);
    let running = |variant: Variant| match variant {
        Variant::Live => spec.live.as_ref().is_some_and(|live| live.running),
        Variant::Candidate => spec.candidate.as_ref().is_some_and(|candidate| candidate.running),
    };
    let waiting = Variant::ALL.into_iter().any(|variant| running(variant) && waits(variant));
    let ready = status.conditions.iter().find(|c| c.type_ == condition::READY);
    if waiting {
        if !ready.is_some_and(|c| c.status == "False" && c.reason == "WaitingForGpu") {
            return Err(format!("it waits for the card, and yet: {ready:?}"));
        }
    } else if !condition::is_true(&status.conditions, condition::READY) {
        return Err(format!("not Ready: {:?}", status.conditions));
    }
    let unrest = |c: &&Condition| c.type_ == condition::STALLED || c.type_ == condition::RECONCILING;
    if !waiting && status.conditions.iter().any(|c| unrest(&c)) {
        return Err(format!("Ready, and yet {:?}", status.conditions));
    }
    let live = spec.live.as_ref().map(|v| (v.running && !waits(Variant::Live), &v.container));
    let candidate = spec.candidate.as_ref().map(|v| (v.running && !waits(Variant::Candidate), &v.container));
    for (variant, wish, said) in
        [(Variant::Live, live, &status.live), (Variant::Candidate, candidate, &status.candidate)]
    {
        let state = said.as_ref().map_or(VariantState::Absent, |said| said.state);
        let container = variant_is(workload, variant, wish, containers)?;
        let told_running = state == VariantState::Running;
        let runs = container.is_some_and(|container| container.state == ContainerState::Running);
        if told_running != runs {
            return Err(format!("{variant:?} is told {state:?}, and its container is {container:?}"));
        }
    }
    Ok(())
}

/// The container of a variant as it must be, or why it is not.
fn variant_is<'a>(
    workload: &Workload,
    variant: Variant,
    wish: Option<(bool, &ContainerSpec)>,
    containers: &'a [Container],
) -> Result<Option<&'a Container>, String> {
    let uid = workload.uid().unwrap_or_default();
    let ours: Vec<&Container> = containers
        .iter()
        .filter(|c| c.labels.get(label::OWNER_UID) == Some(&uid))
        .filter(|c| c.labels.get(label::VARIANT).is_some_and(|v| v == variant.as_str()))
        .collect();
    let Some((running, spec)) = wish else {
        return if ours.is_empty() { Ok(None) } else { Err(format!("no {variant:?} is wanted, there is {ours:?}")) };
    };
    let container = match spec.source() {
        ContainerSource::Adopt { name } => containers.iter().find(|c| c.name == name),
        ContainerSource::Inline(_) => {
            if ours.len() > 1 {
                return Err(format!("{variant:?} has several containers: {ours:?}"));
            }
            ours.first().copied()
        }
    };
    let Some(container) = container else {
        return if running { Err(format!("{variant:?} has no container")) } else { Ok(None) };
    };
    if (container.state == ContainerState::Running) != running {
        return Err(format!("{variant:?} should run: {running}; it is {:?}", container.state));
    }
    if let ContainerSource::Inline(spec) = spec.source() {
        made_as_wished(workload, variant, spec, container, running)?;
    }
    Ok(Some(container))
}

fn made_as_wished(
    workload: &Workload,
    variant: Variant,
    spec: &ContainerSpec,
    container: &Container,
    running: bool,
) -> Result<(), String> {
    let name = name_of(workload, variant);
    if container.name != name {
        return Err(format!("{} should be called {name}", container.name));
    }
    if running && container.labels.get(label::SPEC_HASH) != Some(&spec.hash()) {
        return Err(format!("{name} was made from another spec"));
    }
    let answers =
        container.attachments.iter().any(|a| a.network == "gaia-default" && a.aliases == [workload.name_any()]);
    let silent = container.attachments.iter().all(|a| a.aliases.is_empty());
    let active = workload.spec.active == variant;
    if running && (answers, silent) != (active, !active) {
        return Err(format!("{name} active: {active}, attached: {:?}", container.attachments));
    }
    Ok(())
}

fn name_of(workload: &Workload, variant: Variant) -> String {
    format!("{}-{}", workload.name_any(), variant.as_str())
}

/// The objects of a kind as the running process has them, without waiting.
pub fn stored<K: DeserializeOwned + Send + Sync + 'static>(world: &World, plural: &str) -> Option<Vec<Arc<K>>> {
    let registry = world.registry.borrow().clone()?;
    let snapshot = registry.store().list(&Prefix::kind(GROUP, plural)).now_or_never()?.ok()?;
    snapshot.items.iter().map(|version| version.decode().ok()).collect()
}
