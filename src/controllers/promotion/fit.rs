//! Does the new variant fit onto the cards once the old one has let go of them? Pure, and asked before anything stops.

use std::collections::BTreeMap;

use crate::api::{
    gpu::{Gpu, Holder, HolderKind},
    quantity,
    workload::{Variant, Workload},
};

/// What the cards allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// Nobody can say yet.
    Unknown(String),
    DoesNotFit(String),
}

/// Whether `to` gets every card the workload names: held by nobody but the workload itself, and with enough memory
/// beside whatever is not the workload's.
pub fn judge(workload: &Workload, gpus: &BTreeMap<String, Option<std::sync::Arc<Gpu>>>) -> Fit {
    let mut unknown = None;
    for (name, gpu) in gpus {
        let Some(gpu) = gpu else { return Fit::DoesNotFit(format!("there is no Gpu {name}")) };
        match judge_one(workload, name, gpu) {
            Fit::Fits => {}
            Fit::Unknown(why) => unknown = Some(why),
            refused @ Fit::DoesNotFit(_) => return refused,
        }
    }
    unknown.map_or(Fit::Fits, Fit::Unknown)
}

fn judge_one(workload: &Workload, name: &str, gpu: &Gpu) -> Fit {
    let status = gpu.status.clone().unwrap_or_default();
    let own = |holder: &Holder| Variant::ALL.iter().any(|variant| *holder == holder_of(workload, *variant));
    // One who does not share has the whole card.
    if let Some(lease) = status.leases.iter().find(|lease| !own(&lease.holder) && lease.shared_mib.is_none()) {
        return Fit::DoesNotFit(format!("{name} is held by {}", lease.holder));
    }
    let Some(need) = workload.spec.gpu.as_ref().and_then(|g| g.memory.as_deref()).and_then(quantity::mib) else {
        return Fit::Fits;
    };
    let Some(memory) = status.memory else { return Fit::Unknown(format!("waits for a reading of {name}")) };
    let own_name = full_name(workload);
    let mut others: BTreeMap<String, u64> = BTreeMap::new();
    let mut known = 0;
    for process in &status.processes {
        let used = process.used_mib.unwrap_or_default();
        let Some(owner) = &process.workload else { continue };
        known += used;
        if *owner != own_name {
            *others.entry(owner.clone()).or_default() += used;
        }
    }
    for lease in status.leases.iter().filter(|lease| !own(&lease.holder)) {
        let granted = lease.shared_mib.unwrap_or_default();
        let held = others.entry(lease_name(&lease.holder)).or_default();
        *held = granted.max(*held);
    }
    // Strangers and what the driver itself takes may use the reserve.
    let reserve = gpu.spec.reserve.as_deref().and_then(quantity::mib).unwrap_or_default();
    let strangers = memory.used_mib.saturating_sub(known);
    let taken: u64 = others.values().sum::<u64>() + strangers.max(reserve);
    let free = memory.total_mib.saturating_sub(taken);
    if need <= free {
        return Fit::Fits;
    }
    let mut who: Vec<String> = others.iter().map(|(name, mib)| format!("{name} {mib} MiB")).collect();
    let foreign: Vec<String> = status.processes.iter().filter(|p| p.workload.is_none()).map(foreign_name).collect();
    who.extend(foreign);
    who.push(format!("reserve {reserve} MiB"));
    Fit::DoesNotFit(format!(
        "{need} MiB do not fit on {name}: {free} of {} MiB would be free beside {}",
        memory.total_mib,
        who.join(", ")
    ))
}

fn foreign_name(process: &crate::api::gpu::GpuProcess) -> String {
    let name = process.container.as_deref().or(process.name.as_deref()).unwrap_or("process");
    let used = process.used_mib.map_or_else(|| "unknown".to_owned(), |mib| format!("{mib} MiB"));
    format!("{name} (pid {}) {used}", process.pid)
}

/// As processes name their workload.
fn lease_name(holder: &Holder) -> String {
    match holder.kind {
        HolderKind::Workload => format!("{}/{}", holder.namespace, holder.name),
        HolderKind::External => holder.to_string(),
    }
}

fn full_name(workload: &Workload) -> String {
    let meta = &workload.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default())
}

pub fn holder_of(workload: &Workload, variant: Variant) -> Holder {
    let meta = &workload.metadata;
    Holder {
        name: meta.name.clone().unwrap_or_default(),
        kind: HolderKind::Workload,
        namespace: meta.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        variant,
    }
}
