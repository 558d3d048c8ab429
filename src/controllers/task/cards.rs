//! A task that asks for GPUs holds them while it runs: it claims them as anybody else does, by a `GpuClaim`, before it goes to a worker,
//! and gives them back after. So it borrows a card from idle inference, and inference gets it back.
//!
//! Only where a worker's cards are Gpus of ours, by their uuid; what a worker elsewhere has is its own. A document can say no
//! (`metadata.annotations`, `gaia.dev/gpu-claim: "false"`). Who gets which card, and when, is the business of the cards' controllers:
//! here a claim is made, read, and deleted. It is named after its task, so that making it again makes none twice, and is owned by it, so
//! that it goes with it.
//!
//! A claim lives from when the task has found a worker to when the task neither is with one nor seeks one. A worker is not kept
//! while a card is waited for: another task may have it until then.

use std::collections::{BTreeMap, BTreeSet};

use futures::future;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt, runtime::watcher::Event};
use tracing::{info, warn};

use super::{
    LOOK, Tasks,
    view::{Key, View, object_name},
};
use crate::{
    api::{
        gpu::{Gpu, Holder, HolderKind},
        gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimSpec},
        task::Task,
        worker::WorkerHardware,
    },
    mloc::needs::{GpuNeeds, Needs},
    runtime::objects::Objects,
};

/// On a document's metadata: `false` for a task that is not to claim the cards it runs on.
const CLAIM: &str = "gaia.dev/gpu-claim";
/// Before the task's name, so that nobody's claim is taken for a task's.
const PREFIX: &str = "task-";

/// A card of ours.
#[derive(Debug, Clone, PartialEq)]
struct Card {
    name: String,
    product: Option<String>,
    memory_mib: Option<u64>,
}

/// A task's claim as it stands.
#[derive(Debug, Clone, PartialEq)]
enum Claimed {
    /// Why not yet.
    Waiting(String),
    /// By the names of their Gpus.
    Granted(BTreeSet<String>),
    /// It has lapsed, or went to another.
    Over,
}

/// The cards that are ours, and what tasks have claimed of them.
#[derive(Debug, Default)]
pub struct Cards {
    /// By uuid.
    known: BTreeMap<String, Card>,
    claims: BTreeMap<Key, Claimed>,
    listed: BTreeSet<Key>,
    pub unknown: Unknown,
}

/// Which of the watches have not told everything yet.
#[derive(Debug, Clone, Copy)]
pub struct Unknown {
    cards: bool,
    claims: bool,
}

impl Default for Unknown {
    fn default() -> Self {
        Self { cards: true, claims: true }
    }
}

impl Unknown {
    pub fn any(self) -> bool {
        self.cards || self.claims
    }
}

/// Whether a task may go to a worker, as far as cards are concerned.
#[derive(Debug, Clone, PartialEq)]
pub enum Right {
    /// To any that fits.
    Free,
    /// Nowhere, and why.
    Waits(String),
    /// To workers that have these cards.
    Holds(BTreeSet<String>),
}

impl Cards {
    pub fn take_card(&mut self, event: Event<Gpu>) {
        match event {
            Event::Init => self.known.clear(),
            Event::InitDone => self.unknown.cards = false,
            Event::InitApply(gpu) | Event::Apply(gpu) => {
                let name = gpu.name_any();
                self.known.retain(|_, card| card.name != name);
                let status = gpu.status.unwrap_or_default();
                if let Some(uuid) = status.uuid.filter(|_| gpu.spec.lend) {
                    let memory_mib = status.memory.map(|memory| memory.total_mib);
                    self.known.insert(uuid, Card { name, product: status.product, memory_mib });
                }
            }
            Event::Delete(gpu) => self.known.retain(|_, card| card.name != gpu.name_any()),
        }
    }

    pub fn take_claim(&mut self, event: Event<GpuClaim>) -> Option<Key> {
        match event {
            Event::Init => {
                self.listed.clear();
                None
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.claims.retain(|key, _| listed.contains(key));
                self.unknown.claims = false;
                None
            }
            Event::InitApply(claim) => {
                let key = self.put(&claim)?;
                self.listed.insert(key.clone());
                Some(key)
            }
            Event::Apply(claim) => self.put(&claim),
            Event::Delete(claim) => {
                let key = task_of(&claim)?;
                self.claims.remove(&key);
                Some(key)
            }
        }
    }

