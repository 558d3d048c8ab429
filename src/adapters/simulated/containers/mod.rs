//! A container engine made of memory: behaves like Docker as far as [`Containers`](crate::adapters::containers::Containers)
//! can tell, fails on demand in every way Docker can, and lets hands other than ours meddle. Deterministic: the same
//! calls at the same times give the same ids, addresses and events.

mod events;
mod faults;
mod human;
mod images;
mod lifecycle;
mod machine;
mod networks;
#[cfg(test)]
mod tests;
mod verbs;
mod vram;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

pub use faults::{CardFault, Delivery, Effect, EffectRecord, Fault, Faults, NoFaults, PeerFault};
pub use images::{Behaviour, Image, Images, Presence};
use machine::{Due, Held, Machine, Moment};
pub use vram::Resident;
pub(in crate::adapters::simulated) use vram::{Asked, Wish};

use crate::{
    adapters::containers::{Container, ContainerId, EngineEvent},
    api::container::ContainerSpec,
    runtime::clock::Clock,
};

/// The engine. Clones are handles on the same one.
#[derive(Clone)]
pub struct SimulatedContainers {
    shared: Arc<Shared>,
}

struct Shared {
    machine: Mutex<Machine>,
    /// Apart from the machine, so that a hook may look at it.
    faults: Mutex<Box<dyn Faults>>,
    clock: Arc<dyn Clock>,
    /// Moves with every change, for whoever waits for one.
    changed: watch::Sender<u64>,
    crashes: watch::Sender<u64>,
}

impl SimulatedContainers {
    /// Empty but for the images. Timestamps come from `clock`, processes live by tokio's (also paused) time.
    pub fn new(clock: Arc<dyn Clock>, images: Images) -> Self {
        let shared = Shared {
            machine: Mutex::new(Machine::new(images)),
            faults: Mutex::new(Box::new(NoFaults)),
            clock,
            changed: watch::Sender::new(0),
            crashes: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A copy of what a real engine showed: the same containers in the same states, on the same networks, and `images`
    /// beside the ones they were made from. What runs goes on running. For `gaia plan`.
    pub fn from_observed(clock: Arc<dyn Clock>, observed: Vec<Container>, mut images: Images) -> Self {
        for container in &observed {
            if images.get(&container.image).is_none() {
                images = images.with(&container.image, Image::present(Behaviour::default()));
            }
            images.set_present(&container.image);
        }
        let engine = Self::new(clock, images);
        let mut machine = engine.lock();
        for seen in observed {
            for attachment in &seen.attachments {
                machine.ensure_network(&attachment.network);
            }
            let ready = machine::is_alive(seen.state);
            machine.containers.insert(seen.id.clone(), Held { ready, ..Held::new(seen, None) });
        }
        drop(machine);
        engine
    }

    pub fn set_faults(&self, faults: impl Faults + 'static) {
        *self.shared.faults.lock().expect("no hook panicked") = Box::new(faults);
    }

    /// Moves when a [`Fault::Crash`] struck: whoever plays the process drops its tasks then.
    pub fn crashes(&self) -> watch::Receiver<u64> {
        self.shared.crashes.subscribe()
    }

    /// Everything that was changed through the verbs, oldest first (the last 10 000).
    pub fn effects(&self) -> Vec<EffectRecord> {
        self.lock().records.iter().cloned().collect()
    }

    /// The truth, for oracles: every container by id, with no fault and also while the engine is down.
    pub fn observed(&self) -> Vec<Container> {
        let now = self.now();
        let mut machine = self.lock();
        machine.advance(now);
        machine.containers.values().map(|held| held.seen.clone()).collect()
    }

    /// Whether the process in the container answers probes now. `None`: there is no such container.
    pub fn answers(&self, id: &ContainerId) -> Option<bool> {
        let now = self.now();
        let mut machine = self.lock();
        machine.advance(now);
        machine.containers.get(id).map(Held::answers)
    }

    /// What each container was made from. Those that were found are left out.
    pub(in crate::adapters::simulated) fn specs(&self) -> Vec<(Container, ContainerSpec)> {
        let now = self.now();
        let mut machine = self.lock();
        machine.advance(now);
        let made = machine.containers.values().filter_map(|held| Some((held, held.spec.clone()?)));
        made.map(|(held, spec)| (held.seen.clone(), spec)).collect()
    }

    fn now(&self) -> Moment {
        Moment { instant: Instant::now(), timestamp: self.shared.clock.now() }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.shared.machine.lock().expect("nothing panics while it holds the machine")
    }

    fn faults(&self) -> MutexGuard<'_, Box<dyn Faults>> {
        self.shared.faults.lock().expect("no hook panicked")
    }

    /// One step of the machine at the time it is, and the delivery of what it told.
    fn step<T>(&self, act: impl FnOnce(&mut Machine, Moment) -> T) -> T {
        let now = self.now();
        let (result, told) = {
            let mut machine = self.lock();
            machine.advance(now);
            let result = act(&mut machine, now);
            (result, std::mem::take(&mut machine.outbox))
        };
        for event in told {
            self.deliver(event, now);
        }
        result
    }

    /// [`Self::step`] for what may change something: whoever waits is woken.
    fn change<T>(&self, act: impl FnOnce(&mut Machine, Moment) -> T) -> T {
        let result = self.step(act);
        self.shared.changed.send_modify(|count| *count += 1);
        result
    }

    fn deliver(&self, event: EngineEvent, now: Moment) {
        let delivery = self.faults().notification(&event);
        let mut machine = self.lock();
        match delivery {
            Delivery::Deliver => machine.events.push(event),
            Delivery::Hide => {}
            Delivery::Duplicate => {
                machine.events.push(event.clone());
                machine.events.push(event);
            }
            Delivery::Delay(by) => machine.schedule(now, by, Due::Deliver(event)),
        }
    }

    /// What the next look at a card comes to. Takes as long as the look does.
    pub(in crate::adapters::simulated) async fn look_at_cards(&self) -> CardFault {
        let fault = self.faults().cards();
        match fault {
            CardFault::Hang => std::future::pending().await,
            CardFault::Slow(by) => tokio::time::sleep(by).await,
            CardFault::Crash => self.crash().await,
            CardFault::None | CardFault::Refuse | CardFault::Lost | CardFault::Untold => {}
        }
        fault
    }

    /// Waits until `look` finds what it looks for. Its caller sees to it that this comes to pass.
    async fn wait_for<T>(&self, mut look: impl FnMut(&mut Machine) -> Option<T>) -> T {
        let mut changes = self.shared.changed.subscribe();
        loop {
            changes.mark_unchanged();
            // What fell due is told first, so that the look sees its events.
            self.step(|_, _| ());
            let (found, due) = {
                let mut machine = self.lock();
                (look(&mut machine), machine.next_due())
            };
            if let Some(found) = found {
                return found;
            }
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // Both arms only wait: nothing is lost when one is dropped.
            tokio::select! {
                biased;
                changed = changes.changed() => changed.expect("the sender lives in `self`"),
                () = timer => {}
            }
        }
    }
}
