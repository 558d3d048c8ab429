//! Turns of the loop itself, on a store in memory.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

mod recalls;

use super::{
    Reality, Tasks,
    retention::is_leaving,
    submission::GRACE,
    transition,
    view::{Key, object_name},
};
use crate::{
    adapters::{
        bus::{BusEvent, TaskEvent, TaskNews, WorkerEvent, WorkerNews, embedded::EmbeddedBus},
        outbox::Outbox,
        results::ResultFiles,
    },
    api::{
        RESULTS_FINALIZER, annotation,
        condition::{self, ConditionStatus, READY},
        task::{Task, TaskPhase, TaskSpec, TaskStatus},
        worker::{Worker, WorkerHardware, WorkerSpec, WorkerStatus},
    },
    registry::{Kinds, Reason, Registry, ids::RandomIds},
    runtime::{
        clock::{Clock, SystemClock},
        events::Recorder,
        metrics::RuntimeMetrics,
        objects::Objects,
        registry_objects::RegistryObjects,
    },
    store::{EmbeddedStore, MemoryEngine},
};

/// The loop with an empty store.
async fn loop_of_nothing(directory: &Path) -> Tasks<RegistryObjects> {
    loop_with(directory, EmbeddedBus::new(Duration::from_secs(120))).await
}

async fn loop_with(directory: &Path, bus: EmbeddedBus) -> Tasks<RegistryObjects> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = EmbeddedStore::open(MemoryEngine::default(), Default::default()).expect("an empty store");
    let kinds = Kinds::from_crds(&crate::api::crds()).expect("our kinds are in order");
    let registry = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds)).await.expect("a registry");
    let (recorder, _inbox) = Recorder::new(clock.clone(), RuntimeMetrics::default());
    let reality = Reality {
        bus: Arc::new(bus),
        results: Arc::new(ResultFiles::new(directory).expect("a directory")),
        metrics: Default::default(),
        signer: None,
        outbox: Outbox::new().expect("a client"),
        base_url: None,
        settings: Default::default(),
    };
    Tasks::new(RegistryObjects { registry, field_manager: "test" }, recorder, clock, reality)
}

fn key(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

fn task(name: &str, submission: &str) -> Task {
    let document = json!({"apiVersion": "mloc/v1", "kind": "EchoTask", "metadata": {"name": "t"},
        "spec": {"taskType": "echo", "resources": {"hardware": {}}}});
    let document = serde_json::from_value(document).expect("a document");
    let spec = TaskSpec { document, submission: Some(submission.to_owned()), ..TaskSpec::default() };
    let mut task = Task::new(name, spec);
    task.metadata.namespace = Some("default".to_owned());
    task.metadata.finalizers = Some(vec![RESULTS_FINALIZER.to_owned()]);
    task
}

/// Made, and known to the loop.
async fn put(tasks: &mut Tasks<RegistryObjects>, task: Task) -> Key {
    let task = tasks.objects.create(task).await.expect("made");
    let key = super::view::key_of(&task);
    tasks.put(task);
    key
}

/// One that has ended long ago, as the loop knows it.
async fn put_ended(tasks: &mut Tasks<RegistryObjects>, name: &str, submission: &str, phase: TaskPhase) -> Key {
    let mut task = (*tasks.objects.create(task(name, submission)).await.expect("made")).clone();
    let finished_at = Some(Time(Timestamp::UNIX_EPOCH));
    task.status = Some(TaskStatus { phase, finished_at, ..TaskStatus::default() });
    let task = tasks.objects.update_status(task).await.expect("written");
    tasks.put(task);
    key(name)
}

async fn stored(tasks: &Tasks<RegistryObjects>, name: &str) -> Option<Arc<Task>> {
    tasks.objects.get::<Task>(&object_name(&key(name))).await.expect("read")
}

#[tokio::test]
async fn a_task_that_is_tried_again_meanwhile_stays_with_its_submission() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    put_ended(&mut tasks, "a-done", "s", TaskPhase::Done).await;
    let failed = put_ended(&mut tasks, "b-failed", "s", TaskPhase::Failed).await;
    put_ended(&mut tasks, "c-done", "other", TaskPhase::Done).await;
    // Somebody asks for it again, and the loop has not heard of it when it sweeps.
    let wish = json!({"metadata": {"annotations": {annotation::RETRY_AT: "now"}}});
    let asked = tasks.objects.merge::<Task>(&object_name(&failed), wish).await.expect("asked");
    tasks.sweep().await;
    for name in ["b-failed", "a-done"] {
        let task = stored(&tasks, name).await.expect("it is there");
        assert!(!is_leaving(&task), "{name}: what is tried again needs its results, and those before it");
    }
    let gone = stored(&tasks, "c-done").await.expect("its finalizer is on it");
    assert!(is_leaving(&gone));
    // It has been looked at, and is tried again.
    assert_eq!(
        tasks.view.task(&failed).map(|task| &task.metadata.resource_version),
        Some(&asked.metadata.resource_version)
    );
    assert!(tasks.dirty.contains(&failed));
    tasks.sweep().await;
    assert!(!is_leaving(&stored(&tasks, "a-done").await.expect("it is there")));
}

