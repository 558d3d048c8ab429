//! What the suite in `tests/adapters` cannot ask of a real engine: faults, time, meddling.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::*;
use crate::{
    adapters::containers::{
        ContainerRequest, ContainerState, Containers, EngineError, EngineEvent, EngineHealth, TerminalReason,
    },
    runtime::clock::SimulatedClock,
};

fn engine(behaviour: Behaviour) -> SimulatedContainers {
    let clock = SimulatedClock::starting_at("2026-01-01T00:00:00Z".parse().expect("a timestamp"));
    let images = Images::default()
        .with("app", Image::present(behaviour.clone()))
        .with("far", Image::pullable(Duration::from_secs(4), behaviour));
    SimulatedContainers::new(Arc::new(clock), images)
}

fn request(name: &str, image: &str) -> ContainerRequest {
    let spec = ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() };
    ContainerRequest { name: name.to_owned(), spec, labels: BTreeMap::new(), networks: Vec::new() }
}

async fn running(engine: &SimulatedContainers, name: &str) -> ContainerId {
    let id = engine.create(&request(name, "app")).await.expect("created");
    engine.start(&id).await.expect("started");
    id
}

async fn look(engine: &SimulatedContainers, name: &str) -> Container {
    engine.inspect(name).await.expect("the engine answers").expect("it is there")
}

/// Strikes once, before or after the first effect of which it was told.
struct Once {
    fault: Fault,
    before: bool,
    struck: bool,
}

impl Once {
    fn before(fault: Fault) -> Self {
        Self { fault, before: true, struck: false }
    }

    fn after(fault: Fault) -> Self {
        Self { fault, before: false, struck: false }
    }

    fn strike(&mut self, here: bool) -> Fault {
        if self.struck || !here {
            return Fault::None;
        }
        self.struck = true;
        self.fault
    }
}

impl Faults for Once {
    fn before(&mut self, _: &Effect) -> Fault {
        self.strike(self.before)
    }

    fn after(&mut self, _: &Effect) -> Fault {
        self.strike(!self.before)
    }
}

#[tokio::test(start_paused = true)]
async fn refusal_leaves_nothing_behind() {
    let engine = engine(Behaviour::default());
    engine.set_faults(Once::before(Fault::Refuse));
    let refused = engine.create(&request("a", "app")).await;
    assert!(matches!(refused, Err(EngineError::Unreachable(_))));
    assert_eq!(engine.observed(), []);
    assert_eq!(engine.effects(), []);
}

