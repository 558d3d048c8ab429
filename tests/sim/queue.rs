//! The queue of a controller, scheduled by the seed: the live queue's promises (one entry per object, the earlier time
//! winning, never two passes over one object) with an order of passes that a seed repeats.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use gaia::{
    registry::ObjectName,
    runtime::{
        objects::Objects,
        reconciler::{Driver, Outcome, Reconciler, name_of},
        registry_objects::RegistryObjects,
        wakeups::{Wake, Wakeups},
    },
};
use kube::{
    Resource, ResourceExt,
    runtime::{reflector::store::Writer, watcher::Event},
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::world::World;

/// Passes at the same time.
const PARALLEL: usize = 8;

/// Far more than news and convergence ever ask for.
const MOST_PASSES_A_SECOND: usize = 200;

/// Every wait has a deadline; the sum of those of one pass is below this.
const LONGEST_PASS: Duration = Duration::from_secs(300);

type Name = (Option<String>, String);
type Passes<'a> = FuturesUnordered<LocalBoxFuture<'a, (ObjectName, Outcome)>>;

pub struct Queue<'a, R: Reconciler> {
    world: &'a World,
    driver: &'a Driver<R, RegistryObjects>,
    wakeups: Wakeups,
    writer: Writer<R::Object>,
    objects: BTreeMap<Name, Arc<R::Object>>,
    /// Whose deletion has been seen.
    deleting: BTreeSet<String>,
    /// Told of every object whose deletion begins.
    on_deletion: fn(&World, &R::Object),
    due: BTreeMap<Name, Instant>,
    busy: BTreeSet<Name>,
    /// Since when, and how many: an object looked at again and again while no time passes is a loop that eats a core.
    hurry: (Instant, BTreeMap<Name, usize>),
}

impl<'a, R: Reconciler> Queue<'a, R> {
    pub fn new(
        world: &'a World,
        driver: &'a Driver<R, RegistryObjects>,
        wakeups: Wakeups,
        writer: Writer<R::Object>,
        on_deletion: fn(&World, &R::Object),
    ) -> Self {
        Self {
            world,
            driver,
            wakeups,
            writer,
            objects: BTreeMap::new(),
            deleting: BTreeSet::new(),
            on_deletion,
            due: BTreeMap::new(),
            busy: BTreeSet::new(),
            hurry: (Instant::now(), BTreeMap::new()),
        }
    }

    pub async fn run(mut self) -> Infallible {
        let mut watch = self.driver.objects.watch::<R::Object>();
        let mut woken = Box::pin(self.wakeups.stream());
        let mut passes: Passes<'a> = FuturesUnordered::new();
        loop {
            if self.world.is_violated() {
                // A controller that never rests would not let anybody see it.
                return pending().await;
            }
            self.start_due(&mut passes);
            let next = self.next_due();
            // Cancel-safe: streams and a timer.
            tokio::select! {
                biased;
                Some((name, outcome)) = passes.next(), if !passes.is_empty() => {
                    self.busy.remove(&key(&name));
                    if let Some(delay) = self.driver.settle(&name, outcome) {
                        self.enqueue(key(&name), delay);
                    }
                }
                Some(event) = watch.next() => self.saw(event),
                Some(wake) = woken.next() => match wake {
                    Wake::One(name) => self.enqueue(key(&name), Duration::ZERO),
                    Wake::Everything => self.enqueue_everything(),
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    fn saw(&mut self, event: Event<R::Object>) {
        self.writer.apply_watcher_event(&event);
        match event {
            Event::Init => self.objects.clear(),
            Event::InitApply(object) => {
                if object.meta().deletion_timestamp.is_some() {
                    self.deleting.insert(object.uid().unwrap_or_default());
                }
                self.objects.insert(key(&name_of(&object)), Arc::new(object));
            }
            Event::InitDone => self.enqueue_everything(),
            Event::Apply(object) => {
                if object.meta().deletion_timestamp.is_some() {
                    self.saw_deletion(&object);
                }
                self.objects.insert(key(&name_of(&object)), Arc::new(object.clone()));
                self.enqueue_with_related(&object);
            }
            Event::Delete(object) => {
                self.saw_deletion(&object);
                self.objects.remove(&key(&name_of(&object)));
                self.enqueue_with_related(&object);
            }
        }
    }

    fn saw_deletion(&mut self, object: &R::Object) {
        if self.deleting.insert(object.uid().unwrap_or_default()) {
            (self.on_deletion)(self.world, object);
        }
    }

    fn enqueue_with_related(&mut self, object: &R::Object) {
        let all: Vec<Arc<R::Object>> = self.objects.values().cloned().collect();
        for name in R::related(object, &all) {
            self.enqueue(key(&name), Duration::ZERO);
        }
        self.enqueue(key(&name_of(object)), Duration::ZERO);
    }

    fn enqueue_everything(&mut self) {
        let names: Vec<Name> = self.objects.keys().cloned().collect();
        for name in names {
            self.enqueue(name, Duration::ZERO);
        }
    }

    fn enqueue(&mut self, name: Name, delay: Duration) {
        let at = Instant::now() + delay;
        let due = self.due.entry(name).or_insert(at);
        *due = at.min(*due);
    }

    fn next_due(&self) -> Option<Instant> {
        if self.busy.len() >= PARALLEL {
            return None;
        }
        self.due.iter().filter(|(name, _)| !self.busy.contains(*name)).map(|(_, at)| *at).min()
    }

    /// Everything that is due and not busy, in an order of the seed's.
    fn start_due(&mut self, passes: &mut Passes<'a>) {
        let now = Instant::now();
        let due = self.due.iter().filter(|(name, at)| **at <= now && !self.busy.contains(*name));
        let mut ready: Vec<Name> = due.map(|(name, _)| name.clone()).collect();
        self.world.rng().shuffle(&mut ready);
        for name in ready {
            if self.busy.len() >= PARALLEL {
                return;
            }
            self.due.remove(&name);
            self.busy.insert(name.clone());
            self.count(&name, now);
            passes.push(self.pass(name));
        }
    }

    fn count(&mut self, name: &Name, now: Instant) {
        if now - self.hurry.0 > Duration::from_secs(1) {
            self.hurry = (now, BTreeMap::new());
        }
        let passes = self.hurry.1.entry(name.clone()).or_default();
        *passes += 1;
        if *passes == MOST_PASSES_A_SECOND {
            let object = self.objects.get(name);
            self.world.violated(format!("{} is looked at {passes} times a second: {object:?}", name.1));
        }
    }

    fn pass(&self, (namespace, name): Name) -> LocalBoxFuture<'a, (ObjectName, Outcome)> {
        let (world, driver) = (self.world, self.driver);
        async move {
            let name = ObjectName { namespace, name };
            let outcome = match timeout(LONGEST_PASS, driver.reconcile_once(&name)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    world.violated(format!("a pass over {} takes more than {LONGEST_PASS:?}", name.name));
                    Outcome::Conflict
                }
            };
            (name, outcome)
        }
        .boxed_local()
    }
}

fn key(name: &ObjectName) -> Name {
    (name.namespace.clone(), name.name.clone())
}
