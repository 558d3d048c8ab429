//! A host where all is as wished: it is hardly looked at, and yet nothing that happens there stays unseen.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gaia::{
    adapters::{
        containers::EngineEvent,
        simulated::containers::{Delivery, Fault, Faults, Images},
    },
    api::{container::Adopt, container::ContainerSpec, workload::*},
};

use crate::world::{World, from_image, workload};

/// Counts looks at the engine, and tells nobody anything.
#[derive(Clone, Default)]
struct Silent(Arc<AtomicUsize>);

impl Faults for Silent {
    fn read(&mut self) -> Fault {
        self.0.fetch_add(1, Ordering::Relaxed);
        Fault::None
    }

    fn notification(&mut self, _: &EngineEvent) -> Delivery {
        Delivery::Hide
    }
}

async fn minutes(n: u64) {
    tokio::time::timeout(Duration::from_secs(60 * n), pending::<()>()).await.ok();
}

fn restarts(workload: Option<&Workload>) -> Option<u32> {
    Some(workload?.status.as_ref()?.live.as_ref()?.restarts)
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_twice_a_minute_however_many_containers_it_has() {
    let world = World::without_driver(Images::any()).await;
    for n in 0..20 {
        world.create(workload(&format!("web{n}"), from_image("web:1"))).await;
    }
    for n in 0..20 {
        world.until_running(&format!("web{n}")).await;
    }
    minutes(2).await;
    let counted = Silent::default();
    world.engine.set_faults(counted.clone());
    minutes(30).await;
    let looks = counted.0.load(Ordering::Relaxed);
    assert!((30..=60).contains(&looks), "{looks} looks in 30 minutes");
}

#[tokio::test(start_paused = true)]
async fn whatever_no_event_tells_is_found() {
    let world = World::without_driver(Images::any()).await;
    world.engine.run_foreign("theirs", "theirs:1", [].into(), &[]).expect("the name is free");
    let adopt = ContainerSpec { adopt: Some(Adopt { name: "theirs".to_owned() }), ..ContainerSpec::default() };
    world.create(workload("adopts", adopt)).await;
    for name in ["web", "other", "adopts"] {
        if name != "adopts" {
            world.create(workload(name, from_image("web:1"))).await;
        }
        world.until_running(name).await;
    }
    world.engine.set_faults(Silent::default());

    assert!(world.engine.kill_by_hand("web-live"));
    world.until("web", "started again", |w| restarts(w) == Some(1)).await;
    world.until_running("web").await;
    // It runs as before, but for another time. Runs are told apart by the second they began in.
    minutes(1).await;
    assert!(world.engine.kill_by_hand("web-live"));
    world.engine.start_by_hand("web-live").expect("it is there").expect("it starts");
    world.until("web", "known to have been started again", |w| restarts(w) == Some(2)).await;

    assert!(world.engine.stop_by_hand("theirs"));
    world.until("adopts", "started again", |w| restarts(w) == Some(1)).await;

    world.engine.rename_by_hand("other-live", "mine").expect("it is there").expect("the name is free");
    world.until_told("other", "Renamed").await;

    // No list shows it: each container is looked at in its turn.
    assert!(world.engine.let_restart_by_hand("other-live"));
    world.until_told("other", "RestartsForbidden").await;
    assert!(!world.container("other-live").expect("it is there").restarts_itself);

    assert!(world.engine.remove_by_hand("other-live"));
    world.until_told("other", "Drift").await;
    world.until_running("other").await;
}
