//! The real controllers on the real runtime, over simulated reality: wake-ups, convergence, drift, shutdown.

mod failover;
mod handoffs;
mod history;
mod late_starts;
mod promotions;
mod rest;
mod world;

use std::time::Duration;

use futures::StreamExt;
use gaia::{
    adapters::{
        containers::EngineEvent,
        simulated::containers::{Behaviour, Delivery, Effect, Fault, Faults, Image, Images},
    },
    api::{
        FINALIZER,
        container::{Adopt, ContainerSpec, Gpus},
        gpu::{Gpu, GpuDevice, GpuSpec, GpuStatus},
        workload::*,
    },
    runtime::objects::Objects as _,
};
use kube::{ResourceExt, runtime::watcher::Event};
use world::{World, from_image, workload};

#[tokio::test(start_paused = true)]
async fn a_workload_comes_up_and_says_so() {
    let world = World::with(Images::any()).await;
    world.create(workload("web", from_image("web:1"))).await;
    world.until_running("web").await;
    assert_eq!(
        world.done(),
        ["create network gaia-default", "create container web-live from web:1", "start container web-live"]
    );
    let stored = world.get("web").await.unwrap();
    assert_eq!(stored.finalizers(), [FINALIZER]);
    assert_eq!(stored.status.as_ref().unwrap().active, Some(Variant::Live));
    world.until_told("web", "Started").await;
}

