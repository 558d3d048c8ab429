//! The live loop: passes in parallel over different objects, one at a time over the same, woken by the watch, by
//! related objects, by [`Wakeups`] and by the requeues that [`Driver::settle`] asks for.
//!
//! kube-runtime's `applier` does the scheduling (one entry per object, the earlier time winning; an object that is busy
//! waits aside). The streams are ours, and so is the backoff, for its error policy is not told the attempt.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use kube::runtime::{
    controller::{Action, Config, Error, ReconcileRequest, applier},
    reflector::{ObjectRef, Store, store::Writer},
    watcher::Event,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    objects::Objects,
    reconciler::{Driver, Outcome, Reconciler, name_of},
    wakeups::{Wake, Wakeups},
};
use crate::registry::ObjectName;

/// Passes at the same time. They mostly wait for the engine.
const PARALLEL_PASSES: u16 = 32;

/// A controller's queue, not running yet: [`Queue::store`] can be handed out before.
pub struct Queue<R: Reconciler, O: Objects> {
    driver: Arc<Driver<R, O>>,
    wakeups: Wakeups,
    writer: Writer<R::Object>,
    store: Store<R::Object>,
}

impl<R: Reconciler, O: Objects> Queue<R, O> {
    pub fn new(driver: Arc<Driver<R, O>>, wakeups: Wakeups) -> Self {
        let writer = Writer::new(());
        let store = writer.as_reader();
        Self { driver, wakeups, writer, store }
    }

    /// The objects as the watch tells them: for finding out whom a hint concerns, never for deciding.
    pub fn store(&self) -> Store<R::Object> {
        self.store.clone()
    }

    /// Runs until `shutdown`; then takes no new pass and returns when the running ones have ended.
    pub async fn run(self, shutdown: CancellationToken) {
        info!(controller = R::NAME, "controller starts");
        let requests = stream::select(
            watched::<R, _>(&self.driver.objects, self.writer, self.store.clone()),
            woken::<R>(&self.wakeups, self.store.clone()),
        )
        .take_until(shutdown.cancelled_owned())
        .map(Ok::<_, Infallible>);
        let passes = applier(
            |object: Arc<R::Object>, driver: Arc<Driver<R, O>>| pass(driver, name_of(&*object)).boxed(),
            |_, never: &Infallible, _| match *never {},
            self.driver.clone(),
            self.store,
            requests,
            Config::default().concurrency(PARALLEL_PASSES),
        );
        let mut passes = std::pin::pin!(passes);
        while let Some(ended) = passes.next().await {
            self.driver.handle_end(ended);
        }
        info!(controller = R::NAME, "controller ended");
    }
}

/// What the applier answers for each pass.
type Ended<K> = Result<(ObjectRef<K>, Action), Error<Infallible, Infallible>>;

/// A pass and its settlement. The error type says that no end of a pass is left to the applier's error policy.
async fn pass<R: Reconciler, O: Objects>(driver: Arc<Driver<R, O>>, name: ObjectName) -> Result<Action, Infallible> {
    let outcome = driver.reconcile_once(&name).await;
    Ok(match driver.settle(&name, outcome) {
        Some(delay) => Action::requeue(delay),
        None => Action::await_change(),
    })
}

impl<R: Reconciler, O: Objects> Driver<R, O> {
    fn handle_end(&self, ended: Ended<R::Object>) {
        match ended {
            Ok(_) => {}
            // The usual end of a deleted object: its last requeue finds it gone.
            Err(Error::ObjectNotFound(object)) => {
                let name = ObjectName { namespace: object.namespace.clone(), name: object.name.clone() };
                let never: Option<Duration> = self.settle(&name, Outcome::Gone);
                debug_assert!(never.is_none(), "what is gone is not looked at again");
            }
            Err(Error::ReconcilerFailed(never, _) | Error::QueueError(never)) => match never {},
            Err(Error::RunnerError(error)) => error!(controller = R::NAME, %error, "the queue's runner failed"),
        }
    }
}

/// The watch, kept in the store, as requests: the object itself and those its change concerns.
fn watched<R: Reconciler, O: Objects>(
    objects: &O,
    mut writer: Writer<R::Object>,
    store: Store<R::Object>,
) -> BoxStream<'static, ReconcileRequest<R::Object>> {
    objects
        .watch::<R::Object>()
        .flat_map(move |event| {
            writer.apply_watcher_event(&event);
            stream::iter(match &event {
                Event::Apply(object) | Event::Delete(object) => {
                    let related = R::related(object, &store.state());
                    let mut refs: Vec<_> = related.iter().map(object_ref).collect();
                    refs.push(ObjectRef::from_obj(object));
                    refs
                }
                Event::Init | Event::InitApply(_) => Vec::new(),
                // Start-up, or a watch that fell behind: everything is looked at.
                Event::InitDone => store.state().iter().map(|object| ObjectRef::from_obj(&**object)).collect(),
            })
            .map(ReconcileRequest::from)
        })
        .boxed()
}

fn woken<R: Reconciler>(wakeups: &Wakeups, store: Store<R::Object>) -> BoxStream<'static, ReconcileRequest<R::Object>> {
    wakeups
        .stream()
        .flat_map(move |wake| {
            stream::iter(match wake {
                Wake::One(name) => vec![object_ref(&name)],
                Wake::Everything => store.state().iter().map(|object| ObjectRef::from_obj(&**object)).collect(),
            })
            .map(ReconcileRequest::from)
        })
        .boxed()
}

fn object_ref<K: super::objects::Object>(name: &ObjectName) -> ObjectRef<K> {
    match &name.namespace {
        Some(namespace) => ObjectRef::new(&name.name).within(namespace),
        None => ObjectRef::new(&name.name),
    }
}
