//! Who owns the tasks, and in which order they end.
//!
//! Every long-lived task is in here, with a name and a [`Stage`]. Shutdown takes the stages in order: each is told to
//! end, given its share of the time, and what has not ended by then is cancelled.
//!
//! A task that panics or ends early brings the process down cleanly instead of being started again in place: what made
//! it fail may sit in the memory it shares, start-up is the path that is exercised most, containers do not notice a
//! restart of ours, and the service manager (systemd, Docker) already has a backoff.

use std::{any::Any, collections::HashMap, fmt, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// In the order of shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// What lets new wishes in: servers, gitops.
    Intake,
    /// What acts on reality.
    Controllers,
    /// What tells about it: the event writer.
    Telling,
    /// The store's own tasks.
    Store,
}

impl Stage {
    pub const ALL: [Stage; 4] = [Stage::Intake, Stage::Controllers, Stage::Telling, Stage::Store];

    /// How long its tasks may take to end. The sum stays well below the ten seconds that service managers give.
    pub fn grace(self) -> Duration {
        match self {
            Stage::Intake => Duration::from_secs(2),
            Stage::Controllers => Duration::from_secs(3),
            Stage::Telling => Duration::from_secs(1),
            Stage::Store => Duration::from_secs(2),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    name: &'static str,
    stage: Stage,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Why the process ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailure {
    #[error("task {0} ended although nobody asked it to")]
    EndedEarly(&'static str),
    #[error("task {name} failed: {message}")]
    Failed { name: &'static str, message: String },
    #[error("task {name} panicked: {message}")]
    Panicked { name: &'static str, message: String },
}

/// All tasks of the process.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<Result<(), String>>,
    names: HashMap<Id, Named>,
    tokens: HashMap<Stage, CancellationToken>,
}

impl Supervisor {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the stage is to end.
    pub fn token(&mut self, stage: Stage) -> CancellationToken {
        self.tokens.entry(stage).or_default().clone()
    }

    /// Starts a task that runs until its token is cancelled. Ending before is a failure of the process, and so is an
    /// error.
    pub fn spawn<F, E>(&mut self, stage: Stage, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let task = task(self.token(stage));
        let handle = self.tasks.spawn(async move { task.await.map_err(|error| error.to_string()) });
        self.names.insert(handle.id(), Named { name, stage });
    }

    /// Runs until `stop` is ready or a task fails, then shuts everything down in order.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), TaskFailure> {
        // Both arms are cancel-safe: `stop` is not used again once it is ready, `join_next_with_id` loses no task.
        let failure = tokio::select! {
            biased;
            () = stop => None,
            failure = self.first_to_end() => Some(failure),
        };
        match &failure {
            None => info!("shutting down"),
            Some(failure) => error!(%failure, "shutting down because a task ended"),
        }
        let cause = self.shut_down().await;
        match failure {
            None => Ok(()),
            // Ending without an error is rather what others do when the one fails that they live by.
            Some(TaskFailure::EndedEarly(name)) => Err(cause.unwrap_or(TaskFailure::EndedEarly(name))),
            Some(failure) => Err(failure),
        }
    }

    async fn first_to_end(&mut self) -> TaskFailure {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, Ok(())))) => TaskFailure::EndedEarly(self.forget(id).name),
            Some(Ok((id, Err(message)))) => TaskFailure::Failed { name: self.forget(id).name, message },
            Some(Err(error)) => TaskFailure::Panicked { name: self.forget(error.id()).name, message: told(error) },
            // No tasks at all: only `stop` can end us.
            None => std::future::pending().await,
        }
    }

    /// Answers the first failure on the way.
    async fn shut_down(&mut self) -> Option<TaskFailure> {
        let mut failure = None;
        for stage in Stage::ALL {
            self.token(stage).cancel();
            let ended = tokio::time::timeout(stage.grace(), self.stage_ends(stage, &mut failure)).await;
            if ended.is_err() {
                self.report_stragglers(stage);
            }
        }
        // Cancels the stragglers of every stage.
        self.tasks.shutdown().await;
        failure
    }

