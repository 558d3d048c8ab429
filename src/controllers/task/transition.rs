//! What becomes of one task: every change of a task's status is made here, from what was seen. Pure.
//!
//! ```text
//! Pending ─► Waiting ─► Dispatched ─► Done
//!    │          ▲            │
//!    │          └── failed ──┤   (retries left: after a delay; the worker was lost: at once)
//!    └──────► Failed ◄───────┘   Cancelled: from anywhere but the end
//! ```

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use crate::{
    adapters::{bus::stamp, results::Posted},
    api::{
        annotation,
        condition::{self, ConditionStatus},
        task::{ShardCounts, Task, TaskPhase, TaskReason, TaskResult, TaskStatus},
    },
    mloc::retry::Backoff,
};

/// The condition of a task: True once it is done.
pub const COMPLETE: &str = "Complete";
/// Of workers that could run a task so many are named.
const NAMED: usize = 4;
/// As MLOC says it.
const NO_WORKER: &str = "No suitable IDLE worker; retrying shortly";

pub fn status_of(task: &Task) -> TaskStatus {
    task.status.clone().unwrap_or_default()
}

/// Stands for a worker where the parts of a task are with several.
pub const MULTI: &str = "MULTI";

/// The worker that has it.
pub fn holder(task: &Task) -> Option<&str> {
    let status = task.status.as_ref().filter(|status| status.phase == TaskPhase::Dispatched)?;
    status.assigned_worker.as_deref().filter(|worker| *worker != MULTI)
}

/// Of a task that is divided and goes on: how its parts stand, as far as it was written.
pub fn parts_of(task: &Task) -> Option<ShardCounts> {
    let status = task.status.as_ref().filter(|status| status.phase == TaskPhase::Dispatched)?;
    status.shards.filter(|_| status.assigned_worker.as_deref() == Some(MULTI))
}

/// A dependency as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    Done,
    Going,
    Failed,
    Unknown,
}

/// What is to be done with a task that no worker has. `dependencies` in the order of its spec.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// It is as its status says.
    Stay,
    Become(Box<TaskStatus>),
    /// Look for a worker.
    Seek,
}

/// Of a task that no worker has: whether it may go to one.
pub fn next(task: &Task, dependencies: &[Upstream], now: Timestamp) -> Next {
    let phase = task.phase();
    if phase.is_terminal() && !may_come_back(task, dependencies) {
        return Next::Stay;
    }
    if task.spec.cancel {
        return changed(task, cancelled(task, now));
    }
    let named = |wanted: &[Upstream]| -> Vec<&str> {
        let pairs = task.spec.depends_on.iter().zip(dependencies);
        pairs.filter(|(_, upstream)| wanted.contains(upstream)).map(|(name, _)| name.as_str()).collect()
    };
    if let Some(failed) = named(&[Upstream::Failed]).first() {
        let error = format!("Dependency {failed} failed");
        return changed(task, ended(task, TaskPhase::Failed, TaskReason::DependencyFailed, Some(error), now));
    }
    let missing = named(&[Upstream::Going, Upstream::Unknown]);
    if !missing.is_empty() {
        let unknown = named(&[Upstream::Unknown]);
        let mut message = format!("waits for {}", missing.join(", "));
        if !unknown.is_empty() {
            message += &format!("; there is no task {}", unknown.join(", "));
        }
        return changed(task, waiting(task, TaskPhase::Pending, TaskReason::DependenciesPending, None, message, now));
    }
    if task.spec.suspend {
        let message = "it is suspended".to_owned();
        return changed(task, waiting(task, TaskPhase::Waiting, TaskReason::Suspended, None, message, now));
    }
    match task.status.as_ref().and_then(|status| status.next_retry_at.as_ref()) {
        Some(at) if at.0 > now => Next::Stay,
        _ => Next::Seek,
    }
}

