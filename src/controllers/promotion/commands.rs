//! Runs the gates' commands beside the passes, and remembers in memory how they ended. A new process knows of none and
//! runs it again: a command that judges must not mind being asked twice.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::task::{AbortHandle, JoinSet};

use super::observed::CommandSeen;
use crate::{
    adapters::containers::{ContainerId, Containers},
    api::promotion::GateCommand,
    registry::ObjectName,
    runtime::{supervisor::caught, wakeups::Wakeups},
};

/// Clones share the runs. Dropping the last one gives them up.
#[derive(Clone)]
pub struct Commands {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

struct Shared {
    containers: Arc<dyn Containers>,
    wakeups: Wakeups,
    runs: Mutex<HashMap<ObjectName, Run>>,
}

/// The last run for a promotion.
struct Run {
    container: ContainerId,
    seen: CommandSeen,
    task: Option<AbortHandle>,
}

impl Commands {
    pub fn new(containers: Arc<dyn Containers>, wakeups: Wakeups) -> Self {
        let shared = Shared { containers, wakeups, runs: Mutex::default() };
        Self { shared: Arc::new(shared), tasks: Arc::default() }
    }

    /// What is known about this very container.
    pub fn seen(&self, promotion: &ObjectName, container: &ContainerId) -> CommandSeen {
        let runs = self.shared.lock();
        runs.get(promotion).filter(|run| run.container == *container).map(|run| run.seen.clone()).unwrap_or_default()
    }

    /// Returns at once. Does nothing while the command runs in that container, or once it has ended there.
    pub fn ensure(&self, promotion: &ObjectName, container: &ContainerId, command: &GateCommand) {
        let mut runs = self.shared.lock();
        if runs.get(promotion).is_some_and(|run| run.container == *container) {
            return;
        }
        let mut tasks = self.tasks.lock().expect("no code panics while it holds this lock");
        while tasks.try_join_next().is_some() {}
        let task = tasks.spawn(run(self.shared.clone(), promotion.clone(), container.clone(), command.clone()));
        let entry = Run { container: container.clone(), seen: CommandSeen::UnderWay, task: Some(task) };
        if let Some(before) = runs.insert(promotion.clone(), entry) {
            before.give_up();
        }
    }

    /// The promotion is over.
    pub fn forget(&self, promotion: &ObjectName) {
        if let Some(run) = self.shared.lock().remove(promotion) {
            run.give_up();
        }
    }
}

impl Run {
    fn give_up(self) {
        if let Some(task) = self.task {
            task.abort();
        }
    }
}

async fn run(shared: Arc<Shared>, promotion: ObjectName, container: ContainerId, command: GateCommand) {
    let timeout = Duration::from_secs(command.timeout_seconds.max(1).into());
    let exec = shared.containers.exec(&container, &command.command, timeout);
    let seen = match caught(exec).await {
        Ok(Ok(result)) if result.exit_code == 0 => CommandSeen::Passed,
        Ok(Ok(result)) => CommandSeen::Failed(format!("exit code {}: {}", result.exit_code, result.output.trim())),
        Ok(Err(error)) => CommandSeen::Failed(error.to_string()),
        Err(panic) => CommandSeen::Failed(panic),
    };
    let mut runs = shared.lock();
    if let Some(run) = runs.get_mut(&promotion).filter(|run| run.container == container) {
        (run.seen, run.task) = (seen, None);
    }
    drop(runs);
    shared.wakeups.wake(&promotion);
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectName, Run>> {
        self.runs.lock().expect("no code panics while it holds this lock")
    }
}