#[tokio::test(start_paused = true)]
async fn what_people_do_to_containers_is_undone_and_told() {
    let world = World::with(Images::any()).await;
    world.create(workload("web", from_image("web:1"))).await;
    world.until_running("web").await;

    assert!(world.engine.stop_by_hand("web-live"));
    world.until("web", "started again", |w| live(w).is_some_and(|s| s.restarts == 1)).await;
    world.until_running("web").await;

    world.engine.rename_by_hand("web-live", "mine").expect("it is there").expect("the name is free");
    world.until_told("web", "Renamed").await;
    assert!(world.runs("web-live") && world.container("mine").is_none());

    let before = world.container("web-live").unwrap().id;
    assert!(world.engine.remove_by_hand("web-live"));
    let another = |w: Option<&Workload>| {
        live(w).is_some_and(|s| s.state == VariantState::Running && s.container_id.as_ref() != Some(&before.0))
    };
    world.until("web", "made again", another).await;
    world.until_told("web", "Drift").await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_no_event_tells_is_found_by_the_list() {
    struct Silent;
    impl Faults for Silent {
        fn notification(&mut self, _: &EngineEvent) -> Delivery {
            Delivery::Hide
        }
    }
    let world = World::with(Images::any()).await;
    world.create(workload("web", from_image("web:1"))).await;
    world.until_running("web").await;
    world.engine.set_faults(Silent);
    assert!(world.engine.kill_by_hand("web-live"));
    world.until("web", "started again", |w| live(w).is_some_and(|s| s.restarts == 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_pulled_and_told() {
    let images = Images::any().with("big:1", Image::pullable(Duration::from_secs(60), Behaviour::default()));
    let world = World::with(images).await;
    world.create(workload("web", from_image("big:1"))).await;
    world.until_ready_is("web", "False", "PullingImage").await;
    // Others go on meanwhile.
    world.create(workload("small", from_image("small:1"))).await;
    world.until_running("small").await;
    assert!(!world.runs("web-live"));
    world.until_running("web").await;
    world.until_told("web", "Pulled").await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_does_not_exist_stalls_until_it_does() {
    let world = World::with(Images::default()).await;
    world.create(workload("web", from_image("none:1"))).await;
    world.until_ready_is("web", "False", "ImagePullBackOff").await;
    world.engine.set_images(|images| *images = Images::any());
    world.until_running("web").await;
}

#[tokio::test(start_paused = true)]
async fn who_depends_waits_for_the_other_to_be_healthy() {
    let slow = Behaviour { ready_after: Some(Duration::from_secs(30)), ..Behaviour::default() };
    let world = World::with(Images::any().with("db:1", Image::present(slow))).await;
    let mut app = workload("app", from_image("app:1"));
    app.spec.depends_on = vec![Dependency { workload: "db".to_owned(), condition: DependencyCondition::Healthy }];
    world.create(app).await;
    world.until_ready_is("app", "False", "DependencyNotFound").await;

    let mut db = workload("db", from_image("db:1"));
    db.spec.probes = Some(Probes { readiness: Some(tcp()), ..Probes::default() });
    world.create(db).await;
    world.until_ready_is("app", "False", "WaitingForDependency").await;
    assert!(!world.runs("app-live"));
    world.until_running("app").await;
    assert!(world.runs("db-live"));
}

#[tokio::test(start_paused = true)]
async fn a_cycle_stalls_and_resolves_when_it_is_broken() {
    let world = World::with(Images::any()).await;
    let on = |name: &str| vec![Dependency { workload: name.to_owned(), condition: DependencyCondition::Started }];
    for (name, other) in [("a", "b"), ("b", "a")] {
        let mut workload = workload(name, from_image("x:1"));
        workload.spec.depends_on = on(other);
        world.create(workload).await;
    }
    world.until_ready_is("a", "False", "DependencyCycle").await;
    world.edit("b", |spec| spec.depends_on.clear()).await;
    world.until_running("b").await;
    world.until_running("a").await;
}

#[tokio::test(start_paused = true)]
async fn what_crashes_again_and_again_is_restarted_ever_more_slowly() {
    let crashes = Behaviour { exits: Some((Duration::from_millis(100), 3)), ..Behaviour::default() };
    let world = World::with(Images::any().with("bad:1", Image::present(crashes))).await;
    world.create(workload("web", from_image("bad:1"))).await;
    let begun = tokio::time::Instant::now();
    world.until("web", "restarted once", |w| live(w).is_some_and(|s| s.restarts == 1)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "at once: {:?}", begun.elapsed());
    world.until("web", "restarted six times", |w| live(w).is_some_and(|s| s.restarts >= 6)).await;
    assert!(begun.elapsed() > Duration::from_secs(20), "{:?}", begun.elapsed());
    world.until_ready_is("web", "False", "CrashLoopBackOff").await;
}

#[tokio::test(start_paused = true)]
async fn a_liveness_probe_that_fails_restarts() {
    let world = World::with(Images::any()).await;
    let mut web = workload("web", from_image("web:1"));
    web.spec.probes = Some(Probes { liveness: Some(tcp()), ..Probes::default() });
    world.create(web).await;
    world.until_running("web").await;
    assert!(world.engine.set_answering("web-live", Some(false)));
    world.until("web", "restarted", |w| live(w).is_some_and(|s| s.restarts == 1)).await;
    world.until_told("web", "LivenessFailed").await;
    world.engine.set_answering("web-live", None);
    world.until_running("web").await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_not_a_dead_container() {
    let world = World::with(Images::any()).await;
    world.create(workload("web", from_image("web:1"))).await;
    world.until_running("web").await;
    let done = world.done();
    world.engine.engine_down();
    world.until_ready_is("web", "Unknown", "EngineUnreachable").await;
    world.engine.engine_up();
    world.until_running("web").await;
    assert_eq!(world.done(), done);
    assert_eq!(live(world.get("web").await.as_deref()).unwrap().restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_card_shows_who_uses_it_and_is_not_written_while_nothing_changes() {
    let world = World::with(Images::any()).await;
    let device = GpuDevice { index: Some(0), uuid: None };
    world.objects.create(Gpu::new("gpu0", GpuSpec { device, ..GpuSpec::default() })).await.expect("a valid Gpu");
    let used = |status: &GpuStatus| status.memory.map_or(0, |memory| memory.used_mib);
    world.until_gpu("gpu0", "seen", |status| used(status) == 512 && status.processes.is_empty()).await;

    let gpus = Some(Gpus { device_ids: vec!["0".to_owned()], ..Gpus::default() });
    world.create(workload("llm", ContainerSpec { gpus, ..from_image("llm:1") })).await;
    world.until_running("llm").await;
    let busy = world.until_gpu("gpu0", "in use", |status| used(status) == 4608).await;
    let process = &busy.status.as_ref().unwrap().processes[0];
    assert_eq!(process.container.as_deref(), Some("llm-live"));
    assert_eq!((process.workload.as_deref(), process.variant), (Some("default/llm"), Some(Variant::Live)));

    // In a dozen further looks nothing is written.
    let mut changes = world.objects.watch::<Gpu>();
    while !matches!(changes.next().await, Some(Event::InitDone)) {}
    let change = tokio::time::timeout(Duration::from_secs(60), changes.next()).await;
    assert!(change.is_err(), "{change:#?}");

    world.edit("llm", |spec| spec.live.as_mut().unwrap().running = false).await;
    world.until_gpu("gpu0", "left", |status| used(status) == 512 && status.processes.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_container_is_never_touched() {
    let world = World::with(Images::any()).await;
    let foreign = world.engine.run_foreign("web-live", "theirs:1", [].into(), &[]).unwrap();
    world.create(workload("web", from_image("web:1"))).await;
    world.until_ready_is("web", "False", "NameTaken").await;
    assert_eq!(world.container("web-live").unwrap().id, foreign);
    assert!(world.runs("web-live") && world.done().is_empty());
    // The name comes free, and the engine's event wakes.
    assert!(world.engine.remove_by_hand("web-live"));
    world.until_running("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_workload_takes_its_own_along_and_leaves_the_adopted() {
    let world = World::with(Images::any()).await;
    world.engine.run_foreign("vllm", "vllm:1", [].into(), &[]).unwrap();
    let adopt = ContainerSpec { adopt: Some(Adopt { name: "vllm".to_owned() }), ..ContainerSpec::default() };
    let mut web = workload("web", adopt);
    web.spec.candidate = Some(CandidateSpec { running: true, container: from_image("web:2") });
    world.create(web).await;
    world.until_running("web").await;
    assert!(world.runs("web-candidate"));
    world.delete("web").await;
    world.until("web", "gone", |w| w.is_none()).await;
    assert!(world.runs("vllm") && world.container("web-candidate").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_active_variant_answers_under_the_workloads_name() {
    let world = World::with(Images::any()).await;
    let mut web = workload("web", from_image("web:1"));
    web.spec.candidate = Some(CandidateSpec { running: true, container: from_image("web:2") });
    world.create(web).await;
    world.until_running("web").await;
    assert_eq!((answers(&world, "web-live"), answers(&world, "web-candidate")), (true, false));
    world.edit("web", |spec| spec.active = Variant::Candidate).await;
    world
        .until("web", "swapped", |w| {
            w.and_then(|w| w.status.as_ref()).is_some_and(|s| s.active == Some(Variant::Candidate))
        })
        .await;
    world.until_running("web").await;
    assert_eq!((answers(&world, "web-live"), answers(&world, "web-candidate")), (false, true));
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_stalls_with_its_reason_and_heals() {
    let world = World::with(Images::any()).await;
    let mut web = workload("web", from_image("web:1"));
    let port = gaia::api::container::Port { container_port: 80, host_port: Some(8080), host_ip: None, protocol: None };
    web.spec.live.as_mut().unwrap().container.ports = vec![port];
    world.engine.set_port_occupied(8080, true);
    world.create(web).await;
    world.until_ready_is("web", "False", "PortInUse").await;
    world.engine.set_port_occupied(8080, false);
    world.until_running("web").await;
}

#[tokio::test(start_paused = true)]
async fn lost_answers_make_no_second_container() {
    /// The answer to every third effect is lost, before or after it took place.
    struct Lossy(u32);
    impl Lossy {
        fn next(&mut self, every: u32) -> Fault {
            self.0 += 1;
            if self.0.is_multiple_of(every) { Fault::LoseAnswer } else { Fault::None }
        }
    }
    impl Faults for Lossy {
        fn before(&mut self, _: &Effect) -> Fault {
            self.next(7)
        }
        fn after(&mut self, _: &Effect) -> Fault {
            self.next(3)
        }
    }
    let world = World::with(Images::any()).await;
    world.engine.set_faults(Lossy(0));
    for name in ["a", "b", "c"] {
        world.create(workload(name, from_image("x:1"))).await;
    }
    for name in ["a", "b", "c"] {
        world.until_running(name).await;
    }
    assert_eq!(world.engine.observed().len(), 3);
    assert_eq!(world.done().iter().filter(|effect| effect.starts_with("create container")).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_gaia_touches_no_container() {
    let mut world = World::with(Images::any()).await;
    let mut web = workload("web", from_image("web:1"));
    web.spec.probes = Some(Probes { liveness: Some(tcp()), readiness: Some(tcp()), ..Probes::default() });
    world.create(web).await;
    world.until_running("web").await;
    let done = world.done();
    assert!(world.stop().await < Duration::from_secs(10));
    assert!(world.runs("web-live"));
    world.start();
    world.create(workload("after", from_image("x:1"))).await;
    world.until_running("after").await;
    world.until_running("web").await;
    assert_eq!(world.done()[..done.len()], done, "the past does not change");
    assert!(world.done()[done.len()..].iter().all(|effect| effect.contains("after")), "{:?}", world.done());
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_a_long_stop() {
    let stubborn = Behaviour { ignores_stop: true, ..Behaviour::default() };
    let mut world = World::with(Images::any().with("slow:1", Image::present(stubborn))).await;
    let mut web = workload("web", from_image("slow:1"));
    web.spec.stop_grace_seconds = 3600;
    world.create(web).await;
    world.until_running("web").await;
    world.edit("web", |spec| spec.live.as_mut().unwrap().running = false).await;
    world.until_ready_is("web", "False", "Stopping").await;
    assert!(world.stop().await < Duration::from_secs(10));
}

fn live(workload: Option<&Workload>) -> Option<&VariantStatus> {
    workload?.status.as_ref()?.live.as_ref()
}

fn answers(world: &World, container: &str) -> bool {
    let attached = world.container(container).expect("it exists").attachments;
    attached.iter().any(|a| a.network == "gaia-default" && a.aliases.iter().any(|alias| alias == "web"))
}

fn tcp() -> Probe {
    Probe {
        tcp: Some(TcpProbe { port: 80 }),
        period_seconds: 2,
        timeout_seconds: 1,
        failure_threshold: 3,
        success_threshold: 1,
        ..Probe::default()
    }
}
