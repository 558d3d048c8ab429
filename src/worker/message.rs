//! What is said between worker and server, as text: MLOC's messages of its later generations, with the token of the attempt beside
//! them. Pure.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A task to run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Order {
    pub task: String,
    /// Names this attempt; whatever is said of it repeats it.
    pub attempt: String,
    pub document: Value,
    pub dispatched_at: Option<String>,
    /// Its document names somebody else, who is to have the result as well.
    pub delivers_elsewhere: bool,
    /// The uuids of the cards that are its own; empty: it was not told which.
    pub gpus: Vec<String>,
}

impl Order {
    /// Which executor it is for.
    pub fn task_type(&self) -> &str {
        self.document.pointer("/spec/taskType").and_then(Value::as_str).unwrap_or_default()
    }
}

/// What the server says.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Run(Order),
    /// Nobody waits for this attempt any more; None: for none at this task.
    Release {
        task: String,
        attempt: Option<String>,
    },
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    type_: Option<String>,
    task_id: Option<String>,
    attempt: Option<String>,
    assigned_worker: Option<String>,
    worker_id: Option<String>,
    dispatched_at: Option<String>,
    task: Option<Value>,
    #[serde(default)]
    delivers_elsewhere: bool,
    #[serde(default)]
    gpus: Vec<String>,
}

/// None: nothing that concerns the worker `id`.
pub fn command(text: &str, id: &str) -> Option<Command> {
    let told: Told = serde_json::from_str(text).ok()?;
    match told.type_.as_deref() {
        Some("TASK_RELEASED") if told.worker_id.as_deref() == Some(id) => {
            Some(Command::Release { task: told.task_id?, attempt: told.attempt })
        }
        None if told.assigned_worker.as_deref() == Some(id) => Some(Command::Run(Order {
            task: told.task_id?,
            attempt: told.attempt?,
            document: told.task.filter(|task| task["spec"].is_object())?,
            dispatched_at: told.dispatched_at,
            delivers_elsewhere: told.delivers_elsewhere,
            gpus: told.gpus,
        })),
        Some(_) | None => None,
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    Succeeded,
    Failed(String),
}

/// Speaks for one worker.
#[derive(Debug, Clone)]
pub struct Speaker {
    pub worker: String,
}

impl Speaker {
    fn say(&self, type_: &str, at: &str, rest: Value) -> String {
        let mut message = json!({"type": type_, "ts": at, "worker_id": self.worker});
        if let (Value::Object(message), Value::Object(rest)) = (&mut message, rest) {
            message.extend(rest);
        }
        message.to_string()
    }

    pub fn register(&self, at: &str, tags: &[String], payload: Map<String, Value>) -> String {
        self.say("REGISTER", at, json!({"status": "STARTING", "tags": tags, "metrics": {}, "payload": payload}))
    }

    pub fn heartbeat(&self, at: &str, metrics: Value) -> String {
        self.say("HEARTBEAT", at, json!({"status": null, "tags": null, "metrics": metrics, "payload": {}}))
    }

    pub fn running(&self, at: &str, order: &Order) -> String {
        self.say(
            "STATUS",
            at,
            json!({"status": "RUNNING", "attempt": order.attempt, "payload": {"task_id": order.task}}),
        )
    }

    pub fn idle(&self, at: &str, last_task: Option<&str>) -> String {
        let payload = last_task.map_or_else(|| json!({}), |task| json!({"last_task": task}));
        self.say("STATUS", at, json!({"status": "IDLE", "payload": payload}))
    }

    pub fn draining(&self, at: &str) -> String {
        self.say("STATUS", at, json!({"status": "DRAINING", "payload": {}}))
    }

    pub fn unregister(&self, at: &str) -> String {
        self.say("UNREGISTER", at, json!({"status": null, "tags": null, "metrics": {}, "payload": {}}))
    }

    pub fn started(&self, at: &str, order: &Order) -> String {
        let payload = json!({"taskType": order.task_type(), "dispatched_at": order.dispatched_at, "started_at": at});
        let rest = json!({"task_id": order.task, "attempt": order.attempt, "error": null, "payload": payload});
        self.say("TASK_STARTED", at, rest)
    }

    /// `at`: when it ended; `started_at` and `seconds`: how long it took.
    pub fn ended(&self, at: &str, order: &Order, ended: &Ended, started_at: &str, seconds: f64) -> String {
        let (type_, error) = match ended {
            Ended::Succeeded => ("TASK_SUCCEEDED", Value::Null),
            Ended::Failed(error) => ("TASK_FAILED", json!(error)),
        };
        let payload = json!({"taskType": order.task_type(), "dispatched_at": order.dispatched_at,
            "started_at": started_at, "finished_at": at, "runtime_sec": seconds});
        let rest = json!({"task_id": order.task, "attempt": order.attempt, "error": error, "payload": payload});
        self.say(type_, at, rest)
    }

    pub fn log(&self, at: &str, task: &str, attempt: &str, lines: &[Value]) -> String {
        self.say("TASK_LOG", at, json!({"task_id": task, "attempt": attempt, "payload": {"lines": lines}}))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_dispatch_is_an_order_for_who_it_is_addressed_to() {
        let text = json!({"task_id": "t", "task": {"spec": {"taskType": "echo"}}, "assigned_worker": "w1",
            "dispatched_at": "x", "attempt": "1-a", "parent_task_id": null, "gpus": ["GPU-1"]})
        .to_string();
        let Some(Command::Run(order)) = command(&text, "w1") else { panic!("no order") };
        assert_eq!((order.task_type(), order.attempt.as_str()), ("echo", "1-a"));
        assert_eq!((order.gpus, order.delivers_elsewhere), (vec!["GPU-1".to_owned()], false));
        assert_eq!(command(&text, "w2"), None);
    }

    #[rstest]
    #[case("no JSON")]
    #[case(r#"{"task_id":"t","task":{"spec":{}},"assigned_worker":"w1"}"#)]
    #[case(r#"{"task_id":"t","task":{"spec":[1]},"assigned_worker":"w1","attempt":"1"}"#)]
    #[case(r#"{"type":"SOMETHING","task_id":"t","worker_id":"w1"}"#)]
    #[case(r#"{"type":"TASK_RELEASED","task_id":"t","worker_id":"w2"}"#)]
    fn what_cannot_be_done_is_passed_over(#[case] text: &str) {
        assert_eq!(command(text, "w1"), None);
    }

    #[test]
    fn a_release_names_the_attempt_or_means_any() {
        let text = r#"{"type":"TASK_RELEASED","task_id":"t","worker_id":"w1","attempt":null}"#;
        assert_eq!(command(text, "w1"), Some(Command::Release { task: "t".to_owned(), attempt: None }));
    }
}
