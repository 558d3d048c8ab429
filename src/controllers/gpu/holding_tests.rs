//! Tables over [`assign`]: cards, who wants them, and who is to have them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::holding::{World, assign};
use crate::api::{
    gpu::{Gpu, GpuMemory, GpuProcess, GpuSpec, GpuStatus, Holder, HolderKind, Lease},
    gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimSpec, GpuClaimStatus, Preemption},
    workload::Variant,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
}

fn external(name: &str) -> Holder {
    Holder { name: name.into(), kind: HolderKind::External, namespace: "default".into(), ..Holder::default() }
}

fn card(name: &str, owner: Option<&str>, held_by: Option<&str>) -> Arc<Gpu> {
    let mut gpu = Gpu::new(name, GpuSpec { lend: true, owner: owner.map(external), ..GpuSpec::default() });
    let memory = Some(GpuMemory { total_mib: 16_000, used_mib: 500, free_mib: 15_500 });
    let mut status = GpuStatus { memory, ..GpuStatus::default() };
    let lease =
        |claim: &str| Lease { holder: external(claim), claim: Some(format!("default/{claim}")), ..Lease::default() };
    status.set_leases(held_by.map(lease).into_iter().collect());
    gpu.status = Some(status);
    Arc::new(gpu)
}

/// Named after its holder, made at `second`.
fn claim(name: &str, second: i64, change: impl FnOnce(&mut GpuClaimSpec)) -> Arc<GpuClaim> {
    let mut spec = GpuClaimSpec { count: 1, memory: Some("1Gi".into()), holder: external(name), ..Default::default() };
    change(&mut spec);
    let mut claim = GpuClaim::new(name, spec);
    claim.metadata.namespace = Some("default".into());
    claim.metadata.creation_timestamp = Some(Time(at(second)));
    Arc::new(claim)
}

/// `gpu: holder holder` for every card, and who waits.
fn answer(gpus: Vec<Arc<Gpu>>, claims: Vec<Arc<GpuClaim>>) -> (Vec<String>, Vec<String>) {
    let assignment = assign(&World { gpus, claims, workloads: Vec::new() }, at(1000));
    let told = assignment.wanted.iter().map(|(gpu, wanted)| {
        let names: Vec<&str> = wanted.iter().map(|w| w.holder.name.as_str()).collect();
        format!("{gpu}: {}", names.join(" "))
    });
    let mut waiting: Vec<String> = assignment.waiting.values().flatten().cloned().collect();
    waiting.dedup();
    (told.collect(), waiting)
}

#[test]
fn who_has_just_been_handed_the_card_keeps_it_by_the_claim_that_came_after() {
    let handed = |owner: &str| {
        let mut gpu = (*card("a", Some(owner), Some("study"))).clone();
        let mut status = gpu.status.take().unwrap();
        let bare = status.leases.iter().map(|lease| Lease { claim: None, ..lease.clone() }).collect();
        status.set_leases(bare);
        gpu.status = Some(status);
        vec![Arc::new(gpu)]
    };
    let claims = || vec![claim("waits", 1, |_| ()), claim("study", 2, |_| ())];
    assert_eq!(answer(handed("prime"), claims()), (vec!["a: study".to_owned()], vec!["default/waits".to_owned()]));
    // An owner that asks for its own card by a claim goes to the end of the queue.
    assert_eq!(answer(handed("study"), claims()), (vec!["a: waits".to_owned()], vec!["default/study".to_owned()]));
}

#[test]
fn priority_goes_first_then_age_and_the_owner_lends() {
    let claims = || vec![claim("late", 2, |_| ()), claim("early", 1, |_| ())];
    let (told, waiting) = answer(vec![card("a", Some("owner"), None)], claims());
    assert_eq!((told, waiting), (vec!["a: early".to_owned()], vec!["default/late".to_owned()]));
    let urgent = [claims(), vec![claim("urgent", 3, |spec| spec.priority = 5)]].concat();
    assert_eq!(answer(vec![card("a", Some("owner"), None)], urgent).0, ["a: urgent"]);
    assert_eq!(answer(vec![card("a", Some("owner"), None)], Vec::new()).0, ["a: owner"]);
}

#[test]
fn who_holds_keeps_unless_preempted() {
    let held = || vec![card("a", None, Some("held"))];
    let urgent = |spec: &mut GpuClaimSpec| spec.priority = 5;
    assert_eq!(answer(held(), vec![claim("held", 1, |_| ()), claim("urgent", 2, urgent)]).0, ["a: held"]);
    let taker = |spec: &mut GpuClaimSpec| {
        spec.priority = 5;
        spec.preemption = Preemption::LowerPriority;
    };
    assert_eq!(answer(held(), vec![claim("held", 1, |_| ()), claim("urgent", 2, taker)]).0, ["a: urgent"]);
    let safe = |spec: &mut GpuClaimSpec| spec.min_hold_seconds = Some(60);
    assert_eq!(answer(held(), vec![claim("held", 1, safe), claim("urgent", 2, taker)]).0, ["a: held"]);
}