    fn put(&mut self, claim: &GpuClaim) -> Option<Key> {
        let key = task_of(claim)?;
        let status = claim.status.clone().unwrap_or_default();
        let over = status.phase.is_terminal() || claim.metadata.deletion_timestamp.is_some();
        let claimed = match status.phase {
            _ if over => Claimed::Over,
            GpuClaimPhase::Granted => Claimed::Granted(status.gpus.into_iter().collect()),
            _ => Claimed::Waiting(waits(claim)),
        };
        self.claims.insert(key.clone(), claimed);
        Some(key)
    }

    pub fn right(&self, key: &Key) -> Right {
        match self.claims.get(key) {
            None => Right::Free,
            Some(Claimed::Waiting(why)) => Right::Waits(why.clone()),
            Some(Claimed::Granted(cards)) => Right::Holds(cards.clone()),
            Some(Claimed::Over) => Right::Waits("its claim on a GPU is over; another one is made".to_owned()),
        }
    }

    /// Tasks that have claimed cards, whatever became of that.
    pub fn claimants(&self) -> impl Iterator<Item = &Key> {
        self.claims.keys()
    }

    /// The uuids of the cards that a task holds.
    pub fn held(&self, key: &Key) -> Vec<String> {
        let Some(Claimed::Granted(names)) = self.claims.get(key) else { return Vec::new() };
        self.known.iter().filter(|(_, card)| names.contains(&card.name)).map(|(uuid, _)| uuid.clone()).collect()
    }

    /// A worker has all of these cards.
    pub fn has(&self, hardware: &WorkerHardware, cards: &BTreeSet<String>) -> bool {
        let own: BTreeSet<&String> = self.ours(hardware).map(|card| &card.name).collect();
        cards.iter().all(|card| own.contains(card))
    }

    fn ours<'c>(&'c self, hardware: &'c WorkerHardware) -> impl Iterator<Item = &'c Card> {
        hardware.gpus.iter().filter_map(|gpu| self.known.get(gpu.uuid.as_ref()?))
    }

    /// The claim that a task must hold to run there. None: none.
    pub fn needed(&self, task: &Task, needs: Option<&GpuNeeds>, hardware: &WorkerHardware) -> Option<GpuClaim> {
        let needs = needs.filter(|_| !declines(task))?;
        let count = needs.count.max(1);
        let good = |card: &&Card| {
            let named = needs.product.as_ref().zip(card.product.as_ref());
            let large = needs.memory_bytes.zip(card.memory_mib);
            named.is_none_or(|(wanted, product)| product.to_lowercase().contains(wanted))
                && large.is_none_or(|(wanted, mib)| wanted <= mib << 20)
        };
        let ours: Vec<&Card> = self.ours(hardware).filter(good).collect();
        if ours.len() < count as usize {
            return None;
        }
        // Any of them will do where all that there are would; else one that does.
        let any = ours.len() == self.known.len() || count > 1;
        let name = task.metadata.name.clone()?;
        let mib = needs.memory_bytes.map_or(1, |bytes| bytes.div_ceil(1 << 20));
        let namespace = task.metadata.namespace.clone().unwrap_or_default();
        let spec = GpuClaimSpec {
            gpu: (!any).then(|| ours[0].name.clone()),
            memory: any.then(|| format!("{mib}Mi")),
            count,
            holder: Holder { name: name.clone(), kind: HolderKind::External, namespace, ..Holder::default() },
            reason: format!("task {}", task.spec.document.metadata.name).chars().take(1024).collect(),
            priority: task.spec.priority,
            ..GpuClaimSpec::default()
        };
        let mut claim = GpuClaim::new(&format!("{PREFIX}{name}"), spec);
        claim.metadata = ObjectMeta {
            namespace: task.metadata.namespace.clone(),
            owner_references: task.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..claim.metadata
        };
        Some(claim)
    }

    /// The cards that a task holds are of no use to it: they are given back, and others claimed.
    pub fn give_up(&mut self, key: &Key) {
        if let Some(claimed) = self.claims.get_mut(key) {
            *claimed = Claimed::Over;
        }
    }

