//! Messages and hashes of MLOC's wire, of every generation of workers, and ours. Pure.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    BusEvent, Dispatch, Mark, Release, TaskEvent, TaskNews, WorkerEvent, WorkerNews, WorkerRecord, name, stamp,
};

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    type_: String,
    worker_id: Option<String>,
    task_id: Option<String>,
    status: Option<String>,
    error: Option<Value>,
    /// Ours.
    attempt: Option<String>,
    /// First generation.
    extra: Option<Map<String, Value>>,
    /// Later ones.
    payload: Option<Map<String, Value>>,
}

/// What a message tells. None: nothing that concerns us: what an orchestrator said itself, unknown types, no JSON.
pub fn event(channel: &str, text: &[u8]) -> Option<BusEvent> {
    let message: Message = serde_json::from_slice(text).ok()?;
    match channel {
        name::TASK_EVENTS => task_event(message).map(BusEvent::Task),
        name::WORKER_EVENTS => worker_event(message).map(BusEvent::Worker),
        _ => None,
    }
}

fn task_event(message: Message) -> Option<TaskEvent> {
    let news = match message.type_.to_ascii_uppercase().as_str() {
        "TASK_STARTED" => TaskNews::Started,
        "TASK_SUCCEEDED" => TaskNews::Succeeded,
        "TASK_FAILED" => TaskNews::Failed(match message.error {
            Some(Value::String(text)) if !text.is_empty() => text,
            None | Some(Value::Null | Value::String(_)) => "worker failed".to_owned(),
            Some(other) => other.to_string(),
        }),
        _ => return None,
    };
    let dispatched_at =
        message.payload.as_ref().and_then(|more| more.get("dispatched_at")?.as_str().map(str::to_owned));
    Some(TaskEvent { task: message.task_id?, worker: message.worker_id, dispatched_at, attempt: message.attempt, news })
}

fn worker_event(message: Message) -> Option<WorkerEvent> {
    // What orchestrators write has neither.
    let says = |key: &str| {
        let more = message.payload.as_ref().or(message.extra.as_ref())?;
        more.get(key).and_then(Value::as_str).map(str::to_owned)
    };
    let by_itself = message.payload.is_some() || message.extra.is_some();
    let news = match message.type_.to_ascii_uppercase().as_str() {
        "REGISTER" => WorkerNews::Registered,
        "HEARTBEAT" => WorkerNews::Heartbeat,
        "UNREGISTER" => WorkerNews::Unregistered,
        "STATUS" if by_itself => match message.status.as_deref() {
            Some("RUNNING") => WorkerNews::Running { task: says("task_id"), attempt: message.attempt },
            Some("IDLE") => WorkerNews::Idle { last_task: says("last_task") },
            Some("DRAINING") => WorkerNews::Draining,
            _ => return None,
        },
        _ => return None,
    };
    Some(WorkerEvent { worker: message.worker_id?, news })
}

/// A worker's hash. JSON that cannot be read in one of its three fields makes all three empty, as MLOC has it.
pub fn record(id: &str, hash: &HashMap<String, String>, heartbeat: Option<String>, registered: bool) -> WorkerRecord {
    let text = |key: &str| hash.get(key).filter(|value| !value.is_empty()).cloned();
    let json = |key: &str| -> Option<Value> {
        match text(key) {
            Some(text) => serde_json::from_str(&text).ok(),
            None => Some(Value::Null),
        }
    };
    let all = json("env_json").zip(json("hardware_json")).zip(json("tags_json"));
    let ((env, hardware), tags) = all.unwrap_or_default();
    let map = |value: Value| match value {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let tags = tags.as_array().map(|tags| tags.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    WorkerRecord {
        id: id.to_owned(),
        status: text("status"),
        started_at: text("started_at"),
        pid: text("pid").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0),
        env: map(env),
        hardware: map(hardware),
        tags: tags.unwrap_or_default(),
        last_seen: text("last_seen"),
        cost_per_hour: text("cost_per_hour").and_then(|cost| cost.parse().ok()),
        began: text("extra_task_id"),
        ended: text("extra_last_task"),
        heartbeat,
        parted: false,
        registered,
    }
}

/// The fields of a hash that a worker would have written. Of its state only what was seen last is known.
pub fn hash(record: &WorkerRecord) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("worker_id", record.id.clone()),
        ("status", record.status.clone().unwrap_or_else(|| "UNKNOWN".to_owned())),
        ("env_json", Value::Object(record.env.clone()).to_string()),
        ("hardware_json", Value::Object(record.hardware.clone()).to_string()),
        ("tags_json", json!(record.tags).to_string()),
    ];
    fields.extend(record.started_at.clone().map(|at| ("started_at", at)));
    fields.extend(record.pid.map(|pid| ("pid", pid.to_string())));
    fields.extend(record.last_seen.clone().map(|at| ("last_seen", at)));
    fields.extend(record.cost_per_hour.map(|cost| ("cost_per_hour", cost.to_string())));
    fields
}

