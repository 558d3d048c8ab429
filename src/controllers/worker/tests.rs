//! The loop before a bus of its own, on paused time.

use super::*;
use crate::{
    adapters::bus::{embedded::EmbeddedBus, session::Session},
    registry::{Kinds, Registry, ids::RandomIds},
    runtime::{clock::SystemClock, metrics::RuntimeMetrics, registry_objects::RegistryObjects},
    store::{EmbeddedStore, MemoryEngine},
};

#[tokio::test(start_paused = true)]
async fn who_says_very_often_what_it_is_at_is_not_written_as_often() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = EmbeddedStore::open(MemoryEngine::default(), Default::default()).expect("an empty store");
    let kinds = Kinds::from_crds(&crate::api::crds()).expect("our kinds are in order");
    let registry = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds)).await.expect("a registry");
    let objects = RegistryObjects { registry: registry.clone(), field_manager: "test" };
    let (recorder, _inbox) = Recorder::new(clock.clone(), RuntimeMetrics::default());
    let bus = EmbeddedBus::new(Duration::from_secs(120));
    let workers = Workers {
        objects: objects.clone(),
        bus: Arc::new(bus.clone()),
        recorder,
        clock,
        settings: Settings::default(),
        metrics: TaskMetrics::default(),
        heartbeats: HashMap::new(),
        trusted_from: None,
    };
    let running = tokio::spawn(workers.run());
    let passes = async |millis: u64| {
        let nothing = std::future::pending::<()>();
        tokio::time::timeout(Duration::from_millis(millis), nothing).await.ok();
    };
    passes(10).await;
    let register = r#"{"type":"REGISTER","worker_id":"w1","payload":{"started_at":"x"}}"#;
    let mut session = Session::open(&bus, register).expect("it comes");
    passes(150).await;
    let known = async || objects.list::<Worker>(None).await.expect("listed");
    assert_eq!(known().await.len(), 1, "who comes is seen soon");
    let revision = async || registry.store().revision().await.expect("it is open").0;
    let before = revision().await;
    let says = |session: &mut Session, status: &str, n: u32| {
        let said = format!(
            r#"{{"type":"STATUS","worker_id":"w1","status":"{status}","ts":"{n}","payload":{{"task_id":"t{n}","last_task":"t{n}"}}}}"#
        );
        assert!(session.hear(&said).expect("it is its connection").is_none());
    };
    for n in 0..150 {
        says(&mut session, "RUNNING", n);
        passes(10).await;
        says(&mut session, "IDLE", n);
        passes(10).await;
    }
    let written = revision().await - before;
    assert!((4..=7).contains(&written), "in three seconds: {written}");
    passes(1000).await;
    let worker = known().await.remove(0);
    let status = worker.status.as_ref().expect("it is looked at");
    assert_eq!(status.announced["last_seen"], "149", "what was said last is written");
    says(&mut session, "DRAINING", 150);
    passes(150).await;
    let state = known().await.remove(0).status.as_ref().map(|status| status.state);
    assert_eq!(state, Some(crate::api::worker::WorkerState::Draining), "who takes nothing more is seen soon");
    running.abort();
}
