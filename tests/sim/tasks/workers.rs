//! Workers as MLOC has them, of both wires: they are idle before they listen, are late to say that they are idle, run one thing after
//! the other whatever it is, and die. What they do with their keys and channels follows section 2 of the contract.

use std::time::Duration;

use gaia::adapters::bus::{name, stamp};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep},
};

use super::{
    oracle::{self, End, Run},
    redis::{Away, Message},
    world::TaskWorld,
};

/// Of a heartbeat, and between two.
pub const TTL: Duration = Duration::from_secs(120);
pub const BEAT: Duration = Duration::from_secs(30);

/// Which words a worker uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// `extra`, no TASK_STARTED; dies with its connection.
    First,
    /// `payload`, every key always there; listens again.
    Later,
}

/// How a worker is.
#[derive(Debug, Clone)]
pub struct Manners {
    pub id: &'static str,
    pub generation: Generation,
    pub cores: u32,
    /// The uuid of its card.
    pub card: Option<String>,
    /// Takes so many times as long as others.
    pub slowness: u64,
    pub late_idle: bool,
}

/// Runs until it dies; dropped it dies as with `kill -9`.
pub async fn work(world: TaskWorld, manners: Manners) {
    let mut worker = Worker { world, manners, since: Instant::now() };
    // Its thread of heartbeats, and the one that works.
    let beating = beat(worker.world.clone(), worker.manners.id);
    tokio::select! {
        biased;
        _ = worker.live() => worker.world.tell(format_args!("worker {} ends: Redis is away", worker.manners.id)),
        () = beating => {}
    }
}

async fn beat(world: TaskWorld, id: &'static str) {
    loop {
        sleep(BEAT).await;
        if world.is_mute(id) {
            continue;
        }
        let now = stamp(world.world.clock.now());
        // What cannot be written is written the next time.
        world.redis.beat(id, now.clone(), TTL).ok();
        world.redis.write(id, &[("last_seen", now.clone())]).ok();
        let message = json!({"type": "HEARTBEAT", "worker_id": id, "ts": now, "metrics": {}});
        world.redis.publish(name::WORKER_EVENTS, &message.to_string()).ok();
    }
}

struct Worker {
    world: TaskWorld,
    manners: Manners,
    since: Instant,
}

/// A run that is given up with its process.
struct Running<'w>(&'w TaskWorld, usize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        oracle::ended(self.0, self.1, End::Stopped);
    }
}

impl Worker {
    async fn live(&mut self) -> Result<(), Away> {
        self.register().await?;
        // It loads what it needs, and is taken for idle meanwhile.
        let loading = self.world.below(if self.world.below(3) == 0 { 12_000 } else { 300 });
        sleep(Duration::from_millis(loading)).await;
        loop {
            let mut messages = match self.world.redis.subscribe(&[name::TASKS]) {
                Ok(messages) => messages,
                Err(Away) if self.manners.generation == Generation::Later => {
                    sleep(Duration::from_millis(500)).await;
                    continue;
                }
                Err(Away) => return Err(Away),
            };
            self.listen(&mut messages).await?;
            if self.manners.generation == Generation::First {
                return Err(Away);
            }
        }
    }

    fn now(&self) -> String {
        stamp(self.world.world.clock.now())
    }

    async fn register(&self) -> Result<(), Away> {
        let (redis, id, now) = (&self.world.redis, self.manners.id, self.now());
        self.world.tell(format_args!("worker {id} begins"));
        let card = |uuid: &String| json!([{"index": 0, "name": "Simulated RTX 4090", "uuid": uuid}]);
        let hardware = json!({"cpu": {"logical_cores": self.manners.cores, "model": "x86_64"},
            "memory": {"total_bytes": 64_u64 << 30}, "network": {"ip": "127.0.0.1"},
            "gpu": {"driver_version": null, "cuda_version": null, "gpus": self.manners.card.as_ref().map_or(json!([]), card)}});
        let fields = [
            ("worker_id", id.to_owned()),
            ("status", "STARTING".to_owned()),
            ("started_at", now.clone()),
            ("pid", (1000 + self.world.below(60_000)).to_string()),
            ("env_json", "{}".to_owned()),
            ("hardware_json", hardware.to_string()),
            ("tags_json", "[]".to_owned()),
            ("last_seen", now.clone()),
        ];
        redis.write(id, &fields)?;
        redis.enlist(id)?;
        let more = match self.manners.generation {
            Generation::First => json!({}),
            Generation::Later => json!({"metrics": {}, "payload": {"env": {}, "hardware": hardware}}),
        };
        self.say(name::WORKER_EVENTS, json!({"type": "REGISTER", "status": "STARTING", "tags": []}), more).await?;
        redis.beat(id, now, TTL)?;
        self.status("IDLE", json!({})).await
    }

