//! Whether a card is sound, and whether somebody is left on it whom nobody answers for: the conditions `Healthy` and `Orphaned`.
//! Pure.
//!
//! A fault (Xid) counts for as long as the driver's listener remembers it, which is until gaia is started again: whoever has
//! reset the card or the host has started it again too. `status.lastXid` stays for the record.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::decide::NO_ACTION;
use crate::{
    adapters::gpus::GpuDevice as Card,
    api::{
        condition::{self, ConditionStatus},
        gpu::{GpuProcess, GpuReason, GpuStatus, XidSeen},
    },
    controllers::workload::status::to_second,
    runtime::events::Note,
};

pub const HEALTHY: &str = "Healthy";
/// Present only when true.
pub const ORPHANED: &str = "Orphaned";

/// Faults that a program brings about, and that end with it. NVIDIA's own device plugin for Kubernetes passes over the same.
const OF_PROGRAMS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// What became of looking for the card.
pub enum Look<'a> {
    /// And why.
    Unread(String),
    /// The driver answers and does not have it. `known`: it was there before.
    Missing {
        known: bool,
    },
    There(&'a Card),
}

/// Puts both conditions, and the last fault, into a fresh status; tells what is new.
pub fn tell(
    look: &Look<'_>,
    fresh: &mut GpuStatus,
    before: &GpuStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Look::There(card) = look {
        notes.extend(xid(card, fresh, before, now));
    }
    let known = before.conditions.iter().find(|c| c.type_ == HEALTHY);
    let (healthy, reason, message) = verdict(look, known);
    if let Some(note) = news(known, healthy, reason, &message)
        && !notes.iter().any(|told: &Note| told.reason == note.reason)
    {
        notes.push(note);
    }
    condition::set(&mut fresh.conditions, HEALTHY, healthy, reason.into(), message, generation, &Time(now));
    notes.extend(orphans(look, fresh, before, generation, now));
    notes
}

fn verdict(look: &Look<'_>, known: Option<&Condition>) -> (ConditionStatus, GpuReason, String) {
    match look {
        Look::Unread(why) => (ConditionStatus::Unknown, GpuReason::DriverUnavailable, why.clone()),
        Look::Missing { known: false } => {
            (ConditionStatus::Unknown, GpuReason::DeviceNotFound, "it has not been seen".to_owned())
        }
        Look::Missing { known: true } => {
            let message = "it was there, and the driver does not list it any more: it fell off the bus, is being reset, or was \
                           taken out";
            (ConditionStatus::False, GpuReason::DeviceLost, message.to_owned())
        }
        Look::There(card) => match card.last_xid.filter(|code| !OF_PROGRAMS.contains(code)) {
            Some(code) => (ConditionStatus::False, GpuReason::Xid, told(code)),
            // The driver tells the last one only, and programs stumble over a broken card.
            None if card.last_xid.is_some() && known.is_some_and(is_faulty) => {
                (ConditionStatus::False, GpuReason::Xid, known.map(|c| c.message.clone()).unwrap_or_default())
            }
            None => (ConditionStatus::True, GpuReason::NoFault, "the driver reports no fault of the card".to_owned()),
        },
    }
}

fn is_faulty(known: &Condition) -> bool {
    known.status == "False" && known.reason == GpuReason::Xid.to_string()
}

fn told(code: u64) -> String {
    format!("the driver reported Xid {code}, see https://docs.nvidia.com/deploy/xid-errors/")
}

/// One that is new is remembered and told, whoever brought it about.
fn xid(card: &Card, fresh: &mut GpuStatus, before: &GpuStatus, now: Timestamp) -> Option<Note> {
    let code = card.last_xid?;
    if before.last_xid.as_ref().is_some_and(|seen| seen.code == code) {
        return None;
    }
    fresh.last_xid = Some(XidSeen { code, at: to_second(now) });
    Some(Note::warning(GpuReason::Xid.into(), NO_ACTION, told(code)))
}

/// Transitions are told, states are not; and that nothing is known, `Ready` tells.
fn news(known: Option<&Condition>, is: ConditionStatus, reason: GpuReason, message: &str) -> Option<Note> {
    let was = known.map_or("Unknown", |c| c.status.as_str());
    match is {
        ConditionStatus::False if was != "False" || known.is_some_and(|c| c.reason != reason.to_string()) => {
            Some(Note::warning(reason.into(), NO_ACTION, message))
        }
        ConditionStatus::True if was == "False" => Some(Note::normal(reason.into(), NO_ACTION, message)),
        ConditionStatus::True | ConditionStatus::False | ConditionStatus::Unknown => None,
    }
}

fn orphans(
    look: &Look<'_>,
    fresh: &mut GpuStatus,
    before: &GpuStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Note> {
    let reason = GpuReason::OrphanProcesses.into();
    let left: Vec<&GpuProcess> = fresh.processes.iter().filter(|process| process.orphan).collect();
    let had = |pid: u32| before.processes.iter().any(|process| process.orphan && process.pid == pid);
    if left.is_empty() {
        let over = matches!(look, Look::There(_)) && condition::is_true(&before.conditions, ORPHANED);
        condition::clear(&mut fresh.conditions, ORPHANED);
        return over.then(|| Note::normal(reason, NO_ACTION, "no process without a container is left on the card"));
    }
    let new = left.iter().any(|process| !had(process.pid));
    let names: Vec<String> = left.iter().map(|process| named(process)).collect();
    let message = format!("of containers that the engine does not know: {}", names.join("; "));
    let set = ConditionStatus::True;
    condition::set(&mut fresh.conditions, ORPHANED, set, reason, message.clone(), generation, &Time(now));
    new.then(|| Note::warning(reason, NO_ACTION, message))
}

/// `python (pid 4711) keeps 6000 MiB, container 0a1b2c3d4e5f of default/chat`
fn named(process: &GpuProcess) -> String {
    let name = process.name.as_deref().unwrap_or("process");
    let kept = process.used_mib.map_or_else(|| "memory".to_owned(), |mib| format!("{mib} MiB"));
    let container = process.container.as_deref().unwrap_or("unknown");
    let whose = process.workload.as_ref().map(|workload| format!(" of {workload}")).unwrap_or_default();
    format!("{name} (pid {}) keeps {kept}, container {container}{whose}", process.pid)
}
