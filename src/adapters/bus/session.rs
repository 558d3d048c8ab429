//! One connection of a worker to the embedded bus: what it says, in the messages of Redis, and what is said to it. Knows no sockets.
//!
//! Expected flow: REGISTER first; then whatever it has to tell, in its order. After a connection that broke the same process
//! registers again, says what it is at and what it has ended that nobody acknowledged, and goes on.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::Instant};

use super::{
    BusEvent, WorkerEvent, WorkerNews, WorkerRecord,
    embedded::{EmbeddedBus, Kin},
    name, wire,
};

/// In the `env` of a worker's record: how it speaks to us.
pub const CONNECTION: &str = "connection";
pub const WEBSOCKET: &str = "websocket";
/// Longer ids would be cut off somewhere.
const LONGEST_ID: usize = 253;

/// A connection. Dropped, the worker has a while to come back.
pub struct Session {
    bus: EmbeddedBus,
    worker: String,
    number: u64,
    mail: mpsc::Receiver<String>,
    /// It has taken its leave.
    left: bool,
}

/// Why a connection is not wanted (any more).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwanted {
    /// It will never be.
    #[error("{0}")]
    Wrong(String),
    /// It may be later.
    #[error("{0}")]
    Later(&'static str),
}

/// What a task printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskLog {
    pub task: String,
    pub attempt: Option<String>,
    pub lines: Vec<LogLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    /// When it was read, as the worker's clock has it.
    pub ts: String,
    /// `stdout`, `stderr`, or `worker` for what the worker itself says.
    pub stream: String,
    pub text: String,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    type_: String,
    worker_id: Option<String>,
    task_id: Option<String>,
    attempt: Option<String>,
    ts: Option<String>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    payload: Option<Map<String, Value>>,
}

impl Session {
    /// Takes the first message of a connection, which must be REGISTER, with `env`, `hardware`, `started_at` and `pid` in its
    /// payload.
    pub fn open(bus: &EmbeddedBus, text: &str) -> Result<Self, Unwanted> {
        let record = registration(text)?;
        let worker = record.id.clone();
        let Some((number, mail)) = bus.connect(record) else {
            return Err(Unwanted::Later("another process with this worker_id is connected"));
        };
        bus.tell(BusEvent::Worker(WorkerEvent { worker: worker.clone(), news: WorkerNews::Registered }));
        Ok(Self { bus: bus.clone(), worker, number, mail, left: false })
    }

    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// The next message to the worker. None: this connection is not its own any more. Cancel-safe.
    pub async fn next(&mut self) -> Option<String> {
        self.mail.recv().await
    }

    /// Takes what the worker says. Messages of types that nobody knows are passed over, as on Redis.
    pub fn hear(&mut self, text: &str) -> Result<Option<TaskLog>, Unwanted> {
        let said = read(text)?;
        if said.worker_id.as_deref() != Some(&self.worker) {
            return Err(Unwanted::Wrong(format!("worker_id: this connection is {}'s", self.worker)));
        }
        if said.type_ == "TASK_LOG" {
            return log(said).map(Some);
        }
        let channel = if said.type_.starts_with("TASK_") { name::TASK_EVENTS } else { name::WORKER_EVENTS };
        let Some(event) = wire::event(channel, text.as_bytes()) else { return Ok(None) };
        if let BusEvent::Worker(event) = &event {
            if event.news == WorkerNews::Unregistered {
                self.left = true;
                // Of a connection that a newer one has replaced it is no leave.
                if self.bus.change(&self.worker, self.number, |_| ()) {
                    self.bus.forget(&self.worker);
                }
            } else {
                let ttl = self.bus.heartbeat_ttl();
                let change = |kin: &mut Kin| apply(kin, &event.news, said.ts, Instant::now() + ttl);
                if !self.bus.change(&self.worker, self.number, change) {
                    return Err(Unwanted::Later("the worker has another connection"));
                }
            }
        }
        self.bus.tell(event);
        Ok(None)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.left {
            self.bus.disconnect(&self.worker, self.number);
        }
    }
}

/// What the worker would have written into its keys.
fn apply(kin: &mut Kin, news: &WorkerNews, at: Option<String>, until: Instant) {
    let record = &mut kin.record;
    match news {
        WorkerNews::Running { task, attempt } => {
            record.status = Some("RUNNING".to_owned());
            // Of an attempt before, it says nothing of the one that it was given last.
            if kin.attempt.is_none() || kin.attempt == *attempt {
                record.began = task.clone().or(record.began.take());
            }
        }
        // What it has ended it tells itself until it is acknowledged: nobody needs to guess it from what is kept here.
        WorkerNews::Idle { .. } => record.status = Some("IDLE".to_owned()),
        WorkerNews::Draining => record.status = Some("DRAINING".to_owned()),
        WorkerNews::Heartbeat => {
            record.heartbeat = at.clone();
            kin.until = Some(until);
        }
        WorkerNews::Registered | WorkerNews::Unregistered => {}
    }
    kin.record.last_seen = at.or(kin.record.last_seen.take());
}

