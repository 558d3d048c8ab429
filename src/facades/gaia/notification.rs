//! What GAIA tells people: the nine notifications, in the words its clients know. Pure.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::reply::stamp;

/// Something worth telling, without its time and id.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub type_: &'static str,
    pub title: String,
    pub message: String,
    pub data: Value,
}

/// As sent.
#[derive(Debug, Clone, Serialize)]
pub struct Notification {
    pub notification_id: String,
    pub notification_type: &'static str,
    pub title: String,
    pub message: String,
    pub timestamp: String,
    pub data: Value,
}

impl News {
    pub fn at(self, now: Timestamp) -> Notification {
        Notification {
            notification_id: uuid::Uuid::new_v4().to_string(),
            notification_type: self.type_,
            title: self.title,
            message: self.message,
            timestamp: stamp(now),
            data: self.data,
        }
    }
}

fn news(type_: &'static str, title: impl Into<String>, message: impl Into<String>, data: Value) -> News {
    News { type_, title: title.into(), message: message.into(), data }
}

pub fn oracle_fallback(model: &str, role: &str, reason: &str, at: &str) -> News {
    let data = json!({"fallback_model": model, "original_role": role, "reason": reason, "timestamp": at});
    news("oracle_fallback", "Cloud Inference Active", format!("Using {model} for {role}"), data)
}

pub fn gpu_released(previous: &str, reason: &str) -> News {
    let data = json!({"previous_owner": previous, "reason": reason});
    news("gpu_released", "GPU Released", format!("GPU released by {previous}"), data)
}

pub fn gpu_acquired(new: &str, reason: &str) -> News {
    let data = json!({"new_owner": new, "reason": reason});
    news("gpu_acquired", "GPU Acquired", format!("GPU acquired by {new}"), data)
}

/// Whose handoff it is.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    pub id: &'a str,
    pub type_: &'static str,
    pub source: &'a str,
    pub destination: &'a str,
}

impl Parties<'_> {
    fn data(&self) -> Value {
        json!({
            "handoff_id": self.id, "handoff_type": self.type_, "source": self.source, "destination": self.destination,
        })
    }
}

pub fn handoff_started(parties: Parties<'_>) -> News {
    let message = format!("Transferring GPU from {} to {}", parties.source, parties.destination);
    news("handoff_started", "GPU Handoff Started", message, parties.data())
}

pub fn handoff_completed(parties: Parties<'_>) -> News {
    let message = format!("GPU transferred to {}", parties.destination);
    news("handoff_completed", "GPU Handoff Complete", message, parties.data())
}

pub fn handoff_failed(id: &str, error: &str) -> News {
    let data = json!({"handoff_id": id, "error": error});
    news("handoff_failed", "GPU Handoff Failed", format!("Handoff failed: {error}"), data)
}

pub fn service_error(service: &str, error: &str) -> News {
    news("service_error", format!("{service} Error"), error, json!({"service": service, "error": error}))
}

pub fn service_health_change(service: &str, healthy: bool) -> News {
    let word = |healthy| if healthy { "healthy" } else { "unhealthy" };
    let (old, new) = (word(!healthy), word(healthy));
    let title = if healthy { format!("{service} Recovered") } else { format!("{service} Down") };
    let data = json!({"service": service, "old_state": old, "new_state": new});
    news("service_health_change", title, format!("{service} changed from {old} to {new}"), data)
}

/// How available cognition is: core beside its standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum HaStatus {
    Active,
    Degraded,
    FailoverActive,
    Failed,
}

impl HaStatus {
    /// A standby counts from when it was first seen healthy.
    pub fn of(live: bool, candidate: bool, standby_was_seen: bool) -> Self {
        match (standby_was_seen, live, candidate) {
            (false, true, _) | (true, true, true) => HaStatus::Active,
            (false, false, _) | (true, false, false) => HaStatus::Failed,
            (true, true, false) => HaStatus::Degraded,
            (true, false, true) => HaStatus::FailoverActive,
        }
    }
}

pub fn ha_status_change(old: HaStatus, new: HaStatus) -> News {
    let severity = match new {
        HaStatus::Failed => "critical",
        HaStatus::Degraded | HaStatus::FailoverActive => "warning",
        HaStatus::Active => "info",
    };
    let (old, new): (&str, &str) = (old.into(), new.into());
    let data = json!({"old_status": old, "new_status": new, "severity": severity});
    news("ha_status_change", format!("HA: {new}"), format!("HA status changed from {old} to {new}"), data)
}
