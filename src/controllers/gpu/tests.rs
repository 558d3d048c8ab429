//! Tables over `decide`: a declared card, what the driver shows, and what is said.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::object::HasStatus;

use super::decide::{GpuPlan, LOOK, Observed, Unread, decide};
use crate::{
    adapters::{
        containers::{Container, ContainerId, ContainerState},
        gpus::{GpuDevice as Card, GpuProcess as Process},
    },
    api::{
        condition::READY,
        gpu::{Gpu, GpuDevice, GpuMemory, GpuProcess, GpuSpec, GpuStatus, Holder},
        label,
        workload::Variant,
    },
    controllers::workload::names,
    runtime::{events::EventType, reconciler::Requeue},
};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
}

pub(super) fn gpu(device: GpuDevice) -> Gpu {
    let mut gpu = Gpu::new("gpu0", GpuSpec { device, ..GpuSpec::default() });
    gpu.metadata.generation = Some(1);
    gpu
}

pub(super) fn by_index(index: u32) -> GpuDevice {
    GpuDevice { index: Some(index), uuid: None }
}

fn by_uuid(uuid: &str) -> GpuDevice {
    GpuDevice { index: None, uuid: Some(uuid.to_owned()) }
}

pub(super) fn card(index: u32) -> Card {
    Card {
        index,
        uuid: format!("GPU-{index}"),
        mig: None,
        name: "RTX".to_owned(),
        memory_total_mib: 24_000,
        memory_used_mib: Some(6_000),
        utilization_percent: Some(50),
        temperature_celsius: Some(60),
        power_watts: Some(199.6),
        last_xid: None,
        processes: Some(vec![process(7, "llm")]),
    }
}

pub(super) fn process(pid: u32, container: &str) -> Process {
    Process {
        pid,
        name: None,
        container: Some(ContainerId(container.to_owned())),
        other_engine: false,
        used_mib: Some(5_000),
    }
}

pub(super) fn container(id: &str, labels: BTreeMap<String, String>) -> Container {
    Container {
        id: ContainerId(id.to_owned()),
        name: format!("{id}-live"),
        image: "x:1".to_owned(),
        image_id: "sha256:1".to_owned(),
        labels,
        state: ContainerState::Running,
        health: None,
        exit_code: 0,
        oom_killed: false,
        restarts_itself: false,
        error: String::new(),
        created_at: None,
        started_at: None,
        finished_at: None,
        attachments: Vec::new(),
        ports: Vec::new(),
    }
}

pub(super) fn ours(id: &str) -> Container {
    container(id, names::labels("uid", "default", id, Variant::Live, "hash"))
}

pub(super) fn showing(cards: Vec<Card>) -> Observed {
    Observed { node: "here".to_owned(), cards: Ok(cards), users: Ok(vec![ours("llm")]), twin: None }
}

fn unread(why: Unread) -> Observed {
    Observed { cards: Err(why), ..showing(Vec::new()) }
}

pub(super) fn no_answer() -> Observed {
    unread(Unread::NoAnswer("the GPU driver does not answer: busy".to_owned()))
}

/// What is stored after this pass.
pub(super) fn after(gpu: &Gpu, observed: &Observed, second: i64) -> Gpu {
    let mut stored = gpu.clone();
    *stored.status_mut() = decide(gpu, observed, at(second)).status;
    stored
}

pub(super) fn status(plan: &GpuPlan) -> &GpuStatus {
    plan.status.as_ref().expect("something is said")
}

/// `True Free`
pub(super) fn ready(plan: &GpuPlan) -> String {
    let ready = status(plan).conditions.iter().find(|c| c.type_ == READY).expect("Ready is always said");
    format!("{} {}", ready.status, ready.reason)
}

