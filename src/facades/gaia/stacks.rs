//! What shall run of the stack: whole sides of it, one service, one restart. Each call writes specs and waits until that is
//! seen. Only Workloads are touched, so no call can stop this process.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Gaia, Turn,
    body::Fields,
    claims::{Wish, is_active, name_of as claim_name},
    containers::{container_of, is_to_run, status_of},
    gpu::Acquired,
    in_namespace,
    names::{Owner, key_of},
    reply::{Answer, Refusal, ok, stamp},
    routes::Asked,
};
use crate::{
    api::{
        condition::READY,
        gpu::{Holder, HolderKind},
        gpuclaim::{GpuClaim, Preemption},
        workload::{Variant, VariantState, Workload},
    },
    runtime::objects::Objects,
};

/// How long a call waits to see what it asked for. Stops have their own grace of up to a minute.
const SEEN_WITHIN: Duration = Duration::from_secs(90);
/// Reasons for which a Workload may rest: it starts by itself when its turn comes.
const RESTING: [&str; 2] = ["WaitingForGpu", "Suspended"];
/// It rests if what it waits for does.
const DEPENDENT: &str = "WaitingForDependency";
/// Who may be restarted by name.
const RESTARTABLE: [&str; 7] =
    ["gaia-prime", "gaia-nano", "gaia-core", "gaia-web", "gaia-study", "gaia-mcp", "gaia-audio"];
/// A changed label makes the container anew: the way of `kubectl rollout restart`.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

#[derive(Serialize)]
struct Done {
    success: bool,
    message: String,
    details: Value,
}

fn details(stderr: &str) -> Value {
    json!({"returncode": 0, "stdout": "", "stderr": stderr})
}

fn title(variant: Variant) -> &'static str {
    match variant {
        Variant::Live => "Live",
        Variant::Candidate => "Candidate",
    }
}

pub async fn stop(gaia: &Gaia, variant: Variant) -> Answer {
    let stack = gaia.stack().await?;
    let stack: Vec<_> = stack.into_iter().filter(|workload| container_of(workload, variant).is_some()).collect();
    let mut changes = gaia.changes();
    for workload in &stack {
        gaia.run_variant(workload, variant, false).await?;
    }
    gaia.end_claims_of(&stack, variant).await?;
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let left = gaia.not_yet(&stack, |workload| stopped(workload, variant)).await?;
        if left.is_empty() {
            let message = format!("{} stack stopped", title(variant));
            return ok(&Done { success: true, message, details: details("") });
        }
        if gaia.turn(&mut changes, deadline).await != Turn::Changed {
            return Err(compose_failed(&left));
        }
    }
}

pub async fn start(gaia: &Gaia, variant: Variant, asked: &Asked) -> Answer {
    let mut fields = Fields::optional(&asked.body)?;
    let gpu_enabled = fields.flag("gpu_enabled").unwrap_or(false);
    fields.list("services");
    fields.done()?;
    let stack = gaia.stack().await?;
    let stack: Vec<_> = stack.into_iter().filter(|workload| container_of(workload, variant).is_some()).collect();
    let mut changes = gaia.changes();
    let mut done = details("");
    if gpu_enabled && let Some(card) = gaia.claim_for_stack(variant).await? {
        done["gpu"] = json!(card);
    }
    for workload in &stack {
        gaia.run_variant(workload, variant, true).await?;
    }
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let left = gaia.not_yet(&stack, |workload| runs(workload, variant)).await?;
        let all = gaia.stack().await?;
        let stuck: Vec<_> = left.iter().filter(|workload| !rests(workload, &all, all.len())).cloned().collect();
        if stuck.is_empty() {
            done["stderr"] = Value::String(told(&left));
            let message = format!("{} stack started", title(variant));
            return ok(&Done { success: true, message, details: done });
        }
        if gaia.turn(&mut changes, deadline).await != Turn::Changed {
            return Err(compose_failed(&stuck));
        }
    }
}

