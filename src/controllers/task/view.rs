//! What is known of tasks and workers, from the watches and from our own writes. Nothing here is kept beyond the process: it is
//! what the store says, arranged for deciding.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    assign::Idle,
    cards::Cards,
    queue::{Fits, Queue, Seeker},
    retention::{Kept, group_of, is_leaving},
    submission,
    transition::{Upstream, holder, is_asked_again},
};
use crate::{
    api::{
        condition::{self, READY},
        task::{Task, TaskPhase},
        worker::{Worker, WorkerHardware, WorkerState},
    },
    mloc::{
        amounts::MemoryReading,
        names,
        needs::{self, Executors, Needs, Offer},
    },
    registry::ObjectName,
};

/// Namespace and name.
pub type Key = (String, String);

pub fn key_of(task: &Task) -> Key {
    let metadata = &task.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

pub fn object_name(key: &Key) -> ObjectName {
    ObjectName { namespace: Some(key.0.clone()), name: key.1.clone() }
}

pub fn wire_id(key: &Key) -> String {
    names::wire_id(&key.0, &key.1)
}

pub fn key_from_wire(id: &str) -> Key {
    let (namespace, name) = names::from_wire(id);
    (namespace.to_owned(), name.to_owned())
}

struct Known {
    task: Arc<Task>,
    submitter: String,
}

/// A worker as far as tasks are concerned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hand {
    pub hardware: WorkerHardware,
    /// It lives, and has announced what it has.
    pub ready: bool,
    pub unschedulable: bool,
    /// When its process started, in its own words.
    pub incarnation: Option<String>,
    /// What it is able to run. None: a worker of MLOC, which does not say.
    pub executors: Option<Executors>,
}

impl Hand {
    /// It is one of our own workers, which give back the token of an attempt.
    pub fn is_ours(&self) -> bool {
        self.executors.is_some()
    }

    pub fn offer(&self) -> Offer<'_> {
        Offer { hardware: &self.hardware, executors: self.executors.as_ref() }
    }
}

#[derive(Default)]
pub struct View {
    tasks: BTreeMap<Key, Known>,
    /// Those that wait for another one: to be done, or to be there at all.
    dependents: HashMap<Key, BTreeSet<Key>>,
    /// Of tasks that are divided, by their places.
    parts: HashMap<Key, BTreeMap<u32, Key>>,
    /// By the worker that has them.
    held: BTreeMap<String, BTreeSet<Key>>,
    /// Those that may go to a worker now.
    queue: Queue,
    workers: BTreeMap<String, Hand>,
    /// Another number whenever they are others, or otherwise.
    workers_version: u64,
    /// Workers that are at work on something that is no task of theirs any more, until they say that they are idle.
    pub occupied: BTreeMap<String, Key>,
    /// Workers that have said that they end: their objects say so a moment later.
    pub leaving: BTreeSet<String>,
    reading: MemoryReading,
    pub cards: Cards,
    /// How many tasks are in each phase.
    phases: HashMap<TaskPhase, usize>,
}

impl View {
    pub fn new(reading: MemoryReading) -> Self {
        Self { reading, ..Self::default() }
    }

    pub fn task(&self, key: &Key) -> Option<&Arc<Task>> {
        self.tasks.get(key).map(|known| &known.task)
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.tasks.keys()
    }

    pub fn worker(&self, id: &str) -> Option<&Hand> {
        self.workers.get(id)
    }

    /// Every worker that has a task, with its tasks.
    pub fn held(&self) -> &BTreeMap<String, BTreeSet<Key>> {
        &self.held
    }

    /// Takes a version of a task, unless a later one is known. Answers who must be looked at again.
    pub fn put(&mut self, task: Arc<Task>) -> Vec<Key> {
        let key = key_of(&task);
        if self.tasks.get(&key).is_some_and(|known| revision(&known.task) >= revision(&task)) {
            return Vec::new();
        }
        let before = self.tasks.get(&key).map(|known| known.task.phase().is_terminal());
        self.forget(&key);
        if let Some(worker) = holder(&task) {
            self.held.entry(worker.to_owned()).or_default().insert(key.clone());
        }
        for on in waits_for(&task) {
            self.dependents.entry((key.0.clone(), on.to_owned())).or_default().insert(key.clone());
        }
        let owner = task.spec.document.metadata.rest.get("owner").and_then(|owner| owner.as_str());
        let known = Known { submitter: owner.unwrap_or_default().to_owned(), task };
        *self.phases.entry(known.task.phase()).or_default() += 1;
        let ended = known.task.phase().is_terminal();
        self.tasks.insert(key.clone(), known);
        let mut concerned = if before != Some(ended) { self.dependents_of(&key) } else { Vec::new() };
        if let Some(shard) = &self.tasks[&key].task.spec.shard {
            let whole = (key.0.clone(), shard.parent.clone());
            self.parts.entry(whole.clone()).or_default().insert(shard.index, key.clone());
            concerned.push(whole);
        }
        concerned.push(key);
        concerned
    }

