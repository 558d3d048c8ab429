//! From what the driver shows to what is said about a declared card. Pure.
//!
//! A status is always one reading of one moment. It is replaced when the card says something new; load, temperature and
//! power never rest, so a reading in which nothing else changed, and these by no more than [`NOISE_PERCENT`],
//! [`NOISE_CELSIUS`] and [`NOISE_WATTS`] since the reading that was *written*, is not written. A slow drift is thus told in
//! steps. That a load begins or ends (0 %) is always news. `observedAt` is the moment of the reading that was written, and no
//! older than [`HEARTBEAT`] while the driver answers.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::health::{self, HEALTHY, Look};
use crate::{
    adapters::{
        containers::{Container, ContainerId},
        gpus::{GpuDevice as Card, GpuProcess as Process},
    },
    api::{
        condition::{self, ConditionStatus, READY},
        gpu::{Gpu, GpuDevice, GpuMemory, GpuProcess, GpuReason, GpuStatus},
        label,
    },
    controllers::workload::{names, status::to_second},
    runtime::{
        events::Note,
        reconciler::{Plan, Requeue},
    },
};

/// Between looks at a card.
pub const LOOK: Duration = Duration::from_secs(5);

pub const NOISE_PERCENT: u32 = 4;
pub const NOISE_CELSIUS: u32 = 2;
pub const NOISE_WATTS: u32 = 10;

/// A reading without news is written after so long, so that its age tells whether anybody still reads. Longer than `gaia plan`
/// takes for quiet.
pub const HEARTBEAT: SignedDuration = SignedDuration::from_mins(5);

/// What a note says was done: nothing is ever done here.
pub const NO_ACTION: &str = "None";

/// What a pass sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// This one.
    pub node: String,
    pub cards: Result<Vec<Card>, Unread>,
    /// The containers of the processes on the card that is meant; an error when the engine does not answer.
    pub users: Result<Vec<Container>, String>,
    /// Another object that means the same card and comes first.
    pub twin: Option<String>,
}

/// Why nothing is known of any card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Nobody here can ask a driver. Nothing changes that but another version of this program.
    Unsupported,
    NoAnswer(String),
}

pub type GpuPlan = Plan<GpuStatus, Infallible>;

/// Cards of other hosts are not ours to speak of.
pub fn is_elsewhere(gpu: &Gpu, node: &str) -> bool {
    gpu.spec.node_name.as_ref().is_some_and(|name| name != node)
}

/// The card that a spec speaks of, if it is there.
pub fn meant<'a>(device: &GpuDevice, cards: &'a [Card]) -> Option<&'a Card> {
    match &device.uuid {
        Some(uuid) => cards.iter().find(|card| card.uuid == *uuid),
        None => cards.iter().find(|card| device.index == Some(card.index)),
    }
}

pub fn decide(gpu: &Gpu, observed: &Observed, now: Timestamp) -> GpuPlan {
    if is_elsewhere(gpu, &observed.node) {
        return Plan::leave();
    }
    let before = gpu.status.clone().unwrap_or_default();
    let (reading, mut verdict, requeue) = match &observed.cards {
        Err(why) => (unread(gpu, &before), Verdict::of_unread(why), why.requeue()),
        Ok(cards) => match meant(&gpu.spec.device, cards) {
            None => (at(now, blank(&before)), Verdict::not_found(&gpu.spec.device), Requeue::After(LOOK)),
            Some(card) => (
                at(now, seen(card, &observed.users, &before)),
                Verdict::of_card(card, &observed.users, &before),
                Requeue::After(LOOK),
            ),
        },
    };
    let look = match &observed.cards {
        Err(_) => Look::Unread(verdict.message.clone()),
        Ok(cards) => {
            meant(&gpu.spec.device, cards).map_or_else(|| Look::Missing { known: was_there(gpu, &before) }, Look::There)
        }
    };
    let mut fresh = GpuStatus { observed_generation: gpu.metadata.generation, ..reading };
    if let Some(twin) = &observed.twin {
        verdict = Verdict::twin_of(twin);
    }
    let (ready, reason, message) = (verdict.ready, verdict.reason.into(), verdict.message.clone());
    condition::set(&mut fresh.conditions, READY, ready, reason, message, gpu.metadata.generation, &Time(now));
    let mut events = health::tell(&look, &mut fresh, &before, gpu.metadata.generation, now);
    // That it is lost says that it is not found.
    let lost = events.iter().any(|note| note.reason == <&str>::from(GpuReason::DeviceLost));
    events.extend(verdict.news(&before.conditions).filter(|_| !lost));
    Plan { status: Some(without_noise(&before, fresh)), events, requeue, ..Plan::leave() }
}

