//! What a pass of the workload controller sees, and what it may do. Plain values: `observe` fills them in, `decide`
//! turns the one into the other, `apply` carries out.

use std::time::Duration;

use jiff::Timestamp;

use super::{names, reason::Reason, right::Right};
use crate::{
    adapters::containers::{Container, ContainerId, ContainerRequest, ContainerState},
    api::workload::{DependencyCondition, Variant, VariantHealth},
};

/// Everything a decision is made from beside the object and the time.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The node this process runs on.
    pub node: String,
    /// `Err`: the engine did not answer, or not to everything. Then nothing is known about any container.
    pub engine: Result<EngineView, String>,
    pub dependencies: Vec<DependencySeen>,
    /// The workload depends on itself: the names along the way, its own first and last.
    pub cycle: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct EngineView {
    pub live: VariantSeen,
    pub candidate: VariantSeen,
}

impl EngineView {
    pub fn of(&self, variant: Variant) -> &VariantSeen {
        match variant {
            Variant::Live => &self.live,
            Variant::Candidate => &self.candidate,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct VariantSeen {
    /// Containers that carry our labels for this variant; more than one only after a lost answer.
    pub ours: Vec<Container>,
    /// Whoever has the name the variant's container is to have, or that it adopts.
    pub named: Option<Container>,
    pub image: ImageSeen,
    /// While there is none of ours: the one that Compose runs for the service which the spec was taken from.
    pub composed: Option<Composed>,
    /// Of the container that [`choose`] keeps, or the adopted one.
    pub health: Health,
    /// Last failures of actions on this variant, since their last success.
    pub failures: Vec<Failure>,
    /// To use the cards its workload names.
    pub right: Right,
}

/// A container that Compose made.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    pub container: Container,
    /// From one that would be made from the spec.
    pub differences: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageSeen {
    /// None: not looked, because no container has to be made.
    pub present: Option<bool>,
    pub pull: PullSeen,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub enum PullSeen {
    #[default]
    NotAsked,
    UnderWay,
    Done {
        at: Timestamp,
    },
    Failed {
        message: String,
        retry_at: Timestamp,
    },
}

/// What probes, or Docker's own health check, say about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    pub health: VariantHealth,
    /// The liveness probe has failed often enough: the process must be started anew.
    pub liveness_failed: bool,
}

/// An action that did not succeed. An observation like any other: the engine said so.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub verb: Verb,
    /// Of the object the action was decided for. A changed spec is tried at once.
    pub generation: Option<i64>,
    /// Set when trying again will not help until somebody changes something.
    pub terminal: Option<Reason>,
    pub message: String,
    pub retry_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencySeen {
    pub workload: String,
    pub condition: DependencyCondition,
    pub state: DependencyState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyState {
    Met,
    NotMet,
    NotFound,
}

/// One step towards the wish.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Pull {
        variant: Variant,
        image: String,
    },
    Create {
        variant: Variant,
        request: Box<ContainerRequest>,
    },
    Start {
        variant: Variant,
        container: Named,
        network: Option<String>,
    },
    Stop {
        variant: Variant,
        container: Named,
        grace: Duration,
    },
    /// Stop and start, because it is not alive.
    Restart {
        variant: Variant,
        container: Named,
        grace: Duration,
        network: Option<String>,
    },
    /// Stop and remove.
    Remove {
        variant: Variant,
        container: Named,
        grace: Duration,
    },
    Rename {
        variant: Variant,
        container: Named,
        to: String,
    },
    /// Somebody gave it a restart policy of the engine's: our loop is the only restarter.
    ForbidRestarts {
        variant: Variant,
        container: Named,
    },
    Attach {
        variant: Variant,
        container: Named,
        network: String,
        aliases: Vec<String>,
    },
}

/// A container with the name it had, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub id: ContainerId,
    pub name: String,
}

impl From<&Container> for Named {
    fn from(container: &Container) -> Self {
        Self { id: container.id.clone(), name: container.name.clone() }
    }
}

/// What an action does. Failures are remembered by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::Display)]
pub enum Verb {
    Pull,
    Create,
    Start,
    Stop,
    Restart,
    Remove,
    Rename,
    ForbidRestarts,
    Attach,
}

impl Action {
    pub fn verb(&self) -> Verb {
        match self {
            Action::Pull { .. } => Verb::Pull,
            Action::Create { .. } => Verb::Create,
            Action::Start { .. } => Verb::Start,
            Action::Stop { .. } => Verb::Stop,
            Action::Restart { .. } => Verb::Restart,
            Action::Remove { .. } => Verb::Remove,
            Action::Rename { .. } => Verb::Rename,
            Action::ForbidRestarts { .. } => Verb::ForbidRestarts,
            Action::Attach { .. } => Verb::Attach,
        }
    }

    pub fn variant(&self) -> Variant {
        match self {
            Action::Pull { variant, .. }
            | Action::Create { variant, .. }
            | Action::Start { variant, .. }
            | Action::Stop { variant, .. }
            | Action::Restart { variant, .. }
            | Action::Remove { variant, .. }
            | Action::Rename { variant, .. }
            | Action::ForbidRestarts { variant, .. }
            | Action::Attach { variant, .. } => *variant,
        }
    }
}

/// Which of several containers of one variant is kept: one made from the present spec before others, a running one
/// before others, then the oldest. A total order, so that every pass keeps the same.
pub fn choose<'a>(ours: &'a [Container], hash: Option<&str>) -> Option<&'a Container> {
    ours.iter().min_by_key(|c| {
        let stale = hash.is_some() && names::spec_hash(c) != hash;
        (stale, c.state != ContainerState::Running, c.created_at, c.id.clone())
    })
}
