//! A small world around `decide`: a workload that does what its spec says, cards that change hands, and time. Each test
//! says what is different, and how it must end.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use kube::ResourceExt;
use rstest::rstest;
use serde_json::json;

use super::{
    decide::decide,
    observed::{Action, CommandSeen, ModelSeen, Observed},
};
use crate::{
    api::{
        annotation,
        container::ContainerSpec,
        gpu::{Gpu, GpuMemory, GpuProcess, GpuSpec, GpuStatus, Holder, HolderKind, Lease},
        handoff::{Handoff, HandoffPhase, HandoffStatus},
        promotion::*,
        workload::*,
    },
    controllers::gpu::holding::holder_of,
};

struct World {
    promotion: Promotion,
    workload: Workload,
    gpu: Option<Gpu>,
    handoffs: BTreeMap<String, Handoff>,
    /// Never gets healthy.
    sick: Option<Variant>,
    handoffs_fail: bool,
    observed: Observed,
    now: Timestamp,
    done: Vec<String>,
}

fn container(image: &str) -> ContainerSpec {
    ContainerSpec { image: image.into(), ..ContainerSpec::default() }
}

fn both() -> World {
    let spec = WorkloadSpec {
        live: Some(LiveSpec { running: true, container: container("web:1") }),
        candidate: Some(CandidateSpec { running: false, container: container("web:2") }),
        ..WorkloadSpec::default()
    };
    let mut workload = Workload::new("web", spec);
    workload.metadata.namespace = Some("default".into());
    workload.metadata.generation = Some(1);
    let mut promotion = Promotion::new("up", PromotionSpec { workload: "web".into(), ..PromotionSpec::default() });
    promotion.metadata.namespace = Some("default".into());
    promotion.metadata.uid = Some("u".into());
    let mut world = World {
        promotion,
        workload,
        gpu: None,
        handoffs: BTreeMap::new(),
        sick: None,
        handoffs_fail: false,
        observed: Observed::default(),
        now: Timestamp::from_second(1_800_000_000).expect("a time of this century"),
        done: Vec::new(),
    };
    world.follow();
    world
}

/// A card of 24 GiB that live holds; each variant needs 20.
fn on_a_card() -> World {
    let mut world = both();
    world.workload.spec.gpu =
        Some(WorkloadGpu { members: vec!["gpu0".into()], memory: Some("20Gi".into()), ..WorkloadGpu::default() });
    let mut gpu = Gpu::new("gpu0", GpuSpec { reserve: Some("1Gi".into()), ..GpuSpec::default() });
    let memory = GpuMemory { total_mib: 24_576, used_mib: 20_992, free_mib: 3_584 };
    let mut status = GpuStatus { memory: Some(memory), ..GpuStatus::default() };
    status.processes = vec![process(7, "default/web", 20_480)];
    status.set_leases(vec![lease(holder_of(&world.workload, Variant::Live))]);
    gpu.status = Some(status);
    world.gpu = Some(gpu);
    world.follow();
    world
}

fn process(pid: u32, workload: &str, mib: u64) -> GpuProcess {
    GpuProcess { pid, used_mib: Some(mib), workload: Some(workload.into()), ..GpuProcess::default() }
}

fn lease(holder: Holder) -> Lease {
    Lease { holder, lease_id: "l".into(), ..Lease::default() }
}

impl World {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn holds(&self, variant: Variant) -> bool {
        let holder = holder_of(&self.workload, variant);
        self.gpu.as_ref().is_none_or(|gpu| gpu.status.as_ref().is_some_and(|s| s.lease_of(&holder).is_some()))
    }

