//! A document comes in: which it is in the body, which tasks come of it, and what its client is told.

use std::{sync::Arc, time::Duration};

use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, StatusCode},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Mloc, records};
use crate::{
    api::{
        RESULTS_FINALIZER, annotation,
        task::{MlocDocument, Task, TaskSpec},
    },
    facades::reply::{Answer, Refusal, is_json, ok},
    mloc::{
        Refused,
        document::{check, parse},
        expand::{Dependency, Step, expand},
        names::NAMESPACE,
    },
    registry::{ApiError, ObjectName, Reason},
    runtime::objects::Objects,
};

/// Every task keeps the text: this is what fits into one.
const LIMIT_BYTES: usize = 512 * 1024;
/// A dispatch takes milliseconds; who has to wait longer is told that the task waits.
const DISPATCHED_WITHIN: Duration = Duration::from_secs(2);
/// All tasks of a document; a good deal less than what is left of one stays (`controllers::task::submission::GRACE`).
const MADE_WITHIN: Duration = Duration::from_secs(30);

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::new(StatusCode::BAD_REQUEST, refused.0)
    }
}

pub async fn submit(mloc: &Mloc, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let too_large = |_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large or broke off");
    let bytes = to_bytes(body, LIMIT_BYTES).await.map_err(too_large)?;
    let yaml = yaml_of(&parts.headers, &bytes)?;
    let document = parse(&yaml)?;
    check(&document)?;
    let tasks = tasks(mloc, &yaml, expand(&document)?)?;
    let made = create(mloc, tasks).await?;
    mloc.metrics.submitted.inc_by(made.len() as u64);
    let told = settled(mloc, made).await?;
    let tasks: Vec<Value> = told.iter().map(|task| records::summary(task)).collect();
    ok(&json!({"ok": true, "count": tasks.len(), "tasks": tasks}))
}

/// The YAML of a body: all of it, or a JSON string, or the member `yaml` of a JSON object.
fn yaml_of(headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
    if body.is_empty() {
        return Err(Refusal::invalid(vec![
            json!({"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}),
        ]));
    }
    let text = std::str::from_utf8(body);
    let text = text.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "Body must be UTF-8 encoded text"))?;
    if !is_json(headers) {
        return Ok(text.to_owned());
    }
    match json_of(body)? {
        Value::String(yaml) => Ok(yaml),
        Value::Object(fields) => match fields.get("yaml").and_then(Value::as_str) {
            Some(yaml) => Ok(yaml.to_owned()),
            None => Err(Refusal::new(StatusCode::BAD_REQUEST, r#"Expected YAML string or {"yaml":"..."}"#)),
        },
        other => Err(Refusal::invalid(vec![
            json!({"type": "string_type", "loc": ["body", "str"], "msg": "Input should be a valid string", "input": other}),
            json!({"type": "dict_type", "loc": ["body", "dict[str,any]"], "msg": "Input should be a valid dictionary", "input": other}),
        ])),
    }
}

pub fn json_of(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::invalid(vec![json!({
            "type": "json_invalid", "loc": ["body", error.column()], "msg": "JSON decode error", "input": {},
            "ctx": {"error": error.to_string()},
        })])
    })
}

fn tasks(mloc: &Mloc, yaml: &str, steps: Vec<Step>) -> Result<Vec<Task>, Refusal> {
    let ids: Vec<String> = steps.iter().map(|_| mloc.ids.uid()).collect();
    let now = mloc.clock.now();
    let mut tasks = Vec::with_capacity(steps.len());
    for (n, step) in steps.into_iter().enumerate() {
        let depends_on = step.depends_on.into_iter().map(|dependency| match dependency {
            Dependency::Step(earlier) => ids[earlier].clone(),
            Dependency::Task(id) => id,
        });
        let priority = step.document.pointer("/spec/priority").and_then(Value::as_i64).unwrap_or(0);
        let ttl = ttl(&step.document)?;
        let document: MlocDocument = serde_json::from_value(step.document)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the document cannot be read: {error}")))?;
        let spec = TaskSpec {
            document,
            raw_yaml: Some(yaml.to_owned()),
            submission: Some(ids[0].clone()),
            graph_node_name: step.node,
            depends_on: depends_on.collect(),
            // In their order, also where a clock counts microseconds only.
            submitted_at: Some(MicroTime(now + SignedDuration::from_micros(n as i64))),
            priority: priority.clamp(-1_000_000, 1_000_000) as i32,
            max_retries: 3,
            ttl_seconds_after_finished: ttl,
            ..TaskSpec::default()
        };
        let mut task = Task::new(&ids[n], spec);
        task.metadata = ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            finalizers: Some(vec![RESULTS_FINALIZER.to_owned()]),
            annotations: (n > 0).then(|| [(annotation::BEGINS_WITH.to_owned(), ids[0].clone())].into()),
            ..task.metadata
        };
        tasks.push(task);
    }
    Ok(tasks)
}

