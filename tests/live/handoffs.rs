//! A card goes round: its owner, a claim, a handoff that somebody wishes, one that cannot be proven, and a crash half way.

use gaia::{
    adapters::simulated::containers::Images,
    api::{
        container::{ContainerSpec, Gpus},
        gpu::{Gpu, GpuDevice, GpuSpec, GpuStatus, Holder, RequiredProof},
        gpuclaim::{GpuClaim, GpuClaimSpec},
        gpustep::{AcquireStep, HttpStep, NoSettings, ReleaseStep},
        handoff::{Handoff, HandoffPhase, HandoffProof, HandoffSpec, HandoffStatus, StepOutcome},
        workload::{Dependency, DependencyCondition, Workload, WorkloadGpu},
    },
    registry::ObjectName,
    runtime::objects::Objects as _,
};

use crate::world::{World, from_image, object, workload};

pub fn holder(name: &str) -> Holder {
    Holder { name: name.to_owned(), namespace: "default".to_owned(), ..Holder::default() }
}

fn on_card(name: &str, gpu: WorkloadGpu) -> Workload {
    let gpus = Some(Gpus { device_ids: vec!["0".to_owned()], ..Gpus::default() });
    let mut made = workload(name, ContainerSpec { image: format!("{name}:1"), gpus, ..ContainerSpec::default() });
    made.spec.gpu = Some(WorkloadGpu { members: vec!["gpu0".to_owned()], ..gpu });
    made
}

fn card(owner: Option<&str>, change: impl FnOnce(&mut GpuSpec)) -> Gpu {
    let device = GpuDevice { index: Some(0), uuid: None };
    let mut spec = GpuSpec { device, owner: owner.map(holder), lend: true, ..GpuSpec::default() };
    change(&mut spec);
    Gpu::new("gpu0", spec)
}

fn held_by<'a>(name: &'a str) -> impl Fn(&GpuStatus) -> bool + 'a {
    move |status| status.holder.as_ref().is_some_and(|h| h.name == name) && status.handoff.is_none()
}

async fn wish(world: &World, name: &str, from: &str, to: &str, timeout_seconds: u32) {
    let spec = HandoffSpec {
        gpu: "gpu0".to_owned(),
        from: Some(holder(from)),
        to: Some(holder(to)),
        timeout_seconds,
        ..HandoffSpec::default()
    };
    let mut handoff = Handoff::new(name, spec);
    handoff.metadata.namespace = Some("default".to_owned());
    world.objects.create(handoff).await.expect("a valid handoff");
}

/// The end of a handoff, whatever it is.
async fn end_of(world: &World, name: &str) -> HandoffStatus {
    world.until_gpu("gpu0", "through with it", |status| status.handoff.is_none() && status.holder.is_some()).await;
    let found = world.objects.get::<Handoff>(&object(name)).await.expect("the registry answers");
    found.expect("it exists").status.clone().expect("it has begun")
}

pub async fn prime_and_study() -> World {
    let world = World::with(Images::any()).await;
    world.objects.create(card(Some("prime"), |_| ())).await.expect("a valid card");
    world.create(on_card("prime", WorkloadGpu::default())).await;
    world.create(on_card("study", WorkloadGpu::default())).await;
    world.until_running("prime").await;
    world.until_gpu("gpu0", "held by its owner", held_by("prime")).await;
    world
}

#[tokio::test(start_paused = true)]
async fn the_owner_runs_and_the_other_waits_for_the_card() {
    let world = prime_and_study().await;
    world.until_ready_is("study", "False", "WaitingForGpu").await;
    assert!(!world.runs("study-live"));
}

#[tokio::test(start_paused = true)]
async fn a_wished_handoff_goes_there_and_back() {
    let world = prime_and_study().await;
    let before = world.until_gpu("gpu0", "held", held_by("prime")).await.status.clone().unwrap();
    wish(&world, "there", "prime", "study", 120).await;
    world.until_running("study").await;
    let gpu = world.until_gpu("gpu0", "held by study", held_by("study")).await;
    assert!(!world.runs("prime-live"), "two on one card");
    let status = end_of(&world, "there").await;
    assert_eq!(status.phase, HandoffPhase::Completed);
    assert!(status.steps.iter().all(|step| step.outcome == StepOutcome::Succeeded), "{:?}", status.steps);
    assert!(status.fencing_token > Some(before.fencing_token));
    assert_eq!(status.lease_id, gpu.status.as_ref().unwrap().lease_id);
    assert!(!status.memory_curve.is_empty());
    assert_eq!(status.proof, Some(HandoffProof::Measured));

    wish(&world, "back", "study", "prime", 120).await;
    world.until_running("prime").await;
    world.until_gpu("gpu0", "held by prime", held_by("prime")).await;
    assert_eq!(end_of(&world, "back").await.phase, HandoffPhase::Completed);
    assert!(!world.runs("study-live"));
}

