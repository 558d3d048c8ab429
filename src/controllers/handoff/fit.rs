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