/// One that is made before the first of its submission.
fn member(name: &str, first: &str) -> Task {
    let mut member = task(name, first);
    member.metadata.annotations = Some([(annotation::BEGINS_WITH.to_owned(), first.to_owned())].into());
    member
}

#[tokio::test]
async fn what_was_cut_off_never_begins_and_goes_after_its_grace() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    let left = put(&mut tasks, member("left", "never")).await;
    let other = put(&mut tasks, member("other", "late")).await;
    tasks.pass().await;
    for name in ["left", "other"] {
        assert_eq!(stored(&tasks, name).await.expect("it is there").status, None, "{name} does not even wait");
    }
    // The watch has not told of this one yet.
    tasks.objects.create(task("late", "late")).await.expect("made");
    tasks.clear_up().await;
    assert_eq!(tasks.incomplete.len(), 2, "nothing goes before its time");
    for since in tasks.incomplete.values_mut() {
        *since -= GRACE;
    }
    assert!(tasks.next_leftover().is_some_and(|at| at <= tokio::time::Instant::now()));
    tasks.clear_up().await;
    assert!(is_leaving(&stored(&tasks, "left").await.expect("its finalizer is on it")));
    assert!(!is_leaving(&stored(&tasks, "other").await.expect("it is there")), "all of its submission are there");
    assert!(tasks.dirty.contains(&other));
    tasks.pass().await;
    assert_eq!(stored(&tasks, "other").await.expect("it is there").phase(), TaskPhase::Waiting);
    tasks.look_at(&left).await;
    tasks.pass().await;
    assert_eq!(stored(&tasks, "left").await, None);
    assert_eq!(tasks.next_leftover(), None);
}

#[tokio::test]
async fn who_has_seen_all_of_its_submission_stays_when_the_first_is_deleted() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    put(&mut tasks, member("second", "first")).await;
    tasks.pass().await;
    assert_eq!(tasks.incomplete.len(), 1);
    let first = put(&mut tasks, task("first", "first")).await;
    assert!(tasks.dirty.contains(&key("second")), "it was waited for");
    tasks.pass().await;
    assert_eq!(stored(&tasks, "second").await.expect("it is there").phase(), TaskPhase::Waiting);
    tasks.dirty.extend(tasks.view.remove(&first));
    tasks.pass().await;
    assert_eq!(tasks.next_leftover(), None);
}

fn worker(name: &str) -> Worker {
    let mut worker = Worker::new(name, WorkerSpec::default());
    let mut status = WorkerStatus {
        hardware: Some(WorkerHardware { cpu_cores: Some(8), ..Default::default() }),
        ..Default::default()
    };
    let now = Time(Timestamp::UNIX_EPOCH);
    condition::set(&mut status.conditions, READY, ConditionStatus::True, "HeartbeatSeen", "it lives", None, &now);
    worker.status = Some(status);
    worker
}

/// With worker `w1`, by what is stored.
async fn put_dispatched(tasks: &mut Tasks<RegistryObjects>, name: &str) -> Key {
    tasks.dirty.extend(tasks.view.put_worker(&worker("w1")));
    let mut task = task(name, name);
    task.spec.max_retries = 1;
    let key = put(tasks, task).await;
    tasks.pass().await;
    assert_eq!(stored(tasks, name).await.expect("it is there").phase(), TaskPhase::Dispatched);
    key
}

fn runs(task: &str) -> BusEvent {
    let news = WorkerNews::Running { task: Some(task.to_owned()), attempt: None };
    BusEvent::Worker(WorkerEvent { worker: "w1".to_owned(), news })
}

fn told(task: &str, news: TaskNews) -> BusEvent {
    let worker = Some("w1".to_owned());
    BusEvent::Task(TaskEvent { task: task.to_owned(), worker, dispatched_at: None, attempt: None, news })
}

async fn heard(tasks: &mut Tasks<RegistryObjects>, events: Vec<BusEvent>) {
    tasks.heard.extend(events);
    tasks.hear().await;
}

async fn revision(tasks: &Tasks<RegistryObjects>) -> u64 {
    tasks.objects.registry.store().revision().await.expect("it is open").0
}

