//! What the bus and the results tell, made into statuses.

use std::collections::{BTreeMap, BTreeSet};

use futures::future;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    LOOK, Tasks, transition,
    view::{Key, key_from_wire, wire_id},
};
use crate::{
    adapters::{
        bus::{BusEvent, Mark, Release, TaskEvent, TaskNews, WorkerNews},
        results::{FileError, Posted},
    },
    api::task::{Artifact, Task, TaskPhase, TaskStatus},
    runtime::objects::Objects,
};

impl<O: Objects> Tasks<O> {
    /// Takes what was heard since the last time, in its order.
    pub(super) async fn hear(&mut self) {
        let now = self.clock.now();
        let mut changes: BTreeMap<Key, TaskStatus> = BTreeMap::new();
        let mut ended = Vec::new();
        // Who speaks of an attempt that it may not have any more: worker, task, attempt.
        let mut spoken: Vec<(String, Key, Option<String>)> = Vec::new();
        for event in std::mem::take(&mut self.heard) {
            match event {
                BusEvent::Connected => {
                    info!("the bus of the workers is heard");
                    self.look_soon();
                }
                BusEvent::Lost(why) => warn!(why, "the bus of the workers is not heard"),
                BusEvent::Task(event) => {
                    if let Some((key, status)) = self.on_task(&event, &changes, now) {
                        if status.phase == TaskPhase::Done {
                            ended.extend(event.worker.clone());
                        }
                        changes.insert(key, status);
                    }
                    if let Some(worker) = event.worker.filter(|_| event.news != TaskNews::Started) {
                        let key = key_from_wire(&event.task);
                        self.is_free_of(&worker, &key);
                        spoken.extend(event.attempt.map(|attempt| (worker, key, Some(attempt))));
                    }
                }
                BusEvent::Worker(event) => match event.news {
                    WorkerNews::Running { task: Some(task), attempt } => {
                        let key = key_from_wire(&task);
                        let current = self.current(&key, &changes);
                        let current =
                            current.filter(|task| !transition::is_of_another_attempt(task, attempt.as_deref()));
                        if attempt.is_some()
                            && current.as_ref().and_then(|task| transition::holder(task)) != Some(&event.worker)
                        {
                            self.view.occupied.insert(event.worker.clone(), key.clone());
                        }
                        if let Some(task) = current {
                            self.begins(&key, &task, &event.worker, now);
                        }
                        spoken.extend(attempt.map(|attempt| (event.worker, key, Some(attempt))));
                    }
                    WorkerNews::Idle { last_task: Some(task) } => {
                        self.is_free_of(&event.worker, &key_from_wire(&task));
                        self.look_soon();
                    }
                    WorkerNews::Registered => {
                        self.view.occupied.remove(&event.worker);
                        self.view.leaving.remove(&event.worker);
                    }
                    WorkerNews::Draining | WorkerNews::Unregistered => {
                        self.view.occupied.remove(&event.worker);
                        self.view.leaving.insert(event.worker);
                    }
                    WorkerNews::Running { task: None, .. }
                    | WorkerNews::Idle { last_task: None }
                    | WorkerNews::Heartbeat => {}
                },
            }
        }
        self.take_begun(&mut changes);
        self.add_artifacts(&mut changes).await;
        self.write(changes.into_iter().collect()).await;
        self.let_go(spoken).await;
        let marks = ended.iter().map(|worker| self.reality.bus.mark(worker, Mark::Idle, now));
        for marked in future::join_all(marks).await {
            // Only told for people who listen: what a worker is at work on is in the tasks.
            marked.unwrap_or_else(|error| warn!(%error, "a worker was not marked as idle"));
        }
    }

    /// Tells workers of ours which of the attempts that they speak of nobody waits for.
    async fn let_go(&mut self, spoken: Vec<(String, Key, Option<String>)>) {
        for (worker, key, attempt) in spoken {
            let has_it = self.view.task(&key).is_some_and(|task| {
                transition::holder(task) == Some(&worker)
                    && !transition::is_of_another_attempt(task, attempt.as_deref())
            });
            if !has_it {
                self.release(&worker, &key, attempt).await;
            }
        }
    }

