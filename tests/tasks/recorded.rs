//! Recordings of real workers, a generation each (`tests/fixtures/mloc`), played to the server message by message: it must say what
//! MLOC's orchestrator said in their places, and make the same of what they say.

use futures::StreamExt;
use redis::AsyncCommands;
use rstest::rstest;
use serde_json::{Value, json};

use super::world::{DEADLINE, World};
use crate::support::eventually;

/// What differs from one recording to the next.
const VOLATILE: [&str; 3] = ["task_id", "dispatched_at", "ts"];

#[rstest]
#[case::e39cdcf(include_str!("../fixtures/mloc/worker-e39cdcf.jsonl"))]
#[case::dfb9836(include_str!("../fixtures/mloc/worker-dfb9836.jsonl"))]
#[case::cf5d35b(include_str!("../fixtures/mloc/worker-cf5d35b.jsonl"))]
#[tokio::test]
async fn a_recorded_worker_is_served_as_it_was(#[case] recording: &str) {
    let mut world = World::with(&[("RETRY_BASE_DELAY_SEC", "300")]).await;
    let mut play = Play::begin(&mut world).await;
    let mut played = 0;
    for line in recording.lines() {
        let message: Value = serde_json::from_str(line).expect("JSON");
        let (channel, data) = (message["channel"].as_str().expect("a channel"), &message["data"]);
        let by_worker =
            channel != "tasks" && (data["type"] != "STATUS" || !data["extra"].is_null() || !data["payload"].is_null());
        match by_worker {
            true => play.says(&world, channel, data).await,
            false => play.hears(&world, channel, data).await,
        }
        played += 1;
    }
    assert!(played >= 15, "all of it");
    eventually("the worker has left", DEADLINE, async || (world.get("/workers").await.1 == json!([])).then_some(()))
        .await;
}

struct Play {
    redis: redis::aio::MultiplexedConnection,
    server: futures::stream::BoxStream<'static, (String, Value)>,
    /// What the task that is at work is called here, and in the recording; and when it was handed out here.
    task: (String, String),
    dispatched_at: Value,
    /// The last dispatch, which the server repeats to a worker that is slow to answer.
    last: Value,
}

impl Play {
    async fn begin(world: &mut World) -> Self {
        let mut pubsub = world.redis().client().get_async_pubsub().await.expect("Redis answers");
        pubsub.subscribe(&["tasks", "workers.events"]).await.expect("subscribed");
        let read = |message: redis::Msg| {
            let data: Value = serde_json::from_slice(message.get_payload_bytes()).expect("JSON");
            (message.get_channel_name().to_owned(), data)
        };
        let server = pubsub.into_on_message().map(read).boxed();
        let redis = world.redis().connection().await;
        Self { redis, server, task: Default::default(), dispatched_at: Value::Null, last: Value::Null }
    }

