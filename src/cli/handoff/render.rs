//! What is told of a handoff: while it runs, when it ended, and long after. Pure.

use jiff::Timestamp;

use super::{
    super::{CliError, objects, print, table},
    steps,
};
use crate::api::{
    gpu::{Gpu, Holder},
    handoff::{Handoff, HandoffPhase, HandoffProof, HandoffStatus, Rollback, StepOutcome},
};

const NOBODY: &str = "nobody";

pub fn name(handoff: &Handoff) -> &str {
    handoff.metadata.name.as_deref().unwrap_or_default()
}

pub fn status(handoff: &Handoff) -> HandoffStatus {
    handoff.status.clone().unwrap_or_default()
}

fn who(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| NOBODY.to_owned(), Holder::to_string)
}

/// What happened between two looks, a line each.
pub fn news(before: &HandoffStatus, now: &HandoffStatus, first: bool) -> Vec<String> {
    let there = steps::news(&before.steps, &now.steps);
    let steps_of = |rollback: &Option<Rollback>| rollback.as_ref().map(|r| r.steps.clone()).unwrap_or_default();
    let back = steps::news(&steps_of(&before.rollback), &steps_of(&now.rollback));
    let mut lines = there.ended;
    if before.rollback.is_none() && now.rollback.is_some() {
        lines.push("rolling back".to_owned());
    }
    lines.extend(back.ended);
    if first || before.phase != now.phase {
        lines.push(phase(now));
    }
    lines.extend(there.begun);
    lines.extend(back.begun);
    lines
}

/// `WaitingCudaCleanup (30 %)`; an end that is not the goal keeps what had been reached.
fn phase(status: &HandoffStatus) -> String {
    format!("{:?} ({} %)", status.phase, status.progress_pct)
}

/// The line beneath the bar: who does what, and how full the card is.
pub fn now(status: &HandoffStatus, card: Option<&Gpu>) -> String {
    let mut parts = vec![format!("{:?}", status.phase)];
    let rollback = status.rollback.as_ref().map(|rollback| rollback.steps.as_slice()).unwrap_or_default();
    parts.extend(steps::running(rollback).or_else(|| steps::running(&status.steps)).map(str::to_owned));
    let seen = card.and_then(|card| card.status.as_ref()?.memory);
    let curve = || status.memory_curve.last().map(|sample| format!("{} MiB used", sample.used_mib));
    parts.extend(seen.map(|m| format!("{} of {} MiB used", m.used_mib, m.total_mib)).or_else(curve));
    parts.join(" · ")
}

/// What a handoff that has ended came to: a line, or a failure.
pub fn conclusion(handoff: &Handoff) -> Result<String, CliError> {
    let status = status(handoff);
    let label = objects::label::<Handoff>(name(handoff));
    let took = match (&status.started_at, &status.completed_at) {
        (Some(from), Some(to)) => format!(" after {}", steps::seconds(from.0, to.0)),
        (None, _) | (_, None) => String::new(),
    };
    let (gpu, to) = (&handoff.spec.gpu, who(handoff.spec.to.as_ref()));
    match status.phase {
        HandoffPhase::Completed => {
            let unproven = match status.proof {
                Some(HandoffProof::EngineOnly) => " (unproven: nothing was measured)",
                Some(HandoffProof::Measured) | None => "",
            };
            Ok(format!("{label} completed{took}: {to} holds {gpu}{unproven}\n"))
        }
        HandoffPhase::Cancelled => {
            Err(CliError::Failed(format!("{label} was cancelled{took}{}", undone(status.rollback.as_ref()))))
        }
        HandoffPhase::Failed => {
            let why = error(&status).unwrap_or("it does not say why");
            Err(CliError::Failed(format!("{label} failed{took}: {why}{}", undone(status.rollback.as_ref()))))
        }
        HandoffPhase::Initiated
        | HandoffPhase::ReleasingGpu
        | HandoffPhase::WaitingCudaCleanup
        | HandoffPhase::TransferringOwnership
        | HandoffPhase::SignalingRecipient => Ok(format!("{label} is under way: {}\n", phase(&status))),
    }
}

fn error(status: &HandoffStatus) -> Option<&str> {
    let told = status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.message.as_str());
    status.error.as_deref().or(told).filter(|text| !text.is_empty())
}

