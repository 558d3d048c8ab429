//! Tasks go to workers, and come to an end.
//!
//! One loop decides for all tasks, for what one gets another cannot have: it follows tasks and workers in the store, listens to the
//! bus, and is the only writer of a task's status. It keeps nothing: what it holds in memory is the store, arranged
//! ([`view`]), and hints that a look at the bus brings back.
//!
//! Expected flow of one task:
//! 1. Every dependency is done: it seeks a worker ([`transition::next`]).
//! 2. One is free that fits ([`assign`]). The status says Dispatched, with the attempt and the worker's incarnation, by
//!    compare-and-swap and durably. Only then is it published. A crash in between is found by step 3.
//! 3. The worker's word, or its hash, tells that it began, which is written unless it ends at once ([`beginning`]). Where neither does in time, it is published again: a worker that is not
//!    listening yet has missed it ([`silence`]).
//! 4. TASK_SUCCEEDED, TASK_FAILED or a delivered result ends the attempt. When none was heard and the hash says that it
//!    ended, its outcome is unknown, which counts as a failure.
//! 5. A worker that is gone, or is another process now, has lost it: it goes to another at once.
//!
//! A task that asks for GPUs of this host claims them before step 2 ([`cards`]). What is over is kept for a while ([`retention`]); what
//! a submission left that was cut off goes ([`submission`]).
//!
//! Guarantees: no task is handed to two workers at once unless one of them was taken for dead; each has one recorded end.
//! Messages that are lost, doubled or late cost time, never a task. Assumption: a worker runs what it hears in order, one at a time.

pub mod assign;
pub mod cards;
pub mod queue;
pub mod retention;
pub mod sharding;
pub mod silence;
pub mod submission;
pub mod transition;
pub mod view;

mod beginning;
mod delivering;
mod following;
mod handing;
mod hearing;
mod writing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::Context;
use crate::{
    adapters::{
        bus::{BusEvent, SharedBus},
        outbox::Outbox,
        results::SharedResults,
    },
    api::task::{Task, TaskStatus},
    mloc::{amounts::MemoryReading, needs::Weights, retry::Backoff, signed::Signer},
    runtime::{
        clock::Clock,
        events::Recorder,
        objects::Objects,
        supervisor::{Stage, Supervisor},
    },
    telemetry::tasks::TaskMetrics,
};
use following::Listed;
use retention::Limits;
use transition::{Next, holder};
use view::{Key, View, key_of};

/// Between looks at the bus while a worker keeps silent.
const LOOK: Duration = Duration::from_secs(1);

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Settings {
    pub backoff: Backoff,
    pub weights: Weights,
    pub reading: MemoryReading,
    pub limits: Limits,
}

/// What tasks touch beyond objects.
#[derive(Clone)]
pub struct Reality {
    pub bus: SharedBus,
    pub results: SharedResults,
    pub metrics: TaskMetrics,
    /// Of URLs that lead to artifacts, where callers must show a token.
    pub signer: Option<Signer>,
    pub outbox: Outbox,
    /// Where workers reach us. None: nobody has said so.
    pub base_url: Option<String>,
    pub settings: Settings,
}

/// Starts the loop.
pub fn spawn<O: Objects>(context: &Context<O>, reality: Reality, supervisor: &mut Supervisor) {
    let running = run(context, reality);
    supervisor.spawn(Stage::Controllers, "task-controller", |shutdown| async move {
        // A pass that is cut off leaves every write whole; what was written and not published is found at the next start.
        shutdown.run_until_cancelled_owned(running).await;
        Ok::<(), Infallible>(())
    });
}

/// The loop itself. It ends only when it is dropped, at any point.
pub fn run<O: Objects>(context: &Context<O>, reality: Reality) -> impl Future<Output = ()> + Send + use<O> {
    Tasks::new(context.objects.clone(), context.recorder.clone(), context.clock.clone(), reality).run()
}

struct Tasks<O: Objects> {
    objects: O,
    reality: Reality,
    recorder: Recorder,
    clock: std::sync::Arc<dyn Clock>,
    view: View,
    /// To be looked at.
    dirty: BTreeSet<Key>,
    /// To be looked after ([`sharding`]).
    divided: BTreeSet<Key>,
    /// To be given a finalizer, to be let go, and deleted ones whose workers were still at them ([`retention`]).
    unheld: BTreeSet<Key>,
    leaving: BTreeSet<Key>,
    left_behind: BTreeSet<Key>,
    /// Parts of tasks that are tried again: to be deleted.
    replaced: BTreeSet<Key>,
    /// Others of their submission have been missing since ([`submission`]).
    incomplete: BTreeMap<Key, Instant>,
    /// When a held task is looked at again.
    retries: BTreeMap<Key, Timestamp>,
    /// How often a dispatch was repeated, and when it is the next time.
    reminders: HashMap<Key, silence::Reminder>,
    /// Since when workers say nothing of what they were given and nobody waits for any more.
    silent: HashMap<String, Instant>,
    /// What the bus told before everything was known.
    heard: Vec<BusEvent>,
    begun: BTreeMap<Key, beginning::Begun>,
    /// Whose results were stored; none: several may have been.
    stored: Vec<Option<String>>,
    /// Whose results could not be read or recorded, and are looked at again.
    unread: Vec<String>,
    /// When they are.
    next_reading: Option<Instant>,
    /// Results that are on their way to others.
    outgoing: delivering::Outgoing,
    unknown: Listed,
    /// When the bus is looked at.
    next_look: Option<Instant>,
    /// When what is over is looked at.
    next_sweep: Instant,
}

