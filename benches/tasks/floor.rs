//! The least that does the same: a document comes in over HTTP, goes to a free worker over Redis by the very transaction of the
//! product, and its result is stored by the product's own files and answered. No object, no state that survives, no rules.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use gaia::adapters::{
    bus::{Bus, Dispatch, redis::RedisBus},
    results::ResultFiles,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

struct Floor {
    bus: RedisBus,
    results: ResultFiles,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    tasks: VecDeque<(String, Value)>,
    free: Vec<String>,
}

/// For ever. Workers must be registered by the first request.
pub async fn serve(listen: SocketAddr, redis: &str, directory: &Path) {
    let bus = RedisBus::new(redis, None).expect("an address");
    let results = ResultFiles::new(directory).expect("a directory");
    let free = loop {
        let roll = bus.roll(&[]).await.expect("Redis answers");
        if roll.len() >= super::workers::WORKERS {
            break roll.into_iter().map(|record| record.id).collect();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let floor = Arc::new(Floor { bus, results, waiting: Mutex::new(Waiting { free, ..Waiting::default() }) });
    let router =
        Router::new().route("/api/v1/tasks", post(submit)).route("/api/v1/results", post(take)).with_state(floor);
    let listener = TcpListener::bind(listen).await.expect("a free port");
    let listener = axum::serve::ListenerExt::tap_io(listener, |io| drop(io.set_nodelay(true)));
    axum::serve(listener, router).await.expect("it serves");
}

async fn submit(State(floor): State<Arc<Floor>>, Json(body): Json<Value>) -> Json<Value> {
    let document = serde_json::from_str(body["yaml"].as_str().unwrap_or_default()).expect("a document");
    let id = uuid::Uuid::new_v4().to_string();
    floor.waiting.lock().expect("no panic").tasks.push_back((id.clone(), document));
    floor.hand_out().await;
    Json(json!({"ok": true, "count": 1, "tasks": [{"task_id": id}]}))
}

async fn take(State(floor): State<Arc<Floor>>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let path = floor.results.store(&text("task_id"), &body).await.expect("stored");
    floor.waiting.lock().expect("no panic").free.push(text("worker_id"));
    floor.hand_out().await;
    (StatusCode::OK, Json(json!({"ok": true, "path": path})))
}

impl Floor {
    async fn hand_out(&self) {
        loop {
            let next = {
                let mut waiting = self.waiting.lock().expect("no panic");
                let worker = waiting.free.pop();
                let task = worker.is_some().then(|| waiting.tasks.pop_front()).flatten();
                match (worker, task) {
                    (Some(worker), Some(task)) => (worker, task),
                    (worker, _) => {
                        waiting.free.extend(worker);
                        return;
                    }
                }
            };
            let (worker, (task, document)) = next;
            let dispatched_at = jiff::Timestamp::now();
            let dispatch = Dispatch {
                task,
                worker,
                document,
                dispatched_at,
                shard: None,
                attempt: None,
                incarnation: None,
                delivers_elsewhere: false,
                gpus: Vec::new(),
            };
            self.bus.dispatch(&dispatch).await.expect("Redis answers");
        }
    }
}
