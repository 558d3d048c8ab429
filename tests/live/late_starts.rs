//! A start that was decided before a handoff began and is carried out while it runs: the pass that looked asks once more, and
//! the handoff stops what by its own look did not run. Found by `tests/model`.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use gaia::{
    adapters::{
        containers::{Container, ContainerState, ContainerSummary, Containers},
        simulated::peers::SimulatedPeers,
    },
    api::{
        gpustep::{NoSettings, ReleaseStep},
        handoff::{Handoff, HandoffSpec, StepStage},
        workload::{Variant, Workload},
    },
    controllers::{
        handoff::{
            observe::Party,
            runner::{Answer, Job, Runner, StepKey},
        },
        workload::{
            WorkloadReconciler,
            observed::{Action, Named},
        },
    },
    runtime::{
        events::Recorder,
        objects::Objects as _,
        reconciler::{Reconciler, name_of},
        wakeups::Wakeups,
    },
};

use crate::{
    handoffs::{holder, prime_and_study},
    world::{World, object},
};

async fn container_of(world: &World, name: &str) -> Container {
    world.engine.inspect(name).await.expect("the engine answers").expect("it was made")
}

async fn workload(world: &World, name: &str) -> Arc<Workload> {
    world.objects.get::<Workload>(&object(name)).await.expect("the registry answers").expect("it exists")
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_before_the_card_was_lost_is_not_started() {
    let world = prime_and_study().await;
    world.until_ready_is("study", "False", "WaitingForGpu").await;
    let (recorder, _inbox) = Recorder::new(world.clock.clone(), world.metrics.clone());
    let controller = WorkloadReconciler::new(&world.context(recorder), &Wakeups::default());
    let late = |container: &Container| Action::Start {
        variant: Variant::Live,
        container: Named::from(container),
        network: None,
    };
    let study = container_of(&world, "study-live").await;
    controller.apply(&*workload(&world, "study").await, &late(&study)).await.expect("nothing fails");
    assert!(!world.runs("study-live"), "prime has the card");
    let anew = Action::Restart {
        variant: Variant::Live,
        container: Named::from(&study),
        grace: Duration::ZERO,
        network: None,
    };
    controller.apply(&*workload(&world, "study").await, &anew).await.expect("nothing fails");
    assert!(!world.runs("study-live"), "to restart is to start");

    world.engine.stop_by_hand("prime-live");
    let prime = container_of(&world, "prime-live").await;
    controller.apply(&*workload(&world, "prime").await, &late(&prime)).await.expect("nothing fails");
    assert!(world.runs("prime-live"), "who has the card is started");
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_told_to_what_has_only_just_been_started() {
    let world = prime_and_study().await;
    let as_seen = Container { state: ContainerState::Exited, ..container_of(&world, "prime-live").await };
    let workload = workload(&world, "prime").await;
    let party = Party {
        holder: holder("prime"),
        workload,
        containers: vec![ContainerSummary::from(&as_seen)],
        peers: Vec::new(),
    };
    let stop = ReleaseStep { stop: Some(NoSettings::default()), timeout_seconds: 30, ..ReleaseStep::default() };
    let wakeups = Wakeups::default();
    let peers = Arc::new(SimulatedPeers::new(world.engine.clone()));
    let runner = Runner::new(Arc::new(world.engine.clone()), peers, world.clock.clone(), wakeups.clone());
    let handoff = Handoff::new("there", HandoffSpec::default());
    let key = StepKey { back: false, stage: StepStage::Release, index: 0 };
    let mut news = world.engine.events();
    runner.run(&handoff, key, Job::Release(Box::new(stop), Box::new(party)));
    while runner.answer(&name_of(&handoff), key) == Some(Answer::UnderWay) {
        // Whatever the engine tells, or a second without news: then it is looked at again.
        tokio::time::timeout(Duration::from_secs(1), news.next()).await.ok();
    }
    assert!(matches!(runner.answer(&name_of(&handoff), key), Some(Answer::Done(Ok(_)))));
    assert!(!world.runs("prime-live"));
}