    /// The worker says what it said, of the task as it is called here; and writes what it wrote.
    async fn says(&mut self, world: &World, channel: &str, data: &Value) {
        let text = match self.task.1.as_str() {
            "" => data.to_string(),
            recorded => data.to_string().replace(recorded, &self.task.0),
        };
        let mut data: Value = serde_json::from_str(&text).expect("JSON");
        if data.pointer("/payload/dispatched_at").is_some() {
            data["payload"]["dispatched_at"] = self.dispatched_at.clone();
        }
        let key = "worker:w1";
        match data["type"].as_str() {
            Some("REGISTER") => {
                // The first generation writes its hardware into its hash only.
                let usual = json!({"cpu": {"logical_cores": 2, "model": "x86_64"}, "memory": {"total_bytes": 25_276_510_208_u64},
                    "gpu": {"driver_version": null, "cuda_version": null, "gpus": []}, "network": {"ip": "127.0.0.1"}});
                let hardware = data.pointer("/payload/hardware").unwrap_or(&usual).to_string();
                let now = data["ts"].as_str().expect("a time").to_owned();
                let fields = [
                    ("worker_id", "w1".to_owned()),
                    ("status", "STARTING".to_owned()),
                    ("started_at", now.clone()),
                    ("pid", "17834".to_owned()),
                    ("env_json", "{}".to_owned()),
                    ("hardware_json", hardware),
                    ("tags_json", data["tags"].to_string()),
                    ("last_seen", now.clone()),
                ];
                let _: () = self.redis.hset_multiple(key, &fields).await.expect("written");
                let _: () = self.redis.sadd("workers:ids", "w1").await.expect("written");
                let _: () = self.redis.set_ex("worker:w1:hb", now, 120).await.expect("written");
            }
            Some("STATUS") => {
                let extra = if data["extra"].is_null() { &data["payload"] } else { &data["extra"] };
                let mut fields = vec![("status".to_owned(), data["status"].as_str().expect("a status").to_owned())];
                let more = extra.as_object().expect("a map").iter();
                fields.extend(
                    more.map(|(name, value)| (format!("extra_{name}"), value.as_str().unwrap_or_default().to_owned())),
                );
                let _: () = self.redis.hset_multiple(key, &fields).await.expect("written");
            }
            Some("UNREGISTER") => {
                let _: () = self.redis.srem("workers:ids", "w1").await.expect("written");
                let _: () = self.redis.del(&[key, "worker:w1:hb"]).await.expect("written");
            }
            _ => {}
        }
        let _: () = self.redis.publish(channel, data.to_string()).await.expect("published");
        match data["type"].as_str() {
            Some("HEARTBEAT") => world.knows(1).await,
            Some("TASK_SUCCEEDED") => {
                let done = world.status_is(&self.task.0, "DONE").await;
                assert_eq!(
                    (&done["assigned_worker"], &done["retries"], &done["error"]),
                    (&json!("w1"), &json!(0), &Value::Null)
                );
            }
            Some("TASK_FAILED") => {
                let failed = world.status_is(&self.task.0, "WAITING").await;
                assert_eq!(
                    (&failed["error"], &failed["retries"], &failed["last_failed_worker"]),
                    (&json!("boom"), &json!(1), &json!("w1"))
                );
            }
            _ => {}
        }
    }

    /// The server says what MLOC's said: a task that is handed in, or a state that it writes for the worker.
    async fn hears(&mut self, world: &World, channel: &str, recorded: &Value) {
        if channel == "tasks" {
            let ids = world.submitted(&recorded["task"].to_string()).await;
            self.task = (ids[0].clone(), recorded["task_id"].as_str().expect("an id").to_owned());
        }
        let (said_on, said) = tokio::time::timeout(DEADLINE, self.server_says()).await.expect("in time");
        assert_eq!((said_on.as_str(), bare(&said)), (channel, bare(recorded)));
        if channel == "tasks" {
            assert_eq!(said["task_id"], json!(self.task.0));
            self.dispatched_at = said["dispatched_at"].clone();
            self.last = said;
        }
    }

    /// The next message that no worker sent and that is no repetition.
    async fn server_says(&mut self) -> (String, Value) {
        let mut again = false;
        loop {
            let (channel, data) = self.server.next().await.expect("Redis goes on");
            // It writes the worker's state with every dispatch.
            let repeated = match channel.as_str() {
                "tasks" => data["task_id"] == self.last["task_id"],
                _ => std::mem::take(&mut again),
            };
            again |= repeated && channel == "tasks";
            let by_server = channel == "tasks"
                || (data["type"] == "STATUS" && data["extra"].is_null() && data["payload"].is_null());
            if by_server && !repeated {
                return (channel, data);
            }
        }
    }
}

/// Without the values that no two recordings share; their keys stay.
fn bare(message: &Value) -> Value {
    let mut message = message.clone();
    for key in VOLATILE {
        if let Some(value) = message.get_mut(key) {
            *value = json!("…");
        }
    }
    message
}