#[test]
fn shows_the_card_that_is_meant() {
    let cases = [
        (by_index(0), vec![card(0), card(1)], Some(0)),
        (by_index(1), vec![card(0), card(1)], Some(1)),
        (by_uuid("GPU-1"), vec![card(0), card(1)], Some(1)),
        (by_uuid("GPU-2"), vec![card(0), card(1)], None),
        (by_index(0), vec![], None),
        // The schema forbids it; it means no card rather than any.
        (GpuDevice::default(), vec![card(0)], None),
    ];
    for (device, cards, expected) in cases {
        let plan = decide(&gpu(device.clone()), &showing(cards), at(0));
        assert_eq!(status(&plan).index, expected, "{device:?}");
        assert_eq!(ready(&plan), if expected.is_some() { "True Free" } else { "False DeviceNotFound" }, "{device:?}");
        assert_eq!(plan.requeue, Requeue::After(LOOK));
        assert!(!plan.acts());
    }
}

#[test]
fn says_what_the_driver_says() {
    let plan = decide(&gpu(by_index(0)), &showing(vec![card(0)]), at(0));
    let said = status(&plan);
    assert_eq!(said.memory, Some(GpuMemory { total_mib: 24_000, used_mib: 6_000, free_mib: 18_000 }));
    assert_eq!((said.utilization_percent, said.temperature_celsius, said.power_watts), (Some(50), Some(60), Some(200)));
    assert_eq!((said.uuid.as_deref(), said.product.as_deref()), (Some("GPU-0"), Some("RTX")));
    assert_eq!(said.observed_generation, Some(1));
}

#[test]
fn what_the_driver_does_not_say_is_absent_and_not_zero() {
    let silent = Card {
        memory_used_mib: None,
        utilization_percent: None,
        temperature_celsius: None,
        power_watts: None,
        processes: None,
        ..card(0)
    };
    let plan = decide(&gpu(by_index(0)), &showing(vec![silent]), at(0));
    let said = status(&plan);
    assert_eq!((said.memory, said.utilization_percent, said.temperature_celsius, said.power_watts), Default::default());
    assert!(said.conditions[0].message.contains("does not tell its processes"), "{}", said.conditions[0].message);
}

#[test]
fn tells_whose_a_process_is() {
    let half_labelled = container("odd", [(label::WORKLOAD.to_owned(), "default/odd".to_owned())].into());
    let cases = [
        (Some("llm"), vec![ours("llm")], (Some("llm-live"), Some("default/llm"), Some(Variant::Live))),
        (Some("desktop"), vec![container("desktop", BTreeMap::new())], (Some("desktop-live"), None, None)),
        // Without an owner's uid it is not ours, whatever it says.
        (Some("odd"), vec![half_labelled], (Some("odd-live"), None, None)),
        // The engine does not know it: an orphan.
        (Some("gone"), vec![], (Some("gone"), None, None)),
        (None, vec![ours("llm")], (None, None, None)),
    ];
    for (inside, users, expected) in cases {
        let process = Process { container: inside.map(|id| ContainerId(id.to_owned())), ..process(7, "") };
        let observed =
            Observed { users: Ok(users), ..showing(vec![Card { processes: Some(vec![process]), ..card(0) }]) };
        let plan = decide(&gpu(by_index(0)), &observed, at(0));
        let [told] = status(&plan).processes.as_slice() else { panic!("{inside:?}: one process") };
        assert_eq!((told.container.as_deref(), told.workload.as_deref(), told.variant), expected, "{inside:?}");
        assert_eq!((told.pid, told.used_mib, told.orphan), (7, Some(5_000), inside == Some("gone")));
    }
}

/// Docker does not know the containers of Podman or a kubelet: that orphans nobody.
#[test]
fn a_container_of_another_engine_is_no_orphan() {
    let podman = Process { other_engine: true, ..process(7, "0123456789abcdef") };
    let observed = Observed { users: Ok(vec![]), ..showing(vec![Card { processes: Some(vec![podman]), ..card(0) }]) };
    let plan = decide(&gpu(by_index(0)), &observed, at(0));
    let [told] = status(&plan).processes.as_slice() else { panic!("one process") };
    assert_eq!((told.container.as_deref(), told.orphan), (Some("0123456789ab"), false));
}

