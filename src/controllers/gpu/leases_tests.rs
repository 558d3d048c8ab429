//! Tables over [`decide`]: a card with its leases, who wants it, the handoffs there are, and what becomes of the leases.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::{
    holding::World,
    leases::{Action, CLAIM, HISTORY, LeasePlan, SHARED, decide, full_name, is_waited_for},
};
use crate::api::{
    container::{ContainerSpec, Gpus},
    gpu::{Gpu, GpuMemory, GpuSpec, GpuStatus, Holder, HolderKind, Lease},
    gpuclaim::{GpuClaim, GpuClaimSpec},
    handoff::{Handoff, HandoffPhase, HandoffSpec, HandoffStatus, Rollback, StepOutcome},
    label,
    workload::{LiveSpec, Workload, WorkloadGpu},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
}

/// `~name` is an outsider, anybody else a workload.
fn holder(name: &str) -> Holder {
    let (name, kind) = match name.strip_prefix('~') {
        Some(name) => (name, HolderKind::External),
        None => (name, HolderKind::Workload),
    };
    Holder { name: name.into(), kind, namespace: "default".into(), ..Holder::default() }
}

fn lease(name: &str, claim: Option<&str>, shared_mib: Option<u64>) -> Lease {
    let claim = claim.map(|claim| format!("default/{claim}"));
    Lease { holder: holder(name), lease_id: "before".into(), fencing_token: 7, claim, shared_mib, ..Lease::default() }
}

struct Table {
    gpu: Gpu,
    world: World,
    handoffs: Vec<Arc<Handoff>>,
    second: i64,
}

impl Table {
    fn new(owner: Option<&str>, leases: Vec<Lease>) -> Self {
        let mut gpu = Gpu::new("gpu0", GpuSpec { lend: true, owner: owner.map(holder), ..GpuSpec::default() });
        gpu.metadata.uid = Some("uid".into());
        let memory = Some(GpuMemory { total_mib: 16_000, used_mib: 0, free_mib: 16_000 });
        let mut status = GpuStatus { memory, fencing_token: 7, ..GpuStatus::default() };
        status.set_leases(leases);
        gpu.status = Some(status);
        Self { gpu, world: World::default(), handoffs: Vec::new(), second: 100 }
    }

    fn claim(mut self, name: &str, by: &str, change: impl FnOnce(&mut GpuClaimSpec)) -> Self {
        let mut spec = GpuClaimSpec { count: 1, holder: holder(by), reason: "work".into(), ..GpuClaimSpec::default() };
        change(&mut spec);
        let mut claim = GpuClaim::new(name, spec);
        claim.metadata.namespace = Some("default".into());
        claim.metadata.creation_timestamp = Some(Time(at(self.second)));
        self.second += 1;
        self.world.claims.push(Arc::new(claim));
        self
    }

    fn shared(self, name: &str, by: &str, memory: &str) -> Self {
        self.claim(name, by, |spec| {
            spec.shared = true;
            spec.memory = Some(memory.to_owned());
        })
    }

    fn handoff(&mut self, name: &str, from: Option<&str>, to: Option<&str>, status: HandoffStatus) -> &mut Handoff {
        let (from, to) = (from.map(holder), to.map(holder));
        let mut handoff = Handoff::new(name, HandoffSpec { gpu: "gpu0".into(), from, to, ..HandoffSpec::default() });
        handoff.metadata.namespace = Some("default".into());
        handoff.metadata.creation_timestamp = Some(Time(at(self.second)));
        handoff.status = Some(status);
        self.second += 1;
        self.handoffs.push(Arc::new(handoff));
        Arc::make_mut(self.handoffs.last_mut().expect("just pushed"))
    }

    fn run(&mut self, name: &str) {
        self.gpu.status.as_mut().expect("told").handoff = Some(format!("default/{name}"));
    }

    fn pass(&mut self) -> LeasePlan {
        self.world.gpus = vec![Arc::new(self.gpu.clone())];
        let mut status = self.status().clone();
        let plan = decide(&self.gpu, &mut status, &self.world, &self.handoffs, at(self.second));
        self.gpu.status = Some(status);
        plan
    }

    fn status(&self) -> &GpuStatus {
        self.gpu.status.as_ref().expect("told")
    }

