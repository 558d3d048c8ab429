//! What must never happen with tasks, looked at at every dispatch, every result, every beginning of a run and every change of a task;
//! and what must be in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use gaia::{
    adapters::bus::{Dispatch, stamp},
    api::{
        gpu::Gpu,
        gpuclaim::GpuClaim,
        task::{Task, TaskPhase, TaskStatus},
        worker::Worker,
    },
    controllers::task::{submission::completed_by, transition::MULTI},
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use super::world::TaskWorld;
use crate::oracle::stored;

/// After so long everybody has heard of a wish to cancel: the store's slowest write, and a server that was down.
const HEARD_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Going,
    Succeeded,
    Failed,
    /// Its process died, or was told to stop.
    Stopped,
}

/// One execution of a task by a worker's process.
#[derive(Debug, Clone)]
pub struct Run {
    pub task: String,
    pub worker: String,
    /// As it was told.
    pub dispatched_at: String,
    pub attempt: Option<String>,
    pub end: End,
    /// Its worker could be taken for dead since it began: its heartbeat stopped, or its connection broke.
    pub doubtful: bool,
}

/// That a task is cancelled.
#[derive(Debug, Clone, Copy)]
pub enum Wish {
    /// Acknowledged at this time.
    Told(Timestamp),
    /// Nobody knows whether it was heard.
    Perhaps,
}

/// What everybody did.
#[derive(Default)]
pub struct Ledger {
    pub runs: Vec<Run>,
    /// Told to a worker once at least.
    told: BTreeSet<(String, String)>,
    /// Handed out first while a card had not been read.
    before_cards: BTreeSet<(String, String)>,
    /// Acknowledged to who submitted.
    pub submitted: BTreeSet<String>,
    pub cancelled: BTreeMap<String, Wish>,
    /// What was told of workers last.
    lives: BTreeMap<String, String>,
    /// As every process has seen them last.
    seen: BTreeMap<String, (TaskStatus, Option<String>)>,
}

impl Ledger {
    /// The first time that this attempt is told of.
    pub fn is_first_word(&mut self, dispatch: &Dispatch) -> bool {
        self.told.insert((dispatch.task.clone(), stamp(dispatch.dispatched_at)))
    }

    /// How often a task was begun by anybody.
    pub fn times(&self, task: &str) -> usize {
        self.runs.iter().filter(|run| run.task == task).count()
    }

    /// Of all that its worker is at, and of what is going.
    pub fn doubt(&mut self, worker: &str) {
        let going = self.runs.iter_mut().filter(|run| run.worker == worker && run.end == End::Going);
        going.for_each(|run| run.doubtful = true);
    }
}

/// A worker begins. Answers the number of the run.
pub fn begun(world: &TaskWorld, run: Run) -> usize {
    let mut ledger = world.ledger();
    let again = ledger.runs.iter().any(|other| {
        (&other.task, &other.dispatched_at, &other.worker) == (&run.task, &run.dispatched_at, &run.worker)
    });
    // Workers of the first generation do not say which attempt has failed: one that had failed before may have been
    // misunderstood, and is at it still.
    let misheard = |other: &Run| {
        other.attempt.is_none()
            && ledger
                .runs
                .iter()
                .any(|before| before.task == other.task && before.worker == other.worker && before.end == End::Failed)
    };
    let other = ledger.runs.iter().find(|other| {
        let apart = other.task == run.task && other.worker != run.worker && other.end == End::Going;
        apart && !other.doubtful && !misheard(other)
    });
    let cancelled = ledger.cancelled.contains_key(&run.task);
    let fault = other
        .filter(|_| !again && !cancelled && other.is_some_and(|other| other.dispatched_at < run.dispatched_at))
        .map(|other| format!("{} begins {} while {} is at it, alive and well", run.worker, run.task, other.worker));
    ledger.runs.push(run);
    let number = ledger.runs.len() - 1;
    drop(ledger);
    if let Some(fault) = fault {
        world.world.violated(fault);
    }
    number
}