#[test]
fn a_process_is_told_once_and_in_order() {
    let twice = Process { used_mib: None, ..process(7, "llm") };
    let processes = Some(vec![process(9, "llm"), twice, process(7, "llm")]);
    let plan = decide(&gpu(by_index(0)), &showing(vec![Card { processes, ..card(0) }]), at(0));
    let told: Vec<_> = status(&plan).processes.iter().map(|p| (p.pid, p.used_mib)).collect();
    assert_eq!(told, [(7, Some(5_000)), (9, Some(5_000))]);
}

#[test]
fn an_engine_that_is_away_makes_no_stranger() {
    let known = after(&gpu(by_index(0)), &showing(vec![card(0)]), 0);
    let more = Card { processes: Some(vec![process(7, "llm"), process(8, "new")]), ..card(0) };
    let plan = decide(&known, &Observed { users: Err("away".to_owned()), ..showing(vec![more]) }, at(5));
    let [old, new] = status(&plan).processes.as_slice() else { panic!("two processes") };
    assert_eq!(old.workload.as_deref(), Some("default/llm"));
    assert_eq!(*new, GpuProcess { pid: 8, used_mib: Some(5_000), ..GpuProcess::default() });
    assert_eq!(ready(&plan), "True Free");
    assert!(status(&plan).conditions[0].message.contains("away"));
}

#[test]
fn a_driver_that_does_not_answer_makes_the_present_unknown() {
    let known = after(&gpu(by_index(0)), &showing(vec![card(0)]), 0);
    let plan = decide(&known, &no_answer(), at(5));
    let said = status(&plan);
    assert_eq!(ready(&plan), "Unknown DriverUnavailable");
    assert_eq!((said.memory, said.utilization_percent, said.temperature_celsius, said.power_watts), Default::default());
    assert!(said.processes.is_empty());
    // The card is still that card, last seen then.
    assert_eq!((said.uuid.as_deref(), said.observed_at.as_ref()), (Some("GPU-0"), Some(&Time(at(0)))));
    assert_eq!(plan.requeue, Requeue::Backoff);

    // Unless the spec means another one now.
    let mut other = known;
    other.spec.device = by_index(1);
    let plan = decide(&other, &no_answer(), at(5));
    assert_eq!((status(&plan).uuid.as_deref(), status(&plan).observed_at.as_ref()), (None, None));
}

#[test]
fn without_anybody_to_ask_nothing_is_looked_for_again() {
    let plan = decide(&gpu(by_index(0)), &unread(Unread::Unsupported), at(0));
    assert_eq!((ready(&plan).as_str(), plan.requeue), ("Unknown DriverUnavailable", Requeue::OnChange));
    assert!(status(&plan).conditions[0].message.contains("NVML"));
}

#[test]
fn noise_is_not_written_and_news_is() {
    let base = card(0);
    let with = |load: u32, celsius: u32, watts: f64| Card {
        utilization_percent: Some(load),
        temperature_celsius: Some(celsius),
        power_watts: Some(watts),
        ..base.clone()
    };
    let barely = Card { utilization_percent: Some(1), ..base.clone() };
    let cases = [
        ("the same", base.clone(), base.clone(), false),
        ("all at the edge of noise", base.clone(), with(54, 58, 209.6), false),
        ("load", base.clone(), with(55, 60, 199.6), true),
        ("temperature", base.clone(), with(50, 63, 199.6), true),
        ("power", base.clone(), with(50, 60, 188.0), true),
        ("the end of the load", barely, Card { utilization_percent: Some(0), ..base.clone() }, true),
        ("memory", base.clone(), Card { memory_used_mib: Some(6_001), ..base.clone() }, true),
        ("a process", base.clone(), Card { processes: Some(vec![]), ..base.clone() }, true),
        ("not known any more", base.clone(), Card { temperature_celsius: None, ..base.clone() }, true),
    ];
    for (what, first, then, news) in cases {
        let known = after(&gpu(by_index(0)), &showing(vec![first]), 0);
        let plan = decide(&known, &showing(vec![then.clone()]), at(5));
        assert_eq!(plan.status != known.status, news, "{what}");
        if news {
            // One reading of one moment: what is noise is fresh too.
            let fresh = decide(&gpu(by_index(0)), &showing(vec![then]), at(5));
            assert_eq!(status(&plan).temperature_celsius, status(&fresh).temperature_celsius, "{what}");
            assert_eq!(status(&plan).observed_at, status(&fresh).observed_at, "{what}");
        }
    }
}

