//! Does the new holder fit onto the card once the old one has let go? Pure, and asked before anything stops.

use kube::ResourceExt;

use super::observe::Party;
use crate::{
    api::{
        gpu::{Gpu, Holder},
        handoff::Handoff,
        quantity,
    },
    controllers::gpu::{
        fit::{self, Fit},
        leases::SHARED,
    },
};

/// It needs what its claim may use of a shared card, else what its workload declares; who declares nothing fits.
pub fn judge(handoff: &Handoff, gpu: &Gpu, to: Option<&Party>) -> Fit {
    if handoff.spec.to.is_none() {
        return Fit::Fits;
    }
    let declared = || to.and_then(|party| party.workload.spec.gpu.as_ref()?.memory.as_deref()).and_then(quantity::mib);
    let need = handoff.annotations().get(SHARED).and_then(|mib| mib.parse().ok()).or_else(declared);
    let sides = [&handoff.spec.from, &handoff.spec.to];
    let goes = |holder: &Holder| sides.iter().any(|side| side.as_ref() == Some(holder));
    fit::judge(&gpu.name_any(), gpu, need, goes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{super::flight::party, *};
    use crate::api::workload::Workload;

    /// `default/prime` gives a card of 16000 MiB, on which Xorg has 3000, to `default/study`, or to nobody.
    fn told(declared: Option<&str>, shared: Option<&str>, to: Value) -> Fit {
        let lease = json!({"holder": {"name": "prime"}, "leaseId": "l", "fencingToken": 1});
        let prime = json!({"pid": 1, "usedMib": 12_000, "workload": "default/prime", "variant": "Live"});
        let gpu = json!({
            "metadata": {"name": "gpu0"}, "spec": {"device": {"index": 0}},
            "status": {"memory": {"totalMib": 16_000, "usedMib": 15_000, "freeMib": 1_000}, "leases": [lease],
                "processes": [prime, {"pid": 2, "usedMib": 3_000, "name": "Xorg"}]},
        });
        let annotations = shared.map(|mib| json!({SHARED: mib})).unwrap_or(json!({}));
        let handoff = json!({
            "metadata": {"name": "h", "annotations": annotations},
            "spec": {"gpu": "gpu0", "from": {"name": "prime"}, "to": to},
        });
        let mut study = party("study", Vec::new());
        let mut workload = Workload::clone(&study.workload);
        workload.spec.gpu.as_mut().expect("it is on cards").memory = declared.map(str::to_owned);
        study.workload = Arc::new(workload);
        let handoff: Handoff = serde_json::from_value(handoff).expect("a Handoff");
        let gpu: Gpu = serde_json::from_value(gpu).expect("a Gpu");
        judge(&handoff, &gpu, handoff.spec.to.as_ref().map(|_| &study))
    }

    #[rstest]
    #[case::who_declares_nothing(None, None, json!({"name": "study"}), None)]
    #[case::beside_a_stranger(Some("13000Mi"), None, json!({"name": "study"}), None)]
    #[case::too_much_beside_a_stranger(Some("13001Mi"), None, json!({"name": "study"}), Some("Xorg (pid 2) 3000 MiB"))]
    #[case::only_what_its_claim_says(Some("15000Mi"), Some("4000"), json!({"name": "study"}), None)]
    #[case::too_much_by_its_claim(None, Some("14000"), json!({"name": "study"}), Some("14000 MiB do not fit on gpu0"))]
    #[case::nobody(Some("15000Mi"), None, Value::Null, None)]
    fn the_new_holder_fits_or_not(
        #[case] declared: Option<&str>,
        #[case] shared: Option<&str>,
        #[case] to: Value,
        #[case] why: Option<&str>,
    ) {
        match (told(declared, shared, to), why) {
            (Fit::Fits, None) => {}
            (Fit::DoesNotFit(told), Some(why)) => assert!(told.contains(why), "{told}"),
            (other, why) => panic!("{other:?}, expected {why:?}"),
        }
    }
}
