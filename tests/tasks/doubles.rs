//! Workers that speak MLOC's wire, as `mloc-wire-samples` has it of each generation, and can be as bad as real ones: they listen
//! late, lose and double what they say, and die.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use redis::AsyncCommands;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};

/// Which words a worker uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// `e39cdcf`: `extra`, no TASK_STARTED.
    First,
    /// `dfb9836`, `cf5d35b`: `payload`, every key always there.
    Later,
}

/// How a worker is.
#[derive(Clone)]
pub struct Manners {
    pub generation: Generation,
    /// Of its heartbeat key.
    pub ttl: Duration,
    pub cores: u32,
    /// uuids of its cards.
    pub cards: Vec<String>,
    /// Told to before it listens; until then it is registered and idle.
    pub listens: Option<Arc<Notify>>,
    /// Of a hundred messages it says so many not at all, and so many twice.
    pub lost_percent: u8,
    pub doubled_percent: u8,
    /// Writes that it is idle only when the next task may be there already.
    pub late_idle: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            generation: Generation::First,
            ttl: Duration::from_secs(120),
            cores: 8,
            cards: vec!["GPU-0".to_owned(), "GPU-1".to_owned()],
            listens: None,
            lost_percent: 0,
            doubled_percent: 0,
            late_idle: false,
        }
    }
}

/// What every worker of a test ran.
#[derive(Clone, Default)]
pub struct Ledger {
    runs: Arc<Mutex<Vec<(String, String, Value)>>>,
}

impl Ledger {
    fn note(&self, task: &str, worker: &str, document: &Value) {
        self.runs.lock().expect("no panic").push((task.to_owned(), worker.to_owned(), document.clone()));
    }

    /// How often each task was begun.
    pub fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for (task, _, _) in self.runs.lock().expect("no panic").iter() {
            *counts.entry(task.clone()).or_default() += 1;
        }
        counts
    }

    /// Who ran a task, in order.
    pub fn workers(&self, task: &str) -> Vec<String> {
        let runs = self.runs.lock().expect("no panic");
        runs.iter().filter(|(id, _, _)| id == task).map(|(_, worker, _)| worker.clone()).collect()
    }

    /// The documents that a task was run with.
    pub fn documents(&self, task: &str) -> Vec<Value> {
        let runs = self.runs.lock().expect("no panic");
        runs.iter().filter(|(id, _, _)| id == task).map(|(_, _, document)| document.clone()).collect()
    }
}

/// A worker at work. Dropped it dies as with `kill -9`: it says nothing more, and its keys stay.
pub struct Double {
    working: JoinHandle<()>,
    beating: JoinHandle<()>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.working.abort();
        self.beating.abort();
    }
}

struct Worker {
    id: String,
    manners: Manners,
    connection: redis::aio::MultiplexedConnection,
    ledger: Ledger,
    http: reqwest::Client,
    dice: fastrand::Rng,
}

impl Double {
    /// Registered and idle when this returns; it listens as soon as its manners allow.
    pub async fn start(client: redis::Client, id: &str, manners: Manners, ledger: &Ledger) -> Self {
        let connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let ledger = ledger.clone();
        let seed = id.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
        let mut worker =
            Worker { id: id.to_owned(), manners, connection, ledger, http, dice: fastrand::Rng::with_seed(seed) };
        worker.register().await;
        let beating = tokio::spawn(beat(client.clone(), id.to_owned(), worker.manners.ttl));
        let working = tokio::spawn(async move {
            if let Some(listens) = worker.manners.listens.clone() {
                listens.notified().await;
            }
            worker.work(client).await;
        });
        Self { working, beating }
    }
}

