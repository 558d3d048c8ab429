use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::api::{
    gpu::{GpuStatus, Lease},
    handoff::{HandoffSpec, HandoffStatus, HandoffType},
    workload::{CandidateSpec, LiveSpec, WorkloadSpec, WorkloadStatus},
};
use crate::facades::gaia::names::{Owner, SLEEPER, external};

fn card(holder: Option<crate::api::gpu::Holder>, reason: &str) -> Event<Gpu> {
    let mut gpu = Gpu::new("gpu0", Default::default());
    let mut status = GpuStatus::default();
    let lease = |holder| Lease { holder, reason: reason.to_owned(), ..Lease::default() };
    status.set_leases(holder.map(lease).into_iter().collect());
    gpu.status = Some(status);
    Event::Apply(gpu)
}

fn types(news: &[News]) -> Vec<&'static str> {
    news.iter().map(|news| news.type_).collect()
}

#[test]
fn a_change_of_holder_is_told_from_both_sides() {
    let mut observer = Observer::default();
    assert_eq!(observer.on_gpu(card(Some(Owner::Core.holder(true)), "")), [], "what was there is no news");
    let news = observer.on_gpu(card(Some(Owner::Study.holder(true)), "training"));
    assert_eq!(types(&news), ["gpu_released", "gpu_acquired"]);
    assert_eq!(news[1].message, "GPU acquired by gaia-study");
    assert_eq!(news[1].data["reason"], "training");
    assert_eq!(observer.on_gpu(card(Some(Owner::Study.holder(true)), "training")), []);
    assert_eq!(types(&observer.on_gpu(card(Some(external(SLEEPER)), ""))), ["gpu_released"], "asleep is nobody's");
    assert_eq!(observer.on_gpu(card(None, "")), []);
}

fn handoff(id: &str, phase: HandoffPhase, error: Option<&str>) -> Handoff {
    let spec = HandoffSpec {
        gpu: "gpu0".to_owned(),
        type_: HandoffType::PrimeToStudy,
        from: Some(Owner::Core.holder(true)),
        to: Some(Owner::Study.holder(true)),
        ..HandoffSpec::default()
    };
    let mut handoff = Handoff::new("h", spec);
    handoff.metadata = ObjectMeta { uid: Some(id.to_owned()), ..ObjectMeta::default() };
    handoff.status = Some(HandoffStatus { phase, error: error.map(str::to_owned), ..HandoffStatus::default() });
    handoff
}

#[test]
fn a_handoff_is_told_at_its_start_and_at_its_end() {
    let mut observer = Observer::default();
    for event in [Event::Init, Event::InitApply(handoff("old", HandoffPhase::Completed, None)), Event::InitDone] {
        assert_eq!(observer.on_handoff(event), []);
    }
    let started = observer.on_handoff(Event::Apply(handoff("new", HandoffPhase::Initiated, None)));
    assert_eq!(types(&started), ["handoff_started"]);
    assert_eq!(started[0].message, "Transferring GPU from gaia-core to gaia-study");
    assert_eq!(started[0].data["handoff_type"], "prime_to_study");
    assert_eq!(observer.on_handoff(Event::Apply(handoff("new", HandoffPhase::ReleasingGpu, None))), []);
    let failed = observer.on_handoff(Event::Apply(handoff("new", HandoffPhase::Failed, Some("no answer"))));
    assert_eq!(types(&failed), ["handoff_failed"]);
    assert_eq!(failed[0].message, "Handoff failed: no answer");
    // A second list, after the watch fell behind.
    observer.on_handoff(Event::Init);
    assert_eq!(observer.on_handoff(Event::InitApply(handoff("new", HandoffPhase::Failed, None))), []);
    let missed = observer.on_handoff(Event::InitApply(handoff("missed", HandoffPhase::Completed, None)));
    assert_eq!(types(&missed), ["handoff_started", "handoff_completed"]);
}

fn core(live: VariantStatus, candidate: Option<VariantStatus>) -> Event<Workload> {
    let spec = WorkloadSpec {
        live: Some(LiveSpec { running: true, ..LiveSpec::default() }),
        candidate: candidate.is_some().then(|| CandidateSpec { running: true, ..CandidateSpec::default() }),
        ..WorkloadSpec::default()
    };
    let mut workload = Workload::new(CORE, spec);
    workload.metadata.labels = Some([(PART_OF.to_owned(), GAIA.to_owned())].into());
    workload.status = Some(WorkloadStatus { live: Some(live), candidate, ..WorkloadStatus::default() });
    Event::Apply(workload)
}

fn seen(state: VariantState, health: VariantHealth) -> VariantStatus {
    VariantStatus { state, health, ..VariantStatus::default() }
}

#[test]
fn health_is_told_when_it_turns_and_availability_with_it() {
    let healthy = || seen(VariantState::Running, VariantHealth::Healthy);
    let mut observer = Observer::default();
    assert_eq!(observer.on_workload(core(seen(VariantState::Running, VariantHealth::Starting), None)), []);
    assert_eq!(observer.on_workload(core(healthy(), None)), [], "the first look is silent");
    let down = observer.on_workload(core(seen(VariantState::Exited, VariantHealth::Unknown), None));
    assert_eq!(types(&down), ["service_health_change", "ha_status_change"]);
    assert_eq!(down[0].title, "gaia-core Down");
    assert_eq!(down[1].data["severity"], "critical");
    let up =
        observer.on_workload(core(VariantStatus { restarts: 1, exit_code: Some(1), ..healthy() }, Some(healthy())));
    assert_eq!(types(&up), ["service_error", "service_health_change", "ha_status_change"]);
    let lone = observer.on_workload(core(
        VariantStatus { restarts: 1, ..healthy() },
        Some(seen(VariantState::Running, VariantHealth::Unhealthy)),
    ));
    assert_eq!(types(&lone), ["service_health_change", "ha_status_change"]);
    assert_eq!(lone[0].title, "gaia-core-candidate Down");
    assert_eq!(lone[1].data["new_status"], "degraded");
}

#[test]
fn only_the_stack_is_told_of() {
    let Event::Apply(mut stranger) = core(seen(VariantState::Running, VariantHealth::Healthy), None) else {
        unreachable!("it was made as one")
    };
    stranger.metadata.labels = None;
    let mut observer = Observer::default();
    observer.on_workload(Event::Apply(stranger.clone()));
    if let Some(status) = stranger.status.as_mut().and_then(|status| status.live.as_mut()) {
        status.health = VariantHealth::Unhealthy;
    }
    assert_eq!(observer.on_workload(Event::Apply(stranger)), []);
}
