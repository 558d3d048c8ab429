//! Results come in and go out: contract section 5.2.
//!
//! A task has one recorded result. A worker that delivers for a task which somebody else has, or which has ended otherwise, is refused;
//! who repeats itself is told that all is well. Results of tasks that nobody knows are kept as they are.

use std::time::Duration;

use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Mloc, now, routes::Pass, submit};
use crate::{
    adapters::results::RESPONSES,
    api::task::{Task, TaskPhase},
    facades::reply::{Answer, Refusal, is_json, ok},
    mloc::names::NAMESPACE,
    registry::ApiError,
};

/// A result is read whole, for it is JSON.
const LIMIT_BYTES: usize = 256 * 1024 * 1024;
/// The controller answers in milliseconds.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);

/// What is to be done with a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// The one that was recorded is kept.
    Known,
    Refuse(&'static str),
}

/// Whether a result counts, from the state of its task and who delivers it. Who does not say who it is, is believed.
fn verdict(task: &Task, worker: Option<&str>, attempt: Option<&str>) -> Verdict {
    let status = task.status.clone().unwrap_or_default();
    // A worker of ours got a token with its attempt, and must give it back.
    if (status.attempt_token.is_some() || attempt.is_some()) && status.attempt_token.as_deref() != attempt {
        return Verdict::Refuse("the result is of another attempt");
    }
    let by = |other: &Option<String>| other.is_none() || worker.is_none() || worker == other.as_deref();
    match task.phase() {
        TaskPhase::Done if status.result.is_some() => match by(&status.assigned_worker) {
            true => Verdict::Known,
            false => Verdict::Refuse("the task has a result of another worker"),
        },
        TaskPhase::Done | TaskPhase::Dispatched => match by(&status.assigned_worker) {
            true => Verdict::Keep,
            false => Verdict::Refuse("the task is with another worker"),
        },
        // One that was taken for lost may deliver after all.
        TaskPhase::Pending | TaskPhase::Waiting => match by(&status.last_failed_worker) {
            true => Verdict::Keep,
            false => Verdict::Refuse("the task is not with this worker"),
        },
        TaskPhase::Failed => Verdict::Refuse("the task has failed"),
        TaskPhase::Cancelled => Verdict::Refuse("the task was cancelled"),
    }
}

pub async fn take(mloc: &Mloc, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let too_large = |_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large or broke off");
    let bytes = to_bytes(body, LIMIT_BYTES).await.map_err(too_large)?;
    if !is_json(&parts.headers) {
        let fault = json!({"type": "model_attributes_type", "loc": ["body"],
            "msg": "Input should be a valid dictionary or object to extract fields from", "input": String::from_utf8_lossy(&bytes)});
        return Err(Refusal::invalid(vec![fault]));
    }
    let body = submit::json_of(&bytes)?;
    let attempt = body.get("attempt").and_then(Value::as_str).map(str::to_owned);
    let mut body = read(body)?;
    let id = body["task_id"].as_str().unwrap_or_default().trim().to_owned();
    if id.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "task_id is required"));
    }
    if parts.extensions.get::<Pass>().is_some_and(|pass| pass.0 != id) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Invalid token"));
    }
    body.insert("task_id".to_owned(), json!(id));
    if body.get("received_at").is_none_or(Value::is_null) {
        body.insert("received_at".to_owned(), json!(now(mloc)));
    }
    let worker = body.get("worker_id").and_then(Value::as_str).map(str::to_owned);
    let _alone = mloc.taking.of(&id).await;
    let task = mloc.task(&id).await?;
    match task.as_ref().map(|task| verdict(task, worker.as_deref(), attempt.as_deref())) {
        None | Some(Verdict::Keep) => {}
        Some(Verdict::Known) => return ok(&json!({"ok": true, "path": mloc.results.directory(&id).join(RESPONSES)})),
        Some(Verdict::Refuse(why)) => return Err(Refusal::new(StatusCode::CONFLICT, why)),
    }
    let path = mloc.results.store(&id, &Value::Object(body)).await?;
    if task.is_some() {
        recorded(mloc, &id).await?;
    }
    ok(&json!({"ok": true, "path": path}))
}

