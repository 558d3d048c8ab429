//! Steps carried out on a simulated engine.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::time::Instant;

use super::{
    flight::{holder, party, stop},
    observe::Party,
    runner::{Answer, Job, Runner, StepKey},
};
use crate::{
    adapters::{
        containers::{ContainerRequest, ContainerSummary, Containers},
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

/// How long a stop of prime takes, whose container has these labels.
async fn stopped(labels: BTreeMap<String, String>) -> Duration {
    let clock = Arc::new(SimulatedClock::starting_at("2026-01-01T00:00:00Z".parse().expect("a timestamp")));
    let images = Images::default().with("app", Image::present(Behaviour::default()));
    let engine = SimulatedContainers::new(clock.clone(), images);
    let spec = ContainerSpec { image: "app".to_owned(), ..ContainerSpec::default() };
    let request = ContainerRequest { name: "prime-live".to_owned(), spec, labels, networks: Vec::new() };
    let id = engine.create(&request).await.expect("created");
    engine.start(&id).await.expect("started");
    engine.set_faults(LateAnswer);

    let (peers, wakeups) = (Arc::new(SimulatedPeers::new(engine.clone())), Wakeups::default());
    let runner = Runner::new(Arc::new(engine.clone()), peers, clock, wakeups.clone());
    let seen = engine.inspect(&id.0).await.expect("an answer").expect("it is there");
    let prime = Party { containers: vec![ContainerSummary::from(&seen)], ..party("prime", vec![stop()]) };
    let spec = HandoffSpec { gpu: "gpu0".to_owned(), from: Some(holder("prime")), ..HandoffSpec::default() };
    let handoff = Handoff::new("there", spec);
    let begun = Instant::now();
    runner.run(&handoff, KEY, Job::Release(Box::new(stop()), Box::new(prime)));
    let mut woken = Box::pin(wakeups.stream());
    woken.next().await.expect("the step is answered");
    assert_eq!(runner.answer(&name_of(&handoff), KEY), Some(Answer::Done(Ok("prime-live stopped".to_owned()))));
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_done_when_its_process_has_ended() {
    let ours = BTreeMap::from([(label::OWNER_UID.to_owned(), "a".to_owned())]);
    assert!(stopped(ours).await < TEARDOWN, "nobody waits for what the engine has still to do");
    assert!(
        stopped(BTreeMap::new()).await >= TEARDOWN,
        "what is not ours may be started again until the engine is done"
    );
}
