//! What every controller is started with: a queue over its objects, and tasks that wake it when other kinds change.

use std::{convert::Infallible, sync::Arc};

use kube::runtime::reflector::Store;

use super::{
    clock::Clock,
    events::Recorder,
    follow::follow,
    metrics::RuntimeMetrics,
    objects::{Object, Objects},
    queue::Queue,
    reconciler::{Driver, Reconciler},
    supervisor::{Stage, Supervisor},
    wakeups::{Wake, Wakeups},
};

/// What controllers run on, whatever they decide.
#[derive(Clone)]
pub struct Basis<O: Objects> {
    pub objects: O,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    pub metrics: RuntimeMetrics,
    /// Of every jitter.
    pub seed: u64,
}

/// A controller whose queue runs, for what is to run beside it.
pub struct Controller<'a, K: Object, O: Objects> {
    /// Its objects as the watch tells them: for finding out whom a hint concerns.
    pub store: Store<K>,
    objects: O,
    wakeups: Wakeups,
    supervisor: &'a mut Supervisor,
}

/// Starts its queue, as the task `name`. Whatever the reconciler does beside its passes tells the same `wakeups`.
pub fn start<'a, R: Reconciler, O: Objects>(
    name: &'static str,
    reconciler: R,
    wakeups: Wakeups,
    basis: Basis<O>,
    supervisor: &'a mut Supervisor,
) -> Controller<'a, R::Object, O> {
    let Basis { objects, recorder, clock, metrics, seed } = basis;
    let driver = Driver::new(Arc::new(reconciler), objects.clone(), recorder, clock, metrics, seed);
    let queue = Queue::new(Arc::new(driver), wakeups.clone());
    let store = queue.store();
    supervisor.spawn(Stage::Controllers, name, |shutdown| async move {
        queue.run(shutdown).await;
        Ok::<(), Infallible>(())
    });
    Controller { store, objects, wakeups, supervisor }
}

impl<K: Object, O: Objects> Controller<'_, K, O> {
    /// Every change of an `F` wakes those that `whom` names, as the task `name`.
    pub fn follow<F: Object>(&mut self, name: &'static str, whom: impl Fn(&F) -> Vec<Wake> + Send + 'static) {
        let (objects, wakeups) = (self.objects.clone(), self.wakeups.clone());
        self.supervisor.spawn(Stage::Controllers, name, |shutdown| async move {
            follow(objects, wakeups, whom, shutdown).await;
            Ok::<(), Infallible>(())
        });
    }
}
