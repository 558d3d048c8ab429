//! Results in memory, of all processes of a world one after the other: a store may fail, have its answer lost, be slow, or be the last
//! thing that a process does. What is recorded must not be replaced.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use gaia::adapters::results::{FileError, Posted, Results, envelope};
use serde_json::Value;
use tokio::{sync::broadcast, time::sleep};

use super::{oracle, world::TaskWorld};

/// What outlives processes.
pub type Kept = Arc<Mutex<BTreeMap<String, Value>>>;

/// As one process has them.
pub struct SimulatedResults {
    world: TaskWorld,
    stored: broadcast::Sender<String>,
}

impl SimulatedResults {
    pub fn new(world: &TaskWorld) -> Self {
        Self { world: world.clone(), stored: broadcast::channel(1024).0 }
    }

    fn refused(&self) -> Result<(), FileError> {
        match self.world.world.strikes(1.5) {
            true => Err(FileError::Io { doing: "do as asked", source: io::Error::other("as planned") }),
            false => Ok(()),
        }
    }

    async fn may_be_slow(&self) {
        if self.world.world.strikes(5.0) {
            let late = self.world.world.rng().u64(1..2_000);
            sleep(Duration::from_millis(late)).await;
        }
    }
}

impl Results for SimulatedResults {
    fn stored(&self) -> broadcast::Receiver<String> {
        self.stored.subscribe()
    }

    fn directory(&self, task: &str) -> PathBuf {
        PathBuf::from("/results").join(task)
    }

    fn store<'a>(&'a self, task: &'a str, document: &'a Value) -> BoxFuture<'a, Result<PathBuf, FileError>> {
        async move {
            self.may_be_slow().await;
            self.refused()?;
            self.world.may_die("before a result is stored").await;
            oracle::before_result(&self.world, task, document);
            self.world.kept().insert(task.to_owned(), document.clone());
            self.world.may_die("after a result was stored").await;
            self.refused()?;
            self.stored.send(task.to_owned()).ok();
            Ok(self.directory(task).join("responses.json"))
        }
        .boxed()
    }

    fn load<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, FileError>> {
        async move {
            self.may_be_slow().await;
            self.refused()?;
            Ok(self.world.kept().get(task).map(|document| document.to_string().into_bytes()))
        }
        .boxed()
    }

    fn posted<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<Option<Posted>, FileError>> {
        async move {
            let text = self.load(task).await?;
            Ok(text.and_then(|text| envelope(task, &text, self.directory(task).join("responses.json"))))
        }
        .boxed()
    }

    fn artifacts<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<(String, u64)>> {
        std::future::ready(Vec::new()).boxed()
    }

    fn remove<'a>(&'a self, task: &'a str) -> BoxFuture<'a, Result<(), FileError>> {
        async move {
            self.refused()?;
            self.world.may_die("before a result is removed").await;
            self.world.kept().remove(task);
            self.world.may_die("after a result was removed").await;
            Ok(())
        }
        .boxed()
    }
}
