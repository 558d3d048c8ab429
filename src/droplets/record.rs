//! One routed call, as the history keeps it and `GET /orchestrator/tasks` shows it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    names::key,
    retry::{Ended, Verdict},
};

/// An error in the words of FPAI's services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UdcError {
    pub code: String,
    pub message: String,
    pub details: Value,
}

impl UdcError {
    pub fn new(code: &str, message: impl Into<String>, details: Value) -> Self {
        Self { code: code.to_owned(), message: message.into(), details }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// As the caller wrote it.
    pub droplet_name: String,
    pub target_url: String,
    pub method: String,
    pub status: Verdict,
    pub response_status: Option<u16>,
    pub response_body: Option<Box<RawValue>>,
    pub retry_count: u32,
    /// Unix seconds.
    pub created_at: f64,
    pub completed_at: Option<f64>,
    pub duration_ms: Option<u64>,
    pub error_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<UdcError>,
}

/// What a history is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub status: Option<String>,
    pub droplet_name: Option<String>,
}

impl Filter {
    pub fn takes(&self, record: &Record) -> bool {
        self.status.as_ref().is_none_or(|status| status == record.status.as_str())
            && self.droplet_name.as_ref().is_none_or(|name| key(name) == key(&record.droplet_name))
    }
}

/// The error of a call that came to no answer.
pub fn error(record: &Record, last: &Ended, timeout_seconds: u64) -> UdcError {
    match record.status {
        Verdict::Timeout => UdcError::new(
            "TIMEOUT",
            format!("Task exceeded {timeout_seconds}s timeout"),
            json!({"task_id": record.id, "timeout_seconds": timeout_seconds}),
        ),
        Verdict::Success | Verdict::Error | Verdict::Queued => UdcError::new(
            "DROPLET_UNREACHABLE",
            "Target droplet did not respond after retries",
            json!({
                "droplet_name": record.droplet_name, "target_url": record.target_url, "retry_count": record.retry_count,
                "last_error": super::retry::message(last), "total_duration_ms": record.duration_ms,
            }),
        ),
    }
}
