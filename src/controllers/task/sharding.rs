//! A task that is divided: its parts are Tasks of their own, and what they come to is its result.
//!
//! Expected flow: when enough workers are free, the status says how many parts there are (durably, so that a crash cannot divide it
//! twice), then the parts are made. Each has a name that follows from its place, so making them again makes none twice. When all
//! are done their results become one; when one has failed for good, the other parts are cancelled, and then the whole has. A whole
//! that has ended is not looked after any more, so its parts are told before.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    Tasks,
    queue::Seeker,
    transition,
    view::{Key, object_name, wire_id},
};
use crate::{
    adapters::bus::stamp,
    api::RESULTS_FINALIZER,
    api::task::{MlocDocument, Shard, ShardCounts, Task, TaskPhase, TaskSpec, TaskStatus},
    mloc::{aggregate::aggregate, placeholders, shards},
    registry::Reason,
    runtime::objects::Objects,
};

/// From a result that cannot be stored to the next attempt. It goes out to others again with each.
const KEEP_AGAIN: Duration = Duration::from_secs(10);

/// Of part `index`.
pub fn part_name(parent: &str, index: u32) -> String {
    format!("{parent}-{index}")
}

/// What is to be done for a task that is divided. `parts` by their place; those that are missing have not been made.
#[derive(Debug, Clone, PartialEq)]
pub enum Tending {
    /// The counts are as the status has them.
    Wait,
    Count(ShardCounts),
    /// These places are empty.
    Make(Vec<u32>),
    Gather,
    /// The others do not go on, and the whole ends for this reason.
    Fail {
        error: String,
    },
}

/// Pure.
pub fn tend(counts: ShardCounts, parts: &BTreeMap<u32, (String, TaskPhase)>) -> Tending {
    let missing: Vec<u32> = (0..counts.total).filter(|index| !parts.contains_key(index)).collect();
    if !missing.is_empty() {
        return Tending::Make(missing);
    }
    let phases = |wanted: &[TaskPhase]| parts.values().filter(|(_, phase)| wanted.contains(phase)).count() as u32;
    // One that was cancelled may be so for the one that failed.
    let first = |wanted| parts.values().find(|(_, phase)| *phase == wanted);
    if let Some((name, _)) = first(TaskPhase::Failed).or_else(|| first(TaskPhase::Cancelled)) {
        return Tending::Fail { error: format!("Child shard failed: {name}") };
    }
    let seen = ShardCounts { total: counts.total, done: phases(&[TaskPhase::Done]), failed: 0 };
    match seen {
        seen if seen.done == seen.total => Tending::Gather,
        seen if seen == counts => Tending::Wait,
        seen => Tending::Count(seen),
    }
}

impl<O: Objects> Tasks<O> {
    /// Divides those among the seekers that want it, while there are enough workers for it.
    pub(super) async fn divide(&mut self) {
        let weights = self.reality.settings.weights;
        let wanted: Vec<(Key, u32)> = {
            let (idle, queue) = (self.view.idle(), self.view.queue());
            let demand = queue.len();
            // Most of the time this is known without a look at those that wait.
            let most = weights.cpu_only.max(weights.gpu).max(0.0) * idle.len() as f64;
            if most / (demand.max(1) as f64) < weights.high {
                return;
            }
            let count = |(key, seeker): (&Key, &Seeker)| {
                let task = self.view.task(key)?;
                let parallel = task.spec.document.spec.parallel.as_ref().filter(|parallel| parallel.enabled)?;
                if task.spec.shard.is_some() {
                    return None;
                }
                let fitting: Vec<_> =
                    idle.iter().map(|idle| idle.offer).filter(|offer| seeker.needs.missing(*offer).is_none()).collect();
                let enough = fitting.len() > 1
                    && weights.ratio(fitting.iter().map(|offer| offer.hardware), demand) >= weights.high;
                let most = parallel.max_shards.unwrap_or(weights.most_shards);
                let replicas = task.spec.document.spec.resources.replicas;
                enough.then(|| (key.clone(), shards::count(fitting.len() as u32, replicas, most)))
            };
            queue.iter().filter_map(count).collect()
        };
        for (key, count) in wanted {
            let Some(task) = self.view.task(&key).cloned() else { continue };
            let Some(document) = self.document(&task, &key).await.filter(shards::wanted) else { continue };
            let Some(parts) = self.parts(&document, count).filter(|_| self.may_be_gathered(&document)) else {
                continue;
            };
            info!(task = key.1, parts = parts.len(), "a task is divided");
            let status = transition::divided(&task, parts.len() as u32, self.clock.now());
            self.write(vec![(key.clone(), status)]).await;
            self.view.seek_no_more(&key);
            self.tend_all().await;
        }
    }

