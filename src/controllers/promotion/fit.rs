//! Does the new variant fit onto the cards once the old one has let go of them? Pure, and asked before anything stops.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    api::{
        gpu::{Gpu, Holder},
        quantity,
        workload::{Variant, Workload},
    },
    controllers::gpu::{
        fit::{self, Fit},
        holding::holder_of,
    },
};

/// Whether the other variant gets every card the workload names: held by nobody but the workload itself, and with enough memory
/// beside whatever is not the workload's.
pub fn judge(workload: &Workload, gpus: &BTreeMap<String, Option<Arc<Gpu>>>) -> Fit {
    let need = workload.spec.gpu.as_ref().and_then(|g| g.memory.as_deref()).and_then(quantity::mib);
    let own = |holder: &Holder| Variant::ALL.iter().any(|variant| *holder == holder_of(workload, *variant));
    let mut unknown = None;
    for (name, gpu) in gpus {
        let Some(gpu) = gpu else { return Fit::DoesNotFit(format!("there is no Gpu {name}")) };
        match fit::judge(name, gpu, need, own) {
            Fit::Fits => {}
            Fit::Unknown(why) => unknown = Some(why),
            refused @ Fit::DoesNotFit(_) => return refused,
        }
    }
    unknown.map_or(Fit::Fits, Fit::Unknown)
}
