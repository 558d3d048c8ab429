//! The bus on Redis, keys and channels as MLOC's workers have them.
//!
//! Listening has a connection of its own for every stream, so that a reader that is slow is held up by TCP and not in our memory.
//! Calls share one that comes back by itself; each is tried once, and trying again is the caller's.

use std::{collections::HashMap, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use redis::{
    Client, ErrorKind, Pipeline, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig, PubSubStream},
};

use super::{Bus, BusError, BusEvent, BusResult, Dispatch, Mark, Release, WorkerRecord, name, stamp, wire};

/// For a connection, and for the answer to a call.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts to listen again; it doubles up to the greatest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A Redis server that need not be there yet.
#[derive(Clone)]
pub struct RedisBus {
    client: Client,
    calls: ConnectionManager,
}

impl RedisBus {
    /// `redis://[user:password@]host:port/db`, or `rediss://`, then with the file of a CA if it is not one of the host's
    /// ([`address`](super::address)). Fails only for what can never be reached. Must be called on a runtime.
    pub fn new(url: &str, ca: Option<&std::path::Path>) -> BusResult<Self> {
        let client = super::address::client(url, ca)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(1)
            .set_max_delay(LONGEST_PAUSE);
        let calls = client.get_connection_manager_lazy(config).map_err(failed)?;
        Ok(Self { client, calls })
    }

    /// Everything of a pipeline at once. Hung connections are the manager's to notice.
    async fn run<T: redis::FromRedisValue>(&self, pipeline: &Pipeline) -> BusResult<T> {
        let mut connection = self.calls.clone();
        match tokio::time::timeout(PATIENCE, pipeline.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(BusError("Redis does not answer".to_owned())),
        }
    }

    async fn listen(&self) -> BusResult<PubSubStream> {
        let subscribing = async {
            let mut pubsub = self.client.get_async_pubsub().await?;
            pubsub.subscribe(&[name::TASK_EVENTS, name::WORKER_EVENTS]).await?;
            Ok::<_, RedisError>(pubsub.into_on_message())
        };
        match tokio::time::timeout(PATIENCE, subscribing).await {
            Ok(listening) => listening.map_err(failed),
            Err(_) => Err(BusError("Redis does not answer".to_owned())),
        }
    }
}

/// Without the URL, which may hold a password.
pub(super) fn failed(error: RedisError) -> BusError {
    match error.kind() {
        ErrorKind::InvalidClientConfig => BusError("the URL of Redis is not valid".to_owned()),
        _ => BusError(error.to_string()),
    }
}

/// Where a stream of events stands.
struct Listening {
    bus: RedisBus,
    messages: Option<PubSubStream>,
    pause: Option<Duration>,
}

impl Listening {
    /// The next event. Cancel-safe between events only: the stream is polled to its end.
    async fn step(mut self) -> Option<(BusEvent, Self)> {
        loop {
            if let Some(messages) = &mut self.messages {
                let Some(message) = messages.next().await else {
                    self.messages = None;
                    return Some((BusEvent::Lost("the connection to Redis is gone".to_owned()), self));
                };
                if let Some(event) = wire::event(message.get_channel_name(), message.get_payload_bytes()) {
                    return Some((event, self));
                }
                continue;
            }
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
            }
            match self.bus.listen().await {
                Ok(messages) => {
                    self.messages = Some(messages);
                    self.pause = Some(FIRST_PAUSE);
                    return Some((BusEvent::Connected, self));
                }
                Err(error) => {
                    let first = self.pause.is_none();
                    self.pause = Some(self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE)));
                    if first {
                        return Some((BusEvent::Lost(error.0), self));
                    }
                }
            }
        }
    }
}