/// Its heartbeat, four times as often as it must; a worker whose Redis is away tries again.
async fn beat(client: redis::Client, id: String, ttl: Duration) {
    let mut ticks = tokio::time::interval((ttl / 4).min(Duration::from_secs(1)));
    loop {
        ticks.tick().await;
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { continue };
        let seconds = ttl.as_secs().max(1);
        let beaten: Result<(), _> = redis::pipe()
            .set_ex(format!("worker:{id}:hb"), stamp(), seconds)
            .ignore()
            .hset(format!("worker:{id}"), "last_seen", stamp())
            .ignore()
            .query_async(&mut connection)
            .await;
        // Tried again at the next tick.
        beaten.ok();
    }
}

impl Worker {
    async fn register(&mut self) {
        let key = format!("worker:{}", self.id);
        let card = |(index, uuid): (usize, &String)| json!({"index": index, "name": "NVIDIA H200", "uuid": uuid});
        let cards: Vec<Value> = self.manners.cards.iter().enumerate().map(card).collect();
        let hardware = json!({"cpu": {"logical_cores": self.manners.cores, "model": "x86_64"},
            "memory": {"total_bytes": 64u64 << 30}, "network": {"ip": "127.0.0.1"},
            "gpu": {"driver_version": null, "cuda_version": null,
                "gpus": cards}});
        let fields = [
            ("worker_id", self.id.clone()),
            ("status", "STARTING".to_owned()),
            ("started_at", stamp()),
            ("pid", "4711".to_owned()),
            ("env_json", "{}".to_owned()),
            ("hardware_json", hardware.to_string()),
            ("tags_json", r#"["cpu","test"]"#.to_owned()),
            ("last_seen", stamp()),
        ];
        let _: () = self.connection.hset_multiple(&key, &fields).await.expect("written");
        let _: () = self.connection.sadd("workers:ids", &self.id).await.expect("written");
        let more = match self.manners.generation {
            Generation::First => json!({}),
            Generation::Later => {
                json!({"metrics": {}, "payload": {"env": {}, "hardware": hardware, "cost_per_hour": 1.0}})
            }
        };
        self.say("workers.events", json!({"type": "REGISTER", "status": "STARTING", "tags": ["cpu", "test"]}), more)
            .await;
        let _: () = self
            .connection
            .set_ex(format!("{key}:hb"), stamp(), self.manners.ttl.as_secs().max(1))
            .await
            .expect("written");
        self.status("IDLE", json!({})).await;
    }

    async fn status(&mut self, status: &str, extra: Value) {
        let key = format!("worker:{}", self.id);
        let mut fields = vec![("status".to_owned(), status.to_owned()), ("last_seen".to_owned(), stamp())];
        for (name, value) in extra.as_object().expect("a map") {
            fields.push((format!("extra_{name}"), value.as_str().unwrap_or_default().to_owned()));
        }
        // As real workers: what cannot be written is not written.
        let written: Result<(), _> = self.connection.hset_multiple(&key, &fields).await;
        written.ok();
        let more = match self.manners.generation {
            Generation::First => json!({"extra": extra}),
            Generation::Later => json!({"tags": null, "metrics": {}, "payload": extra}),
        };
        self.say("workers.events", json!({"type": "STATUS", "status": status}), more).await;
    }

    async fn say(&mut self, channel: &str, mut message: Value, more: Value) {
        message["worker_id"] = json!(self.id);
        message["ts"] = json!(stamp());
        json_patch::merge(&mut message, &more);
        let dice = self.dice.u8(0..100);
        let times = match dice {
            dice if dice < self.manners.lost_percent => 0,
            dice if dice < self.manners.lost_percent + self.manners.doubled_percent => 2,
            _ => 1,
        };
        for _ in 0..times {
            let said: Result<(), _> = self.connection.publish(channel, message.to_string()).await;
            said.ok();
        }
    }

    async fn work(mut self, client: redis::Client) {
        loop {
            let Ok(mut messages) = client.get_async_pubsub().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if messages.subscribe("tasks").await.is_err() {
                continue;
            }
            if let Ok(connection) = client.get_multiplexed_async_connection().await {
                self.connection = connection;
            }
            let mut messages = messages.into_on_message();
            while let Some(message) = messages.next().await {
                let message: Value = serde_json::from_slice(message.get_payload_bytes()).expect("JSON");
                if message["assigned_worker"] == json!(self.id) {
                    self.run(&message).await;
                }
            }
        }
    }

    async fn run(&mut self, message: &Value) {
        let (task, document) = (message["task_id"].as_str().expect("an id").to_owned(), &message["task"]);
        assert!(document["spec"].is_object(), "a worker ends when it gets this: {message}");
        self.ledger.note(&task, &self.id, document);
        self.status("RUNNING", json!({"task_id": task})).await;
        let payload = json!({"taskType": document["spec"]["taskType"], "dispatched_at": message["dispatched_at"]});
        if self.manners.generation == Generation::Later {
            self.task_event("TASK_STARTED", &task, None, &payload).await;
        }
        if document["spec"]["double"]["hangs"] == json!(true) {
            std::future::pending::<()>().await;
        }
        let runs = self.ledger.counts().get(&task).copied().unwrap_or_default();
        let fails = document["spec"]["double"]["fails_times"].as_u64().is_some_and(|times| runs as u64 <= times);
        let error = match document["spec"]["double"]["fails"].as_str() {
            Some(error) => Some(error.to_owned()),
            None if fails => Some("boom".to_owned()),
            None => self.deliver(&task, document).await.err(),
        };
        match &error {
            None => self.task_event("TASK_SUCCEEDED", &task, None, &payload).await,
            Some(error) => self.task_event("TASK_FAILED", &task, Some(error), &payload).await,
        }
        if self.manners.late_idle {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        self.status("IDLE", json!({"last_task": task})).await;
    }

    async fn task_event(&mut self, type_: &str, task: &str, error: Option<&str>, payload: &Value) {
        let more = match self.manners.generation {
            Generation::First if error.is_some() => json!({"error": error}),
            Generation::First => json!({"result": {}}),
            Generation::Later => {
                let mut payload = payload.clone();
                payload["runtime_sec"] = json!(0.01);
                let mut more = json!({"payload": payload});
                more["error"] = json!(error);
                more
            }
        };
        self.say("tasks.events", json!({"type": type_, "task_id": task}), more).await;
    }

    /// As real workers: an archive first, with the headers of the document whatever they say, then the result. What is not 2xx
    /// makes the task fail.
    async fn deliver(&self, task: &str, document: &Value) -> Result<(), String> {
        let destination = &document["spec"]["output"]["destination"];
        if destination["type"] != "http" {
            return Ok(());
        }
        let url = destination["url"].as_str().expect("a URL").trim_end_matches('/');
        let mut result = json!({
            "items": document["spec"]["data"]["items"], "usage": {"prompt_tokens": 1}, "model": "canned",
            "upstream": document["spec"]["_upstreamResults"], "echo": document["spec"]["double"]["echo"],
        });
        if let Some(name) = document["spec"]["double"]["archive"].as_str() {
            let form = format!(
                "--b0undary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/zip\r\n\r\n\
                 archive of {task}\r\n--b0undary--\r\n"
            );
            let request = self.http.post(format!("{url}/{task}/files")).body(form);
            self.send(request, destination, "multipart/form-data; boundary=b0undary").await?;
            let kind = name.split('.').next().unwrap_or_default();
            result[format!("{kind}_archive_url")] = json!(format!("{url}/{task}/files/{name}"));
        }
        let body = json!({"task_id": task, "result": result, "worker_id": self.id}).to_string();
        self.send(self.http.post(url).body(body), destination, "application/json").await
    }

    async fn send(&self, request: reqwest::RequestBuilder, destination: &Value, type_: &str) -> Result<(), String> {
        let mut request = request;
        let headers = destination["headers"].as_object().cloned().unwrap_or_default();
        if !headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", type_);
        }
        for (name, value) in &headers {
            request = request.header(name, value.as_str().unwrap_or_default());
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default())),
        }
    }
}

fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}
