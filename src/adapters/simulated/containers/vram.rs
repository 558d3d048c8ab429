//! What processes hold of the cards: taken at the start or on request, let go of on request or by dying. Memory that was let
//! go of is free only when it has drained.

use std::time::Duration;

use super::{
    Behaviour, Effect, PeerFault, SimulatedContainers,
    machine::{Due, Machine, Moment, is_alive},
};
use crate::{
    adapters::containers::{ContainerId, ContainerState},
    api::container::Gpus,
};

/// Memory of cards as a driver would show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resident {
    /// None: a process outside of any container.
    pub container: Option<ContainerId>,
    pub name: String,
    /// None: the process is gone, and its memory not yet.
    pub pid: Option<u32>,
    pub cards: Gpus,
    pub mib: u64,
}

/// What a request wants of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters::simulated) enum Wish {
    LetGo,
    Take,
    /// Only an answer.
    Nothing,
}

/// How a request ended for the one who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters::simulated) enum Asked {
    /// 2xx. `holds`: it has memory of a card now.
    Answered {
        holds: bool,
    },
    Refused,
    Silent,
}

/// Memory that nobody needs and that is not free yet.
#[derive(Debug)]
pub(super) struct Lingering {
    resident: Resident,
    run: u64,
    serial: u64,
}

impl Machine {
    /// The process takes what its image takes. Whether that is something new.
    pub fn take_cards(&mut self, id: &ContainerId) -> bool {
        let Some(held) = self.containers.get(id) else { return false };
        let wants = held.spec.as_ref().is_some_and(|spec| spec.gpus.is_some());
        let mib = self.behaviour(&held.seen.image).gpu_memory_mib;
        let Some(held) = self.containers.get_mut(id).filter(|held| wants && is_alive(held.seen.state)) else {
            return false;
        };
        let before = std::mem::replace(&mut held.gpu_mib, mib);
        before != mib
    }

    /// The process lets go of all but what it cannot do without.
    pub fn let_cards_go(&mut self, id: &ContainerId, now: Moment) -> bool {
        let Some(held) = self.containers.get(id) else { return false };
        let Behaviour { asleep_mib, drains, .. } = self.behaviour(&held.seen.image);
        let freed = held.gpu_mib.saturating_sub(asleep_mib);
        self.linger(id, freed, true, drains, now);
        if let Some(held) = self.containers.get_mut(id) {
            held.gpu_mib -= freed;
        }
        freed > 0
    }

    /// The process is gone; an orphan of it may be there still.
    pub fn leave_cards(&mut self, id: &ContainerId, now: Moment) {
        let Some(held) = self.containers.get(id) else { return };
        let Behaviour { drains, orphan, .. } = self.behaviour(&held.seen.image);
        let (run, mib) = (held.run, held.gpu_mib);
        for left in self.lingering.iter_mut().filter(|left| left.run == run) {
            if left.resident.container.as_ref() == Some(id) && orphan.is_none() {
                left.resident.pid = None;
            }
        }
        self.linger(id, mib, orphan.is_some(), orphan.unwrap_or(drains), now);
        if let Some(held) = self.containers.get_mut(id) {
            held.gpu_mib = 0;
        }
    }

    fn linger(&mut self, id: &ContainerId, mib: u64, process: bool, lasts: Duration, now: Moment) {
        let Some(held) = self.containers.get(id) else { return };
        let Some(resident) = held.resident(mib, process) else { return };
        if lasts.is_zero() {
            return;
        }
        let (run, serial) = (held.run, self.next_serial());
        self.lingering.push(Lingering { resident, run, serial });
        self.schedule(now, lasts, Due::Drained { serial });
    }

    pub fn drained(&mut self, serial: u64) {
        self.lingering.retain(|left| left.serial != serial);
    }

    fn residents(&self) -> Vec<Resident> {
        let alive = self.containers.values().filter(|held| is_alive(held.seen.state));
        let living = alive.filter_map(|held| held.resident(held.gpu_mib, true));
        let left = self.lingering.iter().map(|left| left.resident.clone());
        let strangers = self.strangers.iter().map(|(name, (pid, cards, mib))| Resident {
            container: None,
            name: name.clone(),
            pid: Some(*pid),
            cards: cards.clone(),
            mib: *mib,
        });
        living.chain(left).chain(strangers).collect()
    }
}

impl super::machine::Held {
    /// `mib` of the cards that it was given, if that is anything.
    fn resident(&self, mib: u64, process: bool) -> Option<Resident> {
        let cards = self.spec.as_ref()?.gpus.clone()?;
        let (container, name) = (Some(self.seen.id.clone()), self.seen.name.clone());
        (mib > 0).then(|| Resident { container, name, pid: process.then_some(self.pid), cards, mib })
    }
}

impl SimulatedContainers {
    /// The truth, also for oracles: whoever has memory of a card, or has left some.
    pub fn residents(&self) -> Vec<Resident> {
        let now = self.now();
        let mut machine = self.lock();
        machine.advance(now);
        machine.residents()
    }

    /// A process outside of any container takes so much of the cards; 0: it ends.
    pub fn use_cards_by_hand(&self, name: &str, cards: Gpus, mib: u64) {
        self.change(|machine, _| {
            let pid = machine.next_pid();
            match mib {
                0 => machine.strangers.remove(name),
                _ => machine.strangers.insert(name.to_owned(), (pid, cards, mib)),
            }
        });
    }

    /// A request to the process in a container. Ends within `timeout`.
    pub(in crate::adapters::simulated) async fn ask(
        &self,
        id: &ContainerId,
        path: &str,
        wish: Wish,
        timeout: Duration,
    ) -> Asked {
        let name = self.name_of(id);
        let fault = self.faults().ask(&name, path);
        match fault {
            PeerFault::Refuse => return Asked::Refused,
            PeerFault::Lie => return Asked::Answered { holds: false },
            PeerFault::Hang => {
                tokio::time::sleep(timeout).await;
                return Asked::Silent;
            }
            PeerFault::Slow(by) => tokio::time::sleep(by.min(timeout)).await,
            PeerFault::Crash => self.crash().await,
            PeerFault::None | PeerFault::LoseAnswer => {}
        }
        let effect = Effect::Ask { name, path: path.to_owned() };
        let answered = self.change(|machine, now| {
            let held = machine.containers.get(id).filter(|held| held.answers())?;
            debug_assert_eq!(held.seen.state, ContainerState::Running, "nothing else answers");
            let changed = match wish {
                Wish::LetGo => machine.let_cards_go(id, now),
                Wish::Take => machine.take_cards(id),
                Wish::Nothing => false,
            };
            if changed {
                machine.record(&effect, now);
            }
            machine.containers.get(id).map(|held| held.gpu_mib > 0)
        });
        match (answered, fault) {
            (None, _) | (_, PeerFault::LoseAnswer) => Asked::Silent,
            (Some(holds), _) => Asked::Answered { holds },
        }
    }
}
