//! One handoff with the world around it, for the tables of [`super::tests`]: each call is what the world does.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    decide::{Action, decide},
    observe::{Observed, Party},
    proof::Proof,
    runner::Answer,
};
use crate::{
    adapters::containers::{ContainerId, ContainerState, ContainerSummary},
    api::{
        container::ContainerSpec,
        gpu::{Gpu, GpuSpec, GpuStatus, Holder, HolderKind, Lease},
        gpustep::{AcquireStep, ExecStep, NoSettings, ReleaseStep},
        handoff::{Handoff, HandoffPhase, HandoffSpec, HandoffStatus, HandoffStep},
        workload::{LiveSpec, Variant, Workload, WorkloadGpu},
    },
    runtime::reconciler::Finalizer,
};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
}

pub fn holder(name: &str) -> Holder {
    Holder { name: name.into(), kind: HolderKind::Workload, namespace: "default".into(), variant: Variant::Live }
}

pub fn exec(word: &str, change: impl FnOnce(&mut ReleaseStep)) -> ReleaseStep {
    let exec = Some(ExecStep { command: vec![word.to_owned()] });
    let mut step = ReleaseStep { exec, verify: true, timeout_seconds: 10, ..ReleaseStep::default() };
    change(&mut step);
    step
}

pub fn stop() -> ReleaseStep {
    ReleaseStep { stop: Some(NoSettings::default()), verify: true, timeout_seconds: 10, ..ReleaseStep::default() }
}

pub fn party(name: &str, release: Vec<ReleaseStep>) -> Party {
    let acquire = AcquireStep {
        exec: Some(ExecStep { command: vec!["take".to_owned()] }),
        required: true,
        timeout_seconds: 10,
        ..AcquireStep::default()
    };
    let mut workload = Workload::new(name, Default::default());
    workload.metadata.namespace = Some("default".into());
    workload.spec.stop_grace_seconds = 5;
    workload.spec.live = Some(LiveSpec { running: true, container: ContainerSpec::default() });
    workload.spec.gpu =
        Some(WorkloadGpu { release_steps: release, acquire_steps: vec![acquire], ..WorkloadGpu::default() });
    let containers = vec![container(name, ContainerState::Running)];
    Party { holder: holder(name), workload: Arc::new(workload), containers, peers: Vec::new() }
}

pub fn container(name: &str, state: ContainerState) -> ContainerSummary {
    let (id, name) = (ContainerId(name.into()), format!("{name}-live"));
    ContainerSummary { id, name, labels: BTreeMap::new(), state, trace: String::new() }
}

/// prime has given, the card is proven free, and the lease is study's.
pub fn signaling() -> Flight {
    let mut flight = Flight::new(vec![stop()]).let_in();
    flight.settle();
    flight.answer(Ok(""));
    flight.free();
    flight.grant(&["study"]);
    flight.settle();
    assert_eq!(flight.phase(), HandoffPhase::SignalingRecipient);
    flight
}

pub struct Flight {
    pub handoff: Handoff,
    pub seen: Observed,
    pub second: i64,
}

impl Flight {
    /// prime, which has the card, gives it to study.
    pub fn new(release: Vec<ReleaseStep>) -> Self {
        let spec = HandoffSpec {
            gpu: "gpu0".into(),
            from: Some(holder("prime")),
            to: Some(holder("study")),
            timeout_seconds: 120,
            ..HandoffSpec::default()
        };
        let mut handoff = Handoff::new("h", spec);
        handoff.metadata.namespace = Some("default".into());
        handoff.metadata.creation_timestamp = Some(Time(at(0)));
        let mut gpu = Gpu::new("gpu0", GpuSpec { lend: true, owner: Some(holder("prime")), ..GpuSpec::default() });
        gpu.spec.cleanup.timeout_seconds = 30;
        gpu.status = Some(GpuStatus { fencing_token: 7, observed_generation: Some(1), ..GpuStatus::default() });
        let seen = Observed {
            gpu: Some(Arc::new(gpu)),
            from: Some(party("prime", release)),
            to: Some(party("study", vec![])),
            proof: Some(Proof::default()),
            ..Observed::default()
        };
        let mut flight = Self { handoff, seen, second: 1 };
        flight.leases(&["prime"]);
        flight
    }

