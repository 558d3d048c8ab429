//! What is over is kept for a while, and then goes with its results.
//!
//! A submission goes as a whole: the last of its tasks to be old enough decides, for a stage that is tried again needs those before
//! it. It stays while a task of another submission that is not done depends on one of its own. Two bounds: a time for each task
//! ([`Limits::age`], or its own `ttlSecondsAfterFinished`), and numbers, beyond which those that ended first go.
//!
//! Who asks for another try of a task at the moment when it goes either has it, with all of its submission, or is told that the task is
//! deleted: it is deleted as it was read, or not.
//!
//! How it goes is safe against crashes: a task holds a finalizer from before its first effect. When it is deleted, by this or by
//! anybody else, its directory is removed first and the finalizer then ([`Tasks::leave_all`]); who dies in between begins again.

use std::{collections::BTreeMap, time::Duration};

use futures::future;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    LOOK, Tasks,
    view::{Key, wire_id},
};
use crate::{
    api::{
        RESULTS_FINALIZER,
        task::{Task, TaskPhase},
    },
    registry::{ApiError, Reason},
    runtime::objects::Objects,
};

/// Effects on the disk and the store that are under way at once.
pub(super) const AT_ONCE: usize = 64;
/// From the end of a task to a look at what has to go, so that many ends make one look.
const SOON: Duration = Duration::from_secs(1);
/// Between looks that nothing asked for.
const SELDOM: Duration = Duration::from_secs(60);

/// What is kept of that which is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// So long after a task has ended.
    pub age: Duration,
    /// So many tasks of submissions that came to a good end, or were cancelled.
    pub done: usize,
    /// So many of those of which one has failed: the dead letters.
    pub failed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 24 * 3600), done: 10_000, failed: 500 }
    }
}

/// A task as far as its keeping is concerned.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub key: Key,
    /// Namespace, and what the tasks of one submission have in common.
    pub group: Key,
    pub phase: TaskPhase,
    pub finished_at: Option<Timestamp>,
    /// Decides between those that ended in one second.
    pub submitted_at: Timestamp,
    pub ttl: Option<Duration>,
    /// A task of another submission waits for it, or may be tried again.
    pub needed: bool,
}

impl Kept {
    pub fn of(key: &Key, task: &Task, needed: bool) -> Self {
        let status = task.status.as_ref();
        Self {
            key: key.clone(),
            group: group_of(key, task),
            phase: task.phase(),
            finished_at: status.and_then(|status| status.finished_at.as_ref()).map(|at| at.0),
            submitted_at: task.submitted_at(),
            ttl: task.spec.ttl_seconds_after_finished.map(|seconds| Duration::from_secs(seconds.into())),
            needed,
        }
    }
}

/// A task that nobody submitted with others is a submission of its own, with its parts.
pub fn group_of(key: &Key, task: &Task) -> Key {
    let parent = task.spec.shard.as_ref().map(|shard| &shard.parent);
    (key.0.clone(), task.spec.submission.as_ref().or(parent).unwrap_or(&key.1).clone())
}

#[derive(Default)]
struct Group {
    keys: Vec<Key>,
    open: bool,
    failed: bool,
    finished: Timestamp,
    submitted: Timestamp,
    expires: Timestamp,
}

