//! Workers on MLOC's wire that take no time: each a connection that listens, one that speaks, and one that delivers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinSet};

use super::common::Client;

pub const WORKERS: usize = 16;

/// Who waits for which task. A task may end before its submitter has heard what it is called.
#[derive(Clone, Default)]
pub struct Ends(Arc<Mutex<HashMap<String, End>>>);

enum End {
    Awaited(oneshot::Sender<()>),
    Over,
}

impl Ends {
    /// Its result is stored, and that was answered.
    fn over(&self, task: &str) {
        let mut ends = self.0.lock().expect("no panic");
        match ends.remove(task) {
            Some(End::Awaited(waiting)) => drop(waiting.send(())),
            Some(End::Over) | None => drop(ends.insert(task.to_owned(), End::Over)),
        }
    }

    pub async fn of(&self, task: &str) {
        let waiting = {
            let mut ends = self.0.lock().expect("no panic");
            if ends.remove(task).is_some() {
                return;
            }
            let (over, waiting) = oneshot::channel();
            ends.insert(task.to_owned(), End::Awaited(over));
            waiting
        };
        waiting.await.expect("workers outlive this");
    }
}

/// Registered and listening when this returns. They end with the set.
pub async fn start(redis: &str, server: SocketAddr, ends: &Ends) -> JoinSet<()> {
    let client = redis::Client::open(redis).expect("an address");
    let mut workers = JoinSet::new();
    for n in 0..WORKERS {
        let mut worker = Worker {
            id: format!("w{n}"),
            redis: client.get_multiplexed_async_connection().await.expect("Redis answers"),
            server: None,
            address: server,
            ends: ends.clone(),
        };
        let mut listening = client.get_async_pubsub().await.expect("Redis answers");
        listening.subscribe("tasks").await.expect("Redis answers");
        worker.register().await;
        workers.spawn(async move {
            let mut messages = listening.into_on_message();
            while let Some(message) = messages.next().await {
                let message: Value = serde_json::from_slice(message.get_payload_bytes()).expect("JSON");
                if message["assigned_worker"] == json!(worker.id) {
                    worker.run(&message).await;
                }
            }
        });
    }
    workers
}

struct Worker {
    id: String,
    redis: redis::aio::MultiplexedConnection,
    server: Option<Client>,
    address: SocketAddr,
    ends: Ends,
}

impl Worker {
    async fn register(&mut self) {
        let key = format!("worker:{}", self.id);
        let hardware = json!({"cpu": {"logical_cores": 8}, "memory": {"total_bytes": 64_u64 << 30}});
        let now = jiff::Timestamp::now().to_string();
        let fields = [
            ("worker_id", self.id.clone()),
            ("status", "IDLE".to_owned()),
            ("started_at", now.clone()),
            ("env_json", "{}".to_owned()),
            ("hardware_json", hardware.to_string()),
            ("tags_json", "[]".to_owned()),
        ];
        let register = json!({"type": "REGISTER", "worker_id": self.id, "status": "STARTING", "tags": []});
        let mut pipe = redis::pipe();
        pipe.hset_multiple(&key, &fields).ignore().sadd("workers:ids", &self.id).ignore();
        pipe.set_ex(format!("{key}:hb"), now, 3600).ignore().publish("workers.events", register.to_string()).ignore();
        let _: () = pipe.query_async(&mut self.redis).await.expect("Redis answers");
    }

    async fn status(&mut self, status: &str, field: &str, name: &str, task: &str) {
        let message = json!({"type": "STATUS", "worker_id": self.id, "status": status, "extra": {name: task}});
        let mut pipe = redis::pipe();
        pipe.hset_multiple(format!("worker:{}", self.id), &[("status", status), (field, task)]).ignore();
        pipe.publish("workers.events", message.to_string()).ignore();
        let _: () = pipe.query_async(&mut self.redis).await.expect("Redis answers");
    }

    async fn run(&mut self, message: &Value) {
        let task = message["task_id"].as_str().expect("an id");
        self.status("RUNNING", "extra_task_id", "task_id", task).await;
        let result = json!({"items": message["task"]["spec"]["data"]["items"]});
        let body = json!({"task_id": task, "worker_id": self.id, "result": result}).to_string();
        if self.server.is_none() {
            self.server = Some(Client::connect(self.address).await);
        }
        let server = self.server.as_mut().expect("connected a moment ago");
        let (status, answer) = server.call("POST", "/api/v1/results", body.as_bytes()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        self.ends.over(task);
        let message = json!({"type": "TASK_SUCCEEDED", "worker_id": self.id, "task_id": task, "result": {}});
        let _: () = redis::pipe()
            .publish("tasks.events", message.to_string())
            .ignore()
            .query_async(&mut self.redis)
            .await
            .expect("Redis answers");
        self.status("IDLE", "extra_last_task", "last_task", task).await;
    }
}