/// Which variant of a service answers under its name.
pub async fn swap(gaia: &Gaia, asked: &Asked) -> Answer {
    let mut fields = Fields::required(&asked.body)?;
    let service = fields.required_text("service");
    let target = fields.text("target").unwrap_or_else(|| "candidate".to_owned());
    fields.done()?;
    let variant = match target.as_str() {
        "live" => Variant::Live,
        "candidate" => Variant::Candidate,
        _ => return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("Unknown target: {target}"))),
    };
    let stack = gaia.stack().await?;
    let found = stack.iter().find(|workload| key_of(&name_of(workload)) == service);
    let Some(workload) = found else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("Unknown service: {service}")));
    };
    if container_of(workload, variant).is_none() {
        let text = format!("{service} has no {target} variant");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    let name = name_of(workload);
    let mut changes = gaia.changes();
    let key = variant.as_str();
    let patch = json!({"spec": {"active": title(variant), key: {"running": true}}});
    gaia.patch::<Workload>(&in_namespace(&name), patch).await?;
    let deadline = Instant::now() + SEEN_WITHIN;
    let one = [workload.clone()];
    loop {
        let answering =
            |workload: &Workload| workload.status.as_ref().and_then(|status| status.active) == Some(variant);
        let left = gaia.not_yet(&one, answering).await?;
        if left.is_empty() {
            break;
        }
        if gaia.turn(&mut changes, deadline).await != Turn::Changed {
            return Err(compose_failed(&left));
        }
    }
    let details = match (service.as_str(), variant) {
        ("web", Variant::Candidate) => {
            json!({"message": "Web doesn't need injection - access candidate at http://localhost:6417"})
        }
        ("web", Variant::Live) => json!({"message": "No swap needed for web"}),
        _ => details(""),
    };
    ok(&Done { success: true, message: format!("Swapped {service} to {target}"), details })
}

pub async fn restart(gaia: &Gaia, asked: &Asked) -> Answer {
    let name = &asked.name;
    if !RESTARTABLE.contains(&name.as_str()) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, format!("Container '{name}' is not in the restart whitelist")));
    }
    let missing = || Refusal::failed(format!("Failed to restart {name}: no such container"));
    let workload = gaia.workload(name).await?.ok_or_else(missing)?;
    let Some(spec) = container_of(&workload, Variant::Live) else { return Err(missing()) };
    if spec.adopt.is_some() {
        let why = "it was made by somebody else, and gaia makes no other in its place";
        return Err(Refusal::failed(format!("Failed to restart {name}: {why}")));
    }
    let before = status_of(&workload, Variant::Live).and_then(|status| status.container_id.clone());
    let mut changes = gaia.changes();
    let labels = json!({RESTARTED_AT: stamp(gaia.clock.now())});
    let patch = json!({"spec": {"live": {"running": true, "container": {"labels": labels}}}});
    gaia.patch::<Workload>(&in_namespace(name), patch).await?;
    let deadline = Instant::now() + SEEN_WITHIN;
    let one = [workload];
    loop {
        let anew = |workload: &Workload| {
            let now = status_of(workload, Variant::Live).and_then(|status| status.container_id.clone());
            runs(workload, Variant::Live) && now.is_some() && now != before
        };
        let left = gaia.not_yet(&one, anew).await?;
        if left.is_empty() {
            return ok(&json!({"ok": true, "container": name}));
        }
        if gaia.turn(&mut changes, deadline).await != Turn::Changed {
            return Err(Refusal::failed(format!("Failed to restart {}", told(&left))));
        }
    }
}

impl Gaia {
    async fn run_variant(&self, workload: &Workload, variant: Variant, running: bool) -> Result<(), Refusal> {
        let patch = json!({"spec": {variant.as_str(): {"running": running}}});
        Ok(self.patch::<Workload>(&in_namespace(&name_of(workload)), patch).await?)
    }

    /// Those of which `done` does not hold yet, as they are now. One that was deleted in the meantime is done.
    async fn not_yet(
        &self,
        stack: &[Arc<Workload>],
        done: impl Fn(&Workload) -> bool,
    ) -> Result<Vec<Arc<Workload>>, Refusal> {
        let mut left = Vec::new();
        for workload in stack {
            left.extend(self.workload(&name_of(workload)).await?.filter(|workload| !done(workload)));
        }
        Ok(left)
    }

