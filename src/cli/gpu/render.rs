//! Cards and claims as text. Pure.

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    super::{CliError, print, table},
    label,
};
use crate::api::{
    gpu::{Gpu, GpuMemory, GpuProcess, GpuStatus, Lease, QueueEntry},
    gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimStatus},
};

const UNKNOWN: &str = "?";

/// A line for each card.
pub fn status(cards: &[Gpu], now: Timestamp) -> String {
    if cards.is_empty() {
        return "no cards\n".to_owned();
    }
    let header = ["GPU", "HOLDER", "LEASE", "USED MIB", "TOTAL MIB", "UTIL", "TEMP", "POWER", "STATE", "SEEN"];
    let rows = cards.iter().map(|card| {
        let status = card.status.clone().unwrap_or_default();
        let number = |n: Option<u64>, unit: &str| n.map_or_else(|| UNKNOWN.to_owned(), |n| format!("{n}{unit}"));
        let temperature = status.temperature_celsius.map_or_else(|| UNKNOWN.to_owned(), |t| format!("{t} °C"));
        vec![
            card.name_any(),
            status.holder.as_ref().map_or_else(|| "<none>".to_owned(), ToString::to_string),
            status.lease_id.as_deref().map(short).unwrap_or_default().to_owned(),
            number(status.memory.map(|m| m.used_mib), ""),
            number(status.memory.map(|m| m.total_mib), ""),
            number(status.utilization_percent.map(u64::from), " %"),
            temperature,
            number(status.power_watts.map(u64::from), " W"),
            state(&status),
            status
                .observed_at
                .as_ref()
                .map_or_else(|| "never".to_owned(), |at| format!("{} ago", print::age(at.0, now))),
        ]
    });
    table::align(std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect())
}

fn state(status: &GpuStatus) -> String {
    let mut text = ready(status);
    let told = status
        .conditions
        .iter()
        .filter(|c| (c.type_ == "Healthy" && c.status == "False") || (c.type_ == "Orphaned" && c.status == "True"));
    for condition in told {
        text.push_str(&format!(", {}", condition.reason));
    }
    text
}