impl<O: Objects> Tasks<O> {
    /// Nothing is known yet.
    fn new(objects: O, recorder: Recorder, clock: std::sync::Arc<dyn Clock>, reality: Reality) -> Self {
        Self {
            objects,
            recorder,
            clock,
            view: View::new(reality.settings.reading),
            reality,
            dirty: BTreeSet::new(),
            divided: BTreeSet::new(),
            unheld: BTreeSet::new(),
            leaving: BTreeSet::new(),
            left_behind: BTreeSet::new(),
            replaced: BTreeSet::new(),
            incomplete: BTreeMap::new(),
            retries: BTreeMap::new(),
            reminders: HashMap::new(),
            silent: HashMap::new(),
            heard: Vec::new(),
            begun: BTreeMap::new(),
            stored: Vec::new(),
            unread: Vec::new(),
            next_reading: None,
            outgoing: delivering::Outgoing::default(),
            unknown: Listed::default(),
            next_look: None,
            next_sweep: Instant::now(),
        }
    }

    /// Looks at whoever may stand otherwise now, until nobody does; then gives what seeks to who is free.
    async fn pass(&mut self) {
        let now = self.clock.now();
        self.dirty.extend(self.retries.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()));
        self.settle(now).await;
        self.divide().await;
        self.settle(now).await;
        self.give_back().await;
        self.settle(now).await;
        self.hand_out().await;
    }

    async fn settle(&mut self, now: Timestamp) {
        loop {
            while !self.dirty.is_empty() {
                let mut changes = Vec::new();
                for key in std::mem::take(&mut self.dirty) {
                    if let Some(status) = self.consider(&key, now) {
                        changes.push((key, status));
                    }
                }
                self.write(changes).await;
                self.hold_all().await;
                self.replace_all().await;
            }
            self.leave_all().await;
            if self.divided.is_empty() {
                return;
            }
            self.tend_all().await;
        }
    }

    /// What one task is to become, if anything; and whether it seeks a worker.
    fn consider(&mut self, key: &Key, now: Timestamp) -> Option<TaskStatus> {
        self.retries.remove(key);
        let Some(task) = self.known(key) else {
            self.view.seek_no_more(key);
            self.incomplete.remove(key);
            return None;
        };
        if retention::is_leaving(&task) {
            self.view.seek_no_more(key);
            self.incomplete.remove(key);
            if retention::is_held(&task) {
                self.leaving.insert(key.clone());
            }
            return None;
        }
        if self.is_incomplete(key, &task) {
            self.view.seek_no_more(key);
            return None;
        }
        if !task.phase().is_terminal() && !retention::is_held(&task) {
            self.view.seek_no_more(key);
            self.unheld.insert(key.clone());
            return None;
        }
        if transition::is_asked_again(&task) {
            // Parts of before go first: those that are made then have their names.
            let parts = self.view.parts(key).into_values().map(|part| key_of(&part)).collect::<Vec<_>>();
            if parts.is_empty() {
                return Some(transition::retried(&task, now));
            }
            self.replaced.extend(parts);
            return None;
        }
        if transition::parts_of(&task).is_some() {
            self.view.seek_no_more(key);
            self.divided.insert(key.clone());
            return None;
        }
        if let Some(worker) = holder(&task) {
            self.view.seek_no_more(key);
            if task.spec.cancel {
                self.view.occupied.insert(worker.to_owned(), key.clone());
                // Where the worker is told of it.
                self.next_look = Some(Instant::now());
                return Some(transition::cancelled(&task, now));
            }
            let error = self.why_lost(&task, worker)?;
            return transition::lost(&task, &error, now);
        }
        match transition::next(&task, &self.view.upstream(&task), now) {
            Next::Stay => {
                self.view.seek_no_more(key);
                let at = task.status.as_ref().and_then(|status| status.next_retry_at.as_ref());
                if let Some(at) = at.filter(|_| !task.phase().is_terminal()) {
                    self.retries.insert(key.clone(), at.0);
                }
                None
            }
            Next::Become(status) => {
                self.view.seek_no_more(key);
                Some(*status)
            }
            Next::Seek => {
                self.view.seek(key);
                None
            }
        }
    }

    /// Why a worker does not have its task any more. None: it has.
    fn why_lost(&self, task: &Task, worker: &str) -> Option<String> {
        let incarnation = task.status.as_ref().and_then(|status| status.assigned_incarnation.as_deref());
        match self.view.worker(worker) {
            None => Some(format!("worker {worker} is gone")),
            Some(hand) if !hand.ready => Some(format!("worker {worker} gives no sign of life")),
            Some(hand) if incarnation.is_some() && hand.incarnation.as_deref() != incarnation => {
                Some(format!("worker {worker} was started anew"))
            }
            Some(_) => None,
        }
    }

    fn look_soon(&mut self) {
        let at = Instant::now() + LOOK;
        self.next_look = Some(self.next_look.map_or(at, |look| look.min(at)));
    }
}

#[cfg(test)]
mod tests;