pub fn ended(world: &TaskWorld, run: usize, end: End) {
    let run = &mut world.ledger().runs[run];
    if run.end == End::Going {
        run.end = end;
    }
}

fn tasks(world: &TaskWorld) -> Option<Vec<std::sync::Arc<Task>>> {
    stored::<Task>(&world.world, "tasks")
}

/// Whoever is told to run a task has it, by the store; nobody has two; what it depends on is done; its cards are its own.
pub fn before_dispatch(world: &TaskWorld, dispatch: &Dispatch) {
    let Some(tasks) = tasks(world) else { return };
    let fault = |what: String| world.world.violated(format!("{} goes to {}: {what}", dispatch.task, dispatch.worker));
    let Some(task) = tasks.iter().find(|task| task.name_any() == dispatch.task) else {
        return fault("nobody knows it".to_owned());
    };
    let status = task.status.clone().unwrap_or_default();
    let at = status.dispatched_at.as_ref().map(|at| stamp(at.0));
    let recorded = status.phase == TaskPhase::Dispatched
        && status.assigned_worker.as_ref() == Some(&dispatch.worker)
        && at == Some(stamp(dispatch.dispatched_at))
        && status.attempt_token == dispatch.attempt;
    if !recorded {
        return fault(format!("and its status says {:?} {:?} {at:?}", status.phase, status.assigned_worker));
    }
    let has = |other: &Task| {
        let status = other.status.clone().unwrap_or_default();
        status.phase == TaskPhase::Dispatched && status.assigned_worker.as_ref() == Some(&dispatch.worker)
    };
    if let Some(other) = tasks.iter().find(|other| other.name_any() != dispatch.task && has(other)) {
        fault(format!("and it has {} as well", other.name_any()));
    }
    for on in &task.spec.depends_on {
        let upstream = tasks.iter().find(|task| task.name_any() == *on).map(|task| task.phase());
        if upstream != Some(TaskPhase::Done) {
            fault(format!("and {on}, on which it depends, is {upstream:?}"));
        }
    }
    let first = completed_by(task).filter(|first| tasks.iter().all(|task| task.name_any() != *first));
    if let Some(first) = first {
        fault(format!("and its submission was cut off: there is no {first}"));
    }
    let cancelled = world.ledger().cancelled.get(&dispatch.task).copied();
    if matches!(cancelled, Some(Wish::Told(at)) if world.world.clock.now() > at + HEARD_WITHIN) {
        fault("and it was cancelled long ago".to_owned());
    }
    if task.spec.document.spec.resources.hardware.gpu.is_some() {
        let cards = stored::<Gpu>(&world.world, "gpus").unwrap_or_default();
        let holds = |gpu: &std::sync::Arc<Gpu>| {
            let leases = gpu.status.iter().flat_map(|status| &status.leases);
            leases.into_iter().any(|lease| lease.holder.name == dispatch.task)
        };
        // Whose a worker's card is is not known before it has been read once.
        let is_read = |gpu: &std::sync::Arc<Gpu>| gpu.status.as_ref().is_some_and(|status| status.uuid.is_some());
        let attempt = (dispatch.task.clone(), stamp(dispatch.dispatched_at));
        if !cards.iter().all(is_read) {
            world.ledger().before_cards.insert(attempt);
        } else if !cards.iter().any(holds) && !world.ledger().before_cards.contains(&attempt) {
            fault("and holds no card".to_owned());
        }
    }
}

/// A result is about to be stored: what was recorded stays.
pub fn before_result(world: &TaskWorld, task: &str, document: &Value) {
    let Some(tasks) = tasks(world) else { return };
    let Some(found) = tasks.iter().find(|found| found.name_any() == task) else { return };
    let recorded = found.status.as_ref().is_some_and(|status| status.result.is_some());
    let before = world.kept().get(task).cloned();
    if recorded && before.as_ref().is_some_and(|before| before["result"] != document["result"]) {
        world.world.violated(format!("the recorded result of {task} is replaced: {before:?} by {document}"));
    }
}

