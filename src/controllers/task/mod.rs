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
//! 3. The worker's word, or its hash, tells that it began. Where neither does in time, it is published again: a worker that is not
//!    listening yet has missed it ([`silence`]).
//! 4. TASK_SUCCEEDED, TASK_FAILED or a delivered result ends the attempt. When none was heard and the hash says that it
//!    ended, its outcome is unknown, which counts as a failure.
//! 5. A worker that is gone, or is another process now, has lost it: it goes to another at once.
//!
//! A task that asks for GPUs of this host claims them before step 2 ([`cards`]). What is over is kept for a while ([`retention`]).
//!
//! Guarantees: no task is handed to two workers at once unless one of them was taken for dead; each has one recorded end.
//! Messages that are lost, doubled or late cost time, never a task. Assumption: a worker runs what it hears in order, one at a time.

pub mod assign;
pub mod cards;
pub mod retention;
pub mod sharding;
pub mod silence;
pub mod transition;
pub mod view;

mod handing;
mod hearing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    time::Duration,
};

use futures::{StreamExt, future, stream, stream::BoxStream};
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Context;
use crate::{
    adapters::{
        bus::{BusEvent, SharedBus},
        results::ResultFiles,
    },
    api::{
        gpu::Gpu,
        gpuclaim::GpuClaim,
        task::{Task, TaskPhase, TaskReason, TaskStatus},
        worker::Worker,
    },
    mloc::{amounts::MemoryReading, needs::Weights, retry::Backoff, signed::Signer},
    registry::Reason,
    runtime::{
        clock::Clock,
        events::{Note, Recorder},
        objects::Objects,
        reconciler::reference,
        supervisor::{Stage, Supervisor},
    },
    telemetry::tasks::TaskMetrics,
};
use retention::Limits;
use transition::{Next, holder};
use view::{Key, View, key_of, object_name};

/// News that are taken together, at most.
const BATCH: usize = 512;
/// What the bus tells beyond this while tasks and workers are not known yet is left to a look at it.
const MOST_HEARD: usize = 4096;
/// Between looks at the bus while a worker keeps silent.
const LOOK: Duration = Duration::from_secs(1);
/// Without anything to wait for.
const IDLE: Duration = Duration::from_secs(60);

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
    pub results: ResultFiles,
    pub metrics: TaskMetrics,
    /// Of URLs that lead to artifacts, where callers must show a token.
    pub signer: Option<Signer>,
    pub settings: Settings,
}

/// Starts the loop.
pub fn spawn<O: Objects>(context: &Context<O>, reality: Reality, supervisor: &mut Supervisor) {
    let tasks = Tasks {
        objects: context.objects.clone(),
        recorder: context.recorder.clone(),
        clock: context.clock.clone(),
        view: View::new(reality.settings.reading),
        reality,
        dirty: BTreeSet::new(),
        divided: BTreeSet::new(),
        unheld: BTreeSet::new(),
        leaving: BTreeSet::new(),
        left_behind: BTreeSet::new(),
        replaced: BTreeSet::new(),
        retries: BTreeMap::new(),
        reminders: HashMap::new(),
        heard: Vec::new(),
        unknown: Listed::default(),
        next_look: None,
        next_sweep: Instant::now(),
    };
    supervisor.spawn(Stage::Controllers, "task-controller", |shutdown| async move {
        // A pass that is cut off leaves every write whole; what was written and not published is found at the next start.
        shutdown.run_until_cancelled_owned(tasks.run()).await;
        Ok::<(), Infallible>(())
    });
}

enum News {
    Task(Box<Event<Task>>),
    Worker(Box<Event<Worker>>),
    Card(Box<Event<Gpu>>),
    Claim(Box<Event<GpuClaim>>),
    Bus(BusEvent),
    /// A result was stored; none: several may have been.
    Stored(Option<String>),
}

/// Which watches have not told everything yet, and what they told so far.
struct Listed {
    tasks: bool,
    workers: bool,
    seen: BTreeSet<Key>,
}

impl Default for Listed {
    fn default() -> Self {
        Self { tasks: true, workers: true, seen: BTreeSet::new() }
    }
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
    /// When a held task is looked at again.
    retries: BTreeMap<Key, Timestamp>,
    /// How often a dispatch was repeated, and when it is the next time.
    reminders: HashMap<Key, silence::Reminder>,
    /// What the bus told before everything was known.
    heard: Vec<BusEvent>,
    unknown: Listed,
    /// When the bus is looked at.
    next_look: Option<Instant>,
    /// When what is over is looked at.
    next_sweep: Instant,
}