/// The message that hands a task to a worker.
pub fn dispatch(dispatch: &Dispatch) -> String {
    let mut message = json!({
        "task_id": dispatch.task, "task": dispatch.document,
        "task_type": dispatch.document.pointer("/spec/taskType"), "assigned_worker": dispatch.worker,
        "dispatched_at": stamp(dispatch.dispatched_at),
        "parent_task_id": dispatch.shard.as_ref().map(|shard| &shard.parent),
    });
    if let Some(attempt) = &dispatch.attempt {
        message["attempt"] = json!(attempt);
    }
    if !dispatch.gpus.is_empty() {
        message["gpus"] = json!(dispatch.gpus);
    }
    if dispatch.delivers_elsewhere {
        message["delivers_elsewhere"] = json!(true);
    }
    if let Some(shard) = &dispatch.shard {
        message["shard_index"] = json!(shard.index);
        message["shard_total"] = json!(shard.total);
    }
    message.to_string()
}

/// The message that tells one of our workers that an attempt is over.
pub fn released(release: &Release) -> String {
    json!({"type": "TASK_RELEASED", "worker_id": release.worker, "task_id": release.task, "attempt": release.attempt})
        .to_string()
}

/// An orchestrator about a worker's state.
pub fn status(worker: &str, mark: Mark, at: jiff::Timestamp) -> String {
    let status: &str = mark.into();
    json!({"type": "STATUS", "worker_id": worker, "status": status, "ts": stamp(at)}).to_string()
}