    async fn stage_ends(&mut self, stage: Stage, failure: &mut Option<TaskFailure>) {
        while self.names.values().any(|task| task.stage == stage) {
            match self.tasks.join_next_with_id().await {
                Some(Ok((id, Ok(())))) => {
                    self.forget(id);
                }
                Some(Ok((id, Err(error)))) => {
                    let task = self.forget(id);
                    warn!(%task, error, "task failed while ending");
                    failure.get_or_insert(TaskFailure::Failed { name: task.name, message: error });
                }
                Some(Err(error)) => {
                    let task = self.forget(error.id());
                    error!(%task, error = told(error), "task panicked while ending");
                }
                None => return,
            }
        }
    }

    fn report_stragglers(&self, stage: Stage) {
        for task in self.names.values().filter(|task| task.stage == stage) {
            warn!(%task, ?stage, "task did not end in time and is cancelled");
        }
    }

    fn forget(&mut self, id: Id) -> Named {
        self.names.remove(&id).expect("every task in the set was named when it was spawned")
    }
}

fn told(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => message(&*panic),
        Err(error) => error.to_string(),
    }
}

/// What a panic said: a text where nothing was filled in, else a `String`.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of an unknown kind").to_owned()
}

/// Runs `task` and turns a panic into its message: for short-lived tasks outside the supervisor (a pull, a probe), which
/// must fail alone.
pub async fn caught<T>(task: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(task).catch_unwind().await.map_err(|panic| message(&*panic))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc, sync::Mutex};

    use super::*;

    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn until_told(
        log: &Log,
        name: &'static str,
    ) -> impl FnOnce(CancellationToken) -> futures::future::BoxFuture<'static, Result<(), Infallible>> {
        let log = log.clone();
        move |token| {
            async move {
                token.cancelled().await;
                log.lock().unwrap().push(name);
                Ok(())
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn stages_end_in_order() {
        let log = Log::default();
        let mut supervisor = Supervisor::new();
        supervisor.spawn(Stage::Store, "store", until_told(&log, "store"));
        supervisor.spawn(Stage::Intake, "server", until_told(&log, "server"));
        supervisor.spawn(Stage::Controllers, "workloads", until_told(&log, "workloads"));
        supervisor.run(std::future::ready(())).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["server", "workloads", "store"]);
    }

    #[tokio::test]
    async fn who_fails_is_named_and_not_who_ended_for_it() {
        let mut supervisor = Supervisor::new();
        let (fails, failed) = tokio::sync::oneshot::channel::<()>();
        supervisor.spawn(Stage::Controllers, "follower", |_| async {
            drop(fails);
            Ok::<(), Infallible>(())
        });
        supervisor.spawn(Stage::Store, "store", |token| async move {
            failed.await.ok();
            // After the follower was noticed.
            token.cancelled().await;
            Err("the disk")
        });
        let told = supervisor.run(std::future::pending()).await.unwrap_err().to_string();
        assert_eq!(told, "task store failed: the disk");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_cancelled_within_ten_seconds() {
        let log = Log::default();
        let mut supervisor = Supervisor::new();
        for stage in Stage::ALL {
            supervisor.spawn(stage, "stuck", |_| std::future::pending::<Result<(), Infallible>>());
        }
        supervisor.spawn(Stage::Store, "store", until_told(&log, "store"));
        let begun = tokio::time::Instant::now();
        supervisor.run(std::future::ready(())).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(*log.lock().unwrap(), ["store"]);
    }

    #[tokio::test]
    async fn a_panic_brings_everything_down_in_order_and_is_named() {
        let log = Log::default();
        let mut supervisor = Supervisor::new();
        supervisor.spawn(Stage::Intake, "server", until_told(&log, "server"));
        supervisor.spawn(Stage::Controllers, "bad", |_| async {
            if true {
                panic!("oh no")
            }
            Ok::<(), Infallible>(())
        });
        let failure = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(failure.to_string(), "task bad panicked: oh no");
        assert_eq!(*log.lock().unwrap(), ["server"]);
    }

    #[tokio::test]
    async fn a_caught_panic_tells_what_it_said() {
        let (plain, layer) = ("no layer", 7);
        assert_eq!(caught(async { assert!(layer == 0, "no layer") }).await, Err(plain.to_owned()));
        assert_eq!(caught(async { assert!(layer == 0, "layer {layer}") }).await, Err("layer 7".to_owned()));
    }

    #[tokio::test]
    async fn a_task_that_ends_early_is_a_failure() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn(Stage::Intake, "short", |_| async { Ok::<(), Infallible>(()) });
        let failure = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(failure.to_string(), "task short ended although nobody asked it to");
    }
}