impl Bus for RedisBus {
    fn events(&self) -> BoxStream<'static, BusEvent> {
        let listening = Listening { bus: self.clone(), messages: None, pause: None };
        stream::unfold(listening, Listening::step).boxed()
    }

    fn roll<'a>(&'a self, known: &'a [String]) -> BoxFuture<'a, BusResult<Vec<WorkerRecord>>> {
        async move {
            let (ids,): (Vec<String>,) = self.run(redis::pipe().smembers(name::WORKERS)).await?;
            let mut all: Vec<(String, bool)> = ids.iter().cloned().map(|id| (id, true)).collect();
            all.extend(known.iter().filter(|id| !ids.contains(id)).cloned().map(|id| (id, false)));
            if all.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipeline = redis::pipe();
            for (id, _) in &all {
                pipeline.hgetall(name::worker(id)).get(name::heartbeat(id)).ttl(name::heartbeat(id));
            }
            let answers: Vec<redis::Value> = self.run(&pipeline).await?;
            let mut workers = Vec::with_capacity(all.len());
            for ((id, registered), answer) in all.iter().zip(answers.chunks(3)) {
                let hash: HashMap<String, String> = read(&answer[0])?;
                let heartbeat: Option<String> = read(&answer[1])?;
                let ttl: i64 = read(&answer[2])?;
                if !hash.is_empty() {
                    workers.push(wire::record(id, &hash, heartbeat.filter(|_| ttl >= 0), *registered));
                }
            }
            Ok(workers)
        }
        .boxed()
    }

    fn remembers(&self) -> BoxFuture<'_, BusResult<bool>> {
        async move {
            let (kept,): (bool,) = self.run(redis::pipe().exists(name::EPOCH)).await?;
            Ok(kept)
        }
        .boxed()
    }

    fn remember(&self) -> BoxFuture<'_, BusResult<()>> {
        async move { self.run(redis::pipe().set(name::EPOCH, uuid::Uuid::new_v4().to_string()).ignore()).await }.boxed()
    }

    fn dispatch<'a>(&'a self, dispatch: &'a Dispatch) -> BoxFuture<'a, BusResult<u64>> {
        async move {
            let key = name::worker(&dispatch.worker);
            let mut pipeline = redis::pipe();
            pipeline
                .atomic()
                .hdel(&key, &["extra_task_id", "extra_last_task"])
                .ignore()
                .hset_multiple(&key, &[("status", "RUNNING".to_owned()), ("last_seen", stamp(dispatch.dispatched_at))])
                .ignore()
                .publish(name::TASKS, wire::dispatch(dispatch))
                .publish(name::WORKER_EVENTS, wire::status(&dispatch.worker, Mark::Running, dispatch.dispatched_at))
                .ignore();
            let (listeners,): (u64,) = self.run(&pipeline).await?;
            Ok(listeners)
        }
        .boxed()
    }

    /// On this channel there is no message for it, and what MLOC's workers do not know ends their process.
    fn release<'a>(&'a self, _: &'a Release) -> BoxFuture<'a, BusResult<()>> {
        std::future::ready(Ok(())).boxed()
    }

    fn mark<'a>(&'a self, worker: &'a str, mark: Mark, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        async move {
            let status: &'static str = mark.into();
            let mut pipeline = redis::pipe();
            pipeline
                .atomic()
                .hset_multiple(name::worker(worker), &[("status", status.to_owned()), ("last_seen", stamp(at))])
                .ignore()
                .publish(name::WORKER_EVENTS, wire::status(worker, mark, at))
                .ignore();
            self.run(&pipeline).await
        }
        .boxed()
    }

    fn restore<'a>(&'a self, record: &'a WorkerRecord) -> BoxFuture<'a, BusResult<()>> {
        async move {
            let mut pipeline = redis::pipe();
            pipeline.atomic();
            // Another process may have registered with this id meanwhile, and knows better.
            for (field, value) in wire::hash(record) {
                pipeline.hset_nx(name::worker(&record.id), field, value).ignore();
            }
            pipeline.sadd(name::WORKERS, &record.id).ignore();
            self.run(&pipeline).await
        }
        .boxed()
    }

    fn remove<'a>(&'a self, worker: &'a str, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        async move {
            let mut pipeline = redis::pipe();
            pipeline
                .atomic()
                .srem(name::WORKERS, worker)
                .ignore()
                .del(&[name::worker(worker), name::heartbeat(worker)])
                .ignore()
                .publish(name::WORKER_EVENTS, wire::unregister(worker, at))
                .ignore();
            self.run(&pipeline).await
        }
        .boxed()
    }
}

fn read<T: redis::FromRedisValue>(value: &redis::Value) -> BusResult<T> {
    redis::from_redis_value_ref(value).map_err(|error| BusError(error.to_string()))
}