    /// What the stopped side held or waited for. Somebody else's lease stays with them.
    async fn end_claims_of(&self, stack: &[Arc<Workload>], variant: Variant) -> Result<(), Refusal> {
        let of_side = |holder: &Holder| {
            let is = |workload: &Arc<Workload>| workload.metadata.name.as_ref() == Some(&holder.name);
            holder.kind == HolderKind::Workload && holder.variant == variant && stack.iter().any(is)
        };
        for claim in self.objects.list::<GpuClaim>(None).await? {
            if is_active(&claim) && of_side(&claim.spec.holder) {
                self.end_claim(&claim_name(&claim)).await?;
            }
        }
        Ok(())
    }

    /// The started side asks for the card as anybody would: a holder is not overwritten.
    async fn claim_for_stack(&self, variant: Variant) -> Result<Option<Acquired>, Refusal> {
        let (owner, reason) = match variant {
            Variant::Live => (Owner::Core, "live_stack_start"),
            Variant::Candidate => (Owner::CoreCandidate, "candidate_stack_start"),
        };
        let Some(gpu) = self.card().await? else { return Ok(None) };
        let wish = Wish {
            gpu: gpu.metadata.name.clone().unwrap_or_default(),
            holder: self.holder(owner).await?,
            reason: reason.to_owned(),
            priority: 0,
            timeout_seconds: None,
            preemption: Preemption::Never,
            ttl_seconds: None,
        };
        self.acquire(&wish, owner).await.map(Some)
    }
}

fn name_of(workload: &Workload) -> String {
    workload.metadata.name.clone().unwrap_or_default()
}

/// Seen running. What is not known counts as not running for a start, and [`stopped`] does not count it as stopped.
fn runs(workload: &Workload, variant: Variant) -> bool {
    status_of(workload, variant).is_some_and(|status| status.state == VariantState::Running)
}

/// Seen to be stopped, by a pass that knew of the wish.
fn stopped(workload: &Workload, variant: Variant) -> bool {
    let seen = workload.status.as_ref().and_then(|status| status.observed_generation);
    let state = status_of(workload, variant).map(|status| status.state);
    let stopped = match state {
        Some(VariantState::Running | VariantState::Paused | VariantState::Unknown) => false,
        Some(VariantState::Absent | VariantState::Created | VariantState::Exited) | None => true,
    };
    stopped && seen >= workload.metadata.generation
}

/// It does not run, and that is as it should be for now. `depth`: dependencies are followed no further, should they go round.
fn rests(workload: &Workload, stack: &[Arc<Workload>], depth: usize) -> bool {
    let conditions = workload.status.iter().flat_map(|status| &status.conditions);
    let Some(ready) = conditions.into_iter().find(|condition| condition.type_ == READY) else { return false };
    if RESTING.contains(&ready.reason.as_str()) {
        return true;
    }
    let comes = |name: &String| {
        let other = stack.iter().find(|other| other.metadata.name.as_ref() == Some(name));
        other.is_some_and(|other| is_to_run(other, other.spec.active) && !rests(other, stack, depth - 1))
    };
    ready.reason == DEPENDENT && depth > 0 && !workload.spec.depends_on.iter().all(|on| comes(&on.workload))
}

/// `gaia-study: WaitingForGpu: …`, one a line.
fn told(workloads: &[Arc<Workload>]) -> String {
    let line = |workload: &Arc<Workload>| {
        let mut conditions = workload.status.iter().flat_map(|status| &status.conditions);
        let why = conditions.find(|condition| condition.type_ == READY);
        let why =
            why.map_or_else(|| "nothing is known of it yet".to_owned(), |c| format!("{}: {}", c.reason, c.message));
        format!("{}: {why}", name_of(workload))
    };
    workloads.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn compose_failed(left: &[Arc<Workload>]) -> Refusal {
    Refusal::failed(format!("Compose command failed: {}", told(left)))
}