/// A task has changed, as this process sees it.
pub fn changed(world: &TaskWorld, task: &Task) {
    let name = task.name_any();
    let status = task.status.clone().unwrap_or_default();
    let asked = task.annotations().get(gaia::api::annotation::RETRY_AT).cloned();
    let before = world.ledger().seen.insert(name.clone(), (status.clone(), asked));
    if before.as_ref().map(|(before, _)| before.phase) != Some(status.phase) {
        world.tell(format_args!(
            "  {name}: {:?}{} {} {} {}",
            status.phase,
            if status.result.is_some() { " with a result" } else { "" },
            status.assigned_worker.as_deref().unwrap_or("-"),
            status.assigned_incarnation.as_deref().unwrap_or_default(),
            status.error.as_deref().unwrap_or_default()
        ));
    }
    let Some((before, _)) = before else { return };
    let stays = match before.phase {
        TaskPhase::Done | TaskPhase::Cancelled => status.phase == before.phase,
        // Tried again by request, or with what it depends on.
        TaskPhase::Failed | TaskPhase::Pending | TaskPhase::Waiting | TaskPhase::Dispatched => true,
    };
    if !stays {
        world.world.violated(format!("{name} was {:?} and is {:?}", before.phase, status.phase));
    }
    if status.attempts > before.attempts + 1 || status.attempts < before.attempts {
        world.world.violated(format!("{name} had {} attempts and has {}", before.attempts, status.attempts));
    }
    if before.phase == TaskPhase::Done && before.result.is_some() && before.result != status.result {
        world.world.violated(format!("the result of {name} was {:?} and is {:?}", before.result, status.result));
    }
}

/// For the story.
pub fn worker_changed(world: &TaskWorld, worker: &Worker) {
    let status = worker.status.clone().unwrap_or_default();
    let life = status.conditions.first().map(|condition| condition.reason.clone()).unwrap_or_default();
    let since = status.announced.get("started_at").map(Value::to_string).unwrap_or_default();
    let told = format!("  worker {}: {life} since {since}", worker.name_any());
    if world.ledger().lives.insert(worker.name_any(), told.clone()).as_ref() != Some(&told) {
        world.tell(told);
    }
}

/// So many times a task was given to a worker. What was published again before its worker said that it had it is run again by
/// workers of MLOC, also when all is over: they cannot be told otherwise.
pub fn given(world: &TaskWorld) -> u32 {
    let attempts = |task: &std::sync::Arc<Task>| task.status.as_ref().map_or(0, |status| status.attempts);
    tasks(world).unwrap_or_default().iter().map(attempts).sum()
}

/// Whether everything has come to its end. `Err` says what has not, or has wrongly.
pub fn settled(world: &TaskWorld) -> Result<(), String> {
    let tasks = tasks(world).ok_or("gaia is down")?;
    let names: BTreeSet<String> = tasks.iter().map(|task| task.name_any()).collect();
    if let Some(lost) = world.ledger().submitted.iter().find(|name| !names.contains(*name)) {
        return Err(format!("{lost} is lost"));
    }
    for task in &tasks {
        let name = task.name_any();
        let status = task.status.clone().unwrap_or_default();
        match status.phase {
            TaskPhase::Pending | TaskPhase::Waiting | TaskPhase::Dispatched => {
                return Err(format!("{name} is {:?}: {:?}", status.phase, status.conditions));
            }
            TaskPhase::Done | TaskPhase::Failed if wished_in_time(world, &name, &status) => {
                return Err(format!("{name} is {:?}, and was cancelled long before", status.phase));
            }
            TaskPhase::Done => done(world, task, &status).map_err(|why| format!("{name} is done: {why}"))?,
            TaskPhase::Cancelled if !world.ledger().cancelled.contains_key(&name) && task.spec.shard.is_none() => {
                return Err(format!("{name} is cancelled, and nobody wished it"));
            }
            TaskPhase::Failed => failed(task, &status).map_err(|why| format!("{name} has failed: {why}"))?,
            _ => {}
        }
    }
    for worker in stored::<Worker>(&world.world, "workers").ok_or("gaia is down")? {
        if worker.status.as_ref().is_none_or(|status| status.conditions.is_empty()) {
            return Err(format!("nothing is said of worker {}", worker.name_any()));
        }
    }
    cards_are_back(world)
}