/// It failed only with what it depends on, and that is tried again.
fn may_come_back(task: &Task, dependencies: &[Upstream]) -> bool {
    let with_another = task.status.as_ref().and_then(told).is_some_and(|(reason, _)| {
        let dependency: &str = TaskReason::DependencyFailed.into();
        reason == dependency
    });
    let hope = dependencies.iter().all(|upstream| matches!(upstream, Upstream::Done | Upstream::Going));
    task.phase() == TaskPhase::Failed && with_another && hope
}

/// Somebody wants further tries of a task that has failed, and has not got them yet.
pub fn is_asked_again(task: &Task) -> bool {
    let asked = asked_again(task);
    task.phase() == TaskPhase::Failed && asked.is_some() && status_of(task).handled_retry.as_ref() != asked
}

fn asked_again(task: &Task) -> Option<&String> {
    task.metadata.annotations.as_ref()?.get(annotation::RETRY_AT)
}

/// It is tried again, as often as a new one.
pub fn retried(task: &Task, now: Timestamp) -> TaskStatus {
    let message = "it is tried again by request".to_owned();
    let mut status = waiting(task, TaskPhase::Pending, TaskReason::RetryRequested, None, message, now);
    (status.retries, status.next_retry_at, status.shards) = (0, None, None);
    (status.dispatched_at, status.started_at, status.assigned_incarnation) = (None, None, None);
    (status.result, status.artifacts) = (None, Vec::new());
    status
}

fn changed(task: &Task, status: TaskStatus) -> Next {
    match task.status.as_ref() == Some(&status) {
        true => Next::Stay,
        false => Next::Become(Box::new(status)),
    }
}

/// No worker could be given to it. `fits`: who of those that live could do it, none of whom is free; or why none can.
pub fn unserved(task: &Task, fits: &Result<Vec<String>, String>, now: Timestamp) -> TaskStatus {
    let message = match fits {
        Ok(busy) => match busy.as_slice() {
            [one] => format!("{one} can do it, and is busy"),
            some => format!("{} can do it, and are busy", some_of(some)),
        },
        Err(why) => why.clone(),
    };
    // What a worker said of its failure is worth more than that there is none now.
    let error = status_of(task).error.filter(|_| status_of(task).retries > 0);
    let error = error.or_else(|| Some(NO_WORKER.to_owned()));
    waiting(task, TaskPhase::Waiting, why_unserved(fits), error, message, now)
}

/// It has claimed cards, and does not have them.
pub fn awaits_gpu(task: &Task, why: &str, now: Timestamp) -> TaskStatus {
    let error = status_of(task).error.filter(|_| status_of(task).retries > 0);
    waiting(task, TaskPhase::Waiting, TaskReason::WaitingForGpu, error, why.to_owned(), now)
}

/// The first few by name, and how many more.
fn some_of(workers: &[String]) -> String {
    match workers.len().checked_sub(NAMED) {
        None | Some(0) => workers.join(", "),
        Some(more) => format!("{} and {more} more", workers[..NAMED].join(", ")),
    }
}

/// Whether its status says so already. Who is busy is not worth a write, or every task would be written with every change
/// of any worker.
pub fn is_told(task: &Task, fits: &Result<Vec<String>, String>) -> bool {
    let Some(status) = &task.status else { return false };
    let reason: &'static str = why_unserved(fits).into();
    let told = told(status)
        .is_some_and(|(before, message)| before == reason && fits.as_ref().err().is_none_or(|why| why == message));
    told && status.phase == TaskPhase::Waiting && status.observed_generation == task.metadata.generation
}

fn why_unserved(fits: &Result<Vec<String>, String>) -> TaskReason {
    if fits.is_ok() { TaskReason::NoWorkerFree } else { TaskReason::NoWorkerFits }
}

/// It is about to be handed to a worker.
pub fn dispatched(task: &Task, worker: &str, incarnation: Option<&str>, now: Timestamp) -> TaskStatus {
    let mut status = begin(task);
    status.attempt_token = None;
    status.phase = TaskPhase::Dispatched;
    status.assigned_worker = Some(worker.to_owned());
    status.assigned_incarnation = incarnation.map(str::to_owned);
    status.attempts += 1;
    status.dispatched_at = Some(MicroTime(micros(now)));
    status.started_at = None;
    status.finished_at = None;
    status.next_retry_at = None;
    status.error = None;
    tell(&mut status, ConditionStatus::False, TaskReason::Dispatched, format!("handed to worker {worker}"), now);
    status
}