#[test]
fn the_end_of_a_hold_is_known_while_somebody_waits_for_it() {
    let held = |claim: Arc<GpuClaim>| {
        let mut claim = Arc::unwrap_or_clone(claim);
        let (phase, granted_at) = (GpuClaimPhase::Granted, Some(Time(at(970))));
        claim.status = Some(GpuClaimStatus { phase, granted_at, ..GpuClaimStatus::default() });
        Arc::new(claim)
    };
    let safe = |seconds: u32| held(claim("held", 1, |spec| spec.min_hold_seconds = Some(seconds)));
    let waits = |preemption: Preemption, priority: i32| {
        claim("waits", 2, |spec| (spec.preemption, spec.priority) = (preemption, priority))
    };
    let ends = |claims: Vec<Arc<GpuClaim>>| {
        let gpus = vec![card("a", None, Some("held"))];
        assign(&World { gpus, claims, workloads: Vec::new() }, at(1000)).hold_ends_at
    };
    assert_eq!(ends(vec![safe(60), waits(Preemption::LowerPriority, 5)]), Some(at(1030)));
    assert_eq!(ends(vec![safe(30), waits(Preemption::LowerPriority, 5)]), None, "it is taken now");
    assert_eq!(ends(vec![safe(60), waits(Preemption::LowerPriority, 0)]), None, "no end lets an equal take it");
    assert_eq!(ends(vec![safe(60), waits(Preemption::Never, 5)]), None, "nor who takes from nobody");
    assert_eq!(ends(vec![safe(60)]), None, "nobody waits");
}

/// `chat` uses 12000 of 16000 MiB and holds no lease: it stays, whoever holds the card.
#[test]
fn who_is_on_the_card_without_a_lease_stays_on_it() {
    let crowded = |held_by: Option<&str>| {
        let mut gpu = (*card("a", Some("owner"), held_by)).clone();
        gpu.status.as_mut().expect("told").processes = vec![GpuProcess {
            pid: 7,
            used_mib: Some(12_000),
            workload: Some("default/chat".into()),
            variant: Some(Variant::Live),
            ..GpuProcess::default()
        }];
        vec![Arc::new(gpu)]
    };
    let asks = |memory: &str, shared: bool| {
        vec![claim("asks", 1, |spec| {
            (spec.memory, spec.shared, spec.priority) = (Some(memory.into()), shared, 5);
            spec.preemption = Preemption::LowerPriority;
        })]
    };
    for shared in [false, true] {
        assert_eq!(answer(crowded(None), asks("3Gi", shared)).0, ["a: asks"]);
        let (told, waiting) = answer(crowded(None), asks("4Gi", shared));
        assert_eq!((told, waiting), (vec!["a: owner".to_owned()], vec!["default/asks".to_owned()]));
    }
    let taken = [asks("4Gi", false), vec![claim("holds", 0, |_| ())]].concat();
    assert_eq!(answer(crowded(Some("holds")), taken).0, ["a: holds"], "in vain nobody is preempted");
}

/// After a handoff by hand the new holder's claim is the youngest there is, and the owner's may be younger than any.
#[test]
fn who_has_it_without_a_claim_keeps_it_by_one() {
    let mut gpu = (*card("a", Some("owner"), Some("guest"))).clone();
    gpu.status.as_mut().expect("told").leases[0].claim = None;
    let gpus = || vec![Arc::new(gpu.clone())];
    let (told, waiting) = answer(gpus(), vec![claim("early", 1, |_| ()), claim("guest", 2, |_| ())]);
    assert_eq!((told, waiting), (vec!["a: guest".to_owned()], vec!["default/early".to_owned()]));
    assert_eq!(answer(gpus(), vec![claim("early", 1, |_| ())]).0, ["a: early"], "without one it goes to who asks");
    let again = claim("again", 3, |spec| spec.holder = external("guest"));
    let (told, waiting) = answer(gpus(), vec![claim("guest", 2, |_| ()), again]);
    assert_eq!((told, waiting), (vec!["a: guest".to_owned()], vec!["default/again".to_owned()]), "once");
}

#[test]
fn several_cards_or_none_and_they_are_kept_for_the_first_in_line() {
    let both = |spec: &mut GpuClaimSpec| spec.count = 2;
    let free = vec![card("a", None, None), card("b", None, None)];
    assert_eq!(answer(free, vec![claim("two", 1, both)]).0, ["a: two", "b: two"]);
    let half = vec![card("a", None, None), card("b", None, Some("held"))];
    let claims = vec![claim("held", 0, |_| ()), claim("two", 1, both), claim("later", 2, |_| ())];
    assert_eq!(answer(half, claims).0, ["b: held"], "a is kept for the first in line");
}

#[test]
fn sharers_have_a_card_together_as_far_as_memory_goes() {
    let shares = |memory: &'static str| {
        move |spec: &mut GpuClaimSpec| {
            spec.shared = true;
            spec.memory = Some(memory.into());
        }
    };
    let claims = vec![claim("x", 1, shares("8Gi")), claim("y", 2, shares("6Gi")), claim("z", 3, shares("6Gi"))];
    let (told, waiting) = answer(vec![card("a", None, None)], claims);
    assert_eq!((told, waiting), (vec!["a: x y".to_owned()], vec!["default/z".to_owned()]));
}

#[test]
fn what_is_not_lent_is_waited_for() {
    let mut gpu = (*card("a", Some("owner"), None)).clone();
    gpu.spec.lend = false;
    assert_eq!(answer(vec![Arc::new(gpu)], vec![claim("c", 1, |_| ())]).0, ["a: owner"]);
}