    /// A task was deleted. Answers who must be looked at again.
    pub fn remove(&mut self, key: &Key) -> Vec<Key> {
        self.forget(key);
        let removed = self.tasks.remove(key);
        self.queue.remove(key);
        let mut concerned = self.dependents_of(key);
        if let Some(shard) = removed.and_then(|known| known.task.spec.shard.clone()) {
            let whole = (key.0.clone(), shard.parent);
            if let Some(parts) = self.parts.get_mut(&whole) {
                parts.retain(|_, part| part != key);
                if parts.is_empty() {
                    self.parts.remove(&whole);
                }
            }
            concerned.push(whole);
        }
        concerned
    }

    fn forget(&mut self, key: &Key) {
        let Some(known) = self.tasks.get(key) else { return };
        if let Some(count) = self.phases.get_mut(&known.task.phase()) {
            *count = count.saturating_sub(1);
        }
        if let Some(worker) = holder(&known.task)
            && let Some(held) = self.held.get_mut(worker)
        {
            held.remove(key);
            if held.is_empty() {
                self.held.remove(worker);
            }
        }
        for on in waits_for(&known.task) {
            let on = (key.0.clone(), on.to_owned());
            if let Some(dependents) = self.dependents.get_mut(&on) {
                dependents.remove(key);
                if dependents.is_empty() {
                    self.dependents.remove(&on);
                }
            }
        }
    }

    /// The parts of a task, by their places.
    pub fn parts(&self, key: &Key) -> BTreeMap<u32, Arc<Task>> {
        let parts = self.parts.get(key).into_iter().flatten();
        parts.filter_map(|(index, part)| Some((*index, self.task(part)?.clone()))).collect()
    }

    /// Every task as far as its keeping is concerned.
    pub fn kept(&self) -> impl Iterator<Item = Kept> {
        let needs = |group: &Key, dependent: &Key| {
            let task = self.task(dependent)?;
            let over = matches!(task.phase(), TaskPhase::Done | TaskPhase::Cancelled);
            (!over && group_of(dependent, task) != *group).then_some(())
        };
        self.tasks.iter().filter(|(_, known)| !is_leaving(&known.task)).map(move |(key, known)| {
            let group = group_of(key, &known.task);
            let needed = is_asked_again(&known.task)
                || self.dependents.get(key).into_iter().flatten().any(|other| needs(&group, other).is_some());
            Kept::of(key, &known.task, needed)
        })
    }

    fn dependents_of(&self, key: &Key) -> Vec<Key> {
        self.dependents.get(key).into_iter().flatten().cloned().collect()
    }

    /// Takes a worker as it is now. Answers the tasks that it has.
    pub fn put_worker(&mut self, worker: &Worker) -> Vec<Key> {
        let id = worker.id();
        let status = worker.status.clone().unwrap_or_default();
        let hand = Hand {
            ready: condition::is_true(&status.conditions, READY),
            hardware: status.hardware.unwrap_or_default(),
            unschedulable: worker.spec.unschedulable || status.state == WorkerState::Draining,
            executors: status.announced.get("env").and_then(needs::announced),
            incarnation: status.announced.get("started_at").and_then(|at| at.as_str()).map(str::to_owned),
        };
        if self.workers.get(&id) == Some(&hand) {
            return Vec::new();
        }
        // Another process is at nothing yet, whether it was heard to register or not.
        if self.workers.get(&id).is_some_and(|before| before.incarnation != hand.incarnation) {
            self.occupied.remove(&id);
            self.leaving.remove(&id);
        }
        let tasks = self.held.get(&id).into_iter().flatten().cloned().collect();
        self.workers.insert(id, hand);
        self.workers_version += 1;
        tasks
    }

    pub fn remove_worker(&mut self, worker: &Worker) -> Vec<Key> {
        let id = worker.id();
        self.workers.remove(&id);
        self.workers_version += 1;
        self.occupied.remove(&id);
        self.leaving.remove(&id);
        self.held.get(&id).into_iter().flatten().cloned().collect()
    }