#[tokio::test(start_paused = true)]
async fn lost_answer_hides_what_was_done() {
    let engine = engine(Behaviour::default());
    engine.set_faults(Once::after(Fault::LoseAnswer));
    let lost = engine.create(&request("a", "app")).await;
    assert!(matches!(lost, Err(EngineError::MayHaveTakenEffect(_))));
    assert_eq!(look(&engine, "a").await.state, ContainerState::Created);
    assert_eq!(engine.effects().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn lost_answer_before_the_effect_prevents_it() {
    let engine = engine(Behaviour::default());
    engine.set_faults(Once::before(Fault::LoseAnswer));
    let lost = engine.create(&request("a", "app")).await;
    assert!(matches!(lost, Err(EngineError::MayHaveTakenEffect(_))));
    assert_eq!(engine.observed(), []);
}

#[tokio::test(start_paused = true)]
async fn hanging_call_ends_at_its_deadline() {
    let engine = engine(Behaviour::default());
    engine.set_faults(Once::before(Fault::Hang));
    let started = Instant::now();
    assert!(engine.create(&request("a", "app")).await.is_err());
    assert_eq!(started.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn crash_after_the_effect_is_signalled_and_the_call_never_returns() {
    let engine = engine(Behaviour::default());
    engine.set_faults(Once::after(Fault::Crash));
    let mut crashes = engine.crashes();
    let doomed = request("a", "app");
    let mut call = engine.create(&doomed);
    tokio::select! {
        biased;
        _ = &mut call => panic!("a dead process got an answer"),
        crashed = crashes.changed() => crashed.expect("the engine lives"),
    }
    drop(call);
    assert_eq!(look(&engine, "a").await.state, ContainerState::Created);
}

#[tokio::test(start_paused = true)]
async fn hook_sees_the_truth_at_each_effect() {
    struct Oracle(SimulatedContainers, Arc<AtomicBool>);
    impl Faults for Oracle {
        fn after(&mut self, effect: &Effect) -> Fault {
            let Effect::Create { name, .. } = effect else { return Fault::None };
            self.1.store(self.0.observed().iter().any(|seen| seen.name == *name), Ordering::SeqCst);
            Fault::None
        }
    }
    let engine = engine(Behaviour::default());
    let seen = Arc::new(AtomicBool::new(false));
    engine.set_faults(Oracle(engine.clone(), seen.clone()));
    engine.create(&request("a", "app")).await.expect("created");
    assert!(seen.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn process_ends_when_its_time_has_come() {
    let engine = engine(Behaviour { exits: Some((Duration::from_secs(5), 3)), ..Behaviour::default() });
    let mut events = engine.events();
    running(&engine, "a").await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|action| action != "die") {
        match events.next().await.expect("the stream never ends") {
            EngineEvent::Container { action, .. } => seen.push(action),
            EngineEvent::Connected | EngineEvent::Disconnected(_) => {}
        }
    }
    let container = look(&engine, "a").await;
    assert_eq!((container.state, container.exit_code), (ContainerState::Exited, 3));
    let ran = container.finished_at.expect("it ended").duration_since(container.started_at.expect("it ran"));
    assert_eq!(ran.as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn exit_of_an_earlier_run_does_not_end_a_later_one() {
    let engine = engine(Behaviour { exits: Some((Duration::from_secs(5), 3)), ..Behaviour::default() });
    running(&engine, "a").await;
    tokio::time::advance(Duration::from_secs(4)).await;
    engine.kill_by_hand("a");
    engine.start_by_hand("a").expect("it exists").expect("it starts");
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(look(&engine, "a").await.state, ContainerState::Running);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(look(&engine, "a").await.state, ContainerState::Exited);
}

#[tokio::test(start_paused = true)]
async fn health_follows_the_process() {
    let slow = Behaviour { ready_after: Some(Duration::from_secs(3)), healthcheck: true, ..Behaviour::default() };
    let engine = engine(slow);
    running(&engine, "a").await;
    assert_eq!(look(&engine, "a").await.health, Some(EngineHealth::Starting));
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(look(&engine, "a").await.health, Some(EngineHealth::Healthy));
    engine.set_answering("a", Some(false));
    assert_eq!(look(&engine, "a").await.health, Some(EngineHealth::Unhealthy));
}

#[tokio::test(start_paused = true)]
async fn never_ready_is_unhealthy_in_the_end() {
    let engine = engine(Behaviour { ready_after: None, healthcheck: true, ..Behaviour::default() });
    running(&engine, "a").await;
    tokio::time::advance(Duration::from_secs(89)).await;
    assert_eq!(look(&engine, "a").await.health, Some(EngineHealth::Starting));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(look(&engine, "a").await.health, Some(EngineHealth::Unhealthy));
}

#[tokio::test(start_paused = true)]
async fn pull_tells_its_progress_and_ends_with_the_image() {
    let engine = engine(Behaviour::default());
    let told = Mutex::new(Vec::new());
    let progress = |progress: crate::adapters::containers::PullProgress| {
        told.lock().expect("no panic").push(progress.layers_done);
    };
    assert_eq!(engine.image("far").await, Ok(None));
    engine.pull("far", &progress).await.expect("pulled");
    assert_eq!(*told.lock().expect("no panic"), [0, 1, 2, 3, 4]);
    assert!(engine.image("far").await.expect("an answer").is_some());
    let absent = engine.pull("nowhere", &|_| ()).await;
    assert!(matches!(absent, Err(EngineError::Terminal { reason: TerminalReason::ImageNotFound, .. })));
}

#[tokio::test(start_paused = true)]
async fn slow_subscriber_is_told_that_it_missed_something() {
    let engine = engine(Behaviour::default());
    let mut events = engine.events();
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    for _ in 0..100 {
        running(&engine, "a").await;
        engine.remove_by_hand("a");
    }
    assert!(matches!(events.next().await, Some(EngineEvent::Disconnected(_))));
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    assert_eq!(events.next().now_or_never(), None);
}

#[tokio::test(start_paused = true)]
async fn events_can_be_hidden_doubled_and_delayed() {
    struct By(Delivery);
    impl Faults for By {
        fn notification(&mut self, _: &EngineEvent) -> Delivery {
            self.0
        }
    }
    let engine = engine(Behaviour::default());
    let mut events = engine.events();
    events.next().await;
    engine.set_faults(By(Delivery::Hide));
    engine.create(&request("hidden", "app")).await.expect("created");
    engine.set_faults(By(Delivery::Duplicate));
    engine.create(&request("twice", "app")).await.expect("created");
    engine.set_faults(By(Delivery::Delay(Duration::from_secs(7))));
    engine.create(&request("late", "app")).await.expect("created");
    let started = Instant::now();
    let mut names = Vec::new();
    for _ in 0..3 {
        let Some(EngineEvent::Container { name, .. }) = events.next().await else { panic!("a container's event") };
        names.push((name, started.elapsed().as_secs()));
    }
    assert_eq!(names, [("twice".to_owned(), 0), ("twice".to_owned(), 0), ("late".to_owned(), 7)]);
}

#[tokio::test(start_paused = true)]
async fn engine_that_is_away_says_nothing_about_containers() {
    let engine = engine(Behaviour::default());
    let id = running(&engine, "a").await;
    let mut events = engine.events();
    events.next().await;
    engine.engine_down();
    assert!(matches!(events.next().await, Some(EngineEvent::Disconnected(_))));
    assert!(matches!(engine.inspect("a").await, Err(EngineError::Unreachable(_))));
    assert!(matches!(engine.stop(&id, Duration::ZERO).await, Err(EngineError::Unreachable(_))));
    assert_eq!(engine.observed()[0].state, ContainerState::Running);
    engine.engine_up();
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    assert_eq!(look(&engine, "a").await.state, ContainerState::Running);
}

#[tokio::test(start_paused = true)]
async fn containers_that_died_with_the_engine_are_exited_with_0() {
    let engine = engine(Behaviour::default());
    running(&engine, "a").await;
    engine.engine_crash();
    engine.engine_up();
    let container = look(&engine, "a").await;
    assert_eq!((container.state, container.exit_code), (ContainerState::Exited, 0));
}

#[tokio::test(start_paused = true)]
async fn port_that_somebody_has_cannot_be_had() {
    let engine = engine(Behaviour::default());
    let mut wanted = request("a", "app");
    wanted.spec.ports =
        vec![crate::api::container::Port { container_port: 80, host_port: Some(8080), host_ip: None, protocol: None }];
    engine.set_port_occupied(8080, true);
    let id = engine.create(&wanted).await.expect("created");
    let refused = engine.start(&id).await;
    assert!(matches!(refused, Err(EngineError::Terminal { reason: TerminalReason::PortInUse, .. })));
    engine.set_port_occupied(8080, false);
    engine.start(&id).await.expect("started");
    assert_eq!(look(&engine, "a").await.ports[0].host_port, 8080);
}

#[tokio::test(start_paused = true)]
async fn copy_of_an_observation_goes_its_own_way() {
    let original = engine(Behaviour::default());
    let id = running(&original, "a").await;
    let clock = Arc::new(SimulatedClock::starting_at(jiff::Timestamp::UNIX_EPOCH));
    let copy = SimulatedContainers::from_observed(clock, original.observed(), Images::default());
    assert_eq!(copy.observed(), original.observed());
    copy.stop(&id, Duration::from_secs(1)).await.expect("stopped");
    assert_eq!(look(&copy, "a").await.state, ContainerState::Exited);
    assert_eq!(look(&original, "a").await.state, ContainerState::Running);
    let steps: Vec<_> = copy.effects().iter().map(|record| record.effect.to_string()).collect();
    assert_eq!(steps, ["stop container a"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_copy_makes_takes_the_place_of_nothing_observed() {
    let original = engine(Behaviour::default());
    running(&original, "a").await;
    let clock = Arc::new(SimulatedClock::starting_at(jiff::Timestamp::UNIX_EPOCH));
    let copy = SimulatedContainers::from_observed(clock, original.observed(), Images::any());
    running(&copy, "b").await;
    let names: Vec<_> = copy.observed().into_iter().map(|container| container.name).collect();
    assert!(names.contains(&"a".to_owned()) && names.contains(&"b".to_owned()), "{names:?}");
}

#[tokio::test(start_paused = true)]
async fn same_calls_give_the_same_engine() {
    async fn play() -> Vec<Container> {
        let engine = engine(Behaviour::default());
        running(&engine, "a").await;
        running(&engine, "b").await;
        engine.run_foreign("c", "other", BTreeMap::new(), &["net"]).expect("a free name");
        engine.observed()
    }
    assert_eq!(play().await, play().await);
}