fn read(text: &str) -> Result<Said, Unwanted> {
    serde_json::from_str(text).map_err(|error| Unwanted::Wrong(format!("not a message: {error}")))
}

fn registration(text: &str) -> Result<WorkerRecord, Unwanted> {
    let wrong = |why: &str| Unwanted::Wrong(why.to_owned());
    let said = read(text)?;
    if said.type_ != "REGISTER" {
        return Err(wrong("type: the first message must be REGISTER"));
    }
    let id = said.worker_id.filter(|id| !id.is_empty() && id.len() <= LONGEST_ID);
    let id = id.ok_or_else(|| wrong("worker_id: a name of 1 to 253 bytes is needed"))?;
    let payload = said.payload.ok_or_else(|| wrong("payload: env, hardware, started_at and pid are needed"))?;
    let map = |key: &str| payload.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let started_at = payload.get("started_at").and_then(Value::as_str).filter(|at| !at.is_empty());
    // Without it a process that comes back could not be told from another one.
    let started_at = started_at.ok_or_else(|| wrong("payload.started_at: a time is needed"))?;
    let mut env = map("env");
    env.insert(CONNECTION.to_owned(), json!(WEBSOCKET));
    Ok(WorkerRecord {
        id,
        status: Some("STARTING".to_owned()),
        started_at: Some(started_at.to_owned()),
        pid: payload.get("pid").and_then(Value::as_i64),
        env,
        hardware: map("hardware"),
        tags: said.tags.unwrap_or_default(),
        last_seen: said.ts.clone(),
        cost_per_hour: payload.get("cost_per_hour").and_then(Value::as_f64),
        began: None,
        ended: None,
        heartbeat: said.ts.or_else(|| Some(started_at.to_owned())),
        parted: false,
        registered: true,
    })
}

