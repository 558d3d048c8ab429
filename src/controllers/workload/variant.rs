//! One variant: what its container should be, what there is, and the next steps from the one to the other. Pure.

mod adopted;
mod composed;
mod image;
mod inline;
mod run;

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    conclusion::{Conclusion, Kind},
    names,
    observed::{Action, Named, VariantSeen},
    reason::Reason,
    right::Right,
    status,
};
use crate::{
    adapters::containers::Container,
    api::{
        container::{ContainerSource, ContainerSpec},
        workload::{Variant, VariantStatus, Workload},
    },
    runtime::events::Note,
};

/// Everything that bears on one variant.
pub struct Scene<'a> {
    pub workload: &'a Workload,
    pub variant: Variant,
    pub wish: Wish<'a>,
    /// It is the one that is to answer under the workload's name.
    pub active: bool,
    pub seen: &'a VariantSeen,
    pub before: Option<&'a VariantStatus>,
    /// What holds starting back.
    pub gate: Option<&'a Conclusion>,
    pub now: Timestamp,
}

/// What the spec says about the variant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wish<'a> {
    /// Not in the spec.
    Absent,
    Inline {
        spec: &'a ContainerSpec,
        running: bool,
    },
    Adopt {
        name: &'a str,
        running: bool,
    },
}

impl<'a> Wish<'a> {
    pub fn of(found: Option<(&'a ContainerSpec, bool)>) -> Self {
        match found.map(|(spec, running)| (spec.source(), running)) {
            None => Wish::Absent,
            Some((ContainerSource::Inline(spec), running)) => Wish::Inline { spec, running },
            Some((ContainerSource::Adopt { name }, running)) => Wish::Adopt { name, running },
        }
    }
}

impl Scene<'_> {
    fn name(&self) -> String {
        self.workload.name_any()
    }

    fn namespace(&self) -> &str {
        self.workload.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn uid(&self) -> &str {
        self.workload.metadata.uid.as_deref().unwrap_or_default()
    }

    fn generation(&self) -> Option<i64> {
        self.workload.metadata.generation
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.workload.spec.stop_grace_seconds.into())
    }

    /// Wished to run, with the right to its cards. What ends while it gives them away was stopped for that, and has not crashed:
    /// when it has them again it is started without a pause, whatever its restart policy.
    fn may_run(&self, running: bool) -> bool {
        running && self.seen.right == Right::Granted
    }

    fn container_name(&self) -> String {
        names::container(self.namespace(), &self.name(), self.variant)
    }
}

/// The order in which effects of both variants happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Stop, remove, ask for images.
    Clear = 0,
    Rename = 1,
    /// Make, restart, and give the active one its alias.
    Build = 2,
    /// Start, and take the alias from the other: for a moment both answer rather than none.
    Finish = 3,
}

const STEPS: usize = 4;

/// What is to be done about one variant.
#[derive(Debug, Clone)]
pub struct VariantPlan {
    pub variant: Variant,
    pub status: Option<VariantStatus>,
    /// The container the status speaks of.
    pub kept: Option<Container>,
    pub adopted: bool,
    pub stages: Vec<Vec<Action>>,
    /// None: there is nothing to say (no such variant, and nothing left of it).
    pub conclusion: Option<Conclusion>,
    /// Look again then.
    pub wake_at: Option<Timestamp>,
    pub notes: Vec<Note>,
}

pub fn decide(scene: &Scene<'_>) -> VariantPlan {
    let mut plan = VariantPlan::empty(scene.variant);
    match scene.wish {
        Wish::Absent => clear_away(scene, &mut plan, "is no longer in the spec"),
        Wish::Inline { spec, running } => inline::decide(scene, &mut plan, spec, running),
        Wish::Adopt { name, running } => adopted::decide(scene, &mut plan, name, running),
    }
    plan
}

/// The variant is not in the spec: what is ours of it goes.
fn clear_away(scene: &Scene<'_>, plan: &mut VariantPlan, why: &str) {
    for container in &scene.seen.ours {
        plan.status = Some(status::of(container, scene.seen.health, scene.before, false, scene.now));
        let removing = format!("{} {why}: it is removed", container.name);
        plan.act(
            scene,
            Step::Clear,
            remove(scene, container),
            Conclusion::new(Kind::UnderWay, Reason::Removing, removing),
        );
    }
}

impl VariantPlan {
    fn empty(variant: Variant) -> Self {
        Self {
            variant,
            status: None,
            kept: None,
            adopted: false,
            stages: vec![Vec::new(); STEPS],
            conclusion: None,
            wake_at: None,
            notes: Vec::new(),
        }
    }

    /// Plans an action, unless the last attempt at it failed so recently that it has to wait; a failure is what there is
    /// to say until an attempt succeeds. True when the action is planned.
    fn act(&mut self, scene: &Scene<'_>, step: Step, action: Action, meanwhile: Conclusion) -> bool {
        let failure =
            scene.seen.failures.iter().find(|f| f.verb == action.verb() && f.generation == scene.generation());
        self.conclude(failure.map_or(meanwhile, failed));
        match held_back(scene.seen, &action, scene.generation(), scene.now) {
            Some((retry_at, _)) => {
                self.wake(retry_at);
                false
            }
            None => {
                self.stages[step as usize].push(action);
                true
            }
        }
    }

    /// The worse of what was concluded before and this.
    fn conclude(&mut self, conclusion: Conclusion) {
        if self.conclusion.as_ref().is_none_or(|before| before.kind < conclusion.kind) {
            self.conclusion = Some(conclusion);
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// When an action may be tried again after its last failure, if that is not yet.
pub fn held_back(
    seen: &VariantSeen,
    action: &Action,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<(Timestamp, Conclusion)> {
    seen.failures
        .iter()
        .find(|f| f.verb == action.verb() && f.generation == generation && f.retry_at > now)
        .map(|failure| (failure.retry_at, failed(failure)))
}

fn failed(failure: &super::observed::Failure) -> Conclusion {
    match failure.terminal {
        Some(reason) => Conclusion::new(Kind::Stalled, reason, failure.message.clone()),
        None => Conclusion::new(Kind::UnderWay, Reason::EngineError, failure.message.clone()),
    }
}

fn remove(scene: &Scene<'_>, container: &Container) -> Action {
    Action::Remove { variant: scene.variant, container: Named::from(container), grace: scene.grace() }
}
