//! What controllers and the API need of a place where results are kept: files, or in tests/sim what a test makes of it.

use std::{path::PathBuf, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use serde_json::Value;
use tokio::sync::broadcast;

use super::{FileError, Posted, ResultFiles};

/// Where the results of tasks are kept. What was stored is there whole or not at all, and survives the process.
pub trait Results: Send + Sync + 'static {
    /// The ids whose results are stored from now on. A lagging reader must look at everything.
    fn stored(&self) -> broadcast::Receiver<String>;

    /// Where a task's files are, as it is told to clients.
    fn directory(&self, task: &str) -> PathBuf;

    /// Stores a result in the place of what was there; answers its path.
    fn store<'a>(&'a self, task: &'a str, document: &'a Value) -> BoxFuture<'a, Result<PathBuf, FileError>>;

    /// The stored text of a result.
    fn load<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, FileError>>;

    /// The result that was delivered for a task ([`envelope`]).
    fn posted<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<Option<Posted>, FileError>>;

    /// Names and sizes of what was uploaded for a task, by name.
    fn artifacts<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Vec<(String, u64)>>;

    /// Removes everything that is kept of a task.
    fn remove<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<(), FileError>>;
}

pub type SharedResults = Arc<dyn Results>;

/// What the stored text of a result says, if it was delivered to us. What a worker wrote itself on shared storage is none: it
/// writes that before it knows whether it can deliver.
pub fn envelope(task: &str, text: &[u8], path: PathBuf) -> Option<Posted> {
    let Ok(Value::Object(document)) = serde_json::from_slice(text) else { return None };
    let says = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    if says("task_id").as_deref() != Some(task) || !document.contains_key("result") {
        return None;
    }
    Some(Posted { path, size_bytes: text.len() as u64, worker: says("worker_id"), received_at: says("received_at") })
}

impl Results for ResultFiles {
    fn stored(&self) -> broadcast::Receiver<String> {
        self.stored()
    }

    fn directory(&self, task: &str) -> PathBuf {
        self.directory(task)
    }

    fn store<'a>(&'a self, task: &'a str, document: &'a Value) -> BoxFuture<'a, Result<PathBuf, FileError>> {
        self.store(task, document).boxed()
    }

    fn load<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, FileError>> {
        self.load(task).boxed()
    }

    fn posted<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<Option<Posted>, FileError>> {
        self.posted(task).boxed()
    }

    fn artifacts<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Vec<(String, u64)>> {
        self.artifacts(task).boxed()
    }

    fn remove<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<(), FileError>> {
        self.remove(task).boxed()
    }
}
