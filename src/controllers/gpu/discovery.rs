//! Cards that nobody declared get a Gpu object of their own, so that they are seen and can be claimed.
//!
//! An object made here is labelled as discovered and means its card by uuid. It is a fallback: nothing is made before every
//! Source has read its files once. When somebody declares the card under another name, ours goes once nobody holds it; until then
//! it stands for the card ([`super::twins`]). When somebody declares the card under our very name, or states anything else of
//! our object, it becomes theirs: it keeps who holds it, and loses what we said of it. When the card goes, the object stays, and
//! the controller of Gpus says that the device is not found; so does whoever held it.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decide::is_elsewhere;
use crate::{
    adapters::gpus::{GpuDevice as Card, Gpus},
    api::{
        condition::READY,
        gpu::{Gpu, GpuDevice},
        label,
        source::{Source, SourceReason},
    },
    controllers::Context,
    registry::{ApiResult, ObjectName, Reason},
    runtime::{
        objects::Objects,
        supervisor::{Stage, Supervisor},
    },
};

/// Between looks. Cards rarely come.
const LOOK: Duration = Duration::from_secs(5);

/// What is to be done that cards and objects agree.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Create(Box<Gpu>),
    /// The name of an object of ours whose card somebody else declares.
    Remove(String),
    /// An object of ours that somebody states now: the label goes, and our UUID where they give an index.
    Yield(Arc<Gpu>),
}

/// Compares what is there with what is declared. Pure.
pub fn decide(cards: &[Card], declared: &[Arc<Gpu>], node: &str) -> Vec<Step> {
    let here: Vec<&Gpu> = declared.iter().map(Arc::as_ref).filter(|gpu| !is_elsewhere(gpu, node)).collect();
    let mut steps: Vec<Step> = declared
        .iter()
        .filter(|gpu| !is_elsewhere(gpu, node) && is_discovered(gpu) && is_stated(gpu))
        .map(|gpu| Step::Yield(gpu.clone()))
        .collect();
    for card in cards.iter().filter(|card| can_be_held(card, cards)) {
        let (ours, theirs): (Vec<&Gpu>, Vec<&Gpu>) =
            here.iter().filter(|gpu| means(gpu, card)).partition(|gpu| is_discovered(gpu) && !is_stated(gpu));
        if theirs.is_empty() && ours.is_empty() {
            steps.push(Step::Create(Box::new(object(card, free_name(card, declared)))));
        } else if !theirs.is_empty() {
            steps.extend(
                ours.iter().filter(|gpu| is_idle(gpu)).filter_map(|gpu| gpu.metadata.name.clone()).map(Step::Remove),
            );
        }
    }
    steps
}

/// A card that is divided can only be held in parts.
fn can_be_held(card: &Card, cards: &[Card]) -> bool {
    card.mig.is_some() || !cards.iter().any(|other| other.mig.is_some() && other.index == card.index)
}

/// An index means whole cards, and counts where there is no UUID, or where the UUID is ours.
fn means(gpu: &Gpu, card: &Card) -> bool {
    let GpuDevice { index, uuid } = &gpu.spec.device;
    let by_index = index.is_some() && (uuid.is_none() || is_discovered(gpu));
    match by_index {
        true => card.mig.is_none() && *index == Some(card.index),
        false => uuid.as_ref() == Some(&card.uuid),
    }
}

pub fn is_discovered(gpu: &Gpu) -> bool {
    gpu.metadata.labels.iter().flatten().any(|(name, value)| name == label::DISCOVERED && value == "true")
}

/// Somebody beside us has a say in the spec: a file, or a patch.
fn is_stated(gpu: &Gpu) -> bool {
    let entries = gpu.metadata.managed_fields.iter().flatten();
    let of_spec = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|f| f.0.get("f:spec").is_some()));
    let managers: BTreeSet<(&Option<String>, bool)> =
        of_spec.map(|entry| (&entry.manager, entry.operation.as_deref() == Some("Apply"))).collect();
    managers.len() > 1 || managers.iter().any(|(_, applies)| *applies)
}

/// What is ours of such an object goes; compared on its version.
fn yielding(gpu: &Gpu) -> Value {
    let version = &gpu.metadata.resource_version;
    let mut patch = json!({"metadata": {"resourceVersion": version, "labels": {label::DISCOVERED: null}}});
    if gpu.spec.device.index.is_some() {
        patch["spec"] = json!({"device": {"uuid": null}});
    }
    patch
}

/// Nobody holds it or waits for it.
fn is_idle(gpu: &Gpu) -> bool {
    gpu.spec.owner.is_none()
        && gpu.status.as_ref().is_none_or(|status| status.holder.is_none() && status.queue.is_empty())
}

/// `gpu0`, `gpu0-mig1`; with a part of the uuid where somebody has that name for something else.
fn free_name(card: &Card, declared: &[Arc<Gpu>]) -> String {
    let name = match card.mig {
        None => format!("gpu{}", card.index),
        Some(part) => format!("gpu{}-mig{part}", card.index),
    };
    if !declared.iter().any(|gpu| gpu.metadata.name.as_deref() == Some(&name)) {
        return name;
    }
    let digits: String = card.uuid.chars().skip("GPU-".len()).filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{name}-{}", digits.to_lowercase())
}

