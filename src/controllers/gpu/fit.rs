//! Does something fit onto a card once those who are to leave it have left? Pure, and asked before anything stops.
//!
//! Only what somebody can be named for is held against it: leases, processes that the driver lists, the reserve. Memory that
//! nobody is named for may be the leaving holder's own, where the driver does not tell processes.

use std::collections::BTreeMap;

use crate::api::{
    gpu::{Gpu, GpuProcess, Holder, HolderKind},
    quantity,
    workload::Variant,
};

/// What the cards allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// Nobody can say yet.
    Unknown(String),
    /// Why, with the names of those in the way.
    DoesNotFit(String),
}

/// `goes`: who is not in the way, because it leaves the card or is the one that comes. `need_mib`: None: nobody said.
pub fn judge(name: &str, gpu: &Gpu, need_mib: Option<u64>, goes: impl Fn(&Holder) -> bool) -> Fit {
    let status = gpu.status.clone().unwrap_or_default();
    // One who does not share has the whole card.
    if let Some(lease) = status.leases.iter().find(|lease| !goes(&lease.holder) && lease.shared_mib.is_none()) {
        return Fit::DoesNotFit(format!("{name} is held by {}", lease.holder));
    }
    let Some(need) = need_mib else { return Fit::Fits };
    let Some(memory) = status.memory else { return Fit::Unknown(format!("waits for a reading of {name}")) };
    let mut others: BTreeMap<String, u64> = BTreeMap::new();
    let mut strangers: Vec<&GpuProcess> = Vec::new();
    for process in &status.processes {
        match holder_of(process) {
            None => strangers.push(process),
            Some(holder) if goes(&holder) => {}
            Some(holder) => *others.entry(in_words(&holder)).or_default() += process.used_mib.unwrap_or_default(),
        }
    }
    for lease in status.leases.iter().filter(|lease| !goes(&lease.holder)) {
        let held = others.entry(in_words(&lease.holder)).or_default();
        *held = lease.shared_mib.unwrap_or_default().max(*held);
    }
    // Strangers may use the reserve.
    let reserve = gpu.spec.reserve.as_deref().and_then(quantity::mib).unwrap_or_default();
    let foreign: u64 = strangers.iter().filter_map(|process| process.used_mib).sum();
    let taken: u64 = others.values().sum::<u64>() + foreign.max(reserve);
    let free = memory.total_mib.saturating_sub(taken);
    if need <= free {
        return Fit::Fits;
    }
    let mut who: Vec<String> = others.iter().map(|(name, mib)| format!("{name} {mib} MiB")).collect();
    who.extend(strangers.iter().map(|process| stranger(process)));
    who.push(format!("reserve {reserve} MiB"));
    Fit::DoesNotFit(format!(
        "{need} MiB do not fit on {name}: {free} of {} MiB would be free beside {}",
        memory.total_mib,
        who.join(", ")
    ))
}

/// The workload and variant whose it is. An orphan goes with nobody: stopping its holder does not end it.
fn holder_of(process: &GpuProcess) -> Option<Holder> {
    let (namespace, name) = process.workload.as_deref().filter(|_| !process.orphan)?.split_once('/')?;
    Some(Holder {
        name: name.to_owned(),
        kind: HolderKind::Workload,
        namespace: namespace.to_owned(),
        variant: process.variant.unwrap_or(Variant::Live),
    })
}

/// The variants of a workload are one neighbour.
fn in_words(holder: &Holder) -> String {
    match holder.kind {
        HolderKind::Workload => format!("{}/{}", holder.namespace, holder.name),
        HolderKind::External => holder.to_string(),
    }
}