    /// How the dependencies of a task stand, in their order.
    pub fn upstream(&self, task: &Task) -> Vec<Upstream> {
        let namespace = task.metadata.namespace.clone().unwrap_or_default();
        let of = |name: &String| match self.task(&(namespace.clone(), name.clone())).map(|task| task.phase()) {
            None => Upstream::Unknown,
            Some(TaskPhase::Done) => Upstream::Done,
            Some(TaskPhase::Failed | TaskPhase::Cancelled) => Upstream::Failed,
            Some(TaskPhase::Pending | TaskPhase::Waiting | TaskPhase::Dispatched) => Upstream::Going,
        };
        task.spec.depends_on.iter().map(of).collect()
    }

    /// How many tasks are in each phase that there ever was one in.
    pub fn phases(&self) -> impl Iterator<Item = (TaskPhase, usize)> {
        self.phases.iter().map(|(phase, count)| (*phase, *count))
    }

    /// How many workers are free, at work, and without a sign of life.
    pub fn workforce(&self) -> (usize, usize, usize) {
        let busy = |id: &String| self.held.contains_key(id) || self.occupied.contains_key(id);
        let (live, lost): (Vec<_>, Vec<_>) = self.workers.iter().partition(|(_, hand)| hand.ready);
        let running = live.iter().filter(|(id, _)| busy(id)).count();
        (live.len() - running, running, lost.len())
    }

    /// A worker has it, or is at it though nobody waits for it any more.
    pub fn is_at_work_on(&self, key: &Key) -> bool {
        let held = self.tasks.get(key).is_some_and(|known| holder(&known.task).is_some());
        held || self.occupied.values().any(|occupied| occupied == key)
    }

    /// Workers that live.
    pub fn live(&self) -> impl Iterator<Item = &Hand> {
        self.workers.values().filter(|hand| hand.ready)
    }

    /// Workers that can take a task now.
    pub fn idle(&self) -> Vec<Idle<'_>> {
        let free = |id: &str, hand: &Hand| {
            let engaged = self.held.contains_key(id) || self.occupied.contains_key(id) || self.leaving.contains(id);
            hand.ready && !hand.unschedulable && !engaged
        };
        let idle = self.workers.iter().filter(|(id, hand)| free(id, hand));
        idle.map(|(id, hand)| Idle { id, offer: hand.offer() }).collect()
    }

    /// Those that may go to a worker now.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// It may go to a worker now.
    pub fn seek(&mut self, key: &Key) {
        let Some(Known { task, submitter }) = self.tasks.get(key) else { return };
        let spec = &task.spec.document.spec;
        let seeker = Seeker {
            needs: Needs::of(spec, self.reading),
            priority: task.spec.priority,
            submitter: submitter.clone(),
            since: task.submitted_at(),
            avoid: task.status.as_ref().and_then(|status| status.last_failed_worker.clone()),
        };
        self.queue.insert(key, seeker);
    }

    pub fn seek_no_more(&mut self, key: &Key) {
        self.queue.remove(key);
    }

    /// Who is to be told why it waits ([`Queue::take_untold`]).
    pub fn take_untold(&mut self) -> Vec<(Fits, BTreeSet<Key>)> {
        let Self { queue, workers, workers_version, .. } = self;
        queue.take_untold(*workers_version, |needs| fits(workers, needs))
    }

    /// How much of each submitter is with workers.
    pub fn running(&self) -> HashMap<&str, usize> {
        let mut running = HashMap::new();
        for known in self.held.values().flatten().filter_map(|key| self.tasks.get(key)) {
            *running.entry(known.submitter.as_str()).or_default() += 1;
        }
        running
    }
}

/// Which workers that live can do it; else why none can.
fn fits(workers: &BTreeMap<String, Hand>, needs: &Needs) -> Fits {
    let live: Vec<(&String, &Hand)> = workers.iter().filter(|(_, hand)| hand.ready && !hand.unschedulable).collect();
    if live.is_empty() {
        return Err("there is no worker".to_owned());
    }
    let mut lacks: BTreeMap<String, usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for (id, hand) in &live {
        match needs.missing(hand.offer()) {
            None => fitting.push((*id).clone()),
            Some(lack) => *lacks.entry(lack.to_string()).or_default() += 1,
        }
    }
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    let told: Vec<String> = lacks.iter().map(|(lack, count)| format!("{count} {lack}")).collect();
    Err(format!("none of {} workers can do it: {}", live.len(), told.join(", ")))
}

/// By their names.
fn waits_for(task: &Task) -> impl Iterator<Item = &str> {
    task.spec.depends_on.iter().map(String::as_str).chain(submission::completed_by(task))
}

fn revision(task: &Task) -> u64 {
    task.metadata.resource_version.as_deref().and_then(|revision| revision.parse().ok()).unwrap_or(0)
}
