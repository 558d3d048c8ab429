//! What runs tasks: an executor for each `spec.taskType`. What it needs stands in `spec.<taskType>` of the document.

pub mod command;
pub mod container;
pub mod echo;
pub mod http;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::fs;
use tokio_util::sync::CancellationToken;

use super::{home::Home, logs::Log, message::Order};

/// What is told to end has so long before it is killed. The agent waits longer than this for an attempt that it stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Of what does not say how long it may take.
const USUAL_LIMIT: Duration = Duration::from_secs(24 * 3600);
const LONGEST_LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Names of variables that are ours.
const RESERVED: &str = "GAIA_";
/// Of what was printed last, in the text of an error.
const LINES_IN_ERROR: usize = 5;
const BYTES_IN_ERROR: usize = 1024;
/// A value that a program leaves goes through the server's memory.
const LARGEST_VALUE: u64 = 1 << 20;

/// One attempt at a task.
pub struct Job {
    pub order: Order,
    /// What it prints.
    pub log: Log,
    /// The worker's directory.
    pub home: Arc<Home>,
    /// Its own, empty but for `artifacts` at the start, removed at the end.
    pub directory: PathBuf,
    /// Files that are put here are uploaded when it succeeds.
    pub artifacts: PathBuf,
    /// Where they are found then: a name behind a slash is missing.
    pub files_url: String,
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

    /// The `spec.data.type`s that it can do with. None: any, for it makes nothing of them.
    fn data_types(&self) -> Option<&'static [&'static str]>;

    /// Runs a task to its end, and nothing of it goes on afterwards: not when it fails, and not when `job.cancel` says so, to
    /// which it listens all the time. Answers the result, a JSON object.
    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Value, Failure>>;

    /// Clears away what an earlier process of this worker left outside of its directory when it was killed.
    fn clear_away<'a>(&'a self, home: &'a Home) -> BoxFuture<'a, ()>;
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

    /// What shows programs the cards that are the task's own and no others. Empty: it was not told which.
    fn visible_cards(&self) -> Vec<(&'static str, String)> {
        match self.order.gpus.as_slice() {
            [] => Vec::new(),
            // The second is for containers that it starts itself.
            gpus => ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"].map(|name| (name, gpus.join(","))).into(),
        }
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

/// What a program finds where it begins. All of it is below the directory of the attempt.
struct Work {
    /// Empty; where it begins.
    directory: PathBuf,
    temporary: PathBuf,
    /// What it wants to be `value` of the result it writes here, as JSON.
    value: PathBuf,
}

const WORK: &str = "work";
const TEMPORARY: &str = "tmp";
const DOCUMENT: &str = "task.json";
const VALUE: &str = "result.json";

impl Work {
    async fn prepare(job: &Job) -> Result<Self, Failure> {
        let within = |name: &str| job.directory.join(name);
        let work = Self { directory: within(WORK), temporary: within(TEMPORARY), value: within(VALUE) };
        let made = async {
            fs::create_dir(&work.directory).await?;
            fs::create_dir(&work.temporary).await?;
            fs::write(within(DOCUMENT), job.order.document.to_string()).await
        };
        made.await.map_err(|error| Failure::Failed(format!("cannot prepare the task's directory: {error}")))?;
        Ok(work)
    }

    /// What tells it so. `instead` is where it sees the attempt's directory; empty: where that is.
    fn variables(&self, job: &Job, instead: &Path) -> [(&'static str, String); 5] {
        let seen = if instead.as_os_str().is_empty() { &job.directory } else { instead };
        let path = |name: &str| seen.join(name).to_string_lossy().into_owned();
        [
            ("GAIA_TASK_ID", job.order.task.clone()),
            ("GAIA_ATTEMPT", job.order.attempt.clone()),
            ("GAIA_DOCUMENT", path(DOCUMENT)),
            ("GAIA_RESULT", path(VALUE)),
            ("GAIA_ARTIFACTS", path("artifacts")),
        ]
    }

    /// Null where it wrote nothing.
    async fn value(&self) -> Result<Value, Failure> {
        let unusable = |why: &dyn std::fmt::Display| Failure::Failed(format!("$GAIA_RESULT: {why}"));
        // A link may lead anywhere.
        match fs::symlink_metadata(&self.value).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
            Err(error) => return Err(unusable(&error)),
            Ok(found) if !found.is_file() => return Err(unusable(&"it is no plain file")),
            Ok(found) if found.len() > LARGEST_VALUE => {
                return Err(unusable(&format!("it is larger than {LARGEST_VALUE} bytes")));
            }
            Ok(_) => {}
        }
        let text = fs::read(&self.value).await.map_err(|error| unusable(&error))?;
        serde_json::from_slice(&text).map_err(|error| unusable(&error))
    }
}

/// Variables of the environment, at this path of the document.
fn check_variables(path: &str, variables: &BTreeMap<String, String>) -> Result<(), Failure> {
    for (name, value) in variables {
        let wrong = |why: &str| Failure::Failed(format!("{path}.{name}: {why}"));
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(wrong("is no environment variable"));
        }
        if name.starts_with(RESERVED) {
            return Err(wrong(&format!("names that begin with {RESERVED} are the worker's")));
        }
    }
    Ok(())
}

/// How long it may take, or why that is no time.
fn time_limit(field: &str, seconds: Option<u64>) -> Result<Duration, Failure> {
    let limit = seconds.map_or(USUAL_LIMIT, Duration::from_secs);
    if limit.is_zero() || limit > LONGEST_LIMIT {
        return Err(Failure::Failed(format!("{field}: must be from 1 to {}", LONGEST_LIMIT.as_secs())));
    }
    Ok(limit)
}

/// The end of what was printed, as the end of an error; of what went to stderr, if anything did.
fn last_lines(stdout: &str, stderr: &str) -> String {
    let text = if stderr.trim().is_empty() { stdout } else { stderr }.trim_end();
    if text.is_empty() {
        return String::new();
    }
    let from = text.rmatch_indices('\n').nth(LINES_IN_ERROR - 1).map_or(0, |(at, _)| at + 1);
    let from = from.max(text.len().saturating_sub(BYTES_IN_ERROR));
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("; it said last: {}", &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_ends_with_the_last_lines() {
        assert_eq!(last_lines("", " \n"), "");
        assert_eq!(last_lines("a\nb\n", ""), "; it said last: a\nb");
        assert_eq!(last_lines("a", "1\n2\n3\n4\n5\n6\n"), "; it said last: 2\n3\n4\n5\n6");
        let long = "é".repeat(BYTES_IN_ERROR);
        assert!(last_lines(&long, "").len() <= BYTES_IN_ERROR + 32);
    }

    #[test]
    fn a_limit_is_a_time() {
        assert_eq!(time_limit("f", Some(3)), Ok(Duration::from_secs(3)));
        assert!(matches!(time_limit("f", Some(0)), Err(Failure::Failed(why)) if why.starts_with("f: ")));
        assert!(time_limit("f", Some(u64::MAX)).is_err());
    }
}