    /// What the other controllers do in the meantime.
    fn follow(&mut self) {
        for handoff in self.handoffs.values_mut().filter(|h| h.status.is_none()) {
            let failed = self.handoffs_fail || handoff.spec.cancel;
            let phase = if failed { HandoffPhase::Failed } else { HandoffPhase::Completed };
            handoff.status = Some(HandoffStatus { phase, error: failed.then(|| "stuck".into()), ..Default::default() });
            if let (false, Some(to), Some(gpu)) = (failed, &handoff.spec.to, &mut self.gpu) {
                gpu.status.get_or_insert_default().set_leases(vec![lease(to.clone())]);
            }
        }
        let [live, candidate] = Variant::ALL.map(|variant| self.seen(variant));
        let spec = &self.workload.spec;
        let runs = |seen: &VariantStatus| seen.state == VariantState::Running;
        let answers = if spec.active == Variant::Live { runs(&live) } else { runs(&candidate) };
        self.workload.status = Some(WorkloadStatus {
            observed_generation: self.workload.metadata.generation,
            active: answers.then_some(spec.active),
            live: Some(live),
            candidate: Some(candidate),
            ..WorkloadStatus::default()
        });
    }

    fn seen(&self, variant: Variant) -> VariantStatus {
        let spec = &self.workload.spec;
        let wished = match variant {
            Variant::Live => spec.live.as_ref().is_some_and(|v| v.running),
            Variant::Candidate => spec.candidate.as_ref().is_some_and(|v| v.running),
        };
        let before = self.workload.status.as_ref().and_then(|status| match variant {
            Variant::Live => status.live.clone(),
            Variant::Candidate => status.candidate.clone(),
        });
        let since = before.and_then(|seen| seen.healthy_since).unwrap_or(Time(self.now));
        match (wished && self.holds(variant), self.sick == Some(variant)) {
            (false, _) => VariantStatus { state: VariantState::Exited, ..VariantStatus::default() },
            (true, true) => VariantStatus {
                state: VariantState::Running,
                health: VariantHealth::Unhealthy,
                ..VariantStatus::default()
            },
            (true, false) => VariantStatus {
                state: VariantState::Running,
                health: VariantHealth::Healthy,
                container_id: Some(format!("{variant:?}")),
                started_at: Some(since.clone()),
                healthy_since: Some(since),
                ..VariantStatus::default()
            },
        }
    }

    fn observed(&self) -> Observed {
        let gpus = self.gpu.iter().map(|gpu| (gpu.name_any(), Some(Arc::new(gpu.clone())))).collect();
        let handoffs = self.handoffs.iter().map(|(name, h)| (name.clone(), Arc::new(h.clone()))).collect();
        Observed { workload: Some(Arc::new(self.workload.clone())), gpus, handoffs, ..self.observed.clone() }
    }

    /// One pass; `acts`: it is not cut off between the status and the effects.
    fn pass(&mut self, acts: bool) {
        let plan = decide(&self.promotion, &self.observed(), self.now);
        if let Some(status) = plan.status {
            self.promotion.status = Some(status);
        }
        for action in plan.stages.concat().iter().filter(|_| acts) {
            self.apply(action);
        }
        self.now += SignedDuration::from_secs(2);
        self.follow();
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::SetWorkload { change, .. } => {
                let mut patch = change.patch(None);
                patch["metadata"].as_object_mut().expect("a map").remove("resourceVersion");
                if patch.get("spec").is_some() {
                    self.done.push(patch["spec"].to_string());
                    self.workload.metadata.generation = self.workload.metadata.generation.map(|g| g + 1);
                }
                let mut object = serde_json::to_value(&self.workload).expect("plain data");
                json_patch::merge(&mut object, &patch);
                self.workload = serde_json::from_value(object).expect("still a workload");
            }
            Action::MakeHandoff { handoff } => {
                self.done.push(format!("handoff {}", handoff.name_any()));
                self.handoffs.insert(handoff.name_any(), (**handoff).clone());
            }
            Action::CancelHandoff { name } => {
                self.done.push(format!("cancel {}", name.name));
                self.handoffs.get_mut(&name.name).expect("it was seen").spec.cancel = true;
            }
            Action::RunCommand { .. } => {
                self.done.push("run command".into());
                self.observed.command = CommandSeen::Passed;
            }
        }
    }

    fn run(mut self) -> Self {
        for _ in 0..1000 {
            if self.phase().is_terminal() {
                return self;
            }
            self.pass(true);
        }
        panic!("no end: {:#?}", self.promotion.status)
    }

    fn until(mut self, phase: PromotionPhase) -> Self {
        for _ in 0..1000 {
            if self.phase() == phase {
                return self;
            }
            self.pass(true);
        }
        panic!("never {phase:?}: {:#?}", self.promotion.status)
    }

    fn phase(&self) -> PromotionPhase {
        self.promotion.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    fn reason(&self) -> String {
        let conditions = self.promotion.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.reason.clone()).unwrap_or_default()
    }

    fn error(&self) -> String {
        self.promotion.status.as_ref().and_then(|status| status.error.clone()).unwrap_or_default()
    }

    /// `active`, and who is to run.
    fn wishes(&self) -> (Variant, bool, bool) {
        let spec = &self.workload.spec;
        (spec.active, spec.live.as_ref().unwrap().running, spec.candidate.as_ref().unwrap().running)
    }
}