/// With every default of the kind.
fn object(card: &Card, name: String) -> Gpu {
    let spec = json!({"device": {"uuid": card.uuid}});
    let mut gpu = Gpu::new(&name, serde_json::from_value(spec).expect("a device is all that a spec needs"));
    gpu.metadata.labels = Some([(label::DISCOVERED.to_owned(), "true".to_owned())].into());
    gpu
}

/// Whether every Source has said something of its files: until then, what they declare is not known. A repository that cannot be
/// had is not waited for.
fn are_read(sources: &[Arc<Source>]) -> bool {
    let said = |source: &Source| {
        let ready = source.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == READY);
        ready.is_some_and(|ready| ready.reason != SourceReason::Fetching.as_str())
    };
    sources.iter().all(|source| source.spec.suspend || said(source))
}

struct Discovery<O> {
    objects: O,
    gpus: Arc<dyn Gpus>,
    node: String,
}

impl<O: Objects> Discovery<O> {
    async fn run(self, shutdown: CancellationToken) {
        // Sleeping and cancellation are cancel-safe; a pass that is cut off leaves whole objects.
        while shutdown.run_until_cancelled(self.pass_and_rest()).await.is_some() {}
    }

    async fn pass_and_rest(&self) {
        if let Err(error) = self.pass().await {
            warn!(%error, "discovery of GPUs failed");
        }
        tokio::time::sleep(LOOK).await;
    }

    async fn pass(&self) -> ApiResult<()> {
        // No answer says nothing about any card.
        let Ok(cards) = self.gpus.inventory().await else { return Ok(()) };
        if !are_read(&self.objects.list::<Source>(None).await?) {
            return Ok(());
        }
        for step in decide(&cards, &self.objects.list::<Gpu>(None).await?, &self.node) {
            self.take(step).await?;
        }
        Ok(())
    }