/// Who has to go, by submissions, those that ended first in front; and when to look again for those that stay. Pure.
///
/// Within a submission those that have failed come first: only they are tried again, and then the others must still be there.
pub fn due(
    kept: impl IntoIterator<Item = Kept>,
    limits: &Limits,
    now: Timestamp,
) -> (Vec<Vec<Key>>, Option<Timestamp>) {
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    for task in kept {
        let group = groups.entry(task.group).or_default();
        let finished = task.finished_at.unwrap_or_default();
        let ttl = SignedDuration::try_from(task.ttl.unwrap_or(limits.age)).unwrap_or(SignedDuration::MAX);
        group.open |= !task.phase.is_terminal() || task.needed;
        group.failed |= task.phase == TaskPhase::Failed;
        group.finished = group.finished.max(finished);
        group.submitted = group.submitted.max(task.submitted_at);
        group.expires = group.expires.max(finished.saturating_add(ttl).unwrap_or(Timestamp::MAX));
        match task.phase {
            TaskPhase::Failed => group.keys.insert(0, task.key),
            TaskPhase::Pending
            | TaskPhase::Waiting
            | TaskPhase::Dispatched
            | TaskPhase::Done
            | TaskPhase::Cancelled => {
                group.keys.push(task.key);
            }
        }
    }
    let mut over: Vec<Group> = groups.into_values().filter(|group| !group.open).collect();
    over.sort_by_key(|group| (group.finished, group.submitted));
    let count =
        |failed| over.iter().filter(|group| group.failed == failed).map(|group| group.keys.len()).sum::<usize>();
    let mut beyond = [count(false).saturating_sub(limits.done), count(true).saturating_sub(limits.failed)];
    let (mut going, mut next) = (Vec::new(), None);
    for group in over {
        let beyond = &mut beyond[usize::from(group.failed)];
        if group.expires <= now || *beyond > 0 {
            *beyond = beyond.saturating_sub(group.keys.len());
            going.push(group.keys);
        } else {
            next = Some(next.map_or(group.expires, |at: Timestamp| at.min(group.expires)));
        }
    }
    (going, next)
}

/// It may have effects: its results will not outlive it.
pub fn is_held(task: &Task) -> bool {
    task.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == RESULTS_FINALIZER)
}

pub fn is_leaving(task: &Task) -> bool {
    task.metadata.deletion_timestamp.is_some()
}

impl<O: Objects> Tasks<O> {
    /// Something has ended: what is kept is counted soon.
    pub(super) fn sweep_soon(&mut self) {
        self.next_sweep = self.next_sweep.min(Instant::now() + SOON);
    }

    /// Deletes what has been kept for long enough.
    pub(super) async fn sweep(&mut self) {
        let now = self.clock.now();
        let (going, next) = due(self.view.kept(), &self.reality.settings.limits, now);
        let wait = next.and_then(|at| Duration::try_from(at.duration_since(now)).ok()).unwrap_or(SELDOM);
        self.next_sweep = Instant::now() + wait.clamp(SOON, SELDOM);
        for groups in going.chunks(AT_ONCE) {
            let deleting = groups.iter().map(|group| self.delete_group(group));
            for changed in future::join_all(deleting).await.into_iter().flatten() {
                self.look_at(&changed).await;
            }
        }
    }

    /// Deletes the tasks of a submission as they were when that was decided. The first that is not so any more, or that cannot be
    /// deleted, keeps those behind it: the next look decides again. Answers one that has changed.
    async fn delete_group(&self, keys: &[Key]) -> Option<Key> {
        for key in keys {
            let Some(task) = self.view.task(key) else { continue };
            match self.objects.delete_unchanged(&**task).await {
                Ok(()) => info!(task = key.1, "a task is not kept any longer"),
                Err(error) if error.reason == Reason::Conflict => return Some(key.clone()),
                Err(error) => {
                    warn!(task = key.1, %error, "a task that is over cannot be deleted");
                    return None;
                }
            }
        }
        None
    }

    /// Puts the finalizer on those that have none.
    pub(super) async fn hold_all(&mut self) {
        let wanted: Vec<Key> = std::mem::take(&mut self.unheld).into_iter().collect();
        for keys in wanted.chunks(AT_ONCE) {
            let holding = keys.iter().filter_map(|key| {
                let task = self.view.task(key)?.clone();
                let mut finalizers = task.metadata.finalizers.clone().unwrap_or_default();
                finalizers.push(RESULTS_FINALIZER.to_owned());
                let objects = self.objects.clone();
                Some(async move { (key, objects.set_finalizers(&*task, finalizers).await) })
            });
            for (key, held) in future::join_all(holding).await {
                match held {
                    Ok(task) => self.put(task),
                    Err(error) => self.look_again(key, error.reason, &error.message).await,
                }
            }
        }
    }