/// As [`dispatched`], to a worker of ours: it gets a token that names this attempt, and gives it back with all it tells of it.
pub fn dispatched_with_token(task: &Task, worker: &str, incarnation: Option<&str>, now: Timestamp) -> TaskStatus {
    let mut status = dispatched(task, worker, incarnation, now);
    // Another object of the same name has another uid.
    let uid = task.metadata.uid.as_deref().unwrap_or_default();
    status.attempt_token = Some(format!("{}-{}", status.attempts, uid.split('-').next().unwrap_or_default()));
    status
}

/// What was said is of another attempt than the one that was given out last, and counts for nothing. Of workers that know no
/// tokens this cannot be told.
pub fn is_of_another_attempt(task: &Task, attempt: Option<&str>) -> bool {
    let token = task.status.as_ref().and_then(|status| status.attempt_token.as_deref());
    (token.is_some() || attempt.is_some()) && token != attempt
}

/// It is about to be divided into so many parts.
pub fn divided(task: &Task, parts: u32, now: Timestamp) -> TaskStatus {
    let mut status = dispatched(task, MULTI, None, now);
    status.shards = Some(ShardCounts { total: parts, done: 0, failed: 0 });
    tell(&mut status, ConditionStatus::False, TaskReason::Dispatched, format!("divided into {parts} parts"), now);
    status
}

/// More of its parts are done.
pub fn counted(task: &Task, counts: ShardCounts) -> TaskStatus {
    TaskStatus { shards: Some(counts), ..begin(task) }
}

/// One of its parts has failed for good, and so has it.
pub fn divided_failed(task: &Task, error: &str, now: Timestamp) -> TaskStatus {
    let mut status = ended(task, TaskPhase::Failed, TaskReason::RetriesExhausted, Some(error.to_owned()), now);
    status.shards = status.shards.map(|shards| ShardCounts { failed: 1, ..shards });
    status
}

/// All its parts are done; their results were put together, if they are here. `undelivered`: why they did not reach whom the document
/// names, which is told and nothing more.
pub fn gathered(task: &Task, posted: Option<&Posted>, undelivered: Option<&str>, now: Timestamp) -> TaskStatus {
    let mut status = match posted.and_then(|posted| delivered(task, posted, now)) {
        Some(status) => status,
        None => {
            let mut status = done(task, None, now);
            let message = "its parts are done; their results are not here";
            tell(&mut status, ConditionStatus::True, TaskReason::Succeeded, message, now);
            status
        }
    };
    if let Some(why) = undelivered {
        let message = format!("it is done; its result was not delivered: {why}");
        tell(&mut status, ConditionStatus::True, TaskReason::Succeeded, message, now);
    }
    status.shards = status.shards.map(|shards| ShardCounts { done: shards.total, ..shards });
    status
}

/// Its worker says that it began. None: that is known, or not about this attempt.
pub fn started(task: &Task, worker: &str, now: Timestamp) -> Option<TaskStatus> {
    if holder(task) != Some(worker) || status_of(task).started_at.is_some() {
        return None;
    }
    let mut status = begin(task);
    status.started_at = Some(Time(now));
    tell(&mut status, ConditionStatus::False, TaskReason::Running, format!("worker {worker} runs it"), now);
    Some(status)
}

/// A worker says that it succeeded. None: it is not for that worker to say.
pub fn succeeded(task: &Task, worker: Option<&str>, dispatch: Option<&str>, now: Timestamp) -> Option<TaskStatus> {
    if !speaks_of_this(task, worker, dispatch) && !speaks_late(task, worker) {
        return None;
    }
    Some(done(task, worker, now))
}

