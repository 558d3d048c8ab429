//! Where it begins: cards, workloads, and what people may do. Each scene asks other questions of the same code.

use gaia::{
    adapters::containers::{Attachment, Container, ContainerId, ContainerState},
    api::{
        container::{ContainerSpec, Gpus},
        gpu::{Gpu, GpuMemory, GpuSpec, GpuStatus, Holder, HolderKind},
        gpuclaim::{GpuClaim, GpuClaimSpec, Preemption},
        gpustep::{AcquireStep, HttpStep, NoSettings, ReleaseStep},
        handoff::{Handoff, HandoffSpec},
        workload::{LiveSpec, Variant, Workload, WorkloadGpu, WorkloadSpec},
    },
    controllers::workload::names,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::state::{Body, Clock, Left};

#[derive(Clone)]
pub struct Scene {
    pub name: &'static str,
    pub gpus: Vec<Gpu>,
    pub workloads: Vec<Workload>,
    pub containers: Vec<Container>,
    /// People may make each of these once; so many of them have been made before it begins.
    pub claims: Vec<GpuClaim>,
    pub made_before: u8,
    pub handoffs: Vec<Handoff>,
    /// Of the gpu controller, on the same card at the same time.
    pub workers: u8,
    /// What may happen in it. Each is explored to its end, so it is a little of everything, never everything at once.
    pub troubles: Vec<Left>,
}

pub fn workload_holder(name: &str) -> Holder {
    Holder { name: name.into(), namespace: "default".into(), ..Holder::default() }
}

fn outsider(name: &str) -> Holder {
    Holder { kind: HolderKind::External, ..workload_holder(name) }
}

fn gpu(index: u32, owner: Option<&str>) -> Gpu {
    let mut gpu = Gpu::new(
        &format!("gpu{index}"),
        GpuSpec { owner: owner.map(workload_holder), lend: true, on_stuck: Vec::new(), ..GpuSpec::default() },
    );
    gpu.metadata.uid = Some(format!("uid-gpu{index}"));
    gpu.metadata.generation = Some(1);
    gpu.status = Some(GpuStatus {
        observed_generation: Some(1),
        uuid: Some(format!("GPU-{index}")),
        memory: Some(GpuMemory { total_mib: 24_000, used_mib: 0, free_mib: 24_000 }),
        ..GpuStatus::default()
    });
    gpu
}

fn container_spec(name: &str) -> ContainerSpec {
    let gpus = Gpus { count: Some(-1), ..Gpus::default() };
    ContainerSpec { image: format!("{name}:1"), gpus: Some(gpus), ..ContainerSpec::default() }
}

fn workload(name: &str, members: &[&str]) -> Workload {
    let live = LiveSpec { running: true, container: container_spec(name) };
    let gpu = WorkloadGpu { members: members.iter().map(|m| (*m).into()).collect(), ..WorkloadGpu::default() };
    let spec = WorkloadSpec { live: Some(live), gpu: Some(gpu), stop_grace_seconds: 10, ..WorkloadSpec::default() };
    let mut workload = Workload::new(name, spec);
    workload.metadata.namespace = Some("default".into());
    workload.metadata.uid = Some(format!("uid-{name}"));
    workload.metadata.generation = Some(1);
    workload.metadata.creation_timestamp = Some(Time(Clock::default().now()));
    workload
}

/// It lets go of the memory when asked to, and runs on; if that does not help it is stopped.
fn gentle(mut workload: Workload) -> Workload {
    let http = |path: &str| Some(HttpStep { port: Some(6415), path: Some(path.into()), ..HttpStep::default() });
    let gpu = workload.spec.gpu.get_or_insert_default();
    let ask = ReleaseStep { http: http("/gpu/release"), timeout_seconds: 30, verify: true, ..ReleaseStep::default() };
    let stop =
        ReleaseStep { stop: Some(NoSettings::default()), timeout_seconds: 30, verify: true, ..ReleaseStep::default() };
    gpu.release_steps = vec![ask, stop];
    let start = AcquireStep {
        start: Some(NoSettings::default()),
        timeout_seconds: 60,
        required: true,
        ..AcquireStep::default()
    };
    let take = AcquireStep { http: http("/gpu/take"), timeout_seconds: 30, required: true, ..AcquireStep::default() };
    gpu.acquire_steps = vec![start, take];
    workload
}

/// As our controller would have made it, and stopped.
fn container_of(workload: &Workload) -> Container {
    let name = workload.metadata.name.clone().unwrap_or_default();
    let uid = workload.metadata.uid.clone().unwrap_or_default();
    let spec = container_spec(&name);
    Container {
        id: ContainerId(format!("id-{name}")),
        name: names::container("default", &name, Variant::Live),
        image: spec.image.clone(),
        image_id: "sha256:1".into(),
        labels: names::labels(&uid, "default", &name, Variant::Live, &spec.hash()),
        state: ContainerState::Created,
        health: None,
        exit_code: 0,
        oom_killed: false,
        restarts_itself: false,
        error: String::new(),
        created_at: Some(Clock::default().now()),
        started_at: None,
        finished_at: None,
        attachments: names::networks("default", &name, &spec, true)
            .into_iter()
            .map(|(network, aliases)| Attachment { network, aliases, ip: None })
            .collect(),
        ports: Vec::new(),
    }
}

pub fn seen(container: &Container, body: &Body) -> Container {
    let state = match (body.running, body.started) {
        (true, _) => ContainerState::Running,
        (false, Some(_)) => ContainerState::Exited,
        (false, None) => ContainerState::Created,
    };
    // Started after what was written down at that instant, as the order of events was.
    let started_at = body.started.map(Clock::just_after);
    let finished_at = body.finished.map(Clock::just_after);
    Container { state, started_at, finished_at, ..container.clone() }
}

fn claim(name: &str, card: Option<&str>, change: impl FnOnce(&mut GpuClaimSpec)) -> GpuClaim {
    let mut spec =
        GpuClaimSpec { gpu: card.map(str::to_owned), count: 1, holder: outsider(name), ..GpuClaimSpec::default() };
    change(&mut spec);
    let mut claim = GpuClaim::new(name, spec);
    claim.metadata.namespace = Some("default".into());
    claim.metadata.uid = Some(format!("uid-{name}"));
    claim.metadata.generation = Some(1);
    claim
}

fn handoff(name: &str, from: Option<&str>, to: Option<&str>) -> Handoff {
    let spec = HandoffSpec {
        gpu: "gpu0".into(),
        from: from.map(workload_holder),
        to: to.map(workload_holder),
        timeout_seconds: 120,
        ..HandoffSpec::default()
    };
    let mut handoff = Handoff::new(name, spec);
    handoff.metadata.namespace = Some("default".into());
    handoff.metadata.uid = Some(format!("uid-{name}"));
    handoff.metadata.generation = Some(1);
    handoff
}

fn scene(name: &'static str, gpus: Vec<Gpu>, workloads: Vec<Workload>) -> Scene {
    let containers = workloads.iter().map(container_of).collect();
    let (claims, handoffs) = (Vec::new(), Vec::new());
    Scene { name, gpus, workloads, containers, claims, made_before: 0, handoffs, workers: 1, troubles: Vec::new() }
}

/// One pass at a time, and nothing goes wrong.
const CALM: Left = Left { shorts: 0, longs: 0, crashes: 0, faults: 0, cancels: 0, claims: 0, handoffs: 0, passes: 1 };

/// Prime owns the card, and study gets it by somebody's handoff: it may be cancelled, may fail, and may be cut off.
pub fn there_and_back() -> Scene {
    let workloads = vec![workload("prime", &["gpu0"]), workload("study", &["gpu0"])];
    let there = Left { handoffs: 1, ..CALM };
    let two = Left { passes: 2, ..there };
    Scene {
        handoffs: vec![handoff("there", Some("prime"), Some("study"))],
        troubles: vec![
            Left { longs: 1, crashes: 1, faults: 1, ..there },
            Left { shorts: 1, crashes: 1, faults: 1, ..there },
            Left { longs: 1, faults: 1, cancels: 1, ..there },
            Left { shorts: 1, faults: 1, ..two },
            Left { shorts: 1, crashes: 1, cancels: 1, ..two },
            Left { longs: 1, crashes: 1, cancels: 1, ..two },
        ],
        ..scene("there and back", vec![gpu(0, Some("prime"))], workloads)
    }
}

/// Two outsiders claim the card from its owner; the second may take it from the first.
pub fn two_claims() -> Scene {
    let first = Left { claims: 1, ..CALM };
    Scene {
        claims: vec![
            claim("audio", Some("gpu0"), |spec| spec.ttl_seconds = Some(300)),
            claim("sleep", Some("gpu0"), |spec| {
                spec.priority = 10;
                spec.preemption = Preemption::LowerPriority;
            }),
        ],
        troubles: vec![
            Left { longs: 1, faults: 1, ..first },
            Left { crashes: 1, faults: 1, ..first },
            Left { claims: 2, passes: 2, ..CALM },
        ],
        ..scene("two claims", vec![gpu(0, Some("prime"))], vec![workload("prime", &["gpu0"])])
    }
}

/// The first has the card, and the second comes.
pub fn taken_away() -> Scene {
    let troubles = vec![Left { claims: 2, crashes: 1, passes: 2, ..CALM }];
    Scene { made_before: 1, name: "taken away", troubles, ..two_claims() }
}

/// Prime lets go of the memory when it is asked to, or refuses, or says so and lies; an outsider may want the card meanwhile.
pub fn asked_first() -> Scene {
    let workloads = vec![gentle(workload("prime", &["gpu0"])), workload("study", &["gpu0"])];
    let there = Left { handoffs: 1, ..CALM };
    Scene {
        handoffs: vec![handoff("there", Some("prime"), Some("study"))],
        claims: vec![claim("audio", Some("gpu0"), |_| ())],
        troubles: vec![
            Left { longs: 1, faults: 1, cancels: 1, ..there },
            Left { crashes: 1, faults: 1, passes: 2, ..there },
            // Its restart is on the way to the engine when it is to be asked.
            Left { shorts: 1, faults: 1, passes: 2, ..there },
            Left { claims: 1, ..there },
        ],
        ..scene("asked first", vec![gpu(0, Some("prime"))], workloads)
    }
}

/// Two cards, and one claim for both, all or nothing.
pub fn both_cards() -> Scene {
    Scene {
        claims: vec![claim("audio", None, |spec| spec.count = 2)],
        troubles: vec![Left { claims: 1, crashes: 1, ..CALM }],
        ..scene("both cards", vec![gpu(0, Some("prime")), gpu(1, None)], vec![workload("prime", &["gpu0"])])
    }
}

/// Two workers grant the same card at once, as when a process has not quite ended while the next one begins.
pub fn two_workers() -> Scene {
    let troubles = vec![Left { claims: 1, passes: 2, ..CALM }];
    Scene { workers: 2, name: "two workers", troubles, ..two_claims() }
}