    /// Lets go of those that are being deleted, once their results are gone.
    pub(super) async fn leave_all(&mut self) {
        let leaving: Vec<Key> = std::mem::take(&mut self.leaving).into_iter().collect();
        for keys in leaving.chunks(AT_ONCE) {
            let going = keys.iter().filter_map(|key| {
                let task = self.view.task(key)?.clone();
                let others = task.metadata.finalizers.iter().flatten().filter(|other| *other != RESULTS_FINALIZER);
                let others: Vec<String> = others.cloned().collect();
                let (objects, results) = (self.objects.clone(), self.reality.results.clone());
                Some(async move {
                    if let Err(error) = results.remove(&wire_id(key)).await {
                        return (key, Err(ApiError::internal(error)));
                    }
                    (key, objects.set_finalizers(&*task, others).await.map(drop))
                })
            });
            for (key, gone) in future::join_all(going).await {
                match gone {
                    // The watch tells so.
                    Ok(()) => {}
                    Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => {
                        self.look_at(key).await
                    }
                    Err(error) => {
                        warn!(task = key.1, %error, "a task that is deleted cannot be let go yet");
                        self.retries.insert(key.clone(), self.clock.now() + LOOK);
                    }
                }
            }
        }
        // A worker that was still at it may have delivered since.
        for key in std::mem::take(&mut self.left_behind).into_iter().filter(|key| self.view.task(key).is_none()) {
            if let Err(error) = self.reality.results.remove(&wire_id(&key)).await {
                warn!(task = key.1, %error, "what was delivered for a task that is gone cannot be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn kept(name: &str, group: &str, phase: TaskPhase, finished: i64) -> Kept {
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        let finished_at = phase.is_terminal().then(|| at(finished));
        Kept { key: key(name), group: key(group), phase, finished_at, submitted_at: at(0), ttl: None, needed: false }
    }

    fn limits() -> Limits {
        Limits { age: Duration::from_secs(100), done: 100, failed: 100 }
    }

    fn names(tasks: &[Kept], limits: &Limits, now: i64) -> (Vec<String>, Option<Timestamp>) {
        let (going, next) = due(tasks.to_vec(), limits, at(now));
        (going.into_iter().flatten().map(|key| key.1).collect(), next)
    }

    #[test]
    fn a_submission_goes_when_its_last_task_is_old_enough() {
        use TaskPhase::{Cancelled, Dispatched, Done, Failed};
        let two = [kept("a", "s", Done, 0), kept("b", "s", Failed, 50)];
        assert_eq!(names(&two, &limits(), 149), (vec![], Some(at(150))));
        assert_eq!(names(&two, &limits(), 150).0, ["b", "a"], "what may be tried again goes first");
        let open = [kept("a", "s", Done, 0), kept("b", "s", Dispatched, 0)];
        assert_eq!(names(&open, &limits(), 1_000_000), (vec![], None));
        let mut own = [kept("a", "a", Cancelled, 0), kept("b", "b", Done, 0)];
        own[0].ttl = Some(Duration::ZERO);
        own[1].needed = true;
        assert_eq!(names(&own, &limits(), 0), (vec!["a".to_owned()], None));
        assert_eq!(names(&own[1..], &limits(), 1_000_000), (vec![], None));
    }

    #[test]
    fn beyond_a_number_those_go_that_ended_first_and_failures_are_counted_apart() {
        let few = Limits { done: 2, failed: 1, ..limits() };
        let mut tasks: Vec<Kept> =
            (0..4).map(|n| kept(&format!("d{n}"), &format!("d{n}"), TaskPhase::Done, 10 - n)).collect();
        tasks.extend((0..2).map(|n| kept(&format!("f{n}"), &format!("f{n}"), TaskPhase::Failed, n)));
        assert_eq!(names(&tasks, &few, 20).0, ["f0", "d3", "d2"]);
    }

    #[test]
    fn the_longest_life_there_is_has_no_end() {
        let mut task = kept("a", "a", TaskPhase::Done, 0);
        task.ttl = Some(Duration::MAX);
        assert_eq!(names(&[task], &limits(), 1_000_000), (vec![], Some(Timestamp::MAX)));
    }
}