/// The envelope, with the members that MLOC stores; others are dropped.
fn read(body: Value) -> Result<Map<String, Value>, Refusal> {
    let fault = |type_: &str, loc: &[&str], msg: &str, input: &Value| json!({"type": type_, "loc": loc, "msg": msg, "input": input});
    let Value::Object(fields) = &body else {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        return Err(Refusal::invalid(vec![fault("model_attributes_type", &["body"], msg, &body)]));
    };
    let mut faults = Vec::new();
    let mut kept = Map::new();
    for (key, required, is_map) in [
        ("task_id", true, false),
        ("worker_id", false, false),
        ("metadata", false, true),
        ("received_at", false, false),
        ("result", true, true),
    ] {
        match fields.get(key) {
            None if required => faults.push(fault("missing", &["body", key], "Field required", &body)),
            None => drop(kept.insert(key.to_owned(), Value::Null)),
            Some(Value::Null) if !required => drop(kept.insert(key.to_owned(), Value::Null)),
            Some(value @ Value::Object(_)) if is_map => drop(kept.insert(key.to_owned(), value.clone())),
            Some(value @ Value::String(_)) if !is_map => drop(kept.insert(key.to_owned(), value.clone())),
            Some(value) if is_map => {
                faults.push(fault("dict_type", &["body", key], "Input should be a valid dictionary", value));
            }
            Some(value) => faults.push(fault("string_type", &["body", key], "Input should be a valid string", value)),
        }
    }
    if faults.is_empty() { Ok(kept) } else { Err(Refusal::invalid(faults)) }
}

/// Waits until the result is in the task, so that whoever asks next sees it. In the end it is stored, and will be.
async fn recorded(mloc: &Mloc, id: &str) -> Result<(), Refusal> {
    let deadline = Instant::now() + RECORDED_WITHIN;
    let registry = &mloc.objects.registry;
    let kind = registry.kinds().of::<Task>().ok_or_else(|| Refusal::failed("tasks are not served"))?;
    let revision = registry.store().revision().await.map_err(ApiError::internal)?;
    let mut changes = registry.watch(&kind, Some(NAMESPACE), revision).await?;
    loop {
        let task = mloc.task(id).await?;
        if task.is_none_or(|task| task.phase().is_terminal()) {
            return Ok(());
        }
        match tokio::time::timeout_at(deadline, changes.next()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Ok(()),
        }
    }
}

pub async fn give(mloc: &Mloc, id: &str) -> Answer {
    let id = id.trim();
    if id.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "task_id is required"));
    }
    let text = mloc.results.load(id).await?;
    let text = text.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "result not found"))?;
    if serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_err() {
        return ok(&json!({"task_id": id, "raw": String::from_utf8_lossy(&text)}));
    }
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::api::task::{TaskResult, TaskSpec, TaskStatus};

    fn task(phase: TaskPhase, assigned: Option<&str>, failed: Option<&str>, result: bool) -> Task {
        let mut task = Task::new("t", TaskSpec::default());
        task.status = Some(TaskStatus {
            phase,
            assigned_worker: assigned.map(str::to_owned),
            last_failed_worker: failed.map(str::to_owned),
            result: result.then(TaskResult::default),
            ..TaskStatus::default()
        });
        task
    }

    #[rstest]
    #[case(task(TaskPhase::Dispatched, Some("w1"), None, false), Some("w1"), Verdict::Keep)]
    #[case(task(TaskPhase::Dispatched, Some("w1"), None, false), None, Verdict::Keep)]
    #[case(
        task(TaskPhase::Dispatched, Some("w2"), Some("w1"), false),
        Some("w1"),
        Verdict::Refuse("the task is with another worker")
    )]
    #[case(task(TaskPhase::Done, Some("w1"), None, false), Some("w1"), Verdict::Keep)]
    #[case(task(TaskPhase::Done, Some("w1"), None, true), Some("w1"), Verdict::Known)]
    #[case(
        task(TaskPhase::Done, Some("w1"), None, true),
        Some("w2"),
        Verdict::Refuse("the task has a result of another worker")
    )]
    #[case(task(TaskPhase::Waiting, None, Some("w1"), false), Some("w1"), Verdict::Keep)]
    #[case(
        task(TaskPhase::Waiting, None, Some("w1"), false),
        Some("w2"),
        Verdict::Refuse("the task is not with this worker")
    )]
    #[case(task(TaskPhase::Pending, None, None, false), Some("w2"), Verdict::Keep)]
    #[case(task(TaskPhase::Failed, Some("w1"), None, false), Some("w1"), Verdict::Refuse("the task has failed"))]
    fn one_result_counts(#[case] task: Task, #[case] worker: Option<&str>, #[case] expected: Verdict) {
        assert_eq!(verdict(&task, worker, None), expected);
    }

    #[test]
    fn a_token_that_was_given_must_come_back() {
        let mut task = task(TaskPhase::Dispatched, Some("w1"), None, false);
        task.status.as_mut().expect("a status").attempt_token = Some("2-a".to_owned());
        let refused = Verdict::Refuse("the result is of another attempt");
        assert_eq!(verdict(&task, Some("w1"), Some("2-a")), Verdict::Keep);
        assert_eq!(verdict(&task, Some("w1"), Some("1-a")), refused);
        assert_eq!(verdict(&task, None, None), refused);
    }
}