    async fn status(&self, status: &str, extra: Value) -> Result<(), Away> {
        let names = [("task_id", "extra_task_id"), ("last_task", "extra_last_task")];
        let mut fields = vec![("status", status.to_owned()), ("last_seen", self.now())];
        for (key, field) in names {
            fields.extend(extra[key].as_str().map(|task| (field, task.to_owned())));
        }
        self.world.redis.write(self.manners.id, &fields)?;
        let more = match self.manners.generation {
            Generation::First => json!({"extra": extra}),
            Generation::Later => json!({"tags": null, "metrics": {}, "payload": extra}),
        };
        self.say(name::WORKER_EVENTS, json!({"type": "STATUS", "status": status}), more).await
    }

    async fn say(&self, channel: &'static str, mut message: Value, more: Value) -> Result<(), Away> {
        message["worker_id"] = json!(self.manners.id);
        message["ts"] = json!(self.now());
        json_patch::merge(&mut message, &more);
        let pause = self.world.below(20);
        sleep(Duration::from_millis(pause)).await;
        self.world.redis.publish(channel, &message.to_string()).map(drop)
    }

    /// Until the connection is gone.
    async fn listen(&self, messages: &mut UnboundedReceiver<Message>) -> Result<(), Away> {
        while let Some((_, text)) = messages.recv().await {
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["assigned_worker"] == json!(self.manners.id) {
                self.run(&message).await?;
            }
        }
        Ok(())
    }

    async fn run(&self, message: &Value) -> Result<(), Away> {
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let (task, document) = (text("task_id"), &message["task"]);
        let id = self.manners.id;
        let run = Run {
            task: task.clone(),
            worker: id.to_owned(),
            dispatched_at: text("dispatched_at"),
            attempt: None,
            end: End::Going,
            // What was meant for the process before, which nobody knew to be gone, comes to this one.
            doubtful: self.world.was_mute(id, 2 * BEAT) || self.since.elapsed() < BEAT,
        };
        let number = oracle::begun(&self.world, run);
        let _until_dropped = Running(&self.world, number);
        self.world.tell(format_args!("    {id} begins {task}"));
        let since = Instant::now();
        self.status("RUNNING", json!({"task_id": task})).await?;
        let payload = json!({"taskType": document["spec"]["taskType"], "dispatched_at": message["dispatched_at"]});
        if self.manners.generation == Generation::Later {
            self.event("TASK_STARTED", &task, None, &payload).await?;
        }
        let error = self.outcome(&task, number, document).await.err();
        let end = if error.is_some() { End::Failed } else { End::Succeeded };
        oracle::ended(&self.world, number, end);
        self.world.tell(format_args!("    {id}: {task} {end:?} after {:?}", since.elapsed()));
        match &error {
            None => self.event("TASK_SUCCEEDED", &task, None, &payload).await?,
            Some(error) => self.event("TASK_FAILED", &task, Some(error), &payload).await?,
        }
        if self.manners.late_idle {
            let late = self.world.below(1_500);
            sleep(Duration::from_millis(late)).await;
        }
        self.status("IDLE", json!({"last_task": task})).await
    }

    async fn outcome(&self, task: &str, run: usize, document: &Value) -> Result<(), String> {
        let step = &document["spec"]["step"];
        let takes = step["ms"].as_u64().unwrap_or(0) * self.manners.slowness;
        sleep(Duration::from_millis(takes)).await;
        if self.world.ledger().times(task) as u64 <= step["fails"].as_u64().unwrap_or(0) {
            return Err("boom".to_owned());
        }
        if document["spec"]["output"]["destination"]["type"] != "http" {
            return Ok(());
        }
        let result = json!({"run": run, "items": document["spec"]["data"]["items"]});
        let body = json!({"task_id": task, "result": result, "worker_id": self.manners.id});
        let answer = tokio::time::timeout(Duration::from_secs(15), self.world.ask("POST", "/api/v1/results", body));
        match answer.await {
            Ok(Some((status, _))) if status.is_success() => Ok(()),
            Ok(Some((status, body))) => Err(format!("{status}: {body}")),
            Ok(None) => Err("the connection broke".to_owned()),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    async fn event(&self, type_: &str, task: &str, error: Option<&str>, payload: &Value) -> Result<(), Away> {
        let more = match (self.manners.generation, error) {
            (Generation::First, Some(error)) => json!({"error": error}),
            (Generation::First, None) => json!({"result": {}}),
            (Generation::Later, error) => json!({"status": null, "error": error, "payload": payload}),
        };
        let mut message = json!({"type": type_, "task_id": task});
        if self.manners.generation == Generation::Later {
            message["error"] = Value::Null;
        }
        self.say(name::TASK_EVENTS, message, more).await
    }
}