impl<O: Objects> Tasks<O> {
    async fn run(mut self) {
        let mut news = self.news().ready_chunks(BATCH);
        loop {
            let due = self.due();
            // Cancel-safe: a stream's next, a point in time.
            let batch = tokio::select! {
                biased;
                batch = news.next() => batch,
                () = tokio::time::sleep_until(due) => Some(Vec::new()),
            };
            let Some(batch) = batch else { return };
            let mut results = Vec::new();
            for news in batch {
                self.take(news, &mut results);
            }
            if self.unknown.tasks || self.unknown.workers || self.view.cards.unknown.any() {
                continue;
            }
            self.deliver(results).await;
            self.hear().await;
            self.pass().await;
            self.count();
            if self.next_look.is_some_and(|at| at <= Instant::now()) {
                self.look().await;
            }
            if self.next_sweep <= Instant::now() {
                self.sweep().await;
            }
        }
    }

    fn news(&self) -> BoxStream<'static, News> {
        let stored = stream::unfold(self.reality.results.stored(), |mut stored| async move {
            use tokio::sync::broadcast::error::RecvError;
            match stored.recv().await {
                Ok(task) => Some((News::Stored(Some(task)), stored)),
                Err(RecvError::Lagged(_)) => Some((News::Stored(None), stored)),
                Err(RecvError::Closed) => None,
            }
        });
        let all: [BoxStream<'static, News>; 6] = [
            self.objects.watch::<Task>().map(|event| News::Task(event.into())).boxed(),
            self.objects.watch::<Worker>().map(|event| News::Worker(event.into())).boxed(),
            self.objects.watch::<Gpu>().map(|event| News::Card(event.into())).boxed(),
            self.objects.watch::<GpuClaim>().map(|event| News::Claim(event.into())).boxed(),
            self.reality.bus.events().map(News::Bus).boxed(),
            stored.boxed(),
        ];
        stream::select_all(all).boxed()
    }

    fn due(&self) -> Instant {
        let now = self.clock.now();
        let retry = self.retries.values().min().map(|at| {
            let wait = at.duration_since(now);
            Instant::now() + Duration::try_from(wait).unwrap_or(Duration::ZERO)
        });
        [retry, self.next_look, Some(self.next_sweep)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + IDLE)
    }

    fn take(&mut self, news: News, results: &mut Vec<Option<String>>) {
        match news {
            News::Task(event) => self.take_task(*event, results),
            News::Worker(event) => self.take_worker(*event),
            News::Card(event) => self.view.cards.take_card(*event),
            News::Claim(event) => self.dirty.extend(self.view.cards.take_claim(*event)),
            News::Bus(event) if self.heard.len() < MOST_HEARD => self.heard.push(event),
            News::Bus(_) => self.look_soon(),
            News::Stored(task) => results.push(task),
        }
    }

    fn take_task(&mut self, event: Event<Task>, results: &mut Vec<Option<String>>) {
        match event {
            Event::Init => self.unknown.seen.clear(),
            Event::InitApply(task) => {
                self.unknown.seen.insert(key_of(&task));
                self.put(task.into());
            }
            Event::InitDone => {
                let gone: Vec<Key> =
                    self.view.keys().filter(|key| !self.unknown.seen.contains(*key)).cloned().collect();
                for key in gone {
                    self.dirty.extend(self.view.remove(&key));
                }
                self.unknown.tasks = false;
                self.dirty.extend(self.view.keys().cloned());
                // What was said before this process began may have been missed.
                self.look_soon();
                results.push(None);
            }
            Event::Apply(task) => self.put(task.into()),
            Event::Delete(task) => {
                let key = key_of(&task);
                // Whoever has it runs it to its end.
                if let Some(worker) = holder(&task) {
                    self.view.occupied.insert(worker.to_owned(), key.clone());
                    self.look_soon();
                }
                self.left_behind.insert(key.clone());
                self.dirty.extend(self.view.remove(&key));
            }
        }
    }

    fn take_worker(&mut self, event: Event<Worker>) {
        match event {
            Event::Init => {}
            Event::InitApply(worker) | Event::Apply(worker) => self.dirty.extend(self.view.put_worker(&worker)),
            Event::InitDone => {
                self.unknown.workers = false;
                self.dirty.extend(self.view.keys().cloned());
            }
            Event::Delete(worker) => self.dirty.extend(self.view.remove_worker(&worker)),
        }
    }

    fn put(&mut self, task: std::sync::Arc<Task>) {
        if task.phase().is_terminal() {
            self.sweep_soon();
        }
        self.dirty.extend(self.view.put(task));
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
        let Some(task) = self.view.task(key).cloned() else {
            self.view.seeking.remove(key);
            return None;
        };
        if retention::is_leaving(&task) {
            self.view.seeking.remove(key);
            if retention::is_held(&task) {
                self.leaving.insert(key.clone());
            }
            return None;
        }
        if !task.phase().is_terminal() && !retention::is_held(&task) {
            self.view.seeking.remove(key);
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
            self.view.seeking.remove(key);
            self.divided.insert(key.clone());
            return None;
        }
        if let Some(worker) = holder(&task) {
            self.view.seeking.remove(key);
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
                self.view.seeking.remove(key);
                let at = task.status.as_ref().and_then(|status| status.next_retry_at.as_ref());
                if let Some(at) = at.filter(|_| !task.phase().is_terminal()) {
                    self.retries.insert(key.clone(), at.0);
                }
                None
            }
            Next::Become(status) => {
                self.view.seeking.remove(key);
                Some(*status)
            }
            Next::Seek => {
                self.view.seeking.insert(key.clone());
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

    /// Writes statuses, all at once. A conflict voids one: what the task has become is looked at.
    async fn write(&mut self, changes: Vec<(Key, TaskStatus)>) -> Vec<Key> {
        let writes = changes.into_iter().filter_map(|(key, status)| {
            let task = self.view.task(&key)?.clone();
            let objects = self.objects.clone();
            Some(async move {
                let mut wanted = (*task).clone();
                wanted.status = Some(status);
                (key, task, objects.update_status(wanted).await)
            })
        });
        let mut written = Vec::new();
        for (key, before, answer) in future::join_all(writes).await {
            match answer {
                Ok(task) => {
                    self.tell(&before, &task);
                    self.put(task);
                    written.push(key);
                }
                Err(error) => self.look_again(&key, error.reason, &error.message).await,
            }
        }
        written
    }

    async fn look_again(&mut self, key: &Key, reason: Reason, message: &str) {
        self.look_at(key).await;
        if !matches!(reason, Reason::Conflict | Reason::NotFound) {
            warn!(task = key.1, message, "the status of a task cannot be written");
            // The store may be full or closing; nothing is lost by trying later.
            self.retries.insert(key.clone(), self.clock.now() + LOOK);
        }
    }

    /// Takes a task as it is in the store.
    async fn look_at(&mut self, key: &Key) {
        match self.objects.get::<Task>(&object_name(key)).await {
            Ok(Some(task)) => self.put(task),
            Ok(None) => self.dirty.extend(self.view.remove(key)),
            Err(_) => {}
        }
    }

    /// Logs every change of phase, and tells people of what went wrong.
    fn tell(&self, before: &Task, task: &Task) {
        let Some(status) = &task.status else { return };
        let Some((reason, message)) = transition::told(status) else { return };
        if before.status.as_ref().and_then(transition::told).is_some_and(|(before, _)| before == reason) {
            return;
        }
        let name = task.metadata.name.as_deref().unwrap_or_default();
        self.count_change(before, task, status, reason);
        info!(task = name, reason, worker = status.assigned_worker, "task changed");
        let bad = [
            TaskReason::WorkerFailed,
            TaskReason::WorkerLost,
            TaskReason::RetriesExhausted,
            TaskReason::DependencyFailed,
            TaskReason::NoWorkerFits,
            TaskReason::WaitingForGpu,
            TaskReason::Invalid,
        ];
        if let Some(bad) = bad.into_iter().find(|bad| <&str>::from(*bad) == reason) {
            self.recorder.record(&reference(task), Note::warning(bad.into(), bad.into(), message));
        }
    }

    fn count_change(&self, before: &Task, task: &Task, status: &TaskStatus, reason: &str) {
        let metrics = &self.reality.metrics;
        let again = [TaskReason::WorkerFailed, TaskReason::WorkerLost].map(<&str>::from);
        match status.phase {
            phase if phase == before.phase() => {}
            TaskPhase::Done => {
                let end = status.finished_at.as_ref().map_or_else(|| self.clock.now(), |at| at.0);
                let took = end.duration_since(task.submitted_at()).as_secs_f64();
                metrics.done(&task.spec.document.spec.task_type, took);
            }
            TaskPhase::Failed => drop(metrics.failed.inc()),
            TaskPhase::Cancelled => drop(metrics.cancelled.inc()),
            TaskPhase::Dispatched => drop(metrics.dispatched.inc()),
            TaskPhase::Waiting if again.contains(&reason) => drop(metrics.requeued.inc()),
            TaskPhase::Waiting | TaskPhase::Pending => {}
        }
    }

    /// What the gauges show.
    fn count(&self) {
        for (phase, count) in self.view.phases() {
            self.reality.metrics.phase(phase.into(), count);
        }
        let (idle, running, lost) = self.view.workforce();
        self.reality.metrics.workers(idle, running, lost);
    }

    fn look_soon(&mut self) {
        let at = Instant::now() + LOOK;
        self.next_look = Some(self.next_look.map_or(at, |look| look.min(at)));
    }
}