fn ready(status: &GpuStatus) -> String {
    match (&status.handoff, status.conditions.iter().find(|c| c.type_ == "Ready")) {
        (Some(handoff), _) => format!("handoff {handoff}"),
        (None, Some(ready)) => ready.reason.clone(),
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// Everybody on the cards, and everybody who waits for them.
pub fn who(cards: &[Gpu], now: Timestamp) -> String {
    if cards.is_empty() {
        return "no cards\n".to_owned();
    }
    cards.iter().map(|card| who_is_on(card, now)).collect::<Vec<_>>().join("\n")
}

fn who_is_on(card: &Gpu, now: Timestamp) -> String {
    let status = card.status.clone().unwrap_or_default();
    let mut text = format!("{}  {}\n", card.name_any(), memory(status.product.as_deref(), status.memory));
    if let Some(handoff) = &status.handoff {
        text.push_str(&format!("  under way: handoff {handoff}\n"));
    }
    match status.leases.as_slice() {
        [] => text.push_str("  nobody holds it\n"),
        leases => block(&mut text, ["HOLDER", "LEASE", "SINCE", "CLAIM", "REASON"], leases, |l| lease(l, now)),
    }
    match status.processes.as_slice() {
        [] => text.push_str("  no process is on it\n"),
        processes => block(&mut text, ["PID", "MIB", "PROGRAM", "CONTAINER", "WORKLOAD"], processes, process),
    }
    match status.queue.as_slice() {
        [] => text.push_str("  nobody waits\n"),
        queue => {
            let numbered: Vec<_> = queue.iter().enumerate().collect();
            block(&mut text, ["POSITION", "HOLDER", "CLAIM", "PRIORITY", "WAITS"], &numbered, |(i, e)| {
                waiter(*i, e, now)
            });
        }
    }
    text
}

fn memory(product: Option<&str>, memory: Option<GpuMemory>) -> String {
    let product = product.unwrap_or("unknown product");
    match memory {
        Some(m) => format!("{product}, {} of {} MiB used", m.used_mib, m.total_mib),
        None => format!("{product}, memory unknown"),
    }
}

fn lease(lease: &Lease, now: Timestamp) -> [String; 5] {
    let shared = lease.shared_mib.map(|mib| format!(" (shares, {mib} MiB)")).unwrap_or_default();
    [
        format!("{}{shared}", lease.holder),
        short(&lease.lease_id).to_owned(),
        lease
            .acquired_at
            .as_ref()
            .map(|at| format!("{} ({})", at.0.strftime("%Y-%m-%dT%H:%M:%SZ"), print::age(at.0, now)))
            .unwrap_or_default(),
        lease.claim.clone().unwrap_or_else(|| "<none>".to_owned()),
        lease.reason.replace('\n', " "),
    ]
}

fn process(process: &GpuProcess) -> [String; 5] {
    let orphan = if process.orphan { ", orphan" } else { "" };
    let whose = match (&process.workload, process.variant) {
        (Some(workload), Some(variant)) => format!("{workload} ({}{orphan})", variant.as_str()),
        (Some(workload), None) => format!("{workload}{orphan}"),
        (None, _) if process.orphan => "<orphan>".to_owned(),
        (None, _) => "<stranger>".to_owned(),
    };
    [
        process.pid.to_string(),
        process.used_mib.map_or_else(|| UNKNOWN.to_owned(), |mib| mib.to_string()),
        process.name.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        process.container.clone().unwrap_or_else(|| "<host>".to_owned()),
        whose,
    ]
}

fn waiter(index: usize, entry: &QueueEntry, now: Timestamp) -> [String; 5] {
    [
        (index + 1).to_string(),
        entry.holder.to_string(),
        entry.claim.clone(),
        entry.priority.to_string(),
        entry.since.as_ref().map(|at| print::age(at.0, now)).unwrap_or_default(),
    ]
}

/// An indented table.
fn block<T>(text: &mut String, header: [&str; 5], items: &[T], cells: impl Fn(&T) -> [String; 5]) {
    let rows = items.iter().map(|item| cells(item).to_vec());
    let lines = std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect();
    for line in table::align(lines).lines() {
        text.push_str(&format!("  {line}\n"));
    }
}

/// The first part of a UUID tells leases apart on a screen.
fn short(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

/// How a claim stands, in a line.
pub fn progress(status: &GpuClaimStatus) -> String {
    let mut text = format!("{:?}", status.phase);
    if status.phase != GpuClaimPhase::Pending {
        return text;
    }
    if let Some(position) = status.position {
        text.push_str(&format!(", position {position}"));
    }
    if let Some(what) = status.waiting_for.as_deref().filter(|what| !what.is_empty()) {
        text.push_str(&format!(", waits for {what}"));
    }
    if let Some(at) = &status.expected_at {
        text.push_str(&format!(", {} at the latest", at.0));
    }
    text
}

/// What a claim came to: a line, or a failure.
pub fn conclusion(claim: &GpuClaim) -> Result<String, CliError> {
    let status = claim.status.clone().unwrap_or_default();
    let name = claim.name_any();
    let label = label(&name);
    match status.phase {
        GpuClaimPhase::Granted => {
            let cards = match status.gpus.as_slice() {
                [] => status.gpu.clone().unwrap_or_default(),
                several => several.join(", "),
            };
            let mut text = format!("{label} granted: {} holds {cards}", claim.spec.holder);
            if let (Some(lease), Some(token)) = (&status.lease_id, status.fencing_token) {
                text.push_str(&format!(" (lease {lease}, fencing token {token})"));
            }
            Ok(format!("{text}\nGive it back: gaia gpu release {name}{}\n", within(claim)))
        }
        GpuClaimPhase::Pending => Ok(format!("{label} is {}\n", progress(&status))),
        GpuClaimPhase::Released | GpuClaimPhase::Expired | GpuClaimPhase::TimedOut => {
            let why = status.conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.message.as_str());
            let why = why.filter(|why| !why.is_empty()).map(|why| format!(": {why}")).unwrap_or_default();
            Err(CliError::Failed(format!("{label} is {:?}{why}", status.phase)))
        }
    }
}

fn within(claim: &GpuClaim) -> String {
    match claim.metadata.namespace.as_deref() {
        None | Some("default") => String::new(),
        Some(other) => format!(" -n {other}"),
    }
}

#[cfg(test)]
mod tests;