/// Its result has come in, which is as good as the word of its worker. None: it is known, or another's than the task is with by
/// now: of an attempt that was stored, and failed because nobody answered that.
pub fn delivered(task: &Task, posted: &Posted, now: Timestamp) -> Option<TaskStatus> {
    let status = task.status.as_ref();
    let whose = status.and_then(|status| match status.phase {
        TaskPhase::Dispatched => holder(task),
        TaskPhase::Done => status.assigned_worker.as_deref(),
        TaskPhase::Pending | TaskPhase::Waiting => status.last_failed_worker.as_deref(),
        TaskPhase::Failed | TaskPhase::Cancelled => None,
    });
    if whose.zip(posted.worker.as_deref()).is_some_and(|(whose, by)| whose != by) {
        return None;
    }
    if status.is_some_and(|status| {
        status.result.is_some() || matches!(status.phase, TaskPhase::Failed | TaskPhase::Cancelled)
    }) {
        return None;
    }
    let mut status = match task.phase() {
        TaskPhase::Done => begin(task),
        TaskPhase::Pending | TaskPhase::Waiting | TaskPhase::Dispatched => done(task, posted.worker.as_deref(), now),
        TaskPhase::Failed | TaskPhase::Cancelled => return None,
    };
    status.result = Some(TaskResult {
        path: posted.path.display().to_string(),
        size_bytes: posted.size_bytes,
        received_at: posted.received_at.as_ref().and_then(|at| at.parse().ok()).map(Time),
    });
    Some(status)
}

/// A worker says that it failed. None: it is not for that worker to say.
pub fn failed(
    task: &Task,
    worker: Option<&str>,
    dispatch: Option<&str>,
    error: &str,
    backoff: &Backoff,
    now: Timestamp,
) -> Option<TaskStatus> {
    if !speaks_of_this(task, worker, dispatch) {
        return None;
    }
    let retries = status_of(task).retries + 1;
    let jitter = jitter(task, retries);
    Some(again(task, TaskReason::WorkerFailed, error, Some(now + backoff.delay(retries, jitter)), now))
}

/// Its worker is gone, or does not have it any more: it goes to another, at once.
pub fn lost(task: &Task, error: &str, now: Timestamp) -> Option<TaskStatus> {
    holder(task)?;
    Some(again(task, TaskReason::WorkerLost, error, None, now))
}

/// Its cards went to another before its worker was heard to begin: it may not begin there any more. Nobody has failed.
pub fn recalled(task: &Task, now: Timestamp) -> Option<TaskStatus> {
    let worker = holder(task)?;
    let message = format!("its claim on GPUs ended before worker {worker} began; it claims again");
    let mut status = waiting(task, TaskPhase::Waiting, TaskReason::WaitingForGpu, None, message, now);
    (status.assigned_incarnation, status.dispatched_at, status.started_at) = (None, None, None);
    Some(status)
}

/// Cannot be handed to any worker as it is.
pub fn invalid(task: &Task, why: &str, now: Timestamp) -> TaskStatus {
    ended(task, TaskPhase::Failed, TaskReason::Invalid, Some(why.to_owned()), now)
}

pub fn cancelled(task: &Task, now: Timestamp) -> TaskStatus {
    ended(task, TaskPhase::Cancelled, TaskReason::Cancelled, Some("cancelled".to_owned()), now)
}

/// From the worker that has it, and about the attempt it has.
fn speaks_of_this(task: &Task, worker: Option<&str>, dispatch: Option<&str>) -> bool {
    let Some(holder) = holder(task) else { return false };
    if worker.is_some_and(|worker| worker != holder) {
        return false;
    }
    let status = status_of(task);
    match (dispatch, &status.dispatched_at) {
        (Some(told), Some(at)) => told == stamp(at.0),
        // Workers of the first generation do not say. One that failed this very task before may be repeating itself until
        // it is seen to have begun anew.
        _ => status.started_at.is_some() || status.last_failed_worker.as_deref() != Some(holder),
    }
}