fn log(said: Said) -> Result<TaskLog, Unwanted> {
    let task = said.task_id.ok_or_else(|| Unwanted::Wrong("task_id: of which task is this the log?".to_owned()))?;
    let lines = said.payload.and_then(|mut payload| payload.remove("lines")).unwrap_or_default();
    let lines = serde_json::from_value(lines).map_err(|error| Unwanted::Wrong(format!("payload.lines: {error}")))?;
    Ok(TaskLog { task, attempt: said.attempt, lines })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;

    use super::*;
    use crate::adapters::bus::{Bus, Dispatch, Release, TaskNews};

    const TTL: Duration = Duration::from_secs(120);

    fn register(id: &str, started_at: &str) -> String {
        json!({"type": "REGISTER", "ts": "2026-11-30T10:00:00Z", "worker_id": id, "tags": ["cpu"],
            "payload": {"env": {}, "hardware": {"cpu": {"logical_cores": 2}}, "started_at": started_at, "pid": 7}})
        .to_string()
    }

    fn dispatch(worker: &str, incarnation: &str) -> Dispatch {
        Dispatch {
            task: "t".to_owned(),
            worker: worker.to_owned(),
            document: json!({"spec": {"taskType": "echo"}}),
            dispatched_at: jiff::Timestamp::UNIX_EPOCH,
            shard: None,
            attempt: Some("1-x".to_owned()),
            incarnation: Some(incarnation.to_owned()),
            delivers_elsewhere: false,
            gpus: Vec::new(),
        }
    }

    async fn record(bus: &EmbeddedBus, id: &str) -> Option<WorkerRecord> {
        bus.roll(&[]).await.expect("it answers").into_iter().find(|record| record.id == id)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_what_it_says_and_gets_what_is_its_own() {
        let bus = EmbeddedBus::new(TTL);
        let mut events = bus.events();
        assert_eq!(events.next().await, Some(BusEvent::Connected));
        let mut session = Session::open(&bus, &register("w1", "a")).expect("wanted");
        let mut other = Session::open(&bus, &register("w2", "a")).expect("wanted");
        let seen = record(&bus, "w1").await.expect("it is there");
        assert_eq!((seen.pid, seen.status.as_deref(), seen.registered), (Some(7), Some("STARTING"), true));
        assert!(seen.heartbeat.is_some() && seen.env[CONNECTION] == WEBSOCKET);
        session.hear(r#"{"type":"STATUS","worker_id":"w1","status":"IDLE","payload":{}}"#).expect("heard");
        assert_eq!(bus.dispatch(&dispatch("w1", "a")).await.ok(), Some(1));
        let message: Value = serde_json::from_str(&session.next().await.expect("a message")).expect("JSON");
        assert_eq!((&message["task_id"], &message["attempt"]), (&json!("t"), &json!("1-x")));
        bus.release(&Release { worker: "w1".to_owned(), task: "t".to_owned(), attempt: None }).await.expect("told");
        assert!(session.next().await.expect("a message").contains("TASK_RELEASED"));
        assert!(futures::poll!(std::pin::pin!(other.next())).is_pending());
        session
            .hear(r#"{"type":"TASK_FAILED","worker_id":"w1","task_id":"t","attempt":"1-x","error":"boom"}"#)
            .expect("heard");
        let failed = loop {
            match events.next().await.expect("an event") {
                BusEvent::Task(event) => break event,
                BusEvent::Worker(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((failed.news, failed.attempt.as_deref()), (TaskNews::Failed("boom".to_owned()), Some("1-x")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_connection_shows_soon_unless_the_worker_comes_back() {
        let bus = EmbeddedBus::new(TTL);
        let session = Session::open(&bus, &register("w1", "a")).expect("wanted");
        drop(session);
        assert!(record(&bus, "w1").await.expect("it is there").heartbeat.is_some());
        // tidy: the clock is paused.
        tokio::time::advance(super::super::embedded::RECONNECT_WITHIN).await;
        assert!(record(&bus, "w1").await.expect("it is there").heartbeat.is_none());
        let _again = Session::open(&bus, &register("w1", "a")).expect("wanted");
        tokio::time::advance(TTL / 2).await;
        assert!(record(&bus, "w1").await.expect("it is there").heartbeat.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_connection_of_the_same_process_counts_and_one_of_another_waits() {
        let bus = EmbeddedBus::new(TTL);
        let mut first = Session::open(&bus, &register("w1", "a")).expect("wanted");
        assert!(matches!(Session::open(&bus, &register("w1", "b")), Err(Unwanted::Later(_))));
        let mut second = Session::open(&bus, &register("w1", "a")).expect("wanted");
        assert_eq!(first.next().await, None);
        drop(first);
        assert_eq!(bus.dispatch(&dispatch("w1", "a")).await.ok(), Some(1));
        assert!(second.next().await.is_some());
        drop(second);
        let mut other = Session::open(&bus, &register("w1", "b")).expect("wanted");
        // What was meant for the process before is not for this one.
        assert_eq!(bus.dispatch(&dispatch("w1", "a")).await.ok(), Some(0));
        other.hear(r#"{"type":"UNREGISTER","worker_id":"w1"}"#).expect("heard");
        assert_eq!(record(&bus, "w1").await, None);
    }

    #[tokio::test]
    async fn who_does_not_read_loses_its_connection() {
        let bus = EmbeddedBus::new(TTL);
        let mut session = Session::open(&bus, &register("w1", "a")).expect("wanted");
        let mut taken = 0;
        while bus.dispatch(&dispatch("w1", "a")).await.ok() == Some(1) {
            taken += 1;
        }
        for _ in 0..taken {
            assert!(session.next().await.is_some());
        }
        assert_eq!((taken, session.next().await), (64, None));
    }

    #[rstest::rstest]
    #[case("no JSON", "not a message")]
    #[case(r#"{"type":"STATUS","worker_id":"w1"}"#, "type:")]
    #[case(r#"{"type":"REGISTER","payload":{}}"#, "worker_id:")]
    #[case(r#"{"type":"REGISTER","worker_id":"w1"}"#, "payload:")]
    #[case(r#"{"type":"REGISTER","worker_id":"w1","payload":{}}"#, "payload.started_at:")]
    fn a_bad_registration_is_told_with_its_field(#[case] text: &str, #[case] told: &str) {
        let Err(Unwanted::Wrong(why)) = Session::open(&EmbeddedBus::new(TTL), text) else { panic!("it was taken") };
        assert!(why.starts_with(told), "{why}");
    }

    #[tokio::test]
    async fn nobody_speaks_for_another() {
        let bus = EmbeddedBus::new(TTL);
        let mut session = Session::open(&bus, &register("w1", "a")).expect("wanted");
        assert!(session.hear(r#"{"type":"TASK_SUCCEEDED","worker_id":"w2","task_id":"t"}"#).is_err());
        let log = r#"{"type":"TASK_LOG","worker_id":"w1","task_id":"t","attempt":"1-x","payload":{"lines":[{"ts":"x","stream":"stdout","text":"hello"}]}}"#;
        let log = session.hear(log).expect("heard").expect("a log");
        assert_eq!((log.task.as_str(), log.lines[0].text.as_str()), ("t", "hello"));
    }
}
