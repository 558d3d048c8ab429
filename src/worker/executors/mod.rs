//! What runs tasks: an executor for each `spec.taskType`. What it needs stands in `spec.<taskType>` of the document.

pub mod echo;

use std::path::PathBuf;

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{logs::Log, message::Order};

/// One attempt at a task.
pub struct Job {
    pub order: Order,
    /// What it prints.
    pub log: Log,
    /// Its own, empty at the start, removed at the end.
    pub directory: PathBuf,
    /// Files that are put here are uploaded when it succeeds.
    pub artifacts: PathBuf,
    /// It is to stop.
    pub cancel: CancellationToken,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was told to stop, and has.
    #[error("stopped")]
    Cancelled,
    /// Of the task itself, or of what it asks for; begins with the path of a field where that is wrong.
    #[error("{0}")]
    Failed(String),
}

/// Runs tasks of one type.
pub trait Executor: Send + Sync + 'static {
    /// The `spec.taskType` that it is for.
    fn task_type(&self) -> &'static str;

    /// Runs a task to its end, and nothing of it goes on afterwards: not when it fails, and not when `job.cancel` says so, to
    /// which it listens all the time. Answers the result, a JSON object.
    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Value, Failure>>;

    /// Clears away what an earlier process of this worker left on the host when it was killed.
    fn clear_away(&self) -> BoxFuture<'_, ()>;
}

impl Job {
    fn spec(&self) -> &Value {
        &self.order.document["spec"]
    }

    /// A part of the spec, or the path of what is wrong in it.
    fn part<T: DeserializeOwned>(&self, key: &str) -> Result<T, Failure> {
        let given = self.spec().get(key).filter(|given| !given.is_null());
        let given = given.ok_or_else(|| Failure::Failed(format!("spec.{key}: it is needed for this taskType")))?;
        serde_path_to_error::deserialize(given).map_err(|error| {
            let path = error.path().to_string();
            let within = if path == "." { String::new() } else { format!(".{path}") };
            Failure::Failed(format!("spec.{key}{within}: {}", error.inner()))
        })
    }

    /// `spec.data.items`; empty where there are none.
    fn items(&self) -> Result<Vec<Value>, Failure> {
        match self.spec().pointer("/data/items") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items.clone()),
            Some(_) => Err(Failure::Failed("spec.data.items: must be a list".to_owned())),
        }
    }
}
