//! The tasks of one submission begin when all of them are there.
//!
//! They are made one after the other, and the first of them last: with it all are there, and each of the others names it
//! (`gaia.dev/begins-with`). A request that is cut off in between, for the process or its client is gone or the store refuses, leaves
//! tasks that nobody was told of. They never begin, and go after a grace. A task that has begun to wait for anything else knows that
//! all were there, and is none of these, whoever deletes the first one later.

use futures::future;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    Tasks,
    retention::AT_ONCE,
    view::{Key, object_name},
};
use crate::{
    api::{annotation, task::Task},
    registry::{ApiResult, Reason},
    runtime::objects::Objects,
};

/// From when such a task is seen for the first time. Whoever makes a submission gives up long before
/// (`facades::tasks::submit`), and both times pass in one process.
pub const GRACE: Duration = Duration::from_secs(120);

/// The name of the task with which all of its submission are there.
pub fn completed_by(task: &Task) -> Option<&str> {
    task.metadata.annotations.as_ref()?.get(annotation::BEGINS_WITH).map(String::as_str)
}

/// The task that must be there before this one begins.
fn awaited(key: &Key, task: &Task) -> Option<Key> {
    let named = completed_by(task).filter(|_| task.status.is_none())?;
    Some((key.0.clone(), named.to_owned()))
}

impl<O: Objects> Tasks<O> {
    /// Others of its submission may be missing: it does not begin.
    pub(super) fn is_incomplete(&mut self, key: &Key, task: &Task) -> bool {
        let incomplete = awaited(key, task).is_some_and(|first| self.view.task(&first).is_none());
        if incomplete {
            self.incomplete.entry(key.clone()).or_insert_with(Instant::now);
        } else {
            self.incomplete.remove(key);
        }
        incomplete
    }

    /// When the first of those goes.
    pub(super) fn next_leftover(&self) -> Option<Instant> {
        self.incomplete.values().min().map(|since| *since + GRACE)
    }

    /// Removes what submissions left that were cut off.
    pub(super) async fn clear_up(&mut self) {
        let now = Instant::now();
        let over: Vec<Key> =
            self.incomplete.iter().filter(|(_, at)| **at + GRACE <= now).map(|(k, _)| k.clone()).collect();
        for keys in over.chunks(AT_ONCE) {
            let this = &*self;
            let removing = keys.iter().map(|key| async move { (key, this.remove_leftover(key).await) });
            for (key, removed) in future::join_all(removing).await {
                self.incomplete.remove(key);
                match removed {
                    // The watch tells what became of it.
                    Ok(None) => {}
                    Ok(Some(first)) => self.look_at(&first).await,
                    Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => {
                        self.look_at(key).await
                    }
                    Err(error) => {
                        warn!(task = key.1, %error, "a task that was left of a submission cannot be removed yet");
                        self.incomplete.insert(key.clone(), now);
                    }
                }
            }
        }
    }

    /// Answers the task that it waits for when that is there by now.
    async fn remove_leftover(&self, key: &Key) -> ApiResult<Option<Key>> {
        let Some(task) = self.view.task(key) else { return Ok(None) };
        let Some(first) = awaited(key, task) else { return Ok(None) };
        if self.objects.get::<Task>(&object_name(&first)).await?.is_some() {
            return Ok(Some(first));
        }
        self.objects.delete_unchanged(&**task).await?;
        info!(task = key.1, first = first.1, "a task is removed: its submission was cut off");
        Ok(None)
    }
}