/// From a worker that was taken for lost and was not: what it did counts, while nobody else has the task. (One that failed has
/// said so, and says nothing else.)
fn speaks_late(task: &Task, worker: Option<&str>) -> bool {
    let status = task.status.as_ref().filter(|status| status.phase == TaskPhase::Waiting);
    worker.is_some() && status.is_some_and(|status| status.last_failed_worker.as_deref() == worker)
}

fn again(task: &Task, reason: TaskReason, error: &str, retry_at: Option<Timestamp>, now: Timestamp) -> TaskStatus {
    let holder = holder(task).map(str::to_owned);
    let mut status = begin(task);
    status.retries += 1;
    status.last_failed_worker = holder.clone();
    status.error = Some(error.to_owned());
    if status.retries > task.spec.max_retries {
        status.phase = TaskPhase::Failed;
        status.finished_at = Some(Time(now));
        let tries = format!("{error}; it was tried {} times", status.attempts);
        tell(&mut status, ConditionStatus::False, TaskReason::RetriesExhausted, tries, now);
        return status;
    }
    status.phase = TaskPhase::Waiting;
    status.assigned_worker = None;
    status.assigned_incarnation = None;
    status.dispatched_at = None;
    status.started_at = None;
    status.next_retry_at = retry_at.map(Time);
    let prefix = if reason == TaskReason::WorkerLost { "worker lost" } else { "failed" };
    let whose = holder.map(|worker| format!(" ({worker})")).unwrap_or_default();
    tell(&mut status, ConditionStatus::False, reason, format!("{prefix}{whose}: {error}"), now);
    status
}

fn done(task: &Task, worker: Option<&str>, now: Timestamp) -> TaskStatus {
    let mut status = begin(task);
    status.phase = TaskPhase::Done;
    if status.assigned_worker.is_none() {
        status.assigned_worker = worker.map(str::to_owned);
    }
    status.finished_at = Some(Time(now));
    status.next_retry_at = None;
    status.error = None;
    tell(&mut status, ConditionStatus::True, TaskReason::Succeeded, "it is done", now);
    status
}

fn ended(task: &Task, phase: TaskPhase, reason: TaskReason, error: Option<String>, now: Timestamp) -> TaskStatus {
    let mut status = begin(task);
    status.phase = phase;
    status.finished_at = Some(Time(now));
    status.next_retry_at = None;
    let message = error.clone().unwrap_or_default();
    status.error = error;
    tell(&mut status, ConditionStatus::False, reason, message, now);
    status
}

fn waiting(
    task: &Task,
    phase: TaskPhase,
    reason: TaskReason,
    error: Option<String>,
    message: String,
    now: Timestamp,
) -> TaskStatus {
    let mut status = begin(task);
    status.phase = phase;
    status.finished_at = None;
    status.assigned_worker = None;
    status.error = error;
    tell(&mut status, ConditionStatus::False, reason, message, now);
    status
}

fn begin(task: &Task) -> TaskStatus {
    let mut status = status_of(task);
    status.observed_generation = task.metadata.generation;
    // One that was asked for while it still went on is no reason to begin again after its end.
    status.handled_retry = asked_again(task).cloned().or(status.handled_retry);
    status
}

fn tell(
    status: &mut TaskStatus,
    complete: ConditionStatus,
    reason: TaskReason,
    message: impl Into<String>,
    now: Timestamp,
) {
    let generation = status.observed_generation;
    let reason: &'static str = reason.into();
    condition::set(&mut status.conditions, COMPLETE, complete, reason, message, generation, &Time(seconds(now)));
}

/// The reason of the condition, for events and logs.
pub fn told(status: &TaskStatus) -> Option<(&str, &str)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == COMPLETE)?;
    Some((&condition.reason, &condition.message))
}

/// As it is stored, so that what was written equals what is read.
fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Any number that differs from task to task and from failure to failure.
fn jitter(task: &Task, retries: u32) -> u64 {
    let uid = task.metadata.uid.as_deref().unwrap_or_default();
    let mixed = uid.bytes().fold(u64::from(retries), |mix, byte| mix.wrapping_mul(31).wrapping_add(u64::from(byte)));
    mixed % 100_003
}

#[cfg(test)]
mod tests;