/// An orchestrator about a worker that it removed.
pub fn unregister(worker: &str, at: jiff::Timestamp) -> String {
    json!({"type": "UNREGISTER", "worker_id": worker, "ts": stamp(at)}).to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn worker(news: WorkerNews) -> Option<BusEvent> {
        Some(BusEvent::Worker(WorkerEvent { worker: "w1".to_owned(), news }))
    }

    fn task(news: TaskNews) -> Option<BusEvent> {
        Some(BusEvent::Task(TaskEvent {
            task: "t".to_owned(),
            worker: Some("w1".to_owned()),
            dispatched_at: None,
            attempt: None,
            news,
        }))
    }

    /// The messages of three generations, as `mloc-wire-samples` has them.
    #[rstest]
    #[case(
        r#"{"type":"REGISTER","worker_id":"w1","status":"STARTING","ts":"…","tags":["cpu"]}"#,
        WorkerNews::Registered
    )]
    #[case(r#"{"type":"STATUS","worker_id":"w1","status":"RUNNING","ts":"…","extra":{"task_id":"t"}}"#, WorkerNews::Running { task: Some("t".into()), attempt: None })]
    #[case(r#"{"type":"STATUS","worker_id":"w1","status":"IDLE","ts":"…","extra":{}}"#, WorkerNews::Idle { last_task: None })]
    #[case(r#"{"type":"STATUS","ts":"…","worker_id":"w1","status":"IDLE","tags":null,"metrics":{},"payload":{"last_task":"t"}}"#, WorkerNews::Idle { last_task: Some("t".into()) })]
    #[case(r#"{"type":"HEARTBEAT","worker_id":"w1","ts":"…","metrics":{"loadavg":{"1m":2.7}}}"#, WorkerNews::Heartbeat)]
    #[case(r#"{"type":"UNREGISTER","worker_id":"w1"}"#, WorkerNews::Unregistered)]
    fn workers_are_understood(#[case] text: &str, #[case] news: WorkerNews) {
        assert_eq!(event(name::WORKER_EVENTS, text.as_bytes()), worker(news));
    }

    #[rstest]
    #[case(r#"{"type":"TASK_SUCCEEDED","worker_id":"w1","task_id":"t","result":{},"ts":"…"}"#, TaskNews::Succeeded)]
    #[case(r#"{"type":"task_failed","worker_id":"w1","task_id":"t","error":"boom","ts":"…"}"#, TaskNews::Failed("boom".into()))]
    #[case(r#"{"type":"TASK_FAILED","worker_id":"w1","task_id":"t","error":null,"payload":{}}"#, TaskNews::Failed("worker failed".into()))]
    #[case(
        r#"{"type":"TASK_STARTED","worker_id":"w1","task_id":"t","payload":{"taskType":"echo"}}"#,
        TaskNews::Started
    )]
    fn tasks_are_understood(#[case] text: &str, #[case] news: TaskNews) {
        assert_eq!(event(name::TASK_EVENTS, text.as_bytes()), task(news));
    }

    #[rstest]
    #[case(name::WORKER_EVENTS, r#"{"type":"STATUS","worker_id":"w1","status":"RUNNING","ts":"…"}"#)]
    #[case(name::WORKER_EVENTS, r#"{"type":"STATUS","worker_id":"w1","status":"ODD","extra":{}}"#)]
    #[case(name::WORKER_EVENTS, r#"{"type":"HEARTBEAT"}"#)]
    #[case(name::TASK_EVENTS, r#"{"type":"TASK_QUEUED","task_id":"t"}"#)]
    #[case(name::TASK_EVENTS, r#"{"type":"TASK_SUCCEEDED","worker_id":"w1"}"#)]
    #[case(name::TASK_EVENTS, "no JSON")]
    #[case("other", r#"{"type":"TASK_SUCCEEDED","worker_id":"w1","task_id":"t"}"#)]
    fn what_concerns_nobody_is_passed_over(#[case] channel: &str, #[case] text: &str) {
        assert_eq!(event(channel, text.as_bytes()), None);
    }

    #[test]
    fn a_hash_is_read_and_can_be_written_again() {
        let hash_of = |fields: &[(&str, &str)]| -> HashMap<String, String> {
            fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let fields = [
            ("worker_id", "w1"),
            ("status", "IDLE"),
            ("started_at", "2026-11-20T09:32:56.354306+00:00"),
            ("pid", "17834"),
            ("env_json", "{}"),
            ("hardware_json", r#"{"cpu":{"logical_cores":2}}"#),
            ("tags_json", r#"["cpu"]"#),
            ("last_seen", "2026-11-20T09:32:56.355992+00:00"),
            ("extra_last_task", "t"),
        ];
        let read = record("w1", &hash_of(&fields), None, true);
        assert_eq!(
            (read.pid, read.ended.as_deref(), read.tags.as_slice()),
            (Some(17834), Some("t"), &["cpu".to_owned()][..])
        );
        let again: HashMap<String, String> =
            hash(&read).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(record("w1", &again, None, true), WorkerRecord { ended: None, ..read });

        let broken = record("w1", &hash_of(&[("hardware_json", r#"{"cpu":{}}"#), ("tags_json", "[")]), None, true);
        assert_eq!((broken.hardware.len(), broken.tags.len(), broken.status), (0, 0, None));
    }

    #[test]
    fn a_dispatch_has_every_key_that_workers_read() {
        let mut order = Dispatch {
            task: "t".to_owned(),
            worker: "w1".to_owned(),
            document: json!({"spec": {"taskType": "echo"}}),
            dispatched_at: "2026-11-20T10:06:20.211350Z".parse().expect("a time"),
            shard: None,
            attempt: None,
            incarnation: None,
            delivers_elsewhere: false,
            gpus: Vec::new(),
        };
        let read = |order: &Dispatch| -> Value { serde_json::from_str(&dispatch(order)).expect("JSON") };
        let expected = json!({
            "task_id": "t", "task": {"spec": {"taskType": "echo"}}, "task_type": "echo", "assigned_worker": "w1",
            "dispatched_at": "2026-11-20T10:06:20.211350+00:00", "parent_task_id": null,
        });
        assert_eq!(read(&order), expected);
        order.shard = Some(super::super::ShardOf { parent: "p".to_owned(), index: 1, total: 4 });
        let message = read(&order);
        assert_eq!(
            (&message["parent_task_id"], &message["shard_index"], &message["shard_total"]),
            (&json!("p"), &json!(1), &json!(4))
        );
        (order.gpus, order.delivers_elsewhere) = (vec!["GPU-1".to_owned()], true);
        let message = read(&order);
        assert_eq!((&message["gpus"], &message["delivers_elsewhere"]), (&json!(["GPU-1"]), &json!(true)));
    }
}
