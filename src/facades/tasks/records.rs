//! How tasks and workers look on MLOC's wire.

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Mloc, NAMESPACE, told};
use crate::{
    api::{
        condition::READY,
        task::{Task, TaskPhase},
        worker::{Worker, WorkerReason, WorkerState},
    },
    facades::reply::{Answer, Refusal, ok},
    registry::ApiError,
    runtime::objects::Objects,
};

/// The channel on which tasks go to workers.
const TOPIC: &str = "tasks";

pub async fn tasks(mloc: &Mloc, uri: &Uri) -> Answer {
    let asked = Asked::of(uri)?;
    let mut tasks = mloc.objects.list::<Task>(None).await?;
    tasks.sort_by_cached_key(|task| (submitted_at(task), id(task)));
    let after = asked.after.as_ref().map(|after| tasks.iter().position(|task| id(task) == *after));
    let from = match after {
        Some(None) => return Err(Refusal::new(StatusCode::NOT_FOUND, "task not found")),
        Some(Some(place)) => place + 1,
        None => 0,
    };
    let wanted = |task: &&Arc<Task>| {
        let status = asked.status.as_ref().is_none_or(|status| status.eq_ignore_ascii_case(phase_text(phase(task))));
        let worker = asked.worker.as_ref().is_none_or(|worker| assigned(task) == Some(worker));
        status && worker
    };
    let found: Vec<Value> =
        tasks[from..].iter().filter(wanted).take(asked.limit).map(|task| record(task)).collect::<Result<_, _>>()?;
    ok(&found)
}

/// What a listing may ask for beyond MLOC's, which lists everything.
struct Asked {
    status: Option<String>,
    worker: Option<String>,
    /// The id of the last task of the page before.
    after: Option<String>,
    limit: usize,
}

impl Asked {
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
        let mut asked = Self { status: None, worker: None, after: None, limit: usize::MAX };
        for (key, value) in query.0 {
            match key.as_str() {
                "status" => asked.status = Some(value),
                "worker" => asked.worker = Some(value),
                "after" => asked.after = Some(value),
                "limit" => {
                    let fault = || Refusal::new(StatusCode::BAD_REQUEST, "limit must be a whole number");
                    asked.limit = value.parse().map_err(|_| fault())?;
                }
                // As MLOC does.
                _ => {}
            }
        }
        Ok(asked)
    }
}

pub async fn task(mloc: &Mloc, id: &str) -> Answer {
    match mloc.task(id).await? {
        Some(task) => ok(&record(&task)?),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "task not found")),
    }
}

/// MLOC's TaskRecord.
fn record(task: &Task) -> Result<Value, Refusal> {
    let status = task.status.clone().unwrap_or_default();
    let assigned = assigned(task);
    let document = serde_json::to_value(&task.spec.document).map_err(ApiError::internal)?;
    Ok(json!({
        "task_id": id(task), "raw_yaml": task.spec.raw_yaml, "parsed": document, "status": phase_text(status.phase),
        "assigned_worker": assigned, "topic": assigned.map(|_| TOPIC), "submitted_at": told(submitted_at(task)),
        "error": status.error, "retries": status.retries, "max_retries": task.spec.max_retries,
        "parent_task_id": task.spec.shard.as_ref().map(|shard| &shard.parent),
        "shard_index": task.spec.shard.as_ref().map(|shard| shard.index),
        "shard_total": task.spec.shard.as_ref().map(|shard| shard.total),
        "next_retry_at": status.next_retry_at.map(|at| told(at.0)), "last_failed_worker": status.last_failed_worker,
        "graph_node_name": task.spec.graph_node_name,
    }))
}

/// What a submission is answered with, of each task.
pub fn summary(task: &Task) -> Value {
    let assigned = assigned(task);
    json!({
        "task_id": id(task), "status": phase_text(phase(task)), "assigned_worker": assigned,
        "topic": assigned.map(|_| TOPIC), "waiting_on": task.spec.depends_on,
        "retries": task.status.as_ref().map_or(0, |status| status.retries), "max_retries": task.spec.max_retries,
    })
}

pub fn id(task: &Task) -> String {
    let name = task.metadata.name.clone().unwrap_or_default();
    match task.metadata.namespace.as_deref() {
        Some(NAMESPACE) | None => name,
        Some(namespace) => format!("{namespace}/{name}"),
    }
}

pub fn phase(task: &Task) -> TaskPhase {
    task.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

fn phase_text(phase: TaskPhase) -> &'static str {
    match phase {
        TaskPhase::Pending => "PENDING",
        TaskPhase::Waiting => "WAITING",
        TaskPhase::Dispatched => "DISPATCHED",
        TaskPhase::Done => "DONE",
        TaskPhase::Failed => "FAILED",
        TaskPhase::Cancelled => "CANCELLED",
    }
}

fn assigned(task: &Task) -> Option<&String> {
    task.status.as_ref()?.assigned_worker.as_ref()
}

fn submitted_at(task: &Task) -> Timestamp {
    let created = task.metadata.creation_timestamp.as_ref().map(|at| at.0);
    task.spec.submitted_at.as_ref().map(|at| at.0).or(created).unwrap_or_default()
}

pub async fn workers(mloc: &Mloc) -> Answer {
    let workers = mloc.objects.list::<Worker>(Some(NAMESPACE)).await?;
    ok(&workers.iter().filter(|worker| is_registered(worker)).map(|worker| worker_record(worker)).collect::<Vec<_>>())
}

pub async fn worker(mloc: &Mloc, id: &str) -> Answer {
    let workers = mloc.objects.list::<Worker>(Some(NAMESPACE)).await?;
    match workers.iter().find(|worker| is_registered(worker) && worker_id(worker) == Some(id)) {
        Some(worker) => ok(&worker_record(worker)),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "worker not found")),
    }
}

fn worker_id(worker: &Worker) -> Option<&str> {
    worker.spec.worker_id.as_deref().or(worker.metadata.name.as_deref())
}

/// One that was declared but never came, or has left, is none of MLOC's.
fn is_registered(worker: &Worker) -> bool {
    let left: &str = WorkerReason::Unregistered.into();
    let mut conditions = worker.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == READY && condition.reason != left)
}

fn worker_record(worker: &Worker) -> Value {
    let status = worker.status.clone().unwrap_or_default();
    let announced = |key: &str| status.announced.get(key);
    json!({
        "worker_id": worker_id(worker), "status": state_text(status.state), "started_at": announced("started_at"),
        "pid": status.pid, "env": announced("env").unwrap_or(&json!({})),
        "hardware": announced("hardware").unwrap_or(&json!({})), "tags": status.tags,
        "last_seen": announced("last_seen"), "stale": status.stale,
    })
}

fn state_text(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Unknown => "UNKNOWN",
        WorkerState::Starting => "STARTING",
        WorkerState::Idle => "IDLE",
        WorkerState::Running => "RUNNING",
    }
}