    pub fn let_in(mut self) -> Self {
        self.card(|gpu| gpu.status.as_mut().expect("told").handoff = Some("default/h".into()));
        self
    }

    pub fn card(&mut self, change: impl FnOnce(&mut Gpu)) {
        change(Arc::make_mut(self.seen.gpu.as_mut().expect("a card")));
    }

    pub fn leases(&mut self, holders: &[&str]) {
        let lease =
            |name: &&str| Lease { holder: holder(name), lease_id: format!("lease of {name}"), ..Lease::default() };
        let leases: Vec<_> = holders.iter().map(lease).collect();
        self.card(|gpu| gpu.status.as_mut().expect("told").set_leases(leases));
    }

    /// What the gpu controller does.
    pub fn grant(&mut self, holders: &[&str]) {
        self.leases(holders);
        self.card(|gpu| gpu.status.as_mut().expect("told").fencing_token += 1);
    }

    pub fn status(&self) -> HandoffStatus {
        self.handoff.status.clone().unwrap_or_default()
    }

    pub fn phase(&self) -> HandoffPhase {
        self.status().phase
    }

    /// One pass: the phase it leads to, and what is to be done then.
    pub fn once(&mut self) -> (HandoffPhase, Vec<String>) {
        let plan = decide(&self.handoff, &self.seen, at(self.second));
        let done = plan.stages.iter().flatten().map(name).collect();
        self.handoff.status = plan.status.or(self.handoff.status.take());
        (self.phase(), done)
    }

    /// Passes until nothing changes; what is to be done then.
    pub fn settle(&mut self) -> Vec<String> {
        for _ in 0..50 {
            let plan = decide(&self.handoff, &self.seen, at(self.second));
            let done = plan.stages.iter().flatten().map(name).collect();
            if plan.finalizer == Finalizer::Released || plan.status == self.handoff.status {
                return done;
            }
            let steps = |status: &HandoffStatus| {
                let back = status.rollback.iter().flat_map(|r| &r.steps);
                status.steps.iter().chain(back).map(|s| s.outcome).collect::<Vec<_>>()
            };
            let fresh = plan.status.expect("a status");
            // An answer is of one step: the next one has none yet.
            if steps(&fresh) != steps(&self.status()) {
                self.seen.answer = None;
            }
            self.handoff.status = Some(fresh);
        }
        panic!("it does not come to rest: {:?}", self.handoff.status)
    }

    /// The step under way is answered.
    pub fn answer(&mut self, answer: Result<&str, &str>) -> Vec<String> {
        self.seen.answer = Some(Answer::Done(answer.map(str::to_owned).map_err(str::to_owned)));
        self.settle()
    }

    /// The card is seen to be free from now on.
    pub fn free(&mut self) -> Vec<String> {
        self.seen.proof = Some(Proof { free_since: Some(at(self.second)), ..Proof::default() });
        self.settle()
    }

    pub fn later(&mut self, seconds: i64) -> Vec<String> {
        self.second += seconds;
        self.settle()
    }

    /// `stop default/prime Succeeded`.
    pub fn steps(&self) -> Vec<String> {
        told(&self.status().steps)
    }

    pub fn steps_back(&self) -> Vec<String> {
        told(&self.status().rollback.expect("it rolled back").steps)
    }

    /// `Failed ReleaseFailed: why; the old holder is back`
    pub fn end(&self) -> String {
        let status = self.status();
        assert!(status.completed_at.is_some(), "it has ended: {status:?}");
        let reason = &status.conditions.iter().find(|c| c.type_ == "Ready").expect("Ready is said").reason;
        let back = status.rollback.and_then(|r| r.message).map_or(String::new(), |back| format!("; {back}"));
        format!("{:?} {reason}: {}{back}", status.phase, status.error.unwrap_or_default())
    }
}

fn name(action: &Action) -> String {
    match action {
        Action::Run { key, .. } if key.back => format!("back {:?} {}", key.stage, key.index),
        Action::Run { key, .. } => format!("{:?} {}", key.stage, key.index),
        Action::EnsureClaim => "EnsureClaim".to_owned(),
    }
}

fn told(steps: &[HandoffStep]) -> Vec<String> {
    steps.iter().map(|step| format!("{} {:?}", step.name, step.outcome)).collect()
}