/// Nothing is said of the card, but who has been granted it stays.
fn blank(before: &GpuStatus) -> GpuStatus {
    GpuStatus {
        uuid: None,
        index: None,
        product: None,
        memory: None,
        utilization_percent: None,
        temperature_celsius: None,
        power_watts: None,
        processes: Vec::new(),
        ..before.clone()
    }
}

/// A card was seen that the spec still means.
fn was_there(gpu: &Gpu, before: &GpuStatus) -> bool {
    let lost = before.conditions.iter().any(|c| c.type_ == HEALTHY && c.reason == GpuReason::DeviceLost.to_string());
    before.observed_generation == gpu.metadata.generation && (before.uuid.is_some() || lost)
}

/// Nothing is known of its present. Which card it was stays true, as long as the spec means the same one.
fn unread(gpu: &Gpu, before: &GpuStatus) -> GpuStatus {
    let device = &gpu.spec.device;
    let same = device.index.is_none_or(|index| before.index == Some(index))
        && device.uuid.as_ref().is_none_or(|uuid| before.uuid.as_ref() == Some(uuid));
    let known = before.clone();
    match same {
        true => GpuStatus { uuid: known.uuid, index: known.index, product: known.product, ..blank(before) },
        false => GpuStatus { observed_at: None, ..blank(before) },
    }
}

fn seen(card: &Card, users: &Result<Vec<Container>, String>, before: &GpuStatus) -> GpuStatus {
    GpuStatus {
        uuid: Some(card.uuid.clone()),
        index: Some(card.index),
        product: Some(card.name.clone()),
        memory: card.memory_used_mib.map(|used_mib| GpuMemory {
            total_mib: card.memory_total_mib,
            used_mib,
            free_mib: card.memory_total_mib.saturating_sub(used_mib),
        }),
        utilization_percent: card.utilization_percent,
        temperature_celsius: card.temperature_celsius.and_then(|celsius| i32::try_from(celsius).ok()),
        power_watts: card.power_watts.map(|watts| watts.round() as u32),
        processes: processes(card.processes.as_deref().unwrap_or_default(), users, &before.processes),
        ..before.clone()
    }
}

fn at(now: Timestamp, status: GpuStatus) -> GpuStatus {
    GpuStatus { observed_at: Some(to_second(now)), ..status }
}

/// By pid, each once: a driver lists a process that computes and draws twice.
fn processes(processes: &[Process], users: &Result<Vec<Container>, String>, before: &[GpuProcess]) -> Vec<GpuProcess> {
    let mut by_pid: BTreeMap<u32, GpuProcess> = BTreeMap::new();
    for process in processes {
        let told = by_pid.entry(process.pid).or_insert_with(|| whose(process, users, before));
        told.used_mib = told.used_mib.max(process.used_mib);
    }
    by_pid.into_values().collect()
}

/// While the engine does not answer, what was known of a pid stays: a workload's process must not look like a stranger's.
fn whose(process: &Process, users: &Result<Vec<Container>, String>, before: &[GpuProcess]) -> GpuProcess {
    let name = process.name.clone();
    let unknown = GpuProcess { pid: process.pid, used_mib: process.used_mib, name, ..GpuProcess::default() };
    let Some(id) = &process.container else { return unknown };
    let known = before.iter().find(|known| known.pid == process.pid);
    match users {
        Ok(users) => match users.iter().find(|container| container.id == *id) {
            Some(container) => in_container(unknown, container),
            None if process.other_engine => GpuProcess { container: Some(short(id)), ..unknown },
            None => orphan(unknown, id, known),
        },
        Err(_) => match known {
            Some(known) => GpuProcess { used_mib: process.used_mib, ..known.clone() },
            None => unknown,
        },
    }
}

/// Its container was removed, and it is still there. Whose it was is remembered.
fn orphan(process: GpuProcess, id: &ContainerId, known: Option<&GpuProcess>) -> GpuProcess {
    let (workload, variant) = known.map(|known| (known.workload.clone(), known.variant)).unwrap_or_default();
    GpuProcess { container: Some(short(id)), orphan: true, workload, variant, ..process }
}

/// As Docker's own tools print an id.
fn short(id: &ContainerId) -> String {
    id.0.get(..12).unwrap_or(&id.0).to_owned()
}