    /// Looks after the tasks that are divided.
    pub(super) async fn tend_all(&mut self) {
        while let Some(key) = self.divided.pop_first() {
            let Some(task) = self.view.task(&key).cloned() else { continue };
            let Some(counts) = transition::parts_of(&task) else { continue };
            let now = self.clock.now();
            if task.spec.cancel {
                self.end(key, transition::cancelled(&task, now)).await;
                continue;
            }
            let parts = self.view.parts(&key);
            let phases = parts
                .iter()
                .map(|(index, part)| (*index, (part.metadata.name.clone().unwrap_or_default(), part.phase())))
                .collect();
            match tend(counts, &phases) {
                Tending::Wait => {}
                Tending::Count(counts) => self.write(vec![(key, transition::counted(&task, counts))]).await.clear(),
                Tending::Make(missing) => self.make(&task, &key, counts.total, &missing).await,
                Tending::Gather => self.gather(&task, &key).await,
                Tending::Fail { error } => self.end(key, transition::divided_failed(&task, &error, now)).await,
            }
        }
    }

    /// Deletes the parts of tasks that are tried again.
    pub(super) async fn replace_all(&mut self) {
        for key in std::mem::take(&mut self.replaced) {
            if let Err(error) = self.objects.delete::<Task>(&object_name(&key)).await {
                warn!(task = key.1, %error, "a part of a task that is tried again cannot be deleted");
                let parent = self.view.task(&key).and_then(|part| part.spec.shard.as_ref().map(|s| s.parent.clone()));
                if let Some(parent) = parent {
                    self.retries.insert((key.0, parent), self.clock.now() + super::LOOK);
                }
            }
        }
    }

    async fn make(&mut self, task: &Task, key: &Key, total: u32, missing: &[u32]) {
        let Some(document) = self.document(task, key).await else {
            self.retries.insert(key.clone(), self.clock.now() + super::LOOK);
            return;
        };
        // It was divided into so many before: it is again.
        let Some(documents) = self.parts(&document, total) else {
            let status = transition::divided_failed(task, "its data cannot be divided any more", self.clock.now());
            self.write(vec![(key.clone(), status)]).await;
            return;
        };
        for index in missing {
            let Some(part) = documents.get(*index as usize).and_then(|document| part(task, *index, total, document))
            else {
                continue;
            };
            match self.objects.create(part).await {
                Ok(made) => self.put(made),
                Err(error) if error.reason == Reason::AlreadyExists => {}
                Err(error) => {
                    warn!(task = key.1, index, %error, "a part of a task cannot be made");
                    self.retries.insert(key.clone(), self.clock.now() + super::LOOK);
                }
            }
        }
    }

    /// The results of all parts in one, which is then the task's. It goes out first, where it is to go to others.
    async fn gather(&mut self, task: &Task, key: &Key) {
        if self.outgoing.has(key) {
            return;
        }
        let mut results = Vec::new();
        for part in self.view.parts(key).values() {
            let id = wire_id(&(key.0.clone(), part.metadata.name.clone().unwrap_or_default()));
            let text = match self.reality.results.load(&id).await {
                Ok(text) => text,
                Err(error) => {
                    warn!(task = id, %error, "the result of a part cannot be read");
                    self.retries.insert(key.clone(), self.clock.now() + super::LOOK);
                    return;
                }
            };
            if let Some(document) = text.and_then(|text| serde_json::from_slice::<Value>(&text).ok()) {
                results.push(placeholders::wrapped(document));
            }
        }
        let total = transition::parts_of(task).map_or(0, |counts| counts.total) as usize;
        let now = self.clock.now();
        if results.len() < total {
            let status = transition::gathered(task, None, None, now);
            self.write(vec![(key.clone(), status)]).await;
            return;
        }
        let whole = aggregate(&wire_id(key), &results, &stamp(now));
        match self.others(task, key).await {
            Some(Some(to)) => self.send(key, whole, to),
            Some(None) => self.keep_whole(task, key, &whole, None).await,
            None => drop(self.retries.insert(key.clone(), self.clock.now() + super::LOOK)),
        }
    }

