//! Which steps a side takes, and what each is called. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::{observe::Party, proof::is_stopped};
use crate::{
    api::{
        gpu::Measure,
        gpustep::{AcquireStep, HttpStep, NoSettings, ReleaseStep},
        workload::{Variant, Workload},
    },
    controllers::workload::names,
};

/// Seconds beyond a container's own grace that a stop may take.
const STOP_SLACK: u32 = 15;

/// The declared steps, or a stop; then what `onStuck` adds to them.
pub fn release_plan(party: Option<&Party>, on_stuck: &[Measure]) -> Vec<ReleaseStep> {
    let Some(party) = party else { return Vec::new() };
    let declared = party.workload.spec.gpu.as_ref().map(|gpu| gpu.release_steps.clone()).unwrap_or_default();
    let grace = party.workload.spec.stop_grace_seconds;
    let end = |stop: bool| ReleaseStep {
        stop: stop.then(NoSettings::default),
        kill: (!stop).then(NoSettings::default),
        timeout_seconds: grace + STOP_SLACK,
        verify: true,
        ..ReleaseStep::default()
    };
    let mut plan = if declared.is_empty() { vec![end(true)] } else { declared };
    let gentle: Vec<ReleaseStep> =
        plan.iter().filter(|step| step.stop.is_none() && step.kill.is_none() && step.verify).cloned().collect();
    for measure in on_stuck {
        match measure {
            Measure::Release => plan.extend(gentle.iter().cloned()),
            Measure::Stop if !plan.iter().any(|step| step.stop.is_some()) => plan.push(end(true)),
            Measure::Kill if !plan.iter().any(|step| step.kill.is_some()) => plan.push(end(false)),
            Measure::Stop | Measure::Kill => {}
        }
    }
    for step in plan.iter_mut().filter(|step| step.stop.is_some()) {
        step.timeout_seconds = step.timeout_seconds.max(grace + STOP_SLACK);
    }
    plan
}

/// The new holder that could not take the card lets go of it by being stopped, whatever steps it declares.
pub fn withdraw_plan(party: Option<&Party>) -> Vec<ReleaseStep> {
    let Some(party) = party else { return Vec::new() };
    let timeout_seconds = party.workload.spec.stop_grace_seconds + STOP_SLACK;
    let stop =
        ReleaseStep { stop: Some(NoSettings::default()), timeout_seconds, verify: true, ..ReleaseStep::default() };
    vec![stop]
}

pub fn stops(step: &ReleaseStep) -> bool {
    step.stop.is_some() || step.kill.is_some()
}

/// What is done for it. Who does not run has nothing to let go of and cannot be asked; but a start may be on its way to the engine,
/// and would come up when the card is another's. A stop is done after it, so there is one in the place of whatever was declared.
pub fn in_practice(step: &ReleaseStep, party: &Party) -> ReleaseStep {
    let runs = party.containers.iter().any(|container| !is_stopped(container.state));
    if runs || stops(step) {
        return step.clone();
    }
    ReleaseStep {
        stop: Some(NoSettings::default()),
        timeout_seconds: step.timeout_seconds.max(party.workload.spec.stop_grace_seconds + STOP_SLACK),
        required: step.required,
        verify: step.verify,
        ..ReleaseStep::default()
    }
}

/// The declared steps, or a start.
pub fn acquire_plan(party: Option<&Party>) -> Vec<AcquireStep> {
    let Some(party) = party else { return Vec::new() };
    let declared = party.workload.spec.gpu.as_ref().map(|gpu| gpu.acquire_steps.clone()).unwrap_or_default();
    let start = AcquireStep {
        start: Some(NoSettings::default()),
        timeout_seconds: 300,
        required: true,
        ..AcquireStep::default()
    };
    if declared.is_empty() { vec![start] } else { declared }
}

pub fn adopted(workload: &Workload, variant: Variant) -> Option<&str> {
    let container = match variant {
        Variant::Live => workload.spec.live.as_ref().map(|live| &live.container),
        Variant::Candidate => workload.spec.candidate.as_ref().map(|candidate| &candidate.container),
    };
    let container = container?;
    if let Some(adopt) = &container.adopt {
        return Some(&adopt.name);
    }
    // One of Compose's that was taken over has neither our name nor our labels.
    let status = workload.status.as_ref().filter(|_| container.compose.is_some())?;
    let seen = if variant == Variant::Live { status.live.as_ref() } else { status.candidate.as_ref() }?;
    let ours = names::container(&workload.namespace().unwrap_or_default(), &workload.name_any(), variant);
    seen.container_name.as_deref().filter(|name| *name != ours)
}

/// Workloads that the steps speak to.
pub fn peers(workload: &Workload) -> BTreeSet<String> {
    let Some(gpu) = &workload.spec.gpu else { return BTreeSet::new() };
    let release = gpu.release_steps.iter().filter_map(|step| step.http.as_ref());
    let acquire = gpu.acquire_steps.iter().filter_map(|step| step.http.as_ref());
    release.chain(acquire).filter_map(|http| http.workload.clone()).collect()
}

pub fn release_name(step: &ReleaseStep, party: &Party) -> String {
    let who = party.workload.name_any();
    match step {
        ReleaseStep { http: Some(http), .. } => http_name(http, &who),
        ReleaseStep { vllm_sleep: Some(sleep), .. } => format!("vllmSleep {who} level {}", sleep.level),
        ReleaseStep { ollama_unload: Some(_), .. } => format!("ollamaUnload {who}"),
        ReleaseStep { llama_cpp_unload: Some(_), .. } => format!("llamaCppUnload {who}"),
        ReleaseStep { comfy_free: Some(_), .. } => format!("comfyFree {who}"),
        ReleaseStep { exec: Some(exec), .. } => format!("exec {who} {}", exec.command.join(" ")),
        ReleaseStep { kill: Some(_), .. } => format!("kill {}", party.holder),
        _ => format!("stop {}", party.holder),
    }
}

pub fn acquire_name(step: &AcquireStep, party: &Party) -> String {
    let who = party.workload.name_any();
    match step {
        AcquireStep { http: Some(http), .. } => http_name(http, &who),
        AcquireStep { vllm_wake: Some(_), .. } => format!("vllmWake {who}"),
        AcquireStep { ollama_load: Some(_), .. } => format!("ollamaLoad {who}"),
        AcquireStep { llama_cpp_load: Some(_), .. } => format!("llamaCppLoad {who}"),
        AcquireStep { exec: Some(exec), .. } => format!("exec {who} {}", exec.command.join(" ")),
        _ => format!("start {}", party.holder),
    }
}

fn http_name(http: &HttpStep, own: &str) -> String {
    match (&http.url, http.port) {
        (Some(url), _) => format!("http {:?} {url}", http.method),
        (None, port) => {
            let host = http.workload.as_deref().unwrap_or(own);
            let path = http.path.as_deref().unwrap_or("/");
            format!("http {:?} {host}:{}{path}", http.method, port.unwrap_or_default())
        }
    }
}