/// What the rollback came to, as the end of a sentence.
fn undone(rollback: Option<&Rollback>) -> String {
    let Some(rollback) = rollback else { return "; nothing had to be undone".to_owned() };
    let outcome = match rollback.outcome {
        StepOutcome::Running => "the rollback still runs",
        StepOutcome::Succeeded => "rolled back",
        StepOutcome::Failed => "the rollback failed too",
        StepOutcome::Skipped => "no rollback was needed",
    };
    match rollback.message.as_deref().filter(|message| !message.is_empty()) {
        Some(message) => format!("; {outcome}: {message}"),
        None => format!("; {outcome}"),
    }
}

/// One line for each, those under way first, then the youngest.
pub fn list(handoffs: &[Handoff], now: Timestamp) -> String {
    if handoffs.is_empty() {
        return "no handoffs\n".to_owned();
    }
    let mut sorted: Vec<_> = handoffs.iter().collect();
    sorted.sort_by_key(|handoff| {
        (status(handoff).phase.is_terminal(), std::cmp::Reverse(created(handoff)), name(handoff).to_owned())
    });
    let header = ["NAME", "GPU", "FROM", "TO", "PHASE", "%", "AGE", "ERROR"].map(str::to_owned).to_vec();
    let rows = sorted.iter().map(|handoff| {
        let status = status(handoff);
        vec![
            name(handoff).to_owned(),
            handoff.spec.gpu.clone(),
            who(handoff.spec.from.as_ref()),
            who(handoff.spec.to.as_ref()),
            format!("{:?}", status.phase),
            status.progress_pct.to_string(),
            created(handoff).map(|at| print::age(at, now)).unwrap_or_default(),
            status.error.unwrap_or_default().replace('\n', " "),
        ]
    });
    table::align(std::iter::once(header).chain(rows).collect())
}

fn created(handoff: &Handoff) -> Option<Timestamp> {
    handoff.metadata.creation_timestamp.as_ref().map(|at| at.0)
}

/// The flight record.
pub fn record(handoff: &Handoff) -> String {
    let status = status(handoff);
    let start = status.started_at.as_ref().map(|at| at.0);
    let mut head = Vec::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            head.push(vec![format!("{name}:"), value]);
        }
    };
    let within = handoff.metadata.namespace.as_deref().unwrap_or("default");
    line("Handoff", format!("{within}/{} ({:?})", name(handoff), handoff.spec.type_));
    line("Card", handoff.spec.gpu.clone());
    line("From", who(handoff.spec.from.as_ref()));
    line("To", who(handoff.spec.to.as_ref()));
    line("Reason", handoff.spec.reason.clone());
    line("Phase", phase(&status));
    line("Started", start.map(|at| at.to_string()).unwrap_or_default());
    line(
        "Took",
        match (start, &status.completed_at) {
            (Some(from), Some(to)) => steps::seconds(from, to.0),
            (None, _) | (_, None) => String::new(),
        },
    );
    line(
        "Lease",
        match (&status.lease_id, status.fencing_token) {
            (Some(lease), Some(token)) => format!("{lease}, fencing token {token}"),
            (Some(lease), None) => lease.clone(),
            (None, _) => String::new(),
        },
    );
    line("Processes", format!("{} before, {} after", pids(&status.pids_before), pids(&status.pids_after)));
    line("Proof", status.proof.map(proof).unwrap_or_default().to_owned());
    line("Memory", steps::curve(&status.memory_curve).unwrap_or_default());
    line("Error", status.error.clone().unwrap_or_default());
    let mut text = table::align(head);
    section(&mut text, "Steps", &steps::table(&status.steps, start), status.steps.is_empty());
    if let Some(rollback) = &status.rollback {
        let message = rollback.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        text.push_str(&format!("Rollback: {:?}{message}\n", rollback.outcome));
        let steps = steps::table(&rollback.steps, start);
        section(&mut text, "Rollback steps", &steps, rollback.steps.is_empty());
    }
    text
}

fn proof(proof: HandoffProof) -> &'static str {
    match proof {
        HandoffProof::Measured => "measured by the driver",
        HandoffProof::EngineOnly => "UNPROVEN: the container engine's word that the old holder does not run",
    }
}

fn pids(pids: &[u32]) -> String {
    match pids {
        [] => "none".to_owned(),
        pids => pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn section(text: &mut String, name: &str, table: &str, empty: bool) {
    if empty {
        text.push_str(&format!("{name}: <none>\n"));
        return;
    }
    text.push_str(&format!("{name}:\n"));
    for line in table.lines() {
        text.push_str(&format!("  {line}\n"));
    }
}

#[cfg(test)]
mod tests;
