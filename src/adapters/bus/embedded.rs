//! A bus inside this process: for hosts without Redis, and for tests. The same channels, keys and messages, in memory: what is
//! published while nobody listens is gone, heartbeats expire, and hashes lose nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};

use super::{Bus, BusEvent, BusResult, Dispatch, Mark, WorkerRecord, name, stamp, wire};

/// Messages that a listener may fall behind by; then it is told that it has missed some.
const MOST_BEHIND: usize = 4096;

/// Clones share one bus.
#[derive(Clone)]
pub struct EmbeddedBus {
    kept: Arc<Mutex<Kept>>,
    channels: broadcast::Sender<(String, String)>,
}

#[derive(Default)]
struct Kept {
    ids: BTreeSet<String>,
    hashes: HashMap<String, HashMap<String, String>>,
    /// By id: the value, and when it expires.
    heartbeats: HashMap<String, (String, Instant)>,
}

impl Default for EmbeddedBus {
    fn default() -> Self {
        Self { kept: Arc::default(), channels: broadcast::channel(MOST_BEHIND).0 }
    }
}

impl EmbeddedBus {
    /// What is published on every channel from now on, with its channel.
    pub fn listen(&self) -> broadcast::Receiver<(String, String)> {
        self.channels.subscribe()
    }

    /// As a worker or anybody else publishes. Answers how many listen.
    pub fn publish(&self, channel: &str, message: String) -> u64 {
        self.channels.send((channel.to_owned(), message)).map_or(0, |listeners| listeners as u64)
    }

    /// As a worker writes fields of its hash; with `register` it puts itself among the ids.
    pub fn write(&self, worker: &str, fields: impl IntoIterator<Item = (String, String)>, register: bool) {
        let mut kept = self.kept();
        kept.hashes.entry(worker.to_owned()).or_default().extend(fields);
        if register {
            kept.ids.insert(worker.to_owned());
        }
    }

    /// As a worker renews its heartbeat.
    pub fn beat(&self, worker: &str, value: String, ttl: Duration) {
        self.kept().heartbeats.insert(worker.to_owned(), (value, Instant::now() + ttl));
    }

    /// As a worker takes itself out.
    pub fn unregister(&self, worker: &str) {
        self.kept().ids.remove(worker);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no code panics while it holds this lock")
    }
}

impl Bus for EmbeddedBus {
    fn events(&self) -> BoxStream<'static, BusEvent> {
        let messages = stream::unfold(self.listen(), |mut messages| async move {
            loop {
                match messages.recv().await {
                    Ok((channel, message)) => {
                        if let Some(event) = wire::event(&channel, message.as_bytes()) {
                            return Some((vec![event], messages));
                        }
                    }
                    Err(RecvError::Lagged(missed)) => {
                        let why = format!("{missed} messages were missed");
                        return Some((vec![BusEvent::Lost(why), BusEvent::Connected], messages));
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        stream::iter([BusEvent::Connected]).chain(messages.flat_map(stream::iter)).boxed()
    }

    fn roll<'a>(&'a self, known: &'a [String]) -> BoxFuture<'a, BusResult<Vec<WorkerRecord>>> {
        let kept = self.kept();
        let now = Instant::now();
        let mut all: BTreeSet<&String> = kept.ids.iter().collect();
        all.extend(known);
        let record = |id: &String| -> Option<WorkerRecord> {
            let heartbeat =
                kept.heartbeats.get(id).filter(|(_, expires)| *expires > now).map(|(value, _)| value.clone());
            Some(wire::record(id, kept.hashes.get(id)?, heartbeat, kept.ids.contains(id)))
        };
        let workers = all.into_iter().filter_map(record).collect();
        ready(Ok(workers)).boxed()
    }

    fn remembers(&self) -> BoxFuture<'_, BusResult<bool>> {
        ready(Ok(true)).boxed()
    }

    fn remember(&self) -> BoxFuture<'_, BusResult<()>> {
        ready(Ok(())).boxed()
    }

    fn dispatch<'a>(&'a self, dispatch: &'a Dispatch) -> BoxFuture<'a, BusResult<u64>> {
        {
            let mut kept = self.kept();
            let hash = kept.hashes.entry(dispatch.worker.clone()).or_default();
            hash.remove("extra_task_id");
            hash.remove("extra_last_task");
            hash.insert("status".to_owned(), "RUNNING".to_owned());
            hash.insert("last_seen".to_owned(), stamp(dispatch.dispatched_at));
        }
        let listeners = self.publish(name::TASKS, wire::dispatch(dispatch));
        self.publish(name::WORKER_EVENTS, wire::status(&dispatch.worker, Mark::Running, dispatch.dispatched_at));
        ready(Ok(listeners)).boxed()
    }

    fn mark<'a>(&'a self, worker: &'a str, mark: Mark, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        let status: &'static str = mark.into();
        let fields = [("status".to_owned(), status.to_owned()), ("last_seen".to_owned(), stamp(at))];
        self.write(worker, fields, false);
        self.publish(name::WORKER_EVENTS, wire::status(worker, mark, at));
        ready(Ok(())).boxed()
    }

    fn restore<'a>(&'a self, record: &'a WorkerRecord) -> BoxFuture<'a, BusResult<()>> {
        let fields = wire::hash(record).into_iter().map(|(key, value)| (key.to_owned(), value));
        self.write(&record.id, fields, true);
        ready(Ok(())).boxed()
    }

    fn remove<'a>(&'a self, worker: &'a str, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>> {
        {
            let mut kept = self.kept();
            kept.ids.remove(worker);
            kept.hashes.remove(worker);
            kept.heartbeats.remove(worker);
        }
        self.publish(name::WORKER_EVENTS, wire::unregister(worker, at));
        ready(Ok(())).boxed()
    }
}
