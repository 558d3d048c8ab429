//! How tasks and workers look on MLOC's wire.

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::Mloc;
use crate::{
    adapters::bus::stamp,
    api::{
        condition::READY,
        task::{Task, TaskPhase},
        worker::{Worker, WorkerReason},
    },
    facades::reply::{Answer, Refusal, ok},
    mloc::names::{self, NAMESPACE},
    registry::ApiError,
    runtime::objects::Objects,
};

/// The channel on which tasks go to workers.
const TOPIC: &str = "tasks";

pub async fn tasks(mloc: &Mloc, uri: &Uri) -> Answer {
    let asked = Asked::of(uri)?;
    let mut tasks = mloc.objects.list::<Task>(None).await?;
    tasks.sort_by_cached_key(|task| (task.submitted_at(), id(task)));
    let after = asked.after.as_ref().map(|after| tasks.iter().position(|task| id(task) == *after));
    let from = match after {
        Some(None) => return Err(Refusal::new(StatusCode::NOT_FOUND, "task not found")),
        Some(Some(place)) => place + 1,
        None => 0,
    };
    let wanted = |task: &&Arc<Task>| {
        let status = asked.status.as_ref().is_none_or(|status| status.eq_ignore_ascii_case(text(task.phase())));
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
pub fn record(task: &Task) -> Result<Value, Refusal> {
    let status = task.status.clone().unwrap_or_default();
    let assigned = assigned(task);
    let document = serde_json::to_value(&task.spec.document).map_err(ApiError::internal)?;
    Ok(json!({
        "task_id": id(task), "raw_yaml": task.spec.raw_yaml, "parsed": document, "status": text(status.phase),
        "assigned_worker": assigned, "topic": assigned.map(|_| TOPIC), "submitted_at": stamp(task.submitted_at()),
        "error": status.error, "retries": status.retries, "max_retries": task.spec.max_retries,
        "parent_task_id": task.spec.shard.as_ref().map(|shard| &shard.parent),
        "shard_index": task.spec.shard.as_ref().map(|shard| shard.index),
        "shard_total": task.spec.shard.as_ref().map(|shard| shard.total),
        "next_retry_at": status.next_retry_at.map(|at| stamp(at.0)), "last_failed_worker": status.last_failed_worker,
        "graph_node_name": task.spec.graph_node_name,
    }))
}

/// What a submission is answered with, of each task.
pub fn summary(task: &Task) -> Value {
    let assigned = assigned(task);
    json!({
        "task_id": id(task), "status": text(task.phase()), "assigned_worker": assigned,
        "topic": assigned.map(|_| TOPIC), "waiting_on": task.spec.depends_on,
        "retries": task.status.as_ref().map_or(0, |status| status.retries), "max_retries": task.spec.max_retries,
    })
}

pub fn id(task: &Task) -> String {
    let metadata = &task.metadata;
    names::wire_id(metadata.namespace.as_deref().unwrap_or(NAMESPACE), metadata.name.as_deref().unwrap_or_default())
}

fn text(phase: TaskPhase) -> &'static str {
    phase.into()
}

fn assigned(task: &Task) -> Option<&String> {
    task.status.as_ref()?.assigned_worker.as_ref()
}

pub async fn workers(mloc: &Mloc) -> Answer {
    let workers = mloc.objects.list::<Worker>(Some(NAMESPACE)).await?;
    ok(&workers.iter().filter(|worker| is_registered(worker)).map(|worker| worker_record(worker)).collect::<Vec<_>>())
}

pub async fn worker(mloc: &Mloc, id: &str) -> Answer {
    let workers = mloc.objects.list::<Worker>(Some(NAMESPACE)).await?;
    match workers.iter().find(|worker| is_registered(worker) && worker.id() == id) {
        Some(worker) => ok(&worker_record(worker)),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "worker not found")),
    }
}

/// One that was declared but never came, or has left, is none of MLOC's.
pub fn is_registered(worker: &Worker) -> bool {
    let left: &str = WorkerReason::Unregistered.into();
    let mut conditions = worker.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == READY && condition.reason != left)
}

pub fn worker_record(worker: &Worker) -> Value {
    let status = worker.status.clone().unwrap_or_default();
    let announced = |key: &str| status.announced.get(key);
    json!({
        "worker_id": worker.id(), "status": <&str>::from(status.state), "started_at": announced("started_at"),
        "pid": status.pid, "env": announced("env").unwrap_or(&json!({})),
        "hardware": announced("hardware").unwrap_or(&json!({})), "tags": status.tags,
        "last_seen": announced("last_seen"), "stale": status.stale,
    })
}