const AS_BEFORE: (Variant, bool, bool) = (Variant::Live, true, false);
const PROMOTED: (Variant, bool, bool) = (Variant::Candidate, false, true);

#[test]
fn the_candidate_runs_beside_live_until_it_has_proved_itself() {
    let world = both().run();
    assert_eq!(world.phase(), PromotionPhase::Completed, "{:#?}", world.promotion.status);
    assert_eq!(
        world.done,
        [r#"{"candidate":{"running":true}}"#, r#"{"active":"Candidate"}"#, r#"{"live":{"running":false}}"#]
    );
    assert_eq!(world.wishes(), PROMOTED);
    let status = world.promotion.status.unwrap();
    let steps: Vec<&str> = status.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["StartingCandidate", "Gating", "Switching"]);
    assert_eq!(status.conditions[0].status, "True");
    assert_ne!(status.from_revision, status.to_revision);
}

#[test]
fn on_a_card_live_lets_go_first_and_gets_it_back_by_the_other_direction() {
    let up = on_a_card().run();
    assert_eq!(up.phase(), PromotionPhase::Completed, "{:#?}", up.promotion.status);
    assert_eq!(up.done[..2], [r#"{"candidate":{"running":true}}"#.to_owned(), "handoff up-gpu0".to_owned()]);
    assert_eq!((up.wishes(), up.holds(Variant::Candidate)), (PROMOTED, true));

    let down = up.with(|w| {
        w.promotion = Promotion::new("down", PromotionSpec { workload: "web".into(), ..PromotionSpec::default() });
        w.done.clear();
    });
    let down = down.run();
    assert_eq!(down.phase(), PromotionPhase::Completed, "{:#?}", down.promotion.status);
    assert_eq!((down.wishes(), down.holds(Variant::Live)), (AS_BEFORE, true));
    assert_eq!(down.promotion.status.unwrap().to, Some(Variant::Live));
}

#[rstest]
#[case::beside_each_other(both())]
#[case::on_a_card(on_a_card())]
fn one_that_never_gets_healthy_is_taken_back(#[case] world: World) {
    let world = world.with(|w| w.sick = Some(Variant::Candidate)).run();
    assert_eq!((world.phase(), world.reason().as_str()), (PromotionPhase::RolledBack, "ProbesFailed"));
    assert_eq!((world.wishes(), world.holds(Variant::Live)), (AS_BEFORE, true));
    assert!(world.error().contains("healthy"), "{}", world.error());
}

#[test]
fn a_failed_handoff_puts_everything_back() {
    let world = on_a_card().with(|w| w.handoffs_fail = true).run();
    assert_eq!((world.phase(), world.reason().as_str()), (PromotionPhase::RolledBack, "HandoffFailed"));
    assert_eq!((world.wishes(), world.holds(Variant::Live)), (AS_BEFORE, true));
    assert!(world.error().contains("stuck"), "{}", world.error());
}

#[test]
fn who_wants_to_look_at_the_failure_can_hold_it() {
    let world = both()
        .with(|w| {
            w.sick = Some(Variant::Candidate);
            w.promotion.spec.on_failure = OnFailure::Hold;
        })
        .run();
    assert_eq!(world.phase(), PromotionPhase::Failed);
    assert_eq!(world.wishes(), (Variant::Live, true, true), "nothing is put back");
}

#[rstest]
#[case::while_it_starts(both().with(|w| w.sick = Some(Variant::Candidate)).until(PromotionPhase::Gating))]
#[case::while_it_switches(both().until(PromotionPhase::Switching))]
#[case::on_a_card(on_a_card().until(PromotionPhase::Gating))]
fn a_cancel_undoes_what_was_done(#[case] world: World) {
    let world = world.with(|w| w.promotion.spec.cancel = true).run();
    assert_eq!((world.phase(), world.error().as_str()), (PromotionPhase::Cancelled, ""));
    assert_eq!((world.wishes(), world.holds(Variant::Live)), (AS_BEFORE, true));
}

#[test]
fn a_handoff_under_way_is_cancelled_too() {
    let mut world = on_a_card().until(PromotionPhase::Releasing);
    let running = super::handoffs::name("up", "gpu0", super::handoffs::Way::Forth);
    let mut handoff = Handoff::new(&running, Default::default());
    handoff.status = Some(HandoffStatus { phase: HandoffPhase::ReleasingGpu, ..Default::default() });
    world.handoffs.insert(running, handoff);
    world.promotion.spec.cancel = true;
    world.pass(true);
    world.pass(true);
    assert_eq!(world.done.last().map(String::as_str), Some("cancel up-gpu0"));
    assert_eq!(world.phase(), PromotionPhase::RollingBack, "not over before the handoff is");
}

#[test]
fn deleting_is_cancelling_and_lets_go_last() {
    let world = both().until(PromotionPhase::Gating);
    let world = world.with(|w| w.promotion.metadata.deletion_timestamp = Some(Time(w.now))).run();
    assert_eq!(world.wishes(), AS_BEFORE);
    let plan = decide(&world.promotion, &world.observed(), world.now);
    assert_eq!(plan.finalizer, crate::runtime::reconciler::Finalizer::Released);
}

/// Cut off after the n-th status, or with the n-th pass lost whole: the end is the same.
#[rstest]
#[case::gets_through(on_a_card, PromotionPhase::Completed)]
#[case::goes_back(|| on_a_card().with(|w| {
    w.sick = Some(Variant::Candidate);
    w.promotion.spec.gates.timeout_seconds = 20;
}), PromotionPhase::RolledBack)]
fn a_crash_at_any_point_changes_nothing_about_the_end(#[case] make: fn() -> World, #[case] expected: PromotionPhase) {
    let wishes = make().run().wishes();
    for cut in 0..30 {
        let mut world = make();
        for _ in 0..cut {
            world.pass(true);
        }
        world.pass(false);
        let world = world.run();
        assert_eq!((world.phase(), world.wishes()), (expected, wishes), "cut off in pass {cut}");
    }
}

