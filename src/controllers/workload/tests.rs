//! Tables over `decide`: a workload, what is seen of it, and what follows. A [`Case`] begins as a workload with one live
//! container that runs as it should; each test says what is different.

mod bounds;
mod composed;
mod failover;
mod lifecycle;
mod refusals;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    decide::{WorkloadPlan, decide},
    names,
    observed::{Action, EngineView, Failure, Health, Observed, PullSeen, VariantSeen, Verb},
    reason::Reason,
};
use crate::{
    adapters::containers::{Attachment, Container, ContainerId, ContainerState},
    api::{
        condition::{READY, RECONCILING, STALLED},
        container::{Adopt, ContainerSpec},
        workload::{CandidateSpec, LiveSpec, Variant, VariantHealth, VariantStatus, Workload, WorkloadSpec},
    },
    runtime::reconciler::Requeue,
};

const UID: &str = "5d0c";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
}

/// A workload `web`, what is seen, and when.
#[derive(Debug, Clone)]
struct Case {
    workload: Workload,
    observed: Observed,
    now: Timestamp,
}

/// What follows, in few words.
#[derive(Debug, PartialEq, Eq)]
struct Follows {
    /// `Ready` as `status reason`.
    ready: String,
    reconciling: Option<String>,
    stalled: Option<String>,
    /// Stages with anything in them, `verb container` each.
    stages: Vec<Vec<String>>,
}

fn spec(image: &str) -> ContainerSpec {
    ContainerSpec { image: image.into(), ..ContainerSpec::default() }
}

fn adopting(name: &str) -> ContainerSpec {
    ContainerSpec { adopt: Some(Adopt { name: name.into() }), ..ContainerSpec::default() }
}

/// A container of ours that is as the controller would make it.
fn ours(variant: Variant, from: &ContainerSpec, state: ContainerState, active: bool) -> Container {
    let name = names::container("default", "web", variant);
    Container {
        labels: names::labels(UID, "default", "web", variant, &from.hash()),
        attachments: names::networks("default", "web", from, active)
            .into_iter()
            .map(|(network, aliases)| Attachment { network, aliases, ip: None })
            .collect(),
        ..foreign(&name, state)
    }
}

fn foreign(name: &str, state: ContainerState) -> Container {
    Container {
        id: ContainerId(format!("id-of-{name}")),
        name: name.into(),
        image: "web:1".into(),
        image_id: "sha256:1".into(),
        labels: [].into(),
        state,
        health: None,
        exit_code: 0,
        oom_killed: false,
        restarts_itself: false,
        error: String::new(),
        created_at: Some(at(-1000)),
        started_at: (state != ContainerState::Created).then(|| at(-900)),
        finished_at: (state == ContainerState::Exited).then(|| at(-100)),
        attachments: Vec::new(),
        ports: Vec::new(),
    }
}

impl Case {
    /// A live variant that is to run, and nothing there.
    fn empty() -> Self {
        let live = LiveSpec { running: true, container: spec("web:1") };
        let mut workload =
            Workload::new("web", WorkloadSpec { live: Some(live), stop_grace_seconds: 10, ..WorkloadSpec::default() });
        workload.metadata.namespace = Some("default".into());
        workload.metadata.uid = Some(UID.into());
        workload.metadata.generation = Some(1);
        let observed =
            Observed { node: "here".into(), engine: Ok(EngineView::default()), dependencies: Vec::new(), cycle: None };
        let mut case = Self { workload, observed, now: at(0) };
        case.live().image.present = Some(true);
        case
    }

    fn with_live(state: ContainerState) -> Self {
        let mut case = Self::empty();
        let container = ours(Variant::Live, &spec("web:1"), state, true);
        *case.live() = seen(container);
        case
    }

    fn running() -> Self {
        Self::with_live(ContainerState::Running)
    }

    /// Live runs, and a candidate that runs too.
    fn with_candidate() -> Self {
        let mut case = Self::running();
        case.workload.spec.candidate = Some(CandidateSpec { running: true, container: spec("web:2") });
        case.view().candidate = seen(ours(Variant::Candidate, &spec("web:2"), ContainerState::Running, false));
        case
    }

    fn view(&mut self) -> &mut EngineView {
        self.observed.engine.as_mut().expect("the engine answers in this case")
    }

    fn live(&mut self) -> &mut VariantSeen {
        &mut self.view().live
    }

    fn container(&mut self) -> &mut Container {
        self.live().ours.first_mut().expect("there is a live container in this case")
    }

    fn live_spec(&mut self) -> &mut LiveSpec {
        self.workload.spec.live.as_mut().expect("there is a live variant in this case")
    }

    /// What the status said of live.
    fn live_before(&mut self) -> &mut VariantStatus {
        let status = self.workload.status.as_mut().and_then(|status| status.live.as_mut());
        status.expect("a status has been stored in this case")
    }

    fn plan(&self) -> WorkloadPlan {
        decide(&self.workload, &self.observed, self.now)
    }

    /// As if this pass's status had been stored.
    fn remember(mut self) -> Self {
        self.workload.status = self.plan().status;
        self
    }

    fn later(mut self, seconds: i64) -> Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    fn changed(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn follows(&self) -> Follows {
        let plan = self.plan();
        let conditions = plan.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        let find = |type_: &str| conditions.iter().find(|c| c.type_ == type_);
        Follows {
            ready: find(READY).map(|c| format!("{} {}", c.status, c.reason)).unwrap_or_default(),
            reconciling: find(RECONCILING).map(|c| c.reason.clone()),
            stalled: find(STALLED).map(|c| c.reason.clone()),
            stages: plan
                .stages
                .iter()
                .filter(|stage| !stage.is_empty())
                .map(|stage| stage.iter().map(told).collect())
                .collect(),
        }
    }

    /// Steps of all stages in order.
    fn steps(&self) -> Vec<String> {
        self.follows().stages.concat()
    }

    fn ready(&self) -> String {
        self.follows().ready
    }

    fn requeue_seconds(&self) -> f64 {
        match self.plan().requeue {
            Requeue::After(delay) => delay.as_secs_f64(),
            other => panic!("expected a time, got {other:?}"),
        }
    }
}

fn seen(container: Container) -> VariantSeen {
    let healthy = Health { health: VariantHealth::Healthy, liveness_failed: false };
    let health = if container.state == ContainerState::Running { healthy } else { Health::default() };
    VariantSeen { named: Some(container.clone()), ours: vec![container], health, ..VariantSeen::default() }
}

fn told(action: &Action) -> String {
    match action {
        Action::Pull { image, .. } => format!("pull {image}"),
        Action::Create { request, .. } => format!("create {}", request.name),
        Action::Start { container, .. } => format!("start {}", container.name),
        Action::Stop { container, .. } => format!("stop {}", container.name),
        Action::Restart { container, .. } => format!("restart {}", container.name),
        Action::Remove { container, .. } => format!("remove {}", container.name),
        Action::Rename { container, to, .. } => format!("rename {} to {to}", container.name),
        Action::ForbidRestarts { container, .. } => format!("forbid restarts of {}", container.name),
        Action::Attach { container, network, aliases, .. } => {
            format!("attach {} to {network} as [{}]", container.name, aliases.join(" "))
        }
    }
}

fn failure(verb: Verb, terminal: Option<Reason>, retry_in: i64) -> Failure {
    Failure { verb, generation: Some(1), terminal, message: "the engine said no".into(), retry_at: at(retry_in) }
}