    async fn take(&self, step: Step) -> ApiResult<()> {
        match step {
            Step::Create(gpu) => {
                let made = self.objects.create(*gpu).await?;
                info!(gpu = made.metadata.name, uuid = made.spec.device.uuid, "a GPU was discovered");
            }
            Step::Remove(name) => {
                self.objects.delete::<Gpu>(&ObjectName { namespace: None, name: name.clone() }).await?;
                info!(gpu = name, "somebody declares a GPU that was discovered");
            }
            Step::Yield(gpu) => {
                let name = ObjectName { namespace: None, name: gpu.metadata.name.clone().unwrap_or_default() };
                match self.objects.merge::<Gpu>(&name, yielding(&gpu)).await {
                    Ok(_) => info!(gpu = name.name, "a GPU that was discovered is declared now"),
                    // Somebody was faster: the next look finds out.
                    Err(error) if error.reason == Reason::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Starts the task, where a driver can be asked.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let Some(gpus) = context.gpus.clone() else { return };
    let discovery = Discovery { objects: context.objects.clone(), gpus, node: context.node.clone() };
    supervisor.spawn(Stage::Controllers, "gpu-discovery", |shutdown| async move {
        discovery.run(shutdown).await;
        Ok::<(), Infallible>(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(index: u32, mig: Option<u32>, uuid: &str) -> Card {
        Card {
            index,
            uuid: uuid.to_owned(),
            mig,
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

    fn gpu(name: &str, device: serde_json::Value, discovered: bool) -> Arc<Gpu> {
        let mut gpu = Gpu::new(name, serde_json::from_value(json!({"device": device})).expect("a spec"));
        if discovered {
            gpu.metadata.labels = Some([(label::DISCOVERED.to_owned(), "true".to_owned())].into());
        }
        Arc::new(gpu)
    }

    /// `+gpu0=GPU-a` is made, `-gpu0` removed, `~gpu0` becomes somebody else's.
    fn steps(cards: &[Card], declared: &[Arc<Gpu>]) -> Vec<String> {
        let told = |step| match step {
            Step::Create(gpu) => {
                format!("+{}={}", gpu.metadata.name.expect("a name"), gpu.spec.device.uuid.expect("by uuid"))
            }
            Step::Remove(name) => format!("-{name}"),
            Step::Yield(gpu) => format!("~{}", gpu.metadata.name.as_deref().expect("a name")),
        };
        decide(cards, declared, "here").into_iter().map(told).collect()
    }

    #[test]
    fn a_card_that_nobody_declares_gets_an_object() {
        let cards = [card(0, None, "GPU-a"), card(1, None, "GPU-b")];
        assert_eq!(steps(&cards, &[]), ["+gpu0=GPU-a", "+gpu1=GPU-b"]);
        let by_index = gpu("main", json!({"index": 0}), false);
        let by_uuid = gpu("second", json!({"uuid": "GPU-b"}), false);
        assert_eq!(steps(&cards, &[by_index.clone(), by_uuid]), Vec::<String>::new());
        assert_eq!(steps(&cards, &[by_index]), ["+gpu1=GPU-b"]);
    }

    #[test]
    fn what_was_discovered_is_not_discovered_again_and_survives_its_card() {
        let known = [gpu("gpu0", json!({"uuid": "GPU-a"}), true)];
        assert_eq!(steps(&[card(0, None, "GPU-a")], &known), Vec::<String>::new());
        assert_eq!(steps(&[], &known), Vec::<String>::new());
        // Another card in its slot is another object.
        assert_eq!(steps(&[card(0, None, "GPU-BEEF-1")], &known), ["+gpu0-beef1=GPU-BEEF-1"]);
    }

    #[test]
    fn a_declaration_takes_the_place_of_a_discovery_that_nobody_holds() {
        let declared = gpu("main", json!({"index": 0}), false);
        let found = gpu("gpu0", json!({"uuid": "GPU-a"}), true);
        assert_eq!(steps(&[card(0, None, "GPU-a")], &[declared.clone(), found.clone()]), ["-gpu0"]);
        let mut held = Gpu::clone(&found);
        held.status.get_or_insert_default().holder = Some(Default::default());
        assert_eq!(steps(&[card(0, None, "GPU-a")], &[declared, Arc::new(held)]), Vec::<String>::new());
    }

    /// `gpu0`, discovered as GPU-a, after others have written of its spec.
    fn also_stated(device: Value, by: &[(&str, &str)]) -> Arc<Gpu> {
        let mut stated = Gpu::clone(&gpu("gpu0", device, true));
        let entries = [("gaia", "Update")].iter().chain(by).map(|(manager, operation)| {
            let fields = json!({"f:spec": {"f:device": {}}});
            json!({"manager": manager, "operation": operation, "fieldsV1": fields})
        });
        let entries: Vec<Value> = entries.collect();
        stated.metadata.managed_fields = serde_json::from_value(json!(entries)).expect("managed fields");
        Arc::new(stated)
    }

    #[test]
    fn what_is_declared_under_our_name_becomes_theirs_and_is_no_second_object() {
        let cards = [card(0, None, "GPU-a"), card(1, None, "GPU-b")];
        let other = gpu("gpu1", json!({"uuid": "GPU-b"}), true);
        let stated = |device, by: &[(&str, &str)]| steps(&cards, &[also_stated(device, by), other.clone()]);
        let ours = json!({"uuid": "GPU-a"});
        let both = json!({"uuid": "GPU-a", "index": 0});
        assert_eq!(stated(ours.clone(), &[]), Vec::<String>::new());
        assert_eq!(stated(both.clone(), &[("gitops", "Apply")]), ["~gpu0"], "by index");
        assert_eq!(stated(ours.clone(), &[("gitops", "Apply")]), ["~gpu0"], "by the same UUID");
        assert_eq!(stated(ours, &[("kubectl-patch", "Update")]), ["~gpu0"], "its owner, say");
        // Another card under our name: this one is then nobody's, and gets an object again.
        assert_eq!(stated(json!({"uuid": "GPU-b"}), &[("gitops", "Apply")]), ["~gpu0", "+gpu0-a=GPU-a", "-gpu1"]);
        assert_eq!(yielding(&also_stated(both, &[]))["spec"]["device"], json!({"uuid": null}));
        assert_eq!(yielding(&also_stated(json!({"uuid": "GPU-a"}), &[])).get("spec"), None);
    }

    #[test]
    fn a_divided_card_is_found_in_parts() {
        let cards = [card(0, None, "GPU-a"), card(0, Some(0), "MIG-a0"), card(0, Some(1), "MIG-a1")];
        assert_eq!(steps(&cards, &[]), ["+gpu0-mig0=MIG-a0", "+gpu0-mig1=MIG-a1"]);
    }

    #[test]
    fn cards_of_other_hosts_are_not_these() {
        let mut elsewhere = Gpu::clone(&gpu("gpu0", json!({"index": 0}), false));
        elsewhere.spec.node_name = Some("there".to_owned());
        assert_eq!(steps(&[card(0, None, "GPU-a1")], &[Arc::new(elsewhere)]), ["+gpu0-a1=GPU-a1"]);
    }

    #[test]
    fn nothing_is_made_before_the_files_were_read() {
        let source = |reason: &str, suspend: bool| {
            let mut source = Source::default();
            source.spec.suspend = suspend;
            if !reason.is_empty() {
                let said = json!({"conditions": [{"type": "Ready", "status": "True", "reason": reason,
                    "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
                source.status = Some(serde_json::from_value(said).expect("a status"));
            }
            Arc::new(source)
        };
        assert!(are_read(&[]));
        assert!(!are_read(&[source("Applied", false), source("", false)]));
        assert!(!are_read(&[source("Fetching", false)]));
        assert!(are_read(&[source("Applied", false), source("", true), source("FetchFailed", false)]));
    }
}