fn stranger(process: &GpuProcess) -> String {
    let name = process.name.as_deref().or(process.container.as_deref()).unwrap_or("process");
    let orphan = if process.orphan { "orphan " } else { "" };
    let used = process.used_mib.map_or_else(|| "unknown".to_owned(), |mib| format!("{mib} MiB"));
    format!("{orphan}{name} (pid {}) {used}", process.pid)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// A card of 24000 MiB that `default/old` leaves for `default/new`.
    fn told(change: Value, need_mib: Option<u64>) -> Fit {
        let mut gpu = json!({
            "metadata": {"name": "gpu0"}, "spec": {"device": {"index": 0}},
            "status": {
                "memory": {"totalMib": 24_000, "usedMib": 20_500, "freeMib": 3_500},
                "leases": [{"holder": {"name": "old"}, "leaseId": "l", "fencingToken": 1}],
                "processes": [{"pid": 1, "usedMib": 20_000, "workload": "default/old", "variant": "Live"}],
            },
        });
        json_patch::merge(&mut gpu, &change);
        let gpu: Gpu = serde_json::from_value(gpu).expect("a Gpu");
        judge("gpu0", &gpu, need_mib, |holder| ["old", "new"].contains(&holder.name.as_str()))
    }

    fn beside(process: Value) -> Value {
        let old = json!({"pid": 1, "usedMib": 10_000, "workload": "default/old", "variant": "Live"});
        json!({"status": {"processes": [old, process]}})
    }

    #[rstest]
    #[case::as_large_as_the_card(json!({}), Some(24_000))]
    #[case::nobody_said_how_large(json!({}), None)]
    #[case::beside_a_small_neighbour(beside(json!({"pid": 2, "usedMib": 4_000, "workload": "default/web"})), Some(20_000))]
    #[case::a_stranger_within_the_reserve(json!({"spec": {"reserve": "2000Mi"},
        "status": {"processes": [{"pid": 2, "usedMib": 1_500, "name": "Xorg"}]}}), Some(22_000))]
    #[case::what_nobody_is_named_for(json!({"status": {"processes": []}}), Some(20_000))]
    #[case::it_is_there_already(beside(json!({"pid": 2, "usedMib": 9_000, "workload": "default/new"})), Some(20_000))]
    fn fits(#[case] card: Value, #[case] need_mib: Option<u64>) {
        assert_eq!(told(card, need_mib), Fit::Fits);
    }

    #[rstest]
    #[case::the_card_is_too_small(json!({}), 24_001, "24000 of 24000 MiB would be free beside reserve 0 MiB")]
    #[case::the_reserve(json!({"spec": {"reserve": "2000Mi"}}), 23_000, "22000 of 24000 MiB would be free beside reserve 2000")]
    #[case::a_neighbour(beside(json!({"pid": 2, "usedMib": 8_000, "workload": "default/web"})), 20_000, "default/web 8000 MiB")]
    #[case::a_stranger(beside(json!({"pid": 2, "usedMib": 8_000, "name": "Xorg"})), 20_000, "Xorg (pid 2) 8000 MiB")]
    #[case::an_orphan_of_the_one_that_leaves(beside(json!({"pid": 2, "usedMib": 8_000, "name": "python", "orphan": true,
        "workload": "default/old", "variant": "Live"})), 20_000, "orphan python (pid 2) 8000 MiB")]
    #[case::one_who_shares(json!({"status": {"leases": [{"holder": {"name": "audio", "kind": "External"}, "leaseId": "m",
        "fencingToken": 2, "sharedMib": 6_000}]}}), 20_000, "audio (external) 6000 MiB")]
    #[case::one_who_does_not_share(json!({"status": {"leases": [{"holder": {"name": "audio", "kind": "External"},
        "leaseId": "m", "fencingToken": 2}]}}), 1, "gpu0 is held by audio (external)")]
    fn does_not_fit_and_says_beside_whom(#[case] card: Value, #[case] need_mib: u64, #[case] why: &str) {
        match told(card, Some(need_mib)) {
            Fit::DoesNotFit(told) => assert!(told.contains(why), "{told}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_nobody_has_measured_is_not_known() {
        assert!(matches!(told(json!({"status": {"memory": null}}), Some(1)), Fit::Unknown(_)));
    }
}