#[rstest]
#[case::no_second_variant(|w: &mut World| w.workload.spec.candidate = None, "NoCandidate", "no second variant")]
#[case::another_was_first(|w: &mut World| w.observed.other = Some("first".into()), "AnotherInProgress", "first")]
#[case::a_file_states_it(|w: &mut World| {
    let fields = json!({"f:spec": {"f:active": {}}});
    let stated = ManagedFieldsEntry {
        manager: Some("gaia-files".into()),
        operation: Some("Apply".into()),
        fields_v1: Some(FieldsV1(fields)),
        ..ManagedFieldsEntry::default()
    };
    w.workload.metadata.managed_fields = Some(vec![stated]);
}, "FieldsOwned", "gaia-files states .spec.active")]
#[case::a_neighbour_uses_it(|w: &mut World| {
    let status = w.gpu.as_mut().unwrap().status.as_mut().unwrap();
    status.processes = vec![process(7, "default/web", 10_240), process(8, "default/study", 8_192)];
}, "DoesNotFit", "default/study 8192 MiB")]
#[case::a_stranger_uses_it(|w: &mut World| {
    let status = w.gpu.as_mut().unwrap().status.as_mut().unwrap();
    status.processes = vec![GpuProcess { pid: 9, name: Some("Xorg".into()), used_mib: Some(8192), ..GpuProcess::default() }];
}, "DoesNotFit", "Xorg (pid 9) 8192 MiB")]
#[case::somebody_else_holds_it(|w: &mut World| {
    let study = Holder { name: "gaia-audio".into(), kind: HolderKind::External, ..Holder::default() };
    w.gpu.as_mut().unwrap().status.as_mut().unwrap().set_leases(vec![lease(study)]);
}, "DoesNotFit", "gaia-audio (external)")]
#[case::no_such_card(|w: &mut World| w.observed.gpus.clear(), "", "")]
fn refuses_before_anything_stops(#[case] change: fn(&mut World), #[case] reason: &str, #[case] why: &str) {
    let mut world = on_a_card().with(change);
    if reason.is_empty() {
        world.gpu = None;
        let gpus = BTreeMap::from([("gpu0".to_owned(), None)]);
        let observed = Observed { gpus, ..world.observed() };
        world.promotion.status = decide(&world.promotion, &observed, world.now).status;
        assert_eq!(world.reason(), "DoesNotFit");
        return;
    }
    world.pass(true);
    assert_eq!((world.phase(), world.reason().as_str()), (PromotionPhase::Failed, reason));
    assert!(world.error().contains(why), "{}", world.error());
    assert_eq!(world.done, [""; 0]);
}