    /// `prime 7, ~audio 8`: holders with their tokens.
    fn leases(&self) -> String {
        let told: Vec<_> =
            self.status().leases.iter().map(|l| format!("{} {}", short(&l.holder), l.fencing_token)).collect();
        told.join(", ")
    }
}

fn short(holder: &Holder) -> String {
    match holder.kind {
        HolderKind::Workload => holder.name.clone(),
        HolderKind::External => format!("~{}", holder.name),
    }
}

/// `gpu0-8: prime -> study (claim)`
fn made(plan: &LeasePlan) -> Vec<String> {
    let told = |handoff: &Handoff| {
        let side = |side: &Option<Holder>| side.as_ref().map_or("nobody".to_owned(), short);
        let cause = handoff.metadata.labels.as_ref().and_then(|labels| labels.get(label::CAUSE)).cloned();
        let (from, to) = (side(&handoff.spec.from), side(&handoff.spec.to));
        let name = handoff.metadata.name.as_deref().unwrap_or_default();
        format!("{name}: {from} -> {to} ({})", cause.unwrap_or_default())
    };
    let made = plan.actions.iter().filter_map(|action| match action {
        Action::Create(handoff) => Some(told(handoff)),
        Action::Prune(_) => None,
    });
    made.collect()
}

fn told(phase: HandoffPhase) -> HandoffStatus {
    HandoffStatus { phase, base_token: Some(7), ..HandoffStatus::default() }
}

#[test]
fn a_lease_moves_at_once_where_no_workload_is_concerned() {
    let mut free = Table::new(None, vec![]).claim("c", "~audio", |_| ());
    assert_eq!(made(&free.pass()), Vec::<String>::new());
    assert_eq!(free.leases(), "~audio 8");
    assert_eq!(free.status().queue, [], "who has it does not wait for it");
    let first = free.status().leases[0].clone();
    assert_eq!((first.claim.as_deref(), first.reason.as_str()), (Some("default/c"), "work"));
    free.pass();
    assert_eq!(free.status().leases, [first], "granted once");

    let mut over = Table::new(None, vec![lease("~audio", Some("gone"), None)]);
    over.pass();
    assert_eq!(
        (over.leases(), over.status().fencing_token),
        (String::new(), 7),
        "a grant raises the token, not an end"
    );
}

#[test]
fn a_grant_has_the_same_id_after_a_crash() {
    let grant = || {
        let mut free = Table::new(None, vec![]).claim("c", "~audio", |_| ());
        free.pass();
        free.status().lease_id.clone()
    };
    assert!(grant().is_some() && grant() == grant());
}

#[test]
fn a_workload_that_is_concerned_makes_it_a_handoff() {
    let audio = lease("~audio", Some("gone"), None);
    let prime = || lease("prime", None, None);
    let study = |table: Table| table.claim("s", "study", |_| ());
    let cases = [
        (study(Table::new(Some("prime"), vec![prime()])), "gpu0-8: prime -> study (claim)"),
        (study(Table::new(None, vec![])), "gpu0-8: nobody -> study (claim)"),
        (study(Table::new(None, vec![audio.clone()])), "gpu0-8: ~audio -> study (claim)"),
        (Table::new(Some("prime"), vec![audio]), "gpu0-8: ~audio -> prime (owner)"),
        (Table::new(Some("prime"), vec![]), "gpu0-8: nobody -> prime (owner)"),
        (Table::new(None, vec![prime()]), "gpu0-8: prime -> nobody (nobody)"),
    ];
    for (mut table, expected) in cases {
        let before = table.leases();
        let plan = table.pass();
        assert_eq!(made(&plan), [expected]);
        assert_eq!(table.leases(), before, "{expected}: nothing moves before the handoff says so");
    }
}

#[test]
fn a_workload_that_is_to_run_gets_a_free_card() {
    let mut table = Table::new(None, vec![]);
    let mut workload = Workload::new("llm", Default::default());
    workload.metadata.namespace = Some("default".into());
    let container =
        ContainerSpec { gpus: Some(Gpus { count: Some(-1), ..Gpus::default() }), ..ContainerSpec::default() };
    workload.spec.live = Some(LiveSpec { running: true, container });
    workload.spec.gpu = Some(WorkloadGpu { members: vec!["gpu0".into()], ..WorkloadGpu::default() });
    table.world.workloads.push(Arc::new(workload));
    assert_eq!(made(&table.pass()), ["gpu0-8: nobody -> llm (workload)"]);
}

