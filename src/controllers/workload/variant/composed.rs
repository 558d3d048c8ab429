//! A container that Compose made for the service which the spec was taken from. While it is as the spec says it is this
//! variant's container, as if we had made it, and goes on running. Once the spec has changed it gives way to one of ours. One
//! that was never as the spec says is left alone: that may be a mistake in the file, and a restart may cost minutes.

use super::{Scene, VariantPlan, inline::recreate, run};
use crate::{
    adapters::containers::{Container, ContainerState},
    api::container::ContainerSpec,
    controllers::workload::{
        conclusion::{Conclusion, Kind},
        observed::Composed,
        reason::Reason,
        status,
    },
    runtime::events::Note,
};

/// So many differences are told in one message.
const TOLD: usize = 5;

pub(super) fn decide(
    scene: &Scene<'_>,
    plan: &mut VariantPlan,
    spec: &ContainerSpec,
    hash: &str,
    running: bool,
    found: &Composed,
) {
    let container = &found.container;
    let mut seen = status::of(container, scene.seen.health, scene.before, scene.may_run(running), scene.now);
    // Since when it is ours to replace can only be told by the last status: its labels cannot be changed.
    let taken_over = taken_over(scene, container);
    seen.spec_hash = if found.differences.is_empty() { Some(hash.to_owned()) } else { taken_over.clone() };
    plan.status = Some(seen);
    plan.kept = Some(container.clone());
    if found.differences.is_empty() || !running || container.state == ContainerState::Removing {
        if found.differences.is_empty() && taken_over.is_none() {
            let message = format!("{} was made by Compose, and is as the file says: it is taken over", container.name);
            plan.notes.push(Note::normal(Reason::Running.as_str(), "TakeOver", message));
        }
        return run::decide(scene, plan, container, running, Some(spec));
    }
    let differences = told(&found.differences);
    if taken_over.is_some() {
        return recreate(scene, plan, spec, container);
    }
    let message = format!(
        "{}, which Compose made, is not as the file says: {differences}. It is left alone: mend the file, or let Compose bring \
         it up to date (docker compose up), or remove it, and gaia makes it as the file says",
        container.name
    );
    plan.conclude(Conclusion::new(Kind::Stalled, Reason::ComposeDiffers, message));
}

/// The spec's hash when it was last as the spec said.
fn taken_over(scene: &Scene<'_>, container: &Container) -> Option<String> {
    let before = scene.before.filter(|before| before.container_id.as_deref() == Some(&container.id.0))?;
    before.spec_hash.clone()
}

fn told(differences: &[String]) -> String {
    let more = differences.len().saturating_sub(TOLD);
    let first = differences[..differences.len().min(TOLD)].join("; ");
    if more == 0 { first } else { format!("{first}; and {more} more") }
}