/// It ended long after the wish to cancel it was acknowledged.
fn wished_in_time(world: &TaskWorld, name: &str, status: &TaskStatus) -> bool {
    let wished = world.ledger().cancelled.get(name).copied();
    let ended = status.finished_at.as_ref().map(|at| at.0);
    matches!((wished, ended), (Some(Wish::Told(at)), Some(ended)) if ended > at + HEARD_WITHIN)
}

fn done(world: &TaskWorld, task: &Task, status: &TaskStatus) -> Result<(), String> {
    let name = task.name_any();
    let assigned = status.assigned_worker.as_deref().ok_or("by nobody")?;
    let ledger = world.ledger();
    let delivers = task.spec.document.spec.rest.get("output").is_some();
    if assigned != MULTI && !delivers {
        // Killed before it heard that its result had been taken, a run has done it too.
        let handed_in = world.kept().get(&name).and_then(|kept| kept["result"]["run"].as_u64());
        let ran: Vec<&Run> = (0..)
            .zip(&ledger.runs)
            .filter(|(number, run)| run.end == End::Succeeded || Some(*number) == handed_in)
            .map(|(_, run)| run)
            .filter(|run| run.task == name && run.worker == assigned)
            .collect();
        let run = ran.first().ok_or_else(|| format!("{assigned} has not done it"))?;
        if run.attempt.is_some() && !ran.iter().any(|run| run.attempt == status.attempt_token) {
            return Err(format!("attempt {:?} has not done it", status.attempt_token));
        }
    }
    if !delivers {
        return Ok(());
    }
    let kept = world.kept().get(&name).cloned().ok_or("its result is not there")?;
    if status.result.is_none() {
        return Err("its result is not recorded".to_owned());
    }
    if assigned == MULTI {
        let items = kept["result"]["merged"]["items"].as_array().map_or(0, Vec::len);
        let wanted = task.spec.document.spec.rest["data"]["items"].as_array().map_or(0, Vec::len);
        return if items == wanted { Ok(()) } else { Err(format!("of {wanted} items there are {items}")) };
    }
    let number = kept["result"]["run"].as_u64().ok_or("its result is of no run")? as usize;
    let run = ledger.runs.get(number).ok_or("its result is of no run")?;
    if run.task != name || run.worker != assigned {
        return Err(format!("by {assigned}, and its result is of {run:?}"));
    }
    if run.attempt.is_some() && run.attempt != status.attempt_token {
        return Err(format!("in attempt {:?}, and its result is of {run:?}", status.attempt_token));
    }
    Ok(())
}

fn failed(task: &Task, status: &TaskStatus) -> Result<(), String> {
    let told = gaia::controllers::task::transition::told(status).map(|(reason, _)| reason).unwrap_or_default();
    let exhausted = status.retries > task.spec.max_retries;
    let part = status.shards.is_some_and(|shards| shards.failed > 0);
    match told {
        "RetriesExhausted" if exhausted || part => Ok(()),
        "DependencyFailed" => Ok(()),
        other => Err(format!("{other} after {} failures", status.retries)),
    }
}

fn cards_are_back(world: &TaskWorld) -> Result<(), String> {
    let claims = stored::<GpuClaim>(&world.world, "gpuclaims").unwrap_or_default();
    if let Some(claim) = claims.first() {
        return Err(format!("the claim {} is still there", claim.name_any()));
    }
    let cards = stored::<Gpu>(&world.world, "gpus").unwrap_or_default();
    match cards.iter().find(|gpu| gpu.status.as_ref().is_some_and(|status| !status.leases.is_empty())) {
        Some(card) => Err(format!("{} is held by {:?}", card.name_any(), card.status)),
        None => Ok(()),
    }
}