#[test]
fn a_handoff_carries_its_claim() {
    let plan = Table::new(None, vec![]).shared("s", "study", "4Gi").pass();
    let Some(Action::Create(handoff)) = plan.actions.first() else { panic!("one is made: {plan:?}") };
    let annotations = handoff.metadata.annotations.clone().unwrap_or_default();
    let expected = [(CLAIM, "default/s"), (SHARED, "4096")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(annotations, BTreeMap::from(expected));
}

#[test]
fn a_handoff_under_way_is_the_only_one_that_moves_the_lease() {
    let back = |return_lease| Some(Rollback { return_lease, ..Rollback::default() });
    let rolls = |return_lease| HandoffStatus { rollback: back(return_lease), ..told(HandoffPhase::SignalingRecipient) };
    use HandoffPhase::{Initiated, ReleasingGpu, SignalingRecipient, TransferringOwnership, WaitingCudaCleanup};
    let late = || HandoffStatus { rollback: back(false), ..told(TransferringOwnership) };
    // Who holds, what the handoff prime -> study says, who holds then.
    let cases = [
        ("prime", told(Initiated), "prime 7"),
        ("prime", told(ReleasingGpu), "prime 7"),
        ("prime", told(WaitingCudaCleanup), "prime 7"),
        ("prime", told(TransferringOwnership), "study 8"),
        ("prime", late(), "prime 7"),
        ("study", told(SignalingRecipient), "study 8"),
        ("study", rolls(false), "study 8"),
        ("study", rolls(true), "prime 9"),
    ];
    for (holds, status, expected) in cases {
        let what = format!("{holds} {status:?}");
        let mut table = Table::new(Some("prime"), vec![lease("prime", None, None)]).claim("x", "~urgent", |spec| {
            spec.priority = 1000;
        });
        if holds == "study" {
            let status = table.gpu.status.as_mut().expect("told");
            status.fencing_token = 8;
            status.set_leases(vec![Lease { fencing_token: 8, ..lease("study", None, None) }]);
        }
        table.handoff("h", Some("prime"), Some("study"), status);
        table.run("h");
        for pass in 0..3 {
            assert_eq!(made(&table.pass()), Vec::<String>::new(), "{what}");
            assert_eq!(table.leases(), expected, "{what}, pass {pass}");
        }
    }
}

#[test]
fn a_handoff_without_a_reason_is_the_reason() {
    let mut table = Table::new(Some("prime"), vec![lease("prime", None, None)]);
    table.handoff("h", Some("prime"), Some("study"), told(HandoffPhase::TransferringOwnership));
    table.run("h");
    table.pass();
    assert_eq!(table.status().reason.as_deref(), Some("handoff default/h"));
}

#[test]
fn waiting_handoffs_are_let_in_eldest_first() {
    let mut table = Table::new(Some("prime"), vec![lease("prime", None, None)]);
    table.handoff("wrong", Some("study"), Some("prime"), told(HandoffPhase::Initiated));
    table.handoff("b", Some("prime"), Some("study"), told(HandoffPhase::Initiated));
    table.handoff("a", Some("prime"), Some("study"), told(HandoffPhase::Initiated));
    table.pass();
    assert_eq!(table.status().handoff.as_deref(), Some("default/b"));
    Arc::make_mut(&mut table.handoffs[1]).status = Some(told(HandoffPhase::Failed));
    table.pass();
    assert_eq!(table.status().handoff.as_deref(), Some("default/a"), "the one that has ended makes room");
    Arc::make_mut(&mut table.handoffs[2]).status = Some(told(HandoffPhase::Cancelled));
    table.pass();
    assert_eq!(table.status().handoff, None);
}

#[test]
fn failures_in_a_row_are_followed_by_longer_pauses() {
    let mut table = Table::new(Some("prime"), vec![lease("prime", None, None)]).claim("s", "study", |_| ());
    let mut waits = Vec::new();
    for attempt in 0..3 {
        let completed_at = Some(MicroTime(at(table.second)));
        let failed = HandoffStatus { completed_at, ..told(HandoffPhase::Failed) };
        let name = if attempt == 0 { "gpu0-8".to_owned() } else { format!("gpu0-8-{}", attempt + 1) };
        table.handoff(&name, Some("prime"), Some("study"), failed);
        let plan = table.pass();
        assert_eq!(made(&plan), Vec::<String>::new());
        let until = plan.wake_at.expect("it is tried again");
        waits.push(until.duration_since(at(table.second)));
        table.second = (until.as_second() - at(0).as_second()) + 1;
        assert_eq!(made(&table.pass()), [format!("gpu0-8-{}: prime -> study (claim)", attempt + 2)]);
    }
    assert!(waits.iter().all(|wait| *wait > SignedDuration::from_secs(1)), "{waits:?}");
    assert!(waits[2] > waits[0], "{waits:?}");
}

/// Study-to-prime failed, and study has the card again: it is still prime's.
#[test]
fn an_owner_whose_handoff_was_rolled_back_gets_another_try_after_a_pause() {
    for claimed in [Some("over"), None] {
        let mut table = Table::new(Some("prime"), vec![lease("study", claimed, None)]);
        let completed_at = Some(MicroTime(at(table.second)));
        let rollback = Some(Rollback { outcome: StepOutcome::Succeeded, ..Rollback::default() });
        let failed = HandoffStatus { completed_at, rollback, ..told(HandoffPhase::Failed) };
        table.handoff("study-to-prime", Some("study"), Some("prime"), failed);
        let plan = table.pass();
        assert_eq!(made(&plan), Vec::<String>::new(), "not at once");
        assert_eq!(table.leases(), "study 7");
        let until = plan.wake_at.expect("it is tried again");
        assert!(until > at(table.second) && until < at(table.second + 60), "{until}");
        table.second = until.as_second() - at(0).as_second() + 1;
        assert_eq!(made(&table.pass()), ["gpu0-8: study -> prime (owner)"]);
    }
}

#[test]
fn a_workload_joins_those_who_share() {
    let sharer = || lease("~x", Some("x"), Some(4096));
    let joined = |table: Table| table.shared("x", "~x", "4Gi").shared("y", "study", "4Gi");
    let mut table = joined(Table::new(None, vec![sharer()]));
    assert_eq!(made(&table.pass()), ["gpu0-8: nobody -> study (claim)"]);
    let join = |handoff: &mut Handoff, caused: bool| {
        handoff.metadata.annotations =
            Some([(CLAIM, "default/y"), (SHARED, "4096")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        if caused {
            handoff.metadata.labels = Some([(label::CAUSE.to_owned(), "claim".to_owned())].into());
        }
    };
    join(table.handoff("gpu0-8", None, Some("study"), told(HandoffPhase::Initiated)), true);
    table.pass();
    assert_eq!(table.status().handoff.as_deref(), Some("default/gpu0-8"));
    Arc::make_mut(&mut table.handoffs[0]).status = Some(told(HandoffPhase::TransferringOwnership));
    table.pass();
    assert_eq!(table.leases(), "~x 7, study 8");
    assert_eq!(table.status().leases[1].shared_mib, Some(4096));

    let mut person = joined(Table::new(None, vec![sharer()]));
    join(person.handoff("mine", None, Some("study"), told(HandoffPhase::Initiated)), false);
    person.pass();
    assert_eq!(person.status().handoff, None, "a person cannot put somebody on a held card");

    let mut exclusive = joined(Table::new(None, vec![lease("~x", Some("x"), None)]));
    join(exclusive.handoff("gpu0-8", None, Some("study"), told(HandoffPhase::Initiated)), true);
    exclusive.pass();
    assert_eq!(exclusive.status().handoff, None, "nor anybody who shares, beside one who does not");
}

#[test]
fn sharers_go_one_by_one_and_who_comes_comes_with_the_last() {
    let sharers = vec![lease("a", None, Some(4096)), lease("b", None, Some(4096))];
    let mut table = Table::new(None, sharers).claim("z", "study", |_| ());
    assert_eq!(made(&table.pass()), ["gpu0-8: a -> nobody (nobody)"]);
    let mut last = Table::new(None, vec![lease("b", None, Some(4096))]).claim("z", "study", |_| ());
    assert_eq!(made(&last.pass()), ["gpu0-8: b -> study (claim)"]);
}

#[test]
fn the_same_holder_keeps_its_lease_or_has_it_renewed() {
    let mut owned = Table::new(Some("prime"), vec![lease("prime", Some("over"), None)]);
    assert_eq!(made(&owned.pass()), Vec::<String>::new());
    assert_eq!((owned.leases().as_str(), owned.status().leases[0].claim.clone()), ("prime 7", None));

    let mut claimed = Table::new(Some("prime"), vec![lease("prime", None, None)]).claim("c", "prime", |_| ());
    claimed.pass();
    assert_eq!(
        (claimed.leases().as_str(), claimed.status().leases[0].claim.as_deref()),
        ("prime 7", Some("default/c"))
    );

    let mut next = Table::new(None, vec![lease("prime", Some("over"), None)]).claim("c", "prime", |_| ());
    assert_eq!(made(&next.pass()), Vec::<String>::new(), "it goes on without a handoff");
    assert_eq!(next.leases(), "prime 8", "another claim is another lease");
}

#[test]
fn a_sharer_gets_the_card_for_itself_when_the_others_are_gone() {
    let study = lease("study", Some("over"), Some(4096));
    let mut owner = Table::new(Some("study"), vec![study.clone(), lease("prime", Some("over"), Some(4096))]);
    assert_eq!(made(&owner.pass()), ["gpu0-8: prime -> nobody (nobody)"]);
    assert!(owner.status().leases.iter().all(|lease| lease.shared_mib.is_some()), "prime is still there");
    let mut alone = Table::new(Some("study"), vec![study]);
    alone.pass();
    assert_eq!((alone.leases().as_str(), alone.status().leases[0].shared_mib), ("study 7", None));
}

#[test]
fn nobody_gets_the_card_for_itself_from_one_of_several_who_share() {
    let sharers = vec![lease("a", None, Some(4096)), lease("b", None, Some(4096))];
    let mut table = Table::new(None, sharers);
    table.handoff("mine", Some("a"), Some("study"), told(HandoffPhase::Initiated));
    table.pass();
    assert_eq!(table.status().handoff, None);
    let leaves = table.handoff("theirs", Some("a"), None, told(HandoffPhase::Initiated)).clone();
    assert!(super::leases::fits(table.status(), &leaves), "one of them may leave");
}

#[test]
fn a_handoff_waits_for_the_card_until_it_has_what_it_asks_for() {
    let waited_for = |table: &Table| is_waited_for(&table.gpu, &table.handoffs);
    let mut table = Table::new(Some("prime"), vec![lease("prime", None, None)]);
    assert!(!waited_for(&table), "there is none");
    table.handoff("early", Some("study"), Some("prime"), told(HandoffPhase::Initiated));
    assert!(!waited_for(&table), "it is from somebody who has not got the card");
    table.handoff("h", Some("prime"), Some("study"), told(HandoffPhase::Initiated));
    assert!(waited_for(&table), "to be let in");
    table.pass();
    assert!(!waited_for(&table), "it gets on by itself");
    let tell = |table: &mut Table, status| Arc::make_mut(&mut table.handoffs[1]).status = Some(status);
    tell(&mut table, told(HandoffPhase::TransferringOwnership));
    assert!(waited_for(&table), "for the lease");
    table.pass();
    assert_eq!((table.leases().as_str(), waited_for(&table)), ("study 8", false));
    tell(&mut table, told(HandoffPhase::Completed));
    assert!(waited_for(&table), "the next one, to be let in");
    table.pass();
    assert_eq!(table.status().handoff.as_deref(), Some("default/early"));
}

#[test]
fn a_stale_handoff_of_another_card_changes_nothing() {
    let mut table = Table::new(Some("prime"), vec![lease("prime", None, None)]);
    table.handoff("h", Some("prime"), Some("study"), told(HandoffPhase::TransferringOwnership)).spec.gpu =
        "gpu1".into();
    table.run("h");
    table.pass();
    assert_eq!((table.leases().as_str(), table.status().handoff.clone()), ("prime 7", None));
}

#[test]
fn old_handoffs_are_pruned_and_running_ones_never() {
    let mut table = Table::new(None, vec![]);
    table.handoff("running", None, Some("~x"), told(HandoffPhase::Initiated));
    for number in 0..HISTORY + 2 {
        table.handoff(&format!("h{number}"), None, Some("~x"), told(HandoffPhase::Completed));
    }
    let pruned: Vec<_> = table
        .pass()
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Prune(name) => Some(name.name.clone()),
            Action::Create(_) => None,
        })
        .collect();
    assert_eq!(pruned, ["h0", "h1"]);
    assert_eq!(full_name(&table.handoffs[0]), "default/running");
}