#[test]
fn a_slow_drift_is_told_in_steps() {
    let warmer = |celsius| showing(vec![Card { temperature_celsius: Some(celsius), ..card(0) }]);
    let mut gpu = gpu(by_index(0));
    let mut told = Vec::new();
    for celsius in 60..67 {
        gpu = after(&gpu, &warmer(celsius), i64::from(celsius));
        told.push(gpu.status().and_then(|s| s.temperature_celsius).expect("told"));
    }
    assert_eq!(told, [60, 60, 60, 63, 63, 63, 66]);
}

#[test]
fn what_does_not_change_is_not_written_again() {
    for observed in [showing(vec![card(0)]), showing(vec![]), no_answer(), unread(Unread::Unsupported)] {
        let once = after(&gpu(by_index(0)), &observed, 0);
        let plan = decide(&once, &observed, at(60));
        assert_eq!(plan.status, once.status, "{observed:?}");
        assert_eq!(plan.events, []);
    }
}

#[test]
fn who_holds_it_is_left_alone() {
    let holder = Holder { name: "llm".to_owned(), namespace: "default".to_owned(), ..Holder::default() };
    let lease = GpuStatus {
        holder: Some(holder.clone()),
        lease_id: Some("l1".to_owned()),
        fencing_token: 3,
        ..GpuStatus::default()
    };
    let mut held = gpu(by_index(0));
    held.status = Some(lease);
    for (observed, expected) in [
        (showing(vec![card(0)]), "True Held"),
        (showing(vec![]), "False DeviceNotFound"),
        (no_answer(), "Unknown DriverUnavailable"),
    ] {
        let plan = decide(&held, &observed, at(0));
        assert_eq!(ready(&plan), expected);
        let said = status(&plan);
        assert_eq!(
            (said.holder.as_ref(), said.lease_id.as_deref(), said.fencing_token),
            (Some(&holder), Some("l1"), 3)
        );
    }
}

#[test]
fn cards_of_other_nodes_are_not_spoken_of() {
    let mut gpu = gpu(by_index(0));
    gpu.spec.node_name = Some("there".to_owned());
    assert_eq!(decide(&gpu, &showing(vec![card(0)]), at(0)), GpuPlan::leave());
    gpu.spec.node_name = Some("here".to_owned());
    assert_eq!(ready(&decide(&gpu, &showing(vec![card(0)]), at(0))), "True Free");
}

#[test]
fn transitions_are_told() {
    let told = |gpu: &Gpu, observed: &Observed| {
        let plan = decide(gpu, observed, at(9));
        plan.events.into_iter().map(|note| (note.type_, note.reason)).collect::<Vec<_>>()
    };
    let declared = gpu(by_index(0));
    let here = showing(vec![card(0)]);
    let lost = after(&after(&declared, &here, 0), &no_answer(), 5);
    assert_eq!(told(&declared, &here), [(EventType::Normal, "Free")]);
    assert_eq!(told(&after(&declared, &here, 0), &no_answer()), [(EventType::Warning, "DriverUnavailable")]);
    assert_eq!(told(&lost, &showing(vec![])), [(EventType::Warning, "DeviceLost")]);
    assert_eq!(told(&declared, &showing(vec![])), [(EventType::Warning, "DeviceNotFound")], "never seen");
    assert_eq!(told(&lost, &here), [(EventType::Normal, "Free")]);
}
