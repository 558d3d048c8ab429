//! What a worker's record says of it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    adapters::bus::WorkerRecord,
    api::{
        condition::{self, ConditionStatus, READY},
        worker::{Worker, WorkerGpu, WorkerHardware, WorkerReason, WorkerState, WorkerStatus},
    },
};

/// Whether a worker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Alive,
    /// Its heartbeat has expired.
    Dead,
    /// It is not among the workers any more.
    Gone,
}

impl Life {
    pub fn reason(self) -> WorkerReason {
        match self {
            Life::Alive => WorkerReason::HeartbeatSeen,
            Life::Dead => WorkerReason::HeartbeatLost,
            Life::Gone => WorkerReason::Unregistered,
        }
    }
}

/// What is seen of it on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    pub registered: bool,
    /// Since when its heartbeat has been the one that is there. None: there is none.
    pub heartbeat_since: Option<Timestamp>,
    /// What is missing is really missing, and not only since the bus itself was.
    pub trusted: bool,
}

pub fn life(worker: &Worker, sight: Sight, ttl: Duration, now: Timestamp) -> Life {
    if !sight.registered {
        return Life::Gone;
    }
    let fresh = |since: Timestamp| Duration::try_from(now.duration_since(since)).is_ok_and(|age| age <= ttl);
    match sight.heartbeat_since {
        Some(since) if fresh(since) => Life::Alive,
        Some(_) => Life::Dead,
        None if !sight.trusted && life_of(worker) == Some(Life::Alive) => Life::Alive,
        None => Life::Dead,
    }
}

/// As its status has it.
pub fn life_of(worker: &Worker) -> Option<Life> {
    let conditions = worker.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let reason = conditions.iter().find(|condition| condition.type_ == READY).map(|condition| &condition.reason)?;
    [Life::Alive, Life::Dead, Life::Gone].into_iter().find(|life| <&str>::from(life.reason()) == reason)
}

/// Known to the bus, as far as we know.
pub fn is_registered(worker: &Worker) -> bool {
    matches!(life_of(worker), Some(Life::Alive | Life::Dead))
}

pub fn status(worker: &Worker, record: Option<&WorkerRecord>, life: Life, now: Timestamp) -> WorkerStatus {
    let mut status = worker.status.clone().unwrap_or_default();
    status.observed_generation = worker.metadata.generation;
    if let Some(record) = record {
        read(&mut status, record);
    }
    status.stale = life != Life::Alive || record.is_some_and(|record| record.heartbeat.is_none());
    if life != Life::Alive {
        status.current_task = None;
    }
    let (ready, message) = match life {
        Life::Alive => (ConditionStatus::True, "its heartbeat is fresh"),
        Life::Dead => (ConditionStatus::False, "its heartbeat has expired"),
        Life::Gone => (ConditionStatus::False, "it is not registered"),
    };
    let reason: &'static str = life.reason().into();
    let at = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    condition::set(&mut status.conditions, READY, ready, reason, message, worker.metadata.generation, &at);
    status
}

fn read(status: &mut WorkerStatus, record: &WorkerRecord) {
    status.state = state(record.status.as_deref());
    let begun = record.began.clone().filter(|_| status.state == WorkerState::Running);
    status.current_task = begun;
    status.last_task = record.ended.clone().or_else(|| status.last_task.take());
    status.started_at =
        record.started_at.as_ref().and_then(|at| at.parse().ok()).map(whole).or(status.started_at.take());
    status.pid = record.pid.or(status.pid);
    let heartbeat = record.heartbeat.as_ref().or(record.last_seen.as_ref());
    status.last_heartbeat_at = heartbeat.and_then(|at| at.parse().ok()).map(whole).or(status.last_heartbeat_at.take());
    status.cost_per_hour = record.cost_per_hour.or(status.cost_per_hour);
    // After a loss of data its hash holds nothing but the time.
    if record.started_at.is_some() || status.announced.is_empty() {
        status.tags = record.tags.clone();
        status.hardware = Some(hardware(&record.hardware));
        status.announced = Map::from_iter([
            ("env".to_owned(), Value::Object(record.env.clone())),
            ("hardware".to_owned(), Value::Object(record.hardware.clone())),
            ("started_at".to_owned(), json!(record.started_at)),
        ]);
    }
    // A worker that has just started has no heartbeat yet.
    status.announced.insert("last_seen".to_owned(), json!(record.last_seen.as_ref().or(record.heartbeat.as_ref())));
    status.announced.retain(|_, value| !value.is_null());
}

fn whole(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn state(text: Option<&str>) -> WorkerState {
    match text {
        Some("STARTING") => WorkerState::Starting,
        Some("IDLE") => WorkerState::Idle,
        Some("RUNNING") => WorkerState::Running,
        Some("DRAINING") => WorkerState::Draining,
        Some(_) | None => WorkerState::Unknown,
    }
}

/// What is announced, as far as it is of use here. What is not said stays unsaid.
fn hardware(announced: &Map<String, Value>) -> WorkerHardware {
    let at = |path: &str| Value::Object(announced.clone()).pointer(path).cloned();
    let text = |path: &str| at(path).and_then(|value| value.as_str().map(str::to_owned));
    let number = |path: &str| at(path).and_then(|value| value.as_u64());
    let card = |(n, card): (usize, &Value)| WorkerGpu {
        index: card["index"].as_u64().and_then(|index| u32::try_from(index).ok()).unwrap_or(n as u32),
        name: card["name"].as_str().unwrap_or_default().to_owned(),
        uuid: card["uuid"].as_str().map(str::to_owned),
        memory_bytes: card["memory_total_bytes"].as_u64(),
    };
    let gpus = at("/gpu/gpus").and_then(|gpus| Some(gpus.as_array()?.iter().enumerate().map(card).collect()));
    WorkerHardware {
        cpu_cores: number("/cpu/logical_cores").and_then(|cores| u32::try_from(cores).ok()),
        cpu_model: text("/cpu/model"),
        memory_bytes: number("/memory/total_bytes"),
        driver_version: text("/gpu/driver_version"),
        cuda_version: text("/gpu/cuda_version"),
        gpus: gpus.unwrap_or_default(),
        ip: text("/network/ip"),
    }
}

/// What the bus had of a worker, from what we know and what is left there.
pub fn remembered(worker: &Worker, left: Option<&WorkerRecord>) -> WorkerRecord {
    let status = worker.status.clone().unwrap_or_default();
    let map = |key: &str| status.announced.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let text = |key: &str| status.announced.get(key).and_then(Value::as_str).map(str::to_owned);
    WorkerRecord {
        id: worker.id(),
        status: left.and_then(|left| left.status.clone()).or_else(|| Some(<&str>::from(status.state).to_owned())),
        started_at: text("started_at"),
        pid: status.pid,
        env: map("env"),
        hardware: map("hardware"),
        tags: status.tags.clone(),
        last_seen: left.and_then(|left| left.last_seen.clone()).or_else(|| text("last_seen")),
        cost_per_hour: status.cost_per_hour,
        ..WorkerRecord::default()
    }
}

/// An object's name for an id: itself, where it can be one.
pub fn object_name(id: &str) -> String {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let plain = id.chars().all(|c| good(c) || c == '-') && id.starts_with(good) && id.ends_with(good);
    if plain && id.len() <= 63 {
        return id.to_owned();
    }
    let digest: String = Sha256::digest(id).iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let words: String = id.to_ascii_lowercase().chars().map(|c| if good(c) { c } else { '-' }).take(40).collect();
    format!("{}-{digest}", words.trim_matches('-')).trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests;
