//! Steps carried out on a simulated engine.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use futures::StreamExt;
use rstest::rstest;
use tokio::time::{Instant, timeout};

use super::{
    flight::{holder, party, stop},
    observe::Party,
    runner::{Answer, Job, Runner, StepKey},
};
use crate::{
    adapters::{
        containers::{ContainerRequest, ContainerState, ContainerSummary, Containers},
        simulated::{
            containers::{Behaviour, Effect, Fault, Faults, Image, Images, SimulatedContainers},
            peers::SimulatedPeers,
        },
    },
    api::{
        container::ContainerSpec,
        handoff::{Handoff, HandoffSpec, StepStage},
        label,
    },
    runtime::{clock::SimulatedClock, reconciler::name_of, wakeups::Wakeups},
};

const KEY: StepKey = StepKey { back: false, stage: StepStage::Release, index: 0 };
/// What the engine has still to do when the process of a container has ended.
const TEARDOWN: Duration = Duration::from_secs(3);

/// Answers a stop late.
struct LateAnswer;

impl Faults for LateAnswer {
    fn after(&mut self, effect: &Effect) -> Fault {
        match effect {
            Effect::Stop { .. } => Fault::Slow(TEARDOWN),
            _ => Fault::None,
        }
    }
}

/// What becomes of the first so many stops, before or after they are done.
struct Stops {
    left: usize,
    fault: Fault,
    done: bool,
}

impl Stops {
    fn strike(&mut self, effect: &Effect, done: bool) -> Fault {
        if self.left == 0 || self.done != done || !matches!(effect, Effect::Stop { .. }) {
            return Fault::None;
        }
        self.left -= 1;
        self.fault
    }
}

impl Faults for Stops {
    fn before(&mut self, effect: &Effect) -> Fault {
        self.strike(effect, false)
    }

    fn after(&mut self, effect: &Effect) -> Fault {
        self.strike(effect, true)
    }
}

/// What runs prime, prime with its container, which does what `behaviour` says, and the time.
pub async fn prime(
    behaviour: Behaviour,
    labels: BTreeMap<String, String>,
) -> (SimulatedContainers, Party, Arc<SimulatedClock>) {
    let clock = Arc::new(SimulatedClock::starting_at("2026-01-01T00:00:00Z".parse().expect("a timestamp")));
    let images = Images::default().with("app", Image::present(behaviour));
    let engine = SimulatedContainers::new(clock.clone(), images);
    let spec = ContainerSpec { image: "app".to_owned(), ..ContainerSpec::default() };
    let request = ContainerRequest { name: "prime-live".to_owned(), spec, labels, networks: Vec::new() };
    let id = engine.create(&request).await.expect("created");
    engine.start(&id).await.expect("started");
    let seen = engine.inspect(&id.0).await.expect("an answer").expect("it is there");
    let prime = Party { containers: vec![ContainerSummary::from(&seen)], ..party("prime", vec![stop()]) };
    (engine, prime, clock)
}

/// What a job of a handoff comes to, in the end.
pub async fn carried_out(runner: &Runner, wakeups: &Wakeups, key: StepKey, job: Job) -> Result<String, String> {
    let spec = HandoffSpec { gpu: "gpu0".to_owned(), from: Some(holder("prime")), ..HandoffSpec::default() };
    let handoff = Handoff::new("there", spec);
    runner.run(&handoff, key, job);
    let mut woken = Box::pin(wakeups.stream());
    timeout(Duration::from_secs(60), woken.next()).await.expect("every step ends").expect("the step is answered");
    let Some(Answer::Done(answer)) = runner.answer(&name_of(&handoff), key) else { panic!("it has not ended") };
    answer
}

pub fn ours() -> BTreeMap<String, String> {
    BTreeMap::from([(label::OWNER_UID.to_owned(), "a".to_owned())])
}

/// What a stop of prime comes to, whose container has these labels, how long it takes, and whether prime runs then.
async fn stopped(
    labels: BTreeMap<String, String>,
    faults: impl Faults + 'static,
) -> (Result<String, String>, Duration, bool) {
    let (engine, prime, clock) = prime(Behaviour::default(), labels).await;
    engine.set_faults(faults);
    let (peers, wakeups) = (Arc::new(SimulatedPeers::new(engine.clone())), Wakeups::default());
    let runner = Runner::new(Arc::new(engine.clone()), peers, clock, wakeups.clone());
    let begun = Instant::now();
    let answer = carried_out(&runner, &wakeups, KEY, Job::Release(Box::new(stop()), Box::new(prime))).await;
    let runs = engine.observed().iter().any(|container| container.state == ContainerState::Running);
    (answer, begun.elapsed(), runs)
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_done_when_its_process_has_ended() {
    let done = Ok("prime-live stopped".to_owned());
    let (answer, took, _) = stopped(ours(), LateAnswer).await;
    assert_eq!(answer, done);
    assert!(took < TEARDOWN, "nobody waits for what the engine has still to do");
    let (answer, took, _) = stopped(BTreeMap::new(), LateAnswer).await;
    assert_eq!(answer, done);
    assert!(took >= TEARDOWN, "what is not ours may be started again until the engine is done");
}

/// The step's own time is 10 s.
#[rstest]
#[case::refused_once(Stops { left: 1, fault: Fault::Refuse, done: false }, Ok("prime-live stopped"), 0..1)]
#[case::refused_for_some_time(Stops { left: 4, fault: Fault::Refuse, done: false }, Ok("prime-live stopped"), 2..5)]
#[case::done_and_not_told(Stops { left: 1, fault: Fault::LoseAnswer, done: true }, Ok("prime-live stopped"), 0..1)]
#[case::refused_for_ever(Stops { left: 99, fault: Fault::Refuse, done: false }, Err("does not answer"), 4..10)]
#[case::hung(Stops { left: 99, fault: Fault::Hang, done: false }, Err("no answer to"), 9..11)]
#[tokio::test(start_paused = true)]
async fn a_stop_is_tried_until_its_time_is_up(
    #[values(ours(), BTreeMap::new())] labels: BTreeMap<String, String>,
    #[case] stops: Stops,
    #[case] expected: Result<&str, &str>,
    #[case] seconds: Range<u64>,
) {
    let (answer, took, runs) = stopped(labels, stops).await;
    match (&answer, expected) {
        (Ok(said), Ok(expected)) => assert_eq!(said, expected),
        (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
        _ => panic!("{answer:?}, and not {expected:?}"),
    }
    assert!(seconds.contains(&took.as_secs()), "{took:?}");
    assert_eq!(runs, expected.is_err());
}
