//! The store in this process: reads from memory, writes through the committer.

use std::{path::Path, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt, ready};
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use super::{
    Backup, Engine, EngineError, Image, Key, Prefix, Revision, Row, Snapshot, SqliteEngine, Store, StoreError,
    StoreResult, Version, Watch,
    committer::{Committer, Shared},
    state::{State, Ticket, Verdict, Wish},
    watch::Cursor,
};
use crate::sync::{
    Mutex, MutexGuard,
    thread::{self, JoinHandle},
};

/// Bounds of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many changes a watch may lag behind before it is `Expired`; fewer where they are large.
    pub log_capacity: usize,
    /// How many writes may wait for the disk; further writers wait for a place.
    pub queue_capacity: usize,
    /// How long a writer waits for a place, and then for the disk, before it is told `Unavailable`.
    /// Measured on tokio's clock: a test that pauses it should use an engine that does not block.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { log_capacity: 10_000, queue_capacity: 1024, patience: Duration::from_secs(30) }
    }
}

/// A [`Store`] over an [`Engine`]. A write that is dropped while it waits may still take effect.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    patience: Duration,
    committing: Committing,
}

/// Who commits. Empty once closed.
enum Committing {
    /// Each writer, in turn.
    Writers(Mutex<Option<Committer>>),
    Thread(Mutex<Option<JoinHandle<()>>>),
}

impl EmbeddedStore {
    /// Opens the database in a data directory, which is made if it is missing and locked against other processes.
    /// Blocks for the time it takes to read and verify every row.
    pub fn open_dir(directory: &Path, options: Options) -> Result<Arc<Self>, EngineError> {
        Self::open(SqliteEngine::open_dir(directory)?, options)
    }

    /// Reads all of `engine` and serves it.
    pub fn open(engine: impl Engine, options: Options) -> Result<Arc<Self>, EngineError> {
        let mut engine: Box<dyn Engine> = Box::new(engine);
        let (state, logged) = State::load(&mut *engine, options.log_capacity)?;
        engine.accept()?;
        let shared = Arc::new(Shared::new(state));
        let blocks = engine.blocks();
        let mut committer = Committer::new(engine, logged);
        committer.compact_if_long(&shared);
        let committing = if blocks {
            let shared = shared.clone();
            let thread = thread::Builder::new().name("store-committer".into());
            let thread = thread.spawn(move || committer.run(&shared)).map_err(EngineError::Thread)?;
            Committing::Thread(Mutex::new(Some(thread)))
        } else {
            Committing::Writers(Mutex::new(Some(committer)))
        };
        let places = Arc::new(Semaphore::new(options.queue_capacity.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Arc::new(Self { shared, places, patience: options.patience, committing }))
    }

    /// Every object as of one revision, as a database file that [`restore`](super::restore) takes. Made from memory: writers do
    /// not wait for it, and it can be had while the disk is full or fails. Blocks for some milliseconds a thousand objects.
    pub fn backup(&self) -> Result<Backup, EngineError> {
        let (revision, objects) = {
            let state = self.shared.state();
            (state.revision, state.objects.clone())
        };
        let rows = objects.values().map(|version| Row {
            key: version.key.clone(),
            revision: version.revision,
            json: version.json.clone(),
        });
        Backup::of(&Image { revision, compacted: revision, objects: rows.collect() })
    }

    /// Ready when the store has ended by itself, with the reason: the disk cannot be trusted, or the committer panicked.
    /// Reads still answer. Cancel-safe.
    pub async fn broken(&self) -> String {
        let mut broken = self.shared.broken.subscribe();
        loop {
            if let Some(why) = broken.borrow_and_update().clone() {
                return why;
            }
            broken.changed().await.expect("the sender is in the store");
        }
    }

    /// Refuses further writes, those that wait for a place in the queue too, waits until those queued are committed and
    /// releases the engine (and its directory).
    /// Watches tell what is left and then `Closed`; reads still answer. Blocks for about one commit.
    pub fn close(&self) {
        self.shared.end();
        self.places.close();
        match &self.committing {
            Committing::Writers(committer) => {
                if let Some(mut committer) = lock(committer).take() {
                    committer.settle(&self.shared);
                }
            }
            Committing::Thread(thread) => {
                if let Some(thread) = lock(thread).take()
                    && thread.join().is_err()
                {
                    tracing::error!("the store's committer had panicked");
                }
            }
        }
    }

    async fn write(&self, wish: Wish) -> Verdict {
        let place = self.place().await?;
        match self.enqueue(wish, place)? {
            Queued::Told(verdict) => verdict,
            Queued::Waiting(reply) => {
                match &self.committing {
                    Committing::Thread(_) => self.shared.work.notify_one(),
                    Committing::Writers(committer) => {
                        if let Some(committer) = &mut *lock(committer) {
                            committer.settle(&self.shared);
                        }
                    }
                }
                self.reply(reply).await
            }
        }
    }

    /// A place in the queue: at once if there is one, so that no timer is armed on the usual way.
    async fn place(&self) -> StoreResult<OwnedSemaphorePermit> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        match timeout(self.patience, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(self.silent()),
        }
    }