    /// The result of a divided task is stored, and it is done. Where it cannot be stored its parts' are gathered again later.
    pub(super) async fn keep_whole(&mut self, task: &Task, key: &Key, whole: &Value, undelivered: Option<&str>) {
        let stored = self.reality.results.store(&wire_id(key), whole).await;
        let stored = stored.inspect_err(|error| {
            warn!(task = key.1, %error, "the results of a task's parts cannot be stored as one");
        });
        let posted = self.posted(key).await;
        let (Ok(_), Ok(posted)) = (stored, posted) else {
            self.retries.insert(key.clone(), self.clock.now() + KEEP_AGAIN);
            return;
        };
        let status = transition::gathered(task, posted.as_ref(), undelivered, self.clock.now());
        self.write(vec![(key.clone(), status)]).await;
    }

    /// Ends a task whose parts do not go on: they first.
    async fn end(&mut self, key: Key, status: TaskStatus) {
        for part in self.view.parts(&key).into_values().filter(|part| !part.phase().is_terminal()) {
            let name = (key.0.clone(), part.metadata.name.clone().unwrap_or_default());
            match self.objects.merge::<Task>(&object_name(&name), json!({"spec": {"cancel": true}})).await {
                Ok(part) => self.put(part),
                Err(error) if error.reason == Reason::NotFound => {}
                Err(error) => {
                    warn!(task = name.1, %error, "a part of a task cannot be cancelled");
                    self.retries.insert(key, self.clock.now() + super::LOOK);
                    return;
                }
            }
        }
        self.write(vec![(key, status)]).await;
    }
}

fn part(task: &Task, index: u32, total: u32, document: &Value) -> Option<Task> {
    let document: MlocDocument = serde_json::from_value(document.clone()).ok()?;
    let parent = task.metadata.name.clone()?;
    let spec = TaskSpec {
        document,
        submission: task.spec.submission.clone(),
        shard: Some(Shard { parent: parent.clone(), index, total }),
        submitted_at: task.spec.submitted_at.clone(),
        priority: task.spec.priority,
        max_retries: task.spec.max_retries,
        ttl_seconds_after_finished: task.spec.ttl_seconds_after_finished,
        ..TaskSpec::default()
    };
    let mut part = Task::new(&part_name(&parent, index), spec);
    part.metadata = ObjectMeta {
        namespace: task.metadata.namespace.clone(),
        finalizers: Some(vec![RESULTS_FINALIZER.to_owned()]),
        owner_references: task.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..part.metadata
    };
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(phases: &[TaskPhase]) -> BTreeMap<u32, (String, TaskPhase)> {
        phases.iter().enumerate().map(|(n, phase)| (n as u32, (part_name("t", n as u32), *phase))).collect()
    }

    #[test]
    fn parts_are_made_counted_and_gathered() {
        let counts = |done| ShardCounts { total: 3, done, failed: 0 };
        use TaskPhase::{Dispatched, Done, Failed, Waiting};
        assert_eq!(tend(counts(0), &parts(&[Done])), Tending::Make(vec![1, 2]));
        assert_eq!(tend(counts(0), &parts(&[Done, Waiting, Dispatched])), Tending::Count(counts(1)));
        assert_eq!(tend(counts(1), &parts(&[Done, Waiting, Dispatched])), Tending::Wait);
        assert_eq!(tend(counts(2), &parts(&[Done, Done, Done])), Tending::Gather);
        let failed = Tending::Fail { error: "Child shard failed: t-1".to_owned() };
        assert_eq!(tend(counts(1), &parts(&[Done, Failed, Done])), failed);
        assert_eq!(tend(counts(1), &parts(&[TaskPhase::Cancelled, Failed, Waiting])), failed, "and not what followed");
    }
}
