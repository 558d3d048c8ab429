//! Tables over `decide`: a claim, the cards, the time, and what becomes of it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::{Observed, decide};
use crate::{
    api::{
        gpu::{Gpu, GpuMemory, GpuProcess, GpuSpec, GpuStatus, Holder, HolderKind, Lease, QueueEntry},
        gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimSpec, GpuClaimStatus},
    },
    runtime::reconciler::Requeue,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
}

fn audio() -> Holder {
    Holder { name: "audio".into(), kind: HolderKind::External, namespace: "default".into(), ..Holder::default() }
}

fn claim(change: impl FnOnce(&mut GpuClaimSpec)) -> GpuClaim {
    let mut spec = GpuClaimSpec { gpu: Some("gpu0".into()), count: 1, holder: audio(), ..GpuClaimSpec::default() };
    change(&mut spec);
    let mut claim = GpuClaim::new("c", spec);
    claim.metadata.namespace = Some("default".into());
    claim.metadata.creation_timestamp = Some(Time(at(0)));
    claim
}

fn card(held: bool) -> Observed {
    let mut gpu = Gpu::new("gpu0", GpuSpec { lend: true, ..GpuSpec::default() });
    let mut status = GpuStatus::default();
    let lease = Lease { holder: audio(), lease_id: "L".into(), claim: Some("default/c".into()), ..Lease::default() };
    status.set_leases(if held { vec![lease] } else { Vec::new() });
    gpu.status = Some(status);
    Observed { gpus: vec![Arc::new(gpu)], claims: Vec::new() }
}

fn after(mut claim: GpuClaim, held: bool, second: i64) -> GpuClaim {
    let plan = decide(&claim, &card(held), at(second));
    claim.status = plan.status.or(claim.status);
    claim
}

fn phase(claim: &GpuClaim) -> GpuClaimPhase {
    claim.status.as_ref().map(|s: &GpuClaimStatus| s.phase).unwrap_or_default()
}

#[test]
fn a_lease_on_the_card_is_the_grant() {
    let granted = after(claim(|_| ()), true, 1);
    assert_eq!(phase(&granted), GpuClaimPhase::Granted);
    assert_eq!(granted.status.as_ref().and_then(|s| s.lease_id.as_deref()), Some("L"));
    assert_eq!(phase(&after(claim(|_| ()), false, 1)), GpuClaimPhase::Pending);
}

#[test]
fn losing_the_lease_is_the_end() {
    let granted = after(claim(|_| ()), true, 1);
    assert_eq!(phase(&after(granted, false, 2)), GpuClaimPhase::Released);
}

#[test]
fn a_waiter_times_out_and_a_holder_does_not() {
    let waits = |spec: &mut GpuClaimSpec| spec.timeout_seconds = Some(10);
    assert_eq!(phase(&after(claim(waits), false, 9)), GpuClaimPhase::Pending);
    assert_eq!(phase(&after(claim(waits), false, 10)), GpuClaimPhase::TimedOut);
    assert_eq!(phase(&after(claim(waits), true, 10)), GpuClaimPhase::Granted);
}

#[test]
fn a_lease_lapses_without_a_sign_of_life() {
    let granted = after(claim(|spec| spec.ttl_seconds = Some(30)), true, 5);
    assert_eq!(phase(&after(granted.clone(), true, 34)), GpuClaimPhase::Granted);
    assert_eq!(phase(&after(granted.clone(), true, 35)), GpuClaimPhase::Expired);
    let mut renewed = granted;
    renewed.spec.renewed_at = Some(Time(at(30)));
    assert_eq!(phase(&after(renewed, true, 59)), GpuClaimPhase::Granted);
}

#[test]
fn a_hold_has_an_end_renewed_or_not() {
    let mut granted = after(claim(|spec| spec.max_hold_seconds = Some(60)), true, 5);
    granted.spec.renewed_at = Some(Time(at(64)));
    assert_eq!(phase(&after(granted.clone(), true, 64)), GpuClaimPhase::Granted);
    assert_eq!(phase(&after(granted, true, 65)), GpuClaimPhase::Expired);
}

#[test]
fn what_is_over_stays_over_and_goes_after_an_hour() {
    let released = after(claim(|spec| spec.release = true), true, 1);
    assert_eq!(phase(&released), GpuClaimPhase::Released);
    let plan = decide(&released, &card(true), at(2));
    assert!(plan.status.is_none() && !plan.acts() && plan.requeue != Requeue::OnChange);
    assert!(decide(&released, &card(false), at(3601)).acts());
}

#[test]
fn a_waiter_is_told_who_is_in_its_way() {
    let mut seen = card(false);
    let gpu = Arc::make_mut(&mut seen.gpus[0]).status.as_mut().expect("told");
    gpu.memory = Some(GpuMemory { total_mib: 16_000, used_mib: 12_000, free_mib: 4_000 });
    gpu.processes =
        vec![GpuProcess { pid: 7, name: Some("ollama".into()), used_mib: Some(12_000), ..Default::default() }];
    let told = |memory: &str| {
        let claim = claim(|spec| spec.memory = Some(memory.to_owned()));
        let condition = decide(&claim, &seen, at(1)).status.expect("told").conditions.remove(0);
        (condition.reason, condition.message)
    };
    assert_eq!(told("3Gi").0, "Queued");
    let (reason, message) = told("4Gi");
    assert_eq!(reason, "InsufficientMemory");
    assert!(message.contains("ollama (pid 7) 12000 MiB"), "{message}");
}

#[test]
fn a_waiter_is_told_when_those_before_it_must_be_done() {
    let named = |name: &str, change: fn(&mut GpuClaimSpec)| {
        let mut claim = claim(change);
        claim.metadata.name = Some(name.into());
        claim
    };
    let mut holding = named("holding", |spec| spec.max_hold_seconds = Some(100));
    holding.status = Some(GpuClaimStatus { expires_at: Some(Time(at(100))), ..GpuClaimStatus::default() });
    // Who is before `c`, and when `c` may expect the card.
    type Change = fn(&mut GpuClaimSpec);
    let brief: Change = |spec| spec.max_hold_seconds = Some(20);
    let endless: Change = |_| ();
    let cases: [(Vec<Change>, Option<i64>); 4] =
        [(vec![], Some(100)), (vec![brief], Some(120)), (vec![brief, brief], Some(140)), (vec![brief, endless], None)];
    for (before, expected) in cases {
        let mut seen = card(true);
        let waiters = before.iter().enumerate().map(|(at, change)| Arc::new(named(&format!("w{at}"), *change)));
        seen.claims = waiters.chain([Arc::new(holding.clone())]).collect();
        let gpu = Arc::make_mut(&mut seen.gpus[0]).status.as_mut().expect("told");
        gpu.leases[0].claim = Some("default/holding".into());
        let names = (0..before.len()).map(|at| format!("default/w{at}")).chain(["default/c".to_owned()]);
        gpu.queue = names.map(|claim| QueueEntry { claim, ..QueueEntry::default() }).collect();
        let status = decide(&claim(|_| ()), &seen, at(1)).status.expect("told");
        assert_eq!(status.position, Some(u32::try_from(before.len()).expect("few") + 1));
        assert_eq!(status.expected_at, expected.map(|second| Time(at(second))), "{} before it", before.len());
    }
}
