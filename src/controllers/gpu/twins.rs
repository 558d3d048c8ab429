//! Several objects that mean one card: which of them stands for it. Pure.
//!
//! A card that was discovered and is then declared under another name is two objects for a while, and so is one that two people
//! declare. Leases are kept on objects: if both were granted, two holders would share a card unknowingly. So one comes first, and
//! the other is granted to nobody. First is the one that is held or about to be, then the declared before the discovered, then the
//! elder.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;

use super::{
    decide::{is_elsewhere, meant},
    discovery::is_discovered,
    holding::leases,
};
use crate::{adapters::gpus::GpuDevice as Card, api::gpu::Gpu};

/// The objects that do not come first, each with the one that does. `cards` is None while the driver does not answer: then it
/// counts which card an object was last seen to mean.
pub fn find(gpus: &[Arc<Gpu>], cards: Option<&[Card]>, node: &str) -> BTreeMap<String, String> {
    let mut by_card: BTreeMap<String, Vec<&Arc<Gpu>>> = BTreeMap::new();
    for gpu in gpus.iter().filter(|gpu| !is_elsewhere(gpu, node)) {
        if let Some(uuid) = card_of(gpu, cards) {
            by_card.entry(uuid).or_default().push(gpu);
        }
    }
    let mut twins = BTreeMap::new();
    for mut same in by_card.into_values().filter(|same| same.len() > 1) {
        same.sort_by_key(|gpu| {
            (!is_held(gpu), is_discovered(gpu), gpu.creation_timestamp().map(|at| at.0), gpu.name_any())
        });
        let first = same[0].name_any();
        twins.extend(same[1..].iter().map(|other| (other.name_any(), first.clone())));
    }
    twins
}

fn card_of(gpu: &Gpu, cards: Option<&[Card]>) -> Option<String> {
    match cards {
        Some(cards) => meant(&gpu.spec.device, cards).map(|card| card.uuid.clone()),
        None => gpu.spec.device.uuid.clone().or_else(|| gpu.status.as_ref()?.uuid.clone()),
    }
}

fn is_held(gpu: &Gpu) -> bool {
    !leases(gpu).is_empty() || gpu.status.as_ref().is_some_and(|status| status.handoff.is_some())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn card(index: u32, uuid: &str) -> Card {
        Card {
            index,
            uuid: uuid.to_owned(),
            mig: None,
            name: "RTX".to_owned(),
            memory_total_mib: 24_000,
            memory_used_mib: None,
            utilization_percent: None,
            temperature_celsius: None,
            power_watts: None,
            last_xid: None,
            processes: None,
        }
    }

    fn gpu(name: &str, device: Value, day: u32, discovered: bool, status: Value) -> Arc<Gpu> {
        let labels = if discovered { json!({"gaia.dev/discovered": "true"}) } else { json!({}) };
        let created = format!("2026-11-{day:02}T00:00:00Z");
        let metadata = json!({"name": name, "labels": labels, "creationTimestamp": created});
        let gpu = json!({"metadata": metadata, "spec": {"device": device}, "status": status});
        serde_json::from_value(gpu).map(Arc::new).expect("a Gpu")
    }

    fn held() -> Value {
        json!({"leases": [{"holder": {"name": "llm"}, "leaseId": "l", "fencingToken": 1}], "uuid": "GPU-a"})
    }

    fn idle() -> Value {
        json!({"uuid": "GPU-a"})
    }

    /// `gpu0` was discovered on the first day, `main` declared on the second.
    #[rstest]
    #[case::declared_before_discovered(idle(), idle(), &[("gpu0", "main")])]
    #[case::held_before_all(held(), idle(), &[("main", "gpu0")])]
    #[case::about_to_be_held(json!({"handoff": "default/x", "uuid": "GPU-a"}), idle(), &[("main", "gpu0")])]
    #[case::both_held(held(), held(), &[("gpu0", "main")])]
    fn one_object_stands_for_a_card(#[case] found: Value, #[case] declared: Value, #[case] expected: &[(&str, &str)]) {
        let expected: BTreeMap<_, _> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let gpus = [
            gpu("gpu0", json!({"uuid": "GPU-a"}), 1, true, found),
            gpu("main", json!({"index": 0}), 2, false, declared),
            gpu("other", json!({"index": 1}), 1, false, json!({"uuid": "GPU-b"})),
        ];
        let cards = [card(0, "GPU-a"), card(1, "GPU-b")];
        assert_eq!(find(&gpus, Some(&cards), "here"), expected);
        assert_eq!(find(&gpus, None, "here"), expected, "the same while the driver does not answer");
    }

    #[test]
    fn of_two_declarations_the_elder_comes_first() {
        let gpus =
            [gpu("a", json!({"uuid": "GPU-a"}), 2, false, idle()), gpu("b", json!({"index": 0}), 1, false, idle())];
        assert_eq!(find(&gpus, Some(&[card(0, "GPU-a")]), "here"), [("a".to_owned(), "b".to_owned())].into());
    }

    #[test]
    fn cards_that_are_not_there_or_elsewhere_are_not_the_same() {
        let mut elsewhere = Gpu::clone(&gpu("b", json!({"index": 0}), 1, false, idle()));
        elsewhere.spec.node_name = Some("there".to_owned());
        let gpus = [
            gpu("a", json!({"index": 0}), 1, false, idle()),
            Arc::new(elsewhere),
            gpu("c", json!({"index": 7}), 1, false, json!({})),
            gpu("d", json!({"index": 8}), 1, false, json!({})),
        ];
        assert_eq!(find(&gpus, Some(&[card(0, "GPU-a")]), "here"), BTreeMap::new());
        assert_eq!(find(&gpus[2..], None, "here"), BTreeMap::new());
    }
}
