//! That a worker has begun is written after a moment, unless the task has ended by then: what is short costs one write less, and who
//! watches it is told of its end all the same. Until then it is known here alone; a process that dies in between hears of it again,
//! from the worker or its hash ([`super::silence`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

use super::{Tasks, transition, view::Key};
use crate::{
    api::task::{Task, TaskStatus},
    runtime::objects::Objects,
};

/// From a beginning to its write. Shorter than a look of a person, longer than a task that does next to nothing.
const MOMENT: Duration = Duration::from_millis(100);

/// A beginning that was heard and is not written yet.
pub(super) struct Begun {
    worker: String,
    /// Of the attempt: each has another time.
    dispatched_at: Option<MicroTime>,
    at: Timestamp,
    /// When it is written.
    pub(super) due: Instant,
}

impl Begun {
    /// What the task becomes by it. None: it is over, or another attempt's.
    fn status(&self, task: &Task) -> Option<TaskStatus> {
        let of_this = task.status.as_ref().is_some_and(|status| status.dispatched_at == self.dispatched_at);
        of_this.then(|| transition::started(task, &self.worker, self.at)).flatten()
    }
}

impl<O: Objects> Tasks<O> {
    /// A worker has begun `task`, which is as it is known.
    pub(super) fn begins(&mut self, key: &Key, task: &Task, worker: &str, at: Timestamp) {
        if transition::started(task, worker, at).is_some() {
            let dispatched_at = task.status.as_ref().and_then(|status| status.dispatched_at.clone());
            let begun = Begun { worker: worker.to_owned(), dispatched_at, at, due: Instant::now() + MOMENT };
            self.begun.insert(key.clone(), begun);
        }
    }

    /// A task as it is stored, with its beginning where that is not written yet.
    pub(super) fn known(&self, key: &Key) -> Option<Arc<Task>> {
        let task = self.view.task(key)?;
        match self.begun.get(key).and_then(|begun| begun.status(task)) {
            Some(status) => Some(Task { status: Some(status), ..(**task).clone() }.into()),
            None => Some(task.clone()),
        }
    }

    /// Adds the beginnings that are to be written now, of tasks of which nothing else is.
    pub(super) fn take_begun(&mut self, changes: &mut BTreeMap<Key, TaskStatus>) {
        let (view, now) = (&self.view, Instant::now());
        self.begun.retain(|key, begun| {
            let Some(status) = view.task(key).and_then(|task| begun.status(task)) else { return false };
            let goes = begun.due <= now && !changes.contains_key(key);
            if goes {
                changes.insert(key.clone(), status);
            }
            !goes
        });
    }

    pub(super) fn next_begun(&self) -> Option<Instant> {
        self.begun.values().map(|begun| begun.due).min()
    }
}