#[tokio::test]
async fn a_short_task_costs_three_writes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    let before = revision(&tasks).await;
    put_dispatched(&mut tasks, "t").await;
    heard(&mut tasks, vec![runs("t"), told("t", TaskNews::Started)]).await;
    tasks.pass().await;
    heard(&mut tasks, vec![told("t", TaskNews::Succeeded)]).await;
    tasks.pass().await;
    let status = stored(&tasks, "t").await.expect("it is there").status.clone().expect("it has one");
    assert_eq!((status.phase, status.started_at.is_some()), (TaskPhase::Done, true));
    assert_eq!(revision(&tasks).await - before, 3, "made, handed over, done");
    heard(&mut tasks, vec![runs("t")]).await;
    assert_eq!((tasks.next_begun(), revision(&tasks).await - before), (None, 3), "nothing is left of it");
}

#[tokio::test]
async fn who_was_handed_over_without_an_answer_is_looked_after() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    let key = put(&mut tasks, task("t", "t")).await;
    assert_eq!(tasks.next_look, None);
    // The write took effect, and its answer said that it could not be made.
    let mut written = (**tasks.view.task(&key).expect("it is known")).clone();
    written.status = Some(transition::dispatched(&written, "w1", None, Timestamp::UNIX_EPOCH));
    tasks.objects.update_status(written).await.expect("written");
    tasks.look_again(&key, Reason::ServiceUnavailable, "the store cannot write").await;
    assert!(tasks.next_look.is_some(), "or its worker would never hear of it");
}

fn a_moment_passes(tasks: &mut Tasks<RegistryObjects>) {
    assert!(tasks.next_begun().is_some());
    tasks.begun.values_mut().for_each(|begun| begun.due = tokio::time::Instant::now());
}

#[tokio::test]
async fn a_beginning_is_written_after_a_moment_whatever_else_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    let key = put_dispatched(&mut tasks, "t").await;
    heard(&mut tasks, vec![runs("t")]).await;
    assert_eq!(stored(&tasks, "t").await.expect("it is there").status.clone().expect("it has one").started_at, None);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    tasks.objects.merge::<Task>(&object_name(&key), label).await.expect("labelled");
    tasks.look_at(&key).await;
    a_moment_passes(&mut tasks);
    heard(&mut tasks, vec![]).await;
    let status = stored(&tasks, "t").await.expect("it is there").status.clone().expect("it has one");
    assert!(status.started_at.is_some());
    assert_eq!(tasks.next_begun(), None);
}

#[tokio::test]
async fn a_beginning_is_of_one_attempt() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    put_dispatched(&mut tasks, "t").await;
    heard(&mut tasks, vec![runs("t")]).await;
    tasks.dirty.extend(tasks.view.remove_worker(&worker("w1")));
    tasks.pass().await;
    assert_eq!(stored(&tasks, "t").await.expect("it is there").phase(), TaskPhase::Waiting);
    tasks.dirty.extend(tasks.view.put_worker(&worker("w1")));
    tasks.pass().await;
    a_moment_passes(&mut tasks);
    heard(&mut tasks, vec![]).await;
    let status = stored(&tasks, "t").await.expect("it is there").status.clone().expect("it has one");
    assert_eq!((status.attempts, status.phase, status.started_at), (2, TaskPhase::Dispatched, None));
    assert_eq!(tasks.next_begun(), None);
}

#[tokio::test]
async fn what_is_cancelled_within_a_moment_had_begun() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    let key = put_dispatched(&mut tasks, "t").await;
    heard(&mut tasks, vec![runs("t")]).await;
    let wish = json!({"spec": {"cancel": true}});
    tasks.objects.merge::<Task>(&object_name(&key), wish).await.expect("wished");
    tasks.look_at(&key).await;
    tasks.pass().await;
    let status = stored(&tasks, "t").await.expect("it is there").status.clone().expect("it has one");
    assert_eq!((status.phase, status.started_at.is_some()), (TaskPhase::Cancelled, true));
}

/// `cargo test --lib task::tests::a_turn_with_many -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement: how long a turn takes while so many wait"]
async fn a_turn_with_many_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tasks = loop_of_nothing(directory.path()).await;
    for n in 0..10_000 {
        put(&mut tasks, task(&format!("t{n:05}"), "s")).await;
    }
    tasks.dirty.extend(tasks.view.put_worker(&worker("first")));
    tasks.pass().await;
    for freed in [false, true] {
        let mut took: Vec<Duration> = Vec::new();
        for n in 0..50 {
            if freed {
                tasks.dirty.extend(tasks.view.put_worker(&worker(&format!("w{n}"))));
            }
            let begun = std::time::Instant::now();
            tasks.pass().await;
            took.push(begun.elapsed());
        }
        took.sort();
        println!("a worker is freed: {freed}; median {:?}, longest {:?}", took[25], took[49]);
    }
}
