//! The bus on which workers of MLOC take tasks and tell how they fare: contract section 2. What is said on it may be lost,
//! doubled or late; what is made of it is for controllers to decide.
//!
//! Guarantees: an event stream begins with [`BusEvent::Connected`], and says so again after every loss, for whatever was
//! published in between nobody will ever tell. Calls answer or fail within seconds.

mod address;
pub mod both;
pub mod embedded;
pub mod redis;
pub mod session;
pub mod wire;

use std::sync::Arc;

use futures::{future::BoxFuture, stream::BoxStream};
use serde_json::{Map, Value};

/// Channels and keys, as every generation of workers has them.
pub mod name {
    /// Dispatches, to all workers.
    pub const TASKS: &str = "tasks";
    pub const TASK_EVENTS: &str = "tasks.events";
    pub const WORKER_EVENTS: &str = "workers.events";
    /// Set of ids.
    pub const WORKERS: &str = "workers:ids";
    /// Ours: it is gone when the bus has lost its data.
    pub const EPOCH: &str = "gaia:epoch";

    /// A worker's hash.
    pub fn worker(id: &str) -> String {
        format!("worker:{id}")
    }

    /// A worker's heartbeat, which expires.
    pub fn heartbeat(id: &str) -> String {
        format!("worker:{id}:hb")
    }
}

/// Why the bus did not do as asked. It may have, when the answer was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BusError(pub String);

pub type BusResult<T> = Result<T, BusError>;

/// What is heard.
#[derive(Debug, Clone, PartialEq)]
pub enum BusEvent {
    /// From now on everything is heard. What was said before may have been missed.
    Connected,
    /// Nothing is heard until `Connected`; why.
    Lost(String),
    Worker(WorkerEvent),
    Task(TaskEvent),
}

/// A worker about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerEvent {
    pub worker: String,
    pub news: WorkerNews,
}

#[derive(Debug, Clone, PartialEq)]
pub enum WorkerNews {
    /// It has just started.
    Registered,
    /// It began `task`, and is at it still.
    Running {
        task: Option<String>,
        /// Of our own workers.
        attempt: Option<String>,
    },
    /// It has nothing to do; it ended `last_task`, well or not.
    Idle {
        last_task: Option<String>,
    },
    /// It ends when it is done with what it has, and takes nothing more.
    Draining,
    Heartbeat,
    /// It ended, or somebody removed it.
    Unregistered,
}

/// A worker about a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskEvent {
    pub task: String,
    pub worker: Option<String>,
    /// Of the dispatch it is about, as that was told; later generations repeat it.
    pub dispatched_at: Option<String>,
    /// The token of the attempt it is about, which our own workers repeat.
    pub attempt: Option<String>,
    pub news: TaskNews,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TaskNews {
    Started,
    Succeeded,
    Failed(String),
}

/// What the bus keeps of a worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerRecord {
    pub id: String,
    /// As written: by the worker, or by an orchestrator before it dispatches.
    pub status: Option<String>,
    pub started_at: Option<String>,
    pub pid: Option<i64>,
    pub env: Map<String, Value>,
    pub hardware: Map<String, Value>,
    pub tags: Vec<String>,
    pub last_seen: Option<String>,
    pub cost_per_hour: Option<f64>,
    /// What it began last. Taken away with every dispatch, so that it tells of the latest one.
    pub began: Option<String>,
    /// What it ended last; taken away likewise.
    pub ended: Option<String>,
    /// The value of its heartbeat, while that has not expired.
    pub heartbeat: Option<String>,
    /// It was connected to this process, and is not any more: it lacks its heartbeat because it is gone, and not because the bus was.
    pub parted: bool,
    /// Among the ids. After a loss of data a worker writes its heartbeat only.
    pub registered: bool,
}

/// Handed to one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    pub task: String,
    pub worker: String,
    /// Placeholders resolved.
    pub document: Value,
    pub dispatched_at: jiff::Timestamp,
    pub shard: Option<ShardOf>,
    /// To be given back with everything that is said of it. None: workers of MLOC know no such thing.
    pub attempt: Option<String>,
    /// The process it is for, by when that started. None: whoever has the id.
    pub incarnation: Option<String>,
    /// A worker of ours is to deliver the result to whom the document names as well. Workers of MLOC read that themselves.
    pub delivers_elsewhere: bool,
    /// The uuids of the cards that are its own while it runs; empty: whichever its worker has.
    pub gpus: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardOf {
    pub parent: String,
    pub index: u32,
    pub total: u32,
}

/// An attempt that is over for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub worker: String,
    pub task: String,
    /// None: whichever it has.
    pub attempt: Option<String>,
}

/// The states an orchestrator writes for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "UPPERCASE")]
pub enum Mark {
    Idle,
    Running,
}

/// A connection to the bus. Clones and streams come back by themselves after losses.
pub trait Bus: Send + Sync + 'static {
    /// All that is told from the first `Connected` on, for ever.
    fn events(&self) -> BoxStream<'static, BusEvent>;

    /// The workers among the ids, and those of `known` of which there is anything.
    fn roll<'a>(&'a self, known: &'a [String]) -> BoxFuture<'a, BusResult<Vec<WorkerRecord>>>;

    /// Whether it has kept its data since the last [`remember`](Self::remember).
    fn remembers(&self) -> BoxFuture<'_, BusResult<bool>>;

    /// To be called when everything that was lost is written again.
    fn remember(&self) -> BoxFuture<'_, BusResult<()>>;

    /// Marks the worker as running and hands it the task, in this order and at once. Answers how many listen, which need not
    /// include the worker.
    fn dispatch<'a>(&'a self, dispatch: &'a Dispatch) -> BoxFuture<'a, BusResult<u64>>;

    /// Tells a worker that nobody waits for its attempt at a task any more: it is recorded, cancelled, or with another. Who is
    /// still at it stops. MLOC's workers cannot be told; nothing comes of it then.
    fn release<'a>(&'a self, release: &'a Release) -> BoxFuture<'a, BusResult<()>>;

    /// Writes a state for a worker, and tells it.
    fn mark<'a>(&'a self, worker: &'a str, mark: Mark, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>>;

    /// Writes what is known of a worker that the bus has lost, and puts it among the ids. What is there stays as it is.
    fn restore<'a>(&'a self, record: &'a WorkerRecord) -> BoxFuture<'a, BusResult<()>>;

    /// Removes everything that is kept of a worker, and tells it.
    fn remove<'a>(&'a self, worker: &'a str, at: jiff::Timestamp) -> BoxFuture<'a, BusResult<()>>;
}

/// None where nobody said which bus: then nobody runs tasks here.
pub type SharedBus = Arc<dyn Bus>;

/// UTC with microseconds, as workers write it.
pub fn stamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}
