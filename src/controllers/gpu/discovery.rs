//! Cards that nobody declared get a Gpu object of their own, so that they are seen and can be claimed.
//!
//! An object made here is labelled as discovered and means its card by uuid. It is a fallback: nothing is made before every
//! Source has read its files once, and when somebody declares the card under another name, ours goes. When the card goes,
//! the object stays, and the controller of Gpus says that the device is not found; so does whoever held it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decide::is_elsewhere;
use crate::{
    adapters::gpus::{GpuDevice as Card, Gpus},
    api::{gpu::Gpu, label, source::Source},
    controllers::Context,
    registry::{ApiResult, ObjectName},
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
}

/// Compares what is there with what is declared. Pure.
pub fn decide(cards: &[Card], declared: &[Arc<Gpu>], node: &str) -> Vec<Step> {
    let here: Vec<&Gpu> = declared.iter().map(Arc::as_ref).filter(|gpu| !is_elsewhere(gpu, node)).collect();
    let mut steps = Vec::new();
    for card in cards.iter().filter(|card| can_be_held(card, cards)) {
        let (ours, theirs): (Vec<&Gpu>, Vec<&Gpu>) =
            here.iter().filter(|gpu| means(gpu, card)).partition(|gpu| is_discovered(gpu));
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

/// An index means whole cards.
fn means(gpu: &Gpu, card: &Card) -> bool {
    let device = &gpu.spec.device;
    device.uuid.as_ref() == Some(&card.uuid) || (card.mig.is_none() && device.index == Some(card.index))
}

fn is_discovered(gpu: &Gpu) -> bool {
    gpu.metadata.labels.iter().flatten().any(|(name, value)| name == label::DISCOVERED && value == "true")
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
    let spec = serde_json::json!({"device": {"uuid": card.uuid}});
    let mut gpu = Gpu::new(&name, serde_json::from_value(spec).expect("a device is all that a spec needs"));
    gpu.metadata.labels = Some([(label::DISCOVERED.to_owned(), "true".to_owned())].into());
    gpu
}

/// Whether every Source has said something of its files: until then, what they declare is not known.
fn are_read(sources: &[Arc<Source>]) -> bool {
    sources
        .iter()
        .all(|source| source.spec.suspend || source.status.as_ref().is_some_and(|status| !status.conditions.is_empty()))
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
        let mut gpu = Gpu::new(name, serde_json::from_value(serde_json::json!({"device": device})).expect("a spec"));
        if discovered {
            gpu.metadata.labels = Some([(label::DISCOVERED.to_owned(), "true".to_owned())].into());
        }
        Arc::new(gpu)
    }

    /// `+gpu0=GPU-a` is made, `-gpu0` removed.
    fn steps(cards: &[Card], declared: &[Arc<Gpu>]) -> Vec<String> {
        let told = |step| match step {
            Step::Create(gpu) => {
                format!("+{}={}", gpu.metadata.name.expect("a name"), gpu.spec.device.uuid.expect("by uuid"))
            }
            Step::Remove(name) => format!("-{name}"),
        };
        decide(cards, declared, "here").into_iter().map(told).collect()
    }

    #[test]
    fn a_card_that_nobody_declares_gets_an_object() {
        let cards = [card(0, None, "GPU-a"), card(1, None, "GPU-b")];
        assert_eq!(steps(&cards, &[]), ["+gpu0=GPU-a", "+gpu1=GPU-b"]);
        let by_index = gpu("main", serde_json::json!({"index": 0}), false);
        let by_uuid = gpu("second", serde_json::json!({"uuid": "GPU-b"}), false);
        assert_eq!(steps(&cards, &[by_index.clone(), by_uuid]), Vec::<String>::new());
        assert_eq!(steps(&cards, &[by_index]), ["+gpu1=GPU-b"]);
    }

    #[test]
    fn what_was_discovered_is_not_discovered_again_and_survives_its_card() {
        let known = [gpu("gpu0", serde_json::json!({"uuid": "GPU-a"}), true)];
        assert_eq!(steps(&[card(0, None, "GPU-a")], &known), Vec::<String>::new());
        assert_eq!(steps(&[], &known), Vec::<String>::new());
        // Another card in its slot is another object.
        assert_eq!(steps(&[card(0, None, "GPU-BEEF-1")], &known), ["+gpu0-beef1=GPU-BEEF-1"]);
    }

    #[test]
    fn a_declaration_takes_the_place_of_a_discovery_that_nobody_holds() {
        let declared = gpu("main", serde_json::json!({"index": 0}), false);
        let found = gpu("gpu0", serde_json::json!({"uuid": "GPU-a"}), true);
        assert_eq!(steps(&[card(0, None, "GPU-a")], &[declared.clone(), found.clone()]), ["-gpu0"]);
        let mut held = Gpu::clone(&found);
        held.status.get_or_insert_default().holder = Some(Default::default());
        assert_eq!(steps(&[card(0, None, "GPU-a")], &[declared, Arc::new(held)]), Vec::<String>::new());
    }

    #[test]
    fn a_divided_card_is_found_in_parts() {
        let cards = [card(0, None, "GPU-a"), card(0, Some(0), "MIG-a0"), card(0, Some(1), "MIG-a1")];
        assert_eq!(steps(&cards, &[]), ["+gpu0-mig0=MIG-a0", "+gpu0-mig1=MIG-a1"]);
    }

    #[test]
    fn cards_of_other_hosts_are_not_these() {
        let mut elsewhere = Gpu::clone(&gpu("gpu0", serde_json::json!({"index": 0}), false));
        elsewhere.spec.node_name = Some("there".to_owned());
        assert_eq!(steps(&[card(0, None, "GPU-a1")], &[Arc::new(elsewhere)]), ["+gpu0-a1=GPU-a1"]);
    }

    #[test]
    fn nothing_is_made_before_the_files_were_read() {
        let source = |conditions: bool, suspend: bool| {
            let mut source = Source::default();
            source.spec.suspend = suspend;
            if conditions {
                let said = serde_json::json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Applied",
                    "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
                source.status = Some(serde_json::from_value(said).expect("a status"));
            }
            Arc::new(source)
        };
        assert!(are_read(&[]));
        assert!(!are_read(&[source(true, false), source(false, false)]));
        assert!(are_read(&[source(true, false), source(false, true)]));
    }
}
