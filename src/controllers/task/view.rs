//! What is known of tasks and workers, from the watches and from our own writes. Nothing here is kept beyond the process: it is
//! what the store says, arranged for deciding.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    assign::{Idle, Seeker},
    transition::{Upstream, holder},
};
use crate::{
    api::{
        condition::{self, READY},
        task::{Task, TaskPhase},
        worker::{Worker, WorkerHardware},
    },
    mloc::{amounts::MemoryReading, names, needs::Needs},
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
    needs: Needs,
    submitter: String,
    since: Timestamp,
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
}

#[derive(Default)]
pub struct View {
    tasks: BTreeMap<Key, Known>,
    dependents: HashMap<Key, BTreeSet<Key>>,
    /// Of tasks that are divided, by their places.
    parts: HashMap<Key, BTreeMap<u32, Key>>,
    /// By the worker that has them.
    held: HashMap<String, BTreeSet<Key>>,
    /// Those that may go to a worker now.
    pub seeking: BTreeSet<Key>,
    workers: BTreeMap<String, Hand>,
    /// Workers that are at work on something that is no task of theirs any more, until they say that they are idle.
    pub occupied: HashMap<String, Key>,
    reading: MemoryReading,
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
    pub fn held(&self) -> &HashMap<String, BTreeSet<Key>> {
        &self.held
    }

    /// Takes a version of a task, unless a later one is known. Answers who must be looked at again.
    pub fn put(&mut self, task: Arc<Task>) -> Vec<Key> {
        let key = key_of(&task);
        if self.tasks.get(&key).is_some_and(|known| revision(&known.task) >= revision(&task)) {
            return Vec::new();
        }
        self.forget(&key);
        if let Some(worker) = holder(&task) {
            self.held.entry(worker.to_owned()).or_default().insert(key.clone());
        }
        for on in &task.spec.depends_on {
            self.dependents.entry((key.0.clone(), on.clone())).or_default().insert(key.clone());
        }
        let metadata = &task.spec.document.metadata;
        let owner = metadata.rest.get("owner").and_then(|owner| owner.as_str());
        let known = Known {
            needs: Needs::of(&task.spec.document.spec.resources.hardware, self.reading),
            submitter: owner.unwrap_or_default().to_owned(),
            since: task.submitted_at(),
            task,
        };
        let ended = known.task.phase().is_terminal();
        self.tasks.insert(key.clone(), known);
        let mut concerned = if ended { self.dependents_of(&key) } else { Vec::new() };
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
        self.tasks.remove(key);
        self.seeking.remove(key);
        self.parts.remove(key);
        self.dependents_of(key)
    }

    fn forget(&mut self, key: &Key) {
        let Some(known) = self.tasks.get(key) else { return };
        if let Some(worker) = holder(&known.task)
            && let Some(held) = self.held.get_mut(worker)
        {
            held.remove(key);
            if held.is_empty() {
                self.held.remove(worker);
            }
        }
        for on in &known.task.spec.depends_on {
            if let Some(dependents) = self.dependents.get_mut(&(key.0.clone(), on.clone())) {
                dependents.remove(key);
            }
        }
    }

    /// The parts of a task, by their places.
    pub fn parts(&self, key: &Key) -> BTreeMap<u32, Arc<Task>> {
        let parts = self.parts.get(key).into_iter().flatten();
        parts.filter_map(|(index, part)| Some((*index, self.task(part)?.clone()))).collect()
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
            unschedulable: worker.spec.unschedulable,
            incarnation: status.announced.get("started_at").and_then(|at| at.as_str()).map(str::to_owned),
        };
        if self.workers.get(&id) == Some(&hand) {
            return Vec::new();
        }
        let tasks = self.held.get(&id).into_iter().flatten().cloned().collect();
        self.workers.insert(id, hand);
        tasks
    }

    pub fn remove_worker(&mut self, worker: &Worker) -> Vec<Key> {
        let id = worker.id();
        self.workers.remove(&id);
        self.occupied.remove(&id);
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

    /// Workers that can take a task now.
    pub fn idle(&self) -> Vec<Idle<'_>> {
        let free = |id: &str, hand: &Hand| {
            hand.ready && !hand.unschedulable && !self.held.contains_key(id) && !self.occupied.contains_key(id)
        };
        let idle = self.workers.iter().filter(|(id, hand)| free(id, hand));
        idle.map(|(id, hand)| Idle { id, hardware: &hand.hardware }).collect()
    }

    /// Those that seek a worker.
    pub fn seekers(&self) -> Vec<(&Key, Seeker<'_>)> {
        let seeker = |key: &'_ Key| -> Option<Seeker<'_>> {
            let known = self.tasks.get(key)?;
            let avoid = known.task.status.as_ref().and_then(|status| status.last_failed_worker.as_deref());
            let priority = known.task.spec.priority;
            Some(Seeker { needs: &known.needs, priority, submitter: &known.submitter, since: known.since, avoid })
        };
        self.seeking.iter().filter_map(|key| Some((key, seeker(key)?))).collect()
    }

    /// How much of each submitter is with workers.
    pub fn running(&self) -> HashMap<&str, usize> {
        let mut running = HashMap::new();
        for known in self.held.values().flatten().filter_map(|key| self.tasks.get(key)) {
            *running.entry(known.submitter.as_str()).or_default() += 1;
        }
        running
    }

    /// How many workers that live can do it; else why none can.
    pub fn fits(&self, needs: &Needs) -> Result<usize, String> {
        let live: Vec<&Hand> = self.workers.values().filter(|hand| hand.ready && !hand.unschedulable).collect();
        if live.is_empty() {
            return Err("there is no worker".to_owned());
        }
        let mut lacks: BTreeMap<String, usize> = BTreeMap::new();
        let mut fitting = 0;
        for hand in &live {
            match needs.missing(&hand.hardware) {
                None => fitting += 1,
                Some(lack) => *lacks.entry(lack.to_string()).or_default() += 1,
            }
        }
        if fitting > 0 {
            return Ok(fitting);
        }
        let told: Vec<String> = lacks.iter().map(|(lack, count)| format!("{count} have too few {lack}")).collect();
        Err(format!(
            "none of {} workers can do it: {}",
            live.len(),
            told.join(", ").replace("few memory", "little memory")
        ))
    }
}

fn revision(task: &Task) -> u64 {
    task.metadata.resource_version.as_deref().and_then(|revision| revision.parse().ok()).unwrap_or(0)
}
