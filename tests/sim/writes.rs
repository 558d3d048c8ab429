//! The store as a process has it, with faults at its writes: refused, done but the answer lost, slow, compared with a version
//! that has just moved on, or the last thing that the process does.

use std::{
    fmt,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use gaia::store::{Key, Prefix, Revision, Snapshot, Store, StoreError, StoreResult, Version, Watch};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::World;

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteFault {
    #[default]
    None,
    /// The disk is full: certainly not written.
    Full,
    /// Not written, and nobody can say so.
    Fails,
    /// Written, and nobody can say so.
    LosesAnswer,
    /// So much later; others may write meanwhile.
    Slow(Duration),
    /// Somebody has written the object just before.
    Overtaken,
    CrashBefore,
    CrashAfter,
}

/// Decides what happens to each write, by the key of its object.
type Decide = Box<dyn FnMut(&Key) -> WriteFault + Send>;

/// Of all processes of a world, one after the other.
#[derive(Clone, Default)]
pub struct Writes(Arc<Mutex<Option<Decide>>>);

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writes")
    }
}

impl Writes {
    pub fn set(&self, decide: impl FnMut(&Key) -> WriteFault + Send + 'static) {
        *self.0.lock().expect("never poisoned") = Some(Box::new(decide));
    }

    pub fn mend(&self) {
        *self.0.lock().expect("never poisoned") = None;
    }

    fn next(&self, key: &Key) -> WriteFault {
        self.0.lock().expect("never poisoned").as_mut().map(|decide| decide(key)).unwrap_or_default()
    }
}

/// The store of one process.
pub struct FaultyStore {
    store: Arc<dyn Store>,
    world: World,
}

impl FaultyStore {
    pub fn new(store: Arc<dyn Store>, world: World) -> Self {
        Self { store, world }
    }

    async fn write(
        &self,
        key: Key,
        write: impl AsyncFnOnce() -> StoreResult<Arc<Version>>,
    ) -> StoreResult<Arc<Version>> {
        let unavailable = || Err(StoreError::Unavailable("as planned".to_owned()));
        match self.world.writes.next(&key) {
            WriteFault::None => write().await,
            WriteFault::Full => Err(StoreError::Full("there is no room, as planned".to_owned())),
            WriteFault::Fails => unavailable(),
            WriteFault::LosesAnswer => {
                write().await?;
                unavailable()
            }
            WriteFault::Slow(by) => {
                sleep(by).await;
                write().await
            }
            WriteFault::Overtaken => {
                self.touch(&key).await?;
                write().await
            }
            WriteFault::CrashBefore => self.crash().await,
            WriteFault::CrashAfter => {
                write().await?;
                self.crash().await
            }
        }
    }

    /// Somebody notes something on the object that nobody goes by.
    async fn touch(&self, key: &Key) -> StoreResult<()> {
        let Some(version) = self.store.get(key).await? else { return Ok(()) };
        let mut object = version.object.clone();
        object["metadata"]["annotations"]["touched"] = json!("by somebody");
        self.store.update(key.clone(), object, version.revision).await.map(|_| ())
    }

    /// The process never hears of it; a client of its sees the connection break.
    async fn crash(&self) -> StoreResult<Arc<Version>> {
        let mut process = self.world.registry.subscribe();
        process.mark_unchanged();
        self.world.kill.notify_one();
        match process.changed().await {
            Ok(()) => Err(StoreError::Closed),
            Err(_) => pending().await,
        }
    }
}

impl Store for FaultyStore {
    fn get(&self, key: &Key) -> BoxFuture<'_, StoreResult<Option<Arc<Version>>>> {
        self.store.get(key)
    }

    fn list(&self, prefix: &Prefix) -> BoxFuture<'_, StoreResult<Snapshot>> {
        self.store.list(prefix)
    }

    fn create(&self, key: Key, object: Value) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        self.write(key.clone(), async move || self.store.create(key, object).await).boxed()
    }

    fn update(&self, key: Key, object: Value, expected: Revision) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        self.write(key.clone(), async move || self.store.update(key, object, expected).await).boxed()
    }

    fn delete(&self, key: Key, expected: Revision) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        self.write(key.clone(), async move || self.store.delete(key, expected).await).boxed()
    }

    fn watch(&self, prefix: Prefix, from: Revision) -> BoxFuture<'_, StoreResult<Box<dyn Watch>>> {
        self.store.watch(prefix, from)
    }

    fn revision(&self) -> BoxFuture<'_, StoreResult<Revision>> {
        self.store.revision()
    }
}