/// Ours is what has an owner's uid and a variant among its labels.
fn in_container(process: GpuProcess, container: &Container) -> GpuProcess {
    let variant = names::owner(&container.labels).and(names::variant(&container.labels));
    let workload = variant.and(container.labels.get(label::WORKLOAD)).cloned();
    GpuProcess { container: Some(container.name.clone()), workload, variant, ..process }
}

/// What Ready says.
struct Verdict {
    ready: ConditionStatus,
    reason: GpuReason,
    message: String,
}

impl Verdict {
    fn of_unread(why: &Unread) -> Self {
        let message = match why {
            Unread::Unsupported => "this version of gaia cannot ask the GPU driver (no NVML support)".to_owned(),
            Unread::NoAnswer(why) => why.clone(),
        };
        Self { ready: ConditionStatus::Unknown, reason: GpuReason::DriverUnavailable, message }
    }

    fn not_found(device: &GpuDevice) -> Self {
        let which = match (&device.uuid, device.index) {
            (Some(uuid), _) => format!("the UUID {uuid}"),
            (None, Some(index)) => format!("the index {index}"),
            (None, None) => "neither index nor UUID".to_owned(),
        };
        let message = format!("this host has no card with {which}");
        Self { ready: ConditionStatus::False, reason: GpuReason::DeviceNotFound, message }
    }

    fn twin_of(twin: &str) -> Self {
        let message = format!("the Gpu {twin} is the same card, and comes first: nobody is granted this one");
        Self { ready: ConditionStatus::False, reason: GpuReason::SameDevice, message }
    }

    fn of_card(card: &Card, users: &Result<Vec<Container>, String>, before: &GpuStatus) -> Self {
        let (reason, mut message) = match &before.holder {
            Some(holder) => (GpuReason::Held, format!("held by {holder}")),
            None => (GpuReason::Free, "no lease is granted on it".to_owned()),
        };
        if card.processes.is_none() {
            message += "; the driver does not tell its processes";
        }
        if let Err(why) = users {
            message += &format!("; whose processes are on it is not known for sure: {why}");
        }
        Self { ready: ConditionStatus::True, reason, message }
    }

    /// Transitions are told, states are not.
    fn news(&self, before: &[Condition]) -> Option<Note> {
        let (reason, status) = (self.reason.into(), self.ready.as_str());
        let known = before.iter().find(|c| c.type_ == READY);
        if known.is_some_and(|c| c.status == status && (status == "True" || c.reason == reason)) {
            return None;
        }
        match self.ready {
            ConditionStatus::True => Some(Note::normal(reason, NO_ACTION, self.message.clone())),
            ConditionStatus::False | ConditionStatus::Unknown => {
                Some(Note::warning(reason, NO_ACTION, self.message.clone()))
            }
        }
    }
}

impl Unread {
    fn requeue(&self) -> Requeue {
        match self {
            Unread::Unsupported => Requeue::OnChange,
            Unread::NoAnswer(_) => Requeue::Backoff,
        }
    }
}

/// The status before, where the fresh one differs from it by noise alone.
fn without_noise(before: &GpuStatus, fresh: GpuStatus) -> GpuStatus {
    let (load, celsius, watts) = (before.utilization_percent, before.temperature_celsius, before.power_watts);
    let quiet = load.map(|l| l == 0) == fresh.utilization_percent.map(|l| l == 0)
        && near(load, fresh.utilization_percent, NOISE_PERCENT, u32::abs_diff)
        && near(celsius, fresh.temperature_celsius, NOISE_CELSIUS, i32::abs_diff)
        && near(watts, fresh.power_watts, NOISE_WATTS, u32::abs_diff);
    let with_old_noise = GpuStatus {
        utilization_percent: load,
        temperature_celsius: celsius,
        power_watts: watts,
        observed_at: before.observed_at.clone(),
        ..fresh.clone()
    };
    let recent = match (&before.observed_at, &fresh.observed_at) {
        (Some(before), Some(fresh)) => fresh.0.duration_since(before.0) < HEARTBEAT,
        (None, _) | (_, None) => true,
    };
    if quiet && recent && with_old_noise == *before { with_old_noise } else { fresh }
}

/// That one of the two is not known is never noise.
fn near<T>(a: Option<T>, b: Option<T>, within: u32, apart: impl Fn(T, T) -> u32) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => apart(a, b) <= within,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
