//! What was decided is written, and told: to the log, to people as events, and in numbers.

use futures::future;
use tracing::{info, warn};

use super::{
    LOOK, Tasks, transition,
    view::{Key, object_name},
};
use crate::{
    api::task::{Task, TaskPhase, TaskReason, TaskStatus},
    registry::Reason,
    runtime::{events::Note, objects::Objects, reconciler::reference},
};

impl<O: Objects> Tasks<O> {
    /// Writes statuses, all at once. A conflict voids one: what the task has become is looked at.
    pub(super) async fn write(&mut self, changes: Vec<(Key, TaskStatus)>) -> Vec<Key> {
        let writes = changes.into_iter().filter_map(|(key, status)| {
            let task = self.view.task(&key)?.clone();
            let objects = self.objects.clone();
            Some(async move {
                let mut wanted = (*task).clone();
                wanted.status = Some(status);
                (key, task, objects.update_status(wanted).await)
            })
        });
        let mut written = Vec::new();
        for (key, before, answer) in future::join_all(writes).await {
            match answer {
                Ok(task) => {
                    self.tell(&before, &task);
                    self.put(task);
                    written.push(key);
                }
                Err(error) => self.look_again(&key, error.reason, &error.message).await,
            }
        }
        written
    }

    pub(super) async fn look_again(&mut self, key: &Key, reason: Reason, message: &str) {
        self.look_at(key).await;
        if !matches!(reason, Reason::Conflict | Reason::NotFound) {
            warn!(task = key.1, message, "the status of a task cannot be written");
            // The store may be full or closing; nothing is lost by trying later.
            self.retries.insert(key.clone(), self.clock.now() + LOOK);
        }
    }

    /// Takes a task as it is in the store.
    pub(super) async fn look_at(&mut self, key: &Key) {
        match self.objects.get::<Task>(&object_name(key)).await {
            Ok(Some(task)) => self.put(task),
            Ok(None) => self.dirty.extend(self.view.remove(key)),
            Err(_) => {}
        }
    }

    /// Logs every change of phase, and tells people of what went wrong.
    fn tell(&self, before: &Task, task: &Task) {
        let Some(status) = &task.status else { return };
        let Some((reason, message)) = transition::told(status) else { return };
        if before.status.as_ref().and_then(transition::told).is_some_and(|(before, _)| before == reason) {
            return;
        }
        let name = task.metadata.name.as_deref().unwrap_or_default();
        self.count_change(before, task, status, reason);
        info!(task = name, reason, worker = status.assigned_worker, "task changed");
        let bad = [
            TaskReason::WorkerFailed,
            TaskReason::WorkerLost,
            TaskReason::RetriesExhausted,
            TaskReason::DependencyFailed,
            TaskReason::NoWorkerFits,
            TaskReason::WaitingForGpu,
            TaskReason::Invalid,
        ];
        if let Some(bad) = bad.into_iter().find(|bad| <&str>::from(*bad) == reason) {
            self.recorder.record(&reference(task), Note::warning(bad.into(), bad.into(), message));
        }
    }

    fn count_change(&self, before: &Task, task: &Task, status: &TaskStatus, reason: &str) {
        let metrics = &self.reality.metrics;
        let again = [TaskReason::WorkerFailed, TaskReason::WorkerLost].map(<&str>::from);
        match status.phase {
            phase if phase == before.phase() => {}
            TaskPhase::Done => {
                let end = status.finished_at.as_ref().map_or_else(|| self.clock.now(), |at| at.0);
                let took = end.duration_since(task.submitted_at()).as_secs_f64();
                metrics.done(&task.spec.document.spec.task_type, took);
            }
            TaskPhase::Failed => drop(metrics.failed.inc()),
            TaskPhase::Cancelled => drop(metrics.cancelled.inc()),
            TaskPhase::Dispatched => drop(metrics.dispatched.inc()),
            TaskPhase::Waiting if again.contains(&reason) => drop(metrics.requeued.inc()),
            TaskPhase::Waiting | TaskPhase::Pending => {}
        }
    }

    /// What the gauges show.
    pub(super) fn count(&self) {
        for (phase, count) in self.view.phases() {
            self.reality.metrics.phase(phase.into(), count);
        }
        let (idle, running, lost) = self.view.workforce();
        self.reality.metrics.workers(idle, running, lost);
    }
}