#[tokio::test(start_paused = true)]
async fn a_claim_borrows_the_card_and_gives_it_back() {
    let world = prime_and_study().await;
    let spec = GpuClaimSpec {
        gpu: Some("gpu0".to_owned()),
        count: 1,
        holder: holder("study"),
        max_hold_seconds: Some(60),
        ..GpuClaimSpec::default()
    };
    let mut claim = GpuClaim::new("training", spec);
    claim.metadata.namespace = Some("default".to_owned());
    world.objects.create(claim).await.expect("a valid claim");
    world.until_running("study").await;
    world.until_gpu("gpu0", "lent", held_by("study")).await;
    // Its hold ends by itself, and the card goes back to its owner.
    world.until_running("prime").await;
    world.until_gpu("gpu0", "back", held_by("prime")).await;
    assert!(!world.runs("study-live"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_proven_is_put_back() {
    let world = World::with(Images::any()).await;
    // Nothing ever counts as free: the driver itself uses more.
    let never = |spec: &mut GpuSpec| spec.cleanup.free_below = "1Mi".to_owned();
    world.objects.create(card(Some("prime"), never)).await.expect("a valid card");
    world.create(on_card("prime", WorkloadGpu::default())).await;
    world.create(on_card("study", WorkloadGpu::default())).await;
    world.until_running("prime").await;
    world.until_gpu("gpu0", "held", held_by("prime")).await;
    wish(&world, "there", "prime", "study", 30).await;
    world.until_ready_is("prime", "False", "WaitingForGpu").await;
    world.until_running("prime").await;
    let status = end_of(&world, "there").await;
    assert_eq!(status.phase, HandoffPhase::Failed);
    assert_eq!(status.conditions[0].reason, "DeadlineExceeded", "the end says why, not what was done then");
    assert_eq!(status.rollback.expect("it was put back").outcome, StepOutcome::Succeeded);
    world.until_gpu("gpu0", "still held by prime", held_by("prime")).await;
    assert!(!world.runs("study-live"));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_before_anything_stops() {
    let world = World::with(Images::any()).await;
    world
        .objects
        .create(card(Some("prime"), |spec| spec.reserve = Some("2Gi".to_owned())))
        .await
        .expect("a valid card");
    world.create(on_card("prime", WorkloadGpu::default())).await;
    world.create(on_card("study", WorkloadGpu { memory: Some("23Gi".to_owned()), ..WorkloadGpu::default() })).await;
    world.until_running("prime").await;
    world.until_gpu("gpu0", "held and read", |s| s.memory.is_some() && held_by("prime")(s)).await;
    let since = world.container("prime-live").expect("it runs").started_at;
    wish(&world, "there", "prime", "study", 60).await;
    world.until_told("there", "InsufficientMemory").await;
    let status = end_of(&world, "there").await;
    assert_eq!((status.phase, status.steps.len()), (HandoffPhase::Failed, 0));
    let why = status.error.expect("it says why");
    assert!(why.contains("23552 MiB do not fit on gpu0") && why.contains("reserve 2048 MiB"), "{why}");
    assert_eq!(world.container("prime-live").expect("it runs").started_at, since, "nothing was stopped");
    world.until_gpu("gpu0", "still held by prime", held_by("prime")).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_driver_nothing_changes_hands_unless_the_engines_word_is_enough() {
    for (proof, phase, runs) in [
        (RequiredProof::Required, HandoffPhase::Failed, "prime"),
        (RequiredProof::EngineOnly, HandoffPhase::Completed, "study"),
    ] {
        let world = World::without_driver(Images::any()).await;
        let quick = |spec: &mut GpuSpec| (spec.cleanup.proof, spec.cleanup.timeout_seconds) = (proof, 5);
        world.objects.create(card(Some("prime"), quick)).await.expect("a valid card");
        world.create(on_card("prime", WorkloadGpu::default())).await;
        world.create(on_card("study", WorkloadGpu::default())).await;
        world.until_running("prime").await;
        world.until_gpu("gpu0", "held", held_by("prime")).await;
        wish(&world, "there", "prime", "study", 30).await;
        world.until_gpu("gpu0", "let in", |status| status.handoff.is_some()).await;
        let status = end_of(&world, "there").await;
        assert_eq!(status.phase, phase, "{proof:?}: {status:#?}");
        let told = (proof == RequiredProof::EngineOnly).then_some(HandoffProof::EngineOnly);
        assert_eq!(status.proof, told, "what was not measured is told");
        world.until_running(runs).await;
        assert!(world.runs("prime-live") != world.runs("study-live"), "{proof:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_refuses_to_let_go_keeps_the_card() {
    let world = World::with(Images::any()).await;
    world.objects.create(card(Some("prime"), |_| ())).await.expect("a valid card");
    let http = HttpStep { url: Some("http://core.invalid/gpu/release".to_owned()), ..HttpStep::default() };
    let ask =
        ReleaseStep { http: Some(http), required: true, verify: false, timeout_seconds: 5, ..ReleaseStep::default() };
    world.create(on_card("prime", WorkloadGpu { release_steps: vec![ask], ..WorkloadGpu::default() })).await;
    world.create(on_card("study", WorkloadGpu::default())).await;
    world.until_running("prime").await;
    world.until_gpu("gpu0", "held", held_by("prime")).await;
    wish(&world, "there", "prime", "study", 60).await;
    world.until_gpu("gpu0", "asked", |status| status.handoff.is_some()).await;
    let status = end_of(&world, "there").await;
    assert_eq!(status.phase, HandoffPhase::Failed);
    assert!(world.runs("prime-live"), "nothing was stopped");
    world.until_gpu("gpu0", "still held by prime", held_by("prime")).await;
}

#[tokio::test(start_paused = true)]
async fn who_starts_only_after_prime_is_told_all_the_same() {
    let world = World::with(Images::any()).await;
    world.objects.create(card(Some("prime"), |_| ())).await.expect("a valid card");
    let start = AcquireStep { start: Some(NoSettings {}), timeout_seconds: 60, ..AcquireStep::default() };
    let (workload, path) = (Some("core".to_owned()), Some("/gpu/reclaim".to_owned()));
    let http = Some(HttpStep { workload, port: Some(80), path, ..HttpStep::default() });
    let tell = AcquireStep { http, timeout_seconds: 60, ..AcquireStep::default() };
    world.create(on_card("prime", WorkloadGpu { acquire_steps: vec![start, tell], ..WorkloadGpu::default() })).await;
    let mut core = self::workload("core", from_image("core:1"));
    core.spec.depends_on = vec![Dependency { workload: "prime".to_owned(), condition: DependencyCondition::Healthy }];
    world.create(core).await;
    world.until_gpu("gpu0", "held by its owner", held_by("prime")).await;
    let status = end_of(&world, "gpu0-1").await;
    assert_eq!(status.phase, HandoffPhase::Completed);
    assert!(status.steps.iter().all(|step| step.outcome == StepOutcome::Succeeded), "{:?}", status.steps);
}

#[tokio::test(start_paused = true)]
async fn a_handoff_from_somebody_else_is_refused() {
    let world = prime_and_study().await;
    wish(&world, "wrong", "study", "prime", 60).await;
    world.until_told("wrong", "WrongHolder").await;
    assert!(world.runs("prime-live"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_gaia_half_way_ends_it_all_the_same() {
    let mut world = prime_and_study().await;
    wish(&world, "there", "prime", "study", 120).await;
    world.until_gpu("gpu0", "let in", |status| status.handoff.is_some()).await;
    world.stop().await;
    world.start();
    world.until_running("study").await;
    world.until_gpu("gpu0", "held by study", held_by("study")).await;
    let name = ObjectName { namespace: Some("default".to_owned()), name: "there".to_owned() };
    let handoff = world.objects.get::<Handoff>(&name).await.expect("the registry answers").expect("it exists");
    assert_eq!(handoff.status.as_ref().unwrap().phase, HandoffPhase::Completed);
    assert!(!world.runs("prime-live"));
}