/// As Kubernetes' Jobs have it; MLOC's documents do not say.
fn ttl(document: &Value) -> Result<Option<u32>, Refusal> {
    match document.pointer("/spec/ttlSecondsAfterFinished") {
        None | Some(Value::Null) => Ok(None),
        Some(given) => match given.as_u64().and_then(|seconds| u32::try_from(seconds).ok()) {
            Some(seconds) => Ok(Some(seconds)),
            None => {
                let why = format!("spec.ttlSecondsAfterFinished must be a whole number of seconds, not {given}");
                Err(Refusal::new(StatusCode::BAD_REQUEST, why))
            }
        },
    }
}

/// All of them or none: the first one comes last, and the others do not begin before it. What is cut off in between, or cannot be undone, the
/// controller of tasks removes ([`crate::api::annotation::BEGINS_WITH`]).
async fn create(mloc: &Mloc, tasks: Vec<Task>) -> Result<Vec<Arc<Task>>, Refusal> {
    let deadline = Instant::now() + MADE_WITHIN;
    let mut made: Vec<Arc<Task>> = Vec::with_capacity(tasks.len());
    for task in tasks.into_iter().rev() {
        if Instant::now() >= deadline {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the store is too slow for all of these tasks"));
        }
        let name = name_of(&task);
        match mloc.objects.create(task).await {
            Ok(task) => made.push(task),
            Err(error) if is_certain(error.reason) => {
                for task in &made {
                    mloc.objects.delete::<Task>(&name_of(task)).await.ok();
                }
                return Err(refused(error));
            }
            // Nobody else has its name: it is there, or it may come yet, and what it would complete must not go before.
            Err(error) => match mloc.objects.get::<Task>(&name).await {
                Ok(Some(task)) => made.push(task),
                Ok(None) | Err(_) => return Err(refused(error)),
            },
        }
    }
    made.reverse();
    Ok(made)
}

/// Nothing was written.
fn is_certain(reason: Reason) -> bool {
    !matches!(reason, Reason::ServiceUnavailable | Reason::Timeout | Reason::InternalError)
}

/// A document that the schema refuses is the client's fault.
fn refused(error: ApiError) -> Refusal {
    match error.reason {
        Reason::Invalid | Reason::BadRequest => Refusal::new(StatusCode::BAD_REQUEST, error.message),
        _ => error.into(),
    }
}

/// The tasks once it is known what becomes of those that wait for nothing, or soon after.
async fn settled(mloc: &Mloc, made: Vec<Arc<Task>>) -> Result<Vec<Arc<Task>>, Refusal> {
    let deadline = Instant::now() + DISPATCHED_WITHIN;
    let registry = &mloc.objects.registry;
    let kinds = registry.kinds();
    let kind = kinds.of::<Task>().ok_or_else(|| Refusal::failed("tasks are not served"))?;
    // Before the first look, so that nothing is missed.
    let revision = registry.store().revision().await.map_err(ApiError::internal)?;
    let mut changes = registry.watch(&kind, Some(NAMESPACE), revision).await?;
    let mut latest = made;
    loop {
        for task in &mut latest {
            if let Some(found) = mloc.objects.get::<Task>(&name_of(task)).await? {
                *task = found;
            }
        }
        if latest.iter().all(|task| !task.spec.depends_on.is_empty() || task.status.is_some()) {
            return Ok(latest);
        }
        match tokio::time::timeout_at(deadline, changes.next()).await {
            Ok(Ok(_)) => {}
            // Too late, or the store ends: they are what they are.
            Ok(Err(_)) | Err(_) => return Ok(latest),
        }
    }
}

fn name_of(task: &Task) -> ObjectName {
    ObjectName { namespace: task.metadata.namespace.clone(), name: task.metadata.name.clone().unwrap_or_default() }
}