    /// Of claims whose tasks do not run and do not seek either.
    pub fn idle(&self, view: &View) -> Vec<Key> {
        let wanted = |key: &Key| {
            let over = self.claims.get(key) == Some(&Claimed::Over);
            !over && (view.queue().get(key).is_some() || view.is_at_work_on(key))
        };
        self.claims.keys().filter(|key| !wanted(key)).cloned().collect()
    }
}

fn declines(task: &Task) -> bool {
    let annotations = task.spec.document.metadata.rest.get("annotations");
    annotations.and_then(|all| all.get(CLAIM)).is_some_and(|says| says == "false" || says == false)
}

/// The task a claim was made for.
fn task_of(claim: &GpuClaim) -> Option<Key> {
    let owner = claim.metadata.owner_references.iter().flatten().find(|owner| owner.kind == Task::kind(&()))?;
    let named = claim.metadata.name.as_deref()?.strip_prefix(PREFIX)?;
    (named == owner.name).then(|| (claim.metadata.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

fn waits(claim: &GpuClaim) -> String {
    let status = claim.status.as_ref();
    let place = status.and_then(|status| status.position).map(|place| format!(" ({place} in the queue)"));
    let told = status.and_then(|status| status.conditions.first()).map(|condition| condition.message.as_str());
    format!("GPU: {}{}", told.unwrap_or("its claim was made"), place.unwrap_or_default())
}

impl<O: Objects> Tasks<O> {
    /// It would run on cards of ours there, and does not hold them: their claim has ended, or is gone.
    pub(super) fn lacks_cards(&self, key: &Key, worker: &str) -> bool {
        let Some((task, hand)) = self.view.task(key).zip(self.view.worker(worker)) else { return false };
        let needs = Needs::of(&task.spec.document.spec, self.reality.settings.reading);
        let needed = self.view.cards.needed(task, needs.gpu.as_ref(), &hand.hardware).is_some();
        needed && !matches!(self.view.cards.right(key), Right::Holds(_))
    }

    /// Makes claims. A task whose claim cannot be made is looked at again.
    pub(super) async fn claim(&mut self, wanted: Vec<(Key, GpuClaim)>) {
        let making = wanted.into_iter().map(|(key, claim)| async { (key, self.objects.create(claim).await) });
        for (key, made) in future::join_all(making).await {
            match made {
                Ok(claim) => {
                    info!(task = key.1, "it claims GPUs");
                    self.view.cards.put(&claim);
                }
                Err(error) => {
                    warn!(task = key.1, %error, "a task's claim on GPUs cannot be made");
                    self.retries.insert(key, self.clock.now() + LOOK);
                }
            }
        }
    }

    /// Gives back what is not needed any more.
    pub(super) async fn give_back(&mut self) {
        for key in self.view.cards.idle(&self.view) {
            let name = object_name(&(key.0.clone(), format!("{PREFIX}{}", key.1)));
            match self.objects.delete::<GpuClaim>(&name).await {
                Ok(()) => {
                    info!(task = key.1, "it gives its GPUs back");
                    self.view.cards.claims.remove(&key);
                    // It may seek already, and need another one.
                    self.dirty.insert(key);
                }
                Err(error) => {
                    warn!(task = key.1, %error, "a task's claim on GPUs cannot be given back yet");
                    self.retries.insert(key, self.clock.now() + LOOK);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        gpu::{GpuMemory, GpuSpec, GpuStatus},
        gpuclaim::GpuClaimStatus,
        task::TaskSpec,
        worker::WorkerGpu,
    };

    fn gpu(name: &str, uuid: &str) -> Gpu {
        let mut gpu = Gpu::new(name, GpuSpec { lend: true, ..GpuSpec::default() });
        let memory = GpuMemory { total_mib: 24_000, ..GpuMemory::default() };
        gpu.status = Some(GpuStatus {
            uuid: Some(uuid.to_owned()),
            product: Some("NVIDIA RTX 4090".to_owned()),
            memory: Some(memory),
            ..GpuStatus::default()
        });
        gpu
    }

    fn cards(gpus: &[Gpu]) -> Cards {
        let mut cards = Cards::default();
        gpus.iter().for_each(|gpu| cards.take_card(Event::Apply(gpu.clone())));
        cards
    }

    fn hardware(uuids: &[&str]) -> WorkerHardware {
        let card = |uuid: &&str| WorkerGpu { uuid: Some((*uuid).to_owned()), ..WorkerGpu::default() };
        WorkerHardware { gpus: uuids.iter().map(card).collect(), ..WorkerHardware::default() }
    }

    fn task() -> Task {
        let mut task = Task::new("t", TaskSpec { priority: 7, ..TaskSpec::default() });
        task.metadata.namespace = Some("default".to_owned());
        task.metadata.uid = Some("u".to_owned());
        task
    }

    fn one() -> GpuNeeds {
        GpuNeeds { count: 1, ..GpuNeeds::default() }
    }

    #[test]
    fn only_cards_of_ours_are_claimed_and_one_that_does_is_named() {
        let both = cards(&[gpu("gpu0", "GPU-0"), gpu("gpu1", "GPU-1")]);
        let claim = both.needed(&task(), Some(&one()), &hardware(&["GPU-0", "GPU-1"])).expect("a claim");
        assert_eq!((&claim.spec.gpu, claim.spec.memory.as_deref(), claim.spec.count), (&None, Some("1Mi"), 1));
        assert_eq!((claim.spec.priority, claim.metadata.name.as_deref()), (7, Some("task-t")));
        let claim = both.needed(&task(), Some(&one()), &hardware(&["GPU-1"])).expect("a claim");
        assert_eq!((claim.spec.gpu.as_deref(), &claim.spec.memory), (Some("gpu1"), &None));
        let two = GpuNeeds { count: 2, memory_bytes: Some(20 << 30), ..GpuNeeds::default() };
        let claim = both.needed(&task(), Some(&two), &hardware(&["GPU-0", "GPU-1"])).expect("a claim");
        assert_eq!((claim.spec.count, claim.spec.memory.as_deref()), (2, Some("20480Mi")));
        let large = GpuNeeds { memory_bytes: Some(80 << 30), ..one() };
        assert_eq!(both.needed(&task(), Some(&large), &hardware(&["GPU-0"])), None, "it does not fit on ours");
        assert_eq!(both.needed(&task(), Some(&one()), &hardware(&["GPU-9"])), None, "another host's");
        assert_eq!(both.needed(&task(), None, &hardware(&["GPU-0"])), None, "it asks for none");
        let mut unwilling = task();
        let annotations = serde_json::json!({CLAIM: "false"});
        unwilling.spec.document.metadata.rest.insert("annotations".to_owned(), annotations);
        assert_eq!(both.needed(&unwilling, Some(&one()), &hardware(&["GPU-0"])), None);
    }

    #[test]
    fn a_claim_says_what_its_task_may_do() {
        let mut cards = cards(&[gpu("gpu0", "GPU-0")]);
        let key = ("default".to_owned(), "t".to_owned());
        let mut claim = cards.needed(&task(), Some(&one()), &hardware(&["GPU-0"])).expect("a claim");
        assert_eq!(cards.right(&key), Right::Free);
        let mut become_of = |phase, gpus: &[&str]| {
            let gpus = gpus.iter().map(|gpu| (*gpu).to_owned()).collect();
            claim.status = Some(GpuClaimStatus { phase, gpus, position: Some(2), ..GpuClaimStatus::default() });
            assert_eq!(cards.take_claim(Event::Apply(claim.clone())), Some(key.clone()));
            cards.right(&key)
        };
        let waits = Right::Waits("GPU: its claim was made (2 in the queue)".to_owned());
        assert_eq!(become_of(GpuClaimPhase::Pending, &[]), waits);
        let granted = BTreeSet::from(["gpu0".to_owned()]);
        assert_eq!(become_of(GpuClaimPhase::Granted, &["gpu0"]), Right::Holds(granted.clone()));
        assert!(matches!(become_of(GpuClaimPhase::Released, &[]), Right::Waits(_)));
        assert!(cards.has(&hardware(&["GPU-0"]), &granted) && !cards.has(&hardware(&["GPU-1"]), &granted));
        assert_eq!(cards.idle(&View::default()), std::slice::from_ref(&key), "nobody knows its task");
        // Somebody else's claim is none of ours.
        let mut foreign = claim.clone();
        foreign.metadata.name = Some("mine".to_owned());
        assert_eq!(cards.take_claim(Event::Apply(foreign)), None);
        assert_eq!(cards.take_claim(Event::Delete(claim)), Some(key.clone()));
        assert_eq!(cards.right(&key), Right::Free);
    }
}