    pub(super) async fn release(&self, worker: &str, key: &Key, attempt: Option<String>) {
        let release = Release { worker: worker.to_owned(), task: wire_id(key), attempt };
        if let Err(error) = self.reality.bus.release(&release).await {
            warn!(worker, task = key.1, %error, "a worker was not told that its attempt is over");
        }
    }

    /// A task with what is about to be written of it.
    fn current(&self, key: &Key, changes: &BTreeMap<Key, TaskStatus>) -> Option<std::sync::Arc<Task>> {
        match changes.get(key) {
            Some(status) => Some(Task { status: Some(status.clone()), ..(**self.view.task(key)?).clone() }.into()),
            None => self.known(key),
        }
    }

    fn on_task(
        &mut self,
        event: &TaskEvent,
        changes: &BTreeMap<Key, TaskStatus>,
        now: Timestamp,
    ) -> Option<(Key, TaskStatus)> {
        let key = key_from_wire(&event.task);
        let task = self.current(&key, changes)?;
        if transition::is_of_another_attempt(&task, event.attempt.as_deref()) {
            return None;
        }
        let (worker, dispatch) = (event.worker.as_deref(), event.dispatched_at.as_deref());
        let status = match &event.news {
            TaskNews::Started => {
                self.begins(&key, &task, worker?, now);
                None
            }
            TaskNews::Succeeded => transition::succeeded(&task, worker, dispatch, now),
            TaskNews::Failed(error) => {
                transition::failed(&task, worker, dispatch, error, &self.reality.settings.backoff, now)
            }
        };
        Some((key, status?))
    }

    fn is_free_of(&mut self, worker: &str, task: &Key) {
        if self.view.occupied.get(worker) == Some(task) {
            self.view.occupied.remove(worker);
            self.left_behind.insert(task.clone());
        }
    }

    /// Takes the results that were stored. One that cannot be read or recorded now is looked at again.
    pub(super) async fn deliver(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        let mut keys: BTreeSet<Key> = stored.iter().flatten().map(|id| key_from_wire(id)).collect();
        if stored.iter().any(Option::is_none) {
            keys.extend(self.view.held().values().flatten().cloned());
        }
        let now = self.clock.now();
        let mut changes = BTreeMap::new();
        for key in keys {
            let Some(task) = self.known(&key) else { continue };
            match self.posted(&key).await {
                Ok(posted) => {
                    let status = posted.and_then(|posted| transition::delivered(&task, &posted, now));
                    changes.extend(status.map(|status| (key, status)));
                }
                Err(_) => self.unread.push(wire_id(&key)),
            }
        }
        self.add_artifacts(&mut changes).await;
        let wanted: Vec<Key> = changes.keys().cloned().collect();
        let written = self.write(changes.into_iter().collect()).await;
        // Nobody tells of it a second time.
        self.unread.extend(wanted.iter().filter(|key| !written.contains(key)).map(wire_id));
        if !self.unread.is_empty() {
            self.next_reading.get_or_insert_with(|| Instant::now() + LOOK);
        }
    }

    pub(super) async fn posted(&self, key: &Key) -> Result<Option<Posted>, FileError> {
        let posted = self.reality.results.posted(&wire_id(key)).await;
        posted.inspect_err(|error| warn!(task = key.1, %error, "a result cannot be read"))
    }

    /// Of tasks that are done, what lies beside their results.
    async fn add_artifacts(&self, changes: &mut BTreeMap<Key, TaskStatus>) {
        for (key, status) in changes.iter_mut().filter(|(_, status)| status.phase == TaskPhase::Done) {
            let found = self.reality.results.artifacts(&wire_id(key)).await;
            status.artifacts =
                found.into_iter().map(|(name, size_bytes)| Artifact { name, size_bytes, sha256: None }).collect();
        }
    }
}
