//! Messages between droplets: those for us are logged, others go to the registry, which delivers them.

use std::time::Duration;

use axum::{body::Bytes, extract::Request};
use reqwest::Method;
use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use super::{Answer, Droplets, body, reply::ok, reply::stamp};

const TYPES: [&str; 4] = ["status", "event", "command", "query"];
const PRIORITIES: [&str; 3] = ["high", "normal", "low"];
const RESULTS: [&str; 3] = ["success", "queued", "error"];
const RELAY_TIMEOUT: Duration = Duration::from_secs(10);
const ANY_LENGTH: std::ops::RangeInclusive<usize> = 0..=usize::MAX;

pub async fn receive(droplets: &Droplets, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body::whole(body).await?;
    let mut fields = body::fields(&parts.headers, &body)?;
    let trace_id = fields.text("trace_id", ANY_LENGTH);
    let source = fields.text("source", ANY_LENGTH);
    let target = fields.text("target", ANY_LENGTH);
    let message_type = fields.word("message_type", &TYPES, None);
    fields.required_object("payload");
    fields.optional_text("timestamp");
    fields.judged(())?;
    tracing::info!(trace_id, source, target, message_type, "a droplet's message");
    let now = stamp(droplets.routing.clock.now());
    ok(&json!({"received": true, "trace_id": trace_id, "processed_at": now, "result": "success"}))
}

/// Whatever becomes of it is a 200.
pub async fn send(droplets: &Droplets, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body::whole(body).await?;
    let mut fields = body::fields(&parts.headers, &body)?;
    let target = fields.text("target", ANY_LENGTH);
    let message_type = fields.word("message_type", &TYPES, None);
    let payload = fields.object("payload", false);
    let priority = fields.word("priority", &PRIORITIES, Some("normal"));
    let retry_count = fields.number("retry_count", 3);
    fields.judged(())?;
    let payload = payload.map_or("{}", RawValue::get);
    let relayed = format!(
        r#"{{"target":{},"message_type":"{message_type}","payload":{payload},"priority":"{priority}","retry_count":{retry_count}}}"#,
        Value::String(target.clone())
    );
    let directory = &droplets.routing.directory;
    let answer = directory.ask(Method::POST, "/send", Some(Bytes::from(relayed)), RELAY_TIMEOUT).await;
    let said = match answer {
        Ok(response) if response.status == 200 => serde_json::from_slice(&response.body).unwrap_or_default(),
        Ok(response) => {
            tracing::warn!(target, status = response.status, "the registry does not take a message");
            Value::Null
        }
        Err(error) => {
            tracing::warn!(target, %error, "a message could not be handed to the registry");
            Value::Null
        }
    };
    let result = said["result"].as_str().filter(|result| RESULTS.contains(result)).unwrap_or("error");
    let trace_id = said["trace_id"].as_str().map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    ok(&json!({
        "sent": said["sent"].as_bool().unwrap_or(false), "trace_id": trace_id, "target": target,
        "timestamp": stamp(droplets.routing.clock.now()), "result": result,
    }))
}