    fn enqueue(&self, wish: Wish, place: OwnedSemaphorePermit) -> StoreResult<Queued> {
        let mut state = self.shared.state();
        if state.closed {
            return Err(StoreError::Closed);
        }
        // A verdict that rests on a write under way waits for it: nobody is told of what is not durable.
        let rests_on_pending = state.is_pending(wish.key());
        let (change, verdict) = state.decide(wish);
        if change.is_none() && !rests_on_pending {
            return Ok(Queued::Told(verdict));
        }
        let (reply, waiting) = oneshot::channel();
        state.queue.push_back(Ticket { change, verdict, reply, place });
        Ok(Queued::Waiting(waiting))
    }

    async fn reply(&self, mut reply: oneshot::Receiver<Verdict>) -> Verdict {
        if let Ok(verdict) = reply.try_recv() {
            return verdict;
        }
        match timeout(self.patience, reply).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => Err(StoreError::Unavailable("the committer has ended".into())),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> StoreError {
        StoreError::Unavailable(format!("the disk has not answered within {:?}", self.patience))
    }
}

enum Queued {
    Told(Verdict),
    Waiting(oneshot::Receiver<Verdict>),
}

/// A panic of another holder is told elsewhere; what is inside is an `Option` that is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for EmbeddedStore {
    fn get(&self, key: &Key) -> BoxFuture<'_, StoreResult<Option<Arc<Version>>>> {
        ready(Ok(self.shared.state().objects.get(key).cloned())).boxed()
    }

    fn list(&self, prefix: &Prefix) -> BoxFuture<'_, StoreResult<Snapshot>> {
        let (revision, objects) = {
            let state = self.shared.state();
            (state.revision, state.objects.clone())
        };
        let covered = objects.range(Key::from_stored(prefix.as_str())..).take_while(|(key, _)| prefix.covers(key));
        let items = covered.map(|(_, version)| version.clone()).collect();
        ready(Ok(Snapshot { revision, items })).boxed()
    }

    fn create(&self, key: Key, object: Value) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        self.write(Wish::Create { key, object }).boxed()
    }

    fn update(&self, key: Key, object: Value, expected: Revision) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        self.write(Wish::Update { key, object, expected }).boxed()
    }

    fn delete(&self, key: Key, expected: Revision) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        self.write(Wish::Delete { key, expected }).boxed()
    }

    fn watch(&self, prefix: Prefix, from: Revision) -> BoxFuture<'_, StoreResult<Box<dyn Watch>>> {
        let cursor = Cursor::new(self.shared.clone(), prefix, from);
        ready(cursor.map(|cursor| Box::new(cursor) as Box<dyn Watch>)).boxed()
    }

    fn revision(&self) -> BoxFuture<'_, StoreResult<Revision>> {
        ready(Ok(self.shared.state().revision)).boxed()
    }
}
