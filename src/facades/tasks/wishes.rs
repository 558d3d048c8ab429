//! What may be wished of tasks beyond MLOC's own calls: to stop, and to be tried again. A wish is written; what comes of it is told by
//! the task.

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use futures::future;
use serde_json::{Value, json};

use super::{Mloc, now, records};
use crate::{
    api::{
        annotation,
        task::{Task, TaskPhase},
    },
    facades::reply::{Answer, Refusal, ok},
    registry::{ApiError, ObjectName, Reason},
    runtime::objects::Objects,
};

/// `POST /api/v1/tasks/{id}/cancel`, with `?scope=submission` all tasks that were submitted with it.
pub async fn cancel(mloc: &Mloc, id: &str, uri: &Uri) -> Answer {
    let task = known(mloc, id).await?;
    let mut tasks = match scope(uri)? {
        Scope::Task => vec![task],
        Scope::Submission => members(mloc, &task).await?,
    };
    tasks.retain(|task| !task.phase().is_terminal() && !task.spec.cancel);
    // Those that depend on others first: they were cancelled, and have not failed with them.
    tasks.sort_by_key(|task| std::cmp::Reverse(task.submitted_at()));
    let mut cancelled = Vec::new();
    for task in &tasks {
        match mloc.objects.merge::<Task>(&name_of(task), json!({"spec": {"cancel": true}})).await {
            Ok(task) => cancelled.push(records::id(&task)),
            Err(error) if error.reason == Reason::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    ok(&json!({"ok": true, "cancelled": cancelled}))
}

/// `POST /api/v1/tasks/{id}/retry`, with `?scope=submission` all tasks that were submitted with it and have failed. Those that failed
/// only with what they depend on come back by themselves.
pub async fn retry(mloc: &Mloc, id: &str, uri: &Uri) -> Answer {
    let task = known(mloc, id).await?;
    let failed: Vec<Arc<Task>> = match scope(uri)? {
        Scope::Task => vec![task],
        Scope::Submission => members(mloc, &task).await?,
    };
    let failed: Vec<Arc<Task>> = failed.into_iter().filter(|task| task.phase() == TaskPhase::Failed).collect();
    if failed.is_empty() {
        return Err(Refusal::new(StatusCode::CONFLICT, "only a task that has failed can be tried again"));
    }
    let wish = json!({"metadata": {"annotations": {annotation::RETRY_AT: now(mloc)}}});
    let names: Vec<ObjectName> = failed.iter().map(|task| name_of(task)).collect();
    let wished = names.iter().map(|name| mloc.objects.merge::<Task>(name, wish.clone()));
    for wished in future::join_all(wished).await {
        // It went at this moment, for its time had come.
        if wished?.metadata.deletion_timestamp.is_some() {
            return Err(Refusal::new(StatusCode::CONFLICT, "the task is being deleted"));
        }
    }
    ok(&json!({"ok": true, "retried": failed.iter().map(|task| records::id(task)).collect::<Vec<_>>()}))
}

/// `GET /api/v1/dead_letters`: those that have failed for good, the latest first.
pub async fn dead_letters(mloc: &Mloc) -> Answer {
    let mut dead = mloc.objects.list::<Task>(None).await?;
    dead.retain(|task| task.phase() == TaskPhase::Failed);
    dead.sort_by_cached_key(|task| {
        std::cmp::Reverse(task.status.as_ref().and_then(|status| status.finished_at.as_ref().map(|at| at.0)))
    });
    let letter = |task: &Arc<Task>| -> Result<Value, Refusal> {
        let status = task.status.clone().unwrap_or_default();
        let mut record = records::record(task)?;
        record["attempts"] = json!(status.attempts);
        record["failed_at"] = json!(status.finished_at.map(|at| crate::adapters::bus::stamp(at.0)));
        Ok(record)
    };
    ok(&dead.iter().map(letter).collect::<Result<Vec<_>, _>>()?)
}

async fn known(mloc: &Mloc, id: &str) -> Result<Arc<Task>, Refusal> {
    mloc.task(id).await?.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "task not found"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Task,
    Submission,
}

fn scope(uri: &Uri) -> Result<Scope, Refusal> {
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let given = query.0.iter().rfind(|(key, _)| key == "scope").map(|(_, value)| value.as_str());
    match given {
        None | Some("task") => Ok(Scope::Task),
        Some("submission") => Ok(Scope::Submission),
        Some(other) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, format!("scope must be task or submission, not {other:?}")))
        }
    }
}

/// What was submitted together. Parts are looked after by the task they are parts of.
async fn members(mloc: &Mloc, task: &Arc<Task>) -> Result<Vec<Arc<Task>>, ApiError> {
    let Some(submission) = &task.spec.submission else { return Ok(vec![task.clone()]) };
    let mut all = mloc.objects.list::<Task>(task.metadata.namespace.as_deref()).await?;
    all.retain(|one| one.spec.submission.as_ref() == Some(submission) && one.spec.shard.is_none());
    Ok(all)
}

fn name_of(task: &Task) -> ObjectName {
    ObjectName { namespace: task.metadata.namespace.clone(), name: task.metadata.name.clone().unwrap_or_default() }
}