#[test]
fn what_nobody_has_measured_is_waited_for() {
    let mut world = on_a_card().with(|w| w.gpu.as_mut().unwrap().status.as_mut().unwrap().memory = None);
    world.pass(true);
    assert_eq!((world.phase(), world.done.len()), (PromotionPhase::Pending, 0));
}

#[test]
fn of_two_that_began_at_once_the_one_that_did_not_get_the_mark_ends() {
    let mut world = both();
    world.pass(false);
    world.workload.metadata.annotations = Some([(annotation::PROMOTION.to_owned(), "other".to_owned())].into());
    world.observed.other = Some("other".into());
    world.pass(true);
    assert_eq!((world.phase(), world.reason().as_str()), (PromotionPhase::Failed, "AnotherInProgress"));
    assert_eq!(world.wishes(), AS_BEFORE);
}

#[test]
fn a_model_that_is_not_listed_keeps_the_gate_closed() {
    let gate = |w: &mut World| {
        let model_loaded = Some(ModelLoaded { port: 8000, path: "/v1/models".into(), model: None });
        w.promotion.spec.gates = Gates { model_loaded, ..Gates::default() };
    };
    let loaded = both().with(gate).with(|w| w.observed.model = ModelSeen::Loaded).run();
    assert_eq!(loaded.phase(), PromotionPhase::Completed);
    let never = both().with(gate).with(|w| w.observed.model = ModelSeen::NotLoaded("it serves no model".into())).run();
    assert_eq!((never.phase(), never.reason().as_str()), (PromotionPhase::RolledBack, "ModelNotLoaded"));
}

#[test]
fn a_command_is_run_when_the_rest_is_passed_and_its_failure_goes_back() {
    let gate = |w: &mut World| {
        let command = Some(GateCommand { command: vec!["check".into()], timeout_seconds: 10 });
        w.promotion.spec.gates = Gates { command, ..Gates::default() };
    };
    let passed = both().with(gate).run();
    assert_eq!(passed.done[1], "run command");
    assert_eq!(passed.phase(), PromotionPhase::Completed);
    let failed = both().with(gate).with(|w| w.observed.command = CommandSeen::Failed("exit code 1".into())).run();
    assert_eq!((failed.phase(), failed.reason().as_str()), (PromotionPhase::RolledBack, "CommandFailed"));
}

#[test]
fn who_answers_already_is_done() {
    let world = both().with(|w| {
        w.promotion.spec.to = Some(Variant::Live);
    });
    let world = world.run();
    assert_eq!((world.phase(), world.done.len()), (PromotionPhase::Completed, 0));
}
